"""From a key to what proves it on the wire: a closed table of schemes. It finds no keys, opens no connection and
reads no clock; what a scheme needs of those is handed to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias
from urllib.parse import quote

from polyvox.catalog import Provider
from polyvox.errors import AuthError
from polyvox.keys import Secret, allowed_host, remember
from polyvox.places import needed

if TYPE_CHECKING:
    from polyvox.auth.google import Carry
    from polyvox.transports import Outgoing

Prove: TypeAlias = "Callable[[Outgoing], Awaitable[Mapping[str, str]]]"
"""Gives the headers that prove one request, names in lower case; asked anew for every attempt."""


class Tools(NamedTuple):
    """What a scheme that proves each request needs: something that carries requests of its own, and a clock in
    seconds since 1970."""

    carry: Carry
    clock: Callable[[], float]


def _nothing(*_: object) -> dict[str, str]:
    return {}


def _no_prover(*_: object) -> Prove | None:
    return None


class Scheme(NamedTuple):
    """A way to present a key: in headers and in parameters of the URL that are the same for all requests, or by
    headers made for each. Values are what `Secret.reveal` gave."""

    headers: Callable[[Provider, str], dict[str, str]] = _nothing
    query: Callable[[Provider, str], dict[str, str]] = _nothing
    prover: Callable[[Provider, str, Tools], Prove | None] = _no_prover


def _bearer(provider: Provider, value: str) -> dict[str, str]:
    return {"authorization": f"Bearer {_safe(value, provider, 'the key')}"}


def _header(provider: Provider, value: str) -> dict[str, str]:
    return {provider.auth_header.lower(): _safe(value, provider, "the key")}


def _query(provider: Provider, value: str) -> dict[str, str]:
    return {provider.auth_header: _safe(value, provider, "the key")}


def _azure(provider: Provider, value: str) -> dict[str, str]:
    """A token of Microsoft Entra is a JSON Web Token, which no key of a resource looks like."""
    if value.startswith("eyJ") and value.count(".") == 2:
        return _bearer(provider, value)
    return {"api-key": _safe(value, provider, "the key")}


def _google(provider: Provider, value: str) -> dict[str, str]:
    from polyvox.auth.google import is_token

    return _bearer(provider, value) if is_token(value) else {}


def _google_prover(provider: Provider, value: str, tools: Tools) -> Prove | None:
    from polyvox.auth.google import AccessToken, is_token

    if is_token(value):
        return None
    try:
        token = AccessToken(value, tools.carry, tools.clock)
    except AuthError as error:
        error.provider = provider.name
        raise
    return lambda outgoing: token.headers()  # noqa: ARG005 - a token proves any request


def _sigv4(provider: Provider, value: str) -> dict[str, str]:
    """An access key has its secret behind a colon; a key without one is a bearer token."""
    return {} if ":" in value else _bearer(provider, value)


def _sigv4_prover(provider: Provider, value: str, tools: Tools) -> Prove | None:
    if ":" not in value:
        return None
    from polyvox.auth.sigv4 import AwsKeys, Scope, Signable, sign

    parts = _safe(value, provider, "the key").split(":")
    if len(parts) > 3 or not all(parts):
        raise AuthError(
            f"the key for {provider.name} is no access key: ID:SECRET or ID:SECRET:TOKEN",
            hint=f"set {' and '.join(provider.key_parts)}" if provider.key_parts else None,
            provider=provider.name,
            sent="no",
            billed=False,
        )
    for part in parts[1:]:  # the first is an id, which is no secret
        remember(Secret(part))
    keys, scope = AwsKeys(*parts), Scope(needed(provider, "region"), needed(provider, "service"))

    async def prove(outgoing: Outgoing) -> Mapping[str, str]:
        request = Signable(outgoing.method, outgoing.url, outgoing.headers, outgoing.body)
        return sign(request, keys, scope, tools.clock())

    return prove


SCHEMES: Final[dict[str, Scheme]] = {
    "bearer": Scheme(_bearer),
    "header": Scheme(_header),
    "query": Scheme(query=_query),
    "azure": Scheme(_azure),
    "google": Scheme(_google, prover=_google_prover),
    "sigv4": Scheme(_sigv4, prover=_sigv4_prover),
    "none": Scheme(),
}
"""Every way to present a key that a provider's row may name."""


def credentials(provider: Provider, key: Secret | None) -> dict[str, str]:
    """The headers that prove who asks, names in lower case, `provider.secret_headers` among them.

    Without a key there are only those. Raises AuthError for a key that cannot stand in a header, and
    for secret headers bound elsewhere than to the provider's address (the caller asks `allowed_host`
    for the key). The error never shows a value.
    """
    for source in provider.secret_sources:
        allowed_host(provider, provider.base_url, source)
    made = {name.lower(): _safe(secret.reveal(), provider, name) for name, secret in provider.secret_headers.items()}
    if key:
        made.update(SCHEMES[provider.auth].headers(provider, key.reveal()))
    return made


def query(provider: Provider, key: Secret | None) -> str:
    """The part of the URL behind "?" that proves who asks; "" where nothing there does. It is as secret as the
    key is. Raises AuthError as `credentials` does."""
    made = SCHEMES[provider.auth].query(provider, key.reveal()) if key else {}
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='$')}" for name, value in made.items())


def prover(provider: Provider, key: Secret | None, tools: Tools) -> Prove | None:
    """What proves each request by itself, where the scheme signs or has to fetch a token; None where the headers
    of `credentials` are all there is. Raises AuthError for a key it cannot use, which it never shows."""
    return SCHEMES[provider.auth].prover(provider, key.reveal(), tools) if key else None


# What a client proves itself with, and what belongs to its own connection: neither is for the next server.
_OF_CLIENT = frozenset({
    "authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie",
    "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect",
    "accept-encoding", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via",
})  # fmt: skip


def rekeyed(headers: Mapping[str, str], proof: Mapping[str, str]) -> dict[str, str]:
    """A client's headers for the identity lane: with our proof instead of any of the client's, without those of
    its connection (RFC 9110, 7.6.1), all others as they came. Names come out in lower case.

    >>> rekeyed({"X-Api-Key": "theirs", "anthropic-version": "2023-06-01"}, {"authorization": "Bearer ours"})
    {'anthropic-version': '2023-06-01', 'authorization': 'Bearer ours'}
    """
    lower = {name.lower(): value for name, value in headers.items()}
    named = {name.strip() for name in lower.get("connection", "").lower().split(",")}
    return {**{name: value for name, value in lower.items() if name not in _OF_CLIENT | named}, **proof}


def _safe(value: str, provider: Provider, what: str) -> str:
    """The value, if RFC 9110 lets it into a header: visible ASCII and inner spaces."""
    if value != value.strip() or not value.isascii() or not value.isprintable():
        raise AuthError(
            f"{what} for {provider.name} has characters that no key has",
            hint=f"copy it again, without line breaks or quotes, and run: polyvox keys set {provider.name}",
            provider=provider.name,
            sent="no",
            billed=False,
        )
    return value
