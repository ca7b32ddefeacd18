"""Every fault of the matrix has its rows, and every row tests that exist and run."""

import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from tests.interfaces.coverage import check_test

ROOT = Path(__file__).parents[2]
PARTS = tomllib.loads((Path(__file__).parent / "matrix.toml").read_text("utf-8"))["part"]
NAMED = sorted({test for part in PARTS for test in part["tests"]})
# How many faults each row of the matrix names.
FAULTS = {1: 1, 2: 1, 7: 1, 9: 1, 10: 1, 11: 1, 12: 5, 13: 3, 15: 2, 16: 4, 17: 5, 18: 1, 19: 1, 20: 2,
          35: 1, 36: 2, 37: 2, 38: 1, 39: 4, 40: 1, 41: 1, 42: 1, 49: 3}  # fmt: skip


@pytest.fixture(scope="module")
def collected():
    """The tests that an ordinary run takes from the files that are named, without their parameters."""
    files = sorted({test.partition("::")[0] for test in NAMED})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", *files],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}


def test_every_fault_of_every_row_is_there():
    assert Counter(part["row"] for part in PARTS) == FAULTS
    assert [part["row"] for part in PARTS] == sorted(part["row"] for part in PARTS)


def test_every_fault_says_what_it_is_and_what_comes_of_it_and_no_two_are_the_same():
    for part in PARTS:
        assert set(part) == {"row", "fault", "outcome", "tests"} and part["fault"] and part["outcome"]
        assert part["tests"] and len(set(part["tests"])) == len(part["tests"])
    assert len({part["fault"] for part in PARTS}) == len(PARTS)


def test_every_test_that_is_named_exists_and_is_run_and_neither_skipped_nor_slow(collected):
    known = {}
    assert [problem for test in NAMED if (problem := check_test(test, ROOT, known))] == []
    assert set(NAMED) <= collected


def test_every_fault_is_shown_through_a_client():
    for part in PARTS:
        assert [test for test in part["tests"] if test.startswith("tests/faults/")], part["fault"]


def test_every_test_of_this_folder_is_in_the_matrix(collected):
    own = {test for test in collected if test.startswith("tests/faults/")}
    assert own and own <= set(NAMED)
