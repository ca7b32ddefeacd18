"""A whole answer, its usage and its errors, as values; what the stream needs of them too stands here once."""

from __future__ import annotations

from typing import Any

from polyvox.dialects import (
    SHAPE_ERRORS,
    Endpoint,
    Reply,
    decode_json,
    decode_object,
    encode_json,
    guarded,
    integer,
    snippet,
    string,
)
from polyvox.dialects.cohere.plain import plain_response
from polyvox.dialects.cohere.request import NAME, PLAN
from polyvox.dialects.errors_on_wire import make_error
from polyvox.errors import BadResponseError, PolyvoxError
from polyvox.types import (
    Citation,
    Extra,
    FinishReason,
    Message,
    Opaque,
    Part,
    Reasoning,
    Response,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)

# The last two are of the protocol's first version; nothing in the second says the same.
_FINISH: dict[str, FinishReason] = {
    "COMPLETE": "stop", "STOP_SEQUENCE": "stop", "MAX_TOKENS": "length", "TOOL_CALL": "tool_calls",
    "ERROR": "error", "TIMEOUT": "error", "ERROR_TOXIC": "content_filter", "ERROR_LIMIT": "context_overflow",
}  # fmt: skip

# Keys with a neutral place; every other key goes to extra.
TOP = frozenset({"id", "finish_reason", "message", "usage"})
MESSAGE = frozenset({"role", PLAN, "content", "tool_calls", "citations"})
CALL = frozenset({"id", "type", "function"})
CALLED = frozenset({"name", "arguments"})
_TEXT = frozenset({"type", "text"})
_THINKING = frozenset({"type", "thinking"})
_CITED = frozenset({"start", "end", "text"})


def decode_response(reply: Reply, at: Endpoint) -> Response:
    """See `ClientSide.decode_response`."""
    found = plain_response(reply)
    if found is not None:
        return found
    body = decode_object(reply.body)
    if is_error(body):
        raise error_of(body, 0, {})
    return guarded(lambda: _response(body, reply.body, at))


def _response(body: dict[str, Any], data: bytes, at: Endpoint) -> Response:
    message, beside = message_of(body["message"], at)
    logprobs = logprobs_of(body.get("logprobs"))
    extra = keys_beside(body, TOP)
    reason, raw_reason = finish_of(body, any(isinstance(part, ToolCall) for part in message))
    return Response(
        message=Message("assistant", message, extra=extra_of(beside)),
        finish_reason=reason,
        raw_finish_reason=raw_reason,
        usage=usage_of(body.get("usage")) or Usage(),
        id=string(body.get("id")) or None,
        logprobs=logprobs or None,
        raw=data,
        extra=extra_of(extra),
    )


def extra_of(keys: dict[str, Any]) -> Extra:
    """Keys without a neutral place, as extra has them."""
    return {NAME: keys} if keys else {}


def keys_beside(raw: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The keys that have no neutral place and say something."""
    return {key: value for key, value in raw.items() if key not in known and value is not None}


def mark_of(at: Endpoint) -> dict[str, Any]:
    """What tells thinking of this dialect from others', so that it may go back."""
    return {"origin": at.origin} if at.origin is not None else {"extra": {NAME: {}}}


def plan_of(at: Endpoint, text: str = "") -> Reasoning:
    """The plan of the calls, which is thinking in a place of its own."""
    return Reasoning(text, origin=at.origin, extra={NAME: {"type": PLAN}})


# ---- the message ------------------------------------------------------------------------------


def message_of(raw: dict[str, Any], at: Endpoint) -> tuple[tuple[Part, ...], dict[str, Any]]:
    """The parts of an assistant's message, and its keys without a neutral place, citations that hang on no text
    among them. Raises a shape error, for `guarded`."""
    plan = words_of(raw, PLAN)
    parts: list[Part] = [plan_of(at, plan)] if plan else []
    content = raw.get("content")
    items = [{"type": "text", "text": content}] if isinstance(content, str) and content else content or ()
    first = len(parts)
    parts += [part_of(item, at) for item in items]
    beside = keys_beside(raw, MESSAGE)
    if citations := raw.get("citations"):
        loose = _cite(parts, first, citations)
        if loose:
            beside["citations"] = loose
    if calls := raw.get("tool_calls"):
        parts += calls_of(calls, at)
    return tuple(parts), beside


def words_of(raw: dict[str, Any], key: str) -> str:
    """A string that may be missing or null; TypeError, for `guarded`, when it is something else."""
    value = raw.get(key)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{key} is not a string")
    return value or ""


def part_of(item: dict[str, Any], at: Endpoint) -> Part:
    """One item of content."""
    kind = item.get("type")
    if kind == "text" and isinstance(item.get("text"), str):
        return Text(item["text"], extra=extra_of(keys_beside(item, _TEXT)))
    if kind == "thinking" and isinstance(item.get("thinking"), str):
        return thinking_of(item, at)
    return Opaque(NAME, kind if isinstance(kind, str) else "content", item, at.origin)


def thinking_of(item: dict[str, Any], at: Endpoint) -> Reasoning:
    """Thinking as content."""
    keys = keys_beside(item, _THINKING)
    mark = mark_of(at)
    return Reasoning(item["thinking"], **({**mark, "extra": {NAME: keys}} if keys else mark))


def _cite(parts: list[Part], first: int, citations: list[Any]) -> list[Any]:
    """Hang the citations on the texts they cite; content begins at part `first`. Gives those that fit none."""
    found: dict[int, list[Citation]] = {}
    loose = []
    for raw in citations:
        place = text_cited(raw, [type(part) is Text for part in parts[first:]])
        if place is None:
            loose.append(raw)
        else:
            found.setdefault(first + place, []).append(citation_of(raw))
    for place, cited in found.items():
        part = parts[place]
        assert isinstance(part, Text)
        parts[place] = Text(part.text, tuple(cited), extra=part.extra)
    return loose


def text_cited(raw: dict[str, Any], is_text: list[bool]) -> int | None:
    """Which item of content a citation is of: the one it names, else the first text. None for what cites no text."""
    if raw.get("type") not in (None, "TEXT_CONTENT"):
        return None
    index = raw.get("content_index")
    if index is None:
        return is_text.index(True) if True in is_text else None
    return index if type(index) is int and 0 <= index < len(is_text) and is_text[index] else None


def citation_of(raw: dict[str, Any]) -> Citation:
    """A citation. Its sources and what else it says stay in extra; the first source tells its kind and title."""
    sources = raw.get("sources")
    source = sources[0] if isinstance(sources, list) and sources and isinstance(sources[0], dict) else {}
    document = source.get("document")
    facts = document if isinstance(document, dict) else {}
    return Citation(
        kind=string(source.get("type")) or "document",
        url=string(facts.get("url")),
        title=string(facts.get("title")),
        text=string(raw.get("text")),
        start=integer(raw.get("start")),
        end=integer(raw.get("end")),
        extra={NAME: _uncited(raw)},
    )


def _uncited(raw: dict[str, Any]) -> dict[str, Any]:
    """What a citation says beside its place and its text, or of them in a shape that says neither."""
    read = {"start": integer, "end": integer, "text": string}
    odd = {key: raw[key] for key, how in read.items() if raw.get(key) is not None and how(raw[key]) is None}
    return {**keys_beside(raw, _CITED), **odd}


def calls_of(raws: list[Any], at: Endpoint) -> list[Part]:
    """The tool calls. One without a function is opaque; one whose id is missing or was there before gets one."""
    ids: set[str] = set()
    found: list[Part] = []
    for raw in raws:
        if raw.get("function") is None:
            found.append(Opaque(NAME, "tool_call", {"tool_calls": [raw]}, at.origin))
            continue
        call_id = fresh_id(string(raw.get("id")), ids)
        found.append(ToolCall(call_id, name_of(raw), words_of(raw["function"], "arguments"), extra=call_extra(raw)))
    return found


def name_of(raw: dict[str, Any]) -> str:
    """The name of the function that is called; TypeError, for `guarded`, where there is none."""
    name = raw["function"]["name"]
    if not isinstance(name, str):
        raise TypeError("the name of a tool call is not a string")
    return name


def fresh_id(given: str | None, ids: set[str]) -> str:
    """The id of a call, made up by number where none is given, changed where it is among `ids`, to which it is
    added: the same id twice would answer two calls with one result.
    """
    call_id = given or f"call_{len(ids)}"
    while call_id in ids:
        call_id += "_"
    ids.add(call_id)
    return call_id


def call_extra(raw: dict[str, Any]) -> Extra:
    """The keys of a call without a neutral place."""
    extra = keys_beside(raw, CALL)
    if raw.get("type") not in (None, "function"):
        extra["type"] = raw["type"]
    if inner := keys_beside(raw["function"], CALLED):
        extra["function"] = inner
    return extra_of(extra)


# ---- what stands beside it --------------------------------------------------------------------


def finish_of(body: dict[str, Any], has_calls: bool) -> tuple[FinishReason | None, str | None]:
    """The neutral reason beside the raw one."""
    raw = string(body.get("finish_reason")) or None
    reason = _FINISH.get(raw, "unknown") if raw else None
    return ("tool_calls" if has_calls and reason == "stop" else reason), raw


def usage_of(raw: Any) -> Usage | None:
    """The tokens, which count what the model read and wrote; the units that are billed stay in raw."""
    if not isinstance(raw, dict) or not raw:
        return None
    tokens = raw.get("tokens")
    counts = tokens if isinstance(tokens, dict) else {}
    asked, answered = integer(counts.get("input_tokens")), integer(counts.get("output_tokens"))
    cached = integer(raw.get("cached_tokens"))
    known = any(count is not None for count in (asked, answered, cached))
    return Usage(asked, answered, cached, source="provider" if known else "missing", raw=raw)


def logprobs_of(raw: Any) -> tuple[TokenLogprob, ...] | None:
    """Log-probabilities, where each piece of text is one token; None for all others, which stay in extra."""
    if not isinstance(raw, list):
        return None
    try:
        return tuple([_logprob(item) for item in raw])
    except SHAPE_ERRORS:
        return None


def _logprob(raw: dict[str, Any]) -> TokenLogprob:
    (value,) = raw["logprobs"]
    if not isinstance(raw["text"], str) or isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a log-probability is not a text and a number")
    return TokenLogprob(raw["text"], float(value))


# ---- errors -----------------------------------------------------------------------------------

# Kinds that the status of an error does not tell from others, and the type that may stand beside the server's words
# to say so.
TYPES = {
    "context_length": "context_length_exceeded", "unsupported_param": "unsupported_parameter",
    "content_policy": "content_policy_violation", "quota": "insufficient_quota", "overloaded": "overloaded",
    "refusal": "refusal", "bad_response": "bad_response", "connection": "connection",
    "stream_interrupted": "stream_interrupted",
}  # fmt: skip
_KINDS = {name: kind for kind, name in TYPES.items()}


def is_error(body: dict[str, Any]) -> bool:
    """Whether what should be an answer is an error: words where the message should be."""
    return not isinstance(body.get("message"), dict) and any(body.get(key) for key in ("message", "error", "detail"))


def decode_error(reply: Reply) -> PolyvoxError:
    """See `ClientSide.decode_error`; a body that is no JSON still gives the error its status means."""
    try:
        body = decode_json(reply.body)
    except BadResponseError:
        body = {"message": snippet(reply.body)}
    return error_of(body if isinstance(body, dict) else {"message": snippet(reply.body)}, reply.status, reply.headers)


def error_of(body: dict[str, Any], status: int, headers: Any) -> PolyvoxError:
    """The error in {"message": "words"}, in the delta that ends a stream, or in the object that servers in front
    send instead. status 0 means that it came inside an answer: then a status_code beside it counts.
    """
    inner = body.get("error")
    facts = inner if isinstance(inner, dict) else body
    words = (facts.get("message"), inner, body.get("detail"))
    message = next((said for said in words if isinstance(said, str) and said), None)
    code, kind = facts.get("code"), string(facts.get("error_type")) or string(facts.get("type"))
    status = status or integer(body.get("status_code")) or 0
    error = make_error(
        status if status >= 400 else 0,
        headers,
        code=str(code) if isinstance(code, str | int) and not isinstance(code, bool) else None,
        type=kind,
        message=message or snippet(encode_json(body)),
        param=string(facts.get("param")),
        kind=_KINDS.get(kind or ""),
    )
    error.request_id = error.request_id or string(body.get("id"))
    return error
