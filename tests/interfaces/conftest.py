"""What the tests of the documented interfaces share: a place where nothing is configured, and providers that answer on
this machine."""

import os

import pytest

import polyvox
from polyvox import catalog, config
from polyvox.compat.shared import EVERYONE
from polyvox.dialects import NAMES
from polyvox.testing import Simulator
from tests.cli.conftest import bare_environment

KEYS = {name: f"sk-test-{name.lower().replace('_', '-')}-0123456789abcdef" for name in (
    "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GROQ_API_KEY", "OPENROUTER_API_KEY", "GEMINI_API_KEY", "MISTRAL_API_KEY",
)}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working folder and an environment in which nothing is said; whatever a test adds is forgotten."""
    home = tmp_path / "home"
    (home / "polyvox").mkdir(mode=0o700, parents=True)
    env = {name: value for name, value in bare_environment(home).items() if not name.upper().startswith("AI_")}
    for name in set(os.environ) - set(env):
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    config.reset()
    yield tmp_path
    config.reset()
    catalog.forget_models()
    EVERYONE.forget()  # a registry of a test that failed, or raised, may wait for its collection


def providers_here(simulator):
    """The table of providers for `polyvox.configure` that says they are all on this machine. A key goes only where it
    belongs, so it is said that it belongs here; those without a variable for their address are here all the same."""
    said = set(simulator.environment)
    return {
        row.name: {"hosts": ["127.0.0.1"]}
        | ({} if said & set(row.base_url_env) else {"base_url": simulator.base_url(row.dialect)})
        for row in catalog.load().providers.values()
        if row.dialect in NAMES
    }


@pytest.fixture(scope="session")
def _providers():
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def world(place, monkeypatch, _providers):
    """The simulated providers, where the environment has a key for each and says where they are; nothing else is
    reached. The simulator, with nothing counted yet."""
    for name, value in {**_providers.environment, **KEYS}.items():
        monkeypatch.setenv(name, value)
    polyvox.configure(providers=providers_here(_providers))
    _providers.reset()
    return _providers
