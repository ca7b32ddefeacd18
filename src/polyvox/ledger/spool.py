"""A file that takes rows while the database is away: lines of JSON, each with its checksum, only ever appended until
all of them are in the database. A torn last line is what a crash leaves, and is no row."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from polyvox.database.files import make_folder
from polyvox.ledger.columns import ATTEMPT, BEGUN, BYTES, CALL, CONTENT, Written

VERSION = 1


class SpoolFullError(OSError):
    """The file has reached its bound."""


class Page(NamedTuple):
    """Some of the rows, where the rest of the file begins, and how many lines in between are damaged."""

    rows: list[Written]
    end: int
    damaged: int


class Spool:
    """One process's file; used by one thread. most is its bound in bytes; sync says whether a row must survive a
    power cut."""

    def __init__(self, path: Path, *, most: int, sync: bool) -> None:
        self.path: Path = path
        self.most: int = most
        self.sync: bool = sync
        self.rows: int = 0
        self._size = 0
        self._torn = False
        with contextlib.suppress(OSError):
            self._size = path.stat().st_size
            self._torn = self._size > 0

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return self._size == 0

    def append(self, rows: Sequence[Written]) -> int:
        """Write rows down, the first of them up to the bound; how many. OSError where that cannot be done, and then
        none of them is in the file."""
        # A line that a crash tore must not swallow the next one.
        data, fitting = bytearray(b"\n" if self._torn else b""), 0
        for row in rows:
            line = _line(row)
            if self._size + len(data) + len(line) > self.most:
                break
            data += line
            fitting += 1
        if not fitting:
            raise SpoolFullError(f"{self.path.name} has reached its bound of {self.most} bytes")
        make_folder(self.path.parent)
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            _write_all(handle, data)
            if self.sync:
                os.fsync(handle)
        except BaseException:
            self._torn = True
            with contextlib.suppress(OSError):
                os.ftruncate(handle, self._size)
                self._torn = False
            with contextlib.suppress(OSError):
                self._size = os.fstat(handle).st_size
            raise
        finally:
            os.close(handle)
        self._size += len(data)
        self._torn = False
        self.rows += fitting
        return fitting

    def page(self, start: int, most: int) -> Page:
        """Up to so many rows from an offset on. The page that ends where it starts is the last."""
        rows: list[Written] = []
        damaged = 0
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return Page([], start, 0)
        with file:
            file.seek(start)
            end = start
            for line in file:
                if not line.endswith(b"\n"):
                    end += len(line)
                    break
                end += len(line)
                row = _row(line)
                if row is not None:
                    rows.append(row)
                elif line.strip():
                    damaged += 1
                if len(rows) >= most:
                    break
        return Page(rows, end, damaged)

    def clear(self, end: int) -> bool:
        """Empty the file if nothing came behind this offset; whether it is empty now."""
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_size > end:
                return False
            os.truncate(self.path, 0)
        self._size, self._torn, self.rows = 0, False, 0
        return True

    def remove(self) -> None:
        """Take the file away."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self._size, self.rows = 0, 0


def _write_all(handle: int, data: bytearray) -> None:
    with memoryview(data) as whole:
        done = 0
        while done < len(data):
            done += os.write(handle, whole[done:])


def _line(row: Written) -> bytes:
    said: dict[str, Any] = {"v": VERSION, "ended": row.ended, "call": _named(CALL if row.ended else BEGUN, row.call)}
    if row.attempts:
        said["attempts"] = [_named(ATTEMPT, attempt) for attempt in row.attempts]
    if row.content is not None:
        said["content"] = _named(CONTENT, row.content)
    text = msgspec.json.encode(said)
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _named(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _row(line: bytes) -> Written | None:
    """What a line says; None for one that is damaged, or of another version."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        said = msgspec.json.decode(text)
        if said["v"] != VERSION:
            return None
        ended = said["ended"]
        content = said.get("content")
        return Written(
            _values(CALL if ended else BEGUN, said["call"]),
            tuple(_values(ATTEMPT, attempt) for attempt in said.get("attempts", ())),
            None if content is None else _values(CONTENT, content),
            ended,
        )
    except (ValueError, KeyError, TypeError, msgspec.DecodeError, binascii.Error):
        return None


def _values(names: Sequence[str], said: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(base64.b64decode(said[name]) if name in BYTES and name in said else said.get(name) for name in names)
