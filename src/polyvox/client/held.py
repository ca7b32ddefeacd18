"""What callers hand over as a file (a path, bytes, an open file, a part) as a part that holds its bytes.
It finds out what is wrong with it before anything is sent; it knows no provider."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from polyvox.client.check import shown, sound
from polyvox.errors import InputError
from polyvox.fetch.kinds import data_url, media_type_of
from polyvox.types import Media

MAX_FILE = 512 * 1024 * 1024
"""Bytes of a file at most: what is sent is held in memory. No provider takes more at once."""

Handed: TypeAlias = Any
"""A path, bytes, a binary file that is open, a data: URL, or a part of the right kind with its bytes."""

MediaT = TypeVar("MediaT", bound=Media)


async def held(thing: Handed, make: type[MediaT], what: str) -> MediaT:
    """The thing as a part of this kind, with its bytes; raises InputError, with `what` as its param.

    Files are read in a thread, so that nobody else waits for the disk.
    """
    part = await asyncio.to_thread(_read, thing, make, what)
    if not part.data and not getattr(part, "text", None):
        raise InputError(f"{what} is empty", param=what)
    return part


def _read(thing: Any, make: type[MediaT], what: str) -> MediaT:
    if isinstance(thing, make):
        part = sound(thing)
        if part.data is None and not getattr(part, "text", None):
            raise _no_bytes(what)
        return part
    if isinstance(thing, bytes | bytearray | memoryview):
        return _made(bytes(thing), None, make, what)
    if isinstance(thing, str) and thing.startswith("data:"):
        found = data_url(thing, MAX_FILE)
        return make(found.data, media_type=found.media_type)
    if isinstance(thing, str) and thing.startswith(("http://", "https://")):
        raise _no_bytes(what)
    if isinstance(thing, str | os.PathLike):
        return _made(_bytes_at(Path(thing), what), Path(thing).name, make, what)
    if callable(getattr(thing, "read", None)):
        name = getattr(thing, "name", None)
        return _made(_all_of(thing.read, what), Path(name).name if isinstance(name, str) else None, make, what)
    raise InputError(f"{what} must be a path, bytes or an open file, not {shown(thing)}", param=what)


def _no_bytes(what: str) -> InputError:
    return InputError(f"{what} is a URL or an id, and its bytes must be sent", param=what, hint="fetch it first")


def _bytes_at(path: Path, what: str) -> bytes:
    try:
        if not path.is_file():
            why = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
            raise InputError(f"cannot read {path}: it {why}", param=what, hint="check the path")
        if path.stat().st_size > MAX_FILE:
            raise _too_long(what)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot read {path}: {reason}", param=what, hint="check the path and its permissions"
        ) from None


def _all_of(read: Callable[[int], Any], what: str) -> bytes:
    """All that an open file holds."""
    try:
        data = read(MAX_FILE + 1)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"cannot read {what}: {error}", param=what) from None
    if not isinstance(data, bytes):
        raise InputError(f"{what} gives {type(data).__name__}, not bytes", param=what, hint='open it with mode "rb"')
    return data


def _made(data: bytes, name: str | None, make: type[MediaT], what: str) -> MediaT:
    import mimetypes

    if len(data) > MAX_FILE:
        raise _too_long(what)
    kind = mimetypes.guess_type(name)[0] if name else None
    return make(data, media_type=kind or media_type_of(data), name=name)


def _too_long(what: str) -> InputError:
    return InputError(f"{what} is longer than {MAX_FILE} bytes", param=what, hint="send it in parts")
