"""A request as the body, headers and path of a Messages call. It leaves the turns to `turns` and never
looks at the name of a model."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from msgspec import UNSET, UnsetType

from polyvox.dialects import SHAPE_ERRORS, Encoded, Endpoint, Wire, encode_json
from polyvox.dialects.anthropic import call_headers
from polyvox.dialects.anthropic.blocks import Block, Scope, block_of, is_plain
from polyvox.dialects.anthropic.facts import (
    DEFAULT_MAX_TOKENS,
    NAME,
    PATH,
    SAMPLING,
    TIERS,
    TOOL_CHOICES,
    version_of,
)
from polyvox.dialects.anthropic.plain import plain_body
from polyvox.dialects.anthropic.turns import turns_of
from polyvox.dialects.bound import missed
from polyvox.errors import InputError
from polyvox.types import Opaque, Request, ResponseFormat, Thinking, Tool, ToolChoice

# Fields without a place here: the value that asks for nothing, and why any other is lost.
_UNSAID: tuple[tuple[str, Any, str], ...] = (
    ("seed", UNSET, "sampling cannot be seeded"),
    ("n", 1, "one request gives one answer"),
    ("presence_penalty", 0, "there are no penalties"),
    ("frequency_penalty", 0, "there are no penalties"),
    ("logit_bias", {}, "tokens cannot be weighted"),
    ("logprobs", False, "log-probabilities are not told"),
    ("top_logprobs", 0, "log-probabilities are not told"),
    ("modalities", ("text",), "answers are text only"),
    ("audio", {}, "answers are text only"),
    ("verbosity", UNSET, "verbosity cannot be set"),
)
_unsaid_of, _NOTHING = attrgetter(*[name for name, _, _ in _UNSAID]), (UNSET,) * len(_UNSAID)
_TIERS = {**{tier: tier for tier in TIERS}, "standard": "standard_only", "default": "standard_only"}
_FREE_TEXT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


def encode(request: Request, at: Endpoint) -> Encoded:
    """The wire request and its losses; raises InputError for what can never be sent."""
    if not request.model:
        raise InputError("the request names no model", param="model", hint="give the model that is to answer")
    scope = Scope(at)
    try:
        body = plain_body(request, scope)
        data = encode_json(_body(request, scope) if body is None else body)
    except (*SHAPE_ERRORS, OverflowError) as error:
        # A value of the wrong type, or text that is no valid Unicode: values are not checked when made.
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"the request holds a value that cannot be sent ({what})") from error
    headers = {"content-type": "application/json", "anthropic-version": version_of(at)}
    if request.extra or "beta" in at.options:
        headers |= call_headers.said(request.extra.get(NAME, {}), at)
    return Encoded(Wire(PATH, data, headers), tuple(scope.losses))


def max_tokens(request: Request, at: Endpoint) -> tuple[int, bool]:
    """The limit on the answer in tokens, which the protocol demands, and whether anybody set it."""
    if request.max_tokens is not UNSET:
        return request.max_tokens, True
    told = at.options.get("max_output")
    if type(told) is int:
        return told, True
    budget = request.thinking.budget_tokens if request.thinking is not UNSET else UNSET
    # Thinking counts towards the limit, so a default must leave room for it.
    return DEFAULT_MAX_TOKENS + (0 if budget is UNSET else max(budget, 0)), False


def _body(request: Request, scope: Scope) -> Block:
    limit, told = max_tokens(request, scope.at)
    if not told:
        scope.lose("max_tokens", f"a limit is demanded and none was given: {limit} is sent", "note")
    body: Block = {"model": request.model, "max_tokens": limit}
    lead = next((i for i, m in enumerate(request.messages) if m.role not in ("system", "developer")), None)
    system = _system(request, lead, scope)
    if system:
        body["system"] = system
    body["messages"] = turns_of(list(enumerate(request.messages))[lead:] if lead is not None else (), scope)
    for add in _STEPS:
        add(request, body, scope)
    scope.losses += missed(request.extra, NAME)
    for key, value in scope.own(request.extra, "").items():
        if key in call_headers.NAMES:
            continue
        known = body.get(key)
        body[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return body


def _system(request: Request, lead: int | None, scope: Scope) -> str | list[Block]:
    """The instructions before the first turn: a string where that says all, else blocks."""
    blocks = []
    for place, message in enumerate(request.messages[:lead]):
        where = f"messages[{place}]"
        if message.role == "developer":
            scope.lose(f"{where}.role", "there is no developer here: sent as the system's", "note")
        if message.name is not None:
            scope.lose(f"{where}.name", "instructions have no name", "note")
        if scope.own(message.extra, where):
            scope.lose(f"{where}.extra.{NAME}", "instructions are not a message here", "note")
        for number, part in enumerate(message.parts):
            block = block_of(part, "system", f"{where}.parts[{number}]", scope)
            if block is not None:
                blocks.append(block)
    text: str | list[Block] = blocks[0]["text"] if len(blocks) == 1 and is_plain(blocks[0]) else blocks
    return text


def _tools(request: Request, body: Block, scope: Scope) -> None:
    choice = ToolChoice() if request.tool_choice is UNSET else request.tool_choice
    offered = [(f"tools[{place}]", tool) for place, tool in enumerate(request.tools)]
    names = {_name(tool) for _, tool in offered}
    missing = [name for name in choice.names if name not in names]
    if missing:
        raise InputError(f"tool_choice names {missing[0]!r}, which is not offered", hint="offer it in tools")
    forced = choice.mode == "required" and len(choice.names) == 1 and not choice.subset
    if choice.names and not forced:
        offered = [(where, tool) for where, tool in offered if _name(tool) in choice.names]
        scope.lose("tool_choice", "tools that are not allowed are left out, which misses the prompt cache", "note")
    tools = [block for where, tool in offered if (block := _tool(tool, where, scope)) is not None]
    if tools:
        body["tools"] = tools
        _choose(request, choice, forced, body, scope)
        return
    if choice.mode == "required":
        scope.lose("tool_choice", "a call cannot be required where no tool is offered")
    elif choice.mode == "none":
        scope.lose("tool_choice", "it is not sent where no tool is offered: nothing can be called", "note")
    if request.parallel_tool_calls is False:
        scope.lose("parallel_tool_calls", "no tool is offered, so there are no calls to be had one by one", "note")


def _choose(request: Request, choice: ToolChoice, forced: bool, body: Block, scope: Scope) -> None:
    said: Block = {"type": "tool", "name": choice.names[0]} if forced else {"type": TOOL_CHOICES[choice.mode]}
    parallel = request.parallel_tool_calls
    if parallel is not UNSET and choice.mode != "none":
        said["disable_parallel_tool_use"] = not parallel
    elif parallel is False:
        scope.lose("parallel_tool_calls", "no tool may be called, so there are no calls to be had one by one", "note")
    # Parallel calls are the default, so alone they need no saying.
    if request.tool_choice is not UNSET or (parallel is False and choice.mode != "none"):
        body["tool_choice"] = said


def _name(tool: Tool | Opaque) -> str | None:
    if isinstance(tool, Tool):
        return tool.name
    return tool.raw.get("name") if isinstance(tool.raw, dict) else None


def _tool(tool: Tool | Opaque, where: str, scope: Scope) -> Block | None:
    if isinstance(tool, Opaque):
        if tool.dialect == NAME and isinstance(tool.raw, dict):
            return tool.raw
        scope.lose(where, f"a {tool.type} of {tool.dialect} means nothing here")
        return None
    block: Block = {"name": tool.name}
    if tool.description is not None:
        block["description"] = tool.description
    block["input_schema"] = {"type": "object", **tool.parameters}
    if tool.kind == "custom":
        scope.lose(where, "free text is asked for as {input: text}", "note")
        block["input_schema"] = _FREE_TEXT
    if tool.format is not None:
        scope.lose(f"{where}.format", "free text cannot be held to a grammar")
    if tool.strict is not UNSET:
        block["strict"] = tool.strict
    return {**block, **scope.cache(tool.cache, where), **scope.own(tool.extra, where)}


def _thinking(request: Request, body: Block, scope: Scope) -> None:
    ask = request.thinking
    if ask is UNSET:
        return
    effort = ask.effort
    kind = _thinking_kind(ask)
    if effort == "minimal":
        scope.lose("thinking.effort", "the least effort here is low", "note")
        effort = "low"
    if effort is not UNSET and effort != "none":
        body["output_config"] = {"effort": effort}
    own = scope.own(ask.extra, "thinking")
    if kind is None and not own:
        return
    said: Block = {"type": kind or "adaptive"}
    if kind == "enabled" and ask.budget_tokens is not UNSET:
        said["budget_tokens"] = ask.budget_tokens
    elif ask.budget_tokens not in (UNSET, 0):
        scope.lose("thinking.budget_tokens", f"{kind} thinking takes no budget")
    body["thinking"] = {**said, **own}


def _thinking_kind(ask: Thinking) -> str | None:
    """The form of thinking asked for, or None where only an effort is."""
    if ask.enabled is False or ask.effort == "none" or ask.budget_tokens == 0:
        return "disabled"
    if ask.mode is not UNSET:
        return ask.mode
    if ask.budget_tokens is not UNSET:
        return "enabled"
    # Without a budget the model itself must decide how much; whoever knows a model to refuse that gives one.
    return "adaptive" if ask.enabled is True else None


def _format(request: Request, body: Block, scope: Scope) -> None:
    ask = request.response_format
    if ask is UNSET or ask.kind == "text":
        return
    schema = ask.schema
    if schema is None:
        scope.lose("response_format", "there is no plain JSON mode: a schema of any object is sent", "note")
        schema = {"type": "object"}
    for field, usual in (("name", ResponseFormat().name), ("description", None)):
        if getattr(ask, field) != usual:
            scope.lose(f"response_format.{field}", f"a schema has no {field} beside it", "note")
    if ask.strict is False:
        scope.lose("response_format.strict", "a schema is always kept to strictly", "note")
    form = {"type": "json_schema", "schema": schema, **scope.own(ask.extra, "response_format")}
    body["output_config"] = {**body.get("output_config", {}), "format": form}


def _sampling(request: Request, body: Block, scope: Scope) -> None:
    refused = scope.strict_version or "no_sampling" in scope.at.quirks
    for name in SAMPLING:
        value = getattr(request, name)
        if value is not UNSET:
            if refused:
                scope.lose(name, "sampling settings are refused here")
            else:
                body[name] = value
    if request.stop is not UNSET:
        body["stop_sequences"] = request.stop


def _account(request: Request, body: Block, scope: Scope) -> None:
    tags = {} if isinstance(request.metadata, UnsetType) else dict(request.metadata)
    told = tags.pop("user_id", UNSET) if request.user is UNSET else request.user
    if told is not UNSET:
        body["metadata"] = {"user_id": told}
    if tags:
        scope.lose("metadata", f"only user_id is taken, not {', '.join(sorted(tags))}")
    tier = request.service_tier
    if tier == "fast":
        body["speed"] = "fast"
    elif tier is not UNSET and tier in _TIERS:
        body["service_tier"] = _TIERS[tier]
        if tier != _TIERS[tier]:
            scope.lose("service_tier", f"this tier is called {_TIERS[tier]} here", "note")
    elif tier is not UNSET:
        scope.lose("service_tier", f"the tiers are auto and standard_only, not {tier}")


def _rest(request: Request, body: Block, scope: Scope) -> None:
    if request.cache is not UNSET:
        body |= scope.cache(request.cache, "")
    if request.cache_key is not UNSET:
        scope.lose("cache_key", "prompts are cached by their beginning, without a key", "note")
    if _unsaid_of(request) != _NOTHING:
        for name, neutral, why in _UNSAID:
            value = getattr(request, name)
            if value is not UNSET and value != neutral:
                scope.lose(name, why)
    if request.stream:
        body["stream"] = True


_STEPS: tuple[Callable[[Request, Block, Scope], None], ...] = (
    _tools,
    _thinking,
    _format,
    _sampling,
    _account,
    _rest,
)
