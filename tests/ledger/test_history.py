"""Calls are found, shown, followed, exported, priced anew and removed."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from polyvox.errors import InputError
from polyvox.ledger import NewPrice
from tests.ledger.calls import begin, count, finish, make_calls, states, until


@pytest.fixture
def dated(open_ledger, place):
    """A ledger whose clock the test sets, and the clock."""
    now = [datetime(2026, 1, 1, tzinfo=UTC).timestamp()]
    return open_ledger(place, wall=lambda: now[0], privacy="full", hash_key=b"k"), now


def one_a_day(ledger, now, days, **facts):
    ids = []
    for _ in range(days):
        ids += make_calls(ledger, 1, **facts)
        now[0] += 86_400
    return ids


def day(number):
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)


# ---- finding ----------------------------------------------------------------------------------


def test_calls_are_listed_latest_first_a_page_at_a_time(dated):
    ledger, now = dated
    ids = one_a_day(ledger, now, 10)
    first = ledger.history.find(limit=4)
    second = ledger.history.find(limit=4, after=first[-1].id)
    third = ledger.history.find(limit=4, after=second[-1].id)
    assert [record.id for record in [*first, *second, *third]] == ids[::-1]
    assert [record.id for record in ledger.history.find(since=day(2), until=day(4))] == ids[2:4][::-1]


def test_a_text_is_found_wherever_it_was_said(dated):
    ledger, _ = dated
    facts = [
        {"model": "needle-1"}, {"user": "Needle"}, {"tags": ("needle",)}, {"session": "s-needle"},
        {"prompt": {"said": "a NEEDLE in it"}}, {},
    ]  # fmt: skip
    ids = [make_calls(ledger, 1, **fact)[0] for fact in facts]
    answered, failed = begin(ledger), begin(ledger)
    finish(ledger, answered, answer="needle")
    finish(ledger, failed, state="error", error_message="no needle here")
    found = {record.id for record in ledger.history.find("needle")}
    assert found == {*ids[:5], answered.id, failed.id}
    assert [record.id for record in ledger.history.find("needle", filters={"state": "error"})] == [failed.id]


@pytest.mark.parametrize("text", ["100%", "a_b", "back\\slash", "%", "_"])
def test_a_text_means_itself_and_no_pattern(dated, text):
    ledger, _ = dated
    (wanted,) = make_calls(ledger, 1, user=f"x {text} y")
    make_calls(ledger, 3, user="axb 1000 backslash")
    found = [record.id for record in ledger.history.find(text, filters={"user": f"x {text} y"})]
    assert found == [wanted]
    assert len(ledger.history.find(text)) == 1


def test_a_page_after_what_is_no_id_is_refused(dated):
    with pytest.raises(InputError):
        dated[0].history.find(after="abc")


# ---- following --------------------------------------------------------------------------------


def test_calls_are_followed_as_they_begin_and_end_and_each_is_told_once(open_ledger, place):
    ledger, other = open_ledger(place), open_ledger(place)
    make_calls(ledger, 2)
    tail = other.history.tail()
    assert tail.new() == []
    first = begin(ledger)
    assert [(record.id, record.state) for record in tail.new()] == [(first.id, "open")]
    second = begin(ledger)
    finish(ledger, first)
    assert [(record.id, record.state) for record in tail.new()] == [(first.id, "ok"), (second.id, "open")]
    assert tail.new() == []


def test_a_long_call_is_told_when_it_ends_however_late(dated):
    ledger, now = dated
    tail = ledger.history.tail()
    now[0] += 1
    long = begin(ledger)
    assert len(tail.new()) == 1
    for _ in range(5):
        now[0] += 100
        make_calls(ledger, 1)
        assert len(tail.new()) == 1
    finish(ledger, long)
    assert [(record.id, record.state) for record in tail.new()] == [(long.id, "ok")]


def test_following_from_a_call_on_tells_what_came_after_it(dated):
    ledger, now = dated
    ids = one_a_day(ledger, now, 3)
    assert [record.id for record in ledger.history.tail(ids[0]).new()] == ids[1:]


def test_no_call_is_missed_while_many_write(open_ledger, place):
    ledger = open_ledger(place)
    ledger.open()
    tail, told, ids, over = ledger.history.tail(), {}, [], threading.Event()

    def follow():
        while True:
            last = over.is_set()
            for record in tail.new():
                told[record.id] = record.state
            if last:
                return

    thread = threading.Thread(target=follow)
    thread.start()
    for _ in range(10):
        ids += make_calls(ledger, 10)
    over.set()
    thread.join(30)
    assert told == dict.fromkeys(ids, "ok")


# ---- all of it --------------------------------------------------------------------------------


def test_all_calls_are_exported_in_order_however_many(dated, monkeypatch):
    ledger, now = dated
    ids = one_a_day(ledger, now, 7)
    monkeypatch.setattr("polyvox.ledger.history.PAGE", 3)
    assert [record.id for record in ledger.history.export()] == ids
    assert [record.id for record in ledger.history.export(since=day(2), until=day(5))] == ids[2:5]
    assert list(ledger.history.export(filters={"user": "nobody"})) == []
    assert ledger.history.day_of_oldest() == day(0)


def test_old_calls_go_with_all_that_hangs_on_them_and_open_ones_stay(dated):
    ledger, now = dated
    held = begin(ledger, prompt="x")
    ids = one_a_day(ledger, now, 10, prompt="x")
    assert ledger.prune(day(4)) == 4
    assert set(states(ledger)) == {held.id, *ids[4:]}
    assert count(ledger, "attempts") == 6 and count(ledger, "contents") == 7
    assert ledger.prune(day(4)) == 0


def test_more_calls_than_one_step_are_removed(open_ledger, place, monkeypatch):
    monkeypatch.setattr("polyvox.ledger.upkeep.STEP", 7)
    ledger = open_ledger(place)
    make_calls(ledger, 40)
    assert ledger.prune(datetime.now(UTC) + timedelta(days=1)) == 40 and count(ledger, "calls") == 0


def test_what_is_older_than_the_retention_goes_by_itself_once_a_day(open_ledger, place):
    now, clock = [datetime(2026, 1, 1, tzinfo=UTC).timestamp()], [0.0]
    ledger = open_ledger(place, wall=lambda: now[0], clock=lambda: clock[0], retention=timedelta(days=5))
    ids = []
    for _ in range(10):
        ids += make_calls(ledger, 1)
        now[0] += 86_400
        clock[0] += 86_400
    until(lambda: set(states(ledger)) <= set(ids[4:]))
    make_calls(ledger, 1)
    until(lambda: len(states(ledger)) == 6)


def test_calls_are_priced_anew_from_history(dated):
    ledger, now = dated
    one_a_day(ledger, now, 3)
    start = begin(ledger)
    finish(ledger, start, cost=None)
    make_calls(ledger, 2, model="other")

    def price(record):
        if record.model != "parrot":
            return None
        return NewPrice(Decimal(record.usage.input) / 1000, "catalog", {"since": "2026-02-01"})

    done = ledger.reprice(day(1), price)
    assert (done.seen, done.changed) == (5, 3)
    assert done.before == Decimal("0.0025") and done.after == Decimal("0.3")
    found = sorted(record.cost for record in ledger.history.export())
    assert found == [Decimal("0.00125")] * 3 + [Decimal("0.1")] * 3
    assert ledger.history.get(start.id).cost_how == {"since": "2026-02-01"}
    assert ledger.reprice(day(1), price).changed == 0


def test_a_price_that_is_not_known_any_more_makes_the_cost_unknown_and_not_zero(dated):
    ledger, now = dated
    one_a_day(ledger, now, 1)
    ledger.reprice(day(0), lambda record: NewPrice(None, "unknown"))
    (row,) = ledger.history.usage()
    assert row.cost is None and row.unknown_cost == 1


def test_many_calls_are_priced_anew_a_step_at_a_time(open_ledger, place, monkeypatch):
    monkeypatch.setattr("polyvox.ledger.upkeep.STEP", 7)
    ledger = open_ledger(place)
    make_calls(ledger, 40)
    done = ledger.reprice(day(0), lambda record: NewPrice(Decimal(1)))
    assert done.changed == 40 and ledger.history.usage()[0].cost == 40


def test_a_price_that_is_no_amount_is_refused_and_changes_nothing(dated):
    ledger, now = dated
    one_a_day(ledger, now, 1)
    with pytest.raises(InputError):
        ledger.reprice(day(0), lambda record: NewPrice(Decimal("NaN")))
    assert ledger.history.usage()[0].cost == Decimal("0.00125")


def test_while_it_is_priced_anew_others_write(open_ledger, place):
    ledger = open_ledger(place)
    make_calls(ledger, 30)

    def price(record):
        asyncio.run(ledger.begin(ledger.start(model="meanwhile")))
        return NewPrice(Decimal(1))

    assert ledger.reprice(day(0), price).changed == 30
    assert sorted(states(ledger).values()) == ["ok"] * 30 + ["open"] * 30
