"""The file for the meantime gives back what was put in, whatever a crash or a disk did to it."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyvox.database import Database
from polyvox.ledger import Ledger
from polyvox.ledger.columns import Manner, written_end, written_start
from polyvox.ledger.spool import Spool, SpoolFullError
from tests.ledger.calls import ended, starting


@pytest.fixture(scope="module")
def ledger():
    return Ledger(Database("unused.db"), spool=False)


MANNER = Manner(7, "full", lambda data: b"h" * 16)


def rows_of(ledger, number):
    rows = []
    for place in range(number):
        start = starting(ledger, user=f"ü{place}\n", prompt={"n": place})
        rows += [written_start(start, MANNER), written_end(ended(start, answer="é"), MANNER)]
    return rows


def spool_at(path, **options):
    return Spool(path, **{"most": 10**8, "sync": False, **options})


def test_what_goes_in_comes_out_row_by_row(ledger, tmp_path):
    spool, rows = spool_at(tmp_path / "x.jsonl", sync=True), rows_of(ledger, 20)
    assert spool.empty
    for row in rows:
        assert spool.append([row]) == 1
    first = spool.page(0, 15)
    second = spool.page(first.end, 1000)
    assert first.rows + second.rows == rows and first.damaged == second.damaged == 0
    assert not spool.clear(first.end) and spool.clear(second.end)
    assert spool.empty and (tmp_path / "x.jsonl").stat().st_size == 0


def test_a_file_of_a_dead_process_is_read_like_ones_own(ledger, tmp_path):
    rows = rows_of(ledger, 5)
    spool_at(tmp_path / "x.jsonl").append(rows)
    assert spool_at(tmp_path / "x.jsonl").page(0, 1000).rows == rows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_torn_at_any_byte_gives_every_whole_row_before_it(ledger, tmp_path, data):
    path = tmp_path / "torn.jsonl"
    path.unlink(missing_ok=True)
    rows = rows_of(ledger, 3)
    spool_at(path).append(rows)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    spool = spool_at(path)
    page = spool.page(0, 1000)
    assert page.rows == rows[: whole[:cut].count(b"\n")] and page.damaged == 0
    # What is appended behind a torn line is not swallowed by it.
    more = rows_of(ledger, 1)
    spool.append(more)
    again = spool_at(path).page(0, 1000)
    # A row that lacked nothing but the end of its line is whole again.
    between = again.rows[len(page.rows) : -len(more)]
    assert again.rows == page.rows + between + more and between in ([], [rows[len(page.rows)]] if between else [])
    assert again.damaged <= 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_byte_costs_its_own_row_at_most_and_is_counted(ledger, tmp_path, data):
    path = tmp_path / "bent.jsonl"
    path.unlink(missing_ok=True)
    rows = rows_of(ledger, 3)
    spool_at(path).append(rows)
    whole = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 2))
    whole[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(whole))
    page = spool_at(path).page(0, 1000)
    kept = [row for row in page.rows if row in rows]
    assert kept == page.rows and len(kept) >= len(rows) - 2 and page.damaged + len(kept) >= len(rows) - 1


def test_up_to_the_bound_rows_fit_and_then_it_says_so(ledger, tmp_path):
    rows = rows_of(ledger, 50)
    spool = spool_at(tmp_path / "x.jsonl", most=10_000)
    fitting = spool.append(rows)
    assert 0 < fitting < 100 and (tmp_path / "x.jsonl").stat().st_size <= 10_000
    with pytest.raises(SpoolFullError, match="bound"):
        spool.append(rows[fitting:])
    assert spool.page(0, 1000).rows == rows[:fitting]


def test_where_nothing_can_be_written_nothing_is_half_written(ledger, tmp_path):
    (tmp_path / "x.jsonl").symlink_to("/dev/full")
    spool = spool_at(tmp_path / "x.jsonl")
    with pytest.raises(OSError, match="No space"):
        spool.append(rows_of(ledger, 1))
    (tmp_path / "x.jsonl").unlink()
    rows = rows_of(ledger, 1)
    spool.append(rows)
    page = spool.page(0, 10)
    assert page.rows == rows and page.damaged == 0


def test_a_write_that_stopped_halfway_is_taken_back(ledger, tmp_path, monkeypatch):
    spool, rows = spool_at(tmp_path / "x.jsonl"), rows_of(ledger, 2)
    spool.append(rows[:2])
    write, halves = os.write, []

    def half(handle, data):
        if halves:
            raise OSError(28, "No space left on device")
        halves.append(True)
        return write(handle, bytes(data)[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        spool.append(rows[2:])
    monkeypatch.setattr(os, "write", write)
    spool.append(rows[2:])
    page = spool.page(0, 10)
    assert page.rows == rows and page.damaged == 0


def test_lines_of_another_version_are_counted_and_not_misread(ledger, tmp_path, monkeypatch):
    spool = spool_at(tmp_path / "x.jsonl")
    monkeypatch.setattr("polyvox.ledger.spool.VERSION", 2)
    spool.append(rows_of(ledger, 1))
    monkeypatch.setattr("polyvox.ledger.spool.VERSION", 1)
    page = spool.page(0, 10)
    assert page.rows == [] and page.damaged == 2
