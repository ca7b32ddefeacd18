"""A streamed answer for a client of the Converse protocol: events become frames, block after block. It makes no
end that did not come, and knows no bytes but those it writes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

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
from polyvox.dialects.block_writer import BlockWriter, Open, where
from polyvox.dialects.framing import aws_headers, aws_message
from polyvox.dialects.scope import Answering
from polyvox.errors import PolyvoxError
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
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    Usage,
    UsageReported,
)

_DELTA = aws_headers({
    ":event-type": "contentBlockDelta", ":content-type": "application/json", ":message-type": "event"
})  # fmt: skip
# Keys of an answer that stand at its stop, not in what is told behind it.
_AT_STOP = frozenset({"additionalModelResponseFields"})


class _Saying(Answering, Scope):
    """What writing one answer carries along."""

    __slots__ = ()


class _Open(Open):
    __slots__ = ("hidden", "spoke")
    CALL = "toolUse"

    def __init__(self, part: int, kind: str, custom: bool = False) -> None:
        super().__init__(part, kind, custom)
        self.hidden = ""
        self.spoke = False


class Writer(BlockWriter[_Open, _Saying]):
    """Writes one streamed answer; see `polyvox.dialects.Writer`."""

    content_type = STREAM_TYPE

    def __init__(self, asked: Peek) -> None:
        super().__init__(asked, _Saying(Endpoint()))
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
            self._unsayable(error)
        return self._taken()

    def keep_alive(self) -> bytes:
        """Nothing: every frame of this protocol means something."""
        return b""

    # ---- events -------------------------------------------------------------------------------

    def _start(self, event: Started) -> None:
        who(event.id, event.model, event.created, self._asked, self._scope)
        self._begin()

    def _keys(self, event: ExtraAdded) -> None:
        """Keys beside the answer; they are told at its end."""
        self._extra |= own_extra(event.extra, self._scope)

    def _end(self, event: Ended) -> None:
        failure = failure_of(event.finish_reason, event.raw_finish_reason)
        if failure is not None:
            self._fail(Failed(failure))
            return
        self._close_all()
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

    def _write_stop(self) -> None:
        self._write("contentBlockStop", {"contentBlockIndex": self._index})

    def _argued(self, words: str) -> None:
        self._delta({"toolUse": {"input": words}})

    # ---- parts --------------------------------------------------------------------------------

    def _text(self, event: TextDelta | RefusalDelta) -> None:
        if type(event) is RefusalDelta:
            why = "a refusal has no block of its own: its words are sent as text"
            self._scope.lose(f"{where(event.part)}.refusal", why, "note")
        opened = self._growing(event.part, "text") is None
        if opened:
            self._open_block(_Open(event.part, "text"))
        if event.text or opened:
            # A block without any words shows by an empty delta: nothing announces it.
            self._delta({"text": event.text})

    def _cite(self, event: CitationAdded) -> None:
        place = where(event.part)
        if self._growing(event.part, "text") is None and event.part in self._closed:
            self._scope.lose(f"{place}.citations", "a citation came after the end of its text")
            return
        citation = citation_block(event.citation, place, self._scope)
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
        place = where(event.part)
        own = self._scope.own(event.extra, place)
        proof = proof_of(event.signature, event.extra, place, self._scope)
        said: Block = {} if proof is None else {"signature": proof}
        hidden = event.encrypted
        if hidden is not None and not can_hide(hidden, event.extra, place, self._scope):
            hidden = None
        if event.part in self._closed:
            if said or own or hidden:
                self._scope.lose(f"{place}.reasoning", "its proof came after its end")
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
        place = where(event.part)
        custom = event.call_kind == "custom"
        if custom:
            self._scope.lose(f"{place}.arguments", "free text is sent as {input: text}", "note")
        own = self._scope.own(event.extra, place)
        sent = call_id(event.id, place, self._scope, self._ids)
        start = {"toolUse": {"toolUseId": sent, "name": event.name, **own}}
        self._open_block(_Open(event.part, "toolUse", custom), start)

    def _add(self, event: PartAdded) -> None:
        """A part that came whole, as the events that would have brought it."""
        for block in answer_blocks(event.value, where(event.part), self._scope, self._ids):
            kind = next(iter(block))
            beside = {key: value for key, value in block.items() if key != kind}
            if kind in _WHOLE and (type(event.value) is not Opaque or _grows_here(kind, block[kind])):
                _WHOLE[kind](self, event.part, block[kind], beside)
            elif type(event.value) is Opaque:
                # What is newer than this code is announced whole.
                self._open_block(_Open(event.part, kind), block)
            else:
                self._scope.lose(f"{where(event.part)}.{event.value.__struct_config__.tag}", "it cannot be streamed")
                continue
            self._close_open()

    def _whole_text(self, part: int, value: str, beside: Block) -> None:
        self._open_block(_Open(part, "text"))
        self._delta({"text": value})
        if beside:
            self._scope.lose(f"{where(part)}.extra.{NAME}", "text in a stream has no keys beside it", "note")

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
Writer.EVENTS = {
    Started: Writer._start,
    UsageReported: Writer._count,
    LogprobsAdded: Writer._logprobs,
    ExtraAdded: Writer._keys,
    Ended: Writer._end,
    Failed: Writer._fail,
}
Writer.PARTS = {
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
