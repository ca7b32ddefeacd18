"""A client's Chat Completions request as a neutral one, and what can be told or changed of it without reading
it all. It reads every spelling the dialect's quirks know; what its inventor refuses is told in `rules`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct

from polyvox.dialects import Endpoint, Peek, Wire, client_object, encode_json
from polyvox.dialects.edits import set_in
from polyvox.dialects.openai_chat.answer import NAME
from polyvox.dialects.openai_chat.request import FORMATS, NO_PARAMETERS, SAME
from polyvox.dialects.openai_chat.turns_from_client import messages_of, take_cache
from polyvox.dialects.shapes import (
    Reader,
    UnfitError,
    by_name,
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
)
from polyvox.types import Opaque, Request, ResponseFormat, Thinking, Tool, ToolChoice


class _Asked(Struct, gc=False):
    """The keys that say what is asked of whom; of any type, as a client may send anything."""

    model: Any = None
    stream: Any = None
    stream_options: Any = None


_asked = msgspec.json.Decoder(_Asked).decode


def peek(wire: Wire) -> Peek:
    """See `ServerSide.peek`. A key of the wrong type counts as absent."""
    try:
        asked = _asked(wire.body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        asked = msgspec.convert(client_object(wire), _Asked)
    stream = asked.stream is True
    options = asked.stream_options if isinstance(asked.stream_options, dict) else {}
    model = asked.model if isinstance(asked.model, str) else None
    return Peek(model, stream, not stream or options.get("include_usage") is True)


def edit(wire: Wire, *, model: str | None = None, usage: bool = False) -> Wire:
    """See `ServerSide.edit`."""
    asked = peek(wire)
    body = wire.body
    if model is not None:
        body = set_in(body, ("model",), encode_json(model))
    if usage and not asked.usage:
        body = set_in(body, ("stream_options", "include_usage"), b"true")
    return wire if body is wire.body else Wire(wire.path, body, wire.headers, wire.method)


def decode_request(wire: Wire, at: Endpoint) -> Request:
    """See `ServerSide.decode_request`. What is taken from the body is read; what is left goes to extra."""
    rest = client_object(wire)
    fields: dict[str, Any] = {}
    try:
        model = text(rest.pop("model", None), "model")
        messages = messages_of(rest.pop("messages", None), at)
        if not rest:
            return Request(model, messages)
        _same(rest, fields)
        _limits(rest, fields, at)
        _tools(rest, fields, at)
        _response_format(rest, fields)
        _thinking(rest, fields)
        _stream(rest, fields)
    except UnfitError as error:
        error.code = error.fault
        raise
    if rest:
        fields["extra"] = {NAME: rest}
    return Request(model, messages, **fields)


# ---- fields with values of their own ----------------------------------------------------------


def _stops(value: Any, where: str) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else texts(value, where)


_NUMBERS = by_name(number)
_READ: dict[str, Reader[Any]] = {
    "temperature": number, "top_p": number, "presence_penalty": number, "frequency_penalty": number,
    "logprobs": flag, "top_logprobs": whole, "n": whole, "parallel_tool_calls": flag, "service_tier": text,
    "verbosity": text, "metadata": by_name(text), "audio": mapping, "modalities": texts, "cache_key": text,
}  # fmt: skip


def _same(rest: dict[str, Any], fields: dict[str, Any]) -> None:
    """Fields whose value goes over as it is, from the table the encoder writes them by."""
    for field, key in SAME:
        if key in rest and (value := take(rest, key, _READ[field])) is not None:
            fields[field] = value


def _limits(rest: dict[str, Any], fields: dict[str, Any], at: Endpoint) -> None:
    """Fields with several spellings or forms. Of two spellings the first counts, the other stays."""
    user_field = at.options.get("user_field", "user")
    spellings: tuple[tuple[str, tuple[str, ...], Reader[Any]], ...] = (
        ("max_tokens", ("max_completion_tokens", "max_tokens"), whole),
        ("seed", ("seed", "random_seed"), whole),
        ("user", (user_field, "user", "safety_identifier"), text),
        ("top_k", ("top_k",), whole),
        ("stop", ("stop",), _stops),
        ("logit_bias", ("logit_bias",), _NUMBERS),
    )
    for field, keys, read in spellings:
        for key in keys:
            if rest.get(key) is None:
                rest.pop(key, None)
            elif field not in fields:
                fields[field] = read(rest.pop(key), key)


def _stream(rest: dict[str, Any], fields: dict[str, Any]) -> None:
    """Whether to stream. That a stream tells its usage is what every request of ours asks, not the client's."""
    fields["stream"] = take(rest, "stream", flag) is True
    options = take(rest, "stream_options", mapping)
    if options is not None:
        kept = dict(options)
        take(kept, "include_usage", flag, "stream_options")
        if kept:
            rest["stream_options"] = kept


# ---- tools ------------------------------------------------------------------------------------


def _tools(rest: dict[str, Any], fields: dict[str, Any], at: Endpoint) -> None:
    found = [_tool(tool, f"tools[{i}]", at) for i, tool in enumerate(take(rest, "tools", sequence) or ())]
    for i, function in enumerate(take(rest, "functions", sequence) or ()):
        found.append(_named_tool("function", function, {}, f"functions[{i}]"))
    if found:
        fields["tools"] = tuple(found)
    kinds = {tool.name: tool.kind for tool in found if isinstance(tool, Tool)}
    if rest.get("tool_choice") is not None:
        _tool_choice(rest, fields, kinds)
    elif rest.get("function_call") is not None:
        fields["tool_choice"] = _function_call(rest["function_call"])
        del rest["function_call"]
    for key in ("tool_choice", "function_call"):
        if key in rest and rest[key] is None:
            del rest[key]


def _tool(raw: Any, where: str, at: Endpoint) -> Tool | Opaque:
    rest = dict(mapping(raw, where))
    kind = rest.pop("type", None)
    if kind is None and "function" in rest:
        kind = "function"
    if text(kind, f"{where}.type") not in ("function", "custom"):
        return Opaque(NAME, kind, raw, at.origin)
    return _named_tool(kind, rest.pop(kind, None), rest, f"{where}.{kind}")


def _named_tool(kind: Literal["function", "custom"], raw: Any, rest: dict[str, Any], where: str) -> Tool:
    """A function or custom tool; `rest` is what stands beside it."""
    inner = dict(mapping(raw, where))
    name, description = text(inner.pop("name", None), f"{where}.name"), take(inner, "description", text, where)
    facts: dict[str, Any] = {}
    if kind == "custom":
        facts["format"] = take(inner, "format", mapping, where)
    else:
        parameters = take(inner, "parameters", mapping, where)
        facts["parameters"] = {} if parameters is None or parameters == NO_PARAMETERS else parameters
        strict = take(inner, "strict", flag, where)
        facts["strict"] = UNSET if strict is None else strict
    cache = take_cache(rest, where)
    if inner:
        rest[kind] = inner
    return Tool(name, description, kind=kind, cache=cache, extra={NAME: rest} if rest else {}, **facts)


_MODES: dict[str, Literal["none", "auto", "required"]] = {
    "none": "none", "auto": "auto", "required": "required", "any": "required",
}  # fmt: skip
_MODE, _SUBSET_MODE, _FUNCTION_MODE = one_of(*_MODES), one_of("auto", "required"), one_of("none", "auto")


def _tool_choice(rest: dict[str, Any], fields: dict[str, Any], kinds: Mapping[str, str]) -> None:
    """Take the choice; it stays, too, where it says more than the neutral form can."""
    raw = rest["tool_choice"]
    if isinstance(raw, str):
        fields["tool_choice"] = ToolChoice(_MODES[_MODE(raw, "tool_choice")])
        del rest["tool_choice"]
        return
    kind = mapping(raw, "tool_choice").get("type", "function")
    if kind == "allowed_tools":
        inner = needed(raw, kind, mapping, "tool_choice")
        mode = needed(inner, "mode", _SUBSET_MODE, f"tool_choice.{kind}")
        wanted = needed(inner, "tools", sequence, f"tool_choice.{kind}")
        names = tuple([name for name in map(_name_in, wanted) if name is not None])
        if not names or len(names) < len(wanted):
            return
        fields["tool_choice"] = ToolChoice(_MODES[mode], names, subset=True)
        plain: Any = {"mode": mode, "tools": [_named(name, kinds) for name in names]}
        plain = {"type": kind, kind: plain}
    elif kind in ("function", "custom"):
        inner = needed(raw, kind, mapping, "tool_choice")
        name = needed(inner, "name", text, f"tool_choice.{kind}")
        fields["tool_choice"] = ToolChoice("required", (name,))
        plain = _named(name, kinds)
    else:
        text(kind, "tool_choice.type")
        return
    if raw in (plain, {kind: plain.get(kind)}):
        del rest["tool_choice"]


def _name_in(raw: Any) -> str | None:
    """The name in a reference to a tool, or None for a reference to another kind of tool."""
    kind = raw.get("type") if isinstance(raw, dict) else None
    inner = raw.get(kind) if kind in ("function", "custom") else None
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else None


def _named(name: str, kinds: Mapping[str, str]) -> dict[str, Any]:
    kind = kinds.get(name, "function")
    return {"type": kind, kind: {"name": name}}


def _function_call(raw: Any) -> ToolChoice:
    """The legacy form of a tool choice."""
    if isinstance(raw, str):
        return ToolChoice(_MODES[_FUNCTION_MODE(raw, "function_call")])
    return ToolChoice("required", (needed(mapping(raw, "function_call"), "name", text, "function_call"),))


# ---- the form of the answer, and reasoning ----------------------------------------------------

_KINDS = {word: kind for kind, word in FORMATS.items()}


def _response_format(rest: dict[str, Any], fields: dict[str, Any]) -> None:
    """Take the format; one nobody else knows (a grammar, say) stays."""
    raw = rest.get("response_format")
    if raw is None:
        rest.pop("response_format", None)
        return
    kind = needed(mapping(raw, "response_format"), "type", text, "response_format")
    if kind not in _KINDS:
        return
    del rest["response_format"]
    left = {key: value for key, value in raw.items() if key != "type"}
    facts: dict[str, Any] = {}
    if kind == "json_schema":
        where = "response_format.json_schema"
        inner = dict(mapping(left.pop("json_schema", None), where))
        for key, read in (("name", text), ("schema", mapping), ("description", text), ("strict", flag)):
            if (value := take(inner, key, read, where)) is not None:
                facts[key] = value
        if inner:
            left["json_schema"] = inner
    fields["response_format"] = ResponseFormat(_KINDS[kind], extra={NAME: left} if left else {}, **facts)


def _thinking(rest: dict[str, Any], fields: dict[str, Any]) -> None:
    """Take reasoning in its three forms: an effort, an object, a switch. What they say beyond the neutral
    form stays under their keys."""
    effort = take(rest, "reasoning_effort", text)
    facts: dict[str, Any] = {} if effort is None else {"effort": effort}
    left: dict[str, Any] = {}
    for key, read in (("reasoning", _reasoning_object), ("thinking", _thinking_switch)):
        value = take(rest, key, mapping)
        if value is not None:
            inner = dict(value)
            read(inner, facts)
            if inner or not value:
                left[key] = inner
    if facts or left:
        fields["thinking"] = Thinking(**facts, extra={NAME: left} if left else {})


_REASONING: tuple[tuple[str, str, Reader[Any]], ...] = (
    ("effort", "effort", text),
    ("max_tokens", "budget_tokens", whole),
    ("enabled", "enabled", flag),
)


def _reasoning_object(inner: dict[str, Any], facts: dict[str, Any]) -> None:
    """Take what is known of it; what another form has said otherwise stays."""
    for key, field, read in _REASONING:
        value = told(inner, key, read, "reasoning")
        if value is not None and facts.setdefault(field, value) == value:
            del inner[key]


def _thinking_switch(inner: dict[str, Any], facts: dict[str, Any]) -> None:
    """The same. A position that is neither on nor off is a mode; it stays too, as this dialect has no other
    place for it."""
    kind = inner.get("type")
    if kind in ("enabled", "disabled"):
        if facts.setdefault("enabled", kind == "enabled") == (kind == "enabled"):
            del inner["type"]
    elif kind is not None:
        facts["mode"] = text(kind, "thinking.type")
    budget = told(inner, "budget_tokens", whole, "thinking")
    if budget is not None and facts.setdefault("budget_tokens", budget) == budget:
        del inner["budget_tokens"]
