"""A neutral request as the body of a chat call, with the losses. It branches on options, never on names."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import UNSET, Raw

from polyvox.dialects import (
    Encoded,
    Endpoint,
    Wire,
    decode_json,
    request_body,
)
from polyvox.dialects.bound import missed, own_keys
from polyvox.dialects.plain import plain_words
from polyvox.errors import BadResponseError, InputError
from polyvox.types import (
    File,
    Image,
    Loss,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Request,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)

NAME = "ollama.chat"
PATH = "/api/chat"

Losses = list[Loss]
_AS_THEY_ARE = ("user", "assistant", "system")  # roles that mean the same here


# Neutral field -> name in `options`, where the value goes over as it is.
OPTIONS = (
    ("max_tokens", "num_predict"),
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("top_k", "top_k"),
    ("seed", "seed"),
    ("stop", "stop"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
)
SAME = ("logprobs", "top_logprobs")
# Fields without a place here, the value that needs none, and why it is lost.
_UNSAID: tuple[tuple[str, Any, Loss], ...] = (
    ("n", 1, Loss("n", "there is one answer a call here")),
    ("logit_bias", {}, Loss("logit_bias", "there is no logit_bias here")),
    ("modalities", ("text",), Loss("modalities", "answers are text here")),
    ("audio", {}, Loss("audio", "answers are text here")),
    ("verbosity", "medium", Loss("verbosity", "there is no verbosity here")),
    ("parallel_tool_calls", True, Loss("parallel_tool_calls", "parallel calls cannot be switched off here")),
    ("user", "", Loss("user", "there are no end users here", "note")),
    ("metadata", {}, Loss("metadata", "there are no tags here", "note")),
    ("service_tier", "auto", Loss("service_tier", "there are no tiers here", "note")),
    ("cache_key", "", Loss("cache_key", "the prompt cache has no keys here", "note")),
    ("cache", UNSET, Loss("cache", "the prompt cache is automatic here", "note")),
)
_LEVELS = ("low", "medium", "high")
_NEAREST = {"minimal": "low", "xhigh": "high", "max": "high"}
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}  # of a function that takes none
_FREE_TEXT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


def encode_request(request: Request, at: Endpoint) -> Encoded:
    """See `ClientSide.encode_request`. The server streams unless told not to, so `stream` is always said."""
    if not request.model:
        raise InputError("the request names no model", param="model", hint="give the model that is to answer")
    losses: Losses = []
    body: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(request.messages, at, losses),
        "stream": request.stream,
    }
    if tools := _tools(request, losses):
        body["tools"] = tools
    if request.response_format is not UNSET:
        _response_format(request.response_format, body, losses)
    if request.thinking is not UNSET:
        _thinking(request.thinking, body, at, losses)
    for field in SAME:
        if (value := getattr(request, field)) is not UNSET:
            body[field] = value
    for field, harmless, loss in _UNSAID:
        if getattr(request, field) not in (UNSET, harmless):
            losses.append(loss)
    options = {name: getattr(request, field) for field, name in OPTIONS if getattr(request, field) is not UNSET}
    if "num_ctx" in at.options:
        options["num_ctx"] = at.options["num_ctx"]
    if options:
        body["options"] = options
    if "keep_alive" in at.options:
        body["keep_alive"] = at.options["keep_alive"]
    losses += missed(request.extra, NAME)
    own = own_keys(request.extra, NAME, losses, "")
    if isinstance(own.get("options"), dict):
        own = {**own, "options": {**options, **own["options"]}}
    body.update(own)
    accept = "application/x-ndjson" if request.stream else "application/json"
    headers = {"content-type": "application/json", "accept": accept}
    return Encoded(Wire(at.options.get("path", PATH), request_body(body), headers), tuple(losses))


def _tools(request: Request, losses: Losses) -> list[Any]:
    """The tools to offer. Offering fewer is all the choice there is in this dialect."""
    choice, tools = request.tool_choice, list(enumerate(request.tools))
    if choice is not UNSET:
        if choice.mode == "none":
            losses.append(Loss("tool_choice", "there is no tool choice here; no tools are offered", "note"))
            return []
        if choice.names:
            offered = {tool.name for _, tool in tools if isinstance(tool, Tool)}
            if missing := [name for name in choice.names if name not in offered]:
                raise InputError(f"tool_choice names {missing[0]!r}, which is not among the tools")
            tools = [(i, tool) for i, tool in tools if isinstance(tool, Tool) and tool.name in choice.names]
        if choice.mode == "required":
            losses.append(Loss("tool_choice", "the model cannot be made to call a tool here"))
        elif choice.names:
            losses.append(Loss("tool_choice", "only the named tools are offered", "note"))
    return [wire for i, tool in tools if (wire := _tool(tool, losses, f"tools[{i}]")) is not None]


def _tool(tool: Tool | Opaque, losses: Losses, where: str) -> Any:
    if isinstance(tool, Opaque):
        if tool.dialect == NAME:
            return tool.raw
        losses.append(Loss(where, f"{tool.type!r} is a tool of {tool.dialect}"))
        return None
    inner: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        inner["description"] = tool.description
    inner["parameters"] = tool.parameters or NO_PARAMETERS
    if tool.kind == "custom":
        losses.append(Loss(f"{where}.kind", "tools take objects here; offered as a function of one string"))
        inner["parameters"] = _FREE_TEXT
    if tool.strict is True:
        losses.append(Loss(f"{where}.strict", "arguments are not held to the schema here"))
    if tool.cache is not None:
        losses.append(Loss(f"{where}.cache", "the prompt cache is automatic here", "note"))
    own = own_keys(tool.extra, NAME, losses, where + ".")
    return {"type": "function", "function": {**inner, **own.pop("function", {})}, **own}


def _response_format(wanted: ResponseFormat, body: dict[str, Any], losses: Losses) -> None:
    if wanted.kind != "text":
        body["format"] = wanted.schema if wanted.kind == "schema" and wanted.schema is not None else "json"
    for field, usual in (("name", ResponseFormat().name), ("description", None)):
        if wanted.kind == "schema" and getattr(wanted, field) != usual:
            losses.append(Loss(f"response_format.{field}", "the schema is all that is sent", "note"))
    if wanted.strict is False and wanted.kind == "schema":
        losses.append(Loss("response_format.strict", "answers are always held to the schema here", "note"))
    body.update(own_keys(wanted.extra, NAME, losses, "response_format."))


def _thinking(wanted: Thinking, body: dict[str, Any], at: Endpoint, losses: Losses) -> None:
    levels = tuple(at.options.get("think_levels", _LEVELS))
    effort = wanted.effort
    if wanted.enabled is False or effort == "none":
        body["think"] = False
    elif effort is not UNSET:
        body["think"] = effort if effort in levels else _NEAREST.get(effort, effort)
        if effort not in levels and effort in _NEAREST:
            losses.append(Loss("thinking.effort", f"{effort!r} is not known here; {body['think']!r} is sent"))
    elif wanted.enabled is True:
        body["think"] = True
    if wanted.budget_tokens is not UNSET:
        losses.append(Loss("thinking.budget_tokens", "there is no token budget for thinking here"))
    if wanted.mode is not UNSET:
        losses.append(Loss("thinking.mode", "there are no modes of thinking here"))
    body.update(own_keys(wanted.extra, NAME, losses, "thinking."))


# ---- messages ---------------------------------------------------------------------------------


class Turn(NamedTuple):
    """A message being written: its pieces so far and what belongs to it. `writers` says how each part is put in."""

    at: Endpoint
    losses: Losses
    writers: Mapping[type[Part], Callable[..., None]]
    words: list[str]
    images: list[str]
    thoughts: list[str]
    calls: list[dict[str, Any]]
    raw: dict[str, Any]


def new_turn(at: Endpoint, losses: Losses, writers: Mapping[type[Part], Callable[..., None]] | None = None) -> Turn:
    """A message of which nothing is written yet; `writers` are those of a request unless others are given."""
    return Turn(at, losses, writers or PARTS, [], [], [], [], {})


def _messages(messages: tuple[Message, ...], at: Endpoint, losses: Losses) -> list[dict[str, Any]]:
    names: dict[str, str] = {}
    found: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        # The common case, and the hot one: plain words from somebody.
        if message.role in _AS_THEY_ARE and (text := plain_words(message)) is not None:
            found.append({"role": message.role, "content": text})
            continue
        turn, where, beside, any_result = new_turn(at, losses), f"messages[{i}]", [], False
        for j, part in enumerate(message.parts):
            spot = f"{where}.parts[{j}]"
            if isinstance(part, ToolResult):
                any_result = True
                wire, pictures = _tool_result(part, names, at, losses, spot)
                found.append(wire)
                beside += pictures
            else:
                put(part, turn, spot)
            if isinstance(part, ToolCall):
                # As of here: calls of servers without ids are numbered from 0 in every answer.
                names[part.id] = part.name
        if any_result and not (turn.words or turn.images or turn.calls or turn.thoughts or turn.raw):
            found[-1].update(own_keys(message.extra, NAME, losses, where + "."))
            found += beside
        else:
            found += [*beside, message_of(message, turn, where)]
    return found


def message_of(message: Message, turn: Turn, where: str) -> dict[str, Any]:
    """What was put into the turn as one message of the wire, with what the message itself says."""
    wire: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": "".join(turn.words),
    }
    if turn.thoughts:
        wire["thinking"] = "".join(turn.thoughts)
    if turn.images:
        wire["images"] = turn.images
    if turn.calls:
        wire["tool_calls"] = turn.calls
    if message.name is not None:
        if message.role == "tool":
            wire["tool_name"] = message.name
        else:
            turn.losses.append(Loss(f"{where}.name", "speakers have no names here"))
    wire.update(turn.raw)
    wire.update(own_keys(message.extra, NAME, turn.losses, where + "."))
    if message.role == "developer" and wire["role"] == "system":
        turn.losses.append(Loss(f"{where}.role", "few servers know a developer: sent as the system's", "note"))
    return wire


def put(part: Part, turn: Turn, where: str) -> None:
    """Put one part where the dialect has a place for it, or note that it has none."""
    write = turn.writers.get(type(part))
    if write is None:
        kind = part.__struct_config__.tag
        turn.losses.append(Loss(f"{where}.{kind}", f"{kind} cannot be sent in this dialect"))
        return
    write(part, turn, where)
    if getattr(part, "cache", None) is not None:
        turn.losses.append(Loss(f"{where}.cache", "the prompt cache is automatic here", "note"))
    if not isinstance(part, ToolCall | Opaque) and part.extra:
        put_beside(own_keys(part.extra, NAME, turn.losses, where + "."), turn)


def _text(part: Text, turn: Turn, where: str) -> None:
    turn.words.append(part.text)
    if part.citations:
        turn.losses.append(Loss(f"{where}.citations", "sources cannot be sent in this dialect", "note"))
    if part.signature is not None:
        turn.losses.append(Loss(f"{where}.signature", f"bound to {part.origin or 'another dialect'}"))


def _refusal(part: Refusal, turn: Turn, where: str) -> None:
    turn.words.append(part.text)
    turn.losses.append(Loss(f"{where}.refusal", "a refusal is plain text here", "note"))


def _image(part: Image, turn: Turn, where: str) -> None:
    data = _image_data(part)
    if data is None:
        why = "pictures must be downloaded before they are sent here" if part.url else "there are no file ids here"
        turn.losses.append(Loss(f"{where}.image", why))
        return
    turn.images.append(data)
    if part.name is not None:
        turn.losses.append(Loss(f"{where}.name", "pictures have no names here", "note"))
    if part.detail not in (None, "auto"):
        turn.losses.append(Loss(f"{where}.detail", "there is no detail of pictures here", "note"))


def _image_data(part: Image) -> str | None:
    """The picture as bare base64, as the server wants it, or None when it is not at hand."""
    if part.data is not None:
        return base64.b64encode(part.data).decode("ascii")
    head, comma, data = (part.url or "").partition(",")
    return data if comma and head.startswith("data:") and head.endswith(";base64") else None


def _file(part: File, turn: Turn, where: str) -> None:
    text = part.text
    if text is None and part.data is not None and (part.media_type or "").startswith("text/"):
        text = part.data.decode("utf-8", "replace")
    if text is None:
        turn.losses.append(Loss(f"{where}.file", "only the text of a file can be sent here"))
        return
    turn.words.append(text)
    turn.losses.append(Loss(f"{where}.file", "sent as plain text", "note"))


def _reasoning(part: Reasoning, turn: Turn, where: str) -> None:
    """Thinking goes back only to the deployment that thought it; proofs are other dialects' business."""
    ours = part.origin == turn.at.origin if part.origin is not None else NAME in part.extra
    if ours and part.signature is None and part.encrypted is None:
        if part.text:
            turn.thoughts.append(part.text)
        return
    turn.losses.append(Loss(f"{where}.reasoning", f"bound to {part.origin or 'another dialect'}"))


def _call(part: ToolCall, turn: Turn, where: str) -> None:
    own = own_keys(part.extra, NAME, turn.losses, where + ".")
    inner = {"name": part.name, "arguments": _arguments(part, turn, where), **own.pop("function", {})}
    turn.calls.append({"id": part.id, "function": inner, **own})
    if part.signature is not None:
        turn.losses.append(Loss(f"{where}.signature", f"bound to {part.origin or 'another dialect'}"))


def _arguments(part: ToolCall, turn: Turn, where: str) -> Any:
    """The model's own bytes where they are an object; anything else travels as one string."""
    if part.kind == "function":
        if not part.arguments.strip():
            return {}
        try:
            if isinstance(decode_json(part.arguments), dict):
                return Raw(part.arguments.encode())
        except (BadResponseError, UnicodeEncodeError):
            pass
    turn.losses.append(Loss(f"{where}.arguments", "arguments are an object here; sent as its `input`"))
    return {"input": part.arguments}


def put_beside(keys: Mapping[str, Any], turn: Turn) -> None:
    """Keys of this dialect that have no neutral form; pictures and calls take their place among the others."""
    for key, value in keys.items():
        if key in _LISTS and isinstance(value, list):
            _LISTS[key](turn).extend(value)
        else:
            turn.raw[key] = value


_LISTS: dict[str, Callable[[Turn], list[Any]]] = {"images": attrgetter("images"), "tool_calls": attrgetter("calls")}


def _opaque(part: Opaque, turn: Turn, where: str) -> None:
    if part.dialect == NAME and isinstance(part.raw, dict):
        put_beside(part.raw, turn)
    else:
        turn.losses.append(Loss(f"{where}.opaque", f"{part.type!r} is a block of {part.dialect}"))


PARTS: dict[type[Part], Callable[..., None]] = {
    Text: _text, Refusal: _refusal, Image: _image, File: _file, Reasoning: _reasoning, ToolCall: _call, Opaque: _opaque,
}  # fmt: skip


def _tool_result(
    part: ToolResult, names: dict[str, str], at: Endpoint, losses: Losses, where: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The tool's message, and a user's message for the pictures a tool's cannot hold."""
    turn = new_turn(at, losses)
    for j, inner in enumerate(part.parts):
        if isinstance(inner, ToolCall | Reasoning):
            losses.append(Loss(f"{where}.parts[{j}]", "a tool result cannot hold it"))
        else:
            put(inner, turn, f"{where}.parts[{j}]")
    if part.is_error:
        losses.append(Loss(f"{where}.is_error", "there is no error flag here; the text says so", "note"))
    if part.cache is not None:
        losses.append(Loss(f"{where}.cache", "the prompt cache is automatic here", "note"))
    wire: dict[str, Any] = {"role": "tool", "content": ("error: " if part.is_error else "") + "".join(turn.words)}
    if (name := part.name or names.get(part.call_id)) is not None:
        wire["tool_name"] = name
    if part.call_id:
        wire["tool_call_id"] = part.call_id
    if turn.calls:
        wire["tool_calls"] = turn.calls
    wire.update(turn.raw)
    wire.update(own_keys(part.extra, NAME, losses, where + "."))
    if not turn.images:
        return wire, []
    losses.append(Loss(f"{where}.image", "a tool result holds text only here; sent as a user message", "note"))
    return wire, [{"role": "user", "content": f"From tool call {part.call_id}:", "images": turn.images}]
