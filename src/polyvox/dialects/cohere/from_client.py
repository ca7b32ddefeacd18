"""A client's chat call as a neutral request, the mirror of `request`; and what can be read or changed of it
without that. It knows nothing of who will answer.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs

from polyvox.dialects import Endpoint, Peek, Wire, client_object, encode_json, string
from polyvox.dialects.cohere.answer import (
    extra_of,
    keys_beside,
    message_of,
)
from polyvox.dialects.cohere.request import CHOICES, FIELDS, NAME, NO_PARAMETERS
from polyvox.dialects.cohere.rules import ROLES, check_shape
from polyvox.dialects.edits import set_in
from polyvox.dialects.shapes import missing, one_of
from polyvox.types import (
    Image,
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

# Keys with a neutral place; every other key goes to extra.
_TOP = frozenset({
    "model", "messages", "stream", "tools", "strict_tools", "tool_choice", "response_format", "thinking",
    *[key for _, key in FIELDS],
})  # fmt: skip
_SAID = frozenset({"role", "content"})
_RESULT = frozenset({"role", "content", "tool_call_id"})
_WHOLE = ("max_tokens", "top_k", "seed")
_MODES = {word: mode for mode, word in CHOICES.items()}
_DATA_URL = re.compile(r"data:([^,;]+);base64,(.+)", re.DOTALL)


# ---- without decoding -------------------------------------------------------------------------


class _Seen(Struct):
    model: Any = None
    stream: Any = None


_see = msgspec.json.Decoder(_Seen).decode


def peek(wire: Wire) -> Peek:
    """See `ServerSide.peek`. Streams always tell their usage."""
    try:
        seen = _see(wire.body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        body = client_object(wire)
        seen = _Seen(body.get("model"), body.get("stream"))
    return Peek(string(seen.model) or None, seen.stream is True, usage=True)


def edit(wire: Wire, model: str | None) -> Wire:
    """See `ServerSide.edit`. Usage needs no asking for here."""
    if model is None:
        return wire
    return structs.replace(wire, body=set_in(wire.body, ("model",), encode_json(model)))


# ---- the request ------------------------------------------------------------------------------


def decode_request(wire: Wire, at: Endpoint) -> Request:
    """See `ServerSide.decode_request`. Null is as good as nothing here."""
    body = client_object(wire)
    check_shape(body)
    said: dict[str, Any] = {field: UNSET if body.get(key) is None else body[key] for field, key in FIELDS}
    for field in _WHOLE:
        if said[field] is not UNSET:
            said[field] = int(said[field])
    if said["stop"] is not UNSET:
        said["stop"] = tuple(said["stop"])
    extra = keys_beside(body, _TOP)
    strict = body.get("strict_tools")
    tools = tuple([_tool(raw, f"tools[{i}]", at, strict) for i, raw in enumerate(body.get("tools") or ())])
    if strict is not None and not any(isinstance(tool, Tool) for tool in tools):
        extra["strict_tools"] = strict
    mode = _MODES.get(body.get("tool_choice") or "")
    return Request(
        model=body["model"],
        messages=_messages(body["messages"], at),
        tools=tools,
        tool_choice=UNSET if mode is None else ToolChoice(cast(Any, mode)),
        response_format=_response_format(body.get("response_format")),
        thinking=_thinking(body.get("thinking")),
        stream=body.get("stream") is True,
        extra=extra_of(extra),
        **said,
    )


def _response_format(raw: dict[str, Any] | None) -> ResponseFormat | UnsetType:
    if raw is None:
        return UNSET
    if raw["type"] == "text":
        return ResponseFormat("text", extra=extra_of(keys_beside(raw, frozenset({"type"}))))
    schema = raw.get("json_schema")
    extra = extra_of(keys_beside(raw, frozenset({"type", "json_schema"})))
    return ResponseFormat("json" if schema is None else "schema", schema, extra=extra)


def _thinking(raw: dict[str, Any] | None) -> Thinking | UnsetType:
    if raw is None:
        return UNSET
    budget = raw.get("token_budget")
    return Thinking(
        enabled=raw["type"] == "enabled",
        budget_tokens=UNSET if budget is None else int(budget),
        extra=extra_of(keys_beside(raw, frozenset({"type", "token_budget"}))),
    )


def _tool(raw: dict[str, Any], where: str, at: Endpoint, strict: bool | None) -> Tool | Opaque:
    kind = raw.get("type") or "function"
    if kind != "function":
        return Opaque(NAME, kind, raw, at.origin)
    function = raw.get("function") or {}
    if function.get("name") is None:
        raise missing(f"{where}.function.name")
    parameters = function.get("parameters") or {}
    extra = keys_beside(raw, frozenset({"type", "function"}))
    if inner := keys_beside(function, frozenset({"name", "description", "parameters"})):
        extra["function"] = inner
    return Tool(
        name=function["name"],
        description=function.get("description"),
        parameters={} if parameters == NO_PARAMETERS else parameters,
        strict=UNSET if strict is None else strict,
        extra=extra_of(extra),
    )


# ---- messages ---------------------------------------------------------------------------------


def _messages(raws: list[dict[str, Any]], at: Endpoint) -> tuple[Message, ...]:
    found: list[Message] = []
    for i, raw in enumerate(raws):
        where = f"messages[{i}]"
        role = cast(Role, one_of(*ROLES)(raw.get("role"), f"{where}.role"))
        if role == "tool":
            found.append(Message("tool", (_result(raw, where, at),)))
        elif role == "assistant":
            found.append(_assistant(raw, at))
        else:
            parts = _content(raw.get("content"), at)
            found.append(Message(role, parts, extra=extra_of(keys_beside(raw, _SAID))))
    return tuple(found)


def _content(raw: str | list[dict[str, Any]] | None, at: Endpoint) -> tuple[Part, ...]:
    """Content of anything but an assistant's message, whose content is one of an answer."""
    if isinstance(raw, str):
        return (Text(raw),) if raw else ()
    return tuple([_item(item, at) for item in raw or ()])


def _item(raw: dict[str, Any], at: Endpoint) -> Part:
    read = _READ.get(raw["type"])
    return Opaque(NAME, raw["type"], raw, at.origin) if read is None else read(raw)


def _text(raw: dict[str, Any]) -> Part:
    return Text(raw["text"], extra=extra_of(keys_beside(raw, frozenset({"type", "text"}))))


def _image(raw: dict[str, Any]) -> Part:
    inner = raw["image_url"]
    extra = keys_beside(raw, frozenset({"type", "image_url"}))
    if odd := keys_beside(inner, frozenset({"url", "detail"})):
        extra["image_url"] = odd
    return Image(**_located(inner["url"]), detail=inner.get("detail"), extra=extra_of(extra))


def _located(url: str) -> dict[str, Any]:
    """What a URL says: the bytes of a data URL that can be read, else itself."""
    found = _DATA_URL.fullmatch(url)
    if found is None:
        return {"url": url}
    try:
        return {"data": base64.b64decode(found[2], validate=True), "media_type": found[1]}
    except ValueError:
        return {"url": url}


_READ: dict[str, Callable[[dict[str, Any]], Part]] = {"text": _text, "image_url": _image}


def _assistant(raw: dict[str, Any], at: Endpoint) -> Message:
    parts, beside = message_of(raw, at)
    return Message("assistant", tuple([_called(part) for part in parts]), extra=extra_of(beside))


def _called(part: Part) -> Part:
    """A call without arguments has an empty object of them."""
    blank = isinstance(part, ToolCall) and not part.arguments.strip()
    return structs.replace(part, arguments="{}") if blank else part


def _result(raw: dict[str, Any], where: str, at: Endpoint) -> ToolResult:
    call_id = raw.get("tool_call_id")
    if call_id is None:
        raise missing(f"{where}.tool_call_id")
    return ToolResult(call_id, _content(raw.get("content"), at), extra=extra_of(keys_beside(raw, _RESULT)))
