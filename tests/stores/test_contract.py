"""What every kind of store promises: what was put is what comes back, or nothing."""

import asyncio
import math
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyvox.errors import ConfigError, InputError
from polyvox.stores import MemoryStore, RedisStore, SQLiteStore, open_store

VALUES = [b"", b"x", bytes(range(256)) * 40, "ä€😀".encode(), b"\x80\x04\x95cos\nsystem\n."]


@pytest.mark.parametrize("value", VALUES, ids=len)
def test_a_value_comes_back_as_it_was_put(trial, value):
    async def test(store):
        assert await store.get("a", "k") is None
        assert await store.put("a", "k", value)
        assert await store.get("a", "k") == value

    trial(test)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.tuples(st.text(max_size=5), st.text(max_size=5)), st.binary(max_size=20), max_size=6))
def test_keys_of_any_spelling_stay_apart(trial, entries):
    async def test(store):
        await store.clear()
        for (space, key), value in entries.items():
            await store.put(space, key, value)
        for (space, key), value in entries.items():
            assert await store.get(space, key) == value
        assert await store.spaces() == tuple(sorted({space for space, _ in entries}))

    trial(test)


def test_a_later_value_takes_the_place_of_an_earlier_one(trial):
    async def test(store):
        await store.put("a", "k", b"1")
        await store.put("a", "k", b"2")
        assert await store.get("a", "k") == b"2"

    trial(test)


def test_of_many_who_add_at_once_one_does(trial):
    async def test(store):
        added = await asyncio.gather(*(store.add("a", "k", b"%d" % number) for number in range(20)))
        assert sum(added) == 1
        assert await store.get("a", "k") == b"%d" % added.index(True)

    trial(test)


def test_of_many_who_swap_the_same_value_one_does(trial):
    async def test(store):
        assert not await store.swap("a", "k", b"0", b"1")
        await store.put("a", "k", b"0")
        swapped = await asyncio.gather(*(store.swap("a", "k", b"0", b"n%d" % number) for number in range(20)))
        assert sum(swapped) == 1
        assert await store.get("a", "k") == b"n%d" % swapped.index(True)
        assert not await store.swap("a", "k", b"0", b"2")

    trial(test)


def test_a_deleted_key_is_gone_and_only_it(trial):
    async def test(store):
        await store.put("a", "k", b"1")
        await store.put("a", "l", b"2")
        assert await store.delete("a", "k")
        assert not await store.delete("a", "k")
        assert (await store.get("a", "k"), await store.get("a", "l")) == (None, b"2")

    trial(test)


def test_a_space_is_cleared_without_the_others_also_those_that_begin_like_it(trial):
    async def test(store):
        for space in ("a", "ab", "a:b", "a*", "*"):
            await store.put(space, "k", b"1")
        assert await store.clear("a") == 1
        assert await store.clear("*") == 1
        assert await store.spaces() == ("a*", "a:b", "ab")
        assert await store.clear() == 3
        assert await store.spaces() == ()

    trial(test)


def test_many_entries_are_cleared(trial):
    async def test(store):
        await asyncio.gather(*(store.put("a", str(number), b"1") for number in range(1200)))
        assert await store.clear("a") == 1200
        assert await store.get("a", "7") is None

    trial(test)


def test_a_value_is_gone_when_its_time_is_over(trial):
    async def test(store):
        await store.put("a", "soon", b"1", ttl=0.05)
        await store.put("a", "later", b"1", ttl=60)
        await store.put("a", "never", b"1", ttl=None)
        await store.put("a", "endless", b"1", ttl=math.inf)
        assert await store.get("a", "soon") in (b"1", None)
        await asyncio.sleep(0.1)
        found = [await store.get("a", key) for key in ("soon", "later", "never", "endless")]
        assert found == [None, b"1", b"1", b"1"]
        assert await store.add("a", "soon", b"2")
        assert not await store.add("a", "later", b"2")

    trial(test)


def test_a_swap_gives_the_new_value_its_own_time(trial):
    async def test(store):
        await store.put("a", "k", b"1")
        assert await store.swap("a", "k", b"1", b"2", ttl=0.05)
        await asyncio.sleep(0.1)
        assert await store.get("a", "k") is None
        assert not await store.swap("a", "k", b"2", b"3")

    trial(test)


def test_no_time_at_all_keeps_nothing_and_forgets_what_was_there(trial):
    async def test(store):
        await store.put("a", "k", b"1")
        assert not await store.put("a", "k", b"2", ttl=0)
        assert await store.get("a", "k") is None

    trial(test)


@pytest.mark.parametrize("ttl", [-1, math.nan, -math.inf, "60", True], ids=str)
def test_a_time_that_is_none_is_refused(trial, ttl):
    async def test(store):
        for keep in (store.put("a", "k", b"1", ttl), store.add("a", "k", b"1", ttl)):
            with pytest.raises(InputError) as caught:
                await keep
            assert "ttl" in caught.value.hint

    trial(test)


def test_what_it_did_is_counted(trial):
    async def test(store):
        await store.put("a", "k", b"12")
        await store.get("a", "k")
        await store.get("a", "l")
        return await store.stats()

    stats = trial(test)
    assert (stats.hits, stats.misses, stats.stored, stats.errors, stats.state, stats.why) == (1, 1, 1, 0, "ok", None)
    assert (stats.entries, stats.bytes) == ((None, None) if stats.kind == "redis" else (1, 4))


def test_after_the_end_there_is_nothing_and_nothing_is_kept(opened):
    async def test():
        async with opened() as store:
            await store.put("a", "k", b"1")
        assert await store.get("a", "k") is None
        assert not await store.put("a", "k", b"2")
        assert not await store.add("a", "l", b"2")
        assert await store.clear() == 0
        await store.close()

    asyncio.run(test())


def test_one_store_serves_several_event_loops(opened):
    async def test():
        async with opened() as store:
            await store.put("a", "k", b"1")
            await asyncio.to_thread(asyncio.run, elsewhere(store))
            assert await store.get("a", "k") == b"2"

    async def elsewhere(store):
        assert await store.get("a", "k") == b"1"
        await store.put("a", "k", b"2")

    asyncio.run(test())


@pytest.mark.parametrize(
    ("place", "made"),
    [("memory", MemoryStore), ("sqlite:////tmp/x.db", SQLiteStore), ("./answers.db", SQLiteStore),
     ("redis://localhost:6379/3", RedisStore)],
)  # fmt: skip
def test_a_setting_names_a_store(place, made):
    assert type(open_store(place)) is made


@pytest.mark.parametrize("place", ["", "memcached", "redsi://u:hunter22-secret@h", "sqlite://", "http://h/x"])
def test_a_setting_that_names_none_is_refused_with_those_there_are(place):
    with pytest.raises(ConfigError) as caught:
        open_store(place)
    assert "redis://" in caught.value.hint
    assert "hunter22" not in str(caught.value)


def test_nothing_is_loaded_that_is_not_used():
    program = """
import sys
import polyvox.cache, polyvox.stores
polyvox.cache.ResponseCache()
print([name for name in ("redis", "sqlite3", "sqlalchemy", "polyvox.database") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
