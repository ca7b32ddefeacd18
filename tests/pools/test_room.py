"""Room at deployments: it goes back whatever becomes of a call, and nobody waits for it longer than needed."""

import asyncio
import gc
import itertools

import pytest
from msgspec.structs import replace

from polyvox.errors import CallTimeoutError, ConnectionFailedError, PolyvoxError, RateLimitError
from polyvox.pools import Routing
from polyvox.testing.virtual import Virtual
from polyvox.types import File, Message, Text
from tests.pools.world import REQUEST, Later, Place, Slow, World, failing, under_time
from tests.scripted import Answer, failed, piece, said, streamed

ONE = {"limits": {"concurrency": 1}}


def busy(seconds):
    return Slow(seconds, said("at last"))


def kept_by(name):
    """A request that names a file which only one of them has."""
    return replace(REQUEST, messages=(Message("user", (Text("see"), File(file_id="f", origin=name))),))


async def cancelled(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ---- what was taken goes back -----------------------------------------------------------------


class Admitting:
    """Books whose admission takes ten seconds."""

    counts = False

    def account(self, facts):
        return self

    async def admit(self, at_most, at):
        await asyncio.sleep(10)

    async def attempted(self, *told):
        await asyncio.sleep(1)

    def dropped(self, *told):
        pass

    async def close(self, *told):
        await asyncio.sleep(1)

    def left(self, *told):
        pass


@pytest.mark.parametrize("after", [0, 0.1, 10.5, 12.5, 13.2])
def test_a_call_that_is_cancelled_in_any_of_its_steps_holds_nothing(after):
    async def main(virtual):
        answers = Place(Slow(2, failed(503)), then=lambda: said("well"))
        world = World(virtual, entries={"a": ONE}, books=Admitting(), a=answers)
        task = world.begin()
        await asyncio.sleep(after)
        await cancelled(task)
        assert world.held() == {}
        assert (await world.ask()).text

    Virtual(1).run(main)


@pytest.mark.parametrize("after", [0.1, 0.2, 0.3, 0.4, 0.5])
def test_a_call_that_is_cancelled_while_its_room_is_counted_elsewhere_holds_nothing(after):
    async def main(virtual):
        world = World(virtual, leases=Later(clock=virtual.clock), entries={"a": ONE}, a=Place(then=lambda: said("a")))
        task = world.begin()
        await asyncio.sleep(after)
        if after < 0.2:
            await cancelled(task)
        else:  # it may be over at this very moment
            task.cancel()
            await asyncio.wait([task])
        assert world.held() == {} and (await world.ask()).text == "a"

    Virtual(1).run(main)


@under_time
async def test_limits_that_are_counted_elsewhere_are_kept_and_waited_for(virtual):
    leases = Later(clock=virtual.clock)
    world = World(virtual, leases=leases, entries={"a": ONE}, a=Place(then=lambda: Slow(1, said("a"))))
    await asyncio.gather(*(world.ask() for _ in range(3)))
    begun = world.places["a"].asked_at
    assert all(later - sooner >= 1 for sooner, later in itertools.pairwise(begun)) and world.held() == {}


@under_time
async def test_a_call_that_is_cancelled_while_it_waits_for_room_leaves_no_trace(virtual):
    world = World(virtual, entries={"a": ONE}, a=Place(busy(10), said("next")))
    first, waiting, last = (world.begin() for _ in range(3))
    await asyncio.sleep(1)
    await cancelled(waiting)
    await asyncio.gather(first, last)
    assert world.held() == {} and world.now == 10


@under_time
async def test_one_that_was_given_room_at_the_moment_it_was_cancelled_gives_it_on(virtual):
    world = World(virtual, entries={"a": ONE}, a=Place(busy(10), then=lambda: said("next")))
    first, waiting, last = (world.begin() for _ in range(3))
    await first
    await cancelled(waiting)
    assert (await last).text == "next" and world.held() == {}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("after", [0.5, 1.0, 1.5, 3.0, 5.0])
def test_a_race_that_is_cancelled_holds_nothing_and_leaves_no_stream_open(after, stream):
    async def main(virtual):
        routing = Routing(hedge_after=1, hedge_share=1)
        one, other = (streamed("one"), streamed("two")) if stream else (said("one"), said("two"))
        world = World(virtual, routing, a=Place(Slow(3, one)), b=Place(Slow(2, other)))
        request = replace(REQUEST, stream=stream)
        task = world.begin(request=request)
        await asyncio.sleep(after)
        if task.done():
            await task
        else:
            await cancelled(task)
        assert world.held() == {}
        given = [answer for place in world.places.values() for answer in place.given]
        assert all(answer.closed for answer in given)

    Virtual(1).run(main)


class Lingering(Answer):
    """A stream that takes two seconds to let go of."""

    async def close(self):
        await asyncio.sleep(2)
        await super().close()


@under_time
async def test_a_call_that_is_cancelled_while_the_loser_of_its_race_is_let_go_closes_the_winner(virtual):
    words = [piece({"content": "well"}), 100]
    slow = Lingering(piece({"role": "assistant", "content": ""}), 100)
    winner = Answer(*words)
    world = World(virtual, Routing(hedge_after=1, hedge_share=1), a=Place(slow), b=Place(winner))
    task = asyncio.create_task(world.stream().batch())
    await asyncio.sleep(2)
    await cancelled(task)
    await asyncio.sleep(5)
    assert winner.closed and slow.closed and world.held() == {}


@under_time
async def test_a_stream_that_is_left_to_the_garbage_collector_gives_its_room_back(virtual):
    world = World(virtual, entries={"a": ONE}, a=Place(streamed("one", "two"), said("next")))
    run = world.stream()
    await run.batch()
    assert world.held() == {"a": (1, 1)}
    del run
    gc.collect()
    await asyncio.sleep(0)
    assert world.held() == {} and (await world.ask()).text == "next"


def test_a_stream_that_outlives_its_event_loop_gives_its_room_back():
    kept = []

    async def main(virtual):
        world = World(virtual, a=Place(streamed("one", "two")))
        run = world.stream()
        await run.batch()
        kept.extend((world, run))

    Virtual(1).run(main)
    world, run = kept
    kept.clear()
    assert world.held() == {"a": (1, 1)}
    del run
    gc.collect()
    assert world.held() == {}


@pytest.mark.parametrize("read", [0, 1, 2])
def test_a_stream_that_is_closed_gives_its_room_back_however_much_was_read(read):
    async def main(virtual):
        world = World(virtual, a=Place(streamed("one", "two")))
        run = world.stream()
        for _ in range(read):
            await run.batch()
        await run.close()
        await run.close()
        assert world.held() == {} and world.pools.named("*").members[0].standing.errors == 0

    Virtual(1).run(main)


# ---- waiting ----------------------------------------------------------------------------------


@under_time
async def test_a_call_that_only_one_can_serve_holds_up_nobody_whom_another_can_serve(virtual):
    world = World(virtual, entries={"a": ONE, "b": ONE}, a=Place(busy(100), said("a")), b=Place(busy(10), said("b")))
    both = [world.begin(), world.begin()]
    await asyncio.sleep(1)
    bound = world.begin(request=kept_by("a"))
    await asyncio.sleep(1)
    free = world.begin()
    assert (await free).deployment == "b" and world.now == 10
    assert (await bound).deployment == "a" and world.now == 100
    await asyncio.gather(*both)
    assert world.held() == {}


@under_time
async def test_a_pause_that_outlasts_a_call_ends_it_only_where_nobody_else_could_have_room(virtual):
    asked_to_wait = failed(429, headers={"retry-after": "3000"})
    world = World(virtual, entries={"b": ONE}, a=Place(asked_to_wait), b=Place(busy(5), said("b")))
    first = world.begin()
    await asyncio.sleep(1)
    assert (await world.ask(timeout=60)).text == "b"
    await first
    error = await failing(world.ask("a", timeout=60))
    assert isinstance(error, RateLimitError) and error.sent == "no" and 2900 < error.retry_after < 3000
    assert world.now == 5 and world.held() == {}


@under_time
async def test_who_waits_is_not_sent_to_one_that_failed_others_meanwhile_while_there_is_another_to_wait_for(virtual):
    ill = Place(*[failed(503)] * 4, Slow(5, failed(503)), then=lambda: failed(503))
    world = World(virtual, retries=0, entries={"a": ONE, "b": ONE}, a=ill, b=Place(busy(10), said("b")))
    for _ in range(4):
        await failing(world.ask("a"))
    last, other = world.begin("a"), world.begin("b")
    await asyncio.sleep(1)
    waiting = world.begin()
    assert (await failing(last)).kind == "server" and world.now == 5
    assert (await waiting).text == "b" and world.now == 10 and len(ill.sent) == 5
    assert [attempt.outcome for attempt in waiting.result().attempts] == ["ok"]
    await other
    assert world.held() == {}


@under_time
async def test_room_that_others_wait_for_is_not_taken_by_who_comes_later(virtual):
    world = World(virtual, entries={"a": ONE}, a=Place(busy(10), said("second"), said("third")))
    order = []

    async def caller(name, times):
        for _ in range(times):
            await world.ask()
            order.append(name)

    greedy = asyncio.create_task(caller("greedy", 2))
    await asyncio.sleep(1)
    patient = asyncio.create_task(caller("patient", 1))
    await asyncio.gather(greedy, patient)
    assert order == ["greedy", "patient", "greedy"] and world.held() == {}


@under_time
async def test_tenants_that_wait_are_served_in_turn(virtual):
    world = World(virtual, entries={"a": ONE}, a=Place(then=lambda: Slow(1, said("x"))))
    order = []

    async def caller(tenant):
        await world.ask(tenant=tenant)
        order.append(tenant)

    async with asyncio.TaskGroup() as group:
        for tenant in ("first", *["many"] * 4, "few"):
            group.create_task(caller(tenant))
            await asyncio.sleep(0.01)
    assert order.index("few") <= 2 and world.held() == {}


@under_time
async def test_no_more_calls_wait_than_may_whatever_they_wait_for(virtual):
    world = World(
        virtual,
        Routing(queue=2),
        entries={"a": ONE, "b": ONE},
        a=Place(busy(9), then=lambda: said("a")),
        b=Place(busy(9), then=lambda: said("b")),
    )
    first = [world.begin(), world.begin()]
    await asyncio.sleep(1)
    waiting = [world.begin(request=kept_by("a")), world.begin()]
    await asyncio.sleep(1)
    error = await failing(world.ask())
    assert isinstance(error, RateLimitError) and "2 calls wait" in error.message and error.sent == "no"
    await asyncio.gather(*first, *waiting)
    assert world.held() == {}


@under_time
async def test_a_queue_of_nobody_refuses_at_once(virtual):
    world = World(virtual, Routing(queue=0), entries={"a": ONE}, a=Place(busy(9)))
    first = world.begin()
    await asyncio.sleep(1)
    assert isinstance(await failing(world.ask()), RateLimitError) and world.now == 1
    await first
    assert world.held() == {}


@under_time
async def test_a_call_whose_time_runs_out_while_it_waits_was_never_sent(virtual):
    world = World(virtual, entries={"a": ONE}, a=Place(busy(100)))
    first = world.begin()
    await asyncio.sleep(1)
    error = await failing(world.ask(timeout=5))
    assert isinstance(error, RateLimitError | CallTimeoutError) and error.sent == "no" and error.attempts == ()
    assert world.now == 6 and error.decision.candidates[0].name == "a"
    await first
    assert world.held() == {}


@under_time
async def test_a_request_that_will_never_fit_its_limit_is_refused_at_once(virtual):
    world = World(virtual, entries={"a": {"limits": {"tokens_per_minute": 10}}}, a=Place())
    error = await failing(world.ask(request=replace(REQUEST, max_tokens=1000)))
    assert isinstance(error, RateLimitError) and "10 tokens a minute" in error.message and world.now == 0


@under_time
async def test_what_was_never_sent_takes_nothing_of_a_limit(virtual):
    nobody = ConnectionFailedError("refused", sent="no")
    world = World(virtual, entries={"a": {"limits": {"requests_per_minute": 1}}}, a=Place(nobody, said("well")))
    assert (await world.ask()).text == "well" and world.now < 1


@under_time
async def test_tokens_that_were_not_used_are_room_for_others(virtual):
    limits = {"a": {"limits": {"tokens_per_minute": 1200}}}
    world = World(virtual, entries=limits, a=Place(then=lambda: said("five tokens")))
    for _ in range(5):
        await world.ask(request=replace(REQUEST, max_tokens=1000))
    assert world.now == 0 and world.pools.shared.leases.used("a").tokens == 25


# ---- several loops, several pools -------------------------------------------------------------


def test_room_that_is_given_back_in_one_event_loop_is_found_in_another():
    import threading

    from polyvox.limits import MemoryLeases

    leases, ready, go_on, found = MemoryLeases(), threading.Event(), threading.Event(), []

    class Held(Place):
        async def send(self, outgoing, timeouts):
            ready.set()
            await asyncio.to_thread(go_on.wait)
            return said("held")

    class Real:
        now = staticmethod(lambda: 0.0)
        random_bytes = staticmethod(lambda size: bytes(size))

        def __init__(self):
            from time import monotonic

            self.clock = monotonic

    world = World(Real(), entries={"a": ONE}, leases=leases, a=Held())
    holding = threading.Thread(target=lambda: asyncio.run(world.ask()))
    holding.start()
    ready.wait(30)

    async def wait():
        world.places["a"].send = Place(said("other"), then=None).send
        task = world.begin(timeout=30)
        while not len(world.pools.named("*").queue):
            await asyncio.sleep(0)
        go_on.set()
        found.append((await task).text)

    asyncio.run(wait())
    holding.join()
    assert found == ["other"] and world.held() == {}


@under_time
async def test_pools_with_the_same_deployment_share_its_room_and_what_is_known_of_it(virtual):
    world = World(virtual, entries={"a": ONE}, a=Place(busy(10), said("next")), b=Place())
    first = world.begin("a")
    await asyncio.sleep(1)
    second = world.begin("x/a")
    await asyncio.sleep(1)
    assert world.pools.named("a") is not world.pools.named("x/a")
    assert world.member("a").standing.in_flight == 1 and not second.done()
    await asyncio.gather(first, second)
    assert world.now == 10 and world.held() == {}


@under_time
async def test_the_pause_that_one_call_was_asked_for_holds_for_every_pool_of_that_deployment(virtual):
    world = World(virtual, retries=0, a=Place(failed(429, headers={"retry-after": "30"}), said("later")))
    with pytest.raises(PolyvoxError):
        await world.ask("a")
    assert (await world.ask("x/*")).text == "later" and world.now == 30


@under_time
async def test_nothing_configured_means_no_limit_until_a_provider_refuses(virtual):
    world = World(virtual, retries=0, a=Place(then=lambda: Slow(1, said("x"))))
    await asyncio.gather(*(world.ask() for _ in range(50)))
    assert world.now == 1 and world.member("a").learned.limits.concurrency is None
    world.places["a"].then = lambda: Slow(1, failed(429))
    refused = await asyncio.gather(*(failing(world.ask()) for _ in range(10)))
    assert {error.kind for error in refused} == {"rate_limit"}
    limit = world.member("a").learned.limits.concurrency
    assert limit == 5  # half of what was in flight, cut once for all that were under way
    world.places["a"].then = lambda: Slow(1, said("x"))
    await asyncio.sleep(60)  # requests a minute are learned, too
    begun = world.now
    await asyncio.gather(*(world.ask() for _ in range(10)))
    assert world.now == begun + 2 and world.held() == {}


# ---- one quota --------------------------------------------------------------------------------

SAME = {"model": "x/same", "api_key_env": "THE_KEY"}


@pytest.mark.parametrize(
    ("other", "paused"),
    [
        (SAME, True),
        ({**SAME, "max_tokens": 9}, True),
        ({**SAME, "model": "x/other"}, False),
        ({**SAME, "api_key_env": "ANOTHER"}, False),
        ({**SAME, "base_url": "http://localhost:9/v1"}, False),
    ],
)
def test_whoever_has_the_same_model_with_the_same_key_is_not_asked_while_that_is_to_pause(other, paused):
    async def main(virtual):
        no = failed(429, headers={"retry-after": "40"})
        world = World(
            virtual, retries=0, entries={"a": SAME, "b": other}, a=Place(no), b=Place(said("b")), c=Place(said("c"))
        )
        answer = await world.ask()
        assert answer.deployment == ("c" if paused else "b")
        assert answer.decision.skipped == ({"b": "the provider asked for a pause"} if paused else {})

    Virtual(1).run(main)
