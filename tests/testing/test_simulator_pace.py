"""A simulated provider numbers its answers, keeps its limits and tells them as the real one does, and answers at its
pace."""

import re
import threading
from datetime import UTC, datetime

import pytest

from polyvox.dialects import NAMES
from polyvox.testing import Simulator
from tests.testing.asking import HELLO, HOSTED, SAYS, ask, client, error_of, seconds_of

DIALECTS = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def shared():
    """One that answers everything, for tests that leave nothing behind."""
    with Simulator() as simulator:
        yield simulator


# ---- ids and limits ---------------------------------------------------------------------------


def test_each_answer_has_an_id_where_the_provider_gives_one(shared):
    assert ask(shared, "openai.chat").headers["x-request-id"].startswith("req_")
    assert ask(shared, "anthropic.messages").headers["request-id"].startswith("req_")
    refused = ask(shared, "anthropic.messages", key=None)
    assert error_of("anthropic.messages", refused).request_id == refused.headers["request-id"]
    assert not [name for name in ask(shared, "ollama.chat").headers if "request-id" in name]


@DIALECTS
def test_beyond_its_requests_a_minute_it_says_when_to_come_back(name):
    with Simulator(rpm=2) as simulator:
        assert [ask(simulator, name).status for _ in range(2)] == [200, 200]
        got = ask(simulator, name)
        error = error_of(name, got)
    assert got.status == (429 if name in HOSTED else 503)
    assert error.kind == ("rate_limit" if name in HOSTED else "overloaded")
    assert 28 <= error.retry_after <= 30 and error.retryable


def test_the_limits_stand_on_every_answer_as_openai_tells_them():
    with Simulator(rpm=60, tpm=6000) as simulator:
        first = ask(simulator, "openai.chat").headers
        refused = ask(simulator, "openai.chat", top_k=1).headers
    assert first["x-ratelimit-limit-requests"] == "60" and first["x-ratelimit-limit-tokens"] == "6000"
    assert first["x-ratelimit-remaining-requests"] == "59"
    assert 5900 < int(first["x-ratelimit-remaining-tokens"]) < 6000
    assert re.fullmatch(r"9\d\dms|1s", first["x-ratelimit-reset-requests"])
    assert refused["x-ratelimit-remaining-requests"] == "58"


def test_the_limits_stand_on_every_answer_as_anthropic_tells_them():
    with Simulator(rpm=2, tpm=6000) as simulator:
        headers = ask(simulator, "anthropic.messages", stream=True).headers
    assert headers["anthropic-ratelimit-requests-limit"] == "2"
    assert headers["anthropic-ratelimit-requests-remaining"] == "1"
    assert int(headers["anthropic-ratelimit-tokens-remaining"]) < 6000
    reset = datetime.strptime(headers["anthropic-ratelimit-requests-reset"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert 25 < (reset - datetime.now(UTC)).total_seconds() < 32
    assert not [name for name in headers if name.startswith("x-ratelimit")]


def test_no_limits_stand_on_answers_of_a_provider_that_tells_none():
    with Simulator(rpm=2, tpm=6000) as simulator:
        assert not [name for name in ask(simulator, "ollama.chat").headers if "ratelimit" in name]


def test_tokens_are_limited_too_and_what_never_fits_says_so():
    with Simulator(tpm=45) as simulator:
        assert ask(simulator, "openai.chat").status == 200
        again = error_of("openai.chat", ask(simulator, "openai.chat"))
        assert again.kind == "rate_limit" and "45 tokens" in again.message and again.retry_after > 0 and again.retryable
        never = error_of("openai.chat", ask(simulator, "openai.chat", said="word " * 100))
        assert never.kind == "rate_limit" and "more than the 45" in never.message
        assert never.retry_after is None and not never.retryable


def test_a_client_that_waits_as_told_is_answered():
    with Simulator(rpm=60) as simulator, client(simulator, "openai.chat", retries=2) as asking:
        for _ in range(60):
            ask(simulator, "openai.chat")
        response = asking.ask(HELLO)
    assert [attempt.outcome for attempt in response.attempts] == ["rate_limit", "ok"]


def test_only_so_many_are_answered_at_a_time():
    with Simulator(concurrent=1, latency=0.3) as simulator:
        thread = threading.Thread(target=ask, args=(simulator, "openai.chat"))
        thread.start()
        assert simulator.wait_for(lambda it: it.counts.requests == 1)
        got = ask(simulator, "openai.chat")
        thread.join()
        assert got.status == 429 and got.headers["retry-after"] == "1"
        assert ask(simulator, "openai.chat").status == 200


# ---- pace -------------------------------------------------------------------------------------


def test_latency_comes_before_the_head_and_by_seed():
    def waits(seed):
        with Simulator(latency="0.02..0.3", seed=seed) as simulator:
            return [seconds_of(lambda: ask(simulator, "openai.chat")) for _ in range(3)]

    def shortest(seed):
        return [min(pair) for pair in zip(waits(seed), waits(seed), strict=True)]

    first, again, other = shortest(1), shortest(1), shortest(2)
    assert all(0.02 <= wait < 1 for wait in first)
    assert first == pytest.approx(again, abs=0.1)
    assert max(abs(a - b) for a, b in zip(first, other, strict=True)) > 0.1


@DIALECTS
def test_words_of_a_stream_come_at_the_rate_of_its_tokens(name):
    with Simulator(token_rate=30) as simulator:
        taken = seconds_of(lambda: ask(simulator, name, stream=True))
        tokens = simulator.requests[0].usage.output
        assert tokens / 30 <= taken < tokens / 30 + 1
        assert seconds_of(lambda: ask(simulator, name)) < tokens / 30


# What a dialect says when it has nothing to say; in the others everything means something.
STILL_THERE = {
    "openai.chat": b": keep-alive\n\n",
    "openai.responses": b": keep-alive\n\n",
    "anthropic.messages": b"event: ping\n",
    "gemini.generate": b"\n\n\n",
    "cohere.chat": b": keep-alive\n\n",
}


@DIALECTS
def test_a_silent_stream_says_that_it_is_still_there(shared, name):
    # Many more silences than are asked for: a slow machine is late for some of them.
    with Simulator(token_rate=40, keep_alive=0.004) as simulator:
        quiet, busy = ask(simulator, name, stream=True), ask(shared, name, stream=True)
        if word := STILL_THERE.get(name):
            assert quiet.body.count(word) >= 5 and quiet.whole and word not in busy.body
        else:
            assert quiet.body == busy.body
        with client(simulator, name) as asking:
            assert "".join(asking.stream(HELLO)).startswith(SAYS)
