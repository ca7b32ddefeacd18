"""Numbers of usage as people read them, short; a dash is what nobody knows. Exact numbers are in the JSON and CSV."""

from __future__ import annotations

from decimal import Decimal

UNKNOWN = "-"
_SIZES = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def money(amount: Decimal | None) -> str:
    """USD: cents, and below a dollar three digits that count.

    >>> money(Decimal("1234.567")), money(Decimal("0.5")), money(Decimal("0.000012345")), money(None)
    ('$1,234.57', '$0.50', '$0.0000123', '-')
    """
    if amount is None:
        return UNKNOWN
    if amount >= 1:
        return f"${amount:,.2f}"
    if not amount:
        return "$0"
    short = amount.quantize(Decimal(1).scaleb(amount.adjusted() - 2)).normalize()
    return f"${short:.2f}" if short.as_tuple().exponent in (0, -1) else f"${short:f}"


def count(number: float | None) -> str:
    """A number; from ten thousand up in thousands, millions and so on, and what is not whole with three digits.

    >>> count(9999), count(12345), count(2_500_000), count(111.354), count(None)
    ('9,999', '12.3k', '2.5M', '111', '-')
    """
    if number is None:
        return UNKNOWN
    if abs(number) < 10_000:
        return f"{number if number == int(number) else float(f'{number:.3g}'):,.10g}"
    for place, (size, letter) in enumerate(_SIZES):
        if abs(number) >= size:
            short = float(f"{number / size:.3g}")
            if short >= 1000 and place:
                size, letter = _SIZES[place - 1]
                short /= 1000
            return f"{short:g}{letter}"
    raise AssertionError("the smallest size is below ten thousand")


def seconds(length: float | None) -> str:
    """A length of time.

    >>> seconds(0.0423), seconds(1.5), seconds(75), seconds(7300), seconds(None)
    ('42 ms', '1.5 s', '1m15s', '2h01m', '-')
    """
    if length is None:
        return UNKNOWN
    if length < 0.9995:
        return f"{length * 1000:.0f} ms"
    if length < 59.95:
        return f"{float(f'{length:.3g}'):g} s"
    whole = round(length)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def share(part: float | None) -> str:
    """A part of a whole, 0 to 1, in hundredths.

    >>> share(0.125), share(0.0004), share(0.0), share(None)
    ('12.5 %', '<0.1 %', '0 %', '-')
    """
    if part is None:
        return UNKNOWN
    if 0 < part < 0.001:
        return "<0.1 %"
    return f"{float(f'{part * 100:.3g}'):g} %"
