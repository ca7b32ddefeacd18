"""A streamed answer for a client of this dialect as a state machine: neutral events in, server-sent events out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from polyvox.dialects import Endpoint, encode_json
from polyvox.dialects.bound import own_keys
from polyvox.dialects.cohere.request import NAME, PLAN, Losses, free_text, new_turn, put
from polyvox.dialects.cohere.to_client import (
    UNWRITABLE,
    WRITERS,
    choices_lost,
    citation_said,
    end_of,
    error_facts,
    failure_of,
    logprobs_to_client,
    proofs_lost,
    put_keys,
    stop_sequence_lost,
    usage_to_client,
    who_lost,
    words_of_error,
)
from polyvox.dialects.collect import merged
from polyvox.dialects.errors_on_wire import status_of
from polyvox.errors import BadResponseError, PolyvoxError, StreamInterruptedError
from polyvox.types import (
    CitationAdded,
    Ended,
    Event,
    Extra,
    ExtraAdded,
    Failed,
    LogprobsAdded,
    Loss,
    Opaque,
    Part,
    PartAdded,
    Reasoning,
    ReasoningDelta,
    ReasoningProof,
    Refusal,
    RefusalDelta,
    Started,
    Text,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    Usage,
    UsageReported,
)

_DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"
_WORDS_END = b"}}}}\n\n"
_EMPTY = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
_END = frozenset({"type", "id", "delta"})


class _Open(NamedTuple):
    """The item of content that is being written: the part it is, its place, and what its words are called."""

    part: int
    place: int
    kind: str


class _Call(NamedTuple):
    """A call that is being written: its place, and its pieces where it must be told whole."""

    place: int
    pieces: list[str] | None


class CohereWriter:
    """See `dialects.Writer`. The event named message-end is the last; `[DONE]` follows the end of a whole answer."""

    content_type = "text/event-stream"

    def __init__(self) -> None:
        self.done: bool = False
        self.losses: list[Loss] = []
        self._begun = False
        self._items = 0
        self._open: _Open | None = None
        self._text = -1  # the part that plain words belong to just now: the hot path
        self._head = b""
        self._texts: dict[int, tuple[int, bool]] = {}  # of text parts, the place and whether citations must name it
        self._plans: set[int] = set()
        self._called = 0
        self._calls: dict[int, _Call] = {}
        self._cited = 0
        self._usage = Usage()
        self._extra: Extra = {}
        self._logprobs: list[TokenLogprob] = []

    def send(self, event: Event) -> bytes:
        """See `dialects.Writer.send`."""
        if self.done:
            return b""
        try:
            if type(event) is TextDelta and event.part == self._text and event.choice == 0:
                return self._head + encode_json(event.text) + _WORDS_END if event.text else b""
            return self._send(event)
        except UNWRITABLE as error:
            return self._fail(BadResponseError(f"the answer cannot be written as JSON: {error}"))

    def keep_alive(self) -> bytes:
        """See `dialects.Writer.keep_alive`: a comment."""
        return b"" if self.done else _KEEP_ALIVE

    def close(self) -> bytes:
        """See `dialects.Writer.close`."""
        if self.done:
            return b""
        return self._fail(StreamInterruptedError("the stream ended before the answer was whole"))

    def _send(self, event: Event) -> bytes:
        if getattr(event, "choice", 0):
            self._lose([choices_lost()])
            return b""
        begin = b"" if self._begun else self._begin(event if isinstance(event, Started) else Started())
        say = _SAYS.get(type(event))
        return begin + (say(self, event) if say is not None else b"")

    def _begin(self, event: Started) -> bytes:
        self._begun = True
        losses: Losses = []
        who_lost(event.model, event.created, losses)
        self._lose(losses)
        return _event("message-start", id=event.id or "", delta={"message": _EMPTY})

    # ---- content ------------------------------------------------------------------------------

    def _item(self, part: int, kind: str, start: dict[str, Any]) -> bytes:
        """Begin an item of content; one that is open ends first."""
        data = self._close_item()
        index = self._items
        self._items += 1
        self._open = _Open(part, index, kind)
        if kind == "text":
            self._text = part
            self._head = _words_head(index, "text")
            self._texts.setdefault(part, (index, bool(self._texts)))
        return data + _event("content-start", index=index, delta={"message": {"content": start}})

    def _close_item(self) -> bytes:
        if self._open is None:
            return b""
        index = self._open.place
        self._open, self._text = None, -1
        return _event("content-end", index=index)

    def _grow(self, part: int, kind: str, words: str) -> bytes:
        """More words of a part; it begins anew where another one came between."""
        data = b""
        if self._open is None or (self._open.part, self._open.kind) != (part, kind):
            data = self._item(part, kind, {"type": kind, kind: ""})
        if words and self._open is not None:
            data += _words_head(self._open.place, kind) + encode_json(words) + _WORDS_END
        return data

    def _text_delta(self, event: TextDelta) -> bytes:
        return self._grow(event.part, "text", event.text)

    def _refusal_delta(self, event: RefusalDelta) -> bytes:
        return self._part(Refusal(event.text), event.part) if event.text else b""

    def _reasoning_delta(self, event: ReasoningDelta) -> bytes:
        if event.part not in self._plans:
            return self._grow(event.part, "thinking", event.text)
        return self._plan(event.text)

    def _plan(self, words: str) -> bytes:
        return _event("tool-plan-delta", delta={"message": {PLAN: words}}) if words else b""

    def _proof(self, event: ReasoningProof) -> bytes:
        losses: Losses = []
        where = f"message.parts[{event.part}]"
        own = own_keys(event.extra, NAME, losses, where + ".")
        proofs_lost(Reasoning(signature=event.signature, encrypted=event.encrypted), losses, where)
        self._lose(losses)
        if own.pop("type", None) == PLAN:
            self._plans.add(event.part)
        elif event.signature is None and event.encrypted is None:
            return self._grow(event.part, "thinking", "")
        return b""

    def _citation(self, event: CitationAdded) -> bytes:
        data = b"" if event.part in self._texts else self._grow(event.part, "text", "")
        losses: Losses = []
        where = f"message.parts[{event.part}].citations"
        said = citation_said(event.citation, *self._texts[event.part], losses, where)
        self._lose(losses)
        return data + self._cite(said)

    def _cite(self, said: Any) -> bytes:
        index = self._cited
        self._cited += 1
        start = _event("citation-start", index=index, delta={"message": {"citations": said}})
        return start + _event("citation-end", index=index)

    # ---- calls and whole parts ----------------------------------------------------------------

    def _call_started(self, event: ToolCallStarted) -> bytes:
        losses: Losses = []
        where = f"message.parts[{event.part}]"
        own = own_keys(event.extra, NAME, losses, where + ".")
        custom = event.call_kind == "custom"
        if custom:
            losses.append(Loss(f"{where}.arguments", "arguments are an object here; sent as its `input`"))
        self._lose(losses)
        function = {"name": event.name, "arguments": "", **own.pop("function", {})}
        call = {"id": event.id, "type": "function", "function": function, **own}
        data = self._call_ended(ToolCallEnded(event.part)) + self._close_item()
        self._calls[event.part] = _Call(self._called, [] if custom else None)
        self._called += 1
        return data + _event("tool-call-start", index=self._called - 1, delta={"message": {"tool_calls": call}})

    def _call_delta(self, event: ToolCallDelta) -> bytes:
        call = self._calls.get(event.part)
        if call is None:
            self._lose([Loss(f"message.parts[{event.part}].arguments", "they belong to no call")])
            return b""
        if call.pieces is not None:
            call.pieces.append(event.arguments)
            return b""
        return _arguments(call.place, event.arguments)

    def _call_ended(self, event: ToolCallEnded) -> bytes:
        call = self._calls.pop(event.part, None)
        if call is None:
            return b""
        data = b""
        if call.pieces is not None:
            data = _arguments(call.place, free_text("".join(call.pieces)))
        return data + _event("tool-call-end", index=call.place)

    def _whole(self, event: PartAdded) -> bytes:
        return self._part(event.value, event.part)

    def _part(self, part: Part, number: int) -> bytes:
        """A part that came whole, as the events that would have brought it."""
        if isinstance(part, ToolCall):
            start = ToolCallStarted(number, part.id, part.name, part.kind, part.extra)
            data = self._call_started(start) + self._call_delta(ToolCallDelta(number, part.arguments))
            if part.signature is not None:
                why = f"bound to {part.origin or 'another dialect'}"
                self._lose([Loss(f"message.parts[{number}].signature", why)])
            return data + self._call_ended(ToolCallEnded(number))
        losses: Losses = []
        turn = new_turn(Endpoint(), losses, WRITERS)
        uncited = (
            Text(part.text, (), part.cache, part.signature, part.origin, part.extra) if isinstance(part, Text) else part
        )
        put(uncited, turn, f"message.parts[{number}]")
        self._lose(losses)
        data = self._plan("".join(turn.plan))
        for item in turn.content:
            data += self._content(item, number, isinstance(part, Opaque))
        for call in turn.calls:
            index = self._called
            self._called += 1
            data += _event("tool-call-start", index=index, delta={"message": {"tool_calls": call}})
            data += _event("tool-call-end", index=index)
        if isinstance(part, Text):
            for citation in part.citations:
                data += self._citation(CitationAdded(number, citation))
        return data

    def _content(self, item: dict[str, Any], number: int, as_it_is: bool) -> bytes:
        kind = str(item.get("type"))
        words = item.get(kind)
        if as_it_is or not isinstance(words, str):
            return self._item(number, "", item) + self._close_item()
        data = self._item(number, kind, {**item, kind: ""})
        return data + (_words_head(self._items - 1, kind) + encode_json(words) + _WORDS_END if words else b"")

    # ---- what stands beside, and the end ------------------------------------------------------

    def _counted(self, event: UsageReported) -> bytes:
        self._usage = event.usage
        return b""

    def _logs(self, event: LogprobsAdded) -> bytes:
        self._logprobs += event.tokens
        return b""

    def _keys(self, event: ExtraAdded) -> bytes:
        self._extra = merged(self._extra, event.extra)
        return b""

    def _end(self, event: Ended) -> bytes:
        if (failure := failure_of(event.finish_reason)) is not None:
            return self._fail(failure)
        data = [self._call_ended(ToolCallEnded(number)) for number in sorted(self._calls)]
        data.append(self._close_item())
        losses: Losses = []
        reason = None if (event.finish_reason, event.raw_finish_reason) == ("unknown", None) else event.finish_reason
        end = end_of(reason, event.raw_finish_reason, self._called > 0, losses)
        if event.stop_sequence is not None:
            losses.append(stop_sequence_lost())
        data.append(self._last(end, losses))
        self.done = True
        return b"".join(data) + _DONE

    def _failed(self, event: Failed) -> bytes:
        return self._fail(event.error)

    def _fail(self, error: PolyvoxError) -> bytes:
        self.done = True
        losses = [Loss(f"message.parts[{number}].tool_call", "it was not whole") for number in sorted(self._calls)]
        delta = {"finish_reason": "ERROR", "error": words_of_error(error), **error_facts(error)}
        return self._last({**delta, "status_code": status_of(error)}, losses)

    def _last(self, delta: dict[str, Any], losses: Losses) -> bytes:
        """The event that ends the stream, and before it what could only be told now."""
        try:
            data = self._told_last(delta, losses)
        except UNWRITABLE:
            # What stands beside cannot be said; that the answer ended as it did can.
            self._extra, self._logprobs, self._usage = {}, [], Usage()
            losses.append(Loss("extra", "what stands beside the answer cannot be written as JSON"))
            data = self._told_last(delta, losses)
        self._lose(losses)
        return data

    def _told_last(self, delta: dict[str, Any], losses: Losses) -> bytes:
        own = own_keys(self._extra, NAME, losses, "")
        data = b""
        message = own.pop("message", None)
        if isinstance(message, dict) and isinstance(message.get("citations"), list):
            data = b"".join([self._cite(said) for said in message["citations"]])
            message = {key: value for key, value in message.items() if key != "citations"}
        if message:
            own["message"] = message
        for item in logprobs_to_client(tuple(self._logprobs), own, losses) or ():
            data += _event("content-delta", index=0, delta={"message": {"content": {"text": ""}}}, logprobs=item)
        if (usage := usage_to_client(self._usage, losses)) is not None:
            delta = {**delta, "usage": usage}
        facts: dict[str, Any] = {"delta": delta}
        put_keys(own, facts, _END, losses)
        return data + _event("message-end", **facts)

    def _lose(self, losses: list[Loss]) -> None:
        """Note what could not be said, once however often it comes."""
        for loss in losses:
            if loss not in self.losses:
                self.losses.append(loss)


def _event(kind: str, **facts: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + encode_json({"type": kind, **facts}) + b"\n\n"


def _words_head(index: int, kind: str) -> bytes:
    """An event with more words, up to the words."""
    return (
        f'event: content-delta\ndata: {{"type":"content-delta","index":{index},'
        f'"delta":{{"message":{{"content":{{"{kind}":'
    ).encode()


def _arguments(index: int, words: str) -> bytes:
    if not words:
        return b""
    return _event("tool-call-delta", index=index, delta={"message": {"tool_calls": {"function": {"arguments": words}}}})


_SAYS: dict[type[Event], Callable[[CohereWriter, Any], bytes]] = {
    TextDelta: CohereWriter._text_delta,
    ReasoningDelta: CohereWriter._reasoning_delta,
    ReasoningProof: CohereWriter._proof,
    RefusalDelta: CohereWriter._refusal_delta,
    ToolCallStarted: CohereWriter._call_started,
    ToolCallDelta: CohereWriter._call_delta,
    ToolCallEnded: CohereWriter._call_ended,
    CitationAdded: CohereWriter._citation,
    PartAdded: CohereWriter._whole,
    LogprobsAdded: CohereWriter._logs,
    UsageReported: CohereWriter._counted,
    ExtraAdded: CohereWriter._keys,
    Ended: CohereWriter._end,
    Failed: CohereWriter._failed,
}
