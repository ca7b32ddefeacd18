"""Promises of the document on the LLM service: a provider, its transformer and the specifications of its models can be
added at run time, and those that polyvox knows are there from the start."""

import abc
import importlib
import inspect
import json
import logging
import subprocess
import sys
from typing import Any
from unittest.mock import Mock

import anthropic
import groq
import pytest

from polyvox import catalog, dialects
from polyvox.compat import names
from polyvox.compat.llm_service.models.llm import LLMCallRequest, LLMCallResponse, LLMConfig, LLMModelSpec
from polyvox.compat.llm_service.models.llm.specs import (
    ModelCapabilities,
    ModelSpec,
    ModelSpecRegistry,
    ParameterSpec,
)
from polyvox.compat.llm_service.services.llm import execute_llm_call, stream_llm_call
from polyvox.compat.llm_service.services.llm.constants import SUPPORTED_PROVIDERS
from polyvox.compat.llm_service.services.llm.providers import CoreProvider
from polyvox.compat.llm_service.services.llm.providers.base import BaseProvider
from polyvox.compat.llm_service.services.llm.providers.factory import ProviderFactory
from polyvox.compat.llm_service.services.llm.providers.openai import OpenAIProvider
from polyvox.compat.llm_service.services.llm.transformers.base import ConfigTransformer
from polyvox.compat.llm_service.services.llm.transformers.factory import TransformerFactory
from polyvox.compat.llm_service.services.llm.transformers.openai import OpenAITransformer

from .rows import rows

SERVICES = "polyvox.compat.llm_service.services.llm"


def request_for(prompt="Who are you?", vector_store_id=None, max_num_results=20, **spec):
    spec = LLMModelSpec(**{"model": "gpt-4", **spec})
    llm = LLMConfig(prompt=prompt, vector_store_id=vector_store_id, llm_model_spec=spec)
    return LLMCallRequest(llm=llm, max_num_results=max_num_results)


# ---- the four documented steps, with the names they print -------------------------------------------


class AnthropicProvider(BaseProvider):
    def execute(self, request: LLMCallRequest) -> tuple[LLMCallResponse | None, str | None]:
        params = self.build_params(request)
        response = self.client.messages.create(**params)
        llm_response = LLMCallResponse(
            message=response.content[0].text,
            model=response.model,
            input_tokens=response.usage.input_tokens,
            output_tokens=response.usage.output_tokens,
            total_tokens=response.usage.input_tokens + response.usage.output_tokens,
        )
        return llm_response, None


class AnthropicTransformer(ConfigTransformer):
    def transform(self, request: LLMCallRequest) -> dict[str, Any]:
        return {
            "model": request.llm.llm_model_spec.model,
            "messages": [{"role": "user", "content": request.llm.prompt}],
            "max_tokens": request.llm.llm_model_spec.max_tokens or 1024,
        }


def create_house_specs():
    return [
        ModelSpec(
            model_name="house-7b",
            provider="house",
            capabilities=ModelCapabilities(supports_streaming=True),
            parameters=[ParameterSpec(name="temperature", type="float", min_value=0.0, max_value=1.0)],
        )
    ]


class Fixed(BaseProvider):
    """Gives what it was made to give."""

    given: Any = (None, "nothing")

    def execute(self, request):
        return self.given


def giving(value):
    return type("Giving", (Fixed,), {"given": value})


@pytest.fixture
def register(place):
    """Register a provider, a transformer or both; all is forgotten after the test."""
    done = []

    def add(name, provider=None, transformer=None):
        if provider is not None:
            ProviderFactory.register_provider(name, provider)
            done.append((ProviderFactory.unregister_provider, name))
        if transformer is not None:
            TransformerFactory.register_transformer(name, transformer)
            done.append((TransformerFactory.unregister_transformer, name))

    yield add
    for forget, name in dict.fromkeys(done):
        forget(name)
    ModelSpecRegistry().clear()


def messages_client():
    client = Mock()
    client.messages.create.return_value = Mock(
        content=[Mock(text="Hello from elsewhere")], model="house-7b", usage=Mock(input_tokens=3, output_tokens=4)
    )
    return client


@rows("S3-001", "S3-002", "S3-050", "S3-123", "S3-126", "S3-132", "S3-163")
def test_a_provider_that_is_added_in_four_steps_answers_calls(row, register):
    request = request_for(model="house-7b", provider="house", temperature=0.5)
    response, error = execute_llm_call(request, messages_client())
    assert response is None and "house" in error and "house" not in SUPPORTED_PROVIDERS

    register("house", AnthropicProvider, AnthropicTransformer)
    for spec in create_house_specs():
        ModelSpecRegistry().register(spec)
    assert "house" in SUPPORTED_PROVIDERS and LLMModelSpec(model="house-7b", provider="house").provider == "house"

    client = messages_client()
    response, error = execute_llm_call(request, client)
    assert error is None and (response.message, response.total_tokens) == ("Hello from elsewhere", 7)
    client.messages.create.assert_called_once_with(
        model="house-7b", messages=[{"role": "user", "content": "Who are you?"}], max_tokens=1024
    )
    # What its specification rules out is refused before anybody is asked.
    client = messages_client()
    response, error = execute_llm_call(request_for(model="house-7b", provider="house", temperature=1.5), client)
    assert response is None and "temperature must be between 0.0 and 1.0, not 1.5" in error
    assert not client.mock_calls and isinstance(error.error, names.ValidationError)


@pytest.mark.parametrize(
    ("row", "module", "name"),
    [
        pytest.param(row, module, name, id=f"{row}-{name}")
        for row, module, name in [
            ("S3-019", "providers", "BaseProvider"),
            ("S3-020", "providers.base", "BaseProvider"),
            ("S3-021", "providers.factory", "ProviderFactory"),
            ("S3-023", "transformers", "ConfigTransformer"),
            ("S3-024", "transformers.base", "ConfigTransformer"),
            ("S3-025", "transformers.factory", "TransformerFactory"),
            ("S3-026", "transformers.openai", "OpenAITransformer"),
            ("S3-124", "providers.base", "BaseProvider"),
            ("S3-131", "transformers.base", "ConfigTransformer"),
            ("S3-154", "providers.factory", "ProviderFactory"),
            ("S3-155", "transformers.factory", "TransformerFactory"),
        ]
    ],
)
def test_a_documented_module_holds_its_documented_class(row, module, name):
    found = getattr(importlib.import_module(f"{SERVICES}.{module}"), name)
    assert inspect.isclass(found) and found.__name__ == name and found.__doc__
    assert found.__module__.startswith(f"{SERVICES}.{module.partition('.')[0]}.")


@rows("S3-022", "S3-042")
def test_the_provider_of_openai_is_imported_and_asked_without_its_library(row):
    code = (
        "import sys; sys.modules['openai'] = None\n"
        f"from {SERVICES}.providers.openai import OpenAIProvider\n"
        "assert 'polyvox.client' not in sys.modules and 'httpx' not in sys.modules\n"
        "print(OpenAIProvider.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "OpenAIProvider", done.stderr


# ---- providers ------------------------------------------------------------------------------------


@rows("S3-038", "S3-126", "S3-127")
def test_a_provider_needs_an_execute_and_nothing_else(row):
    assert issubclass(BaseProvider, abc.ABC) and BaseProvider.__abstractmethods__ == {"execute"}
    with pytest.raises(TypeError, match="execute"):
        BaseProvider(Mock())
    client = object()
    made = AnthropicProvider(client)
    assert made.client is client and list(inspect.signature(made.execute).parameters) == ["request"]
    assert inspect.signature(BaseProvider.execute).return_annotation == "tuple[LLMCallResponse | None, str | None]"


ASKED = [
    ("openai", "gpt-4o", "openai.responses"), ("anthropic", "claude-haiku-4-5", "anthropic.messages"),
    ("groq", "llama-3.3-70b-versatile", "openai.chat"), ("openrouter", "openai/gpt-4o", "openai.chat"),
    ("gemini", "gemini-2.5-flash", "gemini.generate"), ("mistral", "mistral-large-latest", "openai.chat"),
    ("ollama", "llama3.2", "ollama.chat"), ("azure-responses", "gpt-4o", None), ("cohere", "command-a-03-2025", None),
]  # fmt: skip


@rows("S3-039", "S3-051", "S3-181")
@pytest.mark.parametrize(("provider", "model", "dialect"), [case for case in ASKED if case[2]])
def test_every_provider_of_the_core_keeps_the_same_promises(row, provider, model, dialect, world):
    made = ProviderFactory.create(provider)
    assert isinstance(made, BaseProvider) and made.client is None and made.name == provider
    request = request_for("Say something", provider=provider, model=model, max_tokens=64)
    params = made.build_params(request)
    assert type(params["model"]) is str and "Say something" in json.dumps(params)
    response, error = made.execute(request)
    assert error is None and type(response) is LLMCallResponse, error
    assert response.message and response.provider == provider and response.total_tokens > 0
    assert execute_llm_call(request)[0].message == response.message
    assert [asked.dialect for asked in world.requests if asked.call] == [dialect] * 2
    *words, last = stream_llm_call(request)
    assert "".join(words) == last.message == response.message


@rows("S3-039", "S3-032")
@pytest.mark.parametrize("provider", [case[0] for case in ASKED if case[0] != "ollama"])
def test_every_provider_of_the_core_tells_what_is_missing_and_raises_nothing(row, provider, place):
    response, error = ProviderFactory.create(provider).execute(request_for(provider=provider, model="m"))
    assert response is None and isinstance(error.error, names.ProviderError | names.UnsupportedProviderError)
    assert "key" in error.lower() or "endpoint" in error.lower()


@rows("S3-031")
def test_the_field_provider_decides_who_is_asked(row, register):
    first, second = LLMCallResponse(message="first"), LLMCallResponse(message="second")
    register("one", giving((first, None)))
    register("two", giving((second, None)))
    assert execute_llm_call(request_for(provider="one")) == (first, None)
    assert execute_llm_call(request_for(provider="TWO"))[0] is second


@rows("S3-129", "S3-048")
def test_the_factory_gives_a_provider_its_client(row, register):
    register("house", AnthropicProvider, AnthropicTransformer)
    client = messages_client()
    made = ProviderFactory.create("house", client)
    assert type(made) is AnthropicProvider and made.client is client
    response, error = made.execute(request_for(provider="house"))
    assert (response.message, error) == ("Hello from elsewhere", None)
    assert type(ProviderFactory.create("openai", client)) is OpenAIProvider
    assert type(ProviderFactory.create("groq", client)) is CoreProvider


@rows("S3-130")
def test_what_a_provider_gives_comes_out_unchanged(row, register):
    llm_response = LLMCallResponse(message="as it is", cost="0.5")
    register("house", giving((llm_response, None)))
    response, error = execute_llm_call(request_for(provider="house"))
    assert response is llm_response and error is None
    register("house", giving((None, "the words of the provider")))
    response, error = execute_llm_call(request_for(provider="house"))
    assert response is None and error == "the words of the provider"
    assert isinstance(error.error, names.APICallError) and error.error.provider == "house"
    register("house", giving((None, "no: sk-test-0123456789abcdef0123")))
    assert execute_llm_call(request_for(provider="house"))[1] == "no: ***"


@rows("S3-177", "S3-130")
@pytest.mark.parametrize("given", [None, "text", (None, None), (LLMCallResponse(message="a"), "b"), (1, 2, 3)])
def test_what_is_no_pair_of_an_answer_or_an_error_is_told(row, given, register):
    register("house", giving(given))
    response, error = execute_llm_call(request_for(provider="house"))
    assert response is None and "'house' gave" in error and type(given).__name__ in error
    assert list(stream_llm_call(request_for(provider="openai", model="m"), Mock())) == []


@rows("S3-032", "S3-177")
def test_a_provider_that_breaks_is_told_by_what_it_raised(row, register):
    class Broken(BaseProvider):
        def execute(self, request):
            return llm_response, None  # noqa: F821 - the line that the document leaves to its reader

    register("house", Broken)
    response, error = execute_llm_call(request_for(provider="house"), Mock())
    assert response is None and "llm_response" in error and isinstance(error.error.__cause__, NameError)
    # One that needs a client says so.
    register("house", AnthropicProvider, AnthropicTransformer)
    response, error = execute_llm_call(request_for(provider="house"))
    assert response is None and "without a client" in error
    stream = stream_llm_call(request_for(provider="house"), messages_client())
    assert [str(piece) for piece in stream] == ["Hello from elsewhere"] * 2 and stream.error is None


@rows("S3-032", "S3-123")
def test_what_the_library_of_a_registered_provider_raises_is_understood(row, register):
    register("house", AnthropicProvider, AnthropicTransformer)
    client, error = messages_client(), RuntimeError("Slow down")
    error.status_code, error.body = 429, {"error": {"message": "Slow down", "type": "rate_limit_error"}}
    client.messages.create.side_effect = error
    response, text = execute_llm_call(request_for(provider="house", model="house-7b"), client)
    assert response is None and "Slow down" in text and "house/house-7b" in text
    assert isinstance(text.error, names.ProviderRateLimitError) and text.error.status == 429
    assert text.error.__cause__ is error and text.error.provider == "house"


@rows("S3-198", "S3-199", "S3-200")
def test_an_unknown_provider_is_a_typed_error_with_the_names_there_are_and_the_nearest(row, register):
    register("household", giving((None, "x")))
    for create in (ProviderFactory.create, TransformerFactory.create):
        with pytest.raises(names.UnsupportedProviderError) as caught:
            create("opnai")
        assert "'openai'" in str(caught.value) and "did you mean" in caught.value.hint
        assert "'opnai'" in caught.value.message and "groq" in caught.value.message
    with pytest.raises(names.UnsupportedProviderError, match="household"):
        ProviderFactory.create("houshold")
    response, error = execute_llm_call(request_for(provider="antropic"))
    assert response is None and "did you mean 'anthropic'?" in error
    assert isinstance(error.error, names.UnsupportedProviderError)
    response, error = execute_llm_call(request_for(provider="zzz"))
    assert response is None and "register_provider('zzz', ...)" in error


@rows("S3-200", "S3-048")
def test_names_count_in_any_case(row, register):
    register("House", giving((LLMCallResponse(message="here"), None)))
    assert type(ProviderFactory.create(" HOUSE ")).__name__ == "Giving"
    assert execute_llm_call(request_for(provider="hOuSe"))[0].message == "here"
    assert type(TransformerFactory.create("OpenAI")) is OpenAITransformer
    for wrong in ("", "  ", None, 3):
        with pytest.raises(names.ValidationError, match="is named by text"):
            ProviderFactory.create(wrong)


@rows("S3-051", "S3-162", "S3-201")
def test_openai_is_there_from_the_start_and_so_is_all_that_the_core_knows(row):
    assert ProviderFactory.registered()[0] == "openai" and "openai" in SUPPORTED_PROVIDERS
    assert set(ProviderFactory.registered()) >= {"openai", "anthropic", "groq", "gemini", "ollama", "openrouter"}
    assert set(TransformerFactory.registered()) >= set(catalog.load().providers)


@rows("S3-201", "S3-049", "S3-050")
def test_what_is_registered_is_supported_until_it_is_forgotten(row, register):
    before = tuple(SUPPORTED_PROVIDERS)
    ProviderFactory.register_provider("house", Fixed)
    assert "house" in SUPPORTED_PROVIDERS and len(SUPPORTED_PROVIDERS) == len(before) + 1
    ProviderFactory.unregister_provider("house")
    assert tuple(SUPPORTED_PROVIDERS) == before
    with pytest.raises(names.UnsupportedProviderError, match="there are: none"):
        ProviderFactory.unregister_provider("openai")


@rows("S3-049", "S3-156")
@pytest.mark.parametrize("wrong", [object, ConfigTransformer, "AnthropicProvider", AnthropicProvider(None), None])
def test_only_a_subclass_can_be_registered_as_a_provider(row, wrong, place):
    with pytest.raises(names.ValidationError, match="must be a subclass of BaseProvider"):
        ProviderFactory.register_provider("house", wrong)
    assert "house" not in ProviderFactory.registered()


@rows("S3-062", "S3-157")
@pytest.mark.parametrize("wrong", [object, BaseProvider, "AnthropicTransformer", AnthropicTransformer(), None])
def test_only_a_subclass_can_be_registered_as_a_transformer(row, wrong, place):
    with pytest.raises(names.ValidationError, match="must be a subclass of ConfigTransformer"):
        TransformerFactory.register_transformer("house", wrong)
    assert "house" not in TransformerFactory.registered()


@rows("S3-156", "S3-157")
def test_registering_anew_replaces_and_is_said_in_the_log(row, register, caplog):
    register("house", giving((None, "old")), AnthropicTransformer)
    assert caplog.records == []
    newer = type("Newer", (AnthropicTransformer,), {})
    register("house", giving((None, "new")), newer)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert all("house" in record.getMessage() for record in caplog.records)
    assert execute_llm_call(request_for(provider="house"))[1] == "new"
    assert type(TransformerFactory.create("house", "m")) is newer


@rows("S3-051", "S3-042")
def test_clients_of_other_libraries_are_asked_in_their_own_way(row, world):
    with anthropic.Anthropic() as client:
        request = request_for(provider="anthropic", model="claude-haiku-4-5", max_tokens=9)
        response, error = execute_llm_call(request, client)
    assert error is None and response.provider == "anthropic" and response.cost > 0
    with groq.Groq(base_url=world.base_url("openai.chat").removesuffix("/openai/v1").removesuffix("/v1")) as client:
        assert ProviderFactory.create("groq", client).client is client
    assert [(asked.dialect, asked.model) for asked in world.requests] == [("anthropic.messages", "claude-haiku-4-5")]


# ---- transformers ---------------------------------------------------------------------------------


@rows("S3-052", "S3-055", "S3-132", "S3-133")
def test_a_transformer_needs_a_transform_and_nothing_else(row, register):
    assert issubclass(ConfigTransformer, abc.ABC) and ConfigTransformer.__abstractmethods__ == {"transform"}
    with pytest.raises(TypeError, match="transform"):
        ConfigTransformer()
    made = AnthropicTransformer()
    assert list(inspect.signature(made.transform).parameters) == ["request"]
    assert made.validate_and_transform(request_for(provider="house", model="m")) == {
        "model": "m", "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 1024,
    }  # fmt: skip


@rows("S3-134", "S3-135", "S3-136")
def test_a_transformer_finds_what_it_needs_in_the_request(row):
    request = request_for("What now?", model="claude-3-opus", provider="anthropic")
    assert request.llm.llm_model_spec.model == "claude-3-opus" and request.llm.prompt == "What now?"
    assert AnthropicTransformer().transform(request)["max_tokens"] == 1024
    request = request_for(model="claude-3-opus", provider="anthropic", max_tokens=7)
    assert AnthropicTransformer().transform(request)["max_tokens"] == 7


@rows("S3-040", "S3-128", "S3-062")
def test_the_transformer_is_found_by_the_registered_name_whatever_the_classes_are_called(row, register):
    class Whatever(AnthropicProvider):
        pass

    class Different(ConfigTransformer):
        def transform(self, request):
            return {"asked": request.llm.prompt}

    register("house", Whatever, Different)
    register("anthropic", None, AnthropicTransformer)
    assert ProviderFactory.create("house").build_params(request_for(provider="house")) == {"asked": "Who are you?"}
    # One that nobody's factory made is known by the name its class is registered under.
    assert Whatever(None).build_params(request_for(provider="anthropic")) == {"asked": "Who are you?"}
    # A transformer that is given counts before all others.
    assert "messages" in Whatever(None, AnthropicTransformer()).build_params(request_for(provider="house"))


@rows("S3-041", "S3-128")
def test_the_parameters_are_ready_for_the_client(row, place):
    provider = OpenAIProvider(Mock())
    params = provider.build_params(request_for(max_tokens=500))
    assert isinstance(params, dict)
    assert dict(**params) == {
        "model": "gpt-4", "input": [{"role": "user", "content": "Who are you?"}], "max_output_tokens": 500,
    }  # fmt: skip


SEARCH = {"type": "file_search", "vector_store_ids": ["vs_1"], "max_num_results": 10}
GOLDEN = [
    ({}, {}),
    ({"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7, "top_p": 0.9}),
    ({"max_tokens": 500}, {"max_output_tokens": 500}),
    ({"model": "o3", "reasoning": {"effort": "high"}}, {"model": "o3", "reasoning": {"effort": "high"}}),
    ({"model": "gpt-5.4", "text": {"verbosity": "low"}}, {"model": "gpt-5.4", "text": {"verbosity": "low"}}),
    ({"model": "o3", "temperature": 0.7, "top_p": 0.5}, {"model": "o3"}),
    ({"model": "o1", "text": {"verbosity": "low"}}, {"model": "o1"}),
    ({"model": "a-model-of-tomorrow", "temperature": 1}, {"model": "a-model-of-tomorrow", "temperature": 1.0}),
    (
        {"vector_store_id": "vs_1", "max_num_results": 10},
        {"tools": [SEARCH], "include": ["file_search_call.results"]},
    ),
]


@rows("S3-056", "S3-053", "S3-057", "S3-058", "S3-059", "S3-041")
@pytest.mark.parametrize(("said", "sent"), GOLDEN)
def test_the_transformer_of_openai_writes_exactly_this(row, said, sent, place):
    params = OpenAITransformer().transform(request_for("Hello", **said))
    assert params == {"model": "gpt-4", "input": [{"role": "user", "content": "Hello"}], **sent}
    dropped = {loss.field for loss in params.losses if loss.severity == "loss"}
    assert dropped == {name for name in ("temperature", "top_p") if name in said and name not in params} | (
        {"verbosity"} if "text" in said and "text" not in params else set()
    )


@rows("S3-055", "S3-053", "S3-181")
@pytest.mark.parametrize("provider", sorted(catalog.load().providers))
def test_there_is_a_transformer_for_every_provider_of_the_catalog(row, provider, place):
    request = request_for("A question", provider=provider, model="m", max_tokens=64)
    params = TransformerFactory.create(provider, "m").validate_and_transform(request)
    assert params["model"] == "m" and "A question" in json.dumps(params) and "64" in json.dumps(params)
    assert catalog.load().provider(provider).dialect in dialects.NAMES


@rows("S3-060", "S3-061")
def test_a_transformer_comes_with_the_specification_of_the_model_where_there_is_one(row, register, caplog):
    caplog.set_level(logging.DEBUG, "polyvox.llm_service")
    made = TransformerFactory.create("openai", "gpt-4o")
    assert type(made) is OpenAITransformer and made.model_spec.name == "openai/gpt-4o"
    assert caplog.records == []
    made = TransformerFactory.create("openai", "a-model-of-tomorrow")
    assert made.model_spec is None and caplog.records[-1].levelname == "DEBUG"
    assert "openai/a-model-of-tomorrow" in caplog.records[-1].getMessage()
    assert made.validate_and_transform(request_for(model="a-model-of-tomorrow", temperature=9))["temperature"] == 9
    register("house", None, AnthropicTransformer)
    (spec,) = create_house_specs()
    ModelSpecRegistry().register(spec)
    assert TransformerFactory.create("house", "house-7b").model_spec is spec


@rows("S3-060", "S3-062")
def test_a_transformer_may_have_an_init_of_its_own(row, register):
    class Plain(AnthropicTransformer):
        def __init__(self):
            self.ready = True

    class Full(AnthropicTransformer):
        def __init__(self, model_spec):
            super().__init__(model_spec)
            self.ready = True

    ModelSpecRegistry().register(create_house_specs()[0])
    for kind in (Plain, Full):
        register("house", None, kind)
        made = TransformerFactory.create("house", "house-7b")
        assert made.ready and made.model_spec.name == "house/house-7b"


@rows("S3-054", "S3-194")
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"temperature": 3}, "temperature must be between 0.0 and 2.0, not 3.0"),
        ({"provider": "anthropic", "model": "claude-haiku-4-5", "temperature": 1.5}, "between 0.0 and 1.0, not 1.5"),
        (
            {"model": "o4-mini", "reasoning": {"effort": "xhigh"}},
            "effort must be one of low, medium, high, not 'xhigh'",
        ),
    ],
)
def test_what_is_out_of_range_is_refused_before_anybody_is_asked(row, spec, words, world):
    client = Mock()
    response, error = execute_llm_call(request_for(**spec), client)
    assert response is None and words in error and not client.mock_calls
    response, error = execute_llm_call(request_for(**spec))
    assert response is None and words in error and world.requests == ()
    assert isinstance(error.error, names.ValidationError) and error.error.param in ("temperature", "effort")


def test_what_only_a_registered_specification_refuses_is_left_out_too(register):
    refused = ParameterSpec(name="temperature", type="float", supported=False)
    ModelSpecRegistry().register(ModelSpec(model_name="house-8b", provider="openai", parameters=[refused]))
    client = Mock()
    client.responses.create.return_value = Mock(output_text="Hello")
    response, error = execute_llm_call(request_for(model="house-8b", temperature=0.5, top_p=0.5), client)
    assert error is None and "temperature" not in client.responses.create.call_args.kwargs
    assert client.responses.create.call_args.kwargs["top_p"] == 0.5
    assert [loss["field"] for loss in response.losses] == ["temperature"]


@rows("S3-062", "S3-157", "S3-155")
@pytest.mark.parametrize("injected", [True, False])
def test_a_transformer_of_ones_own_for_openai_is_what_goes_out(row, injected, register, world):
    class Ours(OpenAITransformer):
        def transform(self, request):
            params = super().transform(request)
            params["store"] = False
            params["input"] = [{"role": "user", "content": "Ours: " + request.llm.prompt}]
            return params

    class Plain(ConfigTransformer):
        def transform(self, request):
            return {"model": "gpt-4o", "input": "Plain", "store": False}

    import openai

    with openai.OpenAI() as client:
        register("openai", None, Ours)
        response, error = execute_llm_call(request_for("Hello", max_tokens=64), client if injected else None)
        assert error is None and "Ours: Hello" in response.message
        register("openai", None, Plain)
        response, error = execute_llm_call(request_for("Hello"), client if injected else None)
        assert error is None and "Plain" in response.message
    first, second = [json.loads(asked.body) for asked in world.requests]
    assert first == {
        "model": "gpt-4", "input": [{"role": "user", "content": "Ours: Hello"}], "max_output_tokens": 64,
        "store": False,
    }  # fmt: skip
    assert second == {"model": "gpt-4o", "input": "Plain", "store": False}


@rows("S3-076")
@pytest.mark.parametrize(
    ("gives", "words"),
    [(lambda: {}["prompt"], "failed: KeyError"), (lambda: "text", "gave str"), (lambda: None, "gave")],
)
def test_a_transformer_that_fails_is_a_transformation_error(row, gives, words, register):
    class Faulty(ConfigTransformer):
        def transform(self, request):
            return gives()

    register("openai", None, Faulty)
    client = Mock()
    response, error = execute_llm_call(request_for(), client)
    assert response is None and "Faulty" in error and words in error and not client.mock_calls
    assert isinstance(error.error, names.TransformationError)
    with pytest.raises(names.TransformationError):
        OpenAIProvider(client).build_params(request_for())
