"""While a primary is down its spare serves, the primary is asked by few, and when it is well again it is asked by
all; the page that shows it is the one that the simulation gives."""

from itertools import pairwise
from pathlib import Path

import pytest

from polyvox.limits.breaker import FIRST, IN_A_ROW
from polyvox.routing.after import MOVING
from polyvox.routing.retry import TRANSIENT, RetryBudget
from tests.simulation import outage
from tests.simulation.invariants import broken
from tests.simulation.outage import BEGINS, ENDS, LAST, PrimaryOut

PAGE = Path(__file__).parent.parent.parent / "docs" / "outage.md"
SEEDS = range(outage.SEED, outage.SEED + 4)


@pytest.fixture(scope="module")
def worlds():
    return [PrimaryOut(seed).run() for seed in SEEDS]


@pytest.fixture(scope="module")
def alone():
    return [PrimaryOut(seed, alone=True).run() for seed in SEEDS]


def test_the_page_of_an_outage_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == outage.page(), (
        "run: python -m tests.simulation.outage --write docs/outage.md"
    )


def test_every_invariant_holds_in_an_outage(worlds, alone):
    for world in (*worlds, *alone):
        assert not broken(world)


def test_the_spare_serves_every_call_that_meets_the_outage_and_none_before(worlds):
    for world in worlds:
        assert all(told.ends == ["ok"] for told in world.told)
        assert world.answered_by("spare", ends=BEGINS - 10) == 0
        assert world.answered_by("primary", BEGINS, ENDS) == 0
        assert world.answered_by("spare", BEGINS, ENDS) > 100


def fifth_in_a_row(attempts):
    """When so many attempts in a row had failed for the first time; calls of before may still end well."""
    row = 0
    for served in sorted(attempts, key=lambda served: served.over):
        row = 0 if served.fate == "whole" else row + 1
        if row == IN_A_ROW:
            return served.over
    raise AssertionError("never")


def test_the_primary_is_asked_until_its_breaker_opens_and_then_by_probes_alone(worlds):
    for world in worlds:
        made = world.attempts(BEGINS, ENDS)
        opened = fifth_in_a_row(world.primary.served)
        for served, kind in made:
            if kind == "first":
                assert served.begun <= opened
            elif kind == "again":  # granted before, and waited for so long
                assert served.begun <= opened + MOVING
        probes = [served for served, kind in made if kind == "probe"]
        assert probes[0].begun >= opened + FIRST
        for number, (before, after) in enumerate(pairwise(probes), 1):
            assert after.begun >= before.over + FIRST * 2**number


def test_retries_at_a_primary_that_is_down_stay_within_its_retry_budget(worlds, alone):
    for world in (*worlds, *alone):
        retries = [served for served, kind in world.attempts(BEGINS, ENDS) if kind == "again"]
        assert len(retries) <= RetryBudget().capacity // TRANSIENT


def test_without_a_spare_retries_use_their_budget_up_and_the_first_call_after_the_outage_is_answered(alone):
    for world in alone:
        retries = [served for served, kind in world.attempts(BEGINS, ENDS) if kind == "again"]
        assert len(retries) == RetryBudget().capacity // TRANSIENT
        assert all(told.ends == ["ok"] for told in world.told_of(ENDS))


def test_the_probe_that_is_answered_brings_all_calls_back(worlds):
    for world in worlds:
        returned = world.returned()
        assert returned <= ENDS - BEGINS + FIRST + 10
        assert world.answered_by("spare", ENDS + returned) == 0
        assert world.answered_by("primary", ENDS + returned, LAST) > 100
