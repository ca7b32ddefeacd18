"""Money and time as databases keep them: whole pico-dollars and whole microseconds since the epoch. What is unknown
is None and never 0."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from polyvox.errors import InputError

PICO = Decimal(10) ** 12
LARGEST = 2**63 - 1
"""The largest whole number a column holds: about 9.2 million USD in pico-dollars."""

_MOST = LARGEST / PICO
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def pico(amount: Decimal) -> int:
    """USD as whole pico-dollars, half to even; InputError for what is no amount: NaN, infinite, negative, too large.

    >>> pico(Decimal("0.0000025"))
    2500000
    """
    if not amount.is_finite() or amount < 0:
        raise InputError(f"{amount} is no amount of money", hint="give a finite number of USD from 0 up")
    if amount > _MOST:
        raise InputError(f"{amount} USD is more than fits", hint="amounts go up to 9.2 million USD")
    return int((amount * PICO).to_integral_value(ROUND_HALF_EVEN))


def dollars(amount: int) -> Decimal:
    """Whole pico-dollars as USD, without trailing zeros.

    >>> dollars(2500000)
    Decimal('0.0000025')
    """
    value = Decimal(amount) / PICO
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize()


def micros(at: datetime) -> int:
    """A point in time as microseconds since the epoch; without a zone it is UTC."""
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (at - _EPOCH) // _MICROSECOND


def moment(at: int) -> datetime:
    """Microseconds since the epoch as a point in time, UTC."""
    return _EPOCH + timedelta(microseconds=at)
