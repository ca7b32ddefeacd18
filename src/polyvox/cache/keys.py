"""The key of an answer: a digest over everything that shapes it, and over nothing else. Equal requests have equal
keys however they were made; no secret is part of one."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from polyvox.dialects import Endpoint
from polyvox.errors import InputError
from polyvox.types import Request

VERSION = 1
"""Counted up whenever equal requests would get other keys, or other answers: old entries are then never found."""

NOT_SHAPING = ("stream", "user", "metadata")
"""Fields of a request that change how an answer comes and who is told of it, but not what it is. Hints at a prompt
cache are not among them: what an answer cost is kept with it."""
_NUMBERS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")

CREDENTIALS = frozenset({
    "authorization", "proxy-authorization", "cookie", "api-key", "x-api-key", "x-goog-api-key", "x-auth-token",
    "x-amz-security-token", "x-amz-date", "x-amz-content-sha256", "ocp-apim-subscription-key",
})  # fmt: skip
PER_CALL = frozenset({
    "idempotency-key", "x-request-id", "x-client-request-id", "x-correlation-id", "traceparent", "tracestate",
    "baggage", "user-agent", "date",
})  # fmt: skip
"""Headers that differ from call to call and shape no answer."""
_SECRET_ENDS = ("-key", "-token", "-secret", "-authorization", "-signature")
_SECRET_QUERY = frozenset({"key", "api_key", "apikey", "api-key", "token", "access_token", "sig", "signature"})

_MANY = 256
_encode = msgspec.json.Encoder(order="deterministic").encode
_UNKEYABLE = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


class Fingerprint(Struct, frozen=True):
    """What of a deployment shapes its answers, as a digest; made once for a deployment by `fingerprint`."""

    provider: str
    model: str
    digest: bytes


class CacheKey(Struct, frozen=True):
    """Where an answer is kept: the space of its tenant and namespace, and 64 hexadecimal digits."""

    space: str
    digest: str


def fingerprint(
    provider: str,
    model: str,
    dialect: str,
    *,
    endpoint: Endpoint | None = None,
    headers: Mapping[str, str] | None = None,
    query: str = "",
    more: Any = None,
) -> Fingerprint:
    """Everything about a deployment that shapes what it answers: who answers, where, by which protocol and habits.

    Credentials are left out wherever they stand: in the address, the query and the headers. more is anything else that
    JSON can say, such as the facts by which a request is made to fit. TypeError for what JSON cannot say.

    >>> at = Endpoint(base_url="https://user:password@api.example/v1")
    >>> fingerprint("demo", "m", "openai.chat", endpoint=at).digest == fingerprint(
    ...     "demo", "m", "openai.chat", endpoint=Endpoint(base_url="https://api.example/v1")).digest
    True
    """
    at = endpoint or Endpoint()
    said = (
        provider, model, dialect, _address(at.base_url), at.origin, sorted(at.quirks), dict(at.options),
        _shaping(headers or {}), _query(query), more,
    )  # fmt: skip
    return Fingerprint(provider, model, hashlib.sha256(_encode(said)).digest())


def key_of(
    request: Request,
    of: Fingerprint,
    *,
    tenant: str | None = None,
    namespace: str = "default",
    headers: Mapping[str, str] | None = None,
) -> CacheKey | None:
    """The key of what a deployment answers to a request; None for a request that holds what JSON cannot say.

    headers are those the caller adds to this call. tenant None is nobody's in particular; tenants never share a key.
    """
    try:
        asked = _encode(_neutral(request))
        head = _head(tenant, namespace, of.digest, tuple(_shaping(headers)) if headers else None)
    except _UNKEYABLE:
        return None
    # JSON holds no line break of its own, so the two cannot run into each other.
    return CacheKey(_space(tenant, namespace), hashlib.sha256(head + b"\n" + asked).hexdigest())


@functools.lru_cache(_MANY)
def _head(tenant: str | None, namespace: str, digest: bytes, shaping: tuple[tuple[str, str], ...] | None) -> bytes:
    return _encode((VERSION, tenant, namespace, digest, shaping))


def space_of(tenant: str | None, namespace: str) -> str:
    """The space in which the answers of a tenant and a namespace are kept; InputError for names that are none.

    A tenant may be a person, so its name stands nowhere.
    """
    if not isinstance(namespace, str) or not 0 < len(namespace) <= 200:
        raise InputError("a namespace is a name of 1 to 200 characters", hint='say namespace="default"')
    return tenant_spaces(tenant) + quote(namespace, safe="", errors="replace")


_space = functools.lru_cache(_MANY)(space_of)


def tenant_spaces(tenant: str | None) -> str:
    """How all spaces of a tenant begin."""
    if tenant is None:
        return "answers.-."
    if not isinstance(tenant, str) or not tenant:
        raise InputError("a tenant is a name, or None", hint='say tenant="team-a", or leave it out')
    digest = hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()
    return f"answers.{digest[:32]}."


def _neutral(request: Request) -> Request:
    """The request without what shapes nothing, and with one form for equal numbers."""
    changes: dict[str, Any] = {}
    if request.stream:
        changes["stream"] = False
    if request.user is not UNSET:
        changes["user"] = UNSET
    if request.metadata is not UNSET:
        changes["metadata"] = UNSET
    for name in _NUMBERS:
        value = getattr(request, name)
        if value is not UNSET and (type(value) is int or value == 0):
            changes[name] = value + 0.0 or 0.0
    if request.logit_bias is not UNSET:
        changes["logit_bias"] = {token: bias + 0.0 or 0.0 for token, bias in request.logit_bias.items()}
    return replace(request, **changes) if changes else request


def _shaping(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    named = sorted((name.lower(), value) for name, value in headers.items())
    return [
        (name, value)
        for name, value in named
        if name not in CREDENTIALS and name not in PER_CALL and not name.endswith(_SECRET_ENDS)
    ]


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    host = parts.netloc.rpartition("@")[2].lower()
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), _query(parts.query), ""))


def _query(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    return urlencode(sorted((name, value) for name, value in pairs if name.lower() not in _SECRET_QUERY))
