"""What a dialect costs by itself, no network: each side's encode and decode of a message of 1 KB, and of one
chunk of a stream, against msgspec on the same JSON with no meaning to it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from polyvox.dialects import NAMES, Dialect, Endpoint, Peek, Reply, dialect
from polyvox.types import Ended, Event, Message, Request, Response, Started, Text, TextDelta, Usage, UsageReported

CHUNKS = 200
_WORDS = "The quick brown fox jumps over the lazy dog, and then it rests. " * 16
_AT = Endpoint(origin="bench/model")
_ASKED = Peek("test-model", stream=True)

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
    data = chunk[chunk.index(b"{") :].strip()
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
    each of about `seconds`."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in NAMES:
        operations = cases(name)
        for operation, case in operations.items():
            ours = [_time(case.ours, seconds) for _ in range(rounds)]
            plain = [_time(case.plain, seconds) for _ in range(rounds)]
            costs = {"us": statistics.median(ours) / case.things, "plain_us": statistics.median(plain) / case.things}
            found.setdefault(operation, {})[name] = costs
    return found


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
