"""Rows of a database act on the next call, whoever changed them; a database that is away changes nothing."""

import asyncio
import logging
import os
import sqlite3
import subprocess
import sys
import time

import pytest

from polyvox.database import Database, DatabaseAwayError, SchemaError
from polyvox.errors import ConfigError, InputError
from polyvox.keys import Secret
from polyvox.registry import Entry, TableRegistry

KEY = "canary-3v8n1m5k9j2h"


def names(registry):
    return [entry.name for entry in registry.list_active()]


def execute(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "rows.db"


@pytest.fixture
def table(open_table, place):
    registry = open_table(place)
    registry.save_sync(Entry("a", "demo", tier="standard"))
    return registry


def test_any_program_may_change_a_row_and_the_next_call_goes_by_it(table, place):
    version = table.version
    execute(place, "UPDATE deployments SET model = 'demo/other', tier = 'Premium', concurrency = 3")
    assert table.version is not version
    entry = table.get_by_tier("premium")
    assert (entry.model, entry.limits.concurrency, entry.origin) == ("demo/other", 3, "row")
    execute(place, "INSERT INTO deployments (name, model, priority) VALUES ('b', 'demo', 2), ('c', 'demo', 1)")
    assert names(table) == ["a", "c", "b"]
    execute(place, "DELETE FROM deployments WHERE name = 'a'")
    assert names(table) == ["c", "b"]
    execute(place, "UPDATE deployments SET active = 0 WHERE name = 'c'")
    assert names(table) == ["b"]


def test_another_process_changes_a_row(table, place):
    code = (
        "import sys; from polyvox.registry import Entry, TableRegistry\n"
        "with TableRegistry(sys.argv[1]) as table: table.save_sync(Entry('a', 'demo/theirs'))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert table.get_by_name("a").model == "demo/theirs"


def test_what_else_is_written_to_the_database_makes_nothing_anew(table, place):
    version = table.version
    execute(place, "CREATE TABLE IF NOT EXISTS other (x)", "INSERT INTO other VALUES (1)")
    assert table.version is version
    table.save_sync(Entry("a", "demo", tier="standard"))
    assert table.version is version


def test_a_row_is_saved_replaced_listed_and_removed(table):
    async def main():
        await table.save(Entry("b", "demo", aliases=("x",), active=False))
        await table.save(Entry("b", "demo", weight=2, active=False))
        listed = await table.list()
        assert [(entry.name, entry.weight, entry.aliases) for entry in listed] == [("a", 1, ()), ("b", 2, ())]
        assert listed == table.list_sync() == table.list_all()
        return await table.remove("b"), await table.remove("b")

    assert asyncio.run(main()) == (True, False)
    assert table.remove_sync("a") and not table.remove_sync("a")
    assert table.list_all() == ()


def test_a_key_is_never_written(table, place):
    with pytest.raises(InputError, match="not written to a database") as caught:
        table.save_sync(Entry("b", "openai/gpt-5.4", api_key=Secret(KEY)))
    assert "api_key_env" in caught.value.hint and KEY not in str(caught.value)
    columns = [row[1] for row in sqlite3.connect(place).execute("PRAGMA table_info(deployments)")]
    assert [column for column in columns if "key" in column] == ["api_key_env", "api_key_of"]


def test_what_cannot_work_is_not_saved(table):
    version = table.version
    for wrong in (Entry("b", "openai/gpt-5.4", tier="local"), Entry("b", "demo", aliases=("a",))):
        with pytest.raises(ConfigError):
            table.save_sync(wrong)
    with pytest.raises(InputError, match="a deployment is an Entry"):
        table.save_sync("b")
    assert table.version is version


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("model", "''", "row: deployments.a.model: must not be empty"),
        ("weight", "-1", "row: deployments.a.weight: must be a number above 0"),
        ("weight", "'much'", "row: deployments.a.weight: must be a number"),
        ("price", "'{'", "row: deployments.a:"),
        ("aliases", "'3'", "row: deployments.a.aliases: must be a list"),
        ("concurrency", "0", "row: deployments.a:"),
        ("api_key_env", f"'{KEY}'", "row: deployments.a.api_key_env: must be the name of an environment variable"),
        ("tier", "'local'", "row: deployments.a.tier: is local, but"),
    ],
)
def test_a_row_that_cannot_be_used_stays_as_it_was_and_others_change(table, place, column, value, what, caplog):
    table.save_sync(Entry("a", "openai/gpt-5.4", tier="standard"))
    before = table.get_by_name("a")
    with caplog.at_level(logging.WARNING, "polyvox.registry"):
        execute(
            place,
            f"UPDATE deployments SET {column} = {value} WHERE name = 'a'",
            "INSERT INTO deployments (name, model) VALUES ('b', 'demo')",
        )
        assert table.get_by_name("a") == before and table.get_by_name("b") is not None
        assert table.problem.startswith(what) and KEY not in table.problem
        table.version
    assert len(caplog.records) == 1 and KEY not in caplog.text
    execute(place, "DELETE FROM deployments WHERE name = 'a'")
    assert names(table) == ["b"] and table.problem is None


def test_empty_texts_are_what_nobody_gave(table, place):
    execute(place, "UPDATE deployments SET tier = '', base_url = '', api_key_env = '', aliases = '', price = ''")
    entry = table.get_by_name("a")
    assert table.problem is None
    assert (entry.tier, entry.base_url, entry.api_key_env, entry.aliases, entry.price) == (None, None, None, (), None)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_a_file_that_is_gone_leaves_what_was_read_and_comes_back(open_table, place, caplog):
    clock = Clock()
    writer = open_table(place)
    writer.save_sync(Entry("a", "demo"))
    table = open_table(place, clock=clock)
    assert names(table) == ["a"]
    away = place.with_name("away")
    place.rename(away)
    clock.now += 2
    with caplog.at_level(logging.WARNING, "polyvox.registry"):
        version = table.version
        assert [entry.name for entry in version.active] == ["a"]
        assert "cannot be read" in table.problem and str(place) in table.problem
        assert table.version is version
    assert len(caplog.records) == 1
    away.rename(place)
    clock.now += 2
    assert table.problem is None and table.version is version


def test_a_file_that_took_the_place_of_another_is_read(open_table, place, tmp_path):
    clock = Clock()
    table = open_table(place, clock=clock)
    table.save_sync(Entry("a", "demo"))
    assert names(table) == ["a"]
    table.database.close()
    with TableRegistry(tmp_path / "other.db") as other:
        other.save_sync(Entry("b", "demo"))
    for tail in ("-wal", "-shm"):
        place.with_name(place.name + tail).unlink(missing_ok=True)
    (tmp_path / "other.db").rename(place)
    clock.now += 2
    assert names(table) == ["b"] and table.problem is None


def test_a_database_of_another_program_is_refused_when_it_is_opened(tmp_path):
    path = tmp_path / "theirs.db"
    execute(path, "CREATE TABLE theirs (x)")
    with pytest.raises(SchemaError), TableRegistry(path):
        pass
    table = TableRegistry(path)
    assert table.list_active() == () and "another program" in table.problem
    table.close()


def test_the_database_of_somebody_else_stays_open(place):
    with Database(place) as database:
        table = TableRegistry(database)
        table.save_sync(Entry("a", "demo"))
        table.close()
        assert TableRegistry(database).list_sync()[0].name == "a"


def test_what_was_read_last_is_there_after_it_was_closed(table, place):
    version = table.version
    table.close()
    execute(place, "DELETE FROM deployments")
    assert table.version is version and asyncio.run(table.refresh()) is version


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_child_has_a_look_of_its_own(table, place):
    assert names(table) == ["a"]
    child = os.fork()
    if child == 0:
        execute(place, "INSERT INTO deployments (name, model) VALUES ('b', 'demo')")
        os._exit(0 if names(table) == ["a", "b"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert names(table) == ["a", "b"]


# ---- a server ---------------------------------------------------------------------------------


@pytest.mark.services
def test_any_program_may_change_a_row_of_a_server_and_a_refresh_sees_it(open_table, postgres):
    import psycopg

    table = open_table(postgres)
    assert table.asks
    table.save_sync(Entry("a", "demo", price={"input": "0.5"}, aliases=("x",)))
    with psycopg.connect(postgres, autocommit=True) as connection:
        for statement, expected in (
            ("UPDATE deployments SET model = 'demo/other'", {"a": "demo/other"}),
            ("INSERT INTO deployments (name, model) VALUES ('b', 'demo')", {"a": "demo/other", "b": "demo"}),
            ("DELETE FROM deployments WHERE name = 'a'", {"b": "demo"}),
            ("TRUNCATE deployments", {}),
        ):
            connection.execute(statement)
            rows = asyncio.run(table.refresh())
            assert {entry.name: entry.model for entry in rows.active} == expected


@pytest.mark.services
def test_many_who_refresh_at_once_all_see_what_was_written_before(open_table, postgres):
    table, other = open_table(postgres), open_table(postgres)

    async def main():
        for number in range(10):
            await other.save(Entry("a", f"demo/{number}"))
            seen = await asyncio.gather(*(table.refresh() for _ in range(20)))
            assert {rows.get("a").model for rows in seen} == {f"demo/{number}"}

    asyncio.run(main())


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.services
@pytest.mark.parametrize("harm", ["stop", "pause"])
def test_a_server_that_is_away_harms_no_call_and_is_found_again(open_table, private_postgres, harm):
    table = open_table(private_postgres.url)
    table.save_sync(Entry("a", "demo"))
    asyncio.run(table.refresh())
    getattr(private_postgres, harm)()
    for _ in range(5):
        assert [entry.name for entry in asyncio.run(table.refresh()).active] == ["a"]
        assert names(table) == ["a"]
    until(lambda: asyncio.run(table.refresh()) and table.problem)
    assert names(table) == ["a"] and "cannot be read" in table.problem
    if harm == "stop":
        with pytest.raises(DatabaseAwayError):
            table.save_sync(Entry("b", "demo"))
        private_postgres.start()
    else:
        private_postgres.go_on()
    until(lambda: table.problem is None)
    with TableRegistry(private_postgres.url) as other:
        other.save_sync(Entry("c", "demo"))
    until(lambda: "c" in [entry.name for entry in asyncio.run(table.refresh()).active])
