"""A streamed Converse answer read as events, from AWS event stream frames. It knows the protocol's blocks and
deltas; what they add up to is for others."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from polyvox.dialects import Endpoint, Reply, decode_object, integer, snippet, string
from polyvox.dialects.bedrock import answer
from polyvox.dialects.bedrock.facts import EVENT_KEYS, NAME, extra_of, finish_of
from polyvox.dialects.collect import as_events
from polyvox.dialects.framing import MAX_FRAME, AwsEventStream, AwsMessage
from polyvox.dialects.stream_reader import StreamReader
from polyvox.errors import BadResponseError, PolyvoxError, StreamInterruptedError
from polyvox.types import (
    CitationAdded,
    Ended,
    Extra,
    ExtraAdded,
    Failed,
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

_START_KEYS = frozenset({"toolUse", "toolResult", "image"})
_SPACE = b"\xef\xbb\xbf \t\r\n"
# Kinds of blocks that grow by events of ours. All others keep the name they have on the wire.
_TEXT, _CALL, _THOUGHT = "#text", "#call", "#thought"


class _Words(Struct, forbid_unknown_fields=True):
    text: str


class _MoreWords(Struct, forbid_unknown_fields=True, rename="camel"):
    """A delta of plain words, which nearly all are."""

    content_block_index: int
    delta: _Words
    p: str | UnsetType = UNSET


_more_words = msgspec.json.Decoder(_MoreWords).decode


class _Block:
    """A content block while it streams: its part, its kind, and what its end must tell."""

    __slots__ = ("hidden", "json", "kind", "part", "raw", "spoke")

    def __init__(self, part: int, kind: str, raw: dict[str, Any]) -> None:
        self.part = part
        self.kind = kind
        self.raw = raw
        self.json: list[str] = []
        self.hidden: list[str] = []
        self.spoke = False


class Reader(StreamReader):
    """Reads one streamed answer; see `polyvox.dialects.Reader`. The framing shows in the first byte."""

    def __init__(self, at: Endpoint) -> None:
        super().__init__(at)
        self._frames: AwsEventStream | None = None
        self._whole = b""  # of an answer that turned out not to be a stream
        self._blocks: dict[int, _Block] = {}
        self._parts = 0
        self._calls = 0
        self._stopped = False
        self._reason: str | None = None

    def _read(self, data: bytes) -> None:
        if self._frames is None:
            self._whole += data
            if not self._whole.startswith(b"\0"):
                if len(self._whole) > MAX_FRAME:
                    raise BadResponseError(f"the answer is no stream and larger than {MAX_FRAME} bytes")
                return
            data, self._whole = self._whole, b""
            self._frames = AwsEventStream()
        for message in self._frames.feed(data):
            if not self.done:
                self._message(message)

    def _finish(self) -> None:
        if self._frames is None:
            self._one_piece(self._whole)
            return
        self._frames.feed(b"")  # damaged bytes raise here: they are another thing than missing ones
        try:
            self._frames.close()
        except BadResponseError:
            raise StreamInterruptedError("the stream broke off inside an event", sent="yes") from None
        if not self._stopped:
            raise StreamInterruptedError("the stream ended before its messageStop", sent="yes")
        self._end()

    def _one_piece(self, body: bytes) -> None:
        """The provider did not stream: its answer or error came in one piece."""
        start = body.lstrip(_SPACE)[:1]
        if start == b"<":
            raise BadResponseError(f"the answer is a page, not a stream: {snippet(body)}")
        if start and start != b"{":
            raise BadResponseError(f"the answer is no event stream: {snippet(body)}")
        try:
            decode_object(body)
        except BadResponseError:
            raise StreamInterruptedError("the stream ended before its messageStop", sent="yes") from None
        self._out += as_events(answer.decode(Reply(200, {}, body), self._at))
        self.done = True

    # ---- frames -------------------------------------------------------------------------------

    def _message(self, message: AwsMessage) -> None:
        headers = message.headers
        kind = headers.get(":event-type", "")
        if headers.get(":message-type") in ("exception", "error"):
            self._error(message)
        elif kind == "contentBlockDelta":
            self._words(message.payload)
        else:
            data = decode_object(message.payload or b"{}")
            take = _EVENTS.get(kind)
            if take is None:
                self._extra({NAME: {kind or "event": data}})
            else:
                take(self, data)

    def _words(self, payload: bytes) -> None:
        try:
            said = _more_words(payload)
        except (msgspec.DecodeError, ValueError):
            self._delta(decode_object(payload))
            return
        self._say(said.content_block_index, said.delta.text)

    def _say(self, index: int, text: str) -> None:
        """More words. The first ones open their block, even if there are none."""
        block = self._blocks.get(index)
        if block is not None and block.kind == _TEXT:
            if text:
                self._out.append(TextDelta(text, block.part))
        elif index < 0:
            raise BadResponseError("the stream has an event for a content block without its index")
        else:
            self._out.append(TextDelta(text, self._open(index, _TEXT).part))

    def _error(self, message: AwsMessage) -> None:
        headers = message.headers
        name = headers.get(":exception-type") or headers.get(":error-code")
        try:
            body = decode_object(message.payload or b"{}")
        except BadResponseError:
            body = {"message": snippet(message.payload)}
        if said := headers.get(":error-message"):
            body = {"message": said, **body}
        raise answer.error_of(body, 0, {}, name or "error")

    # ---- events -------------------------------------------------------------------------------

    def _start(self, data: dict[str, Any]) -> None:
        self._out.append(Started())
        self._beside(data)

    def _block_start(self, data: dict[str, Any]) -> None:
        start, index = data["start"], _index(data)
        kind = next((key for key in start if key in _START_KEYS), None)
        if kind is None:
            kind = next(iter(start), "")
        if kind == "text":
            self._say(index, answer.words(start, kind))
        elif answer.is_call(start):
            block = self._open(index, _CALL)
            identity, name = answer.identity_of(start["toolUse"], self._calls)
            self._calls += 1
            self._out.append(ToolCallStarted(block.part, identity, name, extra=answer.call_extra(start["toolUse"])))
        else:
            value = start.get(kind)
            self._open(index, kind, dict(value) if isinstance(value, dict) else {})
        self._beside(data)

    def _delta(self, data: dict[str, Any]) -> None:
        delta, index = data["delta"], _index(data)
        known = False
        for kind, value in delta.items():
            take = _DELTAS.get(kind)
            if take is not None and value is not None:
                known = True
                take(self, index, value)
        if rest := extra_of(delta, frozenset(_DELTAS)):
            block = self._blocks.get(index)
            if block is not None and block.kind not in (_TEXT, _CALL, _THOUGHT):
                block.raw |= rest[NAME]
            elif not known:
                self._extra({NAME: {"contentBlockDelta": data}})
            else:
                self._extra(rest)
        self._beside(data)

    def _block_stop(self, data: dict[str, Any]) -> None:
        block = self._blocks.pop(_index(data), None)
        if block is not None:
            self._stop_block(block)
        self._beside(data)

    def _stop(self, data: dict[str, Any]) -> None:
        self._close_blocks()
        self._reason = string(data.get("stopReason"))
        self._stopped = True
        self._beside(data)

    def _metadata(self, data: dict[str, Any]) -> None:
        if isinstance(data.get("usage"), dict):
            self._out.append(UsageReported(answer.usage_of(data["usage"])))
        self._beside(data)
        if self._stopped:
            self._end()

    def _end(self) -> None:
        self._close_blocks()
        self._out.append(Ended(finish_of(self._reason, self._calls > 0), self._reason))
        self.done = True

    def _fail(self, error: PolyvoxError) -> None:
        reason = finish_of(self._reason, self._calls > 0) if self._reason else None
        self._out.append(Failed(error, reason, self._reason))

    # ---- pieces -------------------------------------------------------------------------------

    def _text(self, index: int, text: Any) -> None:
        self._say(index, answer.words({"text": text}, "text"))

    def _cite(self, index: int, citation: Any) -> None:
        self._out.append(CitationAdded(self._growing(index, _TEXT).part, answer.citation_of(citation)))

    def _argue(self, index: int, use: Any) -> None:
        block, text = self._blocks.get(index), answer.words(use, "input")
        if block is None or block.kind not in (_CALL, "toolUse"):
            raise BadResponseError("the stream has the arguments of a tool call that never began")
        if block.kind == "toolUse":
            block.json.append(text)
        elif text:
            block.spoke = True
            self._out.append(ToolCallDelta(block.part, text))

    def _think(self, index: int, thought: Any) -> None:
        block = self._growing(index, _THOUGHT)
        if text := answer.words(thought, "text"):
            self._out.append(ReasoningDelta(text, block.part))
        if signature := answer.words(thought, "signature"):
            self._out.append(ReasoningProof(block.part, signature, origin=self._at.origin))
        if hidden := answer.words(thought, "redactedContent"):
            block.hidden.append(hidden)
        if rest := extra_of(thought, frozenset({"text", "signature", "redactedContent"})):
            self._out.append(ReasoningProof(block.part, origin=self._at.origin, extra=rest))

    def _result(self, index: int, pieces: Any) -> None:
        """More of what a tool of the server gave: words go on from those before, anything else follows."""
        content = self._growing(index, "toolResult").raw.setdefault("content", [])
        last, first = content[-1:], pieces[:1]
        if last and first and last[0].keys() == {"text"} == first[0].keys():
            content[-1] = {"text": last[0]["text"] + first[0]["text"]}
            pieces = pieces[1:]
        content += pieces

    def _picture(self, index: int, more: Any) -> None:
        self._growing(index, "image").raw.update(more)

    # ---- blocks -------------------------------------------------------------------------------

    def _growing(self, index: int, kind: str) -> _Block:
        """The block at an index, if it is of this kind; else a new one there. Few kinds are announced."""
        block = self._blocks.get(index)
        return block if block is not None and block.kind == kind else self._open(index, kind)

    def _open(self, index: int, kind: str, raw: dict[str, Any] | None = None) -> _Block:
        if index in self._blocks:
            self._stop_block(self._blocks.pop(index))
        block = self._blocks[index] = _Block(self._parts, kind, raw or {})
        self._parts += 1
        if kind == _THOUGHT:
            self._out.append(ReasoningProof(block.part, origin=self._at.origin))
        return block

    def _stop_block(self, block: _Block) -> None:
        if block.kind == _CALL:
            if not block.spoke:
                self._out.append(ToolCallDelta(block.part, "{}"))
            self._out.append(ToolCallEnded(block.part))
        elif block.kind == _THOUGHT and block.hidden:
            self._out.append(ReasoningProof(block.part, encrypted=_in_one(block.hidden), origin=self._at.origin))
        elif block.kind not in (_TEXT, _THOUGHT):
            raw = _called(block) if block.kind == "toolUse" else block.raw
            self._out.append(PartAdded(block.part, answer.part_of({block.kind: raw}, self._at.origin)))

    def _close_blocks(self) -> None:
        for index in sorted(self._blocks):
            self._stop_block(self._blocks.pop(index))

    def _beside(self, data: dict[str, Any]) -> None:
        """Keys of an event that nobody knows."""
        self._extra(answer.measured(extra_of(data, EVENT_KEYS)))

    def _extra(self, extra: Extra) -> None:
        if extra:
            self._out.append(ExtraAdded(extra))


def _index(data: dict[str, Any]) -> int:
    index = integer(data.get("contentBlockIndex"))
    if index is None:
        raise BadResponseError("the stream has an event for a content block without its index")
    return index


def _in_one(pieces: list[str]) -> str:
    """What is hidden as one base64 text; each piece is one of its own."""
    if len(pieces) == 1:
        return pieces[0]
    try:
        return base64.b64encode(b"".join([base64.b64decode(piece, validate=True) for piece in pieces])).decode()
    except binascii.Error:
        raise BadResponseError("the stream has hidden reasoning that is not base64") from None


def _called(block: _Block) -> dict[str, Any]:
    """A call that the server ran. Input that is no JSON stays readable as its text."""
    text = "".join(block.json)
    if not text.strip():
        return {**block.raw, "input": block.raw.get("input", {})}
    try:
        return {**block.raw, "input": msgspec.json.decode(text)}
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {**block.raw, "input": text}


_EVENTS: dict[str, Callable[[Reader, dict[str, Any]], None]] = {
    "messageStart": Reader._start,
    "contentBlockStart": Reader._block_start,
    "contentBlockStop": Reader._block_stop,
    "messageStop": Reader._stop,
    "metadata": Reader._metadata,
}
_DELTAS: dict[str, Callable[[Reader, int, Any], None]] = {
    "text": Reader._text,
    "citation": Reader._cite,
    "toolUse": Reader._argue,
    "reasoningContent": Reader._think,
    "toolResult": Reader._result,
    "image": Reader._picture,
}
