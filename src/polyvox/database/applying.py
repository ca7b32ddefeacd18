"""Applies a batch within one transaction: units one by one, rows of a kind together; or, once something failed, all
one by one, each where it can do no harm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from polyvox.database.faults import DatabaseError, meaning, told
from polyvox.database.units import Rows, Unit
from polyvox.database.waiting import Outcome, Waiter
from polyvox.errors import PolyvoxError

if TYPE_CHECKING:
    from sqlalchemy import Connection

Item: TypeAlias = tuple[Rows | None, Any, Waiter]
"""What is written, and who waits: a unit with no kind, or a row and its kind."""

DONE: Outcome = (None, None)


def apply_all(connection: Connection, batch: Sequence[Item], *, careful: bool) -> list[Outcome]:
    """Write a batch; an outcome for each item, in order. Raises what says that the transaction is lost; unless
    careful, also what one item did wrong."""
    outcomes = [DONE] * len(batch)
    kinds: dict[int, tuple[Rows, list[Any]]] = {}
    for place, (target, payload, _) in enumerate(batch):
        if target is None:
            if payload.in_order:
                _rows(connection, kinds)
            outcomes[place] = _one(connection, payload, guarded=careful or payload.can_fail)
        elif careful:
            _row(connection, target, payload)
        else:
            kinds.setdefault(id(target), (target, []))[1].append(payload)
    _rows(connection, kinds)
    return outcomes


def _rows(connection: Connection, kinds: dict[int, tuple[Rows, list[Any]]]) -> None:
    for rows, payloads in kinds.values():
        rows.apply(connection, payloads)
    kinds.clear()


def _one(connection: Connection, unit: Unit, *, guarded: bool) -> Outcome:
    if not guarded:
        return unit.apply(connection), None
    try:
        with connection.begin_nested():
            return unit.apply(connection), None
    except Exception as error:
        if meaning(error) != "wrong":
            raise
        return None, error if isinstance(error, PolyvoxError) else _told(error)


def _row(connection: Connection, rows: Rows, payload: Any) -> None:
    try:
        with connection.begin_nested():
            rows.apply(connection, [payload])
    except Exception as error:
        if meaning(error) != "wrong":
            raise
        rows.refused([payload], _told(error))


def _told(error: BaseException) -> DatabaseError:
    failed = DatabaseError(f"it cannot be written: {told(error)}", sent="no", billed=False)
    failed.__cause__ = error
    return failed
