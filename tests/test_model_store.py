"""Models that a server keeps, through the client: what is asked and with which proof, what goes wrong and what helps.
A model that nobody is known to serve is found on the server that has it."""

import asyncio
import json
import threading
import time

import pytest

from polyvox import AsyncClient, Client
from polyvox.client.deployments import Deployments
from polyvox.config import Settings
from polyvox.dialects.model_store import PullProgress
from polyvox.errors import (
    BadResponseError,
    CallTimeoutError,
    ConnectionFailedError,
    InputError,
    NotFoundError,
    PolyvoxError,
    ServerError,
    StreamInterruptedError,
    UnknownModelError,
    UnknownProviderError,
    UsageError,
)
from polyvox.testing import Simulator
from tests.scripted import Answer, Scripted, failed

SECRET = "canary-5d41402abc4b2a76"
NOBODY = {"ollama": {"base_url": "http://127.0.0.1:9"}}


def lines(*steps):
    return b"".join(json.dumps(step).encode() + b"\n" for step in steps)


def scripted(*answers, **facts):
    transport = Scripted(*answers)
    return Client(settings=Settings(**facts), transport=transport), transport


@pytest.fixture
def simulator():
    with Simulator(models=["small", "large:7b"]) as running:
        yield running


@pytest.fixture
def client(simulator):
    with Client(settings=at(simulator)) as made:
        yield made


def at(simulator, **facts):
    return Settings(providers={"ollama": {"base_url": simulator.base_url("ollama.chat")}}, retries=0, **facts)


# ---- what a server keeps ----------------------------------------------------------------------


def test_a_model_is_pulled_shown_loaded_unloaded_copied_and_deleted(client):
    store = client.model_store()
    assert [model.name for model in store.list()] == ["small", "large:7b"]
    with store.pull("tiny") as pull:
        steps = list(pull)
    assert steps[0].status == "pulling manifest" and steps[-1] == PullProgress("success")
    assert any(step.completed == step.total and step.total for step in steps)
    facts = store.show("ollama/tiny")
    assert facts.context == 32768 and "tools" in facts.capabilities and "num_ctx" in facts.parameters
    store.load("tiny", keep_alive="1h")
    (loaded,) = store.loaded()
    assert loaded.name == "tiny:latest" and 3500 < loaded.expires - time.time() < 3700
    store.unload("tiny")
    assert store.loaded() == ()
    store.copy("tiny", "twin")
    store.delete("ollama:tiny")
    assert [model.name for model in store.list()] == ["small", "large:7b", "twin:latest"]


def test_the_async_face_does_the_same(simulator):
    async def run():
        async with AsyncClient(settings=at(simulator)) as client:
            store = client.model_store("ollama")
            async with store.pull("tiny") as pull:
                steps = [step async for step in pull]
            await store.pull("tiny").finish()
            await store.load("tiny")
            loaded = await store.loaded()
            await store.unload("tiny")
            await store.copy("tiny", "twin")
            await store.delete("tiny")
            return steps, loaded, await store.list(), await store.show("twin")

    steps, loaded, models, facts = asyncio.run(run())
    assert steps[-1].status == "success" and loaded[0].name == "tiny:latest"
    assert [model.name for model in models][-1] == "twin:latest" and facts.name == "twin"


def test_a_list_that_was_kept_is_forgotten_when_models_come_and_go(client):
    before = client.models("ollama")
    client.model_store().pull("tiny").finish()
    assert len(client.models("ollama")) == len(before) + 1
    client.model_store().delete("tiny")
    assert client.models("ollama") == before


def test_a_model_stays_loaded_for_as_long_as_a_call_says(client, simulator):
    client.ask("hi", model="ollama/small", extra={"ollama.chat": {"keep_alive": "2h"}})
    (loaded,) = client.model_store().loaded()
    assert loaded.expires - time.time() > 7000


def test_the_servers_key_goes_along_and_nowhere_else(monkeypatch):
    monkeypatch.setenv("OLLAMA_API_KEY", SECRET)
    store_of, transport = scripted(
        Answer(b'{"models":[]}'), Answer(f'{{"error":"bad key {SECRET}"}}'.encode(), status=401)
    )
    store = store_of.model_store()
    assert store.list() == ()
    assert transport.sent[0].headers["authorization"] == f"Bearer {SECRET}"
    with pytest.raises(PolyvoxError) as caught:
        store.show("m")
    assert SECRET not in str(caught.value) + repr(store) and caught.value.provider == "ollama"


# ---- which server -----------------------------------------------------------------------------


def test_the_clients_own_server_is_meant_when_none_is_named(simulator):
    url = simulator.base_url("ollama.chat")
    with Client("small", base_url=url, dialect="ollama.chat") as client:
        assert [model.name for model in client.model_store().list()] == ["small", "large:7b"]
    box = Settings(providers={**NOBODY, "box": {"base_url": url, "dialect": "ollama.chat", "auth": "none"}})
    with Client("box/small", settings=box) as client:
        assert len(client.model_store().list()) == 2
    with Client(settings=box) as client:
        assert len(client.model_store("box").list()) == 2


@pytest.mark.parametrize(
    ("provider", "kind", "words"),
    [
        ("openai", UsageError, "OpenAI keeps no models"),
        ("olama", UnknownProviderError, "olama"),
        (5, InputError, "provider"),
    ],
)
def test_a_provider_that_keeps_no_models_is_one_clear_error(provider, kind, words):
    with pytest.raises(kind, match=words):
        Client(settings=Settings()).model_store(provider).list()


@pytest.mark.parametrize("name", ["", "  ", None, 5, "a\nb", "a\x00", "ollama/"])
def test_a_name_that_is_none_is_refused_before_anything_is_sent(name):
    client, transport = scripted()
    store = client.model_store()
    for ask in (store.show, store.pull, store.delete, store.load, lambda name: store.copy("a", name)):
        with pytest.raises(InputError):
            ask(name)
    assert transport.sent == []


@pytest.mark.parametrize("stall", [0, -1, "long", True])
def test_a_silence_that_is_no_time_is_refused(stall):
    with pytest.raises(InputError, match="stall"):
        scripted()[0].model_store().pull("m", stall=stall)


def test_a_client_that_is_closed_keeps_nothing():
    client, _ = scripted()
    store = client.model_store()
    client.close()
    with pytest.raises(UsageError, match="closed"):
        store.list()


# ---- what goes wrong --------------------------------------------------------------------------


def test_nobody_there_says_how_to_start_the_server():
    with Client(settings=Settings(providers=NOBODY, retries=0)) as client:
        for ask in (
            client.model_store().list,
            lambda: client.ask("hi", model="llama3.2"),
            lambda: list(client.stream("hi", model="qwen3:0.6b")),
        ):
            with pytest.raises(ConnectionFailedError) as caught:
                ask()
            assert "ollama serve" in caught.value.hint and "127.0.0.1:9" in caught.value.hint


def test_a_model_that_is_not_there_says_how_to_fetch_it(client):
    for ask in (
        lambda: client.model_store().show("nope"),
        lambda: client.ask("hi", model="ollama/nope"),
        lambda: client.ask("hi", model="llama3.2:1b"),
        lambda: list(client.stream("hi", model="ollama/nope")),
    ):
        with pytest.raises(NotFoundError) as caught:
            ask()
        assert "polyvox models pull ollama/" in caught.value.hint


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(b"<html>"), BadResponseError),
        (Answer(b'{"models":5}'), BadResponseError),
        (Answer(b"", status=302), BadResponseError),
        (Answer(b'{"error":"no"}', status=500), ServerError),
        (ConnectionFailedError("gone", sent="no"), ConnectionFailedError),
    ],
)
def test_an_answer_that_is_none_is_one_error_that_names_the_provider(answer, kind):
    client, transport = scripted(answer)
    with pytest.raises(kind) as caught:
        client.model_store().list()
    assert caught.value.provider == "ollama"
    assert all(given.closed for given in transport.given)


# ---- pulls that do not end well ---------------------------------------------------------------

BEGUN = lines({"status": "pulling manifest"}, {"status": "pulling 1", "digest": "sha256:1", "total": 9, "completed": 3})


@pytest.mark.parametrize(
    ("chunks", "kind", "hint"),
    [
        ([BEGUN], StreamInterruptedError, "goes on from there"),
        ([BEGUN, StreamInterruptedError("cut", sent="yes")], StreamInterruptedError, "goes on from there"),
        ([BEGUN, CallTimeoutError("idle", sent="yes")], CallTimeoutError, "goes on from there"),
        ([BEGUN, lines({"error": "digest mismatch"})], PolyvoxError, ""),
        ([BEGUN, b"rubbish\n"], BadResponseError, ""),
    ],
)
def test_a_pull_that_does_not_end_with_success_tells_its_steps_and_then_fails(chunks, kind, hint):
    client, transport = scripted(Answer(*chunks))
    seen = []
    pull = client.model_store().pull("m")
    with pytest.raises(kind) as caught:
        seen += pull  # what was told stays
    with pull, pytest.raises(kind):
        for step in pull:
            seen.append(step)
    assert hint in caught.value.hint and caught.value.provider == "ollama" and caught.value.model == "m"
    assert transport.given[0].closed


def test_the_steps_before_a_failure_are_shown():
    client, _ = scripted(Answer(BEGUN + lines({"error": "disk full"})))
    seen = []
    with pytest.raises(PolyvoxError, match="disk full"):
        for step in client.model_store().pull("m"):
            seen.append(step.status)
    assert seen == ["pulling manifest", "pulling 1"]


def test_a_refused_pull_is_that_error_and_asking_again_begins_anew():
    client, transport = scripted(
        Answer(b'{"error":"invalid model name"}', status=400), Answer(lines({"status": "success"}))
    )
    store = client.model_store()
    with pytest.raises(PolyvoxError, match="invalid model name"):
        store.pull("m").finish()
    store.pull("m").finish()
    assert len(transport.sent) == 2


def test_a_pull_is_bounded_by_silence_and_not_in_all(simulator):
    client, transport = scripted(Answer(lines({"status": "success"})))
    client.model_store().pull("m", stall=7).finish()
    limits = transport.timeouts[0]
    assert (limits.first_byte, limits.idle) == (7, 7)


def test_a_stalled_pull_ends_after_its_silence():
    with Simulator(token_rate=0.5) as slow, Client(settings=at(slow)) as client:
        begun = time.monotonic()
        with pytest.raises(CallTimeoutError) as caught:
            client.model_store().pull("m", stall=0.3).finish()
        assert time.monotonic() - begun < 2 and "goes on from there" in caught.value.hint


def test_a_pull_that_is_left_stops_the_server_and_leaves_no_model():
    with Simulator(token_rate=20) as slow, Client(settings=at(slow)) as client:
        store = client.model_store()
        with store.pull("m") as pull:
            assert next(pull).status == "pulling manifest"
        with pytest.raises(UsageError, match="closed"):
            next(pull)
        assert slow.wait_for(lambda running: running.requests[0].outcome is not None, 5)
        assert "m:latest" not in [model.name for model in store.list()]


def test_a_pull_that_is_cancelled_lets_its_connection_go():
    class Endless(Answer):
        async def chunk(self):
            return await super().chunk() or await asyncio.sleep(60)

    async def run():
        transport = Scripted(Endless(BEGUN))
        async with AsyncClient(settings=Settings(), transport=transport) as client:
            task = asyncio.create_task(client.model_store().pull("m").finish())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return transport.given[0].closed

    assert asyncio.run(run())


# ---- a model that only a server knows ---------------------------------------------------------


def test_a_name_nobody_claims_means_the_local_model_it_fits(client, simulator):
    assert client.ask("hi", model="small").deployment == "ollama/small"
    client.model_store().pull("house").finish()
    for _ in range(3):
        assert client.ask("hi", model="house").deployment == "ollama/house"
    assert client.stream("hi", model="house").finish().deployment == "ollama/house"
    tags = [asked for asked in simulator.requests if asked.path == "/api/tags"]
    assert len(tags) == 2, "each name is looked for once"


def test_a_stream_of_such_a_model_is_found_when_it_is_read(simulator):
    with Client("small", settings=at(simulator)) as client:
        with client.stream("hi") as stream:
            assert simulator.requests == ()
            assert "".join(stream) and stream.response.deployment == "ollama/small"

    async def run():
        async with AsyncClient("large:7b", settings=at(simulator)) as client:
            return [text async for text in client.stream("hi")], (await client.ask("hi")).deployment

    texts, deployment = asyncio.run(run())
    assert texts and deployment == "ollama/large:7b"


def test_a_name_that_somebody_claims_is_never_looked_for():
    client, transport = scripted(providers={"openai": {"api_key": "sk-1234567890123"}})
    for name in ("gpt-4o", "openai/gpt-4o", "openai/house", "llama3.2", "qwen3:0.6b", "demo"):
        Deployments(Settings()).explained(name)
        assert not client._async._deployments.can_seek(name)
    assert client._async._deployments.can_seek("house") and transport.sent == []


@pytest.mark.parametrize("facts", [{"base_url": "http://127.0.0.1:9/v1"}, {"api_key": "sk-12345678901234"}])
def test_a_client_with_an_address_or_a_key_for_nobody_looks_nowhere(facts):
    client = Client("house", settings=Settings(), transport=Scripted(failed(404, "no")), retries=0, **facts)
    with pytest.raises(NotFoundError):
        client.ask("hi")
    assert not client._async._deployments.can_seek("house")


def test_a_key_for_one_provider_is_not_shown_to_the_server_that_is_asked():
    transport = Scripted(Answer(b'{"models":[{"name":"house:latest"}]}'), Answer(b"{}", status=500))
    client = Client("openai/gpt-4o", api_key=SECRET, settings=Settings(), transport=transport, retries=0)
    with pytest.raises(PolyvoxError):
        client.ask("hi", model="house")
    assert [sent.url.rpartition("/")[2] for sent in transport.sent] == ["tags", "chat"]
    assert all(SECRET not in str(sent.headers) for sent in transport.sent)


def test_a_server_that_has_not_got_it_says_how_to_fetch_it_and_the_next_look_may_find_it(client):
    for ask in (lambda: client.ask("hi", model="house"), lambda: list(client.stream("hi", model="house"))):
        with pytest.raises(UnknownModelError) as caught:
            ask()
        assert "polyvox models pull ollama/house" in caught.value.hint
    with Client(settings=client._async._deployments.settings) as other:
        other.model_store().pull("house").finish()
    assert client.ask("hi", model="house").deployment == "ollama/house"


def test_a_server_that_is_not_there_says_how_to_start_it_and_costs_no_time():
    begun = time.monotonic()
    with pytest.raises(UnknownModelError) as caught:
        Client(settings=Settings(providers=NOBODY)).ask("hi", model="house")
    assert "ollama serve" in caught.value.hint and time.monotonic() - begun < 2


def test_a_server_that_does_not_answer_is_given_up_quickly():
    client, _ = scripted(30.0)
    begun = time.monotonic()
    with pytest.raises(UnknownModelError, match="house"):
        client.ask("hi", model="house")
    assert time.monotonic() - begun < 3


def test_a_misspelt_provider_is_still_told_by_the_nearest_name(client):
    with pytest.raises(UnknownProviderError) as caught:
        client.ask("hi", model="opnai/gpt-5")
    assert "openai/gpt-5" in caught.value.hint and "pull" not in caught.value.hint


def test_a_name_with_a_slash_that_is_no_providers_is_found_too(client):
    client.model_store().pull("hf.co/house/model:q4").finish()
    assert client.ask("hi", model="hf.co/house/model:q4").deployment == "ollama/hf.co/house/model:q4"


def test_two_servers_with_the_same_model_are_told_apart_by_name(simulator):
    url = simulator.base_url("ollama.chat")
    both = Settings(providers={"ollama": {"base_url": url}, "box": {"base_url": url, "dialect": "ollama.chat", "auth": "none", "local": True}})  # fmt: skip  # noqa: E501
    with Client(settings=both) as client, pytest.raises(UnknownModelError) as caught:
        client.ask("hi", model="small")
    assert "ollama/small" in caught.value.hint and "box/small" in caught.value.hint


def test_a_client_of_such_a_model_lists_and_keeps_the_models_of_its_server(simulator):
    with Client("small", settings=at(simulator)) as client:
        assert [model.id for model in client.models()] == ["small", "large:7b"]
        assert [model.name for model in client.model_store().list()] == ["small", "large:7b"]
    with Client("house", settings=at(simulator)) as client, pytest.raises(UnknownModelError):
        client.models()


def test_a_recording_of_such_a_call_is_replayed_with_the_list_it_was_found_in(simulator, tmp_path):
    file = tmp_path / "talk.jsonl"
    with Client("small", settings=at(simulator), record=file) as client:
        said = client.ask("hi").text
    asked = len(simulator.requests)
    with Client("small", settings=at(simulator), replay=file) as client:
        assert client.ask("hi").text == said
    assert len(simulator.requests) == asked


def test_an_alias_may_mean_a_local_model(simulator):
    with Client(settings=at(simulator, aliases={"mine": "small"})) as client:
        assert client.ask("hi", model="@mine").deployment == "ollama/small"


def test_many_threads_that_look_for_one_model_all_find_it(client):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(client.ask("hi", model="small").deployment)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["ollama/small"] * 8
