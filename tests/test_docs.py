"""Whatever the README and the documentation show runs: Python blocks, and console lines beginning with $."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parent.parent
# What is under docs/migrating/ needs a provider and a key: tests/interfaces/test_migrating.py runs it.
PAGES = sorted([ROOT / "README.md", *(page for page in ROOT.glob("docs/**/*.md") if page.parent.name != "migrating")])


def named(page):
    return page.relative_to(ROOT).as_posix().removeprefix("docs/")


def examples():
    for page in PAGES:
        for number, example in enumerate(Sybil([PythonCodeBlockParser()]).parse(page).examples()):
            yield pytest.param(example, id=f"{named(page)}-{number + 1}")


def commands():
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.splitlines():
                if line.startswith("$ "):
                    yield pytest.param(line[2:], id=f"{named(page)}: {line[2:]}")


@pytest.fixture(autouse=True)
def empty_home(monkeypatch, tmp_path):
    monkeypatch.setenv("POLYVOX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("example", list(examples()))
def test_a_python_block_runs(example, capsys):
    example.namespace.clear()
    example.evaluate()


@pytest.mark.parametrize("command", list(commands()))
def test_a_console_line_runs(command):
    python = shlex.quote(sys.executable)
    shell = re.sub(r"(^|\| *|&& *)polyvox ", lambda found: f"{found[1]}{python} -m polyvox ", command)
    done = subprocess.run(
        shell,
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_the_readme_shows_each_kind_of_block():
    assert len(list(examples())) >= 12
    assert len(list(commands())) >= 8


def test_the_readme_names_the_commands_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    words = set(re.findall(r"^python3 do (\w+)", text, re.MULTILINE))
    assert words == {"run", "test"}
    help_text = subprocess.run([sys.executable, str(ROOT / "do")], capture_output=True, text=True, check=False).stderr
    for word in ("run", "test", "lint", "vectors", "bench", "docs", "lock", "check"):
        assert f"python3 do {word}" in help_text
