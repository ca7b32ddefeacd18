"""Surgery on JSON bytes: one value set, every other byte as it was. It knows no protocol; what to set, and
where, is a dialect's business.

Decoding and writing anew would not do: it loses white space, escapes, the order of keys, doubled keys and
the spelling of numbers, and with them the provider's prompt cache and what the client meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from polyvox.dialects import encode_json
from polyvox.errors import InputError

_BOM = b"\xef\xbb\xbf"
_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_key_text = msgspec.json.Decoder(str).decode

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_PLAIN = re.compile(rb"[^ \t\r\n,\]}]+")  # a number, true, false or null
_NEST = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


class _Member(NamedTuple):
    """Where a member of an object stands: its key, and its value as body[start:end]."""

    key: str
    start: int
    end: int


def set_in(body: bytes, path: tuple[str, ...], value: bytes) -> bytes:
    """The JSON object with the JSON text `value` at the path of keys; raises InputError for no JSON object.

    A key that stands there gets the value, each time where it is doubled: readers differ in which one
    counts. A missing key becomes the last of its object. What stands in the way of the path (null, say)
    gives place to an object.

    >>> set_in(b'{ "model": "a", "n":1.0 }', ("model",), b'"b"')
    b'{ "model": "b", "n":1.0 }'
    >>> set_in(b'{"stream":true}', ("stream_options", "include_usage"), b"true")
    b'{"stream":true,"stream_options":{"include_usage":true}}'
    """
    head = _BOM if body.startswith(_BOM) else b""
    text = body.removeprefix(_BOM)
    try:
        raws = _raw_members(text)
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise InputError("the request is not a JSON object", code="invalid_json") from None
    start = _skip(text, 0)
    edits = sorted(_edits(text, start, {key: bytes(raw) for key, raw in raws.items()}, path, value))
    pieces, done = [head], 0
    for begin, end, new in edits:
        pieces += (text[done:begin], new)
        done = end
    return b"".join((*pieces, text[done:]))


def _edits(
    text: bytes, start: int, raws: dict[str, bytes], path: tuple[str, ...], value: bytes
) -> Iterator[tuple[int, int, bytes]]:
    """What to replace, as (from, to, by), in the object that begins at `start`."""
    key, rest = path[0], path[1:]
    last, found = start + 1, False
    for member in _members(text, start, raws):
        last = member.end
        if member.key != key:
            continue
        found = True
        if rest and text[member.start : member.start + 1] == b"{":
            yield from _edits(text, member.start, {}, rest, value)
        else:
            yield member.start, member.end, _nested(rest, value)
    if not found:
        comma = b"," if last > start + 1 else b""
        yield last, last, comma + encode_json(key) + b":" + _nested(rest, value)


def _nested(path: tuple[str, ...], value: bytes) -> bytes:
    """The value within objects of these keys."""
    for key in reversed(path):
        value = b"{" + encode_json(key) + b":" + value + b"}"
    return value


def _members(text: bytes, start: int, raws: dict[str, bytes]) -> Iterator[_Member]:
    """The members of the object that begins at `start`, in order; raws are values already known, by key."""
    at = _skip(text, start + 1)
    while text[at : at + 1] != b"}":
        name = _STRING.match(text, at)
        assert name is not None, "the text was decoded before"
        key = _key_text(name[0])
        begin = _skip(text, _skip(text, name.end()) + 1)
        end = _end_of(text, begin, raws.get(key))
        yield _Member(key, begin, end)
        at = _skip(text, end)
        if text[at : at + 1] == b",":
            at = _skip(text, at + 1)


def _end_of(text: bytes, start: int, raw: bytes | None) -> int:
    """Where the value that begins at `start` ends. What the decoder saw under the key is tried first, as that
    is far quicker for long values; it is another value where a key is doubled."""
    if raw is not None and text.startswith(raw, start):
        end = start + len(raw)
        after = _skip(text, end)
        if text[after : after + 1] in (b",", b"}"):
            return end
    first = text[start : start + 1]
    if first not in (b"{", b"["):
        found = (_STRING if first == b'"' else _PLAIN).match(text, start)
        assert found is not None, "the text was decoded before"
        return found.end()
    depth = 0
    for mark in _NEST.finditer(text, start):
        if mark[0] in (b"{", b"["):
            depth += 1
        elif mark[0] in (b"}", b"]"):
            depth -= 1
            if not depth:
                return mark.end()
    raise AssertionError("the text was decoded before")


def _skip(text: bytes, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space is not None else at
