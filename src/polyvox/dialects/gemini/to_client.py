"""A whole answer, and an error, for a client of the generateContent protocol. What a streamed answer says in the
same words stands here once. An answer that did not come to its end is an error here, never half a success."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from msgspec import structs

from polyvox.dialects import SHAPE_ERRORS, Endpoint, Reply, encode_json
from polyvox.dialects.errors_on_wire import headers_of, status_of
from polyvox.dialects.gemini.answer import CANDIDATE, REASONS, TOP, TYPE, error_of, logprobs_of, usage_of
from polyvox.dialects.gemini.facts import NAME, Json, finish_of, named
from polyvox.dialects.gemini.parts import MAKERS, Scope, thought
from polyvox.dialects.scope import Answering
from polyvox.errors import BadResponseError, InputError, PolyvoxError, of_kind
from polyvox.types import (
    Choice,
    Citation,
    FinishReason,
    Loss,
    Part,
    Reasoning,
    Response,
    Text,
    TokenLogprob,
    ToolCall,
    ToolResult,
    Usage,
)

UNWRITABLE = (*SHAPE_ERRORS, OverflowError)
# Keys of a candidate that have no neutral place; every other key beside an answer stands at its top.
_OF_CANDIDATE = frozenset({
    "finishMessage", "safetyRatings", "citationMetadata", "groundingMetadata", "urlContextMetadata", "avgLogprobs",
    "logprobsResult", "tokenCount", "continuationToken", "groundingAttributions",
})  # fmt: skip
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?|[A-Za-z0-9_-]*={0,2}")
_RAW = re.compile(r"[A-Z][A-Z0-9_]*")


class AnswerScope(Answering, Scope):
    """What writing one answer carries along."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Endpoint())


def encode_response(response: Response) -> tuple[Reply, tuple[Loss, ...]]:
    """See `ServerSide.encode_response`; raises BadResponseError where the answer holds what is no JSON."""
    reason = response.finish_reason if response.complete else "incomplete"
    failure = failure_of(reason)
    if failure is not None:
        failure.request_id = response.request_id
        return encode_error(failure), (Loss("message", "an answer that did not come to its end is told as an error"),)
    scope = AnswerScope()
    try:
        data = encode_json(_body(response, scope))
    except UNWRITABLE as error:
        what = f"{type(error).__name__}: {error}"
        raise BadResponseError(f"the answer holds a value that cannot be said ({what})") from error
    headers = {"content-type": "application/json; charset=UTF-8"}
    if response.request_id is not None:
        headers["x-request-id"] = response.request_id
    return Reply(200, headers, data), tuple(scope.losses)


def _body(response: Response, scope: AnswerScope) -> Json:
    own = dict(scope.own(response.extra, "")) if response.extra else {}
    body: Json = {}
    parts = response.message.parts
    first = Choice(
        response.message, response.finish_reason, response.raw_finish_reason, response.logprobs
    )  # fmt: skip
    if response.stop_sequence is not None:
        scope.lose("stop_sequence", "which sequence ended the answer is not told", "note")
    blocked = None if parts or response.choices else blocked_in(own, response.raw_finish_reason)
    if not blocked:
        answers = [_candidate(first, 0, own, scope)]
        for number, choice in enumerate(response.choices, 1):
            answers.append(_candidate(choice, number, beside_choice(own, number), scope))
        body["candidates"] = answers
    if (usage := usage_told(response.usage, scope)) is not None:
        body["usageMetadata"] = usage
    return body | head(response.model, response.id, response.created) | top_keys(own, scope)


def _candidate(choice: Choice, number: int, own: Json, scope: AnswerScope) -> Json:
    where = "message" if not number else f"choices[{number - 1}].message"
    told = [wire for place, part in enumerate(choice.message.parts)
            if (wire := answer_part(part, f"{where}.parts[{place}]", scope)) is not None]  # fmt: skip
    if choice.message.name is not None:
        scope.lose(f"{where}.name", "speakers have no names", "note")
    scope.own(choice.message.extra, where)
    calls = any(isinstance(part, ToolCall) for part in choice.message.parts)
    candidate: Json = {"content": {"parts": told, "role": "model"}} if told else {}
    candidate["finishReason"] = finish_told(choice.finish_reason or "unknown", choice.raw_finish_reason, calls, scope)
    candidate["index"] = number
    texts = [(place, part) for place, part in enumerate(choice.message.parts) if isinstance(part, Text)]
    cited = [(part.text, one) for _, part in texts for one in part.citations]
    return candidate | candidate_keys(own, choice.logprobs, cited, scope)


# ---- what a whole and a streamed answer share -------------------------------------------------


def head(model: str | None, answer_id: str | None, created: float | None) -> Json:
    """Who answers; what nobody said is left out."""
    facts = {"modelVersion": model, "responseId": answer_id, "createTime": _time(created)}
    return {key: value for key, value in facts.items() if value is not None}


def _time(created: float | None) -> str | None:
    try:
        if created is not None and created > 0:
            return datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        pass
    return None


def beside_choice(own: Json, number: int) -> Json:
    """The keys beside a further candidate, taken out of those of the answer."""
    found = own.pop(f"candidates.{number}", None)
    return dict(found) if isinstance(found, dict) else {}


def blocked_in(own: Json, raw: str | None) -> bool:
    """Whether the keys beside an answer say that its prompt was blocked, for this reason."""
    feedback = own.get("promptFeedback")
    return raw is not None and isinstance(feedback, dict) and named(feedback).get("blockReason") == raw


def candidate_keys(
    own: Json, logprobs: tuple[TokenLogprob, ...] | None, cited: list[tuple[str, Citation]], scope: Scope
) -> Json:
    """The keys of a candidate beside its content, taken out of `own`; sources and log-probabilities of other
    dialects in this one's form. `cited` has each source with the text that cites it."""
    found = {key: own.pop(key) for key in _OF_CANDIDATE & own.keys()}
    if logprobs and logprobs_of(found.get("logprobsResult")) != logprobs:
        found["logprobsResult"] = _logprobs(logprobs, scope)
    if cited and not {"groundingMetadata", "citationMetadata"} & found.keys():
        found["groundingMetadata"] = _grounds(cited, scope)
    return found


def top_keys(own: Json, scope: Scope) -> Json:
    """The keys beside an answer that may stand there: never one that the answer itself speaks by."""
    for key in own.keys() & (TOP | CANDIDATE | {"error"}):
        scope.lose(f"extra.{NAME}.{key}", "the answer itself says it", "note")
    return {key: value for key, value in own.items() if key not in TOP | CANDIDATE | {"error"}}


_NO_END: dict[FinishReason | None, tuple[str, str]] = {
    "incomplete": ("stream_interrupted", "the answer broke off before its end"),
    "cancelled": ("cancelled", "the call was cancelled before the answer was whole"),
    None: ("bad_response", "the answer does not say that it came to its end"),
}
_REASONS: dict[FinishReason, str] = {
    "stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY", "error": "OTHER",
    "unknown": "FINISH_REASON_UNSPECIFIED", "refusal": "PROHIBITED_CONTENT", "context_overflow": "MAX_TOKENS",
    "pause": "CONTINUATION", "compaction": "OTHER",
}  # fmt: skip


def failure_of(reason: FinishReason | None) -> PolyvoxError | None:
    """The error that an answer with this finish reason is, or None for one that has a word here."""
    kind, message = _NO_END.get(reason, ("", ""))
    return of_kind(kind, message) if kind else None


def finish_told(neutral: FinishReason, raw: str | None, has_calls: bool, scope: Scope) -> str:
    """The protocol's word for why the answer ended: the one it came with, where that means the same here."""
    if raw is not None and _RAW.fullmatch(raw) and finish_of(raw, has_calls) == neutral:
        return raw
    word = _REASONS[neutral]
    read = finish_of(word, has_calls)
    if read != neutral:
        severity: Any = "note" if {neutral, read} == {"stop", "tool_calls"} else "loss"
        scope.lose("finish_reason", f"{neutral} is no reason to end here: {word} is said", severity)
    return word


_UNSAID = ("cache_write", "cost")


def usage_told(usage: Usage, scope: Scope) -> Json | None:
    """Tokens in the protocol's own counting, which has thoughts beside the answer; None where nobody counted."""
    if usage.raw and usage_of(usage.raw) == usage:
        return usage.raw
    for name in _UNSAID:
        if getattr(usage, name) is not None:
            scope.lose(f"usage.{name}", "it is not told here", "note")
    for name in ("cache_write_by_ttl", "server_tools"):
        if getattr(usage, name):
            scope.lose(f"usage.{name}", "it is not told here", "note")
    if usage.source == "estimated":
        scope.lose("usage.source", "the figures are an estimate, which cannot be said", "note")
    answer = usage.output
    if answer is not None and usage.reasoning is not None:
        answer -= usage.reasoning
        if answer < 0:
            scope.lose("usage.reasoning", "more is told of thoughts than of all output: the total is kept")
            answer = 0
    thoughts = usage.reasoning if usage.output is None else _least(usage.reasoning, usage.output)
    total = usage.total
    if total is None and usage.input is not None and usage.output is not None:
        total = usage.input + usage.output
    told: Json = {
        "promptTokenCount": usage.input,
        "cachedContentTokenCount": usage.cache_read,
        "candidatesTokenCount": answer,
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": total,
        "promptTokensDetails": _details(AUDIO=usage.audio_input, IMAGE=usage.image_input),
        "candidatesTokensDetails": _details(AUDIO=usage.audio_output),
    }
    return {key: value for key, value in told.items() if value is not None} or None


def _least(count: int | None, limit: int) -> int | None:
    return None if count is None else min(count, limit)


def _details(**counts: int | None) -> list[Json] | None:
    rows = [{"modality": name, "tokenCount": count} for name, count in counts.items() if count is not None]
    return rows or None


def _logprobs(tokens: tuple[TokenLogprob, ...], scope: Scope) -> Json:
    if any(one.bytes is not None for one in tokens):
        scope.lose("logprobs.bytes", "tokens are told as text alone", "note")
    chosen = [{"token": one.token, "logProbability": one.logprob} for one in tokens]
    told: Json = {"chosenCandidates": chosen}
    if any(one.top for one in tokens):
        told["topCandidates"] = [
            {"candidates": [{"token": top.token, "logProbability": top.logprob} for top in one.top]} for one in tokens
        ]
    return told


def _grounds(cited: Iterable[tuple[str, Citation]], scope: Scope) -> Json:
    """Sources as grounding: what is cited, and the piece of text that cites it, whose place counts in bytes."""
    chunks: list[Json] = []
    supports: list[Json] = []
    for text, one in cited:
        inner = {key: value for key, value in (("uri", one.url), ("title", one.title)) if value is not None}
        chunk = {"web" if one.kind == "url" else "retrievedContext": inner}
        if one.extra or one.document is not None or one.file_id is not None:
            scope.lose("citations", "of a source only its link and title are told", "note")
        if chunk not in chunks:
            chunks.append(chunk)
        segment: Json = {}
        if one.start is not None and one.end is not None:
            begin = len(text[: one.start].encode())
            piece = text[one.start : one.end]
            segment = {"startIndex": begin, "endIndex": begin + len(piece.encode()), "text": piece}
        if one.text is not None:
            scope.lose("citations.text", "the words of a source are not told, only those that cite it", "note")
        supports.append({"segment": segment, "groundingChunkIndices": [chunks.index(chunk)]})
    return {"groundingChunks": chunks, "groundingSupports": supports}


# ---- parts ------------------------------------------------------------------------------------


def answer_part(part: Part, where: str, scope: Scope) -> Json | None:
    """The wire's form of a part of an answer; None, with a loss, where there is none."""
    if isinstance(part, Reasoning):
        return _reasoning(part, where, scope)
    if isinstance(part, ToolResult):
        scope.lose(f"{where}.tool_result", "results are the client's to give")
        return None
    if isinstance(part, Text):
        signature = proof_of(part.signature, where, scope)
        if not part.text and signature is None:
            return {"text": ""} if part.signature is None else None
        # What it cites is told beside the parts.
        part = structs.replace(part, citations=(), signature=signature)
    elif isinstance(part, ToolCall) and part.signature is not None:
        part = structs.replace(part, signature=proof_of(part.signature, where, scope))
    make = MAKERS[type(part)]
    try:
        return make(part, where, scope)
    except InputError as error:
        # What is refused of a request cannot be helped in an answer, which is there: the rest of it is told.
        kind = part.__struct_config__.tag
        scope.lose(f"{where}.{kind}", error.message.removeprefix(f"{where}: "))
        return None


def _reasoning(part: Reasoning, where: str, scope: Scope) -> Json | None:
    own = scope.own(part.extra, where)
    signature = reasoning_proof(
        part.signature, part.encrypted, bool(part.extra) and NAME not in part.extra, where, scope
    )
    if not part.text and signature is None and not own:
        return None
    return thought(part.text, signature) | own


def reasoning_proof(
    signature: str | None, encrypted: str | None, foreign: bool, where: str, scope: Scope
) -> str | None:
    """The signature of a thought that can be told; `foreign` where keys of another dialect prove it."""
    if encrypted is not None:
        scope.lose(f"{where}.encrypted", "thoughts are not encrypted here")
    if foreign and signature is not None:
        scope.lose(f"{where}.signature", "it means nothing without keys that cannot be told here")
        return None
    return proof_of(signature, where, scope)


def proof_of(signature: str | None, where: str, scope: Scope) -> str | None:
    """A signature that clients can take: they read it as base64."""
    if signature is None or _BASE64.fullmatch(signature):
        return signature
    scope.lose(f"{where}.signature", "signatures are base64 here")
    return None


# ---- errors -----------------------------------------------------------------------------------

# google.rpc.Code by kind; the status beside it is the HTTP one.
_STATUS = {
    "invalid_request": "INVALID_ARGUMENT", "context_length": "INVALID_ARGUMENT",
    "unsupported_param": "INVALID_ARGUMENT", "content_policy": "INVALID_ARGUMENT", "refusal": "INVALID_ARGUMENT",
    "too_large": "INVALID_ARGUMENT", "auth": "UNAUTHENTICATED", "permission": "PERMISSION_DENIED",
    "billing": "FAILED_PRECONDITION", "quota": "RESOURCE_EXHAUSTED", "rate_limit": "RESOURCE_EXHAUSTED",
    "not_found": "NOT_FOUND", "conflict": "ABORTED", "overloaded": "UNAVAILABLE", "timeout": "DEADLINE_EXCEEDED",
    "cancelled": "CANCELLED",
}  # fmt: skip
# The status of a key that is wrong: to the API that is a bad argument, which only the reason tells from others. Who
# shows nothing at all, or a bad token, is not authenticated.
_BAD_KEY = 400


def encode_error(error: PolyvoxError) -> Reply:
    """See `ServerSide.encode_error`."""
    status = telling_status(error)
    headers = {"content-type": "application/json; charset=UTF-8", **headers_of(error)}
    if error.request_id is not None:
        headers["x-request-id"] = error.request_id
    return Reply(status, headers, encode_json(error_body(error, status)))


def telling_status(error: PolyvoxError, reply_status: int | None = None) -> int:
    """The HTTP status that goes with an error: the provider's own where it still says the kind, else the kind's.
    `reply_status` is that of the reply where it is not the error's: 0 within an answer."""
    usual = status_of(of_kind(error.kind, ""))
    given = usual if error.status is None else status_of(error)
    read = error_of(error_body(error, given), given if reply_status is None else reply_status, {})
    return given if read.kind == error.kind else usual


def error_body(error: PolyvoxError, status: int) -> Json:
    """The error in the protocol's own form; what it has no place for stands in details as google.rpc has them."""
    is_bad_key = error.kind == "auth" and status == _BAD_KEY
    facts: Json = {
        "code": status,
        "message": _plain(error.message) or f"the request failed ({error.kind})",
        "status": "INVALID_ARGUMENT" if is_bad_key else _STATUS.get(error.kind, "INTERNAL"),
    }
    if details := _error_details(error, "API_KEY_INVALID" if is_bad_key else REASONS.get(error.kind)):
        facts["details"] = details
    return {"error": facts}


def _error_details(error: PolyvoxError, reason: str | None) -> list[Json]:
    code = None if error.code is None or error.code.isdigit() else _plain(error.code)
    details: list[Json] = []
    if reason is not None or code is not None:
        info: Json = {"@type": f"{TYPE}ErrorInfo", "reason": reason or code, "domain": "googleapis.com"}
        if code is not None:
            info["metadata"] = {"code": code}
        details.append(info)
    if error.retry_after is not None and math.isfinite(error.retry_after):
        details.append({"@type": f"{TYPE}RetryInfo", "retryDelay": _length(error.retry_after)})
    if error.param is not None:
        violation = {"field": _plain(error.param), "description": _plain(error.message)}
        details.append({"@type": f"{TYPE}BadRequest", "fieldViolations": [violation]})
    if error.request_id is not None:
        details.append({"@type": f"{TYPE}RequestInfo", "requestId": _plain(error.request_id)})
    return details


def _length(seconds: float) -> str:
    """A length of time as google.protobuf.Duration has it."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def _plain(text: str) -> str:
    """Text that can be written: without lone surrogates."""
    return text.encode("utf-8", "replace").decode()
