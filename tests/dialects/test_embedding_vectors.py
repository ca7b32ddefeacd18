"""Every vector of the embeddings holds, in every protocol that has them: requests, answers, both from both sides."""

import json
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from polyvox.dialects import Endpoint, Reply, Wire, embeds
from polyvox.errors import ConfigError, InputError, PolyvoxError
from polyvox.types import Embeddings, EmbedRequest

ROOMS = {
    "openai": "openai.chat",
    "cohere": "cohere.chat",
    "ollama": "ollama.chat",
    "gemini": "gemini.generate",
}
FOLDER = Path(__file__).parent / "embeddings"
CASES = [
    (name, number, case)
    for name in ROOMS
    for number, case in enumerate(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))
]
AT = Endpoint(origin="test/model")


def room_of(name):
    return embeds(ROOMS[name])


def cases(kind):
    return [
        pytest.param(room_of(name), case, id=f"{name}-{number}") for name, number, case in CASES if case["case"] == kind
    ]


def body_of(case):
    return case["text"].encode() if "text" in case else json.dumps(case["body"]).encode()


def fields_of(losses):
    return sorted(loss.field for loss in losses)


@pytest.mark.parametrize(("room", "case"), cases("request"))
def test_a_request_encodes_to_exactly_these_bytes_and_losses(room, case):
    request = msgspec.convert(case["request"], EmbedRequest)
    at = Endpoint(origin="test/model", options=case.get("options", {}))
    if "refused" in case:
        with pytest.raises(InputError) as caught:
            room.encode(request, at)
        assert caught.value.param == case["refused"]["param"] and caught.value.sent == "no"
        return
    wire, losses = room.encode(request, at)
    assert (wire.path, json.loads(wire.body)) == (case["wire"]["path"], case["wire"]["body"])
    assert fields_of(losses) == sorted(case["losses"])


@pytest.mark.parametrize(("room", "case"), cases("response"))
def test_an_answer_decodes_to_its_vectors(room, case):
    reply = Reply(200, {}, body_of(case))
    if "error" in case:
        with pytest.raises(PolyvoxError) as caught:
            room.decode(reply, AT)
        assert caught.value.kind == case["error"]["kind"]
        return
    found = room.decode(reply, AT)
    assert found.raw == reply.body
    assert structs.replace(found, raw=b"") == msgspec.convert(case["expect"], Embeddings)


@pytest.mark.parametrize(("room", "case"), cases("asked"))
def test_a_clients_request_is_read_as_written(room, case):
    wire = Wire(case.get("path", "/"), body_of(case), {})
    if "refused" in case:
        with pytest.raises(InputError) as caught:
            room.decode_request(wire, AT)
        assert (caught.value.param, caught.value.message) == (case["refused"]["param"], case["refused"]["message"])
        return
    assert room.decode_request(wire, AT) == msgspec.convert(case["request"], EmbedRequest)


@pytest.mark.parametrize(("room", "case"), cases("reply"))
def test_vectors_are_said_as_written(room, case):
    asked = msgspec.convert(case["asked"], EmbedRequest)
    reply, losses = room.encode_response(msgspec.convert(case["embeddings"], Embeddings), asked)
    assert (reply.status, json.loads(reply.body)) == (200, case["wire"]["body"])
    assert fields_of(losses) == sorted(case["losses"])


@pytest.mark.parametrize(("room", "case"), cases("error"))
def test_an_error_is_that_of_the_dialect(room, case):
    error = room.decode_error(Reply(case["status"], {}, body_of(case)), AT)
    assert {key: getattr(error, key) for key in case["error"]} == case["error"]


@pytest.mark.parametrize(
    ("name", "options", "most"),
    [
        ("openai", {}, (2048, 600_000)),
        ("openai", {"embed_inputs": 10, "embed_bytes": 99}, (10, 99)),
        ("cohere", {}, (96, None)),
        ("gemini", {"embed_inputs": 5}, (5, None)),
        ("gemini", {}, (100, None)),
        ("ollama", {}, (None, None)),
        ("ollama", {"embeddings_path": "/api/embeddings"}, (1, None)),
    ],
)
def test_what_one_call_may_hold_is_the_inventors_limit_or_the_endpoints(name, options, most):
    assert room_of(name).most(Endpoint(options=options)) == most


@pytest.mark.parametrize("value", [0, -1, "ten", 2.5, True])
def test_a_limit_that_is_none_is_a_configuration_error(value):
    with pytest.raises(ConfigError, match="embed_bytes must be a whole number"):
        room_of("openai").most(Endpoint(options={"embed_bytes": value}))
