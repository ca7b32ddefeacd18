"""The store in a file: it outlives the process, is shared by processes, and never fails a call, whatever becomes of the
file."""

import asyncio
import contextlib
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import time

import pytest

from polyvox.errors import ConfigError
from polyvox.stores import SQLiteStore
from polyvox.stores.frame import framed

WARNINGS = "polyvox.stores"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@contextlib.asynccontextmanager
async def opened(path, **options):
    store = SQLiteStore(path, **options)
    try:
        yield store
    finally:
        await store.close()


def trial(path, test, **options):
    async def whole():
        async with opened(path, **options) as store:
            return await test(store)

    return asyncio.run(whole())


def fill(path, many=3, **options):
    async def test(store):
        for number in range(many):
            await store.put("a", str(number), b"value %d" % number)

    trial(path, test, **options)


async def eventually(condition):
    until = time.monotonic() + 20
    while not await condition():
        assert time.monotonic() < until
        await asyncio.sleep(0.02)


def warned(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


# ---- what it keeps ----------------------------------------------------------------------------


def test_a_value_outlives_the_store_that_it_was_put_into(path):
    fill(path)

    async def test(store):
        assert await store.get("a", "1") == b"value 1"
        assert await store.spaces() == ("a",)

    trial(path, test)


def test_the_file_and_its_folder_are_for_the_owner_alone(tmp_path):
    path = tmp_path / "new" / "store.db"

    async def test(store):
        await store.put("a", "k", b"1")
        for name in (path, path.with_name("store.db-wal"), path.with_name("store.db-shm")):
            assert stat.S_IMODE(name.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    trial(path, test)


def test_any_program_can_read_the_table(path):
    fill(path, 2)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT key, expires_at FROM cache ORDER BY key").fetchall()
    assert rows == [("0", None), ("1", None)]


def test_the_least_recently_used_entry_goes_first_as_far_as_reads_were_noted(path):
    async def test(store):
        for key in "123":
            await store.put("a", key, b"x")
            clock.append(clock[-1] + 1)
        await store.get("a", "1")
        clock.append(clock[-1] + 20)
        await store.get("a", "1")  # reads are noted by now
        await store.put("a", "4", b"x")
        assert [await store.get("a", key) for key in "1234"] == [b"x", None, b"x", b"x"]
        return await store.stats()

    clock = [1_000_000.0]
    stats = trial(path, test, max_entries=3, wall=lambda: clock[-1], clock=lambda: clock[-1])
    assert (stats.entries, stats.evictions) == (3, 1)


def test_reads_are_noted_at_the_end_too(path):
    clock = [1_000_000.0]

    async def first(store):
        for key in "12":
            await store.put("a", key, b"x")
        clock[0] += 1
        await store.get("a", "1")

    async def second(store):
        await store.put("a", "3", b"x")
        assert [await store.get("a", key) for key in "123"] == [b"x", None, b"x"]

    for test in (first, second):
        trial(path, test, max_entries=2, wall=lambda: clock[0])


def test_bytes_are_bounded_too(path):
    async def test(store):
        for number in range(50):
            await store.put("a", f"{number:02}", b"x" * 97)
        stats = await store.stats()
        assert (stats.entries, stats.bytes) == (10, 1000)
        assert await store.get("a", "49") is not None
        assert not await store.put("a", "50", b"x" * 2000)

    trial(path, test, max_bytes=1000)


def test_what_is_over_goes_by_itself(path):
    clock = [1_000_000.0]

    async def test(store):
        for number in range(20):
            await store.put("a", str(number), b"x", ttl=10)
        clock[0] += 100
        await store.put("b", "k", b"x")
        stats = await store.stats()
        assert (stats.entries, stats.expired) == (1, 20)

    trial(path, test, wall=lambda: clock[0])


# ---- clocks -----------------------------------------------------------------------------------


def test_what_a_wrong_clock_wrote_into_the_future_is_not_believed(path):
    now = time.time()

    async def write(store):
        await store.put("a", "k", b"x", ttl=3600)

    async def read(store):
        assert await store.get("a", "k") is None
        assert await store.add("a", "k", b"y")

    trial(path, write, wall=lambda: now + 86_400)
    trial(path, read, wall=lambda: now)


def test_a_clock_that_is_a_little_behind_still_reads_what_others_wrote(path):
    now = time.time()

    async def write(store):
        await store.put("a", "k", b"x", ttl=3600)

    async def read(store):
        assert await store.get("a", "k") == b"x"

    trial(path, write, wall=lambda: now + 60)
    trial(path, read, wall=lambda: now)


def test_a_wall_clock_that_jumps_ends_no_entry_and_keeps_none(path, monkeypatch):
    async def test(store):
        await store.put("a", "k", b"x", ttl=3600)
        for jump in (86_400, -86_400):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            assert await store.get("a", "k") == b"x"
            assert not await store.add("a", "k", b"y")

    real = time.time
    trial(path, test)


# ---- damage -----------------------------------------------------------------------------------


def scramble(path):
    path.write_bytes(os.urandom(8192))


def truncate(path):
    path.write_bytes(path.read_bytes()[:5000])


def damage_pages(path):
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(bytes(data))


def no_database(path):
    path.write_text("# these are not the pages you are looking for\n" * 50)


def wrong_schema(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE cache")
        connection.execute("CREATE TABLE cache (something TEXT)")


def older_schema(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=0")


DAMAGE = [scramble, truncate, damage_pages, no_database, wrong_schema, older_schema]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_row_54_a_damaged_file_is_put_aside_and_begun_anew_with_one_warning(path, damage, caplog):
    fill(path, 40)
    damage(path)

    async def test(store):
        with caplog.at_level(logging.INFO, WARNINGS):
            await store.get("a", "1")
            await store.put("a", "new", b"1")
            await store.get("a", "2")
        assert await store.get("a", "new") == b"1"
        assert (await store.stats()).state == "ok"

    trial(path, test)
    assert len(warned(caplog)) == 1
    assert len(list(path.parent.glob("store.db.corrupt-*[0-9Z]"))) == 1
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT key FROM cache").fetchall() == [("new",)]


def test_row_54_a_file_of_no_length_is_begun_anew(path):
    path.touch()

    async def test(store):
        assert await store.get("a", "k") is None
        await store.put("a", "k", b"1")
        assert await store.get("a", "k") == b"1"

    trial(path, test)


@pytest.mark.parametrize("damage", [scramble, no_database], ids=lambda damage: damage.__name__)
def test_row_54_a_file_damaged_while_in_use_is_put_aside(path, damage, caplog):
    async def test(store):
        await store.put("a", "k", b"x" * 5000)
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        damage(path)

        async def works():
            return await store.put("a", "k", b"2") and await store.get("a", "k") == b"2"

        await eventually(works)
        assert (await store.stats()).state == "ok"

    trial(path, test)
    assert list(path.parent.glob("store.db.corrupt-*"))


def tampered(path, value):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE cache SET value = ? WHERE key = '1'", (value,))
        connection.commit()


@pytest.mark.parametrize(
    "value",
    [b"", b"\x80\x04\x95cos\nsystem\n.", b'{"message": "hi"}', framed("a", "2", b"value 2"), framed("b", "1", b"value"),
     b"PVX\x02" + framed("a", "1", b"value 1")[4:], framed("a", "1", b"value 1")[:-1], "text", 17, b"x" * 3_000_000],
    ids=["empty", "pickle", "bare", "other key", "other space", "other version", "cut", "text", "number", "huge"],
)  # fmt: skip
def test_rows_55_and_57_an_entry_that_was_tampered_with_is_a_miss_and_is_removed(path, value, caplog):
    fill(path)
    tampered(path, value)

    async def test(store):
        with caplog.at_level(logging.INFO, WARNINGS):
            assert await store.get("a", "1") is None
            assert await store.get("a", "1") is None
        assert await store.get("a", "2") == b"value 2"
        stats = await store.stats()
        assert (stats.entries, stats.damaged, stats.state) == (2, 1, "ok")
        assert await store.add("a", "1", b"again")

    trial(path, test)
    assert len(warned(caplog)) == 1


def test_a_database_of_another_program_is_left_alone(path, caplog):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
        connection.execute("INSERT INTO theirs VALUES (1)")
        connection.commit()
    before = path.read_bytes()

    async def test(store):
        with caplog.at_level(logging.INFO, WARNINGS):
            assert not await store.put("a", "k", b"1")
            assert not await store.put("a", "k", b"1")
            assert await store.get("a", "k") is None
        stats = await store.stats()
        assert stats.state == "degraded"
        assert "another program" in stats.why

    trial(path, test)
    assert path.read_bytes() == before
    assert len(warned(caplog)) == 1
    assert [name.name for name in path.parent.iterdir()] == ["store.db"]


def test_a_file_of_a_newer_version_is_left_alone(path):
    fill(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")

    async def test(store):
        assert not await store.put("a", "k", b"1")
        assert "newer version" in (await store.stats()).why

    trial(path, test)
    assert path.exists()
    assert not list(path.parent.glob("*corrupt*"))


def test_a_folder_is_no_store(tmp_path):
    with pytest.raises(ConfigError):
        SQLiteStore(tmp_path)


# ---- locked, deleted, full --------------------------------------------------------------------


def test_row_56_a_locked_file_delays_no_read_and_fails_no_call(path, caplog):
    fill(path)

    async def test(store):
        assert await store.get("a", "1") == b"value 1"
        await store.put("a", "warm", b"1")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            assert await store.get("a", "1") == b"value 1"
            assert time.monotonic() - started < 0.9  # less than a writer's patience
            with caplog.at_level(logging.INFO, WARNINGS):
                assert not await store.put("a", "k", b"1")
                assert not await store.put("a", "k", b"1")
            assert time.monotonic() - started < 8
            stats = await store.stats()
            assert stats.state == "degraded"
            assert stats.errors >= 2
            other.execute("COMMIT")
        assert await store.put("a", "k", b"2")
        assert await store.get("a", "k") == b"2"
        assert (await store.stats()).state == "ok"

    trial(path, test)
    assert len(warned(caplog)) == 1


def test_row_56_a_file_that_nobody_else_may_even_read_is_a_miss(path):
    fill(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("DELETE FROM cache WHERE key = '0'")

        async def test(store):
            started = time.monotonic()
            assert await store.get("a", "1") is None
            assert time.monotonic() - started < 0.9
            assert not await store.put("a", "k", b"1")

        trial(path, test)


def test_row_58_a_deleted_file_is_made_anew(path):
    async def test(store):
        await store.put("a", "k", b"1")
        assert await store.get("a", "k") == b"1"
        for name in path.parent.glob("store.db*"):
            name.unlink()
        assert await store.put("a", "l", b"2")
        assert (await store.get("a", "k"), await store.get("a", "l")) == (None, b"2")
        assert path.exists()

    trial(path, test)


def test_row_58_a_replaced_file_is_taken_as_it_is_and_an_old_log_does_it_no_harm(path, tmp_path):
    other = tmp_path / "other" / "store.db"
    fill(other, 5)

    async def test(store):
        await store.put("a", "only here", b"1")
        path.unlink()
        os.rename(other, path)
        assert await store.put("a", "l", b"2")
        assert await store.get("a", "4") == b"value 4"
        assert await store.get("a", "only here") is None

    trial(path, test)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


FULL = """
import asyncio, resource, signal, sys
from polyvox.stores import SQLiteStore

async def main(path):
    store = SQLiteStore(path)
    assert await store.put("a", "before", b"1")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    kept = [await store.put("a", str(n), b"x" * 50_000) for n in range(20)]
    assert not all(kept), kept
    assert await store.get("a", "before") == b"1"
    stats = await store.stats()
    assert stats.state == "degraded" and stats.why, stats
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert await store.put("a", "after", b"2")
    assert await store.get("a", "after") == b"2"
    assert (await store.stats()).state == "ok"
    await store.close()

asyncio.run(main(sys.argv[1]))
"""


def alone(program, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_row_57_a_full_disk_fails_no_call_and_is_forgotten_once_there_is_room(path):
    alone(FULL, path)


def test_row_57_a_folder_that_cannot_be_made_fails_no_call(tmp_path):
    (tmp_path / "file").touch()

    async def test(store):
        assert not await store.put("a", "k", b"1")
        assert await store.get("a", "k") is None
        assert (await store.stats()).state == "degraded"

    trial(tmp_path / "file" / "store.db", test)


# ---- processes --------------------------------------------------------------------------------

WRITES = """
import asyncio, sys
from polyvox.stores import SQLiteStore

async def main(path, name):
    store = SQLiteStore(path)
    for n in range(40):
        assert await store.put(name, str(n), name.encode() * 20), (await store.stats()).why
        await store.add("all", str(n), name.encode())
    await store.close()
    assert (await store.stats()).errors <= 1

asyncio.run(main(*sys.argv[1:]))
"""


def test_eight_processes_write_at_once_and_nothing_is_lost(path):
    children = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", WRITES, path, f"p{number}"], stderr=subprocess.PIPE)
        for number in range(8)
    ]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors.decode()

    async def test(store):
        for number in range(8):
            for key in range(40):
                assert await store.get(f"p{number}", str(key)) == b"p%d" % number * 20
        assert (await store.stats()).entries == 9 * 40

    trial(path, test)


ENDLESS = """
import asyncio, sys
from polyvox.stores import SQLiteStore

async def main(path):
    store = SQLiteStore(path)
    n = 0
    while True:
        n += 1
        await store.put("a", str(n), b"%d" % n * 1000)
        print(n, flush=True)

asyncio.run(main(sys.argv[1]))
"""


def test_a_process_that_is_killed_while_it_writes_leaves_a_sound_file(path):
    for lines in (1, 7, 40):
        child = subprocess.Popen([sys.executable, "-c", ENDLESS, path], stdout=subprocess.PIPE)
        for _ in range(lines):
            last = int(child.stdout.readline())
        child.kill()
        child.wait(20)
        child.stdout.close()

        async def test(store):
            assert await store.get("a", str(last)) == b"%d" % last * 1000
            assert await store.put("a", "after", b"1")
            assert (await store.stats()).state == "ok"

        trial(path, test)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not list(path.parent.glob("*corrupt*"))


def test_one_process_reads_what_another_wrote_a_moment_ago(path):
    async def test(store):
        assert await store.get("p", "1") is None
        await asyncio.to_thread(alone, WRITES, path, "p")

        async def there():
            return await store.get("p", "1") == b"p" * 20

        await eventually(there)

    trial(path, test)


LEFT = """
import asyncio, sys
from polyvox.stores import SQLiteStore
store = SQLiteStore(sys.argv[1])

async def main():
    asyncio.ensure_future(store.put("a", "k", b"1"))
    await asyncio.sleep(0)

asyncio.run(main())
"""


def test_what_was_put_is_written_when_the_process_ends_without_closing(path):
    alone(LEFT, path)

    async def test(store):
        assert await store.get("a", "k") == b"1"

    trial(path, test)


FORKS = """
import asyncio, os, sys
from polyvox.stores import SQLiteStore
store = SQLiteStore(sys.argv[1])

async def use(name):
    assert await store.put("a", name, name.encode())
    assert await store.get("a", name) == name.encode()

asyncio.run(use("before"))
pid = os.fork()
if pid == 0:
    asyncio.run(use("child"))
    asyncio.run(store.close())
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
asyncio.run(use("parent"))

async def both():
    assert [await store.get("a", name) for name in ("before", "child", "parent")] == [b"before", b"child", b"parent"]
    await store.close()

asyncio.run(both())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_that_was_forked_has_connections_of_its_own(path):
    alone(FORKS, path)
