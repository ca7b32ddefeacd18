"""A whole Converse answer, its blocks, citations, usage and errors, as values. What the stream reader and the
reader of clients' requests need too stands here once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from polyvox.dialects import Endpoint, Reply, decode_object, encode_json, guarded, integer, snippet, string
from polyvox.dialects.bedrock.facts import (
    ANSWER_KEYS,
    BLOCK_KEYS,
    NAME,
    PLAIN_TOOL,
    SERVER_TOOL,
    extra_of,
    finish_of,
    kind_in,
)
from polyvox.dialects.bedrock.media import medium_of
from polyvox.dialects.bedrock.plain import plain_response
from polyvox.dialects.errors_on_wire import kind_of, make_error, request_id
from polyvox.errors import BadResponseError, PolyvoxError
from polyvox.types import (
    CacheHint,
    Citation,
    Extra,
    Message,
    Opaque,
    Part,
    Reasoning,
    Response,
    Text,
    ToolCall,
    Usage,
)

_MESSAGE_KEYS = frozenset({"role", "content"})
# What each place points at; its own keys go along in extra, and are what is sent back.
_CITED = {
    "web": "url",
    "searchResultLocation": "search_result",
    "documentChar": "document",
    "documentPage": "document",
    "documentChunk": "document",
}


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
    output = body.get("output")
    message = output.get("message") if isinstance(output, dict) else None
    blocks = message.get("content") if isinstance(message, dict) else None
    if not isinstance(output, dict) or not isinstance(message, dict) or not isinstance(blocks, list):
        raise BadResponseError(f"the answer has no message: {snippet(reply.body)}")
    parts: list[Part] = []
    calls = 0
    inputs = _inputs(reply.body) if any(is_call(block) for block in blocks) else []
    for place, block in enumerate(blocks):
        if type(block) is dict and len(block) == 1 and type(said := block.get("text")) is str:
            parts.append(Text(said))  # the common case
        elif is_call(block):
            parts.append(_call(block, inputs[place] if place < len(inputs) else None, calls))
            calls += 1
        else:
            parts.append(part_of(block, at.origin))
    raw_reason = string(body.get("stopReason"))
    extra = measured(extra_of(body, ANSWER_KEYS))
    if beside := extra_of(output, frozenset({"message"})):
        extra = {NAME: {**extra.get(NAME, {}), "output": beside[NAME]}}
    return Response(
        message=Message("assistant", tuple(parts), extra=extra_of(message, _MESSAGE_KEYS)),
        finish_reason=finish_of(raw_reason, calls > 0),
        raw_finish_reason=raw_reason,
        usage=usage_of(body.get("usage")),
        request_id=request_id(reply.headers),
        raw=reply.body,
        extra=extra,
    )


def measured(extra: Extra) -> Extra:
    """Keys of an answer without those that only fill a place: no answer takes 0 ms."""
    own = extra.get(NAME, {})
    if own.get("metrics") != {"latencyMs": 0}:
        return extra
    rest = {key: value for key, value in own.items() if key != "metrics"}
    return {NAME: rest} if rest else {}


class _RawUse(Struct):
    input: Raw | UnsetType = UNSET


class _RawBlock(Struct, rename="camel"):
    tool_use: _RawUse | None = None


class _RawMessage(Struct):
    content: list[_RawBlock]


class _RawOutput(Struct):
    message: _RawMessage


class _RawBody(Struct):
    output: _RawOutput


def _inputs(body: bytes) -> list[str | None]:
    """The inputs of all calls in the model's own bytes: decoding and writing them anew would change them."""
    blocks = msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"), type=_RawBody).output.message.content
    return [
        None if block.tool_use is None or block.tool_use.input is UNSET else bytes(block.tool_use.input).decode()
        for block in blocks
    ]


# ---- blocks -----------------------------------------------------------------------------------


def is_call(block: Any) -> bool:
    """Whether a block is a call that the caller must run."""
    use = block.get("toolUse") if isinstance(block, dict) else None
    return use is not None and not (isinstance(use, dict) and use.get("type") == SERVER_TOOL)


def words(values: Any, key: str) -> str:
    """A text an object must have; null and absence are no words, anything else is BadResponseError."""
    value = values.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadResponseError(f"the answer has a content block whose {key} is not text")
    return value


def part_of(block: Any, origin: str | None, cache: CacheHint | None = None) -> Part:
    """The part a whole block is, tool calls and results aside; a kind nobody knows stays as it is."""
    kind = kind_in(block) if isinstance(block, dict) else None
    if kind is None:
        raise BadResponseError("the answer has a content block without content")
    value = block[kind]
    beside = {key: other for key, other in block.items() if key != kind and other is not None}
    if kind == "text":
        return Text(words(block, kind), cache=cache, extra={NAME: beside} if beside else {})
    found: Part | None = None
    if not beside and kind in _READERS:
        found = _READERS[kind](value, origin, cache)
    elif not beside and kind in ("image", "audio", "video", "document"):
        found = medium_of(kind, value, cache)
    return Opaque(NAME, _type_of(kind, value), block, origin) if found is None else found


def _type_of(kind: str, value: Any) -> str:
    """The type of an opaque block: that of the tool where the server ran one."""
    return SERVER_TOOL if kind == "toolUse" and isinstance(value, dict) and value.get("type") == SERVER_TOOL else kind


def _reasoning(value: Any, origin: str | None, _cache: CacheHint | None) -> Part | None:
    shown = value.get("reasoningText")
    if isinstance(shown, dict) and len(value) == 1:
        proof = string(shown.get("signature")) or None
        return Reasoning(words(shown, "text"), proof, None, origin, extra_of(shown, BLOCK_KEYS["reasoningText"]))
    if isinstance(value.get("redactedContent"), str):
        extra = extra_of(value, frozenset({"redactedContent"}))
        return Reasoning(encrypted=value["redactedContent"], origin=origin, extra=extra)
    return None


def _cited_text(value: Any, _origin: str | None, cache: CacheHint | None) -> Part | None:
    """Text with its sources; its pieces are one text."""
    pieces = value.get("content") or []
    if any(piece.keys() != {"text"} for piece in pieces):
        return None
    cited = tuple(citation_of(citation) for citation in value.get("citations") or ())
    text = "".join(words(piece, "text") for piece in pieces)
    return Text(text, cited, cache, extra=extra_of(value, BLOCK_KEYS["citationsContent"]))


_READERS = {"reasoningContent": _reasoning, "citationsContent": _cited_text}


def citation_of(raw: Any) -> Citation:
    """A citation; its positions count in the cited document, not in the text, so they stay in extra."""
    if not isinstance(raw, dict):
        raise BadResponseError("the answer has a citation that is not an object")
    location = raw.get("location")
    place, found = next(iter(location.items()), ("", None)) if isinstance(location, dict) else ("", None)
    found = found if isinstance(found, dict) else {}
    pieces = raw.get("sourceContent")
    said = [piece.get("text") for piece in pieces if isinstance(piece, dict)] if isinstance(pieces, list) else []
    return Citation(
        kind=_CITED.get(place, place or "unknown"),
        url=string(found.get("url")) or string(raw.get("source")),
        title=string(raw.get("title")),
        text="".join(text for text in said if isinstance(text, str)) or None,
        document=integer(found.get("documentIndex", found.get("searchResultIndex"))),
        extra={NAME: raw},
    )


def _call(block: dict[str, Any], raw_input: str | None, number: int) -> ToolCall:
    use = block["toolUse"]
    identity, name = identity_of(use, number)
    beside = {key: other for key, other in block.items() if key != "toolUse" and other is not None}
    extra = call_extra(use)
    given = use.get("input")
    # Some servers give the arguments as a string of JSON; its content is the arguments then.
    arguments = given if isinstance(given, str) else "{}" if given is None else raw_input
    return ToolCall(
        identity,
        name,
        encode_json(given).decode() if arguments is None else arguments,
        extra={NAME: {**beside, **extra.get(NAME, {})}} if beside else extra,
    )


def call_extra(use: Mapping[str, Any]) -> Extra:
    """The keys of a call without a neutral place. That it is a call is what some say again, and none takes back."""
    extra = extra_of(use, BLOCK_KEYS["toolUse"])
    if extra and extra[NAME].get("type") == PLAIN_TOOL:
        rest = {key: value for key, value in extra[NAME].items() if key != "type"}
        return {NAME: rest} if rest else {}
    return extra


def identity_of(use: Any, number: int) -> tuple[str, str]:
    """Id and name of a tool call; an id nobody gave is made from the call's number."""
    name = words(use, "name")
    if not name:
        raise BadResponseError("the answer has a tool call without a name")
    return words(use, "toolUseId") or f"call_{number}", name


# ---- usage ------------------------------------------------------------------------------------


def usage_of(raw: Any) -> Usage:
    """Tokens with inclusive totals: the wire's inputTokens leaves the cached ones out."""
    if not isinstance(raw, dict) or not raw:
        return Usage()
    fresh = integer(raw.get("inputTokens"))
    read = integer(raw.get("cacheReadInputTokens"))
    written = integer(raw.get("cacheWriteInputTokens"))
    output, total = integer(raw.get("outputTokens")), integer(raw.get("totalTokens"))
    details = raw.get("cacheDetails")
    by_ttl: dict[str, int] = {}
    for detail in details if isinstance(details, list) else ():
        count = integer(detail.get("inputTokens")) if isinstance(detail, dict) else None
        if count is not None and isinstance(detail.get("ttl"), str):
            by_ttl[detail["ttl"]] = by_ttl.get(detail["ttl"], 0) + count
    if written is None and by_ttl:
        written = sum(by_ttl.values())
    ran = raw.get("serverToolUsage")
    told = any(figure is not None for figure in (fresh, read, written, output, total))
    return Usage(
        input=None if fresh is None else fresh + (read or 0) + (written or 0),
        output=output,
        cache_read=read,
        cache_write=written,
        cache_write_by_ttl=by_ttl,
        total=total,
        server_tools=_counts(ran) if isinstance(ran, dict) else {},
        source="provider" if told else "missing",
        raw=raw,
    )


def _counts(values: dict[str, Any]) -> dict[str, int]:
    return {key: count for key, value in values.items() if (count := integer(value)) is not None}


# ---- errors -----------------------------------------------------------------------------------

# Where the model's own server failed, this is what it answered.
_BEHIND = frozenset({"modelerrorexception", "modelstreamerrorexception"})
_NAMED = re.compile(r"(?:.*#)?([A-Za-z]+)")
_SAID = ("message", "Message", "originalMessage")


def is_error(body: Mapping[str, Any]) -> bool:
    """Whether an object is an error, whatever status it came with."""
    return "output" not in body and any(key in body for key in ("message", "Message", "__type"))


def decode_error(reply: Reply) -> PolyvoxError:
    """The error in a reply with status >= 400; one that is not JSON is told by its status."""
    try:
        body = decode_object(reply.body)
    except BadResponseError:
        said = snippet(reply.body) if reply.body.strip() else ""
        return make_error(reply.status, reply.headers, type=_name_of({}, reply.headers), message=said)
    return error_of(body, reply.status, reply.headers)


def _name_of(body: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """The name of an error, without what some servers put before and behind it."""
    for told in (headers.get("x-amzn-errortype"), body.get("__type")):
        found = _NAMED.match(told) if isinstance(told, str) else None
        if found is not None:
            return found[1]
    return None


def error_of(body: Mapping[str, Any], status: int, headers: Mapping[str, str], name: str | None = None) -> PolyvoxError:
    """The error an object tells; status 0 where it came inside an answer, `name` where its frame has one."""
    name = name or _name_of(body, headers)
    message = next((text for key in _SAID if isinstance(text := body.get(key), str) and text), "")
    code = body.get("code")
    code = str(code) if isinstance(code, str | int) and not isinstance(code, bool) else None
    original = integer(body.get("originalStatusCode"))
    kind = None
    if name is not None and name.lower() in _BEHIND and original is not None and original >= 400:
        kind = kind_of(original, code, None, message)
    return make_error(status, headers, code=code, type=name, message=message, kind=kind)
