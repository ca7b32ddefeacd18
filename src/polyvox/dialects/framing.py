"""From bytes to frames: SSE, NDJSON, AWS event stream. Bytes in any chunking, complete frames out,
every buffer bounded. Forms (multipart/form-data) are written and read whole. It does not know what a frame means."""

from __future__ import annotations

import binascii
import hashlib
import re
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from polyvox.errors import BadResponseError, InputError

MAX_FRAME = 16 * 1024 * 1024
MAX_TOTAL = 256 * 1024 * 1024
MAX_FRAMES = 1_000_000

_BOM = b"\xef\xbb\xbf"


class Bounds:
    """Counts what passes and refuses more than the limits; one per stream."""

    __slots__ = ("frames", "total")

    def __init__(self) -> None:
        self.total: int = 0
        self.frames: int = 0

    def took(self, data: bytes, pending: int) -> None:
        """Count bytes read; `pending` is how many wait for the rest of their frame."""
        self.total += len(data)
        if pending > MAX_FRAME:
            raise BadResponseError(f"one event of the stream is larger than {MAX_FRAME} bytes")
        if self.total > MAX_TOTAL:
            raise BadResponseError(f"the stream is longer than {MAX_TOTAL} bytes")

    def gave(self, frames: int) -> None:
        """Count frames given."""
        self.frames += frames
        if self.frames > MAX_FRAMES:
            raise BadResponseError(f"the stream has more than {MAX_FRAMES} events")


class ServerSentEvent(NamedTuple):
    """One event: its name ("" when it has none) and its data."""

    name: str
    data: bytes


_event = ServerSentEvent
_FIELDS = (b"data", b"event", b"id", b"retry", b"")


class SSE:
    """Server-sent events (WHATWG HTML, 9.2.6). Lines end at CR, LF or CRLF at byte level only; one
    byte order mark is dropped; an event without its final blank line counts when the stream closes."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0
        self._started = False
        self._between = False  # nothing of an event is pending
        self.torn: bool = False  # the stream closed inside the name of a field
        self._bounds = Bounds()

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events these bytes complete; raises BadResponseError past a limit."""
        if self._between and data.endswith(b"\n\n") and b"\r" not in data:
            # What servers nearly always send: whole events of one line of data each, often one at a time.
            if data.startswith(b"data: ") and data.index(b"\n") == len(data) - 2:
                self._bounds.took(data, 0)
                self._bounds.gave(1)
                return [_event("", data[6:-2])]
            pieces = data[:-2].split(b"\n\n")
            found = [_event("", piece[6:]) for piece in pieces if piece.startswith(b"data: ") and b"\n" not in piece]
            if len(found) == len(pieces):
                self._bounds.took(data, 0)
                self._bounds.gave(len(found))
                return found
        if b"\n" not in data and b"\r" not in data and not self._pending.endswith(b"\r"):
            self._pending += data
            self._between = False
            self._bounds.took(data, len(self._pending) + self._size)
            return []
        buffer = bytes(self._pending) + data if self._pending else data
        if not self._started:
            self._started = True
            buffer = buffer.removeprefix(_BOM)
        if b"\r" in buffer:
            # A CR at the very end may be half of a CRLF: it waits for the next byte.
            held = buffer.endswith(b"\r")
            if held:
                buffer = buffer[:-1]
            lines = buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            rest = lines.pop() + (b"\r" if held else b"")
        else:
            lines = buffer.split(b"\n")
            rest = lines.pop()
        if rest or self._pending:
            self._pending = bytearray(rest)
        self._bounds.took(data, len(self._pending) + self._size)
        events: list[ServerSentEvent] = []
        for line in lines:
            if line:
                self._line(line)
            elif self._data:
                events.append(self._dispatch())
            else:
                self._name = ""
        if events:
            self._bounds.gave(len(events))
        self._between = not (self._pending or self._data or self._name)
        return events

    def close(self) -> list[ServerSentEvent]:
        """The event that was still waiting for its end, if there is one."""
        # What is pending is one line, and may end in the CR that waited for its LF.
        line = bytes(self._pending).removesuffix(b"\r")
        self._pending.clear()
        if not self._started:
            line = b"" if _BOM.startswith(line) else line.removeprefix(_BOM)
        if line:
            self.torn = line.partition(b":")[0] not in _FIELDS
            self._line(line)
        return [self._dispatch()] if self._data else []

    def _line(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            value = line[6:] if line[5:6] == b" " else line[5:]
            self._data.append(value)
            self._size += len(value) + 1
        elif line == b"data":
            self._data.append(b"")
            self._size += 1
        elif line.startswith(b"event:") or line == b"event":
            self._name = line[6:].strip().decode("utf-8", "replace")
        elif not line.partition(b":")[0].isascii():
            # Unknown fields are to be passed over, but no server has one like this: a damaged byte would
            # silently take an event away. As data it is noticed by whoever reads it.
            self._data.append(line)
            self._size += len(line) + 1

    def _dispatch(self) -> ServerSentEvent:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        event = ServerSentEvent(self._name, data)
        self._name = ""
        self._data = []
        self._size = 0
        return event


class NDJSON:
    """One JSON text a line; blank lines are passed over, a last line without its end counts."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._started = False
        self._bounds = Bounds()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines these bytes complete; raises BadResponseError past a limit."""
        if b"\n" not in data:
            self._pending += data
            self._bounds.took(data, len(self._pending))
            return []
        buffer = bytes(self._pending) + data if self._pending else data
        if not self._started:
            self._started = True
            buffer = buffer.removeprefix(_BOM)
        lines = buffer.split(b"\n")
        self._pending = bytearray(lines.pop())
        self._bounds.took(data, len(self._pending))
        found = [line for line in lines if line and not line.isspace()]
        self._bounds.gave(len(found))
        return found

    def close(self) -> list[bytes]:
        """The line that was still waiting for its end, if there is one."""
        rest = bytes(self._pending)
        self._pending.clear()
        if not self._started:
            rest = rest.removeprefix(_BOM)
        return [rest] if rest and not rest.isspace() else []


class AwsMessage(NamedTuple):
    """One message of an AWS event stream: its string headers and its payload."""

    headers: dict[str, str]
    payload: bytes


class AwsEventStream:
    """application/vnd.amazon.eventstream: prelude of two lengths and a CRC, headers, payload, CRC."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._needed = _PRELUDE  # bytes without which there is nothing to do
        self._bounds = Bounds()

    def feed(self, data: bytes) -> list[AwsMessage]:
        """The messages these bytes complete; raises BadResponseError on a bad CRC or past a limit. Whole
        messages before a bad one are given first; then the next call raises."""
        self._pending += data
        self._bounds.took(data, 0)  # what is pending is bounded by the length it tells
        messages: list[AwsMessage] = []
        at = 0
        try:
            while len(self._pending) - at >= self._needed:
                length = self._length(at)
                if len(self._pending) - at < length:
                    self._needed = length
                    break
                messages.append(_aws_message(bytes(self._pending[at : at + length])))
                self._needed = _PRELUDE
                at += length
        except BadResponseError:
            if not messages:
                raise
        del self._pending[:at]
        self._bounds.gave(len(messages))
        return messages

    def close(self) -> list[AwsMessage]:
        """Nothing: half a message cannot be told from a cut one. Raises when some is left."""
        if self._pending:
            self.feed(b"")
            raise BadResponseError("the event stream ended inside a message")
        return []

    def _length(self, at: int) -> int:
        """The length of the message that begins here, once its prelude has come."""
        length, headers_length, prelude_crc = struct.unpack_from(">III", self._pending, at)
        if binascii.crc32(self._pending[at : at + 8]) != prelude_crc:
            raise BadResponseError("the event stream's prelude checksum is wrong")
        if length > MAX_FRAME:
            raise BadResponseError(f"one event of the stream is larger than {MAX_FRAME} bytes")
        if length < _PRELUDE + headers_length + 4:
            raise BadResponseError("the event stream's lengths contradict each other")
        return int(length)


def _aws_message(frame: bytes) -> AwsMessage:
    if binascii.crc32(frame[:-4]) != struct.unpack_from(">I", frame, len(frame) - 4)[0]:
        raise BadResponseError("the event stream's message checksum is wrong")
    (headers_length,) = struct.unpack_from(">I", frame, 4)
    end = _PRELUDE + headers_length
    return AwsMessage(_same_headers(frame[_PRELUDE:end]), frame[end:-4])


def aws_headers(headers: Mapping[str, str]) -> bytes:
    """The headers of a message as they stand in it, for `aws_message`; raises ValueError for one that is too long."""
    data = b""
    for name, value in headers.items():
        key, text = name.encode(), value.encode("utf-8", "replace")
        if len(key) > 0xFF or len(text) > _LONGEST_HEADER:
            raise ValueError(f"the header {name[:40]!r} is too long for an event stream")
        data += struct.pack(">B", len(key)) + key + struct.pack(">BH", _AWS_STRING, len(text)) + text
    return data


def aws_message(headers: Mapping[str, str] | bytes, payload: bytes) -> bytes:
    """One message of an AWS event stream. Headers that many messages share may be given as `aws_headers` made them."""
    known = headers if isinstance(headers, bytes) else aws_headers(headers)
    prelude = _TWO(_PRELUDE + len(known) + len(payload) + 4, len(known))
    data = prelude + _ONE(binascii.crc32(prelude)) + known + payload
    return data + _ONE(binascii.crc32(data))


def _same_headers(data: bytes) -> dict[str, str]:
    """The headers of a message. Nearly all messages of a stream have the same ones, so short ones are remembered."""
    return _remembered(data) if len(data) <= _SHORT_HEADERS else _aws_headers(data)


@lru_cache(maxsize=64)
def _remembered(data: bytes) -> dict[str, str]:
    return _aws_headers(data)


_SHORT_HEADERS = 256
_PRELUDE = 12
_LONGEST_HEADER = 32_767
_ONE, _TWO = struct.Struct(">I").pack, struct.Struct(">II").pack
# Sizes of the fixed-length header types: two booleans, byte, short, int, long, then timestamp, uuid.
_AWS_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_AWS_STRING = 7
_AWS_SIZED = (6, _AWS_STRING)  # byte array and string tell their size in two bytes


def _aws_headers(data: bytes) -> dict[str, str]:
    """The headers with a string value; the others are skipped."""
    found = {}
    at = 0
    try:
        while at < len(data):
            size = data[at]
            name = data[at + 1 : at + 1 + size].decode()
            kind = data[at + 1 + size]
            at += 2 + size
            if kind in _AWS_FIXED:
                at += _AWS_FIXED[kind]
                continue
            if kind not in _AWS_SIZED:
                raise BadResponseError(f"the event stream has a header of the unknown type {kind}")
            (length,) = struct.unpack_from(">H", data, at)
            if kind == _AWS_STRING:
                found[name] = data[at + 2 : at + 2 + length].decode()
            at += 2 + length
    except (IndexError, struct.error, UnicodeDecodeError):
        raise BadResponseError("the event stream's headers are malformed") from None
    if at != len(data):
        raise BadResponseError("the event stream's headers are malformed")
    return found


# ---- forms ------------------------------------------------------------------------------------


class FormPart(NamedTuple):
    """A part of a form: its name and bytes, and of a file its name and IANA type."""

    name: str
    data: bytes
    filename: str | None = None
    media_type: str | None = None


_MAX_PARTS = 1000
_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(?:; ?[\w-]+=[\w.+-]+)*", re.ASCII)
# What would end a quoted name, or its line: written as browsers do it (WHATWG HTML, 4.10.21.8).
_ENDS_A_NAME = re.compile(r'["\x00-\x1f\x7f]')
_WRITTEN = re.compile(r"%(22|[01][0-9A-F]|7F)")
_BOUNDARY = re.compile(
    r'multipart/form-data\s*;(?:[^;]*;)*?\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE
)
_NAME_OF = re.compile(r';\s*name="([^"]*)"', re.IGNORECASE)
_FILENAME_OF = re.compile(r';\s*filename="([^"]*)"', re.IGNORECASE)
# Not for forms (RFC 7578, 4.2), and all the same what some clients send for a name that is not ASCII.
_FILENAME_ENCODED = re.compile(r";\s*filename\*=utf-8''([^;\s]*)", re.IGNORECASE)


def write_form(parts: Sequence[FormPart]) -> tuple[str, bytes]:
    r"""A form as multipart/form-data (RFC 7578): the content type, and the body. The boundary follows from the
    content, so that the same form is always the same bytes, and occurs nowhere in it.

    Raises InputError for a media type that is none.

    >>> write_form([FormPart("model", b"m")])[1].split(b"\r\n")[1:4]
    [b'Content-Disposition: form-data; name="model"', b'', b'm']
    """
    heads = [_form_head(part) for part in parts]
    boundary = _boundary(heads, parts)
    line = b"--" + boundary
    pieces = [
        piece for head, part in zip(heads, parts, strict=True) for piece in (line, head, b"", part.data)
    ]  # a line each
    return f"multipart/form-data; boundary={boundary.decode()}", b"\r\n".join([*pieces, line + b"--", b""])


def _form_head(part: FormPart) -> bytes:
    head = f'Content-Disposition: form-data; name="{_quotable(part.name)}"'
    if part.filename is not None:
        head += f'; filename="{_quotable(part.filename)}"'
    if part.media_type is not None:
        if not _TYPE.fullmatch(part.media_type):
            raise InputError(f"{part.media_type[:60]!r} is no media type", hint='one is such as "audio/wav"')
        head += f"\r\nContent-Type: {part.media_type}"
    return head.encode("utf-8", "replace")


def _quotable(text: str) -> str:
    return _ENDS_A_NAME.sub(lambda found: f"%{ord(found[0]):02X}", text)


def _boundary(heads: Sequence[bytes], parts: Sequence[FormPart]) -> bytes:
    """A line that no part holds: a digest of them all, and of that again for as long as one does."""
    digest = hashlib.sha256()
    for head, part in zip(heads, parts, strict=True):
        for piece in (head, part.data):
            digest.update(len(piece).to_bytes(8, "big"))
            digest.update(piece)
    boundary = digest.hexdigest()[:40].encode()
    while any(boundary in part.data for part in parts) or any(boundary in head for head in heads):
        boundary = hashlib.sha256(boundary).hexdigest()[:40].encode()
    return boundary


def read_form(content_type: str, body: bytes) -> list[FormPart]:
    """The parts of a multipart/form-data body, in order; raises InputError for what is no whole form."""
    found = _BOUNDARY.match(content_type.strip())
    if found is None:
        raise InputError("the request is no form: its content type must be multipart/form-data with a boundary")
    line = b"--" + (found[1] or found[2]).encode("utf-8", "replace")
    pieces = (b"\r\n" + body).split(b"\r\n" + line)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise InputError("the form is cut off before its last boundary")
    if len(pieces) > _MAX_PARTS:
        raise InputError(f"the form has more than {_MAX_PARTS} parts")
    return [_form_part(piece) for piece in pieces[1:-1]]


def _form_part(piece: bytes) -> FormPart:
    head, gap, data = piece.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n")
    fields: dict[str, str] = {}
    for row in head.decode("utf-8", "replace").split("\r\n"):
        key, _, value = row.partition(":")
        fields[key.strip().lower()] = value.strip()
    said = fields.get("content-disposition", "")
    name = _NAME_OF.search(said)
    if not gap or name is None:
        raise InputError("a part of the form has no name")
    return FormPart(_unquoted(name[1]), data, _filename_in(said), fields.get("content-type"))


def _filename_in(said: str) -> str | None:
    encoded = _FILENAME_ENCODED.search(said)
    if encoded is not None:
        return unquote(encoded[1], errors="replace")
    plain = _FILENAME_OF.search(said)
    return None if plain is None else _unquoted(plain[1])


def _unquoted(text: str) -> str:
    return _WRITTEN.sub(lambda found: chr(int(found[1], 16)), text)
