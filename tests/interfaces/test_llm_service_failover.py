"""Promises of the document on the LLM service where several deployments may answer: the core chooses among them, goes
on to the next where one fails, and whoever asked is told of every try."""

import pytest

import polyvox
from polyvox import config
from polyvox.compat import names, shared
from polyvox.compat.creative_services import LLMConfig as ConnectionConfig
from polyvox.compat.creative_services import LLMProvider
from polyvox.compat.llm_service.models.llm import LLMCallRequest, LLMCallResponse, LLMConfig, LLMModelSpec
from polyvox.compat.llm_service.services.llm import execute_llm_call, stream_llm_call
from polyvox.keys import Secret
from polyvox.registry import DictRegistry, Entry
from polyvox.testing import Simulator

from .rows import rows

KEYS = [f"sk-test-failover-{number}-0123456789abcdef" for number in (1, 2)]


def request_for(model, vector_store_id=None, **spec):
    spec = LLMModelSpec(model=model, **spec)
    return LLMCallRequest(llm=LLMConfig(prompt="Who are you?", vector_store_id=vector_store_id, llm_model_spec=spec))


@pytest.fixture
def failing(place):
    """A server whose first answer is a failure, and settings that try nobody twice."""
    config.configure(retries=0)
    with Simulator(plan=[{"kind": "status", "status": 503, "at": [1]}], demand_key=False) as simulator:
        yield simulator


def two_at(simulator, **more):
    address = simulator.base_url("openai.chat")
    return DictRegistry([
        Entry(f"house-{name}", f"{name}-7b", base_url=address, priority=place, api_key=Secret(KEYS[place]), **more)
        for place, name in enumerate(("first", "second"))
    ])  # fmt: skip


@rows("S3-188")
def test_a_pattern_means_all_deployments_it_matches_and_the_next_is_asked_where_one_fails(row, failing):
    deployments = two_at(failing)
    shared.EVERYONE.publish(deployments)
    response, error = execute_llm_call(request_for("house-*"))
    assert error is None and response.model == "second-7b", error
    assert [(one["deployment"], one["outcome"], one["status"]) for one in response.attempts] == [
        ("house-first", "server", 503), ("house-second", "ok", None),
    ]  # fmt: skip
    assert LLMCallResponse.model_validate_json(response.model_dump_json()).attempts == response.attempts
    assert [asked.model for asked in failing.requests] == ["first-7b", "second-7b"]


@rows("S3-188", "S3-182")
def test_a_stream_goes_on_to_the_next_too(row, failing):
    deployments = two_at(failing)
    shared.EVERYONE.publish(deployments)
    *words, last = stream_llm_call(request_for("house-*"))
    assert "".join(words) == last.message and last.model == "second-7b" and len(last.attempts) == 2


@rows("S3-188", "S3-177")
def test_where_all_fail_the_pair_says_so_with_every_try(row, place):
    config.configure(retries=0)
    with Simulator(plan=[{"kind": "status", "status": 503}], demand_key=False) as simulator:
        deployments = two_at(simulator)
        shared.EVERYONE.publish(deployments)
        response, error = execute_llm_call(request_for("house-*"))
    assert response is None and isinstance(error.error, names.APICallError)
    assert [one.deployment for one in error.error.attempts] == ["house-first", "house-second"]
    assert not any(key in error for key in KEYS)


@rows("S3-188")
def test_every_deployment_of_the_same_model_is_one_that_may_answer(row, world):
    config.configure(retries=0)
    deployments = DictRegistry([
        Entry("mine", "openai/gpt-4o", api_key_env="NO_SUCH_KEY"), Entry("theirs", "openai/gpt-4o", weight=0.5),
    ])  # fmt: skip
    shared.EVERYONE.publish(deployments)
    for _ in range(3):
        response, error = execute_llm_call(request_for("gpt-4o"))
        assert error is None and response.attempts[-1]["deployment"] == "theirs", error
    assert {asked.dialect for asked in world.requests} == {"openai.responses"}


@rows("S3-188")
def test_a_search_in_files_goes_only_to_who_can_search(row, failing):
    deployments = two_at(failing)
    deployments.add(Entry("house-other", "anthropic/claude-haiku-4-5", api_key=Secret(KEYS[0])))
    shared.EVERYONE.publish(deployments)
    response, error = execute_llm_call(request_for("house-*", vector_store_id="vs_1"))
    assert error is None and response.model == "second-7b", error
    assert {asked.dialect for asked in failing.requests} == {"openai.responses"}
    deployments.remove("house-first")
    deployments.remove("house-second")
    response, error = execute_llm_call(request_for("house-*", vector_store_id="vs_1"))
    assert response is None and "'house-*' do not take" in error
    assert isinstance(error.error, names.ValidationError)


@rows("S3-188")
def test_deployments_of_the_configuration_are_asked_by_their_names(row, failing):
    address = failing.base_url("openai.chat")
    config.configure(deployments={
        f"house-{name}": {"model": f"{name}-7b", "base_url": address, "priority": place, "api_key": KEYS[place]}
        for place, name in enumerate(("first", "second"))
    })  # fmt: skip
    assert execute_llm_call(request_for("house-*"))[0].model == "second-7b"
    assert execute_llm_call(request_for("house-first"))[0].model == "first-7b"


@rows("S3-188")
@pytest.mark.parametrize("model", ["house-*", "house-second"])
def test_the_deployments_of_a_client_that_is_given_are_asked(row, failing, model):
    with polyvox.Client(registry=two_at(failing), retries=0) as client:
        response, error = execute_llm_call(request_for("house-*"), client)
        assert error is None and response.model == "second-7b", error
        assert execute_llm_call(request_for(model), client)[0].model in ("first-7b", "second-7b")
        response, error = execute_llm_call(request_for("house-third"), client)
    assert response is None and "OPENAI_API_KEY" in error


@rows("S3-188", "S3-059")
def test_a_search_is_not_lost_at_the_deployments_of_a_client_that_is_given(row, world):
    with polyvox.Client(registry=[Entry("mine", "openai/gpt-4o")]) as client:
        assert execute_llm_call(request_for("gpt-4o"), client)[1] is None
        response, error = execute_llm_call(request_for("gpt-4o", vector_store_id="vs_1"), client)
    assert error is None and not any("tools" in warning for warning in response.warnings), response.warnings
    assert [asked.dialect for asked in world.requests] == ["openai.chat", "openai.responses"]


@rows("S3-031", "S3-087")
def test_a_provider_is_understood_by_the_word_that_the_other_documents_have_for_it(row, world, monkeypatch):
    spec = LLMModelSpec.from_config(ConnectionConfig(LLMProvider.GOOGLE, "gemini-2.5-flash"))
    request = LLMCallRequest(llm=LLMConfig(prompt="Who are you?", llm_model_spec=spec))
    response, error = execute_llm_call(request)
    assert error is None and (response.provider, response.model) == ("gemini", "gemini-2.5-flash"), error
    # A key of the AI_ variables is for the same provider, whatever it is called.
    monkeypatch.delenv("GEMINI_API_KEY")
    config.configure(retries=0)
    monkeypatch.setenv("AI_PROVIDER", "google")
    monkeypatch.setenv("AI_API_KEY", KEYS[0])
    response, error = execute_llm_call(request_for("gemini-2.5-pro", provider="gemini"))
    assert error is None and response.model == "gemini-2.5-pro", error


def test_what_the_variables_say_holds_for_two_models_over_one_connection(place, monkeypatch):
    with Simulator(demand_key=False) as simulator:
        monkeypatch.setenv("AI_API_KEY", KEYS[0])
        monkeypatch.setenv("AI_BASE_URL", simulator.base_url("openai.chat"))
        monkeypatch.setenv("AI_TEMPERATURE", "0.25")
        for model in ("one", "two", "one"):
            response, error = execute_llm_call(request_for(model))
            assert error is None and response.model == model, error
        assert [asked.model for asked in simulator.requests] == ["one", "two", "one"]
        assert all(b'"temperature":0.25' in asked.body.replace(b" ", b"") for asked in simulator.requests)
