"""Promises of creative_services: its names stand where its document puts them, one client asks every provider, and a
config says whom, and refuses what it does not know."""

import asyncio
import importlib
import inspect
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import polyvox
from polyvox.backends import register_backend, unregister_backend
from polyvox.catalog import load
from polyvox.compat import creative_services as package
from polyvox.compat.creative_services import DictRegistry, DynamicLLMClient, LLMClient, LLMConfig, LLMProvider
from polyvox.compat.creative_services.core.base_handler import BaseHandler
from polyvox.compat.names import (
    AIError,
    AIUtilitiesError,
    APIKeyError,
    LLMServiceError,
    UnsupportedProviderError,
    ValidationError,
)
from polyvox.errors import AuthError, BadResponseError, InputError, MissingKeyError, UsageError
from polyvox.testing import Simulator

from .rows import rows

ROOT = Path(__file__).resolve().parents[2]
OURS = "polyvox.compat.creative_services"
STORY = "Write a story"
WRITER = "You are a creative writer"


def ask(client, *prompt, **said):
    """What a client answers, and the client closed."""

    async def go():
        async with client:
            return await client.generate(*prompt, **said)

    return asyncio.run(go())


def body(asked):
    return json.loads(asked.body)


def alone(code, *flags, path=ROOT / "src"):
    """What a fresh process prints in which no SDK of a vendor, no Django and no Celery can be imported."""
    absent = "openai anthropic ollama groq google mistralai cohere boto3 litellm django celery sqlalchemy".split()
    guard = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError("not here: " + name, name=name)
sys.meta_path.insert(0, Absent())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", guard + code],
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.strip()


# ---- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "module", "name"),
    [
        ("S0-027", OURS, "LLMClient"),
        ("S0-028", OURS, "LLMConfig"),
        ("S0-029", OURS, "LLMProvider"),
        ("S0-038", OURS, "DictRegistry"),
        ("S0-039", OURS, "DynamicLLMClient"),
        ("S0-040", OURS, "LLMTier"),
        ("S0-050", OURS, "InMemoryTracker"),
        ("S0-010", f"{OURS}.core", "__doc__"),
        ("S0-011", f"{OURS}.core.llm_client", "LLMClient"),
        ("S0-012", f"{OURS}.core.llm_registry", "LLMTier"),
        ("S0-013", f"{OURS}.core.usage_tracker", "InMemoryTracker"),
        ("S0-015", f"{OURS}.adapters", "__doc__"),
        ("S0-017", f"{OURS}.adapters.bfagent_compat", "BFAgentLLMBridge"),
        ("S0-017", f"{OURS}.adapters.bfagent_compat", "AsyncBFAgentLLMBridge"),
        ("S0-082", f"{OURS}.adapters", "BFAgentLLMBridge"),
        ("S1-033", f"{OURS}.adapters", "BFAgentLLMBridge"),
        ("S1-042", f"{OURS}.adapters", "AsyncBFAgentLLMBridge"),
    ],
)
def test_a_name_is_imported_in_a_fresh_process_without_any_sdk_or_framework(row, module, name, place):
    found = alone(f"from {module} import {name} as found\nprint(getattr(found, '__name__', bool(found)))")
    assert found == (name if name != "__doc__" else "True")


@rows("S0-009")
def test_the_package_has_every_name_that_its_document_imports_from_it(row):
    documented = {
        "LLMClient", "LLMConfig", "LLMProvider", "DictRegistry", "DynamicLLMClient", "LLMTier", "InMemoryTracker",
        "LLMRegistry", "UsageTracker",
    }  # fmt: skip
    assert documented <= set(package.__all__) <= set(dir(package))
    assert all(inspect.isclass(getattr(package, name)) for name in documented)
    with pytest.raises(AttributeError, match="nothing_of_it"):
        _ = package.nothing_of_it


@pytest.mark.parametrize(
    ("row", "module", "names"),
    [
        ("S0-011", "llm_client", ["LLMClient", "LLMConfig", "LLMProvider", "DynamicLLMClient"]),
        ("S0-012", "llm_registry", ["LLMTier", "DictRegistry", "LLMRegistry"]),
        ("S0-013", "usage_tracker", ["InMemoryTracker", "UsageTracker"]),
        ("S0-010", "base_handler", ["BaseHandler"]),
    ],
)
def test_a_module_of_the_core_has_the_very_classes_of_the_package(row, module, names):
    found = importlib.import_module(f"{OURS}.core.{module}")
    assert [getattr(found, name) for name in names] == [getattr(package, name) for name in names]


@rows("S0-008")
def test_the_wheel_brings_the_package(row, place):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place / "dist")],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    (wheel,) = (place / "dist").glob("polyvox-*.whl")
    with zipfile.ZipFile(wheel) as packed:  # which is all that an installer does with pure Python
        packed.extractall(place / "installed")
    code = f"""
from importlib.metadata import distribution
import {OURS} as package
print(distribution("polyvox").metadata["Name"], package.LLMClient.__name__, package.__file__)
"""
    name, of, file = alone(code, path=place / "installed").split()
    assert (name, of) == ("polyvox", "LLMClient") and file.startswith(str(place / "installed"))


@rows("S1-001", "S0-015")
def test_the_adapters_serve_a_host_that_has_nothing_but_the_public_names(row, place):
    code = f"""
from {OURS} import DictRegistry
from {OURS}.adapters import BFAgentLLMBridge
bridge = BFAgentLLMBridge(DictRegistry({{"fast": {{"model": "demo", "tier": "standard"}}}}))
print(bridge.generate_text("hello", tier="standard"))
bridge.close()
"""
    assert alone(code).startswith("[demo] You said: hello")


@rows("S0-078")
def test_adapters_hold_nothing_of_a_provider(row):
    folder = ROOT / "src" / "polyvox" / "compat" / "creative_services" / "adapters"
    texts = {path.name: path.read_text("utf-8").lower() for path in folder.glob("*.py")}
    assert set(texts) == {"__init__.py", "bfagent_compat.py", "django_adapter.py"}
    # "local" and "demo" are also words.
    providers = [name for name in (*load().providers, "gpt", "claude", "llama") if name not in ("local", "demo")]
    lower = [f"polyvox.{room}" for room in ("dialects", "transports", "engine", "profiles", "auth", "backends")]
    assert {(file, word) for file, text in texts.items() for word in (*providers, *lower) if word in text} == set()


# ---- the config -------------------------------------------------------------------------------


@rows("S0-029")
def test_built_in_providers_are_words_and_any_other_is_taken_too(row):
    members = {"OPENAI", "ANTHROPIC", "OLLAMA", "GROQ", "GOOGLE", "OPENROUTER"}
    assert {member.name: member.value for member in LLMProvider} == {name: name.lower() for name in members}
    assert all(isinstance(member, str) and member == member.value == f"{member}" for member in LLMProvider)
    assert LLMConfig(provider="mistral").provider == "mistral"


@rows("S0-031")
def test_a_provider_is_said_by_its_member_or_its_word(row, place):
    assert LLMProvider.OPENAI == "openai"
    said = [LLMConfig(provider=word, model="gpt-4o-mini") for word in (LLMProvider.OPENAI, "openai", "OpenAI")]
    assert [config.provider for config in said] == [LLMProvider.OPENAI] * 3
    assert all(type(config.provider) is LLMProvider for config in said) and said[0] == said[1] == said[2]


@rows("S0-030")
def test_a_config_takes_what_it_knows_and_hides_the_key(row):
    secret = "sk-hidden-0123456789abcdef"
    config = LLMConfig(provider=LLMProvider.OPENAI, model="gpt-4o-mini", api_key=secret, temperature=0.2, max_tokens=9)
    assert repr(config) == (
        "LLMConfig(provider='openai', model='gpt-4o-mini', api_key='***', temperature=0.2, max_tokens=9)"
    )
    assert secret not in f"{config} {config!r} {vars(config)}" and config.api_key.reveal() == secret
    assert LLMConfig(model_name="m", api_endpoint="http://127.0.0.1:1") == LLMConfig(
        model="m", base_url="http://127.0.0.1:1"
    )
    with pytest.raises(AttributeError):
        config.model = "other"


@pytest.mark.parametrize(
    ("row", "said", "told"),
    [
        ("S0-030", {"modle": "gpt-4o-mini"}, "did you mean model?"),
        ("S0-030", {"temprature": 1}, "did you mean temperature?"),
        ("S0-030", {"zzz": 1}, "it has provider, model"),
        ("S0-030", {"model": "a", "model_name": "b"}, "model_name and model are the same"),
        ("S0-030", {"temperature": "hot"}, "temperature must be int or float"),
        ("S0-030", {"timeout": -1}, "timeout"),
        ("S0-030", {"api_key": 5}, "key"),
        ("S0-028", {"prompt": STORY}, "llm_service"),
        ("S0-028", {"llm_model_spec": object()}, "llm_service"),
        ("S0-028", {"vector_store_id": "vs"}, "llm_service"),
    ],
)
def test_a_config_refuses_the_rest_with_what_would_help(row, said, told):
    with pytest.raises(InputError) as caught:
        LLMConfig(provider="openai", **said)
    assert told in str(caught.value)
    assert isinstance(caught.value, AIUtilitiesError) and isinstance(caught.value, ValidationError | AIError)


@rows("S0-028")
def test_the_other_config_of_this_name_is_another_class_and_is_told_apart(row):
    class Other:  # has what marks the one of llm_service
        llm_model_spec = None

    with pytest.raises(InputError, match=r"polyvox\.compat\.llm_service"):
        LLMClient(Other())
    with pytest.raises(InputError, match="not of dict"):
        LLMClient({"provider": "openai"})
    assert LLMConfig.__module__.startswith(f"{OURS}.")


# ---- one client -------------------------------------------------------------------------------

NATIVE = [
    pytest.param(LLMProvider.OPENAI, "gpt-4o-mini", "openai.chat", lambda said: said["messages"][0], id="openai"),
    pytest.param(LLMProvider.ANTHROPIC, "claude-sonnet-5", "anthropic.messages", lambda said: said, id="anthropic"),
    pytest.param(LLMProvider.GOOGLE, "gemini-3.8-flash", "gemini.generate", lambda said: said, id="google"),
    pytest.param(LLMProvider.OLLAMA, "llama3.2", "ollama.chat", lambda said: said["messages"][0], id="ollama"),
    pytest.param(LLMProvider.GROQ, "llama-4", "openai.chat", lambda said: said["messages"][0], id="groq"),
    pytest.param(LLMProvider.OPENROUTER, "x/y", "openai.chat", lambda said: said["messages"][0], id="openrouter"),
    pytest.param("mistral", "mistral-large", "openai.chat", lambda said: said["messages"][0], id="a-word"),
]


@rows("S0-026", "S0-036", "S0-035")
@pytest.mark.parametrize(("provider", "model", "dialect", "place_of"), NATIVE)
def test_one_client_asks_every_provider_and_says_each_thing_in_its_place(
    row, provider, model, dialect, place_of, world
):
    response = ask(LLMClient(LLMConfig(provider=provider, model=model)), prompt=STORY, system_prompt=WRITER)
    assert type(response).__name__ == "LLMResponse" and STORY in response.content
    assert response.provider in (provider, "gemini")
    (asked,) = world.requests
    assert asked.dialect == dialect
    if dialect != "gemini.generate":  # there it is in the path
        assert asked.model == model
    where = place_of(body(asked))
    if dialect == "anthropic.messages":
        assert WRITER in json.dumps(where["system"]) and where["messages"][0]["role"] == "user"
        assert "system" not in [message["role"] for message in where["messages"]]
    elif dialect == "gemini.generate":
        assert where["systemInstruction"]["parts"][0]["text"] == WRITER
        assert where["contents"] == [{"role": "user", "parts": [{"text": STORY}]}]
    else:
        assert where["role"] in ("system", "developer") and where["content"] == WRITER
        assert body(asked)["messages"][1] == {"role": "user", "content": STORY}


@rows("S0-035", "S0-045")
def test_a_prompt_alone_is_one_message_of_the_user(row, world):
    one = LLMClient(LLMConfig(provider="openai", model="gpt-4o-mini"))
    ask(one if row == "S0-035" else DynamicLLMClient(DictRegistry.from_env()), prompt=STORY)
    assert body(world.requests[0])["messages"] == [{"role": "user", "content": STORY}]


@rows("S0-032")
def test_a_model_goes_out_as_it_was_said_and_without_one_the_usual_one_does(row, world):
    for model in ("gpt-4o-mini", "ft:gpt-4o-mini:org::x", "openai/gpt-odd", None):
        ask(LLMClient(LLMConfig(provider="openai", model=model)), STORY)
    usual = load().provider("openai").default_model
    assert [asked.model for asked in world.requests] == [
        "gpt-4o-mini",
        "ft:gpt-4o-mini:org::x",
        "openai/gpt-odd",
        usual,
    ]


@rows("S0-033")
def test_a_client_takes_its_config_and_asks_nobody_when_it_is_made(row, world):
    config = LLMConfig(provider="openai", model="gpt-4o-mini")
    client = LLMClient(config)
    time.sleep(0.05)
    assert client.config is config and (world.counts.connections, world.counts.requests) == (0, 0)
    assert ask(client, STORY).content and world.counts.requests == 1


@rows("S0-025", "S0-034")
def test_a_client_is_awaited_closes_its_connections_and_answers_nobody_afterwards(row, world):
    def sockets():
        paths = [Path(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")]
        return sum(path.is_socket() for path in paths)

    async def go():
        async with LLMClient(LLMConfig(provider="openai", model="gpt-4o-mini")) as client:
            before = sockets()
            under_way = client.generate(STORY)
            assert inspect.iscoroutine(under_way)
            answer = await under_way
            assert sockets() > before
        await asyncio.sleep(0.05)
        assert sockets() <= before + 1  # the simulator closes its end when it likes
        with pytest.raises(UsageError, match="closed"):
            await client.generate(STORY, model="gpt-5")
        return answer

    assert asyncio.run(go()).content


@rows("S0-034")
def test_a_call_can_be_cancelled(row, place):
    with Simulator(plan=[{"kind": "delay", "seconds": 30}], demand_key=False) as slow:

        async def go():
            config = LLMConfig(model="m", base_url=slow.base_url("openai.chat"))
            async with LLMClient(config) as client:
                task = asyncio.create_task(client.generate(STORY))
                await asyncio.sleep(0.2)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                return client.get_stats()

        began = time.monotonic()
        stats = asyncio.run(go())
        assert time.monotonic() - began < 10
        assert (stats.requests, stats.errors) == (1, 1)


@rows("S1-051")
def test_content_is_text_and_the_response_prints_as_it(row, world):
    response = ask(LLMClient(LLMConfig(provider="openai", model="gpt-4o-mini")), STORY)
    assert type(response.content) is str and str(response) == f"{response}" == response.content == response.raw.text
    usage = response.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (usage.input_tokens, usage.output_tokens)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0
    assert response.cost == response.raw.cost.amount > 0
    assert (response.model, response.provider, response.finish_reason) == ("gpt-4o-mini", LLMProvider.OPENAI, "stop")


def test_defaults_of_a_config_go_out_and_a_call_may_say_otherwise(world):
    config = LLMConfig(provider="openai", model="gpt-4o-mini", temperature=0.2, max_tokens=11)

    async def go():
        async with LLMClient(config) as client:
            await client.generate(STORY)
            await client.generate(STORY, temperature=0.9)
            with pytest.raises(InputError, match="did you mean temperature"):
                await client.generate(STORY, temprature=1)

    asyncio.run(go())
    assert [body(asked)["temperature"] for asked in world.requests] == [0.2, 0.9]
    assert all(11 in body(asked).values() for asked in world.requests)


def test_without_a_word_of_whom_the_environment_says(world, monkeypatch):
    monkeypatch.setenv("AI_PROVIDER", "anthropic")
    monkeypatch.setenv("AI_MODEL", "claude-sonnet-5")
    client = LLMClient()
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-anthropic-another-0123456789")

    async def go():
        async with client:
            await client.generate(STORY)
            monkeypatch.setenv("AI_MODEL", "claude-opus-5")  # it acts on the next call
            await client.generate(STORY)

    asyncio.run(go())
    assert [asked.model for asked in world.requests] == ["claude-sonnet-5", "claude-opus-5"]


def test_a_name_of_any_registry_is_a_model_and_who_names_a_provider_means_nobody_elses(world):
    registry = DictRegistry()
    registry.add(name="mine", provider="anthropic", model_name="claude-sonnet-5")
    registry.add(name="theirs", provider="openai", model_name="gpt-4o-mini", api_key="sk-test-of-another-0123456789")
    configs = LLMConfig(model="mine"), LLMConfig(model="theirs"), LLMConfig(provider="openai", model="gpt-4o-mini")
    answers = [ask(LLMClient(config), STORY) for config in configs]
    assert [answer.raw.deployment for answer in answers] == ["mine", "theirs", "openai/gpt-4o-mini"]
    assert [asked.dialect for asked in world.requests] == ["anthropic.messages", "openai.chat", "openai.chat"]


def test_an_own_backend_is_a_provider(place):
    class Echo:
        name = "echo-cs"

        def ask(self, prompt, **_):
            return f"echo of {prompt}"

    register_backend(Echo())
    try:
        assert ask(LLMClient(LLMConfig(provider="echo-cs")), STORY).content.endswith(STORY)
    finally:
        unregister_backend("echo-cs")


def test_an_address_takes_the_protocol_of_its_provider(world):
    config = LLMConfig(provider="anthropic", base_url=world.base_url("anthropic.messages"), api_key="sk-own-0123456789")
    ask(LLMClient(config), STORY)
    assert (world.requests[0].dialect, world.requests[0].model) == (
        "anthropic.messages", load().provider("anthropic").default_model,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        ({"provider": "openai"}, (MissingKeyError, AuthError, APIKeyError)),
        ({"provider": "nobody"}, (UnsupportedProviderError, LLMServiceError, AIUtilitiesError)),
    ],
)
def test_errors_are_what_every_document_calls_them(said, kinds, place):
    with pytest.raises(polyvox.PolyvoxError) as caught:
        ask(LLMClient(LLMConfig(**said, model="gpt-4o-mini")), STORY)
    assert all(isinstance(caught.value, kind) for kind in kinds) and caught.value.hint


# ---- the pattern of a handler -----------------------------------------------------------------


class Counting(BaseHandler[str, int]):
    """Counts what a model says; of "unreadable" it can make nothing."""

    def build_prompt(self, context):
        return f"Count {context}"

    def get_system_prompt(self):
        return WRITER

    def parse_response(self, content, context):
        if context == "unreadable":
            raise ValueError("there is no number")
        return len(content)


def test_a_handler_asks_reads_and_makes_nothing_up(world):
    assert inspect.isabstract(BaseHandler)
    with pytest.raises(TypeError):
        BaseHandler()
    handler = Counting(DynamicLLMClient(DictRegistry.from_env()), tier="premium")
    result = handler.execute_sync("words")
    assert (result.success, result.data, result.unwrap()) == (True, len(result.response.content), result.data)
    assert result.llm_used == "openai-premium" and result.usage.total_tokens > 0 and result.cost > 0
    said = body(world.requests[0])["messages"]
    assert [message["content"] for message in said] == [WRITER, "Count words"]

    async def go():
        return await handler.execute("unreadable"), await handler.execute("words", tier="nothing")

    unreadable, refused = asyncio.run(go())
    assert (unreadable.success, unreadable.data) == (False, None) and unreadable.response.content
    assert isinstance(unreadable.error, BadResponseError) and isinstance(unreadable.error, AIError)
    assert isinstance(refused.error, InputError) and refused.response is refused.usage is refused.cost is None
    assert refused.llm_used is None
    with pytest.raises(InputError):
        refused.unwrap()
    portal_close(handler)


def portal_close(handler):
    polyvox.portal.run(handler.client.aclose())
