"""Texts become vectors in every dialect that has embeddings: in order, however many calls that takes, with the same
deadline, retries, attempts, hooks and errors as a chat; and what fails in part has failed."""

import asyncio
import base64
import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox import AsyncClient, Client, embed
from polyvox.client.embedding import _pieces
from polyvox.config import Settings
from polyvox.dialects import Most
from polyvox.engine import Engine
from polyvox.errors import (
    AuthError,
    BadResponseError,
    CallTimeoutError,
    ConfigError,
    ConnectionFailedError,
    InputError,
    InvalidRequestError,
    LossError,
    MissingKeyError,
    NotFoundError,
    PolyvoxError,
    RateLimitError,
    ServerError,
    UsageError,
)
from polyvox.testing import Simulator
from polyvox.transports.demo.vectors import DIMENSIONS, MOST_DIMENSIONS
from polyvox.transports.demo.vectors import embed as embed_offline
from polyvox.transports.fault_plan import KINDS
from polyvox.types import EmbedRequest
from tests.scripted import Answer, failed

KEY = "sk-simulated-0123456789"
TEXTS = ("a red fox", "the tax law of 1978", "snow ❄ café", "one\ntwo")
WITH = ("openai.chat", "openai.responses", "cohere.chat", "ollama.chat", "gemini.generate")
WITHOUT = ("anthropic.messages", "bedrock.converse")


@pytest.fixture(autouse=True)
def no_pause_between_tries(monkeypatch):
    async def no_wait(seconds):
        await asyncio.sleep(0)

    monkeypatch.setitem(Engine.__init__.__kwdefaults__, "sleep", no_wait)


@pytest.fixture(scope="module")
def simulator():
    with Simulator() as running:
        yield running


def asking(simulator, dialect, model="some-model", **facts):
    return Client(model, base_url=simulator.base_url(dialect), dialect=dialect, **{"api_key": KEY, **facts})


def offline(*texts, **facts):
    return embed_offline(EmbedRequest(model="demo", inputs=texts, **facts))


class Embedder:
    """A transport that embeds by itself: the vector of a text is its number, as in "t7". What is given for a number
    happens instead: an answer, an error, or a pause before the vectors."""

    def __init__(self, instead=(), usage=True, encode=list):
        self.instead = dict(instead)
        self.usage = usage
        self.encode = encode
        self.bodies = []
        self.sent = []
        self.open = self.most_open = 0

    async def send(self, outgoing, timeouts):
        body = json.loads(outgoing.body)
        self.bodies.append(body)
        self.sent.append(outgoing)
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            numbers = [int(text.removeprefix("t")) for text in body["input"]]
            await asyncio.sleep(0)
            for number in numbers:
                found = self.instead.get(number)
                if isinstance(found, list):
                    found = found.pop(0) if found else None
                if isinstance(found, float):
                    await asyncio.sleep(found)
                elif isinstance(found, BaseException):
                    raise found
                elif found is not None:
                    return found
            return self.answer(numbers)
        finally:
            self.open -= 1

    def answer(self, numbers):
        rows = [{"index": place, "embedding": self.encode([float(each)])} for place, each in enumerate(numbers)]
        told = self.usage(numbers) if callable(self.usage) else self.usage
        usage = {"prompt_tokens": len(numbers), "total_tokens": len(numbers)} if told else None
        return Answer(json.dumps({"model": "served", "data": rows, "usage": usage}).encode())

    async def close(self):
        pass


def house(transport, kind=Client, options=None, model="house/m", **facts):
    """A client of a provider whose row has options."""
    row = {"base_url": "https://house.example/v1", "api_key": KEY, "options": {"embed_inputs": 2, **(options or {})}}
    return kind(model, settings=Settings(providers={"house": row}), transport=transport, **facts)


def numbered(count):
    return [f"t{number}" for number in range(count)]


# ---- every dialect ----------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", WITH)
def test_given_texts_when_embedded_in_a_dialect_then_each_has_its_vector(simulator, dialect):
    with asking(simulator, dialect) as client:
        found = client.embed(TEXTS)
        assert found.vectors == offline(*TEXTS).vectors
        assert found.usage.input == offline(*TEXTS).usage.input and found.usage.source == "provider"
        assert found.model in ("some-model", None) and found.deployment == f"{found.provider}/some-model"
        assert [attempt.outcome for attempt in found.attempts] == ["ok"] and found.raw
        assert not [loss for loss in found.losses if loss.severity == "loss"]
        one = client.embed(TEXTS[0])
        assert one.vectors == found.vectors[:1]
    asked = simulator.requests[-1]
    assert (asked.model, asked.status, asked.usage.input) == ("some-model", 200, one.usage.input)
    assert asked.outcome == "answered"


@pytest.mark.parametrize("dialect", WITH)
def test_a_length_that_is_asked_for_is_the_length_of_the_vectors(simulator, dialect):
    with asking(simulator, dialect) as client:
        found = client.embed(TEXTS, dimensions=5, purpose="query")
    assert found.vectors == offline(*TEXTS, dimensions=5).vectors
    assert not [loss for loss in found.losses if loss.severity == "loss" and loss.field != "purpose"]


@pytest.mark.parametrize(
    ("dialect", "said"),
    [
        ("openai.chat", {"dimensions": 5}),
        ("cohere.chat", {"output_dimension": 5, "input_type": "search_query", "truncate": "END"}),
        ("ollama.chat", {"dimensions": 5, "truncate": True}),
        ("gemini.generate", {"outputDimensionality": 5, "taskType": "RETRIEVAL_QUERY"}),
    ],
)
def test_what_a_dialect_can_say_is_on_the_wire_and_the_rest_is_a_loss(simulator, dialect, said):
    with asking(simulator, dialect) as client:
        found = client.embed("a", dimensions=5, purpose="query", truncate=True)
    body = simulator.requests[-1].json
    assert {key: body.get(key) for key in said} == said
    sayable = {"openai.chat": 1, "cohere.chat": 3, "ollama.chat": 2, "gemini.generate": 2}[dialect]
    assert len([loss for loss in found.losses if loss.severity == "loss"]) == 3 - sayable


@pytest.mark.parametrize("dialect", WITH)
def test_under_strict_what_cannot_be_said_is_not_sent(simulator, dialect):
    with asking(simulator, dialect, strict=True) as client:
        before = simulator.counts.requests
        impossible = {"openai.chat": "truncate", "openai.responses": "truncate", "ollama.chat": "purpose",
                      "gemini.generate": "truncate"}  # fmt: skip
        if dialect not in impossible:
            assert client.embed("a", purpose="query", truncate=False, dimensions=3).vectors
            return
        wanted = {"truncate": True} if impossible[dialect] == "truncate" else {"purpose": "query"}
        with pytest.raises(LossError) as caught:
            client.embed("a", **wanted)
    assert caught.value.sent == "no" and simulator.counts.requests == before


@pytest.mark.parametrize("dialect", WITHOUT)
def test_a_protocol_without_embeddings_is_one_clear_error(simulator, dialect):
    with asking(simulator, dialect) as client, pytest.raises(InputError) as caught:
        client.embed("a")
    assert f"its protocol, {dialect}, knows none" in caught.value.message
    assert "openai" in caught.value.hint and caught.value.param == "model" and caught.value.sent == "no"


def test_the_faces_of_a_call_are_one(simulator):
    async def awaited():
        async with AsyncClient("m", base_url=simulator.base_url("openai.chat"), api_key=KEY) as client:
            return await client.embed(word for word in TEXTS)

    with asking(simulator, "openai.chat", "m") as client:
        assert asyncio.run(awaited()).vectors == client.embed(list(TEXTS)).vectors
    assert embed(TEXTS, model="demo").vectors == offline(*TEXTS).vectors


def test_texts_may_be_made_by_the_client_itself_while_they_are_read():
    with Client("demo") as client:
        made = [client.ask(word).text for word in ("one", "two")]
        assert client.embed(client.ask(word).text for word in ("one", "two")).vectors == client.embed(made).vectors


@pytest.mark.parametrize(
    ("inputs", "facts", "what"),
    [
        ([], {}, "nothing to embed"),
        (b"bytes", {}, "inputs must be"),
        (5, {}, "inputs must be"),
        (["a", None], {}, r"inputs\[1\]"),
        ("a", {"dimensions": 0}, "dimensions"),
        ("a", {"dimensions": True}, "dimensions"),
        ("a", {"purpose": 5}, "purpose"),
        ("a", {"truncate": "yes"}, "truncate"),
        ("a", {"timeout": 0}, "timeout"),
        ("a", {"headers": 5}, "headers"),
        ("a", {"extra_body": "x"}, "extra_body"),
        ("a", {"model": 5}, "model"),
    ],
)
def test_what_cannot_be_asked_is_found_before_anything_is_sent(inputs, facts, what):
    transport = Embedder()
    with house(transport) as client, pytest.raises(InputError, match=what) as caught:
        client.embed(inputs, **facts)
    assert caught.value.sent == "no" and transport.sent == []


def test_headers_and_extra_keys_go_out_as_they_are_said():
    transport = Embedder()
    with house(transport, headers={"x-team": "a"}, extra_body={"of": "chats"}) as client:
        client.embed("t1", extra_body={"input_kind": "x"}, headers={"x-call": "b"})
    sent = transport.sent[0]
    assert sent.headers["x-team"] == "a" and sent.headers["x-call"] == "b"
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert transport.bodies == [{"model": "m", "input": ["t1"], "input_kind": "x"}]


def test_vectors_in_base64_are_the_same_vectors():
    def packed(numbers):
        return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()

    with house(Embedder(encode=packed)) as client:
        assert client.embed(["t1", "t2"]).vectors == ((1.0,), (2.0,))


# ---- more than one call takes -----------------------------------------------------------------


def test_given_more_texts_than_one_call_takes_then_several_are_joined_in_order():
    transport = Embedder(instead={0: 0.02, 4: 0.01})
    with house(transport) as client:
        found = client.embed(numbered(7))
    assert found.vectors == tuple((float(number),) for number in range(7))
    assert sorted(body["input"] for body in transport.bodies) == [["t0", "t1"], ["t2", "t3"], ["t4", "t5"], ["t6"]]
    assert (found.usage.input, found.usage.total, found.usage.source) == (7, 7, "provider")
    assert len(found.attempts) == 4 and found.model == "served" and found.raw == b"" and found.id is None


def test_no_more_than_a_few_calls_are_under_way_at_once():
    transport = Embedder()
    with house(transport) as client:
        assert len(client.embed(numbered(40)).vectors) == 40
    assert len(transport.sent) == 20 and transport.most_open == 4


def test_what_one_call_does_not_tell_is_not_known_of_all():
    with house(Embedder(usage=lambda numbers: 0 in numbers)) as client:
        usage = client.embed(numbered(4)).usage
    assert (usage.input, usage.total, usage.source) == (None, None, "missing")


def test_texts_that_are_long_together_go_out_apart():
    transport = Embedder()
    with house(transport, options={"embed_inputs": 100, "embed_bytes": 5}) as client:
        client.embed(["t1", "t2", "t3", "t" + "0" * 9 + "4", "t5"])
    assert [body["input"] for body in transport.bodies] == [
        ["t1", "t2"],
        ["t3"],
        ["t" + "0" * 9 + "4"],
        ["t5"],
    ]


@given(
    st.lists(st.text(max_size=6), min_size=1, max_size=30),
    st.none() | st.integers(1, 7),
    st.none() | st.integers(1, 20),
)
def test_pieces_are_all_the_texts_in_order_and_within_the_limits(texts, most, size):
    pieces = list(_pieces(tuple(texts), Most(most, size)))
    assert [text for piece in pieces for text in piece.inputs] == texts
    assert [piece.first for piece in pieces] == [sum(len(p.inputs) for p in pieces[:n]) for n in range(len(pieces))]
    for piece in pieces:
        assert piece.inputs and (most is None or len(piece.inputs) <= most)
        taken = sum(len(text.encode("utf-8", "surrogatepass")) for text in piece.inputs)
        assert size is None or taken <= size or len(piece.inputs) == 1


def test_given_one_call_of_many_fails_then_all_has_failed_and_the_error_says_which_texts():
    transport = Embedder(instead={5: failed(400, "no such thing"), 6: 5.0})
    with house(transport, retries=0) as client, pytest.raises(InvalidRequestError) as caught:
        client.embed(numbered(20), timeout=3)
    error = caught.value
    assert error.message == "texts 5 to 6 of 20 were not embedded: no such thing"
    assert (error.provider, error.model, error.billed) == ("house", "m", True)
    # Those of the calls that were answered before, and the one that failed.
    outcomes = [attempt.outcome for attempt in error.attempts]
    assert outcomes == ["ok"] * (len(outcomes) - 1) + ["invalid_request"] and len(outcomes) > 2
    assert transport.open == 0 and len(transport.sent) < 10


def test_of_failures_at_once_the_first_texts_are_named():
    transport = Embedder(instead={number: failed(401, "no") for number in range(8)})
    with house(transport) as client, pytest.raises(AuthError, match="texts 1 to 2 of 8 were"):
        client.embed(numbered(8))


def test_progress_is_told_as_it_comes_and_harms_nothing():
    told = []

    def note(done, total):
        told.append((done, total))
        raise RuntimeError("of the caller")

    with house(Embedder()) as client:
        assert len(client.embed(numbered(5), on_progress=note).vectors) == 5
        client.embed("t1", on_progress=lambda *counts: told.append(counts))
    assert sorted(told) == [(1, 1), (2, 5), (4, 5), (5, 5)]


# ---- as a chat --------------------------------------------------------------------------------


def test_what_may_pass_is_tried_again_and_every_attempt_is_told():
    with house(Embedder(instead={1: [failed(503), failed(429)]})) as client:
        found = client.embed(["t0", "t1"])
    assert [attempt.outcome for attempt in found.attempts] == ["server", "rate_limit", "ok"]
    with house(Embedder(instead={1: [failed(500)] * 9}), retries=1) as client, pytest.raises(ServerError) as caught:
        client.embed("t1")
    assert len(caught.value.attempts) == 2


def test_one_deadline_holds_for_all_calls_together():
    with house(Embedder(instead={number: 0.12 for number in range(0, 40, 2)})) as client:
        with pytest.raises(CallTimeoutError) as caught:
            client.embed(numbered(40), timeout=0.2)
    assert "no answer within 0.2 s in all" in caught.value.message and "of 40 were not embedded" in caught.value.message
    assert caught.value.billed is True
    with house(Embedder(instead={1: 5.0})) as client, pytest.raises(CallTimeoutError, match=r"^no answer within 0.1 s"):
        client.embed("t1", timeout=0.1)


def test_a_call_that_is_cancelled_leaves_nothing_under_way():
    transport = Embedder(instead={number: 5.0 for number in range(20)})

    async def cancelled():
        async with house(transport, AsyncClient) as client:
            task = asyncio.create_task(client.embed(numbered(20)))
            await asyncio.sleep(0.05)
            assert transport.open == 4
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())
    assert transport.open == 0 and len(transport.sent) == 4


def test_hooks_see_every_call_and_no_key():
    seen = []

    class Hook:
        def on_call(self, info):
            seen.append(("call", info.request.inputs))

        def on_attempt(self, info):
            seen.append(("attempt", info.attempt))

        def on_done(self, info):
            seen.append(("done", len(info.response.vectors)))
            assert KEY not in repr(info)

    with house(Embedder(), hooks=[Hook()]) as client:
        client.embed(["t0", "t1"])
    assert seen == [("call", ("t0", "t1")), ("attempt", 1), ("done", 2)]


def test_an_error_never_holds_the_key():
    with house(Embedder(instead={1: failed(401, f"the key {KEY} is wrong")})) as client:
        with pytest.raises(AuthError) as caught:
            client.embed("t1")
    assert KEY not in str(caught.value) and KEY not in repr(caught.value.attempts)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"<html>", "not valid JSON"),
        (b"{}", "unexpected shape"),
        (b'{"data": [{"embedding": [1, "x"]}]}', "unexpected shape"),
        (b'{"data": []}', "0 vectors for 1 texts"),
        (b'{"data": [{"embedding": [1]}, {"embedding": [2]}]}', "2 vectors for 1 texts"),
    ],
)
def test_an_answer_that_is_none_is_an_error_and_no_vectors(body, what):
    with house(Embedder(instead={1: [Answer(body), Answer(body)]})) as client:
        with pytest.raises(BadResponseError, match=what) as caught:
            client.embed("t1")
    assert caught.value.attempts and caught.value.sent == "yes"


def test_a_length_that_nobody_asked_for_is_a_loss_and_an_error_under_strict():
    with house(Embedder()) as client:
        found = client.embed(["t1", "t2"], dimensions=3)
        assert [loss.field for loss in found.losses] == ["dimensions"]
        assert "1 numbers, not the 3" in found.losses[0].why
        with pytest.raises(LossError, match="not the 3") as caught:
            client.embed("t1", dimensions=3, strict=True)
    assert caught.value.billed is True and caught.value.sent == "yes"


# ---- who is asked -----------------------------------------------------------------------------


def test_a_providers_name_means_its_usual_model_for_embeddings():
    transport = Embedder()
    for options, named in (({"embed_model": "usual"}, "house"), ({"embed_model": "usual"}, None)):
        with house(transport, options=options, model="house") as client:
            assert client.embed("t1", model=named).deployment == "house/usual"
    assert [body["model"] for body in transport.bodies] == ["usual", "usual"]


def test_a_model_that_is_named_goes_out_unchanged():
    transport = Embedder()
    with house(transport, options={"embed_model": "usual"}) as client:
        client.embed("t1", model="house/Some/Model:v1")
        client.embed("t1")
    assert [body["model"] for body in transport.bodies] == ["Some/Model:v1", "m"]


def test_a_client_whose_model_writes_text_asks_its_providers_usual_model_and_says_so():
    row = {"api_key": KEY, "options": {"embed_model": "usual"}}
    transport = Embedder()
    with Client("openai/gpt-4o", settings=Settings(providers={"openai": row}), transport=transport) as client:
        found = client.embed("t1")
        assert found.deployment == "openai/usual"
        assert [(loss.field, loss.severity) for loss in found.losses] == [("model", "note")]
        assert "openai/gpt-4o writes text" in found.losses[0].why
        assert client.embed("t1", model="openai/gpt-4o").deployment == "openai/gpt-4o"


def test_a_provider_without_a_usual_model_says_how_to_name_one():
    with (
        house(Embedder(), model="house") as client,
        pytest.raises(InputError, match="none is known of house") as caught,
    ):
        client.embed("t1")
    assert "house/MODEL" in caught.value.hint


def test_without_a_model_the_first_provider_with_a_key_and_a_usual_model_is_asked(monkeypatch):
    from polyvox import catalog

    for row in catalog.load().providers.values():
        for name in (*row.key_env, *row.key_parts):
            monkeypatch.delenv(name, raising=False)
    with Client(settings=Settings()) as client, pytest.raises(MissingKeyError) as caught:
        client.embed("t1")
    assert "no model for embeddings is named" in caught.value.message and 'model="demo"' in caught.value.hint
    row = {"base_url": "https://house.example/v1", "api_key": KEY, "options": {"embed_model": "usual"}}
    settings = Settings(providers={"house": row})
    with Client(settings=settings, transport=Embedder()) as client:
        assert client.embed("t1").deployment == "house/usual"


def test_a_key_that_was_passed_in_goes_to_its_own_provider_only(monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "sk-of-the-other-provider")
    rows = {
        name: {"base_url": f"https://{name}.example/v1", "api_key_env": f"{name.upper()}_KEY",
               "options": {"embed_model": "usual"}}
        for name in ("house", "other")
    }  # fmt: skip
    transport = Embedder()
    with Client("house", settings=Settings(providers=rows), api_key=KEY, transport=transport) as client:
        client.embed("t1", model="other/m")
        client.embed("t1", model="house/m")
        client.embed("t1")
    sent = [(each.url, each.headers["authorization"]) for each in transport.sent]
    assert sent[0] == ("https://other.example/v1/embeddings", "Bearer sk-of-the-other-provider")
    assert sent[1:] == [("https://house.example/v1/embeddings", f"Bearer {KEY}")] * 2
    with Client(settings=Settings(providers=rows), api_key=KEY) as client, pytest.raises(InputError, match="whose key"):
        client.embed("t1")


def keeping(simulator=None):
    """Settings in which the server on this machine that keeps models is the simulated one, or nowhere."""
    url = "http://127.0.0.1:9" if simulator is None else simulator.base_url("ollama.chat")
    return Settings(providers={"ollama": {"base_url": url}})


def test_a_model_that_only_a_server_on_this_machine_knows_is_looked_for_there():
    with Simulator(models=["house-embedder"]) as simulator, Client(settings=keeping(simulator)) as client:
        found = client.embed("a", model="house-embedder", dimensions=4)
        assert found.deployment == "ollama/house-embedder" and found.vectors == offline("a", dimensions=4).vectors
        with pytest.raises(NotFoundError) as caught:
            client.embed("a", model="ollama/nothing")
        assert "polyvox models pull ollama/nothing" in caught.value.hint
    with Client("ollama/m", settings=keeping(), retries=0) as client, pytest.raises(ConnectionFailedError) as caught:
        client.embed("a")
    assert "start it there" in caught.value.hint


def test_a_backend_answers_chats_only():
    class Echo:
        name = "echo"

        def ask(self, prompt):
            return prompt

    with Client(backend=Echo()) as client, pytest.raises(UsageError, match="'echo' has no embeddings") as caught:
        client.embed("a")
    assert caught.value.sent == "no"


def test_a_closed_client_embeds_no_more():
    client = Client("demo")
    client.embed("a")
    client.close()
    with pytest.raises(UsageError, match="closed"):
        client.embed("a")


@pytest.mark.parametrize("value", [0, -1, "ten", 2.5, True])
def test_a_limit_in_the_configuration_that_is_none_is_a_configuration_error(value):
    with house(Embedder(), options={"embed_inputs": value}) as client, pytest.raises(ConfigError, match="embed_inputs"):
        client.embed("t1")


# ---- the simulated provider -------------------------------------------------------------------


def test_the_simulated_provider_demands_a_key_and_knows_its_models():
    with Simulator(keys=["sk-other-0123456789"], models=["known"]) as simulator:
        for dialect in WITH:
            with asking(simulator, dialect) as client, pytest.raises(AuthError):
                client.embed("a")
            with asking(simulator, dialect, api_key="sk-other-0123456789") as client:
                with pytest.raises(NotFoundError, match="some-model"):
                    client.embed("a")
                assert client.embed("a", model="known").vectors


@pytest.mark.parametrize("dialect", WITH)
def test_the_simulated_provider_limits_and_counts_vectors_as_it_does_chats(dialect):
    with Simulator(rpm=2) as simulator, asking(simulator, dialect, retries=0) as client:
        client.embed("one two three")
        client.embed("one two three")
        kind = ServerError if dialect == "ollama.chat" else RateLimitError
        with pytest.raises(kind):
            client.embed("a")
        counts = simulator.counts
    assert (counts.answers, counts.tokens_in, counts.tokens_out, counts.usage_unknown) == (2, 8, 0, 0)
    assert sum(counts.errors.values()) == 1 and counts.by_model["some-model"].requests == 3


@pytest.mark.parametrize("dialect", WITH)
def test_the_simulated_provider_breaks_vectors_by_plan(dialect):
    plan = [{"at": 1, "kind": "status", "status": 503}, {"at": 2, "kind": "reset"}]
    with Simulator(plan=plan) as simulator, asking(simulator, dialect) as client:
        found = client.embed("a")
    assert [attempt.outcome for attempt in found.attempts][-1] == "ok" and len(found.attempts) == 3


# Of a stream only, or such as do an answer no harm.
HARMLESS = {"delay", "drip", "split", "slow_head", "gzip_bomb", "error_event", "no_end", "endless"}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"refuse", "connect_timeout"}))  # which need no server
def test_whatever_breaks_there_are_the_right_vectors_or_an_error(kind):
    needs = {"delay": {"seconds": 0.02}, "slow_head": {"seconds": 0.0002}, "huge_line": {"size": 1 << 20}}
    cut = {each: {"after": 40} for each in ("cut", "reset", "stall", "half_close", "bad_chunk", "garble")}
    sized = {each: {"size": 100_000} for each in ("endless", "gzip_bomb", "header_bomb")}
    plan = [{"kind": kind, **{**needs, **cut, **sized}.get(kind, {})}]
    patience = 30 if kind in HARMLESS else 1
    with Simulator(plan=plan) as simulator, asking(simulator, "openai.chat", retries=0, timeout=patience) as client:
        try:
            assert client.embed(TEXTS).vectors == offline(*TEXTS).vectors
            assert kind in HARMLESS
        except PolyvoxError as error:
            assert kind not in HARMLESS and len(error.attempts) == 1 and KEY not in str(error)


def test_the_simulated_provider_refuses_more_texts_than_the_real_one_and_ours_splits_them():
    texts = [f"text {number}" for number in range(250)]
    for dialect, calls in (("cohere.chat", 3), ("gemini.generate", 3), ("openai.chat", 1), ("ollama.chat", 1)):
        with Simulator() as simulator, asking(simulator, dialect) as client:
            assert client.embed(texts, dimensions=4).vectors == offline(*texts, dimensions=4).vectors
            assert simulator.counts.answers == calls
            body = {"model": "m", "texts": texts, "input_type": "clustering", "embedding_types": ["float"]}
            if dialect == "cohere.chat":
                with pytest.raises(InvalidRequestError, match="at most 96 texts"):
                    client.embed("a", extra_body={"texts": body["texts"]})


def test_recorded_vectors_are_answered_again_with_the_tokens_they_took(tmp_path):
    path = tmp_path / "recording.jsonl"
    with Simulator() as simulator, asking(simulator, "openai.chat", record=path) as client:
        first = client.embed(TEXTS)
    assert KEY not in path.read_text()
    with Simulator(replay=path) as simulator, asking(simulator, "openai.chat", retries=0) as client:
        assert client.embed(TEXTS).vectors == first.vectors
        with pytest.raises(NotFoundError):
            client.embed("what was never asked")
        counts = simulator.counts
    assert (counts.answers, counts.tokens_in, counts.usage_unknown) == (1, first.usage.input, 0)
    with Client("some-model", base_url=simulator_url(path), replay=path) as client:
        assert client.embed(TEXTS).vectors == first.vectors


def simulator_url(path):
    return json.loads(path.read_text().splitlines()[-1])["url"].removesuffix("/embeddings")


# ---- the offline model ------------------------------------------------------------------------


@given(st.text(min_size=1), st.integers(1, 40))
def test_an_offline_vector_is_the_same_again_has_length_one_and_fits_single_precision(text, length):
    (vector,) = offline(text, dimensions=length).vectors
    assert offline("other", text, dimensions=length).vectors[1] == vector
    assert len(vector) == length and math.isclose(sum(each * each for each in vector), 1.0, rel_tol=1e-5)
    assert struct.unpack(f"<{length}f", struct.pack(f"<{length}f", *vector)) == vector


def test_offline_vectors_are_near_where_words_are_shared():
    one, two, other = offline("the red fox", "a red fox", "tax law").vectors
    near, far = (sum(a * b for a, b in zip(one, each, strict=True)) for each in (two, other))
    assert near > 0.5 > far and len(one) == DIMENSIONS


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (EmbedRequest(model="other", inputs=("a",)), "model"),
        (EmbedRequest(model="demo"), "input"),
        (EmbedRequest(model="demo", inputs=("a", "")), "input"),
        (EmbedRequest(model="demo", inputs=("a",), dimensions=0), "dimensions"),
        (EmbedRequest(model="demo", inputs=("a",), dimensions=MOST_DIMENSIONS + 1), "dimensions"),
    ],
)
def test_the_offline_model_says_what_it_cannot_embed(request_, param):
    with pytest.raises((InputError, NotFoundError)) as caught:
        embed_offline(request_)
    assert caught.value.param == param


# ---- a model on this machine ------------------------------------------------------------------


def test_a_model_file_on_this_machine_embeds(model_files):
    pytest.importorskip("xllamacpp", reason="the extra `local` is not installed")
    from polyvox.transports.local import LocalTransport

    transport = LocalTransport(model_files)
    try:
        with Client("local/tiny", transport=transport, settings=Settings(), timeout=120) as client:
            found = client.embed(["hello", "hello", "something else"])
            same, again, other = found.vectors
            assert same == again != other and len(same) == len(other) > 8
            assert found.usage.input > 0 and found.deployment == "local/tiny" and not found.losses
    finally:
        asyncio.run(transport.close())
