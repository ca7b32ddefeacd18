"""What a cache gives is what was asked for, whole, and never another's; equal calls under way are one call."""

import asyncio
import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from polyvox.cache import ResponseCache, fingerprint, records
from polyvox.errors import (
    CallCancelledError,
    CallTimeoutError,
    InputError,
    NotFoundError,
    OverloadedError,
    PolyvoxError,
)
from polyvox.stores import MemoryStore, SQLiteStore
from polyvox.types import (
    Attempt,
    Choice,
    Citation,
    Cost,
    Image,
    Loss,
    Message,
    Reasoning,
    Refusal,
    Request,
    Response,
    Text,
    ToolCall,
    Usage,
)
from tests.dialects import generated

OF = fingerprint("demo", "small", "openai.chat")
ANSWER = Response(
    Message(
        "assistant",
        (
            Reasoning("hm", signature="c2ln", origin="demo/small"),
            Text("Hello", citations=(Citation(url="https://x", start=0, end=2),)),
            Image(data=b"\x89PNG\x00", media_type="image/png"),
        ),
    ),
    "stop",
    "end_turn",
    usage=Usage(10, 5, total=15, cost=Decimal("0.000123"), source="provider", raw={"in": 10}),
    cost=Cost(Decimal("0.000123"), source="provider"),
    id="r1",
    model="small-2026",
    provider="demo",
    deployment="demo/small",
    created=1_700_000_000.5,
    attempts=(Attempt("demo/small", 0.5),),
    losses=(Loss("seed", "not known here"),),
    raw=b'{"id": "r1"}',
    extra={"openai.chat": {"x": [1, None]}},
)
KEPT = replace(ANSWER, attempts=())


def asked(text="Hi", **fields):
    return Request("small", (Message("user", (Text(text),)),), **fields)


class Provider:
    """Answers after a while, or fails; counts how often it was asked, and how often that was cancelled."""

    def __init__(self, answer=ANSWER, seconds=0.0):
        self.answer = answer
        self.seconds = seconds
        self.calls = 0
        self.cancelled = 0

    async def __call__(self):
        self.calls += 1
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def trial(test, **options):
    async def whole():
        cache = ResponseCache(**options)
        try:
            return await test(cache)
        finally:
            await cache.close()

    return asyncio.run(whole())


# ---- one call after another -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_second_equal_call_is_answered_whole_and_the_provider_is_not_asked(kind, tmp_path):
    async def test(cache):
        provider = Provider()
        key = cache.key(asked(), OF)
        first = await cache.whole(key, provider)
        await cache.settle()
        second = await cache.whole(cache.key(asked(), OF), provider)
        assert (first.how, second.how, provider.calls) == ("made", "hit", 1)
        assert first.response is ANSWER
        assert second.response == KEPT
        assert 0 <= second.age < 60

    trial(test, store=None if kind == "memory" else tmp_path / "c.db")


@settings(max_examples=60, deadline=None)
@given(generated.responses())
def test_every_answer_that_is_kept_comes_back_equal(response):
    async def test(cache):
        key = cache.key(asked(), OF)
        if await cache.set(key, response):
            assert await cache.get(key) == replace(response, attempts=())
        else:
            assert records.refused(response)

    trial(test)


def test_an_answer_outlives_the_process_in_a_file(tmp_path):
    async def first(cache):
        await cache.whole(cache.key(asked(), OF), Provider())
        await cache.settle()

    async def second(cache):
        return await cache.whole(cache.key(asked(), OF), Provider())

    trial(first, store=tmp_path / "c.db")
    assert trial(second, store=tmp_path / "c.db").how == "hit"


def test_tenants_and_namespaces_never_see_each_others_answers():
    async def test(cache):
        provider = Provider()
        for where in ({}, {"tenant": "a"}, {"tenant": "b"}, {"namespace": "x"}, {"tenant": "a", "namespace": "x"}):
            assert (await cache.whole(cache.key(asked(), OF, **where), provider)).how == "made"
            await cache.settle()
            assert (await cache.whole(cache.key(asked(), OF, **where), provider)).how == "hit"
        assert provider.calls == 5

    trial(test)


def test_an_answer_is_forgotten_when_its_time_is_over():
    now = [0.0]

    async def test(cache):
        provider = Provider()
        key, brief, endless = (cache.key(asked(text), OF) for text in ("1", "2", "3"))
        await cache.whole(key, provider)
        await cache.whole(brief, provider, ttl=10)
        await cache.whole(endless, provider, ttl=None)
        await cache.settle()
        now[0] = 10
        assert [await cache.get(one) is not None for one in (key, brief, endless)] == [True, False, True]
        now[0] = 101
        assert await cache.clean() == 1
        assert [await cache.get(one) is not None for one in (key, brief, endless)] == [False, False, True]

    trial(test, store=MemoryStore(clock=lambda: now[0]), ttl=100)


@pytest.mark.parametrize("ttl", [-1, math.nan, "1 hour"])
def test_a_time_that_is_none_is_refused(ttl):
    with pytest.raises(InputError):
        ResponseCache(ttl=ttl)

    async def test(cache):
        with pytest.raises(InputError):
            await cache.whole(cache.key(asked(), OF), Provider(), ttl=ttl)

    trial(test)


def test_no_more_is_kept_than_was_said():
    async def test(cache):
        for number in range(5):
            await cache.whole(cache.key(asked(str(number)), OF), Provider())
        await cache.settle()
        kept = [await cache.get(cache.key(asked(str(number)), OF)) is not None for number in range(5)]
        assert kept == [False, False, True, True, True]

    trial(test, max_entries=3)
    with pytest.raises(InputError):
        ResponseCache(MemoryStore(), max_entries=3)


# ---- what one call says -----------------------------------------------------------------------


def test_a_call_may_leave_the_cache_out_ask_anew_or_ask_nobody():
    async def test(cache):
        provider = Provider()
        key = cache.key(asked(), OF)
        with pytest.raises(NotFoundError) as caught:
            await cache.whole(key, provider, use="only")
        assert (caught.value.sent, provider.calls) == ("no", 0)
        assert (await cache.whole(key, provider, use="off")).how == "made"
        await cache.settle()
        assert await cache.get(key) is None
        await cache.whole(key, provider)
        await cache.settle()
        assert (await cache.whole(key, provider, use="off")).how == "made"
        assert (await cache.whole(key, provider, use="only")).how == "hit"
        provider.answer = replace(ANSWER, id="r2")
        assert (await cache.whole(key, provider, use="refresh")).response.id == "r2"
        await cache.settle()
        assert (await cache.whole(key, provider)).response.id == "r2"
        assert provider.calls == 4
        with pytest.raises(InputError):
            await cache.whole(key, provider, use="maybe")

    trial(test)


def test_a_request_without_a_key_is_simply_asked():
    async def test(cache):
        provider = Provider()
        key = cache.key(asked(extra={"openai.chat": {"x": object()}}), OF)
        assert key is None
        for _ in range(2):
            assert (await cache.whole(key, provider)).how == "made"
        assert provider.calls == 2
        assert (await cache.get(key), await cache.set(key, ANSWER), await cache.delete(key)) == (None, False, False)
        assert (await cache.stats()).refused == {"no key": 1}

    trial(test)


# ---- what is kept -----------------------------------------------------------------------------

REFUSED = {
    "incomplete": replace(ANSWER, complete=False),
    "error": replace(ANSWER, finish_reason="error"),
    "cancelled": replace(ANSWER, finish_reason="cancelled"),
    "content_filter": replace(ANSWER, finish_reason="content_filter"),
    "context_overflow": replace(ANSWER, finish_reason="context_overflow"),
    "pause": replace(ANSWER, finish_reason="pause"),
    "compaction": replace(ANSWER, finish_reason="compaction"),
    "unknown": replace(ANSWER, finish_reason=None),
    "empty": replace(ANSWER, message=Message("assistant")),
    "too large": replace(ANSWER, raw=b"x" * 20_000),
    "not JSON": replace(ANSWER, extra={"x": {"y": object()}}),
}


@pytest.mark.parametrize("why", REFUSED)
def test_an_answer_that_is_not_whole_and_well_is_given_and_never_kept(why):
    async def test(cache):
        provider = Provider(REFUSED[why])
        key = cache.key(asked(), OF)
        for _ in range(2):
            assert (await cache.whole(key, provider)).how == "made"
            await cache.settle()
        assert provider.calls == 2
        stats = await cache.stats()
        assert (stats.refused, stats.stored, stats.store.entries) == ({why: 2}, 0, 0)

    trial(test, max_bytes=10_000)


def test_one_of_several_answers_that_is_not_well_keeps_all_of_them_out():
    well, ill = Choice(Message("assistant", (Text("a"),)), "stop"), Choice(Message("assistant"), "content_filter")
    assert records.refused(replace(ANSWER, choices=(well,))) is None
    assert records.refused(replace(ANSWER, choices=(well, ill))) == "content_filter"


@pytest.mark.parametrize(
    ("part", "reason"),
    [(ToolCall("1", "f", "{}"), "tool_calls"), (Text("cut at the lim"), "length"), (Refusal("no"), "refusal")],
)
def test_tool_calls_refusals_and_answers_up_to_the_asked_length_are_kept(part, reason):
    answer = Response(Message("assistant", (part,)), reason)

    async def test(cache):
        key = cache.key(asked(), OF)
        assert await cache.set(key, answer)
        assert await cache.get(key) == answer

    trial(test)


@pytest.mark.parametrize("kept", [b"", b"null", b"{", b"\x80\x04.", b'{"format":2}', b"[]"])
def test_a_record_that_cannot_be_read_is_a_miss_and_is_removed(kept):
    async def test(cache):
        key = cache.key(asked(), OF)
        await cache.store.put(key.space, key.digest, kept)
        assert (await cache.whole(key, Provider())).how == "made"
        await cache.settle()
        assert (await cache.stats()).damaged == 1
        assert (await cache.whole(key, Provider())).how == "hit"

    trial(test)


def test_a_record_of_a_failed_answer_is_never_given_whoever_wrote_it():
    async def test(cache):
        key = cache.key(asked(), OF)
        await cache.store.put(key.space, key.digest, records.written(replace(ANSWER, finish_reason="error"), None, 0.0))
        assert await cache.get(key) is None

    trial(test)


class Broken:
    """A store of somebody else's that raises."""

    def __getattr__(self, name):
        async def fail(*_):
            raise OSError("gone")

        return fail


def test_a_store_that_raises_harms_no_call():
    async def test(cache):
        key = cache.key(asked(), OF)
        for _ in range(2):
            assert (await cache.whole(key, Provider())).how == "made"
            await cache.settle()
        stats = await cache.stats()
        assert (stats.store, stats.refused) == (None, {"store": 2})

    trial(test, store=Broken())


# ---- management -------------------------------------------------------------------------------


def test_answers_are_set_got_deleted_and_cleared_by_hand():
    async def test(cache):
        keys = {
            where: cache.key(asked(), OF, tenant=where[0], namespace=where[1])
            for where in ((None, "x"), (None, "y"), ("a", "x"), ("a", "y"), ("b", "x"))
        }

        async def kept():
            return [where for where, key in keys.items() if await cache.get(key) is not None]

        for key in keys.values():
            assert await cache.set(key, ANSWER)
        assert await cache.delete(keys[None, "y"])
        assert not await cache.delete(keys[None, "y"])
        assert await cache.clear_namespace("x", tenant="a") == 1
        assert await kept() == [(None, "x"), ("a", "y"), ("b", "x")]
        assert await cache.clear() == 1
        assert await cache.clear(tenant="b") == 1
        assert await kept() == [("a", "y")]

    trial(test)


def test_what_it_did_and_saved_is_counted():
    async def test(cache):
        key = cache.key(asked(), OF)
        for _ in range(3):
            await cache.whole(key, Provider())
            await cache.settle()
        stats = await cache.stats()
        assert (stats.hits, stats.misses, stats.stored, stats.saved_input, stats.saved_output) == (2, 1, 1, 20, 10)
        assert stats.store.hits == 2

    trial(test)


def test_a_cache_that_is_closed_still_asks():
    async def test(cache):
        key = cache.key(asked(), OF)
        await cache.whole(key, Provider())
        await cache.close()
        assert (await cache.whole(key, Provider())).how == "made"

    trial(test)


def test_a_store_that_was_given_is_left_open(tmp_path):
    async def test():
        store = SQLiteStore(tmp_path / "c.db")
        cache = ResponseCache(store)
        await cache.close()
        assert await store.put("a", "k", b"1")
        await store.close()

    asyncio.run(test())


# ---- equal calls under way --------------------------------------------------------------------


def test_row_82_a_thousand_equal_calls_are_one():
    async def test(cache):
        provider = Provider(seconds=0.05)
        keys = [cache.key(asked(), OF) for _ in range(1000)]
        given = await asyncio.gather(*(cache.whole(key, provider) for key in keys))
        assert provider.calls == 1
        assert [one.how for one in given] == ["made"] + ["shared"] * 999
        assert all(one.response == ANSWER for one in given)
        stats = await cache.stats()
        assert (stats.shared, stats.saved_output) == (999, 999 * 5)

    trial(test)


def test_row_82_whoever_leaves_harms_nobody_and_the_last_one_cancels_the_call():
    async def test(cache):
        provider = Provider(seconds=0.2)
        key = cache.key(asked(), OF)
        callers = [asyncio.create_task(cache.whole(key, provider)) for _ in range(10)]
        await asyncio.sleep(0.05)
        for caller in callers[:9]:
            caller.cancel()
        assert (await callers[9]).response == ANSWER
        assert (provider.calls, provider.cancelled) == (1, 0)
        assert (await cache.stats()).left == 9

        other = cache.key(asked("other"), OF)
        callers = [asyncio.create_task(cache.whole(other, provider)) for _ in range(3)]
        await asyncio.sleep(0.05)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await cache.settle()
        assert (provider.calls, provider.cancelled) == (2, 1)
        assert (await cache.stats()).cancelled == 1
        assert (await cache.whole(other, provider)).how == "made"

    trial(test)


def test_a_call_that_is_cancelled_before_it_began_leaves_nothing_behind():
    async def test(cache):
        provider = Provider()
        caller = asyncio.create_task(cache.whole(cache.key(asked(), OF), provider))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await cache.settle()
        assert not cache._flights
        assert not cache._tasks

    trial(test)


def test_an_error_goes_to_all_who_wait_each_time_as_an_object_of_its_own():
    failure = OverloadedError("busy", status=503, retry_after=3, attempts=(Attempt("demo/small"),))

    async def test(cache):
        provider = Provider(failure, seconds=0.02)
        key = cache.key(asked(), OF)
        errors = await asyncio.gather(*(cache.whole(key, provider) for _ in range(4)), return_exceptions=True)
        assert provider.calls == 1
        assert len({id(error) for error in errors}) == 4
        assert errors[0] is failure
        for error in errors:
            assert type(error) is OverloadedError
            assert (error.message, error.status, error.retry_after, error.attempts) == (
                "busy", 503, 3, (Attempt("demo/small"),),
            )  # fmt: skip
        assert await cache.get(key) is None
        provider.answer = ANSWER
        assert (await cache.whole(key, provider)).how == "made"

    trial(test)


class Stubborn(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def test_an_error_that_cannot_be_copied_is_told_all_the_same():
    async def test(cache):
        provider = Provider(Stubborn("a", "b"), seconds=0.02)
        key = cache.key(asked(), OF)
        first, second = await asyncio.gather(*(cache.whole(key, provider) for _ in range(2)), return_exceptions=True)
        assert type(first) is Stubborn
        assert isinstance(second, PolyvoxError)
        assert "Stubborn" in second.message

    trial(test)


def test_a_call_that_somebody_else_cancels_is_no_cancellation_of_those_who_wait():
    async def test(cache):
        async def provider():
            await asyncio.sleep(0)
            raise asyncio.CancelledError

        key = cache.key(asked(), OF)
        errors = await asyncio.gather(*(cache.whole(key, provider) for _ in range(2)), return_exceptions=True)
        assert [type(error) for error in errors] == [CallCancelledError] * 2

    trial(test)


def test_who_waits_for_an_equal_call_keeps_to_a_time_of_his_own():
    async def test(cache):
        provider = Provider(seconds=0.3)
        key = cache.key(asked(), OF)
        first = asyncio.create_task(cache.whole(key, provider))
        await asyncio.sleep(0)
        with pytest.raises(CallTimeoutError):
            await cache.whole(key, provider, timeout=0.05)
        assert (await first).how == "made"
        assert provider.calls == 1

    trial(test)


def test_when_the_time_of_the_first_is_over_the_others_ask_once_more_together_and_no_third_time():
    async def test(cache):
        provider = Provider(CallTimeoutError("no answer within 0.02 s in all"), seconds=0.02)
        key = cache.key(asked(), OF)
        given = await asyncio.gather(
            *(cache.whole(key, provider, timeout=5) for _ in range(10)), return_exceptions=True
        )
        assert {type(one) for one in given} == {CallTimeoutError}
        assert provider.calls == 2

    trial(test)


def test_those_whose_time_is_not_over_get_the_answer_of_the_second_call():
    answers = [CallTimeoutError("no answer within 0.02 s in all"), ANSWER]

    async def test(cache):
        calls = []

        async def provider():
            calls.append(1)
            await asyncio.sleep(0.02)
            answer = answers[len(calls) - 1]
            if isinstance(answer, Exception):
                raise answer
            return answer

        key = cache.key(asked(), OF)
        given = await asyncio.gather(*(cache.whole(key, provider) for _ in range(5)), return_exceptions=True)
        assert isinstance(given[0], CallTimeoutError)
        assert [one.how for one in given[1:]] == ["made", "shared", "shared", "shared"]
        assert len(calls) == 2

    trial(test)


def test_a_call_that_asks_anew_does_not_join_one_that_was_begun_before_and_two_such_are_one():
    async def test(cache):
        provider = Provider(seconds=0.05)
        key = cache.key(asked(), OF)
        uses = ["use", "refresh", "refresh", "off"]
        given = await asyncio.gather(*(cache.whole(key, provider, use=use) for use in uses))
        assert [one.how for one in given] == ["made", "made", "shared", "made"]
        assert provider.calls == 3

    trial(test)


def test_what_is_cleared_while_it_is_under_way_is_not_kept():
    async def test(cache):
        provider = Provider(seconds=0.05)
        key = cache.key(asked(), OF)
        for forget in (cache.clear, lambda: cache.delete(key), lambda: cache.clear_namespace("default")):
            caller = asyncio.create_task(cache.whole(key, provider))
            await asyncio.sleep(0.01)
            await forget()
            assert (await caller).how == "made"
            await cache.settle()
            assert await cache.get(key) is None

    trial(test)


def test_each_event_loop_makes_its_own_call_and_finds_what_the_other_kept():
    cache = ResponseCache()
    provider = Provider(seconds=0.2)

    async def one():
        given = await cache.whole(cache.key(asked(), OF), provider)
        await cache.settle()
        return given.how

    async def both():
        return await asyncio.gather(one(), asyncio.to_thread(asyncio.run, one()))

    assert asyncio.run(both()) == ["made", "made"]
    assert asyncio.run(one()) == "hit"
    assert provider.calls == 2
    asyncio.run(cache.close())


def test_closing_cancels_what_is_under_way():
    async def test(cache):
        provider = Provider(seconds=5)
        caller = asyncio.create_task(cache.whole(cache.key(asked(), OF), provider))
        await asyncio.sleep(0.02)
        await cache.close()
        with pytest.raises(CallCancelledError):
            await caller
        assert provider.cancelled == 1

    trial(test)
