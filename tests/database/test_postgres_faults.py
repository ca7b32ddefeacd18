"""A PostgreSQL server that goes away, stands still, is full, turns read-only or deadlocks costs no row."""

import threading
import time

import psycopg
import pytest

from polyvox.database import Database, DatabaseAwayError, Unit, run
from polyvox.database.faults import meaning
from polyvox.errors import MissingExtraError
from tests.database.things import STEPS, Many, Put, things, until
from tests.services import free_port

pytestmark = pytest.mark.services


def test_a_server_that_crashed_is_found_again_once_it_is_back(open_database, private_postgres):
    database, many, back = open_database(private_postgres.url), Many(), []
    database.on_back(lambda: back.append(True))
    database.write_sync(Put("before"))
    private_postgres.stop()
    started = time.monotonic()
    with pytest.raises(DatabaseAwayError):
        database.write_sync(Put("meanwhile"))
    assert time.monotonic() - started < 1.5
    assert database.health().state == "away" and database.health().why
    database.put(many, ("kept", 1), None)
    until(lambda: many.kept == [("kept", 1)])
    assert back == []
    private_postgres.start()
    until(lambda: database.health().state == "ok")
    assert database.write_sync(Put("after")) == "after"
    until(lambda: back == [True])
    assert sorted(things(database)) == ["after", "before"]


def test_a_server_that_is_away_from_the_start_is_waited_for(open_database, private_postgres):
    private_postgres.stop()
    database = open_database(private_postgres.url)
    database.open()
    assert database.health().state == "away"
    with pytest.raises(DatabaseAwayError):
        database.write_sync(Put("early"))
    private_postgres.start()
    until(lambda: database.health().state == "ok")
    assert database.write_sync(Put("after")) == "after"


def test_a_server_that_stands_still_holds_nobody_up_for_more_than_a_second(open_database, private_postgres):
    database = open_database(private_postgres.url)
    database.write_sync(Put("before"))
    private_postgres.pause()
    started = time.monotonic()
    with pytest.raises(DatabaseAwayError):
        database.write_sync(Put("meanwhile"))
    assert time.monotonic() - started < 2
    started = time.monotonic()
    with pytest.raises(DatabaseAwayError):
        database.write_sync(Put("meanwhile"))
    assert time.monotonic() - started < 0.5
    private_postgres.go_on()
    until(lambda: database.health().state == "ok")
    assert database.write_sync(Put("after")) == "after"


def test_a_server_that_only_reads_is_away(open_database, private_postgres):
    database = open_database(private_postgres.url)
    database.write_sync(Put("before"))
    with psycopg.connect(private_postgres.url, autocommit=True) as other:
        other.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        other.execute("SELECT pg_reload_conf()")
        until(lambda: other.execute("SHOW default_transaction_read_only").fetchone() == ("on",))
        with pytest.raises(DatabaseAwayError, match="read-only"):
            for number in range(100):
                database.write_sync(Put(f"n{number}"))
                time.sleep(0.02)
        other.execute("SET default_transaction_read_only = off")
        other.execute("ALTER SYSTEM RESET default_transaction_read_only")
        other.execute("SELECT pg_reload_conf()")

    def works():
        try:
            return database.write_sync(Put(f"after {time.monotonic()}"))
        except DatabaseAwayError:
            return False

    until(works)


def test_a_server_without_a_connection_to_spare_is_away_until_it_has_one(open_database, private_postgres):
    with psycopg.connect(private_postgres.url, autocommit=True) as other:
        other.execute("CREATE ROLE small LOGIN CONNECTION LIMIT 1")
        other.execute("GRANT CREATE ON SCHEMA public TO small")
    url = private_postgres.url.replace("tester@", "small@")
    taken = psycopg.connect(url)
    database = open_database(url)
    database.open()
    assert database.health().state == "away" and "connections" in database.health().why
    taken.close()
    # Migrating takes a second connection for a moment.
    with psycopg.connect(private_postgres.url, autocommit=True) as other:
        other.execute("ALTER ROLE small CONNECTION LIMIT 5")
    until(lambda: database.health().state == "ok")
    assert database.write_sync(Put("a")) == "a"


def test_a_connection_that_an_operator_cut_is_made_anew(open_database, postgres):
    database = open_database(postgres)
    database.write_sync(Put("before"))
    with psycopg.connect(postgres, autocommit=True) as other:

        class Who(Unit):
            def apply(self, connection):
                return run(connection, "SELECT pg_backend_pid()").scalar()

        other.execute("SELECT pg_terminate_backend(%s)", (database.write_sync(Who()),))

    def works():
        try:
            return database.write_sync(Put("after"))
        except DatabaseAwayError:
            return False

    until(works)
    assert sorted(things(database)) == ["after", "before"]


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_conflict_is_tried_again_and_everything_in_the_transaction_with_it(open_database, postgres, state):
    database = open_database(postgres, window=0.1)
    database.write_sync(Put("before"))

    class Conflict(Unit):
        times = 0

        def apply(self, connection):
            self.times += 1
            if self.times < 3:
                run(connection, f"DO $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = '{state}'; END $$")
            return self.times

    database.post(Put("a"))
    database.post(Put("b"))
    assert database.write_sync(Conflict()) == 3
    assert sorted(things(database)) == ["a", "b", "before"]
    assert database.health().retries == 2 and database.health().state == "ok"


def test_a_real_deadlock_between_two_processes_is_tried_again(open_database, postgres):
    database = open_database(postgres, patience=5)
    database.write_sync(Put("a"))
    database.write_sync(Put("b"))
    met = threading.Barrier(2)

    class Both(Unit):
        first = True

        def apply(self, connection):
            run(connection, "UPDATE things SET amount = amount + 1 WHERE name = 'a'")
            if self.first:
                self.first = False
                met.wait(10)
            run(connection, "UPDATE things SET amount = amount + 1 WHERE name = 'b'")

    with psycopg.connect(postgres) as other:
        other.execute("SET deadlock_timeout = '2s'")
        other.execute("UPDATE things SET amount = amount + 10 WHERE name = 'b'")
        thread = threading.Thread(target=lambda: database.write_sync(Both()))
        thread.start()
        met.wait(10)
        other.execute("UPDATE things SET amount = amount + 10 WHERE name = 'a'")
        other.commit()
        thread.join(20)
    assert things(database) == {"a": 12, "b": 12}


@pytest.mark.parametrize("state", ["23505", "22003", "42601"])
def test_what_is_the_writers_own_fault_is_not_tried_again(state):
    error = psycopg.errors.lookup(state)("x")
    assert meaning(error) == "wrong"


@pytest.mark.parametrize("state", ["08006", "53100", "53300", "57P01", "57014", "25006", "58030", "42P01"])
def test_what_is_the_servers_trouble_means_it_is_away(state):
    assert meaning(psycopg.errors.lookup(state)("x")) == "away"


def test_where_nobody_listens_it_is_away_and_no_password_is_told(open_database):
    database = open_database(f"postgresql://ann:her-long-password@127.0.0.1:{free_port()}/books")
    database.open()
    health = database.health()
    assert health.state == "away" and "her-long-password" not in f"{health} {database!r}"
    with pytest.raises(DatabaseAwayError) as caught:
        database.write_sync(Put("a"))
    assert "her-long-password" not in str(caught.value) and caught.value.retryable


def test_without_a_driver_the_error_says_how_to_get_one(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "psycopg", None)
    database = Database("postgresql://ann@127.0.0.1/books", steps=STEPS)
    try:
        with pytest.raises(MissingExtraError) as caught:
            database.open()
        assert "polyvox[postgres]" in caught.value.hint
    finally:
        database.close()
