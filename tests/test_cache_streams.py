"""A stream that is kept is told as the stream it was; one that is under way is read by all who ask for it, from its
beginning, and nobody waits for the slowest."""

import asyncio
import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from polyvox.cache import ResponseCache, fingerprint
from polyvox.cache.flights import StreamFlight
from polyvox.dialects.collect import Collector, as_events
from polyvox.errors import CallTimeoutError, NotFoundError, OverloadedError, StreamInterruptedError
from polyvox.types import (
    Citation,
    CitationAdded,
    Ended,
    ExtraAdded,
    Image,
    LogprobsAdded,
    Message,
    PartAdded,
    ReasoningDelta,
    ReasoningProof,
    Request,
    Started,
    Text,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    Usage,
    UsageReported,
)

OF = fingerprint("demo", "small", "openai.chat")
EVENTS = [
    Started("r1", "small-2026", 1_700_000_000.5),
    ReasoningDelta("hm", 0),
    ReasoningProof(0, "c2ln", origin="demo/small"),
    TextDelta("Hel", 1),
    TextDelta("lo", 1),
    CitationAdded(1, Citation(url="https://x")),
    LogprobsAdded((TokenLogprob("lo", -0.5, (108, 111)),)),
    PartAdded(2, Image(data=b"\x89PNG\x00", media_type="image/png")),
    ToolCallStarted(3, "t1", "look_up"),
    ToolCallDelta(3, '{"q": "ä"}'),
    ToolCallEnded(3),
    UsageReported(Usage(10, 5, total=15, source="provider")),
    ExtraAdded({"openai.chat": {"x": [1]}}),
    Ended("tool_calls", "tool_calls"),
]


def told(events):
    collector = Collector()
    for event in events:
        collector.add(event)
    return collector.response()


def key(cache, text="Hi", **fields):
    return cache.key(Request("small", (Message("user", (Text(text),)),), **fields), OF)


class Streaming:
    """A provider that streams: makes runs, and knows what became of them. gate, where there is one, is waited for
    before each batch."""

    def __init__(self, events=EVENTS, *, seconds=0.0, gate=None, error=None):
        self.events = events
        self.seconds = seconds
        self.gate = gate
        self.error = error
        self.runs = []

    def __call__(self):
        run = OneRun(self)
        self.runs.append(run)
        return run

    async def whole(self):
        self.runs.append(None)
        await asyncio.sleep(self.seconds)
        return replace(told(self.events), id="whole")


class OneRun:
    def __init__(self, provider):
        self.provider = provider
        self.response = None
        self.read = 0
        self.closed = 0
        self.cancelled = False

    async def batch(self):
        provider = self.provider
        try:
            if provider.gate is not None:
                await provider.gate.acquire()
            await asyncio.sleep(provider.seconds)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.read == len(provider.events):
            if provider.error is not None:
                raise provider.error
            return []
        self.read += 1
        events = provider.events[self.read - 1 : self.read]
        if type(events[-1]) is Ended:
            self.response = told(provider.events)
        return events

    async def close(self):
        self.closed += 1


async def read(run, seconds=0.0):
    events = []
    while batch := await run.batch():
        events += batch
        await asyncio.sleep(seconds)
    return events


def trial(test, **options):
    async def whole():
        cache = ResponseCache(**options)
        try:
            return await test(cache)
        finally:
            await cache.close()

    return asyncio.run(whole())


# ---- kept and told again ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_kept_stream_is_told_with_the_same_events_and_no_delay(kind, tmp_path):
    async def test(cache):
        provider = Streaming(seconds=0.005)
        first = cache.stream(key(cache), provider)
        assert await read(first) == EVENTS
        await cache.settle()
        second = cache.stream(key(cache), provider)
        assert await second.batch() == EVENTS
        assert await second.batch() == []
        assert (first.how, second.how, len(provider.runs)) == ("made", "hit", 1)
        assert first.response == second.response == told(EVENTS)
        assert second.age >= 0
        assert provider.runs[0].closed == 1

    trial(test, store=None if kind == "memory" else tmp_path / "c.db")


def test_nothing_begins_before_it_is_read():
    async def test(cache):
        provider = Streaming()
        run = cache.stream(key(cache), provider)
        await asyncio.sleep(0.01)
        assert (provider.runs, run.how, run.response) == ([], None, None)
        await run.close()
        with pytest.raises(StreamInterruptedError):
            await run.batch()
        assert provider.runs == []

    trial(test)


def test_whoever_holds_a_stream_is_told_of_its_answer_once_made_or_kept():
    async def test(cache):
        answers = []
        for _ in range(2):
            run = cache.stream(key(cache), Streaming())
            run.on_response = answers.append
            assert await run.finish() == told(EVENTS)
            await run.close()
            await cache.settle()
        assert answers == [told(EVENTS)] * 2

    trial(test)


def test_a_whole_call_is_answered_from_a_kept_stream_and_a_stream_from_a_kept_answer():
    async def test(cache):
        provider = Streaming()
        await cache.stream(key(cache), provider).finish()
        await cache.settle()
        given = await cache.whole(key(cache), provider.whole)
        assert (given.how, given.response) == ("hit", told(EVENTS))

        await cache.whole(key(cache, "other"), provider.whole)
        await cache.settle()
        run = cache.stream(key(cache, "other"), provider)
        assert await read(run) == as_events(replace(told(EVENTS), id="whole"))
        assert (run.how, len(provider.runs)) == ("hit", 2)

    trial(test)


def test_the_stream_flag_makes_no_difference():
    async def test(cache):
        await cache.stream(key(cache, stream=True), Streaming()).finish()
        await cache.settle()
        assert (await cache.whole(key(cache, stream=False), Streaming().whole)).how == "hit"

    trial(test)


@pytest.mark.parametrize("end", ["content_filter", "error", "unknown", "pause"])
def test_a_stream_that_did_not_end_well_is_not_kept(end):
    async def test(cache):
        provider = Streaming([*EVENTS[:-1], Ended(end)])
        await cache.stream(key(cache), provider).finish()
        await cache.settle()
        assert (await cache.stats()).refused == {end: 1}
        assert await cache.get(key(cache)) is None

    trial(test)


def test_a_cut_stream_is_an_error_for_each_who_reads_it_after_the_same_events_and_is_not_kept():
    failure = StreamInterruptedError("cut", partial=told(EVENTS[:5]))

    async def test(cache):
        provider = Streaming(EVENTS[:5], seconds=0.002, error=failure)
        seen = [[], [], []]

        async def follow(events):
            run = cache.stream(key(cache), provider)
            with pytest.raises(StreamInterruptedError) as caught:
                while batch := await run.batch():
                    events += batch
            with pytest.raises(StreamInterruptedError):
                await run.batch()
            assert run.response is None
            return caught.value

        errors = await asyncio.gather(*map(follow, seen))
        assert seen == [EVENTS[:5]] * 3
        assert len({id(error) for error in errors}) == 3
        assert all(error.partial == failure.partial for error in errors)
        await cache.settle()
        assert await cache.get(key(cache)) is None
        assert provider.runs[0].closed == 1

    trial(test)


def test_a_stream_that_ends_without_an_answer_is_no_success():
    async def test(cache):
        with pytest.raises(StreamInterruptedError):
            await cache.stream(key(cache), Streaming(EVENTS[:5])).finish()
        assert await cache.get(key(cache)) is None

    trial(test)


def test_a_call_may_leave_the_cache_out_ask_anew_or_ask_nobody():
    async def test(cache):
        provider = Streaming()
        run = cache.stream(key(cache), provider, use="only")
        with pytest.raises(NotFoundError):
            await run.batch()
        off = cache.stream(key(cache), provider, use="off")
        assert await read(off) == EVENTS
        assert (off.how, off.response, provider.runs[0].closed) == ("made", told(EVENTS), 1)
        assert await cache.get(key(cache)) is None
        for use, how in (("refresh", "made"), ("refresh", "made"), ("only", "hit"), ("use", "hit")):
            run = cache.stream(key(cache), provider, use=use)
            await run.finish()
            await cache.settle()
            assert run.how == how
        nothing = cache.stream(None, provider)
        assert await nothing.finish() == told(EVENTS)

    trial(test)


# ---- read by several --------------------------------------------------------------------------


def test_row_82_a_hundred_readers_of_a_live_stream_see_the_same_events_of_one_call():
    async def test(cache):
        provider = Streaming(seconds=0.002)
        runs = [cache.stream(key(cache), provider) for _ in range(100)]
        assert await asyncio.gather(*map(read, runs)) == [EVENTS] * 100
        assert len(provider.runs) == 1
        assert [run.how for run in runs] == ["made"] + ["shared"] * 99
        assert (await cache.stats()).saved_output == 99 * 5

    trial(test)


def test_followers_get_events_as_they_come_and_late_ones_from_the_beginning():
    async def test(cache):
        gate = asyncio.Semaphore(0)
        provider = Streaming(gate=gate)
        first, second = (cache.stream(key(cache), provider) for _ in range(2))
        waiting = [asyncio.create_task(run.batch()) for run in (first, second)]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in waiting)
        gate.release()
        assert await asyncio.gather(*waiting) == [EVENTS[:1]] * 2
        gate.release()
        assert await first.batch() == EVENTS[1:2]
        late = cache.stream(key(cache), provider)
        assert await late.batch() == EVENTS[:2]
        for _ in EVENTS:
            gate.release()
        rest = await asyncio.gather(read(first), read(second), read(late))
        assert rest == [EVENTS[2:], EVENTS[1:], EVENTS[2:]]

    trial(test)


def test_nobody_waits_for_the_slowest_and_nothing_is_read_ahead_of_the_fastest():
    async def test(cache):
        provider = Streaming()
        slow, fast = (cache.stream(key(cache), provider) for _ in range(2))
        assert await slow.batch() == EVENTS[:1]
        await asyncio.sleep(0.01)
        assert provider.runs[0].read == 1
        assert await fast.batch() == EVENTS[:1]
        assert await fast.batch() == EVENTS[1:2]
        await asyncio.sleep(0.01)
        assert provider.runs[0].read == 2
        assert await read(fast) == EVENTS[2:]
        assert await read(slow) == EVENTS[1:]
        assert slow.response == fast.response == told(EVENTS)

    trial(test)


@pytest.mark.parametrize("leaver", [0, 1])
@pytest.mark.parametrize("way", ["close", "cancel"])
def test_a_reader_who_leaves_harms_nobody(leaver, way):
    async def test(cache):
        gate = asyncio.Semaphore(0)
        provider = Streaming(gate=gate)
        runs = [cache.stream(key(cache), provider) for _ in range(2)]
        waiting = [asyncio.create_task(run.batch()) for run in runs]
        await asyncio.sleep(0.01)
        if way == "cancel":
            waiting[leaver].cancel()
        else:
            gate.release()
            await asyncio.gather(*waiting)
            await runs[leaver].close()
        for _ in EVENTS:
            gate.release()
        seen = await waiting[1 - leaver]
        assert seen + await read(runs[1 - leaver]) == EVENTS
        await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(StreamInterruptedError):
            await runs[leaver].batch()
        await cache.settle()
        stats = await cache.stats()
        assert (stats.left, stats.cancelled, stats.stored) == (1, 0, 1)

    trial(test)


def test_with_the_last_reader_the_stream_is_cut_and_the_next_one_begins_anew():
    async def test(cache):
        provider = Streaming(seconds=0.002)
        runs = [cache.stream(key(cache), provider) for _ in range(2)]
        await asyncio.gather(*(run.batch() for run in runs))
        for run in runs:
            await run.close()
        again = cache.stream(key(cache), provider)
        assert await read(again) == EVENTS
        assert (again.how, len(provider.runs), provider.runs[0].closed) == ("made", 2, 1)
        assert provider.runs[0].read < len(EVENTS)
        assert (await cache.stats()).cancelled == 1

    trial(test)


def test_a_reader_that_was_forgotten_in_the_middle_lets_go_when_it_is_collected():
    async def test(cache):
        provider = Streaming(seconds=0.002)
        run = cache.stream(key(cache), provider)
        await run.batch()
        del run
        gc.collect()
        await asyncio.wait_for(cache.settle(), 5)
        assert provider.runs[0].closed == 1

    trial(test)


def test_a_whole_call_joins_a_live_stream_and_a_stream_a_whole_call():
    async def test(cache):
        provider = Streaming(seconds=0.002)
        run = cache.stream(key(cache), provider)
        events, given = await asyncio.gather(read(run), cache.whole(key(cache), provider.whole))
        assert (events, given.how, given.response) == (EVENTS, "shared", told(EVENTS))
        assert len(provider.runs) == 1

        other = cache.stream(key(cache, "other"), provider)
        call = asyncio.create_task(cache.whole(key(cache, "other"), provider.whole))
        await asyncio.sleep(0)
        assert await read(other) == as_events((await call).response)
        assert (other.how, len(provider.runs)) == ("shared", 2)

    trial(test)


def test_who_waits_for_an_equal_stream_keeps_to_a_time_of_his_own():
    async def test(cache):
        provider = Streaming(gate=asyncio.Semaphore(2))
        first = cache.stream(key(cache), provider)
        await first.batch()
        second = cache.stream(key(cache), provider, timeout=0.05)
        with pytest.raises(CallTimeoutError):
            await read(second)
        for _ in EVENTS:
            provider.gate.release()
        assert await read(first) == EVENTS[1:]

    trial(test)


def test_when_the_time_of_the_first_is_over_before_any_event_the_others_ask_once_more():
    async def test(cache):
        late = Streaming([], seconds=0.02, error=CallTimeoutError("no answer within 0.02 s in all"))
        well = Streaming()
        providers = [late, well]
        runs = [cache.stream(key(cache), lambda: providers.pop(0)()) for _ in range(3)]
        seen = await asyncio.gather(*map(read, runs), return_exceptions=True)
        assert isinstance(seen[0], CallTimeoutError)
        assert seen[1:] == [EVENTS] * 2
        assert [run.how for run in runs[1:]] == ["made", "shared"]

    trial(test)


def test_an_error_before_any_event_goes_to_all():
    async def test(cache):
        provider = Streaming([], seconds=0.01, error=OverloadedError("busy", status=503))
        runs = [cache.stream(key(cache), provider) for _ in range(3)]
        seen = await asyncio.gather(*map(read, runs), return_exceptions=True)
        assert [(type(one), one.status) for one in seen] == [(OverloadedError, 503)] * 3
        assert len({id(one) for one in seen}) == 3

    trial(test)


# ---- bounds -----------------------------------------------------------------------------------

LONG = [Started("r1", "m"), *(TextDelta("x" * 1000) for _ in range(100)), Ended("stop")]


def test_a_stream_that_is_too_long_is_given_whole_and_not_kept_and_nobody_joins_it_any_more():
    async def test(cache):
        provider = Streaming(LONG)
        run = cache.stream(key(cache), provider)
        for _ in range(50):
            await run.batch()
        late = cache.stream(key(cache), provider)
        assert await read(late) == LONG
        assert len(await read(run)) == len(LONG) - 50
        assert (late.how, len(provider.runs)) == ("made", 2)
        await cache.settle()
        assert (await cache.stats()).store.entries == 0

    trial(test, max_bytes=10_000)


def test_a_reader_who_falls_too_far_behind_is_cut_off_and_memory_stays_bounded():
    async def test(cache):
        provider = Streaming(LONG)
        slow, fast = (cache.stream(key(cache), provider) for _ in range(2))
        await slow.batch()
        flight = next(iter(cache._tasks))
        assert isinstance(flight, StreamFlight)
        seen, most = [], 0
        while batch := await fast.batch():
            seen += batch
            most = max(most, flight._held)
        assert seen == LONG
        assert most < 12_000
        with pytest.raises(StreamInterruptedError) as caught:
            await slow.batch()
        assert "behind" in caught.value.message

    trial(test, max_bytes=10_000)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["read 0", "read 1", "read 2", "join", "close"]), max_size=60), st.integers(1, 60))
def test_whoever_reads_in_whatever_order_sees_a_prefix_of_what_came(steps, most):
    events = [Started("r1", "m"), *(TextDelta(f"{number:03}") for number in range(20)), Ended("stop")]

    async def test(cache):
        provider = Streaming(events)
        runs = [cache.stream(key(cache), provider) for _ in range(3)]
        seen = {id(run): [] for run in runs}
        for step in steps:
            if step == "join":
                runs.insert(0, cache.stream(key(cache), provider))
                seen[id(runs[0])] = []
            elif step == "close":
                await runs[0].close()
            else:
                run = runs[int(step[-1])]
                try:
                    seen[id(run)] += await run.batch()
                except StreamInterruptedError:
                    pass
        for run in runs:
            assert seen[id(run)] == events[: len(seen[id(run)])]
            if run.response is not None:
                assert (seen[id(run)], run.response) == (events, told(events))
            await run.close()

    trial(test, max_bytes=most * 20)
