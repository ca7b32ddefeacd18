"""A streamed answer for a client of this dialect as a state machine: neutral events in, lines of JSON out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from polyvox.dialects import encode_json
from polyvox.dialects.bound import own_keys
from polyvox.dialects.errors_on_wire import status_of
from polyvox.dialects.ollama.request import NAME
from polyvox.dialects.ollama.to_client import (
    UNWRITABLE,
    choices_lost,
    end_of,
    error_body,
    failure_of,
    head_of,
    logprobs_to_client,
    message_to_client,
    metrics_of,
    put_keys,
    stop_sequence_lost,
)
from polyvox.errors import BadResponseError, PolyvoxError, StreamInterruptedError
from polyvox.types import (
    CitationAdded,
    Ended,
    Event,
    ExtraAdded,
    Failed,
    LogprobsAdded,
    Loss,
    Message,
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
    ToolCall,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    Usage,
    UsageReported,
)

_REST = b'},"done":false}\n'

# What JSON leaves alone in strings, and readers of text take for the end of a line.
_LINE_ENDS = tuple([(char.encode(), f"\\u{ord(char):04x}".encode()) for char in "\u0085\u2028\u2029"])


def _json(value: Any) -> bytes:
    """JSON without anything that could end its line."""
    data = encode_json(value)
    if not data.isascii():
        for char, escaped in _LINE_ENDS:
            data = data.replace(char, escaped)
    return data


class _Call(NamedTuple):
    """A call while it grows: here it is told whole."""

    started: ToolCallStarted
    pieces: list[str]


class OllamaWriter:
    """See `dialects.Writer`. A line is one JSON object; the one with done true is the last, or one with an error."""

    content_type = "application/x-ndjson"

    def __init__(self) -> None:
        self.done: bool = False
        self.losses: list[Loss] = []
        self._head: dict[str, Any] = {}
        self._words = b""  # a line of words, up to the words
        self._calls: dict[int, _Call] = {}
        self._called = False
        self._usage = Usage()

    def send(self, event: Event) -> bytes:
        """See `dialects.Writer.send`."""
        if self.done:
            return b""
        try:
            if type(event) is TextDelta and event.choice == 0 and self._words:
                return self._words + _json(event.text) + _REST
            return self._send(event)
        except UNWRITABLE as error:
            return self._fail(BadResponseError(f"the answer cannot be written as JSON: {error}"))

    def keep_alive(self) -> bytes:
        """See `dialects.Writer.keep_alive`; a line that says nothing would be no JSON."""
        return b""

    def close(self) -> bytes:
        """See `dialects.Writer.close`."""
        if self.done:
            return b""
        return self._fail(StreamInterruptedError("the stream ended before the answer was whole"))

    def _send(self, event: Event) -> bytes:
        if getattr(event, "choice", 0):
            self._lose([choices_lost()])
            return b""
        if not self._head and not isinstance(event, Failed):
            self._begin(event if isinstance(event, Started) else Started())
        say = _SAYS.get(type(event))
        return say(self, event) if say is not None else b""

    def _begin(self, event: Started) -> None:
        losses: list[Loss] = []
        self._head = head_of(event.id, event.model, event.created, losses)
        self._words = _json(self._head)[:-1] + b',"message":{"role":"assistant","content":'
        self._lose(losses)

    def _text_delta(self, event: TextDelta) -> bytes:
        return self._words + _json(event.text) + _REST

    def _reasoning_delta(self, event: ReasoningDelta) -> bytes:
        return self._words + b'"","thinking":' + _json(event.text) + _REST

    def _refusal_delta(self, event: RefusalDelta) -> bytes:
        return self._part(Refusal(event.text), event.part)

    def _proof(self, event: ReasoningProof) -> bytes:
        proof = Reasoning(signature=event.signature, encrypted=event.encrypted, extra=event.extra)
        return self._part(proof, event.part)

    def _citation(self, event: CitationAdded) -> bytes:
        return self._part(Text("", citations=(event.citation,)), event.part)

    def _whole(self, event: PartAdded) -> bytes:
        return self._part(event.value, event.part)

    def _call_started(self, event: ToolCallStarted) -> bytes:
        data = self._call_ended(ToolCallEnded(event.part))
        self._calls[event.part] = _Call(event, [])
        return data

    def _call_delta(self, event: ToolCallDelta) -> bytes:
        if event.part in self._calls:
            self._calls[event.part].pieces.append(event.arguments)
        else:
            self._lose([Loss(f"message.parts[{event.part}].arguments", "they belong to no call")])
        return b""

    def _call_ended(self, event: ToolCallEnded) -> bytes:
        call = self._calls.pop(event.part, None)
        if call is None:
            return b""
        start = call.started
        return self._part(
            ToolCall(start.id, start.name, "".join(call.pieces), start.call_kind, extra=start.extra), event.part
        )

    def _logprobs(self, event: LogprobsAdded) -> bytes:
        return self._line({"logprobs": logprobs_to_client(event.tokens)})

    def _counted(self, event: UsageReported) -> bytes:
        self._usage = event.usage
        return b""

    def _extra(self, event: ExtraAdded) -> bytes:
        losses: list[Loss] = []
        line = self._empty_line()
        put_keys(own_keys(event.extra, NAME, losses, ""), line, losses)
        self._lose(losses)
        return self._line(line) if line != self._empty_line() else b""

    def _part(self, part: Part, number: int) -> bytes:
        """A line with this part alone; b"" where the dialect says nothing of it."""
        losses: list[Loss] = []
        message = message_to_client(Message("assistant", (part,)), losses, number)
        self._lose(losses)
        self._called = self._called or isinstance(part, ToolCall)
        return self._line({"message": message}) if message != _NOTHING else b""

    def _end(self, event: Ended) -> bytes:
        if (failure := failure_of(event.finish_reason)) is not None:
            return self._fail(failure)
        losses: list[Loss] = []
        data = [self._call_ended(ToolCallEnded(number)) for number in sorted(self._calls)]
        reason = None if (event.finish_reason, event.raw_finish_reason) == ("unknown", None) else event.finish_reason
        end = end_of(reason, event.raw_finish_reason, self._called, losses)
        if event.stop_sequence is not None:
            losses.append(stop_sequence_lost())
        data.append(self._line({"done": True, **end, **metrics_of(self._usage, losses)}))
        self._lose(losses)
        self.done = True
        return b"".join(data)

    def _failed(self, event: Failed) -> bytes:
        return self._fail(event.error)

    def _fail(self, error: PolyvoxError) -> bytes:
        self.done = True
        self._lose([Loss(f"message.parts[{number}].tool_call", "it was not whole") for number in sorted(self._calls)])
        return _json({**error_body(error), "status_code": status_of(error)}) + b"\n"

    def _empty_line(self) -> dict[str, Any]:
        return {**self._head, "message": _NOTHING, "done": False}

    def _line(self, said: dict[str, Any]) -> bytes:
        # The model's own arguments may have ends of lines between their values; in strings JSON has none.
        return _json(self._empty_line() | said).replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"

    def _lose(self, losses: list[Loss]) -> None:
        """Note what could not be said, once however often it comes."""
        self.losses += [loss for loss in losses if loss not in self.losses]


_NOTHING = {"role": "assistant", "content": ""}
_SAYS: dict[type[Event], Callable[[OllamaWriter, Any], bytes]] = {
    TextDelta: OllamaWriter._text_delta,
    ReasoningDelta: OllamaWriter._reasoning_delta,
    ReasoningProof: OllamaWriter._proof,
    RefusalDelta: OllamaWriter._refusal_delta,
    ToolCallStarted: OllamaWriter._call_started,
    ToolCallDelta: OllamaWriter._call_delta,
    ToolCallEnded: OllamaWriter._call_ended,
    CitationAdded: OllamaWriter._citation,
    PartAdded: OllamaWriter._whole,
    LogprobsAdded: OllamaWriter._logprobs,
    UsageReported: OllamaWriter._counted,
    ExtraAdded: OllamaWriter._extra,
    Ended: OllamaWriter._end,
    Failed: OllamaWriter._failed,
}
