"""Leases in memory: no window of 60 seconds ever holds more than the limit, and what is given back is free again."""

import gc
import math
import os
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.errors import InputError
from polyvox.limits import NO_LIMITS, Full, Limits, LimitsHealth, MemoryLeases, Used
from polyvox.limits.memory import GRAIN
from polyvox.limits.values import WINDOW
from tests.limits.conftest import Clock

# ---- one limit after the other ----------------------------------------------------------------


def test_calls_at_a_time_are_as_many_as_may_be_and_a_settled_one_leaves_its_place(clock):
    leases = MemoryLeases(clock=clock)
    limits = Limits(concurrency=2)
    first, second = leases.take("a", limits), leases.take("a", limits)
    assert leases.take("a", limits) == Full("concurrency", 2, None)
    first.settle()
    assert leases.used("a").in_flight == 1
    assert not isinstance(leases.take("a", limits), Full)
    second.refund()


def test_requests_are_counted_for_sixty_seconds_however_soon_they_ended(clock):
    leases = MemoryLeases(clock=clock)
    limits = Limits(requests_per_minute=2)
    leases.take("a", limits).settle()
    clock.now += 40
    leases.take("a", limits).settle()
    assert leases.take("a", limits) == Full("requests", 2, 20.0)
    clock.now += 19.75
    assert leases.take("a", limits) == Full("requests", 2, 0.25)
    clock.now += 0.25
    assert not isinstance(leases.take("a", limits), Full)


def test_tokens_are_taken_by_the_estimate_and_counted_as_they_were(clock):
    leases = MemoryLeases(clock=clock)
    limits = Limits(tokens_per_minute=1000)
    lease = leases.take("a", limits, 800)
    assert leases.take("a", limits, 300) == Full("tokens", 1000, 60.0)
    lease.settle(700)
    leases.take("a", limits, 300).settle(900)
    assert leases.used("a") == Used(0, 2, 1600)
    clock.now += 59
    assert leases.take("a", limits, 1) == Full("tokens", 1000, 1.0)
    clock.now += 1
    assert not isinstance(leases.take("a", limits, 1000), Full)


def test_a_settlement_without_a_number_leaves_the_estimate_and_nonsense_does_too(clock):
    leases = MemoryLeases(clock=clock)
    leases.take("a", tokens=5).settle()
    leases.take("a", tokens=7).settle(-3)
    assert leases.used("a") == Used(0, 2, 12)


def test_a_refund_gives_back_all_three(clock):
    leases = MemoryLeases(clock=clock)
    limits = Limits(1, 1, 10)
    leases.take("a", limits, 10).refund()
    assert leases.used("a") == Used(0, 0, 0)
    assert not isinstance(leases.take("a", limits, 10), Full)


def test_a_call_that_will_never_fit_is_told_so(clock):
    full = MemoryLeases(clock=clock).take("a", Limits(tokens_per_minute=10), 11)
    assert full == Full("tokens", 10, math.inf)
    assert "10 tokens" in full.why


def test_of_several_limits_the_one_that_takes_longest_is_told(clock):
    leases = MemoryLeases(clock=clock)
    leases.take("a", tokens=90)
    clock.now += 30
    leases.take("a", tokens=1)
    assert leases.take("a", Limits(1, 2, 100), 10) == Full("requests", 2, 30.0)
    assert leases.take("a", Limits(1, 1, 100), 10) == Full("requests", 1, 60.0)
    assert leases.take("a", Limits(1, 9, 10), 10) == Full("tokens", 10, 60.0)


def test_deployments_are_counted_apart(clock):
    leases = MemoryLeases(clock=clock)
    first = leases.take("a", Limits(concurrency=1))
    assert not isinstance(leases.take("b", Limits(concurrency=1)), Full)
    first.settle()


def test_limits_may_change_between_calls_and_what_was_let_through_before_counts(clock):
    leases = MemoryLeases(clock=clock)
    for _ in range(3):
        leases.take("a", NO_LIMITS, 10).settle()
    assert leases.take("a", Limits(requests_per_minute=3)).what == "requests"
    assert leases.take("a", Limits(tokens_per_minute=35), 10).what == "tokens"
    assert not isinstance(leases.take("a", Limits(requests_per_minute=4)), Full)


# ---- a lease settles once, and is never lost ----------------------------------------------------


@pytest.mark.parametrize("end", ["settle", "refund"])
@pytest.mark.parametrize("again", ["settle", "refund"])
def test_a_lease_ends_once(end, again, clock):
    leases = MemoryLeases(clock=clock)
    other, lease = leases.take("a", tokens=10), leases.take("a", tokens=10)
    getattr(lease, end)()
    used = leases.used("a")
    getattr(lease, again)()
    assert leases.used("a") == used
    other.settle()


def test_a_lease_as_a_context_is_settled_whatever_happens(clock):
    leases = MemoryLeases(clock=clock)
    with pytest.raises(ZeroDivisionError), leases.take("a", tokens=5):
        assert leases.used("a").in_flight == 1
        raise ZeroDivisionError
    with leases.take("a", tokens=5) as lease:
        lease.settle(3)
    assert leases.used("a") == Used(0, 2, 8)


def test_a_lease_that_was_left_behind_gives_its_place_back_and_tells_so(clock):
    leases, told = MemoryLeases(clock=clock), []
    leases.watch(lambda: told.append(1))
    lease = leases.take("a", Limits(concurrency=1), 5)
    del lease
    gc.collect()
    assert told == [1]
    assert leases.used("a") == Used(0, 1, 5)
    assert not isinstance(leases.take("a", Limits(concurrency=1)), Full)


def test_whoever_watches_is_told_of_every_end_until_it_does_not_watch(clock):
    leases, told = MemoryLeases(clock=clock), []

    def tell():
        told.append(1)

    leases.watch(tell)
    leases.take("a").settle()
    leases.take("a").refund()
    leases.unwatch(tell)
    leases.take("a").settle()
    assert told == [1, 1]


def test_a_watcher_whose_event_loop_is_closed_harms_nobody(clock):
    def closed():
        raise RuntimeError("Event loop is closed")

    leases, told = MemoryLeases(clock=clock), []
    leases.watch(closed)
    leases.watch(lambda: told.append(1))
    leases.take("a").settle()
    assert told == [1]


def test_a_child_process_starts_with_nothing_in_flight(clock):
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    leases = MemoryLeases(clock=clock)
    lease = leases.take("a", Limits(concurrency=1))
    child = os.fork()
    if child == 0:
        ok = False
        try:
            lease.settle()
            first = leases.take("a", Limits(concurrency=1))
            ok = leases.used("a").in_flight == 1 and not isinstance(first, Full)
        finally:
            os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert leases.used("a").in_flight == 1


def test_threads_never_hold_more_than_the_limit_together_and_lose_nothing():
    leases, limits = MemoryLeases(), Limits(concurrency=3)
    held, most, wrong = [], [0], []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def work():
        for _ in range(500):
            lease = leases.take("a", limits, 1)
            if isinstance(lease, Full):
                time.sleep(0)
                continue
            held.append(1)
            most[0] = max(most[0], len(held))
            if len(held) > 3:
                wrong.append(len(held))
            time.sleep(0)
            held.pop()
            lease.settle(1)

    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    used = leases.used("a")
    assert used.in_flight == 0
    assert used.requests == used.tokens > 0


def test_calls_that_came_together_are_forgotten_when_the_last_of_them_is_a_minute_ago(clock):
    leases, limits = MemoryLeases(clock=clock), Limits(requests_per_minute=2)
    leases.take("a", limits).settle()
    clock.now += 0.125
    leases.take("a", limits).settle()
    clock.now += 59.875
    assert leases.take("a", limits) == Full("requests", 2, 0.125)


def test_what_is_settled_after_its_window_changes_nothing(clock):
    leases, limits = MemoryLeases(clock=clock), Limits(tokens_per_minute=100)
    lease, other = leases.take("a", limits, 50), leases.take("a", limits, 50)
    clock.now += 61
    kept = leases.take("a", limits, 60)
    lease.settle(10)
    other.refund()
    assert leases.used("a") == Used(1, 1, 60)
    kept.settle()


# ---- exact over every window --------------------------------------------------------------------

# Steps that are exact in binary, so that the test's own sums are.
steps = st.one_of(
    st.tuples(st.just("pass"), st.one_of(st.integers(0, 2), st.integers(0, 8 * 70)).map(lambda eighths: eighths / 8)),
    st.tuples(st.just("take"), st.integers(0, 12)),
    st.tuples(st.just("settle"), st.integers(0, 12)),
    st.tuples(st.just("refund"), st.just(0)),
)


class Told:
    """What was let through, as plainly as can be: all of it, with its time."""

    def __init__(self):
        self.calls = []

    def within(self, now, seconds):
        calls = [call for call in self.calls if call["at"] > now - seconds and not call["back"]]
        return len(calls), sum(call["tokens"] for call in calls)

    @property
    def in_flight(self):
        return sum(call["lease"] is not None for call in self.calls)


@given(
    st.lists(steps, max_size=80),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(12, 30),
)
def test_no_window_holds_more_than_the_limit_and_room_is_found_a_grain_late_at_most(run, calls, requests, tokens):
    clock, told = Clock(), Told()
    leases, limits = MemoryLeases(clock=clock), Limits(calls, requests, tokens)
    for step, number in run:
        flying = [call for call in told.calls if call["lease"] is not None]
        if step == "pass":
            clock.now += number
        elif step == "take":
            got = leases.take("a", limits, number)
            many, much = told.within(clock.now, WINDOW)
            fits = told.in_flight < calls and many < requests and much + number <= tokens
            if isinstance(got, Full):
                # With what has left the window within a grain there is none either.
                many, much = told.within(clock.now, WINDOW + GRAIN)
                assert told.in_flight >= calls or many >= requests or much + number > tokens
                if got.wait is not None:
                    assert 0 < got.wait <= WINDOW
            else:
                assert fits
                told.calls.append({"at": clock.now, "tokens": number, "back": False, "lease": got})
        elif flying:
            call = flying[number % len(flying)]
            if step == "settle":
                call["lease"].settle(number)
                # What took more than was estimated counts from then on.
                call["tokens"] = number
            else:
                call["lease"].refund()
                call["back"] = True
            call["lease"] = None


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 10)), min_size=1, max_size=40), st.integers(10, 40))
def test_whoever_waits_as_long_as_it_was_told_finds_room(arrivals, tokens):
    clock = Clock()
    leases, limits = MemoryLeases(clock=clock), Limits(requests_per_minute=3, tokens_per_minute=tokens)
    for later, need in arrivals:
        clock.now += later
        got = leases.take("a", limits, need)
        if isinstance(got, Full):
            clock.now += got.wait + 1e-6
            got = leases.take("a", limits, need)
        assert not isinstance(got, Full)
        got.settle()


def test_the_log_of_a_high_limit_stays_small_and_its_rate_is_reached(clock):
    leases, limits = MemoryLeases(clock=clock), Limits(requests_per_minute=6000)
    done = 0
    for _ in range(40_000):  # 200 a second over 200 seconds
        clock.now += 0.005
        got = leases.take("a", limits)
        if not isinstance(got, Full):
            got.settle()
            done += 1
    assert len(leases._gates["a"].entries) <= WINDOW / GRAIN + 1
    assert 6000 * 3.3 < done <= 6000 * 4


def test_deployments_that_nobody_asks_any_more_are_forgotten(clock):
    leases = MemoryLeases(clock=clock)
    kept = leases.take("kept")
    for number in range(5000):
        clock.now += 1
        leases.take(f"d{number}").settle()
    assert len(leases._gates) < 2000
    assert leases.used("kept").in_flight == 1
    kept.settle()


# ---- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, -1, 1.5, "4", True])
def test_a_limit_that_lets_nothing_through_is_refused(number):
    with pytest.raises(InputError) as caught:
        Limits(tokens_per_minute=number)
    assert caught.value.hint


def test_a_negative_estimate_is_refused():
    with pytest.raises(InputError):
        MemoryLeases().take("a", tokens=-1)


@pytest.mark.parametrize("what", ["concurrency", "requests", "tokens", "pause"])
def test_whoever_finds_no_room_is_told_why_in_a_sentence(what):
    assert len(Full(what, 7, 1.0).why.split()) > 3


def test_counting_in_memory_is_always_well():
    assert MemoryLeases().health() == LimitsHealth("ok", None)
