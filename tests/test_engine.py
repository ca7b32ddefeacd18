"""The engine's promises: one owner of retries, one deadline, no silent success, everything told."""

import asyncio

import pytest

from polyvox.dialects import Endpoint, dialect
from polyvox.engine import CallOptions, Deployment, Engine
from polyvox.errors import (
    AuthError,
    BadResponseError,
    CallTimeoutError,
    ConnectionFailedError,
    LossError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from polyvox.keys import Secret, remember
from polyvox.routing import RetryRule
from polyvox.transports import Timeouts
from polyvox.types import Ended, Message, Request, Started, Text, TextDelta
from tests.scripted import Answer, Scripted, failed, piece, said, streamed

REQUEST = Request("m", (Message("user", (Text("hi"),)),))


def deployment(transport):
    return Deployment(
        "test",
        "m",
        dialect=dialect("openai.chat"),
        endpoint=Endpoint("http://localhost/v1", "test/m"),
        headers={"authorization": "Bearer planted-secret-key"},
        transport=transport,
        timeouts=Timeouts(),
    )


class Slept:
    def __init__(self):
        self.seconds = []

    async def __call__(self, seconds):
        self.seconds.append(seconds)


def engine(**facts):
    slept = Slept()
    return Engine(sleep=slept, chance=lambda: 0.5, **facts), slept


def call(*answers, options=None, request=REQUEST, **facts):
    transport = Scripted(*answers)
    made, slept = engine(**facts)
    response = asyncio.run(made_call(made, request, transport, options))
    return response, transport, slept


async def made_call(made, request, transport, options):
    return await made.call(request, deployment(transport), options or CallOptions())


def refused(kind, *answers, **facts):
    with pytest.raises(kind) as caught:
        call(*answers, **facts)
    return caught.value


def test_an_answer_knows_who_gave_it_and_how():
    response, transport, _ = call(said("hello"))
    assert response.text == "hello"
    assert (response.provider, response.deployment, response.model) == ("test", "test/m", "m-1")
    assert [attempt.outcome for attempt in response.attempts] == ["ok"]
    assert transport.sent[0].url == "http://localhost/v1/chat/completions"
    assert transport.given[0].closed


def test_a_retryable_failure_is_tried_again_and_told():
    response, transport, slept = call(failed(503), failed(500), said("third"))
    assert response.text == "third"
    assert [attempt.outcome for attempt in response.attempts] == ["server", "server", "ok"]
    assert [attempt.status for attempt in response.attempts] == [503, 500, None]
    assert slept.seconds == [0.25, 0.5]
    assert all(answer.closed for answer in transport.given)


def test_the_last_failure_carries_every_attempt():
    error = refused(ServerError, failed(500, "one"), failed(500, "two"), failed(500, "three"))
    assert [attempt.message for attempt in error.attempts] == ["one", "two", "three"]
    assert "3 attempts" in str(error)


def test_what_cannot_succeed_is_not_tried_again():
    error = refused(AuthError, failed(401, "bad key"))
    assert len(error.attempts) == 1
    assert (error.provider, error.model, error.sent, error.billed) == ("test", "m", "yes", False)


def test_the_servers_wish_is_a_floor_and_a_long_one_ends_the_call():
    _, _, slept = call(failed(429, headers={"retry-after": "7"}), said("ok"))
    assert slept.seconds == [7.0]
    error = refused(RateLimitError, failed(429, headers={"retry-after": "3600"}))
    assert error.retry_after == 3600


def test_no_wait_runs_past_the_deadline():
    error = refused(
        RateLimitError, failed(429, headers={"retry-after": "30"}), said("late"), options=CallOptions(timeout=5.0)
    )
    assert len(error.attempts) == 1


def test_a_timeout_after_sending_is_not_repeated_but_one_before_is():
    error = refused(CallTimeoutError, CallTimeoutError("first byte", sent="yes"))
    assert len(error.attempts) == 1
    response, *_ = call(CallTimeoutError("connect", sent="no"), said("ok"))
    assert response.text == "ok"


def test_a_broken_connection_is_tried_again():
    response, *_ = call(ConnectionFailedError("reset", sent="unknown"), said("ok"))
    assert [attempt.outcome for attempt in response.attempts] == ["connection", "ok"]


def test_a_body_that_is_no_answer_is_tried_once_more():
    error = refused(BadResponseError, Answer(b"<html>login</html>"), Answer(b"<html>login</html>"), said("never"))
    assert len(error.attempts) == 2
    assert "<html>login" in error.message


def test_the_deadline_ends_the_call_whatever_it_is_doing():
    error = refused(CallTimeoutError, Answer(60, b"late"), options=CallOptions(timeout=0.05))
    assert "0.05 s" in error.message
    assert error.attempts[-1].outcome == "timeout"


def test_a_redirect_is_an_error_with_a_hint_and_is_not_followed():
    error = refused(BadResponseError, Answer(b"", status=301), Answer(b"", status=301))
    assert "redirect" in error.message and "base_url" in error.hint


def test_strict_refuses_losses_before_anything_is_sent():
    request = Request("m", REQUEST.messages, top_k=5)
    error = refused(LossError, request=request, options=CallOptions(strict=True))
    assert [loss.field for loss in error.losses] == ["top_k"]
    assert error.sent == "no"
    response, *_ = call(said("fine"), request=request)
    assert [loss.field for loss in response.losses] == ["top_k"]


def test_an_answer_that_the_provider_broke_off_is_no_answer():
    body = {"choices": [{"index": 0, "message": {"content": "half"}, "finish_reason": "error"}]}
    answers = [said("x", **body) for _ in range(3)]
    error = refused(StreamInterruptedError, *answers)
    assert error.partial.text == "half"
    assert error.partial.complete is False


def test_a_secret_a_provider_echoes_is_masked():
    remember(Secret("planted-secret-key"))
    error = refused(AuthError, failed(401, "the key planted-secret-key is wrong"))
    assert "planted-secret-key" not in str(error) + repr(error) + str(error.describe())
    assert "***" in error.message
    assert "planted" not in repr(deployment(Scripted()))


class Watching:
    def __init__(self):
        self.seen = []

    def on_call(self, info):
        self.seen.append("call")

    def on_attempt(self, info):
        self.seen.append(f"attempt {info.attempt}")

    def on_event(self, event):
        self.seen.append(type(event).__name__)

    def on_done(self, info):
        self.seen.append("done" if info.response else info.error.kind)


def test_hooks_see_the_call_and_a_failing_hook_harms_nothing(caplog):
    class Broken:
        def on_attempt(self, info):
            raise RuntimeError("boom")

    hook = Watching()
    response, *_ = call(failed(500), said("ok"), hooks=(Broken(), hook))
    assert response.text == "ok"
    assert hook.seen == ["call", "attempt 1", "attempt 2", "done"]
    assert "boom" in caplog.text


def test_no_retries_means_none():
    error = refused(ServerError, failed(500), rule=RetryRule(0))
    assert len(error.attempts) == 1


# ---- streams ----------------------------------------------------------------------------------


def read(*answers, options=None, **facts):
    """All batches of a stream, the response or the error, and the transport."""
    transport = Scripted(*answers)
    made, _ = engine(**facts)

    async def go():
        run = made.stream(REQUEST, deployment(transport), options or CallOptions())
        batches = []
        try:
            while events := await run.batch():
                batches.append(events)
        except Exception as error:
            return batches, error
        return batches, run.response

    batches, end = asyncio.run(go())
    return [event for batch in batches for event in batch], end, transport


def words(events):
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_a_stream_gives_events_and_then_the_whole_response():
    events, response, transport = read(streamed("one ", "two"))
    assert words(events) == response.text == "one two"
    assert isinstance(events[0], Started) and isinstance(events[-1], Ended)
    assert response.complete and response.finish_reason == "stop"
    assert transport.bodies()[0]["stream"] is True
    assert transport.given[0].closed


def test_a_stream_that_fails_before_it_showed_anything_starts_anew():
    started = piece({"role": "assistant", "content": ""})
    broken = Answer(started, StreamInterruptedError("reset", sent="yes"))
    events, response, _ = read(broken, failed(503), streamed("ok"))
    assert words(events) == "ok"
    assert [attempt.outcome for attempt in response.attempts] == ["stream_interrupted", "server", "ok"]
    assert sum(isinstance(event, Started) for event in events) == 1


@pytest.mark.parametrize(
    "breaking",
    [
        [StreamInterruptedError("reset", sent="yes")],
        [],
        [b'data: {"error": {"message": "overloaded", "type": "overloaded_error"}}\n\n'],
    ],
)
def test_a_stream_that_fails_after_words_keeps_them_and_is_never_repeated(breaking):
    events, error, transport = read(
        Answer(piece({"content": "half "}), piece({"content": "way"}), *breaking), streamed("no")
    )
    assert words(events) == "half way"
    assert error.partial.text == "half way" and not error.partial.complete
    assert error.attempts[-1].outcome == error.kind
    assert len(transport.sent) == 1 and transport.given[0].closed


def test_an_error_event_is_told_by_its_type_not_by_status_200():
    event = b'data: {"error": {"message": "busy", "type": "overloaded_error"}}\n\n'
    _, error, _ = read(Answer(event), Answer(event), Answer(event))
    assert error.kind == "overloaded" and len(error.attempts) == 3


def test_the_deadline_cuts_a_stream_and_keeps_what_came():
    events, error, transport = read(Answer(piece({"content": "slow"}), 60, b""), options=CallOptions(timeout=0.1))
    assert isinstance(error, CallTimeoutError)
    assert words(events) == error.partial.text == "slow"
    assert transport.given[0].closed


def test_cancelling_a_stream_closes_its_connection():
    transport = Scripted(Answer(piece({"content": "x"}), 60))

    async def go():
        made, _ = engine()
        run = made.stream(REQUEST, deployment(transport), CallOptions())
        await run.batch()
        waiting = asyncio.ensure_future(run.batch())
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(StreamInterruptedError) as caught:
            await run.batch()
        return caught.value

    error = asyncio.run(go())
    assert transport.given[0].closed
    assert error.partial.text == "x"


def test_a_stream_closed_early_is_cut_and_says_so():
    transport = Scripted(streamed("a", "b", "c"))

    async def go():
        made, _ = engine()
        run = made.stream(REQUEST, deployment(transport), CallOptions())
        await run.batch()
        await run.batch()
        await run.close()
        with pytest.raises(StreamInterruptedError):
            await run.batch()

    asyncio.run(go())
    assert transport.given[0].closed and not transport.given[0].read_to_end


def test_hooks_see_stream_events():
    hook = Watching()
    read(streamed("x"), hooks=(hook,))
    assert hook.seen[:2] == ["call", "attempt 1"]
    assert "TextDelta" in hook.seen and hook.seen[-2:] == ["Ended", "done"]


def test_a_hook_hears_only_what_it_listens_for():
    class Ends:
        def __init__(self):
            self.seen = []

        def on_done(self, info):
            self.seen.append((info.attempt, info.response.text, bool(info.call)))

    hook = Ends()
    batches, *_ = read(streamed("x"), hooks=(hook, object()))
    call(said("ok"), hooks=(hook,))
    assert batches
    assert hook.seen == [(1, "x", True), (1, "ok", True)]


# ---- the retry rule ---------------------------------------------------------------------------


def test_backoff_doubles_under_jitter_to_its_cap():
    rule = RetryRule(retries=20)
    error = ServerError("x")
    waits = [rule.wait(error, tries, 1.0, None) for tries in range(1, 9)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 20, 20]
    assert rule.wait(error, 1, 0.0, None) == 0.0
    assert rule.wait(RateLimitError("x"), 1, 1.0, None) == 2.0


def test_retryable_false_from_the_server_is_obeyed():
    assert RetryRule().wait(ServerError("x", retryable=False), 1, 0.5, None) is None
    assert RetryRule().wait(AuthError("x", retryable=True), 1, 0.5, None) == 0.25
