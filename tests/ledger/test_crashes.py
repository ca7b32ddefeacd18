"""Processes are killed at any point, and the ledger still has each call that was admitted exactly once."""

import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from polyvox.ledger import Ledger
from tests.ledger.calls import begin, count, finish, make_calls, states, until
from tests.ledger.victims import Nursery

WORKERS = 16


@pytest.fixture(scope="module")
def nursery():
    found = Nursery()
    yield found
    found.close()


def killed_at_random_points(nursery, place, folder, rounds):
    """Kill so many processes one after another, then look whether the ledger and what they said agree."""
    chance, admitted, billed, done = random.Random(), set(), {}, set()
    for number in range(rounds):
        diary = nursery.live_and_die(place, folder / f"diary-{number}", WORKERS, chance.random() * 0.15)
        admitted |= diary.admitted
        billed |= diary.billed
        done |= diary.done
    with Ledger(place) as ledger:
        found = {record.id: record for record in ledger.history.export()}
        rows = ledger.history.usage()
        assert sum(row.calls for row in rows) == len(found), "a call has two rows"
        assert admitted <= set(found), "an admitted call has no row"
        # A call whose row was committed when the process died before it could say so.
        assert len(set(found) - admitted) <= rounds * WORKERS
        kinds = {record.state for record in found.values()}
        assert kinds <= {"ok", "interrupted"}, kinds
        assert {id for id, record in found.items() if record.state == "ok"} >= done
        for id, record in found.items():
            if record.state == "ok":
                assert record.cost == billed[id]
            else:
                assert record.cost is None
        assert count(ledger, "attempts") == rows[0].ok
        # To the last pico-dollar what was billed, but for what was in flight when somebody died.
        known = sum(record.cost for record in found.values() if record.state == "ok")
        assert rows[0].cost == known and rows[0].unknown_cost == rows[0].interrupted == len(found) - rows[0].ok
        assert len(done) > rounds
    assert len(os.listdir(f"{place}.spool")) == 0 if "://" not in place else True


def test_killed_at_20_random_points_every_admitted_call_has_exactly_one_row(nursery, place, tmp_path):
    killed_at_random_points(nursery, place, tmp_path, 20)


@pytest.mark.slow
def test_killed_at_200_random_points_every_admitted_call_has_exactly_one_row(nursery, place, tmp_path):
    killed_at_random_points(nursery, place, tmp_path, 200)


def test_killed_while_the_database_is_locked_the_rows_in_the_file_are_brought_home(nursery, tmp_path, open_ledger):
    import sqlite3

    place = tmp_path / "ledger.db"
    open_ledger(place).open()
    lock = sqlite3.connect(place, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    diary = nursery.live_and_die(str(place), tmp_path / "diary", WORKERS, 0.3)
    lock.close()
    assert diary.done
    with Ledger(place) as ledger:
        until(lambda: ledger.health().state == "ok" and not list((tmp_path / "ledger.db.spool").glob("*.jsonl")))
        found = states(ledger)
    assert diary.admitted <= set(found)
    assert {id for id, state in found.items() if state == "ok"} >= diary.done
    assert "open" not in found.values()


def test_calls_of_the_dead_are_marked_once_though_several_processes_start_at_once(
    nursery, place, tmp_path, open_ledger
):
    diary = nursery.live_and_die(place, tmp_path / "diary", WORKERS, 0.1)
    ledgers = [open_ledger(place) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda ledger: ledger.open(), ledgers))
    until(lambda: "open" not in states(ledgers[0]).values())
    found = states(ledgers[0])
    interrupted = [id for id, state in found.items() if state == "interrupted"]
    assert diary.admitted - diary.done and set(interrupted) >= diary.admitted - set(diary.billed)
    until(lambda: sum(ledger.health().interrupted for ledger in ledgers) == len(interrupted))
    for ledger in ledgers:
        ledger.close()
    assert states_again(place) == found


def states_again(place):
    with Ledger(place) as ledger:
        return states(ledger)


def test_calls_of_the_living_are_left_alone(open_ledger, place):
    living = open_ledger(place)
    start = begin(living)
    other = open_ledger(place)
    other.open()
    make_calls(other, 3)
    assert other.history.get(start.id).state == "open" and other.health().interrupted == 0
    finish(living, start)
    assert other.history.get(start.id).state == "ok"


def test_calls_of_another_living_process_are_left_alone_too(open_ledger, place):
    code = (
        "import sys; from polyvox.ledger import Ledger; from tests.ledger.calls import *\n"
        "ledger = Ledger(sys.argv[1]); start = begin(ledger); print(start.id, flush=True)\n"
        "sys.stdin.readline(); finish(ledger, start); ledger.close()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as living:
        id = living.stdout.readline().strip()
        ledger = open_ledger(place)
        ledger.open()
        assert ledger.history.get(id).state == "open"
        living.communicate("go on\n", timeout=30)
    assert living.returncode == 0 and ledger.history.get(id).state == "ok"


def test_an_end_that_comes_after_all_beats_interrupted(open_ledger, place):
    """A process that others took for dead, say because its connection broke, was not."""
    ledger = open_ledger(place)
    start = begin(ledger)
    other = open_ledger(place)
    other.open()
    from polyvox.ledger.instances import Bury, Claim

    other.database.write_sync(Bury(Claim(ledger.instance.number, None, None), 1, print, print))
    assert states(other) == {start.id: "interrupted"}
    finish(ledger, start)
    assert states(other) == {start.id: "ok"}


def test_what_a_process_leaves_open_when_it_ends_in_order_is_interrupted(open_ledger, place):
    ledger = open_ledger(place)
    start = begin(ledger)
    ledger.close()
    assert states_again(place) == {start.id: "interrupted"}


def test_a_process_that_slept_is_not_taken_for_dead(open_ledger, place, tmp_path):
    """SIGSTOP is no death: its lock is held."""
    code = (
        "import sys; from polyvox.ledger import Ledger; from tests.ledger.calls import *\n"
        "ledger = Ledger(sys.argv[1]); start = begin(ledger); print(start.id, flush=True)\n"
        "sys.stdin.readline(); finish(ledger, start); ledger.close()"
    )
    import signal

    with subprocess.Popen(
        [sys.executable, "-c", code, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as sleeper:
        id = sleeper.stdout.readline().strip()
        sleeper.send_signal(signal.SIGSTOP)
        ledger = open_ledger(place)
        ledger.open()
        time.sleep(0.1)
        assert ledger.history.get(id).state == "open"
        sleeper.send_signal(signal.SIGCONT)
        sleeper.communicate("go on\n", timeout=30)
    assert ledger.history.get(id).state == "ok"
