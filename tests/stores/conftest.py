"""Stores of each kind, which forget all after the test."""

import asyncio
import contextlib

import pytest

from polyvox.stores import MemoryStore, RedisStore, SQLiteStore
from tests.services import private_redis, redis_prefix, redis_server  # noqa: F401 - fixtures


@pytest.fixture(params=["memory", "sqlite", "redis"])
def kind(request):
    return request.param


@pytest.fixture
def opened(kind, request, tmp_path):
    """A context in which there is a store of the kind; opened twice, SQLite and Redis hold the same."""
    if kind == "redis":
        url, prefix = request.getfixturevalue("redis_server"), request.getfixturevalue("redis_prefix")

    @contextlib.asynccontextmanager
    async def open_one(**options):
        if kind == "memory":
            store = MemoryStore(**options)
        elif kind == "sqlite":
            store = SQLiteStore(tmp_path / "deep" / "store.db", **options)
        else:
            store = RedisStore(url, prefix=prefix, **options)
        try:
            yield store
        finally:
            await store.close()

    return open_one


@pytest.fixture
def trial(opened):
    """Runs a coroutine function with a store of the kind."""

    def run(test, **options):
        async def whole():
            async with opened(**options) as store:
                return await test(store)

        return asyncio.run(whole())

    return run
