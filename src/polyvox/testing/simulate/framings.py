"""How streams are framed, by their content type: where an event ends, which bytes say nothing, and how an event
begins that is long. It knows framing alone; what an event says is for the dialects.
"""

from __future__ import annotations

import binascii
import re
import struct
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from polyvox.dialects.framing import aws_message

BLOCK = 65536
"""Bytes that are made at once of what is long."""


class Framing(Struct, frozen=True):
    """One way to frame a body.

    Attributes:
        ends: where its events end, in bytes from its start.
        blanks: so many blanks that may stand before all of it and say nothing, in pieces.
        opens: how an event begins that has so many bytes.
    """

    ends: Callable[[bytes], list[int]]
    blanks: Callable[[int], Iterator[bytes]]
    opens: Callable[[int], bytes]


def _ends_at(mark: re.Pattern[bytes]) -> Callable[[bytes], list[int]]:
    return lambda body: [found.end() for found in mark.finditer(body)]


def _message_ends(body: bytes) -> list[int]:
    """Binary messages begin with their length."""
    ends = [0]
    while ends[-1] < len(body):
        ends.append(ends[-1] + max(int.from_bytes(body[ends[-1] : ends[-1] + 4]), 1))
    return ends[1:]


def _parts_of(size: int) -> Iterator[int]:
    """So many bytes in blocks."""
    while size > 0:
        yield min(size, BLOCK)
        size -= BLOCK


def _blank_lines(size: int) -> Iterator[bytes]:
    # Of all that is blank, JSON and both kinds of lines pass over the ends of lines alone: a space before the name
    # of a field makes it another name.
    return (b"\n" * part for part in _parts_of(size))


def _blank_messages(size: int) -> Iterator[bytes]:
    """Nothing may stand between binary messages; those of a kind nobody knows are passed over."""
    headers = {":event-type": "padding", ":content-type": "application/json", ":message-type": "event"}
    return (aws_message(headers, b'{"p":"%s"}' % (b" " * part)) for part in _parts_of(size))


def _long_message(size: int) -> bytes:
    """The lengths of a message without headers, and their checksum."""
    lengths = struct.pack(">II", 12 + size + 4, 0)
    return lengths + struct.pack(">I", binascii.crc32(lengths))


FRAMINGS: dict[str, Framing] = {
    "text/event-stream": Framing(_ends_at(re.compile(rb"\r\n\r\n|\n\n|\r\r")), _blank_lines, lambda _: b""),
    "application/x-ndjson": Framing(_ends_at(re.compile(rb"\n")), _blank_lines, lambda _: b""),
    "application/vnd.amazon.eventstream": Framing(_message_ends, _blank_messages, _long_message),
}
"""Content types of bodies that are events."""
_WHOLE = Framing(lambda _: [], _blank_lines, lambda _: b"")


def framing_of(headers: Mapping[str, str]) -> Framing:
    """How the body behind a head is framed; one that is no stream has no events."""
    return FRAMINGS.get(_kind(headers), _WHOLE)


def is_stream(headers: Mapping[str, str]) -> bool:
    """Whether a body is events that come one by one."""
    return _kind(headers) in FRAMINGS


def _kind(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()
