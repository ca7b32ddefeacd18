"""From a key to the headers that prove it: a closed table of schemes. It finds no keys and sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from polyvox.catalog import Provider
from polyvox.errors import AuthError
from polyvox.keys import Secret, allowed_host


def _bearer(_: Provider, value: str) -> dict[str, str]:
    return {"authorization": f"Bearer {value}"}


def _header(provider: Provider, value: str) -> dict[str, str]:
    return {provider.auth_header.lower(): value}


SCHEMES: Final[dict[str, Callable[[Provider, str], dict[str, str]]]] = {
    "bearer": _bearer,
    "header": _header,
    "none": lambda *_: {},
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
    made = {name.lower(): _safe(secret, provider, name) for name, secret in provider.secret_headers.items()}
    if key:
        made.update(SCHEMES[provider.auth](provider, _safe(key, provider, "the key")))
    return made


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


def _safe(secret: Secret, provider: Provider, what: str) -> str:
    """The value, if RFC 9110 lets it into a header: visible ASCII and inner spaces."""
    value = secret.reveal()
    if value != value.strip() or not value.isascii() or not value.isprintable():
        raise AuthError(
            f"{what} for {provider.name} has characters that no key has",
            hint=f"copy it again, without line breaks or quotes, and run: polyvox keys set {provider.name}",
            provider=provider.name,
            sent="no",
            billed=False,
        )
    return value
