"""A Chat Completions stream being written for a client: neutral events in, chunks out. It makes nothing up:
a stream that was cut is told to be, and has no `[DONE]`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyvox.dialects import Peek, encode_json
from polyvox.dialects.openai_chat.answer import beside_key
from polyvox.dialects.openai_chat.to_client import (
    UNWRITABLE,
    Saying,
    annotations_said,
    audio_said,
    call_said,
    chunk_said,
    error_said,
    failure_of,
    id_said,
    image_said,
    is_chunk,
    logprobs_said,
    reason_said,
    thought_said,
    time_said,
    unsaid,
    usage_said,
)
from polyvox.errors import BadResponseError, PolyvoxError, StreamInterruptedError
from polyvox.types import (
    Audio,
    ChoiceEnded,
    CitationAdded,
    Ended,
    Event,
    ExtraAdded,
    Failed,
    Image,
    LogprobsAdded,
    Loss,
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
    ToolCall,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    Usage,
    UsageReported,
)

_DONE = b"data: [DONE]\n\n"
# Keys of a choice that a reader knows: others that stood beside a message go into the delta under these names.
_KNOWN_OF_CHOICE = frozenset({"index", "delta", "message", "finish_reason", "logprobs", "text"})


class _Call:
    """A tool call as far as it is told: its place on the wire, and whether any of its arguments are."""

    __slots__ = ("index", "kind", "told")

    def __init__(self, index: int, kind: str) -> None:
        self.index = index
        self.kind = kind
        self.told = False


class _Chunk:
    """A thinking chunk as far as it is told: its keys, and how many pieces; words join the words before them."""

    __slots__ = ("keys", "pieces", "words_last")

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.pieces = 0
        self.words_last = False


class _Choice:
    """What one choice has been told."""

    __slots__ = ("calls", "chunks", "details", "length", "places", "refused", "sounded", "thoughts")

    def __init__(self) -> None:
        self.calls: dict[int, _Call] = {}
        self.chunks: dict[int, _Chunk] = {}
        self.details: list[Any] = []
        self.refused = False
        self.sounded = False  # pieces of a second sound would join those of the first
        self.length = 0  # characters of text so far
        self.places: dict[int, int] = {}  # text part -> how many characters stand before it
        self.thoughts: dict[int, list[str]] = {}  # reasoning part -> its words, for the proof


class ChatWriter:
    """See `dialects.Writer`."""

    content_type = "text/event-stream"

    def __init__(self, asked: Peek) -> None:
        self.done: bool = False
        self._out = Saying()
        self.losses: list[Loss] = self._out.losses
        self._asked = asked
        self._usage = Usage()
        self._choices: dict[int, _Choice] = {}
        self._endings: dict[int, ChoiceEnded] = {}
        self._head = self._tail = b""  # around the choices of every chunk, once the answer has begun
        self._part = -1  # the part of choice 0's words that were told last; more of them are cheap
        self._first = _Choice()
        self._words_head = self._words_tail = b""

    def send(self, event: Event) -> bytes:
        """See `dialects.Writer.send`."""
        try:
            if type(event) is TextDelta and event.part == self._part and event.choice == 0:
                self._first.length += len(event.text)
                return self._words_head + encode_json(event.text) + self._words_tail
            return b"" if self.done else self._say(event)
        except UNWRITABLE:
            return self._fail(BadResponseError("the answer holds what cannot be written as JSON", sent="yes"))

    def keep_alive(self) -> bytes:
        """A comment, which every reader passes over."""
        return b": keep-alive\n\n"

    def close(self) -> bytes:
        """See `dialects.Writer.close`."""
        return b"" if self.done else self._fail(StreamInterruptedError("the answer broke off before its end"))

    # ---- chunks -------------------------------------------------------------------------------

    def _say(self, event: Event) -> bytes:
        if isinstance(event, Failed):
            return self._fail(event.error)
        if isinstance(event, UsageReported):
            self._usage = event.usage
            return b""
        begin = b"" if self._head else self._begin(event if isinstance(event, Started) else Started())
        say = _SAYS.get(type(event))
        return begin if say is None else begin + say(self, event)

    def _begin(self, started: Started) -> bytes:
        model = started.model or self._asked.model or ""
        facts = {
            "id": id_said(started.id),
            "object": "chat.completion.chunk",
            "created": time_said(started.created),
            "model": model,
        }
        self._head = b"data: " + encode_json(facts)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if self._asked.usage else b"]}\n\n"
        self._words_head = self._head + b'{"index":0,"delta":{"content":'
        self._words_tail = b'},"finish_reason":null}' + self._tail
        return self._open(0)

    def _open(self, index: int) -> bytes:
        """The first chunk of a choice: who speaks."""
        self._choices[index] = _Choice() if index else self._first
        return self._chunk(index, {"role": "assistant", "content": ""})

    def _chunk(self, index: int, delta: dict[str, Any], facts: dict[str, Any] | None = None) -> bytes:
        """One chunk; `facts` are what stands beside the delta."""
        choice = {"index": index, "delta": delta, "finish_reason": None}
        return self._head + encode_json({**choice, **facts} if facts else choice) + self._tail

    def _delta(self, index: int, delta: dict[str, Any], facts: dict[str, Any] | None = None) -> bytes:
        """A chunk of a choice, behind its first one."""
        return self._opened(index) + self._chunk(index, delta, facts)

    def _opened(self, index: int) -> bytes:
        """The first chunk of a choice, where it is not told yet."""
        return b"" if index in self._choices else self._open(index)

    def _choice(self, index: int) -> _Choice:
        return self._choices.get(index) or _Choice()

    # ---- words --------------------------------------------------------------------------------

    def _text(self, event: TextDelta) -> bytes:
        said = self._delta(event.choice, {"content": event.text})
        state = self._choices[event.choice]
        self._in_front(event, state)
        state.places.setdefault(event.part, state.length)
        state.length += len(event.text)
        if event.choice == 0:
            self._part = event.part
        return said

    def _in_front(self, event: TextDelta | PartAdded, state: _Choice) -> None:
        """Tell that words which follow a refusal stand before it: it is a text of its own beside theirs."""
        if state.refused and event.part not in state.places:
            self._out.lose(f"{_where(event)}.text", "words behind a refusal stand before it in a stream", "note")

    def _refusal(self, event: RefusalDelta) -> bytes:
        said = self._delta(event.choice, {"refusal": event.text})
        self._choices[event.choice].refused = True
        return said

    def _citation(self, event: CitationAdded) -> bytes:
        state = self._choice(event.choice)
        offset = 0 if state.chunks else state.places.get(event.part, 0)
        said = annotations_said((event.citation,), offset, _where(event), self._out)
        return self._delta(event.choice, {"annotations": said}) if said else b""

    def _logprobs(self, event: LogprobsAdded) -> bytes:
        return self._delta(event.choice, {}, {"logprobs": logprobs_said(event.tokens)})

    # ---- reasoning ----------------------------------------------------------------------------

    def _reasoning(self, event: ReasoningDelta) -> bytes:
        state = self._choice(event.choice)
        chunk = state.chunks.get(event.part)
        if chunk is not None:
            chunk.pieces += not chunk.words_last
            chunk.words_last = True
            return self._thinking(event.choice, [{"type": "text", "text": event.text}], {})
        said = self._delta(event.choice, {"reasoning_content": event.text})
        self._choices[event.choice].thoughts.setdefault(event.part, []).append(event.text)
        return said

    def _proof(self, event: ReasoningProof) -> bytes:
        where = _where(event)
        own = self._out.own(event.extra, where)
        if "chunk" in own:
            return self._frame(event, own["chunk"])
        if "reasoning_details" in own:
            return self._details(event.choice, own["reasoning_details"])
        state = self._choice(event.choice)
        words = "".join(state.thoughts.get(event.part, ()))
        whole = Reasoning(words, event.signature, event.encrypted, event.origin)
        detail = thought_said(whole, len(state.details), where, self._out)
        return b"" if detail is None else self._details(event.choice, [*state.details, detail])

    def _details(self, index: int, details: list[Any]) -> bytes:
        """The details that are new among all there are."""
        begin = self._opened(index)
        told = self._choices[index].details
        if details[: len(told)] != told:
            self._out.lose("reasoning_details", "a detail changed after it had been told")
        new = details[len(told) :]
        told += new
        return begin + (self._chunk(index, {"reasoning_details": new}) if new else b"")

    def _frame(self, event: ReasoningProof, frame: dict[str, Any]) -> bytes:
        """What is new of a thinking chunk: keys, and pieces that are no words."""
        begin = self._opened(event.choice)
        chunks = self._choices[event.choice].chunks
        known = event.part in chunks
        chunk = chunks.setdefault(event.part, _Chunk())
        keys = {key: value for key, value in frame.items() if key != "thinking" and chunk.keys.get(key) != value}
        pieces = frame["thinking"][chunk.pieces :] if isinstance(frame.get("thinking"), list) else []
        if known and not keys and not pieces:
            return begin
        chunk.keys |= keys
        if pieces:
            chunk.pieces += len(pieces)
            chunk.words_last = False
        return begin + self._thinking(event.choice, pieces, keys)

    def _thinking(self, index: int, pieces: list[Any], keys: dict[str, Any]) -> bytes:
        if index == 0:
            self._part = -1  # words that follow are a text of their own
        return self._delta(index, {"content": [{"type": "thinking", "thinking": pieces, **keys}]})

    # ---- calls --------------------------------------------------------------------------------

    def _call(self, event: ToolCallStarted) -> bytes:
        call = ToolCall(event.id, event.name, kind=event.call_kind, extra=event.extra)
        return self._begin_call(event, call)

    def _begin_call(self, event: ToolCallStarted | PartAdded, call: ToolCall) -> bytes:
        """The first piece of a call: who it is, and no arguments yet."""
        index = event.choice
        begin = self._opened(index)
        state = self._choices[index]
        place = _Call(len(state.calls), call.kind)
        state.calls[event.part] = place
        said = call_said(call, _where(event), self._out)
        said[call.kind]["input" if call.kind == "custom" else "arguments"] = ""
        return begin + self._chunk(index, {"tool_calls": [{"index": place.index, **said}]})

    def _arguments(self, event: ToolCallDelta) -> bytes:
        call = self._choice(event.choice).calls.get(event.part)
        if call is None:
            self._out.lose(f"{_where(event)}.arguments", "arguments of a call that never began")
            return b""
        if not event.arguments:
            return b""
        call.told = True
        inner = {"input" if call.kind == "custom" else "arguments": event.arguments}
        return self._delta(event.choice, {"tool_calls": [{"index": call.index, call.kind: inner}]})

    def _call_ended(self, event: ToolCallEnded) -> bytes:
        """Clients parse arguments, so a call without any gets an empty object."""
        call = self._choice(event.choice).calls.get(event.part)
        if call is None or call.told or call.kind == "custom":
            return b""
        return self._arguments(ToolCallDelta(event.part, "{}", event.choice))

    def _end_calls(self, index: int) -> bytes:
        return b"".join([self._call_ended(ToolCallEnded(part, index)) for part in self._choice(index).calls])

    # ---- parts that came whole ----------------------------------------------------------------

    def _part_added(self, event: PartAdded) -> bytes:
        part, where = event.value, _where(event)
        begin = self._opened(event.choice)
        state = self._choices[event.choice]
        state.refused = state.refused or type(part) is Refusal
        if isinstance(part, ToolCall):
            said = self._begin_call(event, part)
            return begin + said + self._arguments(ToolCallDelta(event.part, part.arguments, event.choice))
        if isinstance(part, Text):
            self._in_front(event, state)
        deltas = self._deltas_of(part, event.part, where, state)
        return begin + b"".join([self._chunk(event.choice, delta) for delta in deltas])

    def _deltas_of(self, part: Any, number: int, where: str, state: _Choice) -> list[dict[str, Any]]:
        match part:
            case Text():
                return [self._whole_text(part, number, where, state)]
            case Refusal() if not is_chunk(part):
                self._out.own(part.extra, where)
                return [{"refusal": part.text}]
            case Reasoning() if not is_chunk(part):
                return [self._whole_reasoning(part, where, state)]
            case Image():
                image = image_said(part, where, self._out)
                return [] if image is None else [{"images": [image]}]
            case Audio() if not state.sounded:
                sound = audio_said(part, where, self._out)
                state.sounded = bool(sound)
                return [{"audio": sound}] if sound else []
            case Opaque(dialect="openai.chat", type="message.image"):
                return [{"images": [part.raw]}]
            case Opaque(dialect="openai.chat", type="message.audio") if not state.sounded:
                state.sounded = True
                return _pieces_of_sound(part.raw)
            case _ if is_chunk(part):
                return [{"content": [chunk_said(part, where, self._out)]}]
        unsaid(part, where, self._out)
        return []

    def _whole_text(self, part: Text, number: int, where: str, state: _Choice) -> dict[str, Any]:
        if part.signature is not None:
            self._out.lose(f"{where}.signature", f"words carry no proof in this dialect; bound to {part.origin}")
        chunk = chunk_said(part, where, self._out)
        said: dict[str, Any] = {"content": [chunk] if is_chunk(part) else part.text}
        offset = 0 if state.chunks else state.length
        if annotations := annotations_said(part.citations, offset, where, self._out):
            said["annotations"] = annotations
        state.places.setdefault(number, state.length)
        state.length += len(part.text)
        return said

    def _whole_reasoning(self, part: Reasoning, where: str, state: _Choice) -> dict[str, Any]:
        own = self._out.own(part.extra, where).get("reasoning_details")
        details = list(own or ())
        if own is None and (detail := thought_said(part, len(state.details), where, self._out)) is not None:
            details = [detail]
        state.details += details
        said: dict[str, Any] = {"reasoning_content": part.text} if part.text else {}
        return {**said, "reasoning_details": details} if details else said

    # ---- the end ------------------------------------------------------------------------------

    def _extra(self, event: ExtraAdded) -> bytes:
        """Keys of this dialect, each where it stood: beside the choices, or in one of them."""
        rest = dict(self._out.own(event.extra, ""))
        said = b""
        for index in sorted({0, *self._choices}):
            beside = rest.pop(beside_key(index), {})
            if beside:
                delta = {key: value for key, value in beside.items() if key in _KNOWN_OF_CHOICE}
                said += self._delta(index, delta, {key: beside[key] for key in beside if key not in delta})
        if rest:
            choice = encode_json({"index": 0, "delta": {}, "finish_reason": None})
            said += self._head + choice + self._tail[:-3] + b"," + encode_json(rest)[1:] + b"\n\n"
        return said

    def _choice_ended(self, event: ChoiceEnded) -> bytes:
        """It waits for the end of all: what stood beside a choice is told late."""
        self._endings[event.choice] = event
        return b""

    def _finish(self, index: int, event: ChoiceEnded | Ended) -> bytes:
        said = self._end_calls(index)
        if index and event.finish_reason == "unknown" and event.raw_finish_reason is None:
            return self._opened(index) + said  # nobody said why it ended; that it has, [DONE] says
        refused = self._choice(index).refused
        where = f"choices[{index - 1}]." if index else ""
        reason = reason_said(event.finish_reason, event.raw_finish_reason, refused, where, self._out)
        return self._opened(index) + said + self._chunk(index, {}, {"finish_reason": reason})

    def _ended(self, event: Ended) -> bytes:
        failure = failure_of(event.finish_reason, event.raw_finish_reason)
        if failure is not None:
            return self._fail(failure)
        if event.stop_sequence is not None:
            self._out.lose("stop_sequence", "this dialect does not tell which sequence stopped it", "note")
        said = b"".join([self._finish(index, ending) for index, ending in sorted(self._endings.items())])
        usage = self._usage_chunk()
        said += self._finish(0, event) + usage + _DONE
        if self._asked.usage and not usage:
            self._out.lose("usage", "nobody told it, so the promised chunk is not there", "note")
        self._stop()
        return said

    def _usage_chunk(self) -> bytes:
        usage = usage_said(self._usage, self._out) if self._asked.usage else None
        if usage is None:
            return b""
        return self._head + b'],"usage":' + encode_json(usage) + b"}\n\n"

    def _fail(self, error: PolyvoxError) -> bytes:
        """What is known of the usage, and the error; no end."""
        self._stop()
        usage = b""
        if self._head:
            try:
                usage = self._usage_chunk()
            except UNWRITABLE:
                self._out.lose("usage", "it cannot be written as JSON")
        return usage + b"data: " + encode_json({"error": error_said(error, 0)}) + b"\n\n"

    def _stop(self) -> None:
        self.done = True
        self._part = -1


def _where(event: TextDelta | CitationAdded | ReasoningProof | ToolCallStarted | ToolCallDelta | PartAdded) -> str:
    """The place of the part that an event is about, also in a further answer."""
    message = f"choices[{event.choice - 1}].message" if event.choice else "message"
    return f"{message}.parts[{event.part}]"


def _pieces_of_sound(raw: Any) -> list[dict[str, Any]]:
    """Sound nobody could read, as it came: its data in one piece or in many."""
    data = raw.get("data")
    if not isinstance(data, list):
        return [{"audio": raw}]
    first = {key: value for key, value in raw.items() if key != "data"}
    return [{"audio": first}, *({"audio": {"data": piece}} for piece in data)]


_SAYS: dict[type, Callable[[ChatWriter, Any], bytes]] = {
    TextDelta: ChatWriter._text,
    ReasoningDelta: ChatWriter._reasoning,
    ReasoningProof: ChatWriter._proof,
    RefusalDelta: ChatWriter._refusal,
    ToolCallStarted: ChatWriter._call,
    ToolCallDelta: ChatWriter._arguments,
    ToolCallEnded: ChatWriter._call_ended,
    CitationAdded: ChatWriter._citation,
    PartAdded: ChatWriter._part_added,
    LogprobsAdded: ChatWriter._logprobs,
    ExtraAdded: ChatWriter._extra,
    ChoiceEnded: ChatWriter._choice_ended,
    Ended: ChatWriter._ended,
}
