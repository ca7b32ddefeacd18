"""The simulated server keeps models as the real one does: its own client pulls, lists, shows, loads, copies and deletes
them, and is refused in the same words."""

import json

import httpx
import ollama
import pytest

from polyvox.testing import Simulator
from polyvox.testing.simulate.models_kept import _length

HELLO = [{"role": "user", "content": "hi"}]


@pytest.fixture
def simulator():
    with Simulator(models=["small", "large:7b"]) as running:
        yield running


@pytest.fixture
def client(simulator):
    with ollama.Client(host=simulator.base_url("ollama.chat")) as made:
        yield made


def names(client):
    return [model.model for model in client.list().models]


def test_the_official_client_pulls_lists_shows_and_deletes(client):
    steps = list(client.pull("tiny", stream=True))
    assert steps[0].status == "pulling manifest" and steps[-1].status == "success"
    sizes = {step.digest: step.total for step in steps if step.digest}
    done = {step.digest: step.completed for step in steps if step.digest}
    assert sizes == done and len(sizes) == 3
    assert names(client) == ["small", "large:7b", "tiny:latest"]
    assert client.list().models[-1].size == sum(sizes.values())
    shown = client.show("tiny")
    assert shown.details.format == "gguf" and "completion" in shown.capabilities
    assert shown.modelinfo["demo.context_length"] == 32768
    assert client.delete("tiny").status == "success"
    assert names(client) == ["small", "large:7b"]


def test_the_official_client_pulls_in_one_piece_and_again(client):
    assert client.pull("tiny").status == "success"
    again = list(client.pull("tiny", stream=True))
    assert all(step.completed == step.total for step in again if step.digest), "what is here is not fetched again"


def test_a_model_that_was_asked_is_loaded_until_it_is_let_go(client):
    assert list(client.ps().models) == []
    client.chat("small", messages=HELLO, keep_alive="10m")
    (loaded,) = client.ps().models
    assert loaded.model == "small" and loaded.size_vram == loaded.size and loaded.context_length
    assert client.generate("small", keep_alive=0).done_reason == "unload"
    assert client.generate("large:7b").done_reason == "load"
    assert [model.model for model in client.ps().models] == ["large:7b"]
    client.chat("large:7b", messages=HELLO, keep_alive=0)
    assert list(client.ps().models) == []


def test_what_is_pulled_or_copied_can_be_asked_and_what_is_deleted_no_more(client):
    client.pull("tiny")
    client.copy("tiny", "twin")
    for name in ("tiny", "tiny:latest", "twin"):
        assert client.chat(name, messages=HELLO).message.content
    client.delete("twin")
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat("twin", messages=HELLO)
    assert caught.value.status_code == 404


@pytest.mark.parametrize("ask", ["show", "delete", "generate"])
def test_a_model_that_is_not_here_is_refused_in_the_servers_words(client, ask):
    with pytest.raises(ollama.ResponseError) as caught:
        getattr(client, ask)("nope")
    assert (caught.value.status_code, caught.value.error) == (404, "model 'nope' not found")


def test_a_model_the_library_has_not_fails_inside_the_stream(client):
    with pytest.raises(ollama.ResponseError, match="file does not exist"):
        list(client.pull("house:missing", stream=True))
    assert "house:missing" not in names(client)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model":5}', b'{"model":""}', b'{"model":"a b"}'])
def test_a_pull_that_cannot_be_is_refused_with_400(simulator, body):
    reply = httpx.post(f"{simulator.url}/api/pull", content=body)
    assert reply.status_code == 400 and reply.json()["error"]


def test_a_method_that_is_not_taken_is_refused_with_405(simulator):
    assert httpx.post(f"{simulator.url}/api/delete", json={"model": "small"}).status_code == 405


def test_a_prompt_outside_a_conversation_is_refused_and_not_answered_wrongly(client):
    with pytest.raises(ollama.ResponseError, match="/api/chat"):
        client.generate("small", "hi")


def test_a_pull_takes_its_time_and_counts_as_no_question(simulator, client):
    with Simulator(token_rate=100) as slow, ollama.Client(host=slow.base_url("ollama.chat")) as other:
        other.pull("tiny")
        assert slow.requests[0].call is None
    with Simulator(token_rate=100) as slow, ollama.Client(host=slow.base_url("ollama.chat")) as other:
        for _ in other.pull("tiny", stream=True):
            pass
        assert slow.requests[0].seconds > 0.1


def test_a_pull_that_is_left_midway_leaves_no_model_and_a_reset_forgets_those_that_came():
    with Simulator(token_rate=20) as slow, ollama.Client(host=slow.base_url("ollama.chat")) as client:
        steps = client.pull("tiny", stream=True)
        next(steps)
        steps.close()
        assert slow.wait_for(lambda running: running.requests[0].outcome is not None, 5)
        assert "tiny:latest" not in names(client)
    with Simulator() as simulator, ollama.Client(host=simulator.base_url("ollama.chat")) as client:
        client.pull("tiny")
        simulator.reset()
        assert names(client) == ["demo"]


def test_old_clients_say_the_model_by_another_key(simulator):
    assert httpx.post(f"{simulator.url}/api/show", json={"name": "small"}).json()["details"]
    lines = httpx.post(f"{simulator.url}/api/pull", json={"name": "tiny"}).text.splitlines()
    assert json.loads(lines[-1]) == {"status": "success"}


@pytest.mark.parametrize(
    ("said", "seconds"), [(5, 5), (0, 0), ("90s", 90), ("1h30m", 5400), ("500ms", 0.5), ("0s", 0), ("1.5m", 90)]
)
def test_durations_are_as_long_as_they_say(said, seconds):
    assert _length(said).total_seconds() == seconds
    if seconds:
        assert _length(f"-{said}" if isinstance(said, str) else -said).days > 36500
