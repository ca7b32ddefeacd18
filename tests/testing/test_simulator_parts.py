"""The parts of a simulated provider that need no server: its pace, and its limits."""

import random
import statistics
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.dialects.errors_on_wire import duration
from polyvox.errors import InputError, OverloadedError, RateLimitError
from polyvox.testing.simulate.limits import Allowance, Limits, go_duration
from polyvox.testing.simulate.pace import Latency, latency_from

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
