"""A whole response, its items, citations, usage and errors, as values. What the stream reader needs too stands here
once. An item's own keys (id, phase, ...) go along in the extra of its parts, so that they can go back."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from polyvox.dialects import Endpoint, Reply, decode_object, guarded, integer, snippet, string
from polyvox.dialects.errors_on_wire import make_error
from polyvox.dialects.openai_chat.answer import arguments_text, charged, logprobs_of, number
from polyvox.dialects.openai_responses.facts import (
    CALLS,
    DEFAULTS,
    IN_MESSAGE,
    MESSAGE,
    NAME,
    REFUSAL,
    TEXT,
    TOP,
    UNFINISHED,
    extra_of,
    finish_of,
    keys_beside,
    minted,
)
from polyvox.dialects.openai_responses.plain import plain_response
from polyvox.errors import BadResponseError, PolyvoxError
from polyvox.types import (
    Audio,
    Citation,
    Image,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Response,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)

Json = dict[str, Any]


def decode_response(reply: Reply, at: Endpoint) -> Response:
    """See `ClientSide.decode_response`."""
    plain = plain_response(reply, at.origin)
    if plain is not None:
        return plain
    body = decode_object(reply.body)
    return guarded(lambda: _response(body, reply, at))


def _response(body: Json, reply: Reply, at: Endpoint) -> Response:
    if failed(body):
        raise error_of(body, 0, reply.headers)
    output = body.get("output")
    if not isinstance(output, list) and string(body.get("output_text")) is None:
        raise BadResponseError(f"the answer has no output: {snippet(reply.body)}")
    parts: list[Part] = []
    tokens: list[TokenLogprob] = []
    for place, item in enumerate(output or ()):
        parts += parts_of(item, place, at)
        tokens += tokens_of(item)
    if not parts and (words := string(body.get("output_text"))):
        parts.append(Text(words))
    status, why = string(body.get("status")), reason_in(body)
    kinds = {type(part) for part in parts}
    return Response(
        message=Message("assistant", tuple(parts)),
        finish_reason=finish_of(status, why, ToolCall in kinds, Refusal in kinds),
        raw_finish_reason=why or status,
        usage=usage_of(body.get("usage")),
        id=string(body.get("id")),
        model=string(body.get("model")),
        created=number(body.get("created_at")),
        logprobs=tuple(tokens) or None,
        complete=status not in UNFINISHED,
        raw=reply.body,
        extra=extra_of(rest_of(body)),
    )


def failed(body: Json) -> bool:
    """Whether a 200 tells an error."""
    return bool(body.get("error")) or body.get("status") == "failed" or body.get("object") == "error"


def reason_in(body: Json) -> str | None:
    """What the details of an incomplete response say."""
    details = body.get("incomplete_details")
    return string(details.get("reason")) if body.get("status") == "incomplete" and isinstance(details, dict) else None


def rest_of(body: Json) -> Json:
    """The keys of a response without a neutral place, but for those that say nothing."""
    absent = object()
    return {
        key: value
        for key, value in body.items()
        if key not in TOP and value is not None and value != DEFAULTS.get(key, absent)
    }


# ---- items ------------------------------------------------------------------------------------


def kind_of(item: Any) -> str:
    """The type of an item or of a piece of content; raises BadResponseError for what is not one."""
    kind = item.get("type") if isinstance(item, dict) else None
    if not isinstance(kind, str):
        raise BadResponseError("the answer has an item without a type")
    return kind


def words(source: Json, key: str) -> str:
    """A text something must have; null and absence are no words, anything else is BadResponseError."""
    value = source.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadResponseError(f"the answer has an item whose {key} is not text")
    return value


def parts_of(item: Any, place: int, at: Endpoint) -> list[Part]:
    """The parts that an item of the output is; `place` makes an id for a call that has none."""
    read = _ITEMS.get(kind_of(item))
    return [opaque_item(item, at)] if read is None else read(item, place, at)


def opaque_item(item: Json, at: Endpoint) -> Opaque:
    """An item without a neutral form, as it is."""
    return Opaque(NAME, kind_of(item), item, at.origin)


def _message(item: Json, _place: int, at: Endpoint) -> list[Part]:
    content = item.get("content")
    keys = minted(keys_beside(item, MESSAGE), at.origin)
    parts = [content_part(piece, keys, at) for piece in content] if isinstance(content, list) else []
    # The item's keys hang on its texts. Where it has none, it stays as it is.
    return parts if any(type(part) in (Text, Refusal) for part in parts) else [opaque_item(item, at)]


def content_part(piece: Any, keys: Json, at: Endpoint) -> Part:
    """One piece of a message's content; `keys` are the message's own."""
    kind = kind_of(piece)
    if kind == "output_text":
        cited = tuple([citation_of(raw) for raw in piece.get("annotations") or ()])
        return Text(words(piece, "text"), cited, extra=text_extra(piece, TEXT, keys))
    if kind == "refusal":
        return Refusal(words(piece, "refusal"), extra=text_extra(piece, REFUSAL, keys))
    if kind == "output_audio" and (sound := sound_of(piece)) is not None:
        return sound
    return Opaque(NAME, IN_MESSAGE + kind, piece, at.origin)


def text_extra(piece: Json, known: frozenset[str], keys: Json) -> dict[str, Json]:
    """The extra of a text: what else its piece of content says, and under `item` the keys of its message."""
    own = keys_beside(piece, known)
    return extra_of({**own, "item": keys} if keys else own)


def sound_of(piece: Json) -> Audio | None:
    """Spoken output; None for what is no sound."""
    data = _bytes_of(piece.get("data"))
    transcript = string(piece.get("transcript"))
    known = frozenset({"data", "transcript"})
    return Audio(data, transcript=transcript, extra=extra_of(keys_beside(piece, known))) if data else None


def _call(item: Json, place: int, at: Endpoint) -> list[Part]:
    return [call_of(item, place, at.origin)]


def call_of(item: Json, place: int, origin: str | None) -> ToolCall:
    """A call the caller must run."""
    kind, key, _ = CALLS[item["type"]]
    call_id = string(item.get("call_id")) or string(item.get("id")) or f"call_{place}"
    name = words(item, "name")
    if not name:
        raise BadResponseError("the answer calls a tool without naming it")
    keys = minted(keys_beside(item, CALL_KEYS), origin)
    return ToolCall(call_id, name, arguments_text(item.get(key)), kind, extra=extra_of(keys))


CALL_KEYS = frozenset({"type", "call_id", "name", *[key for _, key, _ in CALLS.values()]})


def _reasoning(item: Json, _place: int, at: Endpoint) -> list[Part]:
    return [reasoning_of(item, at.origin)]


def reasoning_of(item: Json, origin: str | None) -> Reasoning:
    """A reasoning item. Its keys go along as they are: it must go back exactly as it came."""
    encrypted = string(item.get("encrypted_content"))
    told = {"type"} if encrypted is None else {"type", "encrypted_content"}
    own = {key: value for key, value in item.items() if key not in told}
    return Reasoning(thought_in(item), encrypted=encrypted, origin=origin, extra=extra_of(own))


def thought_in(item: Json) -> str:
    """The visible words of a reasoning item: its content before its summary."""
    pieces = [*_pieces(item, "content"), *_pieces(item, "summary")]
    return BETWEEN_THOUGHTS.join([words(piece, "text") for piece in pieces])


BETWEEN_THOUGHTS = "\n\n"


def _pieces(item: Json, key: str) -> list[Json]:
    found = item.get(key)
    return [piece for piece in found if isinstance(piece, dict)] if isinstance(found, list) else []


def _picture(item: Json, _place: int, at: Endpoint) -> list[Part]:
    result = item.get("result")
    data = _bytes_of(result)
    if data is None:
        return [opaque_item(item, at)]
    form = string(item.get("output_format")) or "png"
    own = {key: value for key, value in item.items() if key != "result"}
    return [Image(data, media_type=f"image/{form}", extra={NAME: own})]


def _bytes_of(text: Any) -> bytes | None:
    """The bytes of a base64 text; None for another value, and where writing them anew would give other text."""
    if not isinstance(text, str) or not text:
        return None
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return data if base64.b64encode(data).decode() == text else None


_ITEMS: dict[str, Callable[[Json, int, Endpoint], list[Part]]] = {
    "message": _message,
    "function_call": _call,
    "custom_tool_call": _call,
    "reasoning": _reasoning,
    "image_generation_call": _picture,
}


def tokens_of(item: Json) -> list[TokenLogprob]:
    """The log-probabilities in an item."""
    return [token for piece in _pieces(item, "content") for token in logprobs_of({"content": piece.get("logprobs")})]


def citation_of(raw: Any) -> Citation:
    """An annotation; its own keys go along in extra, and are what is sent back."""
    if not isinstance(raw, dict):
        raise BadResponseError("the answer has an annotation that is not an object")
    kind = string(raw.get("type")) or "unknown"
    return Citation(
        kind="url" if kind == "url_citation" else kind,
        url=string(raw.get("url")),
        title=string(raw.get("title")) or string(raw.get("filename")),
        start=integer(raw.get("start_index")),
        end=integer(raw.get("end_index")),
        file_id=string(raw.get("file_id")),
        extra={NAME: raw},
    )


# ---- usage ------------------------------------------------------------------------------------

_TTL = re.compile(r"ttl_(\w+)_tokens")


def usage_of(raw: Any) -> Usage:
    """Tokens; the wire's totals are inclusive, as ours are."""
    if not isinstance(raw, dict) or not raw:
        return Usage()
    fresh, answered = _counts(raw.get("input_tokens_details")), _counts(raw.get("output_tokens_details"))
    details = raw.get("input_tokens_details")
    written = _counts(details.get("cache_write_tokens_details")) if isinstance(details, dict) else {}
    asked, output, total = (integer(raw.get(f"{name}_tokens")) for name in ("input", "output", "total"))
    return Usage(
        input=asked,
        output=output,
        cache_read=fresh.get("cached_tokens"),
        cache_write=fresh.get("cache_write_tokens"),
        cache_write_by_ttl={found[1]: count for key, count in written.items() if (found := _TTL.fullmatch(key))},
        reasoning=answered.get("reasoning_tokens"),
        audio_input=fresh.get("audio_tokens"),
        audio_output=answered.get("audio_tokens"),
        image_input=fresh.get("image_tokens"),
        total=total,
        cost=_cost(raw),
        source="missing" if asked is output is total is None else "provider",
        raw=raw,
    )


def _cost(raw: Json) -> Decimal | None:
    """What some servers say they charged, in USD or in ticks of 1e-10 USD."""
    told, ticks = charged(raw), integer(raw.get("cost_in_usd_ticks"))
    if told is not None:
        return told
    return None if ticks is None else Decimal(ticks).scaleb(-10)


def _counts(value: Any) -> dict[str, int]:
    items = value.items() if isinstance(value, dict) else ()
    return {key: count for key, item in items if (count := integer(item)) is not None}


# ---- errors -----------------------------------------------------------------------------------

# Codes of this protocol alone; those all dialects share are known elsewhere.
_KINDS = {
    "bio_policy": "content_policy", "misalignment_policy_violation": "content_policy",
    "image_content_policy_violation": "content_policy", "vector_store_timeout": "timeout",
    "data_residency_mismatch": "permission", "invalid_image": "invalid_request",
    "invalid_image_format": "invalid_request", "invalid_base64_image": "invalid_request",
    "invalid_image_url": "invalid_request", "image_too_large": "invalid_request",
    "image_too_small": "invalid_request", "image_parse_error": "invalid_request",
    "invalid_image_mode": "invalid_request", "image_file_too_large": "invalid_request",
    "unsupported_image_media_type": "invalid_request", "empty_image_file": "invalid_request",
    "failed_to_download_image": "invalid_request", "image_file_not_found": "invalid_request",
    "invalid_encrypted_content": "invalid_request",
}  # fmt: skip


def decode_error(reply: Reply) -> PolyvoxError:
    """See `ClientSide.decode_error`; a body that is no JSON object still gives the error its status means."""
    try:
        body = decode_object(reply.body)
    except BadResponseError:
        body = {"message": snippet(reply.body)}
    return error_of(body, reply.status, reply.headers)


def error_of(body: Mapping[str, Any], status: int, headers: Mapping[str, str]) -> PolyvoxError:
    """The error an object tells: in its `error`, or by its own keys. status 0 where it came inside an answer."""
    inner = body.get("error")
    facts = inner if isinstance(inner, dict) else body
    told = facts.get("code")
    code = str(told) if isinstance(told, str | int) and not isinstance(told, bool) else None
    said = (facts.get("message"), inner, body.get("message"), body.get("detail"))
    kind = string(facts.get("type")) if inner is facts else None  # beside an error of its own, it is the event's
    return make_error(
        status,
        headers,
        code=code,
        type=kind,
        message=next((text for text in said if isinstance(text, str) and text), ""),
        param=string(facts.get("param")),
        kind=_KINDS.get(code or "") if status in (0, 400) else None,
    )
