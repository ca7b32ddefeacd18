"""A client whose ledger is locked, full, deleted or away still answers, none of its calls waits long, and every row is
there once the database is back. Health says meanwhile that it is not."""

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from errno import EIO

import pytest

from polyvox import AsyncClient, Client, config
from polyvox.budgets import Budget, BudgetExceededError, Budgets, BudgetsAwayError, RedisStore, SqlStore
from polyvox.config import Settings
from polyvox.database import Database, SchemaError, Unit, run
from polyvox.errors import ConfigError
from polyvox.ledger import Ledger
from polyvox.testing import Simulator
from tests import services, test_kills
from tests.ledger.calls import until
from tests.test_books import KEY, MODEL, asking, rows

needs_services = pytest.mark.services
postgres_server, postgres = services.postgres_server, services.postgres
private_postgres, private_redis = services.private_postgres, services.private_redis
nursery = test_kills.nursery
AT_ONCE = 8
DELAY = 1.0  # seconds that no call is held up for longer
BUSY = 0.5  # seconds that a call may take longer on a busy machine


@pytest.fixture(autouse=True)
def _a_home_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYVOX_HOME", str(tmp_path / "home"))


@pytest.fixture
def simulator():
    with Simulator() as running:
        yield running


@pytest.fixture
def file(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def keep():
    """Opens ledgers that are closed after the test."""
    with contextlib.ExitStack() as opened:

        def keep(place, **options):
            ledger = Ledger(place, **options)
            opened.callback(ledger.close)
            return ledger

        yield keep


class Asking:
    """Calls of one client at once, every other one streamed, each with a user of its own."""

    def __init__(self, simulator, **facts):
        self.simulator, self.facts, self.users = simulator, facts, []

    def calls(self, many=AT_ONCE):
        """Make so many calls; all are answered, in time."""
        return asyncio.run(self._all(many))

    async def _all(self, many):
        async with asking(self.simulator, AsyncClient, max_tokens=20, retries=0, **self.facts) as client:
            return await asyncio.gather(*[self._one(client) for _ in range(many)])

    async def _one(self, client):
        stream = len(self.users) % 2
        self.users.append(user := f"u{len(self.users)}")
        begun = time.monotonic()
        answer = await (client.stream("hi", user=user).finish() if stream else client.ask("hi", user=user))
        took = time.monotonic() - begun
        assert answer.text and answer.cost.amount > 0
        assert took < DELAY + BUSY, f"a call was held up for {took:.2f} s"
        return answer

    def all_there(self, ledger):
        """Once the database is back each call has its row, once, as it ended."""
        until(lambda: ledger.health().state == "ok")
        found = list(ledger.history.export())
        assert sorted(row.user for row in found) == sorted(self.users)
        assert {row.state for row in found} == {"ok"} and all(row.cost > 0 for row in found)
        assert ledger.health().lost == 0


def degraded(ledger, why=""):
    health = ledger.health()
    assert (health.state, health.lost) == ("degraded", 0) and why in health.why, health
    return True


@contextlib.contextmanager
def locked(file, how="EXCLUSIVE"):
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute(f"BEGIN {how}")
        yield
        other.rollback()


# ---- SQLite locked ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_locked_file_holds_no_call_up_and_costs_no_row(simulator, keep, file, how):
    ledger = keep(file)
    asks = Asking(simulator, ledger=ledger)
    asks.calls(2)
    with locked(file, how):
        asks.calls()
        assert degraded(ledger, "locked")
        asks.calls()
    asks.all_there(ledger)


def test_a_file_that_is_locked_from_the_start_holds_no_call_up_and_costs_no_row(simulator, keep, file):
    keep(file).open()
    ledger = keep(file)
    asks = Asking(simulator, ledger=ledger)
    with locked(file):
        asks.calls()
        assert degraded(ledger, "locked")
    asks.all_there(ledger)


def test_budgets_in_a_locked_file_let_soft_calls_through_and_count_them_afterwards(simulator, file):
    with Database(file) as database, Ledger(database) as ledger:
        soft = Budgets([Budget("1000", hard=False, warn_at=())], SqlStore(database))
        hard = Budgets([Budget("1000")], SqlStore(database))
        asks = Asking(simulator, ledger=ledger, budgets=soft)
        asks.calls(2)
        before = simulator.counts.requests
        with locked(file):
            with asking(simulator, ledger=ledger, budgets=hard, retries=0) as client:
                with pytest.raises(BudgetsAwayError) as caught:
                    client.ask("hi")
            assert caught.value.sent == "no" and simulator.counts.requests == before
            asks.calls()
        asks.all_there(ledger)
        (state,) = asyncio.run(soft.state())
        (sums,) = ledger.history.usage()
        assert (state.spent, state.reserved) == (sums.cost, 0)


# ---- disks ------------------------------------------------------------------------------------


def test_a_full_disk_costs_no_answer_and_no_row(simulator, keep, file, tmp_path):
    ledger = keep(file, spool=tmp_path / "spool")
    ledger.open()
    (tmp_path / "spool" / f"{ledger.instance.number:016x}.jsonl").symlink_to("/dev/full")
    asks = Asking(simulator, ledger=ledger)
    with locked(file):
        asks.calls()
        assert degraded(ledger, "No space") and ledger.health().in_memory == AT_ONCE
    asks.all_there(ledger)


def test_with_no_room_left_for_rows_hard_budgets_refuse_and_others_are_answered(simulator, keep, file, tmp_path):
    ledger = keep(file, spool=False, memory_rows=4)
    ledger.open()
    hard, asks = Budgets([Budget("1000")]), Asking(simulator, ledger=ledger)
    with locked(file):
        asks.calls(4)
        assert ledger.health().state == "losing"
        before = simulator.counts.requests
        with asking(simulator, ledger=ledger, budgets=hard) as client, pytest.raises(BudgetsAwayError) as caught:
            client.ask("hi")
        assert caught.value.sent == "no" and simulator.counts.requests == before
        Asking(simulator, ledger=ledger).calls(1)
    until(lambda: ledger.health().state == "ok")
    assert ledger.health().lost == 2 and [state.reserved for state in asyncio.run(hard.state())] == [0]
    assert len(list(ledger.history.export())) == 4


def test_a_quota_for_all_files_costs_no_answer_and_no_row(simulator, file):
    """In a process of its own, none of whose files can grow."""
    code = """
    import resource, signal, sys
    from polyvox.ledger import Ledger
    from tests.faults.test_money import Asking, degraded, until
    class Where:
        def base_url(self, dialect): return sys.argv[2]
    ledger = Ledger(sys.argv[1])
    ledger.open()
    asks = Asking(Where(), ledger=ledger)
    asks.calls()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    for _ in range(3):
        asks.calls()
    assert degraded(ledger) and ledger.health().in_memory > 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    asks.all_there(ledger)
    ledger.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(file), simulator.base_url("openai.chat")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_place_that_cannot_be_written_costs_no_answer_and_its_rows_come_when_it_can(simulator, keep, tmp_path):
    (tmp_path / "folder").write_text("no folder")
    ledger = keep(tmp_path / "folder" / "ledger.db", spool=tmp_path / "spool")
    asks = Asking(simulator, ledger=ledger)
    asks.calls()
    assert degraded(ledger)
    (tmp_path / "folder").unlink()
    asks.all_there(ledger)


def test_a_disk_that_fails_to_sync_costs_no_answer_and_no_row(simulator, keep, file, monkeypatch):
    ledger = keep(file)
    ledger.open()
    asks = Asking(simulator, ledger=ledger)

    def fail(handle):
        raise OSError(EIO, os.strerror(EIO))

    with locked(file):
        with monkeypatch.context() as disk:
            disk.setattr(os, "fsync", fail)
            disk.setattr(os, "fdatasync", fail)
            asks.calls()
            assert degraded(ledger, os.strerror(EIO))
        asks.calls()
    asks.all_there(ledger)


# ---- the file itself --------------------------------------------------------------------------


def test_a_file_deleted_between_calls_is_made_anew_and_no_row_after_it_is_lost(simulator, keep, file):
    ledger = keep(file)
    Asking(simulator, ledger=ledger).calls(2)
    for left in ("", "-wal", "-shm"):
        file.with_name(file.name + left).unlink(missing_ok=True)
    asks = Asking(simulator, ledger=ledger)
    asks.calls()
    asks.all_there(ledger)


def test_the_log_that_a_deleted_file_left_is_not_replayed_into_the_new_one(simulator, keep, file):
    ledger = keep(file)
    Asking(simulator, ledger=ledger).calls(2)
    assert file.with_name("ledger.db-wal").stat().st_size > 0
    file.unlink()
    asks = Asking(simulator, ledger=ledger)
    asks.calls()
    asks.all_there(ledger)


def test_a_file_that_was_replaced_is_gone_on_with(simulator, keep, file, tmp_path):
    other = keep(tmp_path / "other.db")
    asks = Asking(simulator, ledger=other)
    asks.calls(2)
    other.close()
    ledger = keep(file)
    Asking(simulator, ledger=ledger).calls(2)
    for left in ("-wal", "-shm"):
        file.with_name(file.name + left).unlink(missing_ok=True)
    os.replace(tmp_path / "other.db", file)
    asks.facts["ledger"] = ledger
    asks.calls()
    asks.all_there(ledger)


def test_two_programs_keep_one_file(simulator, keep, file):
    code = """
    import sys
    from polyvox.ledger import Ledger
    from tests.faults.test_money import Asking
    class Where:
        def base_url(self, dialect): return sys.argv[2]
    with Ledger(sys.argv[1]) as ledger:
        asks = Asking(Where(), ledger=ledger)
        asks.users += ["mine"] * 100
        for _ in range(5):
            asks.calls()
    """
    ledger = keep(file)
    ledger.open()
    asks = Asking(simulator, ledger=ledger)
    command = [sys.executable, "-c", textwrap.dedent(code), str(file), simulator.base_url("openai.chat")]
    with subprocess.Popen(command) as other:
        while other.poll() is None:
            asks.calls(2)
    assert other.returncode == 0
    asks.users += [f"u{number}" for number in range(100, 100 + 5 * AT_ONCE)]
    asks.all_there(ledger)


def test_a_network_file_system_is_warned_about_once(simulator, keep, file, monkeypatch, caplog):
    monkeypatch.setattr("polyvox.database.files.network_system", lambda path: "nfs4")
    asks = Asking(simulator, ledger=keep(file))
    asks.calls()
    assert len([record for record in caplog.records if "network file system" in record.message]) == 1


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=needs_services)])
def place(request, file):
    """Where a database of each kind is."""
    return str(file) if request.param == "sqlite" else request.getfixturevalue("postgres")


def test_a_client_killed_while_it_writes_leaves_one_row_for_each_call(nursery, place, tmp_path):
    test_kills.killed_at_random_points(nursery, place, tmp_path, 3)


# ---- PostgreSQL -------------------------------------------------------------------------------


@needs_services
def test_a_postgresql_server_that_is_stopped_stands_still_and_comes_back_costs_no_row(
    simulator, keep, private_postgres
):
    private_postgres.stop()
    ledger = keep(private_postgres.url)
    asks = Asking(simulator, ledger=ledger)
    asks.calls()
    assert degraded(ledger)
    private_postgres.start()
    asks.all_there(ledger)
    private_postgres.pause()
    asks.calls()
    assert degraded(ledger)
    private_postgres.go_on()
    asks.all_there(ledger)
    private_postgres.stop()
    asks.calls()
    assert degraded(ledger)
    private_postgres.start()
    asks.all_there(ledger)


@needs_services
def test_a_postgresql_server_that_only_reads_or_has_no_connection_to_spare_costs_no_row(
    simulator, keep, private_postgres
):
    import psycopg

    with psycopg.connect(private_postgres.url, autocommit=True) as other:
        other.execute("CREATE ROLE small LOGIN CONNECTION LIMIT 1")
        other.execute("GRANT CREATE ON SCHEMA public TO small")
        url = private_postgres.url.replace("tester@", "small@")
        ledger = keep(url)
        asks = Asking(simulator, ledger=ledger)
        with contextlib.closing(psycopg.connect(url)):
            asks.calls()
            assert degraded(ledger, "connections")
        other.execute("ALTER ROLE small CONNECTION LIMIT 5")
        asks.all_there(ledger)
        other.execute("ALTER ROLE small SET default_transaction_read_only = on")
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'small'")
        for _ in range(50):
            asks.calls(2)
            if "read-only" in (ledger.health().why or ""):
                break
        assert degraded(ledger, "read-only")
        other.execute("ALTER ROLE small RESET default_transaction_read_only")
        asks.all_there(ledger)


@needs_services
@pytest.mark.parametrize("state", ["40001", "40P01", "57014"])
def test_a_conflict_a_deadlock_and_a_cancelled_statement_cost_no_row(simulator, keep, postgres, state):
    """Every other transaction that writes a call fails, whatever is tried."""
    import psycopg

    ledger = keep(postgres)
    ledger.open()
    with psycopg.connect(postgres, autocommit=True) as other:
        other.execute("CREATE SEQUENCE tries")
        other.execute(
            "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('tries') % 2 = 1 THEN "
            f"RAISE EXCEPTION 'by the test' USING ERRCODE = '{state}'; END IF; RETURN NULL; END $$"
        )
        other.execute("CREATE TRIGGER fails AFTER INSERT ON calls FOR EACH STATEMENT EXECUTE FUNCTION fails()")
    asks = Asking(simulator, ledger=ledger)
    asks.calls()
    asks.calls()
    asks.all_there(ledger)


@needs_services
def test_an_operator_who_cuts_the_connection_costs_no_row(simulator, keep, postgres):
    import psycopg

    ledger = keep(postgres)
    asks = Asking(simulator, ledger=ledger)
    asks.calls(2)
    with psycopg.connect(postgres, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (ledger.database.write_sync(_Who()),))
    asks.calls()
    asks.all_there(ledger)


class _Who(Unit):
    """By which connection rows are written."""

    def apply(self, connection):
        return run(connection, "SELECT pg_backend_pid()").scalar()


# ---- schemas ----------------------------------------------------------------------------------


def change(place, statement):
    if "://" not in place:
        with contextlib.closing(sqlite3.connect(place)) as connection:
            connection.execute(statement)
            connection.commit()
        return
    import psycopg

    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("statement", "why"),
    [("INSERT INTO polyvox_schema VALUES (99, 'later', 'x', 1)", "schema 99"), ("DROP TABLE attempts", "half made")],
    ids=["newer", "half made"],
)
def test_a_newer_or_half_made_schema_is_refused_before_anything_is_sent(simulator, keep, place, statement, why, stream):
    keep(place).open()
    change(place, statement)
    with asking(simulator, ledger=keep(place), retries=2) as client:
        for _ in range(2):
            with pytest.raises(SchemaError, match=why) as caught:
                client.stream("hi").finish() if stream else client.ask("hi")
    assert caught.value.hint and caught.value.sent == "no" and "\n" not in caught.value.message
    assert simulator.counts.requests == 0


# ---- Redis ------------------------------------------------------------------------------------


@needs_services
def test_budgets_in_a_redis_that_dies_refuse_where_hard_and_are_counted_afterwards_where_soft(simulator, private_redis):
    soft = Budgets([Budget("1000", hard=False, warn_at=())], RedisStore(private_redis.url, prefix="soft"))
    hard = Budgets([Budget("1000", warn_at=())], RedisStore(private_redis.url, prefix="hard"))
    asks, paid = Asking(simulator, budgets=soft), Asking(simulator, budgets=hard)
    paid.calls(1)
    private_redis.stop()
    before = simulator.counts.requests
    with pytest.raises(BudgetsAwayError):
        paid.calls(1)
    assert simulator.counts.requests == before
    answers = asks.calls()
    assert soft.health().state == "away"
    private_redis.start()

    def counted():
        with contextlib.suppress(BudgetsAwayError):
            (state,) = asyncio.run(soft.state())
            return state.spent == sum(answer.cost.amount for answer in answers) and state.reserved == 0
        return False

    until(counted)
    asks.calls(1)
    assert soft.health().state == "ok"
    for budgets in (soft, hard):
        asyncio.run(budgets.close())


# ---- prices -----------------------------------------------------------------------------------

WRONG = {
    "malformed": ('[prices."openai/gpt-5.4-mini"\ninput = 1\n', ""),
    "negative": ('[prices."openai/gpt-5.4-mini"]\ninput = -1\n', "must be a finite number from 0 up"),
    "no number": ('[prices."openai/gpt-5.4-mini"]\ninput = nan\n', "must be a finite number from 0 up"),
    "infinite": ('[prices."openai/gpt-5.4-mini"]\ninput = inf\n', "must be a finite number from 0 up"),
}


@pytest.mark.parametrize(("text", "why"), WRONG.values(), ids=WRONG.keys())
def test_prices_that_cannot_be_are_refused_before_a_client_is_made_of_them(simulator, tmp_path, text, why):
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Client(MODEL, settings=config.load(env={}, files=[file]))
    assert f"{file}:" in str(caught.value) and why in str(caught.value)


def test_a_model_without_a_price_costs_an_unknown_amount_and_not_nothing(simulator, keep, file, stream):
    ledger = keep(file)
    house = {"base_url": simulator.base_url("openai.chat"), "dialect": "openai.chat", "api_key": KEY}
    settings = Settings(providers={"house": {**house, "hosts": ["127.0.0.1"]}})
    hard = Budgets([Budget("1000")])
    with Client("house/m", settings=settings, ledger=ledger) as client:
        answer = client.stream("hi").finish() if stream else client.ask("hi")
    with Client("house/m", settings=settings, ledger=ledger, budgets=hard) as client:
        with pytest.raises(BudgetExceededError, match="nobody knows"):
            client.ask("hi")
    (row,) = rows(ledger)
    (sums,) = ledger.history.usage()
    assert answer.cost.amount is None and row.cost is None and row.cost_source == "unknown"
    assert (sums.cost, sums.unknown_cost) == (None, 1) and simulator.counts.requests == 1
