"""The care of a SQLite file: made private, known by its inode, told from files that are none of ours, put aside when it
is corrupt. It reads nothing in it but its head."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from polyvox.database.faults import SchemaError
from polyvox.errors import ConfigError, InputError

log: logging.Logger = logging.getLogger("polyvox.database")

BESIDE = ("-wal", "-shm")
MARK = 0x50565844
"""What `PRAGMA application_id` says of a database with our schema: "PVXD"."""
SUFFIXES = frozenset({".db", ".db3", ".sqlite", ".sqlite3"})
_MAGIC = b"SQLite format 3\0"
_FRACTIONS = b"\x40\x20\x20"
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "ncpfs"})
"""File systems on which locks and shared memory of SQLite cannot be relied on, https://www.sqlite.org/wal.html."""


class StrangerError(SchemaError, InputError):
    """The file is no database, and nothing shows that it ever was one of ours: it is left as it is."""

    advice = "name another file; one that is to take its place must be moved away first"


class Identity(NamedTuple):
    """Which file a name stands for."""

    device: int
    inode: int


def identity(path: Path) -> Identity | None:
    """What the name stands for now; None where there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Identity(found.st_dev, found.st_ino)


def make_private(path: Path) -> None:
    """Make folder and file where they are missing, for their owner alone; what is there keeps its rights.

    ConfigError where the name can be no file; OSError where it cannot be made.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, not a database", hint="name a file in it")
    if len(_head(path)) == 1:  # SQLite takes it for an empty file, and would write over it
        refuse_stranger(path, MARK)
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def make_folder(path: Path) -> None:
    """Make a folder and those above it where they are missing, for their owner alone."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)


def refuse_stranger(path: Path, mark: int, known: Mapping[str, Identity | None] | None = None) -> None:
    """StrangerError for a damaged file that is not known to have been ours, and so must not be renamed.

    It was ours where its head has our mark; where the head tells nothing, what SQLite keeps beside it or kept
    while we used it (known) shows it, or a name such as only databases have.
    """
    found = _mark_of(path)
    if found == mark:
        return
    logged = any(beside(path).values()) or any((known or {}).values())
    # A sound head without a mark is ours only as long as the mark is in the log.
    if not found and (logged or (found is None and path.suffix.lower() in SUFFIXES)):
        return
    raise StrangerError(f"{path} is not a database of polyvox's")


def is_no_database(path: Path) -> bool:
    """Whether there is a file with something in it that does not begin as those of SQLite do."""
    head = _head(path)
    return bool(head) and not head.startswith(_MAGIC)


def _mark_of(path: Path) -> int | None:
    """The application id in the head of a file; None where it has no head of SQLite's,
    https://www.sqlite.org/fileformat.html#the_database_header."""
    head = _head(path)
    if len(head) < 100 or not head.startswith(_MAGIC) or head[21:24] != _FRACTIONS:
        return None
    return int.from_bytes(head[68:72], "big")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(100)
    except OSError:
        return b""


def put_aside(path: Path, word: str, wall: Callable[[], float] = time.time) -> Path:
    """Rename a file, and what SQLite keeps beside it, to a name that says why and when; the new name.

    What was renamed by another process meanwhile is left alone.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall()))
    aside = path.with_name(f"{path.name}.{word}-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.{word}-{stamp}-{number}")
    for tail in (*BESIDE, ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + tail).rename(aside.with_name(aside.name + tail))
    return aside


def drop_orphans(path: Path, known: dict[str, Identity | None]) -> None:
    """Put aside the log of a file that is gone: SQLite would replay it into the file that took its name. Only what was
    ours is touched; the log of the new file, made by another process, has another inode."""
    for tail in BESIDE:
        beside = path.with_name(path.name + tail)
        was = known.get(tail)
        if was is not None and identity(beside) == was:
            with contextlib.suppress(OSError):
                beside.rename(beside.with_name(f"{beside.name}.orphan-{time.time_ns()}"))


def beside(path: Path) -> dict[str, Identity | None]:
    """Which files SQLite keeps beside the database now."""
    return {tail: identity(path.with_name(path.name + tail)) for tail in BESIDE}


def network_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """The kind of network file system a path is on; None for local ones, and where that cannot be told."""
    try:
        rows = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    best, kind = "", ""
    place = os.path.realpath(path)
    for row in rows:
        fields = row.split(" ")
        if len(fields) < 3:
            continue
        mount = fields[1].replace("\\040", " ")
        if (place == mount or place.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind if kind in NETWORK else None


def warn_of_network(path: Path) -> None:
    """One warning for a database where another computer may lock it badly."""
    kind = network_system(path.parent)
    if kind is not None:
        log.warning("%s is on a network file system (%s): use it from one computer only, or PostgreSQL", path, kind)
