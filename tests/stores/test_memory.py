"""The store in memory keeps to its bounds: the least recently used goes first."""

import asyncio
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from polyvox.errors import InputError
from polyvox.stores import MemoryStore


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_the_least_recently_used_entry_goes_first():
    async def test():
        store = MemoryStore(max_entries=2)
        await store.put("a", "1", b"x")
        await store.put("a", "2", b"x")
        await store.get("a", "1")
        await store.put("a", "3", b"x")
        assert [await store.get("a", key) for key in "123"] == [b"x", None, b"x"]
        assert (await store.stats()).evictions == 1

    asyncio.run(test())


def test_bytes_are_bounded_too_and_what_never_fits_drives_nothing_out():
    async def test():
        store = MemoryStore(max_bytes=100)
        await store.put("a", "1", b"x" * 40)
        await store.put("a", "2", b"x" * 40)
        assert not await store.put("a", "3", b"x" * 200)
        assert await store.get("a", "1") is not None
        await store.put("a", "4", b"x" * 40)
        stats = await store.stats()
        assert (stats.entries, stats.bytes) == (2, 84)
        assert await store.get("a", "2") is None

    asyncio.run(test())


def test_a_value_that_does_not_fit_leaves_no_older_one_in_its_place():
    async def test():
        store = MemoryStore(max_bytes=100)
        await store.put("a", "1", b"old")
        await store.put("a", "1", b"x" * 200)
        assert await store.get("a", "1") is None

    asyncio.run(test())


def test_what_is_over_goes_by_itself_without_being_asked_for():
    async def test():
        clock = Clock()
        store = MemoryStore(clock=clock)
        for number in range(50):
            await store.put("a", str(number), b"x", ttl=10)
        clock.now = 11
        await store.put("b", "k", b"x")
        assert len(store._entries) == 1
        assert (await store.stats()).expired == 50
        assert await store.clean() == 0

    asyncio.run(test())


def test_replaced_entries_do_not_pile_up_anything():
    async def test():
        store = MemoryStore()
        for _ in range(1000):
            await store.put("a", "k", b"x", ttl=1000)
        assert len(store._ends) < 100

    asyncio.run(test())


def test_threads_lose_no_count():
    async def use(store, name):
        for number in range(300):
            await store.put(name, str(number), b"x")
            await store.get(name, str(number))

    store = MemoryStore()
    threads = [threading.Thread(target=lambda name=str(n): asyncio.run(use(store, name))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = asyncio.run(store.stats())
    assert (stats.hits, stats.misses, stats.stored, stats.entries) == (1200, 0, 1200, 1200)


@pytest.mark.parametrize("bound", [0, -1, 1.5, True, "10", None])
def test_bounds_that_are_none_are_refused(bound):
    with pytest.raises(InputError):
        MemoryStore(max_entries=bound)
    with pytest.raises(InputError):
        MemoryStore(max_bytes=bound)


keys = st.sampled_from("abcd")
values = st.sampled_from([b"", b"1", b"22", b"x" * 30])
ttls = st.sampled_from([None, 0, 1, 5])


class LikeADict(RuleBasedStateMachine):
    """Whatever is done in whatever order, a store without pressure says what a dictionary with ends would say."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock)
        self.model = {}

    def live(self, key):
        value, end = self.model.get(key, (None, None))
        return value if end is None or end > self.clock.now else None

    def keep(self, key, value, ttl):
        self.model.pop(key, None)
        if ttl != 0:
            self.model[key] = (value, None if ttl is None else self.clock.now + ttl)
        return ttl != 0

    @rule(key=keys, value=values, ttl=ttls)
    def put(self, key, value, ttl):
        assert asyncio.run(self.store.put("s", key, value, ttl)) == self.keep(key, value, ttl)

    @rule(key=keys, value=values, ttl=ttls)
    def add(self, key, value, ttl):
        expected = self.live(key) is None and self.keep(key, value, ttl)
        assert asyncio.run(self.store.add("s", key, value, ttl)) == expected

    @rule(key=keys, old=values, new=values, ttl=ttls)
    def swap(self, key, old, new, ttl):
        expected = self.live(key) == old and self.keep(key, new, ttl)
        assert asyncio.run(self.store.swap("s", key, old, new, ttl)) == expected

    @rule(key=keys)
    def delete(self, key):
        expected = self.live(key) is not None
        self.model.pop(key, None)
        assert asyncio.run(self.store.delete("s", key)) == expected

    @rule(seconds=st.sampled_from([0.5, 1, 3]))
    def wait(self, seconds):
        self.clock.now += seconds

    @invariant()
    def says_the_same(self):
        for key in "abcd":
            assert asyncio.run(self.store.get("s", key)) == self.live(key)
        stats = asyncio.run(self.store.stats())
        live = {key: self.live(key) for key in "abcd" if self.live(key) is not None}
        assert stats.entries == len(live)
        assert stats.bytes == sum(2 + len(value) for value in live.values())


LikeADict.TestCase.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
test_it_is_like_a_dictionary = LikeADict.TestCase
