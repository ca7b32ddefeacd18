"""What the protocol's inventor refuses though it can be read: unknown fields, values out of range, turns out
of order. It knows the rules that hold for every model of the inventor's, and none of a single model.

Sources: the types and docstrings of the openai SDK 3.54 (fields, enumerations, lengths, ranges), the API
reference (what a field may stand beside), and recorded replies with status 400 (codes, strict schemas).
Where none of them is sure, nothing is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyvox.dialects import Wire, client_object
from polyvox.dialects.checks import Check, between, count, filled, members, name, short, text_or
from polyvox.dialects.openai_chat.turn_rules import check_messages, says, text_parts
from polyvox.dialects.shapes import UnfitError, by_name, each, flag, mapping, needed, one_of, text, texts, whole, wrong
from polyvox.errors import InputError

# ---- fields with rules of their own -----------------------------------------------------------


def _metadata(value: Any, where: str) -> None:
    if len(mapping(value, where)) > 16:
        raise wrong(where, "must have at most 16 keys", "object_above_max_properties")
    for key, item in value.items():
        short(512)(item, f"{where}.{key}")
        if len(key) > 64:
            raise wrong(where, "must have keys of at most 64 characters", "string_above_max_length")


def _stops(value: Any, where: str) -> None:
    if len(texts(value, where)) > 4:
        raise wrong(where, "must have at most 4 sequences", "array_above_max_length")


# ---- tools and formats ------------------------------------------------------------------------

_NAME = name(64)
_FUNCTION = members({"name": _NAME, "description": text, "parameters": mapping, "strict": flag}, "name")
_GRAMMAR = members({"syntax": one_of("lark", "regex"), "definition": text}, "syntax", "definition")
_CUSTOM_FORMAT = members({"type": one_of("text", "grammar"), "grammar": _GRAMMAR}, "type")
_CUSTOM = members({"name": _NAME, "description": text, "format": _CUSTOM_FORMAT}, "name")
_KINDS: dict[str, Check] = {"function": _FUNCTION, "custom": _CUSTOM}
_KIND = one_of(*_KINDS)


def _tools(value: Any, where: str) -> None:
    for i, tool in enumerate(filled(value, where, most=128)):
        spot = f"{where}[{i}]"
        kind = needed(mapping(tool, spot), "type", _KIND, spot)
        members({"type": text, kind: _KINDS[kind]}, kind)(tool, spot)
        if kind == "function" and tool[kind].get("strict"):
            _strict(tool[kind].get("parameters") or {}, f"{spot}.function.parameters", "invalid_function_parameters")


def _functions(value: Any, where: str) -> None:
    for i, function in enumerate(filled(value, where, most=128)):
        members({"name": _NAME, "description": text, "parameters": mapping}, "name")(function, f"{where}[{i}]")


def _strict(schema: Any, where: str, code: str) -> None:
    """A strict schema closes every object and requires all it has."""
    if isinstance(schema, list):
        for item in schema:
            _strict(item, where, code)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object":
        properties, required = schema.get("properties"), schema.get("required")
        names = properties if isinstance(properties, dict) else ()
        if schema.get("additionalProperties") is not False:
            raise wrong(where, "is strict, so every object in it needs additionalProperties: false", code)
        if any(name not in (required if isinstance(required, list) else ()) for name in names):
            raise wrong(where, "is strict, so every object in it must require all its properties", code)
    for key in ("properties", "$defs", "definitions"):
        for inner in schema[key].values() if isinstance(schema.get(key), dict) else ():
            _strict(inner, where, code)
    for key in ("items", "anyOf"):
        _strict(schema.get(key), where, code)


_SCHEMA = members({"name": _NAME, "description": text, "schema": mapping, "strict": flag}, "name")
_FORMAT = one_of("text", "json_object", "json_schema")


def _response_format(value: Any, where: str) -> None:
    kind = needed(mapping(value, where), "type", _FORMAT, where)
    if kind != "json_schema":
        members({"type": text})(value, where)
        return
    members({"type": text, kind: _SCHEMA}, kind)(value, where)
    if value[kind].get("strict"):
        _strict(value[kind].get("schema") or {}, where, "invalid_json_schema")


_NAMED = members({"name": _NAME}, "name")


def _choice_of(value: Any, where: str) -> None:
    """A tool by its kind and name."""
    kind = needed(mapping(value, where), "type", _KIND, where)
    members({"type": text, kind: _NAMED}, kind)(value, where)


def _allowed(value: Any, where: str) -> None:
    for i, tool in enumerate(filled(value, where)):
        _choice_of(tool, f"{where}[{i}]")


_ALLOWED = members({"mode": one_of("auto", "required"), "tools": _allowed}, "mode", "tools")


def _tool_choice(value: Any, where: str) -> None:
    if isinstance(value, str):
        one_of("none", "auto", "required")(value, where)
    elif mapping(value, where).get("type") == "allowed_tools":
        members({"type": text, "allowed_tools": _ALLOWED}, "allowed_tools")(value, where)
    else:
        _choice_of(value, where)


def _function_call(value: Any, where: str) -> None:
    if isinstance(value, str):
        one_of("none", "auto")(value, where)
    else:
        _NAMED(value, where)


# ---- all fields -------------------------------------------------------------------------------

_MODERATED = members({"mode": one_of("score", "block")}, "mode")
_PLACE: dict[str, Check] = {"city": text, "country": text, "region": text, "timezone": text}
_FIELDS: dict[str, Check] = {
    "model": text,
    "messages": check_messages,
    "audio": members(
        {
            "format": one_of("wav", "aac", "mp3", "flac", "opus", "pcm16"),
            "voice": text_or(members({"id": text}, "id")),
        },
        "format",
        "voice",
    ),
    "frequency_penalty": between(-2, 2),
    "function_call": _function_call,
    "functions": _functions,
    "logit_bias": by_name(between(-100, 100)),
    "logprobs": flag,
    "max_completion_tokens": count(1),
    "max_tokens": count(1),
    "metadata": _metadata,
    "modalities": each(one_of("text", "audio")),
    "moderation": members({"model": text, "policy": members({"input": _MODERATED, "output": _MODERATED})}, "model"),
    "n": count(1, 128),
    "parallel_tool_calls": flag,
    "prediction": members({"type": one_of("content"), "content": text_or(text_parts)}, "type", "content"),
    "presence_penalty": between(-2, 2),
    "prompt_cache_key": text,
    "prompt_cache_options": members({"mode": one_of("implicit", "explicit"), "ttl": one_of("30m")}),
    "prompt_cache_retention": one_of("in_memory", "in-memory", "24h"),
    "reasoning_effort": one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "response_format": _response_format,
    "safety_identifier": short(128),
    "seed": whole,
    "service_tier": one_of("auto", "default", "flex", "scale", "priority", "fast"),
    "stop": text_or(_stops),
    "store": flag,
    "stream": flag,
    "stream_options": members({"include_usage": flag, "include_obfuscation": flag}),
    "temperature": between(0, 2),
    "tool_choice": _tool_choice,
    "tools": _tools,
    "top_logprobs": count(0, 20),
    "top_p": between(0, 1),
    "user": text,
    "verbosity": one_of("low", "medium", "high"),
    "web_search_options": members(
        {
            "search_context_size": one_of("low", "medium", "high"),
            "user_location": members({"type": one_of("approximate"), "approximate": members(_PLACE)}, "type"),
        }
    ),
}
_REQUEST = members(_FIELDS, "model", "messages")


def check_request(wire: Wire) -> None:
    """See `ServerSide.check_request`."""
    body = client_object(wire)
    try:
        _REQUEST(body, "")
        _combinations({key: value for key, value in body.items() if value is not None})
    except RecursionError:
        raise InputError("the request is nested too deeply", code="invalid_json") from None
    except UnfitError as error:
        error.code = error.fault
        raise


# ---- what may stand beside what ---------------------------------------------------------------


def _named_tools(body: dict[str, Any]) -> set[str]:
    return {tool[tool["type"]]["name"] for tool in body.get("tools", ())}


def _chosen(choice: Any) -> set[str]:
    """The names in a tool choice."""
    if isinstance(choice, str):
        return set()
    tools = choice["allowed_tools"]["tools"] if choice["type"] == "allowed_tools" else [choice]
    return {tool[tool["type"]]["name"] for tool in tools}


# Field -> whether the rest of the request fits it, and what it takes. Asked of fields that are set, in turn.
_BESIDE: tuple[tuple[str, Callable[[dict[str, Any]], bool], str], ...] = (
    ("stream_options", lambda body: body.get("stream") is True, "is only for a request that streams"),
    ("max_tokens", lambda body: "max_completion_tokens" not in body, "cannot stand beside max_completion_tokens"),
    ("top_logprobs", lambda body: body.get("logprobs") is True, "needs logprobs: true"),
    ("parallel_tool_calls", lambda body: "tools" in body, "needs tools"),
    ("tool_choice", lambda body: "tools" in body or body["tool_choice"] == "none", "needs tools"),
    (
        "tool_choice",
        lambda body: _chosen(body["tool_choice"]) <= _named_tools(body),
        "names a tool that is not in tools",
    ),
    ("function_call", lambda body: "functions" in body, "needs functions"),
    (
        "modalities",
        lambda body: "audio" not in body["modalities"] or "audio" in body,
        "with audio needs audio settings",
    ),
    (
        "response_format",
        lambda body: body["response_format"]["type"] != "json_object" or says(body["messages"], "json"),
        "json_object needs the word JSON somewhere in the messages",
    ),
)


def _combinations(body: dict[str, Any]) -> None:
    for key, fits, must in _BESIDE:
        if key in body and not fits(body):
            raise wrong(key, must)
