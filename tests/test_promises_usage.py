"""Promises of kept answers and of what is told of calls that no single room shows: on public names, against a provider
that counts what it is asked."""

import asyncio
import contextlib
import logging
import sqlite3
import time

import pytest

from polyvox import Client
from polyvox.cache import ResponseCache, fingerprint
from polyvox.config import Settings
from polyvox.errors import PolyvoxError
from polyvox.stores import SQLiteStore, Store, StoreStats
from polyvox.telemetry import CallLog
from polyvox.testing import Simulator
from polyvox.types import Message, Request, Text

KEY = "sk-simulated-0123456789"


@pytest.fixture
def simulator():
    with Simulator() as running:
        yield running


def asking(simulator, **facts):
    row = {"base_url": simulator.base_url("openai.chat"), "hosts": ["127.0.0.1"], "api_key": KEY}
    return Client("openai/gpt-5.4-mini", settings=Settings(providers={"openai": row}), **facts)


class Ends:
    """A hook that keeps whether our own cache answered."""

    def __init__(self):
        self.own = []

    def on_done(self, info):
        self.own.append(info.own_cache)


# ---- kept answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_kept_unless_asked_for_and_then_a_repeat_asks_nobody_costs_nothing_and_says_so(simulator, stream):
    def ask(client):
        return client.stream("hello").finish() if stream else client.ask("hello")

    with asking(simulator) as client:
        ask(client)
        ask(client)
    assert simulator.counts.requests == 2
    ends = Ends()
    with asking(simulator, cache=True, hooks=[ends]) as client:
        first, again = ask(client), ask(client)
    assert simulator.counts.requests == 3
    assert (type(again), again.text, again.usage, again.model) == (type(first), first.text, first.usage, first.model)
    assert first.cost.amount > 0 and again.cost.amount == 0 and [bool(own) for own in ends.own] == [False, True]


class Shelf(Store):
    """A store of somebody else's: a dictionary."""

    kind = "shelf"

    def __init__(self):
        self.kept = {}

    async def get(self, space, key):
        return self.kept.get((space, key))

    async def put(self, space, key, value, ttl=None):
        self.kept[space, key] = value
        return True

    async def add(self, space, key, value, ttl=None):
        return self.kept.setdefault((space, key), value) is value

    async def swap(self, space, key, old, new, ttl=None):
        if self.kept.get((space, key)) != old:
            return False
        self.kept[space, key] = new
        return True

    async def delete(self, space, key):
        return self.kept.pop((space, key), None) is not None

    async def clear(self, space=None):
        gone = [place for place in self.kept if space in (None, place[0])]
        for place in gone:
            del self.kept[place]
        return len(gone)

    async def spaces(self):
        return tuple(sorted({space for space, _ in self.kept}))

    async def clean(self):
        return 0

    async def stats(self):
        return StoreStats(kind=self.kind, entries=len(self.kept))

    async def close(self):
        pass


@pytest.mark.parametrize("given", [lambda shelf: shelf, ResponseCache], ids=["store", "cache"])
def test_a_store_of_somebody_elses_keeps_answers_as_ours_do(simulator, given):
    shelf = Shelf()
    for _ in range(2):  # the second client has nothing but the shelf in common with the first
        with asking(simulator, cache=given(shelf)) as client:
            assert client.ask("hello").text
    assert simulator.counts.requests == 1 and len(shelf.kept) == 1


def test_white_space_at_the_end_of_a_prompt_is_another_prompt():
    cache, of = ResponseCache(), fingerprint("demo", "small", "openai.chat")
    keys = {cache.key(Request("small", (Message("user", (Text(text),)),)), of).digest for text in ("a", "a ", "a\n")}
    assert len(keys) == 3


def test_the_table_of_answers_has_a_key_for_each_namespace_times_in_utc_and_no_end_where_there_is_none(tmp_path):
    path, begun = tmp_path / "answers.db", time.time()

    async def fill():
        store = SQLiteStore(path)
        await store.put("one", "k", b"1", ttl=None)
        await store.put("two", "k", b"2", ttl=60)
        await store.close()

    asyncio.run(fill())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        columns = {name: place for _, name, _, _, _, place in connection.execute("PRAGMA table_info(cache)")}
        rows = connection.execute("SELECT space, key, created_at, expires_at FROM cache ORDER BY space").fetchall()
        indexed = {
            column
            for (_, index, *_) in connection.execute("PRAGMA index_list(cache)").fetchall()
            for (_, _, column) in connection.execute(f"PRAGMA index_info({index})")
        }
    assert {name for name, place in columns.items() if place} == {"space", "key"}
    assert [(space, key) for space, key, _, _ in rows] == [("one", "k"), ("two", "k")]
    assert rows[0][3] is None and "expires_at" in indexed
    unit = 1_000_000 if rows[1][2] > 1e14 else 1000 if rows[1][2] > 1e11 else 1
    assert begun - 2 <= rows[1][2] / unit <= time.time() + 2
    assert 58 <= (rows[1][3] - rows[1][2]) / unit <= 62


# ---- what is told of a call -------------------------------------------------------------------


def test_each_level_has_its_own_a_failure_is_an_error_once_and_each_retry_a_warning(caplog):
    caplog.set_level(logging.DEBUG, "polyvox")

    def levels():
        found = [record.levelname for record in caplog.records if record.name in ("polyvox.calls", "polyvox.engine")]
        caplog.clear()
        return found

    plan = [{"kind": "status", "status": 503, "headers": {"retry-after": "0"}, "at": [2, 3, 4]}]
    with Simulator(plan=plan) as simulator, asking(simulator, hooks=[CallLog()], retries=2) as client:
        client.ask("hello")
        well = levels()
        with pytest.raises(PolyvoxError):
            client.ask("hello")
        failed = levels()
        assert simulator.counts.requests == 4
    assert sorted(well) == ["DEBUG"] * 2 + ["INFO"]
    assert sorted(failed) == ["DEBUG"] * 4 + ["ERROR"] + ["WARNING"] * 2
