"""Reads the ledger: what was used, which calls there were, one of them with its attempts, those that come. It writes
nothing and needs no ledger of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any

from polyvox.database import Database, run
from polyvox.errors import InputError, NotFoundError
from polyvox.ledger.asking import Span, filtered, in_span, span_of, words_of
from polyvox.ledger.columns import ATTEMPT, CALL, CONTENT, attempt_of, record_of
from polyvox.ledger.ids import floor_of, time_of
from polyvox.ledger.usage import UsageRow, sum_up
from polyvox.ledger.values import CallRecord

if TYPE_CHECKING:
    from sqlalchemy import Connection

PAGE = 1000
OVERLAP = 10_000_000
"""Microseconds that `tail` looks back: the order of the names is the order in which calls began, not in which their
rows arrived."""

_SELECT = f"SELECT {', '.join(CALL)} FROM calls"  # noqa: S608 - columns of ours
_ATTEMPTS = f"SELECT {', '.join(ATTEMPT)} FROM attempts WHERE call = ? ORDER BY number"  # noqa: S608
_CONTENT = f"SELECT {', '.join(CONTENT)} FROM contents WHERE call = ?"  # noqa: S608
# "like" of SQLite knows no case, that of PostgreSQL does.
_SEARCHED = ("model", "asked", "deployment", "person", "project", "session", "tags", "request_id", "error_message")


class History:
    """What a ledger's database has to tell. Every method also works while others write; each reads in the thread that
    calls it, so that an event loop asks through `Database.read` or `asyncio.to_thread`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def usage(
        self,
        by: str | Sequence[str] = (),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        filters: Mapping[str, Any] | None = None,
        zone: tzinfo = UTC,
    ) -> list[UsageRow]:
        """What was used from since up to until, by one or more of: model, asked, provider, deployment, operation,
        state, error, user, project, session, tenant, key, tag, hour, day, month (in zone). Without any, one row of all.

        filters has a word and the value it must have, or several of which one; None is for what has none. A call with
        several tags counts under each. InputError for a word that is none of these.
        """
        words, span = words_of(by), span_of(since, until)
        return self.database.read_sync(lambda connection: sum_up(connection, words, span, filters or {}, zone))

    def find(
        self,
        text: str | None = None,
        *,
        filters: Mapping[str, Any] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[CallRecord]:
        """Calls, the latest first: those that have a text somewhere, in what is kept of them. The next page is after
        the id of the last one. Attempts and texts are not in them; see `get`."""
        span = span_of(since, until)
        if after is not None:
            _bytes_of(after)

        def ask(connection: Connection) -> list[CallRecord]:
            return _found(connection, text, filters or {}, span, max(1, limit), after)

        return self.database.read_sync(ask)

    def get(self, id: str) -> CallRecord:
        """One call by its id, or the beginning of one that no other call shares; with its attempts, and what was said
        where that is kept. NotFoundError where there is none, InputError where there are several."""
        low, high = _range_of(id)

        def ask(connection: Connection) -> CallRecord:
            rows = run(connection, f"{_SELECT} WHERE id >= ? AND id <= ? LIMIT 2", (low, high)).mappings().all()
            if not rows:
                raise NotFoundError(f"there is no call {id}", hint="list calls with: polyvox logs", sent="no")
            if len(rows) > 1:
                raise InputError(f"several calls begin with {id}", hint="give more of the id")
            call = rows[0]["id"]
            attempts = run(connection, _ATTEMPTS, (call,)).mappings()
            found = run(connection, _CONTENT, (call,)).mappings().first()
            said: dict[str, Any] = dict(found) if found is not None else {}
            return record_of(
                dict(rows[0]),
                attempts=tuple(attempt_of(dict(row)) for row in attempts),
                prompt=said.get("prompt"),
                answer=said.get("answer"),
                cut=bool(said.get("cut")),
            )

        return self.database.read_sync(ask)

    def tail(self, after: str | None = None) -> Tail:
        """Calls as they begin and end, from one call on, or from now."""
        return Tail(self, after)

    def export(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> Iterator[CallRecord]:
        """All calls in the order in which they began, however many; read a page at a time."""
        span, start = span_of(since, until), b""

        def ask(connection: Connection) -> list[Any]:
            conditions, values = filtered(connection, filters or {})
            where, limits = in_span(span)
            text = f"{_SELECT} WHERE {' AND '.join([where, 'id > ?', *conditions])} ORDER BY id LIMIT {PAGE}"
            return [dict(row) for row in run(connection, text, [*limits, start, *values]).mappings()]

        while rows := self.database.read_sync(ask):
            yield from map(record_of, rows)
            start = bytes(rows[-1]["id"])

    def day_of_oldest(self) -> datetime | None:
        """When the oldest call began; None without calls."""
        found = self.database.read_sync(
            lambda connection: run(connection, "SELECT id FROM calls ORDER BY id LIMIT 1").scalar()
        )
        return None if found is None else datetime.fromtimestamp(time_of(bytes(found)) / 1_000_000, UTC)


class Tail:
    """Follows a ledger; see `History.tail`."""

    def __init__(self, history: History, after: str | None) -> None:
        self._database = history.database
        self._after = _bytes_of(after) if after is not None else None
        self._seen: dict[bytes, int] = {}
        self._latest = 0
        if self._after is not None:
            self._latest = time_of(self._after)
        else:
            self._latest = int(history.database.wall() * 1_000_000)
            self._after = floor_of(self._latest)

    def new(self) -> list[CallRecord]:
        """Calls that began or ended since the last time, in the order in which they began. One that is open comes
        again when it has ended."""
        start = max(self._after or b"", floor_of(self._latest - OVERLAP))
        waiting = [call for call, state in self._seen.items() if state == 0 and call < start]

        def ask(connection: Connection) -> list[Any]:
            rows = run(connection, f"{_SELECT} WHERE id > ? ORDER BY id", (start,)).mappings().all()
            for call in waiting:
                rows = [*run(connection, f"{_SELECT} WHERE id = ?", (call,)).mappings(), *rows]
            return [dict(row) for row in rows]

        rows = [row for row in self._database.read_sync(ask) if self._seen.get(bytes(row["id"])) != row["state"]]
        for row in rows:
            call = bytes(row["id"])
            self._seen[call] = row["state"]
            self._latest = max(self._latest, time_of(call))
        edge = floor_of(self._latest - 2 * OVERLAP)
        self._seen = {call: state for call, state in self._seen.items() if state == 0 or call >= edge}
        return [record_of(row) for row in sorted(rows, key=lambda row: bytes(row["id"]))]


def _found(
    connection: Connection, text: str | None, filters: Mapping[str, Any], span: Span, limit: int, after: str | None
) -> list[CallRecord]:
    conditions, values = filtered(connection, filters)
    where, limits = in_span(span)
    if after is not None:
        where, limits = f"{where} AND id < ?", [*limits, bytes.fromhex(after)]
    if text:
        word = "LIKE" if connection.dialect.name == "sqlite" else "ILIKE"
        pattern = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("\0", "") + "%"
        either = [f"{column} {word} ? ESCAPE '\\'" for column in _SEARCHED]
        either.append(
            "id IN (SELECT call FROM contents WHERE call >= ? AND call < ? AND "  # noqa: S608 - words of ours
            f"(prompt {word} ? ESCAPE '\\' OR answer {word} ? ESCAPE '\\'))"
        )
        conditions.append(f"({' OR '.join(either)})")
        bounds = [floor_of(span.since), floor_of(span.until)]
        values += [*[pattern] * len(_SEARCHED), *bounds, pattern, pattern]
    query = f"{_SELECT} WHERE {' AND '.join([where, *conditions])} ORDER BY id DESC LIMIT {limit:d}"
    return [record_of(dict(row)) for row in run(connection, query, [*limits, *values]).mappings()]


def _bytes_of(id: str) -> bytes:
    low, high = _range_of(id)
    if low != high:
        raise InputError(f"{id!r} is not a whole id of a call", hint="it has 32 hexadecimal digits")
    return low


def _range_of(id: str) -> tuple[bytes, bytes]:
    text = id.strip().lower()
    if not text or len(text) > 32 or not all(digit in "0123456789abcdef" for digit in text):
        raise InputError(f"{id!r} is no id of a call", hint="it has 32 hexadecimal digits; the first few may be enough")
    return bytes.fromhex(text.ljust(32, "0")), bytes.fromhex(text.ljust(32, "f"))
