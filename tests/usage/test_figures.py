"""The figures are asked for once and are the same in JSON and CSV; what is unknown is never 0."""

import asyncio
import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from polyvox.errors import InputError
from polyvox.ledger import Ledger
from polyvox.usage import FIELDS, Question, as_csv, as_json, facts, figures, read
from tests.usage.known import CALLS, begun, end_of, fill, sums

WORDS = {
    "model": lambda call: [call[1]],
    "provider": lambda call: [call[2]],
    "user": lambda call: [call[3]],
    "tag": lambda call: list(call[4]) or [None],
    "state": lambda call: [call[5]],
    "day": lambda call: [call[0][:10]],
    "month": lambda call: [call[0][:7]],
}


def found(row):
    return {name: getattr(row, name) for name in sums([])}


@pytest.mark.parametrize("word", WORDS)
def test_a_row_for_each_key_has_the_sums_of_its_calls_and_the_total_those_of_all_once(ledger_file, word):
    fill(ledger_file)
    keys = {key for call in CALLS for key in WORDS[word](call)}
    with Ledger(ledger_file) as ledger:
        # Without the one its process left behind, which has no end to add up.
        question = Question(by=(word,), filters={"state": ["ok", "error", "cancelled"]})
        answer = figures(ledger.history, question)
    got = {row.key[word]: found(row) for row in answer.rows}
    assert got == {key: sums([call for call in CALLS if key in WORDS[word](call)]) for key in keys}
    assert found(answer.total) == sums(CALLS)


def test_the_call_of_a_process_that_ended_without_it_is_interrupted_and_its_cost_unknown(ledger_file):
    fill(ledger_file)
    with Ledger(ledger_file) as ledger:
        total = figures(ledger.history, Question()).total
    assert (total.calls, total.interrupted, total.open, total.unknown_cost) == (8, 1, 0, 3)


def test_days_begin_where_the_zone_says_also_when_its_clocks_change(ledger_file):
    fill(ledger_file)
    question = Question(by=("day",), zone=ZoneInfo("Europe/Berlin"))
    with Ledger(ledger_file) as ledger:
        rows = figures(ledger.history, question).rows
    # 2026-03-01T23:30 UTC is the next day there; since the 29th at 01:00 UTC midnight is at 22:00 UTC.
    assert {row.key["day"]: row.calls for row in rows} == {
        "2026-03-01": 1, "2026-03-02": 4, "2026-03-29": 1, "2026-03-30": 2,
    }  # fmt: skip


def test_all_answers_of_one_reading_are_of_one_moment_whatever_ends_meanwhile(place):
    fill(place)
    with Ledger(place) as ledger, Ledger(place) as other:

        def work(ask):
            first = ask(Question())

            async def one_more():
                start = begun(other, "swift", "north")
                await other.begin(start)
                await other.finish(end_of(start, CALLS[0]))

            asyncio.run(one_more())
            return first, ask(Question(by=("model",)))

        first, second = read(ledger.history, work)
        later = figures(ledger.history, Question())
    assert facts(first.total) == facts(second.total)
    assert sum(row.calls for row in second.rows) == 8
    assert later.total.calls == 9


def test_json_and_csv_hold_the_same_numbers_with_money_to_the_last_digit(ledger_file):
    fill(ledger_file)
    now = datetime(2026, 4, 1, tzinfo=UTC)
    with Ledger(ledger_file) as ledger:
        answer = figures(ledger.history, Question(by=("model", "user"), until=now))
    told = json.loads(json.dumps(as_json(answer)))
    rows = list(csv.DictReader(io.StringIO(as_csv(answer))))
    assert len(rows) == len(told["rows"]) == len(answer.rows)
    for row, cells in zip(told["rows"], rows, strict=True):
        assert list(cells) == ["model", "user", *FIELDS]
        for name in FIELDS:
            assert cells[name] == ("" if row[name] is None else str(row[name]))
    assert Decimal(told["total"]["cost"]) == Decimal("1.350000000001")
    assert told["until"] == "2026-04-01T00:00:00+00:00" and told["since"] is None
    unpriced = next(row for row in told["rows"] if row["model"] == "deep" and row["user"] == "ann")
    assert (unpriced["cost"], unpriced["unknown_cost"]) == (None, 1)


def test_a_name_that_a_spreadsheet_would_run_stays_a_name_in_csv(ledger_file):
    async def one(ledger, model):
        start = begun(ledger, model, "north")
        await ledger.begin(start)
        await ledger.finish(end_of(start, CALLS[0]))

    with Ledger(ledger_file) as ledger:
        for model in ("=1+1", "@SUM(A1)", 'two\nlines, "quoted"'):
            asyncio.run(one(ledger, model))
        answer = figures(ledger.history, Question(by=("model",)))
    names = {row["model"] for row in csv.DictReader(io.StringIO(as_csv(answer)))}
    assert names == {"'=1+1", "'@SUM(A1)", 'two\nlines, "quoted"'}


def test_an_empty_ledger_has_no_rows_and_a_total_of_which_nothing_is_known(ledger_file):
    with Ledger(ledger_file) as ledger:
        told = as_json(figures(ledger.history, Question(by=("model",))))
    assert told["rows"] == []
    assert (told["total"]["calls"], told["total"]["cost"], told["total"]["p50"]) == (0, None, None)


def test_words_that_are_none_are_refused_with_those_there_are(ledger_file):
    with Ledger(ledger_file) as ledger:
        with pytest.raises(InputError, match="grouped by 'colour'") as wrong:
            figures(ledger.history, Question(by=("colour",)))
        assert "provider" in wrong.value.hint
        with pytest.raises(InputError, match="filtered by 'colour'"):
            figures(ledger.history, Question(filters={"colour": "red"}))
