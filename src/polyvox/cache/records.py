"""An answer as it is kept: the whole response and, where it was streamed, its events. Which answers may be kept at all
is a table here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Union

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from polyvox.dialects.collect import as_events
from polyvox.types import Event, Failed, Response

FORMAT = 1

KEPT_REASONS = frozenset({"stop", "length", "tool_calls", "refusal"})
"""What an answer may have ended with to be kept: the model said all it had to say, or all that the request allowed.
A filter's verdict is not kept, because it is not the model's and may fall otherwise the next time; an overflow, a pause
and a compaction ask for another call; of an unknown end nobody knows that it was one."""

_events = msgspec.json.Decoder(
    tuple[Union[tuple(kind for kind in Event.__subclasses__() if kind is not Failed)], ...]  # type: ignore[misc] # noqa: UP007 - a union made of a table
)


class Record(Struct, frozen=True):
    """What is kept. at is seconds since the epoch; events is a JSON array, empty for an answer that came whole."""

    format: int
    at: float
    response: Response
    events: Raw = Raw(b"[]")

    def told(self) -> list[Event]:
        """The events of the answer: those that came, or else those that would have told it. ValueError for damage."""
        told: list[Event] = list(_events.decode(self.events))
        return told or as_events(self.response)


_record = msgspec.json.Decoder(Record)
encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def refused(response: Response) -> str | None:
    """Why an answer is not kept; None for one that may be."""
    if not response.complete:
        return "incomplete"
    for reason in (response.finish_reason, *[choice.finish_reason for choice in response.choices]):
        if reason not in KEPT_REASONS:
            return reason or "unknown"
    if not response.message.parts:
        return "empty"
    return None


def written(response: Response, events: bytes | None, at: float) -> bytes:
    """The bytes of a record. Attempts and decision were those of one call, and are not kept; TypeError and ValueError
    for what JSON cannot say."""
    return encode(Record(FORMAT, at, replace(response, attempts=(), decision=None), Raw(events or b"[]")))


def read(kept: bytes) -> Record | None:
    """A record; None for bytes that are none, or of another format."""
    try:
        record = _record.decode(kept)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return record if record.format == FORMAT and refused(record.response) is None else None


def as_json(events: Iterable[Event]) -> bytes:
    """Events as a JSON array; TypeError and ValueError for what JSON cannot say."""
    return encode(list(events))


def joined(arrays: Sequence[bytes]) -> bytes:
    """JSON arrays as one."""
    return b"[" + b",".join(array[1:-1] for array in arrays if len(array) > 2) + b"]"
