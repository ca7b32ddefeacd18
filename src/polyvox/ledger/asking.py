"""How questions about calls become SQL: which words there are to group and filter by, and what they stand for in either
kind of database. Values never become part of the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from polyvox.database import micros
from polyvox.errors import InputError
from polyvox.ledger.ids import floor_of
from polyvox.ledger.values import STATES

if TYPE_CHECKING:
    from sqlalchemy import Connection

COLUMNS = {
    "model": "model",
    "asked": "asked",
    "provider": "provider",
    "deployment": "deployment",
    "operation": "operation",
    "state": "state",
    "error": "error_kind",
    "user": "person",
    "project": "project",
    "session": "session",
    "tenant": "tenant",
    "key": "key_name",
}
"""The words that stand for a column."""

DAY, HOUR, QUARTER = 86_400_000_000, 3_600_000_000, 900_000_000
TIMES = ("hour", "day", "month")
WORDS = (*COLUMNS, *TIMES, "tag")
INDEXED = frozenset({"model", "provider", "deployment", "state", *TIMES})
"""What the index of ended calls knows; a question of nothing else is answered from it alone."""

_LARGEST = 2**56 - 1
_TAGS = {
    "sqlite": "LEFT JOIN json_each(calls.tags) AS tag",
    "postgresql": "LEFT JOIN LATERAL json_array_elements_text(calls.tags::json) AS tag(value) ON true",
}
_HAS_TAG = {
    "sqlite": "EXISTS (SELECT 1 FROM json_each(calls.tags) AS own WHERE own.value = ?)",
    "postgresql": "EXISTS (SELECT 1 FROM json_array_elements_text(calls.tags::json) AS own(value) WHERE own.value = ?)",
}


class Span(NamedTuple):
    """From a microsecond since the epoch up to, and without, another."""

    since: int
    until: int


def span_of(since: datetime | None, until: datetime | None) -> Span:
    """The time between two points, open where one is None."""
    return Span(micros(since) if since else 0, micros(until) if until else _LARGEST)


def words_of(by: str | Sequence[str]) -> tuple[str, ...]:
    """What to group by, checked."""
    words = (by,) if isinstance(by, str) else tuple(by)
    for word in words:
        if word not in WORDS:
            raise InputError(f"calls cannot be grouped by {word!r}", hint=f"group by {', '.join(WORDS)}")
    return words


def expression(word: str, *, exact: bool) -> str:
    """What a word is in SQL. Times are counted in days and hours of UTC, or, where that is not exact, in quarters of
    hours: no time zone is finer."""
    if word in TIMES:
        return f"started / {size_of(word, exact=exact)}"
    return "tag.value" if word == "tag" else COLUMNS[word]


def size_of(word: str, *, exact: bool) -> int:
    """The microseconds in which a time is counted; the fewer groups, the less there is to add up."""
    if not exact:
        return QUARTER
    return HOUR if word == "hour" else DAY


def tags_joined(connection: Connection) -> str:
    """Joins a row for each tag of a call, and one for a call without any."""
    return _TAGS[connection.dialect.name]


def filtered(connection: Connection, filters: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    """The conditions that filters stand for, and their values. A filter is a word and its value, or several of which
    one must hold; None is what has none."""
    conditions: list[str] = []
    values: list[Any] = []
    for word, wanted in filters.items():
        if word not in COLUMNS and word != "tag":
            raise InputError(f"calls cannot be filtered by {word!r}", hint=f"filter by {', '.join(COLUMNS)}, tag")
        choices = [wanted] if wanted is None or isinstance(wanted, str) else list(wanted)
        if not choices:
            raise InputError(f"no {word} is named to filter by")
        either: list[str] = []
        for choice in choices:
            if choice is None:
                either.append(f"{COLUMNS.get(word, 'tags')} IS NULL")
                continue
            either.append(_HAS_TAG[connection.dialect.name] if word == "tag" else f"{COLUMNS[word]} = ?")
            values.append(_state(choice) if word == "state" else str(choice))
        conditions.append(f"({' OR '.join(either)})")
    return conditions, values


def _state(name: str) -> int:
    if name not in STATES:
        raise InputError(f"{name!r} is no state of a call", hint=f"it is one of {', '.join(STATES)}")
    return STATES.index(name)


def in_span(span: Span) -> tuple[str, list[Any]]:
    """The condition for a span of time by the names of calls, in whose order the table is."""
    return "calls.id >= ? AND calls.id < ?", [floor_of(span.since), floor_of(span.until)]
