"""A tracker records what was used elsewhere and adds it up exactly, by the rows of a ledger."""

import subprocess
import sys
import threading
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyvox.errors import InputError
from polyvox.ledger import Ledger
from polyvox.types import Usage
from polyvox.usage import UsageTracker


@pytest.fixture
def tracker():
    with UsageTracker() as made:
        yield made


def test_what_is_recorded_comes_back_as_a_record_and_in_the_statistics(tracker):
    record = tracker.record(llm_id=1, prompt_tokens=100, completion_tokens=500, cost=0.001)
    assert (record.deployment, record.user, record.cost) == ("1", None, Decimal("0.001"))
    assert (record.usage.input, record.usage.output, record.usage.total) == (100, 500, 600)
    stats = tracker.get_stats(llm_id=1)
    assert (stats.requests, stats.total_tokens, stats.unknown_cost) == (1, 600, 0)
    assert f"Total cost: ${stats.total_cost}" == "Total cost: $0.001"
    kept = tracker.ledger.history.get(record.id)
    assert (kept.started, kept.state, kept.usage.output, kept.cost) == (record.started, "ok", 500, record.cost)


def test_a_user_without_records_has_zeros_and_no_error(tracker):
    tracker.record(llm_id=1, prompt_tokens=1, completion_tokens=1, cost=1)
    stats = tracker.get_stats(user_id=123)
    assert (stats.requests, stats.errors, stats.total_tokens, stats.total_cost) == (0, 0, 0, Decimal(0))


def test_statistics_are_of_those_one_asks_for(tracker):
    tracker.record(llm_id=1, user_id=7, prompt_tokens=10, completion_tokens=1, cost="0.1", project="a", tags=("x",))
    tracker.record(llm_id=2, user_id=7, prompt_tokens=20, completion_tokens=2, cost="0.2", model="m", provider="p")
    tracker.record(llm_id=2, user_id="8", prompt_tokens=40, completion_tokens=4, cost="0.4", success=False)
    cost = {
        "user": tracker.get_stats(user_id=7).total_cost,
        "both": tracker.get_stats(user_id=7, llm_id=2).total_cost,
        "llm": tracker.get_stats(llm_id="2").total_cost,
        "project": tracker.get_stats(project="a").total_cost,
        "tag": tracker.get_stats(tag="x").total_cost,
        "model": tracker.get_stats(model="m", provider="p").total_cost,
        "all": tracker.get_stats().total_cost,
    }
    assert {name: str(value) for name, value in cost.items()} == {
        "user": "0.3", "both": "0.2", "llm": "0.6", "project": "0.1", "tag": "0.1", "model": "0.2", "all": "0.7",
    }  # fmt: skip
    assert (tracker.get_stats(user_id=8).errors, tracker.get_stats(user_id=7).errors) == (1, 0)


def test_ten_thousand_floats_add_up_without_drift(tracker):
    for _ in range(10_000):
        tracker.record(llm_id=1, prompt_tokens=1, completion_tokens=2, cost=0.001)
    stats = tracker.get_stats()
    assert (stats.requests, stats.total_cost, stats.total_tokens) == (10_000, Decimal(10), 30_000)


def test_threads_may_record_at_once(tracker):
    def work():
        for _ in range(100):
            tracker.record(user_id=1, prompt_tokens=1, completion_tokens=1, cost=0.01)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.get_stats(user_id=1).total_cost == Decimal(8)


def test_what_is_not_known_is_counted_apart_and_is_no_zero(tracker):
    tracker.record(prompt_tokens=5, completion_tokens=5)
    tracker.record(cost=0.5)
    stats = tracker.get_stats()
    assert (stats.requests, stats.unknown_cost, stats.total_cost) == (2, 1, Decimal("0.5"))
    assert stats.row.missing == 1


@pytest.mark.parametrize(
    "facts",
    [
        {"prompt_tokens": -1},
        {"completion_tokens": 1.5},
        {"prompt_tokens": True},
        {"prompt_tokens": 2**63},
        {"cost": -0.1},
        {"cost": float("nan")},
        {"cost": float("inf")},
        {"cost": "a lot"},
        {"latency": -1.0},
        {"latency": float("nan")},
    ],
)
def test_what_counts_nothing_is_refused_and_not_written(tracker, facts):
    with pytest.raises(InputError):
        tracker.record(**facts)
    assert tracker.get_stats().requests == 0


@dataclass
class Theirs:
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached: bool = False


@pytest.mark.parametrize(
    ("usage", "tokens", "own_cache"),
    [
        (Usage(input=3, output=4, source="provider"), (3, 4), 0),
        (Theirs(3, 4, 7), (3, 4), 0),
        (Theirs(3, 4, 7, cached=True), (3, 4), 1),
        ({"input_tokens": 3, "output_tokens": 4}, (3, 4), 0),
        (None, (0, 0), 0),
    ],
)
def test_a_request_is_tracked_by_the_usage_of_its_result(tracker, usage, tokens, own_cache):
    assert tracker.track_request(usage) is None
    stats = tracker.get_stats()
    assert (stats.requests, stats.prompt_tokens, stats.completion_tokens) == (1, *tokens)
    assert (stats.row.own_cache, stats.row.missing) == (own_cache, int(usage is None))


@pytest.mark.parametrize("usage", ["ten tokens", 3, {"tokens": 3}, {"prompt_tokens": "three"}])
def test_a_usage_that_says_nothing_is_refused(tracker, usage):
    with pytest.raises(InputError):
        tracker.track_request(usage)


def test_a_given_ledger_keeps_the_rows_and_stays_open(ledger_file):
    with Ledger(ledger_file) as ledger:
        with UsageTracker(ledger) as tracker:
            tracker.record(user_id=5, prompt_tokens=1, completion_tokens=1, cost=0.25)
        assert tracker.get_stats(user_id=5).total_cost == Decimal("0.25")
    with Ledger(ledger_file) as ledger:
        assert ledger.history.usage("user")[0].cost == Decimal("0.25")


def test_a_tracker_of_its_own_leaves_nothing_behind_also_when_nobody_closes_it(tmp_path):
    with UsageTracker() as tracker:
        tracker.record(cost=1)
        place = Path(tracker.ledger.database.address.path).parent
        assert place.is_dir()
    assert not place.exists()
    code = (
        "import os\nfrom polyvox.usage import UsageTracker\n"
        "t = UsageTracker()\nt.record(cost=1)\nprint(t.get_stats().requests, os.getpid())\n"
        "if os.fork() == 0:\n    raise SystemExit\n"
        "os.wait()\nprint(t.get_stats().requests)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code], env={"TMPDIR": str(tmp_path), "PATH": ""},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[0] == done.stdout.split()[-1] == "1"
    assert list(tmp_path.glob("polyvox-usage-*")) == []


amounts = st.none() | st.decimals(0, 1000, places=9)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.none() | st.integers(0, 3), amounts, st.integers(0, 10**6)), max_size=20))
def test_the_statistics_of_each_user_are_what_a_loop_gives(records):
    with UsageTracker() as tracker:
        for user, cost, tokens in records:
            tracker.record(user_id=user, cost=cost, prompt_tokens=tokens)
        for user in range(4):
            stats = tracker.get_stats(user_id=user)
            own = [record for record in records if record[0] == user]
            assert stats.requests == len(own)
            assert stats.total_cost == sum((cost for _, cost, _ in own if cost is not None), Decimal(0))
            assert stats.unknown_cost == sum(cost is None for _, cost, _ in own)
            assert stats.total_tokens == sum(tokens for *_, tokens in own)
