"""What checks of a client's request are made of: ranges, lengths, words, objects of known keys. A check is
given a value and its place, and raises InputError where the value breaks it; it knows no field."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

from polyvox.dialects.openai_chat.shapes import flag, mapping, missing, number, one_of, sequence, text, whole, wrong
from polyvox.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
Check: TypeAlias = Callable[[Any, str], None]


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


def words(*words: str) -> Check:
    """One of some words."""

    def check(value: Any, where: str) -> None:
        one_of(text(value, where), where, words)

    return check


def short(longest: int) -> Check:
    """A string of at most so many characters."""

    def check(value: Any, where: str) -> None:
        if len(text(value, where)) > longest:
            raise wrong(where, f"must have at most {longest} characters", "string_above_max_length")

    return check


def members(known: dict[str, Check], *needed: str) -> Check:
    """An object of these keys and no others; null is as good as nothing."""

    def check(value: Any, where: str) -> None:
        for key, item in mapping(value, where).items():
            if key not in known:
                raise unknown(f"{where}.{key}")
            if item is not None:
                known[key](item, f"{where}.{key}")
        for key in needed:
            if value.get(key) is None:
                raise missing(f"{where}.{key}")

    return check


def unknown(where: str) -> InputError:
    """The error for a key that the inventor does not know."""
    return InputError(f"{where} is no parameter of this protocol", param=where, code="unknown_parameter")


def name(value: Any, where: str) -> None:
    """A name as the inventor has them."""
    if not _NAME.fullmatch(text(value, where)):
        raise wrong(where, "must be of letters, digits, _ and -, at most 64 of them", "invalid_value")


def string(value: Any, where: str) -> None:
    """A string."""
    text(value, where)


def is_flag(value: Any, where: str) -> None:
    """True or false."""
    flag(value, where)


def is_object(value: Any, where: str) -> None:
    """An object, of whatever keys."""
    mapping(value, where)


def filled(value: Any, where: str, most: int | None = None) -> list[Any]:
    """A list with something in it, and not too much."""
    if not sequence(value, where):
        raise wrong(where, "must not be empty", "empty_array")
    if most is not None and len(value) > most:
        raise wrong(where, f"must have at most {most} items", "array_above_max_length")
    return list(value)


def is_whole(value: Any, where: str) -> None:
    """A whole number."""
    whole(value, where)
