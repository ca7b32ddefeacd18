"""A client whose kept answers are damaged, or whose Redis is away, slow or talks nonsense, asks its provider: a
fault of the cache is a miss, and no failure of a call."""

import asyncio
import contextlib
import logging
import os
import sqlite3
import time

import pytest

from polyvox import AsyncClient, portal
from polyvox.ledger import Ledger
from polyvox.stores import RedisStore
from polyvox.testing import Simulator
from tests import services
from tests.stores.resp import BadRedis
from tests.test_books import asking, rows

needs_services = pytest.mark.services
private_redis, redis_prefix, redis_server = services.private_redis, services.redis_prefix, services.redis_server
SLOWEST = 1.5  # seconds; with a cache that says nothing, on a busy machine


@pytest.fixture
def simulator():
    with Simulator() as running:
        yield running


@pytest.fixture
def place(tmp_path):
    return tmp_path / "cache.db"


def ask(simulator, cache, *prompts, stream=False, **said):
    """Ask with a client that keeps its answers there; the answers."""
    answers = []
    with asking(simulator, cache=cache, retries=0) as client:
        for prompt in prompts:
            begun = time.monotonic()
            answers.append(client.stream(prompt, **said).finish() if stream else client.ask(prompt, **said))
            assert time.monotonic() - begun < SLOWEST, "the cache held a call up"
    assert all(answer.text for answer in answers)
    return answers


def asked(simulator):
    """How many times the provider was asked."""
    return simulator.counts.requests


def warned(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING and "stores" in record.name]


@contextlib.contextmanager
def opened(place):
    with contextlib.closing(sqlite3.connect(place)) as connection:
        yield connection
        connection.commit()


# ---- its file ---------------------------------------------------------------------------------


def random_bytes(path):
    path.write_bytes(os.urandom(8192))


def truncated(path):
    path.write_bytes(path.read_bytes()[:5000])


def no_database(path):
    path.write_text("# these are not the pages you are looking for\n" * 50)


def wrong_schema(path):
    with opened(path) as connection:
        connection.execute("DROP TABLE cache")
        connection.execute("CREATE TABLE cache (something TEXT)")


def no_length(path):
    path.write_bytes(b"")


DAMAGE = [random_bytes, truncated, no_database, wrong_schema, no_length]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_file_of_answers_is_put_aside_and_answers_are_kept_anew(simulator, place, damage, stream, caplog):
    (first,) = ask(simulator, str(place), "hello")
    damage(place)
    anew, again = ask(simulator, str(place), "hello", "hello", stream=stream)
    assert first.text == anew.text == again.text and asked(simulator) == 2
    assert len(list(place.parent.glob("cache.db.corrupt-*[0-9Z]"))) == len(warned(caplog)) == (damage is not no_length)


def pickled(value):
    return b"\x80\x04\x95cos\nsystem\n."


def bare(value):
    return b'{"message": "hi"}'


def cut(value):
    return value[:-1]


def changed(value):
    return value[:-20] + bytes([value[-20] ^ 1]) + value[-19:]


def other_version(value):
    return value[:3] + bytes([value[3] + 1]) + value[4:]


TAMPERED = [pickled, bare, cut, changed, other_version]


@pytest.mark.parametrize("tampered", TAMPERED, ids=lambda tampered: tampered.__name__)
def test_an_answer_that_somebody_changed_in_the_file_is_asked_for_anew(simulator, place, tampered, stream, caplog):
    (first,) = ask(simulator, str(place), "hello")
    with opened(place) as connection:
        ((value,),) = connection.execute("SELECT value FROM cache").fetchall()
        connection.execute("UPDATE cache SET value = ?", (tampered(value),))
    anew, again = ask(simulator, str(place), "hello", "hello", stream=stream)
    assert first.text == anew.text == again.text and asked(simulator) == 2
    assert len(warned(caplog)) == 1


def test_two_tenants_never_share_an_answer_not_even_by_hand(simulator, place, stream):
    ask(simulator, str(place), "hello", tenant="ann", stream=stream)
    assert asked(simulator) == 1
    ask(simulator, str(place), "hello", tenant="bob", stream=stream)
    ask(simulator, str(place), "hello", stream=stream)
    assert asked(simulator) == 3
    with opened(place) as connection:
        values = connection.execute("SELECT space, key, value FROM cache").fetchall()
        assert len(values) == 3 and len({space for space, _, _ in values}) == 3
        # Everybody's answer is put under everybody else's name.
        for (space, key, _), (_, _, value) in zip(values, [*values[1:], values[0]], strict=True):
            connection.execute("UPDATE cache SET value = ? WHERE space = ? AND key = ?", (value, space, key))
    for who in ({"tenant": "ann"}, {"tenant": "bob"}, {}):
        ask(simulator, str(place), "hello", stream=stream, **who)
    assert asked(simulator) == 6


def test_a_locked_file_of_answers_delays_no_call_and_fails_none(simulator, place, stream):
    ask(simulator, str(place), "hello")
    with opened(place) as other:
        other.execute("BEGIN IMMEDIATE")
        ask(simulator, str(place), "hello", "something new", stream=stream)
    assert asked(simulator) == 2


def test_a_file_of_answers_that_cannot_be_made_or_is_deleted_fails_no_call(simulator, place, stream):
    place.write_text("no folder")
    ask(simulator, str(place / "cache.db"), "hello", "hello", stream=stream)
    place.unlink()
    with asking(simulator, cache=str(place)) as client:
        client.ask("first")
        for name in place.parent.glob("cache.db*"):
            name.unlink()
        before = asked(simulator)
        assert client.ask("second").text and client.ask("second").text
        assert asked(simulator) == before + 1


# ---- Redis ------------------------------------------------------------------------------------


def command(server, *words):
    import redis

    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        return client.execute_command(*words)


def each(simulator, cache, *prompts, **said):
    """Ask each with a client of its own."""
    for prompt in prompts:
        ask(simulator, cache, prompt, **said)


@needs_services
def test_a_redis_that_is_down_from_the_start_costs_no_call_its_answer(simulator, stream):
    each(simulator, f"redis://127.0.0.1:{services.free_port()}/0", "hello", "hello", stream=stream)
    assert asked(simulator) == 2


@needs_services
def test_a_redis_that_dies_stands_still_and_comes_back_is_used_again_by_itself(simulator, private_redis, stream):
    url = private_redis.url
    each(simulator, url, "hello", "hello")
    assert asked(simulator) == 1
    private_redis.pause()
    each(simulator, url, "hello", stream=stream)
    private_redis.go_on()
    private_redis.stop()
    each(simulator, url, "hello", stream=stream)
    assert asked(simulator) == 3
    private_redis.start()
    each(simulator, url, "hello", "hello", stream=stream)
    assert asked(simulator) == 4


@needs_services
def test_a_redis_without_memory_or_that_only_reads_still_gives_what_it_has(simulator, private_redis, stream):
    url = private_redis.url
    each(simulator, url, "hello")
    command(private_redis, "CONFIG", "SET", "maxmemory", "1")
    each(simulator, url, "hello", "new", "new", stream=stream)
    assert asked(simulator) == 3
    command(private_redis, "CONFIG", "SET", "maxmemory", "0")
    command(private_redis, "REPLICAOF", "127.0.0.1", "1")
    each(simulator, url, "hello", "new", "new", stream=stream)
    assert asked(simulator) == 5


@needs_services
def test_a_wrong_password_of_redis_fails_no_call_and_is_shown_nowhere(simulator, private_redis, stream, caplog):
    command(private_redis, "CONFIG", "SET", "requirepass", "the-right-word")
    with caplog.at_level(logging.DEBUG):
        each(simulator, private_redis.url.replace("//", "//:hunter22-secret@"), "hello", "hello", stream=stream)
    assert asked(simulator) == 2 and "hunter22" not in caplog.text


NONSENSE = {
    "moved": b"-MOVED 3999 127.0.0.1:6381\r\n",
    "wrong type": b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    "no protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n<html></html>",
    "binary": bytes(range(256)),
    "deep": b"*1\r\n" * 5000,
    "endless": b"$1000000000000\r\nabc",
    "cut": b"$100\r\nabc",
    "pickle": b"$16\r\n\x80\x04\x95cos\nsystem\n.\x00\r\n",
    "silence": None,
}


@pytest.mark.parametrize("words", NONSENSE.values(), ids=NONSENSE.keys())
def test_whatever_a_redis_says_is_a_miss(simulator, words, stream):
    async def go():
        async with BadRedis(words) as server:
            await asyncio.to_thread(each, simulator, server.url, "hello", "hello", stream=stream)

    asyncio.run(go())
    assert asked(simulator) == 2


@needs_services
def test_another_type_and_a_huge_value_under_the_key_of_an_answer_are_misses(
    simulator, redis_server, redis_prefix, stream
):
    import redis

    def in_one(*prompts, **said):
        store = RedisStore(redis_server, prefix=redis_prefix, max_bytes=100_000)
        each(simulator, store, *prompts, **said)
        portal.run(store.close())  # a store that was handed over is its owner's, in the loop it was used in

    in_one("hello")
    with contextlib.closing(redis.Redis.from_url(redis_server)) as client:
        (key,) = client.scan_iter(f"{redis_prefix}*")
        good = client.get(key)
        client.delete(key)
        client.lpush(key, "x")
        in_one("hello", "hello", stream=stream)
        assert asked(simulator) == 2
        client.set(key, good + b"x" * 5_000_000)
        in_one("hello", "hello", stream=stream)
        assert asked(simulator) == 3


# ---- equal calls at once ----------------------------------------------------------------------


async def _at_once(simulator, ledger, many, stream, leave=0, **said):
    """So many equal calls, of which the first ones leave; the answers of the others."""
    async with asking(simulator, AsyncClient, ledger=ledger, cache=True) as client:

        async def one():
            return await (client.stream("hello", **said).finish() if stream else client.ask("hello", **said))

        tasks = [asyncio.create_task(one()) for _ in range(many)]
        await asyncio.to_thread(simulator.wait_for, lambda it: it.counts.requests == 1)
        for task in tasks[:leave]:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended[:leave])
    return ended[leave:]


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def test_a_thousand_equal_questions_at_once_are_asked_and_paid_once(ledger, stream):
    with Simulator(latency=0.3) as simulator:
        answers = asyncio.run(_at_once(simulator, ledger, 1000, stream, user="ann"))
        assert asked(simulator) == 1
    assert len(answers) == 1000 and len({answer.text for answer in answers}) == 1
    assert sorted(answer.cost.amount for answer in answers)[:-1] == [0] * 999
    rows(ledger)
    (sums,) = ledger.history.usage("user")
    assert (sums.key, sums.calls, sums.ok, sums.own_cache) == ({"user": "ann"}, 1000, 1000, 999)
    assert sums.cost == max(answer.cost.amount for answer in answers) > 0


def test_of_a_thousand_equal_questions_the_one_who_stays_gets_the_answer(ledger, stream):
    with Simulator(latency=0.5) as simulator:
        (answer,) = asyncio.run(_at_once(simulator, ledger, 1000, stream, leave=999))
        assert answer.text and asked(simulator) == 1 and simulator.counts.cut_by_client == 0


def test_when_all_who_asked_the_same_have_left_the_call_is_cancelled_once(ledger, stream):
    with Simulator(latency=5.0) as simulator:
        assert asyncio.run(_at_once(simulator, ledger, 100, stream, leave=100)) == []
        assert simulator.wait_for(lambda it: it.counts.cut_by_client == 1) and asked(simulator) == 1
    assert [row.state for row in rows(ledger)] == ["cancelled"]


async def _of_two(simulator, stream):
    """Equal questions of two tenants at once."""
    async with asking(simulator, AsyncClient, cache=True) as client:

        async def one(tenant):
            if stream:
                return await client.stream("hello", tenant=tenant).finish()
            return await client.ask("hello", tenant=tenant)

        return await asyncio.gather(*[one(tenant) for tenant in ["ann", "bob"] * 50])


def test_equal_questions_of_two_tenants_at_once_are_asked_once_for_each(stream):
    with Simulator(latency=0.3) as simulator:
        answers = asyncio.run(_of_two(simulator, stream))
        assert asked(simulator) == 2
    assert len([answer for answer in answers if answer.cost.amount > 0]) == 2
