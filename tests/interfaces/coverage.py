"""What of the documented interfaces is proved by a test, and what is open: `python -m tests.interfaces.coverage`.
It reads coverage.toml and the test files as text, and with --ran how the tests ended (see `ran`); it runs no test and
knows nothing of what a row says."""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

DOCUMENTS = {"S0": 84, "S1": 56, "S2": 210, "S3": 206, "S4": 179}
"""Rows of each document; their ids count from 001."""

CAPABILITIES = {
    "core": "client, engine, transports, settings, keys, errors, command line",
    "dialects": "what goes over the wire to each provider and comes back, lists of models included",
    "routing": "facts about models, tiers, choice of model, failover and balance between deployments",
    "limits": "leases on requests, tokens and concurrency, retry budgets, circuit breakers",
    "caches": "answers kept and found again",
    "ledger": "usage and money",
    "telemetry": "log levels and fields, spans, counters, histograms",
    "sessions": "conversations counted, pruned, saved and resumed",
    "interfaces": "the four documented packages, by their own names",
    "tools": "functions as tools, the tool loop, sandbox, files and addresses that tools may reach",
    "plugins": "backends and tools of others: found, verified, loaded",
    "jobs": "work that outlives the caller, batches",
    "django": "the Django app",
    "creative": "characters, stories, dialogues",
    "audio-files": "speech, transcription, file stores",
    "serving": "a protocol answered by us in a test: the simulated provider, recordings played back over HTTP",
    "gateway": "the service others talk to over HTTP",
    "docs": "documentation, packaging, contribution",
    "experiments": "what learns: a choice of model from outcomes, an answer from what is like its question",
    "otherwise": "nothing: it is decided otherwise, and a guide says what is there in its place",
}
"""The closed list of what an open row may wait for. A row waits for the last of what it needs: for
"interfaces" when it speaks of a documented package's own class, module, import or variable, else for the
room whose behaviour it describes."""


class Row(NamedTuple):
    """One documented promise: its id, the tests that prove it with a space between ("" while open), and
    what it waits for. A test with parameters is named without them and stands for all of them, or where it has a case
    for this row, for that one; `tests/x.py::test_name[S2-048]` names a case."""

    id: str
    test: str
    waits: str


def read(path: Path) -> tuple[list[Row], list[str]]:
    """The rows of a coverage file in their order, and what is wrong with its form."""
    rows: list[Row] = []
    problems: list[str] = []
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return rows, [f"{path.name}: {error}"]
    for document, table in tables.items():
        for key, entry in table.items() if isinstance(table, dict) else [(document, table)]:
            fields = entry if isinstance(entry, dict) else {}
            if set(fields) != {"test", "waits"} or not all(isinstance(value, str) for value in fields.values()):
                problems.append(f'{key}: needs exactly {{ test = "...", waits = "..." }}')
            if not key.startswith(f"{document}-"):
                problems.append(f"{key}: stands under [{document}]")
            rows.append(Row(key, str(fields.get("test", "")), str(fields.get("waits", ""))))
    return rows, problems


def expected_ids() -> list[str]:
    """Every id there is, in the order of the documents."""
    return [f"{document}-{number:03d}" for document, count in DOCUMENTS.items() for number in range(1, count + 1)]


def check_ids(rows: list[Row], wanted: list[str], source: str) -> list[str]:
    """Ids that are missing, unknown or out of order, against the ids `source` gives."""
    found = [row.id for row in rows]
    problems = [f"{missing}: unmapped; {source} has it" for missing in wanted if missing not in set(found)]
    problems += [f"{unknown}: unknown to {source}" for unknown in found if unknown not in set(wanted)]
    problems += [f"{key}: listed {times} times" for key, times in Counter(found).items() if times > 1]
    if not problems and found != wanted:
        first = next(have for have, want in zip(found, wanted, strict=True) if have != want)
        problems.append(f"{first}: out of order")
    return problems


def check_rows(rows: list[Row], root: Path) -> list[str]:
    """Capabilities not on the list, and tests that do not exist under `root`."""
    problems: list[str] = []
    known: dict[str, dict[str, Cases]] = {}
    for row in rows:
        if row.waits not in CAPABILITIES:
            problems.append(f"{row.id}: waits for {row.waits!r}, which is none of {', '.join(CAPABILITIES)}")
        found = [check_test(test, row.id, root, known) for test in row.test.split()]
        problems += [f"{row.id}: {problem}" for problem in found if problem]
    return problems


def check_test(test: str, row: str, root: Path, known: dict[str, dict[str, Cases]]) -> str | None:
    """What is wrong with a test's name; `known` keeps the tests of files that were read."""
    file, name, case = parts(test)
    if not file.startswith("tests/") or ".." in file or not name:
        return f"{test!r} is not of the form tests/path.py::test_name or tests/path.py::test_name[case]"
    if not Path(file).name.startswith("test_"):
        return f"{test!r} is in a file where pytest looks for no tests"
    if file not in known:
        known[file] = tests_in(root / file)
    if name not in known[file]:
        return f"there is no test {test}"
    cases = known[file][name]
    if case and not cases.parametrized:
        return f"{file}::{name} has no cases, so that there is no {test}"
    if cases.rows is not None and (case or row) not in cases.rows:
        return f"@rows of {file}::{name} has no {case or row}"
    return None


def parts(test: str) -> tuple[str, str, str]:
    """File, name and case of a test; what is missing is empty, and so is all of what is malformed."""
    found = re.fullmatch(r"([^:\[\]]+)::(\w+)(?:\[([^\[\]]+)\])?", test)
    return (found[1], found[2], found[3] or "") if found else ("", "", "")


class Cases(NamedTuple):
    """What a test's decorators say of its cases: whether there are any, and the ids in `@rows`, if it has that."""

    parametrized: bool
    rows: frozenset[str] | None


def tests_in(path: Path) -> dict[str, Cases]:
    """The test functions at the top level of a file that are run; none when it is no readable Python. What is
    always skipped, or expected to fail, proves nothing and is not among them."""
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return {}
    functions = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {
        node.name: Cases(bool(_MANY & set(_marks(node))), _rows(node))
        for node in functions
        if node.name.startswith("test") and not _IDLE & set(_marks(node))
    }


def _rows(node: ast.FunctionDef | ast.AsyncFunctionDef) -> frozenset[str] | None:
    """The ids in a test's `@rows(...)`; None where it has none, or where they are not written out."""
    for mark in node.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "rows":
            ids = [arg.value for arg in mark.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            return frozenset(ids) if len(ids) == len(mark.args) else None
    return None


_IDLE = {"pytest.mark.skip", "pytest.mark.xfail", "pytest.fixture"}
_MANY = {"pytest.mark.parametrize", "rows", "block"}


def _marks(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [ast.unparse(mark.func if isinstance(mark, ast.Call) else mark) for mark in node.decorator_list]


def check_ran(rows: list[Row], ends: dict[str, str]) -> list[str]:
    """Mapped tests that did not pass. `ends` is what `ran` wrote: passed, skipped or failed by node id. All cases count
    that stand for the row, and one that was skipped did not run."""
    cases: dict[str, dict[str, str]] = {}
    for node, end in ends.items():
        name, _, case = node.partition("[")
        cases.setdefault(name, {})[case.removesuffix("]")] = end
    problems: list[str] = []
    for row in rows:
        for test in row.test.split():
            file, name, case = parts(test)
            found = cases.get(f"{file}::{name}", {})
            mine = {key: end for key, end in found.items() if _is_of(key, case or row.id)}
            mine = mine or ({} if case else found)
            bad = [f"{key or 'it'} {end}" for key, end in mine.items() if end != "passed"]
            if not mine:
                problems.append(f"{row.id}: {test} did not run")
            elif bad:
                more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
                problems.append(f"{row.id}: {test} did not pass: {', '.join(bad[:3])}{more}")
    return problems


def _is_of(case: str, wanted: str) -> bool:
    # pytest puts a dash between the ids of several parameters.
    return f"-{wanted}-" in f"-{case}-"


def table(rows: list[Row]) -> str:
    """Rows, proved and open by capability, a line a document and one for the sum."""
    opened = Counter((row.id[:2], row.waits) for row in rows if not row.test)
    columns = [name for name in CAPABILITIES if any(waits == name for _, waits in opened)]
    lines = [["", "rows", "proved", *columns]]
    for document in [*dict.fromkeys(row.id[:2] for row in rows), "all"]:
        mine = [row for row in rows if document in (row.id[:2], "all")]
        proved = sum(bool(row.test) for row in mine)
        counts = Counter(row.waits for row in mine if not row.test)
        lines.append([document, str(len(mine)), str(proved), *(str(counts[name] or "·") for name in columns)])
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def main(argv: list[str] | None = None, *, path: Path = HERE / "coverage.toml", root: Path = ROOT) -> int:
    """Print what is open; 1 when the file is wrong, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.interfaces.coverage", description="What is proved, what open."
    )
    parser.add_argument("--list", choices=CAPABILITIES, metavar="CAPABILITY", help="the open ids that wait for it")
    parser.add_argument("--ran", metavar="FILE", help="what a run wrote to $POLYVOX_RAN: mapped tests must have passed")
    options = parser.parse_args(argv)
    rows, problems = read(path)
    problems += check_ids(rows, expected_ids(), "coverage.py") + check_rows(rows, root)
    if source := os.environ.get("POLYVOX_REQUIREMENTS"):
        try:
            wanted = [row["id"] for row in json.loads(Path(source).read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError, KeyError) as error:
            problems.append(f"$POLYVOX_REQUIREMENTS cannot be read: {error!r}")
        else:
            problems += check_ids(rows, wanted, "$POLYVOX_REQUIREMENTS")
    if options.ran:
        try:
            problems += check_ran(rows, json.loads(Path(options.ran).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            problems.append(f"{options.ran} cannot be read: {error}")
    if options.list:
        print("\n".join(row.id for row in rows if row.waits == options.list and not row.test))
    else:
        print(table(rows))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
