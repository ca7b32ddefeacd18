"""Too few descriptors or threads, a thousand calls that end in every way at once, loops that come and go, and processes
that fork: errors of ours, nothing that hangs, nothing left open, and the next call is answered."""

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading

import pytest

from polyvox import AsyncClient, Client
from polyvox.config import Settings
from polyvox.errors import PolyvoxError
from polyvox.testing.fault_server import FaultServer, stall
from tests.faults.calls import CHAT, QUICK, TEXT, begun, good
from tests.test_end_to_end import SCRIPTS


def facts_of(server, **more):
    return {"base_url": f"{server.url}v1", "api_key": "test-key-123", "settings": Settings(), "retries": 0, **more}


def python(code, server):
    """What a process of its own prints, which has `client()` and `async_client()`."""
    head = f"""
    import os, sys, threading
    from polyvox import AsyncClient, Client
    from polyvox.config import Settings
    from polyvox.errors import PolyvoxError
    facts = dict(base_url={server.url + "v1"!r}, api_key="test-key-123", settings=Settings())
    client = lambda **more: Client("m", **facts, **more)
    async_client = lambda **more: AsyncClient("m", **facts, **more)
    """
    code = textwrap.dedent(head) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()


# ---- too few of something (76) ----------------------------------------------------------------


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_without_a_descriptor_to_spare_a_call_fails_in_our_words_and_with_one_it_is_answered():
    code = """
    import resource
    warm, fresh = client(), client(retries=1)
    print(warm.ask("hi").complete)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 3, most[1]))
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    try:
        fresh.ask("hi")
    except PolyvoxError as error:
        print(error.kind, error.sent, error.retryable, len(error.attempts), error.message.partition(": ")[2])
    print(warm.ask("hi").complete)  # over the connection that it has
    for each in held:
        os.close(each)
    print(fresh.ask("hi").complete)
    """
    with FaultServer(good(CHAT, False)) as server:
        told = python(code, server)
        assert told == ["True", "connection no True 2 Too many open files", "True", "True"]
        assert len(server.requests) == 3


def test_without_a_thread_to_spare_a_call_fails_in_our_words_and_with_one_it_is_answered():
    code = """
    made, start = client(), threading.Thread.start
    def no_more(self):
        raise RuntimeError("can't start new thread")
    threading.Thread.start = no_more
    try:
        made.ask("hi")
    except PolyvoxError as error:
        print(error.kind, error.sent, "can't start new thread" in error.message)
    threading.Thread.start = start
    print(made.ask("hi").complete)
    """
    with FaultServer(good(CHAT, False)) as server:
        assert python(code, server) == ["usage no True", "True"]
        assert len(server.requests) == 1


# ---- a thousand at once (77) ------------------------------------------------------------------

MANY = 1000


async def cancelled(client):
    task = asyncio.create_task(client.ask("hi"))
    await asyncio.sleep(QUICK)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return "cancelled" if task.cancelled() else "not"


async def timed_out(client):
    try:
        await client.ask("hi", timeout=QUICK)
    except PolyvoxError as error:
        return error.kind
    return "not"


async def left(client):
    async for _ in client.stream("hi", timeout=20):
        return "left"  # the generator is closed where it stands
    return "not"


async def closed(client):
    async with client.stream("hi", timeout=20) as stream:
        async for _ in stream:
            return "closed"
    return "not"


def stalled_or_begun():
    """Whole answers never come, and streams stop after some words."""

    async def script(connection):
        streams = b'"stream":true' in server.requests[-1].replace(b" ", b"")
        if streams:
            await begun(CHAT)(connection)
        await stall(connection)

    server = FaultServer(script)
    return server


def test_a_thousand_calls_that_end_in_every_way_leave_nothing_and_the_next_is_answered(caplog):
    async def go():
        async with AsyncClient("m", **facts_of(server)) as client:
            ends = await asyncio.gather(*[(cancelled, timed_out)[turn % 2](client) for turn in range(MANY)])
            assert set(ends) == {"cancelled", "timeout"}
            ends = await asyncio.gather(*[(left, closed)[turn % 2](client) for turn in range(50)])
            assert set(ends) == {"left", "closed"}
            gc.collect()
            server.script = (good(CHAT, False),)
            assert (await client.ask("hi")).text == TEXT
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with stalled_or_begun() as server:
        asyncio.run(go())
        assert server.wait_for(lambda it: it.open_connections == 0, 10)
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_many_threads_share_a_client_and_leave_their_streams_as_they_like():
    def work(turn):
        for _ in range(5):
            running = client.stream("hi")
            for _ in running:
                if turn % 2:
                    break
            told.append(True)
            del running

    told = []
    with FaultServer(good(CHAT, True)) as server, Client("m", **facts_of(server)) as client:
        threads = [threading.Thread(target=work, args=(turn,)) for turn in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(told) == 80
        server.script = (good(CHAT, False),)
        assert client.ask("hi").text == TEXT
        client.close()
        assert server.wait_for(lambda it: it.open_connections == 0, 10)


def test_a_client_serves_one_loop_after_another():
    made = None

    async def go():
        return (await made.ask("hi")).text

    with FaultServer(good(CHAT, False)) as server:
        made = AsyncClient("m", **facts_of(server))
        assert [asyncio.run(go()) for _ in range(5)] == [TEXT] * 5
        assert server.wait_for(lambda it: it.open_connections == 0)


def test_a_call_whose_loop_was_closed_under_it_harms_no_later_one():
    with FaultServer(stall) as server:
        made = AsyncClient("m", **facts_of(server))
        loop = asyncio.new_event_loop()
        task = loop.create_task(made.ask("hi"))
        loop.run_until_complete(asyncio.wait([task], timeout=QUICK))
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()
        server.script = (good(CHAT, False),)

        async def go():
            async with made:
                return (await made.ask("hi")).text

        assert asyncio.run(go()) == TEXT


# ---- processes that fork (77, 78) -------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("way", SCRIPTS)
def test_whatever_forks_or_runs_loops_every_process_has_connections_of_its_own(way):
    with FaultServer(good(CHAT, False)) as server:
        assert python(SCRIPTS[way].replace('"ok"', repr(TEXT)), server) == [TEXT]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_workers_forked_after_a_client_was_made_and_used_share_no_connection():
    code = """
    made = client()
    made.ask("hi")
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if all(made.ask("hi").complete for _ in range(5)) else 1)
        children.append(pid)
    print([os.waitpid(pid, 0)[1] for pid in children], made.ask("hi").complete)
    """
    with FaultServer(good(CHAT, False)) as server:
        assert python(code, server) == ["[0, 0, 0, 0] True"]
        assert len(server.requests) == 22
        # One for each process: none reads what another asked.
        assert server.connections == 5
