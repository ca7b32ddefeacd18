"""The portal: promises about threads, forks, signals and the end of the interpreter. Whatever may hang or
kill a process runs in one of its own."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import AsyncIterator, Iterator

import pytest

from polyvox import portal
from polyvox.errors import CallCancelledError, RateLimitError, UsageError

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture(autouse=True)
def fresh_portal() -> Iterator[None]:
    yield
    portal.close()


async def where_am_i() -> str:
    return threading.current_thread().name


def script(text: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, warnings being errors; 20 seconds are a hang."""
    command = [sys.executable, "-W", "error", "-X", "dev", *flags, "-c", textwrap.dedent(text)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_a_plain_script_gets_its_result_and_ends_quietly() -> None:
    done = script(
        """
        import asyncio
        from polyvox import portal
        async def answer():
            await asyncio.sleep(0.01)
            return 42
        print(portal.run(answer()))
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "42\n", "")


def test_importing_starts_no_thread_and_the_first_call_starts_one() -> None:
    done = script(
        """
        import threading
        from polyvox import portal
        async def nothing(): pass
        print(threading.active_count())
        portal.run(nothing()); portal.run(nothing())
        print(threading.active_count())
        """
    )
    assert (done.stdout, done.stderr) == ("1\n2\n", "")


def test_it_works_on_the_standard_loop_where_uvloop_is_missing() -> None:
    done = script(
        """
        import sys
        sys.modules["uvloop"] = None
        import asyncio
        from polyvox import portal
        async def which(): return type(asyncio.get_running_loop()).__module__.split(".")[0]
        print(portal.run(which()))
        """
    )
    assert (done.stdout, done.stderr) == ("asyncio\n", "")


def test_32_threads_at_once_each_get_their_own_result() -> None:
    results: dict[int, list[int]] = {}

    async def double(number: int) -> int:
        await asyncio.sleep(0.001)
        return 2 * number

    def work(number: int) -> None:
        results[number] = [portal.run(double(number * 100 + turn)) for turn in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == {n: [2 * (n * 100 + turn) for turn in range(20)] for n in range(32)}


def test_all_calls_share_one_thread_that_is_not_the_callers() -> None:
    assert {portal.run(where_am_i()) for _ in range(5)} == {"polyvox-portal"}


def test_a_call_under_a_running_loop_blocks_that_loop_and_returns() -> None:
    async def cell() -> str:
        return portal.run(where_am_i())

    assert asyncio.run(cell()) == "polyvox-portal"


def test_a_call_from_the_portals_own_thread_is_refused_before_it_can_hang() -> None:
    async def outer() -> str:
        return portal.run(where_am_i())

    with pytest.raises(UsageError, match="wait for itself") as caught:
        portal.run(outer())
    assert caught.value.hint is not None and "AsyncClient" in caught.value.hint
    assert portal.run(where_am_i()) == "polyvox-portal"


def test_context_variables_of_the_caller_are_seen_inside_and_not_changed_from_there() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def read_and_change() -> str:
        seen = variable.get()
        variable.set("inside")
        return seen

    variable.set("outside")
    assert portal.run(read_and_change()) == "outside"
    assert variable.get() == "outside"


def test_an_error_keeps_its_type_its_identity_and_the_line_it_came_from() -> None:
    error = RateLimitError("slow down", retry_after=3)

    async def failing_function() -> None:
        raise error

    with pytest.raises(RateLimitError) as caught:
        portal.run(failing_function())
    assert caught.value is error
    assert "failing_function" in "".join(traceback.format_tb(error.__traceback__))


def test_a_coroutine_that_ends_cancelled_is_an_error_of_our_tree() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(CallCancelledError):
        portal.run(cancelled())


def test_even_system_exit_reaches_the_caller_and_leaves_the_loop_running() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        portal.run(leave())
    assert portal.run(where_am_i()) == "polyvox-portal"


def test_close_cancels_a_waiting_call_and_the_next_call_starts_anew() -> None:
    ended: list[BaseException] = []
    begun = threading.Event()

    async def forever() -> None:
        begun.set()
        await asyncio.sleep(3600)

    def wait() -> None:
        try:
            portal.run(forever())
        except CallCancelledError as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert begun.wait(5)
    portal.close()
    thread.join(5)
    assert len(ended) == 1
    assert portal.run(where_am_i()) == "polyvox-portal"


def test_close_runs_the_finally_of_generators_left_open() -> None:
    closed = threading.Event()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.set()

    async def first(source: AsyncIterator[int]) -> int:
        return await anext(source)

    generator = numbers()
    assert portal.run(first(generator)) == 1
    portal.close()
    assert closed.is_set()


FORK = """
    import os, sys, threading, asyncio
    from polyvox import portal
    async def pid():
        await asyncio.sleep(0.01)
        return os.getpid()
    {before}
    child = os.fork()
    if child == 0:
        ok = portal.run(pid()) == os.getpid() and threading.active_count() == 2
        {leave}(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print(portal.run(pid()) == os.getpid())
"""


@needs_fork
@pytest.mark.parametrize("leave", ["os._exit", "sys.exit"])
@pytest.mark.parametrize("before", ["", "portal.run(pid())"], ids=["before first use", "after first use"])
def test_a_forked_child_starts_a_loop_of_its_own_and_the_parent_keeps_its_own(before: str, leave: str) -> None:
    # From Python 3.12 on, forking beside any thread warns; that the fork works is what is tested here.
    done = script(FORK.format(before=before, leave=leave), "-W", "ignore::DeprecationWarning")
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


@needs_fork
def test_a_fork_while_calls_are_under_way_leaves_both_processes_whole() -> None:
    done = script(
        """
        import os, sys, threading, asyncio
        from polyvox import portal
        async def slow(value):
            await asyncio.sleep(0.3)
            return value
        results = []
        threads = [threading.Thread(target=lambda n=n: results.append(portal.run(slow(n)))) for n in range(8)]
        for thread in threads: thread.start()
        child = os.fork()
        if child == 0:
            sys.exit(0 if portal.run(slow("child")) == "child" else 1)
        for thread in threads: thread.join()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sorted(results))
        """,
        "-W",
        "ignore::DeprecationWarning",
    )
    assert (done.stdout, done.stderr) == ("0 [0, 1, 2, 3, 4, 5, 6, 7]\n", "")


@needs_fork
def test_multiprocessing_workers_forked_after_first_use_can_call() -> None:
    done = script(
        """
        import multiprocessing, os
        from polyvox import portal
        async def pid(): return os.getpid()
        def work(_): return portal.run(pid()) == os.getpid()
        if __name__ == "__main__":
            portal.run(pid())
            with multiprocessing.get_context("fork").Pool(3) as pool:
                print(pool.map(work, range(6)))
                pool.close(); pool.join()
        """,
        "-W",
        "ignore::DeprecationWarning",
    )
    assert (done.stdout, done.stderr) == (f"{[True] * 6}\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to a process")
def test_ctrl_c_cancels_the_task_lets_it_clean_up_and_is_raised_again() -> None:
    text = """
        import asyncio
        from polyvox import portal
        async def slow():
            print("begun", flush=True)
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                await asyncio.sleep(0.05)
                print("cleaned up", flush=True)
                raise
        try:
            portal.run(slow())
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", "-c", textwrap.dedent(text)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (out, err, process.returncode) == ("cleaned up\ninterrupted\n", "", 0)


@pytest.mark.parametrize("standard", [False, True], ids=["uvloop if there is one", "asyncio"])
def test_leaving_while_a_daemon_thread_is_in_a_call_is_quick_and_quiet(standard: bool) -> None:
    began = time.monotonic()
    done = script(
        f"""
        import sys
        if {standard}: sys.modules["uvloop"] = None
        import asyncio, threading
        from polyvox import portal
        begun = threading.Event()
        async def slow():
            asyncio.create_task(asyncio.sleep(3600))
            begun.set()
            await asyncio.sleep(3600)
        threading.Thread(target=lambda: portal.run(slow()), daemon=True).start()
        begun.wait(5)
        print("leaving")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")
    assert time.monotonic() - began < 5


def test_exit_handlers_of_a_program_can_still_call() -> None:
    done = script(
        """
        import atexit
        from polyvox import portal
        async def flush(): return "flushed"
        atexit.register(lambda: print(portal.run(flush())))
        portal.run(flush())
        """
    )
    assert (done.stdout, done.stderr) == ("flushed\n", "")
