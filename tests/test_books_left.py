"""Whoever leaves a call, at whatever point, leaves no reservation, no open row and no second one."""

import asyncio
import contextlib
import gc
import random
import sqlite3
import time
from functools import partial

import pytest

from polyvox import AsyncClient
from polyvox.budgets import Budget, Budgets, MemoryStore, RedisStore, SqlStore
from polyvox.database import Database, Unit
from polyvox.errors import CallTimeoutError, UsageError
from polyvox.ledger import Ledger
from polyvox.testing import Simulator
from tests.ledger.calls import until
from tests.services import redis_prefix, redis_server  # noqa: F401 - fixtures
from tests.test_books import asking

ENDS = {"ok", "cancelled"}


@pytest.fixture(scope="module")
def simulator():
    with Simulator(keep=100_000) as running:
        yield running


@pytest.fixture
def ledger(tmp_path):
    with Database(tmp_path / "ledger.db") as database, Ledger(database) as opened:
        yield opened


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.services)])
def budgets(request, ledger):
    """One budget that all calls count in, in each kind of store."""
    if request.param == "redis":
        url, prefix = request.getfixturevalue("redis_server"), request.getfixturevalue("redis_prefix")
        store = RedisStore(url, prefix=prefix, timeout=10)
    else:
        store = MemoryStore() if request.param == "memory" else SqlStore(ledger.database)
    yield Budgets([Budget("1000")], store)
    asyncio.run(store.close())


class _Leaving:
    """Runs a coroutine, and has its task cancelled while it waits for the so-manieth times, or closes it at the first
    of them."""

    def __init__(self, work, points, way):
        self.work, self.points, self.way, self.waits, self.left = work, points, way, 0, False

    def __await__(self):
        go_on = partial(self.work.send, None)
        while True:
            try:
                waiting = go_on()
            except StopIteration as end:
                return end.value
            if self.waits in self.points:
                self.left = True
                if self.way == "closed":
                    self.work.close()
                    return None
                asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
            self.waits += 1
            try:
                yield waiting
                go_on = partial(self.work.send, None)
            except BaseException as error:
                go_on = partial(self.work.throw, error)


async def whole(client, user):
    await client.ask("hello", user=user)


async def streamed(client, user):
    async with client.stream("hello", user=user) as stream:
        await stream.finish()


class _Turn(Unit):
    """Takes its turn behind what was handed over before."""

    in_order = True

    def apply(self, connection):
        return None


CANCELLED = {"cancelled": (0,), "cancelled twice": (0, 1), "cancelled thrice": (0, 1, 2)}


async def left_at(work, at, way, simulator, **kept):
    """Leave a call at one point; whether it had ended before."""
    async with asking(simulator, AsyncClient, max_tokens=9, retries=0, **kept) as client:
        leaving = _Leaving(work(client, f"{at} {way}"), {at + later for later in CANCELLED.get(way, (0,))}, way)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.create_task(_all_of(leaving))
    return not leaving.left


async def _all_of(leaving):
    return await leaving


def rows_of(ledger, user):
    """What the ledger has of this user's calls, with their attempts."""
    ledger.database.write_sync(_Turn())
    return [ledger.history.get(row.id) for row in ledger.history.export(filters={"user": user})]


def sent(simulator):
    """Who asked the provider."""
    return {asked.json["user"] for asked in simulator.requests}


def leaves_nothing(simulator, ledger, budgets, work, way):
    """Leave a call at its first point, another at its second, until one was over before; look at each."""
    simulator.reset()
    spent, found, at, over = 0, {}, 0, False
    while not over:
        over = asyncio.run(left_at(work, at, way, simulator, ledger=ledger, budgets=budgets))
        rows = found[f"{at} {way}"] = rows_of(ledger, f"{at} {way}")
        (state,) = asyncio.run(budgets.state())
        assert state.reserved == 0, f"something is reserved after leaving at {at}"
        assert len(rows) <= 1 and {row.state for row in rows} <= ENDS
        costs = sum(row.cost or 0 for row in rows)
        if not any(row.attempts for row in rows):
            assert state.spent == spent and costs == 0, f"paid for what was never admitted at {at}"
        elif all(attempt.sent == "no" for attempt in rows[0].attempts):
            assert state.spent == spent and costs == 0, f"paid for what never left at {at}"
        elif rows[0].cost is not None:
            assert state.spent - spent == costs > 0
        else:
            assert state.spent > spent, f"what may have been billed at {at} counts nowhere"
        spent, at = state.spent, at + 1
        assert at < 200
    assert at > 5 and rows[0].state == "ok"
    assert sent(simulator) <= {user for user, rows in found.items() if rows}


@pytest.mark.parametrize("way", CANCELLED)
@pytest.mark.parametrize("work", [whole, streamed])
def test_a_call_cancelled_at_any_point_leaves_no_reservation_and_one_row_at_most(simulator, ledger, budgets, work, way):
    leaves_nothing(simulator, ledger, budgets, work, way)


@pytest.mark.parametrize("work", [whole, streamed])
def test_a_coroutine_closed_at_any_point_leaves_no_reservation_and_one_row_at_most(simulator, ledger, budgets, work):
    leaves_nothing(simulator, ledger, budgets, work, "closed")


async def _forgets(simulator, **kept):
    """Read the first words of a stream, and then neither read nor close it."""
    async with asking(simulator, AsyncClient, max_tokens=9, retries=0, **kept) as client:
        stream = client.stream("hello", user="forgetful")
        async for _ in stream:
            break
        del stream
        gc.collect()


def test_a_stream_that_is_forgotten_in_the_middle_is_a_cancelled_call_and_holds_no_money(ledger, budgets):
    with Simulator(plan=[{"kind": "stall", "at": 1, "after": 900}]) as simulator:
        asyncio.run(_forgets(simulator, ledger=ledger, budgets=budgets))
    (row,) = rows_of(ledger, "forgetful")
    (state,) = asyncio.run(budgets.state())
    assert (row.state, row.usage.source) == ("cancelled", "estimated")
    assert state.reserved == 0 and state.spent == row.cost > 0


async def _many(simulator, chance, **kept):
    """Calls at once, of which most are left at some time; the users of those that ended well."""
    async with asking(simulator, AsyncClient, max_tokens=9, retries=1, **kept) as client:
        tasks = {f"u{number}": chance.choice([whole, streamed]) for number in range(40)}
        tasks = {user: asyncio.create_task(work(client, user)) for user, work in tasks.items()}
        for user in chance.sample(sorted(tasks), 30):
            await asyncio.sleep(chance.random() * 0.01)
            tasks[user].cancel()
        ended = await asyncio.gather(*tasks.values(), return_exceptions=True)
    wrong = [end for end in ended if isinstance(end, Exception)]
    assert not wrong, wrong
    return {user for user, end in zip(tasks, ended, strict=True) if end is None}


@pytest.mark.parametrize("seed", range(5))
def test_of_many_calls_cancelled_at_random_times_each_has_one_row_and_none_holds_money(ledger, budgets, seed):
    faults = [{"kind": "status", "status": 500, "at": number} for number in (3, 7, 11)]
    with Simulator(latency="0.0..0.02", token_rate=3000, plan=faults, seed=seed) as simulator:
        well = asyncio.run(_many(simulator, random.Random(seed), ledger=ledger, budgets=budgets))
        asked = sent(simulator)
    ledger.database.write_sync(_Turn())
    rows = {row.user: row for row in ledger.history.export()}
    (sums,) = ledger.history.usage()
    (state,) = asyncio.run(budgets.state())
    assert sums.calls == len(rows) and asked <= set(rows) and sums.open == 0
    assert {user for user, row in rows.items() if row.state == "ok"} >= well and len(well) >= 10
    assert state.reserved == 0 and state.spent >= sums.cost > 0


def test_a_deadline_that_comes_while_the_start_is_written_down_gives_the_money_back(simulator, ledger):
    """The database is locked for longer than the call may take."""
    simulator.reset()
    budgets = Budgets([Budget("1000")])
    with asking(simulator, ledger=ledger, budgets=budgets, max_tokens=9) as client:
        client.ask("hello", user="before")
        (before,) = asyncio.run(budgets.state())
        begun = time.monotonic()
        with _locked(ledger), pytest.raises(CallTimeoutError) as caught:
            client.ask("hello", user="late", timeout=0.1)
        assert time.monotonic() - begun < 1
    until(lambda: ledger.health().state == "ok")
    (state,) = asyncio.run(budgets.state())
    (row,) = rows_of(ledger, "late")
    assert caught.value.sent == "no" and sent(simulator) == {"before"}
    assert (row.state, row.error_kind) == ("error", "timeout")
    assert state.reserved == 0 and state.spent == before.spent


@contextlib.contextmanager
def _locked(ledger):
    """Nobody else may write to its file meanwhile."""
    with contextlib.closing(sqlite3.connect(ledger.database.address.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.rollback()


def test_a_call_that_is_left_after_its_ledger_was_closed_is_left_all_the_same(tmp_path, caplog):
    budgets = Budgets([Budget("1000")])

    async def go(simulator):
        ledger = Ledger(tmp_path / "closed.db")
        async with asking(simulator, AsyncClient, ledger=ledger, budgets=budgets, max_tokens=9) as client:
            async with client.stream("hello") as stream:
                async for _ in stream:
                    break
                await asyncio.to_thread(ledger.close)

    with Simulator(plan=[{"kind": "stall", "at": 1, "after": 900}]) as simulator:
        asyncio.run(go(simulator))
    (state,) = asyncio.run(budgets.state())
    assert state.reserved == 0 and "its end is lost" in caplog.text


def test_a_call_whose_ledger_was_closed_before_is_refused_and_holds_no_money(simulator, tmp_path):
    simulator.reset()
    budgets, ledger = Budgets([Budget("1000")]), Ledger(tmp_path / "closed.db")
    ledger.open()
    ledger.close()
    with asking(simulator, ledger=ledger, budgets=budgets, max_tokens=9) as client, pytest.raises(UsageError):
        client.ask("hello")
    (state,) = asyncio.run(budgets.state())
    assert (state.reserved, state.spent, simulator.counts.requests) == (0, 0, 0)
