"""The database away, the disk full, the file locked, deleted or corrupt: calls go on, every row is there once the
database is back, and health says meanwhile that it is not."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time

import psycopg
import pytest

from polyvox.database import SchemaError, run
from polyvox.errors import ConfigError, UsageError
from polyvox.ledger import Ledger
from tests.ledger.calls import begin, call, ended, finish, make_calls, starting, states, until


@pytest.fixture
def file(tmp_path):
    return tmp_path / "ledger.db"


def locked(file):
    """Another process that holds the file for as long as it likes."""
    lock = sqlite3.connect(file, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    return lock


def longest(seconds, make):
    """Runs something that must not take longer; what it gives."""
    before = time.monotonic()
    result = make()
    assert time.monotonic() - before < seconds
    return result


# ---- away and back ----------------------------------------------------------------------------


def test_while_the_file_is_locked_calls_go_on_and_every_row_is_there_afterwards(open_ledger, file):
    ledger = open_ledger(file)
    first = make_calls(ledger, 3)
    lock = locked(file)
    held = longest(1.5, lambda: make_calls(ledger, 1))
    more = longest(1.0, lambda: make_calls(ledger, 200))
    health = ledger.health()
    assert health.state == "degraded" and "locked" in health.why and health.spooled >= 400 and health.lost == 0
    assert ledger.may_admit(hard_budget=True)
    (spool,) = file.with_name("ledger.db.spool").glob("*.jsonl")
    assert stat.S_IMODE(spool.stat().st_mode) == 0o600
    lock.close()
    until(lambda: ledger.health().state == "ok")
    assert states(ledger) == dict.fromkeys(first + held + more, "ok")
    assert spool.stat().st_size == 0


def test_a_call_that_begins_before_and_ends_during_an_outage_is_one_row(open_ledger, file):
    ledger = open_ledger(file)
    before = begin(ledger)
    lock = locked(file)
    during = begin(ledger)
    finish(ledger, before)
    lock.close()
    until(lambda: ledger.health().state == "ok")
    assert states(ledger) == {before.id: "ok", during.id: "open"}
    finish(ledger, during)
    assert states(ledger) == {before.id: "ok", during.id: "ok"}


@pytest.mark.services
def test_a_postgresql_server_stopped_and_started_under_load_loses_no_row(open_ledger, private_postgres):
    ledger = open_ledger(private_postgres.url)
    ledger.open()
    ids, waits, over = [], [], False

    async def worker():
        while not over:
            before = time.monotonic()
            ids.append(await call(ledger))
            waits.append(time.monotonic() - before)
            await asyncio.sleep(0.01)

    async def operator():
        nonlocal over
        seen = set()
        for mode in ("immediate", "fast"):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(private_postgres.stop, mode)
            await asyncio.sleep(0.5)
            seen.add(ledger.health().state)
            await asyncio.to_thread(private_postgres.start)
            await asyncio.to_thread(until, lambda: ledger.health().state == "ok")
        over = True
        return seen

    async def all_of_it():
        return (await asyncio.gather(operator(), *[worker() for _ in range(8)]))[0]

    assert asyncio.run(all_of_it()) == {"degraded"}
    until(lambda: ledger.health().state == "ok")
    assert states(ledger) == dict.fromkeys(ids, "ok") and len(ids) > 50
    assert ledger.health().lost == 0 and max(waits) < 3


@pytest.mark.services
def test_a_postgresql_server_that_stands_still_delays_no_call_by_much(open_ledger, private_postgres):
    ledger = open_ledger(private_postgres.url)
    ledger.open()
    ids = make_calls(ledger, 2)
    private_postgres.pause()
    ids += longest(2, lambda: make_calls(ledger, 50))
    assert ledger.health().state == "degraded"
    private_postgres.go_on()
    until(lambda: ledger.health().state == "ok")
    assert states(ledger) == dict.fromkeys(ids, "ok")


@pytest.mark.services
def test_a_server_that_is_slow_delays_calls_but_not_for_long_and_loses_none(open_ledger, postgres):
    ledger = open_ledger(postgres)
    ledger.open()
    ids = make_calls(ledger, 2)
    with psycopg.connect(postgres, autocommit=True) as other:
        for seconds, state in ((0.1, "ok"), (30, "degraded")):
            other.execute(
                "CREATE OR REPLACE FUNCTION slow() RETURNS trigger AS $$ BEGIN "
                f"PERFORM pg_sleep({seconds}); RETURN NULL; END $$ LANGUAGE plpgsql"
            )
            if seconds < 1:
                other.execute("CREATE TRIGGER slow AFTER INSERT ON calls FOR EACH STATEMENT EXECUTE FUNCTION slow()")
            ids += longest(3, lambda: make_calls(ledger, 5))
            assert ledger.health().state == state
        other.execute("DROP TRIGGER slow ON calls")
    until(lambda: ledger.health().state == "ok")
    assert states(ledger) == dict.fromkeys(ids, "ok")


@pytest.mark.services
def test_a_server_that_is_away_from_the_start_gets_its_rows_when_it_comes(open_ledger, private_postgres):
    private_postgres.stop()
    ledger = open_ledger(private_postgres.url)
    ids = make_calls(ledger, 20)
    assert ledger.health().state == "degraded" and ledger.health().spooled == 40
    private_postgres.start()
    until(lambda: ledger.health().state == "ok")
    assert states(ledger) == dict.fromkeys(ids, "ok")


@pytest.mark.services
def test_rows_that_a_process_could_not_bring_home_are_brought_by_the_next(open_ledger, private_postgres):
    private_postgres.stop()
    first = open_ledger(private_postgres.url)
    ids = make_calls(first, 20)
    start = begin(first)
    first.close()
    private_postgres.start()
    second = open_ledger(private_postgres.url)
    second.open()
    until(lambda: len(states(second)) == 21)
    until(lambda: states(second) == {**dict.fromkeys(ids, "ok"), start.id: "interrupted"})
    until(lambda: list(second._folder.glob("*.jsonl")) == [])


# ---- deleted, corrupt, wrong ------------------------------------------------------------------


def test_after_the_file_was_deleted_calls_go_into_a_new_one_and_those_in_flight_too(open_ledger, file):
    ledger = open_ledger(file)
    gone = make_calls(ledger, 3)
    start = begin(ledger)
    file.unlink()
    after = make_calls(ledger, 3)
    finish(ledger, start)
    found = states(ledger)
    assert found == dict.fromkeys([*after, start.id], "ok") and not set(gone) & set(found)


@pytest.mark.parametrize(
    "data", [b"no database at all\n" * 500, os.urandom(20_000), b"SQLite format 3\0" + b"x" * 9000]
)
def test_a_corrupt_file_is_put_aside_and_calls_go_on_in_a_new_one(open_ledger, file, data, caplog):
    file.write_bytes(data)
    ledger = open_ledger(file)
    ids = make_calls(ledger, 5)
    assert states(ledger) == dict.fromkeys(ids, "ok") and ledger.health().state == "ok"
    (aside,) = [path for path in file.parent.glob("ledger.db.corrupt-*") if path.suffix not in ("-wal", "-shm")]
    assert aside.read_bytes()[:16] == data[:16]
    assert len([record for record in caplog.records if "was corrupt" in record.message]) == 1


def test_a_newer_schema_is_refused_at_the_start_with_one_line(open_ledger, place):
    ledger = open_ledger(place)
    ledger.open()
    ledger.database.write_sync(_Newer())
    ledger.close()
    later = open_ledger(place)
    with pytest.raises(SchemaError) as caught:
        later.open()
    assert isinstance(caught.value, ConfigError) and "\n" not in caught.value.message and caught.value.hint


class _Newer:
    can_fail = in_order = False

    def apply(self, connection):
        run(connection, "INSERT INTO polyvox_schema VALUES (99, 'from the future', 'x', 1)")

    def committed(self, result):
        """Nothing to do."""


def test_a_table_dropped_in_use_means_away_and_not_lost(open_ledger, place):
    ledger = open_ledger(place)
    make_calls(ledger, 1)
    ledger.database.write_sync(_Drop())
    make_calls(ledger, 5)
    health = ledger.health()
    assert health.state == "degraded" and health.spooled >= 5 and health.lost == 0


class _Drop(_Newer):
    def apply(self, connection):
        run(connection, "DROP TABLE attempts")


# ---- database and disk away -------------------------------------------------------------------


def test_with_database_and_disk_away_rows_stay_in_memory_to_a_bound_then_are_counted(open_ledger, file, tmp_path):
    ledger = open_ledger(file, spool=tmp_path / "spool", memory_rows=10)
    ledger.open()
    spool = tmp_path / "spool" / f"{ledger.instance.number:016x}.jsonl"
    spool.symlink_to("/dev/full")
    lock = locked(file)
    kept = make_calls(ledger, 9)
    health = ledger.health()
    assert (health.state, health.in_memory, health.spooled, health.lost) == ("degraded", 9, 0, 0)
    assert "No space" in health.why and ledger.may_admit(hard_budget=True)
    kept += make_calls(ledger, 1)
    assert ledger.health().state == "losing" and ledger.health().lost == 0
    assert not ledger.may_admit(hard_budget=True) and ledger.may_admit(hard_budget=False)
    make_calls(ledger, 3)
    assert ledger.health().lost == 6  # a start and an end each
    lock.close()
    until(lambda: ledger.health().in_memory == 0)
    assert states(ledger) == dict.fromkeys(kept, "ok")
    assert ledger.health().state == "ok" and ledger.health().lost == 6 and ledger.may_admit(hard_budget=True)


def test_rows_in_memory_go_into_the_file_as_soon_as_there_is_room(open_ledger, file, tmp_path):
    now = [0.0]
    ledger = open_ledger(file, spool=tmp_path / "spool", clock=lambda: now[0])
    ledger.open()
    spool = tmp_path / "spool" / f"{ledger.instance.number:016x}.jsonl"
    spool.symlink_to("/dev/full")
    lock = locked(file)
    ids = make_calls(ledger, 5)
    assert ledger.health().in_memory == 5
    spool.unlink()
    now[0] += 1
    ids += make_calls(ledger, 1)
    assert ledger.health().in_memory == 0 and spool.stat().st_size > 0
    lock.close()
    until(lambda: ledger.health().state == "ok")
    assert states(ledger) == dict.fromkeys(ids, "ok")


def test_the_file_for_the_meantime_has_a_bound(open_ledger, file):
    ledger = open_ledger(file, spool_bytes=20_000)
    ledger.open()
    lock = locked(file)
    ids = make_calls(ledger, 100)
    health = ledger.health()
    assert health.in_memory > 0 and "bound" in health.why and health.lost == 0
    (spool,) = file.with_name("ledger.db.spool").glob("*.jsonl")
    assert 10_000 < spool.stat().st_size <= 20_000
    lock.close()
    until(lambda: ledger.health().state == "ok")
    assert states(ledger) == dict.fromkeys(ids, "ok")


def test_without_any_file_rows_wait_in_memory(open_ledger, file):
    ledger = open_ledger(file, spool=False)
    ledger.open()
    lock = locked(file)
    ids = make_calls(ledger, 5)
    assert ledger.health().in_memory == 5
    lock.close()
    until(lambda: ledger.health().state == "ok")
    assert states(ledger) == dict.fromkeys(ids, "ok")


def test_a_disk_that_is_full_for_all_files_costs_no_answer_and_no_row(tmp_path):
    """In a process of its own, none of whose files can grow."""
    code = """
    import resource, signal, sys
    from polyvox.ledger import Ledger
    from tests.ledger.calls import make_calls, states, until
    ledger = Ledger(sys.argv[1])
    ids = make_calls(ledger, 10)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    for _ in range(20):
        ids += make_calls(ledger, 20)
    health = ledger.health()
    assert health.state == "degraded" and health.in_memory > 0 and health.lost == 0, health
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    until(lambda: ledger.health().state == "ok")
    assert states(ledger) == dict.fromkeys(ids, "ok")
    ledger.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "ledger.db")], capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_database_that_fails_at_every_kth_write_still_gets_every_row_once(open_ledger, file):
    """Every k-th transaction fails as a disk does; nothing is lost or doubled whichever it is."""
    for every in (2, 3, 5):
        place = file.with_name(f"every-{every}.db")
        ledger = open_ledger(place)
        ledger.open()
        writer, tries = ledger.database.writer, 0
        transact = writer._transact

        def fail(link, batch, *, careful, transact=transact, every=every):
            nonlocal tries
            tries += 1
            if tries % every == 0:
                raise OSError(5, "Input/output error")
            return transact(link, batch, careful=careful)

        writer._transact = fail
        ids = [id for _ in range(6) for id in make_calls(ledger, 3)]
        until(lambda ledger=ledger: ledger.health().state == "ok")
        assert states(ledger) == dict.fromkeys(ids, "ok") and ledger.health().lost == 0


def test_a_row_the_database_refuses_is_counted_as_lost_and_costs_no_other(open_ledger, file):
    ledger = open_ledger(file)
    ledger.open()
    ledger.database.write_sync(_Forbid())
    ids = make_calls(ledger, 20)
    evil = make_calls(ledger, 1, model="forbidden")
    ids += make_calls(ledger, 20)
    health = ledger.health()
    assert health.lost == 2 and health.state == "ok" and "never" in health.why
    assert states(ledger) == dict.fromkeys(ids, "ok") and not set(evil) & set(ids)


@pytest.mark.parametrize("spool", [None, False], ids=["in the file", "in memory"])
def test_a_row_the_database_refuses_keeps_no_other_from_coming_home(open_ledger, file, spool, monkeypatch):
    monkeypatch.setattr("polyvox.ledger.keeping.PAGE", 7)
    ledger = open_ledger(file, spool=spool)
    ledger.open()
    ledger.database.write_sync(_Forbid())
    lock = locked(file)
    ids = make_calls(ledger, 20)
    make_calls(ledger, 1, model="forbidden")
    ids += make_calls(ledger, 20)
    lock.close()
    until(lambda: ledger.health().state == "ok")
    assert states(ledger) == dict.fromkeys(ids, "ok") and ledger.health().lost in (1, 2)


class _Forbid(_Newer):
    def apply(self, connection):
        run(
            connection,
            "CREATE TRIGGER forbid BEFORE INSERT ON calls WHEN new.model = 'forbidden' "
            "BEGIN SELECT raise(ABORT, 'never'); END",
        )


def test_many_processes_write_into_one_file_and_none_is_pushed_away(open_ledger, place):
    code = (
        "import sys; from polyvox.ledger import Ledger; from tests.ledger.calls import *\n"
        "ledger = Ledger(sys.argv[1])\n"
        "for _ in range(10): make_calls(ledger, 30)\n"
        "health = ledger.health(); assert (health.lost, health.in_memory) == (0, 0), health\n"
        "ledger.close()"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, place], stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    ledger = open_ledger(place)
    ledger.open()
    until(lambda: list(states(ledger).values()) == ["ok"] * 1200)


def test_an_answer_is_not_taken_back_because_the_ledger_was_closed_meanwhile(open_ledger, file):
    ledger = open_ledger(file)
    start = begin(ledger)
    ledger.close()
    finish(ledger, start)
    assert ledger.health().lost == 1
    with pytest.raises(UsageError, match="closed"):
        begin(ledger)


def test_a_start_and_an_end_in_memory_are_one_row_with_both_texts(open_ledger, file):
    ledger = open_ledger(file, spool=False, privacy="full", hash_key=b"k")
    ledger.open()
    lock = locked(file)
    start = begin(ledger, prompt="asked")
    finish(ledger, start, answer="answered")
    lock.close()
    until(lambda: ledger.health().state == "ok")
    found = ledger.history.get(start.id)
    assert (found.state, found.prompt, found.answer) == ("ok", '"asked"', '"answered"')


def test_health_is_well_where_nothing_is_wrong(open_ledger, place):
    ledger = open_ledger(place)
    ledger.open()
    make_calls(ledger, 3)
    health = ledger.health()
    assert (health.state, health.lost, health.in_memory, health.spooled, health.why) == ("ok", 0, 0, 0, None)


def test_a_wall_clock_that_jumps_changes_no_length_and_loses_no_row(open_ledger, place):
    now = [1_700_000_000.0]
    ledger = open_ledger(place, wall=lambda: now[0])
    starts = []
    for jump in (86_400, -86_400 * 2, 3600, 0):
        now[0] += jump
        starts.append(starting(ledger))
        asyncio.run(ledger.begin(starts[-1]))
    for start in starts:
        now[0] -= 100
        asyncio.run(ledger.finish(ended(start)))
    assert states(ledger) == {start.id: "ok" for start in starts}
    assert {record.duration for record in ledger.history.export()} == {1_500_000}


def test_closing_while_the_database_is_away_keeps_the_file_for_the_next(open_ledger, file):
    ledger = open_ledger(file)
    ledger.open()
    lock = locked(file)
    ids = make_calls(ledger, 5)
    ledger.close()
    lock.close()
    with Ledger(file) as later:
        until(lambda: states(later) == dict.fromkeys(ids, "ok"))
        until(lambda: list(file.with_name("ledger.db.spool").glob("*.jsonl")) == [])
