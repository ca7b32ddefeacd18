"""Promises of the document on the LLM service: a call is an answer or the text of a failure, whoever the client is."""

import inspect
import json
import logging
import time
from decimal import Decimal
from unittest.mock import AsyncMock, MagicMock, Mock

import httpx
import openai
import pytest

import polyvox
from polyvox import config
from polyvox.compat import names, shared
from polyvox.compat.llm_service.models.llm import (
    LLMCallRequest,
    LLMCallResponse,
    LLMConfig,
    LLMModelSpec,
    ReasoningConfig,
    TextConfig,
)
from polyvox.compat.llm_service.services import llm as service
from polyvox.compat.llm_service.services.llm import execute_llm_call, orchestrator, stream_llm_call
from polyvox.registry import DictRegistry, Entry
from polyvox.telemetry import JSONLines

from .rows import rows

KEY = "sk-test-canary-00112233445566778899"
NOBODY = "http://127.0.0.1:9/v1"
FOUND = {"file_id": "file_1", "filename": "auth.md", "score": 1, "text": "Use a token.", "attributes": {"page": 3}}


def request_for(prompt="Explain quantum computing", vector_store_id=None, more=None, **spec):
    spec = LLMModelSpec(**{"model": "gpt-4", **spec})
    return LLMCallRequest(
        llm=LLMConfig(prompt=prompt, vector_store_id=vector_store_id, llm_model_spec=spec), **(more or {})
    )


def answering(kind=Mock, **more):
    client = kind()
    client.responses.create.return_value = kind(
        id="resp_123",
        output_text="Test response",
        model="gpt-4",
        usage=kind(input_tokens=10, output_tokens=20, total_tokens=30),
        **more,
    )
    return client


def failing(error):
    client = Mock()
    client.responses.create.side_effect = error
    return client


@pytest.fixture
def openai_client(world):
    with openai.OpenAI() as client:
        yield client


# ---- where it stands -------------------------------------------------------------------------------


@rows("S3-014", "S3-192")
def test_the_public_names_of_the_service_are_exactly_these(row):
    assert sorted(service.__all__) == [
        "APICallError", "BaseProvider", "ConfigTransformer", "DEFAULT_MAX_RESULTS", "DEFAULT_TEMPERATURE",
        "DEFAULT_TOP_P", "LLMCallStream", "LLMServiceError", "OpenAIProvider", "OpenAITransformer", "ProviderError",
        "ProviderFactory", "SUPPORTED_PROVIDERS", "TransformationError", "TransformerFactory",
        "UnsupportedProviderError", "ValidationError", "execute_llm_call", "stream_llm_call",
    ]  # fmt: skip
    assert all(getattr(service, name) is not None for name in service.__all__)


@rows("S3-013", "S3-017", "S3-030", "S3-033", "S3-078")
def test_the_entry_point_stands_in_the_orchestrator_and_is_called_alike_for_every_provider(row):
    assert orchestrator.execute_llm_call is service.execute_llm_call
    assert execute_llm_call.__module__ == "polyvox.compat.llm_service.services.llm.orchestrator"
    first, second = inspect.signature(execute_llm_call).parameters.values()
    assert (first.name, second.default) == ("request", None)
    assert execute_llm_call(request_for(), answering())[0].message == "Test response"
    assert execute_llm_call(request_for(provider="demo", model="demo"))[0].model == "demo"
    response, error = execute_llm_call(request_for(provider="nobodys"), answering())
    assert response is None and "'nobodys'" in error


# ---- an answer ------------------------------------------------------------------------------------


@rows("S3-090", "S3-091", "S3-092", "S3-093", "S3-042")
def test_a_real_client_is_asked_once_and_the_answer_comes_without_an_error(row, world, openai_client):
    request = request_for(temperature=0.7, max_tokens=500)
    response, error = execute_llm_call(request, openai_client)
    assert error is None and type(response) is LLMCallResponse and bool(response)
    assert type(response.message) is str and "Explain quantum computing" in response.message
    assert str(response) == response.message
    assert type(response.total_tokens) is int and response.total_tokens > 0
    assert response.total_tokens == response.input_tokens + response.output_tokens
    assert (response.provider, response.status) == ("openai", "completed") and response.id.startswith("resp")
    (asked,) = world.requests
    assert (asked.dialect, asked.model, asked.outcome) == ("openai.responses", "gpt-4", "answered")
    assert json.loads(asked.body) == {
        "model": "gpt-4",
        "input": [{"role": "user", "content": "Explain quantum computing"}],
        "max_output_tokens": 500,
        "temperature": 0.7,
    }


@rows("S3-042")
def test_an_asynchronous_client_is_awaited(row, world):
    client = openai.AsyncOpenAI()
    response, error = execute_llm_call(request_for(), client)
    assert error is None and response.message
    polyvox.portal.run(client.close())
    stand_in = Mock()
    stand_in.responses.create = AsyncMock(return_value=answering().responses.create.return_value)
    assert execute_llm_call(request_for(), stand_in)[0].message == "Test response"


class OverHttpx:
    """A client that somebody wrote with httpx alone."""

    def __init__(self, http):
        self.responses = self
        self._http = http

    def create(self, **params):
        reply = self._http.post("/responses", json=params)
        reply.raise_for_status()
        return reply.json()


@rows("S3-042")
def test_a_client_made_of_httpx_alone_will_do(row, world):
    address, key = world.base_url("openai.responses"), {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=address, headers=key) as http:
        response, error = execute_llm_call(request_for(), OverHttpx(http))
    assert error is None and response.message and response.total_tokens > 0
    assert [asked.model for asked in world.requests] == ["gpt-4"]


@rows("S3-042", "S3-001")
def test_without_a_client_the_core_asks_with_the_key_it_finds(row, world):
    response, error = execute_llm_call(request_for(max_tokens=500, reasoning={"effort": "low"}, model="o4-mini"))
    assert error is None and response.message
    (asked,) = world.requests
    assert (asked.dialect, asked.model) == ("openai.responses", "o4-mini")
    body = json.loads(asked.body)
    assert body["max_output_tokens"] == 500 and body["reasoning"] == {"effort": "low"}
    assert response.provider == "openai" and isinstance(response.cost, Decimal) and response.cost > 0


@rows("S3-113", "S3-105", "S3-045")
def test_a_reasoning_model_gets_its_effort_and_is_spared_what_it_refuses(row, world, openai_client):
    request = request_for(
        "Solve this complex problem...",
        model="o1",
        temperature=0.7,
        reasoning=ReasoningConfig(effort="high"),
        text=TextConfig(verbosity="medium"),
    )
    response, error = execute_llm_call(request, openai_client)
    assert error is None and response.message
    body = json.loads(world.requests[0].body)
    assert body["reasoning"] == {"effort": "high"} and not body.keys() & {"temperature", "text"}
    assert {loss["field"] for loss in response.losses} == {"model", "temperature", "verbosity"}
    assert any("temperature" in warning for warning in response.warnings)
    assert any("retired" in loss["why"] for loss in response.losses)


@rows("S3-045")
def test_under_strict_what_a_model_refuses_is_an_error_and_nobody_is_asked(row, world, openai_client):
    config.configure(strict=True)
    request = request_for(model="o1", temperature=0.7)
    for client in (openai_client, None):
        response, error = execute_llm_call(request, client)
        assert response is None and "temperature" in error and "does not take it" in error
    assert world.requests == ()


# ---- a stand-in ------------------------------------------------------------------------------------


@rows("S3-164", "S3-165", "S3-166", "S3-174", "S3-175")
@pytest.mark.parametrize("kind", [Mock, MagicMock])
def test_a_bare_mock_answers_without_any_key_and_is_asked_exactly_once(row, kind, place):
    mock_client = answering(kind)
    response, error = execute_llm_call(request_for(), mock_client)
    assert response.message == "Test response"
    assert error is None
    mock_client.responses.create.assert_called_once_with(
        model="gpt-4", input=[{"role": "user", "content": "Explain quantum computing"}]
    )
    assert [name for name, *_ in mock_client.mock_calls if "__" not in name] == ["responses.create"]


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        pytest.param("S3-168", "id", "resp_123", id="S3-168"),
        pytest.param("S3-169", "message", "Test response", id="S3-169"),
        pytest.param("S3-170", "model", "gpt-4", id="S3-170"),
        pytest.param("S3-171", "input_tokens", 10, id="S3-171"),
        pytest.param("S3-172", "output_tokens", 20, id="S3-172"),
        pytest.param("S3-173", "total_tokens", 30, id="S3-173"),
    ],
)
def test_what_a_mock_was_given_is_read_as_what_it_is(row, field, value, place):
    response, _ = execute_llm_call(request_for(), answering())
    found = getattr(response, field)
    assert found == value and type(found) is type(value)


@rows("S3-167")
def test_what_a_mock_was_not_given_is_not_believed(row, place):
    response, error = execute_llm_call(request_for(), answering())
    assert error is None
    assert (response.status, response.file_search_results, response.cached_tokens) == ("completed", None, None)
    assert "Mock" not in response.model_dump_json()
    response, error = execute_llm_call(request_for(), Mock())
    assert response is None and "holds no answer" in error
    # Without counts of tokens there are none: never 0, never a Mock.
    client = Mock()
    client.responses.create.return_value = Mock(output_text="Short")
    response, error = execute_llm_call(request_for(), client)
    assert (response.message, response.total_tokens, response.id) == ("Short", None, None)


# ---- a search in files ---------------------------------------------------------------------------


def search_of(*results):
    return {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["a"], "results": [*results]}


MESSAGE = {
    "type": "message", "id": "m_1", "role": "assistant", "status": "completed",
    "content": [{"type": "output_text", "text": "It says so.", "annotations": []}],
}  # fmt: skip


@rows("S3-095", "S3-096", "S3-099", "S3-100", "S3-101", "S3-102", "S3-046", "S3-059")
def test_a_search_in_files_is_asked_for_and_its_passages_come_as_tables(row, place):
    client = answering(output=[search_of(FOUND, {**FOUND, "score": 0.25, "text": "Or a cookie."}), MESSAGE])
    question = "What does the documentation say about authentication?"
    request = request_for(question, vector_store_id="vs_abc123", more={"max_num_results": 10})
    response, error = execute_llm_call(request, client)
    assert error is None and response.message == "It says so."
    said = [(result["score"], result["text"]) for result in response.file_search_results]
    assert said == [(1.0, "Use a token."), (0.25, "Or a cookie.")]
    assert all(type(score) is float and type(text) is str for score, text in said)
    assert response.file_search_results[0]["filename"] == "auth.md"
    asked = client.responses.create.call_args.kwargs
    search = {"type": "file_search", "vector_store_ids": ["vs_abc123"], "max_num_results": 10}
    assert asked["tools"] == [search] and asked["include"] == ["file_search_call.results"]
    assert asked["input"] == [{"role": "user", "content": question}]
    # Nothing of it where no store is named.
    client = answering()
    response, error = execute_llm_call(request_for(), client)
    assert not client.responses.create.call_args.kwargs.keys() & {"tools", "include"}
    assert response.file_search_results is None


@rows("S3-100", "S3-167")
def test_passages_are_found_in_objects_too_and_a_search_that_found_nothing_says_so(row, place):
    item = Mock(type="file_search_call", id="fs", results=[Mock(score=0.5, text="Use a token.", filename="a.md")])
    response, _ = execute_llm_call(request_for(vector_store_id="vs_1"), answering(output=[item, MESSAGE]))
    assert response.file_search_results == [{"score": 0.5, "text": "Use a token.", "filename": "a.md"}]
    response, _ = execute_llm_call(request_for(vector_store_id="vs_1"), answering(output=[search_of(), MESSAGE]))
    assert response.file_search_results == []
    odd = search_of({"score": "high", "text": "x"}, {"score": 1}, "text", FOUND)
    response, _ = execute_llm_call(request_for(vector_store_id="vs_1"), answering(output=[odd, MESSAGE]))
    assert [one["text"] for one in response.file_search_results] == ["Use a token."]


@rows("S3-095", "S3-099")
def test_the_search_goes_out_as_the_api_has_it(row, world, openai_client):
    request = request_for(vector_store_id="vs_abc123")
    for client in (openai_client, None):
        response, error = execute_llm_call(request, client)
        assert error is None and response.message, error
    for asked in world.requests:
        body = json.loads(asked.body)
        assert body["tools"] == [{"type": "file_search", "vector_store_ids": ["vs_abc123"], "max_num_results": 20}]
        assert body["include"] == ["file_search_call.results"]
    assert len(world.requests) == 2


@rows("S3-095")
def test_a_provider_that_has_no_such_stores_is_not_asked_as_if_it_had(row, world):
    request = request_for(vector_store_id="vs_abc123", provider="anthropic", model="claude-haiku-4-5")
    response, error = execute_llm_call(request)
    assert response is None and "vs_abc123" in error and "OpenAI" in error
    assert isinstance(error.error, names.ValidationError) and world.requests == ()


# ---- a failure ------------------------------------------------------------------------------------


class StatusError(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status_code, self.message, self.body = status, message, {"message": message}


@rows("S3-032", "S3-094", "S3-177")
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StatusError(401, f"Incorrect API key provided: {KEY}"), names.APICallError),
        (StatusError(429, "Slow down"), names.ProviderRateLimitError),
        (StatusError(500, f"authorization: Bearer {KEY}"), names.ProviderAPIError),
        (RuntimeError(f"it broke with x-api-key: {KEY}"), names.APICallError),
        (TimeoutError("too long"), names.APICallError),
        (KeyError("choices"), names.APICallError),
    ],
)
def test_a_fault_of_a_provider_is_told_and_not_raised_and_no_key_is_in_it(row, error, kind, place):
    client = failing(error)
    response, text = execute_llm_call(request_for(), client)
    assert response is None and isinstance(text, str) and text
    assert KEY not in text and "Bearer sk" not in text
    assert isinstance(text.error, kind) and isinstance(text.error, names.LLMServiceError)
    assert text.error.status == getattr(error, "status_code", None)
    assert text.error.__cause__ is error and text.error.message.split(":")[0] in text
    assert client.responses.create.call_count == 1


@rows("S3-094", "S3-032")
def test_the_key_of_the_client_is_masked_whatever_it_looks_like(row, place):
    client = failing(RuntimeError("refused: not-shaped-like-any-key"))
    client.api_key = "not-shaped-like-any-key"
    response, text = execute_llm_call(request_for(), client)
    assert response is None and "not-shaped-like-any-key" not in text and "refused" in text


@rows("S3-032", "S3-094", "S3-177")
def test_a_server_that_is_not_there_is_told_as_such(row, world):
    with openai.OpenAI(base_url=NOBODY, max_retries=0) as client:
        response, error = execute_llm_call(request_for(), client)
    assert response is None and "connection" in error.lower()
    assert client.api_key not in error and isinstance(error.error, names.APICallError)
    assert error.error.retryable and error.error.model == "gpt-4"


def test_a_client_is_asked_as_often_as_it_would_try_itself(world):
    tried = []

    def refuse(asked):
        tried.append(asked.url.path)
        raise httpx.ConnectError("nobody is here")

    http = openai.DefaultHttpxClient(transport=httpx.MockTransport(refuse))
    with openai.OpenAI(max_retries=1, http_client=http) as client:
        response, error = execute_llm_call(request_for(), client)
        assert response is None and error.error.attempts[-1].outcome != "ok"
        assert client.max_retries == 1
    assert len(tried) == 2


@rows("S3-177", "S3-090")
@pytest.mark.parametrize(
    "given", [3, None, "hello", {"llm": {}}, LLMConfig(prompt="a", llm_model_spec=LLMModelSpec(model="m"))]
)
def test_what_is_no_request_is_an_error_too(row, given, place):
    client = answering()
    response, error = execute_llm_call(given, client)
    assert response is None and "LLMCallRequest" in error and type(given).__name__ in error
    assert isinstance(error.error, names.ValidationError) and not client.mock_calls


@rows("S3-177")
def test_a_missing_key_names_the_variable(row, place):
    response, error = execute_llm_call(request_for())
    assert response is None and "OPENAI_API_KEY" in error
    assert isinstance(error.error, names.ProviderConfigurationError)


def test_the_text_of_a_failure_crosses_processes_with_its_error(place):
    import pickle

    _, error = execute_llm_call(request_for(), failing(StatusError(429, "Slow down")))
    again = pickle.loads(pickle.dumps(error))
    assert again == error and isinstance(again.error, names.ProviderRateLimitError) and again.error.status == 429


# ---- what is logged --------------------------------------------------------------------------------


@rows("S3-032")
def test_a_call_is_logged_with_its_facts_as_fields_and_nothing_that_was_said(row, place, caplog):
    caplog.set_level(logging.DEBUG, "polyvox.llm_service")
    client = answering()
    client.api_key = KEY
    execute_llm_call(request_for("A private wish"), client)
    execute_llm_call(request_for("A private wish"), failing(StatusError(500, f"no: A private wish {KEY}")))
    well, badly = [record for record in caplog.records if record.name == "polyvox.llm_service"]
    assert (well.levelname, well.provider, well.model, well.outcome) == ("INFO", "openai", "gpt-4", "ok")
    assert (well.input_tokens, well.output_tokens, well.total_tokens) == (10, 20, 30)
    assert 0 <= well.latency < 60
    assert (badly.levelname, badly.outcome, badly.kind, badly.status) == ("ERROR", "error", "server", 500)
    for record in (well, badly):
        line = JSONLines().format(record)
        assert json.loads(line)["model"] == "gpt-4"
        assert "private" not in line and KEY not in line and "Test response" not in line


@rows("S3-032")
def test_the_latency_is_that_of_the_call(row, place, caplog):
    caplog.set_level(logging.INFO, "polyvox.llm_service")
    client = answering()
    made = client.responses.create.return_value
    client.responses.create.side_effect = lambda **_: time.sleep(0.2) or made
    assert execute_llm_call(request_for(), client)[1] is None
    assert 0.2 <= caplog.records[-1].latency < 30


# ---- as it comes ---------------------------------------------------------------------------------


@rows("S3-182")
@pytest.mark.parametrize("injected", [True, False])
def test_a_stream_gives_words_and_then_the_whole_answer_with_its_usage(row, injected, world, openai_client, caplog):
    caplog.set_level(logging.INFO, "polyvox.llm_service")
    stream = stream_llm_call(request_for("One two three"), openai_client if injected else None)
    assert world.requests == () and stream.response is None, "nobody is asked before it is read"
    *words, last = stream
    assert len(words) > 1 and all(type(word) is str for word in words)
    assert type(last) is LLMCallResponse and last is stream.response and stream.error is None
    assert last.message == "".join(words) and last.total_tokens == last.input_tokens + last.output_tokens > 0
    (asked,) = world.requests
    assert json.loads(asked.body)["stream"] is True and asked.dialect == "openai.responses"
    assert caplog.records[-1].total_tokens == last.total_tokens


@rows("S3-182")
def test_a_stream_that_fails_tells_why(row, world):
    with openai.OpenAI(base_url=NOBODY, max_retries=0) as client:
        stream = stream_llm_call(request_for(), client)
        assert list(stream) == []
    assert stream.response is None and "connection" in stream.error.lower()
    assert isinstance(stream.error.error, names.APICallError)


@rows("S3-182")
def test_a_client_that_cannot_stream_is_told_in_one_piece(row, place):
    *words, last = stream_llm_call(request_for(), answering())
    assert words == ["Test response"] and last.total_tokens == 30


# ---- what else a call takes along -----------------------------------------------------------------


@pytest.mark.parametrize("injected", [True, False])
def test_an_answer_says_what_it_cost_and_never_nothing_for_unknown(injected, world, openai_client):
    client = openai_client if injected else None
    response, _ = execute_llm_call(request_for(model="gpt-4o"), client)
    price = polyvox.Client("openai/gpt-4o").ask("Explain quantum computing").cost
    assert response.cost == price.amount > 0
    response, error = execute_llm_call(request_for(model="a-model-of-tomorrow"), client)
    assert error is None and response.cost is None


@rows("S3-185")
def test_through_a_client_with_a_cache_a_repeat_asks_nobody(row, world):
    with polyvox.Client(cache=True) as client:
        first, _ = execute_llm_call(request_for(), client)
        second, error = execute_llm_call(request_for(), client)
    assert error is None and second.message == first.message and second.cost == 0
    assert len(world.requests) == 1


# ---- deployments and keys that all interfaces share ----------------------------------------------


def test_a_deployment_of_another_provider_answers_under_its_own_name(world):
    deployments = DictRegistry([Entry("other", "anthropic/claude-haiku-4-5")])
    shared.EVERYONE.publish(deployments)
    request = request_for(model="other")
    for asked in (request, LLMCallRequest.model_validate_json(request.model_dump_json())):
        response, error = execute_llm_call(asked)
        assert error is None and (response.model, response.provider) == ("claude-haiku-4-5", "anthropic")
    response, error = execute_llm_call(request_for(model="other", vector_store_id="vs_1"))
    assert response is None and "'other' (anthropic/claude-haiku-4-5) does not take" in error
    # Another provider that is said counts more than the name of a deployment, and so does a model of OpenAI's.
    response, error = execute_llm_call(request_for(model="other", provider="groq"))
    assert error is None and (response.model, response.provider) == ("other", "groq")
    deployments.add(Entry("gpt-4o", "anthropic/claude-haiku-4-5"))
    response, error = execute_llm_call(request_for(model="gpt-4o"))
    assert error is None and (response.model, response.provider) == ("gpt-4o", "openai")


def test_a_deployment_of_the_same_model_lends_its_key(world, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    config.configure(retries=0)
    deployments = DictRegistry([Entry("mine", "openai/gpt-4o", api_key=polyvox.keys.Secret(KEY))])
    shared.EVERYONE.publish(deployments)
    response, error = execute_llm_call(request_for(model="gpt-4o"))
    assert error is None and response.model == "gpt-4o"
    assert [asked.dialect for asked in world.requests] == ["openai.responses"]
    assert "OPENAI_API_KEY" in execute_llm_call(request_for(model="gpt-4.1"))[1]


def test_a_deployment_of_a_published_registry_is_asked_by_its_name(world):
    address = world.base_url("openai.chat")
    deployments = DictRegistry([Entry("house", "house-7b", base_url=address, api_key=polyvox.keys.Secret(KEY))])
    shared.EVERYONE.publish(deployments)
    response, error = execute_llm_call(request_for(model="house", max_tokens=9))
    assert error is None and response.model == "house-7b"
    (asked,) = world.requests
    assert (asked.dialect, asked.model) == ("openai.chat", "house-7b") and asked.path.endswith("/chat/completions")
    # A change of it acts on the next call; one that searches in files needs the protocol that can.
    deployments.update("house", model="house-8b")
    response, error = execute_llm_call(request_for(model="house", vector_store_id="vs_1"))
    assert error is None and response.model == "house-8b"
    assert (world.requests[1].dialect, world.requests[1].model) == ("openai.responses", "house-8b")


@pytest.mark.parametrize("address", [True, False])
def test_the_variables_of_the_environment_say_key_and_address(address, world, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    config.configure(retries=0)  # what was found of the old environment is forgotten
    assert "OPENAI_API_KEY" in execute_llm_call(request_for())[1]
    monkeypatch.setenv("AI_API_KEY", KEY)
    if address:
        monkeypatch.setenv("AI_BASE_URL", world.base_url("openai.chat"))
    response, error = execute_llm_call(request_for(model="gpt-4"))
    assert error is None and response.model == "gpt-4", error
    (asked,) = world.requests
    assert asked.dialect == ("openai.chat" if address else "openai.responses")
    # They are for one provider, and for none but that.
    response, error = execute_llm_call(request_for(provider="groq", model="llama-3.3-70b-versatile"))
    assert error is None and world.requests[1].dialect == "openai.chat"
