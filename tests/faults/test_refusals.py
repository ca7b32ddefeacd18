"""A provider refuses: what it says decides whether it is asked again, when, and what the caller is told."""

import json
import time
from email.utils import formatdate

import pytest

from polyvox.engine import Engine
from polyvox.testing.fault_server import answer
from tests.faults.calls import CHAT, EVERY_DIALECT, good

NOW = 1_800_000_000


@pytest.fixture(autouse=True)
def waits(monkeypatch, no_pause_between_tries):
    """The seconds that calls waited between tries; chance is in the middle."""
    waited = []

    async def sleeping(seconds):
        waited.append(seconds)

    monkeypatch.setitem(Engine.__init__.__kwdefaults__, "sleep", sleeping)
    return waited


def refusal(status, *headers, body=None, message="no", **facts):
    said = {"error": {"message": message, "type": "some_error", **facts}} if body is None else body
    return answer(json.dumps(said).encode(), *headers, "content-type: application/json", status=f"{status} No")


def first(step, stream, dialect=CHAT):
    """A server that does this at its first request, and answers well after it."""
    steps = iter([step])

    async def script(connection):
        await next(steps, good(dialect, stream))(connection)

    return script


# ---- how long to wait (26, 27) ----------------------------------------------------------------

OWN = 1.0  # what is waited where nobody says how long
THERE = f"date: {formatdate(NOW, usegmt=True)}"


def until(moment, date=None):
    """A wish to wait until then, in a head that says what time it is there."""
    return [f"retry-after: {date or formatdate(moment, usegmt=True)}", THERE]


DELAYS = {
    "2": (["retry-after: 2"], 2.0),
    "0": (["retry-after: 0"], OWN),
    "-1": (["retry-after: -1"], OWN),
    "1.5": (["retry-after: 1.5"], 1.5),
    "inf": (["retry-after: inf"], OWN),
    "nan": (["retry-after: nan"], OWN),
    "ms": (["retry-after-ms: 2500"], 2.5),
    "both": (["retry-after: 9", "retry-after-ms: 2500"], 2.5),
    "a date to come": (until(NOW + 30), 30.0),
    "a date without a zone": (until(0, formatdate(NOW + 30)[:-6]), 30.0),
    "a date gone by": (until(NOW - 30), OWN),
    "no date": (["retry-after: Fri, 99 Foo 2026 10:00:00 GMT"], OWN),
    "the reset of a used-up limit": (["x-ratelimit-remaining-requests: 0", "x-ratelimit-reset-requests: 0m7s"], 7.0),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "wait"), DELAYS.values(), ids=DELAYS)
def test_what_a_refusal_asks_for_is_waited_and_nonsense_is_passed_over(told, serve, stream, waits, headers, wait):
    told(serve(first(refusal(429, *headers), stream)), stream=stream, timeout=60).ended_well("rate_limit")
    assert waits == [wait]


def test_a_date_in_a_head_without_one_is_taken_by_our_own_clock(told, serve, stream, waits):
    later = formatdate(time.time() + 30, usegmt=True)
    step = refusal(429, f"retry-after: {later}")
    told(serve(first(step, stream)), stream=stream, timeout=60).ended_well("rate_limit")
    assert 20 < waits[0] <= 30


@pytest.mark.parametrize(
    ("headers", "asked"),
    [(["retry-after: 99999999"], 99999999), (["x-ratelimit-reset-tokens: 6m0s"], 360.0)],
)  # fmt: skip
def test_a_wait_that_is_too_long_is_the_end_of_a_call_and_told(told, serve, stream, waits, headers, asked):
    heard = told(serve(refusal(429, *headers)), stream=stream, kept=1)
    heard.ended_in("rate_limit", sent="yes")
    assert heard.error.retry_after == asked and heard.error.retryable and waits == []


def test_nobody_waits_past_the_deadline(told, serve, stream, waits):
    heard = told(serve(refusal(429, "retry-after: 30")), stream=stream, timeout=10, kept=1)
    heard.ended_in("rate_limit", sent="yes")
    assert waits == []


RETRY_INFO = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "no", "details": [
    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}]}}  # fmt: skip


@pytest.mark.parametrize(
    ("dialect", "step", "wait"),
    [
        (CHAT, refusal(429, message="Rate limit reached. Please try again in 5.289s."), 5.289),
        ("anthropic.messages", refusal(429, message="Too many requests, retry in 1m 2s."), None),
        ("gemini.generate", refusal(429, body=RETRY_INFO), 34.0),
    ],
)
def test_a_wait_that_only_the_body_tells_is_waited(told, serve, waits, dialect, step, wait):
    if wait is None:  # a minute and more: that is for the caller to decide
        heard = told(serve(step), stream=False, dialect=dialect, kept=1)
        heard.ended_in("rate_limit", sent="yes")
        assert heard.error.retry_after == 62 and waits == []
    else:
        told(serve(first(step, False, dialect)), stream=False, dialect=dialect, timeout=60).ended_well("rate_limit")
        assert waits == [wait]


# ---- whether to ask again (28 to 32, 34) ------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (refusal(429, code="insufficient_quota", message="You exceeded your current quota."), "quota"),
        (refusal(429, type="billing_hard_limit_reached", message="The limit is reached."), "billing"),
        (refusal(402), "billing"),
        (refusal(401), "auth"),
        (refusal(403), "permission"),
        (refusal(400), "invalid_request"),
        (refusal(404), "not_found"),
    ],
)
def test_what_another_try_cannot_mend_is_asked_once(told, serve, stream, waits, step, kind):
    server = serve(step)
    heard = told(server, stream=stream, kept=1)
    heard.ended_in(kind, sent="yes")
    assert not heard.error.retryable and waits == [] and heard.error.billed is False
    assert len(server.requests) == 2  # the second is that of the call that shows that the client is well


@EVERY_DIALECT
def test_a_key_that_is_refused_all_at_once_is_told_as_such_and_the_client_goes_on(told, serve, stream, dialect):
    steps = iter([good(dialect, False)])

    async def revoked(connection):
        await next(steps, refusal(401, message="The key was revoked."))(connection)

    heard = told(serve(revoked), stream=stream, dialect=dialect, warm=lambda: True, kept=1)
    heard.ended_in("auth", sent="yes", says="revoked")


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 521, 522, 523, 524, 529])
def test_what_ails_the_provider_is_tried_again_and_mended(told, serve, stream, waits, status):
    kind = {504: "timeout", 524: "timeout", 529: "overloaded"}.get(status, "server")
    told(serve(first(refusal(status), stream)), stream=stream).ended_well(kind)
    assert waits == [0.25]


@pytest.mark.parametrize("status", [500, 504])
def test_what_goes_on_ailing_the_provider_is_not_tried_for_ever(told, serve, stream, status):
    kind = {504: "timeout"}.get(status, "server")
    heard = told(serve(refusal(status)), stream=stream, kept=1)
    heard.ended_in(kind, sent="yes", tries=3)
    assert heard.error.retryable and heard.error.status == status


@pytest.mark.parametrize(("status", "kind"), [(408, "timeout"), (409, "conflict"), (425, "rate_limit")])
def test_what_comes_of_timing_is_tried_again(told, serve, stream, status, kind):
    told(serve(first(refusal(status), stream)), stream=stream).ended_well(kind)


def test_a_conflict_is_tried_again_once(told, serve, stream):
    told(serve(refusal(409)), stream=stream, kept=1).ended_in("conflict", sent="yes", tries=2)


def test_a_parameter_that_is_refused_is_named_and_left_out_by_nobody(told, serve, stream):
    step = refusal(400, code="unsupported_parameter", param="top_k", message="Unsupported parameter: 'top_k'.")
    heard = told(serve(step), stream=stream, kept=1)
    heard.ended_in("unsupported_param", sent="yes", says="top_k")
    assert heard.error.param == "top_k" and "top_k" in heard.error.hint


@pytest.mark.parametrize(("status", "word", "tries"), [(500, "false", 1), (400, "true", 3), (500, "perhaps", 3)])
def test_the_provider_has_the_last_word_on_another_try(told, serve, stream, status, word, tries):
    kind = {500: "server", 400: "invalid_request"}[status]
    heard = told(serve(refusal(status, f"x-should-retry: {word}")), stream=stream, kept=1)
    heard.ended_in(kind, sent="yes", tries=tries)
    assert heard.error.retryable is (tries > 1)


# ---- a prompt that is too long (33) -----------------------------------------------------------


@EVERY_DIALECT
def test_a_prompt_that_is_too_long_is_told_with_its_numbers_and_sent_once_and_whole(told, serve, stream, dialect):
    words = "This model's maximum context length is 8192 tokens, but 9001 were given."
    server = serve(refusal(400, message=words))
    heard = told(server, stream=stream, dialect=dialect, kept=1)
    heard.ended_in("context_length", sent="yes", says="8192 tokens, but 9001")
    assert "shorten" in heard.error.hint and len(server.requests) == 2


# ---- an error in the place of an answer (25) --------------------------------------------------


@EVERY_DIALECT
@pytest.mark.parametrize(
    ("type", "kind", "tries"), [("overloaded_error", "overloaded", 3), ("authentication_error", "auth", 1)]
)
def test_an_error_in_a_body_that_says_200_is_told_by_its_type(told, serve, stream, dialect, type, kind, tries):
    step = refusal(200, body={"type": "error", "error": {"type": type, "message": "so it is"}})
    heard = told(serve(step), stream=stream, dialect=dialect, kept=1)
    heard.ended_in(kind, sent="yes", tries=tries, says="so it is")
