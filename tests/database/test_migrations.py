"""A database is brought to the schema of this version step by step; what is not understood is refused in one line."""

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from polyvox.database import STEPS as OURS
from polyvox.database import Database, DatabaseError, SchemaError, Step, run
from polyvox.database.migrations import VERSIONS
from polyvox.errors import ConfigError
from tests.database.things import STEPS, THINGS, Put, things

FIRST = Step(1, "first", ("one",), ("CREATE TABLE one (name TEXT NOT NULL PRIMARY KEY, at {bytes}){by_key}",))
SECOND = Step(2, "second", ("two",), ("CREATE TABLE two (x BIGINT)", "INSERT INTO two VALUES (5)"))


def versions(database):
    return database.read_sync(
        lambda connection: [tuple(row) for row in run(connection, f"SELECT number, name FROM {VERSIONS} ORDER BY 1")]
    )


def execute(place, *statements):
    """Meddle with a database from outside."""
    if place.startswith("postgresql"):
        import psycopg

        with psycopg.connect(place, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)
        return
    connection = sqlite3.connect(place)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def refusal(open_database, place, steps):
    database = open_database(place, steps=steps)
    with pytest.raises(SchemaError) as caught:
        database.open()
    error = caught.value
    assert isinstance(error, ConfigError) and error.hint and "\n" not in error.message
    return error.message


def test_a_new_database_takes_every_step_in_order(open_database, place):
    database = open_database(place, steps=(FIRST, SECOND))
    database.open()
    assert versions(database) == [(1, "first"), (2, "second")]
    assert database.read_sync(lambda connection: run(connection, "SELECT x FROM two").scalar()) == 5


def test_each_version_goes_forward_to_the_next_and_keeps_what_is_there(open_database, place):
    for number in range(1, len(STEPS) + 1):
        database = open_database(place, steps=STEPS[:number])
        database.open()
        assert len(versions(database)) == number
        database.close()
    database = open_database(place)
    database.write_sync(Put("kept"))
    database.close()
    again = open_database(place)
    again.open()
    assert things(again) == {"kept": 1}


def test_a_newer_schema_is_refused_with_one_clear_line(open_database, place):
    database = open_database(place, steps=(FIRST, SECOND))
    database.open()
    database.close()
    assert "schema 2" in refusal(open_database, place, (FIRST,)) and "up to 1" in refusal(
        open_database, place, (FIRST,)
    )


def test_a_schema_that_lost_a_table_is_refused_as_half_made(open_database, place):
    database = open_database(place, steps=(FIRST, SECOND))
    database.open()
    database.close()
    execute(place, "DROP TABLE two")
    assert "half made: two missing" in refusal(open_database, place, (FIRST, SECOND))


def test_tables_without_a_record_of_their_steps_are_refused_as_half_made(open_database, place):
    execute(place, "CREATE TABLE one (name TEXT)")
    assert "half made: one without" in refusal(open_database, place, (FIRST, SECOND))


def test_a_table_that_is_there_before_its_step_is_refused_as_half_made(open_database, place):
    database = open_database(place, steps=(FIRST,))
    database.open()
    database.close()
    execute(place, "CREATE TABLE two (x TEXT)")
    assert "two there before" in refusal(open_database, place, (FIRST, SECOND))


def test_a_step_that_was_changed_after_it_was_taken_is_refused(open_database, place):
    database = open_database(place, steps=(FIRST,))
    database.open()
    database.close()
    changed = replace(FIRST, statements=("CREATE TABLE one (name TEXT)",))
    assert "step 1" in refusal(open_database, place, (changed,))


def test_a_step_that_fails_leaves_nothing_of_itself(open_database, place):
    broken = Step(2, "broken", ("two", "three"), ("CREATE TABLE two (x BIGINT)", "CREATE TABLE three (x NO SUCH, "))
    database = open_database(place, steps=(FIRST, broken))
    with pytest.raises(DatabaseError):
        database.open()
    database.close()
    mended = open_database(place, steps=(FIRST, SECOND))
    mended.open()
    assert versions(mended) == [(1, "first"), (2, "second")]


def test_a_file_of_another_program_is_refused_and_left_alone(open_database, tmp_path):
    file = tmp_path / "other.db"
    execute(str(file), "CREATE TABLE songs (name TEXT)")
    before = file.read_bytes()
    assert "another program" in refusal(open_database, str(file), STEPS)
    assert file.read_bytes()[24:] == before[24:] or file.read_bytes() == before
    assert list(tmp_path.glob("*.corrupt-*")) == []


def test_threads_that_open_at_once_take_each_step_once(open_database, place):
    databases = [open_database(place, steps=(FIRST, SECOND)) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda database: database.open(), databases))
    assert versions(databases[0]) == [(1, "first"), (2, "second")]
    assert databases[1].read_sync(lambda connection: run(connection, "SELECT count(*) FROM two").scalar()) == 1


def test_processes_that_open_at_once_take_each_step_once(place):
    code = "import sys; from polyvox.database import Database; Database(sys.argv[1]).open()"
    processes = [subprocess.Popen([sys.executable, "-c", code, place], stderr=subprocess.PIPE) for _ in range(4)]
    for process in processes:
        assert process.communicate(timeout=60)[1] == b"" and process.returncode == 0
    with Database(place) as database:
        assert versions(database) == [(step.number, step.name) for step in OURS]


def test_a_refused_database_leaves_no_thread_behind(place):
    with Database(place, steps=(FIRST, SECOND)):
        pass
    before = threading.active_count()
    with pytest.raises(SchemaError), Database(place, steps=(FIRST,)):
        raise AssertionError("it was opened")
    assert threading.active_count() == before


def test_steps_are_numbered_from_one_without_gaps_and_never_change():
    assert [step.number for step in STEPS] == list(range(1, len(STEPS) + 1))
    assert THINGS.number == len(OURS) + 1
    # A database out there has this in it: a step that was released cannot be edited, only followed by another.
    assert OURS[0].checksum == FROZEN


FROZEN = "08d6f6e80cf501bda4697ff0c33e17e1"
