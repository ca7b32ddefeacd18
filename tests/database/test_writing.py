"""What is handed to the writer is written once, all or nothing, and whoever waits learns what came of it."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from polyvox.database import DatabaseAwayError, DatabaseError, Together, Unit, run
from polyvox.errors import InputError, UsageError
from tests.database.things import Add, Many, Put, Refuse, things, until


async def at_once(database, *units):
    return await asyncio.gather(*[database.write(unit) for unit in units], return_exceptions=True)


def test_a_unit_gives_its_result_once_it_is_committed(open_database, place):
    database = open_database(place)
    assert database.write_sync(Put("a", 5)) == "a"
    assert asyncio.run(database.write(Put("b", 6))) == "b"
    other = open_database(place)
    assert things(other) == {"a": 5, "b": 6}


def test_what_comes_together_is_one_transaction(open_database, place):
    database = open_database(place, window=0.2)
    database.open()
    asyncio.run(at_once(database, *[Put(f"n{number}") for number in range(500)]))
    assert len(things(database)) == 500
    assert database.health().batches <= 5


def test_one_that_comes_alone_does_not_wait_for_others(open_database, place):
    naps = []
    database = open_database(place, window=10, sleep=naps.append)
    for number in range(5):
        database.write_sync(Put(f"n{number}"))
    assert naps == []


def test_relaxed_it_gathers_rows_that_nobody_waits_for_until_somebody_does(open_database, place, monkeypatch):
    monkeypatch.setattr("polyvox.database.writer.GATHERED", 3600)
    database = open_database(place, relaxed=True)
    database.open()
    rows, before = Many(), database.health().batches
    for number in range(100):
        database.put(rows, (f"n{number}", 1), None)
    assert database.write_sync(Put("waited for"), timeout=30) == "waited for"
    assert len(things(database)) == 101
    assert database.health().batches == before + 1
    database.put(rows, ("last", 1), None)
    database.close()
    assert rows.together == [100, 1]


def test_relaxed_what_did_not_fit_into_a_transaction_does_not_wait_for_more(open_database, place, monkeypatch):
    monkeypatch.setattr("polyvox.database.writer.GATHERED", 3600)
    database = open_database(place, relaxed=True)
    database.open()
    rows = Many()
    for number in range(2000):
        database.put(rows, (f"n{number}", 1), None)
    database.write_sync(Put("waited for"), timeout=30)
    assert len(things(database)) == 2001
    assert sum(rows.together) == 2000


def test_while_others_come_it_waits_for_them_no_longer_than_the_window(open_database, place):
    naps = []
    database = open_database(place, window=10, sleep=naps.append)
    database.open()
    gate = threading.Event()

    class Hold(Unit):
        def apply(self, connection):
            gate.wait(10)

    database.post(Hold())
    waiting = [Put(f"n{number}") for number in range(3)]
    for unit in waiting:
        database.post(unit)
    gate.set()
    until(lambda: len(things(database)) == 3)
    database.write_sync(Put("late"))
    assert naps and all(0 < nap <= 10 for nap in naps)


def test_a_unit_that_fails_harms_no_other_in_its_transaction(open_database, place):
    database = open_database(place, window=0.1)
    database.write_sync(Put("there"))
    results = asyncio.run(at_once(database, Put("a"), Put("there"), Refuse(), Put("b"), Put("b")))
    assert results[0] == "a" and results[3] == "b"
    assert isinstance(results[1], DatabaseError) and isinstance(results[4], DatabaseError)
    assert isinstance(results[2], InputError) and results[2].message == "not this one"
    assert things(database) == {"there": 1, "a": 1, "b": 1}


def test_a_programming_error_in_a_unit_is_told_to_its_caller_alone(open_database, place):
    class Broken(Unit):
        def apply(self, connection):
            return {}["no such key"]

    database = open_database(place)
    results = asyncio.run(at_once(database, Put("a"), Broken(), Put("b")))
    assert results[0] == "a" and results[2] == "b" and isinstance(results[1], DatabaseError)
    assert sorted(things(database)) == ["a", "b"]


def test_units_together_are_written_all_or_none(open_database, place):
    database = open_database(place)
    assert database.write_sync(Together(Put("a"), Put("b"))) == ["a", "b"]
    with pytest.raises(DatabaseError):
        database.write_sync(Together(Put("c"), Put("a")))
    with pytest.raises(InputError):
        database.write_sync(Together(Put("d"), Refuse()))
    assert sorted(things(database)) == ["a", "b"]


def test_rows_of_a_kind_go_out_together_and_a_bad_one_alone_is_refused(open_database, place):
    database, many = open_database(place, window=0.2), Many()
    database.open()
    for number in range(100):
        database.put(many, (f"n{number}", number), None)
    database.write_sync(Put("last"))
    assert max(many.together) > 10
    for row in [("x", 1), ("bad", None), ("y", 2)]:
        database.put(many, row, None)
    database.write_sync(Put("very last"))
    assert {"x", "y"} <= set(things(database)) and "bad" not in things(database)
    assert many.kept == [("bad", None)] and isinstance(many.errors[0], DatabaseError)


def test_rows_wait_too_where_somebody_asks(open_database, place):
    database, many = open_database(place), Many()

    async def write():
        future = asyncio.get_running_loop().create_future()
        database.put(many, ("a", 1), future)
        return await future

    assert asyncio.run(write()) is None
    assert things(database) == {"a": 1}


def test_reading_and_writing_in_a_unit_is_atomic_between_threads_and_databases(open_database, place):
    databases = [open_database(place) for _ in range(3)]
    databases[0].write_sync(Put("sum", 0))

    def add(number):
        return databases[number % 3].write_sync(Add("sum", 1, most=50))

    with ThreadPoolExecutor(12) as pool:
        granted = list(pool.map(add, range(120)))
    assert granted.count(True) == 50 and things(databases[0]) == {"sum": 50}


def test_two_event_loops_use_one_database_at_once(open_database, place):
    database = open_database(place)

    def one_loop(name):
        return asyncio.run(at_once(database, *[Put(f"{name}{number}") for number in range(50)]))

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(one_loop, ["a", "b"]))
    assert all(isinstance(result, str) for some in results for result in some)
    assert len(things(database)) == 100


def test_a_loop_that_was_closed_meanwhile_harms_no_other(open_database, place):
    database = open_database(place)
    gate = threading.Event()

    class Hold(Unit):
        def apply(self, connection):
            gate.wait(10)

    left = []

    async def leave():
        left.append(asyncio.ensure_future(database.write(Put("left"))))
        await asyncio.sleep(0)

    database.post(Hold())
    asyncio.run(leave())
    gate.set()
    assert database.write_sync(Put("after")) == "after"
    assert sorted(things(database)) == ["after", "left"]


def test_what_was_written_for_a_caller_who_was_cancelled_is_undone(open_database, place):
    class Take(Unit):
        def apply(self, connection):
            run(connection, "INSERT INTO things VALUES ('taken', 1)")
            return "taken"

        def undo(self, result):
            return Give(result)

    class Give(Unit):
        def __init__(self, name):
            self.name = name

        def apply(self, connection):
            run(connection, "DELETE FROM things WHERE name = ?", (self.name,))

    database = open_database(place)
    gate = threading.Event()

    class Hold(Unit):
        def apply(self, connection):
            gate.wait(10)

    async def leave():
        database.post(Hold())
        task = asyncio.ensure_future(database.write(Take()))
        await asyncio.sleep(0.05)
        task.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.2)

    asyncio.run(leave())
    database.write_sync(Put("after"))
    until(lambda: things(database) == {"after": 1})


def test_what_came_in_the_moment_of_a_cancellation_is_undone(open_database, place):
    """The writer has told the result, and the caller is cancelled before it runs on."""

    class Take(Put):
        def undo(self, result):
            return Put(f"undone {result}")

    async def cancelled_late():
        loop = asyncio.get_running_loop()
        task = loop.create_task(database.write(Take("late")))
        await asyncio.sleep(0)
        database.write_sync(Put("after"))  # its turn is later: the first one's result waits for the loop now
        loop.call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    database = open_database(place)
    asyncio.run(cancelled_late())
    until(lambda: "undone late" in things(database))


def test_units_together_are_undone_together_last_first(open_database, place):
    class Take(Put):
        def undo(self, result):
            return Note(f"undone {result}")

    class Note(Put):
        pass

    both = Together(Take("a"), Put("b"), Take("c"))
    undoing = both.undo(["a", "b", "c"])
    assert [unit.name for unit in undoing.units] == ["undone c", "undone a"]
    assert Together(Put("a")).undo(["a"]) is None
    database = open_database(place)
    database.write_sync(both)
    database.write_sync(undoing)
    assert sorted(things(database)) == ["a", "b", "c", "undone a", "undone c"]


def test_each_unit_has_its_own_answer_to_a_database_that_is_away(open_database, tmp_path):
    class Calm(Put):
        def refused(self, error):
            return f"later: {self.name}"

    (tmp_path / "file").write_text("no folder")
    database = open_database(tmp_path / "file" / "things.db")
    results = asyncio.run(at_once(database, Calm("a"), Put("b"), Together(Calm("c"), Calm("d")), Together(Put("e"))))
    assert results[0] == "later: a" and results[2] == ["later: c", "later: d"]
    assert isinstance(results[1], DatabaseAwayError) and isinstance(results[3], DatabaseAwayError)


def test_what_no_row_can_be_made_of_is_told_and_harms_no_other(open_database, place):
    class Picky(Many):
        def prepare(self, said):
            return {"good": ("good", 1)}[said]

    database, picky = open_database(place), Picky()

    async def hand_over():
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(3)]
        for future, said in zip(futures, ["good", "bad", "good"], strict=True):
            database.put(picky, said, future)
        return await asyncio.gather(*futures, return_exceptions=True)

    first, second, third = asyncio.run(hand_over())
    assert first is None and third is None and isinstance(second, DatabaseError)
    assert things(database) == {"good": 1}


def test_committed_is_told_before_the_caller_goes_on(open_database, place):
    told = []

    class Tell(Put):
        def committed(self, result):
            told.append(result)

    database = open_database(place)
    database.write_sync(Tell("a"))
    assert told == ["a"]


def test_closing_writes_what_was_handed_over_and_refuses_what_comes_later(open_database, place):
    database = open_database(place)
    for number in range(200):
        database.post(Put(f"n{number}"))
    database.close()
    assert len(things(open_database(place))) == 200
    with pytest.raises(UsageError, match="closed"):
        database.write_sync(Put("late"))
    with pytest.raises(UsageError, match="closed"):
        asyncio.run(database.write(Put("late")))


def test_nobody_waits_for_ever_whenever_the_database_is_closed(open_database, tmp_path):
    """Threads hand things over while it closes: each is written or refused."""
    for round in range(20):
        database = open_database(tmp_path / f"{round}.db")
        database.open()

        def write(number, database=database):
            try:
                return database.write_sync(Put(str(number)), timeout=20)
            except (UsageError, DatabaseAwayError) as error:
                assert "did not write" not in str(error)
                return None

        with ThreadPoolExecutor(8) as pool:
            results = pool.map(write, range(40))
            database.close()
            written = {result for result in results if result}
        assert set(things(open_database(tmp_path / f"{round}.db"))) == written


def test_who_is_told_that_it_is_back_may_close_it(open_database, tmp_path):
    (tmp_path / "folder").write_text("in the way")
    database = open_database(tmp_path / "folder" / "things.db")
    database.on_back(database.close)
    database.open()
    assert database.health().state == "away"
    (tmp_path / "folder").unlink()
    until(lambda: not database.writer._thread.is_alive())


def test_a_reader_cannot_write(open_database, place):
    database = open_database(place)
    database.open()
    with pytest.raises(DatabaseError):
        database.read_sync(lambda connection: run(connection, "INSERT INTO things VALUES ('x', 1)"))
    assert things(database) == {}


def test_what_a_reader_raises_is_raised_as_it_is(open_database, place):
    def fail(connection):
        raise InputError("mine")

    with pytest.raises(InputError, match="mine"):
        open_database(place).read_sync(fail)


def test_a_question_mark_and_a_percent_sign_in_a_value_are_just_that(open_database, place):
    database = open_database(place)
    database.write_sync(Put("50 % ? %s"))
    assert list(things(database)) == ["50 % ? %s"]
