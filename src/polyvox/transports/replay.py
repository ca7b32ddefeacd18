"""Answers from a recording instead of a network: the same request gets what was recorded for it,
with the recorded pauses and breaks. It knows no dialect, and asks nobody when it has no answer.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from polyvox.errors import BadResponseError, CallTimeoutError, ConfigError, StreamInterruptedError, UsageError
from polyvox.keys import MASK
from polyvox.transports import Outgoing, Timeouts

_SHOWN = 5  # differences that an error lists
_PROBLEMS = 20  # malformed lines that an error lists


class Chunk(Struct, frozen=True):
    """Bytes that arrive together, after a pause in seconds."""

    data: bytes
    pause: float = 0.0


class Record(Struct, frozen=True):
    """One exchange: the request it answers, and the answer.

    Attributes:
        url: where it was asked; only its path counts when matching.
        request: the JSON value that was sent, or the text where it was none; None matches anything.
        headers: of the answer; names are put in lower case.
        chunks: the body in the pieces it arrived in.
        cut: whether the connection breaks after the chunks.
    """

    url: str
    method: str = "POST"
    request: Any = None
    status: int = 200
    headers: Mapping[str, str] = {}
    chunks: tuple[Chunk, ...] = ()
    cut: bool = False


class ReplayTransport:
    """Replays records. The ones that match a request answer it in their order, each once; with
    `repeat` the last of them answers again and again.
    """

    def __init__(self, records: Iterable[Record | Mapping[str, Any]], *, repeat: bool = False) -> None:
        self._records = [record if isinstance(record, Record) else record_of(record) for record in records]
        self._repeat = repeat
        self._used: set[int] = set()
        self._closed = False

    @classmethod
    def from_jsonl(cls, path: str | os.PathLike[str], *, repeat: bool = False) -> ReplayTransport:
        """Read one JSON object a line, in the form `record_of` takes; ConfigError names each bad line."""
        try:
            lines = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
        except OSError as error:
            raise ConfigError(f"cannot read the recording {os.fspath(path)}: {error.strerror or error}") from None
        records, problems = [], []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                records.append(record_of(msgspec.json.decode(line)))
            except ConfigError as error:
                problems.append(f"{os.fspath(path)}:{number}: {error.message}")
            except (msgspec.DecodeError, RecursionError, ValueError) as error:
                problems.append(f"{os.fspath(path)}:{number}: not valid JSON: {error}")
        if problems:
            more = len(problems) - _PROBLEMS
            shown = (*problems[:_PROBLEMS], *((f"and {more} more",) if more > 0 else ()))
            raise ConfigError("the recording is malformed", problems=shown)
        return cls(records, repeat=repeat)

    @property
    def unused(self) -> tuple[Record, ...]:
        """The records that have answered nothing yet."""
        return tuple([record for i, record in enumerate(self._records) if i not in self._used])

    async def send(self, outgoing: Outgoing, timeouts: Timeouts) -> ReplayExchange:
        """The head of the recorded answer; UsageError where none is left, with the closest record."""
        if self._closed:
            raise UsageError("this transport is closed", hint="make a new one, or close it later", sent="no")
        body = _body(outgoing.body)
        found = [i for i, record in enumerate(self._records) if not any(_differences(record, outgoing, body))]
        fresh = next((i for i in found if i not in self._used), None)
        if fresh is None and not (found and self._repeat):
            raise self._nothing(outgoing, body, len(found))
        chosen = found[-1] if fresh is None else fresh
        self._used.add(chosen)
        return ReplayExchange(self._records[chosen], timeouts.idle)

    async def close(self) -> None:
        """Nothing is held; only further use is refused."""
        self._closed = True

    def _nothing(self, outgoing: Outgoing, body: Any, matching: int) -> UsageError:
        """The error for a request that has no answer: why not, by the record that comes closest."""
        asked = f"{outgoing.method} {urlsplit(outgoing.url).path}"
        if matching:
            return UsageError(
                f"the recording answers this {asked} {matching} time(s), and all of them are used up",
                hint="record it once more, or replay with repeat=True",
                sent="no",
            )
        if not self._records:
            return UsageError(f"the recording is empty; it has no answer to {asked}", sent="no")
        closest, found = min(
            ((i, list(_differences(record, outgoing, body))) for i, record in enumerate(self._records)),
            key=lambda pair: (_distance(pair[1]), pair[0]),
        )
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        return UsageError(
            f"the recording has no answer to {asked}; record {closest + 1} of {len(self._records)} comes closest, "
            f"but differs: {'; '.join(found[:_SHOWN])}{more}",
            hint="record the exchange again, or send what was recorded",
            sent="no",
        )


class ReplayExchange:
    """See `transports.Exchange`."""

    def __init__(self, record: Record, idle: float | None) -> None:
        self.status: int = record.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in record.headers.items()}
        self._record = record
        self._idle = idle
        self._next = 0

    async def read(self, limit: int) -> bytes:
        """See `transports.Exchange.read`."""
        pieces, size = [], 0
        while data := await self.chunk():
            pieces.append(data)
            size += len(data)
            if size > limit:
                raise BadResponseError(f"the answer is longer than {limit} bytes", status=self.status, sent="yes")
        return b"".join(pieces)

    async def chunk(self) -> bytes:
        """See `transports.Exchange.chunk`."""
        if self._next < 0:
            raise UsageError("this answer is closed; nothing more can be read from it", sent="yes")
        while self._next < len(self._record.chunks):
            chunk = self._record.chunks[self._next]
            self._next += 1
            await self._wait(chunk.pause)
            if chunk.data:
                return chunk.data
        if self._record.cut:
            raise StreamInterruptedError("the connection broke before the end of the answer (as recorded)", sent="yes")
        return b""

    async def close(self) -> None:
        """See `transports.Exchange.close`."""
        self._next = -1

    async def _wait(self, pause: float) -> None:
        if self._idle is not None and pause > self._idle:
            await asyncio.sleep(self._idle)
            raise CallTimeoutError(f"no byte came for {self._idle:g} seconds (idle timeout)", sent="yes")
        if pause:
            await asyncio.sleep(pause)


# ---- what matches -----------------------------------------------------------------------------


def _body(data: bytes) -> Any:
    """A request's body as a JSON value, its text where it is none, None where there is none."""
    if not data:
        return None
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return data.decode("utf-8", "replace")


def _differences(record: Record, outgoing: Outgoing, body: Any) -> Iterator[str]:
    """How a request differs from the one that was recorded; nothing for one that matches."""
    if record.method.upper() != outgoing.method.upper():
        yield f"method: recorded {record.method.upper()}, sent {outgoing.method.upper()}"
    recorded, sent = urlsplit(record.url).path, urlsplit(outgoing.url).path
    if recorded != sent:
        yield f"path: recorded {recorded}, sent {sent}"
    if record.request is not None:
        yield from _unlike(record.request, body, "$")


def _unlike(recorded: Any, sent: Any, where: str) -> Iterator[str]:
    """Where two JSON values differ. The order of keys says nothing, 1 is 1.0, and true is not 1."""
    if isinstance(recorded, dict) and isinstance(sent, dict):
        for key in sorted(recorded.keys() | sent.keys()):
            if key not in sent:
                yield f"{where}.{key}: recorded {_shown(recorded[key])}, not sent"
            elif key not in recorded:
                yield f"{where}.{key}: sent {_shown(sent[key])}, not recorded"
            else:
                yield from _unlike(recorded[key], sent[key], f"{where}.{key}")
    elif isinstance(recorded, list) and isinstance(sent, list):
        for i, (one, other) in enumerate(zip(recorded, sent, strict=False)):
            yield from _unlike(one, other, f"{where}[{i}]")
        if len(recorded) != len(sent):
            yield f"{where}: recorded {len(recorded)} items, sent {len(sent)}"
    elif isinstance(recorded, str) and isinstance(sent, str) and MASK in recorded and _masked_alike(recorded, sent):
        return
    elif isinstance(recorded, bool) != isinstance(sent, bool) or recorded != sent:
        yield f"{where}: recorded {_shown(recorded)}, sent {_shown(sent)}"


def _masked_alike(recorded: str, sent: str) -> bool:
    """Whether a text is the recorded one with something in the place of each mask."""
    return re.fullmatch(".*".join(map(re.escape, recorded.split(MASK))), sent, re.DOTALL) is not None


def _distance(differences: list[str]) -> int:
    """How far a record is from a request: another place is further than any other words."""
    return sum(1 if difference.startswith("$") else 1000 for difference in differences)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


# ---- what a record is -------------------------------------------------------------------------

_KEYS = frozenset({
    "method", "url", "request", "status", "headers", "body", "body_base64", "chunks", "cut", "note",
})  # fmt: skip
_BODIES = ("body", "body_base64", "chunks")


def record_of(value: Any) -> Record:
    """A record from its JSON form; ConfigError says what is wrong with it.

    Keys: url; method, request, status, headers, cut, note; and one of body (text, or a JSON value),
    body_base64, or chunks: texts, or objects of text or base64 and pause in seconds.

    >>> record_of({"url": "/v1/x", "body": {"a": 1}}).chunks[0].data
    b'{"a":1}'
    """
    if not isinstance(value, Mapping):
        raise ConfigError("a record must be a JSON object")
    if unknown := sorted(map(str, value.keys() - _KEYS)):
        raise ConfigError(f"unknown key {unknown[0]!r}; a record has {', '.join(sorted(_KEYS))}")
    given = [key for key in _BODIES if key in value]
    if len(given) > 1:
        raise ConfigError(f"{given[0]} and {given[1]} are both given; a record has one body")
    status = _typed(value, "status", int, 200)
    if not 100 <= status <= 599:
        raise ConfigError(f"status must be an HTTP status, not {status}")
    headers = _typed(value, "headers", Mapping, {})
    if not all(isinstance(text, str) for pair in headers.items() for text in pair):
        raise ConfigError("headers must be texts by name")
    if "url" not in value:
        raise ConfigError("url is missing")
    return Record(
        url=_typed(value, "url", str, ""),
        method=_typed(value, "method", str, "POST"),
        request=value.get("request"),
        status=status,
        headers=dict(headers),
        chunks=_chunks(given[0], value[given[0]]) if given else (),
        cut=_typed(value, "cut", bool, False),
    )


def _typed(value: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    found = value.get(key, default)
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        raise ConfigError(f"{key} must be {_CALLED[kind]}, not {type(found).__name__}")
    return found


_CALLED: dict[type, str] = {
    str: "a text", int: "a whole number", bool: "true or false", Mapping: "an object", list: "a list",
}  # fmt: skip


def _chunks(key: str, body: Any) -> tuple[Chunk, ...]:
    if key == "chunks":
        return tuple([_chunk(item) for item in _typed({key: body}, key, list, [])])
    if key == "body_base64":
        return (Chunk(_unbase64(body)),)
    return (Chunk(body if isinstance(body, bytes) else _bytes(body)),)


def _chunk(item: Any) -> Chunk:
    if (
        isinstance(item, Mapping)
        and item.keys() <= {"text", "base64", "pause"}
        and ("text" in item) != ("base64" in item)
    ):
        pause = item.get("pause", 0)
        if isinstance(pause, bool) or not isinstance(pause, int | float) or not 0 <= pause <= 3600:
            raise ConfigError("a pause must be seconds from 0 to 3600")
        if "base64" in item:
            return Chunk(_unbase64(item["base64"]), float(pause))
        return Chunk(_bytes(_typed(item, "text", str, "")), float(pause))
    if isinstance(item, str | bytes):
        return Chunk(item if isinstance(item, bytes) else _bytes(item))
    raise ConfigError("a chunk must be a text, or an object with text or base64, and perhaps pause")


def _bytes(body: Any) -> bytes:
    """The bytes of a text, or of a JSON value."""
    try:
        return body.encode() if isinstance(body, str) else msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ConfigError(f"the body cannot be written: {error}") from None


def _unbase64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ConfigError("base64 is malformed") from None
