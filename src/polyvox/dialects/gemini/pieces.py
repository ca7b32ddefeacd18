"""The framing of a streamed answer: server-sent events, a list of JSON objects, or one object; and among events
the bare JSON, over several lines, in which servers tell an error. It knows no meaning of what it frames."""

from __future__ import annotations

import re

from polyvox.dialects import snippet
from polyvox.dialects.framing import SSE, Bounds
from polyvox.errors import BadResponseError

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_BETWEEN = b" \t\r\n,[]"
_ENDS = (b"\n\n", b"\r\n\r\n")
_SHOWN = 1000  # bytes of a page that are kept to be told
_MARK = re.compile(rb'["\\{}]')
# A line of an event begins with the name of a field, so one that begins so is none.
_BARE = re.compile(rb"[\r\n][{\[]")


class JsonObjects:
    """Objects one after the other, as they stand in a list or alone. Bytes in any chunking."""

    def __init__(self, *, in_list: bool = False) -> None:
        self._open = in_list  # whether the end of the list is still to come
        self._pending = bytearray()
        self._at = 0  # what is before has been looked at
        self._depth = 0
        self._quoted = False
        self._bounds = Bounds()

    def feed(self, data: bytes) -> list[bytes]:
        """The objects these bytes complete; raises BadResponseError for what is none, or past a limit. Whole
        objects before such a thing are given first; then the next call raises."""
        self._pending += data
        self._bounds.took(data, len(self._pending))
        found: list[bytes] = []
        try:
            while (end := self._end()) is not None:
                found.append(bytes(self._pending[:end]))
                del self._pending[:end]
                self._at = 0
        except BadResponseError:
            if not found:
                raise
        self._bounds.gave(len(found))
        return found

    @property
    def torn(self) -> bool:
        """Whether something has begun that has not come to its end: an object, or the list they stand in."""
        return self._open or bool(self._pending)

    def _end(self) -> int | None:
        """Where the object that is pending ends, None where its end has not come."""
        pending = self._pending
        if not self._depth:
            start = len(pending) - len(pending.lstrip(_BETWEEN))
            self._open = self._open and b"]" not in pending[:start]
            del pending[:start]
            if not pending:
                return None
            if not pending.startswith(b"{"):
                raise BadResponseError(f"the stream is not valid JSON: {snippet(bytes(pending))}")
        while (mark := _MARK.search(pending, self._at)) is not None:
            sign = mark[0]
            self._at = mark.end()
            if sign == b"\\":
                if self._at == len(pending):
                    self._at -= 1  # what it escapes has not come yet
                    return None
                self._at += 1
            elif sign == b'"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._depth += 1 if sign == b"{" else -1
                if not self._depth:
                    return self._at
        self._at = len(pending)
        return None


class Pieces:
    """The JSON texts of a stream, whichever way it is framed: that shows in its first bytes."""

    def __init__(self) -> None:
        self._head = b""
        self._events: SSE | None = None
        self._objects: JsonObjects | None = None
        self._page = False
        self._new_line = True  # what was read so far ends with the end of a line

    def feed(self, data: bytes) -> list[bytes]:
        """The texts these bytes complete; raises BadResponseError for what is no stream, or past a limit."""
        if self._objects is not None:
            return self._objects.feed(data)
        if self._events is not None:
            if self._new_line and data.endswith(_ENDS) and data.find(b"\n") >= len(data) - 3:
                return [event.data for event in self._events.feed(data)]  # the common case: one event of one line
            return self._lines(data)
        if self._page:
            return []
        self._head += data
        start = self._head.removeprefix(_BOM).lstrip(_SPACE)
        if not start or _BOM.startswith(self._head):
            self._head = self._head[:3]
            return []
        data, self._head = self._head, b""
        if start[:1] in (b"{", b"["):
            self._objects = JsonObjects(in_list=start[:1] == b"[")
            return self._objects.feed(start)
        if start[:1] == b"<":
            self._page, self._head = True, data[:_SHOWN]
            return []
        self._events = SSE()
        return self._lines(data)

    def close(self) -> list[bytes]:
        """The text that was still waiting for its end, if there is one; raises BadResponseError for a page."""
        if self._page:
            raise BadResponseError(f"the answer is a page, not a stream: {snippet(self._head)}")
        if self._objects is not None:
            return self._objects.feed(b"")  # what is no object is noticed now at the latest
        return [event.data for event in self._events.close()] if self._events is not None else []

    @property
    def torn(self) -> bool:
        """Whether the stream closed inside an object, or inside the name of a field."""
        if self._objects is not None:
            return self._objects.torn
        return self._events is not None and self._events.torn

    def _lines(self, data: bytes) -> list[bytes]:
        """Events, up to the line where bare JSON begins."""
        assert self._events is not None, "events are read"
        before = b"\n" if self._new_line else b"."
        found = _BARE.search(before + data)
        if found is None:
            self._new_line = data[-1:] in (b"\n", b"\r") or (not data and self._new_line)
            return [event.data for event in self._events.feed(data)]
        at = found.end() - 2  # without the byte put before, and the one that tells
        texts = [event.data for event in self._events.feed(data[:at])]
        texts += [event.data for event in self._events.close()]
        self._objects = JsonObjects()
        return texts + self._objects.feed(data[at:])
