"""A streamed answer as a state machine: lines of JSON in any chunking, neutral events out."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from polyvox.dialects import (
    SHAPE_ERRORS,
    Endpoint,
    decode_json,
    decode_object,
    string,
)
from polyvox.dialects.framing import NDJSON
from polyvox.dialects.ollama.answer import (
    MESSAGE,
    calls_of,
    created_of,
    error_of,
    finish_of,
    keys_beside,
    keys_beside_answer,
    logprobs_of,
    mark_of,
    picture_of,
    typed,
    usage_of,
)
from polyvox.dialects.ollama.request import NAME
from polyvox.errors import BadResponseError, PolyvoxError, StreamInterruptedError
from polyvox.types import (
    Ended,
    Event,
    ExtraAdded,
    Failed,
    LogprobsAdded,
    PartAdded,
    ReasoningDelta,
    ReasoningProof,
    Started,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    UsageReported,
)

_GIVE_UP_AFTER = 8  # misses in a row before the typed decoder is left out for this stream


class _Words(Struct, forbid_unknown_fields=True, gc=False):
    content: Annotated[str, Meta(min_length=1)]
    role: str | None = None


class _More(Struct, forbid_unknown_fields=True, gc=False):
    """The line that nearly all lines of a stream are: more words, and nothing else."""

    message: _Words
    done: bool
    model: str | None = None
    created_at: str | None = None


_decode_words = msgspec.json.Decoder(_More).decode


class OllamaReader:
    """See `dialects.Reader`. A line is one JSON object; the one with done true is the last."""

    def __init__(self, at: Endpoint) -> None:
        self.done: bool = False
        self._at = at
        self._lines = NDJSON()
        self._started = False
        self._parts = 0
        self._text: int | None = None
        self._thought: int | None = None
        self._ids: set[str] = set()
        self._misses = 0

    def feed(self, data: bytes) -> list[Event]:
        """See `dialects.Reader.feed`."""
        return self._guarded(lambda: self._lines.feed(data))

    def close(self) -> list[Event]:
        """See `dialects.Reader.close`."""
        events = self._guarded(self._last)
        if not self.done:
            self._fail(StreamInterruptedError("the stream ended before the server was done", sent="yes"), events)
        return events

    def _last(self) -> list[bytes]:
        """The line that had no end: whole, no line of ours at all, or (dropped here) cut off."""
        lines = self._lines.close()
        if lines and (lines[0].lstrip().startswith(b"{") or BOM_UTF8.startswith(lines[0])):
            try:
                decode_json(lines[0])
            except BadResponseError:
                return []
        return lines

    def _guarded(self, take: Callable[[], Iterable[bytes]]) -> list[Event]:
        events: list[Event] = []
        if self.done:
            return events
        try:
            for line in take():
                if self._line(line, events):
                    break
        except PolyvoxError as error:
            self._fail(error, events)
        except SHAPE_ERRORS as error:
            self._fail(BadResponseError(f"a line of the stream has an unexpected shape: {error}"), events)
        return events

    def _fail(self, error: PolyvoxError, events: list[Event]) -> None:
        self.done = True
        if error.sent == "unknown":
            error.sent = "yes"
        events.append(Failed(error))

    def _line(self, line: bytes, events: list[Event]) -> bool:
        """Take one line; true when it was the last."""
        if self._text is not None and self._quick(line, events):
            return False
        body = decode_object(line)
        if body.get("error"):
            raise error_of(body, 0, {})
        if not self._started:
            self._started = True
            events.append(Started(None, string(body.get("model")) or None, created_of(body.get("created_at"))))
        message = body.get("message")
        if message is not None:
            self._message(message, line, events)
        logprobs = logprobs_of(body.get("logprobs"))
        if logprobs:
            events.append(LogprobsAdded(logprobs))
        if extra := keys_beside_answer(body, logprobs):
            events.append(ExtraAdded({NAME: extra}))
        if (usage := usage_of(body)) is not None:
            events.append(UsageReported(usage))
        if body.get("done") is True:
            self.done = True
            reason, raw = finish_of(body, bool(self._ids))
            events.append(Ended(reason or "unknown", raw))
        return self.done

    def _quick(self, line: bytes, events: list[Event]) -> bool:
        """Take a line that adds words to those before; false when it is another."""
        if self._misses >= _GIVE_UP_AFTER:
            return False
        try:
            said = _decode_words(line)
        except (msgspec.DecodeError, ValueError):
            self._misses += 1
            return False
        self._misses = 0
        if said.done or self._text is None:
            return False
        events.append(TextDelta(said.message.content, self._text))
        return True

    def _message(self, message: dict[str, Any], line: bytes, events: list[Event]) -> None:
        if thought := typed(message, "thinking", str):
            if self._thought is None:
                self._thought = self._take()
                events.append(ReasoningProof(self._thought, **mark_of(self._at)))
            events.append(ReasoningDelta(thought, self._thought))
        if words := typed(message, "content", str):
            if self._text is None:
                self._text = self._take()
            events.append(TextDelta(words, self._text))
        events += [PartAdded(self._take(), picture_of(raw)) for raw in typed(message, "images", list)]
        for part in calls_of(message, line, self._ids):
            number = self._take()
            if not isinstance(part, ToolCall):
                events.append(PartAdded(number, part))
                continue
            events.append(ToolCallStarted(number, part.id, part.name, extra=part.extra))
            if part.arguments:
                events.append(ToolCallDelta(number, part.arguments))
            events.append(ToolCallEnded(number))
        if beside := keys_beside(message, MESSAGE):
            events.append(ExtraAdded({NAME: {"message": beside}}))

    def _take(self) -> int:
        self._parts += 1
        return self._parts - 1
