"""Providers of AI Utilities: one interface, whoever answers; made by name, and added by anybody."""

import abc
import contextlib
import inspect
import json
import threading
import time
import typing
from importlib.metadata import EntryPoint

import openai
import pytest

import polyvox
from polyvox import catalog, registry
from polyvox.compat import shared
from polyvox.compat.ai_utilities import (
    AiClient,
    AiSettings,
    AIUtilitiesError,
    AskResult,
    BaseProvider,
    CatalogProvider,
    GroqProvider,
    OllamaProvider,
    OpenAIProvider,
    ProviderAPIError,
    ProviderConfigurationError,
    UsageData,
    check_provider,
    create_provider,
    register_provider,
)
from polyvox.compat.ai_utilities.providers import factory
from polyvox.errors import InputError, MissingKeyError, UnknownProviderError
from polyvox.testing import Simulator

from .rows import rows

KEY = "sk-test-providers-0123456789abcdef"


class Echo(BaseProvider):
    """Somebody's own provider: it has what must be written, and nothing else."""

    def ask(self, prompt, **kwargs):
        if "bad" in prompt:
            raise ProviderAPIError(f"cannot say {prompt}")
        return AskResult(text=prompt.upper(), usage=UsageData(prompt_tokens=1, completion_tokens=2))


@pytest.fixture
def echo():
    """The provider above, registered by name."""
    forget = register_provider("echo", Echo)
    yield Echo
    forget()


@pytest.fixture
def keep():
    """Takes a provider, and closes it when the test is over."""
    with contextlib.ExitStack() as stack:
        yield lambda provider: stack.enter_context(contextlib.closing(provider))


def settings_for(provider, **said):
    return AiSettings(**{"provider": provider, "model": "a-model", **said})


# ---- one interface ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "provider", "kind", "dialect"),
    [
        pytest.param("S2-038", "openai", OpenAIProvider, "openai.chat", id="S2-038"),
        pytest.param("S2-039", "groq", GroqProvider, "openai.chat", id="S2-039"),
        pytest.param("S2-040", "ollama", OllamaProvider, "ollama.chat", id="S2-040"),
        pytest.param("S2-008", "openrouter", CatalogProvider, "openai.chat", id="S2-008"),
        pytest.param("S2-036", "anthropic", CatalogProvider, "anthropic.messages", id="S2-036-anthropic"),
        pytest.param("S2-036", "gemini", CatalogProvider, "gemini", id="S2-036-gemini"),
        pytest.param("S2-129", "openai", OpenAIProvider, "openai.chat", id="S2-129-openai"),
        pytest.param("S2-129", "ollama", OllamaProvider, "ollama.chat", id="S2-129-ollama"),
        pytest.param("S2-129", "mistral", CatalogProvider, "openai.chat", id="S2-129-mistral"),
    ],
)
def test_every_provider_does_what_the_interface_says(world, keep, row, provider, kind, dialect):
    made = keep(create_provider(settings_for(provider)))
    assert type(made) is kind and made.provider == provider
    assert check_provider(made) == ("ask", "ask_batch", "ask_stream", "list_models")
    asked = [one for one in world.requests if one.call]
    assert len(asked) == 5 and {one.dialect.split(".")[0] for one in asked} == {dialect.split(".")[0]}
    assert {one.model for one in asked} == {"a-model"}


@rows("S2-040")
def test_a_local_provider_needs_no_key_and_nobody_else_is_asked(row, world, keep, monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GROQ_API_KEY"):
        monkeypatch.delenv(name)
    provider = keep(OllamaProvider(settings_for("ollama")))
    assert provider.settings.api_key is None and provider.ask("hello").text
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    nobody = keep(OllamaProvider(AiSettings(provider="ollama", model="a", base_url="http://127.0.0.1:9")))
    with pytest.raises(ProviderAPIError):
        nobody.ask("hello")
    assert [one.dialect for one in world.requests] == ["ollama.chat"]


@rows("S2-037", "S2-130", "S2-133", "S2-197")
def test_only_ask_must_be_written(row, place):
    assert isinstance(BaseProvider, abc.ABCMeta) and BaseProvider.__abstractmethods__ == {"ask"}
    with pytest.raises(TypeError, match="ask"):
        BaseProvider(AiSettings())
    assert Echo(AiSettings()).ask("a").text == "A"


@rows("S2-041")
def test_the_methods_have_the_documented_signatures(row):
    def shape(name):
        method = getattr(BaseProvider, name)
        hints = typing.get_type_hints(method)
        given = list(inspect.signature(method).parameters.items())
        return [(key, hints.get(key)) for key, one in given if one.kind is not one.VAR_KEYWORD], hints["return"]

    assert shape("ask") == ([("self", None), ("prompt", str)], AskResult)
    assert shape("ask_batch") == ([("self", None), ("prompts", list[str])], list[AskResult])
    prompt, chunks = shape("ask_stream")
    assert prompt == [("self", None), ("prompt", str)] and typing.get_args(chunks) == (str,)
    assert issubclass(typing.get_origin(chunks), typing.Iterator)
    assert shape("list_models") == ([("self", None)], list[str])
    for name in ("ask", "ask_batch", "ask_stream"):
        assert list(inspect.signature(getattr(BaseProvider, name)).parameters)[-1] == "kwargs"


@rows("S2-131", "S2-132", "S2-137")
def test_settings_are_there_and_the_hook_is_called_when_a_provider_is_made(row, place):
    class Hooked(Echo):
        def _configure_client(self):
            self.seen = self.settings

    class Later(Echo):
        def __init__(self, settings):
            super().__init__(settings)
            self.client = "its own"

    settings = AiSettings()
    assert Echo(settings).settings is settings and Hooked(settings).seen is settings
    assert Echo(settings)._configure_client() is None
    assert Later(settings).client == "its own" and Later(settings).ask("a").text == "A"


@pytest.mark.parametrize(
    ("row", "use", "said"),
    [
        pytest.param("S2-134", lambda one: one.ask_stream("a"), "Streaming not supported", id="S2-134"),
        pytest.param("S2-135", lambda one: one.list_models(), "Model listing not supported", id="S2-135"),
    ],
)
def test_what_a_provider_leaves_out_is_not_supported(world, keep, row, use, said):
    with pytest.raises(NotImplementedError, match=said) as caught:
        use(Echo(AiSettings()))
    assert isinstance(caught.value, AIUtilitiesError) and caught.value.hint
    assert list(use(keep(OpenAIProvider(settings_for("openai")))))


# ---- asking ----------------------------------------------------------------------------------------


@rows("S2-042", "S2-142", "S2-143", "S2-144", "S2-145", "S2-146")
def test_what_goes_out_is_what_the_document_prints(row, world, keep):
    provider = keep(OpenAIProvider(AiSettings(model="gpt-4o-mini", max_tokens=7)))
    result = provider.ask("a question")
    assert type(result) is AskResult and result.text
    assert (result.provider, result.usage.total_tokens > 0) == ("openai", True)
    provider.ask("a question", temperature=0, max_tokens=9, model="gpt-4o")
    keep(OpenAIProvider(AiSettings(temperature=None))).ask("a question")
    first, second, third = world.requests
    assert first.path == "/v1/chat/completions" and first.dialect == "openai.chat"
    assert first.json["messages"] == [{"role": "user", "content": "a question"}]
    assert (first.json["model"], first.json["temperature"]) == ("gpt-4o-mini", 0.7)
    assert first.json.get("max_tokens", first.json.get("max_completion_tokens")) == 7
    assert (second.json["model"], second.json["temperature"]) == ("gpt-4o", 0)
    assert second.json.get("max_tokens", second.json.get("max_completion_tokens")) == 9
    assert third.json["model"] == catalog.load().provider("openai").default_model
    assert not {"temperature", "max_tokens", "max_completion_tokens"} & set(third.json)


@rows("S2-145", "S2-146")
def test_a_model_that_reasons_gets_no_temperature_and_its_own_word_for_the_limit(row, world, keep):
    keep(OpenAIProvider(AiSettings(model="o3-mini", max_tokens=50))).ask("a question")
    (asked,) = world.requests
    assert "temperature" not in asked.json and "max_tokens" not in asked.json
    assert asked.json["max_completion_tokens"] == 50


@pytest.mark.parametrize(
    ("provider", "said", "asked"),
    [
        ("openai", "gpt-4o", "gpt-4o"),
        ("openai", "openai/gpt-4o", "gpt-4o"),
        ("openrouter", None, "openrouter/auto"),
        ("openrouter", "openai/gpt-4o", "openai/gpt-4o"),
        ("groq", None, "openai/gpt-oss-20b"),
    ],
)
@rows("S2-143")
def test_a_model_goes_out_by_the_name_that_its_provider_has_for_it(row, world, keep, provider, said, asked):
    keep(create_provider(AiSettings(provider=provider, model=said))).ask("hello")
    keep(create_provider(AiSettings(provider=provider))).ask("hello", model=said)
    assert [one.model for one in world.requests] == [asked, asked]


def test_at_an_address_of_ones_own_a_model_has_the_name_that_was_typed(world, keep):
    there = world.base_url("openai.chat")
    keep(OpenAIProvider(AiSettings(model="openai/gpt-oss-20b", base_url=there))).ask("hello")
    assert world.requests[0].model == "openai/gpt-oss-20b"


@rows("S2-043")
def test_a_batch_keeps_its_order_and_a_failure_its_place(row, world):
    with Simulator(plan=[{"kind": "status", "status": 400, "at": [2]}], latency=0.02) as server:
        settings = settings_for("openai", base_url=server.base_url("openai.chat"), api_key=KEY)
        provider = OpenAIProvider(settings)
        results = provider.ask_batch([f"question {number}" for number in range(6)], concurrency=1)
        assert [result.ok for result in results] == [True, False, True, True, True, True]
        assert [one.json["messages"][0]["content"] for one in server.requests] == [f"question {n}" for n in range(6)]
        assert isinstance(results[1].error, ProviderAPIError) and results[1].error.status == 400
        assert results[1].text == "" and results[2].text and results[2].error is None
        provider.close()
    # A server that has no place for a fourth one tells how many came at once.
    with Simulator(concurrent=3, latency=0.05) as server:
        provider = OpenAIProvider(settings_for("openai", base_url=server.base_url("openai.chat"), api_key=KEY))
        assert all(result.ok for result in provider.ask_batch(["question"] * 9, concurrency=3))
        assert {asked.status for asked in server.requests} == {200}
        provider.ask_batch(["question"] * 9, concurrency=9)
        assert 429 in {asked.status for asked in server.requests}
        provider.close()
    with pytest.raises(InputError, match="list of texts"):
        provider.ask_batch("one")


@rows("S2-043")
def test_a_batch_of_a_provider_of_ones_own_is_no_different(row, place):
    running, most, lock = 0, 0, threading.Lock()

    class Slow(Echo):
        def ask(self, prompt, **kwargs):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.02)
            with lock:
                running -= 1
            return super().ask(prompt, **kwargs)

    results = Slow(AiSettings()).ask_batch([*"abcdefgh", "bad", "i"], concurrency=3)
    assert [result.text for result in results] == [*"ABCDEFGH", "", "I"]
    assert isinstance(results[8].error, ProviderAPIError) and "bad" in str(results[8].error)
    assert 1 < most <= 3
    with pytest.raises(InputError, match="concurrency"):
        Slow(AiSettings()).ask_batch(["a"], concurrency=0)


@rows("S2-044")
def test_a_stream_comes_in_pieces_before_it_ends_and_stops_when_it_is_closed(row, world, keep):
    with Simulator(token_rate=20) as server:
        provider = OpenAIProvider(settings_for("openai", base_url=server.base_url("openai.chat"), api_key=KEY))
        stream = provider.ask_stream("Tell me a long story about the sea.")
        first, second = next(stream), next(stream)
        assert first and second and server.requests[0].outcome is None, "the server had not ended"
        stream.close()
        assert server.wait_for(lambda it: it.requests[0].outcome == "cut_by_client")
        assert list(stream) == []
        provider.close()
    provider = keep(OpenAIProvider(settings_for("openai")))
    stream = provider.ask_stream("hello")
    with pytest.raises(AIUtilitiesError, match="not ended"):
        _ = stream.result
    text = "".join(stream)
    assert stream.result.text == text != "" and stream.result.usage.completion_tokens > 0


@rows("S2-045")
def test_the_models_are_those_the_provider_tells(row, world):
    with Simulator(models=["small", "large"]) as server:
        provider = OpenAIProvider(settings_for("openai", base_url=server.base_url("openai.chat"), api_key=KEY))
        assert provider.list_models() == ["small", "large"]
        provider.close()


# ---- the client behind it --------------------------------------------------------------------------


@rows("S2-138")
def test_a_client_of_a_vendors_library_may_do_the_asking(row, world):
    there = {"api_key": KEY, "base_url": world.base_url("openai.chat")}
    assert isinstance(OpenAIProvider(settings_for("openai")).client, polyvox.Client)
    with openai.OpenAI(**there) as vendor:
        provider = OpenAIProvider(AiSettings(model="gpt-4o-mini", api_key="unused-0123456789"), client=vendor)
        assert provider.client is vendor
        assert provider.ask("hello").text and "".join(provider.ask_stream("hello"))

        class Mine(OpenAIProvider):
            def __init__(self, settings):
                super().__init__(settings)
                self.client = vendor

        assert Mine(AiSettings(model="gpt-4o-mini")).ask("hello", temperature=0.2).text
    assert [asked.json["model"] for asked in world.requests] == ["gpt-4o-mini"] * 3
    assert [asked.json["temperature"] for asked in world.requests] == [0.7, 0.7, 0.2]
    assert all("openai" in asked.headers["user-agent"].lower() for asked in world.requests)


@rows("S2-138")
def test_a_client_of_polyvox_may_too(row, world):
    with polyvox.Client(headers={"x-mine": "yes"}) as client:
        provider = GroqProvider(settings_for("groq"), client=client)
        assert provider.ask("hello", model="groq/another").text
    (asked,) = world.requests
    assert asked.headers["x-mine"] == "yes" and asked.model == "another"


class Printed(BaseProvider):
    """As the document has it."""

    def __init__(self, settings: AiSettings):
        super().__init__(settings)
        self.client = openai.OpenAI(api_key=settings.api_key, base_url=settings.base_url, max_retries=0)

    def ask(self, prompt: str, **kwargs) -> AskResult:
        try:
            response = self.client.chat.completions.create(
                model=self.settings.model,
                messages=[{"role": "user", "content": prompt}],
                temperature=self.settings.temperature,
                max_tokens=self.settings.max_tokens,
            )
            return AskResult(
                text=response.choices[0].message.content,
                usage=UsageData(
                    prompt_tokens=response.usage.prompt_tokens,
                    completion_tokens=response.usage.completion_tokens,
                    total_tokens=response.usage.total_tokens,
                ),
            )
        except openai.APIError as e:
            raise ProviderAPIError(f"OpenAI API error: {e}") from e


@rows("S2-136", "S2-137", "S2-139", "S2-140", "S2-141", "S2-148", "S2-153", "S2-196")
def test_a_provider_written_as_the_document_prints_it_works_with_the_client(row, place):
    with Simulator(plan=[{"kind": "status", "status": 500, "at": [2]}]) as server:
        settings = AiSettings(model="a-model", max_tokens=50, api_key=KEY, base_url=server.base_url("openai.chat"))
        client = AiClient(settings, provider=Printed(settings))
        result = client.ask("hello")
        assert result.text and result.usage.total_tokens == server.requests[0].usage.total
        assert server.requests[0].json["max_tokens"] == 50
        with pytest.raises(ProviderAPIError, match="OpenAI API error") as caught:
            client.ask("hello")
        assert isinstance(caught.value.__cause__, openai.APIError) and caught.value.hint
        client.provider.client.close()
        client.close()


# ---- results ---------------------------------------------------------------------------------------


@rows("S2-147", "S2-148", "S2-095")
def test_a_result_needs_a_text_and_usage_and_is_its_text(row):
    result = AskResult(text="hello", usage=UsageData(1, 2))
    assert (str(result), result.text, result.cached, result.cost, result.error) == ("hello", "hello", False, None, None)
    assert result.usage == UsageData(1, 2) and result.ok
    assert AskResult(text=None, usage=UsageData()).text == ""
    with pytest.raises(AttributeError):
        result.text = "other"


@pytest.mark.parametrize(
    ("row", "given", "counts"),
    [
        pytest.param("S2-149", {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 4}, (1, 2, 4), id="S2-149"),
        pytest.param("S2-150", {"completion_tokens": 2}, (0, 2, 2), id="S2-150"),
        pytest.param("S2-151", {"prompt_tokens": 1}, (1, 0, 1), id="S2-151"),
        pytest.param("S2-152", {"prompt_tokens": 1, "completion_tokens": 2}, (1, 2, 3), id="S2-152"),
        pytest.param("S2-149", {"prompt_tokens": None, "total_tokens": None}, (0, 0, 0), id="S2-149-none"),
    ],
)
def test_usage_counts_from_0_and_adds_up(row, given, counts):
    usage = UsageData(**given)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == counts
    assert (usage.input_tokens, usage.output_tokens) == counts[:2]
    assert all(type(count) is int for count in counts)


def test_usage_has_what_was_kept_and_what_was_thought(world):
    usage = UsageData.of(polyvox.types.Usage(input=9, output=5, total=14, cache_read=4, reasoning=3, source="provider"))
    assert (usage.cached_tokens, usage.reasoning_tokens, usage.total_tokens) == (4, 3, 14)


# ---- the factory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "provider", "kind"),
    [
        pytest.param("S2-076", "openai", OpenAIProvider, id="S2-076"),
        pytest.param("S2-077", "groq", GroqProvider, id="S2-077"),
        pytest.param("S2-074", "ollama", OllamaProvider, id="S2-074"),
        pytest.param("S2-073", "mistral", CatalogProvider, id="S2-073"),
    ],
)
def test_the_factory_makes_the_provider_of_a_name(place, row, provider, kind):
    settings = AiSettings(provider=provider, api_key=KEY)
    made = create_provider(settings)
    assert type(made) is kind and made.settings is settings
    other = create_provider(AiSettings(provider="openai", api_key=KEY), provider)
    assert type(other) is kind and other.provider == other.settings.provider == provider
    assert other.settings.api_key == KEY


@rows("S2-075")
def test_no_name_or_an_empty_one_means_that_of_the_settings(row, place):
    settings = AiSettings(provider="groq", api_key=KEY)
    assert isinstance(create_provider(settings, ""), GroqProvider)
    assert isinstance(create_provider(settings, None), GroqProvider)
    assert isinstance(create_provider(settings, "openai"), OpenAIProvider)


@rows("S2-078")
def test_a_name_that_nobody_knows_is_told_with_those_there_are(row, place, echo):
    with pytest.raises(ProviderConfigurationError) as caught:
        create_provider(AiSettings(), "gorq")
    assert isinstance(caught.value, UnknownProviderError)
    said = str(caught.value)
    assert "gorq" in said and "did you mean groq?" in said
    assert all(name in said for name in ("openai", "groq", "ollama", "echo"))


@rows("S2-073", "S2-198", "S2-196")
def test_a_registered_provider_is_used_by_its_name(row, world, echo):
    with AiClient(AiSettings(provider="Echo")) as client:
        assert type(client.provider) is Echo and client.ask("hello").text == "HELLO"
        assert "".join(result.text for result in client.ask_batch(["a", "b"])) == "AB"
    for name, kind in (("", Echo), ("auto", Echo), ("mine", str)):
        with pytest.raises(InputError):
            register_provider(name, kind)
    forget = register_provider("echo", OpenAIProvider)
    assert type(create_provider(AiSettings(provider="echo"))) is OpenAIProvider
    forget()
    with pytest.raises(UnknownProviderError):
        create_provider(AiSettings(provider="echo"))


@rows("S2-198")
def test_an_installed_package_may_announce_one(row, place, monkeypatch):
    points = [
        EntryPoint("announced", f"{__name__}:Echo", factory.GROUP),
        EntryPoint("broken", "nothing.of.the.kind:Echo", factory.GROUP),
        EntryPoint("wrong", "json:loads", factory.GROUP),
    ]
    monkeypatch.setattr(factory, "entry_points", lambda group: points if group == factory.GROUP else [])
    assert create_provider(AiSettings(), "announced").ask("a").text == "A"
    assert "announced" in factory.provider_names()
    for name in ("broken", "wrong"):
        with pytest.raises(ProviderConfigurationError, match="uninstall"):
            create_provider(AiSettings(), name)


@rows("S2-200")
def test_the_check_finds_what_a_provider_does_wrong(row, place, echo):
    assert check_provider(create_provider(AiSettings(provider="echo"))) == ("ask", "ask_batch")

    def wrong(**methods):
        return type("Wrong", (Echo,), methods)(AiSettings())

    text = lambda self, prompt, **kwargs: prompt  # noqa: E731
    lost = lambda self, prompts, **kwargs: [self.ask(prompt) for prompt in prompts[1:]]  # noqa: E731
    for made, said in (
        (wrong(ask=text), "not AskResult"),
        (wrong(ask_batch=lost), "no result for each prompt"),
        (wrong(ask_stream=lambda self, prompt, **kwargs: ["a"]), "no iterator"),
        (wrong(list_models=lambda self: [1]), "something else than texts"),
        (wrong(ask=lambda self, question, **kwargs: None), "takes"),
        (object(), "does not inherit"),
    ):
        with pytest.raises(AssertionError, match=said):
            check_provider(made)


# ---- what is seen of the rest ----------------------------------------------------------------------


@rows("S2-024")
def test_auto_is_whoever_has_a_key(row, world, keep, monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENROUTER_API_KEY", "GEMINI_API_KEY", "MISTRAL_API_KEY"):
        monkeypatch.delenv(name)
    provider = keep(create_provider(AiSettings(provider="auto")))
    assert provider.ask("hello").provider == "groq"
    assert provider.ask("hello", model="groq/llama").model == "llama"


def test_a_deployment_of_a_registry_may_be_named_as_the_model(world, keep):
    deployments = registry.DictRegistry({"quick": {"model": "groq/a-small-one", "temperature": 0.1}})
    shared.EVERYONE.publish(deployments)
    provider = keep(OpenAIProvider(AiSettings()))
    provider.ask("hello", model="quick")
    assert (world.requests[0].model, world.requests[0].json["temperature"]) == ("a-small-one", 0.1)
    provider.ask("hello", model="quick", temperature=0.9)
    assert world.requests[1].json["temperature"] == 0.9


def test_a_backend_that_was_registered_is_a_provider_too(place):
    class Shout:
        name = "shout"

        def ask(self, prompt):
            return prompt.upper()

    polyvox.register_backend(Shout)
    try:
        provider = create_provider(AiSettings(provider="shout"))
        assert provider.ask("hello").text == "HELLO"
    finally:
        polyvox.unregister_backend("shout")


def test_a_missing_key_is_told_before_anything_is_sent(place):
    provider = create_provider(AiSettings(provider="groq"))
    with pytest.raises(MissingKeyError, match="GROQ_API_KEY") as caught:
        provider.ask("hello")
    assert isinstance(caught.value, ProviderConfigurationError) and caught.value.sent == "no"


def test_an_address_of_another_hand_gets_no_key_of_the_providers(world, monkeypatch):
    polyvox.config.reset()
    monkeypatch.delenv("OPENAI_BASE_URL")
    # A server that wants a key says that none came.
    with Simulator(keys=[KEY]) as server:
        provider = OpenAIProvider(AiSettings(model="a-model", base_url=server.base_url("openai.chat")))
        assert provider.settings.api_key is None
        with pytest.raises(ProviderAPIError, match="there is no API key"):
            provider.ask("hello")
        provider.close()
    with Simulator(demand_key=False) as server:
        provider = OpenAIProvider(AiSettings(model="a-model", base_url=server.base_url("openai.chat")))
        assert provider.ask("hello").text
        provider.close()


def test_options_that_there_are_not_are_refused(world):
    with pytest.raises(InputError, match="temprature"):
        OpenAIProvider(settings_for("openai")).ask("hello", temprature=1)
    assert json.dumps([one.path for one in world.requests]) == "[]"
