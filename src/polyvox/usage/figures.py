"""The figures of usage, once: whoever shows them, as JSON, CSV, table, page or metric, gets them from here, so that
all show the same. It draws nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from msgspec import Struct

from polyvox.database import run
from polyvox.ledger import History, UsageRow
from polyvox.ledger.asking import filtered, span_of, words_of
from polyvox.ledger.usage import sum_up

if TYPE_CHECKING:
    from sqlalchemy import Connection

T = TypeVar("T")


class Question(Struct, frozen=True, kw_only=True):
    """What is asked of a ledger: by which words, from when up to when, of which calls, and in which zone days begin.
    See `History.usage`."""

    by: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    filters: Mapping[str, Any] = {}
    zone: tzinfo = UTC


class Figures(Struct, frozen=True, kw_only=True):
    """The answer: a row for each key, and one for all of them together. The total is asked for by itself: a call with
    two tags counts once in it."""

    question: Question
    rows: tuple[UsageRow, ...]
    total: UsageRow


Ask: TypeAlias = Callable[[Question], Figures]


def read(history: History, work: Callable[[Ask], T]) -> T:
    """What a function makes of any number of answers, all of them of one moment: calls that end meanwhile are in all
    or in none. Raises InputError for words that are none, DatabaseError where the ledger cannot be read."""

    def answered(connection: Connection) -> T:
        if connection.dialect.name == "postgresql":
            # Else every statement would see the rows of its own moment.
            run(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        totals: dict[str, UsageRow] = {}  # several questions about the same calls have one total
        return work(lambda question: _answer(connection, question, totals))

    return history.database.read_sync(answered)


def figures(history: History, question: Question) -> Figures:
    """The answer to one question; see `read`."""
    return read(history, lambda ask: ask(question))


def _answer(connection: Connection, question: Question, totals: dict[str, UsageRow]) -> Figures:
    words, span = words_of(question.by), span_of(question.since, question.until)
    filtered(connection, question.filters)  # a wrong word is said before anything is read
    calls = repr((span, sorted(question.filters.items())))
    if calls not in totals:
        whole = sum_up(connection, (), span, question.filters, question.zone)
        totals[calls] = whole[0] if whole else UsageRow(key={})
    total = totals[calls]
    if words:
        rows = tuple(sum_up(connection, words, span, question.filters, question.zone))
    else:
        rows = (total,) if total.calls else ()
    return Figures(question=question, rows=rows, total=total)


# ---- for programs -----------------------------------------------------------------------------

FIELDS = (
    "calls", "ok", "errors", "cancelled", "interrupted", "open", "error_share", "cost", "unknown_cost", "input",
    "cache_read", "cache_write", "output", "reasoning", "estimated", "missing", "cached_share", "own_cache", "saved",
    "p50", "p95", "tokens_per_second",
)  # fmt: skip
"""The numbers of a row, in this order; see `UsageRow` for what they are and their units."""


def facts(row: UsageRow) -> dict[str, Any]:
    """The numbers of a row as JSON has them: money as text, so that none of it is rounded; None for what is unknown.

    >>> facts(UsageRow(key={}, calls=2, ok=2, cost=Decimal("0.00125"), unknown_cost=1))["cost"]
    '0.00125'
    """
    return {name: _plain(getattr(row, name)) for name in FIELDS}


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return round(value, 6) if isinstance(value, float) else value


def as_json(found: Figures) -> dict[str, Any]:
    """The whole answer as JSON has it. Times are ISO 8601; None is no limit."""
    question = found.question
    return {
        "by": list(question.by),
        "since": _said(question.since, question.zone),
        "until": _said(question.until, question.zone),
        "zone": str(question.zone),
        "filters": {
            word: wanted if wanted is None or isinstance(wanted, str) else list(wanted)
            for word, wanted in question.filters.items()
        },
        "currency": "USD",
        "rows": [{**row.key, **facts(row)} for row in found.rows],
        "total": facts(found.total),
    }


def _said(at: datetime | None, zone: tzinfo) -> str | None:
    return None if at is None else at.astimezone(zone).isoformat()


def as_csv(found: Figures) -> str:
    """The rows as CSV with a header; an empty cell is what is unknown, or a key that calls do not have.
    A word that a spreadsheet would take for a formula has an apostrophe before it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    words = found.question.by
    writer.writerow([*words, *FIELDS])
    for row in found.rows:
        writer.writerow([*(_cell(row.key[word]) for word in words), *facts(row).values()])
    return text.getvalue()


def _cell(word: str | None) -> str | None:
    return f"'{word}" if word and word.startswith(("=", "+", "-", "@", "\t", "\r")) else word
