"""A streamed answer for a client of the Converse protocol: events become frames, block after block. It makes no
end that did not come, and knows no bytes but those it writes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from polyvox.dialects import SHAPE_ERRORS, Endpoint, Peek, encode_json
from polyvox.dialects.bedrock.blocks import citation_block
from polyvox.dialects.bedrock.facts import BLOCK_KEYS, NAME
from polyvox.dialects.bedrock.frames import Frames
from polyvox.dialects.bedrock.request import STREAM_TYPE
from polyvox.dialects.bedrock.scope import Block, Scope
from polyvox.dialects.bedrock.to_client import (
    answer_blocks,
    can_hide,
    error_in_stream,
    failure_of,
    foreign,
    metrics_told,
    own_extra,
    proof_of,
    stop_reason,
    usage_told,
    who,
)
from polyvox.dialects.bedrock.turns import call_id
from polyvox.dialects.framing import aws_headers, aws_message
from polyvox.errors import BadResponseError, PolyvoxError, StreamInterruptedError
from polyvox.types import (
    CitationAdded,
    Ended,
    Event,
    ExtraAdded,
    Failed,
    LogprobsAdded,
    Loss,
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
    Usage,
    UsageReported,
)

_BREAK = "the answer broke off before its end"
_DELTA = aws_headers({
    ":event-type": "contentBlockDelta", ":content-type": "application/json", ":message-type": "event"
})  # fmt: skip
# Keys of an answer that stand at its stop, not in what is told behind it.
_AT_STOP = frozenset({"additionalModelResponseFields"})


class _Once(Scope):
    """Losses of one stream, each told once however many events bring it."""

    def lose(self, field: str, why: str, severity: Any = "loss") -> None:
        if Loss(field, why, severity) not in self.losses:
            super().lose(field, why, severity)


class _Open:
    """The block being written: the part it tells, and what waits for its end."""

    __slots__ = ("custom", "hidden", "kind", "part", "pieces", "spoke")

    def __init__(self, part: int, kind: str, custom: bool = False) -> None:
        self.part = part
        self.kind = kind
        self.custom = custom
        self.pieces: list[str] = []
        self.hidden = ""
        self.spoke = False

    def holds_back(self) -> bool:
        """Whether the block may still grow while other parts begin: only calls grow side by side."""
        if self.kind != "toolUse":
            return False
        try:
            return self.custom or not isinstance(msgspec.json.decode("".join(self.pieces)), dict)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return True


class Writer:
    """Writes one streamed answer; see `polyvox.dialects.Writer`.

    Parts that begin while a call still grows wait for its end: clients expect one block after the other.
    """

    content_type = STREAM_TYPE

    def __init__(self, asked: Peek) -> None:
        self.done: bool = False
        self._scope = _Once(Endpoint())
        self.losses: list[Loss] = self._scope.losses
        self._asked = asked
        self._out: list[bytes] = []
        self._begun = False
        self._usage = Usage()
        self._extra: Block = {}
        self._ids: set[str] = set()
        self._index = -1
        self._open: _Open | None = None
        self._closed: set[int] = set()
        self._held: dict[int, list[Event]] = {}
        # What the open block grows by, as long as that is plain words: the hot path.
        self._grows: type[Event] | None = None
        self._part = -1
        self._frames = _frames("text", 0)

    def send(self, event: Event) -> bytes:
        """The bytes that say this event; b"" while it waits for others, or where nothing says it."""
        if self.done:
            return b""
        grown: Any = event
        try:
            if type(event) is self._grows and grown.part == self._part and not grown.choice:
                if not grown.text:
                    return b""
                return self._frames.message(encode_json(grown.text))
            self._say(event)
        except (*SHAPE_ERRORS, OverflowError) as error:
            what = f"{type(error).__name__}: {error}"
            self._error(BadResponseError(f"the answer holds a value that cannot be said ({what})"))
        return self._taken()

    def keep_alive(self) -> bytes:
        """Nothing: every frame of this protocol means something."""
        return b""

    def close(self) -> bytes:
        """No more events come: the exception that says so, unless the end had come."""
        return self.send(Failed(StreamInterruptedError(_BREAK)))

    def _taken(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return out

    # ---- events -------------------------------------------------------------------------------

    def _say(self, event: Event) -> None:
        if getattr(event, "choice", 0):
            self._scope.lose("choices", "one answer is told, not several")
            return
        take = _EVENTS.get(type(event))
        if take is not None:
            take(self, event)
        elif type(event) in _PARTS:
            self._route(event)

    def _start(self, event: Started) -> None:
        who(event.id, event.model, event.created, self._asked, self._scope)
        self._begin()

    def _count(self, event: UsageReported) -> None:
        self._usage = event.usage

    def _logprobs(self, _event: LogprobsAdded) -> None:
        self._scope.lose("logprobs", "log-probabilities are not told")

    def _keys(self, event: ExtraAdded) -> None:
        """Keys beside the answer; they are told at its end."""
        self._extra |= own_extra(event.extra, self._scope)

    def _end(self, event: Ended) -> None:
        failure = failure_of(event.finish_reason, event.raw_finish_reason)
        if failure is not None:
            self._fail(Failed(failure))
            return
        while self._open is not None or self._held:
            self._close_block()
        self._begin()
        said = stop_reason(
            event.finish_reason, event.raw_finish_reason, self._scope,
            sequence=event.stop_sequence, has_calls=bool(self._ids),
        )  # fmt: skip
        at_stop = {key: self._extra.pop(key) for key in _AT_STOP if key in self._extra}
        self._write("messageStop", {"stopReason": said, **at_stop})
        metrics = metrics_told(self._extra, self._scope)
        self._write("metadata", {"usage": usage_told(self._usage, self._scope), "metrics": metrics, **self._extra})
        self.done = True

    def _fail(self, event: Failed) -> None:
        """What came, as far as it came, and the error. A block that was open stays so: it is not whole. Usage that
        is known goes in front, as nothing may follow an exception."""
        while self._held:
            self._close_block()
        self._settle()
        usage = {} if self._usage == Usage() else {"usage": usage_told(self._usage, self._scope)}
        if usage or self._extra:
            self._begin()
            self._write("metadata", {**usage, **self._extra})
        self._error(event.error)

    def _error(self, error: PolyvoxError) -> None:
        name, body = error_in_stream(error)
        headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
        self._out.append(aws_message(headers, encode_json(body)))
        self.done = True

    # ---- the frame ----------------------------------------------------------------------------

    def _write(self, kind: str, facts: Block) -> None:
        headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
        self._out.append(aws_message(headers, encode_json(facts)))

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._write("messageStart", {"role": "assistant"})

    # ---- blocks -------------------------------------------------------------------------------

    def _route(self, event: Any) -> None:
        """Tell a part's event now, or hold it back while a call that may still grow is open."""
        block = self._open
        if event.part in self._held:
            self._held[event.part].append(event)
        elif block is None or event.part == block.part:
            self._take(event)
        elif block.holds_back():
            self._held[event.part] = [event]
        elif self._held:
            self._close_block()
            self._route(event)
        else:
            self._take(event)

    def _take(self, event: Any) -> None:
        _PARTS[type(event)](self, event)

    def _open_block(self, block: _Open, start: Block | None = None) -> _Open:
        """Begin a block; words and thoughts are not announced."""
        self._close_open()
        self._begin()
        self._index += 1
        if start is not None:
            self._write("contentBlockStart", {"start": start, "contentBlockIndex": self._index})
        self._open = block
        self._grows, self._part = None, block.part
        if block.kind in _PLAIN:
            self._grows, self._frames = _PLAIN[block.kind][2], _frames(block.kind, self._index)
        return block

    def _delta(self, said: Block) -> None:
        if self._open is not None:
            self._open.spoke = True
        self._write("contentBlockDelta", {"contentBlockIndex": self._index, "delta": said})

    def _settle(self) -> None:
        """Write what waited for the end of the open block."""
        block = self._open
        if block is not None and block.hidden:
            self._delta({"reasoningContent": {"redactedContent": block.hidden}})
        if block is not None and block.kind == "thought" and not block.spoke:
            # Nothing announces a thought, so one that shows nothing shows by an empty delta.
            self._delta({"reasoningContent": {"text": ""}})
        if block is not None and block.custom:
            self._delta({"toolUse": {"input": encode_json({"input": "".join(block.pieces)}).decode()}})

    def _close_open(self) -> None:
        block = self._open
        if block is None:
            return
        self._settle()
        self._write("contentBlockStop", {"contentBlockIndex": self._index})
        self._closed.add(block.part)
        self._open = self._grows = None

    def _close_block(self) -> None:
        """End the open block, and tell what was held back for it, up to the next call that may still grow."""
        self._close_open()
        while self._held and (self._open is None or not self._open.holds_back()):
            part = min(self._held)
            for event in self._held.pop(part):
                self._take(event)

    def _growing(self, part: int, kind: str) -> _Open | None:
        """The open block, where it is this part's and of this kind."""
        block = self._open
        return block if block is not None and block.part == part and block.kind == kind else None

    # ---- parts --------------------------------------------------------------------------------

    def _text(self, event: TextDelta | RefusalDelta) -> None:
        if type(event) is RefusalDelta:
            why = "a refusal has no block of its own: its words are sent as text"
            self._scope.lose(f"{_where(event.part)}.refusal", why, "note")
        opened = self._growing(event.part, "text") is None
        if opened:
            self._open_block(_Open(event.part, "text"))
        if event.text or opened:
            # A block without any words shows by an empty delta: nothing announces it.
            self._delta({"text": event.text})

    def _cite(self, event: CitationAdded) -> None:
        where = _where(event.part)
        if self._growing(event.part, "text") is None and event.part in self._closed:
            self._scope.lose(f"{where}.citations", "a citation came after the end of its text")
            return
        citation = citation_block(event.citation, where, self._scope)
        if citation is None:
            return
        if self._growing(event.part, "text") is None:
            self._open_block(_Open(event.part, "text"))
        self._delta({"citation": citation})

    def _think(self, event: ReasoningDelta) -> None:
        if self._growing(event.part, "thought") is None:
            self._open_block(_Open(event.part, "thought"))
        if event.text:
            self._delta({"reasoningContent": {"text": event.text}})

    def _prove(self, event: ReasoningProof) -> None:
        where = _where(event.part)
        own = self._scope.own(event.extra, where)
        proof = proof_of(event.signature, event.extra, where, self._scope)
        said: Block = {} if proof is None else {"signature": proof}
        hidden = event.encrypted
        if hidden is not None and not can_hide(hidden, event.extra, where, self._scope):
            hidden = None
        if event.part in self._closed:
            if said or own or hidden:
                self._scope.lose(f"{where}.reasoning", "its proof came after its end")
            return
        growing = self._growing(event.part, "thought") is not None
        unsaid = event.encrypted is not None or foreign(event.extra) is not None
        if not growing and not said and not hidden and unsaid:
            return
        if not growing:
            self._open_block(_Open(event.part, "thought"))
        if self._open is not None and hidden:
            self._open.hidden = hidden
        if said or own:
            self._delta({"reasoningContent": {**said, **own}})

    def _call(self, event: ToolCallStarted) -> None:
        where = _where(event.part)
        custom = event.call_kind == "custom"
        if custom:
            self._scope.lose(f"{where}.arguments", "free text is sent as {input: text}", "note")
        own = self._scope.own(event.extra, where)
        sent = call_id(event.id, where, self._scope, self._ids)
        start = {"toolUse": {"toolUseId": sent, "name": event.name, **own}}
        self._open_block(_Open(event.part, "toolUse", custom), start)

    def _argue(self, event: ToolCallDelta) -> None:
        block = self._growing(event.part, "toolUse")
        if block is None:
            if event.arguments.strip():
                self._scope.lose(f"{_where(event.part)}.arguments", "arguments came outside of their call")
            return
        block.pieces.append(event.arguments)
        if event.arguments and not block.custom:
            self._delta({"toolUse": {"input": event.arguments}})

    def _called(self, event: ToolCallEnded) -> None:
        if self._growing(event.part, "toolUse") is not None:
            self._close_block()

    def _add(self, event: PartAdded) -> None:
        """A part that came whole, as the events that would have brought it."""
        for block in answer_blocks(event.value, _where(event.part), self._scope, self._ids):
            kind = next(iter(block))
            beside = {key: value for key, value in block.items() if key != kind}
            if kind in _WHOLE and (type(event.value) is not Opaque or _grows_here(kind, block[kind])):
                _WHOLE[kind](self, event.part, block[kind], beside)
            elif type(event.value) is Opaque:
                # What is newer than this code is announced whole.
                self._open_block(_Open(event.part, kind), block)
            else:
                self._scope.lose(f"{_where(event.part)}.{event.value.__struct_config__.tag}", "it cannot be streamed")
                continue
            self._close_open()

    def _whole_text(self, part: int, value: str, beside: Block) -> None:
        self._open_block(_Open(part, "text"))
        self._delta({"text": value})
        if beside:
            self._scope.lose(f"{_where(part)}.extra.{NAME}", "text in a stream has no keys beside it", "note")

    def _whole_cited(self, part: int, value: Block, beside: Block) -> None:
        rest = {key: value[key] for key in value.keys() - BLOCK_KEYS["citationsContent"]}
        self._whole_text(part, value["content"][0]["text"], {**beside, **rest})
        for citation in value["citations"]:
            self._delta({"citation": citation})

    def _whole_thought(self, part: int, value: Block, _beside: Block) -> None:
        self._open_block(_Open(part, "thought"))
        shown = value.get("reasoningText")
        if shown is None:
            self._delta({"reasoningContent": value})
            return
        self._delta({"reasoningContent": {"text": shown["text"]}})
        if rest := {key: shown[key] for key in shown.keys() - {"text"}}:
            self._delta({"reasoningContent": rest})

    def _whole_call(self, part: int, value: Block, beside: Block) -> None:
        start = {"toolUse": {**{key: held for key, held in value.items() if key != "input"}, **beside}}
        self._open_block(_Open(part, "toolUse"), start)
        self._delta({"toolUse": {"input": encode_json(value.get("input", {})).decode()}})

    def _whole_result(self, part: int, value: Block, beside: Block) -> None:
        start = {"toolResult": {key: held for key, held in value.items() if key != "content"}, **beside}
        self._open_block(_Open(part, "toolResult"), start)
        self._delta({"toolResult": value.get("content", [])})

    def _whole_image(self, part: int, value: Block, beside: Block) -> None:
        start = {"image": {"format": value.get("format")}, **beside}
        self._open_block(_Open(part, "image"), start)
        self._delta({"image": {key: held for key, held in value.items() if key != "format"}})


def _grows_here(kind: str, value: Any) -> bool:
    """Whether an opaque block is one that the protocol has deltas for: what a server's own tool was asked and gave."""
    if not isinstance(value, dict):
        return False
    return kind == "toolUse" or (kind == "toolResult" and isinstance(value.get("content"), list))


def _where(part: int) -> str:
    return f"message.parts[{part}]"


# Blocks that grow by plain words: what stands around them in the delta, and the event that brings them.
_PLAIN: dict[str, tuple[str, str, type[Event]]] = {
    "text": ('{"text":', "}}", TextDelta),
    "thought": ('{"reasoningContent":{"text":', "}}}", ReasoningDelta),
}


@lru_cache(maxsize=64)
def _frames(kind: str, index: int) -> Frames:
    """The deltas of a block of plain words; each length of words is worked out once for all streams."""
    before, after, _ = _PLAIN[kind]
    return Frames(_DELTA, f'{{"contentBlockIndex":{index},"delta":{before}'.encode(), after.encode())


_WHOLE: dict[str, Callable[[Writer, int, Any, Block], None]] = {
    "text": Writer._whole_text,
    "citationsContent": Writer._whole_cited,
    "reasoningContent": Writer._whole_thought,
    "toolUse": Writer._whole_call,
    "toolResult": Writer._whole_result,
    "image": Writer._whole_image,
}
_EVENTS: dict[type[Event], Callable[[Writer, Any], None]] = {
    Started: Writer._start,
    UsageReported: Writer._count,
    LogprobsAdded: Writer._logprobs,
    ExtraAdded: Writer._keys,
    Ended: Writer._end,
    Failed: Writer._fail,
}
_PARTS: dict[type[Event], Callable[[Writer, Any], None]] = {
    TextDelta: Writer._text,
    RefusalDelta: Writer._text,
    CitationAdded: Writer._cite,
    ReasoningDelta: Writer._think,
    ReasoningProof: Writer._prove,
    ToolCallStarted: Writer._call,
    ToolCallDelta: Writer._argue,
    ToolCallEnded: Writer._called,
    PartAdded: Writer._add,
}
