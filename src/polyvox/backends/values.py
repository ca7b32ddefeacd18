"""What a backend gave, held against the types it promises: text, a message, a response or events, as values
of ours. It knows no backend but by its name."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from polyvox.backends.failures import failure
from polyvox.errors import PolyvoxError, StreamInterruptedError, UsageError
from polyvox.types import (
    CitationAdded,
    Ended,
    Event,
    Failed,
    Message,
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
    ToolCall,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    Usage,
)

_S = TypeVar("_S", bound=Struct)


def response_of(name: str, model: str, given: Any) -> Response:
    """A whole answer: a response as it is, copied; a message or text with nothing told beside it.

    UsageError for anything else, None included; StreamInterruptedError for a response that says it is not
    complete.
    """
    if isinstance(given, str):
        given = Message("assistant", (Text(str(given)),) if given else ())
    if isinstance(given, Message):
        given = Response(given, finish_reason="stop", model=model)
    if not isinstance(given, Response):
        raise UsageError(
            f"the backend {name!r} answered with {type(given).__name__}, which is no answer",
            hint="return text, a polyvox.Message or a polyvox.Response",
            sent="yes",
        )
    try:
        message = _sound(given.message)
        message = replace(message, parts=tuple([_sound(part) for part in message.parts]))
        # Copied, because the engine fills in what it knows of the call.
        response = _sound(replace(given, message=message, usage=_told(_sound(given.usage))))
    except (msgspec.ValidationError, TypeError, AttributeError) as error:
        raise UsageError(f"the backend {name!r} answered with values of the wrong type: {error}", sent="yes") from None
    if not response.complete:
        raise StreamInterruptedError(
            f"the backend {name!r} gave an answer that is not complete", sent="yes", partial=response
        )
    return response


def _sound(value: _S) -> _S:
    """A copy whose fields are what their annotations say; msgspec.ValidationError otherwise."""
    return msgspec.convert(asdict(value), type(value), builtin_types=(bytes,))


def _told(usage: Usage) -> Usage:
    """Counts somebody gave without saying whose they are: the backend's."""
    counted = usage.source == "missing" and any(count is not None for count in (usage.input, usage.output, usage.total))
    return replace(usage, source="provider") if counted else usage


# Events that tell of a part, with what the part is.
_TELLS: dict[type[Event], type] = {
    TextDelta: Text, CitationAdded: Text, ReasoningDelta: Reasoning, ReasoningProof: Reasoning, RefusalDelta: Refusal,
    ToolCallStarted: ToolCall, ToolCallDelta: ToolCall, ToolCallEnded: ToolCall, PartAdded: PartAdded,
}  # fmt: skip
_BEGINS = (ToolCallStarted, PartAdded)


class _Numbers:
    """The numbers of one answer's parts. A number is kept as it was given, unless a part of another kind has it:
    two under one number would lose one of them."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._of: dict[tuple[int, type], int] = {}

    def take(self, wanted: int | None = None) -> int:
        """The number wanted, or the next one behind all others."""
        number = max(self._taken, default=-1) + 1 if wanted is None or wanted in self._taken else wanted
        self._taken.add(number)
        return number

    def number(self, event: Any) -> int:
        """Where the part an event tells of stands."""
        key = (event.part, _TELLS[type(event)])
        if key not in self._of or isinstance(event, _BEGINS):
            self._of[key] = self.take(event.part)
        return self._of[key]


class EventReader:
    """Reads what a backend yields, text and events in any mixture; see `dialects.Reader`.

    Text alone is whole when the iterator ends. Who yields events says the end too: without `Ended` the
    stream was cut.
    """

    def __init__(self, name: str, model: str) -> None:
        self.done: bool = False
        self._name = name
        self._model = model
        self._started = False
        self._text_only = True
        self._text: int | None = None  # the part that text goes to
        self._numbers: dict[int, _Numbers] = {}

    def feed(self, data: Any) -> list[Event]:
        """Take some pieces, give their events."""
        events: list[Event] = []
        try:
            for piece in data:
                if not self.done:
                    self._take(piece, events)
        except PolyvoxError as error:
            self._fail(error, events)
        return events

    def close(self) -> list[Event]:
        """The iterator ended."""
        events: list[Event] = []
        if self._text_only and not self.done:
            self._start(events)
            events.append(Ended("stop"))
            self.done = True
        elif not self.done:
            message = f"the backend {self._name!r} ended its stream without saying so"
            self._fail(StreamInterruptedError(message, hint="yield polyvox.types.Ended at the end", sent="yes"), events)
        return events

    def _take(self, piece: Any, events: list[Event]) -> None:
        if isinstance(piece, str):
            self._start(events)
            if self._text is None:
                self._text = self._answer(0).take()
            if piece:
                events.append(TextDelta(str(piece), self._text))
            return
        if not isinstance(piece, Event):
            what = f"the backend {self._name!r} yielded {type(piece).__name__}"
            raise UsageError(what, hint="yield text, or the events of polyvox.types", sent="yes")
        self._text_only = False
        if isinstance(piece, Failed):
            raise _error_in(piece, self._name)
        try:
            event = _sound(piece)
        except (msgspec.ValidationError, TypeError) as error:
            what = f"the backend {self._name!r} yielded a {type(piece).__name__} of the wrong type: {error}"
            raise UsageError(what, sent="yes") from None
        if not isinstance(event, Started):
            self._start(events)
        self._started = True
        events.append(self._placed(event) if type(event) in _TELLS else event)
        self.done = isinstance(event, Ended)

    def _start(self, events: list[Event]) -> None:
        if not self._started:
            self._started = True
            events.append(Started(model=self._model))

    def _answer(self, choice: int) -> _Numbers:
        return self._numbers.setdefault(choice, _Numbers())

    def _placed(self, event: Any) -> Event:
        """The event with the number of its part. Text that comes next joins it where it told text, else it begins
        a part of its own."""
        number = self._answer(event.choice).number(event)
        if event.choice == 0:
            self._text = number if isinstance(event, TextDelta) else None
        placed: Event = event if number == event.part else replace(event, part=number)
        return placed

    def _fail(self, error: PolyvoxError, events: list[Event]) -> None:
        self.done = True
        events.append(Failed(error))


def _error_in(event: Failed, name: str) -> PolyvoxError:
    if isinstance(event.error, Exception):
        return failure(name, event.error)
    return StreamInterruptedError(f"the backend {name!r} broke its answer off: {str(event.error)[:200]}", sent="yes")
