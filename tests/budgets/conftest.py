"""Budgets in each kind of store, which forget all after the test, with a clock the test sets."""

import asyncio
import contextlib
from datetime import UTC, datetime

import pytest

from polyvox.budgets import Budgets, MemoryStore, RedisStore, SqlStore
from polyvox.database import Database
from tests.services import (  # noqa: F401 - fixtures
    postgres,
    postgres_server,
    private_postgres,
    private_redis,
    redis_prefix,
    redis_server,
)

KINDS = ["memory", "sqlite", "postgresql", "redis"]
NOON = datetime(2030, 3, 17, 12, tzinfo=UTC).timestamp()
"""A Sunday."""


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self, now=NOON):
        self.now = now

    def __call__(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def place(kind, request, tmp_path):
    """Where budgets of a kind are counted."""
    if kind == "memory":
        return None
    if kind == "sqlite":
        return str(tmp_path / "budgets.db")
    if kind == "postgresql":
        return request.getfixturevalue("postgres")
    return request.getfixturevalue("redis_server"), request.getfixturevalue("redis_prefix")


@pytest.fixture
def open_store(kind, place):
    """Opens stores of the kind, all in the same place, that are closed after the test."""
    with contextlib.ExitStack() as opened:

        def make(**options):
            if kind == "memory":
                return MemoryStore(**options)
            if kind == "redis":
                # The slowest machine is no server that is away.
                store = RedisStore(place[0], prefix=place[1], timeout=10, **options)
                opened.callback(lambda: asyncio.run(store.close()))
                return store
            database = opened.enter_context(Database(place, patience=20))
            return SqlStore(database, **options)

        yield make


@pytest.fixture
def make(open_store, clock):
    """Makes budgets in a store of the kind, by the test's clock."""

    def made(*budgets, notices=None, store=None, **options):
        store = store or open_store(clock=clock, **options)
        return Budgets(budgets, store, wall=clock, on_notice=None if notices is None else notices.append)

    return made
