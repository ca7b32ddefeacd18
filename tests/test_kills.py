"""Clients are killed at any point of streamed and whole calls, and the ledger still has each call that was admitted
exactly once, with the tokens that its provider counted."""

import asyncio
import random
import time
from collections import Counter
from decimal import Decimal

import pytest

from polyvox.database import Database, run
from polyvox.ledger import Ledger
from polyvox.testing import Simulator
from tests.kill_worker import Nursery, money, said
from tests.services import postgres, postgres_server  # noqa: F401 - fixtures

WORKERS = 12
MOST = Decimal("0.002")
"""USD; more than one of these calls may cost."""


@pytest.fixture(scope="module")
def nursery():
    found = Nursery()
    yield found
    found.close()


@pytest.fixture(autouse=True)
def _a_home_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYVOX_HOME", str(tmp_path / "home"))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def place(request, tmp_path):
    """Where a database of each kind is."""
    return str(tmp_path / "ledger.db") if request.param == "sqlite" else request.getfixturevalue("postgres")


def killed(nursery, simulator, place, folder, rounds):
    """Kill so many clients one after another, each at some point after its first request; what they said of the calls
    that ended well."""
    chance = random.Random()
    done = {}
    for number in range(rounds):
        before = simulator.counts.requests

        def at_some_point(before=before):
            assert simulator.wait_for(lambda it: it.counts.requests > before, 10), "the victim made no call"
            time.sleep(chance.random() * 0.2)

        diary = folder / f"diary-{number}"
        url = simulator.base_url("openai.chat")
        nursery.live_and_die(place, url, diary, f"round-{number}", WORKERS, until=at_some_point)
        done |= said(diary)
    assert simulator.wait_for(lambda it: all(asked.outcome for asked in it.requests), 10)
    return done


def agree(place, simulator, done, rounds):
    """Whether the ledger, the provider and those who were killed tell the same story."""
    seen = {asked.json["user"]: asked for asked in simulator.requests}
    assert len(seen) == len(simulator.requests), "a call was sent twice"
    with Database(place) as database, Ledger(database) as ledger:
        records = list(ledger.history.export())
        rows = {record.user: record for record in records}
        (sums,) = ledger.history.usage()
        attempts = ledger.database.read_sync(
            lambda connection: run(connection, "SELECT count(*) FROM attempts").scalar()
        )
        (budget,) = asyncio.run(money(database).state())
    assert len(rows) == len(records) == sums.calls, "a call has two rows"
    assert set(seen) <= set(rows), "a request has no row"
    states = Counter(record.state for record in records)
    assert set(states) <= {"ok", "interrupted"} and states["interrupted"] > 0, states
    ok = {user for user, record in rows.items() if record.state == "ok"}
    assert set(done) <= ok <= set(seen), "an answer that came is not in the ledger as one"
    # Committed before its client died, and never sent: no more than were in flight.
    assert len(set(rows) - set(seen)) <= states["interrupted"] <= rounds * WORKERS
    assert attempts == len(ok)
    same_money(rows, seen, ok, done, sums, budget, rounds * WORKERS)


def same_money(rows, seen, ok, done, sums, budget, in_flight):
    """To the last token what the provider told, and to the last pico-dollar what that costs."""
    for user in ok:
        record, told = rows[user], seen[user].usage
        assert seen[user].outcome == "answered"
        assert (record.usage.input, record.usage.output) == (told.input, told.output)
        assert record.usage.source == "provider" and record.cost == priced(told)
    for user, (asked, answered, cost) in done.items():
        assert (rows[user].usage.input, rows[user].usage.output, rows[user].cost) == (asked, answered, Decimal(cost))
    assert (sums.input, sums.output) == (
        sum(seen[user].usage.input for user in ok),
        sum(seen[user].usage.output for user in ok),
    )
    interrupted = [user for user in rows if user not in ok]
    assert all(rows[user].cost is None for user in interrupted) and sums.unknown_cost == len(interrupted)
    known = sum(rows[user].cost for user in ok)
    assert sums.cost == known
    # What was settled when its client died before it could write the end; the rest of those is still reserved.
    most = sum(priced(seen[user].usage) for user in interrupted if user in seen and seen[user].outcome == "answered")
    assert known <= budget.spent <= known + most
    assert budget.estimated == 0 and 0 < budget.reserved <= in_flight * MOST


def priced(usage):
    return (usage.input * Decimal("0.75") + usage.output * Decimal("4.5")) / 1_000_000


def killed_at_random_points(nursery, place, folder, rounds):
    """Kill so many clients, and see that all tell the same; what they said ended well, and how requests ended."""
    with Simulator(latency="0.0..0.02", token_rate=2000, keep=1_000_000, seed=random.randrange(10**6)) as simulator:
        done = killed(nursery, simulator, place, folder, rounds)
        agree(place, simulator, done, rounds)
        return done, {asked.outcome for asked in simulator.requests}


def test_killed_at_20_random_points_of_calls_each_admitted_one_has_exactly_one_row(nursery, place, tmp_path):
    done, outcomes = killed_at_random_points(nursery, place, tmp_path, 20)
    assert len(done) > 20 and outcomes >= {"answered", "cut_by_client"}


@pytest.mark.slow
def test_killed_at_200_random_points_of_calls_each_admitted_one_has_exactly_one_row(nursery, place, tmp_path):
    done, outcomes = killed_at_random_points(nursery, place, tmp_path, 200)
    assert len(done) > 200 and outcomes >= {"answered", "cut_by_client"}
