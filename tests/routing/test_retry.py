"""When to try again at one deployment, and how many retries it may get in all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.errors import BY_KIND, RateLimitError, ServerError, of_kind
from polyvox.routing import RetryBudget, RetryRule

KINDS = st.sampled_from(sorted(BY_KIND))
CHANCES = st.floats(0, 1, exclude_max=True)


@given(KINDS, st.floats(0, 120), st.integers(1, 4), CHANCES, st.none() | st.floats(0, 100))
def test_a_wait_is_never_below_what_the_server_asked_for_nor_past_the_deadline(kind, wish, tries, chance, left):
    error = of_kind(kind, "x", retry_after=wish, retryable=True, sent="no")
    wait = RetryRule().wait(error, tries, chance, left)
    if wait is not None:
        assert wish <= wait <= max(wish, 20.0)
        assert left is None or wait < left
        assert wish <= 60.0


def test_a_wish_that_is_too_long_ends_the_tries():
    assert RetryRule().wait(RateLimitError("x", retry_after=60), 1, 0.0, None) == 60.0
    assert RetryRule().wait(RateLimitError("x", retry_after=60.1), 1, 0.0, None) is None


STEPS = st.lists(st.sampled_from(["take server", "take rate_limit", "succeed", "succeed after"]), max_size=200)


@given(STEPS, st.integers(0, 500))
def test_a_budget_never_leaves_its_bounds_and_takes_only_what_is_there(steps, capacity):
    budget, taken = RetryBudget(capacity), 0
    for step in steps:
        before = budget.left
        word, _, what = step.partition(" ")
        if word == "take":
            got = budget.take(what)
            assert got in (0, 5 if what == "rate_limit" else 14)
            assert budget.left == before - got
            taken = got or taken
        else:
            budget.succeeded(taken if what else 0)
            assert before <= budget.left <= before + max(taken, 1)
        assert 0 <= budget.left <= capacity


def test_a_deployment_that_is_down_gets_few_retries_however_many_calls_there_are():
    budget = RetryBudget()
    assert sum(bool(budget.take("server")) for _ in range(100_000)) == 500 // 14


def test_a_deployment_that_fails_now_and_then_gets_every_retry():
    budget = RetryBudget()
    for _ in range(10_000):
        taken = budget.take("server")
        assert taken
        budget.succeeded(taken)
    assert budget.left == 500


def test_after_an_outage_calls_that_go_well_fill_the_budget_again():
    budget = RetryBudget()
    while budget.take("server"):
        pass
    for _ in range(14):
        budget.succeeded()
    assert budget.take("server") == 14


def test_a_budget_shows_how_full_it_is():
    assert repr(RetryBudget(20)) == "<RetryBudget 20 of 20>"


@pytest.mark.parametrize("retryable", [True, False])
def test_what_the_server_says_of_repeats_is_obeyed(retryable):
    server = ServerError("x", retryable=retryable)
    invalid = of_kind("invalid_request", "x", retryable=retryable)
    assert [RetryRule().wait(error, 1, 0.0, None) is not None for error in (server, invalid)] == [retryable] * 2
