"""Every vector beside chats and embeddings holds: what is asked reaches the wire and is read again, answers decode as
written and are said as written, and nothing leaves our tree of errors."""

import json
import os
import random
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from polyvox import media, stored, verdicts
from polyvox.dialects import Endpoint, Reply, Wire, dialect
from polyvox.dialects.framing import FormPart, read_form, write_form
from polyvox.dialects.openai_more import TASKS, batches, operation
from polyvox.errors import BadResponseError, InputError, PolyvoxError, RateLimitError
from polyvox.types import Request

FOLDER = Path(__file__).parent
CASES = [
    (path.stem, number, case)
    for path in sorted(FOLDER.glob("*.json"))
    for number, case in enumerate(json.loads(path.read_text(encoding="utf-8")))
]
ASKED = {
    "transcribe": media.TranscribeRequest, "translate": media.TranscribeRequest, "speak": media.SpeakRequest,
    "image": media.ImageRequest, "upload": stored.UploadRequest, "files": stored.ListRequest, "file": stored.IdRequest,
    "delete_file": stored.IdRequest, "file_content": stored.IdRequest, "create_batch": stored.BatchRequest,
    "batch": stored.IdRequest, "cancel_batch": stored.IdRequest, "batches": stored.ListRequest,
    "moderate": verdicts.ModerateRequest, "rerank": verdicts.RerankRequest,
}  # fmt: skip
ANSWERED = {
    "transcribe": media.Transcript, "translate": media.Transcript, "speak": media.Speech, "image": media.Pictures,
    "upload": stored.StoredFile, "files": stored.FilePage, "file": stored.StoredFile, "delete_file": stored.Deleted,
    "file_content": stored.Content, "create_batch": stored.Batch, "batch": stored.Batch, "cancel_batch": stored.Batch,
    "batches": stored.BatchPage, "moderate": verdicts.Verdicts, "rerank": verdicts.Ranking,
}  # fmt: skip


def cases(kind):
    return [pytest.param(case, id=f"{name}-{number}") for name, number, case in CASES if case["case"] == kind]


def room_of(case):
    return operation(case["task"], case.get("dialect", "openai.chat"))


def at_of(case):
    return Endpoint(origin="test/model", options=case.get("options", {}))


def bytes_of(case):
    if "hex" in case:
        return bytes.fromhex(case["hex"])
    return case["text"].encode() if "text" in case else json.dumps(case.get("body")).encode()


def part_of(row):
    data = bytes.fromhex(row["hex"]) if "hex" in row else row["text"].encode()
    return FormPart(row["name"], data, row.get("filename"), row.get("type"))


def wire_of(case):
    headers = case.get("headers", {})
    if "form" in case:
        content_type, body = write_form([part_of(row) for row in case["form"]])
        return Wire(case.get("path", "/"), body, {"content-type": content_type, **headers})
    return Wire(case.get("path", "/"), bytes_of(case), headers)


def fields_of(losses):
    return sorted(loss.field for loss in losses)


@pytest.mark.parametrize("case", cases("request"))
def test_a_request_encodes_to_exactly_this_and_these_losses(case):
    request = msgspec.convert(case["request"], ASKED[case["task"]])
    if "refused" in case:
        with pytest.raises(InputError) as caught:
            room_of(case).encode(request, at_of(case))
        assert (caught.value.param, caught.value.sent) == (case["refused"]["param"], "no")
        return
    wire, losses = room_of(case).encode(request, at_of(case))
    told = case["wire"]
    assert (wire.method, wire.path) == (told.get("method", "POST"), told["path"])
    if "form" in told:
        assert read_form(wire.headers["content-type"], wire.body) == [part_of(row) for row in told["form"]]
    elif "body" in told:
        assert json.loads(wire.body) == told["body"]
        assert wire.headers["content-type"] == "application/json"
    else:
        assert wire.body == b""
    assert fields_of(losses) == sorted(case.get("losses", []))


@pytest.mark.parametrize("case", cases("response"))
def test_an_answer_decodes_to_what_it_says(case):
    reply = Reply(200, case.get("headers", {"content-type": "application/json"}), bytes_of(case))
    if "error" in case:
        with pytest.raises(PolyvoxError) as caught:
            room_of(case).decode(reply, at_of(case))
        assert caught.value.kind == case["error"]["kind"]
        return
    found = room_of(case).decode(reply, at_of(case))
    assert found.raw == reply.body
    assert structs.replace(found, raw=b"") == msgspec.convert(case["expect"], ANSWERED[case["task"]])


@pytest.mark.parametrize("case", cases("asked"))
def test_a_clients_request_is_read_as_written(case):
    if "refused" in case:
        with pytest.raises(InputError) as caught:
            room_of(case).decode_request(wire_of(case), at_of(case))
        assert caught.value.param == case["refused"]["param"]
        return
    found = room_of(case).decode_request(wire_of(case), at_of(case))
    assert found == msgspec.convert(case["request"], ASKED[case["task"]])


@pytest.mark.parametrize("case", cases("reply"))
def test_an_answer_is_said_as_written(case):
    asked = msgspec.convert(case["asked"], ASKED[case["task"]])
    answer = msgspec.convert(case["answer"], ANSWERED[case["task"]])
    if "error" in case:
        with pytest.raises(BadResponseError):
            room_of(case).encode_response(answer, asked)
        return
    reply, losses = room_of(case).encode_response(answer, asked)
    said = json.loads(reply.body) if "body" in case["wire"] else reply.body
    assert (reply.status, said) == (200, case["wire"].get("body", bytes_of(case["wire"])))
    assert reply.headers["content-type"] == case["wire"].get("type", "application/json")
    assert fields_of(losses) == sorted(case.get("losses", []))


@pytest.mark.parametrize("case", cases("error"))
def test_an_error_is_that_of_the_dialect(case):
    error = room_of(case).decode_error(Reply(case["status"], {}, bytes_of(case)), at_of(case))
    assert {key: getattr(error, key) for key in case["error"]} == case["error"]


@pytest.mark.parametrize("task", TASKS)
def test_each_operation_is_asked_read_answered_and_said(task):
    found = {case["case"] for _, _, case in CASES if case["task"] == task}
    assert found >= {"request", "response", "asked", "reply"}


# ---- the lines of batches ---------------------------------------------------------------------

LINES = json.loads((FOLDER / "lines" / "lines.json").read_text(encoding="utf-8"))


def lines(kind):
    return [pytest.param(case, id=str(place)) for place, case in enumerate(LINES) if case["case"] == kind]


def file_of(case):
    if "text" in case:
        return case["text"].encode()
    return b"".join(b"\n" if row is None else json.dumps(row).encode() + b"\n" for row in case["lines"])


@pytest.mark.parametrize("case", lines("written"))
def test_questions_are_written_a_line_each(case):
    asked = [stored.BatchLine(custom_id, msgspec.convert(said, Request)) for custom_id, said in case["requests"]]
    room = dialect(case.get("dialect", "openai.chat"))
    if "refused" in case:
        with pytest.raises(InputError) as caught:
            batches.encode_lines(asked, room, at_of(case))
        assert caught.value.param == case["refused"]
        return
    file = batches.encode_lines(asked, room, at_of(case))
    said = [json.loads(line) for line in file.data.splitlines()]
    assert file.endpoint == case["endpoint"] and {row["url"] for row in said} == {file.endpoint}
    if case["lines"] is not None:
        assert said == case["lines"]
    assert {custom_id: fields_of(found) for custom_id, found in file.losses.items()} == case["losses"]
    assert batches.spoken_at(file.endpoint) == room.name
    assert [row[0] for row in batches.read_lines(file.data)] == [line.custom_id for line in asked]


@pytest.mark.parametrize("case", lines("results"))
def test_answers_are_read_a_line_each(case):
    room = dialect(case.get("dialect", "openai.chat"))
    if "failure" in case:
        with pytest.raises(PolyvoxError) as caught:
            batches.decode_lines(file_of(case), room, at_of(case))
        assert caught.value.kind == case["failure"]
        return
    found = batches.decode_lines(file_of(case), room, at_of(case))
    assert [result.custom_id for result in found] == [row[0] for row in case["expect"]]
    for result, row in zip(found, case["expect"], strict=True):
        if isinstance(row[1], dict):
            assert result.response is None
            assert {key: getattr(result.error, key) for key in row[1]} == row[1]
        else:
            assert result.error is None
            assert (result.response.text, result.response.request_id) == (row[1], row[2])


@pytest.mark.parametrize("case", lines("read"))
def test_a_clients_questions_are_read_a_line_each(case):
    if "refused" in case:
        with pytest.raises(InputError) as caught:
            batches.read_lines(file_of(case))
        assert caught.value.param == case["refused"]
        return
    found = batches.read_lines(file_of(case))
    assert [[name, wire.method, wire.path, json.loads(wire.body)] for name, wire in found] == case["expect"]


def test_an_answer_written_for_a_client_reads_as_it_was():
    room = dialect("openai.chat")
    good = Reply(200, {}, json.dumps({"choices": [{"index": 0, "message": {"content": "hi"}}]}).encode())
    bad = room.encode_error(RateLimitError("slow down"))
    written = [batches.write_line(name, reply, id="i", request_id="r") for name, reply in (("a", good), ("b", bad))]
    first, second = batches.decode_lines(b"".join(written), room, Endpoint())
    assert (first.custom_id, first.response.text, first.response.request_id) == ("a", "hi", "r")
    assert (second.custom_id, second.error.kind, second.error.message) == ("b", "rate_limit", "slow down")


def test_a_path_of_no_chat_is_nobodys():
    assert batches.spoken_at("/v1/embeddings") is None


# ---- what nobody wrote down -------------------------------------------------------------------

MUTANTS = (5, None, [], {}, "x", -1, 1.5, True, [None], [[]], {"x": 1}, "\ud7ff", 10**400)


def mutated(value, rng):
    """A copy of a JSON value with one node replaced, deleted or doubled."""
    value = json.loads(json.dumps(value))
    nodes, places = [value], []
    while nodes:
        node = nodes.pop()
        for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            places.append((node, key))
            nodes.append(child)
    if not places:
        return rng.choice(MUTANTS)
    node, key = rng.choice(places)
    if rng.random() < 0.7:
        node[key] = rng.choice(MUTANTS)
    elif isinstance(node, dict):
        del node[key]
    else:
        node.insert(key, node[key])
    return value


@pytest.mark.parametrize("case", [found for found in cases("response") if "body" in found.values[0]])
def test_a_mutated_answer_decodes_or_fails_in_our_tree(case):
    rng = random.Random(json.dumps(case["body"]))
    for _ in range(int(os.environ.get("POLYVOX_MUTATIONS", "40"))):
        body = json.dumps(mutated(case["body"], rng)).encode()
        try:
            found = room_of(case).decode(Reply(200, {"content-type": "application/json"}, body), at_of(case))
        except PolyvoxError:
            continue
        again = msgspec.json.decode(msgspec.json.encode(found), type=type(found))
        assert again == found, "what was decoded is what the types promise"


@pytest.mark.parametrize("case", [found for found in cases("asked") if "body" in found.values[0]])
def test_a_mutated_request_is_read_or_refused_in_our_tree(case):
    rng = random.Random(json.dumps(case["body"]))
    for _ in range(int(os.environ.get("POLYVOX_MUTATIONS", "40"))):
        body = json.dumps(mutated(case["body"], rng)).encode()
        try:
            found = room_of(case).decode_request(Wire("/", body, {}), at_of(case))
        except InputError as error:
            assert error.param is None or error.param.partition("[")[0].partition(".")[0] in error.message
        else:
            assert msgspec.convert(msgspec.to_builtins(found), type(found)) == found
