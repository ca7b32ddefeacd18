"""Two helpers of the writer with threads of their own: one cuts a server off that does not answer in time, the other
looks for a database that is away until it is back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from polyvox.database.connecting import cut
from polyvox.database.faults import SchemaError, meaning, told
from polyvox.database.link import Link

if TYPE_CHECKING:
    from sqlalchemy import Connection

log: logging.Logger = logging.getLogger("polyvox.database")

FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
_POLL = 0.1
_IDLE_POLLS = 50


class Watch:
    """Cuts a connection off that has been at one batch for longer than `limit` seconds."""

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.clock = clock
        self._lock = threading.Lock()
        self._busy: tuple[float, Connection] | None = None
        self._awake = threading.Event()
        self._over = False
        self._thread: threading.Thread | None = None

    def begin(self, connection: Connection) -> None:
        """A batch begins."""
        self._busy = (self.clock(), connection)
        if not self._awake.is_set():
            self._awake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="polyvox-database-watch", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """The batch is over. From here on the connection is not touched."""
        with self._lock:
            self._busy = None

    def close(self) -> None:
        """End the thread."""
        self._over = True
        self._awake.set()
        if self._thread is not None:
            self._thread.join(2)

    def _run(self) -> None:
        idle = 0
        while not self._over:
            self._awake.wait()
            time.sleep(_POLL)
            with self._lock:
                busy = self._busy
                if busy is not None and self.clock() - busy[0] > self.limit:
                    self._busy = None
                    cut(busy[1])
            idle = 0 if busy is not None else idle + 1
            if idle > _IDLE_POLLS and not self._over:
                idle = 0
                self._awake.clear()


class Return:
    """Tries to open a link again and again, with growing and jittered pauses; hands it over once that worked."""

    def __init__(
        self,
        make: Callable[[], Link],
        found: Callable[[Link], None],
        failed: Callable[[str], None],
        chance: Callable[[], float],
        tries: int,
    ) -> None:
        self._make, self._found, self._failed, self._chance = make, found, failed, chance
        self._tries = tries
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="polyvox-database-return", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join(5)

    def _run(self) -> None:
        tries = self._tries
        while not self._over.wait(pause(tries, self._chance())):
            tries += 1
            link = None
            try:
                link = self._make()
                link.open()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told and tried again
                self._failed(told(error))
                if link is not None:
                    link.close()
                if not isinstance(error, SchemaError) and meaning(error) == "wrong":
                    log.warning("the database cannot be opened: %s", told(error))
                continue
            if self._over.is_set():
                link.close()
            else:
                self._found(link)
            return


def pause(tries: int, chance: float) -> float:
    """Seconds before the next try: doubling, capped, and anything from half of it up."""
    whole: float = min(FIRST_WAIT * 2 ** min(tries, 16), LONGEST_WAIT)
    return whole * (0.5 + chance / 2)
