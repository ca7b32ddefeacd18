"""Promises of the coverage table: it is whole, and it cannot name a test that is not there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import coverage

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A coverage file of two documents, with a tree of tests beside it."""
    monkeypatch.setattr(coverage, "DOCUMENTS", {"S0": 2, "S1": 1})
    monkeypatch.delenv("POLYVOX_REQUIREMENTS", raising=False)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text(
        "def test_one(): pass\nasync def test_two(): pass\ndef other(): pass\n"
        "@rows('S0-001', 'S0-002')\ndef test_rows(row): pass\n"
        "@rows(*IDS)\ndef test_others(row): pass\n"
        "@pytest.mark.parametrize('row', ['S0-001'])\ndef test_cases(row): pass\n"
    )
    (tmp_path / "tests" / "test_broken.py").write_text("def test_one(:")

    def run(text, *argv):
        path = tmp_path / "coverage.toml"
        path.write_text(text)
        return coverage.main(list(argv), path=path, root=tmp_path)

    return run


def text(first='{ test = "", waits = "core" }', order=("S0-001", "S0-002"), tail=""):
    rows = {"S0-001": first, "S0-002": '{ test = "", waits = "jobs" }'}
    return "[S0]\n" + "\n".join(f'"{key}" = {rows[key]}' for key in order) + (
        '\n\n[S1]\n"S1-001" = { test = "tests/test_a.py::test_two", waits = "docs" }\n' + tail
    )  # fmt: skip


def test_the_table_of_this_project_is_whole(capsys, monkeypatch):
    monkeypatch.delenv("POLYVOX_REQUIREMENTS", raising=False)
    assert coverage.main([]) == 0
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last[:2] == ["all", "735"]
    assert sum(int(cell) for cell in last[2:] if cell != "·") == 735


def test_open_rows_are_counted_by_document_and_capability(make, capsys):
    assert make(text()) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["rows", "proved", "core", "jobs"],
        ["S0", "2", "0", "1", "1"],
        ["S1", "1", "1", "·", "·"],
        ["all", "3", "1", "1", "1"],
    ]


def test_the_open_ids_of_a_capability_are_listed(make, capsys):
    assert make(text(), "--list", "jobs") == 0
    assert capsys.readouterr().out == "S0-002\n"
    with pytest.raises(SystemExit) as caught:
        make(text(), "--list", "nothing")
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            text('{ test = "tests/test_a.py::test_three", waits = "core" }'),
            "there is no test tests/test_a.py::test_three",
        ),
        (text('{ test = "tests/test_a.py::other", waits = "core" }'), "there is no test"),
        (text('{ test = "tests/test_broken.py::test_one", waits = "core" }'), "there is no test"),
        (text('{ test = "tests/test_none.py::test_one", waits = "core" }'), "there is no test"),
        (text('{ test = "tests/../a.py::test_one", waits = "core" }'), "not of the form"),
        (text('{ test = "test_one", waits = "core" }'), "not of the form"),
        (text('{ test = "tests/test_a.py::test_one[S0-001]", waits = "core" }'), "has no cases"),
        (text('{ test = "tests/test_a.py::test_rows[S0-003]", waits = "core" }'), "has no S0-003"),
        (text('{ test = "tests/test_a.py::test_rows[", waits = "core" }'), "not of the form"),
        (text('{ test = "", waits = "magic" }'), "S0-001: waits for 'magic'"),
        (text('{ test = "" }'), "S0-001: needs exactly"),
        (text("3"), "S0-001: needs exactly"),
        (
            text(tail='"S1-002" = { test = "tests/test_a.py::test_rows", waits = "core" }\n'),
            "S1-002: @rows of tests/test_a.py::test_rows has no S1-002",
        ),
        (text(order=("S0-002", "S0-001")), "S0-002: out of order"),
        (text(order=("S0-001",)), "S0-002: unmapped"),
        (text(tail='"S1-002" = { test = "", waits = "core" }\n'), "S1-002: unknown"),
        (text(tail='"S0-002" = { test = "", waits = "core" }\n'), "S0-002: stands under [S1]"),
        (text(tail='"S1-001" = { test = "", waits = "core" }\n'), "coverage.toml"),
        ("not toml", "coverage.toml"),
    ],
)
def test_what_is_wrong_is_named_and_the_exit_code_says_so(make, capsys, content, said):
    assert make(content) == 1
    assert said in capsys.readouterr().err


def test_the_ids_are_held_against_the_requirements_when_those_are_at_hand(make, capsys, tmp_path, monkeypatch):
    rows = tmp_path / "rows.json"
    monkeypatch.setenv("POLYVOX_REQUIREMENTS", str(rows))
    rows.write_text(json.dumps([{"id": key} for key in ("S0-001", "S0-002", "S1-001")]))
    assert make(text()) == 0
    rows.write_text(json.dumps([{"id": key} for key in ("S0-001", "S0-002", "S1-001", "S1-002")]))
    assert make(text()) == 1
    rows.write_text("{")
    assert make(text()) == 1
    assert "S1-002: unmapped" in capsys.readouterr().err


@pytest.mark.parametrize("test", ["test_rows", "test_rows[S0-001]", "test_cases[S0-001]", "test_cases", "test_others"])
def test_a_case_may_be_named_and_rows_name_theirs(make, test):
    assert make(text(f'{{ test = "tests/test_a.py::{test}", waits = "core" }}')) == 0


RAN = {"tests/test_a.py::test_two": "passed"}


@pytest.mark.parametrize(
    ("test", "ran", "said"),
    [
        ("test_one", {"test_one": "passed"}, ""),
        ("test_one", {}, "S0-001: tests/test_a.py::test_one did not run"),
        ("test_one", {"test_one": "skipped"}, "it skipped"),
        ("test_one", {"test_one": "failed"}, "it failed"),
        # All cases stand for a row that has none of its own.
        ("test_cases", {"test_cases[a]": "passed", "test_cases[b]": "passed"}, ""),
        ("test_cases", {"test_cases[a]": "passed", "test_cases[b]": "skipped"}, "b skipped"),
        # A case of its own stands alone, by whatever parameters it is among.
        ("test_rows", {"test_rows[S0-001]": "passed", "test_rows[S0-002]": "failed"}, ""),
        ("test_rows", {"test_rows[S0-001-openai]": "passed", "test_rows[S0-001-ollama]": "failed"}, "S0-001-ollama"),
        ("test_rows[S0-001]", {"test_rows[S0-0011]": "passed"}, "did not run"),
        ("test_rows[S0-001]", {"test_rows[S0-001]": "passed", "test_rows[S0-002]": "failed"}, ""),
    ],
)
def test_what_is_mapped_must_have_run_and_passed(make, tmp_path, capsys, test, ran, said):
    file = tmp_path / "ran.json"
    file.write_text(json.dumps(RAN | {f"tests/test_a.py::{name}": end for name, end in ran.items()}))
    mapped = text(f'{{ test = "tests/test_a.py::{test}", waits = "core" }}')
    assert make(mapped, "--ran", str(file)) == bool(said)
    assert said in capsys.readouterr().err


def test_a_run_that_noted_nothing_is_no_proof(make, tmp_path, capsys):
    assert make(text(), "--ran", str(tmp_path / "nothing.json")) == 1
    assert "cannot be read" in capsys.readouterr().err


ENDS = """
import pytest

def test_good(): pass
def test_bad(): assert False
def test_idle(): pytest.skip("nothing to do")
@pytest.mark.xfail(strict=False)
def test_perhaps(): pass
@pytest.fixture
def broken():
    yield
    raise RuntimeError
def test_left_a_mess(broken): pass
@pytest.mark.parametrize("row", ["S0-001", "S0-002"])
def test_of(row): assert row == "S0-001"
"""


def test_a_run_notes_how_each_case_ended_and_no_run_inside_it_does(tmp_path):
    (tmp_path / "test_it.py").write_text(
        ENDS + "def test_environment():\n    import os\n    assert 'POLYVOX_RAN' not in os.environ\n"
    )
    (tmp_path / "conftest.py").write_text("from tests.interfaces.ran import note_them as pytest_configure\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "POLYVOX_RAN": str(tmp_path / "ran.json"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    ends = json.loads((tmp_path / "ran.json").read_text())
    assert {node.partition("::")[2]: end for node, end in ends.items()} == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_idle": "skipped",
        "test_perhaps": "skipped",
        "test_left_a_mess": "failed",
        "test_of[S0-001]": "passed",
        "test_of[S0-002]": "failed",
        "test_environment": "passed",
    }


def test_the_tests_of_this_project_note_their_ends(tmp_path):
    name = "tests/interfaces/test_coverage.py::test_the_open_ids_of_a_capability_are_listed"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name],
        cwd=ROOT,
        env={**os.environ, "POLYVOX_RAN": str(tmp_path / "ran.json"), "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert json.loads((tmp_path / "ran.json").read_text()) == {name: "passed"}
