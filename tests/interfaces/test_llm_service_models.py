"""The data models of the LLM service: what is asked, what is answered, what is refused and in which words."""

import ast
import importlib
import os
import pickle
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pydantic
import pytest

from polyvox import errors
from polyvox.compat import llm_service, names
from polyvox.compat.errors import documented
from polyvox.compat.llm_service.models.llm import (
    LLMCallRequest,
    LLMCallResponse,
    LLMConfig,
    LLMModelSpec,
    ReasoningConfig,
    TextConfig,
)
from polyvox.compat.llm_service.services.llm import constants, exceptions, execute_llm_call
from polyvox.compat.llm_service.services.llm.exceptions import LLMServiceError, ValidationError
from polyvox.types import Cost, Loss, Message, Response, Text, Usage

from .rows import rows

ROOT = "polyvox.compat.llm_service"


def request(prompt="Explain quantum computing", *, store=None, **spec):
    spec = {"model": "gpt-4", **spec}
    return LLMCallRequest(llm=LLMConfig(prompt=prompt, vector_store_id=store, llm_model_spec=LLMModelSpec(**spec)))


def sent(asked):
    """What the provider's client would be called with."""
    from polyvox.compat.llm_service.services.llm.transformers.openai import OpenAITransformer

    return OpenAITransformer().transform(asked)


def refused(make):
    """The error with which something is refused, which is the documented one and a ValueError."""
    with pytest.raises(ValidationError) as caught:
        make()
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, errors.InputError)
    return caught.value


# ---- where things stand -----------------------------------------------------------------------


@pytest.mark.parametrize(("row", "module", "held"), [
    pytest.param(row, module, held, id=row)
    for row, module, held in [
        ("S3-004", "models.llm", "LLMCallRequest"),
        ("S3-005", "models.llm", "LLMCallResponse"),
        ("S3-007", "models.llm.config", "LLMConfig"),
        ("S3-008", "models.llm.request", "LLMCallRequest"),
        ("S3-009", "models.llm.response", "LLMCallResponse"),
        ("S3-010", "models.llm.specs", "ModelSpec"),
        ("S3-011", "models.llm.specs.base", "ModelSpec"),
        ("S3-012", "models.llm.specs.registry", "ModelSpecRegistry"),
        ("S3-013", "services.llm", "execute_llm_call"),
        ("S3-015", "services.llm.constants", "SUPPORTED_PROVIDERS"),
        ("S3-016", "services.llm.exceptions", "LLMServiceError"),
        ("S3-027", "services.llm.specs", "create_openai_specs"),
        ("S3-029", "services.llm.specs.openai", "create_openai_specs"),
        ("S3-079", "models.llm", "LLMCallRequest"),
        ("S3-080", "models.llm", "LLMConfig"),
        ("S3-081", "models.llm", "LLMModelSpec"),
        ("S3-103", "models.llm", "ReasoningConfig"),
        ("S3-104", "models.llm", "TextConfig"),
        ("S3-125", "models.llm", "LLMCallResponse"),
        ("S3-137", "models.llm.specs", "ModelSpec"),
        ("S3-138", "models.llm.specs", "ModelCapabilities"),
        ("S3-139", "models.llm.specs", "ParameterSpec"),
    ]
])  # fmt: skip
def test_a_name_is_where_the_document_has_it(row, module, held):
    found = getattr(importlib.import_module(f"{ROOT}.{module}"), held)
    assert getattr(found, "__name__", held) == held or held == "SUPPORTED_PROVIDERS"
    if module.startswith("models.llm") and hasattr(importlib.import_module(f"{ROOT}.models.llm"), held):
        assert getattr(importlib.import_module(f"{ROOT}.models.llm"), held) is found


@rows("S3-003")
def test_the_models_know_nothing_of_the_services(row):
    folder = Path(llm_service.__file__).parent / "models"
    imported = {
        name
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert f"{ROOT}.models.llm.config" in imported
    assert not [name for name in imported if "services" in name]
    loaded = "import sys; import %s.models.llm.specs; print([n for n in sys.modules if 'llm_service.services' in n])"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
    ran = subprocess.run([sys.executable, "-c", loaded % ROOT], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@rows("S3-192")
def test_the_names_of_the_models_are_exactly_these(row):
    def public(module):
        found = importlib.import_module(f"{ROOT}.{module}")
        assert all(hasattr(found, name) for name in found.__all__)
        return set(found.__all__)

    assert public("models.llm") == {
        "LLMCallRequest", "LLMCallResponse", "LLMConfig", "LLMModelSpec", "ReasoningConfig", "TextConfig",
    }  # fmt: skip
    assert public("models.llm.specs") == {"ModelCapabilities", "ModelSpec", "ModelSpecRegistry", "ParameterSpec"}
    assert public("services.llm.exceptions") == {
        "APICallError", "LLMServiceError", "ProviderError", "TransformationError", "UnsupportedProviderError",
        "ValidationError",
    }  # fmt: skip


# ---- what is asked ----------------------------------------------------------------------------


@rows("S3-082")
def test_a_request_survives_json(row):
    asked = request(store="vs_abc123", model="o1", temperature=0.7, max_tokens=500, reasoning={"effort": "high"})
    told = asked.model_dump_json()
    assert "vs_abc123" in told
    again = LLMCallRequest.model_validate_json(told)
    assert again == asked
    assert again.llm.llm_model_spec.reasoning == ReasoningConfig(effort="high")
    assert LLMCallRequest.model_validate(asked.model_dump()) == asked
    assert again != request()
    assert issubclass(LLMCallRequest, pydantic.BaseModel)


@pytest.mark.parametrize(("row", "make", "where"), [
    pytest.param("S3-083", lambda: LLMCallRequest(), "llm", id="S3-083"),
    pytest.param("S3-084", lambda: LLMConfig(llm_model_spec=LLMModelSpec(model="gpt-4")), "prompt", id="S3-084"),
    pytest.param("S3-085", lambda: LLMConfig(prompt="Who?"), "llm_model_spec", id="S3-085"),
    pytest.param("S3-086", lambda: LLMModelSpec(provider="openai"), "model", id="S3-086"),
])  # fmt: skip
def test_what_is_required_is_named_when_it_is_missing(row, make, where):
    error = refused(make)
    assert error.param == where
    assert f"{where}: field required" in str(error)
    assert {"type": "missing", "loc": (where,), "msg": "Field required"} in error.errors()


@rows("S3-084")
def test_an_empty_prompt_is_refused_and_another_is_kept_as_it_is(row):
    error = refused(lambda: request(prompt=""))
    assert error.param == "prompt"
    assert request(prompt="  Hello\n").llm.prompt == "  Hello\n"


@rows("S3-135", "S3-134")
def test_what_is_asked_is_found_on_the_documented_path(row):
    asked = request(prompt="Explain quantum computing", model="gpt-4")
    assert (asked.llm.prompt, asked.llm.llm_model_spec.model) == ("Explain quantum computing", "gpt-4")


@rows("S3-087", "S3-050")
def test_a_provider_is_any_name_in_lower_case_and_openai_unless_said(row):
    assert LLMModelSpec(model="gpt-4").provider == "openai"
    assert LLMModelSpec(model="m", provider=" Nobodys ").provider == "nobodys"
    assert refused(lambda: LLMModelSpec(model="m", provider="")).param == "provider"


@rows("S3-050")
def test_a_provider_that_was_registered_at_run_time_is_a_provider(row):
    from polyvox.compat.llm_service.services.llm.providers.base import BaseProvider
    from polyvox.compat.llm_service.services.llm.providers.factory import ProviderFactory

    class House(BaseProvider):
        def execute(self, request):
            return LLMCallResponse(message=f"in the house: {request.llm.prompt}"), None

    ProviderFactory.register_provider("house", House)
    try:
        spec = LLMModelSpec(model="house-7b", provider="House")
        made = ProviderFactory.create(spec.provider, None)
        response, error = made.execute(request("Who?", model="house-7b", provider="house"))
    finally:
        ProviderFactory.unregister_provider("house")
    assert isinstance(made, House)
    assert (str(response), error) == ("in the house: Who?", None)


@pytest.mark.parametrize(("row", "field", "good", "bad"), [
    pytest.param("S3-088", "temperature", 0.7, -0.1, id="S3-088"),
    pytest.param("S3-089", "max_tokens", 500, 0, id="S3-089"),
    pytest.param("S3-088", "top_p", 0.5, 1.5, id="S3-088-top_p"),
])  # fmt: skip
def test_a_setting_is_optional_a_number_and_within_its_bounds(row, field, good, bad):
    assert getattr(request().llm.llm_model_spec, field) is None
    assert getattr(request(**{field: good}).llm.llm_model_spec, field) == good
    for wrong in (bad, True, float("nan"), "much"):
        error = refused(lambda wrong=wrong: LLMModelSpec(model="gpt-4", **{field: wrong}))
        assert error.param == field


@rows("S3-088", "S3-089")
def test_what_is_not_set_is_not_sent_and_the_most_tokens_are_called_as_the_provider_calls_them(row):
    assert not {"temperature", "top_p", "max_output_tokens", "max_tokens"} & set(sent(request()))
    assert sent(request(temperature=0.7))["temperature"] == 0.7
    assert sent(request(max_tokens=500))["max_output_tokens"] == 500
    assert "max_tokens" not in sent(request(max_tokens=500))


@rows("S3-097")
def test_files_are_searched_only_where_a_store_is_named(row):
    assert request().llm.vector_store_id is None
    assert "tools" not in sent(request())
    (tool,) = sent(request(store="vs_abc123"))["tools"]
    assert tool["vector_store_ids"] == ["vs_abc123"]


@rows("S3-098", "S3-161")
def test_twenty_results_are_looked_for_unless_a_request_says_how_many(row):
    assert constants.DEFAULT_MAX_RESULTS == 20
    assert request().max_num_results == 20
    llm = request(store="vs_1").llm
    assert LLMCallRequest(llm=llm, max_num_results=10).max_num_results == 10
    (tool,) = sent(LLMCallRequest(llm=llm, max_num_results=10))["tools"]
    assert tool["max_num_results"] == 10
    assert refused(lambda: LLMCallRequest(llm=llm, max_num_results=0)).param == "max_num_results"


@rows("S3-107", "S3-108")
def test_an_effort_is_one_of_the_levels_there_are(row):
    for effort in ("none", "minimal", "low", "medium", "high", "xhigh"):
        assert ReasoningConfig(effort=effort).effort == effort
    error = refused(lambda: ReasoningConfig(effort="as much as you can"))
    assert error.param == "effort"
    assert "'as much as you can'" in str(error)
    assert "'minimal', 'low', 'medium', 'high'" in str(error)


@rows("S3-110", "S3-111")
def test_a_verbosity_is_low_medium_or_high(row):
    assert [TextConfig(verbosity=one).verbosity for one in ("low", "medium", "high")] == ["low", "medium", "high"]
    error = refused(lambda: TextConfig(verbosity="chatty"))
    assert error.param == "verbosity"
    assert "'chatty'" in str(error)
    assert "'low', 'medium' or 'high'" in str(error)


@rows("S3-109", "S3-112")
def test_reasoning_and_text_go_out_as_objects_and_only_when_they_are_set(row):
    plain = LLMModelSpec(model="gpt-6-luna")
    assert (plain.reasoning, plain.text) == (None, None)
    assert not {"reasoning", "text"} & set(sent(request(model="gpt-6-luna")))
    params = sent(request(model="gpt-6-luna", reasoning=ReasoningConfig(effort="high"), text={"verbosity": "medium"}))
    assert params["reasoning"]["effort"] == "high"
    assert params["text"] == {"verbosity": "medium"}


@rows("S3-105", "S3-106", "S3-111")
def test_a_retired_model_is_asked_all_the_same_with_a_warning_and_without_what_it_does_not_take(row):
    client = Mock()
    client.responses.create.return_value = Mock(id="resp_1", output_text="42", model="o1", usage=None)
    asked = request(
        "Solve this complex problem...", model="o1", reasoning={"effort": "high"}, text=TextConfig(verbosity="medium")
    )

    response, error = execute_llm_call(asked, client)

    assert (error, response.message) == (None, "42")
    retired, verbosity = response.warnings
    assert "o1 was retired after 2026-10-23; its successor is" in retired
    assert verbosity.startswith("verbosity: ")
    params = client.responses.create.call_args.kwargs
    assert "Solve this complex problem..." in str(params["input"])
    assert params["reasoning"]["effort"] == "high"
    assert "verbosity" not in str(params)


@rows("S3-082")
def test_a_request_describes_itself_as_a_json_schema(row):
    schema = LLMCallRequest.model_json_schema()
    assert schema["required"] == ["llm"]
    assert schema["$defs"]["LLMConfig"]["required"] == ["prompt", "llm_model_spec"]
    assert schema["additionalProperties"] is False


# ---- what is refused --------------------------------------------------------------------------


@rows("S3-075", "S3-194")
def test_a_refusal_is_ours_and_tells_all_that_is_wrong_with_pydantics_own_as_its_cause(row):
    error = refused(
        lambda: LLMCallRequest(
            llm={"prompt": "", "llm_model_spec": {"model": "m", "temperature": -1}}, max_num_results=0
        )
    )
    assert isinstance(error.__cause__, pydantic.ValidationError)
    assert not isinstance(error, pydantic.ValidationError)
    assert error.param == "llm.prompt"
    assert "llm.llm_model_spec.temperature: input should be greater than or equal to 0, not -1" in str(error)
    assert [one["loc"] for one in error.errors()] == [
        ("llm", "prompt"), ("llm", "llm_model_spec", "temperature"), ("max_num_results",),
    ]  # fmt: skip
    assert pickle.loads(pickle.dumps(error)).errors() == error.errors()


@rows("S3-075")
def test_every_way_into_a_model_refuses_alike(row):
    asked = request()
    ways = [
        lambda: LLMCallRequest.model_validate({"llm": 5}),
        lambda: LLMCallRequest.model_validate_json('{"llm": 5}'),
        lambda: LLMCallRequest.model_validate_json("no JSON"),
        lambda: LLMCallRequest.model_validate_strings({"llm": "5"}),
        lambda: setattr(asked, "max_num_results", "many"),
    ]
    for way in ways:
        assert refused(way).hint == "LLMCallRequest takes llm, max_num_results"
    assert asked == request()


def test_no_value_of_an_unknown_field_is_told():
    error = refused(lambda: LLMModelSpec(model="gpt-4", api_key="sk-very-secret-0123456789"))
    assert "api_key: there is no such field" in str(error)
    assert "very-secret" not in f"{error}{error.__cause__}{error.errors()}"


@rows("S3-080", "S3-083")
def test_who_mistakes_the_content_of_a_call_for_a_connection_is_told_of_the_other(row):
    error = refused(lambda: LLMConfig(provider="openai", model="gpt-4o-mini"))
    assert "polyvox.compat.creative_services.LLMConfig" in error.hint
    assert "llm_model_spec=LLMModelSpec(" in error.hint

    class Connection:
        provider, model, temperature, max_tokens = "anthropic", "claude-opus-5", 0.7, 4096

    Connection.__name__, Connection.__module__ = "LLMConfig", "polyvox.compat.creative_services.config"
    error = refused(lambda: LLMCallRequest(llm=Connection()))
    assert "polyvox.compat.creative_services.config" in error.hint
    assert "LLMModelSpec.from_config" in error.hint
    assert LLMModelSpec.from_config(Connection()) == LLMModelSpec(
        model="claude-opus-5", provider="anthropic", temperature=0.7, max_tokens=4096
    )


# ---- what is answered -------------------------------------------------------------------------


@rows("S3-091", "S3-092", "S3-093")
def test_an_answer_is_true_and_is_its_text(row):
    response = LLMCallResponse(message="", model="gpt-4", input_tokens=10, output_tokens=20, total_tokens=30)
    assert bool(response) is True
    assert response.total_tokens == 30
    assert str(LLMCallResponse(message="Hello")) == "Hello" == LLMCallResponse(message="Hello").message


@rows("S3-093")
def test_tokens_go_by_both_pairs_of_names_and_what_nobody_told_is_no_zero(row):
    response = LLMCallResponse(message="Hi", prompt_tokens=3, completion_tokens=4)
    assert (response.input_tokens, response.output_tokens, response.total_tokens) == (3, 4, 7)
    assert (response.prompt_tokens, response.completion_tokens) == (3, 4)
    assert LLMCallResponse(message="Hi", input_tokens=3, output_tokens=4, total_tokens=9).total_tokens == 9
    silent = LLMCallResponse(message="Hi")
    assert (silent.input_tokens, silent.total_tokens, silent.cost) == (None, None, None)


@rows("S3-100", "S3-101", "S3-102")
def test_passages_found_are_a_list_of_tables_or_none(row):
    assert LLMCallResponse(message="Hi").file_search_results is None
    response = LLMCallResponse(message="Hi", file_search_results=[{"score": 0.9, "text": "Use a token."}])
    (result,) = response.file_search_results
    assert (result["score"], result["text"]) == (0.9, "Use a token.")


@rows("S3-009", "S3-125")
def test_an_answer_of_the_core_is_seen_whole(row):
    answer = Response(
        Message("assistant", (Text("Hello"),)),
        finish_reason="length",
        usage=Usage(input=10, output=20, total=30, cache_read=4, reasoning=5, source="provider"),
        cost=Cost(Decimal("0.0021")),
        id="resp_1",
        model="gpt-6-luna",
        provider="openai",
        losses=(Loss("verbosity", "this model does not take it"), Loss("model", "it goes tomorrow", "note")),
    )
    response = LLMCallResponse.from_response(answer)
    assert (response.message, response.model, response.provider) == ("Hello", "gpt-6-luna", "openai")
    assert (response.response_id, response.id, response.status) == ("resp_1", "resp_1", "incomplete")
    assert (response.total_tokens, response.cached_tokens, response.reasoning_tokens) == (30, 4, 5)
    assert response.cost == Decimal("0.0021")
    assert response.warnings == ["verbosity: this model does not take it", "it goes tomorrow"]
    assert response.losses[0] == {"field": "verbosity", "why": "this model does not take it", "severity": "loss"}
    assert LLMCallResponse.model_validate_json(response.model_dump_json()) == response
    assert LLMCallResponse.from_response(answer, message="Bye").message == "Bye"


# ---- constants --------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "name", "value"), [
    pytest.param("S3-159", "DEFAULT_TEMPERATURE", 1.0, id="S3-159"),
    pytest.param("S3-160", "DEFAULT_TOP_P", 1.0, id="S3-160"),
    pytest.param("S3-161", "DEFAULT_MAX_RESULTS", 20, id="S3-161"),
])  # fmt: skip
def test_a_constant_has_the_documented_value(row, name, value):
    found = getattr(constants, name)
    assert (found, type(found)) == (value, type(value))


@rows("S3-158")
def test_a_constant_that_is_changed_changes_what_happens(row, monkeypatch):
    monkeypatch.setattr(constants, "DEFAULT_MAX_RESULTS", 7)
    asked = request(store="vs_1")
    assert asked.max_num_results == 7
    (tool,) = sent(asked)["tools"]
    assert tool["max_num_results"] == 7


@rows("S3-162", "S3-201")
def test_the_supported_providers_are_those_registered_at_this_moment(row):
    from polyvox.compat.llm_service.services.llm.providers.base import BaseProvider
    from polyvox.compat.llm_service.services.llm.providers.factory import ProviderFactory

    class House(BaseProvider):
        def execute(self, request):
            return None, "closed"

    supported = constants.SUPPORTED_PROVIDERS
    before = list(supported)
    assert "openai" in supported
    assert "OpenAI" in supported
    assert "house" not in supported
    ProviderFactory.register_provider("house", House)
    try:
        assert "house" in supported
        assert len(supported) == len(before) + 1
        assert sorted(supported) == sorted([*before, "house"])
        assert "'house'" in repr(supported)
    finally:
        ProviderFactory.unregister_provider("house")
    assert supported == before
    assert supported[0] == before[0]


# ---- errors -----------------------------------------------------------------------------------

SIX = ("ProviderError", "UnsupportedProviderError", "ValidationError", "TransformationError", "APICallError")


@rows("S3-071", "S3-072", "S3-016")
def test_the_six_errors_are_one_tree(row):
    assert LLMServiceError.__mro__[-3:-1] == (Exception, BaseException)
    for name in SIX:
        kind = getattr(exceptions, name)
        assert issubclass(kind, LLMServiceError)
        assert kind is not LLMServiceError
        with pytest.raises(LLMServiceError, match="it broke"):
            raise kind("it broke")
    assert not issubclass(exceptions.APICallError, exceptions.ValidationError)


@pytest.mark.parametrize(("row", "kind", "name"), [
    pytest.param("S3-072", errors.PolyvoxError, "LLMServiceError", id="S3-072-any"),
    pytest.param("S3-073", errors.ConfigError, "ProviderError", id="S3-073-config"),
    pytest.param("S3-073", errors.RateLimitError, "ProviderError", id="S3-073-limit"),
    pytest.param("S3-074", errors.UnknownProviderError, "UnsupportedProviderError", id="S3-074"),
    pytest.param("S3-075", errors.InputError, "ValidationError", id="S3-075"),
    pytest.param("S3-077", errors.ServerError, "APICallError", id="S3-077-server"),
    pytest.param("S3-077", errors.AuthError, "APICallError", id="S3-077-key"),
    pytest.param("S3-077", errors.CallTimeoutError, "APICallError", id="S3-077-time"),
])  # fmt: skip
def test_what_the_core_raises_is_what_the_document_calls_it(row, kind, name):
    assert issubclass(documented(kind), getattr(exceptions, name))


@rows("S3-073", "S3-077")
def test_an_error_of_a_call_carries_the_provider_the_status_and_what_was_behind_it(row):
    class Down(Exception):
        status_code = 503

    def create(**params):
        raise Down("no room")

    client = SimpleNamespace(responses=SimpleNamespace(create=create))
    response, told = execute_llm_call(request(), client)
    assert response is None
    error = told.error
    assert isinstance(error, exceptions.APICallError)
    assert isinstance(error, exceptions.ProviderError)
    assert (error.provider, error.model, error.status) == ("openai", "gpt-4", 503)
    assert isinstance(error.__cause__, Down)
    assert exceptions.ProviderError("it broke", provider="groq").provider == "groq"


@rows("S3-074")
def test_a_provider_that_nobody_knows_is_told_with_those_that_are(row):
    from polyvox.compat.llm_service.services.llm.providers.factory import ProviderFactory

    with pytest.raises(exceptions.UnsupportedProviderError) as caught:
        ProviderFactory.create("nobodys", None)
    assert "'nobodys'" in str(caught.value)
    assert "openai" in str(caught.value)
    assert isinstance(caught.value, errors.PolyvoxError)


@rows("S3-076")
def test_a_transformer_that_fails_is_a_transformation_error_with_the_fault_as_its_cause(row):
    from polyvox.compat.llm_service.services.llm.transformers.base import ConfigTransformer

    class Broken(ConfigTransformer):
        def transform(self, request):
            return {"model": request.llm.no_such_thing}

    with pytest.raises(exceptions.TransformationError) as caught:
        Broken().validate_and_transform(request())
    assert isinstance(caught.value.__cause__, AttributeError)
    assert "Broken" in str(caught.value)
    assert (caught.value.provider, caught.value.model) == ("openai", "gpt-4")


def test_the_names_of_the_other_documents_hold_too():
    error = refused(lambda: request(prompt=""))
    assert isinstance(error, names.AIError)
    assert isinstance(error, names.AIUtilitiesError)
    assert SimpleNamespace(found=error.errors()).found[0]["type"] == "string_too_short"
