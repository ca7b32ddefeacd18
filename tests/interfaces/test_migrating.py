"""The guides for those who come from elsewhere: each half of each pair runs, against one simulated provider, and both
end with the same text."""

import ast
import asyncio
import importlib.util
import inspect
import os
import re
from pathlib import Path

import pytest

from polyvox import errors
from polyvox.compat import names
from polyvox.compat.errors import named

from .rows import rows

ROOT = Path(__file__).parent.parent.parent
GUIDES = sorted((ROOT / "docs/migrating").glob("*.md"))
# A package that a guide leads away from, and that the development requirements do not have.
OTHERS = ("litellm",)
# The documents' packages are served by ours: the word in the imports is all that changes.
ROOTS = {"creative_services": "creative_services", "ai_utilities": "ai_utilities", "app": "llm_service", "ttt": "ttt"}


@pytest.fixture
def asked(world, monkeypatch):
    """The simulated providers, said to AI Utilities too by the variables it reads."""
    for name, value in (("API_KEY", "OPENAI_API_KEY"), ("BASE_URL", "OPENAI_BASE_URL")):
        monkeypatch.setenv(f"AI_{name}", os.environ[value])
    monkeypatch.setenv("AI_MODEL", "gpt-6-luna")
    return world


def blocks(guide):
    """The blocks of a guide: the heading each stands under, "before", "after" or "" by the word above it, its code."""
    text = guide.read_text(encoding="utf-8")
    for found in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        above = text[: found.start()].rstrip().splitlines()
        heading = next(line for line in reversed(above) if line.startswith("#"))
        word = {"Before:": "before", "After:": "after"}.get(above[-1], "")
        yield heading.strip("# "), word, found[1]


def pairs():
    for guide in GUIDES:
        found = {}
        for heading, word, code in blocks(guide):
            found.setdefault(heading, {})[word] = code
        for heading, halves in found.items():
            if "before" in halves:
                yield pytest.param(halves["before"], halves["after"], id=f"{guide.stem}: {heading}")


def others():
    for guide in GUIDES:
        for number, (heading, word, code) in enumerate(blocks(guide)):
            if not word:
                yield pytest.param(code, id=f"{guide.stem}: {heading} {number}")


def ran(code):
    """What the names of a block are after it ran; it may await, as in a notebook. None where what it needs is not
    installed."""
    if any(
        importlib.util.find_spec(name) is None for name in OTHERS if re.search(rf"^(import|from) {name}\b", code, re.M)
    ):
        return None
    for word, package in ROOTS.items():
        code = re.sub(rf"^from {word}\b", f"from polyvox.compat.{package}", code, flags=re.M)
    names = {"__name__": "guide"}
    done = eval(compile(code, "guide", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if inspect.iscoroutine(done):
        asyncio.run(done)
    return names


@pytest.mark.parametrize(("before", "after"), list(pairs()))
def test_before_and_after_give_the_same_text(before, after, asked):
    found = ran(after)
    first = ran(before)
    if first is None:
        pytest.skip("what this guide leads away from is not installed; the half called after ran")
    assert first["text"] and first["text"] == found["text"]


@pytest.mark.parametrize("code", list(others()))
def test_what_stands_alone_runs(code, asked):
    assert ran(code)


def test_every_guide_has_pairs_and_each_half_its_other():
    assert [guide.stem for guide in GUIDES] == [
        "ai-utilities", "creative-services", "litellm", "llm-service", "openai", "ttt",
    ]  # fmt: skip
    for guide in GUIDES:
        words = [word for _, word, _ in blocks(guide) if word]
        assert words and words == ["before", "after"] * (len(words) // 2), guide.name


def documented():
    """The two halves of the pair that the document itself prints, in our words."""
    guide = ROOT / "docs/migrating/creative-services.md"
    return {word: code for heading, word, code in blocks(guide) if heading == "From the SDK of OpenAI"}


@rows("S1-047", "S1-048")
def test_the_guide_from_openai_runs_before_and_after_against_one_provider(row, asked):
    halves = documented()
    assert "openai.OpenAI(" in halves["before"] and "polyvox" not in halves["before"]
    before, after = ran(halves["before"]), ran(halves["after"])
    assert before["text"] and before["text"] == after["text"]
    first, second = (request.json["messages"][-1]["content"] for request in list(asked.requests)[-2:])
    assert first == second == before["prompt"]


@rows("S1-050")
def test_the_half_after_openai_finds_its_model_by_a_tier(row, asked):
    code = documented()["after"]
    assert "DictRegistry.from_env()" in code and "tier=LLMTier.STANDARD" in code
    assert re.search(r"^response = await client.generate\(", code, re.M)
    found = ran(code)
    assert found["response"].content == found["text"] and found["prompt"] in found["text"]
    entry = found["registry"].get_by_tier("standard")
    assert entry.model.endswith(f"/{list(asked.requests)[-1].model}")


@rows("S0-006")
def test_the_documented_tree_is_mapped_to_what_is_there(row):
    said = {}
    for line in (ROOT / "docs/migrating/creative-services.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            there, here = line.strip("| ").split(" | ")
            said |= {path: here for path in re.findall(r"`([^`]+)`", there)}
    tree = """platform/ packages/creative-services/creative_services/ core/llm_client.py core/llm_registry.py
        core/usage_tracker.py core/base_handler.py adapters/django_adapter.py adapters/bfagent_compat.py character/
        story/ dialogue/ pyproject.toml README.md docs/source/""".split()
    assert set(said) == set(tree)
    assert {path for path in tree if said[path] == "not yet"} == {"character/", "story/", "dialogue/"}
    assert said["core/llm_client.py"].startswith("`src/polyvox/compat/creative_services/core/llm_client.py`")


NOT_YET = {
    "creative-services": {
        name: f"creative_services.{name.strip('/')}" for name in ("character/", "story/", "dialogue/")
    },
    "ai-utilities": {"audio/": "ai_utilities.audio", "files/": "ai_utilities.files"},
    "llm-service": {"jobs.py": "llm_service.services.llm.jobs", "call.py": "llm_service.models.llm.call"},
    "ttt": {"ttt/tools/": "ttt.tools"},
}
# What a guide calls "not yet", and where somebody would import it from.


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_what_a_guide_calls_not_yet_says_what_works_in_its_place(guide):
    rows = re.findall(r"^\| (`.+`) \| not yet \|$", guide.read_text(encoding="utf-8"), re.MULTILINE)
    waiting = NOT_YET.get(guide.stem, {})
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == set(waiting)
    for module in waiting.values():
        with pytest.raises(ImportError) as told:
            exec(f"from polyvox.compat.{module} import Anything", {})
        assert "meanwhile" in told.value.hint, module


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_every_place_that_a_guide_names_is_there(guide):
    places = re.findall(r"`((?:src|docs)/[^`]+|pyproject.toml|README.md)`", guide.read_text(encoding="utf-8"))
    assert all((ROOT / path).exists() for path in places if path != "docs/source/")
    ours = {"creative-services", "ai-utilities", "llm-service", "ttt"}
    assert len(places) >= 4 or guide.stem not in ours


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_every_error_that_a_guide_names_is_one(guide):
    text = guide.read_text(encoding="utf-8").partition("## Errors")[2]
    for line in text.splitlines():
        if line.startswith("| `"):
            theirs, ours = line.strip("| ").split(" | ")
            assert all(hasattr(errors, name) for name in re.findall(r"`(\w+Error)`", ours)), line
            if guide.stem not in ("openai", "litellm"):
                for name in re.findall(r"`(\w+Error)`", theirs):
                    documented_there = getattr(names, name)
                    for mine in re.findall(r"`(\w+Error)`", ours):
                        raised = named(getattr(errors, mine)("it broke"))
                        assert isinstance(raised, documented_there), f"{mine} is no {name}"
