"""A whole answer, and an error, for a client of the Messages protocol. What a streamed answer says in the same
words stands here once. An answer that did not come to its end is an error here, never half a success."""

from __future__ import annotations

from typing import Any

from polyvox.dialects import SHAPE_ERRORS, Endpoint, Peek, Reply, encode_json, integer
from polyvox.dialects.anthropic.answer import MESSAGE_KEYS, error_of, explanation_of, usage_of
from polyvox.dialects.anthropic.blocks import Block, Scope, block_of, cited
from polyvox.dialects.anthropic.facts import FINISH, NAME, finish_of
from polyvox.dialects.anthropic.turns import call_block
from polyvox.dialects.errors_on_wire import headers_of, status_of
from polyvox.errors import BadResponseError, PolyvoxError, of_kind
from polyvox.types import (
    Audio,
    Extra,
    FinishReason,
    Loss,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Response,
    Text,
    ToolCall,
    Usage,
    Video,
)

_PREFIX = "msg_"
_NO_ID = "msg_unknown"


def encode(response: Response, asked: Peek) -> tuple[Reply, tuple[Loss, ...]]:
    """The answer and its losses; raises BadResponseError where it holds what is no JSON."""
    failure = failure_of(response.finish_reason if response.complete else "incomplete")
    if failure is not None:
        failure.request_id = response.request_id
        return encode_error(failure), (Loss("message", "an answer that did not come to its end is told as an error"),)
    scope = Scope(Endpoint())
    try:
        data = encode_json(_message(response, asked, scope))
    except (*SHAPE_ERRORS, OverflowError) as error:
        what = f"{type(error).__name__}: {error}"
        raise BadResponseError(f"the answer holds a value that cannot be said ({what})") from error
    headers = {"content-type": "application/json"}
    if response.request_id is not None:
        headers["request-id"] = response.request_id
    return Reply(200, headers, data), tuple(scope.losses)


def _message(response: Response, asked: Peek, scope: Scope) -> Block:
    used: set[str] = set()
    blocks, refusals = [], []
    for place, part in enumerate(response.message.parts):
        where = f"message.parts[{place}]"
        if type(part) is Refusal:
            refusals.append(part.text)
            scope.own(part.extra, where)
        elif (block := answer_block(part, where, scope, used)) is not None:
            blocks.append(block)
            if refusals:
                scope.lose(where, "a refusal is told behind what follows it", "note")
    if response.choices:
        scope.lose("choices", "one answer is told, not several")
    if response.logprobs:
        scope.lose("logprobs", "log-probabilities are not told")
    if response.message.name is not None:
        scope.lose("message.name", "speakers have no name", "note")
    scope.own(response.message.extra, "message")
    message = head(response.id, response.model, response.created, asked, scope)
    message["content"] = blocks
    explanation = "".join(refusals)
    message["stop_reason"] = stop_reason(
        response.finish_reason or "unknown",
        response.raw_finish_reason,
        scope,
        sequence=response.stop_sequence,
        has_calls=bool(used),
        refused=bool(refusals),
    )
    message["stop_sequence"] = response.stop_sequence
    message["usage"] = usage_told(response.usage, scope)
    return {**message, **with_explanation(own_extra(response.extra, scope), explanation)}


# ---- what a whole and a streamed answer share -------------------------------------------------


def head(new_id: str | None, model: str | None, created: float | None, asked: Peek, scope: Scope) -> Block:
    """An answer's first keys: who answers. An id gets this protocol's prefix."""
    if created is not None:
        scope.lose("created", "answers do not tell when they were made", "note")
    if model is None:
        scope.lose("model", "nobody said which model answered: the one asked for is named", "note")
    named = _NO_ID if new_id is None else new_id if new_id.startswith(_PREFIX) else _PREFIX + new_id
    return {"id": named, "type": "message", "role": "assistant", "model": model or asked.model or ""}


def own_extra(extra: Extra, scope: Scope) -> Block:
    """The keys of an answer that are this dialect's own, but for those with a place of their own."""
    return {key: value for key, value in scope.own(extra, "").items() if key not in MESSAGE_KEYS}


def with_explanation(extra: Block, explanation: str) -> Block:
    """The keys beside an answer, among them why it was refused."""
    details = extra.get("stop_details")
    if not explanation or explanation_of(details) == explanation:
        return extra
    known = details if isinstance(details, dict) else {"type": "refusal"}
    return {**extra, "stop_details": {**known, "explanation": explanation}}


# Read backwards, so that where two words mean the same the plainer one, which comes first, is said.
_REASONS: dict[FinishReason, str] = {
    **{neutral: raw for raw, neutral in reversed(FINISH.items())},
    "content_filter": "refusal",
    "unknown": "end_turn",
}
_BENT = {
    "content_filter": "a filter's stop is told as a refusal",
    "unknown": "nobody knows why it ended: end_turn is said",
}
_NO_END: dict[FinishReason | None, tuple[str, str]] = {
    "error": ("server", "the model failed before its answer was whole"),
    "incomplete": ("stream_interrupted", "the answer broke off before its end"),
    "cancelled": ("cancelled", "the call was cancelled before the answer was whole"),
    None: ("bad_response", "the answer does not say that it came to its end"),
}


def failure_of(reason: FinishReason | None) -> PolyvoxError | None:
    """The error that an answer with this finish reason is, or None for one that came to its end."""
    kind, message = _NO_END.get(reason, ("", ""))
    return of_kind(kind, message) if kind else None


def stop_reason(
    neutral: FinishReason, raw: str | None, scope: Scope, *, sequence: str | None, has_calls: bool, refused: bool
) -> str:
    """The protocol's word for why the answer ended: the one it came with, where that means the same here."""
    if raw is not None and raw in FINISH and finish_of(raw, has_calls) == neutral:
        return raw
    if refused and neutral in ("stop", "unknown"):
        return "refusal"
    if sequence is not None and neutral == "stop":
        return "stop_sequence"
    if neutral in _BENT:
        scope.lose("finish_reason", _BENT[neutral], "note" if neutral == "content_filter" else "loss")
    return _REASONS[neutral]


_UNSAID = ("audio_input", "audio_output", "image_input", "cost")
_DEMANDED = (("input_tokens", "input"), ("output_tokens", "output"))


def usage_told(usage: Usage, scope: Scope) -> Block:
    """Tokens in the protocol's own counting, whose input leaves the cached ones out. Its own object goes back
    as it came; a number that nobody said but the protocol demands is 0, with a note."""
    own = bool(usage.raw) and usage_of(usage.raw) == usage
    told = dict(usage.raw) if own else _counted(usage, scope)
    for key, field in _DEMANDED:
        if integer(told.get(key)) is None:
            told[key] = 0
            scope.lose(f"usage.{field}", "nobody counted, and a number is demanded: 0 is said", "note")
    return told


def _counted(usage: Usage, scope: Scope) -> Block:
    fresh, read, written, by_ttl = usage.input, usage.cache_read, usage.cache_write, usage.cache_write_by_ttl
    if fresh is not None:
        fresh -= (read or 0) + (written or 0)
        if fresh < 0:
            # Some count a token both as read and as written. What is told here is added up, so the total counts.
            scope.lose("usage.cache_write", "more is told of the cache than of all input: the total is kept")
            read, by_ttl = min(read or 0, usage.input or 0), {}
            fresh, written = 0, (usage.input or 0) - read
    for name in _UNSAID:
        if getattr(usage, name) is not None:
            scope.lose(f"usage.{name}", "it is not told here", "note")
    if usage.total not in (None, (usage.input or 0) + (usage.output or 0)):
        scope.lose("usage.total", "totals are not told here", "note")
    if usage.source == "estimated":
        scope.lose("usage.source", "the figures are an estimate, which cannot be said", "note")
    told = {
        "input_tokens": fresh,
        "output_tokens": usage.output,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": {f"ephemeral_{ttl}_input_tokens": count for ttl, count in by_ttl.items()},
        "output_tokens_details": None if usage.reasoning is None else {"thinking_tokens": usage.reasoning},
        "server_tool_use": {f"{name}_requests": count for name, count in usage.server_tools.items()},
    }
    return {key: value for key, value in told.items() if value not in (None, {})}


# ---- blocks -----------------------------------------------------------------------------------


def answer_block(part: Part, where: str, scope: Scope, used: set[str]) -> Block | None:
    """The block for a part of an answer, refusals aside; None, with a loss, where there is none. `used` are the
    ids of the calls so far."""
    if type(part) is Text:
        return _text(part, where, scope)
    if type(part) is Reasoning:
        return _reasoning(part, where, scope)
    if type(part) is ToolCall:
        return call_block(part, where, scope, used)
    if type(part) in (Opaque, Audio, Video):
        return block_of(part, "assistant", where, scope)
    scope.lose(f"{where}.{part.__struct_config__.tag}", "it has no place in an answer")
    return None


def _text(part: Text, where: str, scope: Scope) -> Block:
    block: Block = {"type": "text", "text": part.text}
    if citations := cited(part, "assistant", where, scope):
        block["citations"] = citations
    if part.signature is not None:
        scope.lose(f"{where}.signature", f"text carries no signature here; bound to {part.origin}")
    if part.cache is not None:
        scope.lose(f"{where}.cache", "answers carry no cache hints", "note")
    return {**block, **scope.own(part.extra, where)}


def _reasoning(part: Reasoning, where: str, scope: Scope) -> Block | None:
    own = scope.own(part.extra, where)
    proof = proof_of(part.signature, part.extra, where, scope)
    if part.encrypted is not None:
        if proof is not None and not part.text:
            return {"type": "redacted_thinking", "data": part.encrypted, **own}
        scope.lose(f"{where}.reasoning", "what is encrypted cannot be told beside what is shown")
    if proof is None and not part.text:
        return None
    if not proof:
        unsigned(where, scope)
    return {"type": "thinking", "thinking": part.text, "signature": proof or "", **own}


def proof_of(signature: str | None, extra: Extra, where: str, scope: Scope) -> str | None:
    """The signature of a thought, "" where it has none; None for a thought that another dialect's keys prove."""
    others = [dialect for dialect in extra if dialect != NAME]
    if others and NAME not in extra:
        if signature:
            scope.lose(f"{where}.reasoning", f"its signature is bound to {others[0]}")
        return None
    return signature or ""


def unsigned(where: str, scope: Scope) -> None:
    """Note that a thought is shown which cannot be sent back."""
    scope.lose(f"{where}.reasoning", "it is shown without a signature, so it cannot go back", "note")


# ---- errors -----------------------------------------------------------------------------------

_TYPES = {
    "auth": "authentication_error", "billing": "billing_error", "quota": "billing_error",
    "permission": "permission_error", "not_found": "not_found_error", "conflict": "conflict_error",
    "too_large": "request_too_large", "rate_limit": "rate_limit_error", "overloaded": "overloaded_error",
    "timeout": "timeout_error", "invalid_request": "invalid_request_error", "context_length": "invalid_request_error",
    "unsupported_param": "invalid_request_error", "content_policy": "invalid_request_error",
    "refusal": "invalid_request_error",
}  # fmt: skip
# Codes for kinds that no type of the protocol says.
_CODES = {
    "context_length": "context_length_exceeded", "unsupported_param": "unsupported_parameter",
    "content_policy": "content_policy_violation", "quota": "insufficient_quota", "cancelled": "cancelled",
}  # fmt: skip
_STATUS = {"overloaded": 529}
# The statuses after which the protocol's own clients ask again unless they are told otherwise.
_ASKED_AGAIN = frozenset({408, 409, 429})


def encode_error(error: PolyvoxError) -> Reply:
    """An error as the reply that says it. A provider's own status and code go along where they say the kind."""
    usual = _STATUS.get(error.kind) or status_of(of_kind(error.kind, ""))
    given = usual if error.status is None else status_of(error)
    code = _CODES.get(error.kind)
    status, body = _said(error, ((given, error.code or code), (usual, error.code or code), (usual, code)))
    headers = {"content-type": "application/json", **headers_of(error)}
    if error.retryable != (status in _ASKED_AGAIN or status >= 500):
        headers["x-should-retry"] = "true" if error.retryable else "false"
    if error.request_id is not None:
        headers["request-id"] = error.request_id
    return Reply(status, headers, encode_json(body))


def error_event(error: PolyvoxError) -> Block:
    """An error as the event that ends a stream, where no status helps to tell its kind."""
    code = _CODES.get(error.kind)
    return _said(error, ((0, error.code or code), (0, code)))[1]


def _said(error: PolyvoxError, ways: tuple[tuple[int, str | None], ...]) -> tuple[int, Block]:
    """Status and body: the first way, of status and code, that is read back as the same kind, else the first."""
    tried = [(status, _envelope(error, code)) for status, code in ways]
    return next(((status, body) for status, body in tried if error_of(body, status, {}).kind == error.kind), tried[0])


def _envelope(error: PolyvoxError, code: str | None) -> Block:
    facts: dict[str, Any] = {
        "type": _TYPES.get(error.kind, "api_error"),
        "message": error.message.encode("utf-8", "replace").decode(),
    }
    if code is not None:
        facts["details"] = {"error_code": code}
    return {"type": "error", "error": facts, "request_id": error.request_id}
