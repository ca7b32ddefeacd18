"""The store in Redis: whatever becomes of the server, no call waits for it long and none fails."""

import asyncio
import contextlib
import logging
import sys
import threading
import time

import pytest

from polyvox.errors import ConfigError, MissingExtraError
from polyvox.stores import RedisStore
from polyvox.stores.frame import framed
from tests.services import free_port
from tests.stores.resp import BadRedis

WARNINGS = "polyvox.stores"


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@contextlib.asynccontextmanager
async def opened(url, **options):
    store = RedisStore(url, **options)
    try:
        yield store
    finally:
        await store.close()


def trial(url, test, **options):
    async def whole():
        async with opened(url, **options) as store:
            return await test(store)

    return asyncio.run(whole())


async def asked(url, *words):
    import redis.asyncio

    async with redis.asyncio.Redis.from_url(url) as client:
        return await client.execute_command(*words)


def warned(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def nothing_works(store):
    """Every method gives nothing, and raises nothing."""
    assert await store.get("a", "k") is None
    assert not await store.put("a", "k", b"1")
    assert not await store.add("a", "k", b"1")
    assert not await store.swap("a", "k", b"1", b"2")
    assert not await store.delete("a", "k")
    assert await store.clear() == 0
    assert await store.spaces() == ()
    assert await store.clean() == 0


# ---- the server is away -----------------------------------------------------------------------


def test_row_60_a_server_that_is_down_is_asked_five_times_and_then_left_alone(caplog):
    async def test(store):
        with caplog.at_level(logging.INFO, WARNINGS):
            await nothing_works(store)
            stats = await store.stats()
            assert stats.errors == 5
            assert (stats.state, stats.hits) == ("degraded", 0)
            for _ in range(200):
                assert await store.get("a", "k") is None
            assert (await store.stats()).errors == 5

    trial(f"redis://127.0.0.1:{free_port()}/0", test, clock=Clock())
    assert len(warned(caplog)) == 1


def test_row_60_a_server_that_dies_and_comes_back_is_used_again_by_itself(private_redis):
    clock = Clock()

    async def test(store):
        assert await store.put("a", "k", b"1")
        private_redis.stop()
        for _ in range(6):
            assert await store.get("a", "k") is None
        assert (await store.stats()).state == "degraded"
        await asyncio.to_thread(private_redis.start)
        assert not await store.put("a", "k", b"2")
        clock.now += 5
        assert await store.put("a", "k", b"3")
        assert await store.get("a", "k") == b"3"
        assert (await store.stats()).state == "ok"

    trial(private_redis.url, test, clock=clock)


def test_row_60_a_server_that_says_nothing_costs_each_of_five_calls_half_a_second_at_most(private_redis):
    clock = Clock()

    async def test(store):
        assert await store.put("a", "k", b"1")
        private_redis.pause()
        started = time.monotonic()
        for _ in range(5):
            once = time.monotonic()
            assert await store.get("a", "k") is None
            assert time.monotonic() - once < 1.5
        assert time.monotonic() - started > 1
        assert await store.get("a", "k") is None
        assert (await store.stats()).errors == 5
        private_redis.go_on()
        clock.now += 5
        assert await store.get("a", "k") == b"1"

    trial(private_redis.url, test, clock=clock)


def test_row_60_a_thousand_calls_at_once_wait_no_longer_for_a_silent_server_than_a_few(private_redis):
    async def test(store):
        assert await store.put("a", "k", b"1")
        private_redis.pause()
        started = time.monotonic()
        assert set(await asyncio.gather(*(store.get("a", "k") for _ in range(1000)))) == {None}
        assert time.monotonic() - started < 5
        private_redis.go_on()

    trial(private_redis.url, test, clock=Clock())


def test_thousands_of_calls_at_once_are_no_failure_of_a_server_that_is_well(redis_server, redis_prefix):
    async def test(store):
        await store.put("a", "k", b"1")
        assert set(await asyncio.gather(*(store.get("a", "k") for _ in range(5000)))) == {b"1"}
        assert (await store.stats()).errors == 0

    trial(redis_server, test, prefix=redis_prefix)


def test_one_probe_at_a_time_asks_a_server_that_was_away():
    clock = Clock()

    async def test():
        async with BadRedis(None) as server, opened(server.url, clock=clock) as store:
            for _ in range(5):
                await store.get("a", "k")
            clock.now += 5
            asked = len(server.commands)
            await asyncio.gather(*(store.get("a", "k") for _ in range(50)))
            assert len(server.commands) == asked + 1

    asyncio.run(test())


def test_a_call_that_is_cancelled_meanwhile_leaves_the_connection_and_the_probe_to_others():
    clock = Clock()
    answers = [None, b"$-1\r\n"]

    async def test():
        async with BadRedis(lambda words: answers[0]) as server, opened(server.url, clock=clock) as store:
            for _ in range(5):
                await store.get("a", "k")
            clock.now += 5
            task = asyncio.create_task(store.get("a", "k"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            answers[0] = b"$0\r\n\r\n"
            assert await store.get("a", "k") is None
            assert (await store.stats()).state == "ok"

    asyncio.run(test())


# ---- the server refuses -----------------------------------------------------------------------


def test_row_60_a_wrong_password_is_told_once_and_never_shown(private_redis, caplog):
    asyncio.run(asked(private_redis.url, "CONFIG", "SET", "requirepass", "the-right-word"))
    url = private_redis.url.replace("redis://", "redis://:hunter22-secret@")

    async def test(store):
        with caplog.at_level(logging.DEBUG, "polyvox"):
            await nothing_works(store)
        stats = await store.stats()
        assert stats.state == "degraded"
        assert "hunter22" not in repr(store) + str(stats) + caplog.text

    trial(url, test, clock=Clock())
    assert len(warned(caplog)) == 1

    async def works(store):
        assert await store.put("a", "k", b"1")

    trial(private_redis.url.replace("redis://", "redis://:the-right-word@"), works)


def test_row_60_a_server_without_memory_keeps_nothing_new_and_gives_what_it_has(private_redis, caplog):
    async def test(store):
        assert await store.put("a", "k", b"1")
        await asked(private_redis.url, "CONFIG", "SET", "maxmemory", "1")
        with caplog.at_level(logging.INFO, WARNINGS):
            for _ in range(7):
                assert not await store.put("a", "l", b"2")
                assert await store.get("a", "k") == b"1"
        stats = await store.stats()
        assert stats.state == "degraded"
        assert "memory" in stats.why
        await asked(private_redis.url, "CONFIG", "SET", "maxmemory", "0")
        assert await store.put("a", "l", b"2")
        assert (await store.stats()).state == "ok"

    trial(private_redis.url, test)
    assert len(warned(caplog)) == 1


def test_row_60_a_replica_gives_what_it_has_and_keeps_nothing(private_redis, caplog):
    async def test(store):
        await store.put("a", "k", b"1")
        await asked(private_redis.url, "REPLICAOF", "127.0.0.1", "1")
        with caplog.at_level(logging.INFO, WARNINGS):
            for _ in range(7):
                assert not await store.put("a", "k", b"2")
        assert await store.get("a", "k") == b"1"
        assert "READONLY" in (await store.stats()).why or "read only" in (await store.stats()).why

    trial(private_redis.url, test)
    assert len(warned(caplog)) == 1


BAD = {
    "moved": b"-MOVED 3999 127.0.0.1:6381\r\n",
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "wrong type": b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    "no protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n<html></html>",
    "binary": bytes(range(256)),
    "number": b":17\r\n",
    "nested": b"*2\r\n*1\r\n:1\r\n$-1\r\n",
    "deep": b"*1\r\n" * 5000,
    "status": b"+OK?\r\n",
    "no length": b"$x\r\nabc\r\n",
    "nothing where there is text": b"$-1\r\n",
    "cut": b"$100\r\nabc",
    "endless": b"$1000000000000\r\nabc",
    "pickle": b"$16\r\n\x80\x04\x95cos\nsystem\n.\x00\r\n",
    "other key": b"$%d\r\n%s\r\n" % (len(framed("a", "other", b"x")), framed("a", "other", b"x")),
    "not utf-8": b"-\xff\xfe\r\n",
    "no error": b"-\r\n",
}


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD.keys())
def test_row_61_whatever_a_server_answers_is_a_miss_with_one_warning(answer, caplog):
    async def test():
        async with BadRedis(answer) as server, opened(server.url, clock=Clock()) as store:
            with caplog.at_level(logging.INFO, WARNINGS):
                for _ in range(3):
                    assert await store.get("a", "k") is None
            stats = await store.stats()
            assert stats.hits == 0
            assert stats.errors + stats.damaged == 3
            assert len(warned(caplog)) == 1
            await nothing_works(store)

    asyncio.run(test())


def test_row_61_another_type_under_the_key_is_a_miss_and_can_be_put_over(redis_server, redis_prefix):
    async def test(store):
        await asked(redis_server, "LPUSH", f"{redis_prefix}a:k", "x")
        assert await store.get("a", "k") is None
        assert await store.put("a", "k", b"1")
        assert await store.get("a", "k") == b"1"

    trial(redis_server, test, prefix=redis_prefix)


def test_row_61_of_a_huge_value_no_more_is_read_than_a_value_may_be(redis_server, redis_prefix):
    async def test(store):
        await asked(redis_server, "SET", f"{redis_prefix}a:k", framed("a", "k", b"x" * 5_000_000))
        assert await store.get("a", "k") is None
        assert not await store.put("a", "l", b"x" * 1001)
        assert await store.put("a", "l", b"x" * 1000)
        assert await store.get("a", "l") == b"x" * 1000
        assert (await store.stats()).damaged == 1

    trial(redis_server, test, prefix=redis_prefix, max_bytes=1000)


# ---- what it leaves alone, and what it says ---------------------------------------------------


def test_only_keys_of_our_own_are_cleared(redis_server, redis_prefix):
    async def test(store):
        await asked(redis_server, "SET", f"{redis_prefix}b*x", "theirs")
        await store.put("s", "k", b"1")
        assert await store.clear() == 1
        assert await asked(redis_server, "GET", f"{redis_prefix}b*x") == b"theirs"

    trial(redis_server, test, prefix=redis_prefix + "b*:")


def test_time_to_live_is_the_servers_own(redis_server, redis_prefix):
    async def test(store):
        await store.put("a", "k", b"1", ttl=100)
        await store.put("a", "l", b"1")
        assert 99_000 < await asked(redis_server, "PTTL", f"{redis_prefix}a:k") <= 100_000
        assert await asked(redis_server, "PTTL", f"{redis_prefix}a:l") == -1

    trial(redis_server, test, prefix=redis_prefix)


@pytest.mark.parametrize(
    "url", ["http://h", "redis://h:port/0", "redis://[::1", "redis://u:hunter22-secret@h:99999999/0"]
)
def test_a_url_that_cannot_be_read_is_refused_at_once_and_not_shown(url):
    with pytest.raises(ConfigError) as caught:
        RedisStore(url)
    assert "hunter22" not in str(caught.value)
    assert caught.value.hint


def test_the_password_of_a_url_is_shown_nowhere():
    store = RedisStore("rediss://user:hunter22-secret@example.com:6380/3?ssl_cert_reqs=none")
    assert repr(store) == "RedisStore('rediss://example.com:6380/3', prefix='polyvox:')"
    assert "hunter22" not in str(vars(store))


def test_without_the_client_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(MissingExtraError) as caught:
        RedisStore("redis://localhost")
    assert "polyvox[redis]" in caught.value.hint


def test_connections_end_with_their_event_loop_and_with_the_store(redis_server, redis_prefix):
    async def connections():
        rows = (await asked(redis_server, "CLIENT", "LIST")).decode().splitlines()
        return sum(f"name={name}" in row for row in rows)

    async def use():
        assert await store.get("a", "k") is None
        assert await connections() == 1

    async def elsewhere(ready, done):
        await use()
        ready.set()
        while not done.is_set():
            await asyncio.sleep(0.01)

    async def close_from_here():
        ready, done = threading.Event(), threading.Event()
        other = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere(ready, done)))
        await asyncio.to_thread(ready.wait, 10)
        await store.close()
        until = time.monotonic() + 10
        while await connections():
            assert time.monotonic() < until
        done.set()
        await other

    name = redis_prefix.strip(":")
    store = RedisStore(f"{redis_server}?client_name={name}", prefix=redis_prefix)
    for _ in range(2):
        asyncio.run(use())
        assert asyncio.run(connections()) == 0
    asyncio.run(close_from_here())
