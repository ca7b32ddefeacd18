"""A whole Messages answer, its blocks, citations, usage and errors, as values. What the stream reader needs
too stands here once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from polyvox.dialects import Endpoint, Reply, decode_object, encode_json, guarded, integer, snippet, string
from polyvox.dialects.anthropic.facts import NAME, finish_of
from polyvox.dialects.anthropic.plain import plain_response
from polyvox.dialects.errors_on_wire import make_error, request_id
from polyvox.errors import BadResponseError, PolyvoxError
from polyvox.types import (
    Citation,
    Extra,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Response,
    Text,
    ToolCall,
    Usage,
)

# Keys with a neutral place, at each level; every other key with a value goes to extra.
MESSAGE_KEYS = frozenset({"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"})
BLOCK_KEYS = {
    "text": frozenset({"type", "text", "citations"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
    "tool_use": frozenset({"type", "id", "name", "input"}),
}
# What each kind of citation points at; its own keys go along in extra, and are what is sent back.
_CITED = {
    "web_search_result_location": "url",
    "search_result_location": "search_result",
    "char_location": "document",
    "page_location": "document",
    "content_block_location": "document",
}
_CACHE_TTL = re.compile(r"ephemeral_(\w+)_input_tokens")


def decode(reply: Reply, at: Endpoint) -> Response:
    """A whole answer; raises BadResponseError, or the provider's error where the body is one."""
    plain = plain_response(reply)
    if plain is not None:
        return plain
    body = decode_object(reply.body)
    if is_error(body):
        raise error_of(body, 0, reply.headers)
    return guarded(lambda: _response(body, reply, at))


def _response(body: dict[str, Any], reply: Reply, at: Endpoint) -> Response:
    blocks = body.get("content")
    if not isinstance(blocks, list):
        raise BadResponseError(f"the answer has no content: {snippet(reply.body)}")
    parts: list[Part] = []
    calls = 0
    inputs = _inputs(reply.body) if any(kind_of(block) == "tool_use" for block in blocks) else []
    for place, block in enumerate(blocks):
        if kind_of(block) == "tool_use":
            parts.append(_call(block, inputs[place] if place < len(inputs) else None, calls))
            calls += 1
        else:
            parts.append(part_of(block, at))
    explanation = explanation_of(body.get("stop_details"))
    if explanation:
        parts.append(Refusal(explanation))
    raw_reason = string(body.get("stop_reason"))
    return Response(
        message=Message("assistant", tuple(parts)),
        finish_reason=finish_of(raw_reason, calls > 0),
        raw_finish_reason=raw_reason,
        stop_sequence=string(body.get("stop_sequence")),
        usage=usage_of(body.get("usage")),
        id=string(body.get("id")),
        model=string(body.get("model")),
        request_id=request_id(reply.headers),
        raw=reply.body,
        extra=extra_of(body, MESSAGE_KEYS),
    )


class _RawBlock(Struct):
    input: Raw | UnsetType = UNSET


class _RawBody(Struct):
    content: list[_RawBlock]


def _inputs(body: bytes) -> list[str | None]:
    """The inputs of all blocks in the model's own bytes: decoding and writing them anew would change them."""
    blocks = msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"), type=_RawBody).content
    return [None if block.input is UNSET else bytes(block.input).decode() for block in blocks]


def kind_of(block: Any) -> str:
    """The type of a content block; raises BadResponseError for what is not one."""
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str):
        raise BadResponseError("the answer has a content block without a type")
    return kind


def words(block: dict[str, Any], key: str) -> str:
    """A text a block must have; null and absence are no words, anything else is BadResponseError."""
    value = block.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadResponseError(f"the answer has a content block whose {key} is not text")
    return value


def part_of(block: dict[str, Any], at: Endpoint) -> Part:
    """The part a whole block is, tool calls aside; a kind nobody knows stays as it is."""
    kind = kind_of(block)
    if kind == "text":
        cited = tuple(citation_of(citation) for citation in block.get("citations") or ())
        return Text(words(block, "text"), citations=cited, extra=extra_of(block, BLOCK_KEYS[kind]))
    if kind == "thinking":
        return Reasoning(
            words(block, "thinking"),
            signature=string(block.get("signature")) or None,
            origin=at.origin,
            extra=extra_of(block, BLOCK_KEYS[kind]),
        )
    if kind == "redacted_thinking":
        data = words(block, "data")
        return Reasoning(encrypted=data, origin=at.origin, extra=extra_of(block, BLOCK_KEYS[kind]))
    return Opaque(NAME, kind, block, at.origin)


def _call(block: dict[str, Any], raw_input: str | None, number: int) -> ToolCall:
    identity, name = identity_of(block, number)
    given = block.get("input")
    # Some servers give the arguments as a string of JSON; its content is the arguments then.
    arguments = given if isinstance(given, str) else "{}" if given is None else raw_input
    return ToolCall(
        identity,
        name,
        encode_json(given).decode() if arguments is None else arguments,
        extra=extra_of(block, BLOCK_KEYS["tool_use"]),
    )


def identity_of(block: dict[str, Any], number: int) -> tuple[str, str]:
    """Id and name of a tool call; an id nobody gave is made from the call's number."""
    name = words(block, "name")
    if not name:
        raise BadResponseError("the answer has a tool call without a name")
    return words(block, "id") or f"call_{number}", name


def citation_of(raw: Any) -> Citation:
    """A citation; its positions count in the cited document, not in the text, so they stay in extra."""
    if not isinstance(raw, dict):
        raise BadResponseError("the answer has a citation that is not an object")
    source = string(raw.get("source"))
    return Citation(
        kind=_CITED.get(string(raw.get("type")) or "", string(raw.get("type")) or "unknown"),
        url=string(raw.get("url")) or source,
        title=string(raw.get("title")) or string(raw.get("document_title")),
        text=string(raw.get("cited_text")),
        document=integer(raw.get("document_index", raw.get("search_result_index"))),
        file_id=string(raw.get("file_id")),
        extra={NAME: raw},
    )


def explanation_of(details: Any) -> str | None:
    """The words a refusal is explained with, or None."""
    return string(details.get("explanation")) if isinstance(details, dict) else None


def extra_of(values: Mapping[str, Any], known: frozenset[str]) -> Extra:
    """The keys without a neutral place, as extra; null says nothing and is left out."""
    rest = {key: value for key, value in values.items() if key not in known and value is not None}
    return {NAME: rest} if rest else {}


def usage_of(raw: Any) -> Usage:
    """Tokens with inclusive totals: the wire's input_tokens leaves the cached ones out."""
    if not isinstance(raw, dict) or not raw:
        return Usage()
    fresh = integer(raw.get("input_tokens"))
    read = integer(raw.get("cache_read_input_tokens"))
    written = integer(raw.get("cache_creation_input_tokens"))
    output = integer(raw.get("output_tokens"))
    by_ttl = {}
    for key, value in _counts(raw.get("cache_creation")).items():
        if found := _CACHE_TTL.fullmatch(key):
            by_ttl[found[1]] = value
    if written is None and by_ttl:
        written = sum(by_ttl.values())
    ran = {key.removesuffix("_requests"): count for key, count in _counts(raw.get("server_tool_use")).items()}
    told = any(figure is not None for figure in (fresh, read, written, output))
    return Usage(
        input=None if fresh is None else fresh + (read or 0) + (written or 0),
        output=output,
        cache_read=read,
        cache_write=written,
        cache_write_by_ttl=by_ttl,
        reasoning=_counts(raw.get("output_tokens_details")).get("thinking_tokens"),
        server_tools=ran,
        source="provider" if told else "missing",
        raw=raw,
    )


def _counts(value: Any) -> dict[str, int]:
    items = value.items() if isinstance(value, dict) else ()
    return {key: count for key, item in items if (count := integer(item)) is not None}


# ---- errors -----------------------------------------------------------------------------------

# What this protocol says in words of its own, beside what all dialects share.
_KINDS = (
    ("billing", re.compile(r"spend_limit_reached$|billing_unavailable$|\bAPI usage limits\b")),
    ("content_policy", re.compile(r"\bblocked by content filtering\b")),
    ("context_length", re.compile(r"\bexceed context limit\b")),
)
_PARAM = re.compile(r"([a-z_]{2,40}(?:\.[\w-]{1,60}){0,12}): ")


def is_error(body: Mapping[str, Any]) -> bool:
    """Whether an object is an error, whatever status it came with."""
    return body.get("type") == "error" or (bool(body.get("error")) and "content" not in body)


def decode_error(reply: Reply) -> PolyvoxError:
    """The error in a reply with status >= 400; one that is not JSON is told by its status."""
    try:
        body = decode_object(reply.body)
    except BadResponseError:
        words_sent = snippet(reply.body) if reply.body.strip() else ""
        return make_error(reply.status, reply.headers, message=words_sent)
    return error_of(body, reply.status, reply.headers)


def error_of(body: Mapping[str, Any], status: int, headers: Mapping[str, str]) -> PolyvoxError:
    """The error an object tells; status 0 where it came inside an answer."""
    inner = body.get("error")
    facts = inner if isinstance(inner, dict) else {}
    details = facts.get("details")
    code = string(details.get("error_code")) if isinstance(details, dict) else None
    if code is None and isinstance(facts.get("code"), str | int):
        code = str(facts["code"])
    kind = string(facts.get("type"))
    said = (facts.get("message"), inner, body.get("message"), body.get("detail"))
    message = next((text for text in said if isinstance(text, str) and text), "")
    param = _PARAM.match(message) if kind in ("invalid_request_error", "not_found_error") else None
    own = next((name for name, words in _KINDS if words.search(code or "") or words.search(message[:4000])), None)
    error = make_error(
        status, headers, code=code, type=kind, message=message, param=param[1] if param else None, kind=own
    )
    error.request_id = string(body.get("request_id")) or error.request_id
    return error
