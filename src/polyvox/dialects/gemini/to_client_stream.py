"""A streamed answer for a client of the generateContent protocol: events become pieces of an answer, the last of
which says why it ended. It makes no end that did not come, and knows no bytes but those it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from polyvox.dialects import encode_json
from polyvox.dialects.collect import merged
from polyvox.dialects.gemini.facts import LIST, NAME, Json
from polyvox.dialects.gemini.parts import thought
from polyvox.dialects.gemini.to_client import (
    UNWRITABLE,
    AnswerScope,
    answer_part,
    beside_choice,
    blocked_in,
    candidate_keys,
    error_body,
    failure_of,
    finish_told,
    head,
    reasoning_proof,
    telling_status,
    top_keys,
    usage_told,
)
from polyvox.errors import BadResponseError, PolyvoxError, StreamInterruptedError
from polyvox.types import (
    ChoiceEnded,
    Citation,
    CitationAdded,
    Ended,
    Event,
    Extra,
    ExtraAdded,
    Failed,
    FinishReason,
    LogprobsAdded,
    Loss,
    PartAdded,
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

# The protocol's own client takes a comment for the beginning of an answer, and passes over a blank line; between the
# pieces of a list it is white space.
_PING = b"\n"
_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")  # white space in JSON, as strings hold neither of them unescaped


class _Framing(NamedTuple):
    """What stands around the pieces: before the first and before each other, behind each, and behind all."""

    content_type: str
    first: bytes
    before: bytes
    behind: bytes
    end: bytes


_EVENTS = _Framing("text/event-stream", b"data: ", b"data: ", b"\n\n", b"")
_FRAMINGS = {LIST: _Framing("application/json", b"[", b"\n,\n", b"", b"]")}


class _Call:
    """A call while it grows: here it is told whole."""

    def __init__(self, started: ToolCallStarted) -> None:
        self.started = started
        self.pieces: list[str] = []
        self.whole = False


class _Answer:
    """One candidate while it is written, and what its last piece will tell."""

    def __init__(self) -> None:
        self.spoke = False
        self.called = False
        self.calls: dict[int, _Call] = {}
        self.texts: dict[int, list[str]] = {}
        self.cited: list[tuple[int, Citation]] = []
        self.logprobs: list[TokenLogprob] = []
        self.end: tuple[FinishReason, str | None] | None = None


class GeminiWriter:
    """See `dialects.Writer`. Sources, log-probabilities, usage and keys without a neutral form wait for the end.

    A list of pieces is closed where the answer, or the error it ended with, came to its end; one of a stream that was
    cut stays open behind the error that says so, and so is no JSON for whoever reads it as a whole.
    """

    def __init__(self, framing: str = "") -> None:
        self.done: bool = False
        self._framing = _FRAMINGS.get(framing, _EVENTS)
        self.content_type: str = self._framing.content_type
        self._before = self._framing.first  # what stands before the next piece
        self._words = self._framing.before + _WORDS
        self._scope = AnswerScope()
        self.losses: list[Loss] = self._scope.losses
        self._begun = False
        self._head: Json = {}
        self._first = _Answer()
        self._answers = {0: self._first}
        self._usage = Usage()
        self._extra: Extra = {}
        self._rest = b""  # what stands behind the words of a piece
        self._pieces: list[str] = []  # those of the text being told, the hot path's
        self._part = -1

    def send(self, event: Event) -> bytes:
        """See `dialects.Writer.send`."""
        if self.done:
            return b""
        try:
            if type(event) is TextDelta and event.part == self._part and not event.choice and event.text:
                self._pieces.append(event.text)
                return self._words + encode_json(event.text) + self._rest
            say = _SAYS.get(type(event))
            return say(self, event) if say is not None else b""
        except UNWRITABLE as error:
            return self._fail(BadResponseError(f"the answer holds a value that cannot be said: {error}"))

    def keep_alive(self) -> bytes:
        """See `dialects.Writer.keep_alive`: a blank line."""
        return b"" if self.done else _PING

    def close(self) -> bytes:
        """See `dialects.Writer.close`."""
        return self.send(Failed(StreamInterruptedError("the stream ended before the answer was whole")))

    # ---- the frame ----------------------------------------------------------------------------

    def _begin(self, event: Started) -> None:
        self._begun = True
        self._head = head(event.model, event.id, event.created)
        tail = encode_json(self._head)[1:]
        self._rest = b'}],"role":"model"},"index":0}]' + (b"," if len(tail) > 1 else b"") + tail + self._framing.behind

    def _line(self, body: Json) -> bytes:
        # Arguments go in the model's own bytes, which may stand on several lines; a piece stands on one.
        before, self._before = self._before, self._framing.before
        return before + encode_json(body).translate(_ONE_LINE) + self._framing.behind

    def _tell(self, part: Json, choice: int) -> bytes:
        """A piece with this part alone."""
        if not self._begun:
            self._begin(Started())
        self._answer(choice).spoke = True
        candidate = {"content": {"parts": [part], "role": "model"}, "index": choice}
        return self._line({"candidates": [candidate], **self._head})

    def _answer(self, choice: int) -> _Answer:
        return self._answers.setdefault(choice, _Answer())

    # ---- events -------------------------------------------------------------------------------

    def _start(self, event: Started) -> bytes:
        if not self._begun:
            self._begin(event)
        elif event != Started():
            self._scope.lose("id", "it came after the answer had begun", "note")
        return b""

    def _text(self, event: TextDelta) -> bytes:
        pieces = self._answer(event.choice).texts.setdefault(event.part, [])
        if not event.text:
            return b""
        if not event.choice:
            self._pieces, self._part = pieces, event.part
        pieces.append(event.text)
        return self._tell({"text": event.text}, event.choice)

    def _thought(self, event: ReasoningDelta) -> bytes:
        return self._tell(thought(event.text, None), event.choice) if event.text else b""

    def _proof(self, event: ReasoningProof) -> bytes:
        where = _where(event)
        own = self._scope.own(event.extra, where)
        foreign = bool(event.extra) and NAME not in event.extra
        signature = reasoning_proof(event.signature, event.encrypted, foreign, where, self._scope)
        if signature is None and not own:
            return b""
        return self._tell(thought("", signature) | own, event.choice)

    def _refusal(self, event: RefusalDelta) -> bytes:
        return self._whole(PartAdded(event.part, Refusal(event.text), event.choice)) if event.text else b""

    def _whole(self, event: PartAdded) -> bytes:
        answer, value = self._answer(event.choice), event.value
        if isinstance(value, ToolCall):
            answer.called = True
        if isinstance(value, Text):
            answer.texts[event.part] = [value.text]
            answer.cited += [(event.part, citation) for citation in value.citations]
        part = answer_part(value, _where(event), self._scope)
        return self._tell(part, event.choice) if part is not None else b""

    def _call(self, event: ToolCallStarted) -> bytes:
        calls = self._answer(event.choice).calls
        before = calls.pop(event.part, None)
        calls[event.part] = _Call(event)
        return self._tell_call(before, event.part, event.choice) if before is not None else b""

    def _argue(self, event: ToolCallDelta) -> bytes:
        call = self._answer(event.choice).calls.get(event.part)
        if call is not None:
            call.pieces.append(event.arguments)
        elif event.arguments.strip():
            self._scope.lose(f"{_where(event)}.arguments", "they belong to no call")
        return b""

    def _called(self, event: ToolCallEnded) -> bytes:
        """The call, once those before it are told: calls that grow side by side keep their order."""
        calls = self._answer(event.choice).calls
        if event.part in calls:
            calls[event.part].whole = True
        data = b""
        while calls and calls[min(calls)].whole:
            part = min(calls)
            data += self._tell_call(calls.pop(part), part, event.choice)
        return data

    def _tell_call(self, call: _Call, part: int, choice: int) -> bytes:
        begun = call.started
        made = ToolCall(begun.id, begun.name, "".join(call.pieces), begun.call_kind, extra=begun.extra)
        return self._whole(PartAdded(part, made, choice))

    def _cite(self, event: CitationAdded) -> bytes:
        self._answer(event.choice).cited.append((event.part, event.citation))
        return b""

    def _logprobs(self, event: LogprobsAdded) -> bytes:
        self._answer(event.choice).logprobs += event.tokens
        return b""

    def _count(self, event: UsageReported) -> bytes:
        self._usage = event.usage
        return b""

    def _keys(self, event: ExtraAdded) -> bytes:
        self._extra = merged(self._extra, event.extra)
        return b""

    def _choice_end(self, event: ChoiceEnded) -> bytes:
        failure = failure_of(event.finish_reason)
        if failure is not None:
            return self._fail(failure)
        self._answer(event.choice).end = (event.finish_reason, event.raw_finish_reason)
        return b""

    def _end(self, event: Ended) -> bytes:
        failure = failure_of(event.finish_reason)
        if failure is not None:
            return self._fail(failure)
        unended = [number for number, answer in self._answers.items() if number and answer.end is None]
        if unended:
            return self._fail(StreamInterruptedError("not all answers came to their end"))
        if event.stop_sequence is not None:
            self._scope.lose("stop_sequence", "which sequence ended the answer is not told", "note")
        self._first.end = (event.finish_reason, event.raw_finish_reason)
        data = b"".join(
            [self._called(ToolCallEnded(part, number)) for number in sorted(self._answers)
             for part in sorted(self._answers[number].calls)]
        )  # fmt: skip
        data += self._last()
        self.done = True
        return data + self._framing.end

    def _failed(self, event: Failed) -> bytes:
        return self._fail(event.error)

    def _fail(self, error: PolyvoxError) -> bytes:
        """What is known beside the words, and the error in the place of an end."""
        self.done = True
        for answer in self._answers.values():
            for _, call in sorted(answer.calls.items()):
                self._scope.lose(f"{_where(call.started)}.tool_call", "it was not whole")
            answer.end = None
        try:
            data = self._last()
        except UNWRITABLE:
            data = b""
        data += self._line(error_body(error, telling_status(error, 0)))
        return data if error.kind == "stream_interrupted" else data + self._framing.end

    def _last(self) -> bytes:
        """The piece that tells all that waited; b"" where nothing did and no answer ended."""
        own = dict(self._scope.own(self._extra, "")) if self._extra else {}
        usage = usage_told(self._usage, self._scope)
        body: Json = {} if usage is None else {"usageMetadata": usage}
        if not self._blocked(own):
            answers = [self._told(number, own) for number in sorted(self._answers)]
            if any(len(candidate) > 1 for candidate in answers):
                body["candidates"] = answers
        body |= top_keys(own, self._scope)
        if not self._begun:
            self._begin(Started())
        return self._line({**body, **self._head}) if body else b""

    def _blocked(self, own: Json) -> bool:
        answer = self._first
        return not answer.spoke and len(self._answers) == 1 and blocked_in(own, answer.end[1] if answer.end else None)

    def _told(self, number: int, own: Json) -> Json:
        """The last piece of a candidate."""
        answer = self._answers[number]
        beside = beside_choice(own, number) if number else own
        cited = [("".join(answer.texts.get(part, ())), one) for part, one in answer.cited]
        keys = candidate_keys(beside, tuple(answer.logprobs) or None, cited, self._scope)
        candidate: Json = {"index": number}
        if answer.end is not None:
            if answer.spoke:
                # Where there was content, clients look for some in the last piece too.
                candidate["content"] = {"parts": [{"text": ""}], "role": "model"}
            candidate["finishReason"] = finish_told(*answer.end, answer.called, self._scope)
        return candidate | keys


def _where(event: PartAdded | ReasoningProof | ToolCallStarted | ToolCallDelta) -> str:
    """The place of the part that an event is about, also in a further answer."""
    message = f"choices[{event.choice - 1}].message" if event.choice else "message"
    return f"{message}.parts[{event.part}]"


_WORDS = b'{"candidates":[{"content":{"parts":[{"text":'
_SAYS: dict[type[Event], Callable[[GeminiWriter, Any], bytes]] = {
    Started: GeminiWriter._start,
    TextDelta: GeminiWriter._text,
    ReasoningDelta: GeminiWriter._thought,
    ReasoningProof: GeminiWriter._proof,
    RefusalDelta: GeminiWriter._refusal,
    PartAdded: GeminiWriter._whole,
    ToolCallStarted: GeminiWriter._call,
    ToolCallDelta: GeminiWriter._argue,
    ToolCallEnded: GeminiWriter._called,
    CitationAdded: GeminiWriter._cite,
    LogprobsAdded: GeminiWriter._logprobs,
    UsageReported: GeminiWriter._count,
    ExtraAdded: GeminiWriter._keys,
    ChoiceEnded: GeminiWriter._choice_end,
    Ended: GeminiWriter._end,
    Failed: GeminiWriter._failed,
}
