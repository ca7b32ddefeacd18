"""Promises of creative_services to who makes mistakes: each is said in plain words, nothing is dropped in silence, and
no key is shown."""

import asyncio
import copy
import dataclasses
import importlib
import json
import multiprocessing
import pickle
import subprocess
import sys
import threading

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
from polyvox.compat.names import (
    AIError,
    AIUtilitiesError,
    APIKeyError,
    LLMServiceError,
    UnsupportedProviderError,
    ValidationError,
)
from polyvox.errors import ConfigError, InputError, MissingExtraError, MissingKeyError, UsageError
from polyvox.pools import NoDeploymentError
from polyvox.testing import Simulator

from .conftest import KEYS
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


@rows("S0-030")
def test_a_config_that_is_copied_keeps_its_key_and_no_form_of_it_shows_it(row):
    config = LLMConfig("openai", "gpt-4o", CANARY, temperature=0.5)
    for same in (copy.copy(config), copy.deepcopy({"c": config})["c"], dataclasses.replace(config, max_tokens=9)):
        assert same.api_key.reveal() == CANARY and same.temperature == 0.5
    written = [json.dumps(table, default=str) for table in (vars(config), dataclasses.asdict(config))]
    shown = [repr(config), str(config), f"{config}", repr(vars(config)), repr(dataclasses.astuple(config)), *written]
    assert not any(CANARY in text for text in shown) and all("***" in text for text in shown)
    with pytest.raises(TypeError):  # a key has no JSON
        json.dumps(vars(config))


@rows("S0-030")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_config_leaves_its_key_behind_and_says_so_where_it_is_needed(row, world, protocol):
    config = LLMConfig("openai", "gpt-4o", CANARY, temperature=0.5)
    data = pickle.dumps(config, protocol)
    assert CANARY.encode() not in data and CANARY[3:-3].encode() not in data
    read = pickle.loads(data)
    assert (read.provider, read.model, read.temperature) == (LLMProvider.OPENAI, "gpt-4o", 0.5)
    assert CANARY not in repr(read) and "left behind" in repr(read)
    # The environment has a key, but it is another one, so of another account: it is not taken in silence.
    for left in (read, pickle.loads(pickle.dumps(read)), copy.deepcopy(read), dataclasses.replace(read, model="gpt-5")):
        with pytest.raises(MissingKeyError, match="its key stayed behind") as caught:
            LLMClient(left)
        assert "dataclasses.replace" in caught.value.hint and isinstance(caught.value, APIKeyError)
    assert world.requests == ()
    for key in (CANARY, None):
        assert generated(LLMClient(dataclasses.replace(read, api_key=key)), "hello").content


@rows("S0-030")
def test_a_pickled_config_with_the_usual_key_finds_it_again(row, world, monkeypatch):
    data = pickle.dumps(LLMConfig("openai", "gpt-4o", KEYS["OPENAI_API_KEY"]))
    assert KEYS["OPENAI_API_KEY"].encode() not in data
    assert generated(LLMClient(pickle.loads(data)), "hello").content
    assert pickle.loads(pickle.dumps(LLMConfig("demo"))) == LLMConfig("demo")
    monkeypatch.delenv("OPENAI_API_KEY")
    polyvox.configure(retries=0)
    with pytest.raises(MissingKeyError, match="no API key"):
        generated(LLMClient(pickle.loads(data)), "hello")


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


# ---- what comes later -------------------------------------------------------------------------

OURS = "polyvox.compat.creative_services"


@rows("S0-015")
@pytest.mark.parametrize(
    ("module", "name", "waits", "instead"),
    [
        ("adapters", "DjangoLLMRegistry", "the Django app", "DictRegistry"),
        ("adapters.django_adapter", "DjangoUsageTracker", "the Django app", "InMemoryTracker"),
        ("character", "CharacterGenerator", "the creative room", "BaseHandler"),
        ("story", "StoryGenerator", "the creative room", "BaseHandler"),
        ("dialogue", "DialogueGenerator", "the creative room", "BaseHandler"),
    ],
)
def test_what_comes_later_is_one_clear_import_error_and_no_surprise_elsewhere(row, module, name, waits, instead):
    with pytest.raises(ImportError, match=f"{name} comes with {waits}") as caught:
        exec(f"from {OURS}.{module} import {name}")
    assert instead in caught.value.hint and isinstance(caught.value, MissingExtraError | AIError)
    found = importlib.import_module(f"{OURS}.{module}")
    assert not hasattr(found, name) and getattr(found, name, None) is None and name not in dir(found)
    there = {}
    exec(f"from {OURS}.{module} import *", there)
    assert name not in there
    with pytest.raises(AttributeError, match=f"{name} comes with {waits}"):
        getattr(found, name)
    assert not hasattr(found, "__wrapped__")


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


NOT_YET = ("pydantic", "msgspec", "asyncio", "polyvox.client", "polyvox.catalog", "polyvox.keys", "polyvox.registry")


@rows("S0-001")
@pytest.mark.parametrize(
    "module",
    ["core.llm_config", "core.llm_registry", "core.llm_client", "core.usage_tracker", "core.base_handler", "core.tally",
     "adapters", "adapters.bfagent_compat", "adapters.django_adapter", "story"],
)  # fmt: skip
def test_an_import_brings_nothing_that_only_a_call_needs(row, module):
    code = f"import sys, {OURS}.{module}\nprint(*[name for name in {NOT_YET} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == ("", "")


@rows("S0-012", "S0-013", "S0-037", "S0-048")
def test_a_name_is_the_same_wherever_it_is_read(row):
    for room, names in (("llm_registry", ("DictRegistry", "LLMRegistry", "LLMTier")),
                        ("usage_tracker", ("InMemoryTracker", "UsageStats", "UsageTracker"))):  # fmt: skip
        found = importlib.import_module(f"{OURS}.core.{room}")
        package = importlib.import_module(OURS)
        assert all(getattr(found, name) is getattr(package, name) for name in names)
        assert set(names) <= set(dir(found)) and not hasattr(found, "no_such_name")


# ---- threads, loops and processes --------------------------------------------------------------


@rows("S0-034")
def test_one_client_is_awaited_in_several_loops_and_in_a_child(row, world):
    told = []

    async def ask():
        told.append((await client.generate("hello", tier="standard")).content[:6])

    client = DynamicLLMClient(DictRegistry.from_env())
    threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    asyncio.run(ask())
    assert told == ["[demo]"] * 5 and client.get_stats().requests == len(world.requests) == 5
    forks = multiprocessing.get_context("fork")
    answers = forks.Queue()

    async def in_the_child():
        answers.put((await client.generate("hello", tier="standard")).content[:6])

    child = forks.Process(target=lambda: asyncio.run(in_the_child()))
    child.start()
    assert answers.get(timeout=60) == "[demo]"
    child.join(60)


@pytest.mark.parametrize("taken", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_client_that_is_copied_or_pickled_says_what_to_pass_instead(taken):
    for client in (LLMClient(LLMConfig("demo")), DynamicLLMClient(DEMO)):
        with pytest.raises(UsageError, match="cannot be copied or pickled") as caught:
            taken(client)
        assert "pass the config" in caught.value.hint and isinstance(caught.value, LLMServiceError)


@rows("S0-041", "S0-046")
def test_without_any_key_a_tier_says_what_to_set(row, place):
    with pytest.raises(NoDeploymentError, match="'standard'\nhint: tiers that have any: local") as caught:
        generated(DynamicLLMClient(DictRegistry.from_env()), "hello", tier=LLMTier.STANDARD)
    assert "OPENAI_API_KEY" in caught.value.hint and "registry.add(" in caught.value.hint
    assert isinstance(caught.value, AIError | AIUtilitiesError)
    with pytest.raises(NoDeploymentError, match="that have any: none"):
        generated(DynamicLLMClient(DictRegistry()), "hello", tier="premium")
