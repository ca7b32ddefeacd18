"""A whole answer, its usage and its errors, as values; what the stream needs of them too stands here once."""

from __future__ import annotations

import base64
import binascii
import re
from codecs import BOM_UTF8
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Raw, Struct

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
from polyvox.dialects.errors_on_wire import make_error
from polyvox.dialects.ollama.plain import METRICS as METRICS
from polyvox.dialects.ollama.plain import PlainAnswer, metrics_of, plain_answer
from polyvox.dialects.ollama.request import NAME
from polyvox.errors import BadResponseError, PolyvoxError
from polyvox.types import (
    FinishReason,
    Image,
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

_T = TypeVar("_T", str, list[Any])


_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "load": "stop", "unload": "stop"}
# Keys with a neutral place; every other key goes to extra.
TOP = frozenset({"model", "created_at", "message", "done", "done_reason", "logprobs", "error", *METRICS})
MESSAGE = frozenset({"role", "content", "thinking", "tool_calls", "images"})
CALLED = frozenset({"name", "arguments", "index"})

# How pictures of these types begin.
_SIGNS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "image/webp"),
)


class _RawFunction(Struct):
    arguments: Raw = Raw()


class _RawCall(Struct):
    function: _RawFunction | None = None


class _RawMessage(Struct):
    tool_calls: list[_RawCall] | None = None


class _RawAnswer(Struct):
    message: _RawMessage | None = None


class _RawRequest(Struct):
    messages: list[_RawMessage] = []


_decode_raw = msgspec.json.Decoder(_RawAnswer).decode
_decode_raw_request = msgspec.json.Decoder(_RawRequest).decode


def decode_response(reply: Reply, at: Endpoint) -> Response:
    """See `ClientSide.decode_response`."""
    plain = plain_answer(reply.body)
    if plain is not None:
        return _plain_response(plain, reply.body)
    body = decode_object(reply.body)
    if body.get("error"):
        raise error_of(body, 0, {})
    return guarded(lambda: _response(body, reply.body, at))


def _response(body: dict[str, Any], data: bytes, at: Endpoint) -> Response:
    message = body["message"]
    parts: list[Part] = []
    if thought := typed(message, "thinking", str):
        parts.append(Reasoning(thought, **mark_of(at)))
    if words := typed(message, "content", str):
        parts.append(Text(words))
    parts += [picture_of(raw) for raw in typed(message, "images", list)]
    parts += calls_of(message, data, set())
    logprobs = logprobs_of(body.get("logprobs"))
    reason, raw_reason = finish_of(body, any(isinstance(part, ToolCall) for part in parts))
    beside = keys_beside(message, MESSAGE)
    extra = keys_beside_answer(body, logprobs)
    response = Response(
        message=Message("assistant", tuple(parts), extra={NAME: beside} if beside else {}),
        finish_reason=reason,
        raw_finish_reason=raw_reason,
        usage=usage_of(body) or Usage(),
        model=string(body.get("model")) or None,
        created=created_of(body.get("created_at")),
        logprobs=logprobs or None,
        raw=data,
        extra={NAME: extra} if extra else {},
    )
    if body.get("done") is False:
        partial = msgspec.structs.replace(response, complete=False, finish_reason="incomplete")
        raise BadResponseError("the server says its answer is not whole (done is false)", partial=partial)
    return response


def _plain_response(answer: PlainAnswer, data: bytes) -> Response:
    raw = {key: value for key, value in zip(METRICS, metrics_of(answer), strict=True) if value is not None}
    usage = Usage(answer.prompt_eval_count, answer.eval_count, source="provider", raw=raw)
    return Response(
        Message("assistant", (Text(answer.message.content),)),
        answer.done_reason,
        answer.done_reason,
        usage=usage,
        model=answer.model or None,
        created=created_of(answer.created_at),
        raw=data,
    )


def typed(message: dict[str, Any], key: str, kind: type[_T]) -> _T:
    """A value that may be missing or null; TypeError, for `guarded`, when it is of another type."""
    value = message.get(key)
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{key} is not a {kind.__name__}")
    return value or kind()


def mark_of(at: Endpoint) -> dict[str, Any]:
    """What tells thinking of this dialect from others', so that it may go back."""
    return {"origin": at.origin} if at.origin is not None else {"extra": {NAME: {}}}


def picture_of(raw: Any) -> Part:
    """A picture the model made; one that is no base64 stays as it came."""
    try:
        return image_of(base64.b64decode(raw, validate=True))
    except (TypeError, ValueError, binascii.Error):
        return Opaque(NAME, "image", {"images": [raw]})


def image_of(data: bytes) -> Image:
    """A picture of the type that its first bytes tell: the wire does not, and other dialects want to know."""
    signs = (media_type for sign, media_type in _SIGNS if sign.match(data))
    return Image(data=data, media_type=next(signs, None))


def calls_of(message: dict[str, Any], data: bytes, ids: set[str]) -> list[Part]:
    """The tool calls; `ids` are those of earlier lines, and grow. An entry without a function is opaque."""
    calls = typed(message, "tool_calls", list)
    texts = _answer_texts(data) if calls else []
    found: list[Part] = []
    for i, raw in enumerate(calls):
        if "function" not in raw:
            found.append(Opaque(NAME, "tool_call", {"tool_calls": [raw]}))
            continue
        if not isinstance(raw["function"]["name"], str):
            raise TypeError("the name of a tool call is not a string")
        call_id = fresh_id(string(raw.get("id")), ids)
        ids.add(call_id)
        found.append(call_of(raw, call_id, texts[i] if i < len(texts) else None))
    return found


def fresh_id(given: str | None, ids: Collection[str]) -> str:
    """The id of a call, made up by number where none is given, changed where it is among `ids`: the same id
    twice would answer two calls with one result.
    """
    call_id = given or f"call_{len(ids)}"
    while call_id in ids:
        call_id += "_"
    return call_id


def call_of(raw: dict[str, Any], call_id: str, text: str | None, known: frozenset[str] = CALLED) -> ToolCall:
    """One entry of tool_calls. `text` is its arguments as they stand in the JSON, where that can be told; `known`
    are the keys of its function that need no place in extra.
    """
    function = raw["function"]
    extra = keys_beside(raw, frozenset({"id", "function"}))
    if inner := keys_beside(function, known):
        extra["function"] = inner
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        arguments = encode_json(arguments).decode() if text is None else text
    return ToolCall(call_id, function["name"], arguments or "", extra={NAME: extra} if extra else {})


def _answer_texts(data: bytes) -> list[str]:
    """The arguments of each call as the model's own JSON text; [] where the answer has another shape."""
    try:
        message = _decode_raw(data).message
    except (msgspec.DecodeError, RecursionError, ValueError):
        return []
    return _texts(message) if message is not None else []


def texts_of_request(data: bytes) -> list[list[str]]:
    """The same for each message of a request; [] where it has another shape."""
    try:
        return [_texts(message) for message in _decode_raw_request(data.removeprefix(BOM_UTF8)).messages]
    except (msgspec.DecodeError, RecursionError, ValueError):
        return []


def _texts(message: _RawMessage) -> list[str]:
    return [bytes(call.function.arguments).decode() if call.function else "" for call in message.tool_calls or ()]


def keys_beside(raw: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The keys that have no neutral place and say something."""
    return {key: value for key, value in raw.items() if key not in known and value is not None}


def keys_beside_answer(body: dict[str, Any], logprobs: tuple[TokenLogprob, ...] | None) -> dict[str, Any]:
    """The answer's keys without a neutral place, its log-probabilities where they make no sense."""
    extra = keys_beside(body, TOP)
    if logprobs is None and body.get("logprobs") is not None:
        extra["logprobs"] = body["logprobs"]
    return extra


def finish_of(body: dict[str, Any], has_calls: bool) -> tuple[FinishReason | None, str | None]:
    """The neutral reason beside the raw one; servers before done_reason give none."""
    raw = string(body.get("done_reason")) or None
    reason = _FINISH.get(raw, "unknown") if raw else None
    return ("tool_calls" if has_calls and reason in (None, "stop") else reason), raw


def usage_of(body: dict[str, Any]) -> Usage | None:
    """The counts, with the durations (nanoseconds) beside them in raw; None when there are none."""
    raw = {key: body[key] for key in METRICS if body.get(key) is not None}
    if not raw:
        return None
    asked, answered = integer(raw.get("prompt_eval_count")), integer(raw.get("eval_count"))
    known = asked is not None or answered is not None
    return Usage(input=asked, output=answered, source="provider" if known else "missing", raw=raw)


def created_of(value: Any) -> float | None:
    """Epoch seconds of an RFC 3339 time, or None; no answer is from 1970 or before, so that means unknown too."""
    try:
        when = datetime.fromisoformat(value)
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        return seconds if seconds > 0 else None
    except (TypeError, ValueError, OverflowError):
        return None


def logprobs_of(raw: Any) -> tuple[TokenLogprob, ...] | None:
    """Log-probabilities; None for what are none."""
    if not isinstance(raw, list):
        return None
    try:
        return tuple([_logprob(item) for item in raw])
    except SHAPE_ERRORS:
        return None


def _logprob(raw: dict[str, Any]) -> TokenLogprob:
    token, value = raw["token"], raw["logprob"]
    if not isinstance(token, str) or isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a log-probability is not a token and a number")
    numbers = raw.get("bytes")
    if numbers is not None and not all(type(number) is int for number in numbers):
        raise TypeError("bytes are not numbers")
    top = tuple([_logprob(item) for item in raw.get("top_logprobs") or ()])
    return TokenLogprob(token, float(value), None if numbers is None else tuple(numbers), top)


# ---- errors -----------------------------------------------------------------------------------


class _Said(NamedTuple):
    """What the server's own words mean, where its status does not tell."""

    words: re.Pattern[str]
    kind: str
    param: str | None = None
    hint: str | None = None


_SAID = (
    _Said(re.compile(r"does not support tools"), "unsupported_param", "tools"),
    _Said(re.compile(r"does not support thinking"), "unsupported_param", "thinking"),
    _Said(re.compile(r"server busy|maximum pending requests"), "overloaded"),
)
# Kinds that the status of an error does not tell from others, and the type that may stand beside the server's words
# to say so.
TYPES = {
    "context_length": "context_length_exceeded", "unsupported_param": "unsupported_parameter",
    "content_policy": "content_policy_violation", "quota": "insufficient_quota", "overloaded": "overloaded",
    "refusal": "refusal", "bad_response": "bad_response", "connection": "connection",
    "stream_interrupted": "stream_interrupted",
}  # fmt: skip
_KINDS = {name: kind for kind, name in TYPES.items()}
_NOT_HERE = "the model is not on this server: pull it there (`ollama pull NAME`), or list the models it has"


def decode_error(reply: Reply) -> PolyvoxError:
    """See `ClientSide.decode_error`; a body that is no JSON still gives the error its status means."""
    try:
        body = decode_json(reply.body)
    except BadResponseError:
        body = {"error": snippet(reply.body)}
    return error_of(body if isinstance(body, dict) else {"error": snippet(reply.body)}, reply.status, reply.headers)


def error_of(body: dict[str, Any], status: int, headers: Any) -> PolyvoxError:
    """The error in {"error": "words"}, or in the object that servers in front send instead. status 0 means
    that it came inside an answer: then a status_code beside it counts.
    """
    inner = body.get("error")
    facts = inner if isinstance(inner, dict) else body
    message = inner if isinstance(inner, str) else string(facts.get("message")) or snippet(encode_json(body))
    code = facts.get("code")
    said = next((said for said in _SAID if said.words.search(message)), None)
    status = status or integer(body.get("status_code")) or 0
    error = make_error(
        status if status >= 400 else 0,
        headers,
        code=str(code) if isinstance(code, str | int) and not isinstance(code, bool) else None,
        type=string(facts.get("type")),
        message=message,
        param=said.param if said else string(facts.get("param")),
        kind=said.kind if said else _KINDS.get(string(facts.get("type")) or ""),
    )
    if error.kind == "not_found" and "model" in message.lower():
        error.hint = _NOT_HERE
    return error
