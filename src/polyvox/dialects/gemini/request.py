"""A request as the body and path of a generateContent call. It leaves the turns to `turns` and never looks at the
name of a model but to put it into the path."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from polyvox.dialects import SHAPE_ERRORS, Encoded, Endpoint, Wire, encode_json
from polyvox.dialects.bound import missed
from polyvox.dialects.gemini.facts import DYNAMIC, FREE_TEXT, LEVELS, NAME, SETTINGS, TIERS, Json, path_of
from polyvox.dialects.gemini.parts import Scope
from polyvox.dialects.gemini.schema import openapi
from polyvox.dialects.gemini.turns import Conversation, system_of
from polyvox.errors import InputError
from polyvox.types import Opaque, Request, ResponseFormat, Thinking, Tool, ToolChoice

# Fields without a place here: the value that asks for nothing, whether losing another changes the answer, and why.
_UNSAID: tuple[tuple[str, Any, bool, str], ...] = (
    ("parallel_tool_calls", True, True, "parallel calls cannot be switched off"),
    ("logit_bias", {}, True, "tokens cannot be weighted"),
    ("verbosity", "medium", True, "verbosity cannot be set"),
    ("user", "", False, "there are no end users here"),
    ("cache_key", "", False, "prompts are cached by their beginning, without a key"),
    ("cache", None, False, "prompts are cached by their beginning, without breakpoints"),
)
_TIERS = {**{tier: tier for tier in TIERS}, "default": "standard"}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_NESTED = ("generationConfig", "toolConfig")


def encode_request(request: Request, at: Endpoint) -> Encoded:
    """See `ClientSide.encode_request`."""
    scope = Scope(at)
    try:
        data = encode_json(_body(request, scope))
    except (*SHAPE_ERRORS, OverflowError) as error:
        # A value of the wrong type, or text that is no valid Unicode: values are not checked when made.
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"the request holds a value that cannot be sent ({what})") from error
    headers = {"content-type": "application/json"}
    return Encoded(Wire(path_of(request.model, request.stream), data, headers), tuple(scope.losses))


def _body(request: Request, scope: Scope) -> Json:
    system, first = system_of(request.messages, scope)
    turns = Conversation(scope)
    for place in range(first, len(request.messages)):
        turns.add(request.messages[place], f"messages[{place}]")
    body: Json = {"contents": turns.finish()}
    if system is not None:
        body["systemInstruction"] = system
    if request.tools or request.tool_choice is not UNSET:
        _tools(request, body, scope)
    if config := _config(request, scope):
        body["generationConfig"] = config
    if request.metadata is not UNSET and request.metadata:
        body["labels"] = request.metadata
    if request.service_tier not in (UNSET, "auto"):
        _tier(request, body, scope)
    for field, harmless, matters, why in _UNSAID:
        value = getattr(request, field)
        if value is not UNSET and value != harmless:
            scope.lose(field, why, "loss" if matters else "note")
    scope.losses += missed(request.extra, NAME)
    for key, value in scope.own(request.extra, "").items():
        body[key] = _merged(body.get(key), value) if key in _NESTED else value
    return body


def _merged(ours: Any, own: Any) -> Any:
    """The keys of both objects, at every depth; the dialect's own count where both say one."""
    if not isinstance(ours, dict) or not isinstance(own, dict):
        return own
    return {**ours, **{key: _merged(ours.get(key), value) for key, value in own.items()}}


def _tier(request: Request, body: Json, scope: Scope) -> None:
    tier = _TIERS.get(str(request.service_tier))
    if tier is None:
        scope.lose("service_tier", f"the tiers are {', '.join(TIERS)}, not {request.service_tier}")
    else:
        body["serviceTier"] = tier
        if tier != request.service_tier:
            scope.lose("service_tier", f"this tier is called {tier} here", "note")


# ---- tools ------------------------------------------------------------------------------------


def _tools(request: Request, body: Json, scope: Scope) -> None:
    offered: list[Json] = []
    functions: list[Json] | None = None
    for place, tool in enumerate(request.tools):
        where = f"tools[{place}]"
        if isinstance(tool, Tool):
            if functions is None:
                functions = []
                offered.append({"functionDeclarations": functions})
            functions.append(_function(tool, where, scope))
        elif tool.dialect == NAME and isinstance(tool.raw, dict):
            functions = None
            offered.append(tool.raw)
        else:
            scope.lose(where, f"a {tool.type} of {tool.dialect} means nothing here")
    if offered:
        body["tools"] = offered
    if request.tool_choice is not UNSET:
        body["toolConfig"] = {"functionCallingConfig": _choice(request.tool_choice, request.tools)}


def _function(tool: Tool, where: str, scope: Scope) -> Json:
    wire: Json = {"name": tool.name}
    if tool.description is not None:
        wire["description"] = tool.description
    parameters = tool.parameters
    if tool.kind == "custom":
        scope.lose(f"{where}.kind", "tools take objects here; offered as a function of one string")
        parameters = FREE_TEXT
    if parameters:
        if scope.at.options.get("schema") == "openapi":
            wire["parameters"] = openapi(parameters)
        else:
            wire["parametersJsonSchema"] = parameters
    if tool.strict is True:
        scope.lose(f"{where}.strict", "arguments are not held to the schema here")
    if tool.cache is not None:
        scope.lose(f"{where}.cache", "prompts are cached by their beginning, without breakpoints", "note")
    return wire | scope.own(tool.extra, where)


def _choice(choice: ToolChoice, tools: tuple[Tool | Opaque, ...]) -> Json:
    """Which tools may or must be called. Names can be told only where calls are held to the functions offered."""
    names = list(choice.names) if choice.mode != "none" else []
    offered = {tool.name for tool in tools if isinstance(tool, Tool)}
    if missing := [name for name in names if name not in offered]:
        raise InputError(f"tool_choice names {missing[0]!r}, which is not offered", hint="offer it in tools")
    if not names:
        return {"mode": _MODES[choice.mode]}
    return {"mode": "VALIDATED" if choice.mode == "auto" else "ANY", "allowedFunctionNames": names}


# ---- generationConfig -------------------------------------------------------------------------


def _config(request: Request, scope: Scope) -> Json:
    config: Json = {}
    for field, name in SETTINGS:
        value = getattr(request, field)
        if value is not UNSET:
            config[name] = value
    if request.response_format is not UNSET:
        _format(request.response_format, config, scope)
    if request.thinking is not UNSET and (thinking := _thinking(request.thinking, scope)):
        config["thinkingConfig"] = thinking
    if request.modalities is not UNSET:
        config["responseModalities"] = [modality.upper() for modality in request.modalities]
    if request.audio is not UNSET:
        _speech(request.audio, config, scope)
    return config


def _format(ask: ResponseFormat, config: Json, scope: Scope) -> None:
    config["responseMimeType"] = "text/plain" if ask.kind == "text" else "application/json"
    if ask.kind == "schema" and ask.schema is not None:
        if scope.at.options.get("schema") == "openapi":
            config["responseSchema"] = openapi(ask.schema)
        else:
            config["responseJsonSchema"] = ask.schema
    for field, usual in (("name", ResponseFormat().name), ("description", None)):
        if getattr(ask, field) != usual:
            scope.lose(f"response_format.{field}", f"a schema has no {field} beside it", "note")
    if ask.strict is False:
        scope.lose("response_format.strict", "a schema is always kept to strictly", "note")
    config |= scope.own(ask.extra, "response_format")


def _thinking(ask: Thinking, scope: Scope) -> Json:
    """How much to think: a level or a budget, as the protocol refuses both at once."""
    wire: Json = {}
    off = ask.enabled is False or ask.effort == "none"
    if off:
        wire["thinkingBudget"] = 0
    elif ask.effort is not UNSET:
        level = "xhigh" if ask.effort == "max" else ask.effort
        if level not in LEVELS or level != ask.effort:
            scope.lose("thinking.effort", f"{ask.effort!r} is not known here; {level!r} is sent")
        wire["thinkingLevel"] = level.upper()
    elif ask.budget_tokens is not UNSET:
        wire["thinkingBudget"] = ask.budget_tokens
    elif ask.enabled is True:
        wire["thinkingBudget"] = DYNAMIC
    if ask.budget_tokens is not UNSET and wire.get("thinkingBudget") != ask.budget_tokens:
        scope.lose("thinking.budget_tokens", "a budget is not taken beside a level, or where thinking is off")
    if ask.mode is not UNSET:
        scope.lose("thinking.mode", "there are no modes of thinking here")
    if wire and not off and scope.at.options.get("include_thoughts") is True:
        wire["includeThoughts"] = True
    return wire | scope.own(ask.extra, "thinking")


def _speech(audio: dict[str, Any], config: Json, scope: Scope) -> None:
    if "voice" in audio:
        config["speechConfig"] = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": audio["voice"]}}}
    if rest := sorted(audio.keys() - {"voice"}):
        scope.lose("audio", f"only the voice is taken, not {', '.join(rest)}", "note")
