"""Promises of the check on proofs: it sees a test that fails when its code is broken, and one that does not."""

import pytest

from . import coverage, mutation

CODE = '''"""A module."""

HELD = []


def answer(question: str) -> int:
    """What it is."""
    return 42


def keep(value):
    HELD.append(value)


def prepared():
    return True


async def slowly() -> int: return 7


class Thing:
    @property
    def name(self) -> str:
        return "thing"

    def parts(self):
        yield from (1, 2)
'''

TESTS = """
import asyncio
import pytest
from polyvox.compat import thing

def rows(*ids):
    return pytest.mark.parametrize("row", ids)

def test_an_answer():
    assert thing.answer("why") == 42

def test_that_looks_at_nothing():
    thing.answer("why")

def test_that_keeps():
    thing.keep(1)

def test_of_files():
    assert __file__

def test_that_is_skipped():
    pytest.skip("not here")

@rows("S0-006", "S0-007")
def test_of_rows(row):
    if row == "S0-006":
        assert asyncio.run(thing.slowly()) == 7
    else:
        thing.Thing().name

def test_in_a_process():
    import subprocess, sys
    code = "from polyvox.compat import thing; assert thing.answer('why') == 42"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

def test_of_a_class():
    from polyvox.compat import other
    assert other.Only.held == 1

def test_with_a_fixture(prepare):
    assert thing.answer("why") == 42
    prepare()

def test_of_parts():
    assert list(thing.Thing().parts()) == [1, 2]
"""

FIXTURES = """
import pytest
from polyvox.compat import thing

@pytest.fixture
def prepare():
    return lambda: thing.prepared()
"""

ROWS = {
    "S0-001": "test_an_answer",
    "S0-002": "test_that_looks_at_nothing",
    "S0-003": "test_that_keeps",
    "S0-004": "test_of_files",
    "S0-005": "test_that_is_skipped",
    "S0-006": "test_of_rows",
    "S0-007": "test_of_rows[S0-007]",
    "S0-008": "test_of_parts",
    "S0-009": "test_in_a_process",
    "S0-010": "",
    "S0-011": "test_of_a_class",
    "S0-012": "test_with_a_fixture",
}


@pytest.fixture
def project(tmp_path):
    """A project of one module, with proofs good and bad."""
    root = tmp_path / "project"
    package = root / "src" / "polyvox" / "compat"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package / "thing.py").write_text(CODE)
    (package / "other.py").write_text("def made():\n    return 1\n\n\nclass Only:\n    held = made()\n")
    # The installed project says that pytest finds a plugin there.
    (package.parent / "testing").mkdir()
    (package.parent / "testing" / "__init__.py").write_text("")
    (package.parent / "testing" / "plugin.py").write_text("")
    (root / "tests").mkdir()
    (root / "tests" / "test_a.py").write_text(TESTS)
    (root / "tests" / "conftest.py").write_text(FIXTURES)
    (root / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    lines = [
        f'"{key}" = {{ test = "{name and f"tests/test_a.py::{name}"}", waits = "core" }}' for key, name in ROWS.items()
    ]
    path = root / "coverage.toml"
    path.write_text("[S0]\n" + "\n".join(lines) + "\n")
    return {"path": path, "root": root}


def told(out):
    return {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line.startswith("S")}


def test_a_proof_that_fails_is_told_from_one_that_cannot(project, capsys):
    before = (project["root"] / "src" / "polyvox" / "compat" / "thing.py").read_text()
    assert mutation.main(["--rows", "S0-001"], **project) == 0
    assert "S0-001 killed compat/thing.py:6 answer" in " ".join(capsys.readouterr().out.split())
    assert mutation.main(["--rows", "S0-001", "S0-002"], **project) == 1
    found = told(capsys.readouterr().out)
    assert found["S0-001"].startswith("killed") and found["S0-002"].startswith("survived")
    assert (project["root"] / "src" / "polyvox" / "compat" / "thing.py").read_text() == before


@pytest.mark.slow
def test_every_kind_of_proof_is_judged(project, capsys):
    assert mutation.main(["--seed", "3", "--count", "9"], **project) == 1
    out = capsys.readouterr().out
    found = told(out)
    assert {key: line.split(" compat/")[0] for key, line in found.items()} == {
        "S0-001": "killed",
        "S0-002": "survived",
        "S0-003": "killed",
        "S0-004": "drawn again no function of polyvox runs in it by tests/test_a.py::test_of_files",
        "S0-005": "drawn again skipped here by tests/test_a.py::test_that_is_skipped",
        "S0-006": "killed",
        "S0-007": "survived",
        "S0-008": "killed",
        "S0-009": "killed",
        "S0-011": "drawn again no function of polyvox runs in it by tests/test_a.py::test_of_a_class",
        "S0-012": "killed",
    }
    assert out.splitlines()[-1] == "3 drawn again, 6 killed, 2 survived"


def test_a_proof_that_fails_unbroken_is_told(project, capsys):
    (project["root"] / "tests" / "test_a.py").write_text("def test_an_answer(): assert False\n")
    assert mutation.main(["--rows", "S0-001"], **project) == 1
    assert "fails unbroken" in told(capsys.readouterr().out)["S0-001"]


@pytest.mark.parametrize(
    ("source", "line", "name", "gives", "said"),
    [
        ("def f():\n    'Doc.'\n    return 1\n", 1, "f", True, "def f():\n    return None\n    'Doc.'\n    return 1\n"),
        ("def f(): return 1\n", 1, "f", True, "def f(): return None; return 1\n"),
        ("@a\n@b\ndef f():\n    pass\n", 1, "f", True, "@a\n@b\ndef f():\n    return None\n    pass\n"),
        ("def f():\n    @a\n    def g(): 1\n", 1, "f", True, "def f():\n    return None\n    @a\n    def g(): 1\n"),
        ("class A:\n    async def f(self):\n        '''x'''\n", 2, "f", True,
         "class A:\n    async def f(self):\n        return None\n        '''x'''\n"),
        ("def f():\n    pass\n", 1, "f", False, 'def f():\n    raise RuntimeError("broken on purpose")\n    pass\n'),
    ],
)  # fmt: skip
def test_what_is_broken_gives_nothing_at_once(source, line, name, gives, said):
    assert mutation.broken(source, mutation.Function("x.py", line, name, True, gives)) == said
    compile(said, "x.py", "exec")


def test_what_is_broken_is_the_row_s_own():
    def entered(file, line, direct):
        return mutation.Function(file, line, f"f{line}", direct, True)

    core, deep, own, shared = (
        entered("client/base.py", 1, True), entered("compat/ttt/api.py", 2, False),
        entered("compat/ttt/api.py", 3, True), entered("compat/ttt/api.py", 4, True),
    )  # fmt: skip
    times = mutation.Counter({(one.file, one.line): 1 for one in (core, deep, own)} | {(shared.file, shared.line): 9})
    drawn = mutation.Drawn("S4-001", "tests/x.py::test_x", (core, deep, own, shared), "")
    assert mutation.choose(drawn, times) == own
    assert mutation.choose(drawn._replace(entered=(core, deep)), times) == core


@pytest.mark.slow
def test_the_proofs_of_this_project_can_fail(capsys):
    assert mutation.main(["--seed", "7", "--count", "30"]) == 0, capsys.readouterr().out


def test_there_are_proofs_to_judge():
    rows, problems = coverage.read(coverage.HERE / "coverage.toml")
    assert not problems and sum(bool(row.test) for row in rows) > 100
