"""Promises of the imports: each interface comes alone and brings nothing heavy; what needs an extra loads it when that
name is used. How long it takes is measured in benchmarks/."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("creative_services", "ai_utilities", "llm_service", "ttt")

HEAVY = {
    "aiobotocore", "anthropic", "boto3", "botocore", "celery", "click", "cohere", "django", "dotenv", "google.genai",
    "groq", "httpx", "litellm", "llama_cpp", "mistralai", "ollama", "openai", "opentelemetry", "prometheus_client",
    "psycopg", "pydantic_settings", "redis", "requests", "rich", "sqlalchemy", "tiktoken", "tokenizers", "torch",
    "transformers", "yaml",
}  # fmt: skip
"""Frameworks, SDKs of vendors, and what only an extra brings."""

ENGINE = {
    "polyvox.cache", "polyvox.client", "polyvox.database", "polyvox.engine", "polyvox.ledger", "polyvox.limits",
    "polyvox.pools", "polyvox.portal", "polyvox.registry", "polyvox.stores", "polyvox.transports", "aiohttp",
}  # fmt: skip
"""What asks, chooses and counts: not needed before the first question."""

FACTS = {"polyvox.catalog", "polyvox.config", "polyvox.keys", "polyvox.prices"}
"""What is known of providers, and what is configured: not needed before the first name."""

VALUES = {"asyncio", "msgspec"}

LIGHT = {
    **dict.fromkeys(("shared", "names", "errors", "foreign"), ENGINE | FACTS | VALUES),
    **{
        f"ttt.{name}": ENGINE | FACTS | VALUES
        for name in (
            "api", "backends", "backends.base", "config", "models", "responses", "routing", "session", "stepping",
        )
    },
    "ai_utilities.config_models": ENGINE | FACTS | VALUES,
    "ai_utilities.settings": ENGINE | FACTS | {"msgspec"},
    "llm_service.models.llm": ENGINE | FACTS | {"asyncio"},
    "llm_service.services.llm": ENGINE | {"asyncio"},
}  # fmt: skip
"""Modules that programs import directly, and what may not come with them beside what is heavy."""

NEEDED = {"ai_utilities.settings": {"dotenv", "pydantic_settings"}}

LOADED = """
import json, sys
before = set(sys.modules)
{code}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded(code, folder):
    """The modules that a fresh process has loaded when it ran this."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOADED.format(code=code)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("package", PACKAGES)
def test_an_interface_is_imported_alone_and_brings_nothing_heavy(place, package):
    there = loaded(f"import polyvox.compat.{package}", place)
    assert f"polyvox.compat.{package}" in there
    assert not {name for name in there if name in HEAVY or name.split(".")[0] in HEAVY}
    others = {f"polyvox.compat.{name}" for name in PACKAGES if name != package}
    assert not {name for name in there if any(name == other or name.startswith(f"{other}.") for other in others)}
    assert list(place.iterdir()) == [place / "home"], "an import wrote a file"


def brought(there, unwanted):
    """Which of the unwanted are there, whole or in part."""
    return {name for name in unwanted if any(one == name or one.startswith(f"{name}.") for one in there)}


@pytest.mark.parametrize("module", LIGHT)
def test_a_module_that_is_imported_directly_brings_what_it_needs_and_no_more(place, module):
    there = loaded(f"import polyvox.compat.{module}", place)
    assert f"polyvox.compat.{module}" in there
    assert not brought(there, (HEAVY | LIGHT[module]) - NEEDED.get(module, set()))


@pytest.mark.parametrize("name", ["BaseBackend", "ConfigLoader", "ModelInfo", "Router", "ask", "chat", "configure"])
def test_what_a_program_writes_and_calls_is_named_without_the_engine(place, name):
    there = loaded(f"from polyvox.compat.ttt import {name}", place)
    assert not brought(there, HEAVY | ENGINE | FACTS | VALUES)


def test_something_heavy_would_be_seen(place):
    assert "openai" in loaded("import polyvox.compat, openai", place) & HEAVY
    asked = loaded("import polyvox.compat.ttt as ttt; ttt.ask('hello', model='demo')", place)
    assert {"polyvox.client", "polyvox.engine", "polyvox.prices", "asyncio", "msgspec"} <= brought(
        asked, ENGINE | FACTS | VALUES
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_listed(package):
    module = importlib.import_module(f"polyvox.compat.{package}")
    assert module.__doc__ and list(module.__all__) == sorted(set(module.__all__), key=list(module.__all__).index)
    assert set(module.__all__) <= set(dir(module))
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


ALONE = """
import importlib
for name in {names}:
    for known in [known for known in sys.modules if known.startswith("polyvox.compat.")]:
        del sys.modules[known]
    try:
        importlib.import_module(name)
    except ImportError as error:
        # What a document names and this version lacks says so; nothing else may fail.
        assert type(error).__name__ == "NotYetError", (name, error)
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_of_an_interface_can_be_imported_first(place, package):
    module = importlib.import_module(f"polyvox.compat.{package}")
    inside = [found.name for found in pkgutil.walk_packages(module.__path__, f"{module.__name__}.")]
    names = [name for name in inside if not name.endswith("__main__")]
    assert len(names) >= 5
    assert loaded(ALONE.format(names=names), place).intersection(names)
