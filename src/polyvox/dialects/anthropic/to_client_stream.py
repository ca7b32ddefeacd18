"""A streamed answer for a client of the Messages protocol: events become blocks, one after the other. It makes
no end that did not come, and knows no bytes but those it writes."""

from __future__ import annotations

from typing import Any

from polyvox.dialects import SHAPE_ERRORS, Endpoint, Peek, encode_json
from polyvox.dialects.anthropic.blocks import Block, Scope
from polyvox.dialects.anthropic.facts import NAME
from polyvox.dialects.anthropic.to_client import (
    answer_block,
    error_event,
    failure_of,
    head,
    own_extra,
    proof_of,
    stop_reason,
    unsigned,
    usage_told,
    with_explanation,
)
from polyvox.dialects.anthropic.turns import call_id
from polyvox.dialects.block_writer import BlockWriter, Open, where
from polyvox.dialects.scope import Answering
from polyvox.errors import PolyvoxError
from polyvox.types import (
    CitationAdded,
    Ended,
    Event,
    ExtraAdded,
    Failed,
    FinishReason,
    LogprobsAdded,
    PartAdded,
    ReasoningDelta,
    ReasoningProof,
    Refusal,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    UsageReported,
)

_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
# The keys of a whole block that deltas bring: key, type of the delta, key in the delta, and what the start has.
_BY_DELTAS: dict[str, tuple[tuple[str, str, str, Any], ...]] = {
    "text": (("text", "text_delta", "text", ""), ("citations", "citations_delta", "citation", None)),
    "thinking": (("thinking", "thinking_delta", "thinking", ""), ("signature", "signature_delta", "signature", "")),
    "tool_use": (("input", "input_json_delta", "partial_json", {}),),
}


class _Saying(Answering, Scope):
    """What writing one answer carries along."""

    __slots__ = ()


class _Open(Open):
    __slots__ = ("signature",)
    CALL = "tool_use"

    def __init__(self, part: int, kind: str, custom: bool = False) -> None:
        super().__init__(part, kind, custom)
        self.signature = ""


class Writer(BlockWriter[_Open, _Saying]):
    """Writes one streamed answer; see `polyvox.dialects.Writer`.

    The first bytes wait for the first content, so that they tell the usage known by then.
    """

    content_type = "text/event-stream"

    def __init__(self, asked: Peek) -> None:
        super().__init__(asked, _Saying(Endpoint()))
        self._started: Started | None = None
        self._told: Block = {}  # the usage that the client knows
        self._refusals: list[str] = []
        self._prefix = b""

    def send(self, event: Event) -> bytes:
        """The bytes that say this event; b"" while it waits for others, or where nothing says it."""
        if self.done:
            return b""
        grown: Any = event
        try:
            if type(event) is self._grows and grown.part == self._part and not grown.choice:
                return self._prefix + encode_json(grown.text) + b"}}\n\n" if grown.text else b""
            self._say(event)
        except (*SHAPE_ERRORS, OverflowError) as error:
            self._unsayable(error)
        return self._taken()

    def keep_alive(self) -> bytes:
        """An event that says nothing."""
        return b"" if self.done else _PING

    # ---- events -------------------------------------------------------------------------------

    def _start(self, event: Started) -> None:
        if self._started is None and not self._begun:
            self._started = event
        elif event != self._started:
            self._scope.lose("id", "it came after the answer had begun", "note")

    def _keys(self, event: ExtraAdded) -> None:
        """Keys beside the answer; what was an event of its own in this protocol becomes one again."""
        for key, value in own_extra(event.extra, self._scope).items():
            if isinstance(value, dict) and value.get("type") == key and key.isprintable():
                self._begin()
                self._write(key, value)
            else:
                self._extra[key] = value

    def _refuse(self, event: RefusalDelta) -> None:
        self._refusals.append(event.text)

    def _end(self, event: Ended) -> None:
        failure = failure_of(event.finish_reason)
        if failure is not None:
            self._fail(Failed(failure))
            return
        self._close_all()
        self._begin()
        self._message_delta(event.finish_reason, event.raw_finish_reason, event.stop_sequence)
        self._write("message_stop", {})
        self.done = True

    def _fail(self, event: Failed) -> None:
        """What came, as far as it came, and the error. A block that was open stays so: it is not whole."""
        while self._held:
            self._close_block()
        self._settle()
        if self._started is not None or self._extra or self._refusals:
            self._begin()
        ended = event.finish_reason is not None and failure_of(event.finish_reason) is None
        news = self._extra or self._refusals or usage_told(self._usage, Scope(Endpoint())) != self._told
        if self._begun and (ended or news):
            self._message_delta(event.finish_reason if ended else None, event.raw_finish_reason, None)
        self._error(event.error)

    def _error(self, error: PolyvoxError) -> None:
        self._write("error", error_event(error))
        self.done = True

    # ---- the frame ----------------------------------------------------------------------------

    def _write(self, kind: str, facts: Block) -> None:
        data = encode_json({"type": kind, **facts})
        self._out.append(b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n")

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        who = self._started or Started()
        message = head(who.id, who.model, who.created, self._asked, self._scope)
        self._told = usage_told(self._usage, Scope(Endpoint()))
        # Why the answer was refused belongs to its end, like the reason it ended for.
        details = {key: self._extra.pop(key) for key in ("stop_details",) if key in self._extra}
        rest: Block = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": self._told}
        self._write("message_start", {"message": {**message, **rest, **self._extra}})
        self._extra = details

    def _message_delta(self, reason: FinishReason | None, raw: str | None, sequence: str | None) -> None:
        said = None
        if reason is not None:
            has_calls, refused = bool(self._ids), bool(self._refusals)
            said = stop_reason(
                reason, raw, self._scope, sequence=sequence, has_calls=has_calls, refused=refused
            )  # fmt: skip
        extra = with_explanation(self._extra, "".join(self._refusals))
        delta = {"stop_reason": said, "stop_sequence": sequence, **extra}
        self._write("message_delta", {"delta": delta, "usage": usage_told(self._usage, self._scope)})

    # ---- blocks -------------------------------------------------------------------------------

    def _open_block(self, block: _Open, start: Block) -> _Open:
        self._close_open()
        self._begin()
        if self._refusals:
            self._scope.lose(f"message.parts[{block.part}]", "a refusal is told behind what follows it", "note")
        self._index += 1
        self._write("content_block_start", {"index": self._index, "content_block": start})
        self._open = block
        kind, key, grows = _PLAIN.get(block.kind, ("", "", None))
        self._grows, self._part = grows, block.part
        self._prefix = (
            f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{self._index},'
            f'"delta":{{"type":"{kind}","{key}":'
        ).encode()
        return block

    def _delta(self, kind: str, key: str, value: Any) -> None:
        self._write("content_block_delta", {"index": self._index, "delta": {"type": kind, key: value}})

    def _settle(self) -> None:
        """Write what waited for the end of the open block."""
        block = self._open
        if block is None:
            return
        if block.signature:
            self._delta("signature_delta", "signature", block.signature)
        if block.custom:
            self._delta("input_json_delta", "partial_json", encode_json({"input": "".join(block.pieces)}).decode())

    def _close_open(self) -> None:
        block = self._open
        super()._close_open()
        if block is not None and block.kind == "thinking" and not block.signature:
            unsigned(where(block.part), self._scope)

    def _write_stop(self) -> None:
        self._write("content_block_stop", {"index": self._index})

    def _argued(self, words: str) -> None:
        self._delta("input_json_delta", "partial_json", words)

    # ---- parts --------------------------------------------------------------------------------

    def _text(self, event: TextDelta) -> None:
        if self._growing(event.part, "text") is None:
            self._open_block(_Open(event.part, "text"), {"type": "text", "text": ""})
        if event.text:
            self._delta("text_delta", "text", event.text)

    def _cite(self, event: CitationAdded) -> None:
        place = where(event.part)
        if NAME not in event.citation.extra:
            self._scope.lose(f"{place}.citations", "only citations that came from this dialect can be sent")
            return
        if self._growing(event.part, "text") is None:
            if event.part in self._closed:
                self._scope.lose(f"{place}.citations", "a citation came after the end of its text")
                return
            self._open_block(_Open(event.part, "text"), {"type": "text", "text": ""})
        self._delta("citations_delta", "citation", event.citation.extra[NAME])

    def _think(self, event: ReasoningDelta) -> None:
        if self._growing(event.part, "thinking") is None:
            self._open_block(_Open(event.part, "thinking"), {"type": "thinking", "thinking": "", "signature": ""})
        if event.text:
            self._delta("thinking_delta", "thinking", event.text)

    def _prove(self, event: ReasoningProof) -> None:
        place = where(event.part)
        own = self._scope.own(event.extra, place)
        proof = proof_of(event.signature, event.extra, place, self._scope)
        block = self._growing(event.part, "thinking")
        late = block is not None or event.part in self._closed
        if event.encrypted is not None and proof is not None and not late:
            start = {"type": "redacted_thinking", "data": event.encrypted, **own}
            self._open_block(_Open(event.part, "redacted_thinking"), start)
            return
        if event.encrypted is not None or (late and own):
            self._scope.lose(f"{place}.reasoning", "what proves a thought cannot be told beside what is shown of it")
        if not late and proof is not None and (own or event.signature is not None):
            start = {"type": "thinking", "thinking": "", "signature": "", **own}
            block = self._open_block(_Open(event.part, "thinking"), start)
        if block is not None:
            block.signature = proof or block.signature
        elif proof:
            self._scope.lose(f"{place}.reasoning", "its signature came after its end")

    def _call(self, event: ToolCallStarted) -> None:
        place = where(event.part)
        custom = event.call_kind == "custom"
        if custom:
            self._scope.lose(f"{place}.arguments", "free text is sent as {input: text}", "note")
        own = self._scope.own(event.extra, place)
        sent = call_id(event.id, place, self._scope, self._ids)
        start = {"type": "tool_use", "id": sent, "name": event.name, "input": {}, **own}
        self._open_block(_Open(event.part, "tool_use", custom), start)

    def _add(self, event: PartAdded) -> None:
        """A part that came whole, as the deltas that would have brought it."""
        place = where(event.part)
        if isinstance(event.value, Refusal):
            self._scope.own(event.value.extra, place)
            self._refusals.append(event.value.text)
            return
        block = answer_block(event.value, place, self._scope, self._ids)
        if block is None:
            return
        kind = str(block.get("type"))
        rows = _BY_DELTAS.get(kind, ())
        empty = {key: empty for key, _, _, empty in rows if empty is not None}
        rest = {key: value for key, value in block.items() if key not in [row[0] for row in rows]}
        whole = self._open_block(_Open(event.part, kind), {**rest, **empty})
        for key, delta, name, _ in rows:
            value = block.get(key)
            if key == "input":
                value = encode_json(value).decode()
            for piece in value if key == "citations" and value else [value]:
                if piece:
                    self._delta(delta, name, piece)
        self._stop(whole)


# Blocks that grow by plain words: type of the delta, its key, and the event that brings it.
_PLAIN: dict[str, tuple[str, str, type[Event]]] = {
    "text": ("text_delta", "text", TextDelta),
    "thinking": ("thinking_delta", "thinking", ReasoningDelta),
}
Writer.EVENTS = {
    Started: Writer._start,
    UsageReported: Writer._count,
    LogprobsAdded: Writer._logprobs,
    ExtraAdded: Writer._keys,
    RefusalDelta: Writer._refuse,
    Ended: Writer._end,
    Failed: Writer._fail,
}
Writer.PARTS = {
    TextDelta: Writer._text,
    CitationAdded: Writer._cite,
    ReasoningDelta: Writer._think,
    ReasoningProof: Writer._prove,
    ToolCallStarted: Writer._call,
    ToolCallDelta: Writer._argue,
    ToolCallEnded: Writer._called,
    PartAdded: Writer._add,
}
