"""A whole answer, its candidates, sources, usage and errors, as values. What the stream reader needs too stands
here once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from polyvox.dialects import (
    SHAPE_ERRORS,
    Endpoint,
    Reply,
    decode_json,
    encode_json,
    guarded,
    integer,
    snippet,
    string,
)
from polyvox.dialects.errors_on_wire import duration, kind_of, make_error, request_id
from polyvox.dialects.gemini.facts import NAME, Json, finish_of, named
from polyvox.dialects.gemini.parts_read import call_from, fresh_id, part_from
from polyvox.errors import BadResponseError, PolyvoxError
from polyvox.types import (
    Choice,
    Citation,
    FinishReason,
    Message,
    Part,
    Response,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)

# Keys with a neutral place; every other key with a value goes to extra.
TOP = frozenset({"candidates", "usageMetadata", "modelVersion", "responseId", "createTime"})
CANDIDATE = frozenset({"content", "finishReason", "index"})
_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")


# ---- the answer that nearly every call gets ---------------------------------------------------


class _PlainPart(Struct, forbid_unknown_fields=True, gc=False):
    text: Annotated[str, Meta(min_length=1)]


class _PlainContent(Struct, forbid_unknown_fields=True, gc=False):
    parts: tuple[_PlainPart]
    role: Literal["model"] = "model"


class _PlainCandidate(Struct, forbid_unknown_fields=True, rename="camel", gc=False):
    content: _PlainContent
    finish_reason: Literal["STOP", "MAX_TOKENS"]
    index: Literal[0] = 0


class _Plain(Struct, forbid_unknown_fields=True, rename="camel", gc=False):
    candidates: tuple[_PlainCandidate]
    usage_metadata: dict[str, Any] = {}
    model_version: str | None = None
    response_id: str | None = None


_plain = msgspec.json.Decoder(_Plain).decode


def decode_response(reply: Reply, at: Endpoint) -> Response:
    """See `ClientSide.decode_response`; an answer that was streamed as a list of pieces is none in one piece."""
    try:
        body = _plain(reply.body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _decode(reply, at)
    (candidate,) = body.candidates
    return Response(
        Message("assistant", (Text(candidate.content.parts[0].text),)),
        "stop" if candidate.finish_reason == "STOP" else "length",
        candidate.finish_reason,
        usage=usage_of(body.usage_metadata),
        id=body.response_id,
        model=body.model_version,
        request_id=request_id(reply.headers),
        raw=reply.body,
    )


def _decode(reply: Reply, at: Endpoint) -> Response:
    body = decode_json(reply.body)
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    if not isinstance(body, dict):
        raise BadResponseError(f"the answer is not a JSON object: {snippet(reply.body)}")
    if body.get("error"):
        raise error_of(body, 0, reply.headers)
    return guarded(lambda: _response(named(body), reply, at))


class Candidate(NamedTuple):
    """One answer among those asked for; `extra` are its keys without a neutral place."""

    message: Message
    finish_reason: FinishReason | None
    raw_finish_reason: str | None
    logprobs: tuple[TokenLogprob, ...] | None
    extra: Json


def _response(body: Json, reply: Reply, at: Endpoint) -> Response:
    made = sorted(numbered(body), key=lambda pair: pair[0])
    found = [_candidate(raw, number, string(body.get("responseId")), at) for number, raw in made]
    blocked = blocked_by(body)
    if not found and blocked is None:
        raise BadResponseError(f"the answer has no candidates: {snippet(reply.body)}")
    extra = keys_beside(body, TOP)
    if not found:
        found = [Candidate(Message("assistant"), "content_filter", blocked, None, {})]
    first, others = found[0], found[1:]
    extra |= first.extra
    for number, other in enumerate(others, 1):
        if other.extra:
            extra[f"candidates.{number}"] = other.extra
    response = Response(
        message=first.message,
        finish_reason=first.finish_reason,
        raw_finish_reason=first.raw_finish_reason,
        usage=usage_of(body.get("usageMetadata")),
        id=string(body.get("responseId")),
        model=string(body.get("modelVersion")),
        request_id=request_id(reply.headers),
        created=created_of(body.get("createTime")),
        choices=tuple([Choice(*other[:4]) for other in others]),
        logprobs=first.logprobs,
        raw=reply.body,
        extra={NAME: extra} if extra else {},
    )
    if any(one.finish_reason is None for one in found):
        partial = msgspec.structs.replace(response, complete=False, finish_reason="incomplete")
        raise BadResponseError("the answer does not say that it came to its end", partial=partial, sent="yes")
    return response


def numbered(body: Json) -> list[tuple[int, Json]]:
    """The candidates with their numbers."""
    return [(integer(named(raw).get("index")) or 0, named(raw)) for raw in body.get("candidates") or ()]


def blocked_by(body: Json) -> str | None:
    """Why the prompt was not answered at all, where that is told."""
    feedback = body.get("promptFeedback")
    return string(named(feedback).get("blockReason")) if isinstance(feedback, dict) else None


def _candidate(raw: Json, number: int, answer_id: str | None, at: Endpoint) -> Candidate:
    parts: list[Part] = []
    ids: set[str] = set()
    for wire in parts_in(raw):
        part = named(wire)
        if "functionCall" in part:
            parts.append(read_call(part, ids, call_prefix(answer_id, number), at))
        else:
            parts.append(part_from(checked(part), wire, at))
    texts = [(place, part.text) for place, part in enumerate(parts) if isinstance(part, Text)]
    for place, citation in citations_of(raw, texts):
        cites = parts[place]
        assert isinstance(cites, Text), "sources are only looked for in texts"
        parts[place] = msgspec.structs.replace(cites, citations=(*cites.citations, citation))
    reason = string(raw.get("finishReason"))
    return Candidate(
        Message("assistant", tuple(parts)),
        finish_of(reason, bool(ids)) if reason else None,
        reason,
        logprobs_of(raw.get("logprobsResult")),
        keys_beside(raw, CANDIDATE),
    )


def parts_in(candidate: Json) -> list[Any]:
    """The parts of a candidate; one that was blocked has none."""
    content = candidate.get("content")
    parts = content.get("parts") if content is not None else None
    if parts is not None and not isinstance(parts, list):
        raise TypeError("parts are not a list")
    return parts or []


def checked(part: Json) -> Json:
    """The part, once its words are seen to be words; TypeError, for `guarded`, where they are not."""
    for key in ("text", "thoughtSignature"):
        if key in part and not isinstance(part[key], str):
            raise TypeError(f"{key} is not a string")
    for key in ("inlineData", "fileData"):
        if key in part and not isinstance(part[key], dict):
            raise TypeError(f"{key} is not an object")
    return part


def call_prefix(answer_id: str | None, choice: int) -> str:
    """What the ids of calls begin with that came without one: the same however often the answer is read, and
    another in every answer."""
    named_by = f"call_{answer_id}_" if answer_id is not None and _ID.fullmatch(answer_id) else "call_"
    return f"{named_by}{choice}_" if choice else named_by


def read_call(part: Json, ids: set[str], prefix: str, at: Endpoint) -> ToolCall:
    """A call; its id joins `ids`, those of the calls before it."""
    call = named(checked(part)["functionCall"])
    identity, name, args = call.get("id"), call["name"], call.get("args")
    if not isinstance(name, str) or not isinstance(identity, str | None) or not isinstance(args, dict | None):
        raise TypeError("a function call has no name, or another shape")
    made = fresh_id(identity or f"{prefix}{len(ids)}", ids)
    ids.add(made)
    return call_from(part, call, made, at)


def keys_beside(values: Mapping[str, Any], known: frozenset[str]) -> Json:
    """The keys that have no neutral place and say something."""
    return {key: value for key, value in values.items() if key not in known and value is not None}


def created_of(value: Any) -> float | None:
    """Epoch seconds of an RFC 3339 time, or None."""
    try:
        when = datetime.fromisoformat(value)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


# ---- sources ----------------------------------------------------------------------------------


def citations_of(candidate: Json, texts: list[tuple[int, str]]) -> list[tuple[int, Citation]]:
    """The sources of an answer, each with the part that cites it. `texts` are the texts by the number of their
    part. What makes no sense here stands in extra as it came."""
    found: list[tuple[int, Citation]] = []
    if not texts:
        return found
    try:
        grounds = candidate.get("groundingMetadata")
        if grounds:
            found += _grounded(named(grounds), texts)
        cited = candidate.get("citationMetadata")
        for raw in (cited.get("citations") or cited.get("citationSources") or ()) if cited else ():
            source = named(raw)
            spot = _spot(source, texts)
            citation = _citation(string(source.get("uri")), string(source.get("title")), spot)
            found.append((spot.part, citation))
    except SHAPE_ERRORS:
        pass
    return found


class _Spot(NamedTuple):
    """A piece of a text: the number of its part, and its begin and end in code points; its own words only where
    these are not known."""

    part: int
    text: str | None
    start: int | None
    end: int | None


def _grounded(grounds: Json, texts: list[tuple[int, str]]) -> Iterable[tuple[int, Citation]]:
    chunks = grounds.get("groundingChunks") or []
    for raw in grounds.get("groundingSupports") or ():
        support = named(raw)
        spot = _spot(named(support.get("segment") or {}), texts)
        for index in support.get("groundingChunkIndices") or ():
            chunk = named(chunks[index])
            kind = next((kind for kind in ("web", "retrievedContext", "maps", "image") if kind in chunk), None)
            source = chunk[kind] if kind is not None else {}
            yield spot.part, _citation(string(source.get("uri")), string(source.get("title")), spot, kind)


def _citation(url: str | None, title: str | None, spot: _Spot, kind: str | None = None) -> Citation:
    named_kind = "url" if kind in (None, "web") else str(kind)
    return Citation(named_kind, url, title or None, spot.text, spot.start, spot.end)


def _spot(segment: Json, texts: list[tuple[int, str]]) -> _Spot:
    """Where a segment lies. It counts in bytes, within a part or, in streams, within all that was said; where its
    own words do not stand there, they are looked for."""
    words = string(segment.get("text")) or None
    start, end = integer(segment.get("startIndex")) or 0, integer(segment.get("endIndex"))
    asked = integer(segment.get("partIndex")) or 0
    for part, text in sorted(texts, key=lambda pair: pair[0] != asked):
        data = text.encode()
        if end is not None and start <= end <= len(data):
            before, inside = data[:start].decode("utf-8", "ignore"), data[start:end].decode("utf-8", "ignore")
            if words in (None, inside):
                return _Spot(part, None, len(before), len(before) + len(inside))
    for part, text in texts:
        if words is not None and (place := text.find(words)) >= 0:
            return _Spot(part, None, place, place + len(words))
    return _Spot(texts[0][0], words, None, None)


# ---- numbers ----------------------------------------------------------------------------------


def usage_of(raw: Any) -> Usage:
    """Tokens with inclusive totals: the wire counts thoughts beside the answer, and what tools brought beside the
    prompt. A count of 0 is left out on the wire, so beside another of its side it is 0."""
    if not isinstance(raw, dict) or not raw:
        return Usage()
    told = named(raw)
    prompt, total = integer(told.get("promptTokenCount")), integer(told.get("totalTokenCount"))
    brought = integer(told.get("toolUsePromptTokenCount")) or 0
    answer, thoughts = integer(told.get("candidatesTokenCount")), integer(told.get("thoughtsTokenCount"))
    output: int | None = None
    if answer is not None or thoughts is not None:
        output = (answer or 0) + (thoughts or 0)
    elif total is not None and prompt is not None and total >= prompt + brought:
        output = total - prompt - brought
    asked = prompt if prompt is None else prompt + brought
    known = asked is not None or output is not None or total is not None
    into, out = told.get("promptTokensDetails"), told.get("candidatesTokensDetails")
    return Usage(
        input=asked,
        output=output,
        cache_read=integer(told.get("cachedContentTokenCount")),
        reasoning=thoughts,
        audio_input=_of(into, "AUDIO") if into else None,
        audio_output=_of(out, "AUDIO") if out else None,
        image_input=_of(into, "IMAGE") if into else None,
        total=total,
        source="provider" if known else "missing",
        raw=raw,
    )


def _of(details: Any, modality: str) -> int | None:
    """The tokens of one modality."""
    rows = [named(row) for row in details if isinstance(row, dict)] if isinstance(details, list) else []
    counts = [integer(row.get("tokenCount")) for row in rows if row.get("modality") == modality]
    return counts[0] if counts else None


def logprobs_of(raw: Any) -> tuple[TokenLogprob, ...] | None:
    """Log-probabilities; None for what are none."""
    try:
        told = named(raw)
        tops = told.get("topCandidates") or ()
        found = []
        for place, chosen in enumerate(told["chosenCandidates"]):
            top = named(tops[place]).get("candidates") or () if place < len(tops) else ()
            found.append(_logprob(chosen, tuple([_logprob(other) for other in top])))
        return tuple(found) or None
    except SHAPE_ERRORS:
        return None


def _logprob(raw: Json, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    told = named(raw)
    token, value = told["token"], told.get("logProbability", 0.0)
    if not isinstance(token, str) or isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a log-probability is not a token and a number")
    return TokenLogprob(token, float(value), None, top)


# ---- errors -----------------------------------------------------------------------------------

# Kinds that the status of an error does not tell from others, and the reason that says them in its details.
REASONS = {
    "context_length": "CONTEXT_LENGTH_EXCEEDED", "unsupported_param": "UNSUPPORTED_PARAMETER",
    "content_policy": "CONTENT_POLICY_VIOLATION", "quota": "INSUFFICIENT_QUOTA", "billing": "BILLING_NOT_ACTIVE",
    "refusal": "REFUSAL", "bad_response": "BAD_RESPONSE", "connection": "CONNECTION",
    "stream_interrupted": "STREAM_INTERRUPTED", "too_large": "REQUEST_TOO_LARGE",
}  # fmt: skip
_KINDS = {reason: kind for kind, reason in REASONS.items()}
TYPE = "type.googleapis.com/google.rpc."


def decode_error(reply: Reply) -> PolyvoxError:
    """See `ClientSide.decode_error`; a body that is no JSON still gives the error its status means."""
    try:
        body = decode_json(reply.body)
    except BadResponseError:
        words = snippet(reply.body) if reply.body.strip() else ""
        return make_error(reply.status, reply.headers, message=words)
    return error_of(body, reply.status, reply.headers)


def error_of(body: Any, status: int, headers: Mapping[str, str]) -> PolyvoxError:
    """The error an object tells, or a list of it alone; status 0 where it came inside an answer. The details of
    google.rpc say what the status does not: a bad key, how long to wait, which field."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    inner = body.get("error") if isinstance(body, dict) else None
    facts = inner if isinstance(inner, dict) else {}
    details = _details(facts.get("details"))
    info = details.get("ErrorInfo", {})
    reason, meta = string(info.get("reason")), info.get("metadata")
    number = facts.get("code")
    numeric = str(number) if type(number) is int else string(number)
    name = string(facts.get("status"))
    message = string(facts.get("message")) or (inner if isinstance(inner, str) else "") or snippet(encode_json(body))
    kind = _KINDS.get(reason or "")
    if kind is None and reason is not None:
        # The reason tells a bad key from a bad request; the number beside it only repeats the status.
        within = status or (number if type(number) is int else 0)
        kind = kind_of(within, reason, name, message)
    error = make_error(
        status, headers, code=numeric, type=name, message=message, param=_param(details.get("BadRequest")), kind=kind
    )
    if isinstance(meta, dict) and isinstance(meta.get("code"), str):
        error.code = meta["code"]
    wait = string(details.get("RetryInfo", {}).get("retryDelay"))
    if wait is not None and "retry-after" not in headers and (seconds := duration(wait)) is not None:
        error.retry_after = seconds
    error.request_id = error.request_id or string(details.get("RequestInfo", {}).get("requestId"))
    return error


def _details(raw: Any) -> dict[str, Json]:
    """The details of an error by the last word of their type."""
    rows = [row for row in raw if isinstance(row, dict)] if isinstance(raw, list) else []
    return {str(row.get("@type")).rpartition(".")[2]: row for row in rows}


def _param(bad: Json | None) -> str | None:
    violations = bad.get("fieldViolations") if bad else None
    first = violations[0] if isinstance(violations, list) and violations else None
    return string(first.get("field")) if isinstance(first, dict) else None
