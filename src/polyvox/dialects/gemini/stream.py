"""A streamed answer as a state machine: pieces of an answer in any framing and chunking, neutral events out. What
the pieces of a candidate say grows part by part; a piece with a signature is a part of its own, as it must go back."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from polyvox.dialects import Endpoint, decode_json, string
from polyvox.dialects.gemini.answer import (
    CANDIDATE,
    TOP,
    blocked_by,
    call_prefix,
    checked,
    citations_of,
    created_of,
    error_of,
    keys_beside,
    logprobs_of,
    numbered,
    parts_in,
    read_call,
    usage_of,
)
from polyvox.dialects.gemini.facts import NAME, Json, finish_of, named, rest_of
from polyvox.dialects.gemini.partial_args import PartialArgs
from polyvox.dialects.gemini.parts_read import CALLED, mark_of, part_from
from polyvox.dialects.gemini.pieces import Pieces
from polyvox.dialects.stream_reader import StreamReader
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
    Started,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    UsageReported,
)

# The keys of a call that comes in pieces, which say no more once it is whole.
_PIECED = CALLED | {"partialArgs", "willContinue"}


# ---- the piece that most are ------------------------------------------------------------------


class _QuickPart(Struct, forbid_unknown_fields=True, gc=False):
    text: Annotated[str, Meta(min_length=1)]


class _QuickContent(Struct, forbid_unknown_fields=True, gc=False):
    parts: tuple[_QuickPart]
    role: Literal["model"] = "model"


class _QuickCandidate(Struct, forbid_unknown_fields=True, gc=False):
    content: _QuickContent
    index: Literal[0] = 0


class _Quick(Struct, forbid_unknown_fields=True, rename="camel", gc=False):
    candidates: tuple[_QuickCandidate]
    usage_metadata: dict[str, Any] | None = None
    model_version: str | None = None
    response_id: str | None = None
    create_time: str | None = None


_quick = msgspec.json.Decoder(_Quick).decode


class _Growing(NamedTuple):
    """A call whose arguments come value by value: it is told when it is whole."""

    part: int
    begun: ToolCall
    args: PartialArgs


class _Choice:
    """One candidate while it streams."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.parts = 0
        self.ids: set[str] = set()
        self.text: int | None = None  # the part that words are added to
        self.thought: int | None = None
        self.texts: dict[int, list[str]] = {}  # the words of each text that was told, by its part
        self.call: _Growing | None = None
        self.held: tuple[int, Text] | None = None  # a text that came whole, and whose sources may follow it
        self.extra: Json = {}
        self.reason: str | None = None

    def take(self, out: list[Event]) -> int:
        """The number of a new part; nothing is added to the one before, which is told if it was held."""
        if self.held is not None:
            part, text = self.held
            out.append(PartAdded(part, text, self.number))
            self.texts[part] = [text.text]
            self.held = None
        self.text = self.thought = None
        self.parts += 1
        return self.parts - 1


class GeminiReader(StreamReader):
    """See `dialects.Reader`. The end is told when the stream closes: the usage may come behind the last words."""

    def __init__(self, at: Endpoint) -> None:
        super().__init__(at)
        self._pieces = Pieces()
        self._started = False
        self._id: str | None = None
        self._blocked: str | None = None
        self._first = _Choice(0)
        self._choices = {0: self._first}
        self._usage: Json = {}
        self._extra: Json = {}

    def _fail(self, error: PolyvoxError) -> None:
        self._tell_rest(whole=False)
        reason = self._first.reason
        finish = finish_of(reason, bool(self._first.ids)) if reason is not None else None
        self._out.append(Failed(error, finish, reason))

    def _read(self, data: bytes) -> None:
        for text in self._pieces.feed(data):
            self._piece(text)

    def _finish(self) -> None:
        """The last piece may have no end: it counts where it is whole."""
        cut = False
        for text in self._pieces.close():
            try:
                decode_json(text)
            except BadResponseError:
                cut = True
                break
            self._piece(text)
        unended = [choice for choice in self._choices.values() if choice.reason is None]
        if cut or self._pieces.torn or (unended and self._blocked is None):
            raise StreamInterruptedError("the stream ended before the answer's finishReason", sent="yes")
        self._tell_rest(whole=True)
        for number, choice in sorted(self._choices.items()):
            if number and choice.reason is not None:
                self._out.append(ChoiceEnded(number, finish_of(choice.reason, bool(choice.ids)), choice.reason))
        reason = self._first.reason
        if reason is not None:
            self._out.append(Ended(finish_of(reason, bool(self._first.ids)), reason))
        else:
            self._out.append(Ended("content_filter", self._blocked))
        self.done = True

    def _tell_rest(self, *, whole: bool) -> None:
        """What was held until all had come: calls in pieces, sources, usage, keys without a neutral place."""
        for number, choice in sorted(self._choices.items()):
            self._end_call(choice, whole=whole)
            self._tell_sources(choice)
            if choice.extra:
                self._extra |= {f"candidates.{number}": choice.extra} if number else choice.extra
        if self._usage:
            self._out.append(UsageReported(usage_of(self._usage)))
        if self._extra:
            self._out.append(ExtraAdded({NAME: self._extra}))

    def _tell_sources(self, choice: _Choice) -> None:
        """The sources of all texts; those of a text that came whole, and last, are told with it."""
        held, choice.held = choice.held, None
        texts = [(part, "".join(pieces)) for part, pieces in choice.texts.items()]
        if held is not None:
            texts.append((held[0], held[1].text))
        cited = citations_of(choice.extra, texts)
        if held is not None:
            own = tuple([one for part, one in cited if part == held[0]])
            whole = msgspec.structs.replace(held[1], citations=own) if own else held[1]
            self._out.append(PartAdded(held[0], whole, choice.number))
        others = ((part, one) for part, one in cited if held is None or part != held[0])
        self._out += [CitationAdded(part, one, choice.number) for part, one in others]

    # ---- pieces -------------------------------------------------------------------------------

    def _piece(self, text: bytes) -> None:
        first = self._first
        if first.text is not None:
            try:
                quick = _quick(text)
            except (msgspec.DecodeError, ValueError, RecursionError):
                pass
            else:
                words = quick.candidates[0].content.parts[0].text
                first.texts[first.text].append(words)
                self._out.append(TextDelta(words, first.text))
                if quick.usage_metadata is not None:
                    self._usage |= quick.usage_metadata
                return
        self._general(text)

    def _general(self, text: bytes) -> None:
        if text.strip() in (b"", b"[DONE]"):
            return
        body = decode_json(text)
        if isinstance(body, list) and len(body) == 1:
            body = body[0]
        if not isinstance(body, dict):
            raise BadResponseError("the stream has a piece that is not an object")
        if body.get("error"):
            raise error_of(body, 0, {})
        body = named(body)
        self._id = self._id or string(body.get("responseId"))
        if not self._started:
            self._started = True
            model, created = string(body.get("modelVersion")), created_of(body.get("createTime"))
            self._out.append(Started(self._id, model, created))
        self._extra |= keys_beside(body, TOP)
        self._blocked = blocked_by(body) or self._blocked
        usage = body.get("usageMetadata")
        if isinstance(usage, dict):
            # A later count replaces an earlier one; one that is left out says nothing.
            self._usage |= {key: value for key, value in usage.items() if value is not None}
        for number, raw in numbered(body):
            self._candidate(self._choices.setdefault(number, _Choice(number)), raw)

    def _candidate(self, choice: _Choice, raw: Json) -> None:
        for wire in parts_in(raw):
            self._part(choice, named(wire), wire)
        tokens = logprobs_of(raw.get("logprobsResult"))
        if tokens:
            self._out.append(LogprobsAdded(tokens, choice.number))
        for key, value in keys_beside(raw, CANDIDATE).items():
            choice.extra[key] = _joined(choice.extra.get(key), value)
        choice.reason = string(raw.get("finishReason")) or choice.reason

    def _part(self, choice: _Choice, part: Json, raw: Json) -> None:
        if "functionCall" in part:
            self._call(choice, part)
            return
        made = part_from(checked(part), raw, self._at)
        number = choice.number
        if isinstance(made, Reasoning):
            self._thought(choice, made)
        elif isinstance(made, Text) and made.text and (made.signature is not None or made.extra):
            choice.held = choice.take(self._out), made
        elif not isinstance(made, Text) or made.signature is not None or made.extra:
            self._out.append(PartAdded(choice.take(self._out), made, number))
        elif made.text:
            if choice.text is None:
                choice.text = choice.take(self._out)
                choice.texts[choice.text] = []
            choice.texts[choice.text].append(made.text)
            self._out.append(TextDelta(made.text, choice.text, number))

    def _thought(self, choice: _Choice, made: Reasoning) -> None:
        if choice.thought is None:
            choice.thought = choice.take(self._out)
            self._out.append(ReasoningProof(choice.thought, **mark_of(self._at), choice=choice.number))
        part = choice.thought
        if made.text:
            self._out.append(ReasoningDelta(made.text, part, choice.number))
        if made.signature is not None or made.extra.get(NAME):
            proof = ReasoningProof(part, made.signature, origin=made.origin, extra=made.extra, choice=choice.number)
            self._out.append(proof)
            choice.thought = None

    # ---- calls --------------------------------------------------------------------------------

    def _call(self, choice: _Choice, part: Json) -> None:
        call = named(part["functionCall"])
        if choice.call is not None and not call.get("name"):
            for piece in call.get("partialArgs") or ():
                choice.call.args.add(piece)
            if call.get("willContinue") is not True:
                self._end_call(choice)
            return
        self._end_call(choice)
        made = read_call(part, choice.ids, call_prefix(self._id, choice.number), self._at)
        number = choice.take(self._out)
        pieces = call.get("partialArgs")
        if pieces is None and call.get("willContinue") is not True:
            self._whole_call(number, made, choice.number)
            return
        extra = {key: value for key, value in made.extra.get(NAME, {}).items() if key != "functionCall"}
        if beside := rest_of(call, _PIECED):
            extra["functionCall"] = beside[NAME]
        begun = msgspec.structs.replace(made, extra={NAME: extra} if extra else {})
        choice.call = _Growing(number, begun, PartialArgs(call.get("args") or {}))
        for piece in pieces or ():
            choice.call.args.add(piece)
        if call.get("willContinue") is not True:
            self._end_call(choice)

    def _whole_call(self, number: int, made: ToolCall, choice: int) -> None:
        if made.signature is not None:
            # The events of a growing call have no place for a signature.
            self._out.append(PartAdded(number, made, choice))
            return
        self._begun_call(number, made, choice)
        self._out.append(ToolCallEnded(number, choice))

    def _begun_call(self, number: int, made: ToolCall, choice: int) -> None:
        self._out.append(ToolCallStarted(number, made.id, made.name, extra=made.extra, choice=choice))
        self._out.append(ToolCallDelta(number, made.arguments, choice))

    def _end_call(self, choice: _Choice, *, whole: bool = True) -> None:
        """Tell the call that came in pieces; where the stream failed, that it began."""
        call, choice.call = choice.call, None
        if call is not None:
            tell = self._whole_call if whole else self._begun_call
            tell(call.part, msgspec.structs.replace(call.begun, arguments=call.args.text()), choice.number)


def _joined(before: Any, value: Any) -> Any:
    """A key of a candidate that comes again: lists of log-probabilities go on, objects gain keys, else the later
    one counts."""
    if not isinstance(before, dict) or not isinstance(value, dict):
        return value
    if "chosenCandidates" in before:
        chosen = [*before["chosenCandidates"], *value.get("chosenCandidates", ())]
        tops = [*before.get("topCandidates", ())]
        if later := value.get("topCandidates"):
            # The alternatives stand at the places of the tokens.
            tops += [{"candidates": []}] * (len(before["chosenCandidates"]) - len(tops)) + later
        return {**before, **value, "chosenCandidates": chosen, **({"topCandidates": tops} if tops else {})}
    return {**before, **value}
