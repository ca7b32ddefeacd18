"""A neutral request as the body of a chat call, with the losses. It branches on options, never on names."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from msgspec import UNSET

from polyvox.dialects import Encoded, Endpoint, Wire, decode_json, encode_json, request_body
from polyvox.dialects.bound import missed, own_keys
from polyvox.dialects.plain import plain_words as words_of
from polyvox.errors import BadResponseError, InputError
from polyvox.types import (
    Citation,
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

NAME = "cohere.chat"
PATH = "/v2/chat"
PLAN = "tool_plan"

Losses = list[Loss]

# Neutral field -> key of the body, where the value goes over as it is.
FIELDS = (
    ("max_tokens", "max_tokens"),
    ("temperature", "temperature"),
    ("top_p", "p"),
    ("top_k", "k"),
    ("stop", "stop_sequences"),
    ("seed", "seed"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("logprobs", "logprobs"),
)
# Fields without a place here, the value that needs none, and why it is lost.
_UNSAID: tuple[tuple[str, Any, Loss], ...] = (
    ("n", 1, Loss("n", "there is one answer a call here")),
    ("logit_bias", {}, Loss("logit_bias", "there is no logit_bias here")),
    ("top_logprobs", 0, Loss("top_logprobs", "there are no alternatives to a token here")),
    ("modalities", ("text",), Loss("modalities", "answers are text here")),
    ("audio", {}, Loss("audio", "answers are text here")),
    ("verbosity", "medium", Loss("verbosity", "there is no verbosity here")),
    ("parallel_tool_calls", True, Loss("parallel_tool_calls", "parallel calls cannot be switched off here")),
    ("user", "", Loss("user", "there are no end users here", "note")),
    ("metadata", {}, Loss("metadata", "there are no tags here", "note")),
    ("service_tier", "auto", Loss("service_tier", "there are no tiers here; extra takes a `priority`", "note")),
    ("cache_key", "", Loss("cache_key", "the prompt cache has no keys here", "note")),
    ("cache", UNSET, Loss("cache", "the prompt cache is automatic here", "note")),
)
CHOICES = {"none": "NONE", "required": "REQUIRED"}
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}  # of a function that takes none
_FREE_TEXT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


def encode_request(request: Request, at: Endpoint) -> Encoded:
    """See `ClientSide.encode_request`."""
    if not request.model:
        raise InputError("the request names no model", param="model", hint="give the model that is to answer")
    losses: Losses = []
    body: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(request.messages, at, losses),
        "stream": request.stream,
    }
    _tools(request, body, losses)
    if request.response_format is not UNSET:
        body["response_format"] = _response_format(request.response_format, losses)
    if request.thinking is not UNSET and (thinking := _thinking(request.thinking, losses)):
        body["thinking"] = thinking
    for field, key in FIELDS:
        if (value := getattr(request, field)) is not UNSET:
            body[key] = value
    for field, harmless, loss in _UNSAID:
        value = getattr(request, field)
        if value is not UNSET and value != harmless:
            losses.append(loss)
    losses += missed(request.extra, NAME)
    body.update(own_keys(request.extra, NAME, losses, ""))
    accept = "text/event-stream" if request.stream else "application/json"
    headers = {"content-type": "application/json", "accept": accept}
    return Encoded(Wire(at.options.get("path", PATH), request_body(body), headers), tuple(losses))


# ---- tools, form, thinking --------------------------------------------------------------------


def _tools(request: Request, body: dict[str, Any], losses: Losses) -> None:
    choice, tools = request.tool_choice, list(enumerate(request.tools))
    if choice is not UNSET:
        if choice.names:
            tools = _named(request, losses)
        if choice.mode in CHOICES:
            body["tool_choice"] = CHOICES[choice.mode]
    if wire := [said for i, tool in tools if (said := _tool(tool, losses, f"tools[{i}]")) is not None]:
        body["tools"] = wire
    strict = {i: tool.strict for i, tool in tools if isinstance(tool, Tool) and tool.strict is not UNSET}
    if strict:
        body["strict_tools"] = any(strict.values())
        why = "all tools are held to their schemas here, or none"
        losses += [Loss(f"tools[{i}].strict", why) for i, said in strict.items() if said != body["strict_tools"]]
        if body["strict_tools"]:
            unsaid = [i for i, tool in tools if isinstance(tool, Tool) and tool.strict is UNSET]
            losses += [Loss(f"tools[{i}].strict", why, "note") for i in unsaid]


def _named(request: Request, losses: Losses) -> list[tuple[int, Tool | Opaque]]:
    """The tools that the choice names, with their places. Offering only those is the way to name them here."""
    names = request.tool_choice.names if request.tool_choice is not UNSET else ()
    named: list[tuple[int, Tool | Opaque]] = [
        (i, tool) for i, tool in enumerate(request.tools) if isinstance(tool, Tool) and tool.name in names
    ]
    if missing := set(names).difference(tool.name for _, tool in named if isinstance(tool, Tool)):
        raise InputError(f"tool_choice names {min(missing)!r}, which is not among the tools", param="tool_choice")
    losses.append(Loss("tool_choice", "tools cannot be named here; only the named ones are offered", "note"))
    return named


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
    if tool.cache is not None:
        losses.append(Loss(f"{where}.cache", "the prompt cache is automatic here", "note"))
    own = own_keys(tool.extra, NAME, losses, where + ".")
    return {"type": "function", "function": {**inner, **own.pop("function", {})}, **own}


def _response_format(wanted: ResponseFormat, losses: Losses) -> dict[str, Any]:
    body: dict[str, Any] = {"type": "text" if wanted.kind == "text" else "json_object"}
    if wanted.kind == "schema" and wanted.schema is not None:
        body["json_schema"] = wanted.schema
    if wanted.description is not None:
        losses.append(Loss("response_format.description", "the schema is all that is sent", "note"))
    if wanted.name != "answer":
        losses.append(Loss("response_format.name", "schemas have no names here", "note"))
    if wanted.strict is False:
        losses.append(Loss("response_format.strict", "answers are always held to the schema here", "note"))
    return {**body, **own_keys(wanted.extra, NAME, losses, "response_format.")}


def _thinking(wanted: Thinking, losses: Losses) -> dict[str, Any]:
    off = wanted.enabled is False or wanted.effort == "none"
    body: dict[str, Any] = {}
    if not wanted.enabled is wanted.effort is wanted.budget_tokens is UNSET:
        body["type"] = "disabled" if off else "enabled"
    if wanted.budget_tokens is not UNSET:
        body["token_budget"] = wanted.budget_tokens
    if wanted.effort not in (UNSET, "none"):
        losses.append(Loss("thinking.effort", "thinking is on, off, or limited by a budget here"))
    if wanted.mode is not UNSET:
        losses.append(Loss("thinking.mode", "there are no modes of thinking here"))
    return {**body, **own_keys(wanted.extra, NAME, losses, "thinking.")}


# ---- messages ---------------------------------------------------------------------------------


class Turn(NamedTuple):
    """A message being written: its pieces so far. `writers` says how each kind of part is put in."""

    at: Endpoint
    losses: Losses
    writers: Mapping[type[Part], Callable[..., None]]
    plan: list[str]
    content: list[Any]
    calls: list[Any]
    citations: list[Any]

    def is_empty(self) -> bool:
        """Whether nothing has been put in."""
        return not (self.plan or self.content or self.calls or self.citations)


def new_turn(at: Endpoint, losses: Losses, writers: Mapping[type[Part], Callable[..., None]]) -> Turn:
    """A message of which nothing is written yet."""
    return Turn(at, losses, writers, [], [], [], [])


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


def message_of(role: str, turn: Turn, own: dict[str, Any]) -> dict[str, Any]:
    """What was put into the turn as one message of the wire; `own` are the message's keys without a neutral form."""
    wire: dict[str, Any] = {"role": role}
    if turn.plan:
        wire[PLAN] = "".join(turn.plan)
    if turn.content:
        wire["content"] = turn.content
    if turn.calls:
        wire["tool_calls"] = turn.calls
    citations = [*turn.citations, *own.pop("citations", [])]
    if citations:
        wire["citations"] = citations
    return {**wire, **own}


def _messages(messages: tuple[Message, ...], at: Endpoint, losses: Losses) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        # The common case, and the hot one: plain words from somebody.
        if message.role != "developer" and (words := words_of(message)) is not None:
            found.append({"role": message.role, "content": words})
            continue
        turn = new_turn(at, losses, _SENT_BY_ASSISTANT if message.role == "assistant" else _SENT_BY_OTHERS)
        where, beside, any_result = f"messages[{i}]", [], False
        for j, part in enumerate(message.parts):
            spot = f"{where}.parts[{j}]"
            if isinstance(part, ToolResult):
                any_result = True
                wire, pictures = _tool_result(part, at, losses, spot)
                found.append(wire)
                beside += pictures
            else:
                put(part, turn, spot)
        own = own_keys(message.extra, NAME, losses, where + ".")
        if message.name is not None:
            losses.append(Loss(f"{where}.name", "speakers have no names here"))
        if any_result and turn.is_empty():
            found[-1].update(own)
            found += beside
        else:
            found += [*beside, _message(message, turn, own, where)]
    return found


def _message(message: Message, turn: Turn, own: dict[str, Any], where: str) -> dict[str, Any]:
    role: str = message.role
    if role == "developer":
        role = "system"
        turn.losses.append(Loss(f"{where}.role", "there is no developer here: sent as the system's", "note"))
    wire = message_of(role, turn, own)
    content = wire.get("content")
    if content is None and not (turn.calls or turn.plan):
        wire["content"] = ""
    elif content is not None and (words := plain_words(content)) is not None:
        wire["content"] = words
    return wire


def plain_words(content: list[Any]) -> str | None:
    """The words of content that is one text and nothing else, which is said as a string; None for other content."""
    if len(content) == 1 and len(content[0]) == 2 and content[0].get("type") == "text":
        words = content[0].get("text")
        return words if isinstance(words, str) else None
    return None


def _text(part: Text, turn: Turn, where: str) -> None:
    put_text(part, turn, where)
    for citation in part.citations:
        if NAME in citation.extra:
            place, named = place_of_text(turn)
            turn.citations.append(citation_to_wire(citation, place, named, turn.losses, f"{where}.citations"))
        else:
            turn.losses.append(Loss(f"{where}.citations", "sources of other dialects cannot be sent here", "note"))


def put_text(part: Text, turn: Turn, where: str) -> None:
    """The words of a text, without what they cite."""
    turn.content.append({"type": "text", "text": part.text, **own_keys(part.extra, NAME, turn.losses, where + ".")})
    if part.signature is not None:
        turn.losses.append(Loss(f"{where}.signature", f"bound to {part.origin or 'another dialect'}"))


def place_of_text(turn: Turn) -> tuple[int, bool]:
    """The place of the text that was put in last, and whether citations must name it: those of the first need not."""
    place = len(turn.content) - 1
    return place, any(item.get("type") == "text" for item in turn.content[:place])


def citation_to_wire(citation: Citation, place: int, named: bool, losses: Losses, where: str) -> dict[str, Any]:
    """A citation of the text at a place, as far as it came from this dialect. The place may not be what it was:
    what stood before may be left out now."""
    own = own_keys(citation.extra, NAME, losses, where + ".")
    said: dict[str, Any] = {"start": citation.start, "end": citation.end, "text": citation.text}
    said = {**{key: value for key, value in said.items() if value is not None}, **own}
    return {**said, "content_index": place} if named or "content_index" in said else said


def _refusal(part: Refusal, turn: Turn, where: str) -> None:
    own = own_keys(part.extra, NAME, turn.losses, where + ".")
    turn.content.append({"type": "text", "text": part.text, **own})
    turn.losses.append(Loss(f"{where}.refusal", "a refusal is plain text here", "note"))


def _image(part: Image, turn: Turn, where: str) -> None:
    own = own_keys(part.extra, NAME, turn.losses, where + ".")
    url = part.url
    if part.data is not None:
        data = base64.b64encode(part.data).decode("ascii")
        url = f"data:{part.media_type or 'image/png'};base64,{data}"
    if url is None:
        turn.losses.append(Loss(f"{where}.image", "there are no file ids here"))
        return
    inner: dict[str, Any] = {"url": url}
    if part.detail is not None:
        inner["detail"] = part.detail
    if part.name is not None:
        turn.losses.append(Loss(f"{where}.name", "pictures have no names here", "note"))
    turn.content.append({"type": "image_url", "image_url": {**inner, **own.pop("image_url", {})}, **own})


def _file(part: File, turn: Turn, where: str) -> None:
    text = part.text
    if text is None and part.data is not None and (part.media_type or "").startswith("text/"):
        text = part.data.decode("utf-8", "replace")
    own_keys(part.extra, NAME, turn.losses, where + ".")
    if text is None:
        turn.losses.append(Loss(f"{where}.file", "only the text of a file can be sent here"))
        return
    turn.content.append({"type": "text", "text": text})
    turn.losses.append(Loss(f"{where}.file", "sent as plain text; extra takes `documents` to cite", "note"))


def _reasoning(part: Reasoning, turn: Turn, where: str) -> None:
    """Thinking goes back only to the deployment that thought it; proofs are other dialects' business."""
    ours = part.origin == turn.at.origin if part.origin is not None else NAME in part.extra
    if ours and part.signature is None and part.encrypted is None:
        put_thinking(part, turn, where)
        return
    turn.losses.append(Loss(f"{where}.reasoning", f"bound to {part.origin or 'another dialect'}"))


def put_thinking(part: Reasoning, turn: Turn, where: str) -> None:
    """What was thought: as the plan of the calls where it came as that, else as content."""
    own = own_keys(part.extra, NAME, turn.losses, where + ".")
    if own.get("type") == PLAN:
        turn.plan.append(part.text)
    else:
        turn.content.append({"type": "thinking", "thinking": part.text, **own})


def _call(part: ToolCall, turn: Turn, where: str) -> None:
    own = own_keys(part.extra, NAME, turn.losses, where + ".")
    inner = {"name": part.name, "arguments": _arguments(part, turn, where), **own.pop("function", {})}
    turn.calls.append({"id": part.id, "type": "function", "function": inner, **own})
    if part.signature is not None:
        turn.losses.append(Loss(f"{where}.signature", f"bound to {part.origin or 'another dialect'}"))


def _arguments(part: ToolCall, turn: Turn, where: str) -> str:
    """The arguments as the model wrote them; what is no object is said, as the server wants one."""
    if part.kind == "custom":
        turn.losses.append(Loss(f"{where}.arguments", "arguments are an object here; sent as its `input`"))
        return free_text(part.arguments)
    if not part.arguments.strip():
        return "{}"
    try:
        if isinstance(decode_json(part.arguments), dict):
            return part.arguments
    except (BadResponseError, UnicodeEncodeError):
        pass
    turn.losses.append(Loss(f"{where}.arguments", "they are no JSON object; sent as they are", "note"))
    return part.arguments


def free_text(words: str) -> str:
    """The arguments of a custom tool, which is offered as a function of one string."""
    try:
        return encode_json({"input": words}).decode()
    except UnicodeEncodeError:
        return json.dumps({"input": words})  # half of a surrogate pair can only be said escaped


def _opaque(part: Opaque, turn: Turn, where: str) -> None:
    if part.dialect != NAME or not isinstance(part.raw, dict):
        turn.losses.append(Loss(f"{where}.opaque", f"{part.type!r} is a block of {part.dialect}"))
    elif part.raw.keys() == {"tool_calls"}:
        turn.calls.extend(part.raw["tool_calls"])
    else:
        turn.content.append(part.raw)


_SENT: dict[type[Part], Callable[..., None]] = {
    Text: _text, Refusal: _refusal, Image: _image, File: _file, Reasoning: _reasoning, ToolCall: _call, Opaque: _opaque,
}  # fmt: skip


def _misplaced(part: Part, turn: Turn, where: str) -> None:
    kind = part.__struct_config__.tag
    turn.losses.append(Loss(f"{where}.{kind}", f"{kind} has no place in a turn of this role"))


# Only the assistant thinks and calls, and it shows no pictures.
_SENT_BY_ASSISTANT: dict[type[Part], Callable[..., None]] = {**_SENT, Image: _misplaced}
_SENT_BY_OTHERS: dict[type[Part], Callable[..., None]] = {**_SENT, Reasoning: _misplaced, ToolCall: _misplaced}
# What an answer can hold of it; its words and thinking are told otherwise.
ANSWERED: dict[type[Part], Callable[..., None]] = {Refusal: _refusal, File: _file, ToolCall: _call, Opaque: _opaque}


def _tool_result(
    part: ToolResult, at: Endpoint, losses: Losses, where: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The tool's message, and a user's message for the pictures a tool's cannot hold."""
    turn = new_turn(at, losses, _SENT)
    for j, inner in enumerate(part.parts):
        if isinstance(inner, ToolCall | Reasoning):
            losses.append(Loss(f"{where}.parts[{j}]", "a tool result cannot hold it"))
        else:
            put(inner, turn, f"{where}.parts[{j}]")
    pictures = [item for item in turn.content if item.get("type") == "image_url"]
    content = [item for item in turn.content if item.get("type") != "image_url"]
    if part.is_error:
        losses.append(Loss(f"{where}.is_error", "there is no error flag here; the text says so", "note"))
        first = plain_words(content[:1])
        content = [{"type": "text", "text": "error: " + (first or "")}, *content[0 if first is None else 1 :]]
    for field, why in (("cache", "the prompt cache is automatic here"), ("name", "results have no names here")):
        if getattr(part, field) is not None:
            losses.append(Loss(f"{where}.{field}", why, "note"))
    words = plain_words(content) if content else ""
    wire: dict[str, Any] = {
        "role": "tool",
        "tool_call_id": part.call_id,
        "content": content if words is None else words,
    }
    wire.update(own_keys(part.extra, NAME, losses, where + "."))
    if not pictures:
        return wire, []
    losses.append(Loss(f"{where}.image", "a tool result holds text only here; sent as a user message", "note"))
    label = {"type": "text", "text": f"From tool call {part.call_id}:"}
    return wire, [{"role": "user", "content": [label, *pictures]}]
