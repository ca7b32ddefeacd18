"""Every vector of the serving side holds: requests of clients decode as written, answers, errors and
streams are said as written, and edits change what they name and nothing else.

A vector's case says which: "asked" (a client's request -> ours), "checked" (what the inventor refuses),
"reply" (a whole answer -> wire), "told" (an error -> wire), "written" (events -> bytes), "edited".
"""

import json
from pathlib import Path

import msgspec
import pytest

from polyvox.dialects import Endpoint, Peek, Wire, dialect
from polyvox.dialects.framing import AwsEventStream
from polyvox.errors import InputError, of_kind
from polyvox.types import (
    ChoiceEnded,
    CitationAdded,
    Ended,
    ExtraAdded,
    Failed,
    LogprobsAdded,
    PartAdded,
    ReasoningDelta,
    ReasoningProof,
    RefusalDelta,
    Request,
    Response,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    UsageReported,
)

ROOT = Path(__file__).parent.parent / "vectors"
CASES = {
    f"{path.parent.name}/{path.stem}": json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(ROOT.glob("*/serve-*.json"))
}
Said = (
    Started | TextDelta | ReasoningDelta | ReasoningProof | RefusalDelta | ToolCallStarted | ToolCallDelta
    | ToolCallEnded | CitationAdded | PartAdded | LogprobsAdded | UsageReported | ExtraAdded | ChoiceEnded | Ended
)  # fmt: skip


def names(case):
    return [name for name, vector in CASES.items() if vector["case"] == case]


def room_of(name):
    return dialect(name.split("/")[0])


def wire_of(vector):
    body = vector["text"].encode() if "text" in vector else json.dumps(vector["body"], ensure_ascii=False).encode()
    return Wire(vector.get("path", "/"), body, vector.get("headers", {}))


def event_of(plain):
    if plain["event"] == "error":
        facts = {key: value for key, value in plain.items() if key not in ("event", "kind", "message")}
        return Failed(of_kind(plain["kind"], plain["message"], **facts))
    return msgspec.convert(plain, Said)


def refused(vector, act):
    with pytest.raises(InputError) as caught:
        act()
    for key, value in vector["refused"].items():
        assert getattr(caught.value, key) == value, (key, getattr(caught.value, key), str(caught.value))
    assert caught.value.sent == "no"


def frames(data, kind):
    """What was written, event by event: SSE and AWS messages as [name, data], lines as data; JSON where it is. A list
    of JSON as its pieces, and "open" behind those of one that was not closed."""

    def value(text):
        try:
            return json.loads(text)
        except ValueError:
            return text

    if kind == "application/vnd.amazon.eventstream":
        found = [(message.headers, value(message.payload)) for message in AwsEventStream().feed(data)]
        return [[headers.get(":event-type") or headers[":exception-type"], facts] for headers, facts in found]
    text = data.decode()
    if kind == "application/json":
        try:
            return json.loads(text)
        except ValueError:
            return [*json.loads(text + "]"), "open"]
    if kind != "text/event-stream":
        assert text.endswith("\n") or not text
        return [value(line) for line in text.splitlines()]
    assert text.endswith("\n\n") or not text
    found = []
    for frame in text.split("\n\n")[:-1]:
        lines = frame.split("\n")
        if lines[0].startswith(":"):
            assert len(lines) == 1
            found.append(lines[0])
            continue
        name = lines.pop(0).removeprefix("event: ") if lines[0].startswith("event: ") else None
        assert len(lines) == 1 and lines[0].startswith("data: "), frame
        found.append([name, value(lines[0][6:])])
    return found


@pytest.mark.parametrize("name", names("asked"))
def test_a_clients_request_is_read_as_written(name):
    vector, room = CASES[name], room_of(name)
    at = Endpoint(**{"origin": "test/model", **vector.get("endpoint", {})})
    wire = wire_of(vector)
    if "refused" in vector:
        refused(vector, lambda: room.decode_request(wire, at))
        return
    assert room.decode_request(wire, at) == msgspec.convert(vector["request"], Request)
    if "peek" in vector:
        assert room.peek(wire) == Peek(**vector["peek"])


@pytest.mark.parametrize("name", names("checked"))
def test_what_the_inventor_refuses_is_refused(name):
    vector, room = CASES[name], room_of(name)
    if "refused" in vector:
        refused(vector, lambda: room.check_request(wire_of(vector)))
    else:
        room.check_request(wire_of(vector))


@pytest.mark.parametrize("name", names("reply"))
def test_a_whole_answer_is_said_as_written(name):
    vector, room = CASES[name], room_of(name)
    response = msgspec.convert(vector["response"], Response)
    reply, losses = room.encode_response(response, Peek(**vector.get("asked", {})))
    assert json.loads(reply.body) == vector["wire"]["body"]
    assert reply.status == vector["wire"].get("status", 200)
    assert reply.headers["content-type"].startswith("application/json")
    assert sorted(loss.field for loss in losses) == sorted(vector.get("losses", []))


@pytest.mark.parametrize("name", names("told"))
def test_an_error_is_told_as_written(name):
    vector, room = CASES[name], room_of(name)
    error = of_kind(**vector["error"])
    reply = room.encode_error(error)
    assert json.loads(reply.body) == vector["wire"]["body"]
    assert reply.status == vector["wire"]["status"]
    for key, value in vector["wire"].get("headers", {}).items():
        assert reply.headers.get(key) == value, key


@pytest.mark.parametrize("name", names("written"))
def test_a_stream_is_said_as_written(name):
    vector, room = CASES[name], room_of(name)
    writer = room.writer(Peek(**{"stream": True, **vector.get("asked", {})}))
    data = b"".join([writer.send(event_of(plain)) for plain in vector["events"]]) + writer.close()
    assert frames(data, writer.content_type) == vector["frames"]
    assert sorted(loss.field for loss in writer.losses) == sorted(vector.get("losses", []))
    assert writer.done and writer.close() == b"" and writer.send(Ended("stop")) == b""


@pytest.mark.parametrize("name", names("edited"))
def test_an_edit_changes_what_it_names_and_nothing_else(name):
    vector, room = CASES[name], room_of(name)
    wire = wire_of(vector)
    if "refused" in vector:
        refused(vector, lambda: room.edit(wire, **vector["edit"]))
        return
    edited = room.edit(wire, **vector["edit"])
    assert edited.body == vector["expect"].encode()
    assert (edited.path, edited.method, edited.headers) == (wire.path, wire.method, wire.headers)


def test_every_case_is_known():
    assert {vector["case"] for vector in CASES.values()} <= {"asked", "checked", "reply", "told", "written", "edited"}
