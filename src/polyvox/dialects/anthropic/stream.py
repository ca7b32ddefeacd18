"""A streamed Messages answer read as events: server-sent events, or the AWS event stream that wraps the same
events. It knows the protocol's blocks and deltas; what they add up to is for others."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import Struct

from polyvox.dialects import Endpoint, Reply, decode_object, integer, snippet, string
from polyvox.dialects.anthropic import answer
from polyvox.dialects.anthropic.facts import NAME, finish_of
from polyvox.dialects.collect import as_events
from polyvox.dialects.errors_on_wire import make_error
from polyvox.dialects.framing import MAX_FRAME, SSE, AwsEventStream, AwsMessage, ServerSentEvent
from polyvox.dialects.stream_reader import StreamReader
from polyvox.errors import BadResponseError, PolyvoxError, StreamInterruptedError
from polyvox.types import (
    CitationAdded,
    Ended,
    ExtraAdded,
    Failed,
    Opaque,
    PartAdded,
    ReasoningDelta,
    ReasoningProof,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    UsageReported,
)

_DELTA_KEYS = frozenset({"stop_reason", "stop_sequence"})
_STOP_KEYS = frozenset({"type", "delta", "usage"})
# Deltas that come for a block nobody started open one of this kind.
_OPENS = {"text_delta": "text", "citations_delta": "text", "thinking_delta": "thinking", "signature_delta": "thinking"}
_KNOWN_DELTAS = frozenset({*_OPENS, "input_json_delta"})


_GIVE_UP_AFTER = 8  # misses in a row before the typed decoder is left out for this stream


class _Words(Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["text_delta"]
    text: str


class _More(Struct, forbid_unknown_fields=True, gc=False):
    """The event that nearly all events of a stream are: more words, and nothing else."""

    type: Literal["content_block_delta"]
    index: int
    delta: _Words


_decode_words = msgspec.json.Decoder(_More).decode


class _Block:
    """A content block while it streams: its part, its start as sent, and the JSON that grows it."""

    __slots__ = ("json", "kind", "part", "raw", "spoke")

    def __init__(self, part: int, kind: str, raw: dict[str, Any]) -> None:
        self.part = part
        self.kind = kind
        self.raw = raw
        self.json: list[str] = []
        self.spoke = False


class Reader(StreamReader):
    """Reads one streamed answer; see `polyvox.dialects.Reader`. The framing shows in the first bytes."""

    def __init__(self, at: Endpoint) -> None:
        super().__init__(at)
        self._frames: SSE | AwsEventStream | _Whole | None = None
        self._head = b""
        self._blocks: dict[int, _Block] = {}
        self._parts = 0
        self._calls = 0
        self._usage: dict[str, Any] = {}
        self._reason: str | None = None
        self._sequence: str | None = None
        self._misses = 0

    def _read(self, data: bytes) -> None:
        if self._frames is None:
            self._head += data
            start = self._head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
            if not start:
                return
            data, self._head = self._head, b""
            self._frames = AwsEventStream() if start == b"\0" else _Whole() if start in b"{<" else SSE()
        for frame in self._frames.feed(data):
            if type(frame) is not ServerSentEvent or not self._quick(frame.data):
                self._frame(frame)

    def _finish(self) -> None:
        try:
            rest = self._frames.close() if self._frames is not None else []
            for frame in rest:
                self._frame(frame)
        except BadResponseError:
            # What was pending is cut short: that is an interruption, not nonsense.
            pass
        if isinstance(self._frames, _Whole) and not self.done:
            self._whole(self._frames.body)
        if not self.done:
            raise StreamInterruptedError("the stream ended before its message_stop", sent="yes")

    def _whole(self, body: bytes) -> None:
        """The provider did not stream: its answer or error came in one piece."""
        if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            raise BadResponseError(f"the answer is a page, not a stream: {snippet(body)}")
        try:
            decode_object(body)
        except BadResponseError:
            return
        self._out += as_events(answer.decode(Reply(200, {}, body), self._at))
        self.done = True

    def _quick(self, data: bytes) -> bool:
        """Take an event that adds words to a block of words; false when it is another."""
        if self._misses >= _GIVE_UP_AFTER or self.done or not self._blocks:
            return False
        try:
            event = _decode_words(data)
        except (msgspec.DecodeError, ValueError):
            self._misses += 1
            return False
        self._misses = 0
        block = self._blocks.get(event.index)
        if block is None or block.kind != "text" or not event.delta.text:
            return False
        block.spoke = True
        self._out.append(TextDelta(event.delta.text, block.part))
        return True

    # ---- frames -------------------------------------------------------------------------------

    def _frame(self, frame: ServerSentEvent | AwsMessage) -> None:
        if self.done:
            return
        if isinstance(frame, AwsMessage):
            self._aws(frame)
        elif frame.data.strip() not in (b"", b"[DONE]"):
            self._event(decode_object(frame.data), frame.name)

    def _aws(self, frame: AwsMessage) -> None:
        kind = frame.headers.get(":message-type")
        if kind in ("exception", "error"):
            name = frame.headers.get(":exception-type") or frame.headers.get(":error-code")
            said = frame.headers.get(":error-message") or string(decode_object(frame.payload or b"{}").get("message"))
            raise make_error(0, {}, type=name, message=said or "")
        wrapped = decode_object(frame.payload)
        if isinstance(wrapped.get("bytes"), str):
            self._event(decode_object(base64.b64decode(wrapped["bytes"], validate=True)), "")
        else:
            self._event(wrapped, "")

    def _event(self, data: dict[str, Any], name: str) -> None:
        kind = string(data.get("type")) or name
        take = _EVENTS.get(kind)
        if take is not None:
            take(self, data)
        elif answer.is_error(data):
            self._error(data)
        else:
            self._out.append(ExtraAdded({NAME: {kind or "event": data}}))

    # ---- events -------------------------------------------------------------------------------

    def _start(self, data: dict[str, Any]) -> None:
        message = data["message"]
        self._out.append(Started(string(message.get("id")), string(message.get("model"))))
        self._more_usage(message.get("usage"))
        self._extra(answer.extra_of(message, answer.MESSAGE_KEYS))

    def _block_start(self, data: dict[str, Any]) -> None:
        raw = data["content_block"]
        self._open(_index(data), raw, answer.kind_of(raw))

    def _open(self, index: int, raw: dict[str, Any], kind: str) -> _Block:
        if index in self._blocks:
            self._stop_block(self._blocks.pop(index))
        block = self._blocks[index] = _Block(self._parts, kind, raw)
        self._parts += 1
        known = answer.BLOCK_KEYS.get(kind)
        extra = answer.extra_of(raw, known) if known else {}
        part = block.part
        if kind == "tool_use":
            identity, name = answer.identity_of(raw, self._calls)
            self._calls += 1
            self._out.append(ToolCallStarted(part, identity, name, extra=extra))
        elif kind == "text":
            self._text(block, raw)
            for citation in raw.get("citations") or ():
                self._cite(block, {"citation": citation})
            if extra:
                # A text part in a stream has no place for keys of its own: they stand by its number.
                self._extra({NAME: {f"content.{part}": extra[NAME]}})
        elif kind == "thinking":
            self._thought(block, raw)
            signature = string(raw.get("signature"))
            self._out.append(ReasoningProof(part, signature, origin=self._at.origin, extra=extra))
        elif kind == "redacted_thinking":
            data = answer.words(raw, "data")
            self._out.append(ReasoningProof(part, encrypted=data, origin=self._at.origin, extra=extra))
        return block

    def _block_delta(self, data: dict[str, Any]) -> None:
        delta = data["delta"]
        kind = delta.get("type")
        block = self._blocks.get(_index(data))
        if block is None:
            if kind not in _KNOWN_DELTAS:
                self._extra({NAME: {str(kind): data}})
                return
            if kind not in _OPENS:
                raise BadResponseError("the stream has the arguments of a tool call that never began")
            block = self._open(_index(data), {}, _OPENS[kind])
        take = _DELTAS.get((block.kind, kind))
        if take is not None:
            take(self, block, delta)
        elif block.kind not in answer.BLOCK_KEYS:
            _grow(block, delta)
        elif kind in _KNOWN_DELTAS:
            raise BadResponseError(f"the stream has a {kind} for a block of type {block.kind}")
        else:
            self._extra({NAME: {str(kind): data}})

    def _block_stop(self, data: dict[str, Any]) -> None:
        block = self._blocks.pop(_index(data), None)
        if block is not None:
            self._stop_block(block)

    def _stop_block(self, block: _Block) -> None:
        if block.kind == "tool_use":
            if not block.spoke:
                self._out.append(ToolCallDelta(block.part, _arguments(block.raw.get("input"))))
            self._out.append(ToolCallEnded(block.part))
        elif block.kind == "text" and not block.spoke:
            self._out.append(TextDelta("", block.part))
        elif block.kind not in answer.BLOCK_KEYS:
            self._out.append(PartAdded(block.part, Opaque(NAME, block.kind, _grown(block), self._at.origin)))

    def _delta(self, data: dict[str, Any]) -> None:
        delta = data.get("delta") or {}
        self._reason = string(delta.get("stop_reason")) or self._reason
        self._sequence = string(delta.get("stop_sequence")) or self._sequence
        explanation = answer.explanation_of(delta.get("stop_details"))
        if explanation:
            self._close_blocks()
            self._out.append(RefusalDelta(explanation, self._parts))
            self._parts += 1
        self._more_usage(data.get("usage"))
        self._extra(answer.extra_of(delta, _DELTA_KEYS))
        self._extra(answer.extra_of(data, _STOP_KEYS))

    def _stop(self, data: dict[str, Any]) -> None:
        self._close_blocks()
        self._extra(answer.extra_of(data, _STOP_KEYS))
        self._out.append(Ended(finish_of(self._reason, self._calls > 0), self._reason, self._sequence))
        self.done = True

    def _error(self, data: dict[str, Any]) -> None:
        raise answer.error_of(data, 0, {})

    def _ping(self, data: dict[str, Any]) -> None:
        """A sign of life says nothing else."""

    def _fail(self, error: PolyvoxError) -> None:
        reason = finish_of(self._reason, self._calls > 0) if self._reason else None
        self._out.append(Failed(error, reason, self._reason))

    # ---- pieces -------------------------------------------------------------------------------

    def _text(self, block: _Block, delta: dict[str, Any]) -> None:
        text = answer.words(delta, "text")
        if text:
            block.spoke = True
            self._out.append(TextDelta(text, block.part))

    def _cite(self, block: _Block, delta: dict[str, Any]) -> None:
        block.spoke = True
        self._out.append(CitationAdded(block.part, answer.citation_of(delta["citation"])))

    def _thought(self, block: _Block, delta: dict[str, Any]) -> None:
        text = answer.words(delta, "thinking")
        if text:
            self._out.append(ReasoningDelta(text, block.part))

    def _sign(self, block: _Block, delta: dict[str, Any]) -> None:
        self._out.append(ReasoningProof(block.part, answer.words(delta, "signature"), origin=self._at.origin))

    def _argue(self, block: _Block, delta: dict[str, Any]) -> None:
        text = answer.words(delta, "partial_json")
        if text:
            block.spoke = True
            self._out.append(ToolCallDelta(block.part, text))

    def _close_blocks(self) -> None:
        for index in sorted(self._blocks):
            self._stop_block(self._blocks.pop(index))

    def _more_usage(self, usage: Any) -> None:
        """Later figures replace earlier ones: those of message_delta are cumulative."""
        if isinstance(usage, dict) and usage:
            self._usage = {**self._usage, **{key: value for key, value in usage.items() if value is not None}}
            self._out.append(UsageReported(answer.usage_of(self._usage)))

    def _extra(self, extra: dict[str, dict[str, Any]]) -> None:
        if extra:
            self._out.append(ExtraAdded(extra))


class _Whole:
    """The bytes of an answer that turned out not to be a stream."""

    def __init__(self) -> None:
        self.body = b""

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        self.body += data
        if len(self.body) > MAX_FRAME:
            raise BadResponseError(f"the answer is no stream and larger than {MAX_FRAME} bytes")
        return []

    def close(self) -> list[ServerSentEvent]:
        return []


def _index(data: dict[str, Any]) -> int:
    index = integer(data.get("index"))
    if index is None:
        raise BadResponseError("the stream has an event for a content block without its index")
    return index


def _arguments(given: Any) -> str:
    """The arguments of a call that came without deltas: those of its start, mostly none."""
    if isinstance(given, str):
        return given
    return msgspec.json.encode(given or {}).decode()


def _grow(block: _Block, delta: dict[str, Any]) -> None:
    """Add a delta to a block nobody knows: JSON pieces to its input, text to text, the rest replaces."""
    if delta.get("type") == "input_json_delta":
        block.json.append(answer.words(delta, "partial_json"))
        return
    raw = block.raw = dict(block.raw)
    for key, value in delta.items():
        before = raw.get(key)
        if key != "type" and value is not None:
            raw[key] = before + value if isinstance(before, str) and isinstance(value, str) else value


def _grown(block: _Block) -> dict[str, Any]:
    """A block nobody knows, whole. Input that was cut short stays readable as partial_json."""
    text = "".join(block.json)
    if not text.strip():
        return block.raw
    try:
        return {**block.raw, "input": msgspec.json.decode(text)}
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {**block.raw, "input": {"partial_json": text}}


_EVENTS: dict[str, Callable[[Reader, dict[str, Any]], None]] = {
    "message_start": Reader._start,
    "content_block_start": Reader._block_start,
    "content_block_delta": Reader._block_delta,
    "content_block_stop": Reader._block_stop,
    "message_delta": Reader._delta,
    "message_stop": Reader._stop,
    "error": Reader._error,
    "ping": Reader._ping,
}
_DELTAS: dict[tuple[str, str], Callable[[Reader, _Block, dict[str, Any]], None]] = {
    ("text", "text_delta"): Reader._text,
    ("text", "citations_delta"): Reader._cite,
    ("thinking", "thinking_delta"): Reader._thought,
    ("thinking", "signature_delta"): Reader._sign,
    ("tool_use", "input_json_delta"): Reader._argue,
}
