"""What a ledger tells of deployments: attempts where they were made, and how a breaker would stand."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.ledger import AttemptEnd, Ledger
from polyvox.limits import Breaker
from polyvox.types import Attempt
from polyvox.usage import deployed as room
from polyvox.usage.deployed import deployed
from tests.ledger.calls import call


def made(ledger, *attempts):
    """A call of attempts (deployment, outcome, seconds)."""
    ends = tuple([AttemptEnd(attempt=Attempt(name, seconds, outcome)) for name, outcome, seconds in attempts])
    asyncio.run(call(ledger, {"attempts": ends}))


def test_an_attempt_counts_where_it_was_made_and_what_was_cancelled_is_no_failure(place):
    with Ledger(place) as ledger:
        made(ledger, ("a", "server", 0.5), ("b", "ok", 2.0))
        made(ledger, ("a", "timeout", 9.0), ("a", "ok", 1.0))
        made(ledger, ("b", "cancelled", 0.1))
        found = deployed(ledger.history)
    a, b = found["a"], found["b"]
    assert (a.calls, a.errors, a.p50, a.last_error, a.breaker) == (3, 2, 1.0, "timeout", "closed")
    assert (b.calls, b.errors, b.p50, b.last_error) == (2, 0, 2.0, None)


def test_five_failures_in_a_row_are_an_open_breaker_until_its_time_is_over(place):
    now = [1_800_000_000.0]
    with Ledger(place, wall=lambda: now[0]) as ledger:
        for _ in range(5):
            made(ledger, ("a", "overloaded", 0.5))
        assert deployed(ledger.history)["a"].breaker == "open"
        now[0] += 60
        assert deployed(ledger.history)["a"].breaker == "half-open"
        made(ledger, ("a", "ok", 0.5))
        assert deployed(ledger.history)["a"].breaker == "closed"
        now[0] += 3602
        assert deployed(ledger.history) == {}


def test_of_very_many_the_latest_are_told(ledger_file, monkeypatch):
    monkeypatch.setattr(room, "MOST", 3)
    with Ledger(ledger_file) as ledger:
        for outcome in ("server", "server", "ok", "ok", "ok"):
            made(ledger, ("a", outcome, 1.0))
        assert (deployed(ledger.history)["a"].calls, deployed(ledger.history)["a"].errors) == (3, 0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["ok", "server", "auth", "rate_limit", "cancelled"]), max_size=40))
def test_the_breaker_is_that_of_a_process_that_made_all_of_them(outcomes):
    rows = [(float(at), {"outcome": outcome, "duration": None}) for at, outcome in enumerate(outcomes)]
    own = Breaker()
    for at, row in rows:
        own.ended(own.begin(at), None if row["outcome"] == "ok" else row["outcome"], at)
    told = room._told(rows, float(len(rows)))
    assert told.breaker == own.state(float(len(rows)))
    assert told.errors == sum(outcome not in ("ok", "cancelled") for outcome in outcomes)
