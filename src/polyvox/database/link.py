"""The one connection that writes: made, checked for still being the file it was made to, and made anew. It decides
nothing about what is written."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from polyvox.database.address import Address
from polyvox.database.connecting import reader_engine, run, writer_engine
from polyvox.database.faults import meaning
from polyvox.database.files import (
    MARK,
    beside,
    drop_orphans,
    identity,
    make_private,
    put_aside,
    refuse_stranger,
    warn_of_network,
)
from polyvox.database.migrations import migrate, pending
from polyvox.database.steps import Step

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

log: logging.Logger = logging.getLogger("polyvox.database")


class Link:
    """A connection that writes. Used by one thread at a time."""

    def __init__(
        self, address: Address, *, relaxed: bool, steps: Sequence[Step], wall: Callable[[], float] = time.time
    ) -> None:
        self.address = address
        self.steps = steps
        self.wall = wall
        self.engine: Engine = writer_engine(address, relaxed=relaxed)
        self.connection: Connection | None = None
        self._file = identity(address.path) if address.path else None
        self._beside = {} if address.path is None else beside(address.path)

    def open(self) -> Connection:
        """Connect, and bring the schema up to date. SchemaError for tables that are not ours to use; a corrupt file is
        put aside, with one warning, and another made. Raises what the driver raises."""
        for fresh in (False, True):
            try:
                return self._open()
            except Exception as error:
                self.close()
                if fresh or meaning(error) != "corrupt":
                    raise
                self.quarantine()
        raise AssertionError("unreachable")

    def _open(self) -> Connection:
        path = self.address.path
        if path is not None:
            self._file = identity(path)
            if self._file is None:
                warn_of_network(path)
            make_private(path)
            self._file = identity(path)
        reader = reader_engine(self.address)
        if pending(reader, self.steps):
            migrate(self.engine, self.steps, self.wall)
        self.connection = self.engine.connect()
        with self.connection.begin():
            run(self.connection, "SELECT 1").scalar()
        if path is not None:
            self._beside = beside(path)
        return self.connection

    def moved(self) -> bool:
        """Whether the name of the file stands for another one now, or for none."""
        path = self.address.path
        return path is not None and identity(path) != self._file

    def leave(self) -> None:
        """The file was deleted or replaced: let go of it, and of the log that it left behind."""
        path = self.address.path
        assert path is not None
        known = self._beside
        self.close()
        drop_orphans(path, known)
        log.warning("%s was deleted or replaced while in use; going on with what is there now", path)

    def quarantine(self) -> None:
        """Put a corrupt file aside, unless another process already did. StrangerError for one that never was ours."""
        path = self.address.path
        if path is None or identity(path) is None or identity(path) != self._file:
            return
        refuse_stranger(path, MARK, self._beside)
        aside = put_aside(path, "corrupt", self.wall)
        log.warning("%s was corrupt; it is %s now, and a new one takes its place", path, aside.name)

    def close(self) -> None:
        """Let go of the connection."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()
