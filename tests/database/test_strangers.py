"""A file that never was a database of ours is left as it is, whatever it is named by; one that was ours and is damaged
makes room for another."""

import contextlib
import os
import sqlite3

import pytest

from polyvox.database.files import MARK
from polyvox.errors import ConfigError, InputError
from polyvox.ledger import Ledger
from tests.database.things import Put, things

NOTES = b"Dear diary,\nit rained.\n"


def snapshot(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mode) for path in folder.iterdir()}


def of_another_program(path, mark=0):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE addresses (name TEXT)")
        connection.execute(f"PRAGMA application_id={mark}")
        connection.executemany("INSERT INTO addresses VALUES (?)", [("x" * 2000,)] * 20)
        connection.commit()


def scrambled(path, begin=100):
    data = path.read_bytes()
    path.write_bytes(data[:begin] + os.urandom(len(data) - begin))


@pytest.mark.parametrize("data", [b"!", NOTES, NOTES * 1000, os.urandom(20_000), b"SQLite format 3\0", b"\0" * 100])
@pytest.mark.parametrize("name", ["notes.txt", "notes", "photo.jpg", "ledger.db.bak"])
def test_a_file_that_is_no_database_is_refused_at_open_and_left_as_it_is(open_database, tmp_path, name, data):
    file = tmp_path / name
    file.write_bytes(data)
    before = snapshot(tmp_path)
    for _ in range(2):
        database = open_database(file)
        with pytest.raises(InputError) as caught:
            database.open()
        assert name in caught.value.message and caught.value.hint and isinstance(caught.value, ConfigError)
        database.close()
    assert snapshot(tmp_path) == before


def test_a_ledger_named_by_a_file_of_notes_says_so_and_touches_nothing(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_bytes(NOTES)
    with pytest.raises(InputError), Ledger(file):
        pass
    assert file.read_bytes() == NOTES and [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["addresses", "addresses.db", "addresses.sqlite"])
@pytest.mark.parametrize("mark", [0, 0x50565843, 0x47504B47])
def test_the_damaged_database_of_another_program_is_refused_and_left_as_it_is(open_database, tmp_path, name, mark):
    file = tmp_path / name
    of_another_program(file, mark)
    scrambled(file)
    before = snapshot(tmp_path)
    with pytest.raises(InputError):
        open_database(file).open()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["ledger", "ledger.txt", "ledger.db"])
def test_a_damaged_database_of_ours_is_put_aside_by_its_mark_whatever_its_name(open_database, tmp_path, name):
    file = tmp_path / name
    database = open_database(file)
    database.post(Put("before"))
    database.close()
    assert int.from_bytes(file.read_bytes()[68:72], "big") == MARK
    scrambled(file)
    database = open_database(file)
    database.write_sync(Put("after"))
    assert things(database) == {"after": 1}
    assert len(list(tmp_path.glob(f"{name}.corrupt-*[0-9Z]"))) == 1


def test_a_file_without_a_head_is_put_aside_where_the_log_of_a_database_is_beside_it(open_database, tmp_path):
    file, log = tmp_path / "ledger", tmp_path / "ledger-wal"
    file.write_bytes(os.urandom(9000))
    log.write_bytes(b"")
    database = open_database(file)
    database.write_sync(Put("after"))
    assert things(database) == {"after": 1}
    assert len(list(tmp_path.glob("ledger.corrupt-*[0-9Z]"))) == 1


def test_a_database_in_use_is_put_aside_though_nothing_of_it_is_left(open_database, tmp_path):
    file = tmp_path / "ledger"
    database = open_database(file)
    for number in range(300):
        database.post(Put(f"before {number}" * 20))
    database.write_sync(Put("last"))
    with contextlib.closing(sqlite3.connect(file)) as checkpoint:
        checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with file.open("r+b") as handle:
        handle.write(os.urandom(file.stat().st_size))
    for number in range(3):
        database.write_sync(Put(f"after {number}"))
    assert sorted(things(database)) == ["after 0", "after 1", "after 2"]
    assert len(list(tmp_path.glob("ledger.corrupt-*[0-9Z]"))) == 1


def test_calls_go_on_beside_a_ledger_whose_file_became_something_else(open_database, tmp_path):
    """Replaced while in use, by what is no database: nothing is renamed, and the database is away."""
    file = tmp_path / "ledger"
    database = open_database(file)
    database.write_sync(Put("before"))
    database.close()
    for path in list(tmp_path.iterdir()):
        path.unlink()
    file.write_bytes(NOTES)
    database = open_database(file)
    database.post(Put("after"))
    database.close()
    assert database.health().state == "away"
    assert file.read_bytes() == NOTES and [path.name for path in tmp_path.iterdir()] == ["ledger"]
