"""What checks of a client's request are made of: ranges, lengths, names, objects of known keys. A check is a
reader whose result nobody needs: it raises InputError for a value that breaks it. It knows no field of any protocol.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from polyvox.dialects.shapes import Reader, mapping, missing, number, sequence, text, unknown, whole, wrong

Check: TypeAlias = Reader[object]
_NAME = re.compile(r"[A-Za-z0-9_-]+")


def between(low: float, high: float) -> Check:
    """A number in a range, both ends included."""

    def check(value: Any, where: str) -> None:
        if number(value, where) < low:
            raise wrong(where, f"must be at least {low}", "decimal_below_min_value")
        if value > high:
            raise wrong(where, f"must be at most {high}", "decimal_above_max_value")

    return check


def count(low: int, high: int | None = None) -> Check:
    """A whole number in a range, both ends included."""

    def check(value: Any, where: str) -> None:
        if whole(value, where) < low:
            raise wrong(where, f"must be at least {low}", "integer_below_min_value")
        if high is not None and value > high:
            raise wrong(where, f"must be at most {high}", "integer_above_max_value")

    return check


def short(longest: int) -> Check:
    """A string of at most so many characters."""

    def check(value: Any, where: str) -> None:
        if len(text(value, where)) > longest:
            raise wrong(where, f"must have at most {longest} characters", "string_above_max_length")

    return check


def name(longest: int | None = None) -> Check:
    """A name as programs have them, of at most so many characters."""
    limit = "" if longest is None else f", at most {longest} of them"

    def check(value: Any, where: str) -> None:
        if not _NAME.fullmatch(text(value, where)) or (longest is not None and len(value) > longest):
            raise wrong(where, f"must be of letters, digits, _ and -{limit}")

    return check


def filled(value: Any, where: str, most: int | None = None) -> list[Any]:
    """A list with something in it, and not too much."""
    items = sequence(value, where)
    if not items:
        raise wrong(where, "must not be empty", "empty_array")
    if most is not None and len(items) > most:
        raise wrong(where, f"must have at most {most} items", "array_above_max_length")
    return items


def text_or(other: Check) -> Check:
    """A string, or what another check takes."""

    def check(value: Any, where: str) -> None:
        if type(value) is not str:
            other(value, where)

    return check


def members(known: dict[str, Check], *needed: str, others: bool = False) -> Check:
    """An object of these keys, and of others only where they are let in unseen; null is as good as nothing."""

    def check(value: Any, where: str) -> None:
        behind = f"{where}." if where else ""
        told = mapping(value, where)
        for key in needed:
            if told.get(key) is None:
                raise missing(behind + key)
        for key, item in told.items():
            fits = known.get(key)
            if fits is None:
                if not others:
                    raise unknown(behind + key)
            elif item is not None:
                fits(item, behind + key)

    return check
