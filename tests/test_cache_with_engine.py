"""A cache before real calls: the engine's deadlines, cancellations and errors mean the same with it as without."""

import asyncio

import pytest

from polyvox.cache import ResponseCache, fingerprint
from polyvox.client import AsyncStream, Client
from polyvox.config import Settings
from polyvox.dialects import Endpoint, dialect
from polyvox.engine import CallOptions, Deployment, Engine
from polyvox.errors import CallTimeoutError, RateLimitError, StreamInterruptedError
from polyvox.registry import Entry
from polyvox.routing import RetryRule
from polyvox.transports import Timeouts
from polyvox.types import Message, Request, Text
from tests.scripted import Answer, Scripted, failed, piece, said, streamed

REQUEST = Request("m", (Message("user", (Text("hi"),)),))
AT = Endpoint("http://localhost/v1", "test/m")
OF = fingerprint("test", "m", "openai.chat", endpoint=AT)


class Asking:
    """An engine, one deployment that answers by script, and a cache before them."""

    def __init__(self, *answers, retries=0):
        self.transport = Scripted(*answers)
        self.engine = Engine(rule=RetryRule(retries))
        self.deployment = Deployment(
            "test", "m", dialect=dialect("openai.chat"), endpoint=AT, headers={"authorization": "Bearer planted"},
            transport=self.transport, timeouts=Timeouts(),
        )  # fmt: skip
        self.cache = ResponseCache()
        self.key = self.cache.key(REQUEST, OF)

    async def whole(self, timeout=None, **how):
        options = CallOptions(timeout=timeout)
        given = await self.cache.whole(
            self.key, lambda: self.engine.call(REQUEST, self.deployment, options), timeout=timeout, **how
        )
        await self.cache.settle()
        return given

    def stream(self, timeout=None, **how):
        options = CallOptions(timeout=timeout)
        return self.cache.stream(
            self.key, lambda: self.engine.stream(REQUEST, self.deployment, options), timeout=timeout, **how
        )


def trial(test, *answers, **options):
    async def whole():
        asking = Asking(*answers, **options)
        try:
            return await test(asking)
        finally:
            await asking.cache.close()

    return asyncio.run(whole())


def test_the_same_question_is_sent_once():
    async def test(asking):
        first, second = await asking.whole(), await asking.whole()
        assert (first.how, second.how) == ("made", "hit")
        assert second.response.text == "hello"
        assert second.response.usage == first.response.usage
        assert second.response.raw == first.response.raw
        assert len(asking.transport.sent) == 1

    trial(test, said("hello"))


def test_a_stream_is_recorded_and_told_again_as_the_words_it_was():
    async def test(asking):
        for _ in range(2):
            stream = AsyncStream(asking.stream)
            assert [text async for text in stream] == ["Hel", "lo"]
            assert stream.response.text == "Hello"
            await asking.cache.settle()
        assert (await asking.whole()).response.text == "Hello"
        assert len(asking.transport.sent) == 1
        assert asking.transport.given[0].closed

    trial(test, streamed("Hel", "lo"))


def test_the_deadline_of_the_first_is_its_own_and_those_who_have_time_get_the_next_answer():
    async def test(asking):
        hasty = asyncio.create_task(asking.whole(timeout=0.05))
        await asyncio.sleep(0)
        patient = [asyncio.create_task(asking.whole(timeout=20)) for _ in range(3)]
        with pytest.raises(CallTimeoutError) as caught:
            await hasty
        assert [attempt.outcome for attempt in caught.value.attempts] == ["timeout"]
        assert [(await one).response.text for one in patient] == ["late"] * 3
        assert len(asking.transport.sent) == 2

    trial(test, Answer(5.0, b"{}"), said("late"))


def test_the_deadline_of_a_stream_is_told_as_without_a_cache_and_the_socket_is_let_go():
    async def test(asking):
        stream = asking.stream(timeout=0.1)
        seen = []
        with pytest.raises(CallTimeoutError) as caught:
            while events := await stream.batch():
                seen += events
        assert seen
        assert caught.value.partial.text == "Hel"
        await asking.cache.settle()
        assert asking.transport.given[0].closed
        assert await asking.cache.get(asking.key) is None

    trial(test, Answer(piece({"content": "Hel"}), 5.0, piece({"content": "lo"})))


def test_a_caller_who_goes_away_ends_the_call_unless_others_wait():
    async def test(asking):
        callers = [asyncio.create_task(asking.whole()) for _ in range(3)]
        await asyncio.sleep(0.02)
        callers[0].cancel()
        await asyncio.sleep(0.02)
        assert not asking.transport.given[0].closed
        for caller in callers[1:]:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await asyncio.wait_for(asking.cache.settle(), 1)
        assert asking.transport.given[0].closed
        assert len(asking.transport.sent) == 1

    trial(test, Answer(30.0, b"{}"))


def test_a_stream_that_nobody_reads_any_more_is_cut_at_the_socket():
    async def test(asking):
        stream = asking.stream()
        await stream.batch()
        await stream.close()
        await asyncio.wait_for(asking.cache.settle(), 1)
        assert asking.transport.given[0].closed
        assert not asking.transport.given[0].read_to_end

    trial(test, Answer(piece({"content": "Hel"}), 30.0, piece({"content": "lo"})))


def test_a_cut_stream_is_no_answer_and_the_next_call_asks_again():
    async def test(asking):
        with pytest.raises(StreamInterruptedError) as caught:
            await asking.stream().finish()
        assert caught.value.partial.text == "Hel"
        assert await asking.stream().finish()
        assert len(asking.transport.sent) == 2

    trial(test, streamed("Hel", end=False), streamed("Hello"))


def test_an_error_has_its_attempts_for_each_who_waits():
    async def test(asking):
        errors = await asyncio.gather(*(asking.whole() for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in errors] == [RateLimitError] * 3
        assert [len(error.attempts) for error in errors] == [1] * 3
        assert len(asking.transport.sent) == 1

    trial(test, failed(429))


def test_an_answer_that_is_given_again_has_no_decision_of_another_call():
    entry = Entry("here", "m", base_url="http://localhost/v1", tier="economy")
    facts = {"registry": [entry], "settings": Settings(), "transport": Scripted(said("hi")), "cache": True}
    with Client(tier="economy", **facts) as client:
        made, again = client.ask("hello"), client.ask("hello")
        streamed_again = client.stream("hello").finish()
    assert made.decision.asked == ("here",)
    assert (again.text, again.decision, again.attempts) == ("hi", None, ())
    assert (streamed_again.text, streamed_again.decision) == ("hi", None)
