"""What a value in a client's JSON must be, each failing with one clear error that names its place. It knows
types and places, no meaning."""

from __future__ import annotations

from typing import Any

from polyvox.errors import InputError


def wrong(where: str, must: str, code: str = "invalid_type") -> InputError:
    """The error for a value that is not what it must be: `wrong("n", "must be a whole number")`."""
    return InputError(f"{where} {must}", param=where, code=code)


def missing(where: str) -> InputError:
    """The error for a value that must be there and is not."""
    return InputError(f"{where} is missing", param=where, code="missing_required_parameter")


def text(value: Any, where: str) -> str:
    """A string; raises InputError for anything else."""
    if not isinstance(value, str):
        raise missing(where) if value is None else wrong(where, "must be a string")
    return value


def flag(value: Any, where: str) -> bool:
    """True or false; raises InputError for anything else."""
    if not isinstance(value, bool):
        raise wrong(where, "must be true or false")
    return value


def number(value: Any, where: str) -> float:
    """A number as it came, whole or not; raises InputError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(where, "must be a number")
    return value


def whole(value: Any, where: str) -> int:
    """A whole number, also where it is written 5.0; raises InputError for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(where, "must be a whole number")
    return value


def mapping(value: Any, where: str) -> dict[str, Any]:
    """An object; raises InputError for anything else."""
    if not isinstance(value, dict):
        raise missing(where) if value is None else wrong(where, "must be an object")
    return value


def sequence(value: Any, where: str) -> list[Any]:
    """A list; raises InputError for anything else."""
    if not isinstance(value, list):
        raise missing(where) if value is None else wrong(where, "must be a list")
    return value


def texts(value: Any, where: str) -> tuple[str, ...]:
    """A list of strings; raises InputError for anything else."""
    return tuple([text(item, f"{where}[{i}]") for i, item in enumerate(sequence(value, where))])


def one_of(value: Any, where: str, words: tuple[str, ...]) -> str:
    """One of some words; raises InputError for anything else."""
    if value is None:
        raise missing(where)
    if value not in words:
        raise wrong(where, f"must be one of {', '.join(words)}", "invalid_value")
    return str(value)
