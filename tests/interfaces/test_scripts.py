"""Promises of the acceptance scripts: a program written by each document runs here with its import root changed, and
nothing else."""

import difflib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import blocks
from .conftest import providers_here

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {path.stem: path for path in sorted((ROOT / "tests" / "interfaces" / "scripts").glob("*.py"))}
LEAST = 40
"""Lines that a script has at least, so that it shows more than an import."""


def test_each_document_has_its_script():
    assert set(SCRIPTS) == {"creative_services", "ai_utilities", "llm_service", "ttt"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_only_the_import_root_of_a_script_changes(name):
    printed = SCRIPTS[name].read_text(encoding="utf-8")
    ours = blocks.rerooted(printed)
    root = "app" if name == "llm_service" else name
    lines = [line for line in printed.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(lines) >= LEAST
    changed = [line for line in difflib.ndiff(printed.splitlines(), ours.splitlines()) if line[:2] in ("- ", "+ ")]
    gone = [line[2:] for line in changed if line.startswith("- ")]
    come = [line[2:] for line in changed if line.startswith("+ ")]
    assert gone and all(line.split()[:1] in (["from"], ["import"]) for line in gone)
    assert come == [line.replace(f" {root}", f" {blocks.ROOTS[root]}", 1) for line in gone]
    assert "polyvox" not in printed


# The AI_ variables are for one document; set for all, they do not disturb the others.
BARE = [name for name in SCRIPTS if name != "ai_utilities"]


@pytest.mark.parametrize(("name", "said"), [*((name, "AI_") for name in SCRIPTS), *((name, "bare") for name in BARE)])
def test_a_script_runs_in_a_process_of_its_own(world, name, said):
    address = world.base_url("openai.chat")
    ours = {"AI_API_KEY": "sk-test-ai-0123456789abcdef", "AI_MODEL": "gpt-4o-mini", "AI_BASE_URL": address}
    done = subprocess.run(
        [sys.executable, "-m", "tests.interfaces.run_script", str(SCRIPTS[name]), json.dumps(providers_here(world))],
        env={**os.environ, **(ours if said == "AI_" else {}), "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "never awaited" not in done.stderr and "ResourceWarning" not in done.stderr, done.stderr
    assert any(asked.outcome == "answered" for asked in world.requests)
    assert not any(key in done.stdout + done.stderr for key in os.environ.values() if key.startswith("sk-"))
