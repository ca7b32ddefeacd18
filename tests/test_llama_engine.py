"""The real llama.cpp engine, a tiny model in it, is asked by our client: in this process, over the engine's own HTTP
server in each protocol that it speaks itself, and behind each dialect that we serve."""

import json
import urllib.request

import pytest

from polyvox import Client
from polyvox.config import Settings
from polyvox.dialects import NAMES
from polyvox.errors import AuthError, ContextLengthError, InvalidRequestError, PolyvoxError
from polyvox.testing.simulate import Simulator

xllamacpp = pytest.importorskip("xllamacpp", reason="the extra `local` is not installed")

KEY = "sk-engine-0123456789"
GREEDY = {"temperature": 0.0, "seed": 7}
SHORT = {**GREEDY, "max_tokens": 16}  # the least that every protocol allows
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "size": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["ok", "size"],
    "additionalProperties": False,
}
SHAPED = {**GREEDY, "schema": SCHEMA, "max_tokens": 400}
# What the engine's server speaks by itself, and where clients find it.
SPOKEN = {"openai.chat": "/v1", "openai.responses": "/v1", "anthropic.messages": ""}


@pytest.fixture(scope="module")
def local(model_files, tmp_path_factory):
    """Our client with the model in this process, found by its name."""
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    (home / "models" / "tiny.gguf").write_bytes((model_files / "tiny.gguf").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYVOX_HOME", str(home))
        with Client("local/tiny", settings=Settings(), timeout=60) as client:
            client.ask("hello", max_tokens=1)
            yield client


@pytest.fixture(scope="module")
def plainly(local):
    """What the model says to a greeting when it is asked directly."""
    return local.ask("hello", **SHORT)


def both(client, prompt, **said):
    """The answer whole, and the answer streamed."""
    return client.ask(prompt, **said), client.stream(prompt, **said).finish()


def tokens(usage):
    return usage.input, usage.output, usage.source


def is_shaped(text):
    found = json.loads(text)
    return set(found) == {"ok", "size"} and type(found["ok"]) is bool and 0 <= found["size"] <= 9


# ---- in this process --------------------------------------------------------------------------


def test_in_this_process_it_says_the_same_whole_and_streamed_and_counts_its_tokens(local, plainly):
    whole, streamed = both(local, "hello", **SHORT)
    assert whole.text == streamed.text == plainly.text != ""
    assert whole.finish_reason == streamed.finish_reason == "length"
    assert tokens(whole.usage) == tokens(streamed.usage) == (plainly.usage.input, 16, "provider")
    longer = local.ask("hello hello", **SHORT)
    assert longer.usage.input > whole.usage.input and whole.provider == "local"


def test_in_this_process_it_is_held_to_a_schema_and_stops_by_itself(local):
    for response in both(local, "hello", **SHAPED):
        assert is_shaped(response.text) and response.finish_reason == "stop" and not response.losses


def test_in_this_process_it_ends_before_a_word_it_must_not_say(local, plainly):
    word = plainly.text[-1]
    for response in both(local, "hello", **SHORT, stop=word):
        assert response.text == plainly.text.partition(word)[0] and response.finish_reason == "stop"


def test_in_this_process_its_list_of_models_is_what_lies_in_the_folder(local):
    assert [model.name for model in local.models()] == ["local/tiny"]


# ---- the engine's own server ------------------------------------------------------------------


def started(model_files, *, embeds=False):
    """llama.cpp's HTTP server on this machine."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model_files / "tiny.gguf")
    params.model_alias = {"tiny"}
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.kv_unified, params.verbosity, params.n_parallel = True, -1, 4
    params.api_keys = [KEY]
    params.endpoint_metrics = True
    if embeds:
        # The file does not say how its vectors become one.
        params.embedding, params.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    running = xllamacpp.Server(params)
    running.handle_metrics()  # taken apart before its loop turns, it would wait for it for ever
    return running


@pytest.fixture(scope="module")
def server(model_files):
    return started(model_files)


def counted(server, path, body):
    """How many tokens the engine counts in a request."""
    head = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), head)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())["input_tokens"]


@pytest.fixture(params=SPOKEN)
def over_http(request, server):
    base = server.listening_address + SPOKEN[request.param]
    facts = {"dialect": request.param, "settings": Settings(), "retries": 0, "timeout": 60}
    with Client("tiny", base_url=base, api_key=KEY, **facts) as client:
        yield request.param, client


def test_over_http_it_says_in_each_protocol_of_its_own_what_it_says_here(over_http, plainly):
    name, client = over_http
    for response in both(client, "hello", **SHORT):
        assert response.text == plainly.text and response.model == "tiny" and response.complete
        assert tokens(response.usage) == tokens(plainly.usage)
        # Its Responses say "completed" whatever ended them.
        assert response.finish_reason == ("stop" if name == "openai.responses" else "length")


def test_over_http_the_tokens_of_the_prompt_are_those_the_engine_counts(over_http, server):
    name, client = over_http
    turns = [{"role": "user", "content": "the bees and the sea"}]
    asked = {
        "openai.chat": ("/v1/chat/completions/input_tokens", {"messages": turns}),
        "openai.responses": ("/v1/responses/input_tokens", {"input": turns}),
        "anthropic.messages": ("/v1/messages/count_tokens", {"messages": turns}),
    }
    path, body = asked[name]
    used = client.ask("the bees and the sea", **SHORT).usage
    assert used.input == counted(server, path, {"model": "tiny", **body})
    assert used.output == 16


# The engine's Responses and Messages leave out what they are told of a schema.
@pytest.mark.parametrize("over_http", ["openai.chat"], indirect=True)
def test_over_http_it_is_held_to_a_schema(over_http):
    _, client = over_http
    for response in both(client, "hello", **SHAPED):
        assert is_shaped(response.text) and response.finish_reason == "stop"


def test_over_http_its_refusals_are_errors_of_the_tree(over_http, server):
    name, client = over_http
    with pytest.raises((ContextLengthError, InvalidRequestError)) as caught:
        client.ask("x " * 3000)
    assert caught.value.status == 400 and not caught.value.retryable
    base = server.listening_address + SPOKEN[name]
    with (
        Client("tiny", base_url=base, api_key="sk-wrong-0", dialect=name, settings=Settings(), retries=0) as stranger,
        pytest.raises(AuthError) as refused,
    ):
        stranger.ask("hello")
    assert refused.value.status == 401 and "sk-wrong-0" not in str(refused.value)


def test_over_http_texts_become_the_vectors_that_they_become_here(model_files, local):
    texts = ["hello", "the bees and the sea"]
    here = local.embed(texts)
    server = started(model_files, embeds=True)
    facts = {"dialect": "openai.chat", "settings": Settings(), "retries": 0, "timeout": 60}
    with Client("tiny", base_url=server.listening_address + "/v1", api_key=KEY, **facts) as client:
        found = client.embed(texts)
    assert len(found.vectors) == 2 and [len(vector) for vector in found.vectors] == [64, 64]
    for ours, theirs in zip(here.vectors, found.vectors, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert found.vectors[0] != pytest.approx(found.vectors[1], abs=1e-2)
    assert found.usage.input == here.usage.input > 0


# ---- behind each dialect we serve -------------------------------------------------------------


@pytest.fixture(scope="module")
def served(local):
    """Every dialect served on one port, the engine behind it."""

    def answering(request):
        return local.ask(request, model="local/tiny")

    with Simulator(answering=answering) as simulator:
        yield simulator


@pytest.fixture(params=NAMES)
def asking(request, served):
    served.reset()
    facts = {"dialect": request.param, "settings": Settings(), "retries": 0, "timeout": 60}
    with Client("tiny", base_url=served.base_url(request.param), api_key=KEY, **facts) as client:
        yield client


def test_behind_each_dialect_it_says_what_it_says_here_whole_and_streamed(asking, plainly):
    for response in both(asking, "hello", **SHORT):
        assert response.text == plainly.text and response.complete
        assert response.finish_reason == plainly.finish_reason == "length"
        assert tokens(response.usage) == tokens(plainly.usage)


def test_behind_each_dialect_an_answer_that_ends_by_itself_says_so(asking, local):
    direct = local.ask("hello", **SHAPED)
    for response in both(asking, "hello", **SHAPED):
        assert response.text == direct.text and is_shaped(response.text)
        assert response.finish_reason == direct.finish_reason == "stop"
        assert tokens(response.usage) == tokens(direct.usage)


def test_behind_each_dialect_what_the_engine_refuses_is_refused_in_its_words(asking, served):
    with pytest.raises(PolyvoxError) as caught:
        asking.ask("x " * 3000, **SHORT)
    assert caught.value.kind in ("context_length", "invalid_request") and caught.value.status == 400
    assert "exceeds" in str(caught.value) and served.counts.errors == {400: 1}
