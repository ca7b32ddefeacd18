"""The caches of AI Utilities: what is put comes back, for as long as was said, to those who may have it."""

import contextlib
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections import UserDict
from dataclasses import dataclass
from pathlib import Path

import pydantic
import pytest

from polyvox.compat.ai_utilities import cache as room
from polyvox.compat.ai_utilities.cache import (
    CacheBackend,
    MemoryCache,
    RedisCache,
    SQLiteCache,
    _generate_cache_key,
    cache_backends,
    create_cache,
    register_cache,
)
from polyvox.compat.names import AIUtilitiesError, ProviderConfigurationError
from tests.interfaces.rows import rows
from tests.services import redis_prefix, redis_server  # noqa: F401 - fixtures

KINDS = ("memory", "sqlite", "redis")


class Clock:
    """A time that goes on when it is told to."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def opened(request, tmp_path):
    """Makes caches of a kind, and lets go of them. Two of SQLite or Redis hold the same."""
    with contextlib.ExitStack() as stack:

        def make(kind, **options):
            if kind == "memory":
                cache = MemoryCache(**options)
            elif kind == "sqlite":
                cache = SQLiteCache(str(tmp_path / "deep" / "cache.db"), **options)
            else:
                url = request.getfixturevalue("redis_server")
                cache = RedisCache(url, prefix=request.getfixturevalue("redis_prefix"), **options)
            stack.callback(cache.close)
            return cache

        yield make


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "cache.db")


@pytest.fixture
def file(path):
    """A SQLite cache, closed at the end."""
    with contextlib.closing(SQLiteCache(path)) as cache:
        yield cache


def table(path, question, *values):
    """What any other program reads in the file."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute(question, values).fetchall()


# ---- what is there ------------------------------------------------------------------------------


@rows("S2-046", "S2-192")
def test_the_package_has_its_documented_names_and_loads_no_server_for_them(row):
    program = f"""
import sys
import {room.__name__} as cache
assert not {{"redis", "django", "celery", "sqlalchemy", "pydantic_settings", "openai"}} & set(sys.modules)
print(*[getattr(cache, name).__name__ for name in cache.__all__])
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    documented = {"CacheBackend", "MemoryCache", "SQLiteCache", "RedisCache", "_generate_cache_key"}
    assert documented <= set(done.stdout.split())


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        pytest.param("S2-084", MemoryCache, id="S2-084"),
        pytest.param("S2-085", SQLiteCache, id="S2-085"),
        pytest.param("S2-086", RedisCache, id="S2-086"),
    ],
)
def test_each_cache_is_a_backend(row, kind):
    assert issubclass(kind, CacheBackend) and not kind.__abstractmethods__
    assert kind.__name__ in {"MemoryCache", "SQLiteCache", "RedisCache"}


@rows("S2-080", "S2-164")
def test_one_class_has_the_methods_of_both_printed_definitions(row, clock):
    with pytest.raises(TypeError, match="abstract"):
        CacheBackend()
    for method in ("get", "set", "delete", "clear", "clear_namespace"):
        assert callable(getattr(CacheBackend, method))
    cache = MemoryCache()
    cache.set("a", 1, 60)
    cache.delete("a")
    assert cache.get("a") is None
    cache.in_namespace("other").set("a", 2, 60)
    cache.set("a", 1, 60)
    cache.clear_namespace("other")
    assert (cache.get("a"), cache.in_namespace("other").get("a")) == (1, None)
    cache.clear()
    assert cache.get("a") is None


@rows("S2-080")
def test_what_a_backend_of_ones_own_leaves_out_is_said_by_name(row):
    class Small(CacheBackend):
        def __init__(self):
            self.kept = {}

        def get(self, key):
            return self.kept.get(key)

        def set(self, key, value, ttl=60):
            self.kept[key] = value

    cache = Small()
    cache.set("a", 1)
    cache.delete("a")
    assert cache.get("a") is None
    for call in (cache.clear, lambda: cache.clear_namespace("x")):
        with pytest.raises(AIUtilitiesError, match="Small") as caught:
            call()
        assert "write its method" in caught.value.hint
    assert cache.stats().hits is None


# ---- what each does -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@rows("S2-081", "S2-165", "S2-048", "S2-050")
def test_what_is_put_comes_back_and_what_is_not_there_is_none(row, kind, opened):
    cache = opened(kind)
    assert cache.get("greeting") is None
    for value in ("hello", {"text": "hello", "n": [1, 2.5, None, True, "ü\ud800"]}, [], 0, False, ""):
        cache.set("greeting", value, 60)
        found = cache.get("greeting")
        assert found == value and type(found) is type(value)
    value = {"list": []}
    cache.set("own", value, 60)
    value["list"].append("later")
    cache.get("own")["list"].append("by a reader")
    assert cache.get("own") == {"list": []}


@pytest.mark.parametrize("kind", KINDS)
@rows("S2-081")
def test_none_and_what_would_not_come_back_are_refused(row, kind, opened):
    cache = opened(kind)
    for value in (None, object(), b"bytes", (1, 2), {1: "a"}, float("nan"), {"deep": {1, 2}}):
        with pytest.raises(AIUtilitiesError, match="JSON") as caught:
            cache.set("a", value, 60)
        assert caught.value.hint
    for key in ("", None, 7):
        with pytest.raises(AIUtilitiesError, match="key"):
            cache.get(key)
        with pytest.raises(AIUtilitiesError, match="key"):
            cache.set(key, "x", 60)
    assert cache.get("a") is None


@pytest.mark.parametrize("kind", KINDS)
@rows("S2-082", "S2-166")
def test_the_third_argument_is_the_time_to_live(row, kind, opened):
    cache = opened(kind)
    cache.set("short", "a", 0.05)
    cache.set("long", "b", 3600)
    cache.set("usual", "c")
    threading.Event().wait(0.1)
    assert (cache.get("short"), cache.get("long"), cache.get("usual")) == (None, "b", "c")
    for ttl in (-1, "soon", True, float("nan")):
        with pytest.raises(AIUtilitiesError, match="time to live"):
            cache.set("long", "other", ttl)
    assert cache.get("long") == "b"


@pytest.mark.parametrize("kind", KINDS)
@rows("S2-083")
def test_a_key_is_deleted_and_one_that_is_missing_is_no_error(row, kind, opened):
    cache = opened(kind)
    cache.set("a", 1, 60)
    cache.delete("never was")
    assert cache.get("a") == 1
    cache.delete("a")
    cache.delete("a")
    assert cache.get("a") is None


@pytest.mark.parametrize("kind", ("memory", "sqlite"))
@rows("S2-051", "S2-048")
def test_an_entry_is_gone_when_its_time_is_over_on_a_clock_of_the_test(row, kind, opened, clock):
    cache = opened(kind, **{"clock" if kind == "memory" else "wall": clock})
    cache.set("minute", "a", 60)
    cache.set("endless", "b", None)
    cache.set("gone at once", "old", 60)
    cache.set("gone at once", "new", 0)
    assert cache.get("gone at once") is None
    clock.now += 59.9
    assert (cache.get("minute"), cache.get("endless")) == ("a", "b")
    clock.now += 0.2
    assert (cache.get("minute"), cache.get("endless")) == (None, "b")
    clock.now += 10**9
    assert cache.get("endless") == "b"


@pytest.mark.parametrize("kind", KINDS)
@rows("S2-052", "S2-168", "S2-048", "S2-050")
def test_one_key_in_two_namespaces_is_two_entries_and_one_namespace_is_cleared_alone(row, kind, opened):
    cache = opened(kind, namespace="a")
    names = ("a", "a:b", "a%", "A", "ab", "*")
    for name in names:
        cache.in_namespace(name).set("key", name, 60)
        cache.in_namespace(name).set("b:key", name * 2, 60)
    assert cache.namespace == "a" and cache.get("key") == "a"
    assert [cache.in_namespace(name).get("key") for name in names] == list(names)
    cache.clear_namespace("a")
    assert [cache.in_namespace(name).get("key") for name in names] == [None, *names[1:]]
    assert [cache.in_namespace(name).get("b:key") for name in names] == [None, *(name * 2 for name in names[1:])]
    cache.in_namespace("*").delete("key")
    assert cache.in_namespace("ab").get("key") == "ab"
    cache.clear_namespace("*")
    assert cache.in_namespace("ab").get("key") == "ab"
    for wrong in ("", None, "x" * 201):
        with pytest.raises(AIUtilitiesError, match="namespace"):
            cache.in_namespace(wrong)
        with pytest.raises(AIUtilitiesError, match="namespace"):
            cache.clear_namespace(wrong)


@pytest.mark.parametrize("kind", KINDS)
@rows("S2-167")
def test_clear_empties_all_namespaces(row, kind, opened):
    cache = opened(kind)
    for name in ("default", "b", "c"):
        cache.in_namespace(name).set("key", 1, 60)
    cache.clear()
    assert [cache.in_namespace(name).get("key") for name in ("default", "b", "c")] == [None] * 3


@pytest.mark.parametrize("kind", KINDS)
@rows("S2-053")
def test_hits_misses_sets_evictions_and_size_are_counted(row, kind, opened):
    bound = {} if kind == "redis" else {"max_entries": 3}
    cache = opened(kind, **bound)
    for number in range(5):
        cache.set(f"k{number}", number, 60)
    assert cache.get("k4") == 4 and cache.get("nowhere") is None and cache.get("nowhere") is None
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.sets) == (1, 2, 5)
    # A server bounds itself, and is not asked to count.
    assert (stats.evictions, stats.size) == ((0, None) if kind == "redis" else (2, 3))
    assert stats.state == "ok" and stats.errors == 0


@pytest.mark.parametrize("kind", ("memory", "sqlite"))
@rows("S2-054", "S2-048")
def test_what_is_over_goes_by_itself_and_the_bound_holds(row, kind, opened, clock):
    cache = opened(kind, max_entries=3, **{"clock" if kind == "memory" else "wall": clock})
    for number in range(3):
        cache.set(f"short{number}", number, 10)
    clock.now += 11
    cache.set("kept", 1, 60)
    stats = cache.stats()
    assert (stats.size, stats.expired, stats.evictions) == (1, 3, 0)
    for number in range(5):
        clock.now += 1
        cache.set(f"k{number}", number, 60)
    assert [cache.get(f"k{number}") for number in range(5)] == [None, None, 2, 3, 4] and cache.get("kept") is None
    stats = cache.stats()
    assert (stats.size, stats.evictions) == (3, 3)


@rows("S2-048")
def test_threads_share_a_cache_in_memory_and_lose_nothing(row):
    cache = MemoryCache(max_entries=10_000)

    def work(name):
        for number in range(200):
            cache.set(f"{name}-{number}", number, 60)
            assert cache.get(f"{name}-{number}") == number

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = cache.stats()
    assert (stats.size, stats.sets, stats.hits) == (1600, 1600, 1600)
    for wrong in (0, -1, True, "many"):
        with pytest.raises(AIUtilitiesError, match="max_entries"):
            MemoryCache(wrong)


# ---- Redis --------------------------------------------------------------------------------------


@rows("S2-050")
def test_without_its_client_the_error_says_what_to_install(row, monkeypatch):
    for name in ("redis", "redis.asyncio"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ProviderConfigurationError) as caught:
        RedisCache()
    assert "polyvox[redis]" in caught.value.hint


@rows("S2-050")
def test_two_of_one_server_see_the_same_and_one_that_is_away_has_nothing(row, opened, redis_prefix):  # noqa: F811
    opened("redis").set("a", {"text": "shared"}, 60)
    assert opened("redis").get("a") == {"text": "shared"}
    with contextlib.closing(RedisCache("redis://127.0.0.1:9/0", prefix=redis_prefix)) as away:
        away.set("a", 1, 60)
        assert away.get("a") is None and away.stats().state == "degraded"
    with pytest.raises(ProviderConfigurationError):
        RedisCache("nonsense")


# ---- SQLite -------------------------------------------------------------------------------------

WRITES = """
import sys
from polyvox.compat.ai_utilities.cache import SQLiteCache
cache = SQLiteCache(sys.argv[1], max_entries=10_000)
for number in range(40):
    cache.set(f"{sys.argv[2]}-{number}", {"by": sys.argv[2]}, 600)
    cache.set(f"shared-{number}", "by somebody", 600)
assert cache.stats().errors == 0, cache.stats()
"""


@rows("S2-049")
def test_eight_processes_write_one_file_at_once_and_nothing_is_lost(row, path):
    children = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", WRITES, path, f"p{number}"], stderr=subprocess.PIPE)
        for number in range(8)
    ]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors.decode()
    with contextlib.closing(SQLiteCache(path, max_entries=10_000)) as cache:
        assert all(cache.get(f"p{who}-{number}") == {"by": f"p{who}"} for who in range(8) for number in range(40))
        assert cache.stats().size == 9 * 40


@rows("S2-049")
def test_a_value_outlives_the_cache_it_was_put_into(row, path):
    with contextlib.closing(SQLiteCache(path)) as cache:
        cache.set("greeting", {"text": "hello"}, 600)
    assert cache.get("greeting") is None  # it is closed
    with contextlib.closing(SQLiteCache(path, 10)) as cache:
        assert cache.get("greeting") == {"text": "hello"}


@rows("S2-049")
def test_a_child_of_a_fork_goes_on_with_a_connection_of_its_own(row, path):
    program = """
import os, sys
from polyvox.compat.ai_utilities.cache import SQLiteCache
cache = SQLiteCache(sys.argv[1])
cache.set("parent", 1, 60)
child = os.fork()
if not child:
    cache.set("child", cache.get("parent") + 1, 60)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert (cache.get("parent"), cache.get("child"), cache.stats().errors) == (1, 2, 0)
"""
    # The background threads of libraries are not ours: Python 3.12 warns of any fork beside them.
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@rows("S2-169", "S2-170", "S2-171", "S2-172")
def test_the_constructor_takes_a_path_and_a_bound_which_stay_readable(row, tmp_path):
    path = str(tmp_path / "made" / "for it" / "cache.db")
    with contextlib.closing(SQLiteCache(path)) as cache:
        assert (cache.db_path, cache.max_entries) == (path, 1000)
        assert Path(path).is_file() and Path(path).stat().st_mode & 0o777 == 0o600
        for number in range(1003):
            cache.set(str(number), number, 600)
        assert cache.stats().size == 1000
        assert (cache.get("2"), cache.get("3")) == (None, 3)
    for wrong in (0, True, "many"):
        with pytest.raises(AIUtilitiesError, match="max_entries"):
            SQLiteCache(path, wrong)
    for wrong in ("", ":memory:"):
        with pytest.raises(ProviderConfigurationError, match="names no file") as caught:
            SQLiteCache(wrong)
        assert "MemoryCache" in caught.value.hint
    with pytest.raises(ProviderConfigurationError, match="folder"):
        SQLiteCache(str(tmp_path))


@rows("S2-173")
def test_the_table_is_made_once_and_a_damaged_file_is_put_aside(row, path, caplog):
    with contextlib.closing(SQLiteCache(path)) as cache:
        cache.set("a", 1, 600)
        cache._init_database()
        cache._init_database()
        assert cache.get("a") == 1
    Path(path).write_bytes(b"SQLite format 3\0" + b"nothing of the kind " * 400)
    with contextlib.closing(SQLiteCache(path)) as cache:
        assert cache.get("a") is None
        cache.set("a", 2, 600)
        assert cache.get("a") == 2 and cache.stats().state == "ok"
    (aside,) = Path(path).parent.glob("cache.db.corrupt-*Z")
    assert b"nothing of the kind" in aside.read_bytes()
    assert [record.levelname for record in caplog.records] == ["WARNING"] and aside.name in caplog.text


@pytest.mark.parametrize("size", [1, 2, 99])
@rows("S2-173")
def test_what_a_short_file_says_is_put_aside_and_not_written_over(row, path, size):
    Path(path).write_bytes(b"x" * size)  # SQLite takes one of a single byte for an empty one
    with contextlib.closing(SQLiteCache(path)) as cache:
        cache.set("a", 1, 600)
        assert cache.get("a") == 1
    assert [aside.read_bytes() for aside in Path(path).parent.glob("cache.db.corrupt-*Z")] == [b"x" * size]


@rows("S2-173")
def test_a_file_that_is_damaged_or_replaced_in_use_is_begun_anew(row, path, file):
    file.set("a", 1, 600)
    for name in ("", "-wal", "-shm"):
        Path(path + name).unlink(missing_ok=True)
    assert file.get("a") is None
    file.set("a", 2, 600)
    assert file.get("a") == 2 and table(path, "SELECT count(*) FROM cache") == [(1,)]


@rows("S2-173")
def test_files_of_others_are_left_as_they_are(row, tmp_path):
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear reader, " * 100)
    with pytest.raises(AIUtilitiesError):
        SQLiteCache(str(letter))
    assert letter.read_text() == "Dear reader, " * 100
    other = tmp_path / "other.db"
    newer = "CREATE TABLE cache (id INTEGER); PRAGMA application_id=0x50565841; PRAGMA user_version=2"
    for tables, why in (
        ("CREATE TABLE cache (id INTEGER, what BLOB)", "another program"),
        ("CREATE TABLE accounts (id INTEGER)", "another program"),
        (f"{PRINTED}; PRAGMA application_id=77", "another program"),
        (newer, "newer version"),
    ):
        other.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(other)) as database, database:
            database.executescript(tables)
        before = other.read_bytes()
        with pytest.raises(ProviderConfigurationError, match=why) as caught:
            SQLiteCache(str(other))
        assert caught.value.hint == "name another file" and str(other) in str(caught.value)
        assert other.read_bytes() == before and sorted(path.name for path in tmp_path.glob("*.db*")) == ["other.db"]


@rows("S2-173")
def test_a_disk_that_takes_nothing_is_told_and_harms_nobody(row, tmp_path, caplog):
    (tmp_path / "a file").write_text("no folder")
    with contextlib.closing(SQLiteCache(str(tmp_path / "a file" / "cache.db"))) as cache:
        cache.set("a", 1, 60)
        assert cache.get("a") is None
        stats = cache.stats()
    assert stats.state == "degraded" and stats.errors >= 3 and stats.why
    assert len(caplog.records) == 1


def columns(path):
    return {name: (kind, key) for _, name, kind, _, _, key in table(path, "PRAGMA table_info(cache)")}


@rows("S2-174")
def test_any_program_reads_the_table(row, path, file):
    file.set("greeting", {"text": "hello"}, 600)
    assert table(path, "SELECT value FROM cache") == [('{"text":"hello"}',)]
    assert list(columns(path)) == ["key", "value", "namespace", "created_at", "expires_at"]


@rows("S2-175")
def test_the_key_is_the_primary_key_and_holds_the_namespace(row, path, file):
    assert columns(path)["key"] == ("TEXT", 1)
    file.set("same", 1, 600)
    file.in_namespace("b").set("same", 2, 600)
    file.in_namespace("b").set("same", 3, 600)
    assert table(path, "SELECT namespace, value FROM cache ORDER BY namespace") == [("b", "3"), ("default", "1")]
    assert (file.get("same"), file.in_namespace("b").get("same")) == (1, 3)


@rows("S2-176")
def test_a_value_is_json_text_and_what_is_not_is_left_out(row, path, file):
    assert columns(path)["value"][0] == "TEXT"
    file.set("a", {"n": [1, "ü"]}, 600)
    ((text, kind),) = table(path, "SELECT value, typeof(value) FROM cache")
    assert (json.loads(text), kind) == ({"n": [1, "ü"]}, "text")
    for damage in ("{half", b"\x80\x04K\x01.", None):  # the second one is a pickle
        file.set("a", 1, 600)
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE cache SET value = ?", (damage,))
        assert file.get("a") is None
        assert table(path, "SELECT count(*) FROM cache") == [(0,)]


@rows("S2-177")
def test_the_namespace_is_a_column_with_an_index(row, path, file):
    assert columns(path)["namespace"][0] == "TEXT"
    file.in_namespace("reports").set("a", 1, 600)
    assert table(path, "SELECT namespace FROM cache") == [("reports",)]
    plan = table(path, "EXPLAIN QUERY PLAN DELETE FROM cache WHERE namespace = 'x'")
    assert "USING" in plan[0][3] and "namespace" in plan[0][3]


@rows("S2-178", "S2-179")
def test_times_are_utc_and_no_end_is_null(row, path, clock, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    with contextlib.closing(SQLiteCache(path, wall=clock)) as cache:
        cache.set("minute", 1, 60)
        cache.set("endless", 1, None)
    assert columns(path)["created_at"][0] == columns(path)["expires_at"][0] == "TIMESTAMP"
    # SQLite's own functions read them.
    found = table(path, "SELECT unixepoch(created_at), unixepoch(expires_at) FROM cache ORDER BY key DESC")
    assert found == [(int(clock.now), int(clock.now) + 60), (int(clock.now), None)]
    assert table(path, "SELECT created_at FROM cache LIMIT 1") == [("2027-01-15 08:00:00.000000",)]
    plan = table(path, "EXPLAIN QUERY PLAN DELETE FROM cache WHERE expires_at <= 'x'")
    assert "expires_at" in plan[0][3]


PRINTED = """CREATE TABLE cache (
    key TEXT PRIMARY KEY, value TEXT, namespace TEXT, created_at TIMESTAMP, expires_at TIMESTAMP)"""


@rows("S2-173", "S2-174")
def test_a_file_that_the_printed_class_made_is_taken_over(row, path, clock):
    begun = clock.now - 100
    given = [
        ("date", '"a"', "default", "2027-01-15 07:00:00", "2027-01-15T09:00:00+00:00"),
        ("number", '"b"', None, begun, clock.now + 60),
        ("endless", '{"n": 1}', "reports", None, None),
        ("over", '"c"', "default", begun, clock.now - 1),
        ("no JSON", "plain words", "default", begun, None),
        ("no time", '"d"', "default", begun, "soon"),
        (None, '"e"', "default", begun, None),
    ]
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(PRINTED)
        database.executemany("INSERT INTO cache VALUES (?, ?, ?, ?, ?)", given)
    for _ in range(2):
        with contextlib.closing(SQLiteCache(path, wall=clock)) as cache:
            found = {key: cache.get(key) for key, *_ in given if key}
            assert found == {
                "date": "a", "number": "b", "endless": None, "over": None, "no JSON": None, "no time": None,
            }  # fmt: skip
            assert cache.in_namespace("reports").get("endless") == {"n": 1}
            assert cache.stats().size == 3
    clock.now += 61
    with contextlib.closing(SQLiteCache(path, wall=clock)) as cache:
        assert (cache.get("date"), cache.get("number")) == ("a", None)


# ---- keys ---------------------------------------------------------------------------------------

BASE = {"prompt": "Why?", "provider": "openai", "model": "gpt-4", "temperature": 0.7}


def key(**changes):
    return _generate_cache_key(**{**BASE, **changes})


@rows("S2-154")
def test_the_function_takes_what_is_documented_in_that_order(row):
    made = _generate_cache_key("Why?", "openai", "gpt-4", 0.7, max_tokens=5)
    assert made == key(max_tokens=5) != key()
    with pytest.raises(TypeError):
        _generate_cache_key("Why?", "openai", "gpt-4")
    for wrong in ({"prompt": 5}, {"provider": None}, {"model": b"m"}, {"temperature": "warm"}, {"temperature": True}):
        with pytest.raises(AIUtilitiesError, match=next(iter(wrong))):
            key(**wrong)


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        pytest.param("S2-155", [{"prompt": "Why"}, {"prompt": "Why? "}, {"prompt": "Why?\n"}], id="S2-155"),
        pytest.param("S2-156", [{"provider": "groq"}, {"provider": "OpenAI"}], id="S2-156"),
        pytest.param("S2-157", [{"model": "gpt-4o"}, {"model": "gpt-4 "}], id="S2-157"),
        pytest.param("S2-158", [{"temperature": 0.8}, {"temperature": 0}, {"temperature": None}], id="S2-158"),
    ],
)
def test_each_of_the_four_changes_the_key(row, changes):
    keys = [key(), *(key(**change) for change in changes)]
    assert len(set(keys)) == len(keys) and all(len(made) == 64 for made in keys)


@rows("S2-158")
def test_zero_is_one_temperature_however_it_is_written(row):
    assert key(temperature=0) == key(temperature=0.0) == key(temperature=-0.0) != key(temperature=0.1)
    assert key(temperature=1) == key(temperature=1.0)


class Shape(pydantic.BaseModel):
    name: str
    tags: set[str] = set()


class Other(pydantic.BaseModel):
    name: str
    tags: set[int] = set()


@dataclass
class Point:
    x: int
    tags: frozenset = frozenset()


VARIED = {
    "system": ["Be brief.", "Be long.", "", None],
    "tenant": ["a", "b"],
    "max_tokens": [5, 6],
    "tools": [[], [{"name": "a"}], [{"name": "a", "parameters": {}}], [{"name": "b"}]],
    "schema": [Shape, Other, Point, {"type": "object"}, Shape.model_json_schema()],
    "images": [b"one", b"two", [b"one"], [b"one", b"two"], Path("one.png"), Path("two.png")],
    "sets": [{"a", "b"}, {"a", "c"}, frozenset({"a"})],
    "models": [Shape(name="a"), Shape(name="b"), Shape(name="a", tags={"x", "y"}), Point(1), Point(2)],
    "tables": [{1: "a"}, {"1": "a"}, {(1, 2): "a"}, UserDict(a=1)],
    "text": ["1", 1, True, 1.5, [1], ["1"]],
}


@rows("S2-159")
def test_whatever_else_is_said_changes_the_key(row):
    made = {(): key()}
    for name, values in VARIED.items():
        for number, value in enumerate(values):
            made[name, number] = key(**{name: value})
    assert len(set(made.values())) == len(made)
    assert key(images=[b"one"]) == key(images=[bytearray(b"one")])
    assert key(sets={"b", "a"}) == key(sets={"a", "b"})


@rows("S2-159")
def test_what_only_its_address_tells_from_another_is_refused_by_name(row):
    for value in (object(), [object()], {"deep": lambda: 0}, iter([])):
        with pytest.raises(AIUtilitiesError, match="extra holds") as caught:
            key(extra=value)
        assert caught.value.param == "extra" and caught.value.hint
    endless = []
    endless.append(endless)
    with pytest.raises(AIUtilitiesError, match="extra holds"):
        key(extra=endless)


@rows("S2-159", "S2-162")
def test_the_order_of_names_says_nothing_and_that_of_lists_does(row):
    assert key(a=1, b={"x": 1, "y": [1, 2]}) == key(b={"y": [1, 2], "x": 1}, a=1)
    assert key(a=[1, 2]) != key(a=[2, 1])


@rows("S2-160")
def test_the_key_is_the_same_in_every_process(row):
    program = """
from tests.interfaces.test_ai_utilities_cache import BASE, VARIED, _generate_cache_key
for name, values in VARIED.items():
    for value in values:
        print(_generate_cache_key(**BASE, **{name: value}))
"""
    told = []
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, timeout=60)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout.split())
    assert told[0] == told[1] == [key(**{name: value}) for name, values in VARIED.items() for value in values]


@rows("S2-161", "S2-163")
def test_the_key_is_the_digest_of_the_documented_material(row):
    made = key(system="b", max_tokens=5)
    material = {**BASE, "kwargs": [["max_tokens", 5], ["system", "b"]]}
    assert made == hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()
    assert made == "4dc23901bb45233c1d9464048afec5c8ef4b3318456259386b8f654586377182"


# ---- chosen by settings -------------------------------------------------------------------------


def settings(**said):
    from polyvox.compat.ai_utilities.config_models import AiSettings

    return AiSettings(_env_file=None, **said)


@rows("S2-079")
def test_settings_choose_the_cache(row, place, redis_server, redis_prefix):  # noqa: F811
    assert create_cache(settings(cache_backend="sqlite")) is None  # off until it is switched on
    wanted = {
        "memory": (MemoryCache, {"max_entries": 7}),
        "sqlite": (SQLiteCache, {"db_path": str(place / "here.db"), "namespace": "team"}),
        "redis": (RedisCache, {"url": redis_server, "prefix": redis_prefix}),
    }
    assert cache_backends() == tuple(wanted)
    for name, (kind, options) in wanted.items():
        cache = create_cache(settings(cache_enabled=True, cache_backend=name, cache_options=options))
        assert type(cache) is kind
        cache.set("a", name, 60)
        assert cache.get("a") == name
        cache.close()
    assert table(place / "here.db", "SELECT namespace FROM cache") == [("team",)]


@pytest.mark.parametrize("kind", KINDS)
@rows("S2-047")
def test_a_question_that_was_answered_asks_nobody_and_costs_nothing(row, kind, world, opened):
    from polyvox.compat.ai_utilities.client import AiClient

    said = settings(api_key="sk-test-cache-0123456789", model="gpt-4o-mini", base_url=world.base_url("openai.chat"))
    with AiClient(said, cache=opened(kind)) as client:
        first = client.ask("What is kept?")
        assert len(world.requests) == 1 and not first.cached
    with AiClient(said, cache=opened(kind) if kind != "memory" else client.cache) as client:
        second = client.ask("What is kept?")
        assert (second.text, second.cached, second.cost) == (first.text, True, 0)
        assert len(world.requests) == 1
        assert not client.ask("What is kept? ").cached and len(world.requests) == 2


@rows("S2-079")
def test_a_name_that_is_none_is_refused_with_those_that_there_are(row, place):
    class Said:
        cache_enabled, cache_backend = True, "memroy"

    with pytest.raises(ProviderConfigurationError, match="memory, sqlite, redis") as caught:
        create_cache(Said())
    assert "memory" in caught.value.hint


class Own(CacheBackend):
    """A cache as somebody else writes one."""

    def __init__(self, size=10):
        self.size = size
        self.kept = {}

    def get(self, key):
        return self.kept.get((self.namespace, key))

    def set(self, key, value, ttl=60):
        self.kept[self.namespace, key] = value

    def delete(self, key):
        self.kept.pop((self.namespace, key), None)

    def clear(self):
        self.kept.clear()

    def clear_namespace(self, namespace):
        for space, key in list(self.kept):
            if space == namespace:
                del self.kept[space, key]


@rows("S2-201")
def test_a_subclass_of_somebody_elses_works_as_ours_do(row):
    cache = Own()
    assert isinstance(cache, CacheBackend) and cache.namespace == "default"
    cache.set("a", 1, 60)
    other = cache.in_namespace("b")
    other.set("a", 2, 60)
    assert (cache.get("a"), other.get("a")) == (1, 2)
    cache.clear_namespace("b")
    assert (cache.get("a"), other.get("a")) == (1, None)


@pytest.fixture
def registered():
    forget = register_cache("own", Own)
    yield
    forget()
    assert "own" not in cache_backends()


@rows("S2-202", "S2-203")
def test_a_registered_cache_is_chosen_by_its_name_and_gets_its_options(row, place, registered, monkeypatch):
    assert cache_backends()[-1] == "own"
    cache = create_cache(settings(cache_enabled=True, cache_backend="Own", cache_options={"size": 3}))
    assert type(cache) is Own and cache.size == 3
    monkeypatch.setenv("AI_CACHE_ENABLED", "1")
    monkeypatch.setenv("AI_CACHE_BACKEND", "own")
    monkeypatch.setenv("AI_CACHE_OPTIONS", '{"size": 5}')
    assert create_cache(settings()).size == 5
    wrong = settings(cache_options={"colour": "red"})
    with pytest.raises(ProviderConfigurationError, match="colour") as caught:
        create_cache(wrong)
    assert "cache_options" in caught.value.hint


@rows("S2-202")
def test_what_can_be_no_cache_is_not_registered(row):
    for name, cls in (("memory", Own), ("", Own), ("two words", Own), (5, Own), ("own", dict), ("own", Own())):
        with pytest.raises(AIUtilitiesError) as caught:
            register_cache(name, cls)
        assert caught.value.hint
    assert cache_backends() == ("memory", "sqlite", "redis")
