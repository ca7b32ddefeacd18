"""What an error reply means: its neutral kind, how long to wait, whether to ask again.
Pure and shared by all dialects; it knows words and numbers on the wire, no provider's layout of them.

Sources: the OpenAI, Anthropic, Google and AWS SDKs' tables of errors, RFC 9110 (retry-after), and
what servers are recorded to answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from polyvox.errors import BY_KIND, PolyvoxError, of_kind

# Patterns look at this many characters: a server may put a whole prompt into its message.
_LOOK_AT = 4000


# ---- how long to wait -------------------------------------------------------------------------

_NUMBER = re.compile(r"\s*([0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})\s*", re.ASCII)
_UNIT = r"(?:milliseconds?|ms|microseconds?|µs|us|ns|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)"
_PIECE = re.compile(rf"\s*([0-9]{{1,20}}(?:\.[0-9]{{1,20}})?)\s*({_UNIT})(?![a-z])", re.ASCII | re.IGNORECASE)
_LENGTH = r"[0-9]{1,20}(?:\.[0-9]{1,20})?\s{0,3}" + _UNIT + r"(?![a-z])"
_SPELLED = rf"((?:{_LENGTH}\s{{0,3}}){{1,5}})"
_TOLD = re.compile(
    rf"\b(?:try|retry|again|wait|available|resets?)\b[^\n.]{{0,40}}?\s{_SPELLED}",
    re.ASCII | re.IGNORECASE,
)
_BARE = re.compile(rf"\s*(?:in\s+)?{_SPELLED}\.?\s*", re.ASCII | re.IGNORECASE)
_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "mic": 1e-6, "ms": 1e-3, "mil": 1e-3,
    "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "hou": 3600.0, "hr": 3600.0, "hrs": 3600.0,
    "d": 86400.0, "day": 86400.0,
}  # fmt: skip

# Headers that ask for a pause outright, with their unit in seconds, in the order they count.
_ASKS = (("retry-after-ms", 1e-3), ("x-amz-retry-after", 1e-3), ("retry-after", 1.0))
_PAUSES = (*(name for name, _ in _ASKS), "date")
_WINDOWS = ("requests", "tokens")


def retry_delay(headers: Mapping[str, str], body_message: str = "", now: float | None = None) -> float | None:
    """Seconds to wait before asking again, or None when the reply does not say.

    An explicit header counts before the words of the message, those before the reset of a used-up
    limit. A date in retry-after is taken from the reply's own date; without one from `now`, epoch seconds, and without
    that it says nothing. Never negative, never capped: what is too long to wait is the caller's decision.

    >>> retry_delay({"retry-after": "1.5"})
    1.5
    >>> retry_delay({}, "Rate limit reached. Please try again in 1m30s.")
    90.0
    """
    for name, unit in _ASKS:
        if name in headers:
            found = _number(headers[name], unit)
            if found is None and name == "retry-after":
                # By the reply's own clock, where it tells it: ours may be wrong, and theirs as well.
                here = _moment(headers.get("date", ""))
                here = now if here is None else here
                found = None if here is None else _until(headers[name], here)
            if found is not None:
                return found
    told = _told(body_message)
    return told if told is not None else _reset(headers)


def duration(text: str) -> float | None:
    """Seconds in a length of time such as "7.66s", "6m0s", "250ms", "2 minutes" or a plain "12"; None for others."""
    plain = _number(text, 1.0)
    if plain is not None:
        return plain
    seconds, at = 0.0, 0
    text = text.strip()
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None:
            return None
        unit = piece[2].lower()
        seconds += float(piece[1]) * _SECONDS[unit if unit in _SECONDS else unit[:3]]
        at = piece.end()
    return seconds if at and math.isfinite(seconds) else None


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """What x-should-retry says, or None when it is absent or says something else."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def _number(text: str, unit: float) -> float | None:
    found = _NUMBER.fullmatch(text)
    return float(found[1]) * unit if found else None


def _moment(text: str) -> float | None:
    """Seconds since the epoch of a date as heads have it; None for anything else."""
    try:
        when = parsedate_to_datetime(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return when.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _until(text: str, now: float) -> float | None:
    moment = _moment(text)
    return None if moment is None or not math.isfinite(moment) else max(0.0, moment - now)


def _told(message: str) -> float | None:
    message = message[:_LOOK_AT]
    found = _BARE.fullmatch(message) or _TOLD.search(message)
    return duration(found[1]) if found else None


def _reset(headers: Mapping[str, str]) -> float | None:
    """The reset of the limits that are used up; where a reply does not say what remains, the later one."""
    found = []
    for window in _WINDOWS:
        left = _number(headers.get(f"x-ratelimit-remaining-{window}", ""), 1.0)
        reset = duration(headers.get(f"x-ratelimit-reset-{window}", ""))
        if reset is not None and not left:
            found.append(reset)
    return max(found, default=None)


# ---- what kind of error -----------------------------------------------------------------------


class _Rule(NamedTuple):
    """An error is of this kind when its code or type is one of the words, or its message matches.
    The message is not asked for the statuses in `but`: there the same words mean something else.
    """

    kind: str
    words: frozenset[str]
    message: re.Pattern[str]
    but: frozenset[int] = frozenset({429, 500, 502, 503, 504, 529})


def _says(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL)


_A_MODEL = r"\bmodels?[\s/:]{1,3}(?:named |id )?[`'\"]?[^\s`'\"]{1,200}[`'\",]{0,2}\s+"
_NEVER = re.compile(r"(?!)")

# First match counts.
_RULES = (
    _Rule(
        "context_length",
        frozenset({"context_length_exceeded", "context_window_exceeded", "token_limit_exceeded",
                   "exceed_context_size_error"}),
        _says(
            r"maximum context length", r"max(?:imum)? prompt length", r"\bprompt is too long", r"input is too long",
            r"exceeds? (?:the |its |this )?(?:model'?s? |available |maximum |max )*context",
            r"input token count.{0,60}exceeds", r"too many tokens: ", r"larger than the maximum context size",
            r"tokens \+ .?max_new_tokens.? must be <=",
        ),
        frozenset({429}),
    ),
    _Rule("quota", frozenset({"insufficient_quota"}), _NEVER),
    _Rule(
        "auth",
        frozenset({"api_key_invalid", "invalid_api_key", "expiredtokenexception", "unrecognizedclientexception",
                   "invalidsignatureexception"}),
        _says(
            r"(?:invalid|incorrect|wrong|expired|missing) (?:x-)?api[ -]?key",
            r"api[ -]?key (?:is )?(?:not valid|invalid|expired)", r"api key (?:not found|required)",
            r"bad credentials", r"invalid (?:subscription key|bearer token|auth)",
            r"security token included in the request is", r"no auth credentials",
            r"request signature we calculated does not match",
        ),
    ),
    _Rule("billing", frozenset(), _says(r"credit balance is too low")),
    _Rule(
        "content_policy",
        frozenset({"content_filter", "content_policy_violation", "moderation_blocked", "cyber_policy",
                   "responsibleaipolicyviolation", "data_inspection_failed", "safety_check_failed"}),
        _says(
            r"content (?:management |usage |safety )?policy", r"usage polic(?:y|ies)", r"our safety system",
            r"flagged (?:by|as|for)\b", r"content exists risk",
        ),
    ),
    _Rule(
        "not_found",
        frozenset({"model_not_found", "deploymentnotfound", "model_decommissioned", "unknown_model", "invalid_model"}),
        _says(
            _A_MODEL + r"(?:does not exist|(?:is |was )?not found|was removed|has been decommissioned)",
            _A_MODEL + r"is not supported\.? supported models",
            r"model identifier is invalid", r"is not a valid model", r"\binvalid model: ", r"\bunknown model\b",
        ),
    ),
    _Rule(
        "unsupported_param",
        frozenset({"unsupported_parameter", "unsupported_value", "unknown_parameter"}),
        _says(
            r"unsupported (?:parameter|value)\b", r"unknown parameter\b", r"unrecognized request argument",
            r"not supported (?:with|by|for) this model",
        ),
    ),
)  # fmt: skip

_STATUS = {
    400: "invalid_request", 401: "auth", 402: "billing", 403: "permission", 404: "not_found", 408: "timeout",
    409: "conflict", 410: "not_found", 413: "too_large", 422: "invalid_request", 424: "server",
    425: "rate_limit", 429: "rate_limit", 498: "auth", 499: "cancelled", 500: "server", 502: "server",
    503: "server", 504: "timeout", 524: "timeout", 529: "overloaded",
}  # fmt: skip

# The status that says a kind, for answering clients; what has no entry is the server's fault.
_STATUS_OF = {
    "invalid_request": 400, "context_length": 400, "unsupported_param": 400, "content_policy": 400, "refusal": 400,
    "auth": 401, "billing": 402, "permission": 403, "not_found": 404, "timeout": 504, "conflict": 409, "too_large": 413,
    "rate_limit": 429, "quota": 429, "cancelled": 499, "server": 500, "bad_response": 502, "connection": 502,
    "stream_interrupted": 502, "overloaded": 503,
}  # fmt: skip

# Names of errors, lower case: Anthropic's and OpenAI's types, Google's statuses, AWS's exceptions.
_NAMES = {
    "invalid_request_error": "invalid_request", "invalid_argument": "invalid_request", "bad_request": "invalid_request",
    "failed_precondition": "invalid_request", "out_of_range": "invalid_request", "invalid_request": "invalid_request",
    "validationexception": "invalid_request", "invalid_prompt": "invalid_request", "tool_use_failed": "invalid_request",
    "authentication_error": "auth", "unauthenticated": "auth", "authentication": "auth",
    "permission_error": "permission", "permission_denied": "permission", "accessdeniedexception": "permission",
    "billing_error": "billing", "payment_required": "billing", "billing_hard_limit_reached": "billing",
    "billing_not_active": "billing", "spend_limit_exceeded": "billing", "spend_limit_reached": "billing",
    "not_found_error": "not_found", "not_found": "not_found", "resourcenotfoundexception": "not_found",
    "conflict_error": "conflict", "aborted": "conflict", "already_exists": "conflict",
    "conflictexception": "conflict", "request_too_large": "too_large", "payload_too_large": "too_large",
    "rate_limit_error": "rate_limit", "rate_limit_exceeded": "rate_limit", "rate_limit": "rate_limit",
    "resource_exhausted": "rate_limit", "too_many_requests": "rate_limit", "throttlingexception": "rate_limit",
    "servicequotaexceededexception": "quota", "tokens": "rate_limit", "requests": "rate_limit",
    "overloaded_error": "overloaded", "overloaded": "overloaded", "engine_overloaded": "overloaded",
    "engine_overloaded_error": "overloaded", "provider_overloaded": "overloaded", "unavailable": "overloaded",
    "modelnotreadyexception": "overloaded", "service_tier_capacity_exceeded": "overloaded",
    "api_error": "server", "server_error": "server", "internal_error": "server", "internal": "server",
    "internal_server_error": "server", "unknown": "server", "data_loss": "server", "server": "server",
    "internalserverexception": "server", "modelerrorexception": "server", "modelstreamerrorexception": "server",
    "serviceunavailableexception": "server", "provider_unavailable": "server",
    "timeout_error": "timeout", "deadline_exceeded": "timeout", "timeout": "timeout",
    "modeltimeoutexception": "timeout", "cancelled": "cancelled",
}  # fmt: skip

# Where a name says more than the HTTP status it came with.
_SHARPER = frozenset({
    ("server", "overloaded"), ("server", "timeout"), ("rate_limit", "overloaded"), ("rate_limit", "billing"),
    ("rate_limit", "quota"), ("permission", "billing"), ("invalid_request", "billing"),
    ("invalid_request", "rate_limit"), ("invalid_request", "quota"),
})  # fmt: skip


def kind_of(status: int, code: str | None, type: str | None, message: str) -> str:
    """The neutral error kind; the first of: telling code or words, HTTP status, name of the error.

    A status below 400 (0, or 200 for an error inside an answer) says nothing; then a numeric code
    counts as one. What nothing tells is the server's fault.

    >>> kind_of(429, "insufficient_quota", None, "You exceeded your current quota.")
    'quota'
    """
    if status < 400 and code is not None and len(code) == 3 and code.isascii() and code.isdigit():
        status = int(code)
    names = [word.lower() for word in (code, type) if word]
    found = _by_rule(status, names, message[:_LOOK_AT])
    if found is not None:
        return found
    by_status = _STATUS.get(status) or _by_class(status)
    by_name = next((_NAMES[name] for name in names if name in _NAMES), None)
    if by_status is None:
        return by_name or "server"
    return by_name if by_name is not None and (by_status, by_name) in _SHARPER else by_status


def _by_rule(status: int, names: list[str], message: str) -> str | None:
    for rule in _RULES:
        if rule.words.intersection(names):
            return rule.kind
        if rule.kind == "auth" and status == 401:
            return rule.kind
        if status not in rule.but and rule.message.search(message):
            return rule.kind
    return None


def _by_class(status: int) -> str | None:
    """The kind of a status nobody has named: by its hundred. Below 400 there is none."""
    if status >= 500:
        return "server"
    return "invalid_request" if status >= 400 else None


def status_of(error: PolyvoxError) -> int:
    """The HTTP status to answer a client with: the provider's own where it gave one, else its kind's.

    >>> status_of(of_kind("rate_limit", "slow down"))
    429
    """
    if error.status is not None and 400 <= error.status < 600:
        return error.status
    return _STATUS_OF.get(error.kind, 500)


def headers_of(error: PolyvoxError) -> dict[str, str]:
    """The headers that go with an error: whether and when to ask again."""
    headers: dict[str, str] = {}
    if error.retry_after is not None and math.isfinite(error.retry_after):
        headers["retry-after"] = str(math.ceil(error.retry_after))
        if error.retry_after != math.ceil(error.retry_after):
            headers["retry-after-ms"] = str(math.ceil(error.retry_after * 1000))
    if error.retryable != BY_KIND.get(error.kind, PolyvoxError).retry:
        headers["x-should-retry"] = "true" if error.retryable else "false"
    return headers


# ---- the error --------------------------------------------------------------------------------

_HINTS = {
    "auth": "check that the API key is right, active, and meant for this endpoint",
    "permission": "the key is known but may not do this: check its project, region and scopes",
    "billing": "add credit or raise the spending limit of the account",
    "quota": "the account's quota is used up: raise it, or use another account or provider",
    "context_length": "shorten the conversation or the documents, or choose a model with a longer context",
    "unsupported_param": "leave out {param}, or choose a model that takes it",
    "too_large": "send less at once: fewer or smaller files and images",
    "not_found": "list the models this provider offers and check the spelling",
    "rate_limit": "wait, send fewer requests at a time, or spread them over several deployments",
    "overloaded": "try again later, or name another model to fall back to",
    "content_policy": "the provider will not answer this prompt; rephrase it",
    "timeout": "allow more time, ask for a shorter answer, or stream it",
}

_REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid", "cf-ray")
# The resets of rate limits stand on every answer of some servers; they ask for a pause only here.
_LIMITED = frozenset({"rate_limit", "overloaded"})


# What is left of an empty body, and of the JSON that is as good as none.
_SAYS_NOTHING = frozenset({"", "(empty)", "{}", "[]", "null", "None", '""'})


def make_error(
    status: int,
    headers: Mapping[str, str],
    *,
    code: str | None = None,
    type: str | None = None,
    message: str = "",
    param: str | None = None,
    kind: str | None = None,
    hint: str | None = None,
) -> PolyvoxError:
    """The error an error reply means; status 0 for one that came inside an answer.

    `kind` overrides what the words and the status say, `hint` the general one.
    """
    if message in _SAYS_NOTHING:
        message = f"the provider answered HTTP {status} without saying why" if status else "the provider failed"
    kind = kind or kind_of(status, code, type, message)
    pause = headers if kind in _LIMITED else {name: headers[name] for name in _PAUSES if name in headers}
    general = _HINTS.get(kind)
    return of_kind(
        kind,
        message,
        hint=hint or (general.format(param=param or "that parameter") if general else None),
        status=status or None,
        code=code,
        type=type,
        param=param,
        request_id=request_id(headers),
        retry_after=retry_delay(pause, message),
        retryable=should_retry(headers),
        sent="yes",
        billed=False if status >= 400 else None,
    )


def request_id(headers: Mapping[str, str]) -> str | None:
    """The provider's id of the request, from whichever header has it; names in lower case."""
    for name in _REQUEST_IDS:
        if found := headers.get(name):
            return found
    return None
