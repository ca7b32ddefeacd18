"""The fair queue: tenants in turn, each one's calls as they came; nobody waits for ever, and nothing is lost."""

import asyncio
import random
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.errors import RateLimitError, UsageError
from polyvox.limits import FairQueue, Full, Limits, MemoryLeases
from polyvox.testing.virtual import run


class Room:
    """Leases of one deployment, and a queue of the calls that wait for it."""

    def __init__(self, virtual, limits, most=1000):
        self.leases = MemoryLeases(clock=virtual.clock)
        self.queue = FairQueue(most)
        self.limits = limits
        self.leases.watch(self.queue.wake_soon)

    async def lease(self, tenant="", tokens=0, deadline=float("inf")):
        return await self.queue.wait(
            lambda: self.leases.take("a", self.limits, tokens), tenant=tenant, deadline=deadline
        )

    async def call(self, seconds, tenant="", tokens=0, deadline=float("inf")):
        with await self.lease(tenant, tokens, deadline):
            await asyncio.sleep(seconds)


def at_rest(queue):
    """Whether nothing of those who waited is left."""
    return len(queue) == 0 and not queue._tenants and queue._turn is None and queue._timer is None


# ---- order ------------------------------------------------------------------------------------


def test_whoever_finds_room_does_not_wait():
    async def main(virtual):
        room = Room(virtual, Limits(concurrency=1))
        await room.call(0)
        assert virtual.now() == 0
        assert at_rest(room.queue)

    run(main, 1)


def test_calls_of_one_tenant_come_in_the_order_in_which_they_came():
    async def main(virtual):
        room, done = Room(virtual, Limits(concurrency=1)), []

        async def call(number):
            await room.call(1)
            done.append(number)

        await asyncio.gather(*(call(number) for number in range(10)))
        assert done == list(range(10))
        assert virtual.now() == 10

    run(main, 1)


def test_a_tenant_with_many_calls_holds_up_no_other_tenant():
    async def main(virtual):
        room, done = Room(virtual, Limits(concurrency=1)), []

        async def call(tenant, number):
            await room.call(1, tenant)
            done.append(f"{tenant}{number}")

        first = [asyncio.create_task(call("a", number)) for number in range(5)]
        await asyncio.sleep(0.5)
        rest = [asyncio.create_task(call(tenant, number)) for tenant in "bc" for number in range(2)]
        await asyncio.gather(*first, *rest)
        assert done == ["a0", "a1", "b0", "c0", "a2", "b1", "c1", "a3", "a4"]

    run(main, 1)


def test_a_large_call_does_not_starve_beside_small_ones():
    async def main(virtual):
        room = Room(virtual, Limits(tokens_per_minute=100))
        large = None

        async def small():
            await room.call(0, "small", 10)

        tasks = [asyncio.create_task(small()) for _ in range(10)]
        await asyncio.sleep(1)
        large = asyncio.create_task(room.call(0, "large", 100))
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(small()) for _ in range(50)]
        await large
        assert virtual.now() <= 61
        await asyncio.gather(*tasks)

    run(main, 1)


def test_a_new_call_does_not_overtake_those_who_wait():
    async def main(virtual):
        room, done = Room(virtual, Limits(concurrency=1)), []

        async def call(name):
            lease = await room.lease()
            done.append(name)
            return lease

        lease = await call("first")
        second = asyncio.create_task(call("second"))
        await asyncio.sleep(1)
        lease.settle()
        # It comes after the place was left, and before the one who waits has run.
        third = asyncio.create_task(call("third"))
        (await second).settle()
        (await third).settle()
        assert done == ["first", "second", "third"]

    run(main, 1)


# ---- waking -----------------------------------------------------------------------------------


def test_a_window_that_frees_wakes_who_waits_when_it_does():
    async def main(virtual):
        room, at = Room(virtual, Limits(requests_per_minute=1)), []
        for _ in range(3):
            await room.call(0)
            at.append(virtual.now())
        assert at == [0, pytest.approx(60, abs=0.01), pytest.approx(120, abs=0.02)]

    run(main, 1)


def test_a_call_that_was_cancelled_leaves_nothing_and_harms_nobody():
    async def main(virtual):
        room = Room(virtual, Limits(concurrency=1))
        lease = await room.lease()
        waiting = [asyncio.create_task(room.lease(str(number))) for number in range(3)]
        await asyncio.sleep(1)
        waiting[1].cancel()
        await asyncio.sleep(0)
        assert len(room.queue) == 2
        # The first is meant by the release, and goes away before it has run.
        lease.settle()
        waiting[0].cancel()
        (await waiting[2]).settle()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert at_rest(room.queue)
        assert room.leases.used("a").in_flight == 0

    run(main, 1)


def test_when_a_large_call_goes_away_a_small_one_behind_it_is_let_through_at_once():
    async def main(virtual):
        room = Room(virtual, Limits(tokens_per_minute=100))
        await room.call(0, tokens=50)
        large = asyncio.create_task(room.call(0, tokens=90))
        await asyncio.sleep(1)
        small = asyncio.create_task(room.call(0, tokens=10))
        await asyncio.sleep(1)
        large.cancel()
        await small
        assert virtual.now() == 2
        assert at_rest(room.queue)

    run(main, 1)


def test_what_is_given_back_while_the_first_asks_elsewhere_is_not_missed():
    """Such as in Redis: the answer is "no", and was right when it was made."""

    async def main(virtual):
        free, queue = [False], FairQueue()

        async def take():
            found = free[0]
            await asyncio.sleep(1)
            return "lease" if found else Full("concurrency", 1, None)

        async def give_back():
            await asyncio.sleep(0.5)
            free[0] = True
            queue.wake()

        task = asyncio.create_task(give_back())
        assert await queue.wait(take) == "lease"
        assert virtual.now() == 2
        await task
        assert at_rest(queue)

    run(main, 1)


def test_an_error_of_whoever_asks_is_its_own_and_the_next_one_is_asked():
    async def main(virtual):
        queue = FairQueue()

        def broken():
            raise ZeroDivisionError

        async def late():
            await asyncio.sleep(1)
            return "lease"

        async def later():
            await asyncio.sleep(1)
            raise ZeroDivisionError

        first = asyncio.create_task(queue.wait(later))
        second = asyncio.create_task(queue.wait(broken))
        third = asyncio.create_task(queue.wait(late))
        outcomes = await asyncio.gather(first, second, third, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError, ZeroDivisionError, str]
        assert at_rest(queue)

    run(main, 1)


def test_a_release_in_another_thread_wakes_who_waits():
    leases, limits = MemoryLeases(), Limits(concurrency=1)

    async def main():
        queue = FairQueue()
        leases.watch(queue.wake_soon)
        lease = leases.take("a", limits)

        def release():
            while not len(queue):
                time.sleep(0.001)
            lease.settle()

        thread = threading.Thread(target=release)
        thread.start()
        (await asyncio.wait_for(queue.wait(lambda: leases.take("a", limits)), 20)).settle()
        thread.join()
        leases.unwatch(queue.wake_soon)

    asyncio.run(main())
    assert leases.used("a").in_flight == 0


# ---- bounds -----------------------------------------------------------------------------------


def test_a_full_queue_refuses_at_once_with_a_hint_and_when_to_come_back():
    async def main(virtual):
        room = Room(virtual, Limits(requests_per_minute=1), most=2)
        await room.call(0)
        waiting = [asyncio.create_task(room.lease()) for _ in range(2)]
        await asyncio.sleep(10)
        with pytest.raises(RateLimitError, match="2 calls wait") as caught:
            await room.lease()
        error = caught.value
        assert error.retry_after == pytest.approx(50)
        assert (error.sent, error.billed, error.retryable) == ("no", False, True)
        assert "1 requests a minute" in error.message
        assert error.hint
        assert len(room.queue) == 2
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert at_rest(room.queue)

    run(main, 1)


def test_a_full_queue_without_a_window_says_when_by_the_pace_of_late():
    async def main(virtual):
        room = Room(virtual, Limits(concurrency=1), most=4)
        tasks = [asyncio.create_task(room.call(2)) for _ in range(4)]
        await asyncio.sleep(0.5)
        for _ in range(20):
            await asyncio.sleep(2)
            tasks.append(asyncio.create_task(room.call(2)))
        tasks.append(asyncio.create_task(room.call(2)))
        await asyncio.sleep(0)
        with pytest.raises(RateLimitError) as caught:
            await room.lease()
        assert 6 < caught.value.retry_after < 9
        await asyncio.gather(*tasks)

    run(main, 1)


def test_a_call_without_room_before_its_deadline_is_refused_when_that_is_known():
    async def main(virtual):
        room = Room(virtual, Limits(requests_per_minute=1))
        await room.call(0)
        with pytest.raises(RateLimitError) as caught:
            await room.lease(deadline=virtual.clock() + 30)
        assert virtual.now() == 0
        assert caught.value.retry_after == pytest.approx(60)
        assert at_rest(room.queue)

    run(main, 1)


def test_a_call_waits_until_its_deadline_where_room_could_come_at_any_time():
    async def main(virtual):
        room = Room(virtual, Limits(concurrency=1))
        lease = await room.lease()
        behind = asyncio.create_task(room.lease(deadline=virtual.clock() + 3))
        with pytest.raises(RateLimitError):
            await room.lease(deadline=virtual.clock() + 5)
        assert virtual.now() == pytest.approx(5)
        with pytest.raises(RateLimitError):
            await behind
        lease.settle()
        assert at_rest(room.queue)

    run(main, 1)


def test_a_call_that_never_fits_is_refused_though_it_has_no_deadline():
    async def main(virtual):
        room = Room(virtual, Limits(tokens_per_minute=10))
        with pytest.raises(RateLimitError) as caught:
            await room.lease(tokens=11)
        assert caught.value.retry_after is None
        assert virtual.now() == 0
        assert at_rest(room.queue)

    run(main, 1)


def test_a_queue_serves_one_event_loop_after_the_other_but_not_two_at_once():
    queue, ready, done = FairQueue(), threading.Event(), threading.Event()

    async def waits():
        task = asyncio.create_task(queue.wait(lambda: Full("concurrency", 1, None)))
        await asyncio.sleep(0)
        ready.set()
        await asyncio.to_thread(done.wait, 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(waits()))
    thread.start()
    ready.wait(20)
    with pytest.raises(UsageError):
        asyncio.run(queue.wait(lambda: 1))
    done.set()
    thread.join()
    assert asyncio.run(queue.wait(lambda: 1)) == 1


# ---- whatever happens ---------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_every_call_ends_and_nothing_is_left_whoever_is_cancelled(seed, slowly):
    """A wake-up that was lost would hang the run, which virtual time tells."""

    async def main(virtual):
        draw = random.Random(seed)
        limits = Limits(draw.choice([1, 2, 3]), draw.choice([None, 20]), draw.choice([None, 50]))
        room, outcomes, most = Room(virtual, limits, most=draw.choice([5, 1000])), [], [0]

        async def take(tokens):
            got = room.leases.take("a", limits, tokens)
            try:
                await asyncio.sleep(draw.choice([0, 0.1]))
            except asyncio.CancelledError:
                if not isinstance(got, Full):
                    got.refund()
                raise
            return got

        async def call(tenant):
            tokens, deadline = draw.randrange(20), virtual.clock() + draw.choice([1, 30, 1000, float("inf")])
            ask = (lambda: take(tokens)) if slowly else (lambda: room.leases.take("a", limits, tokens))
            with await room.queue.wait(ask, tenant=tenant, deadline=deadline) as lease:
                most[0] = max(most[0], room.leases.used("a").in_flight)
                await asyncio.sleep(draw.choice([0, 0.5, 3]))
                if draw.random() < 0.3:
                    lease.refund()
                elif draw.random() < 0.5:
                    lease.settle(draw.randrange(20))

        async def outcome(task):
            try:
                await task
                outcomes.append("ok")
            except RateLimitError:
                outcomes.append("refused")
            except asyncio.CancelledError:
                outcomes.append("cancelled")

        watchers = []
        for _ in range(30):
            task = asyncio.ensure_future(call(draw.choice("abc")))
            watchers.append(asyncio.ensure_future(outcome(task)))
            if draw.random() < 0.4:
                asyncio.get_running_loop().call_later(draw.choice([0, 0.1, 0.5, 3, 60]), task.cancel)
            await asyncio.sleep(draw.choice([0, 0, 0.25, 2]))
        await asyncio.gather(*watchers)
        assert len(outcomes) == 30
        assert most[0] <= limits.concurrency
        assert room.leases.used("a").in_flight == 0
        assert at_rest(room.queue)

    run(main, seed)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=60))
def test_of_tenants_who_wait_each_is_served_before_one_is_served_twice(tenants):
    async def main(virtual):
        room, done = Room(virtual, Limits(concurrency=1)), []
        lease = await room.lease("first")

        async def call(tenant):
            with await room.lease(tenant):
                done.append(tenant)

        tasks = [asyncio.create_task(call(tenant)) for tenant in tenants]
        await asyncio.sleep(1)
        lease.settle()
        await asyncio.gather(*tasks)
        assert sorted(done) == sorted(tenants)
        left = {tenant: tenants.count(tenant) for tenant in tenants}
        while done:
            here = [tenant for tenant in left if left[tenant]]
            turn, done = done[: len(here)], done[len(here) :]
            assert sorted(turn) == sorted(here)
            for tenant in turn:
                left[tenant] -= 1

    run(main, 1)
