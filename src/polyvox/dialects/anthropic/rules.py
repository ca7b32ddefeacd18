"""What the protocol's inventor refuses with 400 though it can be read. Where nobody is sure what it refuses,
nothing is refused here.

Sources: the types and docstrings of the official client (2.11.0), the documented errors, limits and rules of
prompt caching, thinking and tool use, and the version notes of 2026-10-21.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from polyvox.dialects import Endpoint, Wire, client_object
from polyvox.dialects.anthropic.blocks import CACHE_TTLS, IMAGE_TYPES, Block
from polyvox.dialects.anthropic.facts import EFFORTS, FIRST_VERSION, SAMPLING, STRICT_VERSION, TIERS
from polyvox.dialects.anthropic.from_client import decode
from polyvox.dialects.checks import Check, between, count, filled, members, name
from polyvox.dialects.shapes import each, mapping, missing, needed, one_of, text, told, unknown, wrong
from polyvox.errors import InputError

_VERSION = one_of("2023-01-01", FIRST_VERSION, STRICT_VERSION)
_MOST_MESSAGES = 100_000
_BREAKPOINT: dict[str, Check] = {"type": one_of("ephemeral"), "ttl": one_of(*CACHE_TTLS)}
_MOST_BREAKPOINTS = 4
_LEAST_BUDGET = 1024

_FIELDS = frozenset({
    "model", "max_tokens", "messages", "system", "stop_sequences", "stream", "tools", "tool_choice", "thinking",
    "output_config", "metadata", "service_tier", "speed", "cache_control", "container", "inference_geo", "diagnostics",
    *SAMPLING,
})  # fmt: skip
# Fields that a feature named in the header anthropic-beta brings.
_BETA_FIELDS = frozenset({
    "billing_policy", "compaction", "context_management", "fallback_credit_token", "fallbacks", "mcp_servers",
    "output_format", "thread",
})  # fmt: skip
_INNER_FIELDS = {
    "metadata": frozenset({"user_id"}),
    "output_config": frozenset({"effort", "format"}),
    "diagnostics": frozenset({"previous_message_id"}),
}
_FORMAT = frozenset({"type", "schema"})
_THINKING = {
    "enabled": frozenset({"type", "budget_tokens", "display"}),
    "adaptive": frozenset({"type", "display"}),
    "between_tools": frozenset({"type"}),
    "disabled": frozenset({"type"}),
}
_CHOICE = {
    "auto": frozenset({"type", "disable_parallel_tool_use"}),
    "any": frozenset({"type", "disable_parallel_tool_use"}),
    "tool": frozenset({"type", "name", "disable_parallel_tool_use"}),
    "none": frozenset({"type"}),
}
_TOOL = frozenset({
    "name", "description", "input_schema", "type", "cache_control", "strict", "defer_loading",
    "eager_input_streaming", "input_examples", "allowed_callers",
})  # fmt: skip
_BLOCKS = {
    "text": frozenset({"type", "text", "cache_control", "citations"}),
    "image": frozenset({"type", "source", "cache_control", "transformations"}),
    "document": frozenset({"type", "source", "cache_control", "citations", "context", "title"}),
    "search_result": frozenset({"type", "source", "title", "content", "cache_control", "citations"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
    "tool_use": frozenset({"type", "id", "name", "input", "cache_control", "caller", "toolset_name"}),
    "tool_result": frozenset({"type", "tool_use_id", "content", "is_error", "cache_control", "toolset_name"}),
    "server_tool_use": frozenset({"type", "id", "name", "input", "cache_control", "caller"}),
    "container_upload": frozenset({"type", "file_id", "cache_control"}),
}
_IN_RESULTS = ("text", "image", "document", "search_result", "tool_reference", "browser_state")
_ONLY_ASSISTANT = ("thinking", "redacted_thinking", "tool_use")
# What may be the source of a block: the type, and the media types it may have.
_SOURCES: dict[str, dict[str, tuple[str, ...]]] = {
    "image": {"base64": IMAGE_TYPES, "url": (), "file": ()},
    "document": {"base64": ("application/pdf",), "text": ("text/plain",), "url": (), "file": (), "content": ()},
}

_SCHEMA_TYPE = one_of("object")
_TOOL_NAME = name(128)
_CALL_NAME = name(200)
_CALL_ID = name()
_DATED = re.compile(r"\w+_\d{8}")


class _Asked(NamedTuple):
    """A request to be checked: its body, whether the strict version is asked for, and the beta features."""

    body: Mapping[str, Any]
    strict: bool
    beta: str


class _Turn(NamedTuple):
    """Consecutive messages of one role, which the server joins: their blocks, each with its place."""

    role: str
    where: str
    blocks: list[tuple[str, Block]]


def check(wire: Wire) -> None:
    """Raises InputError, with `param`, for what the protocol's inventor refuses, unreadable requests included."""
    version = wire.headers.get("anthropic-version")
    if version is None:
        raise InputError("the header anthropic-version is required", param="anthropic-version")
    _VERSION(version, "anthropic-version")
    decode(wire, Endpoint())
    asked = _Asked(client_object(wire), version >= STRICT_VERSION, wire.headers.get("anthropic-beta", ""))
    for rule in _RULES:
        rule(asked)


# ---- what all rules say in the same words -----------------------------------------------------


def _only(values: Mapping[str, Any], known: frozenset[str], where: str, asked: _Asked) -> None:
    """Refuse other keys; beta features bring keys of their own anywhere."""
    for key in values:
        if key not in known and not asked.beta:
            raise unknown(f"{where}.{key}")


# ---- fields -----------------------------------------------------------------------------------


def _fields(asked: _Asked) -> None:
    for key in asked.body:
        if key in _BETA_FIELDS and not asked.beta:
            raise wrong(key, "needs a feature named in the header anthropic-beta")
        if key not in _FIELDS and key not in _BETA_FIELDS:
            raise unknown(key)
        if asked.strict and key in SAMPLING:
            raise wrong(key, f"is refused since version {STRICT_VERSION}")
    for key, known in _INNER_FIELDS.items():
        _only(told(asked.body, key, mapping) or {}, known, key, asked)


def _visible(value: Any, where: str) -> None:
    if not value.strip():
        raise wrong(where, "must be more than white space")


_VALUES = members(
    {
        "max_tokens": count(0),
        "top_k": count(0),
        "temperature": between(0, 1),
        "top_p": between(0, 1),
        "stop_sequences": each(_visible),
        "output_config": members({"effort": one_of(*EFFORTS)}, others=True),
        "service_tier": one_of(*TIERS),
        "speed": one_of("standard", "fast"),
        "inference_geo": text,
    },
    others=True,
)


def _values(asked: _Asked) -> None:
    body = asked.body
    if not body["model"]:
        raise wrong("model", "must be the name of a model")
    if body.get("max_tokens") is None:
        raise missing("max_tokens", hint="say how long the answer may be at most")
    _VALUES(body, "")
    _only((body.get("output_config") or {}).get("format") or {}, _FORMAT, "output_config.format", asked)


def _thinking(asked: _Asked) -> None:
    body, said = asked.body, asked.body.get("thinking")
    if said is None:
        return
    kind = needed(said, "type", one_of(*_THINKING), "thinking")
    _only(said, _THINKING[kind], "thinking", asked)
    told(said, "display", one_of("summarized", "omitted"), "thinking")
    if kind != "enabled":
        return
    needed(said, "budget_tokens", count(_LEAST_BUDGET), "thinking")
    if said["budget_tokens"] >= body["max_tokens"] and "interleaved-thinking" not in asked.beta:
        raise wrong("thinking.budget_tokens", "must be less than max_tokens")
    if body.get("temperature") not in (None, 1):
        raise wrong("temperature", "must be 1 where thinking is enabled")
    if body.get("top_k") is not None:
        raise wrong("top_k", "must be left out where thinking is enabled")
    if body.get("top_p") is not None and body["top_p"] < 0.95:
        raise wrong("top_p", "must be at least 0.95 where thinking is enabled")
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        raise wrong("tool_choice.type", "must be auto or none where thinking is enabled")


def _tools(asked: _Asked) -> None:
    names: set[str] = set()
    for place, tool in enumerate(asked.body.get("tools") or ()):
        where = f"tools[{place}]"
        called, kind = tool.get("name"), "custom" if tool.get("type") is None else tool["type"]
        if kind == "custom":
            needed(tool, "name", _TOOL_NAME, where)
            _only(tool, _TOOL, where, asked)
            needed(tool["input_schema"], "type", _SCHEMA_TYPE, f"{where}.input_schema")
        elif not _DATED.fullmatch(kind) and not asked.beta:
            raise wrong(f"{where}.type", "must be custom, or the dated name of a tool that is built in")
        if isinstance(called, str):
            if called in names:
                raise wrong(f"{where}.name", f"is {called!r}, as another tool's is")
            names.add(called)
    choice = asked.body.get("tool_choice")
    if choice is None:
        return
    if not asked.body.get("tools"):
        raise wrong("tool_choice", "needs tools to choose from")
    _only(choice, _CHOICE[choice["type"]], "tool_choice", asked)
    if choice["type"] == "tool" and choice["name"] not in names:
        raise wrong("tool_choice.name", "must be the name of a tool that is offered")


# ---- the prompt cache -------------------------------------------------------------------------


def _cache(asked: _Asked) -> None:
    """At most four breakpoints, the longer-lived ones first, in the order tools, system, messages."""
    found = list(_breakpoints(asked.body))
    fits = members(_BREAKPOINT, "type", others=bool(asked.beta))
    shorter = None
    for where, said in found:
        fits(said, where)
        if said.get("ttl") != "1h":
            shorter = where
        elif shorter is not None and where != "cache_control":
            raise wrong(f"{where}.ttl", f"is 1h behind {shorter}, which lives shorter")
    if len(found) > _MOST_BREAKPOINTS:
        raise wrong(found[_MOST_BREAKPOINTS][0], f"is one breakpoint too many: at most {_MOST_BREAKPOINTS} are taken")


def _breakpoints(body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    system = body.get("system")
    places = [("tools", body.get("tools") or ()), ("system", system if isinstance(system, list) else ())]
    for place, message in enumerate(body["messages"]):
        if isinstance(message["content"], list):
            places.append((f"messages[{place}].content", message["content"]))
    for where, blocks in places:
        for place, block in enumerate(blocks):
            yield from _of_block(block, f"{where}[{place}]")
    if body.get("cache_control") is not None:
        yield "cache_control", body["cache_control"]


def _of_block(block: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The breakpoints of a block: those of what it holds, then its own."""
    inner = block.get("content")
    held = [(f"{where}.content[{place}]", part) for place, part in enumerate(inner if isinstance(inner, list) else ())]
    for place, part in (*held, (where, block)):
        said = part.get("cache_control") if isinstance(part, dict) else None
        if isinstance(said, dict):
            yield f"{place}.cache_control", said


# ---- turns ------------------------------------------------------------------------------------


def _messages(asked: _Asked) -> None:
    messages = filled(asked.body["messages"], "messages", _MOST_MESSAGES)
    if messages[0]["role"] != "user":
        raise wrong("messages[0].role", "must be user: the user's turn comes first")
    system = asked.body.get("system")
    for place, block in enumerate(system if isinstance(system, list) else ()):
        _block(block, f"system[{place}]", "system", asked)
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        _only(message, frozenset({"role", "content"}), where, asked)
        role, content = message["role"], message["content"]
        if role == "system" and not asked.strict and not asked.beta:
            raise wrong(
                f"{where}.role", f"must be user or assistant before version {STRICT_VERSION}; use system at the top"
            )
        if not content and not (role == "assistant" and place == len(messages) - 1):
            raise wrong(f"{where}.content", "must be more than nothing")
    turns = _turns(messages)
    for turn in turns:
        for where, block in turn.blocks:
            _block(block, where, turn.role, asked)
    _calls(turns)
    last = turns[-1]
    if last.role == "assistant" and last.blocks:
        where, block = last.blocks[-1]
        if block["type"] == "text" and block["text"] != block["text"].rstrip():
            raise wrong(where, "must be without white space at its end, as the answer goes on from there")


def _turns(messages: list[Any]) -> list[_Turn]:
    turns: list[_Turn] = []
    for place, message in enumerate(messages):
        where, content = f"messages[{place}]", message["content"]
        if not turns or turns[-1].role != message["role"]:
            turns.append(_Turn(message["role"], where, []))
        if isinstance(content, list):
            turns[-1].blocks.extend((f"{where}.content[{number}]", block) for number, block in enumerate(content))
        elif content:
            turns[-1].blocks.append((f"{where}.content", {"type": "text", "text": content}))
    return turns


def _block(block: Block, where: str, role: str, asked: _Asked) -> None:
    """One block of a turn, or of a tool's result, whose role is "result"."""
    kind = block["type"]
    _kind(kind, where, role, asked)
    if kind in _BLOCKS:
        _only(block, _BLOCKS[kind], where, asked)
    if kind == "text" and not block["text"].strip() and (role != "result" or not block["text"]):
        raise wrong(where, "must be a text of more than white space")
    if asked.strict and kind == "document" and role == "assistant":
        raise InputError(f"{where}: the assistant's turns hold no documents since {STRICT_VERSION}", param=where)
    if asked.strict and kind == "text" and role == "user" and block.get("citations"):
        raise InputError(f"{where}: the user's text may not cite since {STRICT_VERSION}", param=f"{where}.citations")
    if kind in _SOURCES and isinstance(block["source"], dict):
        _source(block["source"], _SOURCES[kind], f"{where}.source")
    if kind == "thinking" and block.get("signature") is None:
        raise wrong(f"{where}.signature", "must be the signature the thought came with")
    if kind == "tool_use" and role == "assistant":
        needed(block, "id", _CALL_ID, where)
        needed(block, "name", _CALL_NAME, where)
    if kind == "tool_result" and role == "user":
        needed(block, "tool_use_id", _CALL_ID, where)
        inner = block.get("content")
        for place, part in enumerate(inner if isinstance(inner, list) else ()):
            _block(part, f"{where}.content[{place}]", "result", asked)


def _kind(kind: str, where: str, role: str, asked: _Asked) -> None:
    """Whether a block of this kind may stand here. Beta features bring kinds of their own."""
    known = kind in _BLOCKS or kind.endswith(("_tool_result", "_tool_use"))
    if role == "result":
        known = kind in _IN_RESULTS
    elif role == "system":
        known = kind == "text"
    if not known and not asked.beta:
        raise wrong(f"{where}.type", f"is {kind}, which has no place here")
    if (role == "user" and kind in _ONLY_ASSISTANT) or (role == "assistant" and kind == "tool_result"):
        other = "assistant" if role == "user" else "user"
        raise wrong(f"{where}.type", f"is {kind}, which only the {other}'s turns hold")


def _source(source: Block, kinds: Mapping[str, tuple[str, ...]], where: str) -> None:
    media_types = kinds[needed(source, "type", one_of(*kinds), where)]
    if media_types:
        needed(source, "media_type", one_of(*media_types), where)


def _calls(turns: list[_Turn]) -> None:
    """Results come first in the turn behind the calls they answer, and every call has one."""
    seen: set[str] = set()
    for place, turn in enumerate(turns):
        before = turns[place - 1].blocks if place else []
        made = {block["id"] for _, block in before if isinstance(block.get("id"), str)}
        _results(turn, made)
        after = turns[place + 1] if place + 1 < len(turns) else None
        answers = after.blocks if after is not None and after.role == "user" else []
        answered = {block["tool_use_id"] for _, block in answers if block["type"] == "tool_result"}
        for where, block in turn.blocks:
            if block["type"] != "tool_use" or turn.role != "assistant":
                continue
            if block["id"] in seen:
                raise wrong(f"{where}.id", f"is {block['id']!r}, as another call's is")
            seen.add(block["id"])
            if block["id"] not in answered:
                raise InputError(
                    f"{where}: the call {block['id']!r} has no tool_result in the next message",
                    param=where,
                    hint="answer every tool_use in the user's message right behind it",
                )


def _results(turn: _Turn, made: set[str]) -> None:
    """The results in a turn: in front, and each for another of the calls made in the turn before."""
    first = next((place for place, (_, block) in enumerate(turn.blocks) if block["type"] != "tool_result"), None)
    for place, (where, block) in enumerate(turn.blocks):
        if block["type"] != "tool_result":
            continue
        if first is not None and place > first:
            raise InputError(f"{where}: results of tools stand in front of everything else", param=where)
        if block["tool_use_id"] not in made:
            raise InputError(
                f"{where}: no tool_use in the message before has the id {block['tool_use_id']!r}, or it has its result",
                param=f"{where}.tool_use_id",
            )
        made.discard(block["tool_use_id"])


_RULES: tuple[Callable[[_Asked], None], ...] = (_fields, _values, _thinking, _tools, _cache, _messages)
