"""What can be handed to the writer: a unit that is applied by itself, or rows of one kind that go out together.
Shapes; they write nothing of their own accord."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from polyvox.database.faults import DatabaseError

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Unit:
    """One thing to write. It may be applied more than once, each time to a database in which its earlier application
    was rolled back.

    can_fail says that `apply` may raise in the course of things: it then gets a savepoint, so that whatever goes into
    the same transaction is not done twice. in_order says that rows handed over before it must be written before it;
    other units may overtake rows.
    """

    can_fail = False
    in_order = False

    def apply(self, connection: Connection) -> Any:
        """Write, and give what the caller gets; what it raises is raised for the caller."""
        raise NotImplementedError

    def committed(self, result: Any) -> None:
        """It is in the database now. Called in the writer's thread, before the caller knows."""

    def refused(self, error: DatabaseError) -> Any:
        """The database is away. Called in the writer's thread: what this gives is the caller's result, what it raises
        the caller's error."""
        raise error

    def undo(self, result: Any) -> Unit | None:
        """What to write because the caller was cancelled while it waited for this result, if anything."""
        return None


class Together(Unit):
    """Units that are written all or none, in this order. The result is the list of their results."""

    def __init__(self, *units: Unit) -> None:
        self.units = units
        self.can_fail: bool = any(unit.can_fail for unit in units)
        self.in_order: bool = any(unit.in_order for unit in units)

    def apply(self, connection: Connection) -> list[Any]:
        """Apply each."""
        return [unit.apply(connection) for unit in self.units]

    def committed(self, result: list[Any]) -> None:
        """Tell each."""
        for unit, its in zip(self.units, result, strict=True):
            unit.committed(its)

    def refused(self, error: DatabaseError) -> list[Any]:
        """Ask each; where one raises, nothing of the rest is done."""
        return [unit.refused(error) for unit in self.units]

    def undo(self, result: list[Any]) -> Unit | None:
        """What each needs to be undone, last first."""
        undoing = [unit.undo(its) for unit, its in zip(reversed(self.units), reversed(result), strict=True)]
        needed = [unit for unit in undoing if unit is not None]
        return Together(*needed) if needed else None


class Rows(Protocol):
    """A kind of row that is written many at a time, and may be written twice without harm. Rows have no results."""

    def prepare(self, said: Any) -> Any:
        """Make a row of what was handed over: the work that needs no database. Called once, in the writer's thread,
        before a transaction begins."""

    def apply(self, connection: Connection, rows: Sequence[Any]) -> None:
        """Write them all, or raise."""

    def refused(self, rows: Sequence[Any], error: DatabaseError) -> None:
        """The database is away, or will not have them: keep them elsewhere. Called in the writer's thread."""
