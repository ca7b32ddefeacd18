"""A streamed response read as events. Words come from deltas; what an item says when it is done, or the whole
response at its end, fills in what no delta told. What they add up to is for others."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from polyvox.dialects import Endpoint, Reply, decode_object, integer, snippet, string
from polyvox.dialects.collect import as_events
from polyvox.dialects.framing import MAX_FRAME, SSE, ServerSentEvent
from polyvox.dialects.openai_chat.answer import arguments_text, logprobs_of, number
from polyvox.dialects.openai_responses import answer
from polyvox.dialects.openai_responses.facts import (
    CALLS,
    MESSAGE,
    NAME,
    REFUSAL,
    TEXT,
    UNFINISHED,
    finish_of,
    keys_beside,
    minted,
)
from polyvox.dialects.stream_reader import StreamReader
from polyvox.errors import BadResponseError, CallCancelledError, PolyvoxError, StreamInterruptedError
from polyvox.types import (
    Audio,
    CitationAdded,
    Ended,
    ExtraAdded,
    Failed,
    FinishReason,
    LogprobsAdded,
    PartAdded,
    ReasoningDelta,
    ReasoningProof,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    UsageReported,
)

Json = dict[str, Any]

_WORDS = "response.output_text.delta"


class _Words(Struct, forbid_unknown_fields=True):
    """The event that nearly all events of a stream are: more words, and nothing else."""

    type: Literal["response.output_text.delta"]
    output_index: int
    content_index: int
    delta: str
    item_id: Raw = Raw()
    sequence_number: Raw = Raw()
    obfuscation: Raw = Raw()
    logprobs: tuple[()] | None = None


_decode_words = msgspec.json.Decoder(_Words).decode
_LOOK_AT = 4096  # bytes in which the first that is no space must come
_NO_STREAM = (b"{", b"<")
_GIVE_UP_AFTER = 8  # misses in a row before the typed decoder is left out for this stream

# What the server's own tools are doing: the item says all of it once it is done.
_PROGRESS = (
    "response.web_search_call.", "response.file_search_call.", "response.code_interpreter_call",
    "response.image_generation_call.in_progress", "response.image_generation_call.generating",
    "response.image_generation_call.completed", "response.mcp_call.", "response.mcp_call_arguments.",
    "response.mcp_list_tools.", "response.shell_call_",
)  # fmt: skip


class _Text:
    """A piece of a message's content while it streams."""

    __slots__ = ("cited", "logprobs", "part", "pieces", "told")

    def __init__(self, part: int) -> None:
        self.part = part
        self.pieces: list[str] = []
        self.cited = 0
        self.logprobs = False
        self.told: Json = {}  # its own keys, as far as they were told


class _Item:
    """An item while it streams. `part` is its place among the parts; a message's pieces have their own."""

    __slots__ = ("begun", "content", "done", "keys", "kind", "part", "pieces", "place", "shown")

    def __init__(self, kind: str, part: int, place: int) -> None:
        self.kind = kind
        self.part = part
        self.place = place
        self.keys: Json = {}
        self.pieces: list[str] = []
        self.content: dict[int, _Text] = {}
        self.shown: tuple[str, int] | None = None  # the list, and the place in it, that words were last added to
        self.begun = self.done = False


class ResponsesReader(StreamReader):
    """See `dialects.Reader`."""

    def __init__(self, at: Endpoint) -> None:
        super().__init__(at)
        self._sse = SSE()
        self._head: bytearray | None = bytearray()  # a body that is no event stream; None once it is one
        self._items: dict[int | str, _Item] = {}
        self._parts = 0
        self._started: Started | None = None
        self._has_calls = self._has_refusal = False
        self._sound = bytearray()
        self._transcript: list[str] = []
        self._misses = 0
        # The piece of content that words were last added to: the hot path.
        self._spot = (-1, -1)
        self._text = _Text(-1)

    def _fail(self, error: PolyvoxError, raw: str | None = None) -> None:
        error.sent = "yes"
        self._out.append(Failed(error, _FAILED.get(error.kind, "error"), raw))
        self.done = True

    # ---- frames -------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            start = bytes(self._head[:_LOOK_AT]).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
            if start in _NO_STREAM or (not start and len(self._head) < _LOOK_AT):
                if len(self._head) > MAX_FRAME:
                    raise BadResponseError(f"the answer is no event stream and larger than {MAX_FRAME} bytes")
                return
            data, self._head = bytes(self._head), None
        for frame in self._sse.feed(data):
            if self._text.part < 0 or not self._quick(frame):
                self._frame(frame)
            if self.done:
                return

    def _finish(self) -> None:
        if self._head is not None:
            self._whole(bytes(self._head))
        try:
            for frame in self._sse.close():
                self._frame(frame)
        except BadResponseError:
            # What was pending is cut short: that is an interruption, not nonsense.
            pass
        if not self.done:
            raise StreamInterruptedError("the stream ended before the end of its response", sent="yes")

    def _whole(self, body: bytes) -> None:
        """The provider did not stream: its answer or error came in one piece."""
        if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            raise BadResponseError(f"the answer is a page, not a stream: {snippet(body)}")
        try:
            decode_object(body)
        except BadResponseError:
            return
        self._out += as_events(answer.decode_response(Reply(200, {}, body), self._at))
        self.done = True

    def _quick(self, frame: ServerSentEvent) -> bool:
        """Take an event that adds words to the piece they were last added to; false when it is another."""
        if self._misses >= _GIVE_UP_AFTER or frame.name not in (_WORDS, ""):
            return False
        try:
            event = _decode_words(frame.data)
        except (msgspec.DecodeError, ValueError):
            self._misses += 1
            return False
        self._misses = 0
        if (event.output_index, event.content_index) != self._spot or not event.delta:
            return False
        self._text.pieces.append(event.delta)
        self._out.append(TextDelta(event.delta, self._text.part))
        return True

    def _frame(self, frame: ServerSentEvent) -> None:
        if self.done or frame.data.strip() in (b"", b"[DONE]"):
            return
        data = decode_object(frame.data)
        kind = data["type"] = string(data.get("type")) or frame.name
        take = _EVENTS.get(kind)
        if take is not None:
            take(self, data)
        elif data.get("error") or kind == "error":
            raise answer.error_of(data, 0, {})
        elif not kind.startswith(_PROGRESS):
            data.pop("sequence_number", None)
            self._out.append(ExtraAdded({NAME: {kind or "event": data}}))

    # ---- the response -------------------------------------------------------------------------

    def _begin(self, data: Json) -> None:
        self._start(data["response"])

    def _start(self, response: Json) -> None:
        """Say who answers, and again where the end knows better."""
        started = Started(string(response.get("id")), string(response.get("model")), number(response.get("created_at")))
        if started not in (self._started, Started()):
            self._started = started
            self._out.append(started)

    def _end(self, data: Json) -> None:
        response = data["response"]
        self._start(response)
        output = response.get("output")
        output = output if isinstance(output, list) else []
        ids = {answer.kind_of(item) and string(item.get("id")) for item in output}
        for place, item in enumerate(output):
            self._settle(self._item_for(item, place, ids), item)
        for item in self._items.values():
            if item.kind in CALLS and item.begun and not item.done:
                self._out.append(ToolCallEnded(item.part))
        self._say_sound()
        usage = answer.usage_of(response.get("usage"))
        if usage.raw:
            self._out.append(UsageReported(usage))
        if rest := answer.rest_of(response):
            self._out.append(ExtraAdded({NAME: rest}))
        status, why = string(response.get("status")) or _STATUS_OF[data["type"]], answer.reason_in(response)
        if answer.failed(response) or data["type"] == "response.failed":
            self._fail(answer.error_of(response, 0, {}), status)
            return
        if status == "cancelled":
            self._fail(CallCancelledError("the response was cancelled"), status)
            return
        if status in UNFINISHED:
            raise BadResponseError(f"the stream ended with a response that is {status}")
        self._out.append(Ended(finish_of(status, why, self._has_calls, self._has_refusal), why or status))
        self.done = True

    def _pass(self, data: Json) -> None:
        """What says nothing that is not said elsewhere."""

    # ---- items --------------------------------------------------------------------------------

    def _item_for(self, raw: Json, place: int, ids: set[str | None]) -> _Item:
        """The item of the output that was streamed: by its id, or by its place, as some servers give other ids at
        the end; a new one where none was."""
        told = string(raw.get("id"))
        for item in self._items.values():
            if told is not None and item.keys.get("id") == told:
                return item
        found = self._items.get(place) or self._items.get(_id_in(raw) or "")
        if found is not None and found.kind == raw["type"] and found.keys.get("id") not in ids - {None}:
            return found
        return self._new(place if found is None else f"output.{place}", raw)

    def _new(self, key: int | str, raw: Json) -> _Item:
        item = self._items[key] = _Item(answer.kind_of(raw), self._parts, len(self._items))
        if item.kind != "message":
            self._parts += 1
        return item

    def _item(self, data: Json, kind: str) -> _Item:
        """The item an event belongs to. Some servers do not say that one begins."""
        key = _key(data)
        found = self._items.get(key)
        if found is None:
            found = self._new(key, {"type": kind})
            found.keys = {"id": data["item_id"]} if isinstance(data.get("item_id"), str) else {}
        if found.kind != kind:
            raise BadResponseError(f"the stream has a piece of a {kind} for an item of type {found.kind}")
        return found

    def _added(self, data: Json) -> None:
        raw = data["item"]
        item = self._new(_key(data), raw)
        # Until it is done, every status is that it is not.
        item.keys = keys_beside({**raw, "status": None}, _KEYS.get(item.kind, MESSAGE))
        if item.kind in CALLS:
            self._call(item, raw)

    def _done(self, data: Json) -> None:
        raw, key = data["item"], _key(data)
        item = self._items.get(key)
        self._settle(self._new(key, raw) if item is None else item, raw)

    def _settle(self, item: _Item, raw: Json) -> None:
        """Say what the whole item says and no event has said. The first to be whole counts: of proofs that are
        encrypted anew for each event, one is as good as the other."""
        if item.done:
            return
        kind = answer.kind_of(raw)
        if kind != item.kind:
            raise BadResponseError(f"the stream has a {kind} where a {item.kind} began")
        item.done = True
        settle = _SETTLE.get(kind)
        if settle is not None:
            settle(self, item, raw)
            return
        for part in answer.parts_of(raw, item.place, self._at):
            self._out.append(PartAdded(item.part, part))

    # ---- messages -----------------------------------------------------------------------------

    def _settle_message(self, item: _Item, raw: Json) -> None:
        item.keys = keys_beside(raw, MESSAGE)
        content = raw.get("content")
        pieces = content if isinstance(content, list) else []
        if not item.content and not any(answer.kind_of(piece) in _PIECES for piece in pieces):
            self._out.append(PartAdded(self._next(), answer.opaque_item(raw, self._at)))
            return
        for index, piece in enumerate(pieces):
            self._piece_done(item, index, piece)

    def _next(self) -> int:
        self._parts += 1
        return self._parts - 1

    def _open(self, item: _Item, index: int, kind: str) -> _Text:
        """The piece of content at this index, begun now if it was not."""
        text = item.content.get(index)
        if text is None:
            text = item.content[index] = _Text(self._next())
            self._out.append(TextDelta("", text.part) if kind == "output_text" else RefusalDelta("", text.part))
            self._tell(text, {"item": minted(item.keys, self._at.origin)} if item.keys else {})
        return text

    def _tell(self, text: _Text, keys: Json) -> None:
        """Tell keys of a piece of content, once: they must go back with it."""
        new = {key: value for key, value in keys.items() if text.told.get(key) != value}
        if new:
            text.told |= new
            self._out.append(ReasoningProof(text.part, extra={NAME: new}))

    def _piece_added(self, data: Json) -> None:
        piece = data["part"]
        kind = answer.kind_of(piece)
        if kind in _PIECES:
            self._piece(self._item(data, "message"), integer(data.get("content_index")) or 0, piece)

    def _piece_of(self, data: Json) -> None:
        """A piece of content that is whole."""
        found = self._items.get(_key(data))
        if answer.kind_of(data["part"]) in _PIECES or (found is not None and found.kind == "message"):
            self._piece_done(self._item(data, "message"), integer(data.get("content_index")) or 0, data["part"])

    def _piece(self, item: _Item, index: int, piece: Json) -> _Text:
        """Begin a piece of content, with the words it has."""
        kind = piece["type"]
        key, _, event = _PIECES[kind]
        text = self._open(item, index, kind)
        self._more(text, answer.words(piece, key), event)
        return text

    def _piece_done(self, item: _Item, index: int, piece: Json) -> None:
        kind = answer.kind_of(piece)
        if kind not in _PIECES:
            if index not in item.content:
                item.content[index] = _Text(self._next())
                part = answer.content_part(piece, {}, self._at)
                self._out.append(PartAdded(item.content[index].part, part))
            return
        text = self._piece(item, index, piece)
        for raw in (piece.get("annotations") or ())[text.cited :]:
            self._cite(text, raw)
        if not text.logprobs:
            self._probable(text, piece)
        self._has_refusal = self._has_refusal or kind == "refusal"
        keys = minted(item.keys, self._at.origin)
        self._tell(text, answer.text_extra(piece, _PIECES[kind][1], keys).get(NAME, {}))

    def _more(self, text: _Text, words: str, event: type[TextDelta | RefusalDelta]) -> None:
        """Say what of these words no delta has said. Words that contradict the deltas come too late."""
        said = "".join(text.pieces)
        if len(words) > len(said) and words.startswith(said):
            rest = words[len(said) :]
            text.pieces.append(rest)
            self._out.append(event(rest, text.part))

    def _words(self, data: Json) -> None:
        item, index = self._item(data, "message"), integer(data.get("content_index")) or 0
        text = self._open(item, index, "output_text")
        self._text, self._spot = text, (_index(data), index)
        words = answer.words(data, "delta")
        if words:
            text.pieces.append(words)
            self._out.append(TextDelta(words, text.part))
        self._probable(text, data)

    def _words_done(self, data: Json) -> None:
        text = self._open(self._item(data, "message"), integer(data.get("content_index")) or 0, "output_text")
        self._more(text, answer.words(data, "text"), TextDelta)

    def _probable(self, text: _Text, source: Json) -> None:
        if source.get("logprobs") and (tokens := logprobs_of({"content": source["logprobs"]})):
            text.logprobs = True
            self._out.append(LogprobsAdded(tokens))

    def _refused(self, data: Json) -> None:
        text = self._open(self._item(data, "message"), integer(data.get("content_index")) or 0, "refusal")
        self._has_refusal = True
        if words := answer.words(data, "delta"):
            text.pieces.append(words)
            self._out.append(RefusalDelta(words, text.part))

    def _cited(self, data: Json) -> None:
        text = self._open(self._item(data, "message"), integer(data.get("content_index")) or 0, "output_text")
        if data.get("annotation") is not None:
            self._cite(text, data["annotation"])

    def _cite(self, text: _Text, raw: Any) -> None:
        text.cited += 1
        self._out.append(CitationAdded(text.part, answer.citation_of(raw)))

    # ---- calls --------------------------------------------------------------------------------

    def _call(self, item: _Item, raw: Json) -> None:
        """Begin a call once its name is known."""
        if item.begun or not raw.get("name"):
            return
        call = answer.call_of({**raw, "status": None}, item.place, self._at.origin)
        item.begun = self._has_calls = True
        self._out.append(ToolCallStarted(item.part, call.id, call.name, call.kind, call.extra))
        if call.arguments:
            self._argue(item, call.arguments)

    def _argue(self, item: _Item, arguments: str) -> None:
        item.pieces.append(arguments)
        if item.begun:
            self._out.append(ToolCallDelta(item.part, arguments))

    def _arguments(self, data: Json) -> None:
        item = self._item(data, "function_call" if "function_call" in data["type"] else "custom_tool_call")
        if delta := answer.words(data, "delta"):
            self._argue(item, delta)

    def _settle_call(self, item: _Item, raw: Json) -> None:
        held = "" if item.begun else "".join(item.pieces)
        if not item.begun:
            item.pieces.clear()
            self._call(item, {**raw, CALLS[item.kind][1]: held})
        if not item.begun:
            raise BadResponseError("the stream calls a tool without naming it")
        said, told = "".join(item.pieces), arguments_text(raw.get(CALLS[item.kind][1]))
        if told.startswith(said) and told != said:
            self._argue(item, told[len(said) :])
        keys = keys_beside(raw, answer.CALL_KEYS)
        if new := {key: value for key, value in keys.items() if item.keys.get(key) != value}:
            self._out.append(ReasoningProof(item.part, extra={NAME: minted(new, self._at.origin)}))
        self._out.append(ToolCallEnded(item.part))

    # ---- reasoning ----------------------------------------------------------------------------

    def _think(self, data: Json) -> None:
        item = self._item(data, "reasoning")
        kind = "content" if "content_index" in data else "summary"
        shown = kind, integer(data.get(f"{kind}_index")) or 0
        words = answer.words(data, "delta")
        if not words:
            return
        if item.shown is None:
            # Which of the two lists the words stand in is told before them, for whoever tells them on.
            told = {key: item.keys[key] for key in ("id",) if key in item.keys}
            self._out.append(ReasoningProof(item.part, origin=self._at.origin, extra={NAME: {**told, kind: []}}))
        elif item.shown != shown:
            words = answer.BETWEEN_THOUGHTS + words
        item.shown = shown
        item.pieces.append(words)
        self._out.append(ReasoningDelta(words, item.part))

    def _settle_reasoning(self, item: _Item, raw: Json) -> None:
        whole = answer.reasoning_of(raw, self._at.origin)
        said = "".join(item.pieces)
        if whole.text.startswith(said) and whole.text != said:
            self._out.append(ReasoningDelta(whole.text[len(said) :], item.part))
        self._out.append(ReasoningProof(item.part, encrypted=whole.encrypted, origin=whole.origin, extra=whole.extra))

    # ---- sound --------------------------------------------------------------------------------

    def _hear(self, data: Json) -> None:
        # Each piece is base64 of its own.
        self._sound += base64.b64decode(answer.words(data, "delta"), validate=True)

    def _spoken(self, data: Json) -> None:
        self._transcript.append(answer.words(data, "delta"))

    def _say_sound(self) -> None:
        """Sound belongs to no item; it is told once it is whole."""
        if self._sound or self._transcript:
            transcript = "".join(self._transcript) or None
            self._out.append(PartAdded(self._next(), Audio(bytes(self._sound) or None, transcript=transcript)))


def _index(data: Json) -> int:
    index = integer(data.get("output_index"))
    return -1 if index is None else index


def _key(data: Json) -> int | str:
    """What tells the items of a stream apart: their place, or their id where a server does not count."""
    index, told = integer(data.get("output_index")), string(data.get("item_id")) or _id_in(data.get("item"))
    if index is None and told is None:
        raise BadResponseError("the stream has an event for an item without its place")
    return told or "" if index is None else index


def _id_in(item: Any) -> str | None:
    """The id of an item; llama.cpp tells calls apart by the id of the call alone."""
    return (string(item.get("id")) or string(item.get("call_id"))) if isinstance(item, dict) else None


# Content that is words: their key, the keys with a place of their own, and the event that brings more.
_PIECES: dict[str, tuple[str, frozenset[str], type[TextDelta | RefusalDelta]]] = {
    "output_text": ("text", TEXT, TextDelta),
    "refusal": ("refusal", REFUSAL, RefusalDelta),
}
_KEYS = dict.fromkeys(CALLS, answer.CALL_KEYS)
_FAILED: dict[str, FinishReason] = {"stream_interrupted": "incomplete", "cancelled": "cancelled"}
_STATUS_OF = {
    "response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed",
    "response.cancelled": "cancelled",
}  # fmt: skip
_SETTLE: dict[str, Callable[[ResponsesReader, _Item, Json], None]] = {
    "message": ResponsesReader._settle_message,
    "reasoning": ResponsesReader._settle_reasoning,
    **dict.fromkeys(CALLS, ResponsesReader._settle_call),
}
_EVENTS: dict[str, Callable[[ResponsesReader, Json], None]] = {
    "response.created": ResponsesReader._begin,
    "response.queued": ResponsesReader._pass,
    "response.in_progress": ResponsesReader._pass,
    **dict.fromkeys(_STATUS_OF, ResponsesReader._end),
    "response.output_item.added": ResponsesReader._added,
    "response.output_item.done": ResponsesReader._done,
    "response.content_part.added": ResponsesReader._piece_added,
    "response.content_part.done": ResponsesReader._piece_of,
    "response.output_text.delta": ResponsesReader._words,
    "response.output_text.done": ResponsesReader._words_done,
    "response.output_text.annotation.added": ResponsesReader._cited,
    "response.refusal.delta": ResponsesReader._refused,
    "response.refusal.done": ResponsesReader._pass,
    "response.function_call_arguments.delta": ResponsesReader._arguments,
    "response.function_call_arguments.done": ResponsesReader._pass,
    "response.custom_tool_call_input.delta": ResponsesReader._arguments,
    "response.custom_tool_call_input.done": ResponsesReader._pass,
    "response.reasoning_text.delta": ResponsesReader._think,
    "response.reasoning_text.done": ResponsesReader._pass,
    "response.reasoning_summary_text.delta": ResponsesReader._think,
    "response.reasoning_summary_text.done": ResponsesReader._pass,
    "response.reasoning_summary_part.added": ResponsesReader._pass,
    "response.reasoning_summary_part.done": ResponsesReader._pass,
    "response.audio.delta": ResponsesReader._hear,
    "response.audio.done": ResponsesReader._pass,
    "response.audio.transcript.delta": ResponsesReader._spoken,
    "response.audio.transcript.done": ResponsesReader._pass,
}
