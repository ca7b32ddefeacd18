"""Signs with an RSA key and SHA-256, as JSON Web Tokens want it (RS256). It knows no claim and no issuer; the
arithmetic is Python's own, so that no cryptography library is needed for one signature an hour.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

_PEM = re.compile(r"-----BEGIN (RSA )?PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END (?:RSA )?PRIVATE KEY-----")
_SEQUENCE, _INTEGER, _OCTETS = 0x30, 0x02, 0x04
_SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")  # DigestInfo of RFC 8017, 9.2, note 1
_SMALLEST_BITS = 2048  # RFC 7518, 3.3


class RsaKey(Struct, frozen=True):
    """A private key: its modulus, and both exponents."""

    n: int
    e: int
    d: int

    def __repr__(self) -> str:
        """Nothing of it."""
        return "RsaKey(***)"

    __str__ = __repr__


def read_key(pem: str) -> RsaKey:
    """The key in a PEM block, "PRIVATE KEY" or "RSA PRIVATE KEY"; ValueError, without a word of it, for others."""
    found = _PEM.search(pem)
    try:
        data = base64.b64decode("".join(found[2].split()), validate=True) if found else b""
        ((tag, key),) = _elements(data)
        if tag == _SEQUENCE and found and not found[1]:
            ((tag, key),) = _elements(next(body for kind, body in _elements(key) if kind == _OCTETS))
        numbers = [int.from_bytes(body) for kind, body in _elements(key) if kind == _INTEGER]
        _, n, e, d = numbers[:4]
    except (ValueError, StopIteration, IndexError, binascii.Error):
        raise ValueError("is not an RSA private key in PEM form") from None
    if tag != _SEQUENCE or n.bit_length() < _SMALLEST_BITS or not 1 < e < n or not 1 < d < n:
        raise ValueError("is not an RSA private key of 2048 bits or more")
    return RsaKey(n, e, d)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of a DER sequence's body, each as its tag and body; ValueError or IndexError for others."""
    at = 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            wide = size & 0x7F
            size, at = int.from_bytes(data[at : at + wide]), at + wide
        if at + size > len(data):
            raise ValueError("is cut")
        yield tag, data[at : at + size]
        at += size


def signature(key: RsaKey, data: bytes) -> bytes:
    """The PKCS #1 v1.5 signature with SHA-256; ValueError for a key whose numbers do not belong together."""
    size = (key.n.bit_length() + 7) // 8
    digest = _SHA256 + hashlib.sha256(data).digest()
    padded = int.from_bytes(b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest)
    # Blinded, so that the time it takes says nothing of the key; checked, so that a fault does not either.
    blind = _coprime(key.n)
    made = pow(padded * pow(blind, key.e, key.n), key.d, key.n) * pow(blind, -1, key.n) % key.n
    if pow(made, key.e, key.n) != padded:
        raise ValueError("has numbers that do not belong together")
    return made.to_bytes(size)


def _coprime(n: int) -> int:
    while math.gcd(found := secrets.randbelow(n - 2) + 2, n) != 1:
        continue
    return found


def token(key: RsaKey, head: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """A signed JSON Web Token in its compact form (RFC 7515); "alg" and "typ" are put into its head."""
    parts = ({"alg": "RS256", "typ": "JWT", **head}, claims)
    said = b".".join(_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return (said + b"." + _base64url(signature(key, said))).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
