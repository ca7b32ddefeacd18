"""A client's Converse request as ours: the mirror of `request`, `turns` and `blocks`. It reads every shape that has
a meaning, and leaves it to `rules` to be as strict as the protocol's inventor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from polyvox.dialects import Endpoint, Peek, Wire, client_object, encode_json
from polyvox.dialects.bedrock.answer import call_extra, citation_of, is_call, part_of
from polyvox.dialects.bedrock.facts import (
    BLOCK_KEYS,
    KINDS,
    MODEL_FIELDS,
    NAME,
    TIERS,
    TOOL_CHOICES,
    USER_TAG,
    extra_of,
    kind_in,
    model_in,
    place_of,
    with_model,
)
from polyvox.dialects.shapes import (
    Reader,
    by_name,
    each,
    field,
    flag,
    mapping,
    needed,
    number,
    one_of,
    sequence,
    take,
    text,
    texts,
    told,
    whole,
    wrong,
)
from polyvox.errors import InputError
from polyvox.types import (
    CacheHint,
    Message,
    Opaque,
    Part,
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
# What a schema is called where the client gave it no name.
_UNNAMED = ResponseFormat().name
_MODES = {said: mode for mode, said in TOOL_CHOICES.items()}
_THINKING = {"adaptive": Thinking(enabled=True), "disabled": Thinking(enabled=False), "enabled": Thinking(enabled=True)}
_FIELD_READERS: dict[str, Reader[Any]] = {
    "top_k": whole,
    "seed": whole,
    "presence_penalty": number,
    "frequency_penalty": number,
    "parallel_tool_calls": flag,
    "verbosity": text,
}


# ---- without decoding -------------------------------------------------------------------------


class _Seen(Struct):
    """Nothing of the body: all that routes a request stands in its path."""


_see = msgspec.json.Decoder(_Seen).decode


def peek(wire: Wire) -> Peek:
    """Model and stream flag, both from the path; InputError for no JSON object."""
    try:
        _see(wire.body.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, ValueError, RecursionError):
        client_object(wire)
    return Peek(*model_in(wire.path))


def edit(wire: Wire, model: str | None) -> Wire:
    """The same request for another model, which its path names; InputError for a path that names none, and for no JSON
    object. A stream of this protocol always tells its usage."""
    if model is None:
        return wire
    peek(wire)
    return msgspec.structs.replace(wire, path=with_model(wire.path, model))


# ---- the request ------------------------------------------------------------------------------


def decode(wire: Wire, at: Endpoint) -> Request:
    """A client's request; raises InputError, with `param`, for what has no meaning."""
    model, stream = model_in(wire.path)
    if model is None:
        raise InputError("the path names no model", param="model", hint="use /model/{modelId}/converse")
    rest = client_object(wire)
    reading = _Reading(wire.body, at.origin)
    instructions = take(rest, "system", sequence)
    messages = (*reading.system(instructions or []), *reading.turns(take(rest, "messages", sequence) or []))
    limits = take(rest, "inferenceConfig", mapping) or {}
    own = dict(take(rest, "additionalModelRequestFields", mapping) or {})
    config = dict(take(rest, "outputConfig", mapping) or {})
    tools, tool_choice = _tools(take(rest, "toolConfig", mapping) or {}, rest, at.origin)
    tags = dict(take(rest, "requestMetadata", by_name(text)) or {})
    fields = {name: _model_field(own, name, at) for name, _, _ in MODEL_FIELDS} if own else {}
    request = Request(
        model,
        messages,
        tools=tools,
        tool_choice=tool_choice,
        thinking=_thinking(config, own, at),
        response_format=_format(config),
        max_tokens=field(limits, "maxTokens", whole, "inferenceConfig"),
        temperature=field(limits, "temperature", number, "inferenceConfig"),
        top_p=field(limits, "topP", number, "inferenceConfig"),
        stop=field(limits, "stopSequences", texts, "inferenceConfig"),
        user=tags.pop(USER_TAG, UNSET),
        metadata=tags or UNSET,
        service_tier=_tier(rest),
        stream=stream,
        **fields,
    )
    left = {key: value for key, value in limits.items() if key not in _LIMITS}
    beside = {"inferenceConfig": left, "outputConfig": config, "additionalModelRequestFields": own}
    rest |= {key: values for key, values in beside.items() if values}
    return msgspec.structs.replace(request, extra={NAME: rest}) if rest else request


_LIMITS = frozenset({"maxTokens", "temperature", "topP", "stopSequences"})


def _beyond(values: Json, *known: str) -> Json:
    """The members of an object beside some."""
    return {key: value for key, value in values.items() if key not in known}


def _without(values: Json, key: str, left: Json) -> Json:
    """An object with only what is left of one of its members."""
    return {**_beyond(values, key), **({key: left} if left else {})}


def _model_field(own: Json, name: str, at: Endpoint) -> Any:
    """A field that only models have, taken from where the endpoint says it stands; UNSET where it is not there."""
    found = _taken(own, place_of(at, name))
    if found is None:
        return UNSET
    return _FIELD_READERS[name](found, f"additionalModelRequestFields.{'.'.join(place_of(at, name) or ())}")


def _taken(values: Json, place: tuple[str, ...] | None) -> Any:
    """What stands at a path of keys, taken out, with the objects that are empty then."""
    if place is None:
        return None
    key, *behind = place
    if not behind:
        return values.pop(key, None)
    inner = values.get(key)
    if not isinstance(inner, dict):
        return None
    inner = dict(inner)
    found = _taken(inner, tuple(behind))
    if found is not None:
        values[key] = inner
        if not inner:
            del values[key]
    return found


def _tools(config: Json, rest: Json, origin: str | None) -> tuple[tuple[Tool | Opaque, ...], ToolChoice | UnsetType]:
    """The tools offered, and whether they must be called; what else is said of them stays in the rest."""
    listed = told(config, "tools", sequence, "toolConfig") or []
    choice = told(config, "toolChoice", mapping, "toolConfig")
    left = {key: value for key, value in config.items() if key not in ("tools", "toolChoice")}
    said: ToolChoice | UnsetType = UNSET
    if choice is not None:
        kind = _member(choice, "toolConfig.toolChoice")
        where = f"toolConfig.toolChoice.{kind}"
        if kind == "tool":
            named = mapping(choice[kind], where)
            said = ToolChoice("required", (needed(named, "name", text, where),))
            choice = _without(choice, kind, _beyond(named, "name"))
        elif kind in _MODES:
            said = ToolChoice(_MODES[kind])  # type: ignore[arg-type]  # the table's keys are modes
            choice = _without(choice, kind, mapping(choice[kind], where))
        if choice:
            left["toolChoice"] = choice
    if left:
        rest["toolConfig"] = left
    return tuple(_offered(listed, origin)), said


def _offered(listed: list[Any], origin: str | None) -> list[Tool | Opaque]:
    found: list[Tool | Opaque] = []
    for place, tool in enumerate(listed):
        where = f"toolConfig.tools[{place}]"
        kind = _member(mapping(tool, where), where)
        last = found[-1] if found else None
        if kind == "cachePoint" and isinstance(last, Tool) and last.cache is None and len(tool) == 1:
            hint = _hint(tool[kind], f"{where}.cachePoint")
            found[-1] = msgspec.structs.replace(last, cache=hint)
        elif kind == "toolSpec" and len(tool) == 1:
            found.append(_tool(mapping(tool[kind], f"{where}.toolSpec"), f"{where}.toolSpec"))
        else:
            found.append(Opaque(NAME, kind, tool, origin))
    return found


def _tool(spec: Json, where: str) -> Tool:
    schema = needed(spec, "inputSchema", mapping, where)
    extra = extra_of(spec, frozenset({"name", "description", "strict", "inputSchema"}))
    if beside := _beyond(schema, "json"):
        extra = {NAME: {**extra.get(NAME, {}), "inputSchema": beside}}
    return Tool(
        needed(spec, "name", text, where),
        told(spec, "description", text, where),
        needed(schema, "json", mapping, f"{where}.inputSchema"),
        field(spec, "strict", flag, where),
        extra=extra,
    )


def _member(union: Json, where: str) -> str:
    """Which member of a union is said; raises InputError where none is."""
    kind = kind_in(union)
    if kind is None:
        raise wrong(where, "must have one member")
    return kind


def _thinking(config: Json, own: Json, at: Endpoint) -> Thinking | UnsetType:
    effort = take(config, "effort", text, "outputConfig")
    said = _taken(own, place_of(at, "thinking"))
    found = Thinking()
    if said is not None:
        where = f"additionalModelRequestFields.{'.'.join(place_of(at, 'thinking') or ())}"
        kind = needed(mapping(said, where), "type", text, where)
        budget = field(said, "budget_tokens", whole, where) if kind == "enabled" else UNSET
        found = _THINKING.get(kind) or Thinking(mode=kind)
        if kind == "enabled" and budget is UNSET:
            found = Thinking(enabled=True, mode=kind)
        known = frozenset({"type", "budget_tokens"} if kind == "enabled" else {"type"})
        found = msgspec.structs.replace(found, budget_tokens=budget, extra=extra_of(said, known))
    if effort is not None:
        found = msgspec.structs.replace(found, effort=effort)
    return UNSET if found == Thinking() else found


def _format(config: Json) -> ResponseFormat | UnsetType:
    """The form of the answer; its schema is JSON in a string."""
    where = "outputConfig.textFormat"
    said = take(config, "textFormat", mapping, "outputConfig")
    if said is None:
        return UNSET
    needed(said, "type", one_of("json_schema"), where)
    structure = needed(said, "structure", mapping, where)
    if beside := _beyond(_without(said, "structure", _beyond(structure, "jsonSchema")), "type"):
        config["textFormat"] = beside
    where += ".structure.jsonSchema"
    held = mapping(structure.get("jsonSchema"), where)
    written = needed(held, "schema", text, where)
    try:
        schema = msgspec.json.decode(written)
    except (msgspec.DecodeError, ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise wrong(f"{where}.schema", "must be a JSON object in a string")
    name, description = told(held, "name", text, where), told(held, "description", text, where)
    extra = extra_of(held, frozenset({"schema", "name", "description"}))
    return ResponseFormat("schema", schema, _UNNAMED if name is None else name, description, extra=extra)


def _tier(rest: Json) -> str | UnsetType:
    said = rest.get("serviceTier")
    if said is None:
        return UNSET
    tier = needed(mapping(said, "serviceTier"), "type", text, "serviceTier")
    if tier not in TIERS or len(said) > 1:
        return UNSET
    del rest["serviceTier"]
    return tier


def _hint(point: Any, where: str) -> CacheHint:
    """A cache point as the hint on the part before it."""
    ttl = told(mapping(point, where), "ttl", text, where)
    plain = point.get("type") == "default"
    return CacheHint(ttl, extra_of(point, frozenset({"type", "ttl"} if plain else {"ttl"})))


# ---- turns and blocks -------------------------------------------------------------------------


class _RawBody(Struct):
    messages: list[Raw]


class _RawTurn(Struct):
    content: list[Raw]


class _RawUse(Struct):
    input: Raw


class _RawCall(Struct, rename="camel"):
    tool_use: _RawUse


_raw_body = msgspec.json.Decoder(_RawBody).decode
_raw_turn = msgspec.json.Decoder(_RawTurn).decode
_raw_call = msgspec.json.Decoder(_RawCall).decode


class _Reading:
    """What reading one request carries along: its bytes, and what opaque state in it is bound to."""

    def __init__(self, body: bytes, origin: str | None) -> None:
        self.body = body
        self.origin = origin
        self._turns: list[Raw] | None = None

    def system(self, blocks: list[Any]) -> list[Message]:
        """The instructions at the top of a request, as the message they are."""
        parts = self._parts(blocks, "system", None)
        return [Message("system", parts)] if parts else []

    def turns(self, turns: list[Any]) -> list[Message]:
        """The messages; the results of tools that open a user's turn are a message of their own."""
        found: list[Message] = []
        for place, turn in enumerate(turns):
            where = f"messages[{place}]"
            turn = mapping(turn, where)
            role = _ROLES[needed(turn, "role", _ROLE, where)]
            blocks = needed(turn, "content", sequence, where)
            extra = {} if len(turn) == 2 else extra_of(turn, frozenset({"role", "content"}))
            parts = self._parts(blocks, f"{where}.content", place)
            results = next((i for i, part in enumerate(parts) if type(part) is not ToolResult), len(parts))
            if role != "user" or not results:
                found.append(Message(role, parts, extra=extra))
                continue
            found.append(Message("tool", parts[:results], extra=extra))
            if len(parts) > results:
                found.append(Message("user", parts[results:]))
        return found

    def _parts(self, blocks: list[Any], where: str, turn: int | None) -> tuple[Part, ...]:
        """The parts that blocks are; a cache point is a hint on the part before it."""
        parts: list[Part] = []
        raws: list[Raw] | None = None
        for place, block in enumerate(blocks):
            if type(block) is dict and len(block) == 1 and type(words := block.get("text")) is str:
                parts.append(Text(words))  # the common case
                continue
            spot = f"{where}[{place}]"
            kind = _member(mapping(block, spot), spot)
            if kind == "cachePoint" and len(block) == 1 and parts and getattr(parts[-1], "cache", 0) is None:
                parts[-1] = msgspec.structs.replace(parts[-1], cache=_hint(block[kind], f"{spot}.cachePoint"))
            elif is_call(block) and turn is not None:
                raws = raws or _raw_turn(self._raw(turn)).content
                parts.append(_call(block, raws[place], spot))
            else:
                parts.append(self.part(block, kind, spot))
        return tuple(parts)

    def part(self, block: Json, kind: str, where: str) -> Part:
        """The part a block is, tool calls aside; a kind nobody knows stays as it is."""
        inside = f"{where}.{kind}"
        if kind == "text":
            words = text(block[kind], inside)
            return Text(words, extra=extra_of(block, frozenset({"text"})))
        if kind in KINDS:
            value = mapping(block[kind], inside)
            if kind in _SHAPES:
                _SHAPES[kind](value, inside)
            elif kind == "toolResult" and len(block) == 1 and "type" not in value:
                return self._result(value, inside)
        return part_of(block, self.origin)

    def _result(self, result: Json, where: str) -> Part:
        """What a tool gave."""
        content = needed(result, "content", sequence, where)
        parts = tuple([self._inner(inner, f"{where}.content[{place}]") for place, inner in enumerate(content)])
        status = told(result, "status", one_of("success", "error"), where)
        return ToolResult(
            needed(result, "toolUseId", text, where),
            parts,
            is_error=status == "error",
            extra=extra_of(result, BLOCK_KEYS["toolResult"]),
        )

    def _inner(self, block: Any, where: str) -> Part:
        """A part of a result; what has no meaning in one stays as it is."""
        kind = _member(mapping(block, where), where)
        if kind == "json" and len(block) == 1:
            return Text(encode_json(block[kind]).decode(), extra={NAME: {"json": True}})
        if kind in ("text", "image", "document", "video"):
            return self.part(block, kind, where)
        return Opaque(NAME, kind, block, self.origin)

    def _raw(self, turn: int) -> Raw:
        """The bytes of a turn as the client wrote them."""
        if self._turns is None:
            self._turns = _raw_body(self.body.removeprefix(b"\xef\xbb\xbf")).messages
        return self._turns[turn]


def _call(block: Json, raw: Raw, where: str) -> ToolCall:
    """A call, its input in the client's own bytes: writing it anew would miss the prompt cache."""
    where += ".toolUse"
    use = mapping(block["toolUse"], where)
    needed(use, "input", mapping, where)
    extra = call_extra(use)
    if beside := {key: value for key, value in block.items() if key != "toolUse"}:
        extra = {NAME: {**beside, **extra.get(NAME, {})}}
    return ToolCall(
        needed(use, "toolUseId", text, where),
        needed(use, "name", text, where),
        bytes(_raw_call(raw).tool_use.input).decode(),
        extra=extra,
    )


# ---- what the values of blocks must be ---------------------------------------------------------


def _medium(value: Json, where: str) -> None:
    source = needed(value, "source", mapping, where)
    _member(source, f"{where}.source")
    told(value, "format", text, where)


def _document(value: Json, where: str) -> None:
    _medium(value, where)
    needed(value, "name", text, where)
    told(value, "context", text, where)


def _reasoning(value: Json, where: str) -> None:
    if _member(value, where) == "reasoningText":
        shown = mapping(value["reasoningText"], f"{where}.reasoningText")
        needed(shown, "text", text, f"{where}.reasoningText")
        told(shown, "signature", text, f"{where}.reasoningText")


def _cited(value: Json, where: str) -> None:
    for place, piece in enumerate(told(value, "content", each(mapping), where) or ()):
        told(piece, "text", text, f"{where}.content[{place}]")
    for citation in told(value, "citations", each(mapping), where) or ():
        citation_of(citation)


_SHAPES: dict[str, Callable[[Json, str], None]] = {
    "image": _medium,
    "audio": _medium,
    "video": _medium,
    "document": _document,
    "reasoningContent": _reasoning,
    "citationsContent": _cited,
}
