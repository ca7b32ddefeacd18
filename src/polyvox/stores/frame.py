"""The form of a value outside this process: a version and a checksum in front of the bytes, so that what was damaged,
mixed up or written by another version is never taken for the value. It reads nothing in the bytes themselves."""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Any

from polyvox.errors import InputError

VERSION = b"PVX\x01"
_DIGEST = 16
"""BLAKE2b of 128 bits, https://www.rfc-editor.org/rfc/rfc7693: it finds damage, it is no proof against a forger."""
HEAD = len(VERSION) + _DIGEST


def framed(space: str, key: str, value: bytes) -> bytes:
    """A value as it is kept under a key; the same each time."""
    return VERSION + _checksum(space, key, value) + value


def unframed(space: str, key: str, kept: Any) -> bytes | None:
    """The value in what was kept under this key; None for anything that is not one."""
    if type(kept) is not bytes or len(kept) < HEAD or not kept.startswith(VERSION):
        return None
    value = kept[HEAD:]
    return value if kept[len(VERSION) : HEAD] == _checksum(space, key, value) else None


def _checksum(space: str, key: str, value: bytes) -> bytes:
    # Over the key too, so that the value of one key is never taken for that of another.
    name, word = space.encode("utf-8", "surrogatepass"), key.encode("utf-8", "surrogatepass")
    return blake2b(b"%d %d " % (len(name), len(word)) + name + word + value, digest_size=_DIGEST).digest()


def seconds(ttl: float | None) -> float | None:
    """A time to live; None is without end. InputError for what is no number of seconds.

    >>> seconds(3600), seconds(float("inf"))
    (3600.0, None)
    """
    if ttl is None:
        return None
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or math.isnan(ttl) or ttl < 0:
        raise InputError("a time to live is seconds, 0 or more", hint="say ttl=3600, or None to keep it without end")
    # Beyond a thousand years the clocks of databases overflow.
    return None if ttl > 3.2e10 else float(ttl)
