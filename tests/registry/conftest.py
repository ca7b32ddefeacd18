"""Registries of every kind, and how the contents of each are changed from outside."""

import asyncio
import json
import os

import pytest

from polyvox import config
from polyvox.config import configure, reset
from polyvox.database import Database
from polyvox.registry import DictRegistry, FileRegistry, Registries, SettingsRegistry, TableRegistry
from tests.services import postgres, postgres_server, private_postgres  # noqa: F401 - fixtures

KINDS = [
    "dict",
    "settings",
    "file",
    "several",
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.services),
]


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """Nothing is configured, no key is anywhere, and the machine knows no other addresses."""
    for name in list(os.environ):
        if (
            name.startswith("POLYVOX_HOME")
            or name.endswith(("_API_KEY", "_BASE_URL", "_TOKEN"))
            or name == "OLLAMA_HOST"
        ):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("POLYVOX_HOME", str(folder))
    monkeypatch.setenv("HOME", str(folder))
    reset()
    yield folder
    reset()


def table_of(entry):
    """An entry as a configuration file says it."""
    table = {field: value for field, value in entry.describe().items() if field not in ("name", "origin")}
    if entry.api_key is not None:
        table["api_key"] = entry.api_key.reveal()
    return table


def write(path, entries):
    """The entries as a file that takes its place in one step."""
    text = json.dumps({"deployments": {entry.name: table_of(entry) for entry in entries}})
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o600)
    new.replace(path)


class Given:
    """A registry that is changed by whoever made it."""

    def __init__(self):
        self.registry = DictRegistry()

    def put(self, *entries):
        for entry in self.registry.list_all():
            self.registry.remove(entry.name)
        for entry in entries:
            self.registry.add(entry)


class Configured:
    """A registry that follows the configuration of the process."""

    def __init__(self):
        self.registry = SettingsRegistry()

    def put(self, *entries):
        reset()
        configure(deployments={entry.name: table_of(entry) for entry in entries})


class Filed:
    """A registry of a file, which is replaced."""

    def __init__(self, folder):
        self.path = folder / "deployments.json"
        write(self.path, ())
        self.registry = FileRegistry(self.path)

    def put(self, *entries):
        write(self.path, entries)


class Several:
    """Two registries as one: the entries are in both by turns."""

    def __init__(self, folder):
        self.one, self.two = Given(), Filed(folder)
        self.registry = Registries(self.one.registry, self.two.registry)

    def put(self, *entries):
        half = len(entries) // 2
        self.one.put(*entries[:half])
        self.two.put(*entries[half:])


class Kept:
    """A registry of a table, which another program changes."""

    def __init__(self, place):
        # The slowest machine is no server that is away.
        self.databases = Database(place, patience=20), Database(place, patience=20)
        self.registry, self.other = map(TableRegistry, self.databases)

    def put(self, *entries):
        wanted = {entry.name: entry for entry in entries}
        for entry in self.other.list_sync():
            if entry.name not in wanted:
                self.other.remove_sync(entry.name)
        for entry in wanted.values():
            self.other.save_sync(entry)
        asyncio.run(self.registry.refresh())

    def close(self):
        self.registry.close()
        self.other.close()
        for database in self.databases:
            database.close()


@pytest.fixture(params=KINDS)
def source(request, tmp_path):
    """A registry of each kind, empty, with `put` to change what is in it."""
    if request.param == "dict":
        yield Given()
    elif request.param == "settings":
        if "deployments" not in config.Settings.__struct_fields__:
            pytest.fail("the configuration has no deployments")
        yield Configured()
    elif request.param == "file":
        yield Filed(tmp_path)
    elif request.param == "several":
        yield Several(tmp_path)
    else:
        kept = Kept(str(tmp_path / "rows.db") if request.param == "sqlite" else request.getfixturevalue("postgres"))
        yield kept
        kept.close()


@pytest.fixture
def open_table(tmp_path):
    """Opens registries of one SQLite file, closed after the test."""
    opened = []

    def make(place=tmp_path / "rows.db", **options):
        registry = TableRegistry(place, **options)
        opened.append(registry)
        return registry

    yield make
    for registry in opened:
        registry.close()


__all__ = ["table_of", "write"]
