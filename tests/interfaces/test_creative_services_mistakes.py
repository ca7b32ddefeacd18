"""Promises of creative_services to who makes mistakes: each is said in plain words, nothing is dropped in silence, and
no key is shown."""

import asyncio
import copy
import dataclasses
import json
import subprocess
import sys

import pytest

import polyvox
from polyvox.compat.creative_services import (
    BaseHandler,
    DictRegistry,
    DynamicLLMClient,
    InMemoryTracker,
    LLMClient,
    LLMConfig,
    LLMProvider,
    LLMTier,
)
from polyvox.compat.creative_services.adapters.bfagent_compat import LlmRequest, generate_text
from polyvox.compat.names import AIError, AIUtilitiesError, LLMServiceError, UnsupportedProviderError, ValidationError
from polyvox.errors import ConfigError, InputError
from polyvox.testing import Simulator

from .rows import rows

CANARY = "sk-canary-0123456789abcdefghijklmnop"
DEMO = {"fast": {"model": "demo", "tier": "economy"}}


def generated(client, *prompt, **said):
    async def go():
        async with client:
            return await client.generate(*prompt, **said)

    return asyncio.run(go())


# ---- configs ----------------------------------------------------------------------------------


@rows("S0-030")
def test_what_has_no_word_in_it_says_nothing(row, world):
    config = LLMConfig(provider="openai", model="  ", api_key="", base_url="")
    assert (config.model, config.api_key, config.base_url) == (None, None, None)
    assert repr(config) == "LLMConfig(provider='openai')"
    assert LLMConfig(provider="", model="demo").provider is None
    assert LLMConfig(model="demo", model_name=None) == LLMConfig(model="demo")
    assert generated(LLMClient(config), "hello").content  # with the key of the environment


@pytest.mark.parametrize("name", ["provider", "model", "api_key", "base_url"])
def test_whom_a_client_asks_is_said_in_its_config_alone(name):
    with pytest.raises(InputError, match=name) as caught:
        LLMClient(**{name: "demo"})
    assert "LLMConfig(" in caught.value.hint and isinstance(caught.value, LLMServiceError)


def test_a_system_prompt_is_said_once():
    with pytest.raises(InputError, match="system_prompt and system"):
        generated(LLMClient(LLMConfig("demo")), "hello", system_prompt="Be short.", system="Be long.")


def test_hooks_that_are_none_are_none_and_others_are_refused():
    assert generated(LLMClient(LLMConfig("demo"), hooks=None), "hello").content
    with pytest.raises(InputError, match="hooks"):
        LLMClient(LLMConfig("demo"), hooks=5)


# ---- trackers ---------------------------------------------------------------------------------


@rows("S0-042")
def test_a_class_in_the_place_of_an_object_is_refused(row):
    with pytest.raises(InputError, match="the class InMemoryTracker is no tracker"):
        DynamicLLMClient(DEMO, tracker=InMemoryTracker)
    with pytest.raises(InputError, match="the class DictRegistry is no registry") as caught:
        DynamicLLMClient(DictRegistry)
    assert "DictRegistry(" in caught.value.hint


@rows("S0-049")
def test_a_tracker_whose_record_is_awaited_is_told_too(row):
    class Awaited:
        def __init__(self):
            self.told = []

        async def record(self, **facts):
            await asyncio.sleep(0)
            self.told.append(facts["llm_id"])

    tracker = Awaited()
    assert generated(DynamicLLMClient(DEMO, tracker=tracker), "hello", tier="economy").content
    assert tracker.told == ["fast"]


# ---- registries -------------------------------------------------------------------------------

ROW = {"provider": "openai", "model_name": "gpt-4o", "tier": "standard", "cost_per_1k_input": "0.0025", "id": 7}


@rows("S0-038", "S1-013")
@pytest.mark.parametrize("form", ["tables", "sequence", "added"])
def test_a_registry_is_made_of_the_fields_of_the_document(row, form):
    if form == "tables":
        registry = DictRegistry({"good": ROW})
    elif form == "sequence":
        registry = DictRegistry([{"name": "good", **ROW}])
    else:
        registry = DictRegistry()
        registry.add(name="good", **ROW)
    entry = registry.get_by_tier("standard")
    assert (entry.name, entry.model, entry.aliases) == ("good", "openai/gpt-4o", ("7",))
    assert entry.price["input"] * 1000 == 2500
    assert registry.get_by_name("7") is entry


def test_a_table_with_the_fields_of_the_document_may_have_a_key_and_a_place():
    registry = DictRegistry({"own": {**ROW, "api_key": CANARY, "api_endpoint": "https://llm.example.com/v1"}})
    entry = registry.get_by_name("own")
    assert (entry.model, entry.base_url, entry.dialect) == ("gpt-4o", "https://llm.example.com/v1", "openai.chat")
    assert entry.api_key.reveal() == CANARY and CANARY not in f"{entry!r}{registry!r}{vars(registry)}"


@pytest.mark.parametrize("given", [None, 5, "fast", b"fast"])
def test_what_is_no_registry_content_is_refused(given):
    with pytest.raises(InputError, match="a registry is made of entries") as caught:
        DictRegistry(given)
    assert isinstance(caught.value, ValidationError)


def test_a_table_that_is_missing_is_no_entry_that_is_forgotten():
    with pytest.raises(ConfigError) as caught:
        DictRegistry({"fast": None})
    assert "fast: needs a model" in str(caught.value)


@pytest.mark.parametrize(
    ("said", "what"),
    [({"provider": 5}, "provider"), ({"aliases": 5}, "aliases"), ({"cost_per_1k_input": "much"}, "amount of USD")],
)
def test_a_field_of_another_kind_is_refused_by_its_name(said, what):
    with pytest.raises((InputError, ConfigError)) as caught:
        DictRegistry().add(name="good", **{**ROW, **said})
    assert what in str(caught.value) and isinstance(caught.value, AIUtilitiesError)


def test_an_entry_moves_to_another_address_and_keeps_its_model_and_its_names():
    registry = DictRegistry({"good": ROW})
    moved = registry.update("good", api_endpoint="https://llm.example.com/v1")
    assert (moved.model, moved.base_url) == ("gpt-4o", "https://llm.example.com/v1")
    assert registry.update("good", id=8).aliases == ("7", "8")
    back = registry.update("good", provider="anthropic", api_endpoint="")
    assert back.base_url is None and back.model.startswith("anthropic/claude")


def test_an_environment_is_a_table():
    with pytest.raises(InputError, match="an environment is a table"):
        DictRegistry.from_env(5)


@rows("S0-031")
def test_a_provider_is_found_in_any_case_and_no_number_is_one(row, world):
    client = DynamicLLMClient(DictRegistry())
    with pytest.raises(InputError, match="provider must be text"):
        asyncio.run(client.generate("hello", provider=5))
    with pytest.raises(InputError, match="model must be text"):
        asyncio.run(client.generate("hello", model=5))
    assert generated(client, "hello", provider="Google", model="gemini-3-pro").provider == "google"
    assert world.requests[-1].model == "gemini-3-pro"


@rows("S0-040", "S1-014")
def test_a_tier_is_read_in_any_case_and_another_word_is_told_what_there_is(row):
    assert LLMTier("STANDARD") is LLMTier(" Standard ") is LLMTier.STANDARD
    for wrong in ("gold", "", None, 5):
        with pytest.raises(InputError, match="there is no tier") as caught:
            LLMTier(wrong)
        assert "economy, standard, premium, local" in caught.value.hint and isinstance(caught.value, ValueError)


@rows("S0-029")
def test_a_provider_is_read_in_any_case(row):
    assert LLMProvider("OpenAI") is LLMProvider.OPENAI
    assert LLMProvider("gemini") is LLMProvider.GOOGLE
    for wrong in ("nonsense", "", None, 5):
        with pytest.raises(InputError, match="LLMProvider") as caught:
            LLMProvider(wrong)
        assert "plain string" in caught.value.hint


@rows("S0-014")
def test_a_handler_is_refused_what_is_no_client(row):
    class Upper(BaseHandler):
        def build_prompt(self, context):
            return context

        def parse_response(self, content, context):
            return content.upper()

    for wrong in (5, LLMClient):
        with pytest.raises(InputError, match="is no client"):
            Upper(wrong)
    assert asyncio.run(Upper(DynamicLLMClient(DEMO), tier="economy").execute("hello")).unwrap().startswith("[DEMO]")


# ---- the environment --------------------------------------------------------------------------


def test_a_provider_that_nobody_knows_is_told_with_its_variable(place, monkeypatch):
    monkeypatch.setenv("AI_PROVIDER", "nonsense")
    with pytest.raises(UnsupportedProviderError, match="AI_PROVIDER: there is no provider 'nonsense'"):
        generated(DynamicLLMClient(), "hello")
    monkeypatch.setenv("AI_PROVIDER", "demo")  # and a change is seen at once
    assert generated(DynamicLLMClient(), "hello").model == "demo"
    monkeypatch.delenv("AI_PROVIDER")
    monkeypatch.setenv("ai_provider", "nonsense")
    with pytest.raises(UnsupportedProviderError, match="ai_provider"):
        generated(DynamicLLMClient(), "hello")


def test_google_in_the_environment_is_the_provider_that_the_documents_mean(world, monkeypatch):
    monkeypatch.setenv("AI_PROVIDER", "google")
    assert generated(DynamicLLMClient(), "hello").provider == "google"


# ---- the older function -----------------------------------------------------------------------


@rows("S1-031")
def test_the_key_of_an_older_request_is_shown_nowhere(row, world):
    request = LlmRequest(provider="openai", model="gpt-4o", prompt="hello", api_key=CANARY)
    shown = f"{request!r}{request}{vars(request)}{dataclasses.asdict(request)}{copy.copy(request)!r}"
    assert CANARY not in shown and "gpt-4o" in shown
    said = generate_text(request)
    assert said["ok"] and said["text"] and CANARY not in json.dumps(said)
    assert CANARY not in f"{world.requests}"
    refused = generate_text(LlmRequest(provider="openai", model="gpt-4o", prompt="hello", api_key="not\na key"))
    assert not refused["ok"] and "not\na key" not in refused["error"]


@rows("S1-031")
def test_an_older_request_may_be_a_table(row, world):
    said = generate_text({"provider": "openai", "model": "gpt-4o", "prompt": "hello"})
    assert said["ok"] and "hello" in said["text"]
    said = generate_text({"provider": "openai", "model": "gpt-4o", "prompt": "hello", "api_endpoint": 5})
    assert not said["ok"] and "base_url must be text" in said["error"]


# ---- cancelled, and closed --------------------------------------------------------------------


@rows("S0-034")
def test_a_call_that_is_given_up_is_counted_as_failed(row, place, monkeypatch):
    async def go():
        async with DynamicLLMClient(DictRegistry.from_env(), tracker=tracker) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.generate("hello", tier="standard")
            return client.get_stats()

    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with Simulator(latency=20) as slow, InMemoryTracker() as tracker:
        for name, value in slow.environment.items():
            monkeypatch.setenv(name, value)
        polyvox.configure(providers={name: {"hosts": ["127.0.0.1"]} for name in ("openai", "openai-responses")})
        stats = asyncio.run(go())
        assert (stats.requests, stats.errors) == (1, 1)
        assert (tracker.get_stats().requests, tracker.get_stats().errors) == (1, 1)


def test_a_client_that_is_closed_says_so():
    async def go():
        client = LLMClient(LLMConfig("demo"))
        await client.aclose()
        await client.aclose()
        with pytest.raises(AIError, match="closed"):
            await client.generate("hello")

    asyncio.run(go())


# ---- what is loaded ---------------------------------------------------------------------------


def test_who_asks_loads_no_database():
    code = """
import asyncio, sys
from polyvox.compat.creative_services import LLMClient, LLMConfig
client = LLMClient(LLMConfig("demo"))
assert asyncio.run(client.generate("hello")).content
print("sqlite3" in sys.modules, client.get_stats().requests, "sqlite3" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["False", "1", "True"], "")
