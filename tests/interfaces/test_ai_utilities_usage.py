"""Usage tracking by the names of AI Utilities: every request is counted once, and whoever watches harms nobody."""

import gc
import subprocess
import sys
import tempfile
import threading
from decimal import Decimal
from pathlib import Path

import pytest

from polyvox import usage as core
from polyvox.compat.ai_utilities import usage as room
from polyvox.compat.ai_utilities.results import UsageData
from polyvox.compat.ai_utilities.usage import UsageTracker, create_usage_tracker
from polyvox.compat.names import AIUtilitiesError
from polyvox.ledger import Ledger
from tests.interfaces.rows import rows


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@rows("S2-193")
def test_the_package_is_imported_without_a_server_or_a_file(row, tmp_path):
    program = f"""
import sys
from {room.__name__} import UsageTracker, create_usage_tracker
assert not {{"redis", "django", "celery", "sqlalchemy", "pydantic_settings", "openai"}} & set(sys.modules)
create_usage_tracker()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env={"TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
    assert set(room.__all__) == {"Observer", "UsageTracker", "create_usage_tracker"}


@rows("S2-088")
def test_the_tracker_is_the_one_of_the_core_and_counts_by_all_three_names(row, folder):
    assert issubclass(UsageTracker, core.UsageTracker)
    with create_usage_tracker() as tracker:
        assert type(tracker) is UsageTracker
        tracker.track_request(UsageData(prompt_tokens=1, completion_tokens=2))
        tracker.track_request({"prompt_tokens": 10, "completion_tokens": 20}, user_id=7)
        record = tracker.record(llm_id=3, user_id=7, prompt_tokens=100, completion_tokens=200, cost="0.5")
        assert record.usage.input == 100 and record.cost == Decimal("0.5")
        stats = tracker.get_stats()
        assert (stats.requests, stats.prompt_tokens, stats.completion_tokens, stats.total_cost) == (
            3, 111, 222, Decimal("0.5"),
        )  # fmt: skip
        assert tracker.get_stats(user_id=7).total_tokens == 330
        assert tracker.get_stats(llm_id=3).requests == 1
    assert not list(folder.iterdir())


@rows("S2-088")
def test_with_a_ledger_what_it_is_told_stays(row, tmp_path):
    with Ledger(tmp_path / "ledger.db") as ledger:
        with create_usage_tracker(ledger=ledger) as tracker:
            tracker.track_request({"prompt_tokens": 1, "completion_tokens": 2})
        with UsageTracker(ledger) as other:
            assert other.get_stats().total_tokens == 3


@rows("S2-088")
def test_making_one_or_inheriting_from_it_leaves_nothing_behind(row, folder):
    class Counting(UsageTracker):
        def __init__(self):
            self.seen = []

        def track_request(self, usage):
            self.seen.append(usage)

    tracker = Counting()
    tracker.track_request("a")
    assert tracker.seen == ["a"] and not list(folder.iterdir())
    tracker.close()
    # What it inherits works all the same, from several threads at once.
    told = [threading.Thread(target=tracker.record, kwargs={"prompt_tokens": 1}) for _ in range(8)]
    for thread in told:
        thread.start()
    for thread in told:
        thread.join()
    assert tracker.get_stats().prompt_tokens == 8
    assert len(list(folder.iterdir())) == 1
    del told, thread, tracker
    gc.collect()
    assert not list(folder.iterdir())
    with pytest.raises(AttributeError, match="colour"):
        _ = UsageTracker().colour


@rows("S2-088")
def test_what_says_nothing_of_usage_is_refused_by_its_documented_name(row, folder):
    with UsageTracker() as tracker:
        for call in (
            lambda: tracker.track_request("five tokens"),
            lambda: tracker.record(prompt_tokens=-1),
            lambda: tracker.record(cost="much"),
        ):
            with pytest.raises(AIUtilitiesError) as caught:
                call()
            assert caught.value.hint
        assert tracker.get_stats().requests == 0


class Watching:
    def __init__(self):
        self.seen = []

    def track_request(self, usage):
        self.seen.append(usage)


class Broken:
    def track_request(self, usage):
        raise RuntimeError("the dashboard is gone")


@rows("S2-087")
def test_several_observers_are_told_and_one_that_fails_harms_nobody(row, folder, caplog):
    first, second, later = Watching(), Watching(), Watching()
    with create_usage_tracker(first, Broken(), second) as tracker:
        usage = UsageData(prompt_tokens=1, completion_tokens=2)
        tracker.track_request(usage)
        tracker.add_observer(later)
        tracker.track_request(usage)
        assert first.seen == second.seen == [usage, usage] and later.seen == [usage]
        assert tracker.get_stats().requests == 2
    assert "an observer of usage failed" in caplog.text


@rows("S2-087")
def test_a_client_tells_all_observers_of_a_request_and_answers_when_they_fail(row, world, monkeypatch, folder):
    from polyvox.compat.ai_utilities.client import AiClient
    from polyvox.compat.ai_utilities.config_models import AiSettings

    watching = Watching()
    settings = AiSettings(
        _env_file=None, api_key="sk-test-observers-0123456789", model="gpt-4o-mini",
        base_url=world.base_url("openai.chat"),
    )  # fmt: skip
    with create_usage_tracker(Broken(), watching) as tracker:
        with AiClient(settings, usage_tracker=tracker) as client:
            answer = client.ask("Who watches?")
        assert answer.text and [usage.total_tokens for usage in watching.seen] == [answer.usage.total_tokens]
        assert tracker.get_stats().total_tokens == answer.usage.total_tokens > 0
    with AiClient(settings, usage_tracker=Broken()) as client:
        assert client.ask("Who watches?").text == answer.text
    assert Path(tempfile.gettempdir()) == folder
