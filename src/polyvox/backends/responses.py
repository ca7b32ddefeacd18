"""The Responses form of a request and of a whole answer, for client objects that speak it: words, pictures, tools
and what they gave. Whatever else a request says is a loss; items of an answer without a neutral form are opaque."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from polyvox.dialects import (
    Encoded,
    Endpoint,
    Reply,
    Wire,
    decode_object,
    encode_json,
    guarded,
    integer,
    snippet,
    string,
)
from polyvox.dialects.errors_on_wire import make_error
from polyvox.errors import BadResponseError, InputError, PolyvoxError
from polyvox.types import (
    Citation,
    FinishReason,
    Image,
    Loss,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Request,
    Response,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)

NAME = "openai.responses"

Json = dict[str, Any]

# Fields with the same meaning there, by the name they have there.
_SAME = {
    "temperature": "temperature", "top_p": "top_p", "top_logprobs": "top_logprobs", "max_tokens": "max_output_tokens",
    "parallel_tool_calls": "parallel_tool_calls", "user": "user", "metadata": "metadata",
    "service_tier": "service_tier", "cache_key": "prompt_cache_key",
}  # fmt: skip
_UNSAID = (
    "top_k", "stop", "seed", "n", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "modalities",
    "audio", "cache",
)  # fmt: skip
_INCOMPLETE: dict[str | None, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_TOP = frozenset({"id", "object", "created_at", "model", "status", "output", "output_text", "usage", "error"})


class Responses:
    """The form; it has no state. Answers are read whole only."""

    name = NAME

    def encode_request(self, request: Request, at: Endpoint) -> Encoded:
        """See `dialects.ClientSide`."""
        return _encoded(request)

    def decode_response(self, reply: Reply, at: Endpoint) -> Response:
        """See `dialects.ClientSide`."""
        body = decode_object(reply.body)
        return guarded(lambda: _response(body, reply, at))

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """See `dialects.ClientSide`."""
        try:
            body = decode_object(reply.body)
        except BadResponseError:
            body = {"error": snippet(reply.body)}
        return _error_of(body, reply.status, reply)

    def must_stream(self, request: Request, at: Endpoint) -> bool:
        """Never."""
        return False


# ---- the request ------------------------------------------------------------------------------


def _encoded(request: Request) -> Encoded:
    losses: list[Loss] = []
    body: Json = {"model": request.model, "input": _items(request.messages, losses)}
    for field, name in _SAME.items():
        if (value := getattr(request, field)) is not UNSET:
            body[name] = value
    losses += [Loss(field, "this form has no such field") for field in _UNSAID if getattr(request, field) is not UNSET]
    if request.tools:
        body["tools"] = [found for i, tool in enumerate(request.tools) if (found := _tool(tool, i, losses))]
    if request.tool_choice is not UNSET:
        choice = request.tool_choice
        forced = choice.mode == "required" and len(choice.names) == 1
        body["tool_choice"] = {"type": "function", "name": choice.names[0]} if forced else choice.mode
        if choice.names and not forced:
            losses.append(Loss("tool_choice", "one tool can be named here, or none"))
    if request.thinking is not UNSET:
        _thinking(request, body, losses)
    text = _text_form(request)
    if text:
        body["text"] = text
    for name, keys in request.extra.items():
        if name == NAME:
            body.update(keys)
        else:
            losses.append(Loss(f"extra.{name}", "keys of another dialect", "note"))
    try:
        return Encoded(Wire("/responses", encode_json(body), {}), tuple(losses))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"the request cannot be written as JSON: {error}") from None


def _thinking(request: Request, body: Json, losses: list[Loss]) -> None:
    assert request.thinking is not UNSET
    if request.thinking.effort is not UNSET:
        body["reasoning"] = {"effort": request.thinking.effort}
    losses += [
        Loss(f"thinking.{field}", "only the effort can be said here")
        for field in ("enabled", "budget_tokens", "mode")
        if getattr(request.thinking, field) is not UNSET
    ]


def _text_form(request: Request) -> Json:
    text: Json = {} if request.verbosity is UNSET else {"verbosity": request.verbosity}
    form = request.response_format
    if form is UNSET:
        return text
    if form.kind != "schema":
        return {**text, "format": {"type": "json_object" if form.kind == "json" else "text"}}
    found: Json = {"type": "json_schema", "name": form.name, "schema": form.schema}
    if form.description is not None:
        found["description"] = form.description
    if form.strict is not UNSET:
        found["strict"] = form.strict
    return {**text, "format": found}


def _tool(tool: Tool | Opaque, place: int, losses: list[Loss]) -> Json | None:
    if isinstance(tool, Opaque):
        if tool.dialect == NAME and isinstance(tool.raw, dict):
            return tool.raw
        losses.append(Loss(f"tools[{place}]", f"{tool.type!r} is a tool of {tool.dialect}"))
        return None
    if tool.kind == "custom":
        found: Json = {"type": "custom", "name": tool.name}
        if tool.format:
            found["format"] = tool.format
    else:
        strict = False if tool.strict is UNSET else tool.strict
        found = {"type": "function", "name": tool.name, "parameters": tool.parameters, "strict": strict}
    return found if tool.description is None else {**found, "description": tool.description}


def _items(messages: tuple[Message, ...], losses: list[Loss]) -> list[Json]:
    """The turns as input items: calls, their results and reasoning stand beside the messages, in order."""
    items: list[Json] = []
    for place, message in enumerate(messages):
        content: list[Json] = []
        if message.name is not None:
            losses.append(Loss(f"messages[{place}].name", "turns have no names here", "note"))
        for number, part in enumerate(message.parts):
            where = f"messages[{place}].parts[{number}]"
            item = _item(part, where, losses)
            if item is not None:
                _flush(message, content, items)
                items.append(item)
            elif (found := _content(part, message.role == "assistant", where, losses)) is not None:
                content.append(found)
            else:
                losses.append(Loss(where, f"a part of kind {type(part).__name__.lower()} cannot be sent here"))
        _flush(message, content, items)
    return items


def _flush(message: Message, content: list[Json], items: list[Json]) -> None:
    """Put what a turn said so far behind the items. Words alone are sent as one string: an answer in parts would
    have to bear the id it once had."""
    if not content:
        return
    words = [part["text"] for part in content if part["type"] == "input_text"]
    role = "user" if message.role == "tool" else message.role
    items.append({"role": role, "content": "".join(words) if len(words) == len(content) else list(content)})
    content.clear()


def _item(part: Part, where: str, losses: list[Loss]) -> Json | None:
    """A part that is an item of its own; None for one that belongs into a message."""
    if isinstance(part, Opaque | Reasoning):
        raw = part.raw if isinstance(part, Opaque) and part.dialect == NAME else None
        raw = part.extra.get(NAME) if isinstance(part, Reasoning) else raw
        return dict(raw) if isinstance(raw, dict) else None
    if isinstance(part, ToolCall):
        key, kind = ("input", "custom_tool_call") if part.kind == "custom" else ("arguments", "function_call")
        return {"type": kind, "call_id": part.id, "name": part.name, key: part.arguments}
    if not isinstance(part, ToolResult):
        return None
    words = [inner.text for inner in part.parts if isinstance(inner, Text)]
    if len(words) < len(part.parts):
        losses.append(Loss(where, "a tool's result is text here"))
    if part.is_error:
        losses.append(Loss(f"{where}.is_error", "a result cannot be marked as an error here", "note"))
    return {"type": "function_call_output", "call_id": part.call_id, "output": "".join(words)}


def _content(part: Part, answered: bool, where: str, losses: list[Loss]) -> Json | None:
    """A part as content of a message; None for what has no form there."""
    if isinstance(part, Text):
        if part != Text(part.text):
            losses.append(Loss(where, "only the words are sent: no citations, no cache marks", "note"))
        return {"type": "input_text", "text": part.text}
    if isinstance(part, Refusal) and answered:
        losses.append(Loss(where, "a refusal is sent as plain words", "note"))
        return {"type": "input_text", "text": part.text}
    if isinstance(part, Image) and not answered:
        return _picture(part)
    return None


def _picture(part: Image) -> Json:
    found: Json = {"type": "input_image", "detail": part.detail or "auto"}
    if part.data is not None:
        data = base64.b64encode(part.data).decode()
        return {**found, "image_url": f"data:{part.media_type or 'image/png'};base64,{data}"}
    return {**found, "image_url": part.url} if part.url is not None else {**found, "file_id": part.file_id}


# ---- the answer -------------------------------------------------------------------------------


def _response(body: Json, reply: Reply, at: Endpoint) -> Response:
    if body.get("error"):
        raise _error_of(body, 0, reply)
    parts: list[Part] = []
    for item in body.get("output") or ():
        read = _OUTPUT.get(item.get("type"))
        parts += [Opaque(NAME, str(item.get("type")), item, at.origin)] if read is None else read(item, at)
    if not parts and (text := string(body.get("output_text"))):
        parts.append(Text(text))
    if not parts and body.get("output") is None and body.get("output_text") is None:
        raise BadResponseError("the answer has no output")
    status, details = string(body.get("status")), body.get("incomplete_details")
    why = string(details.get("reason")) if isinstance(details, dict) else None
    rest = {key: value for key, value in body.items() if key not in _TOP and value is not None}
    created = body.get("created_at")
    return Response(
        message=Message("assistant", tuple(parts)),
        finish_reason=_finish(status, why, parts),
        raw_finish_reason=why or status,
        usage=_usage(body.get("usage")),
        id=string(body.get("id")),
        model=string(body.get("model")),
        created=float(created) if isinstance(created, int | float) else None,
        raw=reply.body,
        extra={NAME: rest} if rest else {},
    )


def _message(item: Json, at: Endpoint) -> list[Part]:
    parts: list[Part] = []
    for content in item.get("content") or ():
        kind = content.get("type")
        if kind == "output_text":
            parts.append(Text(content["text"], tuple([_citation(note) for note in content.get("annotations") or ()])))
        elif kind == "refusal":
            parts.append(Refusal(content["refusal"]))
        else:
            parts.append(Opaque(NAME, str(kind), content, at.origin))
    return parts


def _citation(raw: Json) -> Citation:
    return Citation(
        kind="url" if raw.get("type") == "url_citation" else str(raw.get("type")),
        url=string(raw.get("url")),
        title=string(raw.get("title")) or string(raw.get("filename")),
        start=integer(raw.get("start_index")),
        end=integer(raw.get("end_index")),
        file_id=string(raw.get("file_id")),
        extra={NAME: raw},
    )


def _call(item: Json, _at: Endpoint) -> list[Part]:
    call = string(item.get("call_id")) or string(item.get("id"))
    if call is None:
        raise BadResponseError("the answer calls a tool without an id")
    if item["type"] == "custom_tool_call":
        return [ToolCall(call, item["name"], item.get("input") or "", "custom")]
    return [ToolCall(call, item["name"], item.get("arguments") or "")]


def _reasoning(item: Json, at: Endpoint) -> list[Part]:
    pieces = [*(item.get("summary") or ()), *(item.get("content") or ())]
    text = "\n\n".join([piece["text"] for piece in pieces if isinstance(piece.get("text"), str)])
    return [Reasoning(text, encrypted=string(item.get("encrypted_content")), origin=at.origin, extra={NAME: item})]


_OUTPUT: dict[str | None, Callable[[Json, Endpoint], list[Part]]] = {
    "message": _message,
    "function_call": _call,
    "custom_tool_call": _call,
    "reasoning": _reasoning,
}


def _finish(status: str | None, why: str | None, parts: list[Part]) -> FinishReason:
    if status == "incomplete":
        return _INCOMPLETE.get(why, "incomplete")
    if status not in (None, "completed"):
        return "error" if status == "failed" else "incomplete"
    kinds = {type(part) for part in parts}
    return "tool_calls" if ToolCall in kinds else "refusal" if Refusal in kinds else "stop"


def _usage(raw: Any) -> Usage:
    if not isinstance(raw, dict):
        return Usage()
    asked, answered, total = (integer(raw.get(f"{name}_tokens")) for name in ("input", "output", "total"))
    details, more = raw.get("input_tokens_details"), raw.get("output_tokens_details")
    cached = integer(details.get("cached_tokens")) if isinstance(details, dict) else None
    reasoning = integer(more.get("reasoning_tokens")) if isinstance(more, dict) else None
    told = any(count is not None for count in (asked, answered, total))
    return Usage(
        input=asked,
        output=answered,
        cache_read=cached,
        reasoning=reasoning,
        total=total,
        source="provider" if told else "missing",
        raw=raw,
    )


def _error_of(body: Json, status: int, reply: Reply) -> PolyvoxError:
    """The error an object tells; status 0 where it came inside an answer."""
    inner = body.get("error")
    facts = inner if isinstance(inner, dict) else {"message": inner}
    words = {name: string(facts.get(name)) for name in ("code", "type", "param")}
    return make_error(status, reply.headers, message=string(facts.get("message")) or "", **words)
