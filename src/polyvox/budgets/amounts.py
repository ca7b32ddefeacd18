"""Money of budgets, exactly, whatever the caller's decimal context rounds to: limits and costs as whole pico-dollars.
Pure."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation, Overflow
from typing import Any

from polyvox.database.money import LARGEST, PICO
from polyvox.errors import InputError

# No amount up to the largest loses a digit in it, as long as it is written with up to 60 of them.
_EXACT = Context(prec=80, traps=[InvalidOperation, Overflow])
_MOST = Decimal(LARGEST) / PICO


def pico_of(amount: Decimal, what: str) -> int:
    """USD as whole pico-dollars, rounded up, so that no sum of them is too low. InputError for NaN, infinity, negative
    numbers and what is more than 9.2 million USD."""
    if not isinstance(amount, Decimal):
        raise InputError(f"{what} is a Decimal, not {type(amount).__name__}", hint="give USD as a Decimal")
    if not amount.is_finite() or amount < 0:
        raise InputError(f"{what} is no amount of money: {amount}", hint="give a finite number of USD from 0 up")
    if amount > _MOST:
        raise InputError(f"{what} is more than fits: {amount:.3e} USD", hint="amounts go up to 9.2 million USD")
    return int(_EXACT.multiply(amount, PICO).to_integral_value(ROUND_CEILING, _EXACT))


def dollars(amount: int) -> Decimal:
    """Whole pico-dollars as USD, without trailing zeros.

    >>> dollars(2_500_000)
    Decimal('0.0000025')
    """
    value = _EXACT.divide(Decimal(amount), PICO).normalize(_EXACT)
    return value.quantize(Decimal(1), context=_EXACT) if value == value.to_integral_value() else value


def limit_of(given: Any) -> Decimal:
    """A limit in USD from a Decimal, a whole number or text; InputError for what is none.

    >>> limit_of("2.50")
    Decimal('2.50')
    """
    if isinstance(given, bool) or not isinstance(given, Decimal | int | str):
        raise InputError(
            f"a limit is a Decimal, a whole number or text, not {type(given).__name__}",
            hint='write it as text, such as "2.50": a binary fraction is not the number that was typed',
        )
    try:
        limit = _EXACT.create_decimal(given)
    except (InvalidOperation, Overflow):
        raise InputError(f"{given!r} is no amount of money", hint='write USD as text, such as "2.50"') from None
    pico_of(limit, "a limit")
    return limit
