"""What the benchmark says: what costs more than it may says why, or that nobody knows; a room's figures stand beside
the least they could be, and what is not as was promised is told."""

import ast
from importlib import import_module
from importlib.util import find_spec

import pytest
from benchmarks.__main__ import STARTS, main
from benchmarks.codecs import LIMIT, REASONS, YARDSTICK, cases
from benchmarks.contestants import BASE, FILES, OTHERS
from benchmarks.contestants import NAMES as CONTESTANTS
from benchmarks.figures import ROOMS, Figure, Size, of_room
from benchmarks.report import MOST_TIMES, WHY_DEARER, markdown

from polyvox.dialects import NAMES


def report(codecs=(), **measured):
    facts = {"when": "today", "python": "3", "machine": "m", "command": "c", "loop": "asyncio"}
    nothing = {"cpu": {}, "codecs": dict(codecs), "start": {}, "clients": {}, "rooms": {}, "versions": {}, "errors": {}}
    return markdown(facts | nothing | measured)


def test_every_reason_is_for_an_operation_that_is_measured():
    assert {name for _, name in REASONS} <= set(NAMES) - {YARDSTICK}
    for operation, name in REASONS:
        assert operation in cases(name)


def test_every_start_that_is_measured_imports_what_there_is():
    for arguments in STARTS.values():
        if arguments[0] == "-c":
            for line in ast.walk(ast.parse(arguments[1])):
                named = [line.module] if isinstance(line, ast.ImportFrom) else []
                named += [one.name for one in line.names] if isinstance(line, ast.Import) else []
                assert all(find_spec(name) is not None for name in named)
                if isinstance(line, ast.ImportFrom):
                    assert all(one.name in dir(import_module(line.module)) for one in line.names)


def test_every_operation_of_every_dialect_can_be_measured():
    for name in NAMES:
        for case in cases(name).values():
            case.ours()
            case.plain()


def test_a_dialect_that_costs_more_than_it_may_says_why_or_that_no_reason_is_stated():
    (operation, name), reason = next(iter(REASONS.items()))
    over = {"us": LIMIT * 10 + 1, "plain_us": 1.0}
    row = {YARDSTICK: {"us": 10.0, "plain_us": 5.0}, name: over}
    shown = report({operation: row, "new": row})
    assert f"| {operation} | 1.00 | 2.10 |" in shown
    assert f"* {operation}, {name}, 2.10: {reason}" in shown
    assert f"* new, {name}, 2.10: no reason is stated" in shown
    assert "stated" not in report({"new": {**row, name: {"us": 20.0, "plain_us": 1.0}}})


def test_a_contestant_that_costs_more_than_it_may_says_why_and_one_that_does_not_says_nothing():
    (name, cell), why = next(iter(WHY_DEARER.items()))
    most = MOST_TIMES[name]
    shown = report(cpu={BASE: {cell: 100.0}, name: {cell: 100.0 * most + 50}})
    assert f"{name}, {most + 0.5:.2f} (at most {most:g}): {why}" in shown
    assert "at most" not in report(cpu={BASE: {cell: 100.0}, name: {cell: 100.0 * most}})


def test_the_versions_of_other_libraries_are_told():
    assert "Versions: litellm 1.2, any-llm-sdk 3." in report(versions={"litellm": "1.2", "any-llm-sdk": "3"})
    assert "Versions" not in report()


def test_other_libraries_are_measured_by_an_interpreter_that_has_them(capsys):
    for name in OTHERS:
        assert find_spec(f"benchmarks.contestants.{name}") is not None
    with pytest.raises(SystemExit):
        main(["--only", next(iter(OTHERS))])
    assert "--others PYTHON" in capsys.readouterr().err


def test_reasons_limits_and_files_are_those_of_contestants():
    assert {name for name, _ in WHY_DEARER} <= set(MOST_TIMES) <= set(CONTESTANTS)
    assert set(FILES) <= set(CONTESTANTS)


def test_a_figure_stands_beside_a_call_of_the_yardstick_and_the_least_it_could_cost():
    room = {"ledger": [Figure("a row", 50.0, "µs CPU", "INSERT", 20.0, at_most=60.0)._asdict()]}
    shown = report(cpu={BASE: {"chat_c1": 200.0}}, rooms=room)
    assert "| a row | 50.0 | µs CPU | 0.25 | 2.50 | INSERT 20.0 | at most 60 |" in shown
    assert "wanted at" not in shown


def test_without_the_yardstick_or_a_bare_thing_there_is_no_ratio():
    shown = report(rooms={"ledger": [Figure("a row", 50.0)._asdict()]})
    assert "| a row | 50.0 | µs | – | – |  |  |" in shown


@pytest.mark.parametrize(
    ("figure", "wanted"),
    [
        (Figure("a hit", 41.0, "µs", at_most=40.0), "* cache: a hit is 41.0 µs, wanted at most 40"),
        (Figure("rows", 4_000.0, "rows/s", at_least=5_000.0), "* cache: rows is 4,000 rows/s, wanted at least 5,000"),
    ],
)
def test_a_figure_that_is_not_as_was_promised_is_told(figure, wanted):
    assert wanted in report(rooms={"cache": [figure._asdict()]})


def test_every_room_can_be_measured():
    for name in ROOMS:
        assert callable(import_module(f"benchmarks.{name}").measure)


@pytest.mark.parametrize("name", ["prices", "cache"])
def test_a_room_is_measured_in_a_process_of_its_own(name):
    figures = of_room(name, Size(rounds=1, times=20, history=0), None)
    assert all(isinstance(figure, Figure) and figure.value > 0 for figure in figures)
    assert len({figure.what for figure in figures}) == len(figures) > 2


def test_a_room_that_fails_says_what_it_said():
    with pytest.raises(RuntimeError, match="invalid choice"):
        of_room("no-such-room", Size(1, 1, 0), None)
