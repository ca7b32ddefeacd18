"""The registry of the keys in the environment: documented models, in a documented order."""

import tomllib
from datetime import date, datetime
from pathlib import Path

import pytest

import polyvox
from polyvox import catalog
from polyvox.config import Settings
from polyvox.keys import Secret
from polyvox.registry import TIERS, DictRegistry, Registry, key_of, usable, usual_price

DATA = tomllib.loads((Path(polyvox.__file__).parent / "data" / "tiers.toml").read_text(encoding="utf-8"))
HOSTED = [name for name in DATA if name != "ollama"]
KEY = "word-for-the-test"


def names(registry):
    return [entry.name for entry in registry.list_active()]


def keyed(provider):
    return {catalog.load().providers[provider].key_env[0]: KEY}


def test_without_any_key_there_is_the_tier_local_alone():
    registry = DictRegistry.from_env({})
    assert isinstance(registry, Registry)
    assert [(entry.name, entry.model) for entry in registry.list_active()] == [("ollama-local", "ollama/llama3.2")]
    assert [registry.get_by_tier(tier) for tier in ("economy", "standard", "premium")] == [None] * 3
    assert registry.get_default() is None


def test_one_key_gives_the_three_tiers_of_its_provider():
    for provider in HOSTED:
        registry = DictRegistry.from_env(keyed(provider))
        for tier in ("economy", "standard", "premium"):
            assert registry.get_by_tier(tier).model == f"{provider}/{DATA[provider][tier]}"
        assert registry.get_default() == registry.get_by_tier("standard")
        assert registry.get_by_tier("local").model == "ollama/llama3.2"


def test_a_tier_is_the_first_providers_of_the_catalog_and_two_looks_are_the_same():
    env = {name: value for provider in reversed(HOSTED) for name, value in keyed(provider).items()}
    one, two = DictRegistry.from_env(env), DictRegistry.from_env(dict(reversed(env.items())))
    assert one.list_active() == two.list_active()
    assert one.get_by_tier("standard").model.startswith(f"{HOSTED[0]}/")
    assert one.get_by_tier("premium").model.startswith(f"{HOSTED[0]}/")


def test_a_provider_without_tiers_answers_with_its_usual_model():
    row = next(row for row in catalog.load().providers.values() if row.default_model and row.name not in DATA)
    registry = DictRegistry.from_env(keyed(row.name) if row.key_env else {})
    if row.needs_key:
        assert registry.get_by_tier("standard").model == f"{row.name}/{row.default_model}"
        assert registry.get_by_tier("premium") is None


def test_the_keys_of_a_given_environment_are_taken_and_never_shown(monkeypatch):
    registry = DictRegistry.from_env({"OPENAI_API_KEY": f"  {KEY}\n", "ANTHROPIC_API_KEY": "  "})
    entry = registry.get_by_tier("standard")
    assert key_of(entry, Settings()).secret == Secret(KEY) and KEY not in repr(registry.list_active())
    assert not [name for name in names(registry) if name.startswith("anthropic")]


def test_the_keys_of_this_process_are_looked_up_when_they_are_needed(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    registry = DictRegistry.from_env()
    entry = registry.get_by_tier("economy")
    assert entry.api_key is None and usable(entry, Settings())
    monkeypatch.delenv("OPENAI_API_KEY")
    assert not usable(entry, Settings())


@pytest.mark.parametrize("provider", HOSTED)
def test_the_models_of_the_tiers_are_known_alive_and_dearer_from_tier_to_tier(provider):
    registry = DictRegistry.from_env(keyed(provider))
    prices = []
    for tier in ("economy", "standard", "premium"):
        entry = registry.get_by_tier(tier)
        model = catalog.load().info(*entry.model.split("/", 1))
        assert model is not None and model.standing(date(2026, 11, 21)) == "alive", entry.model
        prices.append(usual_price(entry, Settings(), datetime(2026, 11, 21)))
    assert None not in prices and prices == sorted(prices)


def test_the_data_speaks_of_providers_and_tiers_that_exist():
    assert set(DATA) <= set(catalog.load().providers)
    assert {tier for models in DATA.values() for tier in models} == set(TIERS)


def test_economy_is_the_cheapest_of_all_who_have_a_key():
    env = {name: value for provider in HOSTED for name, value in keyed(provider).items()}
    registry = DictRegistry.from_env(env)
    now = datetime(2026, 11, 21)
    of_tier = [entry for entry in registry.list_active() if entry.tier == "economy"]
    assert usual_price(registry.get_by_tier("economy"), Settings(), now) == min(
        usual_price(entry, Settings(), now) for entry in of_tier
    )
