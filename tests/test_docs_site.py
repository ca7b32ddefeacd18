"""The documentation as a whole: every page is found, every link leads somewhere, what is made is up to date, and the
site builds without a warning."""

import ast
import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import polyvox
from tests import docs_pages, providers_page, reference_pages
from tests.left_behind import nothing_left

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
SOURCE = Path(polyvox.__file__).parent


@pytest.fixture(scope="module")
def made():
    return docs_pages.pages()


def test_what_is_made_is_up_to_date(made):
    assert not docs_pages.stale(made), "run: python -m tests.docs_pages --write"


def test_a_page_out_of_date_is_named_and_written(made, monkeypatch, tmp_path):
    monkeypatch.setattr(docs_pages, "DOCS", shutil.copytree(DOCS, tmp_path / "docs"))
    shutil.copy(ROOT / "README.md", tmp_path)
    docs_pages.write(made)
    (tmp_path / "docs/providers/openai.md").write_text("# OpenAI\n")
    (tmp_path / "docs/providers/gone.md").write_text("# Gone\n")
    (tmp_path / "docs/llms.txt").unlink()
    compared = tmp_path / "docs/compared.md"
    compared.write_text(re.sub(r"(?<=polyvox, async \| )[\d.]+", "0.1", compared.read_text()))
    assert docs_pages.stale(made) == ["compared.md", "llms.txt", "providers/gone.md", "providers/openai.md"]
    monkeypatch.setattr(sys, "argv", ["docs_pages", "--write"])
    assert docs_pages.main() == 0 and not docs_pages.stale(made)


MEASURED = """\
| contestant | loop | chat c1 µs | × raw | chat c64 µs | × raw | burst c1 µs/chunk | × raw |
| --- | --: | --: | --: | --: | --: | --: | --: |
| raw_aiohttp | asyncio | 197 | 1.00 | 105 | 1.00 | 6.76 | 1.00 |
| polyvox_async | asyncio | 221 | 1.12 | 125 | 1.19 | 5.50 | 0.81 |
| polyvox_sync | own | 231 | 1.18 | 132 | 1.26 | 5.18 | 0.77 |
| openai_async | asyncio | 1341 | 6.81 | 1488 | 14.23 | 115 | 17.06 |
| openai_sync | none | 1226 | 6.23 | 1291 | 12.35 | 104 | 15.44 |
"""


def test_what_calls_cost_is_quoted_as_it_was_measured_and_nothing_else_is_said_of_speed():
    assert docs_pages.ratios(MEASURED).splitlines()[2::2] == [
        "| polyvox, async | 1.1 | 1.2 | 0.81 |", "| openai, async | 6.8 | 14 | 17 |",
    ]  # fmt: skip
    table = docs_pages.ratios((DOCS / "performance.md").read_text(encoding="utf-8"))
    begin, end = docs_pages.MARKS
    for path in docs_pages.QUOTING:
        text = (DOCS / path).read_text(encoding="utf-8")
        before, _, rest = text.partition(begin)
        shown, _, after = rest.partition(end)
        assert shown.strip() == table, "run: python -m tests.docs_pages --write"
        assert "performance.md" in before + after
        assert not re.search(r"\d times (faster|slower|as fast)|\d ?(µs|ms)\b|\d+x\b", before + after)


def test_the_site_names_every_page_once():
    assert sorted(path for _, _, path in docs_pages.nav()) == PAGES


def test_the_list_for_programs_names_every_page_with_its_first_sentence():
    lines = (DOCS / "llms.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# polyvox" and lines[2].startswith("> One voice for every model")
    listed = [re.fullmatch(r"- \[(.+?)\]\((.+?)\): (.+)", line) for line in lines if line.startswith("- ")]
    assert sorted(line[2] for line in listed) == PAGES
    about = {line[2]: line[3] for line in listed}
    assert about["tutorial.md"].startswith("All of this runs offline with the built-in model `demo`")
    assert about["providers/groq.md"].endswith("a model is named `groq/MODEL`.")
    # A reader learns what a page is about, and not where it comes from.
    assert not [page for page, words in about.items() if words.startswith(("Generated", "Made from", "The tables of"))]


def anchors(text):
    """The names of a page's headings, as the site makes them of the words."""
    found = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", words).strip().lower()) for words in found}


@pytest.mark.parametrize("page", [*PAGES, "../README.md"])
def test_every_link_leads_to_a_page_and_a_heading_that_are_there(page):
    place = (DOCS / page).resolve()
    for link in re.findall(
        r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", place.read_text(encoding="utf-8"), flags=re.DOTALL)
    ):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        there = (place.parent / path).resolve() if path else place
        assert there.is_file(), link
        assert not anchor or anchor in anchors(there.read_text(encoding="utf-8")), link
        # What is outside the folder is not on the site.
        assert page == "../README.md" or there.is_relative_to(DOCS), link


def test_the_site_builds_without_a_warning(tmp_path):
    zensical = shutil.which("zensical", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if zensical is None:
        pytest.skip("zensical is not installed: python3 do docs installs it")
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    done = subprocess.run(
        [zensical, "build", "--clean", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and "No issues found" in done.stdout + done.stderr, done.stdout + done.stderr
    for page in PAGES:
        built = tmp_path / "site" / page.removesuffix(".md").removesuffix("index") / "index.html"
        assert built.is_file(), page
    assert (tmp_path / "site/llms.txt").read_text() == (DOCS / "llms.txt").read_text()


# ---- the reference ----------------------------------------------------------------------------


def test_the_reference_shows_every_public_name():
    # UNSET is no class and no function: it stands for a field nobody set.
    assert reference_pages.missing() == ["UNSET"]


def test_signatures_are_shown_as_they_are_called():
    shown = (DOCS / "reference/asking.md").read_text(encoding="utf-8")
    assert "ask(prompt: Prompt, **said: Unpack[Said]) -> Response" in shown
    assert "await ask_async(prompt: Prompt, **said: Unpack[Said]) -> Response" in shown
    assert "    concurrency: int = 8," in shown
    assert "* `timeout`: seconds for a whole call, retries included." in shown
    assert '>>> print(ask("hello", model="demo").model)\ndemo\n```' in shown
    signatures = "".join(re.findall(r"```py\n(.*?)```", shown, re.DOTALL))
    assert not re.search(r"\bself\b|\b_\w+\(", signatures)
    values = (DOCS / "reference/values.md").read_text(encoding="utf-8")
    assert "    media_type: str | None = None,\n" in values.split("### Image")[1].split("###")[0]


def modules_with_examples():
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if re.search(r"^\s*>>> ", text, re.MULTILINE):
            parts = path.relative_to(SOURCE.parent).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("module", list(modules_with_examples()))
def test_examples_in_docstrings_are_true(module, monkeypatch, tmp_path):
    for name in ("HOME", "POLYVOX_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with nothing_left():
        done = doctest.testmod(importlib.import_module(module))
    assert done.attempted and not done.failed


# ---- the pages of providers -------------------------------------------------------------------


def test_a_provider_page_says_what_its_row_says(made):
    page = made["providers/mistral.md"]
    for said in ("`openai.chat`", "`https://api.mistral.ai/v1`", "`MISTRAL_API_KEY`", "`MISTRAL_BASE_URL`",
                 "* `random_seed`: the seed is called random_seed", "| media | video by URL | lost |"):  # fmt: skip
        assert said in page
    assert "GROQ_API_KEY" not in page


def test_a_provider_page_says_what_is_known_of_its_models(made):
    page = made["providers/openai.md"]
    (line,) = [line for line in page.splitlines() if line.startswith("| `gpt-4o-mini` |")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:3] == ["128,000", "16,384"] and cells[3:6] == ["0.15", "0.6", "0.075"]
    assert "vision" in cells[6] and "until 2027-01-14" in cells[7]
    assert "refuses: stop" in page


def test_every_provider_page_tells_key_habits_models_and_losses(made):
    for row in providers_page.asked_over_http():
        page = made[f"providers/{row.name}.md"]
        for told in ("\n| key | ", "\n## Habits\n", "\n## Models\n", "\n## What cannot be said here\n"):
            assert told in page, f"{row.name}: {told}"
        habits = page.split("## Habits\n")[1].split("\n## ")[0].strip()
        assert habits.count("\n* ") + habits.startswith("* ") == len(row.quirks)
        assert row.quirks or habits == providers_page.NO_HABITS


def test_every_provider_that_is_asked_over_http_has_a_page():
    rows = providers_page.asked_over_http()
    assert len(rows) >= 33
    assert {f"providers/{row.name}.md" for row in rows} <= set(PAGES)
    linked = (DOCS / "providers.md").read_text(encoding="utf-8")
    assert all(f"(providers/{row.name}.md)" in linked for row in rows)


def test_the_key_of_each_provider_is_on_its_page_and_no_page_has_one():
    for row in providers_page.asked_over_http():
        text = (DOCS / f"providers/{row.name}.md").read_text(encoding="utf-8")
        assert all(name in text for name in row.key_env)
        assert not re.search(r"\bsk-[A-Za-z0-9]{8}", text)


# ---- what is promised to contributors ---------------------------------------------------------


def test_the_template_of_a_package_is_a_backend_once_it_is_installed(tmp_path, monkeypatch):
    text = (DOCS / "howto/a-package-with-a-backend.md").read_text(encoding="utf-8")
    project = tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1])["project"]
    module = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    (tmp_path / "polyvox_parrot.py").write_text(module)
    info = tmp_path / f"polyvox_parrot-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["polyvox.backends"]
    (info / "entry_points.txt").write_text("[polyvox.backends]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert polyvox.ask("hello", model="parrot/grey").text == "grey: hello"
    assert "".join(polyvox.stream("one two", model="parrot/green")) == "green: one two"


def test_the_words_of_the_development_setup_are_those_of_do():
    known = {
        node.targets[0].id: [ast.literal_eval(key) for key in node.value.keys]
        for node in ast.parse((ROOT / "do").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    }["WORDS"]
    for page in ("docs/development-setup.md", "docs/testing.md", "CONTRIBUTING.md"):
        said = re.findall(r"python3 do (\w+)", (ROOT / page).read_text(encoding="utf-8"))
        assert said and set(said) <= set(known), page


def test_what_lands_has_passed_style_types_imports_vectors_and_tests():
    steps = (ROOT / ".ci/run").read_text(encoding="utf-8")
    done = [
        steps.index(step)
        for step in (
            '"$python" do lint', '"$python" do vectors', '"$python" do docs', "-x 'python3 do test' README.md",
        )
    ]  # fmt: skip
    assert done == sorted(done) and "set -euo pipefail" in steps
    lint = (ROOT / "do").read_text(encoding="utf-8").split("def lint(")[1].split("\ndef ")[0]
    assert all(tool in lint for tool in ('"ruff", "check"', '"ruff", "format", "--check"', '"mypy"', "lint-imports"))
    docs = (ROOT / "do").read_text(encoding="utf-8").split("def docs(")[1].split("\ndef ")[0]
    assert '"zensical", "build", "--clean", "--strict"' in docs


def test_the_first_example_of_the_readme_is_three_lines(capsys):
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    assert len(ast.parse(block).body) == 3
    exec(compile(block, "README.md", "exec"), {})
    assert "capital of France" in capsys.readouterr().out


def test_no_compiled_file_is_needed_and_an_old_one_harms_nothing(tmp_path):
    package = tmp_path / "polyvox"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
    run = [sys.executable, "-W", "error", "-c", "import polyvox; print(polyvox.ask('hello', model='demo').model)"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    for _ in range(2):  # the second time after every compiled file was cut to nothing
        done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "demo", "")
        compiled = list(package.rglob("*.pyc"))
        assert len(compiled) > 50
        for path in compiled:
            path.write_bytes(b"")


def test_the_public_names_are_a_promise_with_a_way_to_take_one_back():
    text = (DOCS / "stability.md").read_text(encoding="utf-8")
    for said in ("semantic versioning", "`DeprecationWarning` for two minor versions", "`CHANGELOG.md`"):
        assert said in text
    # Warnings are errors here: no name that is public warns of its end today.
    assert all(getattr(polyvox, name) is not None for name in polyvox.__all__)
    assert "semantic versioning from 1.0 on" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_examples_are_typed_strictly_and_a_misspelt_option_is_found(tmp_path):
    pages = [ROOT / "README.md", DOCS / "index.md", DOCS / "tutorial.md", DOCS / "testing.md", *DOCS.glob("howto/*.md")]
    for page in pages:
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)):
            (tmp_path / f"{page.stem.replace('-', '_')}_{number}.py").write_text(block)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *sorted(tmp_path.glob("*.py"))],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(SOURCE.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    mistakes = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(mistakes) == 1 and 'Unexpected keyword argument "temprature"' in mistakes[0], done.stdout + done.stderr
