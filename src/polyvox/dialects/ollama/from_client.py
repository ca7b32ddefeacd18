"""A client's chat call as a neutral request, the mirror of `request`; and what can be read or changed of it
without that. It knows nothing of who will answer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs

from polyvox.dialects import Endpoint, Peek, Wire, client_object, encode_json, string
from polyvox.dialects.edits import set_in
from polyvox.dialects.ollama.answer import (
    CALLED,
    MESSAGE,
    call_of,
    fresh_id,
    image_of,
    keys_beside,
    mark_of,
    texts_of_request,
)
from polyvox.dialects.ollama.request import NAME, NO_PARAMETERS, OPTIONS, SAME
from polyvox.dialects.ollama.rules import INTEGERS, check_format, check_role, check_shape, read_image
from polyvox.dialects.shapes import missing, wrong, wrong_type
from polyvox.types import (
    Extra,
    Message,
    Opaque,
    Part,
    Reasoning,
    Request,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolResult,
)

# Keys with a neutral place; every other key goes to extra.
_TOP = frozenset({"model", "messages", "stream", "tools", "format", "think", "options", *SAME})
_RESULT = frozenset({"role", "content", "images", "tool_name", "tool_call_id"})


# ---- without decoding -------------------------------------------------------------------------


class _Seen(Struct):
    model: Any = None
    stream: Any = None


_see = msgspec.json.Decoder(_Seen).decode


def peek(wire: Wire) -> Peek:
    """See `ServerSide.peek`. Answers stream unless the client says otherwise, and always tell their usage."""
    try:
        seen = _see(wire.body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        body = client_object(wire)
        seen = _Seen(body.get("model"), body.get("stream"))
    return Peek(string(seen.model) or None, seen.stream is not False, usage=True)


def edit(wire: Wire, model: str | None) -> Wire:
    """See `ServerSide.edit`. Usage needs no asking for here."""
    if model is None:
        return wire
    return structs.replace(wire, body=set_in(wire.body, ("model",), encode_json(model)))


# ---- the request ------------------------------------------------------------------------------


def decode_request(wire: Wire, at: Endpoint) -> Request:
    """See `ServerSide.decode_request`. Null is as good as nothing here: the server takes it for a key left out."""
    body = client_object(wire)
    check_shape(body)
    check_format(body.get("format"))
    options = dict(body.get("options") or {})
    said: dict[str, Any] = {field: _option(options, name) for field, name in OPTIONS if name in options}
    for field in SAME:
        said[field] = UNSET if body.get(field) is None else body[field]
    if said["top_logprobs"] is not UNSET:
        said["top_logprobs"] = int(said["top_logprobs"])
    extra = keys_beside(body, _TOP)
    if left := keys_beside(options, frozenset()):
        extra["options"] = left
    return Request(
        model=body["model"],
        messages=_messages(body.get("messages") or [], wire.body, at),
        tools=tuple([_tool(raw, f"tools[{i}]", at) for i, raw in enumerate(body.get("tools") or ())]),
        response_format=_response_format(body.get("format")),
        thinking=_thinking(body.get("think")),
        stream=body.get("stream") is not False,
        extra=_extra(extra),
        **said,
    )


def _option(options: dict[str, Any], name: str) -> Any:
    """Take the option out, as its neutral field has it."""
    value = options.pop(name, None)
    if value is None:
        return UNSET
    if name == "num_predict" and value < 0:
        # Not a number of tokens: it asks for an answer of any length.
        options[name] = value
        return UNSET
    if name == "stop":
        return tuple(value)
    return int(value) if name in INTEGERS else value


def _extra(keys: dict[str, Any]) -> Extra:
    return {NAME: keys} if keys else {}


def _response_format(value: str | dict[str, Any] | None) -> ResponseFormat | UnsetType:
    if isinstance(value, dict):
        return ResponseFormat("schema", value)
    return ResponseFormat("json") if value else UNSET


def _thinking(value: Any) -> Thinking | UnsetType:
    if value is None:
        return UNSET
    if isinstance(value, bool):
        return Thinking(enabled=value)
    if isinstance(value, str) and value:
        return Thinking(effort=value)
    raise wrong("think", "must be true, false or a level")


def _tool(raw: dict[str, Any], where: str, at: Endpoint) -> Tool | Opaque:
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
        extra=_extra(extra),
    )


# ---- messages ---------------------------------------------------------------------------------


class _Waiting(NamedTuple):
    """A call without a result yet: the id the client knows it by, the id it has here, and its name."""

    known_as: str
    call_id: str
    name: str


class _Conversation:
    """The calls so far: names those without ids, and finds the call that a result answers."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self._turn: set[str] = set()
        self._waiting: list[_Waiting] = []

    def new_turn(self) -> None:
        """A turn with calls begins; what was not answered before it will not be."""
        self._turn = set()
        self._waiting = []

    def called(self, given: str | None, name: str) -> str:
        """The id of a call. A client's own may come again in a later turn; one made up here is never an earlier one."""
        call_id = fresh_id(given, self._turn if given else self.names)
        self.names[call_id] = name
        self._turn.add(call_id)
        self._waiting.append(_Waiting(given or call_id, call_id, name))
        return call_id

    def answered(self, given: str | None, name: str | None) -> str:
        """The id of the call that a result is for: the one it names by id, else the first that waits, and has the
        result's name if that has one. The id as it was given, or "", where none waits.
        """
        for i, call in enumerate(self._waiting):
            fits = call.known_as == given if given else name in (None, call.name)
            if fits:
                return self._waiting.pop(i).call_id
        return given or ""


def _messages(raws: list[dict[str, Any]], data: bytes, at: Endpoint) -> tuple[Message, ...]:
    texts = texts_of_request(data) if b'"tool_calls"' in data else []
    so_far = _Conversation()
    found: list[Message] = []
    for i, raw in enumerate(raws):
        where = f"messages[{i}]"
        role = check_role(raw, where)
        if role == "tool":
            found.append(Message("tool", (_result(raw, where, so_far),)))
            continue
        parts: list[Part] = []
        if raw.get("thinking"):
            parts.append(Reasoning(raw["thinking"], **mark_of(at)))
        parts += _words_and_images(raw, where)
        if raw.get("tool_calls"):
            parts += _tool_calls(raw["tool_calls"], texts[i] if texts else [], where, so_far, at)
        extra = keys_beside(raw, MESSAGE)
        if role == "developer":
            # Only some models' templates know it, so instructions of other dialects are sent as system; this
            # client wants it said.
            extra["role"] = role
        found.append(Message(role, tuple(parts), extra=_extra(extra)))
    return tuple(found)


def _words_and_images(raw: dict[str, Any], where: str) -> list[Part]:
    parts: list[Part] = [Text(raw["content"])] if raw.get("content") else []
    for j, image in enumerate(raw.get("images") or ()):
        parts.append(image_of(read_image(image, f"{where}.images[{j}]")))
    return parts


def _tool_calls(
    raws: list[dict[str, Any]], texts: list[str], where: str, so_far: _Conversation, at: Endpoint
) -> list[Part]:
    so_far.new_turn()
    found: list[Part] = []
    for j, raw in enumerate(raws):
        spot = f"{where}.tool_calls[{j}]"
        function = raw.get("function")
        if function is None:
            found.append(Opaque(NAME, "tool_call", {"tool_calls": [raw]}, at.origin))
            continue
        if function.get("name") is None:
            raise missing(f"{spot}.function.name")
        if not isinstance(function.get("arguments"), str | dict | None):
            raise wrong_type(function["arguments"], f"{spot}.function.arguments", "an object")
        call_id = so_far.called(raw.get("id") or None, function["name"])
        # The index is the place in the list, where it says anything.
        known = CALLED if function.get("index") in (None, j) else CALLED - {"index"}
        called = call_of(raw, call_id, texts[j] if texts else None, known)
        found.append(called if called.arguments.strip() else structs.replace(called, arguments="{}"))
    return found


def _result(raw: dict[str, Any], where: str, so_far: _Conversation) -> ToolResult:
    """The message of a tool; its name is left out where the call tells it, as it is told again from there."""
    name = raw.get("tool_name") or None
    call_id = so_far.answered(raw.get("tool_call_id") or None, name)
    return ToolResult(
        call_id,
        tuple(_words_and_images(raw, where)),
        name=None if name == so_far.names.get(call_id) else name,
        extra=_extra(keys_beside(raw, _RESULT)),
    )
