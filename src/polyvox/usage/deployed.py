"""How deployments did of late, as a ledger tells it: attempts, failures, speed, and whether a process that had made all
of them would leave one alone now. Attempts count where they were made, also when another deployment answered in the
end."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from polyvox.database import run
from polyvox.ledger import History
from polyvox.ledger.ids import floor_of, time_of
from polyvox.limits.breaker import Breaker, State

if TYPE_CHECKING:
    from sqlalchemy import Connection

MOST = 5000
"""Attempts that are looked at, the latest; with more, what is told is of these."""

_SELECT = (
    "SELECT call, deployment, outcome, duration, waited FROM attempts WHERE call >= ? "
    "ORDER BY call DESC, number DESC LIMIT ?"
)


class Deployed(Struct, frozen=True):
    """How one deployment did: its attempts and those that failed, the median seconds of the others, the kind of the
    latest failure, and how its breaker would stand."""

    calls: int
    errors: int
    p50: float | None
    last_error: str | None
    breaker: State


def deployed(history: History, seconds: float = 3600.0) -> dict[str, Deployed]:
    """Each deployment that was asked within the last so many seconds, by the name that its attempts have. Raises
    DatabaseError where the ledger cannot be read."""
    now = history.database.wall()

    def ask(connection: Connection) -> list[Any]:
        rows = run(connection, _SELECT, (floor_of(int((now - seconds) * 1_000_000)), MOST)).mappings()
        return [dict(row) for row in rows]

    found: dict[str, list[tuple[float, Any]]] = {}
    at: dict[bytes, float] = {}
    for row in reversed(history.database.read_sync(ask)):
        call = bytes(row["call"])
        # An attempt ends after those before it in its call.
        ended = at.get(call, time_of(call) / 1_000_000) + ((row["waited"] or 0) + (row["duration"] or 0)) / 1_000_000
        at[call] = ended
        found.setdefault(row["deployment"], []).append((ended, row))
    return {name: _told(sorted(rows, key=lambda each: each[0]), now) for name, rows in found.items()}


def _told(rows: list[tuple[float, Any]], now: float) -> Deployed:
    breaker = Breaker()
    errors = [row["outcome"] for _, row in rows if row["outcome"] not in ("ok", "cancelled")]
    for ended, row in rows:
        breaker.ended(breaker.begin(ended), None if row["outcome"] == "ok" else row["outcome"], ended)
    times = [row["duration"] / 1_000_000 for _, row in rows if row["outcome"] == "ok" and row["duration"] is not None]
    p50 = round(median(times), 6) if times else None
    return Deployed(len(rows), len(errors), p50, errors[-1] if errors else None, breaker.state(now))
