"""A request as the body, headers and path of a Responses call. It leaves the turns to `items`, branches on quirks
and never on the name of a model. Whether a response is stored is the caller's to say: nothing is said unasked."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from polyvox.dialects import SHAPE_ERRORS, Encoded, Endpoint, Wire, encode_json
from polyvox.dialects.bound import missed
from polyvox.dialects.openai_responses.facts import FORMATS, NAME, NO_PARAMETERS, PATH, SAME, WITH_LOGPROBS
from polyvox.dialects.openai_responses.items import Json, Scope, bare_text, items_of
from polyvox.errors import InputError
from polyvox.types import Message, Opaque, Request, ResponseFormat, Thinking, Tool, ToolChoice

_HEADERS = {"content-type": "application/json"}
_STREAM_HEADERS = {"content-type": "application/json", "accept": "text/event-stream"}
_SAMPLING = ("temperature", "top_p")

# Fields without a place here: the value that asks for nothing, and why any other is lost.
_UNSAID: tuple[tuple[str, Any, str], ...] = (
    ("top_k", UNSET, "there is no top_k"),
    ("stop", (), "there are no stop sequences"),
    ("seed", UNSET, "sampling cannot be seeded"),
    ("n", 1, "one request gives one answer"),
    ("presence_penalty", 0, "there are no penalties"),
    ("frequency_penalty", 0, "there are no penalties"),
    ("logit_bias", {}, "tokens cannot be weighted"),
    ("modalities", ("text",), "answers are text only"),
    ("audio", {}, "answers are text only"),
)


def encode_request(request: Request, at: Endpoint) -> Encoded:
    """The wire request and its losses; raises InputError for what can never be sent."""
    own = request.extra.get(NAME, {})
    scope = Scope(at, stored=own.get("store") is not False)
    try:
        data = encode_json(_body(request, scope))
    except (*SHAPE_ERRORS, OverflowError) as error:
        # A value of the wrong type, or text that is no valid Unicode: values are not checked when made.
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"the request holds a value that cannot be sent ({what})") from error
    headers = _STREAM_HEADERS if request.stream else _HEADERS
    return Encoded(Wire(at.options.get("path", PATH), data, headers), tuple(scope.losses))


def _body(request: Request, scope: Scope) -> Json:
    # A stored prompt may name the model.
    body: Json = {"model": request.model} if request.model else {}
    messages = request.messages
    instructions = _instructions(messages[0], scope) if messages else None
    if instructions is not None:
        body["instructions"] = instructions
        items = items_of(messages, scope, start=1)
    else:
        items = items_of(messages, scope)
    # A stored prompt may be all there is to ask.
    if items or not request.extra.get(NAME):
        body["input"] = items
    # Most requests say nothing else; comparing at once is cheaper than asking field by field.
    if request != Request(request.model, messages, stream=request.stream):
        _fields(request, body, scope)
    if request.stream:
        body["stream"] = True
    return body


def _instructions(message: Message, scope: Scope) -> str | None:
    """What a first message instructs: plain words of the system. Where the endpoint does not take them so
    (`instructions: false` among its options), they are an item like others."""
    if message.role != "system" or message.extra or message.name is not None or len(message.parts) != 1:
        return None
    return bare_text(message.parts[0]) if scope.at.options.get("instructions") is not False else None


def _fields(request: Request, body: Json, scope: Scope) -> None:
    """Everything but the messages."""
    if request.tools:
        tools = [_tool(tool, f"tools[{i}]", scope) for i, tool in enumerate(request.tools)]
        body["tools"] = [tool for tool in tools if tool is not None]
    if request.tool_choice is not UNSET:
        body["tool_choice"] = tool_choice_said(request.tool_choice, request.tools)
    if request.thinking is not UNSET:
        _thinking(request.thinking, body, scope)
    _text(request, body, scope)
    if request.logprobs is True:
        body["include"] = [WITH_LOGPROBS]
    if request.user is not UNSET:
        body[scope.at.options.get("user_field", "user")] = request.user
    refused = _SAMPLING if "no_sampling" in scope.at.quirks else ()
    for field, key in SAME:
        value = getattr(request, field)
        if value is UNSET:
            continue
        if field in refused:
            scope.lose(field, "this endpoint refuses sampling settings")
        else:
            body[key] = value
    for field, nothing, why in _UNSAID:
        value = getattr(request, field)
        if value is not UNSET and value != nothing:
            scope.lose(field, why)
    if request.cache is not UNSET:
        scope.lose("cache", "caching of the whole prompt is automatic here", "note")
    scope.losses += missed(request.extra, NAME)
    _merge(scope.own(request.extra, ""), body)


def _merge(own: Json, body: Json) -> None:
    """Put the dialect's own keys into the body: objects join, what is asked to be included comes first, and a value
    the caller gave takes the place of ours."""
    for key, value in own.items():
        known = body.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            body[key] = {**known, **value}
        elif key == "include" and known and isinstance(value, list):
            body[key] = [*value, *[word for word in known if word not in value]]
        else:
            body[key] = value


# ---- tools and formats ------------------------------------------------------------------------


def _tool(tool: Tool | Opaque, where: str, scope: Scope) -> Any:
    if isinstance(tool, Opaque):
        if tool.dialect == NAME and isinstance(tool.raw, dict):
            return tool.raw
        scope.lose(where, f"a {tool.type} of {tool.dialect} means nothing here")
        return None
    said: Json = {"type": tool.kind, "name": tool.name}
    if tool.description is not None:
        said["description"] = tool.description
    if tool.kind == "custom":
        if tool.format is not None:
            said["format"] = tool.format
        if tool.parameters or tool.strict is not UNSET:
            scope.lose(f"{where}.parameters", "a custom tool takes free text")
    else:
        said["parameters"] = tool.parameters or NO_PARAMETERS
        # Unsaid, a schema would be made strict here, with every optional parameter required.
        said["strict"] = tool.strict is True
        if tool.format is not None:
            scope.lose(f"{where}.format", "a function tool has no grammar")
    if tool.cache is not None:
        scope.lose(f"{where}.cache", "tools carry no breakpoint here", "note")
    return {**said, **scope.own(tool.extra, where)}


def tool_choice_said(choice: ToolChoice, tools: tuple[Tool | Opaque, ...]) -> Any:
    """The choice in the wire's form: a word, one tool by its name, or the allowed ones."""
    if choice.mode == "none" or not choice.names:
        return choice.mode
    kinds = {tool.name: tool.kind for tool in tools if isinstance(tool, Tool)}
    named: list[Json] = [{"type": kinds.get(name, "function"), "name": name} for name in choice.names]
    if choice.subset or len(named) > 1 or choice.mode == "auto":
        return {"type": "allowed_tools", "mode": choice.mode, "tools": named}
    return named[0]


def _thinking(wanted: Thinking, body: Json, scope: Scope) -> None:
    effort: str | UnsetType = "none" if wanted.enabled is False else wanted.effort
    own = scope.own(wanted.extra, "thinking")
    if effort is not UNSET or own:
        body["reasoning"] = {**({} if effort is UNSET else {"effort": effort}), **own}
    if wanted.enabled is True and effort is UNSET:
        scope.lose("thinking.enabled", "reasoning is switched by effort here", "note")
    if wanted.budget_tokens is not UNSET:
        scope.lose("thinking.budget_tokens", "reasoning has no budget in tokens here")
    if wanted.mode is not UNSET:
        scope.lose("thinking.mode", "modes of reasoning are others here")


def _text(request: Request, body: Json, scope: Scope) -> None:
    """How the answer is written: its form and how wordy it is."""
    said: Json = {}
    if request.response_format is not UNSET:
        said["format"] = _format(request.response_format, scope)
    if request.verbosity is not UNSET:
        said["verbosity"] = request.verbosity
    if said:
        body["text"] = said


def _format(wanted: ResponseFormat, scope: Scope) -> Json:
    said: Json = {"type": FORMATS.get(wanted.kind, "text")}
    if wanted.kind == "schema":
        said |= {"name": wanted.name, "schema": wanted.schema or {}}
        if wanted.description is not None:
            said["description"] = wanted.description
        if wanted.strict is not UNSET:
            said["strict"] = wanted.strict
    return {**said, **scope.own(wanted.extra, "response_format")}
