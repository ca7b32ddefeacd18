"""Answers from a recording: what was recorded for the same method, path and body, byte by byte and with its
pauses. It reads two forms of recording, and knows no dialect but to read which model was asked and what it cost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from polyvox.dialects import Endpoint, Peek, Reply, Wire, dialect, embeds
from polyvox.dialects.collect import Collector
from polyvox.errors import ConfigError, InputError, NotFoundError, PolyvoxError, UsageError
from polyvox.testing.simulate.answers import Answer
from polyvox.testing.simulate.framings import is_stream
from polyvox.testing.simulate.routes import dialect_at, route_at
from polyvox.transports import Outgoing, Timeouts
from polyvox.transports.demo.brain import MODEL
from polyvox.transports.replay import Record, ReplayTransport, record_of
from polyvox.types import Usage

# The framing of this server's own bytes is its own; a recorded one would contradict it.
_NOT_REPEATED = frozenset({
    "content-length", "content-encoding", "transfer-encoding", "connection", "keep-alive", "trailer", "upgrade", "te",
})  # fmt: skip
_NO_LIMITS = Timeouts(None, None, None)


class Recorded:
    """Answers with records. Those that match a request answer it in their order; the last of them answers
    again and again.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = tuple(records)
        self._replay = ReplayTransport(self._records, repeat=True)

    @property
    def models(self) -> tuple[str, ...]:
        """The models that were asked when this was recorded."""
        names = [name for record in self._records if (name := _model(record)) is not None]
        return tuple(dict.fromkeys(names)) or (MODEL,)

    def has(self, method: str, path: str) -> bool:
        """Whether anything was recorded there."""
        return any(record.method.upper() == method and urlsplit(record.url).path == path for record in self._records)

    async def answer(self, wire: Wire, name: str, asked: Peek) -> Answer:
        """What was recorded for this request; NotFoundError names what comes closest."""
        try:
            found = await self._replay.send(Outgoing(wire.method, wire.path, wire.headers, wire.body), _NO_LIMITS)
        except UsageError as error:
            raise NotFoundError(error.message, status=404, code="not_recorded", type="invalid_request_error") from None
        record = found._record
        headers = {name: text for name, text in found.headers.items() if name not in _NOT_REPEATED}
        return Answer(
            record.status,
            headers,
            record.chunks,
            streamed=record.cut or len(record.chunks) > 1 or is_stream(headers),
            cut=record.cut,
            usage=_usage(name, wire.path, Reply(record.status, headers, b"".join([c.data for c in record.chunks]))),
        )


def _model(record: Record) -> str | None:
    """The model that was asked, which some dialects name in the path."""
    place = urlsplit(record.url)
    path = f"{place.path}?{place.query}" if place.query else place.path
    try:
        wire = Wire(path, msgspec.json.encode(record.request), {}, record.method)
        return dialect(dialect_at(path, {})).peek(wire).model
    except (InputError, ValueError, OverflowError, msgspec.MsgspecError):
        return None  # the body is no question


def _usage(name: str, path: str, reply: Reply) -> Usage:
    """The tokens an answer tells, where it tells any."""
    room, at = dialect(name), Endpoint()
    if reply.status >= 400:
        return Usage()
    if not is_stream(reply.headers):
        route, vectors = route_at(path), embeds(name)
        try:
            if route is not None and route.what == "embed" and vectors is not None:
                # Nothing comes out but vectors.
                return replace(vectors.decode(reply, at).usage, output=0)
            return room.decode_response(reply, at).usage
        except PolyvoxError:
            return Usage()
    reader, collector = room.reader(at), Collector()
    for event in (*reader.feed(reply.body), *reader.close()):
        collector.add(event)
    return collector.response().usage


# ---- files ------------------------------------------------------------------------------------


def records_in(path: str | os.PathLike[str]) -> tuple[Record, ...]:
    """The records of a file: one that a client recorded, or one of exchanges with `request_json` and
    `response_text`, of which those without a request are left out. ConfigError when it is neither, or empty.
    """
    lines = _exchanges(path)
    records = ReplayTransport.from_jsonl(path).unused if lines is None else tuple(map(_record, lines))
    if not records:
        raise ConfigError(
            f"the recording {os.fspath(path)} has no exchange", hint="record some with Client(..., record=PATH)"
        )
    return records


def _exchanges(path: str | os.PathLike[str]) -> list[Mapping[str, Any]] | None:
    """The exchanges of the second form with a request in them; None where the file is not of that form."""
    found = []
    try:
        with Path(path).open(encoding="utf-8-sig") as lines:
            for line in lines:
                exchange = json.loads(line) if line.strip() else None
                if exchange is None:
                    continue
                if not isinstance(exchange, Mapping) or "response_text" not in exchange:
                    return None
                if exchange.get("request_json") is not None:
                    found.append(exchange)
    except (OSError, ValueError, RecursionError):
        return None  # the reader of the first form says what is wrong
    return found


def _record(exchange: Mapping[str, Any]) -> Record:
    """An exchange of the second form as a record; its streams have no pauses."""
    binary = exchange.get("response_base64")
    headers = exchange.get("response_headers") or {}
    return record_of({
        "method": exchange.get("method") or "POST",
        "url": exchange.get("url"),
        "request": exchange["request_json"],
        "status": exchange.get("status") or 200,
        "headers": {str(name): str(text) for name, text in headers.items()},
        **({"body_base64": binary} if binary else {"body": exchange["response_text"]}),
    })  # fmt: skip
