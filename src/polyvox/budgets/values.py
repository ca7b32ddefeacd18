"""What budgets and their stores say to each other, and what callers get. Shapes; they count nothing. Money is whole
pico-dollars between budgets and stores, Decimal USD for callers; times are whole microseconds since the epoch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from polyvox.budgets.faults import BudgetsAwayError

Scope: TypeAlias = tuple[tuple[str, str | None], ...]

LEASE = 3600.0
"""Seconds after which a reservation that nobody settled counts as left behind: longer than calls last."""
KEPT = 7 * 86_400_000_000
"""How long what was left behind may still be settled, in microseconds."""
REMEMBERED = 600_000_000
"""How long a settled reservation is known as such, in microseconds, so that saying it again changes nothing."""

Lapse = Literal["count", "release"]
"""What becomes of a reservation that was left behind: its maximum counts, or it is given back."""


class Claim(Struct, frozen=True, gc=False):
    """One account that a call must fit into. account and family are names: a family is all accounts of a budget in
    one window. ceiling is what spent and reserved may come to; span is a rolling window's length, start and until are
    a calendar window's bounds. place is that of the budget."""

    account: str
    family: str
    ceiling: int
    hard: bool
    span: int | None
    start: int | None
    until: int | None
    place: int


class Order(Struct, frozen=True, gc=False):
    """What an attempt may cost at most, and the accounts it must fit into. need is the room there must be: more than
    none even where amount is not known."""

    id: str
    amount: int
    known: bool
    need: int
    claims: tuple[Claim, ...]


class Standing(Struct, frozen=True, gc=False):
    """What an account holds: spent (of which estimated is not known for sure), reserved, and how many calls there
    were whose cost nobody knows."""

    account: str
    spent: int = 0
    reserved: int = 0
    estimated: int = 0
    unpriced: int = 0


class Change(Struct, frozen=True, gc=False):
    """What an account had spent before and after a step."""

    claim: Claim
    before: int
    after: int


class Answer(Struct, frozen=True, gc=False):
    """What a store answers to an order. Refused: by which claim, how its account stands, and after how many
    microseconds there may be room. away: the store could not be asked, and no hard budget minds."""

    changes: tuple[Change, ...] = ()
    refused: Claim | None = None
    standing: Standing | None = None
    wait: int | None = None
    away: BudgetsAwayError | None = None


GRANTED = Answer()


class Settled(Struct, frozen=True, gc=False):
    """What a store answers to a settlement: whether there was something to settle."""

    done: bool
    changes: tuple[Change, ...] = ()


NOTHING = Settled(False)


class Store(Protocol):
    """Where accounts are kept. Each method is one atomic step; all may be called from any thread and event loop. What
    cannot be reached raises `BudgetsAwayError`."""

    async def reserve(self, order: Order) -> Answer:
        """Take the amount in all accounts or in none, but for those that know the attempt already."""

    async def settle(self, order: Order, actual: int | None) -> Settled:
        """Put what was spent in the place of what was reserved; None lets the reserved amount count, as estimated."""

    async def refund(self, order: Order) -> Settled:
        """Give back what was reserved."""

    async def standings(self, claims: Sequence[Claim], most: int) -> list[Standing]:
        """How the accounts stand that are in the families of these claims, up to so many of each."""

    def there(self) -> bool:
        """Whether it could be reached when last seen. It never waits: where that is long ago, it looks in the
        background."""

    async def close(self) -> None:
        """Let go of what the store opened itself."""


class Reservation(Struct, frozen=True):
    """Money taken for one attempt; hand it back to `settle` or `refund`. at_most is USD, None for unknown. counted is
    False where the store was away and only soft budgets apply: its cost is counted once the store is back; perhaps
    says that the store may hold it all the same."""

    id: str
    at_most: Decimal | None
    order: Order
    counted: bool = True
    perhaps: bool = False


class Settlement(Struct, frozen=True):
    """What came of settling. done: it changed something; False for a second time. estimated: the reserved maximum
    counts, because nobody knows the cost. over: the cost was above what was reserved. later: the store is away, and it
    is done once that is back."""

    done: bool = True
    estimated: bool = False
    over: bool = False
    later: bool = False


class BudgetState(Struct, frozen=True, kw_only=True):
    """How one account of a budget stands. Money is USD.

    Attributes:
        name, scope: the budget, and the values it counts for one by one.
        window: "day@Europe/Berlin", "rolling 5:00:00", "ever"; starts and ends are its bounds, UTC.
        spent, reserved: settled, and still in flight at their maximum. estimated is the part of spent that is a
            maximum or a guess; unpriced counts calls whose cost nobody knows.
        left: what may still be reserved, never below 0; over says that more than the limit was spent.
        forecast: what will have been spent at the window's end if it goes on like this; None where there is no telling.
    """

    name: str
    scope: dict[str, str | None]
    window: str
    hard: bool
    limit: Decimal
    spent: Decimal
    reserved: Decimal
    left: Decimal
    estimated: Decimal
    unpriced: int
    over: bool
    starts: datetime | None = None
    ends: datetime | None = None
    forecast: Decimal | None = None


class BudgetNotice(Struct, frozen=True):
    """Something to know about a budget. kind "threshold": percent of its limit is spent; "over": a call cost more than
    was reserved for it; "away" and "back": where budgets are counted."""

    kind: Literal["threshold", "over", "away", "back"]
    message: str
    budget: str | None = None
    scope: dict[str, str | None] = {}
    percent: int | None = None
    limit: Decimal | None = None
    spent: Decimal | None = None


class BudgetsHealth(Struct, frozen=True):
    """Whether budgets are counted: why not, how many settlements wait for the store, and how many were lost because
    too many waited."""

    state: Literal["ok", "away"]
    why: str | None = None
    waiting: int = 0
    lost: int = 0


def free_after(entries: Iterable[tuple[int, int]], too_much: int, now: int) -> int | None:
    """After how many microseconds enough was forgotten: entries are (when it is forgotten, amount), soonest first.
    None where all of them are not enough."""
    for due, amount in entries:
        too_much -= amount
        if too_much <= 0:
            return max(0, due - now)
    return None


def words(scope: Any) -> str:
    """A scope for people."""
    return ", ".join(f"{name} {value if value is not None else 'none'}" for name, value in scope)
