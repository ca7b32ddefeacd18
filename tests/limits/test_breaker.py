"""The breaker: who fails is left alone, for longer each time, and is tried by one call; no pool is ever left empty."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox import errors
from polyvox.limits import Breaker, allowed
from polyvox.limits.breaker import AT_LEAST, FAILURES, FIRST, IN_A_ROW, LONGEST, OVER

NOW = 1_000_000.0


def fail(breaker, now, times=1):
    for _ in range(times):
        breaker.ended(breaker.begin(now), "server", now)


def opened(now=NOW):
    breaker = Breaker()
    fail(breaker, now, IN_A_ROW)
    return breaker


# ---- opening ----------------------------------------------------------------------------------


def test_five_failures_in_a_row_open_it_and_four_do_not():
    breaker = Breaker()
    fail(breaker, NOW, 4)
    assert breaker.allows(NOW)
    fail(breaker, NOW)
    assert not breaker.allows(NOW)
    assert breaker.state(NOW) == "open"


def test_a_success_between_begins_the_row_anew():
    breaker, now = Breaker(), NOW
    for _ in range(4):
        fail(breaker, now, 4)
        breaker.ended(breaker.begin(now), None, now)
        assert breaker.state(now) == "closed"
        now += 2 * OVER  # so that the share says nothing


def mixed(breaker, good, bad, now):
    """So many of both, never five failures in a row and never more failures than successes before the end."""
    for place in range(max(good, bad)):
        if place < good:
            breaker.ended(breaker.begin(now), None, now)
        if place < bad:
            fail(breaker, now)


def test_half_of_twenty_within_thirty_seconds_open_it():
    breaker = Breaker()
    mixed(breaker, 10, 9, NOW)
    assert breaker.state(NOW + 20) == "closed"
    fail(breaker, NOW + 20)
    assert breaker.state(NOW + 20) == "open"


def test_less_than_half_or_fewer_than_twenty_do_not():
    few, healthy = Breaker(), Breaker()
    mixed(few, 9, 9, NOW)
    mixed(healthy, 12, 11, NOW)
    assert few.state(NOW) == healthy.state(NOW) == "closed"


def test_what_is_older_than_the_window_does_not_count():
    breaker = Breaker()
    mixed(breaker, 10, 9, NOW)
    fail(breaker, NOW + OVER + 3)
    assert breaker.state(NOW + OVER + 3) == "closed"


@pytest.mark.parametrize("kind", sorted({*errors.BY_KIND, "error", "config", "budgets_away", "limits_away", "own"}))
def test_only_what_speaks_against_the_deployment_counts(kind):
    breaker = Breaker()
    for _ in range(AT_LEAST):
        breaker.ended(breaker.begin(NOW), kind, NOW)
    assert (breaker.state(NOW) == "open") == (kind in FAILURES)


def test_who_asks_wrongly_or_too_often_or_without_money_breaks_nothing():
    ours = {"auth", "permission", "billing", "quota", "rate_limit", "invalid_request", "not_found", "cancelled"}
    assert not ours & set(FAILURES)
    assert set(FAILURES) <= set(errors.BY_KIND)


# ---- half open ----------------------------------------------------------------------------------


def test_after_fifteen_seconds_one_call_tries_and_its_success_closes():
    breaker = opened()
    assert not breaker.allows(NOW + FIRST - 0.001)
    later = NOW + FIRST
    assert breaker.state(later) == "half-open"
    turn = breaker.begin(later)
    assert not breaker.allows(later)
    breaker.ended(turn, None, later + 1)
    assert breaker.state(later + 1) == "closed"
    fail(breaker, later + 1, 4)
    assert breaker.state(later + 1) == "closed"


def test_each_failed_probe_doubles_the_time_up_to_five_minutes_and_a_success_resets_it():
    breaker, now, times = opened(), NOW, []
    for _ in range(7):
        times.append(breaker.until - now)
        now = breaker.until
        fail(breaker, now)
    assert times == [15, 30, 60, 120, 240, 300, 300]
    now = breaker.until
    breaker.ended(breaker.begin(now), None, now)
    fail(breaker, now, IN_A_ROW)
    assert breaker.until == now + FIRST


@pytest.mark.parametrize("kind", ["cancelled", "rate_limit", "invalid_request", "auth"])
def test_a_probe_that_says_nothing_leaves_the_trial_to_the_next(kind):
    breaker, later = opened(), NOW + FIRST
    breaker.ended(breaker.begin(later), kind, later)
    assert breaker.state(later) == "half-open"
    assert breaker.allows(later)
    breaker.begin(later)
    assert not breaker.allows(later)


def test_a_probe_that_never_comes_back_is_not_waited_for_for_ever():
    breaker, later = opened(), NOW + FIRST
    lost = breaker.begin(later)
    assert not breaker.allows(later + LONGEST - 1)
    assert breaker.allows(later + LONGEST)
    second = breaker.begin(later + LONGEST)
    breaker.ended(lost, None, later + LONGEST)
    assert breaker.state(later + LONGEST) == "half-open"
    breaker.ended(second, None, later + LONGEST)
    assert breaker.state(later + LONGEST) == "closed"


def test_calls_that_began_before_it_opened_are_no_news():
    breaker = Breaker()
    old = [breaker.begin(NOW) for _ in range(9)]
    for turn in old[:5]:
        breaker.ended(turn, "server", NOW)
    breaker.ended(old[5], None, NOW + 1)
    assert breaker.state(NOW + 1) == "open"
    later = NOW + FIRST
    probe = breaker.begin(later)
    breaker.ended(old[6], "server", later)
    breaker.ended(old[7], None, later)
    breaker.ended(old[8], "cancelled", later)
    assert breaker.state(later) == "half-open"
    assert not breaker.allows(later)
    breaker.ended(probe, None, later)
    assert breaker.state(later) == "closed"


def test_a_call_beside_the_probe_says_nothing_and_one_that_was_let_through_before_may_close_it():
    breaker, later = opened(), NOW + FIRST
    forced = breaker.begin(NOW + 1)
    breaker.ended(forced, "server", NOW + 2)
    assert breaker.until == later
    probe = breaker.begin(later)
    breaker.ended(breaker.begin(later), None, later)
    assert breaker.state(later) == "half-open"
    breaker.ended(probe, "server", later)
    assert breaker.until == later + 2 * FIRST
    breaker.ended(breaker.begin(later), None, later)
    assert breaker.state(later) == "closed"


events = st.lists(
    st.tuples(
        st.sampled_from(["begin", "end", "pass"]), st.integers(0, 400), st.sampled_from([None, *FAILURES, "auth"])
    ),
    max_size=120,
)


@given(events)
def test_whatever_comes_there_is_one_probe_at_a_time_and_a_way_back(run):
    breaker, now, flying, probe = Breaker(), NOW, [], None
    for what, number, kind in run:
        if what == "pass":
            now += number / 4
        elif what == "begin":
            if breaker.allows(now):
                half_open = breaker.state(now) == "half-open"
                if half_open:
                    assert probe is None or now - probe[1] >= LONGEST
                turn = breaker.begin(now)
                flying.append(turn)
                if half_open:
                    probe = (turn, now)
        elif flying:
            turn = flying.pop(number % len(flying))
            breaker.ended(turn, kind, now)
            if probe is not None and turn == probe[0]:
                probe = None
        if breaker.state(now) == "closed":
            assert breaker.allows(now)
            probe = None
        else:
            assert FIRST <= breaker.until - breaker.opened
            assert breaker.until - now <= LONGEST
    now += 2 * LONGEST
    assert breaker.allows(now)
    breaker.ended(breaker.begin(now), None, now)
    assert breaker.state(now) == "closed"


# ---- pools --------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.none(), st.integers(0, 20)), max_size=12), st.floats(0, 1), st.integers(0, 40))
def test_a_pool_is_never_left_empty_and_who_has_been_out_longest_comes_back_first(ages, floor, later):
    pool = [Breaker() if age is None else opened(NOW + age) for age in ages]
    now = NOW + later
    well = {place for place, breaker in enumerate(pool) if breaker.allows(now)}
    found = allowed(pool, now, floor)
    least = max(1, math.ceil(len(pool) * floor)) if pool else 0
    assert found == sorted(set(found))
    assert well <= set(found)
    assert len(found) == max(len(well), least)
    back = [ages[place] for place in found if place not in well]
    out = [ages[place] for place in range(len(pool)) if place not in found]
    assert not back or not out or max(back) <= min(out)


def test_half_of_a_pool_stays_in_though_all_of_it_fails():
    pool = [opened(NOW + age) for age in (3, 1, 2, 4)]
    assert allowed(pool, NOW + 5) == [1, 2]
    assert allowed([opened()], NOW) == [0]
    assert allowed([], NOW) == []


def test_who_is_tried_again_is_not_out():
    pool = [Breaker(), opened(NOW), opened(NOW + 9)]
    assert allowed(pool, NOW + FIRST, 0.0) == [0, 1]
    pool[1].begin(NOW + FIRST)
    assert allowed(pool, NOW + FIRST, 0.0) == [0]
