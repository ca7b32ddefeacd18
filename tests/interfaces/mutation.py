"""Whether the proofs can fail: `python -m tests.interfaces.mutation --seed N --count 30` draws proved rows, breaks the
code that serves each in a copy of the tree, and runs the row's test there, which must fail. It judges tests, no code.

Which function is broken: of those of src/polyvox that the test enters, one that the test itself calls goes before one
that is called on the way, one of polyvox/compat before one of the core, one that fewer of the drawn tests enter before
one that more do, and of those the one it entered last, since what is asserted comes after what prepares it. What
simulates providers is the test's own tool and is never broken; neither is what only tidies up. A call out of a conftest
is not the test's own either, since it prepares, and what is called while a module is loaded makes its names and is
never broken. The function gives None at once; where it never gave anything else, it raises. A row in whose test no
function of polyvox runs, such as one about packaging, text or an import alone, and one whose test is skipped here, is
drawn again, and the table says so. All are looked at in one process; a survivor is looked at again alone."""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from . import coverage

SECONDS = 180
"""That a test may take."""
PATIENCE = 30, 3
"""Seconds that its run with a mutant may take, and how many times those of its traced run are added, which are more
than it needs alone; one that a mutant makes hang has seen it."""

LEFT_OUT = (".git", ".venv", "site", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", "*.egg-info")
TOOLS = ("testing/", "__init__.py")
"""What of polyvox is never broken: the simulated providers, and the tables of names that load on first touch."""
TIDY = {
    "close",
    "aclose",
    "_at_exit",
    "__exit__",
    "__aexit__",
    "__del__",
    "__repr__",
    "reset",
    "forget_models",
    "__getattr__",
}


class Function(NamedTuple):
    """One that a test entered: its file below the sources, its first line and name, whether the test itself called it,
    and whether it ever gave anything but None."""

    file: str
    line: int
    name: str
    direct: bool
    gives: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.name}"


class Drawn(NamedTuple):
    """A row, the one of its tests that was drawn, what that enters, why it says nothing ("" where it does), and the
    seconds it took."""

    row: str
    test: str
    entered: tuple[Function, ...]
    why_not: str
    took: float = SECONDS


Pair = tuple[str, str]
"""A row and one of its tests."""


class Judged(NamedTuple):
    """What became of a row: "killed", "survived" or "drawn again", and the function or the reason."""

    row: str
    test: str
    end: str
    what: str


class Tree:
    """A copy of the project in which one function at a time is broken."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = folder / "tree"
        shutil.copytree(root, self.root, ignore=shutil.ignore_patterns(*LEFT_OUT))
        self.sources = self.root / "src" / "polyvox"
        self.plugin = folder / "plugin"
        self.plugin.mkdir()
        shutil.copy(coverage.HERE / "traced.py", self.plugin / "polyvox_traced.py")
        # Beside the sources, where each Python finds it that finds them.
        shutil.copy(coverage.HERE / "traced.py", self.root / "src" / "sitecustomize.py")
        self.notes = folder / "notes.json"

    def run(self, wanted: list[Pair], *, traced: bool = False, seconds: float = SECONDS) -> list[Drawn] | None:
        """How the cases of these end in a fresh process; None where that ends without a word, or not in time."""
        paths = (self.root / "src", self.root, self.plugin)
        env = {name: value for name, value in os.environ.items() if name not in ("POLYVOX_RAN", "PYTEST_ADDOPTS")}
        env |= {
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "MUTATION_WANTED": json.dumps(wanted),
            "MUTATION_SOURCES": f"{self.sources}{os.sep}",
            "MUTATION_NOTES": str(self.notes),
            "MUTATION_TRACED": "1" if traced else "",
        }
        for old in self.notes.parent.glob("notes.json*"):
            old.unlink()
        # Slow tests are drawn like all others.
        words = ["-q", "-p", "polyvox_traced", "-m", "slow or not slow", "--continue-on-collection-errors"]
        # Tests run without these plugins too, whose import takes as long as many a test.
        words += [word for name in ("cacheprovider", "hypothesispytest", "anyio") for word in ("-p", f"no:{name}")]
        words += dict.fromkeys(test.partition("[")[0] for _, test in wanted)
        if len(wanted) == 1:
            words.append("-x")
        command = [sys.executable, "-m", "pytest", *words]
        try:
            subprocess.run(command, cwd=self.root, env=env, capture_output=True, timeout=seconds, check=False)
            notes = json.loads(self.notes.read_text("utf-8"))
        except (subprocess.TimeoutExpired, OSError, ValueError):
            return None
        return [self._drawn(*wanted[place], place, note) for place, note in enumerate(notes)]

    def _drawn(self, row: str, test: str, place: int, note: dict[str, Any]) -> Drawn:
        """What was noted of a row, here and in the processes that its test started, without what is never broken."""
        if note["failed"] or not note["cases"]:
            return Drawn(row, test, (), "fails unbroken", note["took"])
        if not note["passed"]:
            return Drawn(row, test, (), "skipped here", note["took"])
        noted = list(note["entered"])
        for path in sorted(self.notes.parent.glob("notes.json.*")):
            if str(place) in path.name.split(".")[2].split("-"):
                noted += json.loads(path.read_text("utf-8"))
        found: dict[tuple[str, int, str], Function] = {}
        for one in noted:
            key = (os.path.relpath(one["file"], self.sources), one["line"], one["name"])
            old = found.get(key)
            found[key] = Function(
                *key, one["direct"] or bool(old and old.direct), one["gives"] or bool(old and old.gives)
            )
        entered = tuple(one for one in found.values() if one.name not in TIDY and not one.file.startswith(TOOLS))
        return Drawn(row, test, entered, "" if entered else "no function of polyvox runs in it", note["took"])

    def killed(self, function: Function, drawn: Drawn) -> bool:
        """Whether the test fails when that function is broken."""
        seconds = min(PATIENCE[0] + PATIENCE[1] * drawn.took, SECONDS)
        path = self.sources / function.file
        whole = path.read_bytes()
        path.write_text(broken(whole.decode("utf-8"), function), encoding="utf-8")
        try:
            ended = self.run([(drawn.row, drawn.test)], seconds=seconds)
            return ended is None or ended[0].why_not == "fails unbroken"
        finally:
            path.write_bytes(whole)


def broken(source: str, function: Function) -> str:
    """The source with a first statement in that function which gives None, or raises where it gave nothing else.

    >>> print(broken("def f(a):\\n    return a\\n", Function("x.py", 1, "f", True, True)))
    def f(a):
        return None
        return a
    <BLANKLINE>
    """
    statement = "return None" if function.gives else 'raise RuntimeError("broken on purpose")'
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name != function.name:
            continue
        first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
        if first != function.line:
            continue
        lines = source.splitlines(keepends=True)
        body = node.body[0]
        if body.lineno == node.lineno:  # all of it on one line
            line = lines[body.lineno - 1]
            encoded = line.encode("utf-8")
            head, tail = encoded[: body.col_offset].decode("utf-8"), encoded[body.col_offset :].decode("utf-8")
            lines[body.lineno - 1] = f"{head}{statement}; {tail}"
        else:
            start = min([body.lineno, *(mark.lineno for mark in getattr(body, "decorator_list", []))])
            lines.insert(start - 1, f"{' ' * body.col_offset}{statement}\n")
        return "".join(lines)
    raise LookupError(f"there is no {function}")


def look(tree: Tree, wanted: list[Pair]) -> list[Drawn]:
    """Rows and the test of each, run as they are: in one process, and each alone where that does not end well."""
    seconds = SECONDS + 10 * len(wanted)
    found = tree.run(wanted, traced=True, seconds=seconds)
    if found is not None:
        return found
    if len(wanted) == 1:
        return [Drawn(*wanted[0], (), "fails unbroken", seconds)]
    return [one for pair in wanted for one in look(tree, [pair])]


def choose(drawn: Drawn, times: Counter[tuple[str, int]]) -> Function:
    """The function to break; see the top of this module."""
    ranked = [
        (not one.direct, not one.file.startswith("compat"), times[one.file, one.line], -place)
        for place, one in enumerate(drawn.entered)
    ]
    return drawn.entered[ranked.index(min(ranked))]


def judge(tree: Tree, rows: list[coverage.Row], count: int, rng: random.Random) -> list[Judged]:
    """What becomes of `count` rows drawn from these, and of those that were drawn in vain."""
    ahead: list[Pair] = [(row.id, rng.choice(row.test.split())) for row in rng.sample(rows, len(rows))]
    ready: list[Drawn] = []
    found: list[Judged] = []
    while ahead and len(ready) < count:
        missing = count - len(ready)
        for one in look(tree, ahead[:missing]):
            if one.why_not:
                found.append(_told(Judged(one.row, one.test, "drawn again", one.why_not)))
            else:
                ready.append(one)
        del ahead[:missing]
    times = Counter((each.file, each.line) for one in ready for each in one.entered)
    found += [_told(verdict(tree, one, times)) for one in ready]
    return found


def verdict(tree: Tree, one: Drawn, times: Counter[tuple[str, int]]) -> Judged:
    """Whether a mutant lives. One that does may stand in a function which another test of the same process left
    running, or which runs only once in a process; so it is looked at again alone."""
    function = choose(one, times)
    killed = tree.killed(function, one)
    if not killed:
        (alone,) = look(tree, [(one.row, one.test)])
        if alone.entered and (other := choose(alone, times)) != function:
            function, killed = other, tree.killed(other, alone)
    return Judged(one.row, one.test, "killed" if killed else "survived", str(function))


def _told(one: Judged) -> Judged:
    """The same, said at once to who waits."""
    print(f"{one.row}  {one.end}  {one.what}", file=sys.stderr, flush=True)
    return one


def table(found: list[Judged]) -> str:
    """A line a row, the survivors last, and the sums."""
    order = ["drawn again", "killed", "survived"]
    lines = sorted(found, key=lambda one: (order.index(one.end), one.row))
    widths = [max((len(line[place]) for line in lines), default=0) for place in range(3)]
    shown = [
        f"{one.row.ljust(widths[0])}  {one.end.ljust(widths[2])}  {one.what}  by {one.test}".rstrip() for one in lines
    ]
    counts = Counter(one.end for one in found)
    return "\n".join([*shown, ", ".join(f"{counts[end]} {end}" for end in order)])


def main(
    argv: list[str] | None = None, *, path: Path = coverage.HERE / "coverage.toml", root: Path = coverage.ROOT
) -> int:
    """Print what became of each row; 1 when a mutant survived or a test failed unbroken, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.interfaces.mutation", description="Whether proofs can fail.")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--count", type=int, default=30, help="rows that are judged")
    parser.add_argument("--rows", nargs="+", metavar="ID", help="these rows, and no others")
    options = parser.parse_args(argv)
    rows, problems = coverage.read(path)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    proved = [row for row in rows if row.test and (not options.rows or row.id in options.rows)]
    with tempfile.TemporaryDirectory(prefix="polyvox-mutation-") as folder:
        tree = Tree(root, Path(folder).resolve())
        found = judge(tree, proved, min(options.count, len(proved)), random.Random(options.seed))
    print(table(found))
    return int(any(one.end == "survived" or one.what == "fails unbroken" for one in found))


if __name__ == "__main__":
    sys.exit(main())
