"""Which processes write into a ledger, which of them are dead, and what becomes of the calls and the rows that the dead
left behind. A live process holds a lock on a file, and one in a PostgreSQL server, so that other computers see it."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from polyvox.database import DatabaseError, Unit, run
from polyvox.database.files import make_folder
from polyvox.ledger.locking import FileLock, try_lock

if TYPE_CHECKING:
    from sqlalchemy import Connection

LOCK, SPOOL = ".lock", ".jsonl"


class Instance:
    """One process at one ledger: a number by chance, and the lock that says it lives."""

    def __init__(self, folder: Path | None, random_bytes: Callable[[int], bytes], now: int) -> None:
        self.folder: Path | None = folder
        self.started: int = now
        self.number: int = int.from_bytes(random_bytes(8), "big") >> 1
        self.lock: FileLock | None = None

    def hold(self) -> None:
        """Take the lock, if that was not done yet. OSError where no file can be made."""
        if self.lock is None and self.folder is not None:
            make_folder(self.folder)
            self.lock = try_lock(self.folder / f"{self.number:016x}{LOCK}", create=True)

    def after_fork(self) -> None:
        """In a child: the lock is the parent's."""
        if self.lock is not None:
            self.lock.close()
        self.lock = None


def is_server(connection: Connection) -> bool:
    """Whether this is a PostgreSQL server, which has locks of its own."""
    return bool(connection.dialect.name == "postgresql")


class Register(Unit):
    """Makes a process known to others, at its start and whenever the database is back."""

    def __init__(self, instance: Instance, *, again: bool) -> None:
        self.instance: Instance = instance
        self.again: bool = again

    def apply(self, connection: Connection) -> None:
        """Write it down, and take the server's lock."""
        with contextlib.suppress(OSError):
            self.instance.hold()
        number = self.instance.number
        if is_server(connection):
            run(connection, "SELECT pg_try_advisory_lock(?)", (number,))
        run(
            connection,
            "INSERT INTO instances (id, started, host, pid, version) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET ended = NULL",
            (number, self.instance.started, _host(), os.getpid(), _version()),
        )
        if self.again:
            # Without the server's lock we were dead to others for a while; what they marked still runs.
            run(connection, "UPDATE calls SET state = 0 WHERE instance = ? AND state = 4", (number,))

    def refused(self, error: DatabaseError) -> None:
        """It is done again when the database is back; the file's lock is held all the same."""
        with contextlib.suppress(OSError):
            self.instance.hold()


class Claim:
    """A dead process whose rest this process takes over. lock is None where it left no file here."""

    def __init__(self, number: int, lock: FileLock | None, folder: Path | None) -> None:
        self.number: int = number
        self.lock: FileLock | None = lock
        self.spool: Path | None = None if folder is None else folder / f"{number:016x}{SPOOL}"


class FindDead(Unit):
    """Finds processes that are dead and not yet dealt with, and claims them; gives the claims."""

    def __init__(self, instance: Instance, found: Callable[[list[Claim]], None]) -> None:
        self.instance: Instance = instance
        self.found: Callable[[list[Claim]], None] = found
        self.claims: list[Claim] = []

    def apply(self, connection: Connection) -> list[Claim]:
        """Look at every process that did not say it ended, or left something open."""
        self._release()
        rows = run(
            connection,
            "SELECT id FROM instances WHERE ended IS NULL UNION SELECT instance FROM calls WHERE state = 0",
        )
        numbers = {int(row[0]) for row in rows} | set(_left_behind(self.instance.folder))
        for number in sorted(numbers - {self.instance.number}):
            claim = self._claim(connection, number)
            if claim is not None:
                self.claims.append(claim)
        return self.claims

    def _claim(self, connection: Connection, number: int) -> Claim | None:
        folder = self.instance.folder
        if folder is not None:
            try:
                lock = try_lock(folder / f"{number:016x}{LOCK}")
            except FileNotFoundError:
                pass
            except OSError:
                return None
            else:
                return None if lock is None else Claim(number, lock, folder)
        if is_server(connection) and not run(connection, "SELECT pg_try_advisory_xact_lock(?)", (number,)).scalar():
            return None
        return Claim(number, None, folder)

    def _release(self) -> None:
        for claim in self.claims:
            if claim.lock is not None:
                claim.lock.close()
        self.claims = []

    def committed(self, result: list[Claim]) -> None:
        """Deal with them."""
        self.found(result)

    def refused(self, error: DatabaseError) -> list[Claim]:
        """They are looked for again when the database is back."""
        self._release()
        return []


class Bury(Unit):
    """Marks what a dead process left open as interrupted; gives how many calls those were."""

    in_order = True

    def __init__(self, claim: Claim, now: int, marked: Callable[[int], None], left: Callable[[Claim], None]) -> None:
        self.claim: Claim = claim
        self.now: int = now
        self.marked: Callable[[int], None] = marked
        self.left: Callable[[Claim], None] = left

    def apply(self, connection: Connection) -> int:
        """Mark them; of several processes that do so at once one finds them open."""
        open_calls = run(
            connection, "UPDATE calls SET state = 4 WHERE instance = ? AND state = 0", (self.claim.number,)
        ).rowcount
        run(connection, "UPDATE instances SET ended = ? WHERE id = ?", (self.now, self.claim.number))
        return int(open_calls)

    def committed(self, result: int) -> None:
        """Its files have done their duty."""
        if self.claim.spool is not None:
            with contextlib.suppress(OSError):
                self.claim.spool.unlink()
        if self.claim.lock is not None:
            self.claim.lock.remove()
        self.marked(result)

    def refused(self, error: DatabaseError) -> int:
        """Somebody does it when the database is back."""
        self.left(self.claim)
        return 0


def _left_behind(folder: Path | None) -> list[int]:
    """The processes of which there are files."""
    if folder is None:
        return []
    numbers = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.suffix in (LOCK, SPOOL):
                with contextlib.suppress(ValueError):
                    numbers.append(int(path.stem, 16))
    return [number for number in numbers if 0 <= number < 2**63]


def _host() -> str:
    with contextlib.suppress(OSError):
        return socket.gethostname()[:100]
    return platform.node()[:100]


def _version() -> str:
    with contextlib.suppress(Exception):
        return metadata.version("polyvox")
    return "unknown"
