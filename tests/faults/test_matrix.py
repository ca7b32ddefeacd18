"""Every fault of the matrix has its rows, and every row tests that exist and run, or says which part of the product it
waits for; that part must not be there yet."""

import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from tests.interfaces.coverage import check_test

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "polyvox"
PARTS = tomllib.loads((Path(__file__).parent / "matrix.toml").read_text("utf-8"))["part"]
NAMED = sorted({test for part in PARTS for test in part.get("tests", ())})
# How many faults each row of the matrix names, where that is more than one.
SEVERAL = {6: 4, 8: 2, 12: 5, 13: 3, 15: 2, 16: 4, 17: 5, 20: 2, 21: 2, 23: 4, 24: 4, 26: 5, 27: 2, 36: 2, 37: 2, 39: 4,
           43: 4, 44: 3, 45: 2, 46: 5, 47: 4, 48: 4, 49: 3, 52: 2, 54: 5, 55: 3, 56: 2, 57: 4, 58: 5, 60: 8, 61: 3,
           62: 8, 63: 2, 71: 2, 73: 6, 74: 2, 75: 4, 76: 3, 77: 5, 80: 3, 81: 2, 85: 3}  # fmt: skip
FAULTS = {row: SEVERAL.get(row, 1) for row in range(1, 86)}
# The parts of the product, and a room that each has once it is there.
OWNERS = {
    "wire": "transports",
    "engine": "engine",
    "ledger": "ledger",
    "configuration": "config",
    "command line": "cli",
    "tools": "tools",
    "jobs": "jobs",
    "gateway": "gateway",
}
# Where a fault is shown through a client, or through what a person runs.
SHOWN = ("tests/faults/", "tests/test_failover.py::", "tests/cli/", "tests/test_backends.py::")


def is_there(owner, source=SOURCE):
    room = source / OWNERS[owner]
    return (room / "__init__.py").is_file() or room.with_suffix(".py").is_file()


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


def test_every_fault_says_what_it_is_and_whose_and_what_comes_of_it_and_no_two_are_the_same():
    for part in PARTS:
        proof = set(part) - {"row", "owner", "fault", "outcome"}
        assert len(proof) == 1 and proof <= {"tests", "waits", "never"}, part
        assert part["owner"] in OWNERS and part["fault"] and part["outcome"]
        assert all(part[name] for name in proof)
        assert len(set(part.get("tests", ()))) == len(part.get("tests", ()))
    assert len({part["fault"] for part in PARTS}) == len(PARTS)


def test_a_fault_waits_only_for_a_part_that_is_not_there_yet():
    for part in PARTS:
        if "waits" in part:
            assert part["waits"] == part["owner"], part["fault"]
            assert not is_there(part["waits"]), f"{part['waits']} is there, but nothing proves: {part['fault']}"
        else:
            assert is_there(part["owner"]), part["fault"]


def test_a_part_that_comes_is_seen_as_a_folder_and_as_a_file(tmp_path):
    assert not is_there("jobs", tmp_path)
    (tmp_path / "jobs").mkdir()
    assert not is_there("jobs", tmp_path)
    (tmp_path / "jobs" / "__init__.py").touch()
    (tmp_path / "tools.py").touch()
    assert is_there("jobs", tmp_path) and is_there("tools", tmp_path)


def test_only_what_is_not_spoken_can_never_happen():
    assert [part["row"] for part in PARTS if "never" in part] == [84]


def test_every_test_that_is_named_exists_and_is_run_and_neither_skipped_nor_slow(collected):
    known = {}
    assert [problem for test in NAMED if (problem := check_test(test, "", ROOT, known))] == []
    assert set(NAMED) <= collected


def test_every_fault_is_shown_through_a_client():
    for part in PARTS:
        tests = part.get("tests")
        assert tests is None or [test for test in tests if test.startswith(SHOWN)], part["fault"]


def test_every_test_of_this_folder_is_in_the_matrix(collected):
    own = {test for test in collected if test.startswith("tests/faults/")}
    assert own and own <= set(NAMED), own - set(NAMED)
