"""What the protocol's inventor refuses though it can be read: unknown fields, values out of range, results without
their calls. It knows the rules that hold for every model of the inventor's, and none of a single model.

Sources: the types and docstrings of the openai SDK 3.54 (fields, enumerations, lengths, ranges), the API reference
(what a field may stand beside), and recorded replies with status 400. Where none of them is sure, nothing is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyvox.dialects import Endpoint, Wire, client_object
from polyvox.dialects.checks import Check, between, count, members, name, short, text_or
from polyvox.dialects.openai_responses.facts import CALLS, RESULTS
from polyvox.dialects.openai_responses.from_client import decode_request
from polyvox.dialects.shapes import UnfitError, flag, mapping, needed, one_of, sequence, text, texts, wrong
from polyvox.errors import InputError

# ---- fields with rules of their own -----------------------------------------------------------


def _metadata(value: Any, where: str) -> None:
    if len(mapping(value, where)) > 16:
        raise wrong(where, "must have at most 16 keys", "object_above_max_properties")
    for key, item in value.items():
        short(512)(item, f"{where}.{key}")
        if len(key) > 64:
            raise wrong(where, "must have keys of at most 64 characters", "string_above_max_length")


_INCLUDABLE = one_of(
    "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
    "message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs",
    "reasoning.encrypted_content", "message.output_text.logprobs",
)  # fmt: skip


def _include(value: Any, where: str) -> None:
    for i, word in enumerate(texts(value, where)):
        _INCLUDABLE(word, f"{where}[{i}]")


# ---- tools and formats ------------------------------------------------------------------------

_NAME = name(64)
_CALLERS: Check = texts
_FUNCTION = members(
    {
        "type": text, "name": _NAME, "description": text, "parameters": mapping, "strict": flag, "defer_loading": flag,
        "allowed_callers": _CALLERS, "output_schema": mapping, "async": flag,
    },
    "name",
)  # fmt: skip
_GRAMMAR = members({"type": one_of("text", "grammar"), "syntax": one_of("lark", "regex"), "definition": text}, "type")
_CUSTOM = members(
    {
        "type": text, "name": _NAME, "description": text, "format": _GRAMMAR, "defer_loading": flag,
        "allowed_callers": _CALLERS, "async": flag,
    },
    "name",
)  # fmt: skip
_KINDS: dict[str, Check] = {"function": _FUNCTION, "custom": _CUSTOM}


def _tools(value: Any, where: str) -> None:
    for i, tool in enumerate(sequence(value, where)):
        spot = f"{where}[{i}]"
        kind = needed(mapping(tool, spot), "type", text, spot)
        if kind in _KINDS:
            _KINDS[kind](tool, spot)


_SCHEMA = members(
    {"type": text, "name": _NAME, "description": text, "schema": mapping, "strict": flag}, "name", "schema"
)
_FORMAT = one_of("text", "json_object", "json_schema")


def _format(value: Any, where: str) -> None:
    kind = needed(mapping(value, where), "type", _FORMAT, where)
    (_SCHEMA if kind == "json_schema" else members({"type": text}))(value, where)


# ---- items ------------------------------------------------------------------------------------

_STATUS = one_of("in_progress", "completed", "incomplete")
_TTL = members({"mode": one_of("explicit"), "ttl": one_of("30m", "12h")}, "mode")
_DETAIL = one_of("low", "high", "auto", "original")
_PIECES: dict[str, Check] = {
    "input_text": members({"type": text, "text": text, "prompt_cache_breakpoint": _TTL}, "text"),
    "input_image": members(
        {"type": text, "detail": _DETAIL, "file_id": text, "image_url": text, "prompt_cache_breakpoint": _TTL}
    ),
    "input_file": members(
        {
            "type": text, "detail": one_of("auto", "low", "high"), "file_data": text, "file_id": text,
            "file_url": text, "filename": text, "prompt_cache_breakpoint": _TTL,
        }
    ),
    "input_audio": members(
        {"type": text, "input_audio": members({"data": text, "format": one_of("mp3", "wav")}, "data", "format")},
        "input_audio",
    ),
    "output_text": members({"type": text, "text": text, "annotations": sequence, "logprobs": sequence}, "text"),
    "refusal": members({"type": text, "refusal": text}, "refusal"),
}  # fmt: skip
_IN = one_of("input_text", "input_image", "input_file", "input_audio")
_OUT = one_of("output_text", "refusal")
_RESULT = one_of("input_text", "input_image", "input_file")


def _content(value: Any, where: str, kinds: Callable[[Any, str], str]) -> None:
    for i, piece in enumerate(value if isinstance(value, list) else ()):
        spot = f"{where}[{i}]"
        _PIECES[needed(mapping(piece, spot), "type", kinds, spot)](piece, spot)


_MESSAGE = members({
    "type": text, "role": text, "content": lambda _value, _where: None, "id": text, "status": _STATUS,
    "phase": one_of("commentary", "final_answer"),
})  # fmt: skip
_CALL: dict[str, Check] = {
    "type": text, "id": text, "call_id": short(64), "name": text, "arguments": text, "input": text, "status": _STATUS,
    "namespace": text, "caller": mapping, "async": flag,
}  # fmt: skip
_RESULT_OF: dict[str, Check] = {
    "type": text, "id": text, "call_id": short(64), "output": text_or(sequence), "status": _STATUS, "name": text,
    "namespace": text, "caller": mapping,
}  # fmt: skip
_REASONING = members(
    {
        "type": text, "id": text, "summary": sequence, "content": sequence, "encrypted_content": text,
        "status": _STATUS,
    },
    "summary",
)  # fmt: skip


def _item(item: Any, where: str) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        _MESSAGE(item, where)
        _content(item["content"], f"{where}.content", _OUT if item["role"] == "assistant" else _IN)
    elif kind in CALLS:
        members(_CALL)(item, where)
    elif kind in RESULTS:
        members(_RESULT_OF)(item, where)
        _content(item["output"], f"{where}.output", _RESULT)
    elif kind == "reasoning":
        _REASONING(item, where)


def _input(value: Any, where: str) -> None:
    if not isinstance(value, str):
        for i, item in enumerate(value):
            _item(item, f"{where}[{i}]")


# ---- all fields -------------------------------------------------------------------------------

_MODERATED = members({"mode": one_of("score", "block")}, "mode")


def _compaction(value: Any, where: str) -> None:
    for i, rule in enumerate(sequence(value, where)):
        members({"type": text, "compact_threshold": count(0)}, "type")(rule, f"{where}[{i}]")


_FIELDS: dict[str, Check] = {
    "access_programs": mapping,
    "background": flag,
    "background_options": members({"completion_window": one_of("soonest", "2h", "8h"), "continuation_id": text}),
    "context_management": _compaction,
    "conversation": text_or(members({"id": text}, "id")),
    "image": members({"context_compression": one_of("auto", "enabled", "disabled")}),
    "include": _include,
    "input": _input,
    "instructions": text,
    "max_output_tokens": count(16),
    "max_tool_calls": count(1),
    "metadata": _metadata,
    "model": text,
    "moderation": members({"model": text, "policy": members({"input": _MODERATED, "output": _MODERATED})}, "model"),
    "parallel_tool_calls": flag,
    "previous_response_id": text,
    "prompt": members({"id": text, "version": text, "variables": mapping}, "id"),
    "prompt_cache_key": text,
    "prompt_cache_options": members(
        {"comparison_response_id": text, "mode": one_of("implicit", "explicit"), "prewarm": flag,
         "ttl": one_of("30m", "12h")}
    ),
    "prompt_cache_retention": one_of("in_memory", "in-memory", "24h"),
    "reasoning": members(
        {
            "context": one_of("auto", "current_turn", "all_turns"),
            "effort": one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
            "generate_summary": one_of("auto", "concise", "detailed"),
            "mode": text,
            "summary": one_of("auto", "concise", "detailed"),
        }
    ),
    "safety_identifier": short(128),
    "service_tier": one_of("auto", "default", "flex", "scale", "priority", "fast", "ultrafast"),
    "store": flag,
    "stream": flag,
    "stream_options": members({"include_obfuscation": flag}),
    "temperature": between(0, 2),
    "text": members({"format": _format, "verbosity": one_of("low", "medium", "high")}),
    "tool_choice": lambda _value, _where: None,  # what can be read of it is all there is to check
    "tools": _tools,
    "top_logprobs": count(0, 20),
    "top_p": between(0, 1),
    "truncation": one_of("auto", "disabled"),
    "user": text,
}  # fmt: skip
_REQUEST = members(_FIELDS)


def check_request(wire: Wire) -> None:
    """See `ServerSide.check_request`."""
    decode_request(wire, Endpoint())
    body = client_object(wire)
    try:
        _REQUEST(body, "")
        said = {key: value for key, value in body.items() if value is not None}
        for key, fits, must in _BESIDE:
            if key in said and not fits(said):
                raise wrong(key, must)
        if all(said.get(key) in (None, []) for key in _ASKS):
            raise wrong("input", "is missing", "missing_required_parameter")
        if not said.keys() & _KEPT:
            _answered(said.get("input"))
    except UnfitError as error:
        error.code = error.fault
        raise


# ---- what may stand beside what ---------------------------------------------------------------

# Any of these says what is asked; with the second, what was said before is kept at the server.
_ASKS = frozenset({"input", "prompt", "previous_response_id", "conversation"})
_KEPT = frozenset({"previous_response_id", "conversation", "prompt"})

# Field -> whether the rest of the request fits it, and what it takes. Asked of fields that are set, in turn.
_BESIDE: tuple[tuple[str, Callable[[dict[str, Any]], bool], str], ...] = (
    ("stream_options", lambda body: body.get("stream") is True, "is only for a request that streams"),
    ("conversation", lambda body: "previous_response_id" not in body, "cannot stand beside previous_response_id"),
    ("background", lambda body: not body["background"] or body.get("store") is not False, "needs store: true"),
    ("tool_choice", lambda body: bool(body.get("tools")) or body["tool_choice"] in ("none", "auto"), "needs tools"),
    ("tool_choice", lambda body: _chosen(body["tool_choice"]) <= _offered(body), "names a tool that is not in tools"),
)


def _offered(body: dict[str, Any]) -> set[str]:
    return {tool["name"] for tool in body.get("tools", ()) if tool["type"] in _KINDS}


def _chosen(choice: Any) -> set[str]:
    """The names of functions and custom tools in a tool choice."""
    if isinstance(choice, str):
        return set()
    tools = choice["tools"] if choice["type"] == "allowed_tools" else [choice]
    return {tool["name"] for tool in tools if isinstance(tool, dict) and tool.get("type") in _KINDS}


def _answered(items: Any) -> None:
    """Every result needs its call before it, and every call its result. An item that is only referred to may be
    either, so that nothing is sure beside one."""
    calls: dict[str, str] = {}
    open_: dict[str, str] = {}
    for i, item in enumerate(items if isinstance(items, list) else ()):
        kind, where = item.get("type", "message"), f"input[{i}]"
        if kind == "item_reference":
            return
        if kind in CALLS:
            calls[item["call_id"]] = open_[item["call_id"]] = where
        elif kind in RESULTS and item.get("call_id") is not None:
            if item["call_id"] not in calls:
                raise InputError(
                    f"{where}: no call before it has the id {item['call_id']!r}", param="input", code="invalid_value"
                )
            open_.pop(item["call_id"], None)
    if open_:
        call_id, where = next(iter(open_.items()))
        raise InputError(f"{where}: the call {call_id!r} has no result", param="input", code="invalid_value")
