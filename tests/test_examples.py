"""What makes up its examples tries some of them on every day and all of them under `-m slow`; nobody is left out."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import examples

FILE = "tests/dialects/test_edits.py"
ROOT = Path(__file__).parent.parent


def test_a_quarter_of_the_examples_is_tried_however_many_tests_are_made_of_it():
    seen = []

    @settings(max_examples=200, database=None)
    @given(st.integers())
    def made_up(number):
        seen.append(number)

    examples.settle([SimpleNamespace(function=made_up)] * 3, "not slow")
    made_up()
    assert len(seen) == 50


@pytest.mark.parametrize(("said", "tried"), [(10, 10), (25, 25), (60, 25), (100, 25), (400, 100)])
def test_few_are_not_made_fewer(said, tried):
    assert examples.tried(said) == tried


@pytest.mark.parametrize(
    ("expression", "chosen"), [("", False), ("not slow", False), ("slow", True), ("slow or services", True)]
)
def test_slow_tests_are_chosen_by_their_mark(expression, chosen):
    assert examples.with_slow_tests(expression) is chosen


def test_under_slow_the_same_tests_are_run_again_with_all_their_examples():
    def collected(*words):
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", *words, FILE]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        return {line for line in done.stdout.splitlines() if line.startswith(FILE)}

    slow = collected("-m", "slow")
    assert len(slow) >= 3 and slow < collected()
