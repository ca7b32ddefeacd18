"""Answers are kept in a file of ours or in a new one: a file that never was ours is refused and left as it is."""

import asyncio
import contextlib
import os
import sqlite3

import pytest

from polyvox.errors import ConfigError, InputError
from polyvox.stores.sqlite import SQLiteStore

NOTES = b"Dear diary,\nit rained.\n"


@pytest.mark.parametrize("data", [b"!", NOTES, os.urandom(20_000), b"\0" * 100])
@pytest.mark.parametrize("name", ["notes.txt", "notes", "cache.db.bak"])
def test_a_file_that_is_no_database_is_refused_at_once_and_left_as_it_is(tmp_path, name, data):
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(InputError) as caught:
        SQLiteStore(file)
    assert name in caught.value.message and caught.value.hint and isinstance(caught.value, ConfigError)
    assert file.read_bytes() == data and list(tmp_path.iterdir()) == [file]


def used(store):
    """Whether it kept something, and what it says of itself."""

    async def use():
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(store.close)
            kept = await store.put("a", "k", b"1") and await store.get("a", "k") == b"1"
            return kept, (await store.stats()).state

    return asyncio.run(use())


@pytest.mark.parametrize("name", ["addresses", "addresses.db"])
@pytest.mark.parametrize("mark", [0, 0x47504B47])
def test_the_damaged_database_of_another_program_is_left_as_it_is_and_nothing_is_kept(tmp_path, name, mark):
    file = tmp_path / name
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE addresses (name TEXT)")
        connection.execute(f"PRAGMA application_id={mark}")
        connection.executemany("INSERT INTO addresses VALUES (?)", [("x" * 2000,)] * 20)
        connection.commit()
    damaged = file.read_bytes()[:100] + os.urandom(8000)
    file.write_bytes(damaged)
    kept, state = used(SQLiteStore(file))
    assert not kept and state != "ok"
    assert file.read_bytes() == damaged and list(tmp_path.iterdir()) == [file]


def test_a_file_that_became_something_else_while_in_use_is_left_as_it_is(tmp_path):
    file = tmp_path / "answers"
    store = SQLiteStore(file)
    file.write_bytes(NOTES)
    kept, state = used(store)
    assert not kept and state != "ok"
    assert file.read_bytes() == NOTES and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", ["answers", "answers.db"])
def test_a_damaged_file_of_answers_is_put_aside_by_its_mark_whatever_its_name(tmp_path, name):
    file = tmp_path / name
    assert used(SQLiteStore(file)) == (True, "ok")
    data = file.read_bytes()
    file.write_bytes(data[:100] + os.urandom(len(data) - 100))
    assert used(SQLiteStore(file)) == (True, "ok")
    assert len(list(tmp_path.glob(f"{name}.corrupt-*[0-9Z]"))) == 1
