"""Embeddings in every protocol that has them: what is asked reaches the wire and is read again, vectors are the same
numbers in whatever form they travel, and nothing leaves our tree of errors."""

import json
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, structs

from polyvox.dialects import Endpoint, Reply, Wire, embeds
from polyvox.dialects.embedding import read_vector, write_vector
from polyvox.errors import BadResponseError, InputError, PolyvoxError
from polyvox.testing.replay import decode, embeddings_of
from polyvox.types import Embeddings, EmbedRequest
from tests.dialects.test_embedding_vectors import AT, CASES, ROOMS, body_of, room_of

TRAFFIC = Path(os.environ.get("POLYVOX_TRAFFIC", ""))

# ---- there and back ---------------------------------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
KEYS = st.dictionaries(st.sampled_from(["mood", "novel"]), WORDS | st.integers(0, 9), max_size=2)
PURPOSES = st.sampled_from(["query", "document", "classification", "clustering", "novel"])
ALL = {
    "dimensions": st.integers(1, 4096), "purpose": PURPOSES, "truncate": st.booleans(),
    "encoding": st.sampled_from(["float", "base64"]), "user": WORDS,
}  # fmt: skip
# Which of the fields a protocol has a word for; those that it needs come always.
SAID = {
    "openai": ("dimensions", "purpose", "truncate", "encoding", "user"),
    "cohere": ("dimensions", "purpose", "truncate", "encoding"),
    "ollama": ("dimensions", "truncate"),
    "gemini": ("dimensions", "purpose"),
}
NEEDED = {"cohere": ("purpose",)}
OPTIONS = {"openai": {"embed_purpose": "input_type", "embed_truncate": "truncation"}}


@pytest.mark.parametrize("name", ROOMS)
@given(st.data())
def test_what_is_asked_is_read_as_it_was_meant(name, data):
    room, at = room_of(name), Endpoint(options=OPTIONS.get(name, {}))
    said = {
        field: data.draw(ALL[field] if field in NEEDED.get(name, ()) else st.just(UNSET) | ALL[field])
        for field in SAID[name]
    }
    keys = data.draw(KEYS)
    inputs = tuple(data.draw(st.lists(WORDS, min_size=1, max_size=3)))
    request = EmbedRequest(model="m", inputs=inputs, extra={room.name: keys} if keys else {}, **said)
    wire, losses = room.encode(request, at)
    assert losses == ()
    assert room.decode_request(wire, at) == request


@pytest.mark.parametrize("name", ROOMS)
def test_requests_read_are_asked_again_in_the_same_words(name):
    room = room_of(name)
    for _, _, case in [found for found in CASES if found[0] == name and found[2]["case"] == "asked"]:
        if "request" not in case or not (case["request"].get("inputs") or case["request"].get("extra")):
            continue
        request = msgspec.convert(case["request"], EmbedRequest)
        wire, losses = room.encode(request, Endpoint(options=OPTIONS.get(name, {})))
        assert losses == () and room.decode_request(wire, AT) == request


def said_and_read(room, found, asked):
    reply, losses = room.encode_response(found, asked)
    assert losses == ()
    again = room.decode(reply, AT)
    assert structs.replace(again, raw=b"", usage=structs.replace(again.usage, raw={})) == structs.replace(
        found, raw=b"", usage=structs.replace(found.usage, raw={})
    )


FORMS = {"ollama": {"prompt": "a"}, "gemini": {"batch": True}}


@pytest.mark.parametrize("name", ROOMS)
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_read_are_said_and_read_again(name, encoding):
    room = room_of(name)
    count = 0
    for _, _, case in [found for found in CASES if found[0] == name and found[2]["case"] == "response"]:
        if "expect" in case:
            found = room.decode(Reply(200, {}, body_of(case)), AT)
            if name == "openai" and found.usage.input is None:
                continue  # a number is told all the same
            if name == "cohere":
                keys = {"texts": ["a"], "response_type": "embeddings_by_type", **found.extra.get(room.name, {})}
                found = structs.replace(found, extra={room.name: keys})
            said_and_read(room, found, EmbedRequest(model="m", inputs=("a",), encoding=encoding))
            count += 1
    assert count


@pytest.mark.parametrize("name", FORMS)
def test_the_form_of_an_answer_is_that_of_the_question(name):
    room = room_of(name)
    found = Embeddings(((1.0,),))
    plain, _ = room.encode_response(found, EmbedRequest(model="m", inputs=("a",)))
    other, _ = room.encode_response(found, EmbedRequest(model="m", inputs=("a",), extra={room.name: FORMS[name]}))
    assert json.loads(plain.body).keys() != json.loads(other.body).keys()
    assert room.decode(plain, AT).vectors == room.decode(other, AT).vectors == found.vectors


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)).map(tuple))
def test_base64_and_numbers_say_the_same_vector(vector):
    for encoding in ("float", "base64", UNSET):
        assert read_vector(write_vector(vector, EmbedRequest(model="m", encoding=encoding))) == vector


def test_a_number_too_large_for_base64_is_an_error_of_ours():
    with pytest.raises(BadResponseError):
        write_vector((1e39,), EmbedRequest(model="m", encoding="base64"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(["", "x", "AACAPw=="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([
        "data", "embedding", "embeddings", "index", "usage", "prompt_tokens", "model", "id", "values", "meta",
        "billed_units", "float", "int8", "usageMetadata", "error", "message", "input", "texts", "input_type", "prompt",
        "requests", "content", "parts", "text", "taskType", "truncate", "embedding_types",
    ]), inner, max_size=5),
    max_leaves=15,
)  # fmt: skip


@pytest.mark.parametrize("name", ROOMS)
@given(JSON)
def test_any_json_is_read_or_refused_in_our_tree(name, value):
    room = room_of(name)
    body = json.dumps(value).encode()
    try:
        assert all(type(number) is float for vector in room.decode(Reply(200, {}, body), AT).vectors
                   for number in vector)  # fmt: skip
    except PolyvoxError:
        pass
    assert isinstance(room.decode_error(Reply(400, {}, body), AT), PolyvoxError)
    for path in ("/", "/v1beta/models/m:embedContent", "/v1beta/models/m:batchEmbedContents"):
        try:
            request = room.decode_request(Wire(path, body, {}), AT)
        except InputError as error:
            assert error.param is None or error.message.startswith(error.param)
        else:
            assert msgspec.convert(msgspec.to_builtins(request), EmbedRequest) == request


@pytest.mark.parametrize("name", ROOMS)
def test_what_json_cannot_say_is_an_error_of_ours(name):
    room = room_of(name)
    odd = {room.name: {"x": object()}}
    with pytest.raises(InputError) as caught:
        room.encode(EmbedRequest(model="m", inputs=("a",), extra=odd), AT)
    assert caught.value.sent == "no"
    with pytest.raises(BadResponseError):
        room.encode_response(Embeddings(vectors=((1.0,),), extra=odd), EmbedRequest(model="m", inputs=("a",)))


def test_a_dialect_without_embeddings_has_none():
    assert embeds("anthropic.messages") is None
    assert embeds("openai.responses") is embeds("openai.chat")


def test_recorded_embeddings_decode_to_what_they_must():
    if not (TRAFFIC / "dev-expected.jsonl").is_file():
        pytest.skip("set POLYVOX_TRAFFIC to a folder with recorded exchanges (dev.jsonl, dev-expected.jsonl)")
    rows = [json.loads(line) for line in (TRAFFIC / "dev-expected.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = {row["id"]: row for row in rows if row["dialect"].endswith((".embed", ".embeddings"))}
    compared = 0
    for line in (TRAFFIC / "dev.jsonl").read_text(encoding="utf-8").splitlines():
        exchange = json.loads(line)
        wanted = expected.get(exchange["id"])
        if wanted is None:
            continue
        got = decode(exchange)
        compared += 1
        assert (got["kind"], got.get("embeddings")) == (wanted["kind"], wanted["embeddings"]), wanted["id"]
        if wanted["kind"] == "error":
            assert got["error"]["kind"] in (wanted["error"]["kind"], *wanted["judged"].get("error.kind", ()))
        else:
            assert all(got["usage"][key] == count for key, count in wanted["usage"].items() if count is not None)
            said_and_read_as_recorded(exchange)
    assert compared == len(expected) > 0


def said_and_read_as_recorded(exchange):
    """A recorded question is read, and its recorded answer is said to whoever asked it so that it reads the same."""
    room = embeds(embeddings_of(exchange["url"]))
    path = "/" + exchange["url"].split("://")[1].partition("/")[2]
    asked = room.decode_request(Wire(path, json.dumps(exchange["request_json"]).encode(), {}), AT)
    found = room.decode(Reply(200, {}, exchange["response_text"].encode()), AT)
    assert len(found.vectors) == len(asked.inputs)
    said_and_read(room, found, asked)
