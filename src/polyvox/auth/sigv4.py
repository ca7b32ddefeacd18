"""AWS Signature Version 4: from a request, keys and a time to the headers that prove who sent it. Pure; it knows
no service, and leaves finding keys and a clock to others.

Source: docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import posixpath
import time
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from msgspec import Struct

_ALGORITHM = "AWS4-HMAC-SHA256"
_DEFAULT_PORTS = {"https": 443, "http": 80}
# Beside all x-amz-: a proxy may rewrite any other header on the way, which would spoil the signature.
_SIGNED = frozenset({"host", "content-type", "content-md5"})


class AwsKeys(Struct, frozen=True):
    """An access key: its public id, its secret, and the token of a temporary one ("" for a lasting one)."""

    id: str
    secret: str
    token: str = ""

    def __repr__(self) -> str:
        """Nothing of it."""
        return "AwsKeys(***)"

    __str__ = __repr__


class Scope(Struct, frozen=True):
    """What a signature is good for."""

    region: str
    service: str


class Signable(Struct, frozen=True):
    """The parts of a request that are signed: the URL as it goes on the wire, header names in any case."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


def sign(request: Signable, keys: AwsKeys, scope: Scope, now: float) -> dict[str, str]:
    """The headers to add, names in lower case: authorization, x-amz-date and, for temporary keys,
    x-amz-security-token. now is seconds since 1970; a signature is good for five minutes around it."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    added = {"x-amz-date": stamp, **({"x-amz-security-token": keys.token} if keys.token else {})}
    headers = _canonical_headers(request, added)
    names = ";".join(headers)
    reach = f"{stamp[:8]}/{scope.region}/{scope.service}/aws4_request"
    text = "\n".join((_ALGORITHM, stamp, reach, _digest(canonical_request(request, headers).encode())))
    key = f"AWS4{keys.secret}".encode()
    for part in reach.split("/"):
        key = _mac(key, part)
    proof = f"Credential={keys.id}/{reach}, SignedHeaders={names}, Signature={_mac(key, text).hex()}"
    return {**added, "authorization": f"{_ALGORITHM} {proof}"}


def canonical_request(request: Signable, headers: Mapping[str, str]) -> str:
    """The one spelling of a request that both sides hash; headers are the canonical ones, sorted by name."""
    parts = urlsplit(request.url)
    return "\n".join((
        request.method.upper(),
        _canonical_path(parts.path),
        _canonical_query(parts.query),
        *(f"{name}:{value}" for name, value in headers.items()),
        "",
        ";".join(headers),
        _digest(request.body),
    ))  # fmt: skip


def _canonical_headers(request: Signable, added: Mapping[str, str]) -> dict[str, str]:
    given = {name.lower(): value for name, value in request.headers.items()}
    found = {"host": _host(request.url), **given, **added}
    kept = {name: value for name, value in found.items() if name in _SIGNED or name.startswith("x-amz-")}
    return {name: " ".join(kept[name].split()) for name in sorted(kept)}


def _host(url: str) -> str:
    """The host header as HTTP clients send it: with the port where it is not the scheme's own."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f"{host}:{parts.port}"


def _canonical_path(path: str) -> str:
    """The path, dots resolved, encoded once more than it is on the wire: all services but S3 hash it so."""
    if not path:
        return "/"
    # posixpath keeps two slashes at the start apart, which RFC 3986 does not.
    plain = "/" + posixpath.normpath(path).lstrip("/")
    if path.endswith("/") and plain != "/":
        plain += "/"
    return quote(plain, safe="/~")


def _canonical_query(query: str) -> str:
    """The parameters sorted, as they are encoded on the wire."""
    pairs = [pair.partition("=")[::2] for pair in query.split("&") if pair]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
