"""Promises of kept answers and of what is told of calls that no single room shows: on public names, against a provider
that counts what it is asked."""

import asyncio
import contextlib
import logging
import sqlite3
import time

import pytest
from benchmarks.figures import Size, of_room
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from polyvox import Client, Image
from polyvox.cache import ResponseCache, fingerprint
from polyvox.compat.ai_utilities.cache import MemoryCache, RedisCache, SQLiteCache, cache_backends
from polyvox.config import Settings
from polyvox.errors import PolyvoxError
from polyvox.keys import Secret
from polyvox.registry import Entry
from polyvox.stores import SQLiteStore, Store, StoreStats
from polyvox.telemetry import CallLog, OpenTelemetry
from polyvox.testing import Simulator
from polyvox.types import Message, Request, Text
from tests import services

redis_server = services.redis_server

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


@pytest.mark.services
def test_the_benchmark_measures_get_and_set_of_every_cache_that_settings_may_name(redis_server):
    figures = {figure.what: figure for figure in of_room("cache", Size(rounds=1, times=20, history=0), None)}
    for cache in (MemoryCache, SQLiteCache, RedisCache):
        for operation in ("get", "set"):
            figure = figures[f"{cache.__name__}.{operation}"]
            assert figure.value > 0 and figure.unit == "µs" and figure.of > 0
    assert cache_backends()[:3] == ("memory", "sqlite", "redis")


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


# ---- spans: who asked, and why it went where it went --------------------------------------------


def traced(make):
    """The spans of what make does with a hook, the earliest first."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with OpenTelemetry(tracer_provider=provider, metrics=None) as telemetry:
        make(telemetry, provider.get_tracer("program"))
        assert telemetry.flush()
    provider.shutdown()
    return sorted(exporter.get_finished_spans(), key=lambda span: span.start_time)


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_is_the_first_span_of_its_trace(simulator, stream):
    def ask(hook, tracer):
        with asking(simulator, hooks=[hook]) as client:
            client.stream("hello").finish() if stream else client.ask("hello")

    (span,) = traced(ask)
    (request,) = simulator.requests
    assert (span.name, span.parent) == ("chat gpt-5.4-mini", None)
    assert span.attributes["gen_ai.operation.name"] == "chat" and span.attributes["gen_ai.provider.name"] == "openai"
    assert span.start_time < span.end_time and request.model == "gpt-5.4-mini"


def test_a_span_says_why_the_call_went_where_it_went():
    plan = [{"kind": "status", "status": 503, "at": [1]}]
    with Simulator(plan=plan, demand_key=False) as simulator:
        there = simulator.base_url("openai.chat")
        blind = Entry("blind", "deepseek/deepseek-v4-pro", tier="economy", api_key=Secret("sk-not-a-real-key-0123"))
        registry = [blind, *(Entry(name, name, base_url=there, tier="economy", priority=1) for name in ("one", "two"))]

        def ask(hook, tracer):
            with Client(tier="auto", registry=registry, settings=Settings(), retries=0, hooks=[hook]) as client:
                client.ask(["what is this?", Image(data=b"\x89PNG", media_type="image/png")])

        (span,) = traced(ask)
        asked = tuple(request.model for request in simulator.requests)
    (route,) = [event for event in span.events if event.name == "polyvox.route"]
    told = {name.removeprefix("polyvox.route."): value for name, value in route.attributes.items()}
    assert sorted(asked) == ["one", "two"] and told["asked"] == asked
    assert told["skipped"] == ("blind: takes no images",) and told["tier"] == "economy"
    assert told["steps"] == (f"after server at {asked[0]}: elsewhere",) and told["strategy"] == "weighted"
    assert route.timestamp == span.start_time and "sk-not-a-real-key-0123" not in span.to_json()


def test_a_call_without_a_choice_says_nothing_of_one(simulator):
    (span,) = traced(lambda hook, _: asking(simulator, hooks=[hook]).ask("hello"))
    assert not span.events


def test_moving_to_another_deployment_is_a_warning_that_names_the_one_that_failed(caplog):
    caplog.set_level(logging.DEBUG, "polyvox")
    plan = [{"kind": "status", "status": 503, "at": [1]}]
    with Simulator(plan=plan, demand_key=False) as simulator:
        there = simulator.base_url("openai.chat")
        registry = [Entry(name, name, base_url=there, priority=place) for place, name in enumerate(("first", "second"))]
        with Client("*", registry=registry, settings=Settings(), retries=0) as client:
            assert client.ask("hello").deployment == "second"
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["first: server; next try elsewhere"]
