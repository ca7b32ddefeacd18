"""A Chat Completions stream as a state machine: bytes in any chunking, neutral events out.

Most chunks of most streams carry a few more words and nothing else. Those are recognised by a strict
typed decoder, which is also the cheapest way to read them; whatever has one key more takes the
general path, so nothing is skipped for speed.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from polyvox.dialects import SHAPE_ERRORS, Endpoint, Reply, decode_json, integer, snippet, string
from polyvox.dialects.collect import as_events
from polyvox.dialects.framing import MAX_FRAME, SSE, ServerSentEvent
from polyvox.dialects.openai_chat.answer import (
    Ids,
    arguments_text,
    audio_part,
    beside_key,
    call_extra,
    chunk_part,
    citations_of,
    decode_response,
    details_of,
    error_of,
    failure_in,
    finish_reason,
    image_part,
    logprobs_of,
    number,
    reasoning_text,
    thinking_pieces,
    thinking_text,
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
    FinishReason,
    LogprobsAdded,
    Opaque,
    PartAdded,
    Reasoning,
    ReasoningDelta,
    ReasoningProof,
    Refusal,
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
_LOOK_AT = 4096  # bytes in which the first that is no space must come
_NO_STREAM = (b"{", b"[", b"<")
_GIVE_UP_AFTER = 8  # misses in a row before the typed decoder is left out for this stream


class _Call:
    """A tool call while it streams; it starts once its name is known. told is the server's id for it."""

    __slots__ = ("extra", "name", "part", "pieces", "place", "started", "told")

    def __init__(self, part: int, place: int) -> None:
        self.part = part
        self.place = place
        self.told: str | None = None
        self.name: str | None = None
        self.pieces: list[str] = []
        self.started = False
        self.extra: dict[str, Any] = {}


class _Choice:
    """What one choice has shown so far."""

    __slots__ = (
        "beside", "calls", "details", "frames", "has_refusal", "ids", "last", "named", "next", "numbers", "places",
        "raw_reason", "sound", "thinking",
    )  # fmt: skip

    def __init__(self) -> None:
        self.next = 0
        self.numbers: dict[type, int] = {}  # event type -> the part its deltas go to; Opaque -> the last whole chunk
        self.calls: list[_Call] = []
        self.places: dict[int, _Call] = {}  # index on the wire -> the call last seen there
        self.last: _Call | None = None
        self.ids = Ids()
        self.named = False  # reasoning has come under a key of its own
        self.details: list[dict[str, Any]] = []
        self.frames: dict[int, dict[str, Any]] = {}  # part -> the keys of its thinking chunks
        self.thinking: dict[int, list[Any]] = {}  # part -> the pieces in its thinking chunks
        self.sound: dict[str, Any] = {}
        self.beside: dict[str, Any] = {}
        self.has_refusal = False
        self.raw_reason: str | None = None

    def number(self, kind: type) -> int:
        """The part that deltas of this kind go to."""
        found = self.numbers.get(kind)
        if found is None:
            found = self.numbers[kind] = self.take()
        return found

    def number_after(self, kind: type, *others: type) -> int:
        """The same, but a new part where one of the other kinds has begun since."""
        if any(self.numbers.get(other, -1) > self.numbers.get(kind, -1) for other in others):
            self.numbers[kind] = self.take()
        return self.number(kind)

    def take(self) -> int:
        self.next += 1
        return self.next - 1


class ChatReader:
    """See `dialects.Reader`."""

    def __init__(self, at: Endpoint) -> None:
        self.done: bool = False
        self._at = at
        self._sse = SSE()
        self._plain: bytearray | None = bytearray()  # a body that is no event stream; None once it is one
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
                data = self._sniff(data, self._plain)
            for frame in self._sse.feed(data) if data else ():
                if self._text_part >= 0 and self._quick(frame, events):
                    continue
                if self._frame(frame, events):
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
                self._whole(bytes(self._plain), events)
            ended = False
            for frame in self._sse.close():
                if frame.data.strip() == b"[DONE]" or _is_json(frame.data):
                    ended = self._frame(frame, events)
                elif not b"[DONE]".startswith(frame.data.strip()):
                    # What was cut off inside its JSON is no bad answer, it is half of one; and what comes
                    # after the words, such as the usage, is part of the answer.
                    self._sse.torn = True
            if self._sse.torn and not ended:
                raise StreamInterruptedError("the stream broke off inside an event", sent="yes")
        except PolyvoxError as error:
            self._fail(error, events)
        except SHAPE_ERRORS as error:
            self._fail(BadResponseError(f"an event of the stream has an unexpected shape: {error}"), events)
        if not self.done:
            self._end(events)
        return events

    # ---- frames -------------------------------------------------------------------------------

    def _sniff(self, data: bytes, held: bytearray) -> bytes:
        """Hold bytes back until it is clear that they are an event stream; then give them all."""
        held += data
        start = _first_byte(bytes(held[:_LOOK_AT]))
        if start in _NO_STREAM or (not start and len(held) < _LOOK_AT):
            if len(held) > MAX_FRAME:
                raise BadResponseError(f"the answer is no event stream and larger than {MAX_FRAME} bytes")
            return b""
        self._plain = None
        return bytes(held)

    def _whole(self, body: bytes, events: list[Event]) -> None:
        """The body was no event stream: an answer in one piece, an error, or nothing of ours."""
        start = _first_byte(body)
        if not start:
            return
        if not _is_json(body):
            if start in (b"{", b"["):
                raise StreamInterruptedError("the answer broke off inside its JSON", sent="yes")
            raise BadResponseError(f"the answer is no event stream: {snippet(body)}", sent="yes")
        value = decode_json(body)
        if isinstance(value, list):
            raise error_of(value, 0)
        events += as_events(decode_response(Reply(200, {}, body), self._at))
        self.done = True

    def _quick(self, frame: ServerSentEvent, events: list[Event]) -> bool:
        """Take a chunk that carries more words of choice 0 and nothing else; false when it is another."""
        if frame.name or self._misses >= _GIVE_UP_AFTER:
            return False
        try:
            choice = _decode_words(frame.data).choices[0]
        except (msgspec.DecodeError, ValueError):
            self._misses += 1
            return False
        self._misses = 0
        text = choice.delta.content
        if choice.index or not text:
            return False
        events.append(TextDelta(text, self._text_part))
        return True

    def _frame(self, frame: ServerSentEvent, events: list[Event]) -> bool:
        """Take one event of the stream; true when it said that this is the end. Raises where it is bad."""
        data = frame.data
        if data.strip() == b"[DONE]":
            self._end(events, told=True)
            return True
        if not data.strip():
            return False
        chunk = decode_json(data)
        if not isinstance(chunk, dict):
            raise BadResponseError(f"an event of the stream is not an object: {snippet(data)}")
        failure = chunk if frame.name == "error" else failure_in(chunk)
        if failure is None or chunk.get("choices"):
            self._chunk(chunk, events)
        if failure is not None:
            raise error_of(failure, 0)
        return False

    def _chunk(self, chunk: dict[str, Any], events: list[Event]) -> None:
        if not self._started and (chunk.get("id") or chunk.get("model")):
            # An empty id or model comes on Azure's opening filter chunk; the real one follows.
            self._started = True
            new_id, model = string(chunk.get("id")) or None, string(chunk.get("model")) or None
            events.append(Started(new_id, model, number(chunk.get("created"))))
        for key, value in chunk.items():
            if key not in _TOP:
                _remember(self._extra, key, value)
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
        for source, known in ((raw, _CHOICE), (delta, _DELTA)):
            for key, value in source.items():
                if key not in known and value is not None:
                    _remember(state.beside, key, value)
        if reason := string(raw.get("finish_reason")):
            state.raw_reason = reason

    def _reasoning(self, delta: dict[str, Any], state: _Choice, index: int, events: list[Event]) -> None:
        if thought := reasoning_text(delta):
            named = thought in (delta.get("reasoning_content"), delta.get("reasoning"))
            # Details that follow words told under a key of their own hold those words, and no new ones.
            if named or not state.named:
                events.append(ReasoningDelta(thought, state.number(ReasoningDelta), index))
            state.named = state.named or named
        for detail in details_of(delta):
            part = state.number(ReasoningDelta)
            _merge_detail(state.details, detail)
            if "data" in detail:  # it came whole, and may be all there is: its place must be known now
                keys = {"reasoning_details": [_joined(each) for each in state.details]}
                events.append(ReasoningProof(part, origin=self._at.origin, extra={NAME: keys}, choice=index))

    def _content(self, delta: dict[str, Any], state: _Choice, index: int, events: list[Event]) -> None:
        content = delta.get("content")
        if isinstance(content, str):
            if content:
                self._words(content, state, index, events)
        elif isinstance(content, list):
            for chunk in content:
                self._content_chunk(chunk, state, index, events)
        self._refusal(delta.get("refusal"), state, index, events)
        for citation in citations_of(delta.get("annotations")):
            events.append(CitationAdded(state.number(TextDelta), citation, index))
        for image in delta.get("images") or ():
            events.append(PartAdded(state.take(), image_part(image, self._at), index))
        if isinstance(sound := delta.get("audio"), dict) and any(sound.values()):
            state.number(PartAdded)
            _merge_sound(state.sound, sound)

    def _words(self, text: str, state: _Choice, index: int, events: list[Event]) -> None:
        # What is told under a key of its own stands beside the words; other chunks of their list stand among them.
        among = (ReasoningDelta, Opaque) if state.frames else (Opaque,)
        part = state.number_after(TextDelta, *among)
        if index == 0:
            self._text_part = part
        events.append(TextDelta(text, part, index))

    def _refusal(self, text: Any, state: _Choice, index: int, events: list[Event]) -> None:
        if isinstance(text, str) and text:
            state.has_refusal = True
            events.append(RefusalDelta(text, state.number(RefusalDelta), index))

    def _content_chunk(self, chunk: Any, state: _Choice, index: int, events: list[Event]) -> None:
        if isinstance(chunk, str):
            chunk = {"type": "text", "text": chunk}
        part = chunk_part(chunk, self._at)
        if type(part) is Text and not part.extra:
            if part.text:
                self._words(part.text, state, index, events)
        elif type(part) is Reasoning:
            self._thinking_chunk(chunk, state, index, events)
        elif type(part) is Refusal:
            self._refusal(part.text, state, index, events)
        else:
            state.numbers[Opaque] = state.take()
            events.append(PartAdded(state.next - 1, part, index))
            if index == 0:
                self._text_part = -1  # words that follow stand behind it

    def _thinking_chunk(self, chunk: dict[str, Any], state: _Choice, index: int, events: list[Event]) -> None:
        """A piece of a thinking chunk. Words in between, or its signature, end one and begin the next."""
        if state.frames.get(state.numbers.get(ReasoningDelta, -1), {}).get("signature"):
            del state.numbers[ReasoningDelta]
        part = state.number_after(ReasoningDelta, TextDelta, Opaque)
        if index == 0:
            self._text_part = -1
        keys = {key: value for key, value in chunk.items() if key != "thinking" and value is not None}
        signature = keys.pop("signature", None)
        held, begun = state.thinking.setdefault(part, []), part in state.frames
        frame = state.frames.setdefault(part, {})

        def tell(proof: str | None = None) -> None:
            extra = {NAME: {"chunk": _chunk_of(part, state)}}
            events.append(ReasoningProof(part, proof, origin=self._at.origin, extra=extra, choice=index))

        # What frames the words is told before them, so that it can be told on in the same form.
        if not begun or any(frame.get(key) != value for key, value in keys.items()):
            frame.update(keys)
            tell()
        for piece in thinking_pieces(chunk.get("thinking")):
            _add_piece(held, piece)
            if text := thinking_text([piece]):
                events.append(ReasoningDelta(text, part, index))
            if not _is_words(piece):
                tell()
        if signature is not None:
            frame["signature"] = signature
            tell(string(signature))

    # ---- calls --------------------------------------------------------------------------------

    def _call(self, raw: dict[str, Any], state: _Choice, index: int, events: list[Event]) -> None:
        kind: Literal["function", "custom"] = "custom" if "custom" in raw else "function"
        inner = raw.get(kind)
        inner = inner if isinstance(inner, dict) else {}
        name, told = string(inner.get("name")) or None, string(raw.get("id")) or None
        call = _call_at(raw.get("index"), told, name, state)
        call.told = call.told or told
        for key, value in call_extra(raw, kind).items():
            _remember(call.extra, key, value)
        text = arguments_text(inner.get("input" if kind == "custom" else "arguments"))
        if not call.started and name:
            call.started, call.name = True, name
            new_id = state.ids.take(call.told or f"call_{call.place}")
            extra = {NAME: dict(call.extra)} if call.extra else {}
            events.append(ToolCallStarted(call.part, new_id, name, kind, extra, index))
            text = "".join(call.pieces) + text
        if not call.started:
            call.pieces.append(text)
        elif text:
            events.append(ToolCallDelta(call.part, text, index))

    # ---- the end ------------------------------------------------------------------------------

    def _end(self, events: list[Event], told: bool = False) -> None:
        """Ended, if the first choice has said why it stopped, and the others too unless the server
        told that this is the end; otherwise the stream was cut."""
        first = self._choices.get(0)
        open_choices = [state for state in self._choices.values() if state.raw_reason is None]
        if first is None or first.raw_reason is None or (open_choices and not told):
            self._fail(StreamInterruptedError("the stream ended without a finish reason", sent="yes"), events)
            return
        # An entry that says nothing at all is no call; one with an id or arguments lacks its name.
        calls = [call for state in self._choices.values() for call in state.calls if not call.started]
        if any(call.told or "".join(call.pieces) for call in calls):
            self._fail(BadResponseError("the stream calls a tool without naming it", sent="yes"), events)
            return
        self._finish_parts(events, whole=True)
        for index, state in sorted(self._choices.items()):
            if index:
                events.append(ChoiceEnded(index, _reason(state), state.raw_reason))
        events.append(Ended(_reason(first), first.raw_reason))
        self.done = True

    def _finish_parts(self, events: list[Event], whole: bool) -> None:
        """What is known of the parts only now. Calls are told to be whole only where they are."""
        for index, state in sorted(self._choices.items()):
            for call in state.calls if whole else ():
                if call.started:
                    events.append(ToolCallEnded(call.part, index))
            self._finish_reasoning(state, index, events)
            if state.sound and (sound := audio_part(_joined(state.sound), self._at)) is not None:
                events.append(PartAdded(state.number(PartAdded), sound, index))
            if state.beside:
                self._extra[beside_key(index)] = state.beside
        if self._citations and (first := self._choices.get(0)) is not None:
            for citation in citations_of(self._citations):
                events.append(CitationAdded(first.number(TextDelta), citation))
        if self._extra:
            events.append(ExtraAdded({NAME: self._extra}))

    def _finish_reasoning(self, state: _Choice, index: int, events: list[Event]) -> None:
        last = state.numbers.get(ReasoningDelta)
        for part in sorted({*state.frames, *([] if last is None else [last])}):
            keys: dict[str, Any] = {}
            if state.details and part == last:
                keys["reasoning_details"] = [_joined(detail) for detail in state.details]
            if part in state.frames:
                keys["chunk"] = _chunk_of(part, state)
            extra = {NAME: keys} if keys else {}
            events.append(ReasoningProof(part, origin=self._at.origin, extra=extra, choice=index))

    def _fail(self, error: PolyvoxError, events: list[Event]) -> None:
        self._finish_parts(events, whole=False)
        first = self._choices.get(0)
        error.sent = "yes"
        interrupted = error.kind == "stream_interrupted"
        events.append(Failed(error, "incomplete" if interrupted else "error", first.raw_reason if first else None))
        self.done = True


def _call_at(place: Any, told: str | None, name: str | None, state: _Choice) -> _Call:
    """The call this piece belongs to. Pieces find each other by index; without one, an entry that
    has an id or a name is a call of its own. So is one that brings another id with a name, or
    without ids another name, to an old index: some servers number every parallel call 0."""
    if type(place) is int:
        call = state.places.get(place)
    else:
        call = None if told or name else state.last
    if call is not None and call.started and name:
        other = told != call.told if told and call.told else name != call.name
        call = None if other else call
    if call is None:
        call = _Call(state.take(), len(state.calls))
        state.calls.append(call)
    if type(place) is int:
        state.places[place] = call
    state.last = call
    return call


def _chunk_of(part: int, state: _Choice) -> dict[str, Any]:
    """A thinking chunk but for its words, or with them where they are not the whole of it."""
    pieces = [_joined(piece) if isinstance(piece, dict) else piece for piece in state.thinking[part]]
    other = pieces != [{"type": "text", "text": thinking_text(pieces)}]
    return {**state.frames[part], **({"thinking": pieces} if other else {})}


def _reason(state: _Choice) -> FinishReason:
    has_calls = any(call.started for call in state.calls)
    return finish_reason(state.raw_reason, has_calls, state.has_refusal) or "unknown"


def _remember(into: dict[str, Any], key: str, value: Any) -> None:
    """Keep what came under a key: a later value counts, but null is none, and objects join."""
    old = into.get(key)
    if isinstance(old, dict) and isinstance(value, dict):
        into[key] = {**old, **value}
    elif value is not None or key not in into:
        into[key] = value


class _Pieces(list[str]):
    """Text that grows under a key; joined once, at the end."""


def _grow(into: dict[str, Any], key: str, more: str) -> None:
    old = into.get(key)
    if type(old) is _Pieces:
        old.append(more)
    else:
        into[key] = _Pieces([old, more]) if isinstance(old, str) else more


def _joined(source: dict[str, Any]) -> dict[str, Any]:
    return {key: "".join(value) if type(value) is _Pieces else value for key, value in source.items()}


def _add_piece(pieces: list[Any], new: Any) -> None:
    """Put a piece of thinking behind the others, joining words to words."""
    if pieces and _is_words(pieces[-1]) and _is_words(new):
        _grow(pieces[-1], "text", new["text"])
    else:
        pieces.append(dict(new) if isinstance(new, dict) else new)


def _is_words(piece: Any) -> bool:
    return isinstance(piece, dict) and piece.keys() == {"type", "text"} and isinstance(piece["text"], str | _Pieces)


def _merge_sound(into: dict[str, Any], new: dict[str, Any]) -> None:
    """Join a piece of spoken output to what has come: data and transcript grow, the rest is told once."""
    for key, value in new.items():
        if key == "transcript" and isinstance(value, str):
            _grow(into, key, value)
        elif key == "data" and isinstance(value, str):
            into.setdefault(key, []).append(value)
        elif value is not None:
            into[key] = value


def _first_byte(data: bytes) -> bytes:
    """The first byte that is neither part of a byte order mark nor space; b"" while there is none."""
    return b"" if data in (b"\xef", b"\xef\xbb") else data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def _is_json(data: bytes) -> bool:
    try:
        decode_json(data)
    except BadResponseError:
        return False
    return True


def _merge_detail(details: list[dict[str, Any]], new: dict[str, Any]) -> None:
    """Join a streamed reasoning detail to the one it continues: words of the same type, index and id.
    Encrypted ones come whole; joining two would spoil both."""
    last = details[-1] if details else None
    differs = last is None or any(last.get(key) != new.get(key) for key in ("type", "index"))
    if last is None or differs or "data" in new or (new.get("id") and last.get("id") not in (None, new["id"])):
        details.append(dict(new))
        return
    for key, value in new.items():
        if key in ("text", "summary") and isinstance(value, str):
            _grow(last, key, value)
        elif value is not None:
            last[key] = value
