"""A whole answer, and an error, for a client of the Converse protocol. What a streamed answer says in the same
words stands here once. An answer that did not come to its end is an error here, never half a success."""

from __future__ import annotations

import base64
import math
from typing import Any

from polyvox.dialects import SHAPE_ERRORS, Endpoint, Peek, Reply, encode_json, integer
from polyvox.dialects.bedrock.answer import error_of, usage_of
from polyvox.dialects.bedrock.blocks import blocks_of, cited, reasoning_block
from polyvox.dialects.bedrock.facts import ANSWER_KEYS, CACHE_TTLS, FINISH, NAME, finish_of
from polyvox.dialects.bedrock.request import JSON_TYPE
from polyvox.dialects.bedrock.scope import Block, Scope, joined
from polyvox.dialects.bedrock.turns import call_block
from polyvox.dialects.errors_on_wire import headers_of, status_of
from polyvox.errors import BadResponseError, InputError, PolyvoxError, of_kind
from polyvox.types import Extra, FinishReason, Loss, Part, Reasoning, Response, Text, ToolCall, ToolResult, Usage

REQUEST_ID = "x-amzn-requestid"


def encode(response: Response, asked: Peek) -> tuple[Reply, tuple[Loss, ...]]:
    """The answer and its losses; raises BadResponseError where it holds what is no JSON."""
    failure = failure_of(response.finish_reason if response.complete else "incomplete", response.raw_finish_reason)
    if failure is not None:
        failure.request_id = response.request_id
        return encode_error(failure), (Loss("message", "an answer that did not come to its end is told as an error"),)
    scope = Scope(Endpoint())
    try:
        data = encode_json(_body(response, asked, scope))
    except (*SHAPE_ERRORS, OverflowError) as error:
        what = f"{type(error).__name__}: {error}"
        raise BadResponseError(f"the answer holds a value that cannot be said ({what})") from error
    headers = {"content-type": JSON_TYPE}
    if response.request_id is not None:
        headers[REQUEST_ID] = response.request_id
    return Reply(200, headers, data), tuple(scope.losses)


def _body(response: Response, asked: Peek, scope: Scope) -> Block:
    used: set[str] = set()
    blocks: list[Block] = []
    for place, part in enumerate(response.message.parts):
        blocks += answer_blocks(part, f"message.parts[{place}]", scope, used)
    who(response.id, response.model, response.created, asked, scope)
    if response.choices:
        scope.lose("choices", "one answer is told, not several")
    if response.logprobs:
        scope.lose("logprobs", "log-probabilities are not told")
    if response.message.name is not None:
        scope.lose("message.name", "speakers have no name", "note")
    message = {"role": "assistant", "content": blocks, **scope.own(response.message.extra, "message")}
    extra = own_extra(response.extra, scope)
    beside = extra.pop("output", None)
    output = {"message": message}
    reason = stop_reason(
        response.finish_reason or "unknown", response.raw_finish_reason, scope,
        sequence=response.stop_sequence, has_calls=bool(used),
    )  # fmt: skip
    return {
        "output": joined(output, beside) if isinstance(beside, dict) else output,
        "stopReason": reason,
        "usage": usage_told(response.usage, scope),
        "metrics": metrics_told(extra, scope),
        **extra,
    }


# ---- what a whole and a streamed answer share -------------------------------------------------


def who(new_id: str | None, model: str | None, created: float | None, asked: Peek, scope: Scope) -> None:
    """Note what cannot be said of who answers; the model that was asked for needs no saying."""
    if new_id is not None:
        scope.lose("id", "answers have no id", "note")
    if model is not None and model != asked.model:
        scope.lose("model", "answers do not tell which model made them", "note")
    if created is not None:
        scope.lose("created", "answers do not tell when they were made", "note")


def own_extra(extra: Extra, scope: Scope) -> Block:
    """The keys of an answer that are this dialect's own, but for those with a place of their own."""
    own = scope.own(extra, "").items()
    return {key: value for key, value in own if key not in ANSWER_KEYS or (key == "output" and isinstance(value, dict))}


def metrics_told(extra: Block, scope: Scope) -> Any:
    """How long the answer took, taken out of the keys beside it; the protocol demands a number."""
    metrics = extra.pop("metrics", None)
    if metrics is not None:
        return metrics
    scope.lose("metrics", "nobody measured, and a number is demanded: 0 is said", "note")
    return {"latencyMs": 0}


# Read backwards, so that where two words mean the same the plainer one, which comes first, is said.
_REASONS: dict[FinishReason, str] = {
    **{neutral: raw for raw, neutral in reversed(FINISH.items())},
    "refusal": "content_filtered",
    "pause": "max_tokens",
    "compaction": "max_tokens",
    "unknown": "end_turn",
}
_BENT: dict[FinishReason, str] = {
    "refusal": "a refusal is told as the stop of a filter",
    "pause": "a pause is told as an answer that was too long",
    "compaction": "a stop to compact the conversation is told as an answer that was too long",
    "unknown": "nobody knows why it ended: end_turn is said",
}
_NO_END: dict[FinishReason | None, tuple[str, str]] = {
    "error": ("server", "the model failed before its answer was whole"),
    "incomplete": ("stream_interrupted", "the answer broke off before its end"),
    "cancelled": ("cancelled", "the call was cancelled before the answer was whole"),
    None: ("bad_response", "the answer does not say that it came to its end"),
}


def failure_of(reason: FinishReason | None, raw: str | None) -> PolyvoxError | None:
    """The error that an answer with this finish reason is, or None for one that came to its end, or to a failure
    the protocol has its own word for."""
    if reason == "error" and FINISH.get(raw or "") == "error":
        return None
    kind, message = _NO_END.get(reason, ("", ""))
    return of_kind(kind, message) if kind else None


def stop_reason(
    neutral: FinishReason, raw: str | None, scope: Scope, *, sequence: str | None, has_calls: bool
) -> str:  # fmt: skip
    """The protocol's word for why the answer ended: the one it came with, where that means the same here."""
    if sequence is not None:
        scope.lose("stop_sequence", "which stop sequence ended an answer is not told", "note")
    if raw is not None and raw in FINISH and finish_of(raw, has_calls) == neutral:
        return raw
    if sequence is not None and neutral == "stop":
        return "stop_sequence"
    if neutral in _BENT:
        scope.lose("finish_reason", _BENT[neutral], "note" if neutral == "refusal" else "loss")
    return _REASONS[neutral]


_UNSAID = ("reasoning", "audio_input", "audio_output", "image_input", "cost")


def usage_told(usage: Usage, scope: Scope) -> Block:
    """Tokens in the protocol's own counting, whose input leaves the cached ones out. Its own object goes back as
    it came; a number that nobody said but the protocol demands is 0, with a note."""
    own = bool(usage.raw) and usage_of(usage.raw) == usage
    told = dict(usage.raw) if own else _counted(usage, scope)
    for key, field in (("inputTokens", "input"), ("outputTokens", "output")):
        if integer(told.get(key)) is None:
            told[key] = 0
            scope.lose(f"usage.{field}", "nobody counted, and a number is demanded: 0 is said", "note")
    if integer(told.get("totalTokens")) is None:
        told["totalTokens"] = (usage.input or 0) + (usage.output or 0)
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
    if usage.source == "estimated":
        scope.lose("usage.source", "the figures are an estimate, which cannot be said", "note")
    if any(ttl not in CACHE_TTLS for ttl in by_ttl):
        scope.lose("usage.cache_write_by_ttl", "lifetimes are 5m or 1h here", "note")
    told = {
        "inputTokens": fresh,
        "outputTokens": usage.output,
        "totalTokens": usage.total,
        "cacheReadInputTokens": read,
        "cacheWriteInputTokens": written,
        "cacheDetails": [{"ttl": ttl, "inputTokens": n} for ttl, n in by_ttl.items() if ttl in CACHE_TTLS],
        "serverToolUsage": dict(usage.server_tools),
    }
    return {key: value for key, value in told.items() if value not in (None, {}, [])}


# ---- blocks -----------------------------------------------------------------------------------


def answer_blocks(part: Part, where: str, scope: Scope, used: set[str]) -> list[Block]:
    """The blocks for a part of an answer; none, with a loss, where there is none. `used` are the ids of the calls
    so far."""
    if type(part) is Text:
        return [_text(part, where, scope)]
    if type(part) is Reasoning:
        return _reasoning(part, where, scope)
    if type(part) is ToolCall:
        return [call_block(part, where, scope, used)]
    if type(part) is ToolResult:
        scope.lose(f"{where}.tool_result", "it has no place in an answer")
        return []
    try:
        return blocks_of(part, "assistant", where, scope)
    except InputError as error:
        # What is refused of a request cannot be helped in an answer, which is there: the rest of it is told.
        scope.lose(f"{where}.{part.__struct_config__.tag}", error.message.removeprefix(f"{where}: "))
        return []


def _text(part: Text, where: str, scope: Scope) -> Block:
    if part.signature is not None:
        scope.lose(f"{where}.signature", "text carries no signature here")
    if part.cache is not None:
        scope.lose(f"{where}.cache", "answers carry no cache hints", "note")
    own, citations = scope.own(part.extra, where), cited(part, "assistant", where, scope)
    if citations:
        return {"citationsContent": {"content": [{"text": part.text}], "citations": citations, **own}}
    return {"text": part.text, **own}


def _reasoning(part: Reasoning, where: str, scope: Scope) -> list[Block]:
    own = scope.own(part.extra, where)
    proof = proof_of(part.signature, part.extra, where, scope)
    if part.encrypted is not None and can_hide(part.encrypted, part.extra, where, scope):
        if not part.text:
            return [reasoning_block(part, own)]
        scope.lose(f"{where}.reasoning", "what is encrypted cannot be told beside what is shown")
    if not part.text and proof is None and (foreign(part.extra) or part.encrypted is not None):
        return []
    return [reasoning_block(Reasoning(part.text, proof), own)]


def foreign(extra: Extra) -> str | None:
    """The dialect whose keys alone prove a thought, where that is not this one."""
    others = [dialect for dialect in extra if dialect != NAME]
    return others[0] if others and NAME not in extra else None


def can_hide(encrypted: str, extra: Extra, where: str, scope: Scope) -> bool:
    """Whether hidden reasoning can be told: it must be base64 here, and no other dialect's; a loss where it is not."""
    if other := foreign(extra):
        scope.lose(f"{where}.reasoning", f"what is encrypted is bound to {other}")
        return False
    try:
        base64.b64decode(encrypted, validate=True)
    except ValueError:
        scope.lose(f"{where}.reasoning", "what is encrypted is not base64, as it must be here")
        return False
    return True


def proof_of(signature: str | None, extra: Extra, where: str, scope: Scope) -> str | None:
    """The signature of a thought; None where it has none, or another dialect's keys go with it."""
    other = foreign(extra)
    if signature and other:
        scope.lose(f"{where}.reasoning", f"its signature is bound to {other}")
    return None if other else signature


# ---- errors -----------------------------------------------------------------------------------

_NAMES = {
    "invalid_request": "ValidationException", "context_length": "ValidationException",
    "unsupported_param": "ValidationException", "content_policy": "ValidationException",
    "refusal": "ValidationException", "auth": "UnrecognizedClientException", "permission": "AccessDeniedException",
    "billing": "AccessDeniedException", "not_found": "ResourceNotFoundException", "conflict": "ConflictException",
    "too_large": "RequestEntityTooLargeException", "rate_limit": "ThrottlingException",
    "quota": "ServiceQuotaExceededException", "overloaded": "ModelNotReadyException",
    "timeout": "ModelTimeoutException", "server": "InternalServerException",
}  # fmt: skip
# Codes for kinds that no name of the protocol says.
_CODES = {
    "context_length": "context_length_exceeded", "unsupported_param": "unsupported_parameter",
    "content_policy": "content_policy_violation", "billing": "billing_not_active", "cancelled": "cancelled",
    "too_large": "request_too_large",
}  # fmt: skip
_STATUS = {"auth": 403, "billing": 403, "quota": 400, "overloaded": 429, "timeout": 408}
# The statuses after which the protocol's own clients ask again unless they are told otherwise.
_ASKED_AGAIN = frozenset({408, 409, 429})


def encode_error(error: PolyvoxError) -> Reply:
    """An error as the reply that says it. A provider's own status and code go along where they say the kind."""
    usual = _STATUS.get(error.kind) or status_of(of_kind(error.kind, ""))
    given = usual if error.status is None else status_of(error)
    name, code = name_of(error), _CODES.get(error.kind)
    ways = ((given, error.code), (given, error.code or code), (usual, error.code), (usual, code))
    status, body = _said(error, name, ways)
    headers = {"content-type": JSON_TYPE, "x-amzn-errortype": name, **headers_of(error)}
    if error.retry_after is not None and math.isfinite(error.retry_after):
        headers["x-amz-retry-after"] = str(math.ceil(error.retry_after * 1000))
    if error.retryable != (status in _ASKED_AGAIN or status >= 500):
        headers["x-should-retry"] = "true" if error.retryable else "false"
    if error.request_id is not None:
        headers[REQUEST_ID] = error.request_id
    return Reply(status, headers, encode_json(body))


def error_in_stream(error: PolyvoxError) -> tuple[str, Block]:
    """An error as the name and the body of the exception that ends a stream, where no status tells its kind."""
    name, code = name_of(error), _CODES.get(error.kind)
    return name[0].lower() + name[1:], _said(error, name, ((0, error.code), (0, error.code or code), (0, code)))[1]


def name_of(error: PolyvoxError) -> str:
    """The protocol's name for an error of this kind."""
    return _NAMES.get(error.kind, "InternalServerException")


def _said(error: PolyvoxError, name: str, ways: tuple[tuple[int, str | None], ...]) -> tuple[int, Block]:
    """Status and body: the first way, of status and code, that is read back as the same kind, else the first."""
    tried = [(status, _envelope(error, code)) for status, code in ways]
    return next(
        ((status, body) for status, body in tried if error_of(body, status, {}, name).kind == error.kind), tried[0]
    )


def _envelope(error: PolyvoxError, code: str | None) -> Block:
    body = {"message": error.message.encode("utf-8", "replace").decode()}
    return body if code is None else {**body, "code": code}
