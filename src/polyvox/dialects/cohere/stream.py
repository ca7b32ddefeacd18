"""A streamed answer as a state machine: server-sent events in any chunking, neutral events out.

Most events carry a few more words and nothing else. Those are recognised by a strict typed decoder, which is also the
cheapest way to read them; whatever has one key more takes the general path, so nothing is skipped for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec
from msgspec import Struct

from polyvox.dialects import SHAPE_ERRORS, Endpoint, Reply, decode_json, decode_object, integer, snippet, string
from polyvox.dialects.cohere.answer import (
    call_extra,
    citation_of,
    decode_response,
    error_of,
    finish_of,
    fresh_id,
    is_error,
    keys_beside,
    logprobs_of,
    mark_of,
    name_of,
    part_of,
    plan_of,
    text_cited,
    usage_of,
    words_of,
)
from polyvox.dialects.cohere.request import NAME, PLAN
from polyvox.dialects.collect import as_events
from polyvox.dialects.framing import MAX_FRAME, SSE, ServerSentEvent
from polyvox.errors import BadResponseError, PolyvoxError, StreamInterruptedError
from polyvox.types import (
    CitationAdded,
    Ended,
    Event,
    ExtraAdded,
    Failed,
    LogprobsAdded,
    Opaque,
    PartAdded,
    ReasoningDelta,
    ReasoningProof,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    UsageReported,
)


class _Words(Struct, forbid_unknown_fields=True, gc=False):
    text: str


class _Content(Struct, forbid_unknown_fields=True, gc=False):
    content: _Words


class _Message(Struct, forbid_unknown_fields=True, gc=False):
    message: _Content


class _WordsEvent(Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["content-delta"]
    index: int
    delta: _Message


_decode_words = msgspec.json.Decoder(_WordsEvent).decode

_START = frozenset({"type", "id", "delta"})
_ITEM = frozenset({"type", "text", "thinking"})
_EVENT = frozenset({"type", "index", "delta", "logprobs"})
_END = frozenset({"finish_reason", "usage", "error"})
_DETAILS = frozenset({"error_type", "code", "param", "status_code"})  # that stand beside an error
_GROWN = {"text": "thinking", "thinking": "text"}  # content that grows by words, and the words it cannot hold
_NO_STREAM = (b"{", b"[", b"<")
_DATA = b"data: "
_NAMED = b"event: content-delta\n" + _DATA
_TYPED = b'"type":"content-delta"'
_SPACE = b"\xef\xbb\xbf \t\r\n"


class _Item:
    """An item of content while it streams: the part it is, and its raw form where it has no neutral one."""

    __slots__ = ("index", "kind", "part", "raw", "spoke")

    def __init__(self, index: int, part: int, kind: str, raw: dict[str, Any]) -> None:
        self.index = index
        self.part = part
        self.kind = kind
        self.raw = raw
        self.spoke = False


class CohereReader:
    """See `dialects.Reader`. The event named message-end is the last."""

    def __init__(self, at: Endpoint) -> None:
        self.done: bool = False
        self._at = at
        self._frames = SSE()
        self._head: bytearray | None = bytearray()  # the start of the body, until it is known to be a stream
        self._between = False  # nothing of an event is pending
        self._whole = False  # it is none: one answer, one error or a page
        self._started = False
        self._parts = 0
        self._plan: int | None = None
        self._open: dict[int, _Item] = {}
        self._texts: dict[int, int] = {}  # which item of content is which text part
        self._calls: dict[int, int] = {}
        self._ids: set[str] = set()
        self._logprobs: list[Any] = []
        self._beside: dict[str, Any] = {}  # keys without a neutral place, told at the end
        self._message: dict[str, Any] = {}  # those of the message
        self._cited: list[dict[str, Any]] = []  # citations of no text so far
        self._keys: dict[int, dict[str, Any]] = {}  # those of content, by its place
        self._events: list[Any] = []  # events nobody knows

    def feed(self, data: bytes) -> list[Event]:
        """See `dialects.Reader.feed`."""
        head = self._head
        if head is not None:
            return self._guarded(lambda: self._sniffed(head, data))
        if self._between and data.startswith(_NAMED) and data.count(b"\n") == 3 and _TYPED in data:
            # One event with more words: its name says no more than the type in its data.
            data = data[len(_NAMED) - len(_DATA) :]
        self._between = data.endswith(b"\n\n")
        return self._guarded(lambda: self._frames.feed(data))

    def close(self) -> list[Event]:
        """See `dialects.Reader.close`."""
        events = self._guarded(self._last)
        if not self.done:
            self._fail(StreamInterruptedError("the stream ended before its message-end", sent="yes"), events)
        return events

    def _sniffed(self, head: bytearray, data: bytes) -> list[ServerSentEvent]:
        """The events of a stream; none of what is no stream, which waits for its end."""
        head += data
        if len(head) > MAX_FRAME:
            raise BadResponseError(f"the answer is no stream and larger than {MAX_FRAME} bytes")
        start = head.lstrip(_SPACE)
        if self._whole or not start:
            return []
        self._whole = start.startswith(_NO_STREAM)
        if self._whole:
            return []
        self._head = None
        return self._frames.feed(bytes(head))

    def _last(self) -> Iterable[ServerSentEvent]:
        """What was pending: an event without its end counts where it is whole."""
        if self._whole:
            return [ServerSentEvent("", bytes(self._head or b""))]
        found = self._frames.close()
        try:
            for frame in found:
                decode_json(frame.data)
        except BadResponseError:
            return []
        return found

    def _guarded(self, take: Callable[[], Iterable[ServerSentEvent]]) -> list[Event]:
        events: list[Event] = []
        if self.done:
            return events
        try:
            for frame in take():
                self._frame(frame, events)
        except PolyvoxError as error:
            self._fail(error, events)
        except SHAPE_ERRORS as error:
            self._fail(BadResponseError(f"an event of the stream has an unexpected shape: {error}"), events)
        return events

    def _fail(self, error: PolyvoxError, events: list[Event], raw: str | None = None) -> None:
        self.done = True
        self._tell_beside(events)
        if error.sent == "unknown":
            error.sent = "yes"
        events.append(Failed(error, "error" if raw else None, raw))

    # ---- events of the wire -------------------------------------------------------------------

    def _frame(self, frame: ServerSentEvent, events: list[Event]) -> None:
        if self.done:
            return
        if self._whole:
            self._one_piece(frame.data, events)
            return
        try:
            said = _decode_words(frame.data)
        except (msgspec.DecodeError, ValueError, RecursionError):
            pass
        else:
            item = self._open.get(said.index)
            words = said.delta.message.content.text
            if item is not None and item.kind == "text" and words:
                item.spoke = True
                events.append(TextDelta(words, item.part))
                return
        if frame.data.strip() in (b"", b"[DONE]"):
            return
        body = decode_object(frame.data)
        kind = string(body.get("type")) or frame.name
        take = _EVENTS.get(kind)
        if take is not None:
            if not self._started:
                self._started = True
                events.append(Started((string(body.get("id")) or None) if kind == "message-start" else None))
            take(self, body, events)
        elif is_error(body):
            raise error_of(body, 0, {})
        else:
            self._events.append(body)

    def _one_piece(self, body: bytes, events: list[Event]) -> None:
        """The provider did not stream: its answer or error came whole, or it was cut."""
        if body.lstrip(_SPACE).startswith(b"<"):
            raise BadResponseError(f"the answer is a page, not a stream: {snippet(body)}")
        try:
            decode_json(body)
        except BadResponseError:
            return
        events += as_events(decode_response(Reply(200, {}, body), self._at))
        self.done = True

    def _message_start(self, body: dict[str, Any], events: list[Event]) -> None:
        message = (body.get("delta") or {}).get("message") or {}
        said = {key: value for key, value in message.items() if key != "role" and value not in (None, "", [])}
        self._message.update(said)
        self._beside.update(keys_beside(body, _START))

    def _content_start(self, body: dict[str, Any], events: list[Event]) -> None:
        content = body["delta"]["message"]["content"]
        self._open_item(_index(body), content, events)

    def _open_item(self, index: int, raw: dict[str, Any], events: list[Event]) -> _Item:
        self._close_item(index, events)
        kind = string(raw.get("type")) or ("thinking" if "thinking" in raw else "text")
        item = self._open[index] = _Item(index, self._take(), kind, {} if kind in _GROWN else dict(raw))
        if kind not in _GROWN:
            return item
        if kind == "text":
            self._texts[index] = item.part
        else:
            events.append(ReasoningProof(item.part, **mark_of(self._at)))
        self._grow(item, raw, events)
        return item

    def _content_delta(self, body: dict[str, Any], events: list[Event]) -> None:
        content = (((body.get("delta") or {}).get("message")) or {}).get("content") or {}
        if (raw := body.get("logprobs")) is not None:
            self._logprobs.append(raw)
            if found := logprobs_of([raw]):
                events.append(LogprobsAdded(found))
        if keys := keys_beside(body, _EVENT):
            self._beside.update(keys)
        if not any(content.values()):
            return
        index = _index(body)
        item = self._open.get(index) or self._open_item(index, dict.fromkeys(content, ""), events)
        self._grow(item, content, events)

    def _grow(self, item: _Item, content: dict[str, Any], events: list[Event]) -> None:
        other = _GROWN.get(item.kind)
        if other is None:
            for key, value in content.items():
                before = item.raw.get(key)
                item.raw[key] = before + value if isinstance(before, str) and isinstance(value, str) else value
            return
        if words := words_of(content, item.kind):
            item.spoke = True
            events.append(TextDelta(words, item.part) if item.kind == "text" else ReasoningDelta(words, item.part))
        if content.get(other):
            raise BadResponseError(f"the stream has {other} for content of type {item.kind}")
        if keys := keys_beside(content, _ITEM):
            # A part that streams has no place for keys of its own: they stand by its number.
            self._keys.setdefault(item.index, {}).update(keys)

    def _content_end(self, body: dict[str, Any], events: list[Event]) -> None:
        self._close_item(_index(body), events)

    def _close_item(self, index: int, events: list[Event]) -> None:
        item = self._open.pop(index, None)
        if item is None:
            return
        if item.kind not in _GROWN:
            events.append(PartAdded(item.part, part_of(item.raw, self._at)))
        elif item.kind == "text" and not item.spoke:
            events.append(TextDelta("", item.part))

    def _tool_plan(self, body: dict[str, Any], events: list[Event]) -> None:
        words = words_of(body["delta"]["message"], PLAN)
        if not words:
            return
        if self._plan is None:
            self._plan = self._take()
            plan = plan_of(self._at)
            events.append(ReasoningProof(self._plan, origin=plan.origin, extra=plan.extra))
        events.append(ReasoningDelta(words, self._plan))

    def _call_start(self, body: dict[str, Any], events: list[Event]) -> None:
        raw = body["delta"]["message"]["tool_calls"]
        index, part = _index(body), self._take()
        self._end_call(index, events)
        if raw.get("function") is None:
            events.append(PartAdded(part, Opaque(NAME, "tool_call", {"tool_calls": [raw]}, self._at.origin)))
            return
        self._calls[index] = part
        call_id = fresh_id(string(raw.get("id")), self._ids)
        events.append(ToolCallStarted(part, call_id, name_of(raw), extra=call_extra(raw)))
        if words := words_of(raw["function"], "arguments"):
            events.append(ToolCallDelta(part, words))

    def _call_delta(self, body: dict[str, Any], events: list[Event]) -> None:
        words = words_of(body["delta"]["message"]["tool_calls"]["function"], "arguments")
        if not words:
            return
        part = self._calls.get(_index(body))
        if part is None:
            raise BadResponseError("the stream has the arguments of a tool call that never began")
        events.append(ToolCallDelta(part, words))

    def _call_end(self, body: dict[str, Any], events: list[Event]) -> None:
        self._end_call(_index(body), events)

    def _end_call(self, index: int, events: list[Event]) -> None:
        part = self._calls.pop(index, None)
        if part is not None:
            events.append(ToolCallEnded(part))

    def _citation(self, body: dict[str, Any], events: list[Event]) -> None:
        raw = body["delta"]["message"]["citations"]
        for cited in raw if isinstance(raw, list) else [raw]:
            if not self._cite(cited, events):
                self._cited.append(cited)

    def _cite(self, cited: dict[str, Any], events: list[Event]) -> bool:
        """Hang a citation on the text it is of, if that has begun."""
        items = range(max(self._texts, default=-1) + 1)
        place = text_cited(cited, [index in self._texts for index in items])
        if place is None:
            return False
        events.append(CitationAdded(self._texts[place], citation_of(cited)))
        return True

    def _nothing(self, body: dict[str, Any], events: list[Event]) -> None:
        """The end of a citation, which came whole at its start."""

    def _message_end(self, body: dict[str, Any], events: list[Event]) -> None:
        delta = body.get("delta") or {}
        for index in sorted(self._open):
            self._close_item(index, events)
        for index in sorted(self._calls):
            self._end_call(index, events)
        if (usage := usage_of(delta.get("usage"))) is not None:
            events.append(UsageReported(usage))
        failed = bool(delta.get("error"))
        self._beside.update(keys_beside(body, _START))
        self._beside.update(keys_beside(delta, _END | _DETAILS if failed else _END))
        reason, raw = finish_of(delta, bool(self._ids))
        if failed:
            self._fail(error_of(delta, 0, {}), events, raw)
            return
        self._tell_beside(events)
        self.done = True
        events.append(Ended(reason or "unknown", raw))

    def _tell_beside(self, events: list[Event]) -> None:
        # A citation may come before its text.
        if loose := [cited for cited in self._cited if not self._cite(cited, events)]:
            self._message["citations"] = loose
        found = {"logprobs": self._logprobs, "message": self._message, "events": self._events}
        extra = {**self._beside, **{key: value for key, value in found.items() if value}}
        extra |= {f"content.{index}": keys for index, keys in self._keys.items()}
        if extra:
            events.append(ExtraAdded({NAME: extra}))

    def _take(self) -> int:
        self._parts += 1
        return self._parts - 1


def _index(body: dict[str, Any]) -> int:
    """The place that an event is about; the first where it names none."""
    if body.get("index") is None:
        return 0
    index = integer(body["index"])
    if index is None:
        raise BadResponseError("the stream has an event whose index is no number")
    return index


_EVENTS: dict[str, Callable[[CohereReader, dict[str, Any], list[Event]], None]] = {
    "message-start": CohereReader._message_start,
    "content-start": CohereReader._content_start,
    "content-delta": CohereReader._content_delta,
    "content-end": CohereReader._content_end,
    "tool-plan-delta": CohereReader._tool_plan,
    "tool-call-start": CohereReader._call_start,
    "tool-call-delta": CohereReader._call_delta,
    "tool-call-end": CohereReader._call_end,
    "citation-start": CohereReader._citation,
    "citation-end": CohereReader._nothing,
    "message-end": CohereReader._message_end,
}
