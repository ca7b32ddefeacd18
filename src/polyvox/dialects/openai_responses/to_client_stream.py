"""A streamed response for a client: events become items, each begun and ended, and at the end the whole response. It
makes no end that did not come, and knows no bytes but those it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyvox.dialects import Peek, encode_json
from polyvox.dialects.openai_chat.to_client import error_said, logprobs_said
from polyvox.dialects.openai_responses.facts import CALLS, DEFAULTS, NAME
from polyvox.dialects.openai_responses.items import CALL_ITEMS, Json, annotation_said, thought_said
from polyvox.dialects.openai_responses.to_client import (
    UNWRITABLE,
    Saying,
    end_said,
    failure_of,
    head_said,
    is_content,
    item_said,
    made_id,
    message_said,
    own_keys,
    piece_said,
    proof_said,
    usage_said,
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


class _Piece:
    """A piece of a message's content while it grows: what it is, and how far it is told."""

    __slots__ = ("part", "pieces", "place", "said")

    def __init__(self, part: int, said: Json, place: Json) -> None:
        self.part = part
        self.said = said
        self.place = place  # the keys that say where it stands
        self.pieces: list[str] = []


class _Message:
    """The message that words are being told in."""

    __slots__ = ("content", "index", "keys", "parts", "said")

    def __init__(self, said: Json, keys: Json, index: int) -> None:
        self.said = said
        self.keys = keys
        self.index = index
        self.content: list[Json] = []
        self.parts: set[int] = set()


class _Thought:
    """The reasoning item being told; `shown` is the list its words stand in."""

    __slots__ = ("encrypted", "index", "own", "part", "pieces", "shown")

    def __init__(self, part: int, index: int, own: Json) -> None:
        self.part = part
        self.index = index
        self.own = own
        self.encrypted: str | None = None
        self.pieces: list[str] = []
        self.shown = ""


class _Call:
    """A call while its arguments are told."""

    __slots__ = ("index", "key", "pieces", "said")

    def __init__(self, said: Json, index: int) -> None:
        self.said = said
        self.index = index
        self.key = CALLS[said["type"]][1]
        self.pieces: list[str] = []


class ResponsesWriter:
    """See `dialects.Writer`. Calls may grow side by side; messages and thoughts are told one after the other."""

    content_type = "text/event-stream"

    def __init__(self, asked: Peek) -> None:
        self.done: bool = False
        self._scope = Saying()
        self.losses: list[Loss] = self._scope.losses
        self._asked = asked
        self._out: list[bytes] = []
        self._number = 0
        self._started: Started | None = None
        self._id = ""
        self._kinds: set[type[Part]] = set()
        self._usage = Usage()
        self._extra: Json = {}
        self._output: list[Json | None] = []  # the items, None while one is not whole
        self._message: _Message | None = None
        self._piece: _Piece | None = None
        self._thought: _Thought | None = None
        self._told_thoughts: set[int] = set()
        self._calls: dict[int, _Call] = {}
        # Words that were said to begin, with none of them told: what their message is may follow.
        self._waiting: TextDelta | RefusalDelta | None = None
        # What the open piece grows by, as long as that is plain words: the hot path.
        self._part = -1
        self._prefix = b""

    def send(self, event: Event) -> bytes:
        """See `dialects.Writer.send`."""
        if self.done:
            return b""
        try:
            if type(event) is TextDelta and event.part == self._part and not event.choice:
                return self._more(event.text)
            self._say(event)
        except UNWRITABLE as error:
            what = f"{type(error).__name__}: {error}"
            self._error(BadResponseError(f"the answer holds a value that cannot be said ({what})"))
        return self._taken()

    def keep_alive(self) -> bytes:
        """A comment, which every reader passes over."""
        return b"" if self.done else b": keep-alive\n\n"

    def close(self) -> bytes:
        """See `dialects.Writer.close`."""
        return self.send(Failed(StreamInterruptedError("the answer broke off before its end")))

    def _taken(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return out

    def _more(self, words: str) -> bytes:
        """More words of the piece that is open."""
        if not words:
            return b""
        said = encode_json(words)
        assert self._piece is not None
        self._piece.pieces.append(words)
        number, self._number = self._number, self._number + 1
        return b'%b%b,"sequence_number":%d}\n\n' % (self._prefix, said, number)

    # ---- events -------------------------------------------------------------------------------

    def _say(self, event: Event) -> None:
        if getattr(event, "choice", 0):
            self._scope.lose("choices", "one answer is told, not several")
            return
        waiting = self._waiting
        if waiting is not None and not (isinstance(event, ReasoningProof) and event.part == waiting.part):
            self._waiting = None
            self._begin_words(waiting, {}, {})
        take = _EVENTS.get(type(event))
        if take is not None:
            take(self, event)

    def _start(self, event: Started) -> None:
        first = self._started is None
        self._started = event
        if first:
            head = self._head()
            self._id = head["id"]
            begun = {**head, "status": "in_progress", "error": None, "incomplete_details": None, "output": []}
            response = {**begun, "usage": None, **DEFAULTS}
            self._write("response.created", {"response": response})
            self._write("response.in_progress", {"response": response})

    def _head(self) -> Json:
        who = self._started or Started()
        return head_said(who.id, who.model, who.created, self._asked, self._scope)

    def _begin(self) -> None:
        """The answer begins, whoever gives it."""
        if self._started is None:
            self._start(Started())

    def _count(self, event: UsageReported) -> None:
        self._usage = event.usage

    def _keys(self, event: ExtraAdded) -> None:
        """Keys beside the answer; what was an event of its own in this protocol becomes one again."""
        for key, value in own_keys(event.extra, self._scope).items():
            if isinstance(value, dict) and value.get("type") == key and key.isprintable():
                self._begin()
                self._write(key, {name: item for name, item in value.items() if name != "sequence_number"})
            else:
                self._extra[key] = value

    def _end(self, event: Ended) -> None:
        failure = failure_of(event.finish_reason, None)
        if failure is not None:
            self._error(failure)
            return
        if event.stop_sequence is not None:
            self._scope.lose("stop_sequence", "it is not told which sequence stopped it", "note")
        self._begin()
        self._close_words()
        self._close_thought()
        for part in sorted(self._calls):
            self._close_call(part)
        ended = end_said(event.finish_reason, event.raw_finish_reason, self._kinds, self._scope)
        self._write(f"response.{ended['status']}", {"response": self._whole(ended)})
        self.done = True

    def _whole(self, ended: Json) -> Json:
        """The response as far as it is told, with what its end says."""
        output = [item for item in self._output if item is not None]
        usage = usage_said(self._usage, self._scope)
        return {**self._head(), **ended, "output": output, "usage": usage, **DEFAULTS, **self._extra}

    def _fail(self, event: Failed) -> None:
        self._error(event.error)

    def _error(self, error: PolyvoxError) -> None:
        """The response failed; an error of its own where none has begun. What was open stays so: it is not whole."""
        self.done = True
        said = error_said(error, 0)
        if self._started is None:
            # There is no place for the type here, so that the code must tell.
            code = said["code"] or said["type"]
            self._write("error", {"code": code, "message": said["message"], "param": said["param"]})
            return
        failed = {"status": "failed", "error": said, "incomplete_details": None}
        try:
            self._write("response.failed", {"response": self._whole(failed)})
        except UNWRITABLE:  # by a value among what was told
            self._write("response.failed", {"response": {"object": "response", **failed, "output": [], "usage": None}})

    def _write(self, kind: str, facts: Json) -> None:
        data = encode_json({"type": kind, **facts, "sequence_number": self._number})
        self._number += 1
        self._out.append(b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n")

    # ---- items --------------------------------------------------------------------------------

    def _open_item(self, item: Json) -> int:
        """Begin an item; gives its place in the output."""
        self._begin()
        self._output.append(None)
        index = len(self._output) - 1
        self._write("response.output_item.added", {"output_index": index, "item": item})
        return index

    def _close_item(self, index: int, item: Json) -> None:
        self._output[index] = item
        self._write("response.output_item.done", {"output_index": index, "item": item})

    def _next_id(self, prefix: str) -> str:
        self._begin()
        return made_id(prefix, self._id, len(self._output))

    # ---- messages -----------------------------------------------------------------------------

    def _words(self, event: TextDelta | RefusalDelta) -> None:
        kind = "output_text" if isinstance(event, TextDelta) else "refusal"
        piece = self._piece
        if piece is None or piece.part != event.part or piece.said["type"] != kind:
            if not event.text:
                self._waiting = event
                return
            self._begin_words(event, {}, {})
        elif event.text:
            self._grow(event.text)

    def _begin_words(self, event: TextDelta | RefusalDelta, own: Json, keys: Json) -> None:
        """Begin a piece of content by its first words."""
        part: Part = Text("") if isinstance(event, TextDelta) else Refusal("")
        said, _ = piece_said(part, "", self._scope)
        self._open_piece(event.part, {**said, **own}, keys)
        if event.text:
            self._grow(event.text)

    def _open_piece(self, part: int, said: Json, keys: Json | None) -> _Piece:
        """Begin a piece of content, in the message that is open where it belongs to that."""
        self._close_thought()
        self._close_piece()
        message = self._message
        if message is None or (keys is not None and keys != message.keys):
            self._close_words()
            self._begin()
            item = message_said(keys or {}, self._id, len(self._output))
            index = self._open_item({**item, "status": "in_progress", "content": []})
            message = self._message = _Message(item, dict(keys or {}), index)
        message.parts.add(part)
        place = {"item_id": message.said["id"], "output_index": message.index, "content_index": len(message.content)}
        piece = self._piece = _Piece(part, said, place)
        self._write("response.content_part.added", {**place, "part": said})
        if said["type"] == "refusal":
            self._kinds.add(Refusal)
        if said["type"] == "output_text":
            kind = "response.output_text.delta"
            head = encode_json({"type": kind, **place, "logprobs": []})
            self._part = part
            self._prefix = b"event: " + kind.encode() + b"\ndata: " + head[:-1] + b',"delta":'
        return piece

    def _grow(self, words: str) -> None:
        piece = self._piece
        assert piece is not None
        if piece.said["type"] == "output_text":
            self._out.append(self._more(words))
        else:
            piece.pieces.append(words)
            self._write("response.refusal.delta", {**piece.place, "delta": words})

    def _close_piece(self) -> None:
        piece, self._piece, self._part = self._piece, None, -1
        if piece is None or self._message is None:
            return
        said, words = piece.said, "".join(piece.pieces)
        if said["type"] == "output_text":
            said = {**said, "text": words}
            facts = {"text": words, "logprobs": said["logprobs"]}
            self._write("response.output_text.done", {**piece.place, **facts})
        elif said["type"] == "refusal":
            said = {**said, "refusal": words}
            self._write("response.refusal.done", {**piece.place, "refusal": words})
        self._message.content.append(said)
        self._write("response.content_part.done", {**piece.place, "part": said})

    def _close_words(self) -> None:
        self._close_piece()
        message, self._message = self._message, None
        if message is not None:
            self._close_item(message.index, {**message.said, **message.keys, "content": message.content})

    def _cite(self, event: CitationAdded) -> None:
        said = annotation_said(event.citation, _where(event.part), self._scope)
        if said is None:
            return
        piece = self._piece
        if piece is None or piece.part != event.part or piece.said["type"] != "output_text":
            if self._output or self._message:
                self._scope.lose(f"{_where(event.part)}.citations", "a source came after the end of its text")
                return
            self._begin_words(TextDelta("", event.part), {}, {})
            piece = self._piece
            assert piece is not None
        self._annotate(piece, said)

    def _annotate(self, piece: _Piece, said: Json) -> None:
        told = piece.said["annotations"]
        facts = {**piece.place, "annotation_index": len(told), "annotation": said}
        piece.said["annotations"] = [*told, said]
        self._write("response.output_text.annotation.added", facts)

    def _probable(self, event: LogprobsAdded) -> None:
        piece = self._piece
        if piece is None or piece.said["type"] != "output_text":
            self._scope.lose("logprobs", "log-probabilities are told beside words alone")
            return
        tokens = logprobs_said(event.tokens)["content"]
        piece.said["logprobs"] = [*piece.said["logprobs"], *tokens]
        self._write("response.output_text.delta", {**piece.place, "delta": "", "logprobs": tokens})

    # ---- reasoning ----------------------------------------------------------------------------

    def _think(self, event: ReasoningDelta) -> None:
        if event.text:
            thought = self._thought_of(event.part, {})
            if not thought.shown:
                told = thought.own
                thought.shown = "content" if "content" in told and not told.get("summary") else "summary"
                if thought.shown == "summary":
                    part = {"type": "summary_text", "text": ""}
                    self._write("response.reasoning_summary_part.added", {**self._spot(thought), "part": part})
            thought.pieces.append(event.text)
            self._write(f"{_THOUGHT[thought.shown]}.delta", {**self._spot(thought), "delta": event.text})

    def _spot(self, thought: _Thought) -> Json:
        return {"item_id": thought.own["id"], "output_index": thought.index, f"{thought.shown}_index": 0}

    def _thought_of(self, part: int, own: Json) -> _Thought:
        thought = self._thought
        if thought is None or thought.part != part:
            self._close_words()
            self._close_thought()
            keys = {"id": self._next_id("rs"), **own}
            index = self._open_item({"type": "reasoning", "id": keys["id"], "summary": []})
            thought = self._thought = _Thought(part, index, keys)
        return thought

    def _prove(self, event: ReasoningProof) -> None:
        """What must go back with a part: the proof of a thought, or the keys of another part."""
        where = _where(event.part)
        own = dict(self._scope.own(event.extra, where))
        waiting, piece, message, call = self._waiting, self._piece, self._message, self._calls.get(event.part)
        if waiting is not None:
            self._waiting = None
            keys = own.pop("item", {})
            self._begin_words(waiting, own, keys if isinstance(keys, dict) else {})
        elif call is not None:
            call.said |= own
        elif message is not None and event.part in message.parts:
            keys = own.pop("item", {})
            message.keys |= keys if isinstance(keys, dict) else {}
            if piece is not None and piece.part == event.part:
                piece.said |= own
            elif own:
                self._scope.lose(f"{where}.extra.{NAME}", "keys came after the end of their text", "note")
        else:
            self._prove_thought(event, own, where)

    def _prove_thought(self, event: ReasoningProof, own: Json, where: str) -> None:
        encrypted = proof_said(event.signature, event.encrypted, event.extra, where, self._scope)
        if not (own or encrypted):
            return
        if event.part in self._told_thoughts:
            self._scope.lose(f"{where}.reasoning", "its proof came after its end")
            return
        self._known_thought(event.part, own, encrypted)

    def _known_thought(self, part: int, own: Json, encrypted: str | None) -> None:
        """Begin or go on with a thought of which this is known."""
        thought = self._thought_of(part, {"id": own["id"]} if isinstance(own.get("id"), str) else {})
        thought.own |= own
        thought.encrypted = encrypted or thought.encrypted

    def _close_thought(self) -> None:
        thought, self._thought = self._thought, None
        if thought is None:
            return
        self._told_thoughts.add(thought.part)
        words = "".join(thought.pieces)
        if thought.shown:
            self._write(f"{_THOUGHT[thought.shown]}.done", {**self._spot(thought), "text": words})
        if thought.shown == "summary":
            part = {"type": "summary_text", "text": words}
            self._write("response.reasoning_summary_part.done", {**self._spot(thought), "part": part})
        item = thought_said(Reasoning(words, encrypted=thought.encrypted), thought.own)
        self._close_item(thought.index, item)

    # ---- calls --------------------------------------------------------------------------------

    def _call(self, event: ToolCallStarted) -> None:
        self._close_call(event.part)
        self._close_words()
        self._close_thought()
        kind, key = CALL_ITEMS[event.call_kind]
        told = {"id": self._next_id("fc" if event.call_kind == "function" else "ctc"), "status": "completed"}
        own = self._scope.own(event.extra, _where(event.part))
        said = {"type": kind, "call_id": event.id, "name": event.name, key: "", **told, **own}
        self._kinds.add(ToolCall)
        self._calls[event.part] = _Call(said, self._open_item({**said, "status": "in_progress"}))

    def _argue(self, event: ToolCallDelta) -> None:
        call = self._calls.get(event.part)
        if call is None:
            if event.arguments.strip():
                self._scope.lose(f"{_where(event.part)}.arguments", "arguments came outside of their call")
            return
        if event.arguments:
            self._argue_more(call, event.arguments)

    def _argue_more(self, call: _Call, arguments: str) -> None:
        call.pieces.append(arguments)
        place = {"item_id": call.said["id"], "output_index": call.index}
        self._write(f"{_ARGUMENTS[call.key]}.delta", {**place, "delta": arguments})

    def _called(self, event: ToolCallEnded) -> None:
        self._close_call(event.part)

    def _close_call(self, part: int) -> None:
        call = self._calls.pop(part, None)
        if call is None:
            return
        if not call.pieces and call.key == "arguments":
            self._argue_more(call, "{}")  # clients parse what they get
        arguments = "".join(call.pieces)
        place = {"item_id": call.said["id"], "output_index": call.index}
        self._write(f"{_ARGUMENTS[call.key]}.done", {**place, call.key: arguments})
        self._close_item(call.index, {**call.said, call.key: arguments})

    # ---- parts that came whole ----------------------------------------------------------------

    def _add(self, event: PartAdded) -> None:
        part, where = event.value, _where(event.part)
        if is_content(part):
            self._add_piece(part, event.part, where)
        elif isinstance(part, ToolCall):
            if part.signature is not None:
                self._scope.lose(f"{where}.signature", f"calls carry no proof here; bound to {part.origin}")
            self._call(ToolCallStarted(event.part, part.id, part.name, part.kind, part.extra))
            self._argue(ToolCallDelta(event.part, part.arguments))
            self._close_call(event.part)
        elif isinstance(part, Reasoning):
            self._add_thought(part, event.part, where)
        else:
            self._begin()
            item = item_said(part, self._id, len(self._output), where, self._scope)
            if item is not None:
                self._close_words()
                self._close_thought()
                self._close_item(self._open_item(item), item)

    def _add_piece(self, part: Part, number: int, where: str) -> None:
        said, keys = piece_said(part, where, self._scope)
        words = said.get(_KEY_OF.get(said["type"], ""), "")
        empty: Json = {"text": "", "annotations": []} if said["type"] == "output_text" else {"refusal": ""}
        piece = self._open_piece(number, {**said, **empty} if isinstance(part, Text | Refusal) else said, keys)
        if isinstance(part, Text | Refusal) and words:
            self._grow(words)
        for annotation in said.get("annotations", ()) if isinstance(part, Text) else ():
            self._annotate(piece, annotation)

    def _add_thought(self, part: Reasoning, number: int, where: str) -> None:
        own = self._scope.own(part.extra, where)
        encrypted = proof_said(part.signature, part.encrypted, part.extra, where, self._scope)
        if own or encrypted:
            self._known_thought(number, own, encrypted)
        self._think(ReasoningDelta(part.text, number))
        self._close_thought()


def _where(part: int) -> str:
    return f"message.parts[{part}]"


_KEY_OF = {"output_text": "text", "refusal": "refusal"}
_THOUGHT = {"summary": "response.reasoning_summary_text", "content": "response.reasoning_text"}
_ARGUMENTS = {"arguments": "response.function_call_arguments", "input": "response.custom_tool_call_input"}
_EVENTS: dict[type[Event], Callable[[ResponsesWriter, Any], None]] = {
    Started: ResponsesWriter._start,
    UsageReported: ResponsesWriter._count,
    ExtraAdded: ResponsesWriter._keys,
    TextDelta: ResponsesWriter._words,
    RefusalDelta: ResponsesWriter._words,
    CitationAdded: ResponsesWriter._cite,
    LogprobsAdded: ResponsesWriter._probable,
    ReasoningDelta: ResponsesWriter._think,
    ReasoningProof: ResponsesWriter._prove,
    ToolCallStarted: ResponsesWriter._call,
    ToolCallDelta: ResponsesWriter._argue,
    ToolCallEnded: ResponsesWriter._called,
    PartAdded: ResponsesWriter._add,
    Ended: ResponsesWriter._end,
    Failed: ResponsesWriter._fail,
}
