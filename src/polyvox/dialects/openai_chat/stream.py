"""A Chat Completions stream as a state machine: bytes in any chunking, neutral events out.

Most chunks of most streams carry a few more words and nothing else. Those are recognised by a strict
typed decoder, which is also the cheapest way to read them; whatever has one key more takes the
general path, so nothing is skipped for speed.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from polyvox.dialects import SHAPE_ERRORS, Endpoint, Reply, decode_json, integer, snippet, string
from polyvox.dialects.collect import as_events
from polyvox.dialects.framing import SSE, ServerSentEvent
from polyvox.dialects.openai_chat.answer import (
    arguments_text,
    audio_part,
    chunk_part,
    citations_of,
    decode_response,
    details_of,
    error_of,
    finish_reason,
    image_part,
    logprobs_of,
    reasoning_text,
    usage_of,
)
from polyvox.errors import BadResponseError, PolyvoxError, StreamInterruptedError
from polyvox.types import (
    ChoiceEnded,
    CitationAdded,
    Ended,
    Event,
    ExtraAdded,
    Failed,
    LogprobsAdded,
    PartAdded,
    Reasoning,
    ReasoningDelta,
    ReasoningProof,
    RefusalDelta,
    Started,
    Text,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    UsageReported,
)

NAME = "openai.chat"

_TOP = frozenset({"id", "object", "created", "model", "choices", "usage", "obfuscation", "citations", "error"})
_CHOICE = frozenset({"index", "delta", "message", "finish_reason", "logprobs", "text"})
_DELTA = frozenset({
    "role", "content", "refusal", "tool_calls", "function_call", "annotations", "audio", "images",
    "reasoning_content", "reasoning", "reasoning_details",
})  # fmt: skip


class _Words(Struct, forbid_unknown_fields=True):
    content: str
    role: str | None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    reasoning_content: None = None
    reasoning: None = None


class _OneChoice(Struct, forbid_unknown_fields=True):
    delta: _Words
    index: int = 0
    finish_reason: None = None
    logprobs: None = None


class _WordsChunk(Struct, forbid_unknown_fields=True):
    choices: tuple[_OneChoice]
    id: Raw = Raw()
    object: Raw = Raw()
    created: Raw = Raw()
    model: Raw = Raw()
    system_fingerprint: Raw = Raw()
    service_tier: Raw = Raw()
    obfuscation: Raw = Raw()
    usage: None = None


_decode_words = msgspec.json.Decoder(_WordsChunk).decode
_GIVE_UP_AFTER = 8  # misses in a row before the typed decoder is left out for this stream


class _Call:
    """A tool call while it streams; it starts once its name is known."""

    __slots__ = ("extra", "id", "part", "pieces", "started")

    def __init__(self, part: int) -> None:
        self.part = part
        self.id: str | None = None
        self.pieces: list[str] = []
        self.started = False
        self.extra: dict[str, Any] = {}


class _Choice:
    """What one choice has shown so far."""

    __slots__ = ("calls", "details", "frames", "has_refusal", "ids", "last", "next", "numbers", "raw_reason")

    def __init__(self) -> None:
        self.next = 0
        self.numbers: dict[type, int] = {}  # event type -> the part its deltas go to
        self.calls: dict[Any, _Call] = {}
        self.last: Any = None
        self.ids: set[str] = set()
        self.details: list[dict[str, Any]] = []
        self.frames: dict[str, Any] = {}
        self.has_refusal = False
        self.raw_reason: str | None = None

    def number(self, kind: type) -> int:
        found = self.numbers.get(kind)
        if found is None:
            found = self.numbers[kind] = self.take()
        return found

    def take(self) -> int:
        self.next += 1
        return self.next - 1


class ChatReader:
    """See `dialects.Reader`."""

    def __init__(self, at: Endpoint) -> None:
        self.done = False
        self._at = at
        self._sse = SSE()
        self._plain: bytes | None = b""  # bytes of a body that is no event stream; None once it is one
        self._choices: dict[int, _Choice] = {}
        self._started = False
        self._misses = 0
        self._text_part = -1  # the part of choice 0's words once they began
        self._usage: dict[str, Any] = {}
        self._extra: dict[str, Any] = {}
        self._citations: Any = None

    def feed(self, data: bytes) -> list[Event]:
        """See `dialects.Reader.feed`."""
        events: list[Event] = []
        if self.done:
            return events
        try:
            if self._plain is not None:
                data = self._sniff(data)
            for frame in self._sse.feed(data) if data else ():
                self._frame(frame, events)
                if self.done:
                    break
        except PolyvoxError as error:
            self._fail(error, events)
        except SHAPE_ERRORS as error:
            self._fail(BadResponseError(f"an event of the stream has an unexpected shape: {error}"), events)
        return events

    def close(self) -> list[Event]:
        """See `dialects.Reader.close`."""
        events: list[Event] = []
        if self.done:
            return events
        try:
            if self._plain is not None:
                self._whole(self._plain, events)
            for frame in self._sse.close():
                # What was cut off inside its JSON is no bad answer, it is half of one.
                if not self.done and (frame.data.strip() == b"[DONE]" or _is_json(frame.data)):
                    self._frame(frame, events)
        except PolyvoxError as error:
            self._fail(error, events)
        except SHAPE_ERRORS as error:
            self._fail(BadResponseError(f"an event of the stream has an unexpected shape: {error}"), events)
        if not self.done:
            self._end(events)
        return events

    # ---- frames -------------------------------------------------------------------------------

    def _sniff(self, data: bytes) -> bytes:
        """Hold bytes back until it is clear that they are an event stream; then give them all."""
        self._plain = (self._plain or b"") + data
        start = self._plain.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        if not start or start in b"{[<":
            if len(self._plain) > 16 * 1024 * 1024:
                raise BadResponseError("the answer is no event stream and larger than 16 MiB")
            return b""
        data, self._plain = self._plain, None
        return data

    def _whole(self, body: bytes, events: list[Event]) -> None:
        """The body was no event stream: an answer in one piece, an error, or nothing of ours."""
        start = body.lstrip()[:1]
        if not start:
            return
        if not _is_json(body):
            if start in b"{[":
                raise StreamInterruptedError("the answer broke off inside its JSON", sent="yes")
            raise BadResponseError(f"the answer is no event stream: {snippet(body)}", sent="yes")
        value = decode_json(body)
        if isinstance(value, list):
            raise error_of(value, 0)
        events += as_events(decode_response(Reply(200, {}, body), self._at))
        self.done = True

    def _frame(self, frame: ServerSentEvent, events: list[Event]) -> None:
        data = frame.data
        if self._text_part >= 0 and self._misses < _GIVE_UP_AFTER:
            try:
                choice = _decode_words(data).choices[0]
            except msgspec.DecodeError:
                self._misses += 1
            else:
                self._misses = 0
                if choice.index == 0 and (text := choice.delta.content):
                    events.append(TextDelta(text, self._text_part))
                    return
        if data.strip() == b"[DONE]":
            self._end(events, told=True)
            return
        if not data.strip():
            return
        chunk = decode_json(data)
        if not isinstance(chunk, dict):
            raise BadResponseError(f"an event of the stream is not an object: {snippet(data)}")
        failed = chunk.get("error") or frame.name == "error"
        if not failed or chunk.get("choices"):
            self._chunk(chunk, events)
        if failed:
            raise error_of(chunk, 0)

    def _chunk(self, chunk: dict[str, Any], events: list[Event]) -> None:
        if not self._started and (chunk.get("id") or chunk.get("model")):
            # An empty id or model comes on Azure's opening filter chunk; the real one follows.
            self._started = True
            created = chunk.get("created")
            when = float(created) if isinstance(created, int | float) else None
            events.append(Started(string(chunk.get("id")), string(chunk.get("model")) or None, when))
        for key in chunk.keys() - _TOP:
            self._extra[key] = chunk[key]
        groq = chunk.get("x_groq")
        usage = groq.get("usage") if isinstance(groq, dict) and not chunk.get("usage") else chunk.get("usage")
        if isinstance(usage, dict):
            self._usage.update({key: value for key, value in usage.items() if value is not None})
            events.append(UsageReported(usage_of(dict(self._usage))))
        if chunk.get("citations"):
            self._citations = chunk["citations"]
        for choice in chunk.get("choices") or ():
            self._choice(choice, events)

    # ---- choices ------------------------------------------------------------------------------

    def _choice(self, raw: dict[str, Any], events: list[Event]) -> None:
        index = integer(raw.get("index")) or 0
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = _Choice()
        delta = raw.get("delta")
        if not isinstance(delta, dict):
            # Some servers close with the whole message; it says something only where no delta did.
            message = raw.get("message")
            delta = message if isinstance(message, dict) and not state.next else {}
        self._reasoning(delta, state, index, events)
        self._content(delta, state, index, events)
        for call in delta.get("tool_calls") or ():
            self._call(call, state, index, events)
        if isinstance(legacy := delta.get("function_call"), dict) and (legacy.get("name") or legacy.get("arguments")):
            self._call({"index": 0, "function": legacy}, state, index, events)
        if found := logprobs_of(raw.get("logprobs")):
            events.append(LogprobsAdded(found, index))
        beside = {key: raw[key] for key in raw.keys() - _CHOICE if raw[key] is not None}
        beside.update({key: delta[key] for key in delta.keys() - _DELTA if delta[key] is not None})
        if beside:
            self._extra["choice"] = {**self._extra.get("choice", {}), **beside}
        if reason := string(raw.get("finish_reason")):
            state.raw_reason = reason

    def _reasoning(self, delta: dict[str, Any], state: _Choice, index: int, events: list[Event]) -> None:
        if thought := reasoning_text(delta):
            events.append(ReasoningDelta(thought, state.number(ReasoningDelta), index))
        for detail in details_of(delta):
            state.number(ReasoningDelta)
            _merge_detail(state.details, detail)

    def _content(self, delta: dict[str, Any], state: _Choice, index: int, events: list[Event]) -> None:
        content = delta.get("content")
        if isinstance(content, str):
            if content:
                self._words(content, state, index, events)
        elif isinstance(content, list):
            for chunk in content:
                self._content_chunk(chunk, state, index, events)
        if isinstance(refusal := delta.get("refusal"), str) and refusal:
            state.has_refusal = True
            events.append(RefusalDelta(refusal, state.number(RefusalDelta), index))
        for citation in citations_of(delta.get("annotations")):
            events.append(CitationAdded(state.number(TextDelta), citation, index))
        for image in delta.get("images") or ():
            events.append(PartAdded(state.take(), image_part(image), index))
        if (sound := audio_part(delta.get("audio"), self._at)) is not None:
            events.append(PartAdded(state.take(), sound, index))

    def _words(self, text: str, state: _Choice, index: int, events: list[Event]) -> None:
        number = state.number(TextDelta)
        if index == 0:
            self._text_part = number
        events.append(TextDelta(text, number, index))

    def _content_chunk(self, chunk: Any, state: _Choice, index: int, events: list[Event]) -> None:
        if isinstance(chunk, str):
            self._words(chunk, state, index, events)
            return
        part = chunk_part(chunk, self._at)
        if type(part) is Text and not part.extra:
            if part.text:
                self._words(part.text, state, index, events)
        elif type(part) is Reasoning:
            state.frames = {**state.frames, **part.extra[NAME]["chunk"]}
            number = state.number(ReasoningDelta)
            if part.text:
                events.append(ReasoningDelta(part.text, number, index))
            if part.signature:
                events.append(ReasoningProof(number, signature=part.signature, choice=index))
        else:
            events.append(PartAdded(state.take(), part, index))

    # ---- calls --------------------------------------------------------------------------------

    def _call(self, raw: dict[str, Any], state: _Choice, index: int, events: list[Event]) -> None:
        custom = "custom" in raw
        inner = raw.get("custom" if custom else "function")
        inner = inner if isinstance(inner, dict) else {}
        name, new_id = string(inner.get("name")), string(raw.get("id")) or None
        call = self._call_at(raw.get("index"), new_id, name, state)
        call.id = call.id or new_id
        for key in raw.keys() - {"index", "id", "type", "function", "custom"}:
            call.extra[key] = raw[key]
        text = arguments_text(inner.get("input" if custom else "arguments"))
        if not call.started and name:
            call.started = True
            wanted = call.id or f"call_{len(state.calls) - 1}"
            call.id, number = wanted, 2
            while call.id in state.ids:
                call.id, number = f"{wanted}_{number}", number + 1
            state.ids.add(call.id)
            extra = {NAME: call.extra} if call.extra else {}
            events.append(ToolCallStarted(call.part, call.id, name, "custom" if custom else "function", extra, index))
            text = "".join(call.pieces) + text
        if call.started:
            if text:
                events.append(ToolCallDelta(call.part, text, index))
        else:
            call.pieces.append(text)

    def _call_at(self, place: Any, new_id: str | None, name: str | None, state: _Choice) -> _Call:
        """The call this piece belongs to. Pieces find each other by index; without one, an entry that
        has an id or a name is a call of its own; so is one that brings a new id and name to an old
        index, as servers do that number every parallel call 0."""
        key = place if type(place) is int else state.last if not (new_id or name) else None
        call = state.calls.get(key) if key is not None else None
        if call is not None and call.started and new_id and name and new_id != call.id:
            key, call = None, None
        if call is None:
            key = ("call", len(state.calls)) if key is None else key
            call = state.calls[key] = _Call(state.take())
        state.last = key
        return call

    # ---- the end ------------------------------------------------------------------------------

    def _end(self, events: list[Event], told: bool = False) -> None:
        """Ended, if the first choice has said why it stopped, and the others too unless the server
        told that this is the end; otherwise the stream was cut."""
        first = self._choices.get(0)
        open_choices = [state for state in self._choices.values() if state.raw_reason is None]
        if first is None or first.raw_reason is None or (open_choices and not told):
            self._finish_parts(events)
            self._fail(StreamInterruptedError("the stream ended without a finish reason", sent="yes"), events)
            return
        if any(not call.started for state in self._choices.values() for call in state.calls.values()):
            self._fail(BadResponseError("the stream calls a tool without naming it", sent="yes"), events)
            return
        self._finish_parts(events)
        for index, state in sorted(self._choices.items()):
            reason = finish_reason(state.raw_reason, bool(state.calls), state.has_refusal) or "unknown"
            if index:
                events.append(ChoiceEnded(index, reason, state.raw_reason))
        events.append(Ended(finish_reason(first.raw_reason, bool(first.calls), first.has_refusal) or "unknown", first.raw_reason))
        self.done = True

    def _finish_parts(self, events: list[Event]) -> None:
        for index, state in sorted(self._choices.items()):
            for call in state.calls.values():
                if call.started:
                    events.append(ToolCallEnded(call.part, index))
            if (number := state.numbers.get(ReasoningDelta)) is not None:
                keys: dict[str, Any] = {"reasoning_details": state.details} if state.details else {}
                if state.frames:
                    keys["chunk"] = state.frames
                extra = {NAME: keys} if keys else {}
                events.append(ReasoningProof(number, origin=self._at.origin, extra=extra, choice=index))
        if self._citations and (first := self._choices.get(0)) is not None:
            for citation in citations_of(self._citations):
                events.append(CitationAdded(first.number(TextDelta), citation))
        if self._extra:
            events.append(ExtraAdded({NAME: self._extra}))

    def _fail(self, error: PolyvoxError, events: list[Event]) -> None:
        first = self._choices.get(0)
        error.sent = "yes"
        interrupted = error.kind == "stream_interrupted"
        events.append(Failed(error, "incomplete" if interrupted else "error", first.raw_reason if first else None))
        self.done = True


def _is_json(data: bytes) -> bool:
    try:
        decode_json(data)
    except BadResponseError:
        return False
    return True


def _merge_detail(details: list[dict[str, Any]], new: dict[str, Any]) -> None:
    """Join a streamed reasoning detail to the one it continues: same type, same index."""
    last = details[-1] if details else None
    if last is None or last.get("type") != new.get("type") or last.get("index") != new.get("index"):
        details.append(dict(new))
        return
    for key, value in new.items():
        old = last.get(key)
        grows = key in ("text", "summary", "data") and isinstance(old, str) and isinstance(value, str)
        last[key] = old + value if grows else value if value is not None else old
