"""Promises of the printed blocks: each runs as its document prints it, its import root changed and nothing else, and
what the document says of it is true here. blocks.toml says which of them wait, and what is wrong with some."""

import ast
import inspect
import re
import sqlite3
import typing
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import openai
import pytest

from polyvox.testing import Fault, Simulator

from . import blocks, coverage

SAID = blocks.said()
SOURCE = blocks.source()  # looked up here: a test's environment is bare
PRINTED = {entry["id"]: entry for entry in blocks.read(SOURCE)}
RUNS = [key for key, entry in SAID.items() if entry["state"] == "runs"]
WAITS = [key for key, entry in SAID.items() if entry["state"] != "runs"]
NEEDED = pytest.mark.skipif(SOURCE is None, reason="the blocks stand beside $POLYVOX_REQUIREMENTS, which is not set")
KEY = "sk-test-blocks-0123456789abcdef"


def printed(key):
    """The block of this id."""
    if SOURCE is None:
        pytest.skip("the blocks stand beside $POLYVOX_REQUIREMENTS, which is not set")
    entry = SAID[key]
    return blocks.Block(key, entry["document"], entry["state"], entry["wrong"], PRINTED[key]["code"])


def block(key):
    """The test takes its block as `block`; its id is the test's."""
    return pytest.mark.parametrize("block", [pytest.param(key, id=key)], indirect=True)


@pytest.fixture(name="block")
def _block(request):
    return printed(request.param)


def lines(block):
    return [line.strip() for line in block.code.splitlines() if line.strip()]


def parameters(function):
    """What a signature says but the annotations, which may be written in several ways."""
    return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]


def tree(names):
    """The bases of each class that are classes of the same tree."""
    known = set(names.values())
    return {name: {base.__name__ for base in cls.__mro__[1:] if base in known} for name, cls in names.items()}


# ---- the table -------------------------------------------------------------------------------------


@NEEDED
def test_every_block_is_in_the_table_and_nothing_else_is():
    assert list(SAID) == list(PRINTED) and len(SAID) == 50


def test_what_waits_waits_for_a_capability_and_36_at_least_run():
    assert {SAID[key]["state"] for key in WAITS} <= set(coverage.CAPABILITIES) - {"interfaces"}
    assert {SAID[key]["document"] for key in SAID} == {"creative_services", "ai_utilities", "llm_service", "ttt"}
    assert len(RUNS) >= 36 and len(RUNS) + len(WAITS) == 50


def test_every_block_that_runs_has_one_test_and_none_that_waits_has_one():
    source = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    marks = [mark for node in source.body for mark in getattr(node, "decorator_list", [])]
    shown = [mark.args[0].value for mark in marks if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "block"]
    assert sorted(shown) == sorted(RUNS)


@pytest.mark.parametrize("key", WAITS)
def test_a_block_that_waits_cannot_run_yet(world, key):
    # When one can, blocks.toml says so, and it gets its test.
    block = printed(key)
    if PRINTED[key]["kind"] == "text":
        assert "no code" in block.wrong
        return
    # All that a harness may give is given, so that it is the missing capability that stops it.
    given = {name: Mock() for name in PRINTED[key]["free"] if name not in blocks.star(block.document)}
    given = {name: value for name, value in given.items() if name not in ("tool", "models", "LLMTier")}
    with pytest.raises(Exception) as caught:
        block.run(**given)
    assert isinstance(caught.value, NameError | ImportError | RuntimeError | NotImplementedError) or getattr(
        caught.value, "hint", None
    ), repr(caught.value)


@NEEDED
def test_only_import_roots_change_in_a_block():
    for entry in PRINTED.values():
        before, after = entry["code"].splitlines(), blocks.rerooted(entry["code"]).splitlines()
        changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert all(old.split()[0] == "from" and "polyvox.compat." in new for old, new in changed), entry["id"]
        assert bool(changed) == any(word.split()[1].split(".")[0] in blocks.ROOTS for word in entry["imports"])


# ---- creative_services -----------------------------------------------------------------------------


@block("S0-B53")
def test_one_client_writes_a_story(block, world):
    there = block.run()
    assert isinstance(there["response"].content, str) and there["response"].content
    (asked,) = world.requests
    assert (asked.dialect, asked.model, asked.outcome) == ("openai.chat", "gpt-4o-mini", "answered")
    assert b"You are a creative writer" in asked.body and b"Write a story" in asked.body


@pytest.mark.parametrize(
    ("kept", "dialect"), [("OPENAI_API_KEY", "openai"), ("ANTHROPIC_API_KEY", "anthropic")], ids=["openai", "anthropic"]
)
@block("S0-B73")
def test_a_tier_takes_the_provider_that_has_a_key(block, world, monkeypatch, kept, dialect):
    for name in ("OPENAI", "ANTHROPIC", "GROQ", "OPENROUTER", "GEMINI", "MISTRAL"):
        if kept != f"{name}_API_KEY":
            monkeypatch.delenv(f"{name}_API_KEY")
    there = block.run()
    assert there["response"].content
    (asked,) = world.requests
    assert asked.dialect.startswith(dialect) and asked.outcome == "answered"
    assert there["registry"].get_by_tier(there["LLMTier"].STANDARD) is not None


@block("S0-B91")
def test_a_user_of_whom_nothing_was_recorded_has_spent_nothing(block, place, capsys):
    there = block.run()
    stats = there["stats"]
    assert (stats.total_cost, stats.total_tokens, stats.requests) == (0, 0, 0)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and re.fullmatch(r"Total cost: \$0(\.0+)?", said[0])
    assert there["tracker"].get_stats().total_tokens == 600


@block("S1-B74")
def test_the_synchronous_bridge_prints_text(block, world, capsys):
    result = block.run()["result"]
    assert type(result) is str and result
    assert capsys.readouterr().out == f"{result}\n"
    # And where a loop runs.
    again = blocks.execute("import asyncio\nawait asyncio.sleep(0)\n" + block.code, {})["result"]
    assert type(again) is str and again
    assert [asked.outcome for asked in world.requests] == ["answered"] * 2
    assert all(b"You are a writer" in asked.body for asked in world.requests)


@block("S1-B94")
def test_the_asynchronous_bridge_gives_text(block, world):
    result = block.run()["result"]
    assert type(result) is str and result
    assert [asked.outcome for asked in world.requests] == ["answered"]


PROMPT = "Say the same to both of us."


@block("S1-B113")
def test_before_the_migration_the_sdk_of_openai_answers(block, world):
    there = block.run(prompt=PROMPT, settings=SimpleNamespace(OPENAI_API_KEY=KEY))
    there["client"].close()
    assert isinstance(there["content"], str) and there["content"]
    assert [(asked.dialect, asked.model) for asked in world.requests] == [("openai.chat", "gpt-4o-mini")]


@block("S1-B127")
def test_after_the_migration_the_answer_is_the_same(block, world):
    before = printed("S1-B113").run(prompt=PROMPT, settings=SimpleNamespace(OPENAI_API_KEY=KEY))
    before["client"].close()
    there = block.run(prompt=PROMPT)
    assert there["content"] == before["content"]
    # A client without a registry would have answered too.
    assert there["registry"].get_by_tier(there["LLMTier"].STANDARD) in there["registry"].list_active()
    assert [asked.outcome for asked in world.requests] == ["answered"] * 2


# ---- ai_utilities ----------------------------------------------------------------------------------


@block("S2-B69")
def test_the_methods_of_a_provider_have_the_printed_signatures(block, place):
    there = blocks.star("ai_utilities")
    theirs = re.sub(r"(?m)^(    def .*)$", r"\1: ...", block.code)
    names = {**vars(typing), **there, "List": list, "Iterator": typing.Iterator}
    wanted = blocks.execute(theirs, names)["BaseProvider"]
    for name in ("ask", "ask_batch", "ask_stream", "list_models"):
        ours = getattr(there["BaseProvider"], name)
        assert parameters(ours) == parameters(getattr(wanted, name)), name
        hints, printed_hints = (typing.get_type_hints(one, names) for one in (ours, getattr(wanted, name)))
        assert {"prompt": str}.items() <= hints.items() or name in ("ask_batch", "list_models")
        for key, hint in printed_hints.items():
            assert _plain(hints[key]) == _plain(hint), (name, key)


def _plain(hint):
    """A type by what it is made of: list[str] is List[str]."""
    return (typing.get_origin(hint) or hint, typing.get_args(hint))


@block("S2-B105")
def test_a_request_goes_the_printed_way(block, world, monkeypatch):
    there = blocks.star("ai_utilities")
    assert [line.partition(".")[0] for line in lines(block)] == [str(number) for number in range(1, 8)]
    events = []

    class Watched(there["MemoryCache"]):
        def get(self, key):
            found = super().get(key)
            events.append(("looked", found is not None, len(world.requests)))
            return found

        def set(self, key, value, *args, **more):
            events.append(("kept", len(world.requests)))
            return super().set(key, value, *args, **more)

    monkeypatch.setenv("AI_API_KEY", KEY)
    monkeypatch.setenv("AI_BASE_URL", world.base_url("openai.chat"))
    monkeypatch.setenv("AI_MODEL", "gpt-4o-mini")
    monkeypatch.setenv("AI_CACHE_ENABLED", "true")
    # 2: what is wrong in the configuration is said before anything is asked.
    monkeypatch.setenv("AI_TEMPERATURE", "3")
    with pytest.raises(there["AIUtilitiesError"], match="AI_TEMPERATURE"):
        there["AiClient"]().ask("question")
    assert world.requests == ()
    monkeypatch.delenv("AI_TEMPERATURE")
    # 1, 3: the factory's provider, the same one for every call.
    client = there["AiClient"](cache=Watched())
    provider = client.provider
    assert type(provider) is there["OpenAIProvider"]
    # 4 to 7: looked up, asked for, kept, returned; the second time it is there.
    first, second = client.ask("question"), client.ask("question")
    assert events == [("looked", False, 0), ("kept", 1), ("looked", True, 1)]
    assert client.provider is provider and len(world.requests) == 1
    assert type(first) is type(second) is there["AskResult"]
    assert (first.cached, second.cached, first.text) == (False, True, second.text)


@block("S2-B117")
def test_settings_are_loaded_in_the_printed_order(block, place, monkeypatch):
    there = blocks.star("ai_utilities")
    assert [line.partition(".")[0] for line in lines(block)] == [str(number) for number in range(1, 7)]
    resolve = there["ConfigurationResolver"]().resolve
    # 1, 4: without a file and without a variable there are the defaults.
    settings, origins = resolve()
    assert (settings.temperature, settings.cache_ttl_s, settings.max_tokens) == (0.7, 3600, None)
    assert "default" in str(origins["temperature"])
    # 3: a file is read if it is there; 2: the environment goes before it.
    (place / ".env").write_text("AI_TEMPERATURE=0.1\nAI_CACHE_TTL_S=60\n")
    monkeypatch.setenv("AI_TEMPERATURE", "0.5")
    settings, origins = resolve()
    assert (settings.temperature, settings.cache_ttl_s, settings.max_tokens) == (0.5, 60, None)
    assert "AI_TEMPERATURE" in str(origins["temperature"]) and ".env" in str(origins["cache_ttl_s"])
    # 5: all that is wrong is said at once.
    monkeypatch.setenv("AI_TEMPERATURE", "3")
    monkeypatch.setenv("AI_MAX_TOKENS", "0")
    with pytest.raises(ValueError, match=r"(?s)AI_TEMPERATURE.*AI_MAX_TOKENS|AI_MAX_TOKENS.*AI_TEMPERATURE"):
        there["AiSettings"]()
    # What is said goes before all of it; 6: and then it stands.
    settings = there["AiSettings"](temperature=0.9, max_tokens=5)
    assert (settings.temperature, settings.max_tokens, settings.cache_ttl_s) == (0.9, 5, 60)
    with pytest.raises(Exception, match=r"(?i)frozen|immutable|cannot|copy"):
        settings.temperature = 0.2
    assert settings.temperature == 0.9


@block("S2-B132")
def test_the_factory_makes_the_provider_of_the_settings(block, place):
    there = block.run()
    settings = there["AiSettings"](provider="groq", api_key=KEY)
    ours = blocks.star("ai_utilities")["create_provider"]
    for create in (there["create_provider"], ours):
        made = create(settings)
        assert type(made) is there["GroqProvider"] and made.settings is settings
        assert type(create(settings, "openai")) is there["OpenAIProvider"]
        assert type(create(settings, "")) is there["GroqProvider"]
    assert parameters(ours)[:2] == parameters(there["create_provider"])[:2]
    assert there["create_provider"](settings, "nobody") is None
    with pytest.raises(there["ProviderConfigurationError"], match=r"(?s)groq.*openai|openai.*groq"):
        ours(settings, "nobody")


@block("S2-B148")
def test_caches_have_the_printed_methods(block, place):
    there, ours = block.run(Any=typing.Any, Optional=typing.Optional), blocks.star("ai_utilities")
    _same_methods(there["CacheBackend"], ours["CacheBackend"], "get", "set", "delete")
    for name in ("MemoryCache", "SQLiteCache", "RedisCache"):
        assert issubclass(there[name], there["CacheBackend"]) and issubclass(ours[name], ours["CacheBackend"])
    cache = ours["MemoryCache"]()
    cache.set("a", {"b": 1}, 60)
    assert cache.get("a") == {"b": 1}
    cache.delete("a")
    cache.delete("a")
    assert cache.get("a") is None


def _same_methods(theirs, ours, *names):
    assert {name for name in vars(theirs) if not name.startswith("_")} == set(names)
    for name in names:
        wanted = [(one[0], one[2]) for one in parameters(getattr(theirs, name))]
        assert [(one[0], one[2]) for one in parameters(getattr(ours, name))][: len(wanted)] == wanted, name


@block("S2-B163")
def test_a_client_tells_its_tracker_once_a_request(block, world):
    there = block.run()
    client = there["AiClient"]()
    # create_usage_tracker is ours, and its tracker is told here.
    assert callable(client.usage_tracker.track_request)

    class Counting(there["UsageTracker"]):
        def __init__(self):
            self.seen = []

        def track_request(self, usage):
            self.seen.append(usage)

    usage = there["UsageData"](prompt_tokens=1, completion_tokens=2)
    result = SimpleNamespace(usage=usage)
    client = there["AiClient"](usage_tracker=Counting())
    client.provider = SimpleNamespace(ask=lambda prompt, **more: result)
    assert client.ask("a question") is result and client.usage_tracker.seen == [usage]
    # The printed tracker, in our client.
    ours = blocks.star("ai_utilities")
    settings = ours["AiSettings"](api_key=KEY, model="gpt-4o-mini", base_url=world.base_url("openai.chat"))
    client = ours["AiClient"](settings, usage_tracker=Counting())
    assert [client.ask("a question").usage] == client.usage_tracker.seen
    assert client.usage_tracker.seen[0].total_tokens > 0


ERRORS = (
    "AIUtilitiesError", "ProviderError", "ProviderConfigurationError", "ProviderAPIError", "ProviderRateLimitError",
)  # fmt: skip


@block("S2-B183")
def test_our_errors_are_the_printed_tree(block, place):
    there, ours = block.run(), blocks.star("ai_utilities")
    printed_tree = tree({name: value for name, value in blocks.execute(block.code, {}).items() if name in ERRORS})
    assert set(printed_tree) == set(ERRORS)
    assert tree({name: ours[name] for name in ERRORS}) == printed_tree
    assert all(issubclass(there[name], Exception) and ours[name] is not there[name] for name in ERRORS)
    assert all("it broke" in str(ours[name]("it broke")) for name in ERRORS)


@block("S2-B211")
def test_our_settings_have_the_printed_fields_and_defaults(block, place, monkeypatch):
    import pydantic
    import pydantic_settings

    given = {
        "BaseSettings": pydantic_settings.BaseSettings,
        "Field": pydantic.Field,
        "AliasChoices": pydantic.AliasChoices,
        "Optional": typing.Optional,
    }
    with pytest.warns(pydantic.warnings.PydanticDeprecatedSince20):
        theirs = block.run(**given)["AiSettings"]
    ours = blocks.star("ai_utilities")["AiSettings"]
    assert issubclass(ours, pydantic_settings.BaseSettings)
    printed_fields = {name: field.get_default() for name, field in theirs.model_fields.items()}
    assert len(printed_fields) == 8
    assert printed_fields | {"api_key": None} == {name: getattr(theirs(), name) for name in printed_fields}
    assert {name: getattr(ours(), name) for name in printed_fields} | {"model": None} == printed_fields
    said = {
        "AI_PROVIDER": "groq", "ai_api_key": KEY, "AI_TEMPERATURE": "0.5", "AI_MAX_TOKENS": "7",
        "OPENAI_MODEL": "other", "AI_CACHE_ENABLED": "1", "AI_CACHE_BACKEND": "sqlite", "AI_CACHE_TTL_S": "60",
    }  # fmt: skip
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    for kind in (theirs, ours):
        settings = kind()
        assert (settings.provider, settings.api_key, settings.model) == ("groq", KEY, "other")
        assert (settings.temperature, settings.max_tokens) == (0.5, 7)
        assert (settings.cache_enabled, settings.cache_backend, settings.cache_ttl_s) == (True, "sqlite", 60)
    monkeypatch.setenv("AI_MODEL", "this")
    assert theirs().model == ours().model == "this"
    for wrong in ({"temperature": 2.1}, {"temperature": -0.1}, {"max_tokens": 0}):
        for kind in (theirs, ours):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                kind(**wrong)
    # What the printed class refuses.
    (place / ".env").write_text("AI_CACHE_NAMESPACE=x\nAI_MODEL=from-the-file\n")
    assert ours(model="here", base_url="http://127.0.0.1:9").model == "here"
    monkeypatch.delenv("AI_MODEL")
    monkeypatch.delenv("OPENAI_MODEL")
    assert ours().model == "from-the-file"


@block("S2-B250")
def test_our_base_class_is_the_printed_one_with_what_it_lacks(block, place):
    there = block.run()
    theirs, ours = there["BaseProvider"], blocks.star("ai_utilities")["BaseProvider"]
    for name in ("__init__", "ask", "ask_stream", "list_models"):
        assert parameters(getattr(ours, name)) == parameters(getattr(theirs, name)), name
    assert ours.__abstractmethods__ == theirs.__abstractmethods__ == {"ask"}
    settings = there["AiSettings"](api_key=KEY)
    for kind in (theirs, ours):
        made = type("Own", (kind,), {"ask": lambda self, prompt, **more: there["AskResult"](text=prompt, usage=None)})
        if kind is theirs:
            with pytest.raises(AttributeError, match="_configure_client"):
                made(settings)
            made._configure_client = lambda self: None
        provider = made(settings)
        assert provider.settings is settings and provider.ask("a").text == "a"
        with pytest.raises(NotImplementedError, match="Streaming not supported"):
            list(provider.ask_stream("a"))
        with pytest.raises(NotImplementedError, match="Model listing not supported"):
            provider.list_models()
    assert [result.text for result in provider.ask_batch(["a", "b"])] == ["a", "b"]


@block("S2-B275")
def test_a_provider_written_as_printed_works(block, world):
    there = block.run(openai=openai)
    make = there["AiSettings"]
    settings = make(api_key=KEY, model="gpt-4o-mini", base_url=world.base_url("openai.chat"), max_tokens=500)
    provider = there["OpenAIProvider"](settings)
    result = provider.ask("a question")
    provider.client.close()
    assert type(result) is there["AskResult"] and result.text
    usage = result.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0
    # In our client too.
    client = blocks.star("ai_utilities")["AiClient"](settings)
    client.provider = provider = there["OpenAIProvider"](settings)
    assert client.ask("a question").text == result.text
    provider.client.close()
    assert [asked.dialect for asked in world.requests] == ["openai.chat"] * 2
    with Simulator(plan=[Fault("status", status=500)]) as broken:
        settings = make(api_key=KEY, model="gpt-4o-mini", base_url=broken.base_url("openai.chat"), max_tokens=500)
        provider = there["OpenAIProvider"](settings)
        provider.client = client = provider.client.with_options(max_retries=0)
        with pytest.raises(there["ProviderAPIError"], match="OpenAI API error") as caught:
            provider.ask("a question")
        assert isinstance(caught.value.__context__, openai.APIError)
        client.close()


@block("S2-B309")
def test_our_keys_are_the_printed_ones(block, place):
    import json

    theirs = block.run(json=json)["_generate_cache_key"]
    from polyvox.compat.ai_utilities.cache import _generate_cache_key as ours

    assert parameters(ours)[:4] == parameters(theirs)[:4]
    base = {"prompt": "a", "provider": "openai", "model": "gpt-4", "temperature": 0.7, "max_tokens": 5, "system": "b"}
    turned = dict(reversed(base.items()))
    golden = "eb5b81d49a522c04e8ab498842a1333a09e95876ed380698d881e87984116745"
    assert ours(**base) == theirs(**base) == golden
    for key in (theirs, ours):
        assert key(**base) == key(**turned)
        others = [key(**{**base, name: 9 if name in ("temperature", "max_tokens") else "x"}) for name in base]
        assert len({key(**base), *others}) == len(base) + 1


@block("S2-B334")
def test_our_cache_takes_over_a_file_of_the_printed_one(block, place):
    import abc

    given = {"ABC": abc.ABC, "Any": typing.Any, "Optional": typing.Optional, "sqlite3": sqlite3}
    there, ours = block.run(**given), blocks.star("ai_utilities")
    _same_methods(there["CacheBackend"], ours["CacheBackend"], "get", "set", "clear", "clear_namespace")
    assert parameters(ours["SQLiteCache"].__init__)[:3] == parameters(there["SQLiteCache"].__init__)
    path = str(place / "cache.db")
    theirs = there["SQLiteCache"](path)
    row = ("greeting", '"hello"', "default", "2026-01-01 00:00:00", None)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("INSERT INTO cache VALUES (?, ?, ?, ?, ?)", row)
    connection.close()
    cache = ours["SQLiteCache"](path)
    assert (cache.db_path, cache.max_entries) == (theirs.db_path, theirs.max_entries) == (path, 1000)
    cache.set("farewell", {"text": "goodbye"}, 60)
    assert cache.get("farewell") == {"text": "goodbye"}
    # One key in two namespaces, which the printed table cannot hold.
    other = ours["SQLiteCache"](path, namespace="another")
    other.set("farewell", "elsewhere", 60)
    assert (cache.get("farewell"), other.get("farewell")) == ({"text": "goodbye"}, "elsewhere")
    connection = sqlite3.connect(path)
    columns = [column[1] for column in connection.execute("PRAGMA table_info(cache)")]
    kept = connection.execute("SELECT value FROM cache WHERE key LIKE '%greeting%'").fetchall()
    connection.close()
    assert {"key", "value", "namespace", "created_at", "expires_at"} <= set(columns)
    assert kept == [('"hello"',)]


# ---- llm_service -----------------------------------------------------------------------------------


@pytest.fixture
def models(place):
    """The names that the blocks have from those before them."""
    names = {}
    exec(
        blocks.rerooted(
            "from app.models.llm import LLMCallRequest, LLMCallResponse, LLMConfig, LLMModelSpec\n"
            "from app.services.llm import execute_llm_call\n"
        ),
        names,
    )
    return {name: value for name, value in names.items() if not name.startswith("__")}


@pytest.fixture
def openai_client(world):
    with openai.OpenAI() as client:
        yield client


@block("S3-B117")
def test_a_basic_call_prints_answer_and_tokens(block, world, openai_client, capsys):
    there = block.run(openai_client=openai_client)
    assert there["error"] is None
    said = capsys.readouterr().out
    assert said == f"Response: {there['response'].message}\nTokens: {there['response'].total_tokens}\n"
    assert there["response"].total_tokens > 0
    (asked,) = world.requests
    assert (asked.dialect, asked.model, asked.outcome) == ("openai.responses", "gpt-4", "answered")
    assert b'"max_output_tokens":500' in asked.body.replace(b": ", b":")


@block("S3-B146")
def test_what_was_found_in_files_is_printed(block, models, capsys):
    found = {"file_id": "f", "filename": "auth.md", "score": 0.9, "text": "Use a token."}
    search = {"type": "file_search_call", "id": "s", "status": "completed", "queries": ["auth"], "results": [found]}
    said = {"type": "output_text", "text": "It says so.", "annotations": []}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [said]}
    client = Mock()
    client.responses.create.return_value = Mock(
        id="resp_1", output_text="It says so.", model="gpt-4", output=[search, message],
        usage=Mock(input_tokens=1, output_tokens=2, total_tokens=3),
    )  # fmt: skip
    there = block.run(**models, openai_client=client)
    assert there["error"] is None and there["response"].message == "It says so."
    assert capsys.readouterr().out == "Score: 0.9, Text: Use a token.\n"
    asked = client.responses.create.call_args.kwargs
    (tool,) = asked["tools"]
    assert (tool["type"], tool["vector_store_ids"], tool["max_num_results"]) == ("file_search", ["vs_abc123"], 10)
    assert "file_search_call.results" in asked["include"]


@block("S3-B169")
def test_a_reasoning_model_takes_its_effort(block, world, models, openai_client):
    there = block.run(**models, openai_client=openai_client)
    assert there["error"] is None and there["response"].message
    (asked,) = world.requests
    assert (asked.model, asked.outcome) == ("o1", "answered")
    # It never had a verbosity: that is left out.
    assert b"high" in asked.body and b"verbosity" not in asked.body and b"temperature" not in asked.body


@block("S3-B208")
def test_a_provider_of_ones_own_is_a_class_as_printed(block, place, models):
    there = block.run()
    kind = there["AnthropicProvider"]
    assert not inspect.isabstract(kind) and issubclass(kind, there["BaseProvider"])
    # The line that is left to the reader: a name that nobody makes.
    transformer = printed("S3-B223").run(Any=typing.Any, **models)["AnthropicTransformer"]()
    client = Mock()
    request = _request(models, model="claude-3-opus", provider="anthropic")
    there["llm_response"] = models["LLMCallResponse"](message="Hello", model="claude-3-opus")
    assert kind(client, transformer).execute(request) == (there["llm_response"], None)
    client.messages.create.assert_called_once_with(
        model="claude-3-opus", messages=[{"role": "user", "content": "Explain quantum computing"}], max_tokens=1024
    )


def _request(models, **spec):
    spec = {"model": "gpt-4", "provider": "openai", **spec}
    llm = models["LLMConfig"](prompt="Explain quantum computing", llm_model_spec=models["LLMModelSpec"](**spec))
    return models["LLMCallRequest"](llm=llm)


@block("S3-B223")
def test_a_transformer_of_ones_own_is_a_class_as_printed(block, place, models):
    there = block.run(Any=typing.Any, **models)
    kind = there["AnthropicTransformer"]
    assert not inspect.isabstract(kind) and issubclass(kind, there["ConfigTransformer"])
    said = [{"role": "user", "content": "Explain quantum computing"}]
    for given, most in (({}, 1024), ({"max_tokens": 7}, 7)):
        params = kind().transform(_request(models, model="claude-3-opus", provider="anthropic", **given))
        assert params == {"model": "claude-3-opus", "messages": said, "max_tokens": most}


@block("S3-B239")
def test_a_specification_says_what_a_model_can_and_takes(block, place):
    there = block.run()
    (spec,) = there["create_anthropic_specs"]()
    assert type(spec) is there["ModelSpec"]
    assert (spec.model_name, spec.provider) == ("claude-3-opus", "anthropic")
    assert spec.capabilities.supports_streaming is spec.capabilities.supports_vision is True
    assert there["ModelCapabilities"]().supports_vision is False
    (parameter,) = spec.parameters
    assert (parameter.name, parameter.type, parameter.min_value, parameter.max_value) == ("temperature", "float", 0, 1)
    spec.validate_config({"temperature": 1.0})
    with pytest.raises(ValueError, match="temperature"):
        spec.validate_config({"temperature": 1.5})


@block("S3-B263")
def test_what_was_registered_answers(block, world, models, monkeypatch):
    provider = printed("S3-B208").run()
    transformer = printed("S3-B223").run(Any=typing.Any, **models)["AnthropicTransformer"]
    with _factories_as_they_were():
        block.run(AnthropicProvider=provider["AnthropicProvider"], AnthropicTransformer=transformer)
        provider["llm_response"] = models["LLMCallResponse"](message="Hello", model="claude-3-opus")
        client = Mock()
        request = _request(models, model="claude-3-opus", provider="anthropic")
        response, error = models["execute_llm_call"](request, client)
        assert (response.message, error) == ("Hello", None)
        client.messages.create.assert_called_once()
        from polyvox.compat.llm_service.services.llm.constants import SUPPORTED_PROVIDERS

        assert "anthropic" in SUPPORTED_PROVIDERS
    assert world.requests == ()


class _factories_as_they_were:
    """What a test registers for "anthropic" is forgotten after it."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        from polyvox.compat.llm_service.services.llm.providers.factory import ProviderFactory
        from polyvox.compat.llm_service.services.llm.transformers.factory import TransformerFactory

        ProviderFactory.unregister_provider("anthropic")
        TransformerFactory.unregister_transformer("anthropic")


@block("S3-B278")
def test_constants_have_the_printed_values(block, place):
    from polyvox.compat.llm_service.services.llm import constants

    printed_values = {name: value for name, value in block.run().items() if name.isupper()}
    assert len(printed_values) == 3
    assert {name: getattr(constants, name) for name in printed_values} == printed_values


@block("S3-B292")
def test_a_mock_in_the_place_of_a_client_answers(block, place, models):
    there = block.run(request=_request(models), execute_llm_call=models["execute_llm_call"])
    response = there["response"]
    assert (response.message, there["error"]) == ("Test response", None)
    assert (response.input_tokens, response.output_tokens, response.total_tokens) == (10, 20, 30)
    assert response.model == "gpt-4" and response.file_search_results is None
    there["mock_client"].responses.create.assert_called_once()


# ---- ttt -------------------------------------------------------------------------------------------


@block("S4-B51")
def test_one_question_with_and_without_await(block, world):
    response = block.run()["response"]
    assert isinstance(response, str) and response and response.model == "gpt-4"
    assert [(asked.model, asked.outcome) for asked in world.requests] == [("gpt-4", "answered")] * 2


@block("S4-B95")
def test_the_model_decides_who_answers(block, world):
    there = block.run()
    assert (there["response"].backend, there["response"].model) == ("local", "llama2")
    first, second = [asked for asked in world.requests if asked.call]
    assert first.model == "gpt-4" and first.dialect.startswith("openai")
    assert second.model == "llama2" and second.dialect.startswith("ollama")
    assert b"Private data" not in first.body and b"Private data" in second.body


@pytest.mark.parametrize("config", [{}, {"timeout": 5}], ids=["empty", "more"])
@block("S4-B164")
def test_a_factory_makes_both_backends(block, world, config):
    kinds = []
    for line in lines(block):
        there = block._replace(code=line).run(config=dict(config))
        assert isinstance(there["backend"], there["BaseBackend"])
        kinds.append((type(there["backend"]).__name__, there["backend"].name))
    assert kinds == [("CloudBackend", "cloud"), ("LocalBackend", "local")]
    assert block.run(config=config)["backend"].name == "local"


@pytest.mark.parametrize(("model", "kind"), [("gpt-4", "CloudBackend"), ("llama2", "LocalBackend")])
@block("S4-B170")
def test_a_router_selects_the_backend(block, world, model, kind):
    there = block.run(model=model, query="Code question")
    assert isinstance(there["backend"], there[kind])


@block("S4-B183")
def test_configuration_is_believed_in_the_printed_order(block, place, monkeypatch):
    order = [word.strip() for word in block.code.split("→")]
    assert order == ["Program Config", "Env Variables", "Config Files", "Defaults"]
    from polyvox.compat import ttt

    # Each source in its turn, from the last that is believed to the first.
    assert ttt.get_config().get("models.default") is None and ttt.get_config().get("backends.default") == "auto"
    file = place / "ttt.toml"
    file.write_text('[models]\ndefault = "of-the-file"\n[backends]\ndefault = "local"\n')
    monkeypatch.setenv("AI_CONFIG_FILE", str(file))
    assert ttt.get_config().get("backends.default") == "local"
    assert ttt.get_config().origin("models.default") == f"{file}:2"
    monkeypatch.setenv("AI_DEFAULT_MODEL", "of-the-environment")
    assert ttt.get_config().get("models.default") == "of-the-environment"
    assert ttt.get_config().origin("models.default") == "env AI_DEFAULT_MODEL"
    try:
        ttt.configure(models={"default": "of-the-program"})
        assert ttt.get_config().get("models.default") == "of-the-program"
        assert ttt.get_config().origin("models.default") == "program"
        assert ttt.get_config().get("backends.default") == "local"
    finally:
        ttt.configure(models={"default": None})
    assert ttt.get_config().get("models.default") == "of-the-environment"


@block("S4-B188")
def test_chunks_come_before_the_last_is_sent(block, place, monkeypatch):
    import polyvox

    with Simulator(token_rate=40) as slow:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", slow.base_url("openai.chat"))
        polyvox.configure(providers={"openai": {"hosts": ["127.0.0.1"]}})
        chunks, whole = [], []

        def process_chunk(chunk):
            chunks.append(chunk)
            whole.append(slow.requests[-1].outcome == "answered")

        block.run(process_chunk=process_chunk)
    assert len(chunks) > 1 and all(isinstance(chunk, str) for chunk in chunks) and "".join(chunks)
    assert whole[0] is False


@block("S4-B199")
def test_a_backend_that_says_nothing_is_told_so(block, place):
    there = block.run()
    backend = there["CustomBackend"]()
    assert isinstance(backend, there["BaseBackend"]) and backend.name == "custom"
    with pytest.raises(there["AIError"], match="custom"):
        there["ask"]("a question", backend=backend)


@block("S4-B225")
def test_a_model_of_ones_own_is_found(block, place):
    from polyvox.compat import shared

    there = block.run()
    found = there["model_registry"].get_model("custom-model")
    assert (found.name, found.provider, found.context_length) == ("custom-model", "custom", 8192)
    assert sorted(found.capabilities) == ["code", "text"]
    assert shared.info("custom-model").context == 8192


@block("S4-B238")
def test_a_loader_of_ones_own_loads(block, place):
    there = block.run(Any=typing.Any, Dict=dict, load_from_custom_source=lambda: {"models": {"default": "gpt-4"}})
    loader = there["CustomConfigLoader"]()
    assert isinstance(loader, there["ConfigLoader"]) and loader.load() == {"models": {"default": "gpt-4"}}
    with pytest.raises(TypeError, match="load"):
        there["ConfigLoader"]()


@block("S4-B292")
def test_the_errors_are_the_printed_tree(block, place):
    names = re.findall(r"\w+Error", block.code)
    assert len(names) == 7 and names[0] == "AIError"
    there = blocks.star("ttt")
    assert tree({name: there[name] for name in names}) == {name: set(names[:1]) - {name} for name in names}
    assert all("it broke" in str(there[name]("it broke")) for name in names)
