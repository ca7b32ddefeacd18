"""What was used and what it cost, summed up by anything, is what a loop over the calls gives."""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyvox.errors import InputError
from polyvox.ledger import CallEnd
from polyvox.ledger.asking import WORDS
from polyvox.ledger.usage import percentile
from polyvox.types import Usage
from tests.ledger.calls import begin, finish, make_calls

NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)

counts = st.none() | st.integers(0, 5000)
words = st.sampled_from([None, "a", "b", "ünï"])
calls = st.fixed_dictionaries(
    {
        "at": st.integers(0, 40 * 24 * 3600),
        "model": st.sampled_from(["m1", "m2", "m3"]),
        "provider": st.sampled_from(["p1", "p2"]),
        "user": words,
        "project": words,
        "tags": st.lists(st.sampled_from(["x", "y", "z"]), unique=True, max_size=3),
        "state": st.sampled_from(["ok", "ok", "ok", "error", "cancelled", "open"]),
        "duration": st.none() | st.integers(1, 600_000_000),
        "input": counts,
        "output": counts,
        "cache_read": counts,
        "cost": st.none() | st.decimals(0, 1000, places=12),
        "source": st.sampled_from(["provider", "estimated", "missing"]),
        "own_cache": st.booleans(),
        "error_kind": st.sampled_from([None, "timeout", "server"]),
    }
)


def write(ledger, history):
    """Write a made-up history down."""
    for one in history:
        start = ledger.start(
            model=one["model"], provider=one["provider"], deployment=f"{one['provider']}/{one['model']}",
            user=one["user"], project=one["project"], tags=tuple(one["tags"]),
        )  # fmt: skip
        at = NOON + timedelta(seconds=one["at"])
        from msgspec.structs import replace

        from polyvox.database import micros
        from polyvox.ledger.ids import new_id

        start = replace(start, id=new_id(micros(at), ledger.random_bytes), started=micros(at))
        ledger.note(start)
        if one["state"] == "open":
            continue
        usage = Usage(input=one["input"], output=one["output"], cache_read=one["cache_read"], source=one["source"])
        ledger.note(
            CallEnd(
                start=start, state=one["state"], duration=one["duration"], usage=usage, cost=one["cost"],
                own_cache=one["own_cache"], error_kind=one["error_kind"],
            )
        )  # fmt: skip
    ledger.open()


KEYS = {
    "model": lambda one: [one["model"]],
    "provider": lambda one: [one["provider"]],
    "deployment": lambda one: [f"{one['provider']}/{one['model']}"],
    "state": lambda one: [one["state"]],
    "user": lambda one: [one["user"]],
    "project": lambda one: [one["project"]],
    "error": lambda one: [one["error_kind"] if one["state"] != "open" else None],
    "tag": lambda one: one["tags"] or [None],
    "day": lambda one: [f"{NOON + timedelta(seconds=one['at']):%Y-%m-%d}"],
    "hour": lambda one: [f"{NOON + timedelta(seconds=one['at']):%Y-%m-%dT%H:00}"],
    "month": lambda one: [f"{NOON + timedelta(seconds=one['at']):%Y-%m}"],
}


def total(values):
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def expected(history, by):
    groups = defaultdict(list)
    for one in history:
        keys = [()]
        for word in by:
            keys = [(*key, more) for key in keys for more in KEYS[word](one)]
        for key in keys:
            groups[key].append(one)
    for key, some in groups.items():
        over = [one for one in some if one["state"] != "open"]
        yield (
            key,
            {
                "calls": len(some),
                "open": len(some) - len(over),
                "ok": sum(one["state"] == "ok" for one in over),
                "errors": sum(one["state"] == "error" for one in over),
                "cancelled": sum(one["state"] == "cancelled" for one in over),
                "input": total(one["input"] for one in over),
                "output": total(one["output"] for one in over),
                "cache_read": total(one["cache_read"] for one in over),
                "cost": total(one["cost"] for one in over),
                "unknown_cost": sum(one["cost"] is None for one in over),
                "estimated": sum(one["source"] == "estimated" for one in over),
                "missing": sum(one["source"] == "missing" for one in over),
                "own_cache": sum(one["own_cache"] for one in over),
            },
        )


def check(ledger, history, by, **options):
    rows = ledger.history.usage(by, **options)
    wanted = dict(expected(history, by))
    assert {tuple(row.key[word] for word in by) for row in rows} == set(wanted)
    assert len(rows) == len(wanted)
    for row in rows:
        fields = wanted[tuple(row.key[word] for word in by)]
        assert {name: getattr(row, name) for name in fields} == fields


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("histories")


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(calls, max_size=25), st.lists(st.sampled_from(sorted(KEYS)), max_size=2, unique=True))
def test_sums_over_a_random_history_are_what_a_loop_gives_in_sqlite(folder, history, by):
    from polyvox.ledger import Ledger

    place = folder / f"{len(list(folder.iterdir()))}.db"
    with Ledger(place) as ledger:
        write(ledger, history)
        check(ledger, history, by)
        check(ledger, history, ["user", "model"])


def test_sums_over_a_random_history_are_what_a_loop_gives(open_ledger, place):
    """One larger history in either database, by every word and some pairs."""
    import random

    chance = random.Random(11)

    def some():
        state = chance.choice(["ok", "ok", "ok", "error", "cancelled", "open"])
        return {
            "at": chance.randrange(40 * 24 * 3600),
            "model": chance.choice(["m1", "m2", "m3"]),
            "provider": chance.choice(["p1", "p2"]),
            "user": chance.choice([None, "a", "b"]),
            "project": chance.choice([None, "a", "b"]),
            "tags": chance.sample(["x", "y", "z"], chance.randrange(4)),
            "state": state,
            "duration": chance.choice([None, chance.randrange(1, 10**8)]),
            "input": chance.choice([None, chance.randrange(5000)]),
            "output": chance.choice([None, chance.randrange(5000)]),
            "cache_read": chance.choice([None, chance.randrange(5000)]),
            "cost": chance.choice([None, Decimal(chance.randrange(10**14)).scaleb(-12)]),
            "source": chance.choice(["provider", "estimated", "missing"]),
            "own_cache": chance.random() < 0.2,
            "error_kind": chance.choice([None, "timeout", "server"]),
        }

    history = [some() for _ in range(400)]
    ledger = open_ledger(place)
    write(ledger, history)
    for by in [[], *[[word] for word in KEYS], ["model", "day"], ["user", "tag"], ["hour", "state", "model"]]:
        check(ledger, history, by)
    since, until = NOON + timedelta(days=3, hours=5), NOON + timedelta(days=20)
    within = [one for one in history if since <= NOON + timedelta(seconds=one["at"]) < until]
    for by in (["model"], ["user"]):
        check(ledger, within, by, since=since, until=until)
    for filters, hold in (
        ({"model": "m1"}, lambda one: one["model"] == "m1"),
        ({"model": ["m1", "m2"], "state": "ok"}, lambda one: one["model"] in ("m1", "m2") and one["state"] == "ok"),
        ({"user": None}, lambda one: one["user"] is None),
        ({"user": ["a", None]}, lambda one: one["user"] in ("a", None)),
        ({"tag": "x"}, lambda one: "x" in one["tags"]),
        ({"tag": ["x", "y"], "project": "b"}, lambda one: {"x", "y"} & set(one["tags"]) and one["project"] == "b"),
        ({"tag": None}, lambda one: not one["tags"]),
        ({"error": "timeout"}, lambda one: one["state"] != "open" and one["error_kind"] == "timeout"),
    ):
        for by in (["provider"], ["tag"]):
            check(ledger, [one for one in history if hold(one)], by, filters=filters)
    costs = [row.cost or 0 for row in ledger.history.usage("model")]
    assert costs == sorted(costs, reverse=True)
    assert [row.key["day"] for row in ledger.history.usage("day")] == sorted(
        row.key["day"] for row in ledger.history.usage("day")
    )


def test_percentiles_shares_and_speed(open_ledger, place):
    ledger = open_ledger(place)
    for number in range(1, 101):
        finish(
            ledger, begin(ledger), duration=number * 10_000, first_token=0,
            usage=Usage(input=100, output=10, cache_read=25, source="provider"),
        )  # fmt: skip
    (row,) = ledger.history.usage()
    assert row.p50 == pytest.approx(0.5, rel=0.011) and row.p95 == pytest.approx(0.95, rel=0.011)
    assert row.cached_share == 0.25 and row.error_share == 0
    assert row.tokens_per_second == pytest.approx(100 * 10 / (0.01 * 5050))


def test_answers_from_our_own_cache_count_and_do_not_flatter_the_latencies(open_ledger, place):
    ledger = open_ledger(place)
    finish(ledger, begin(ledger), duration=1_000_000)
    for _ in range(9):
        finish(ledger, begin(ledger), duration=10, own_cache=True, saved=Decimal("0.5"), cost=Decimal(0))
    (row,) = ledger.history.usage()
    assert row.own_cache == 9 and row.saved == Decimal("4.5") and row.p50 == pytest.approx(1, rel=0.011)


def test_a_sum_of_money_larger_than_a_column_is_right(open_ledger, place):
    ledger = open_ledger(place)
    for _ in range(3):
        finish(ledger, begin(ledger), cost=Decimal("9000000.000000000001"))
    assert ledger.history.usage()[0].cost == Decimal("27000000.000000000003")


def test_days_are_those_of_the_zone_that_is_asked_for_across_the_change_of_its_clocks(open_ledger, place):
    now = [0.0]
    ledger = open_ledger(place, wall=lambda: now[0])
    paris = ZoneInfo("Europe/Paris")
    # The clocks go forward in the night to the 29th: that day has 23 hours.
    for local in (datetime(2026, 3, 28, 23, 59), datetime(2026, 3, 29, 0, 1), datetime(2026, 3, 29, 23, 59),
                  datetime(2026, 3, 30, 0, 1)):  # fmt: skip
        now[0] = local.replace(tzinfo=paris).timestamp()
        make_calls(ledger, 1)
    days = {row.key["day"]: row.calls for row in ledger.history.usage("day", zone=paris)}
    assert days == {"2026-03-28": 1, "2026-03-29": 2, "2026-03-30": 1}
    kathmandu = {row.key["hour"] for row in ledger.history.usage("hour", zone=ZoneInfo("Asia/Kathmandu"))}
    assert kathmandu == {"2026-03-29T04:00", "2026-03-30T03:00"}


@given(st.lists(st.integers(0, 50), min_size=1), st.sampled_from([0.01, 0.5, 0.95, 1.0]))
def test_a_percentile_is_the_value_at_its_rank(buckets, share):
    from collections import Counter
    from math import ceil

    from polyvox.ledger.columns import latency_of

    rank = sorted(buckets)[max(0, ceil(share * len(buckets) - 1e-9) - 1)]
    assert percentile(Counter(buckets), share) == latency_of(rank) / 1_000_000


def test_without_calls_there_is_nothing_and_no_zero(open_ledger, place):
    ledger = open_ledger(place)
    assert ledger.history.usage("model") == [] and ledger.history.usage() == []


@pytest.mark.parametrize("by", ["prompt", ["model", "1; DROP TABLE calls"], ["cost"]])
def test_a_word_nobody_knows_is_refused_with_those_there_are(open_ledger, tmp_path, by):
    with pytest.raises(InputError) as caught:
        open_ledger(tmp_path / "x.db").history.usage(by)
    assert all(word in caught.value.hint for word in WORDS)


@pytest.mark.parametrize("filters", [{"prompt": "x"}, {"state": "dead"}, {"model": []}])
def test_a_filter_that_means_nothing_is_refused(open_ledger, tmp_path, filters):
    with pytest.raises(InputError):
        open_ledger(tmp_path / "x.db").history.usage("model", filters=filters)


def test_values_are_never_part_of_the_statement(open_ledger, place):
    ledger = open_ledger(place)
    evil = "'; DROP TABLE calls; --"
    make_calls(ledger, 2, model=evil, user=evil, tags=(evil,))
    for word in ("model", "user", "tag"):
        assert ledger.history.usage("model", filters={word: evil})[0].calls == 2
    assert len(ledger.history.find(evil)) == 2 and ledger.history.find("' OR 1=1 --") == []


def test_a_loop_asks_without_being_held_up(open_ledger, place):
    ledger = open_ledger(place)
    make_calls(ledger, 3)

    async def ask():
        return await asyncio.to_thread(ledger.history.usage, "model")

    assert asyncio.run(ask())[0].calls == 3
