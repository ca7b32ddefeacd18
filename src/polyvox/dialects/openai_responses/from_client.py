"""A client's Responses request as a neutral one, and what can be told or changed of it without reading it all: the
mirror of `request`. What the protocol's inventor refuses is told in `rules`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct

from polyvox.dialects import Endpoint, Peek, Wire, client_object, encode_json
from polyvox.dialects.edits import set_in
from polyvox.dialects.openai_responses.facts import FORMATS, NAME, NO_PARAMETERS, SAME, WITH_LOGPROBS, extra_of
from polyvox.dialects.openai_responses.request import tool_choice_said
from polyvox.dialects.openai_responses.turns_from_client import messages_of
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
    whole,
)
from polyvox.types import Opaque, Request, ResponseFormat, Thinking, Tool, ToolChoice

Json = dict[str, Any]


class _Asked(Struct, gc=False):
    """The keys that say what is asked of whom; of any type, as a client may send anything."""

    model: Any = None
    stream: Any = None


_asked = msgspec.json.Decoder(_Asked).decode


def peek(wire: Wire) -> Peek:
    """See `ServerSide.peek`. A key of the wrong type counts as absent; an answer always tells its usage."""
    try:
        asked = _asked(wire.body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        asked = msgspec.convert(client_object(wire), _Asked)
    return Peek(asked.model if isinstance(asked.model, str) else None, asked.stream is True)


def edit(wire: Wire, model: str | None) -> Wire:
    """See `ServerSide.edit`."""
    if model is None:
        return wire
    return msgspec.structs.replace(wire, body=set_in(wire.body, ("model",), encode_json(model)))


def decode_request(wire: Wire, at: Endpoint) -> Request:
    """See `ServerSide.decode_request`. What is taken from the body is read; what is left goes to extra."""
    rest = client_object(wire)
    fields: Json = {}
    try:
        # A stored prompt may name the model.
        model = (take(rest, "model", text) or "") if rest.get("prompt") else text(rest.pop("model", None), "model")
        messages = messages_of(rest.pop("input", None), take(rest, "instructions", text), at)
        if rest:
            for field, key in SAME:
                if key in rest and (value := take(rest, key, _READ[field])) is not None:
                    fields[field] = value
            _tools(rest, fields, at)
            _thinking(rest, fields)
            _text(rest, fields)
            _include(rest, fields)
            _user(rest, fields, at)
            fields["stream"] = take(rest, "stream", flag) is True
    except UnfitError as error:
        error.code = error.fault
        raise
    if rest:
        fields["extra"] = {NAME: rest}
    return Request(model, messages, **fields)


_READ: dict[str, Reader[Any]] = {
    "max_tokens": whole, "temperature": number, "top_p": number, "top_logprobs": whole, "parallel_tool_calls": flag,
    "service_tier": text, "metadata": by_name(text), "cache_key": text,
}  # fmt: skip


def _include(rest: Json, fields: Json) -> None:
    """Take what is asked to be included beside the words, as far as it has a field of its own."""
    wanted = take(rest, "include", texts)
    if wanted is None:
        return
    left = [word for word in wanted if word != WITH_LOGPROBS]
    if len(left) < len(wanted):
        fields["logprobs"] = True
    if left or not wanted:
        rest["include"] = left


def _user(rest: Json, fields: Json, at: Endpoint) -> None:
    """Take the end user's id. Of two spellings the first counts, the other stays."""
    for key in (at.options.get("user_field", "user"), "user", "safety_identifier"):
        if rest.get(key) is None:
            rest.pop(key, None)
        elif "user" not in fields:
            fields["user"] = text(rest.pop(key), key)


# ---- tools ------------------------------------------------------------------------------------


def _tools(rest: Json, fields: Json, at: Endpoint) -> None:
    found = tuple([_tool(tool, f"tools[{i}]", at) for i, tool in enumerate(take(rest, "tools", sequence) or ())])
    if found:
        fields["tools"] = found
    raw = rest.pop("tool_choice", None)
    if raw is None:
        return
    choice = _tool_choice(raw)
    if choice is not None:
        fields["tool_choice"] = choice
    # The choice stays, too, where it says more than the neutral form can.
    if choice is None or tool_choice_said(choice, found) != raw:
        rest["tool_choice"] = raw


def _tool(raw: Any, where: str, at: Endpoint) -> Tool | Opaque:
    rest = dict(mapping(raw, where))
    kind = text(rest.pop("type", None), f"{where}.type")
    if kind not in ("function", "custom"):
        return Opaque(NAME, kind, raw, at.origin)
    name, description = text(rest.pop("name", None), f"{where}.name"), take(rest, "description", text, where)
    if kind == "custom":
        form = take(rest, "format", mapping, where)
        return Tool(name, description, kind="custom", format=form, extra=extra_of(rest))
    parameters = take(rest, "parameters", mapping, where)
    strict = take(rest, "strict", flag, where)
    if strict is None:
        rest["strict"] = None  # unsaid is not false here: the server makes of it what it can
    known = {} if parameters is None or parameters == NO_PARAMETERS else parameters
    return Tool(name, description, known, True if strict else UNSET, extra=extra_of(rest))


_MODES: dict[str, Literal["none", "auto", "required"]] = {"none": "none", "auto": "auto", "required": "required"}
_MODE, _SUBSET_MODE = one_of(*_MODES), one_of("auto", "required")


def _tool_choice(raw: Any) -> ToolChoice | None:
    """The neutral form of a choice; None for one of a server's tool, which has none."""
    if isinstance(raw, str):
        return ToolChoice(_MODES[_MODE(raw, "tool_choice")])
    kind = needed(mapping(raw, "tool_choice"), "type", text, "tool_choice")
    if kind in ("function", "custom"):
        return ToolChoice("required", (needed(raw, "name", text, "tool_choice"),))
    if kind != "allowed_tools":
        return None
    mode = needed(raw, "mode", _SUBSET_MODE, "tool_choice")
    wanted = needed(raw, "tools", sequence, "tool_choice")
    names = tuple([name for name in map(_name_in, wanted) if name is not None])
    return ToolChoice(_MODES[mode], names, subset=True) if names and len(names) == len(wanted) else None


def _name_in(raw: Any) -> str | None:
    """The name in a reference to a tool, or None for a reference to another kind of tool."""
    name = raw.get("name") if isinstance(raw, dict) and raw.get("type") in ("function", "custom") else None
    return name if isinstance(name, str) else None


# ---- reasoning, and how the answer is written -------------------------------------------------

_KINDS = {word: kind for kind, word in FORMATS.items()}


def _thinking(rest: Json, fields: Json) -> None:
    raw = take(rest, "reasoning", mapping)
    if raw is None:
        return
    left = dict(raw)
    effort = take(left, "effort", text, "reasoning")
    if effort is not None or left:
        fields["thinking"] = Thinking(UNSET if effort is None else effort, extra=extra_of(left))


def _text(rest: Json, fields: Json) -> None:
    raw = take(rest, "text", mapping)
    if raw is None:
        return
    left = dict(raw)
    verbosity = take(left, "verbosity", text, "text")
    if verbosity is not None:
        fields["verbosity"] = verbosity
    _format(left, fields)
    if left:
        rest["text"] = left


def _format(left: Json, fields: Json) -> None:
    """Take the format; one nobody else knows (a grammar, say) stays."""
    raw = left.get("format")
    if raw is None:
        left.pop("format", None)
        return
    where = "text.format"
    kind = needed(mapping(raw, where), "type", text, where)
    if kind not in _KINDS:
        return
    del left["format"]
    inner = {key: value for key, value in raw.items() if key != "type"}
    facts: Json = {}
    if kind == "json_schema":
        for key, read in _SCHEMA:
            if (value := take(inner, key, read, where)) is not None:
                facts[key] = value
    fields["response_format"] = ResponseFormat(_KINDS[kind], extra=extra_of(inner), **facts)


_SCHEMA: tuple[tuple[str, Reader[Any]], ...] = (
    ("name", text), ("schema", mapping), ("description", text), ("strict", flag),
)  # fmt: skip
