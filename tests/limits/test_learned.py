"""What refusals and heads teach: less after each of them, a little more with each success, and nothing for ever."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.dialects.rate_limits import Allowance
from polyvox.limits import NO_LIMITS, Full, Learned, Limits, Pause, Used
from polyvox.limits.learned import FORGET, LEAST, LONGEST_HEAD, LONGEST_WISH

NOW = 1_000_000.0


def test_nothing_is_learned_while_all_goes_well():
    limits = Limits(4, 60, 1000)
    learned = Learned(limits)
    for _ in range(1000):
        learned.well(NOW)
    assert learned.limits is limits
    assert learned.full(NOW) is None
    assert Learned().limits == NO_LIMITS


def test_a_refusal_halves_what_was_in_use():
    learned = Learned()
    learned.refused(Used(40, 600, 0), began=NOW, now=NOW + 1)
    assert learned.limits == Limits(20, 300, None)


def test_refusals_of_calls_of_the_same_round_halve_once():
    learned = Learned()
    for place in range(10):
        learned.refused(Used(40, 600, 0), began=NOW + place / 100, now=NOW + 1)
    assert learned.limits == Limits(20, 300)
    learned.refused(Used(20, 300, 0), began=NOW + 1.1, now=NOW + 2)
    assert learned.limits == Limits(10, 150)


def test_what_was_configured_is_never_exceeded_and_halved_from():
    learned = Learned(Limits(8, 100, 5000))
    learned.refused(Used(40, 600, 0), began=NOW, now=NOW + 1)
    assert learned.limits == Limits(4, 50, 5000)
    for _ in range(10_000):
        learned.well(NOW + 2)
    assert learned.limits == Limits(8, 100, 5000)


def test_each_round_of_successes_gives_a_step_back():
    learned = Learned()
    learned.refused(Used(16, 2000, 0), began=NOW, now=NOW + 1)
    for _ in range(9):
        learned.well(NOW + 2)
    assert learned.limits.concurrency == 9
    for _ in range(1000):
        learned.well(NOW + 2)
    # 2000 requests were too many: a twentieth of them for each minute that was used up.
    assert 1050 < learned.limits.requests_per_minute < 1150


def test_a_refusal_of_few_calls_leaves_a_rate_that_one_can_live_with():
    learned = Learned()
    for place in range(50):
        learned.refused(Used(1, 2, 0), began=NOW + place, now=NOW + place + 0.5)
    assert learned.limits == LEAST


def test_what_was_learned_is_forgotten_after_a_quarter_of_an_hour_without_refusals():
    learned = Learned(Limits(concurrency=100))
    learned.refused(Used(40, 600, 0), began=NOW, now=NOW)
    learned.well(NOW + FORGET)
    assert learned.limits.concurrency < 100
    learned.well(NOW + FORGET + 1)
    assert learned.limits == Limits(concurrency=100)


def test_limits_may_be_configured_anew_and_what_was_learned_stays():
    learned = Learned()
    learned.refused(Used(40, 600, 0), began=NOW, now=NOW)
    learned.configure(Limits(10, 1000, 7))
    assert learned.limits == Limits(10, 300, 7)
    learned.configure(Limits(30, 100, 7))
    assert learned.limits == Limits(20, 100, 7)


# ---- pauses -------------------------------------------------------------------------------------


def test_a_wish_of_the_server_pauses_every_deployment_of_the_quota():
    pause = Pause()
    one, other, alone = Learned(pause=pause), Learned(pause=pause), Learned()
    one.refused(Used(1, 1, 0), began=NOW, now=NOW, wish=7.5)
    assert other.full(NOW) == Full("pause", 0, 7.5)
    assert other.full(NOW + 7).wait == 0.5
    assert other.full(NOW + 7.5) is None
    assert alone.full(NOW) is None


def test_a_wish_counts_though_the_refusal_is_no_news():
    learned = Learned()
    learned.refused(Used(9, 90, 0), began=NOW, now=NOW + 1)
    learned.refused(Used(9, 90, 0), began=NOW, now=NOW + 2, wish=30)
    assert learned.full(NOW + 2).wait == 30


def test_a_shorter_wish_does_not_end_a_longer_pause():
    pause = Pause()
    pause.ask(30, NOW)
    pause.ask(2, NOW + 1)
    assert pause.full(NOW + 1).wait == 29


def test_a_head_that_says_that_nothing_remains_pauses_until_there_is_something():
    learned = Learned()
    learned.heard([Allowance("tokens", remaining=5, reset=40.0), Allowance("requests", remaining=0, reset=12.0)], NOW)
    assert learned.full(NOW).wait == 12
    assert learned.full(NOW + 12) is None


def test_a_head_that_does_not_say_until_when_pauses_nothing():
    learned = Learned()
    learned.heard([Allowance("requests", remaining=0), Allowance("tokens", reset=9.0)], NOW)
    assert learned.full(NOW) is None


@pytest.mark.parametrize("nonsense", [math.nan, -1.0, 0.0, -math.inf])
def test_nonsense_pauses_nothing(nonsense):
    learned = Learned()
    learned.refused(Used(1, 1, 0), began=NOW, now=NOW, wish=nonsense)
    learned.heard([Allowance("requests", remaining=0, reset=nonsense)], NOW)
    assert learned.full(NOW) is None


def test_no_pause_is_for_ever():
    learned = Learned()
    learned.heard([Allowance("requests", remaining=0, reset=86400.0)], NOW)
    assert learned.full(NOW).wait == LONGEST_HEAD
    learned.refused(Used(1, 1, 0), began=NOW, now=NOW, wish=math.inf)
    assert learned.full(NOW).wait == LONGEST_WISH


steps = st.lists(
    st.tuples(
        st.sampled_from(["well", "refused", "pass"]),
        st.integers(0, 300),
        st.integers(0, 5000),
        st.one_of(st.none(), st.floats()),
    ),
    max_size=60,
)


@given(steps, st.one_of(st.none(), st.integers(1, 100)), st.one_of(st.none(), st.integers(1, 3000)))
def test_whatever_comes_the_limits_stay_within_their_bounds(run, concurrency, requests):
    learned, now = Learned(Limits(concurrency, requests)), NOW
    for what, calls, rate, wish in run:
        if what == "pass":
            now += rate
        elif what == "well":
            learned.well(now)
        else:
            learned.refused(Used(calls, rate, 0), began=now - 1, now=now, wish=wish)
        shown = learned.limits
        assert concurrency is None or 1 <= shown.concurrency <= concurrency
        assert requests is None or min(requests, 30) <= shown.requests_per_minute <= requests
        full = learned.full(now)
        assert full is None or 0 < full.wait <= LONGEST_WISH
