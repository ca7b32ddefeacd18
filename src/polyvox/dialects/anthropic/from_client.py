"""A client's Messages request as ours: the mirror of `request`, `turns` and `blocks`. It reads every shape
that has a meaning, and leaves it to `rules` to be as strict as the protocol's inventor."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from polyvox.dialects import Endpoint, Peek, Wire, client_object, encode_json, string
from polyvox.dialects.anthropic import call_headers
from polyvox.dialects.anthropic.answer import BLOCK_KEYS, citation_of
from polyvox.dialects.anthropic.facts import EFFORTS, NAME, SAMPLING, TIERS, TOOL_CHOICES
from polyvox.dialects.edits import set_in
from polyvox.dialects.shapes import (
    field,
    flag,
    mapping,
    needed,
    number,
    one_of,
    sequence,
    text,
    texts,
    told,
    whole,
    wrong,
    wrong_type,
)
from polyvox.types import (
    CacheHint,
    Extra,
    File,
    Image,
    Message,
    Opaque,
    Part,
    Reasoning,
    Request,
    ResponseFormat,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

Json = dict[str, Any]

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
_ROLE = one_of(*_ROLES)

_CACHED = frozenset({"cache_control"})
_TEXT = BLOCK_KEYS["text"] | _CACHED
_IMAGE = frozenset({"type", "source"}) | _CACHED
_DOCUMENT = _IMAGE | {"title", "context"}
_RESULT = frozenset({"type", "tool_use_id", "content", "is_error"}) | _CACHED
_TOOL = frozenset({"name", "description", "input_schema", "strict"}) | _CACHED
# The keys a source may have; one with others is kept as it is.
_SOURCES = {
    "base64": frozenset({"type", "media_type", "data"}),
    "text": frozenset({"type", "media_type", "data"}),
    "url": frozenset({"type", "url"}),
    "file": frozenset({"type", "file_id"}),
}
_THINKING = {
    "enabled": Thinking(enabled=True),
    "adaptive": Thinking(enabled=True),
    "between_tools": Thinking(enabled=True, mode="between_tools"),
    "disabled": Thinking(enabled=False),
}
_MODES = {kind: mode for mode, kind in TOOL_CHOICES.items()}
_CHOICE = one_of(*_MODES, "tool")


# ---- without decoding -------------------------------------------------------------------------


class _Seen(Struct):
    model: Raw | UnsetType = UNSET
    stream: Raw | UnsetType = UNSET


_see = msgspec.json.Decoder(_Seen).decode
_word = msgspec.json.Decoder(str).decode


def peek(wire: Wire) -> Peek:
    """Model and stream flag, None and False where they are of another type; InputError for no JSON object."""
    try:
        seen = _see(wire.body.removeprefix(b"\xef\xbb\xbf"))
        model = None if seen.model is UNSET or bytes(seen.model)[:1] != b'"' else _word(seen.model)
    except (msgspec.DecodeError, ValueError, RecursionError):
        # What a quick look cannot read is mostly refused by a thorough one, in our words.
        body = client_object(wire)
        return Peek(string(body.get("model")), body.get("stream") is True)
    return Peek(model, seen.stream is not UNSET and bytes(seen.stream) == b"true")


def edit(wire: Wire, model: str | None) -> Wire:
    """The same request for another model; a stream of this protocol always tells its usage."""
    if model is None:
        return wire
    return msgspec.structs.replace(wire, body=set_in(wire.body, ("model",), encode_json(model)))


# ---- the request ------------------------------------------------------------------------------


def decode(wire: Wire, at: Endpoint) -> Request:
    """A client's request; raises InputError, with `param`, for what has no meaning."""
    body = client_object(wire)
    reading = _Reading(wire.body, at.origin)
    config = told(body, "output_config", mapping) or {}
    extra: Json = {key: value for key, value in body.items() if key not in _TOP} | call_headers.kept(wire.headers)
    tool_choice, parallel = _tool_choice(body, extra)
    return Request(
        needed(body, "model", text),
        (*reading.system(body), *reading.turns(needed(body, "messages", sequence))),
        tools=tuple(reading.tools(told(body, "tools", sequence) or ())),
        tool_choice=tool_choice,
        parallel_tool_calls=parallel,
        thinking=_thinking(body, config),
        response_format=_format(body, config, extra),
        max_tokens=field(body, "max_tokens", whole),
        temperature=field(body, "temperature", number),
        top_p=field(body, "top_p", number),
        top_k=field(body, "top_k", whole),
        stop=field(body, "stop_sequences", texts),
        user=_user(body, extra),
        service_tier=_tier(body, extra),
        cache=_cache(body, "") or UNSET,
        stream=told(body, "stream", flag) or False,
        extra={NAME: extra} if extra else {},
    )


_TOP = frozenset({
    "model", "messages", "system", "max_tokens", "tools", "tool_choice", "thinking", "output_config", "output_format",
    "stop_sequences", "metadata", "service_tier", "speed", "cache_control", "stream", *SAMPLING,
})  # fmt: skip


def _rest(values: Json, known: frozenset[str]) -> Extra:
    """The keys without a neutral place, as extra. Unlike an answer's, a request's null was written by somebody."""
    if values.keys() <= known:
        return {}
    return {NAME: {key: value for key, value in values.items() if key not in known}}


def _tool_choice(body: Json, extra: Json) -> tuple[ToolChoice | UnsetType, bool | UnsetType]:
    """Whether tools must be called, and whether several at once may be."""
    said = told(body, "tool_choice", mapping)
    if said is None:
        return UNSET, UNSET
    kind = needed(said, "type", _CHOICE, "tool_choice")
    serial = told(said, "disable_parallel_tool_use", flag, "tool_choice")
    known = {"type", "disable_parallel_tool_use"}
    if kind == "tool":
        choice = ToolChoice("required", (needed(said, "name", text, "tool_choice"),))
        known.add("name")
    else:
        choice = ToolChoice(_MODES[kind])  # type: ignore[arg-type]  # the table's keys are modes
    if rest := {key: value for key, value in said.items() if key not in known}:
        extra["tool_choice"] = rest
    return choice, UNSET if serial is None else not serial


def _thinking(body: Json, config: Json) -> Thinking | UnsetType:
    said = told(body, "thinking", mapping)
    effort = told(config, "effort", text, "output_config")
    if said is None and effort is None:
        return UNSET
    found = Thinking()
    if said is not None:
        kind = needed(said, "type", text, "thinking")
        budget = field(said, "budget_tokens", whole, "thinking") if kind == "enabled" else UNSET
        known = frozenset({"type", "budget_tokens"} if kind == "enabled" else {"type"})
        found = _THINKING.get(kind) or Thinking(mode=kind)
        if kind == "enabled" and budget is UNSET:
            found = Thinking(enabled=True, mode=kind)
        found = msgspec.structs.replace(found, budget_tokens=budget, extra=_rest(said, known))
    if effort in EFFORTS:
        found = msgspec.structs.replace(found, effort=effort)
    return UNSET if found == Thinking() else found


def _format(body: Json, config: Json, extra: Json) -> ResponseFormat | UnsetType:
    """The form of the answer. What else configures the output goes to extra; `output_format` is where the
    first form of the feature had it."""
    if not config and body.get("output_format") is None:
        return UNSET
    rest = {key: value for key, value in config.items() if key not in ("effort", "format")}
    effort, said, where = config.get("effort"), config.get("format"), "output_config.format"
    if effort is not None and effort not in EFFORTS:
        rest["effort"] = effort
    if said is None:
        said, where = body.get("output_format"), "output_format"
    elif body.get("output_format") is not None:
        extra["output_format"] = body["output_format"]
    found: ResponseFormat | UnsetType = UNSET
    if said is not None:
        said = mapping(said, where)
        needed(said, "type", one_of("json_schema"), where)
        schema = needed(said, "schema", mapping, where)
        found = ResponseFormat("schema", schema, extra=_rest(said, frozenset({"type", "schema"})))
    if rest:
        extra["output_config"] = rest
    return found


def _user(body: Json, extra: Json) -> str | UnsetType:
    said = told(body, "metadata", mapping)
    if said is None:
        return UNSET
    if rest := {key: value for key, value in said.items() if key != "user_id"}:
        extra["metadata"] = rest
    return field(said, "user_id", text, "metadata")


def _tier(body: Json, extra: Json) -> str | UnsetType:
    """The tier; the fast speed is a tier of its own to us."""
    speed, tier = told(body, "speed", text), told(body, "service_tier", text)
    fast = speed == "fast"
    if speed is not None and not fast:
        extra["speed"] = speed
    if tier is not None and (fast or tier not in TIERS):
        extra["service_tier"] = tier
        tier = None
    if fast:
        return "fast"
    return UNSET if tier is None else tier


def _cache(values: Json, where: str) -> CacheHint | None:
    said = told(values, "cache_control", mapping, where)
    if said is None:
        return None
    ttl = told(said, "ttl", text, f"{where}.cache_control" if where else "cache_control")
    plain = said.get("type") == "ephemeral"
    return CacheHint(ttl, _rest(said, frozenset({"type", "ttl"} if plain else {"ttl"})))


# ---- turns and blocks -------------------------------------------------------------------------


class _RawBody(Struct):
    messages: list[Raw]


class _RawTurn(Struct):
    content: list[Raw]


class _RawCall(Struct):
    input: Raw


_raw_body = msgspec.json.Decoder(_RawBody).decode
_raw_turn = msgspec.json.Decoder(_RawTurn).decode
_raw_call = msgspec.json.Decoder(_RawCall).decode


class _Reading:
    """What reading one request carries along: its bytes, and what opaque state in it is bound to."""

    def __init__(self, body: bytes, origin: str | None) -> None:
        self.body = body
        self.origin = origin
        self._turns: list[Raw] | None = None

    def system(self, body: Json) -> list[Message]:
        """The instructions at the top of a request, as the message they are."""
        said = body.get("system")
        if said is None or said == []:
            return []
        if isinstance(said, str):
            return [Message("system", (Text(said),))]
        if not isinstance(said, list):
            raise wrong_type(said, "system", "a string or a list of text blocks")
        return [Message("system", tuple([self.part(block, f"system[{i}]") for i, block in enumerate(said)]))]

    def turns(self, turns: list[Any]) -> list[Message]:
        """The messages; the results of tools that open a user's turn are a message of their own."""
        found: list[Message] = []
        for place, turn in enumerate(turns):
            if type(turn) is dict and len(turn) == 2 and type(words := turn.get("content")) is str:
                # The common case: plain words from somebody.
                if (role := turn.get("role")) in ("user", "assistant", "system"):
                    found.append(Message(role, (Text(words),)))
                    continue
            where = f"messages[{place}]"
            turn = mapping(turn, where)
            role, content = needed(turn, "role", _ROLE, where), turn.get("content")
            extra = {} if len(turn) == 2 else _rest(turn, frozenset({"role", "content"}))
            if isinstance(content, str):
                found.append(Message(_ROLES[role], (Text(content),), extra=extra))
            elif isinstance(content, list):
                found += self._turn(_ROLES[role], content, place, extra)
            else:
                raise wrong_type(content, f"{where}.content", "a string or a list of content blocks")
        return found

    def _turn(self, role: Role, content: list[Any], turn: int, extra: Extra) -> list[Message]:
        parts: list[Part] = []
        raws: list[Raw] | None = None
        for place, block in enumerate(content):
            if type(block) is dict and len(block) == 2 and type(words := block.get("text")) is str:
                if block.get("type") == "text":  # the common case here
                    parts.append(Text(words))
                    continue
            where = f"messages[{turn}].content[{place}]"
            if isinstance(block, dict) and block.get("type") == "tool_use":
                raws = raws or _raw_turn(self._raw(turn)).content
                parts.append(_call(block, raws[place], where))
            else:
                parts.append(self.part(block, where))
        results = next((i for i, part in enumerate(parts) if type(part) is not ToolResult), len(parts))
        if role != "user" or not results:
            return [Message(role, tuple(parts), extra=extra)]
        found = [Message("tool", tuple(parts[:results]), extra=extra)]
        if len(parts) > results:
            found.append(Message("user", tuple(parts[results:])))
        return found

    def part(self, block: Any, where: str) -> Part:
        """The part a block is, tool calls aside; a kind nobody knows stays as it is."""
        kind = needed(mapping(block, where), "type", text, where)
        read = _BLOCKS.get(kind)
        part = read(self, block, where) if read is not None else None
        return Opaque(NAME, kind, block, self.origin) if part is None else part

    def text(self, block: Json, where: str) -> Part:
        """A text block, with what it cites."""
        words = needed(block, "text", text, where)
        cited = told(block, "citations", sequence, where) or ()
        for place, citation in enumerate(cited):
            mapping(citation, f"{where}.citations[{place}]")
        return Text(
            words, tuple([citation_of(raw) for raw in cited]), _cache(block, where), extra=_rest(block, _TEXT)
        )  # fmt: skip

    def image(self, block: Json, where: str) -> Part | None:
        """A picture; None where its source is of no kind we know."""
        source = needed(block, "source", mapping, where)
        facts = self._medium(source, f"{where}.source") if source.get("type") != "text" else None
        if facts is None:
            return None
        return Image(**facts, cache=_cache(block, where), extra=_rest(block, _IMAGE))

    def document(self, block: Json, where: str) -> Part | None:
        """A document; None where its source is of no kind we know, or blocks of its own."""
        source = needed(block, "source", mapping, where)
        facts = self._medium(source, f"{where}.source")
        if facts is None:
            return None
        return File(
            **facts,
            name=told(block, "title", text, where),
            context=told(block, "context", text, where),
            cache=_cache(block, where),
            extra=_rest(block, _DOCUMENT),
        )

    def _medium(self, source: Json, where: str) -> Json | None:
        """What a source says of a picture or document, as fields; None for one that must stay as it is."""
        kind = source.get("type")
        known = _SOURCES.get(kind) if isinstance(kind, str) else None
        if known is None or not source.keys() <= known:
            return None
        if kind == "url":
            return {"url": needed(source, "url", text, where)}
        if kind == "file":
            return {"file_id": needed(source, "file_id", text, where), "origin": self.origin}
        data = needed(source, "data", text, where)
        media_type = told(source, "media_type", text, where)
        if kind == "text":
            return {"text": data, "media_type": None if media_type == "text/plain" else media_type}
        try:
            return {"data": base64.b64decode(data, validate=True), "media_type": media_type}
        except (binascii.Error, ValueError):
            raise wrong(f"{where}.data", "must be base64") from None

    def thinking(self, block: Json, where: str) -> Part:
        """A thought with its proof. One without was not made by this protocol's models: it is bound to nobody."""
        words = needed(block, "thinking", text, where)
        signature = told(block, "signature", text, where) or None
        origin = self.origin if signature else None
        return Reasoning(words, signature, origin=origin, extra=_rest(block, BLOCK_KEYS["thinking"]))

    def hidden_thinking(self, block: Json, where: str) -> Part:
        """A thought nobody may read, which must go back."""
        data = needed(block, "data", text, where)
        return Reasoning(encrypted=data, origin=self.origin, extra=_rest(block, BLOCK_KEYS["redacted_thinking"]))

    def result(self, block: Json, where: str) -> Part:
        """What a tool gave."""
        content = block.get("content")
        parts: tuple[Part, ...] = ()
        if isinstance(content, str):
            parts = (Text(content),) if content else ()
        elif isinstance(content, list):
            parts = tuple([self._inner(inner, f"{where}.content[{place}]") for place, inner in enumerate(content)])
        elif content is not None:
            raise wrong_type(content, f"{where}.content", "a string or a list of content blocks")
        return ToolResult(
            needed(block, "tool_use_id", text, where),
            parts,
            is_error=told(block, "is_error", flag, where) or False,
            cache=_cache(block, where),
            extra=_rest(block, _RESULT),
        )

    def _inner(self, block: Any, where: str) -> Part:
        """A part of a result; a result in a result has no meaning, so it stays as it is."""
        if isinstance(block, dict) and block.get("type") == "tool_result":
            return Opaque(NAME, "tool_result", block, self.origin)
        return self.part(block, where)

    def _raw(self, turn: int) -> Raw:
        """The bytes of a turn as the client wrote them."""
        if self._turns is None:
            self._turns = _raw_body(self.body.removeprefix(b"\xef\xbb\xbf")).messages
        return self._turns[turn]

    def tools(self, tools: list[Any] | tuple[()]) -> list[Tool | Opaque]:
        """The tools offered; those with a type of their own are run by the server or known to the model."""
        return [self._tool(mapping(tool, f"tools[{place}]"), f"tools[{place}]") for place, tool in enumerate(tools)]

    def _tool(self, tool: Json, where: str) -> Tool | Opaque:
        kind = told(tool, "type", text, where)
        if kind not in (None, "custom"):
            return Opaque(NAME, kind, tool, self.origin)
        return Tool(
            needed(tool, "name", text, where),
            told(tool, "description", text, where),
            needed(tool, "input_schema", mapping, where),
            field(tool, "strict", flag, where),
            cache=_cache(tool, where),
            extra=_rest(tool, _TOOL),
        )


def _call(block: Json, raw: Raw, where: str) -> ToolCall:
    """A call, its input in the client's own bytes: writing it anew would miss the prompt cache."""
    needed(block, "input", mapping, where)
    return ToolCall(
        needed(block, "id", text, where),
        needed(block, "name", text, where),
        bytes(_raw_call(raw).input).decode(),
        extra=_rest(block, BLOCK_KEYS["tool_use"]),
    )


_BLOCKS: dict[str, Callable[[_Reading, Json, str], Part | None]] = {
    "text": _Reading.text,
    "image": _Reading.image,
    "document": _Reading.document,
    "thinking": _Reading.thinking,
    "redacted_thinking": _Reading.hidden_thinking,
    "tool_result": _Reading.result,
}
