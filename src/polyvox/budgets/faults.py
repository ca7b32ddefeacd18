"""What a budget refuses a call with. Errors only; they decide nothing."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from polyvox.errors import PolyvoxError, QuotaError


class BudgetExceededError(QuotaError):
    """A hard budget has no room for a call; nothing was sent.

    Attributes:
        budget, scope: its name, and the values it counts for one by one.
        limit, spent, reserved: USD; reserved is what calls in flight may still cost.
        needed: what this call may cost at most, USD; None for unknown.
        frees_at: when there may be room again, UTC; None when nobody can know. retry_after has it in seconds.
    """

    advice = "raise the limit, or ask for less: a cheaper model, a shorter prompt, a smaller max_tokens"

    def __init__(
        self,
        message: str,
        *,
        budget: str = "",
        scope: tuple[tuple[str, str | None], ...] = (),
        limit: Decimal | None = None,
        spent: Decimal | None = None,
        reserved: Decimal | None = None,
        needed: Decimal | None = None,
        frees_at: datetime | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message, **{"sent": "no", "billed": False, **facts})
        self.budget: str = budget
        self.scope: tuple[tuple[str, str | None], ...] = scope
        self.limit: Decimal | None = limit
        self.spent: Decimal | None = spent
        self.reserved: Decimal | None = reserved
        self.needed: Decimal | None = needed
        self.frees_at = frees_at


class BudgetsAwayError(PolyvoxError):
    """Where budgets are counted cannot be reached, so a hard budget lets nothing through; nothing was sent.

    perhaps says that the store may have done what it was asked all the same.
    """

    kind = "budgets_away"
    advice = "see whether the database or the Redis server of the budgets is well, then ask again"
    retry = True

    def __init__(self, message: str, *, perhaps: bool = False, **facts: Any) -> None:
        super().__init__(message, **{"sent": "no", "billed": False, **facts})
        self.perhaps = perhaps
