"""From events to the response they tell. The one place that knows how deltas add up; it reads no
bytes and no clock."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from msgspec.structs import replace

from polyvox.types import (
    Choice,
    ChoiceEnded,
    CitationAdded,
    Ended,
    Event,
    Extra,
    ExtraAdded,
    Failed,
    FinishReason,
    LogprobsAdded,
    Message,
    Part,
    PartAdded,
    Reasoning,
    ReasoningDelta,
    ReasoningProof,
    Refusal,
    RefusalDelta,
    Response,
    Started,
    Text,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    UsageReported,
)


class _Growing:
    """A part while it grows: what it will be, its pieces of text, and the facts that came beside them."""

    __slots__ = ("facts", "make", "pieces")

    def __init__(self, make: type[Part], **facts: Any) -> None:
        self.make = make
        self.pieces: list[str] = []
        self.facts: dict[str, Any] = facts

    def finish(self) -> Part:
        name = "arguments" if self.make is ToolCall else "text"
        return self.make(**{name: "".join(self.pieces), **self.facts})


class _Answer:
    """One choice while it grows: its parts by number. Some are told late (a proof, a sound), but stand
    where their number says."""

    __slots__ = ("finish_reason", "logprobs", "parts", "raw_finish_reason")

    def __init__(self) -> None:
        self.parts: dict[int, _Growing | Part] = {}
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason: FinishReason | None = None
        self.raw_finish_reason: str | None = None

    def growing(self, number: int, make: type[Part]) -> _Growing:
        part = self.parts.get(number)
        if isinstance(part, _Growing):
            return part
        new = _Growing(make)
        # A delta for a part that came whole cannot join it: it becomes a part of its own.
        self.parts[number if part is None else max(self.parts) + 1] = new
        return new

    def cite(self, event: CitationAdded) -> None:
        """A source joins its text also where that came whole."""
        whole = self.parts.get(event.part)
        if isinstance(whole, Text):
            self.parts[event.part] = replace(whole, citations=(*whole.citations, event.citation))
            return
        facts = self.growing(event.part, Text).facts
        facts["citations"] = (*facts.get("citations", ()), event.citation)

    def message(self) -> Message:
        parts = [part for _, part in sorted(self.parts.items(), key=itemgetter(0))]
        return Message("assistant", tuple([part.finish() if isinstance(part, _Growing) else part for part in parts]))

    def logprobs_or_none(self) -> tuple[TokenLogprob, ...] | None:
        return tuple(self.logprobs) if self.logprobs else None


_GROWS: dict[type[Event], type[Part]] = {TextDelta: Text, ReasoningDelta: Reasoning, RefusalDelta: Refusal}


class Collector:
    """Adds events up to a `Response`. Before the end `response()` gives the partial answer."""

    def __init__(self) -> None:
        self._first = _Answer()
        self._answers: dict[int, _Answer] = {0: self._first}
        self._started = Started()
        self._usage = Usage()
        self._extra: Extra = {}
        self._end: Ended | None = None
        self.failed: Failed | None = None

    def add(self, event: Event) -> None:
        """Take one event, in the order it came."""
        if type(event) is TextDelta and event.choice == 0:
            part = self._first.parts.get(event.part)
            if type(part) is _Growing:
                part.pieces.append(event.text)
                return
        self._add(event)

    def _add(self, event: Event) -> None:
        match event:
            case TextDelta() | ReasoningDelta() | RefusalDelta():
                self._answer(event.choice).growing(event.part, _GROWS[type(event)]).pieces.append(event.text)
            case ToolCallStarted():
                part = _Growing(ToolCall, id=event.id, name=event.name, kind=event.call_kind, extra=event.extra)
                self._answer(event.choice).parts[event.part] = part
            case ToolCallDelta():
                self._answer(event.choice).growing(event.part, ToolCall).pieces.append(event.arguments)
            case ReasoningProof():
                facts = self._answer(event.choice).growing(event.part, Reasoning).facts
                for name in ("signature", "encrypted", "origin"):
                    if (value := getattr(event, name)) is not None:
                        facts[name] = value
                if event.extra:
                    facts["extra"] = merged(facts.get("extra", {}), event.extra)
            case CitationAdded():
                self._answer(event.choice).cite(event)
            case PartAdded():
                self._answer(event.choice).parts[event.part] = event.value
            case LogprobsAdded():
                self._answer(event.choice).logprobs.extend(event.tokens)
            case Started():
                self._started = event
            case UsageReported():
                self._usage = event.usage
            case ExtraAdded():
                self._extra = merged(self._extra, event.extra)
            case ChoiceEnded():
                answer = self._answer(event.choice)
                answer.finish_reason, answer.raw_finish_reason = event.finish_reason, event.raw_finish_reason
            case Ended():
                self._end = event
            case Failed():
                self.failed = event

    def _answer(self, choice: int) -> _Answer:
        return self._answers.setdefault(choice, _Answer())

    @property
    def next_part(self) -> int:
        """The number that no part of the first answer has yet."""
        return max(self._first.parts, default=-1) + 1

    def response(self, **facts: Any) -> Response:
        """The answer so far; `facts` are what the caller knows beside it (provider, attempts, ...)."""
        first = self._answers[0]
        end = self._end or self.failed
        reason: FinishReason | None = end.finish_reason if end else None
        if self._end is None and reason is None:
            reason = "error" if self.failed and self.failed.error.kind != "stream_interrupted" else "incomplete"
        return Response(
            message=first.message(),
            finish_reason=reason,
            raw_finish_reason=end.raw_finish_reason if end else None,
            stop_sequence=self._end.stop_sequence if self._end else None,
            usage=self._usage,
            id=self._started.id,
            model=self._started.model,
            created=self._started.created,
            choices=tuple(
                [
                    Choice(answer.message(), answer.finish_reason, answer.raw_finish_reason, answer.logprobs_or_none())
                    for number, answer in sorted(self._answers.items())
                    if number
                ]
            ),
            logprobs=first.logprobs_or_none(),
            complete=self._end is not None,
            extra=self._extra,
            **facts,
        )


def merged(first: Extra, second: Extra) -> Extra:
    """Both extras in one; where both say a key, the second wins."""
    both = {dialect: dict(keys) for dialect, keys in first.items()}
    for dialect, keys in second.items():
        both.setdefault(dialect, {}).update(keys)
    return both


def as_events(response: Response) -> list[Event]:
    """A whole response as the events that would have told it, for callers who asked for a stream."""
    events: list[Event] = [Started(response.id, response.model, response.created)]
    events += _answer_events(response.message, response.logprobs, 0)
    for number, choice in enumerate(response.choices, 1):
        events += _answer_events(choice.message, choice.logprobs, number)
        events.append(ChoiceEnded(number, choice.finish_reason or "unknown", choice.raw_finish_reason))
    if response.usage != Usage():
        events.append(UsageReported(response.usage))
    extra = response.extra
    for dialect, keys in response.message.extra.items():
        # No event has keys of a message: they stand beside it, as those of a streamed message do.
        extra = merged(extra, {dialect: {"message": keys}})
    if extra:
        events.append(ExtraAdded(extra))
    events.append(Ended(response.finish_reason or "unknown", response.raw_finish_reason, response.stop_sequence))
    return events


def _answer_events(message: Message, logprobs: tuple[TokenLogprob, ...] | None, choice: int) -> list[Event]:
    events: list[Event] = []
    for number, part in enumerate(message.parts):
        if isinstance(part, Text) and part == Text(part.text):
            events.append(TextDelta(part.text, number, choice))
        else:
            events.append(PartAdded(number, part, choice))
    if logprobs:
        events.append(LogprobsAdded(logprobs, choice))
    return events
