"""Whatever the README and the documentation show runs as it is printed: Python blocks, console lines, and TOML. What is
not run stands in a list, with the reason."""

import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from polyvox.config import load
from polyvox.testing import Simulator
from tests.left_behind import nothing_left

ROOT = Path(__file__).parent.parent
# What is under docs/migrating/ needs a provider and a key: tests/interfaces/test_migrating.py runs its Python.
GUIDES = sorted(ROOT.glob("docs/migrating/*.md"))
PAGES = sorted({ROOT / "README.md", *ROOT.glob("docs/**/*.md")} - set(GUIDES))

NOT_RUN = {
    "python3 do run": "it makes an environment in the checkout; .ci/run does so with each of these words",
    "python3 do test": "the same",
    "export OPENAI_API_KEY": "it needs a key",
    "export OPENAI_BASE_URL": "it needs a simulator that stays; the console line below it starts one for itself",
    "pip install": "it changes the environment; tests/test_release.py installs the wheel, and each extra by itself",
    ".venv/bin/python -m tests.docs_pages": "it writes pages; tests/test_docs_site.py writes them elsewhere",
    "python -m benchmarks": "it takes minutes; tests/test_benchmarks.py runs it on little",
    "$ polyvox simulate": "it stays; test_a_simulator_says_what_the_page_shows starts it",
}
"""Blocks in other languages than those that are run, by what they begin with, and why they are not run here."""


def named(page):
    return page.relative_to(ROOT).as_posix().removeprefix("docs/")


def fenced(page):
    """The language and the text of each block of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def examples():
    for page in PAGES:
        for number, example in enumerate(Sybil([PythonCodeBlockParser()]).parse(page).examples()):
            yield pytest.param(example, id=f"{named(page)}-{number + 1}")


def commands():
    for page in [*PAGES, *GUIDES]:
        lines = [line for language, block in fenced(page) if language == "console" for line in block.splitlines()]
        if lines:
            yield pytest.param(lines, id=named(page))


def settings():
    for page in [*PAGES, *GUIDES]:
        for number, (language, block) in enumerate(fenced(page)):
            if language == "toml":
                yield pytest.param(block, id=f"{named(page)}-{number + 1}")


@pytest.fixture(autouse=True)
def empty_home(monkeypatch, tmp_path):
    monkeypatch.setenv("POLYVOX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with nothing_left():
        yield


@pytest.fixture
def terminal(monkeypatch, tmp_path, request):
    """A shell in which `polyvox` is ours, an Ollama server answers, and a model file lies where the page about models
    on this machine says."""
    script = tmp_path / "bin" / "polyvox"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m polyvox "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    with Simulator() as simulator:
        if request.node.callspec.id == "local.md":
            monkeypatch.setenv("OLLAMA_HOST", simulator.base_url("ollama.chat"))
            pytest.importorskip("xllamacpp", reason="the extra `local` is not installed")
            model = request.getfixturevalue("model_files") / "tiny.gguf"
            for place in (tmp_path / "tiny.gguf", tmp_path / "home" / "models" / "tiny.gguf"):
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(model, place)
        yield


def unkept(code, printed):
    """The first that a block says it prints and does not, in this order: a comment that begins with an arrow is a line,
    … in it stands for anything."""
    lines = iter(printed.splitlines())
    for words in re.findall(r"# → (.*)$", code, re.MULTILINE):
        pattern = ".*".join(map(re.escape, words.split("…")))
        if not any(re.fullmatch(pattern, line) for line in lines):
            return words
    return None


@pytest.mark.parametrize("example", list(examples()))
def test_a_python_block_runs(example, capsys):
    example.namespace.clear()
    with nothing_left():
        example.evaluate()
    assert unkept(str(example.parsed), capsys.readouterr().out) is None


def test_what_a_block_says_it_prints_must_be_printed_in_its_place():
    code = "print('one', 1)  # → one …\nprint('two')  # two is no promise\nprint('three')\n# → three"
    assert unkept(code, "one 1\ntwo\nthree\n") is None
    assert unkept(code, "one 1\ntwo\n") == "three"
    assert unkept(code, "three\none 1\n") == "three"
    assert sum("# → " in block for page in PAGES for language, block in fenced(page) if language == "python") >= 40


@pytest.mark.parametrize("lines", list(commands()))
def test_a_console_line_runs(lines, terminal):
    # All of a page in one home and one after another, as a reader types them.
    for line in lines:
        assert line.startswith("$ "), f"a console block holds commands: {line}"
        done = subprocess.run(
            line[2:], shell=True, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert "Traceback" not in done.stderr, line


@pytest.mark.parametrize("text", list(settings()))
def test_settings_in_toml_are_taken(text, tmp_path):
    said = tomllib.loads(text)
    place = tmp_path / "shown.toml"
    place.write_text(text)
    if "fault" in said:
        with Simulator(plan=place) as simulator:
            assert simulator.url
    elif "project" in said:
        assert said["project"]["entry-points"]["polyvox.backends"]
    else:
        assert load(files=[place], env={})


def test_what_is_not_run_has_a_reason():
    others = [
        (named(page), block)
        for page in [*PAGES, *GUIDES]
        for language, block in fenced(page)
        if language not in ("python", "console", "toml", "py", "pycon")  # the last two stand in the reference
    ]
    for page, block in others:
        assert any(block.startswith(start) for start in NOT_RUN), f"{page}: {block}"
    for start in NOT_RUN:
        assert any(block.startswith(start) for _, block in others), f"{start} is nowhere any more"


def test_tests_that_are_shown_pass(tmp_path):
    shown = [
        code for language, code in fenced(ROOT / "docs/simulate.md") if language == "python" and "def test_" in code
    ]
    assert shown
    for number, code in enumerate(shown):
        (tmp_path / f"test_shown_{number}.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


def test_a_simulator_says_what_the_page_shows():
    (shown,) = [block for language, block in fenced(ROOT / "docs/simulate.md") if language == "text"]
    command, address, *notes = shown.splitlines()
    words = command.removeprefix("$ polyvox ").replace("'", "").split()
    with subprocess.Popen(
        [sys.executable, "-m", "polyvox", *words, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        late = threading.Timer(60, started.kill)
        late.start()
        first = started.stdout.readline().strip()
        started.terminate()
        rest = started.stderr.read().splitlines()
        late.cancel()
    assert started.returncode == 0
    port = first.rpartition(":")[2]
    assert [line.replace(port, "8089") for line in (first, *rest[: len(notes)])] == [address, *notes]


def test_the_readme_shows_each_kind_of_block():
    assert len(list(examples())) >= 12
    assert sum(len(shown.values[0]) for shown in commands()) >= 8


def test_the_readme_names_the_commands_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    words = set(re.findall(r"^python3 do (\w+)", text, re.MULTILINE))
    assert words == {"run", "test"}
    help_text = subprocess.run([sys.executable, str(ROOT / "do")], capture_output=True, text=True, check=False).stderr
    for word in ("run", "test", "lint", "vectors", "bench", "docs", "lock", "check"):
        assert f"python3 do {word}" in help_text
