"""The errors of AI Utilities: one printed tree, each raised for what its document says, none with a key in it."""

import asyncio
import contextlib
import random
import socket

import pytest

from polyvox import errors as core
from polyvox.compat import ai_utilities as root
from polyvox.compat.errors import TABLE, documented
from polyvox.compat.names import (
    AIUtilitiesError,
    ProviderAPIError,
    ProviderConfigurationError,
    ProviderError,
    ProviderRateLimitError,
)
from polyvox.testing import Fault, Simulator
from tests.interfaces.rows import rows

KEY = "sk-test-canary-of-errors-0123456789abcdef"


@pytest.fixture(autouse=True)
def once(monkeypatch, place):
    """Nothing is tried again."""
    monkeypatch.setenv("POLYVOX_RETRIES", "0")


def settings(**said):
    return root.AiSettings(**{"_env_file": None, "model": "gpt-4o-mini", "api_key": KEY, **said})


@contextlib.contextmanager
def provider_that(*faults, **facts):
    """Settings for a provider that breaks calls so, and what it was asked."""
    with Simulator(plan=faults, **facts) as simulator:
        yield settings(base_url=simulator.base_url("openai.chat")), simulator


def ask(said, stream=False):
    """A question to that provider."""
    with root.AiClient(said) as client:
        return list(client.ask_stream("Hi")) if stream else client.ask("Hi")


def caught(call, kind=AIUtilitiesError):
    with pytest.raises(kind) as found:
        call()
    assert KEY not in f"{found.value!s} {found.value!r} {found.value.hint}"
    return found.value


# ---- the tree -----------------------------------------------------------------------------------

PRINTED = {
    AIUtilitiesError: Exception,
    ProviderError: AIUtilitiesError,
    ProviderConfigurationError: ProviderError,
    ProviderAPIError: ProviderError,
    ProviderRateLimitError: ProviderAPIError,
}


@rows("S2-096")
def test_the_five_classes_are_the_printed_tree(row):
    for kind, parent in PRINTED.items():
        assert getattr(root, kind.__name__) is kind and issubclass(kind, parent)
        others = [other for other in PRINTED if other is not kind and issubclass(kind, other)]
        assert set(others) == {each for each in PRINTED if each is parent or issubclass(parent, each)}, kind
        assert isinstance(kind("it broke"), Exception) and "it broke" in str(kind("it broke"))
    assert not issubclass(ProviderConfigurationError, ProviderAPIError)


@rows("S2-098")
def test_what_is_wrong_with_a_provider_is_a_provider_error_that_names_it(row):
    assert ProviderError.__mro__.index(AIUtilitiesError) == 1
    for kind in (core.MissingKeyError, core.RateLimitError, core.ServerError, core.UnknownProviderError):
        assert issubclass(documented(kind), ProviderError)
    with provider_that(Fault("status", status=500)) as (said, _):
        error = caught(lambda: ask(said), ProviderError)
    assert error.provider and error.model == "gpt-4o-mini"


# ---- what each is raised for --------------------------------------------------------------------


@rows("S2-099", "S2-102")
def test_configuration_that_cannot_work_is_told_before_anything_is_sent(row, monkeypatch):
    from polyvox.compat.ai_utilities import cache

    def never(*_, **__):
        raise AssertionError("something was sent")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr(socket.socket, "connect", never)
    wrong = {
        "no key": (lambda: ask(settings(api_key=None)), ("openai", "OPENAI_API_KEY")),
        "no provider": (lambda: root.AiClient(settings(provider="opnai")), ("opnai", "openai")),
        "an address": (lambda: settings(base_url="ftp://nowhere"), ("base_url", "ftp://nowhere")),
        "another address": (lambda: settings(base_url="http://"), ("base_url",)),
        "a cache": (lambda: settings(cache_backend="memroy"), ("memroy", "memory")),
        "a number": (lambda: settings(temperature=3), ("temperature", "3")),
        "a file": (lambda: cache.SQLiteCache("."), ("folder",)),
    }
    for what, (call, words) in wrong.items():
        error = caught(call, ProviderConfigurationError)
        text = f"{error} {error.hint} {getattr(error, 'problems', '')}"
        assert all(word in text for word in words), (what, text)
        assert error.sent == "no" and error.hint, what


def every_way_to_ask(said):
    """Each method of both clients, the first thing it raises or gives."""

    async def awaited(what):
        async with root.AsyncAiClient(said) as client:
            return await what(client)

    async def streamed(client):
        return [piece async for piece in client.ask_stream("Hi")]

    yield "ask", lambda: ask(said)
    yield "ask_stream", lambda: ask(said, stream=True)
    yield "list_models", lambda: root.AiClient(said).list_models()
    yield "ask, awaited", lambda: asyncio.run(awaited(lambda client: client.ask("Hi")))
    yield "ask_stream, awaited", lambda: asyncio.run(awaited(streamed))
    yield "list_models, awaited", lambda: asyncio.run(awaited(lambda client: client.list_models()))


@pytest.mark.parametrize("cache", [True, False])
@rows("S2-103", "S2-104")
def test_whoever_has_no_key_is_told_all_ways_to_an_answer(row, cache, monkeypatch):
    monkeypatch.setenv("GROQ_API_KEY", f"{KEY}-of-groq")
    monkeypatch.setenv("ANTHROPIC_API_KEY", " ")
    said = root.AiSettings(_env_file=None, cache_enabled=cache)
    ways = (
        "set AI_API_KEY", "api_key=", "OPENAI_API_KEY", "polyvox keys set openai", "polyvox-ai-utilities setup",
        'provider="groq" (GROQ_API_KEY)', 'provider="ollama"', 'provider="demo"',
    )  # fmt: skip
    for what, call in every_way_to_ask(said):
        error = caught(call, core.MissingKeyError)
        assert [way for way in ways if error.hint.count(way) != 1] == [], (what, error.hint)
        assert "anthropic" not in error.hint.lower() and error.hint in str(error)
    (failed,) = root.AiClient(said).ask_batch(["Hi"])
    assert all(way in failed.error.hint for way in ways)
    monkeypatch.delenv("GROQ_API_KEY")
    assert "there is a key" not in caught(lambda: ask(said)).hint


@rows("S2-102")
def test_a_key_that_can_be_none_is_named_and_not_shown(row):
    with provider_that() as (said, simulator):
        broken = said.model_copy(update={"api_key": f"{KEY}\nX-Other: header"})
        error = caught(lambda: ask(broken))
        assert "key" in str(error) and simulator.requests == ()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500, 502, 503])
@rows("S2-100")
def test_what_a_provider_answers_is_an_error_with_all_that_it_said(row, status):
    with provider_that(Fault("status", status=status, headers={"x-request-id": "req-77"})) as (said, simulator):
        error = caught(lambda: ask(said), ProviderAPIError)
        assert len(simulator.requests) == 1
    assert not isinstance(error, ProviderRateLimitError)
    assert (error.status, error.request_id, error.model) == (status, "req-77", "gpt-4o-mini")
    assert error.provider and error.retryable is (status >= 500 or status == 409) and error.sent == "yes"
    assert str(status) in str(error) and "req-77" in str(error)


@rows("S2-100")
def test_a_provider_that_is_not_there_is_the_same_error(row):
    error = caught(lambda: ask(settings(base_url="http://127.0.0.1:9/v1")), ProviderAPIError)
    assert error.retryable and error.status is None
    # The document's own code makes one of a text alone.
    assert str(ProviderAPIError("OpenAI API error: 500")).startswith("OpenAI API error: 500")


@rows("S2-101")
def test_a_limit_is_an_error_that_says_for_how_long(row):
    with provider_that(Fault("status", status=429, headers={"retry-after": "7"})) as (said, _):
        for call in (
            lambda: ask(said),
            lambda: ask(said, stream=True),
        ):
            error = caught(call, ProviderRateLimitError)
            assert (error.status, error.retry_after, error.retryable) == (429, 7.0, True)
            assert isinstance(error, ProviderAPIError)


# ---- what all have in common --------------------------------------------------------------------


@rows("S2-103")
def test_an_error_says_what_and_where_with_the_value_that_was_wrong(row, monkeypatch):
    monkeypatch.setenv("AI_TEMPERATURE", "warm")
    monkeypatch.setenv("AI_MAX_TOKENS", "-5")
    error = caught(lambda: root.AiSettings(_env_file=None), ProviderConfigurationError)
    text = f"{error} {error.problems}"
    assert all(word in text for word in ("AI_TEMPERATURE", "warm", "AI_MAX_TOKENS", "-5"))
    monkeypatch.delenv("AI_TEMPERATURE")
    monkeypatch.delenv("AI_MAX_TOKENS")
    assert "9" in str(caught(lambda: root.AiSettings(temperature=9, _env_file=None)).problems)
    with provider_that(Fault("status", status=401)) as (said, _):
        error = caught(lambda: ask(said), ProviderAPIError)
    assert "401" in str(error) and error.hint


@pytest.mark.parametrize("kind", [*PRINTED, *(documented(each) for each in TABLE)], ids=lambda kind: kind.__qualname__)
@rows("S2-104")
def test_every_error_says_what_to_do_next(row, kind):
    error = kind("it broke")
    assert isinstance(error, AIUtilitiesError)
    assert isinstance(error.hint, str) and error.hint.strip() and error.hint in str(error)
    assert kind("it broke", hint="do this").hint == "do this"


VALUES = (
    None, "", " ", "x", "a\nb", "\ud800", "nul\0", 0, -1, 2**70, 1.5, float("nan"), float("inf"), True, b"x", [], {},
    ["x"], {"a": 1}, {1: 2}, (1, 2), object(), int, lambda: 0,
)  # fmt: skip


def calls(folder):
    """Public calls of the package that take values, each with how many."""
    client = root.AiClient(settings(provider="demo", model="demo"))
    memory = root.MemoryCache()
    file = root.SQLiteCache(str(folder / "fuzz.db"))
    tracker = root.create_usage_tracker()
    wizard = root.SetupWizard(folder / "fuzz.env", input=lambda question: "", output=lambda line: None)
    from polyvox.compat.ai_utilities.setup import Answers

    found = {
        "settings": (3, lambda a, b, c: settings(temperature=a, max_tokens=b, base_url=c)),
        "more settings": (3, lambda a, b, c: settings(provider=a, cache_ttl_s=b, cache_backend=c)),
        "client": (2, lambda a, b: root.AiClient(a, cache=b)),
        "create": (2, lambda a, b: root.create_client(provider=a, model=b)),
        "provider": (1, lambda a: root.create_provider(client.settings, a)),
        "ask": (3, lambda a, b, c: client.ask(a, temperature=b, max_tokens=c)),
        "ask batch": (1, client.ask_batch),
        "ask stream": (1, lambda a: list(client.ask_stream(a))),
        "register": (2, root.register_cache),
        "sqlite": (2, lambda a, b: root.SQLiteCache(str(folder / "x.db"), a, namespace=b)),
        "memory": (2, lambda a, b: root.MemoryCache(a, namespace=b)),
        "sqlite path": (1, lambda a: root.SQLiteCache(f"{folder}/{a}" if isinstance(a, str) else a)),
        "redis": (1, root.RedisCache),
        "tracked": (1, tracker.track_request),
        "recorded": (2, lambda a, b: tracker.record(prompt_tokens=a, cost=b)),
        "wizard": (3, lambda a, b, c: wizard.run(Answers(provider=a, model=b, api_key=c), ask=False)),
    }
    for cache in (memory, file):
        name = type(cache).__name__
        found |= {
            f"{name}.set": (3, cache.set),
            f"{name}.get": (1, cache.get),
            f"{name}.delete": (1, cache.delete),
            f"{name}.clear": (1, cache.clear_namespace),
            f"{name}.space": (1, cache.in_namespace),
        }
    return found, (client, memory, file, tracker)


@rows("S2-097", "S2-105")
def test_whatever_is_passed_only_errors_of_the_one_tree_come_out(row, tmp_path):
    chance = random.Random(int(row[-3:]))
    table, opened = calls(tmp_path)
    raised = 0
    escaped = []
    for name, (many, call) in table.items():
        for _ in range(60):
            values = [chance.choice(VALUES) for _ in range(many)]
            try:
                made = call(*values)
            except AIUtilitiesError as error:
                raised += 1
                assert type(error) is not AIUtilitiesError and error.hint
            except Exception as error:
                escaped.append(f"{name}{tuple(values)!r} raised {type(error).__name__}: {error}")
            else:
                if hasattr(made, "close") and not any(made is each for each in opened):
                    made.close()
                if name == "register":
                    made()
    for each in opened:
        each.close()
    assert escaped == [], "\n".join(escaped)
    assert raised > 300
