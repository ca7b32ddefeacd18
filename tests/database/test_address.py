"""A database is named by a path or a URL, and what names it never shows a password."""

import os
from pathlib import Path

import pytest

from polyvox.database import Database
from polyvox.database.address import address_of
from polyvox.errors import ConfigError
from polyvox.keys import redact


def test_a_path_and_a_url_of_sqlite_name_the_same_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "a b.db"
    names = [here, str(here), "a b.db", "sqlite:///a b.db", f"sqlite:////{str(here)[1:]}", "sqlite:///a%20b.db"]
    assert {address_of(name).path for name in names} == {here}
    assert {address_of(name).kind for name in names} == {"sqlite"}


def test_a_home_is_found():
    assert address_of("~/x.db").path == Path(os.path.expanduser("~/x.db"))


def test_a_password_is_in_nothing_that_can_be_printed():
    database = Database("postgresql://ann:pa%24%24word-of-hers@db.example:6543/books?sslmode=require")
    address = database.address
    for text in (repr(database), str(address), repr(address), f"{address}"):
        assert "word-of-hers" not in text
    assert str(address) == "postgresql://ann@db.example:6543/books"
    assert redact("it said pa$$word-of-hers") == "it said ***"
    assert address.url.reveal() == "postgresql+psycopg://ann:pa%24%24word-of-hers@db.example:6543/books?sslmode=require"


def test_databases_are_told_apart_by_all_but_the_password():
    one, other = address_of("postgresql://a:x1@h/d"), address_of("postgres://a:y2@h/d")
    assert one.digest == other.digest
    assert one.digest != address_of("postgresql://a:x1@h/e").digest
    assert one.digest != address_of("postgresql://a@h/d?options=-csearch_path%3Dother").digest


@pytest.mark.parametrize(
    "name", ["", "  ", ":memory:", "sqlite://", "sqlite:///", "sqlite:///:memory:", "mysql://h/d", "postgresql://h:no/d",
             "a\0b.db", "http://x"],
)  # fmt: skip
def test_what_names_no_database_is_refused_with_a_hint(name):
    with pytest.raises(ConfigError) as caught:
        Database(name)
    assert caught.value.hint


def test_a_folder_is_no_database(tmp_path):
    database = Database(tmp_path)
    try:
        with pytest.raises(ConfigError, match="is a folder"):
            database.open()
    finally:
        database.close()
