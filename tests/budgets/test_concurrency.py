"""However many callers there are, in threads and in processes, and whoever dies: a hard cap is never exceeded, and with
everything settled nothing is reserved."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from polyvox.budgets import Budget, BudgetExceededError, Budgets, Facts, MemoryStore, SqlStore
from polyvox.database import Database
from tests.budgets import worker

ROOT = Path(__file__).parents[2]
SPAN = 1.0


SHARED = pytest.mark.parametrize("kind", ["sqlite", "postgresql", "redis"], indirect=True)


@pytest.fixture
def where(kind, place):
    """A place as the words of a worker."""
    return [kind, *(place if kind == "redis" else (place, "-"))]


def start(what, where, log, seed=0, count=0):
    command = [sys.executable, "-W", "error", "-m", "tests.budgets.worker", what, *where, str(log), str(seed)]
    return subprocess.Popen([*command, str(count)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return int(out)


def charges(log):
    """What was charged: (time, user, tags, cost)."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [(float(at), user, tags, Decimal(cost)) for at, user, tags, cost in lines]


def most_in_any_window(charged):
    """The most that was charged within one rolling window's length, wherever that begins."""
    most = Decimal(0)
    for first, (begin, *_) in enumerate(charged):
        most = max(most, sum(cost for at, *_, cost in charged[first:] if at - begin < SPAN))
    return most


def check(log, states):
    charged = sorted(charges(log))
    by_name = {(row.name, row.scope.get("user")): row for row in states}
    assert all(row.reserved == 0 for row in states)
    total = sum(cost for *_, cost in charged)
    assert 0 < total == by_name["all", None].spent <= worker.LIMIT
    for user in ("ann", "bob"):
        assert (
            sum(cost for _, who, _, cost in charged if who == user) == by_name["user", user].spent <= worker.LIMIT / 2
        )
    rolling = [charge for charge in charged if charge[2] == "rolling"]
    assert 0 < most_in_any_window(rolling) <= worker.ROLLING


def watched(budgets, going):
    """Look at the accounts all the while; the most that any held, as a share of its limit."""
    most = Decimal(0)
    while going():
        for row in asyncio.run(budgets.state()):
            most = max(most, (row.spent + row.reserved) / row.limit)
        time.sleep(0.01)
    return most


def test_threads_never_exceed_a_hard_cap(kind, open_store, tmp_path):
    log = tmp_path / "charges"
    store = open_store()
    budgets = Budgets(worker.rules(), store)
    provider = worker.Provider(log)
    with ThreadPoolExecutor(6) as pool:
        spending = [pool.submit(lambda seed=seed: asyncio.run(worker.spend(budgets, provider, seed, 40)))
                    for seed in range(6)]  # fmt: skip
        most = watched(budgets, lambda: not all(done.done() for done in spending))
        assert sum(done.result() for done in spending) > 10
    assert most <= 1
    check(log, asyncio.run(budgets.state()))


@SHARED
def test_processes_never_exceed_a_hard_cap(where, tmp_path):
    log = tmp_path / "charges"
    workers = [start("spend", where, log, seed, 40) for seed in range(4)]
    budgets, database = worker.opened(*where)
    with database:
        most = watched(budgets, lambda: any(process.poll() is None for process in workers))
        assert sum(finished(process) for process in workers) > 10
        states = asyncio.run(budgets.state())
        asyncio.run(budgets.close())
    assert most <= 1
    check(log, states)


@SHARED
def test_a_process_that_is_killed_keeps_no_money_for_ever_and_gives_none_twice(where, tmp_path):
    log = tmp_path / "charges"
    budgets, database = worker.opened(*where, lease=worker.LEASE)
    with database:
        holders = [start("hold", where, log) for _ in range(2)]
        lines = [holder.stdout.readline() for holder in holders]
        # Both wanted five times 0.2 for one user who has 1.5: the second was refused, or both met in the middle.
        held = {row.name: row.reserved for row in asyncio.run(budgets.state())}
        assert "holding\n" in lines or held["user"] > Decimal("1.3")
        assert Decimal("1") <= held["user"] <= Decimal("1.5")
        for holder in holders:
            holder.send_signal(signal.SIGKILL)
            holder.communicate(timeout=60)
        with pytest.raises(BudgetExceededError):
            asyncio.run(budgets.reserve("more", Facts(user="ann"), Decimal("0.6")))
        until = time.monotonic() + 30
        while (rows := asyncio.run(budgets.state())) and any(row.reserved for row in rows):
            assert time.monotonic() < until, "what the dead had reserved was never taken up"
            time.sleep(0.05)
        spent = {row.name: row.spent for row in rows}
        estimated = {row.name: row.estimated for row in rows}
        assert spent["all"] == spent["user"] == held["user"] == estimated["user"]
        with pytest.raises(BudgetExceededError):
            asyncio.run(budgets.reserve("more", Facts(user="ann"), Decimal("0.6")))
        asyncio.run(budgets.close())


@SHARED
def test_processes_killed_in_the_middle_never_let_more_through(where, tmp_path):
    log = tmp_path / "charges"
    for seed in range(3):
        process = start("spend", where, log, seed, 400)
        until = time.monotonic() + 60
        while len(charges(log)) < 3 * (seed + 1) and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.005)
        process.kill()
        process.communicate(timeout=60)
    finished(start("spend", where, log, "last", 40))
    budgets, database = worker.opened(*where)
    with database:
        rows = {row.name: row for row in asyncio.run(budgets.state()) if not row.scope}
        asyncio.run(budgets.close())
    charged = sum(cost for *_, cost in charges(log))
    # What the dead were charged for is within what they had reserved.
    assert 0 < charged <= rows["all"].spent + rows["all"].reserved <= worker.LIMIT


def test_many_wanting_the_last_of_the_money_get_exactly_what_there_is(kind, open_store):
    budgets = Budgets([Budget(1)], open_store())

    async def all_at_once():
        wanting = [budgets.reserve(f"a{number}", Facts(), Decimal("0.1")) for number in range(50)]
        return await asyncio.gather(*wanting, return_exceptions=True)

    results = asyncio.run(all_at_once())
    assert sum(not isinstance(result, Exception) for result in results) == 10
    assert all(isinstance(result, BudgetExceededError) for result in results if isinstance(result, Exception))


def test_two_writers_that_want_many_accounts_in_every_order_wait_for_no_deadlock(postgres):
    place = postgres
    rules = [Budget(1000, each="user", warn_at=())]

    def busy(database, users):
        budgets = Budgets(rules, SqlStore(database))

        async def all_at_once():
            wanting = [budgets.reserve(f"{users[0]}{number}{user}", Facts(user=user), Decimal("0.1"))
                       for number in range(10) for user in users]  # fmt: skip
            return await asyncio.gather(*wanting)

        return len(asyncio.run(all_at_once()))

    users = [f"u{number}" for number in range(20)]
    with Database(place, patience=20) as one, Database(place, patience=20) as other, ThreadPoolExecutor(2) as pool:
        begun = time.monotonic()
        done = [pool.submit(busy, one, users), pool.submit(busy, other, users[::-1])]
        assert [result.result() for result in done] == [200, 200]
        assert one.health().retries + other.health().retries == 0
        assert time.monotonic() - begun < 30


def test_who_is_cancelled_while_reserving_holds_nothing(kind, open_store):
    budgets = Budgets([Budget(1)], open_store())

    async def leave():
        for number in range(10):
            task = asyncio.ensure_future(budgets.reserve(f"c{number}", Facts(), Decimal("0.01")))
            await asyncio.sleep(0.0005 * number if kind != "memory" else 0)
            task.cancel()
            kept = (await asyncio.gather(task, return_exceptions=True))[0]
            if not isinstance(kept, BaseException):
                await budgets.refund(kept)

    asyncio.run(leave())
    until = time.monotonic() + 20
    while asyncio.run(budgets.state())[0].reserved:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_child_after_a_fork_has_none_of_what_its_parent_holds():
    import os

    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    budgets = Budgets([Budget(1)], MemoryStore())
    asyncio.run(budgets.reserve("a", Facts(), Decimal("0.6")))
    budgets.store._lock.acquire()
    budgets.store.after_fork()
    assert asyncio.run(budgets.state())[0].reserved == 0


def test_memory_is_counted_right_between_threads_of_one_process():
    budgets = Budgets([Budget(100)], MemoryStore())
    gate = threading.Barrier(8)

    def busy(name):
        async def calls():
            gate.wait()
            for number in range(500):
                reservation = await budgets.reserve(f"{name} {number}", Facts(), Decimal("0.02"))
                await budgets.settle(reservation, Decimal("0.01"))

        asyncio.run(calls())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(busy, range(8)))
    (row,) = asyncio.run(budgets.state())
    assert (row.spent, row.reserved) == (40, 0)
