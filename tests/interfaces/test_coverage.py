"""Promises of the coverage table: it is whole, and it cannot name a test that is not there."""

import json

import pytest

from . import coverage


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A coverage file of two documents, with a tree of tests beside it."""
    monkeypatch.setattr(coverage, "DOCUMENTS", {"S0": 2, "S1": 1})
    monkeypatch.delenv("POLYVOX_REQUIREMENTS", raising=False)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text(
        "def test_one(): pass\nasync def test_two(): pass\ndef other(): pass\n"
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
        (text('{ test = "", waits = "magic" }'), "S0-001: waits for 'magic'"),
        (text('{ test = "" }'), "S0-001: needs exactly"),
        (text("3"), "S0-001: needs exactly"),
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
