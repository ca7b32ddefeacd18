"""A SQLite file that is locked, full, deleted, replaced or corrupt costs no answer and no row."""

import logging
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from polyvox.database import DatabaseAwayError, DatabaseError, run
from polyvox.database.files import network_system
from tests.database.things import Many, Put, things, until


@pytest.fixture
def file(tmp_path):
    return tmp_path / "things.db"


def test_file_and_folder_are_the_owners_alone(open_database, tmp_path):
    file = tmp_path / "new" / "deep" / "things.db"
    database = open_database(file)
    database.write_sync(Put("a"))
    for path in (file, file.with_name("things.db-wal")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.parent.parent.stat().st_mode) == 0o700


def test_a_commit_survives_a_power_cut_unless_that_was_given_up(open_database, tmp_path):
    for relaxed, level in ((False, 2), (True, 1)):
        database = open_database(tmp_path / f"{relaxed}.db", relaxed=relaxed)
        database.open()
        assert run(database.writer._link.connection, "PRAGMA synchronous").scalar() == level
        database.writer._link.connection.rollback()
        assert database.read_sync(lambda connection: run(connection, "PRAGMA journal_mode").scalar()) == "wal"


# ---- locked -----------------------------------------------------------------------------------


def test_a_short_lock_of_another_process_costs_a_wait_and_nothing_else(open_database, file):
    database = open_database(file)
    database.write_sync(Put("a"))
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    database.post(Put("b"))
    time.sleep(0.3)
    other.execute("ROLLBACK")
    other.close()
    assert database.write_sync(Put("c")) == "c"
    assert sorted(things(database)) == ["a", "b", "c"]


def test_a_long_lock_is_told_within_a_second_and_over_when_the_lock_is(open_database, file):
    database, many = open_database(file), Many()
    database.write_sync(Put("a"))
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    before = time.monotonic()
    with pytest.raises(DatabaseAwayError, match="locked"):
        database.write_sync(Put("b"))
    assert time.monotonic() - before < 1.5
    assert database.health().state == "away" and "locked" in database.health().why
    database.put(many, ("c", 1), None)
    until(lambda: many.kept == [("c", 1)])
    other.execute("ROLLBACK")
    other.close()
    until(lambda: database.health().state == "ok")
    assert database.write_sync(Put("d")) == "d"


def test_those_who_asked_to_be_told_are_when_the_database_is_back(open_database, file):
    database, back = open_database(file), []
    database.on_back(lambda: back.append(True))
    database.write_sync(Put("a"))
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseAwayError):
        database.write_sync(Put("b"))
    assert back == []
    other.close()
    until(lambda: back == [True])


def test_what_waited_for_the_database_goes_before_what_came_while_it_was_found_again(open_database, file):
    database = open_database(file)

    def listener():
        # Another thread is first in the queue, yet what it brings came later than what was kept all the while.
        other = threading.Thread(target=lambda: database.post(Named("later")))
        other.start()
        other.join()
        database.post(Named("kept"))

    class Named(Put):
        def apply(self, connection):
            order.append(self.name)
            return super().apply(connection)

    order = []
    database.on_back(listener)
    database.write_sync(Put("a"))
    lock = sqlite3.connect(file, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseAwayError):
        database.write_sync(Put("b"))
    lock.close()
    until(lambda: len(order) == 2)
    assert order == ["kept", "later"]


# ---- deleted and replaced ---------------------------------------------------------------------


def test_a_deleted_file_is_made_anew_and_the_write_that_met_it_is_not_lost(open_database, file, caplog):
    database = open_database(file)
    database.write_sync(Put("before"))
    file.unlink()
    database.write_sync(Put("after"))
    assert things(database) == {"after": 1}
    assert [record.message for record in caplog.records if "deleted or replaced" in record.message]


def test_the_log_of_a_deleted_file_is_not_replayed_into_its_successor(open_database, file):
    database = open_database(file)
    database.write_sync(Put("before"))
    assert file.with_name("things.db-wal").stat().st_size > 0
    file.unlink()
    for number in range(3):
        database.write_sync(Put(f"after {number}"))
    database.close()
    again = open_database(file)
    assert sorted(things(again)) == ["after 0", "after 1", "after 2"]


def test_a_file_that_was_replaced_is_gone_on_with(open_database, file, tmp_path):
    other = open_database(tmp_path / "other.db")
    other.write_sync(Put("of the other"))
    other.close()
    database = open_database(file)
    database.write_sync(Put("before"))
    os.replace(tmp_path / "other.db", file)
    database.write_sync(Put("after"))
    assert sorted(things(database)) == ["after", "of the other"]
    assert database.read_sync(lambda connection: run(connection, "PRAGMA integrity_check").scalar()) == "ok"


def test_two_processes_meet_in_the_new_file_after_a_deletion(open_database, file):
    one, other = open_database(file), open_database(file)
    one.write_sync(Put("one before"))
    other.write_sync(Put("other before"))
    file.unlink()
    one.write_sync(Put("one after"))
    other.write_sync(Put("other after"))
    one.write_sync(Put("one more"))
    assert sorted(things(one)) == sorted(things(other)) == ["one after", "one more", "other after"]


# ---- corrupt ----------------------------------------------------------------------------------

DAMAGES = {
    "random bytes": lambda data: os.urandom(len(data)),
    "no database": lambda data: b"Dear diary,\n" * 1000,
    "truncated": lambda data: data[: len(data) // 2 + 100],
    "torn head": lambda data: data[:60],
    "damaged pages": lambda data: data[:4096] + os.urandom(len(data) - 4096),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_corrupt_file_is_put_aside_with_one_warning_and_another_takes_its_place(open_database, file, how, caplog):
    database = open_database(file)
    for number in range(200):
        database.post(Put(f"before {number}"))
    database.close()
    damaged = DAMAGES[how](file.read_bytes())
    file.write_bytes(damaged)
    database = open_database(file)
    for number in range(10):
        database.write_sync(Put(f"after {number}"))
    assert len(things(database)) == 10
    aside = [path for path in file.parent.glob("things.db.corrupt-*") if not path.name.endswith(("-wal", "-shm"))]
    assert len(aside) == 1 and aside[0].read_bytes()[:4096] == damaged[:4096]
    assert len([record for record in caplog.records if "was corrupt" in record.message]) == 1


def test_a_file_that_becomes_corrupt_in_use_is_put_aside_and_the_write_goes_to_the_new_one(open_database, file):
    database = open_database(file)
    for number in range(500):
        database.post(Put(f"before {number}" * 20))
    database.write_sync(Put("last"))
    run(database.writer._link.connection, "SELECT 1")
    database.writer._link.connection.rollback()
    # All of it from the log into the file, and then the file damaged under us, inode and all.
    checkpoint = sqlite3.connect(file)
    checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    checkpoint.close()
    with file.open("r+b") as handle:
        handle.seek(0)
        handle.write(os.urandom(file.stat().st_size))
    for number in range(3):
        database.write_sync(Put(f"after {number}"))
    assert sorted(things(database)) == ["after 0", "after 1", "after 2"]
    assert list(file.parent.glob("things.db.corrupt-*"))


def test_an_empty_file_is_a_new_database(open_database, file):
    file.touch()
    database = open_database(file)
    database.write_sync(Put("a"))
    assert things(database) == {"a": 1} and list(file.parent.glob("*.corrupt-*")) == []


# ---- full and read-only -----------------------------------------------------------------------


def test_a_full_disk_is_told_and_what_fits_again_is_written(tmp_path):
    """In a process of its own, whose files cannot grow beyond a limit."""
    code = """
    import resource, signal, sys, time
    from polyvox.database import DatabaseAwayError, Database
    from tests.database.things import STEPS, Many, Put, things, until
    database, many = Database(sys.argv[1], steps=STEPS), Many()
    database.write_sync(Put("before"))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = 200_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    refused = 0
    for number in range(400):
        try:
            database.write_sync(Put("x" * 2000 + str(number)))
        except DatabaseAwayError:
            refused += 1
    assert refused, "the limit was not reached"
    assert database.health().state == "away", database.health()
    database.put(many, ("kept", 1), None)
    until(lambda: many.kept)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    until(lambda: database.health().state == "ok")
    database.write_sync(Put("after"))
    found = things(database)
    assert {"before", "after"} <= set(found) and len(found) == 402 - refused, (len(found), refused)
    database.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "things.db")], capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_file_that_cannot_be_made_is_away_and_nothing_worse(open_database, tmp_path):
    (tmp_path / "file").write_text("no folder")
    database = open_database(tmp_path / "file" / "things.db")
    with pytest.raises(DatabaseAwayError):
        database.write_sync(Put("a"))
    with pytest.raises(DatabaseError):
        things(database)
    assert database.health().state == "away"


def test_a_network_file_system_is_known_by_its_mount(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/x {tmp_path}/far nfs4 rw 0 0\n/dev/a / ext4 rw 0 0\n//s/y {tmp_path}/b\\040c cifs rw\n")
    for folder in ("far", "b c", "near"):
        (tmp_path / folder).mkdir()
    assert network_system(tmp_path / "far", mounts) == "nfs4"
    assert network_system(tmp_path / "b c", mounts) == "cifs"
    assert network_system(tmp_path / "near", mounts) is None
    assert network_system(tmp_path / "near", tmp_path / "nothing") is None


def test_a_network_file_system_is_warned_about_once(open_database, file, monkeypatch, caplog):
    monkeypatch.setattr("polyvox.database.files.network_system", lambda path: "nfs4")
    with caplog.at_level(logging.WARNING, "polyvox"):
        open_database(file).write_sync(Put("a"))
    assert len([record for record in caplog.records if "network file system" in record.message]) == 1


# ---- forks ------------------------------------------------------------------------------------


def test_a_child_writes_by_itself_and_leaves_the_parents_connection_alone(tmp_path):
    code = """
    import os, sys
    from polyvox.database import Database
    from tests.database.things import STEPS, Put, things
    database = Database(sys.argv[1], steps=STEPS)
    database.write_sync(Put("parent before"))
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            database.write_sync(Put(f"child {number}"))
            database.close()
            os._exit(0)
        children.append(child)
        database.write_sync(Put(f"parent {number}"))
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    database.write_sync(Put("parent after"))
    assert len(things(database)) == 8, things(database)
    database.close()
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code), str(tmp_path / "things.db")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_what_was_handed_over_is_written_when_the_program_just_ends(open_database, file):
    code = """
    import sys
    from polyvox.database import Database
    from tests.database.things import STEPS, Put
    database = Database(sys.argv[1], steps=STEPS)
    for number in range(300):
        database.post(Put(f"n{number}"))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(file)], check=True, timeout=60)
    assert len(things(open_database(file))) == 300


@pytest.mark.parametrize("name", ["a b.db", "what?.db", "50%.db", "ü#1.db", "a'b.db"])
def test_any_name_of_a_file_is_that_file(open_database, tmp_path, name):
    database = open_database(tmp_path / name)
    database.write_sync(Put("a"))
    assert things(database) == {"a": 1} and (tmp_path / name).stat().st_size > 0
    assert {path.name.removesuffix("-wal").removesuffix("-shm") for path in tmp_path.iterdir()} == {name}
