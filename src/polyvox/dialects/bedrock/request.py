"""A request as the body, headers and path of a Converse call. It leaves the turns to `turns` and never looks
into the name of a model."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from msgspec import UNSET

from polyvox.dialects import SHAPE_ERRORS, Encoded, Endpoint, Wire, encode_json, string
from polyvox.dialects.bedrock.answer import is_call
from polyvox.dialects.bedrock.blocks import blocks_of
from polyvox.dialects.bedrock.facts import (
    MODEL_FIELDS,
    NAME,
    SAMPLING,
    TAG,
    TIERS,
    TOOL_CHOICES,
    USER_TAG,
    path_of,
    place_of,
)
from polyvox.dialects.bedrock.plain import plain_body
from polyvox.dialects.bedrock.scope import Block, Scope, joined
from polyvox.dialects.bedrock.turns import turns_of
from polyvox.dialects.bound import missed
from polyvox.dialects.plain import plain_words
from polyvox.errors import InputError
from polyvox.types import Opaque, Part, Request, Thinking, Tool, ToolCall, ToolChoice

JSON_TYPE, STREAM_TYPE = "application/json", "application/vnd.amazon.eventstream"
# Fields without a place here: the value that asks for nothing, and why any other is lost.
_UNSAID: tuple[tuple[str, Any, str], ...] = (
    ("n", 1, "one request gives one answer"),
    ("logit_bias", {}, "tokens cannot be weighted"),
    ("logprobs", False, "log-probabilities are not told"),
    ("top_logprobs", 0, "log-probabilities are not told"),
    ("modalities", ("text",), "what an answer is made of cannot be chosen"),
    ("audio", {}, "what an answer is made of cannot be chosen"),
)
_unsaid_of, _NOTHING = attrgetter(*[name for name, _, _ in _UNSAID]), (UNSET,) * len(_UNSAID)
_model_fields_of = attrgetter(*[name for name, _, _ in MODEL_FIELDS])
_NO_MODEL_FIELDS = (UNSET,) * len(MODEL_FIELDS)
_TIERS = {**{tier: tier for tier in TIERS}, "standard": "default"}
_FREE_TEXT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


def encode(request: Request, at: Endpoint) -> Encoded:
    """The wire request and its losses; raises InputError for what can never be sent."""
    scope = Scope(at)
    try:
        path = path_of(request.model, request.stream)
        body = plain_body(request)
        data = encode_json(_body(request, scope) if body is None else body)
    except (*SHAPE_ERRORS, OverflowError) as error:
        # A value of the wrong type, or text that is no valid Unicode: values are not checked when made.
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"the request holds a value that cannot be sent ({what})") from error
    headers = {"content-type": JSON_TYPE, "accept": STREAM_TYPE if request.stream else JSON_TYPE}
    return Encoded(Wire(path, data, headers), tuple(scope.losses))


def _body(request: Request, scope: Scope) -> Block:
    body: Block = {}
    lead = next((i for i, m in enumerate(request.messages) if m.role not in ("system", "developer")), None)
    body["messages"] = turns_of(list(enumerate(request.messages))[lead:] if lead is not None else (), scope)
    system = _system(request, lead, scope)
    if system:
        body["system"] = system
    for add in _STEPS:
        add(request, body, scope)
    scope.losses += missed(request.extra, NAME)
    own = scope.own(request.extra, "")
    return joined(body, own) if own else body


def _system(request: Request, lead: int | None, scope: Scope) -> list[Block]:
    """The instructions before the first turn."""
    blocks: list[Block] = []
    for place, message in enumerate(request.messages[:lead]):
        if message.role == "system" and (words := plain_words(message)):
            blocks.append({"text": words})
            continue
        where = f"messages[{place}]"
        if message.role == "developer":
            scope.lose(f"{where}.role", "there is no developer here: sent as the system's", "note")
        if message.name is not None:
            scope.lose(f"{where}.name", "instructions have no name", "note")
        if scope.own(message.extra, where):
            scope.lose(f"{where}.extra.{NAME}", "instructions are not a message here", "note")
        for number, part in enumerate(message.parts):
            blocks += blocks_of(part, "system", f"{where}.parts[{number}]", scope)
    return blocks


# ---- tools ------------------------------------------------------------------------------------


def _tools(request: Request, body: Block, scope: Scope) -> None:
    choice = ToolChoice() if request.tool_choice is UNSET else request.tool_choice
    offered = [(f"tools[{place}]", tool) for place, tool in enumerate(request.tools)]
    names = {_name(tool) for _, tool in offered}
    missing = [name for name in choice.names if name not in names]
    if missing:
        raise InputError(
            f"tool_choice names {missing[0]!r}, which is not offered", param="tool_choice", hint="offer it in tools"
        )
    forced = choice.mode == "required" and len(choice.names) == 1 and not choice.subset
    if choice.names and not forced:
        offered = [(where, tool) for where, tool in offered if _name(tool) in choice.names]
        scope.lose("tool_choice", "tools that are not allowed are left out, which misses the prompt cache", "note")
    tools = [block for where, tool in offered for block in _tool(tool, where, scope)]
    called = _called(request)
    if choice.mode == "none" and tools and not called:
        scope.lose("tool_choice", "calls cannot be forbidden: no tools are offered", "note")
        return
    if choice.mode == "none" and called:
        scope.lose("tool_choice", "calls cannot be forbidden, and a history with calls needs its tools")
    if not tools and called:
        # The server refuses a history with calls where no tools are offered.
        scope.lose("tools", f"a history with calls needs tools: {', '.join(called)} offered, with any parameters")
        tools = [{"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object"}}}} for name in called]
    if tools:
        said: Block = {"tools": tools}
        if request.tool_choice is not UNSET and choice.mode != "none":
            said["toolChoice"] = {"tool": {"name": choice.names[0]}} if forced else {TOOL_CHOICES[choice.mode]: {}}
        body["toolConfig"] = said
    elif choice.mode == "required":
        scope.lose("tool_choice", "a call cannot be required where no tool is offered")
    elif choice.mode == "none":
        scope.lose("tool_choice", "it is not sent where no tool is offered: nothing can be called", "note")


def _called(request: Request) -> list[str]:
    """The names of all functions that were called so far, each once."""
    said = [part for message in request.messages if message.role == "assistant" for part in message.parts]
    names = [part.name if type(part) is ToolCall else _opaque_call(part) for part in said]
    return [name for name in dict.fromkeys(names) if name is not None]


def _opaque_call(part: Part) -> str | None:
    """The name of the function that an opaque part calls, where it is a call and the caller's."""
    raw = part.raw if type(part) is Opaque and isinstance(part.raw, dict) and is_call(part.raw) else {}
    use = raw.get("toolUse")
    return string(use.get("name")) if isinstance(use, dict) else None


def _name(tool: Tool | Opaque) -> str | None:
    if isinstance(tool, Tool):
        return tool.name
    held = tool.raw.get("systemTool") if isinstance(tool.raw, dict) else None
    return held.get("name") if isinstance(held, dict) else None


def _tool(tool: Tool | Opaque, where: str, scope: Scope) -> list[Block]:
    if isinstance(tool, Opaque):
        if tool.dialect == NAME and isinstance(tool.raw, dict):
            return [tool.raw]
        scope.lose(where, f"a {tool.type} of {tool.dialect} means nothing here")
        return []
    spec: Block = {"name": tool.name}
    if tool.description:
        spec["description"] = tool.description
    schema = {"type": "object", **tool.parameters}
    if tool.kind == "custom":
        scope.lose(where, "free text is asked for as {input: text}", "note")
        schema = _FREE_TEXT
    if tool.format is not None:
        scope.lose(f"{where}.format", "free text cannot be held to a grammar")
    spec["inputSchema"] = {"json": schema}
    if tool.strict is not UNSET:
        spec["strict"] = tool.strict
    own = scope.own(tool.extra, where)
    return [{"toolSpec": joined(spec, own) if own else spec}, *scope.cache(tool.cache, where)]


# ---- settings ---------------------------------------------------------------------------------


def _sampling(request: Request, body: Block, scope: Scope) -> None:
    told = {name: value for field, name in SAMPLING if (value := getattr(request, field)) is not UNSET}
    if told:
        body["inferenceConfig"] = told
    if _model_fields_of(request) == _NO_MODEL_FIELDS:
        return
    for field, neutral, why in MODEL_FIELDS:
        value = getattr(request, field)
        if value is UNSET:
            continue
        place = place_of(scope.at, field)
        if place is not None:
            _put(body, place, value)
        elif value != neutral:
            scope.lose(field, f"{why} here")


def _put(body: Block, place: tuple[str, ...], value: Any) -> None:
    """Set a field of the model's own."""
    for key in reversed(("additionalModelRequestFields", *place)):
        value = {key: value}
    body.update(joined(body, value))


def _thinking(request: Request, body: Block, scope: Scope) -> None:
    ask = request.thinking
    if ask is UNSET:
        return
    if ask.effort is not UNSET:
        body["outputConfig"] = {"effort": ask.effort}
    kind, own = _thinking_kind(ask), scope.own(ask.extra, "thinking")
    if kind is None and not own:
        return
    place = place_of(scope.at, "thinking")
    if place is None:
        scope.lose("thinking", "beside the effort, reasoning is set by fields of the model's own")
        return
    said: Block = {"type": kind or "adaptive"}
    if kind == "enabled" and ask.budget_tokens is not UNSET:
        said["budget_tokens"] = ask.budget_tokens
    elif ask.budget_tokens not in (UNSET, 0):
        scope.lose("thinking.budget_tokens", f"{kind} thinking takes no budget")
    _put(body, place, {**said, **own})


def _thinking_kind(ask: Thinking) -> str | None:
    """The form of thinking asked for, or None where only an effort is."""
    if ask.enabled is False or ask.budget_tokens == 0:
        return "disabled"
    if ask.mode is not UNSET:
        return ask.mode
    if ask.budget_tokens is not UNSET:
        return "enabled"
    return "adaptive" if ask.enabled is True else None


def _format(request: Request, body: Block, scope: Scope) -> None:
    ask = request.response_format
    if ask is UNSET or ask.kind == "text":
        return
    schema = ask.schema
    if schema is None:
        scope.lose("response_format", "there is no plain JSON mode: a schema of any object is sent", "note")
        schema = {"type": "object"}
    if ask.strict is False:
        scope.lose("response_format.strict", "a schema is always kept to strictly", "note")
    said: Block = {"schema": encode_json(schema).decode(), "name": ask.name}
    if ask.description is not None:
        said["description"] = ask.description
    said |= scope.own(ask.extra, "response_format")
    form = {"type": "json_schema", "structure": {"jsonSchema": said}}
    body["outputConfig"] = {**body.get("outputConfig", {}), "textFormat": form}


def _account(request: Request, body: Block, scope: Scope) -> None:
    tags = {} if request.metadata is UNSET else dict(request.metadata)
    if request.user is not UNSET:
        tags[USER_TAG] = request.user
    sent = {}
    for key, value in tags.items():
        if key and TAG.fullmatch(key) and TAG.fullmatch(value):
            sent[key] = value
        else:
            field = "user" if key == USER_TAG and request.user is not UNSET else "metadata"
            scope.lose(field, f"tags are of letters, digits and :_@$#=/+,.- only, at most 256: {key!r} is not sent")
    if sent:
        body["requestMetadata"] = sent
    tier = request.service_tier
    if tier is not UNSET and tier in _TIERS:
        body["serviceTier"] = {"type": _TIERS[tier]}
        if tier not in TIERS:
            scope.lose("service_tier", f"{tier} is called {_TIERS[tier]} here", "note")
    elif tier not in (UNSET, "auto"):
        scope.lose("service_tier", f"the tiers are {', '.join(TIERS)}, not {tier}")


def _rest(request: Request, body: Block, scope: Scope) -> None:
    if request.cache is not UNSET:
        scope.lose("cache", "the prompt is cached up to a cache point behind its last message", "note")
        blocks = body["messages"][-1]["content"]
        if "cachePoint" in blocks[-1]:
            scope.lose("cache", "its last message has a cache point of its own, which counts", "note")
        else:
            blocks += scope.cache(request.cache, "")
    if request.cache_key is not UNSET:
        scope.lose("cache_key", "prompts are cached by their beginning, without a key", "note")
    if _unsaid_of(request) != _NOTHING:
        for name, neutral, why in _UNSAID:
            value = getattr(request, name)
            if value is not UNSET and value != neutral:
                scope.lose(name, why)


_STEPS: tuple[Callable[[Request, Block, Scope], None], ...] = (
    _tools,
    _thinking,
    _format,
    _sampling,
    _account,
    _rest,
)
