"""The parts of a simulated provider that need no server: its pace, its limits, its places, and how it
frames."""

import json
import random
import statistics
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.dialects import NAMES, Endpoint, dialect
from polyvox.dialects.errors_on_wire import duration
from polyvox.dialects.framing import MAX_FRAME, NDJSON, SSE, AwsEventStream, aws_message
from polyvox.errors import BadResponseError, InputError, OverloadedError, RateLimitError
from polyvox.testing.simulate.framings import FRAMINGS, framing_of, is_stream
from polyvox.testing.simulate.limits import Allowance, Limits, go_duration
from polyvox.testing.simulate.pace import Latency, latency_from
from polyvox.testing.simulate.routes import PROVIDERS, ROUTES, Route, dialect_at, route_at
from polyvox.types import Message, Request, Text

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def draws(said, count=4000):
    rng = random.Random(1)
    return [latency_from(said).draw(rng) for _ in range(count)]


# ---- pace -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "latency"),
    [
        (0, Latency()),
        (0.25, Latency("constant", 0.25)),
        ("2", Latency("constant", 2.0)),
        (" .5 ", Latency("constant", 0.5)),
        ("0.1..0.5", Latency("uniform", 0.1, 0.5)),
        ("lognormal(0.4, 0.5)", Latency("lognormal", 0.4, 0.5)),
        ("exponential(0.3)", Latency("exponential", 0.3)),
        (1e-7, Latency()),
    ],
)
def test_a_latency_is_read_as_it_is_written(said, latency):
    assert latency_from(said) == latency


@pytest.mark.parametrize(
    "said",
    ["", "soon", "-1", "0.5..0.1", "1..2..3", "lognormal(1)", "lognormal(1,9)", "normal(1,1)", "1e3", "inf", "nan",
     "4000", "0..4000", float("inf"), float("nan"), -1, True, None, [], "٣"],
)  # fmt: skip
def test_what_is_no_latency_is_refused_with_the_forms_there_are(said):
    with pytest.raises(InputError) as caught:
        latency_from(said)
    assert caught.value.param == "latency" and "lognormal(0.4,0.5)" in caught.value.hint


def test_latencies_are_spread_as_they_say():
    assert set(draws("0.2", 10)) == {0.2}
    uniform = draws("0.1..0.5")
    assert 0.1 <= min(uniform) < 0.11 and 0.49 < max(uniform) <= 0.5
    lognormal = draws("lognormal(0.4,0.5)")
    assert statistics.median(lognormal) == pytest.approx(0.4, rel=0.05)
    assert statistics.quantiles(lognormal, n=100)[83] == pytest.approx(0.4 * 2.718**0.5, rel=0.1)
    assert statistics.fmean(draws("exponential(0.3)")) == pytest.approx(0.3, rel=0.05)
    assert max(draws("lognormal(3000,5)")) == 3600 == max(draws("exponential(3600)"))


# ---- limits -----------------------------------------------------------------------------------


def test_an_allowance_comes_back_evenly_and_never_beyond_a_minutes_worth():
    allowance = Allowance(60)
    assert [allowance.take(1, now=100.0) for _ in range(60)] == [0.0] * 60
    assert allowance.take(1, now=100.0) == 1.0 and allowance.take(5, now=100.0) == 5.0
    assert allowance.full_in(100.0) == 60.0 and allowance.left(110.0) == 10.0
    assert allowance.take(1, now=101.0) == 0.0 and allowance.take(1, now=101.0) == 1.0
    assert allowance.left(1_000_000.0) == 60.0 and allowance.full_in(1_000_000.0) == 0.0


@given(st.integers(1, 10_000), st.lists(st.tuples(st.integers(1, 500), st.floats(0, 100)), max_size=30))
def test_whoever_waits_as_told_is_let_in_and_nobody_gets_more_than_is_allowed(a_minute, asked):
    allowance, now, taken, begun = Allowance(a_minute), 1000.0, 0, 1000.0
    for count, later in asked:
        now += later
        wait = allowance.take(count, now)
        if count > a_minute:
            assert wait == float("inf")
            continue
        if wait:
            now += wait
            assert allowance.take(count, now) == 0.0
        taken += count
        assert taken <= a_minute + (now - begun) * a_minute / 60 + 0.01


def test_a_limit_that_is_reached_is_an_error_of_the_kind_the_provider_uses():
    limits = Limits(1, None, 1)
    limits.take("requests", 1, "rate_limit", 0.0)
    limits.take("tokens", 10**9, "rate_limit", 0.0)  # no limit
    with pytest.raises(RateLimitError) as caught:
        limits.take("requests", 1, "rate_limit", 0.5)
    assert caught.value.retry_after == 60.0 and caught.value.type == "requests"
    with limits.slot("rate_limit"), pytest.raises(OverloadedError), limits.slot("overloaded"):
        pass
    with limits.slot("overloaded"):
        pass


def test_the_headers_of_limits_are_the_providers_own():
    limits = Limits(3, 600, None)
    limits.take("requests", 2, "rate_limit", 0.0)
    assert limits.headers("openai", 10.0, NOON) == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "30s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "600",
        "x-ratelimit-reset-tokens": "0s",
    }
    assert limits.headers("anthropic", 10.0, NOON) == {
        "anthropic-ratelimit-requests-limit": "3",
        "anthropic-ratelimit-requests-remaining": "1",
        "anthropic-ratelimit-requests-reset": "2026-01-02T12:00:30Z",
        "anthropic-ratelimit-tokens-limit": "600",
        "anthropic-ratelimit-tokens-remaining": "600",
        "anthropic-ratelimit-tokens-reset": "2026-01-02T12:00:00Z",
    }
    assert limits.headers(None, 10.0, NOON) == {} == Limits(None, None, 5).headers("openai", 10.0, NOON)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0001, "1ms"), (0.012, "12ms"), (1, "1s"), (8.64, "8.64s"), (59.9999, "1m0s"), (60, "1m0s"),
     (90.951, "1m30.951s"), (360, "6m0s"), (3600, "1h0m0s"), (3661.5, "1h1m1.5s")],
)  # fmt: skip
def test_durations_are_written_as_go_writes_them(seconds, text):
    assert go_duration(seconds) == text


@given(st.floats(0, 100_000))
def test_durations_are_read_back_by_our_own_reader_and_never_too_short(seconds):
    read = duration(go_duration(seconds))
    assert seconds - 1e-6 <= read <= seconds + 0.0011


# ---- places -----------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_where_questions_in_each_dialect_go_and_how_its_clients_are_told(name):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` | `/"))
    facts = PROVIDERS[name]
    asked = [path for path, route in ROUTES.items() if route.what == "ask" and route.dialect == name]
    assert f"`{facts.variable}`" in row and f"export {facts.variable}=" in PAGE
    assert all(f"`{path}`" in row for path in asked)
    assert ("| root and `" + facts.base + "` |" if facts.base else "| root |") in row


@pytest.mark.parametrize("name", NAMES)
def test_the_page_shows_where_our_own_client_asks(name):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` | `/"))
    for stream in (False, True):
        request = Request("NAME", (Message("user", (Text("hello"),)),), stream=stream)
        path = (PROVIDERS[name].base + dialect(name).encode_request(request, Endpoint())[0].path).partition("?")[0]
        assert route_at(path) == Route("POST", "ask", name) and dialect_at(path, {}) == name
        assert f"`{path}`" in row


# ---- framings ---------------------------------------------------------------------------------

STREAMED = {
    "text/event-stream": b"data: one\n\ndata: two\n\n",
    "application/x-ndjson": b'{"one": 1}\n{"two": 2}\n',
    "application/vnd.amazon.eventstream": aws_message({":event-type": "one"}, b"{}") + aws_message({}, b'{"two": 2}'),
}
READERS = {
    "text/event-stream": SSE,
    "application/x-ndjson": NDJSON,
    "application/vnd.amazon.eventstream": AwsEventStream,
}
FRAMED = pytest.mark.parametrize("kind", FRAMINGS)


def frames_in(kind, body):
    reader = READERS[kind]()
    return [*reader.feed(body), *reader.close()]


@FRAMED
def test_each_event_ends_where_its_reader_says_it_does(kind):
    body = STREAMED[kind]
    ends = framing_of({"content-type": f"{kind}; charset=utf-8"}).ends(body)
    assert len(ends) == 2 and ends[-1] == len(body) and is_stream({"content-type": kind})
    assert [frames_in(kind, body[:end]) for end in ends] == [frames_in(kind, body)[:1], frames_in(kind, body)]


@FRAMED
@given(size=st.integers(0, 200_000))
def test_blanks_are_so_many_and_change_no_event_behind_them(kind, size):
    blanks = b"".join(FRAMINGS[kind].blanks(size))
    *before, first, second = frames_in(kind, blanks + STREAMED[kind])
    assert [first, second] == frames_in(kind, STREAMED[kind])
    assert all(message.headers[":event-type"] == "padding" for message in before)
    assert b"".join([message.payload[6:-2] for message in before]) == b" " * size if before else blanks == b"\n" * size


@given(size=st.integers(0, MAX_FRAME - 16))
def test_a_long_message_waits_for_all_that_its_length_promises(size):
    begun = FRAMINGS["application/vnd.amazon.eventstream"].opens(size)
    reader = AwsEventStream()
    assert reader.feed(begun) == [] and int.from_bytes(begun[:4]) == len(begun) + size + 4
    with pytest.raises(BadResponseError, match="inside a message"):
        reader.close()


def test_a_message_longer_than_any_reader_takes_is_refused_by_its_length():
    with pytest.raises(BadResponseError, match="larger than"):
        AwsEventStream().feed(FRAMINGS["application/vnd.amazon.eventstream"].opens(MAX_FRAME))


def test_what_is_no_stream_has_no_events_and_may_be_blank_in_front():
    for headers in ({}, {"content-type": "application/json"}, {"content-type": "text/event-streams"}):
        whole = framing_of(headers)
        assert not is_stream(headers) and whole.ends(b'{"a": 1}\n\n') == [] and whole.opens(9) == b""
        assert json.loads(b"".join(whole.blanks(70_000)) + b'{"a": 1}') == {"a": 1}
