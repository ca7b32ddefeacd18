"""What a dialect costs by itself, no network: each side's encode and decode of a message of 1 KB, and of one
chunk of a stream, against msgspec on the same JSON with no meaning to it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from polyvox.dialects import NAMES, Dialect, Endpoint, Peek, Reply, dialect
from polyvox.types import (
    Ended,
    Event,
    Message,
    Request,
    Response,
    Started,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
    UsageReported,
)

CHUNKS = 200
_WORDS = "The quick brown fox jumps over the lazy dog, and then it rests. " * 16
_AT = Endpoint(origin="bench/model")
_ASKED = Peek("test-model", stream=True)

YARDSTICK = "openai.chat"
"""The dialect that the others are compared with."""
LIMIT = 2.0
"""How many times the yardstick's an operation of a dialect may cost without a reason in `REASONS`."""
_ORDER = (
    "turns are merged until they alternate, each call is followed until its result has come, and its arguments are "
    "looked through, as the provider refuses a history that is otherwise"
)
REASONS = {
    ("serve: write a chunk", "bedrock.converse"): "a chunk is a binary frame: two lengths and two CRC-32 checksums "
    "stand around its words, 0.2 µs of the whole though all that depends on their length alone is worked out once",
    ("serve: write a chunk", "openai.responses"): "each event has a number of its own, which is counted and written",
    ("ask: read a chunk", "openai.responses"): "an event is two lines, and says its item, its place in two lists and "
    "its number beside the words; its JSON alone takes msgspec longer",
    ("ask: read a chunk", "anthropic.messages"): "an event is two lines, and names its kind in both",
    ("ask: encode a request, tools", "anthropic.messages"): _ORDER,
    ("ask: encode a request, tools", "bedrock.converse"): _ORDER,
    ("ask: decode an answer", "openai.responses"): "an answer repeats the settings of its request: some twenty keys "
    "more, all of them looked at for what is not as usual",
}
"""Why an operation of a dialect costs so much more than the yardstick's, or may in some run."""

encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode


class Case(NamedTuple):
    """One operation, the same work for msgspec alone, and how many things one run of either does."""

    ours: Callable[[], object]
    plain: Callable[[], object]
    things: int = 1


def cases(name: str) -> dict[str, Case]:
    """The operations of one dialect by name."""
    room = dialect(name)
    request = Request("test-model", (Message("user", (Text(_WORDS),)),), max_tokens=1000)
    answer = Message("assistant", (Text(_WORDS),))
    response = Response(answer, "stop", usage=Usage(300, 250, source="provider"), id="answer-1", model="test-model")
    wire = room.encode_request(request, _AT).wire
    body, asked = wire.body, decode(wire.body)
    reply = room.encode_response(response, _ASKED)[0]
    answered = decode(reply.body)
    got = Reply(200, {}, reply.body)
    words = [TextDelta(" quick") for _ in range(CHUNKS)]
    written = _written(room, words)
    chunk = written[CHUNKS]
    data = chunk[chunk.index(b"{") : chunk.rindex(b"}") + 1]
    said = decode(data)
    return {
        "ask: encode a request": Case(lambda: room.encode_request(request, _AT), lambda: encode(asked)),
        "ask: decode an answer": Case(lambda: room.decode_response(got, _AT), lambda: decode(reply.body)),
        "ask: read a chunk": Case(lambda: _read(room, written), lambda: [decode(data) for _ in range(CHUNKS)], CHUNKS),
        "serve: decode a request": Case(lambda: room.decode_request(wire, _AT), lambda: decode(body)),
        "serve: encode an answer": Case(lambda: room.encode_response(response, _ASKED), lambda: encode(answered)),
        "serve: write a chunk": Case(
            lambda: _written(room, words), lambda: [encode(said) for _ in range(CHUNKS)], CHUNKS
        ),
        "serve: peek at a request": Case(lambda: room.peek(wire), lambda: decode(body)),
        "serve: edit a request": Case(lambda: room.edit(wire, model="other"), lambda: encode(decode(body))),
        **_with_tools(name),
    }


def _with_tools(name: str) -> dict[str, Case]:
    """The same for an agent: tools are offered, one was called, and its result came."""
    room = dialect(name)
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = tuple(Tool(f"tool_{number}", "Says the weather.", schema) for number in range(3))
    call = ToolCall("call_1", "tool_0", '{"city":"Rome"}')
    turns = (
        Message("system", (Text("Be brief."),)),
        Message("user", (Text(_WORDS),)),
        Message("assistant", (call,)),
        Message("tool", (ToolResult("call_1", (Text("sunny"),), name="tool_0"),)),
    )
    request = Request("test-model", turns, tools=tools, max_tokens=1000)
    answer = Message("assistant", (Text("Let me see."), call))
    usage = Usage(300, 250, source="provider")
    response = Response(answer, "tool_calls", usage=usage, id="answer-1", model="test-model")
    wire = room.encode_request(request, _AT).wire
    reply = room.encode_response(response, _ASKED)[0]
    asked, answered, got = decode(wire.body), decode(reply.body), Reply(200, {}, reply.body)
    return {
        "ask: encode a request, tools": Case(lambda: room.encode_request(request, _AT), lambda: encode(asked)),
        "ask: decode an answer, tools": Case(lambda: room.decode_response(got, _AT), lambda: decode(reply.body)),
        "serve: decode a request, tools": Case(lambda: room.decode_request(wire, _AT), lambda: decode(wire.body)),
        "serve: encode an answer, tools": Case(
            lambda: room.encode_response(response, _ASKED), lambda: encode(answered)
        ),
    }


def _written(room: Dialect, words: list[TextDelta]) -> list[bytes]:
    writer = room.writer(_ASKED)
    events: list[Event] = [Started("answer-1", "test-model", 1.0), *words, UsageReported(Usage(3, 200)), Ended("stop")]
    return [writer.send(event) for event in events]


def _read(room: Dialect, chunks: list[bytes]) -> None:
    reader = room.reader(_AT)
    for chunk in chunks:
        reader.feed(chunk)
    reader.close()


def measure(rounds: int, seconds: float) -> dict[str, dict[str, dict[str, float]]]:
    """Microseconds of processor time by operation and dialect, ours and msgspec's: medians over the rounds,
    each of about `seconds`. In a round all dialects take their turn, as they are compared with each other."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    operations = {name: cases(name) for name in NAMES}
    for operation in operations[YARDSTICK]:
        turns: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
        for _ in range(rounds):
            for name, times in turns.items():
                case = operations[name][operation]
                times.append((_time(case.ours, seconds), _time(case.plain, seconds)))
        found[operation] = {name: _medians(times, operations[name][operation]) for name, times in turns.items()}
    return found


def _medians(times: list[tuple[float, float]], case: Case) -> dict[str, float]:
    ours, plain = (statistics.median(column) / case.things for column in zip(*times, strict=True))
    return {"us": ours, "plain_us": plain}


def _time(act: Callable[[], Any], seconds: float) -> float:
    """Microseconds of one run, from as many as fit."""
    count, spent = 1, 0.0
    while True:
        begin = time.process_time()
        for _ in range(count):
            act()
        spent = time.process_time() - begin
        if spent >= seconds:
            return spent / count * 1e6
        count = max(count * 2, int(count * seconds / spent) if spent else count * 2)
