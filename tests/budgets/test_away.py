"""Where budgets are counted may be away: hard ones refuse then, soft ones let calls through and count them later."""

import asyncio
import shutil
import subprocess
import sys
import threading
import time
from decimal import Decimal

import pytest
from msgspec.structs import replace

from polyvox.budgets import (
    Budget,
    BudgetExceededError,
    Budgets,
    BudgetsAwayError,
    Facts,
    MemoryStore,
    RedisStore,
    SqlStore,
)
from polyvox.budgets.book import Book
from polyvox.budgets.owed import AT_ONCE, MOST
from polyvox.budgets.sql import RefundUnit
from polyvox.database import Database, Together, Unit, run
from polyvox.errors import ConfigError, InputError, MissingExtraError
from polyvox.keys import redact
from polyvox.ledger import CallEnd, Ledger
from tests.services import PrivateRedis, without

CENT = Decimal("0.01")
HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(60)
"""


def until(true, seconds=30):
    end = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except BudgetsAwayError:
            pass
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


class Place:
    """A store that can be taken away and brought back."""

    def __init__(self, store, away, back):
        self.store, self.away, self.back = store, away, back


@pytest.fixture(params=["sqlite", "postgresql", "redis", "redis that says nothing"])
def place(request, tmp_path):
    if request.param.startswith("redis"):
        if shutil.which("redis-server") is None:
            without("no Redis server to start")
        # It keeps what it has when it is stopped.
        server = PrivateRedis("--appendonly", "yes", "--appendfsync", "always")
        request.addfinalizer(server.remove)
        server.start()
        store = RedisStore(server.url, timeout=0.3)
        ways = (server.stop, server.start) if request.param == "redis" else (server.pause, server.go_on)
        yield Place(store, *ways)
        asyncio.run(store.close())
        return
    if request.param == "postgresql":
        server = request.getfixturevalue("private_postgres")
        with Database(server.url) as database:
            yield Place(SqlStore(database), server.stop, server.start)
        return
    file = tmp_path / "budgets.db"
    with Database(str(file), patience=0.2) as database:
        holder = []

        def away():
            # Another process holds the lock.
            holder.append(subprocess.Popen(
                [sys.executable, "-c", HOLD, str(file)],
                stdout=subprocess.PIPE,
            ))  # fmt: skip
            holder[-1].stdout.readline()

        def back():
            process = holder.pop()
            process.kill()
            process.communicate()

        yield Place(SqlStore(database), away, back)
        while holder:
            back()


def test_while_the_store_is_away_hard_refuses_soft_passes_and_all_is_counted_once_it_is_back(place):
    notices = []
    hard = Budgets([Budget(1, name="hard")], place.store, on_notice=notices.append)
    soft = Budgets([Budget(1, name="soft", hard=False)], place.store, on_notice=notices.append)

    async def before():
        return await hard.reserve("h0", Facts(), Decimal("0.5")), await soft.reserve("s0", Facts(), Decimal("0.5"))

    held = asyncio.run(before())
    place.away()

    async def meanwhile():
        with pytest.raises(BudgetsAwayError) as caught:
            await hard.reserve("h1", Facts(), CENT)
        assert (caught.value.sent, caught.value.billed, caught.value.retryable) == ("no", False, True)
        assert "'hard'" in caught.value.message and caught.value.hint
        passed = await soft.reserve("s1", Facts(), Decimal("0.2"))
        never_sent = await soft.reserve("s2", Facts(), Decimal("0.2"))
        assert not passed.counted and (await soft.refund(never_sent)).done
        outcomes = [
            await hard.settle(held[0], Decimal("0.3")),
            await soft.settle(held[1], Decimal("0.4")),
            await soft.settle(passed, Decimal("0.1")),
        ]
        assert all(outcome.later for outcome in outcomes)

    asyncio.run(meanwhile())
    # Also what was refused is given back, where the store may have done it without saying so.
    assert hard.health().state == "away" and 1 <= hard.health().waiting <= 2
    assert soft.health().state == "away" and 2 <= soft.health().waiting <= 3
    assert [notice.kind for notice in notices] == ["away", "away"]
    place.back()
    until(lambda: asyncio.run(hard.state()) and hard.health().waiting == 0)
    until(lambda: asyncio.run(soft.state()) and soft.health().waiting == 0)
    rows = asyncio.run(hard.state()) + asyncio.run(soft.state())
    assert [(f"{row.spent:f}", row.reserved) for row in rows] == [("0.3", 0), ("0.5", 0)]
    for budgets in (hard, soft):
        assert asyncio.run(
            budgets.settle(asyncio.run(budgets.reserve(budgets.rules[0].name, Facts(), CENT)), CENT)
        ).done
        assert budgets.health().state == "ok"
    assert [notice.kind for notice in notices if notice.kind != "threshold"] == ["away", "away", "back", "back"]


def test_health_sees_by_itself_that_the_store_is_back(place):
    notices = []
    budgets = Budgets([Budget(1, hard=False)], place.store, on_notice=notices.append)

    async def reserve():
        await budgets.reserve("first", Facts(), CENT)

    place.away()
    asyncio.run(reserve())
    assert budgets.health().state == "away"
    for _ in range(100):
        assert budgets.health().state == "away"
        time.sleep(0.02)
        looks = [thread for thread in threading.enumerate() if thread.name == "polyvox-budgets-look"]
        assert len(looks) <= 1
    place.back()
    until(lambda: budgets.health().state == "ok")
    assert [notice.kind for notice in notices] == ["away", "back"]
    # What was owed meanwhile is counted with the next step.
    until(lambda: asyncio.run(budgets.state()) and budgets.health().waiting == 0)


def test_a_server_that_is_away_is_not_asked_by_every_call(private_redis):
    private_redis.pause()
    moments = [0.0]
    store = RedisStore(private_redis.url, timeout=0.3, steady=lambda: moments[0])
    budgets = Budgets([Budget(1)], store)

    async def refused():
        begun = time.monotonic()
        with pytest.raises(BudgetsAwayError):
            await budgets.reserve("a", Facts(), CENT)
        return time.monotonic() - begun

    async def asked():
        assert await refused() > 0.25
        assert sum([await refused() for _ in range(50)]) < 0.25
        moments[0] = 10
        private_redis.go_on()
        assert (await budgets.reserve("a", Facts(), CENT)).counted
        await budgets.close()

    asyncio.run(asked())


def test_too_many_settlements_that_wait_lose_the_oldest_and_say_so(private_redis):
    private_redis.stop()
    budgets = Budgets([Budget(1, hard=False)], RedisStore(private_redis.url, timeout=0.3, steady=lambda: 0.0))

    async def many():
        reservation = await budgets.reserve("a", Facts(), CENT)
        for _ in range(MOST + 7):
            await budgets.settle(reservation, CENT)
        await budgets.close()

    asyncio.run(many())
    health = budgets.health()
    assert (health.waiting, health.lost) == (MOST, 7)


def test_a_redis_that_lost_its_script_is_given_it_again(redis_server, redis_prefix):
    import redis

    async def calls():
        budgets = Budgets([Budget(1)], RedisStore(redis_server, prefix=redis_prefix, timeout=10))
        first = await budgets.reserve("a", Facts(), CENT)
        with redis.Redis.from_url(redis_server) as client:
            client.script_flush()
        assert (await budgets.settle(first, CENT)).done
        await budgets.close()

    asyncio.run(calls())


def test_the_keys_in_redis_end_with_their_window_but_for_those_of_all_time(redis_server, redis_prefix):
    import redis

    async def calls():
        store = RedisStore(redis_server, prefix=redis_prefix, timeout=10, lease=60)
        budgets = Budgets([Budget(1, window="hour"), Budget(1, window="5h")], store)
        await budgets.settle(await budgets.reserve("a", Facts(), CENT), CENT)
        await budgets.reserve("b", Facts(), CENT)
        ever = Budgets([Budget(1, name="ever")], store)
        await ever.settle(await ever.reserve("c", Facts(), CENT), CENT)
        await ever.reserve("d", Facts(), CENT)
        await store.close()

    asyncio.run(calls())
    with redis.Redis.from_url(redis_server, decode_responses=True) as client:
        life = {key.partition("}:")[2]: client.ttl(key) for key in client.scan_iter(f"{{{redis_prefix}}}*", count=1000)}
    for key, seconds in life.items():
        if "ever" in key or key == "t:d":
            assert seconds == -1, key
        else:
            assert 0 < seconds < 9 * 86_400, key
    # What a rolling window counts is there for as long as the window.
    assert life["t:a"] >= 2 * 5 * 3600 and life["t:c"] <= 600 and len(life) == 3 * 3 + 4


def test_redis_cannot_be_named_wrongly_and_shows_no_password(private_redis):
    with pytest.raises(InputError):
        RedisStore("redis://x", prefix="a{b}")
    store = RedisStore("redis://:hidden-word-1@127.0.0.1:1/0", timeout=0.2)
    assert "hidden-word-1" not in repr(store) and "hidden-word-1" not in redact("it says hidden-word-1 aloud")
    with pytest.raises(BudgetsAwayError) as caught:
        asyncio.run(store.standings([], 1))
    assert "hidden-word-1" not in str(caught.value)
    with pytest.raises(ConfigError):
        asyncio.run(RedisStore("mailto:x").standings([], 1))


def test_without_the_driver_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    budgets = Budgets([Budget(1)], RedisStore("redis://127.0.0.1/0"))
    with pytest.raises(MissingExtraError, match="driver") as caught:
        asyncio.run(budgets.reserve("a", Facts(), CENT))
    assert "pip install" in caught.value.hint


def test_importing_budgets_loads_no_database_and_no_redis():
    code = (
        "import sys, polyvox.budgets as b; b.Budgets([b.Budget(1)]); "
        "print([m for m in ('sqlalchemy', 'psycopg', 'redis', 'aiohttp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


# ---- together with the ledger -----------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path, monkeypatch):
    monkeypatch.setenv("POLYVOX_HOME", str(tmp_path / "home"))
    where = str(tmp_path / "all.db") if request.param == "sqlite" else request.getfixturevalue("postgres")
    with Database(where, patience=20) as opened:
        yield opened


def rows(database, text):
    return database.read_sync(lambda connection: [tuple(row) for row in run(connection, text)])


def test_a_reservation_and_the_start_of_its_call_are_one_transaction(database):
    budgets = Budgets([Budget(1)], SqlStore(database))
    with Ledger(database) as ledger:
        batches = database.health().batches

        async def call(name, at_most):
            start = ledger.start(deployment="demo/a", provider="demo", model="a")
            unit = budgets.reserving(name, Facts(), at_most)
            result, _ = await database.write(Together(unit, ledger.opening(start)))
            return start, budgets.taken(name, at_most, result)

        start, reservation = asyncio.run(call("a", Decimal("0.6")))
        assert database.health().batches == batches + 1
        with pytest.raises(BudgetExceededError):
            asyncio.run(call("b", Decimal("0.6")))

        async def end():
            await ledger.finish(CallEnd(start=start, cost=Decimal("0.2")))
            return await budgets.settle(reservation, Decimal("0.2"))

        assert asyncio.run(end()).done
        assert rows(database, "SELECT state, cost FROM calls ORDER BY state DESC")[0] == (1, 200_000_000_000)
    assert rows(database, "SELECT spent, reserved FROM budget_accounts") == [(200_000_000_000, 0)]


def test_a_call_no_budget_is_for_needs_no_unit(database):
    budgets = Budgets([Budget(1, user="ann")], SqlStore(database))
    assert budgets.reserving("a", Facts(user="bob"), CENT) is None
    assert not asyncio.run(budgets.settle(budgets.taken("a", CENT, None), CENT)).done


def test_if_what_is_written_together_with_it_fails_nothing_is_reserved(database):
    budgets = Budgets([Budget(1)], SqlStore(database))
    with pytest.raises(InputError):
        database.write_sync(Together(budgets.reserving("a", Facts(), CENT), Fails()))
    assert asyncio.run(budgets.state())[0].reserved == 0


def test_a_database_that_is_away_spools_the_start_of_a_call_under_soft_budgets_alone(
    tmp_path, private_postgres, monkeypatch
):
    monkeypatch.setenv("POLYVOX_HOME", str(tmp_path / "home"))
    with Database(private_postgres.url, patience=0.2) as database, Ledger(database, spool=tmp_path / "spool") as ledger:
        private_postgres.stop()
        for hard in (True, False):
            budgets = Budgets([Budget(1, name=f"{hard}", hard=hard)], SqlStore(database))
            unit = budgets.reserving("a", Facts(), CENT)
            start = ledger.start(deployment="demo/a")
            if hard:
                with pytest.raises(BudgetsAwayError):
                    database.write_sync(Together(unit, ledger.opening(start)))
                continue
            result, _ = database.write_sync(Together(unit, ledger.opening(start)))
            assert not budgets.taken("a", CENT, result).counted
        assert sum(file.stat().st_size for file in (tmp_path / "spool").glob("*.jsonl")) > 0
        private_postgres.start()
        until(lambda: database.health().state == "ok")


def test_old_windows_and_what_nobody_asks_for_are_cleared_away(database):
    moments = [1_900_000_000.0]
    store = SqlStore(database, clock=lambda: moments[0])

    async def calls():
        for number in range(5):
            budgets = Budgets([Budget(1, window="hour"), Budget(1, window="60s", each="user")], store,
                              wall=lambda: moments[0])  # fmt: skip
            await budgets.settle(await budgets.reserve(f"a{number}", Facts(user=f"u{number}"), CENT), CENT)
            moments[0] += 3600

    asyncio.run(calls())
    # Windows that are over are kept for long, because a clock may be wrong; users of hours ago are not.
    assert rows(database, "SELECT count(*) FROM budget_accounts") == [(7,)]
    moments[0] += 500 * 86_400

    async def late(name):
        budgets = Budgets([Budget(1, name="other")], store, wall=lambda: moments[0])
        await budgets.settle(await budgets.reserve(name, Facts(), CENT), CENT)

    asyncio.run(late("late"))
    moments[0] += 3601
    asyncio.run(late("later"))
    assert rows(database, "SELECT count(*) FROM budget_accounts") == [(1,)]
    assert rows(database, "SELECT attempt FROM budget_entries") == [("later",)]


def test_units_that_share_a_transaction_share_what_was_read_but_not_what_was_rolled_back(database):
    mine = Budgets([Budget(1, name="a"), Budget("0.5", name="b", each="user")], SqlStore(database))
    yours = Budgets([Budget(1, name="a")], SqlStore(database))

    async def together():
        units = []
        for number in range(12):
            facts = Facts(user=f"u{number % 3}")
            units.append(mine.reserving(f"m{number}", facts, Decimal("0.1")))
            units.append(Together(yours.reserving(f"y{number}", facts, Decimal("0.02")), Fails()))
            units.append(yours.reserving(f"x{number}", facts, Decimal("0.01")))
        return await asyncio.gather(*[database.write(unit) for unit in units], return_exceptions=True)

    results = asyncio.run(together())
    granted = [result for result in results if isinstance(result, tuple) and result[1].refused is None]
    assert sum(isinstance(result, InputError) for result in results) == 12
    held = sum(result[0].amount for result in granted)
    stored = rows(database, "SELECT account, sum(amount) FROM budget_entries GROUP BY account ORDER BY account")
    assert rows(database, "SELECT id, reserved FROM budget_accounts WHERE reserved > 0 ORDER BY id") == [
        (name, int(total)) for name, total in stored
    ]
    (row,) = asyncio.run(yours.state())
    # Nine of 0.1 and ten of 0.01, and not a hundredth of those that were rolled back.
    assert row.reserved == 1 and held == 10**12 and len(granted) == 19


class Hold:
    """Keeps the writer busy until what is to share the next transaction was handed over."""

    def __init__(self, database):
        self.gate = threading.Event()
        gate, busy = self.gate, threading.Event()

        class Wait(Unit):
            def apply(self, connection):
                busy.set()
                gate.wait(10)

        database.post(Wait())
        assert busy.wait(30)

    async def together(self, database, units):
        waiting = [asyncio.ensure_future(database.write(unit)) for unit in units]
        await asyncio.sleep(0.1)
        self.gate.set()
        return await asyncio.gather(*waiting, return_exceptions=True)


class Fails(Unit):
    can_fail = True

    def apply(self, connection):
        raise InputError("no")


def test_a_savepoint_that_is_rolled_back_takes_no_lock_away_from_those_that_follow(postgres):
    class Locks(Unit):
        def apply(self, connection):
            asked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
            return run(connection, asked).scalar()

    with Database(postgres, patience=20) as database:
        database.open()
        budgets = Budgets([Budget(1)], SqlStore(database))
        units = [
            Together(budgets.reserving("a", Facts(), CENT), Fails()),
            budgets.reserving("b", Facts(), CENT),
            Locks(),
        ]
        batches = database.health().batches
        results = asyncio.run(Hold(database).together(database, units))
        assert database.health().batches == batches + 2
        assert isinstance(results[0], InputError) and results[2] == 1
        assert asyncio.run(budgets.state())[0].reserved == CENT


def test_what_cannot_be_written_at_the_end_of_a_transaction_is_done_again_and_once(database, monkeypatch):
    budgets = Budgets([Budget(1), Budget(1, window="5h")], SqlStore(database))
    flush, failures = Book.flush, []

    def failing(book):
        if not failures:
            failures.append(flush(book))
            raise RuntimeError("the end did not come")
        flush(book)

    monkeypatch.setattr(Book, "flush", failing)
    units = [budgets.reserving(f"a{number}", Facts(), CENT) for number in range(5)]
    results = asyncio.run(Hold(database).together(database, units))
    assert failures and all(result[1].refused is None for result in results)
    assert [row.reserved for row in asyncio.run(budgets.state())] == [Decimal("0.05")] * 2
    assert rows(database, "SELECT count(*) FROM budget_entries") == [(10,)]


def test_an_attempt_is_known_within_the_transaction_that_reserved_it(database):
    budgets = Budgets([Budget(1)], SqlStore(database))
    units = [budgets.reserving("same", Facts(), Decimal("0.4")) for _ in range(5)]
    asyncio.run(Hold(database).together(database, [*units, RefundUnit(budgets.store, units[0].order)]))
    assert asyncio.run(budgets.state())[0].reserved == 0
    asyncio.run(Hold(database).together(database, units))
    assert asyncio.run(budgets.state())[0].reserved == Decimal("0.4")


def test_an_attempt_that_is_made_after_all_is_not_given_back_by_what_waited():
    budgets = Budgets([Budget(1)], MemoryStore())

    async def calls():
        first = await budgets.reserve("a", Facts(), CENT)
        await budgets.refund(first)
        # As after a store that was away for long: more than is settled at once, and this one the last of them.
        for number in range(AT_ONCE + 50):
            other = replace(first.order, id=f"other {number}")
            budgets._owed.add(other, None, refund=True, counted=True)
        budgets._owed.add(first.order, None, refund=True, counted=True)
        await budgets.reserve("a", Facts(), CENT)
        while budgets.health().waiting:
            await budgets.state()
        return await budgets.state()

    assert asyncio.run(calls())[0].reserved == CENT
