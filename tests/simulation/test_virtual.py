"""Virtual time: nobody waits, all chance is the seed's, and what can never end is told with whoever waits for it."""

import asyncio
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.testing.virtual import START, WALL, HangError, Virtual, run


def test_time_passes_only_while_everybody_waits():
    async def main(virtual):
        sum(range(10_000))
        assert virtual.now() == 0.0
        await virtual.sleep(86_400 * 365)
        assert virtual.now() == 86_400 * 365
        assert virtual.clock() == asyncio.get_running_loop().time() == START + virtual.now()
        return virtual.wall()

    assert run(main, 1) == WALL + 86_400 * 365


@given(st.lists(st.sampled_from([1e-20, 0.1, 0.25, 3.0, 1e6]) | st.floats(1e-9, 1e7), max_size=30))
def test_who_waits_for_less_wakes_first_and_of_equals_who_came_first(delays):
    async def main(virtual):
        woke = []

        async def one(number, delay):
            await virtual.sleep(delay)
            woke.append((START + delay, number, virtual.clock()))

        await asyncio.gather(*[one(number, delay) for number, delay in enumerate(delays)])
        return woke

    woke = run(main, 1)
    assert all(due == clock for due, _, clock in woke)
    assert [number for due, number, _ in woke] == [number for due, number, _ in sorted(woke)]


def test_a_timer_that_was_cancelled_moves_no_clock():
    async def main(virtual):
        asyncio.get_running_loop().call_later(50.0, pytest.fail).cancel()
        await virtual.sleep(100.0)
        assert virtual.now() == 100.0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.0):
                await asyncio.Event().wait()
        return virtual.now()

    assert run(main, 1) == 103.0


def test_queues_locks_and_groups_work_as_ever():
    async def main(virtual):
        queue, lock, got = asyncio.Queue(1), asyncio.Lock(), []

        async def give():
            for number in range(5):
                await virtual.sleep(1.0)
                await queue.put(number)

        async def take():
            for _ in range(5):
                async with lock:
                    got.append((await queue.get(), virtual.now()))

        async with asyncio.TaskGroup() as group:
            group.create_task(give())
            group.create_task(take())
        return got

    assert run(main, 1) == [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0), (4, 5.0)]


def test_what_can_never_end_says_who_waits_and_where():
    async def inner():
        await asyncio.get_running_loop().create_future()

    async def main(virtual):
        loop = asyncio.get_running_loop()
        task = loop.create_task(inner(), name="the one")
        await virtual.sleep(2.5)
        await task

    with pytest.raises(HangError) as caught:
        run(main, 1)
    assert "no timer is set at 2.500000 s; 2 tasks are not done" in str(caught.value)
    assert "the one waits at test_virtual.py:" in str(caught.value)
    assert "inner" in str(caught.value)


def test_what_spins_at_one_moment_is_told(monkeypatch):
    monkeypatch.setattr("polyvox.testing.virtual.TURNS", 100)

    async def main(virtual):
        await virtual.sleep(1.0)
        while True:
            await virtual.sleep(0)

    with pytest.raises(HangError, match=r"stood still for 100 turns at 1\.000000 s"):
        run(main, 1)


def test_threads_and_sockets_are_refused():
    async def main(virtual):
        with pytest.raises(RuntimeError, match="a thread knows no virtual time"):
            await asyncio.to_thread(sum, ())
        with pytest.raises(RuntimeError, match="a thread knows no virtual time"):
            await asyncio.open_connection("localhost", 1)

    run(main, 1)


def test_all_chance_is_the_seeds():
    async def main(virtual):
        return [virtual.chance(), virtual.random_bytes(9), virtual.draw("a").random(), virtual.draw("b").random()]

    assert run(main, 7) == run(main, 7)
    assert all(one != other for one, other in zip(run(main, 7), run(main, 8), strict=True))
    assert len(set(run(main, "a word"))) == 4


def test_what_one_source_of_chance_gives_does_not_depend_on_another():
    virtual = Virtual(3)
    alone = Virtual(3).draw("a").random()
    virtual.draw("b").random()
    virtual.chance()
    assert virtual.draw("a").random() == alone


def test_what_nobody_caught_is_kept():
    async def main(virtual):
        loop = asyncio.get_running_loop()
        loop.call_soon(int, "x")
        await virtual.sleep(1)
        return loop.unhandled

    (told,) = run(main, 1)
    assert "ValueError" in told


def test_a_finalizer_runs_at_the_same_moment_whatever_was_allocated_before():
    class Noted:
        def __init__(self, virtual):
            self.me, self.virtual = self, virtual

        def __del__(self):
            self.virtual.trace.note("gone")

    async def main(virtual):
        for number in range(20_000):
            if number % 100 == 0:
                Noted(virtual)
            await virtual.sleep(0.001)

    def lines(noise):
        virtual = Virtual(1, keep=True)
        kept = [[number] for number in range(noise)]
        virtual.run(main)
        return virtual.trace.lines, len(kept)

    assert gc.isenabled()
    (few, _), (many, _) = lines(0), lines(5_000)
    assert few == many
    assert len(few) > 100
    assert gc.isenabled()


def test_a_trace_is_known_by_its_digest_and_keeps_its_lines_only_where_wanted():
    async def main(virtual):
        virtual.trace.note("one")
        await virtual.sleep(1.5)
        virtual.trace.note("two")

    kept, plain, other = Virtual(1, keep=True), Virtual(1), Virtual(1)
    kept.run(main)
    plain.run(main)
    other.trace.note("before")
    other.run(main)
    assert kept.trace.lines == ["0.0 one", "1.5 two"]
    assert plain.trace.lines is None
    assert kept.trace.digest == plain.trace.digest != other.trace.digest
    assert plain.trace.count == 2


def test_what_ran_once_does_not_run_again():
    async def main(virtual):
        return None

    virtual = Virtual(1)
    virtual.run(main)
    with pytest.raises(RuntimeError, match="make another of the same seed"):
        virtual.run(main)


def test_an_error_of_the_program_comes_out_and_its_tasks_are_cancelled():
    ended = []

    async def other(virtual):
        try:
            await virtual.sleep(1000)
        finally:
            ended.append(virtual.now())

    async def main(virtual):
        task = asyncio.get_running_loop().create_task(other(virtual))
        await virtual.sleep(1)
        raise KeyError(task.get_name())

    with pytest.raises(KeyError, match="task 2"):
        run(main, 1)
    assert ended == [1.0]
