"""What a value in a client's JSON must be: readers, each given a value and its place, and look-ups of an object's
members by them. They know types and places, no field of any protocol.

A place is written `messages[0].content`, and "" is the body itself. Under a key, null is as good as nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from msgspec import UNSET, UnsetType

from polyvox.errors import InputError

T = TypeVar("T")
Reader: TypeAlias = Callable[[Any, str], T]


class UnfitError(InputError):
    """A value of a client's request that cannot be taken. `fault` says why in a word, such as "invalid_type":
    the `code` of the error in the protocols that tell one, and in those alone."""

    def __init__(self, message: str, *, fault: str, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.fault = fault


def wrong(where: str, must: str, fault: str = "invalid_value", hint: str | None = None) -> UnfitError:
    """The error for a value that is not what it must be: `wrong("n", "must be at least 1")`."""
    return UnfitError(f"{where} {must}", fault=fault, param=where, hint=hint)


def missing(where: str, hint: str | None = None) -> UnfitError:
    """The error for a value that must be there and is not."""
    return wrong(where, "is missing", "missing_required_parameter", hint)


def unknown(where: str) -> UnfitError:
    """The error for a key that the protocol's inventor does not know."""
    return wrong(where or '""', "is no field of this protocol", "unknown_parameter")


def wrong_type(value: Any, where: str, kind: str) -> UnfitError:
    """The error for a value of another type, or for none: `wrong_type(5, "model", "a string")`. A null among the
    items of a list is no item that is missing."""
    if value is None and not where.endswith("]"):
        return missing(where)
    return wrong(where, f"must be {kind}", "invalid_type")


# ---- values -----------------------------------------------------------------------------------
# All raise InputError, with `param`, for what they do not take.


def text(value: Any, where: str) -> str:
    """A string."""
    if type(value) is not str:
        raise wrong_type(value, where, "a string")
    return value


def flag(value: Any, where: str) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise wrong_type(value, where, "true or false")
    return value


def number(value: Any, where: str) -> float:
    """A number as it came, whole or not."""
    if type(value) is not float and type(value) is not int:
        raise wrong_type(value, where, "a number")
    return value


def whole(value: Any, where: str) -> int:
    """A whole number, also where it is written 5.0."""
    if type(value) is int or (type(value) is float and value.is_integer()):
        return int(value)
    raise wrong_type(value, where, "a whole number")


def mapping(value: Any, where: str) -> dict[str, Any]:
    """An object."""
    if type(value) is not dict:
        raise wrong_type(value, where, "an object")
    return value


def sequence(value: Any, where: str) -> list[Any]:
    """A list."""
    if type(value) is not list:
        raise wrong_type(value, where, "a list")
    return value


def one_of(*words: str) -> Reader[str]:
    """One of some words."""

    def word(value: Any, where: str) -> str:
        found = text(value, where)
        if found not in words:
            raise wrong(where, f"must be {'one of ' if len(words) > 1 else ''}{', '.join(words)}")
        return found

    return word


def each(read: Reader[T]) -> Reader[tuple[T, ...]]:
    """A list, all of whose items are read alike."""

    def items(value: Any, where: str) -> tuple[T, ...]:
        return tuple([read(item, f"{where}[{place}]") for place, item in enumerate(sequence(value, where))])

    return items


def by_name(read: Reader[T]) -> Reader[dict[str, T]]:
    """An object of any keys, all of whose values are read alike."""

    def values(value: Any, where: str) -> dict[str, T]:
        return {name: read(item, f"{where}.{name}") for name, item in mapping(value, where).items()}

    return values


texts: Reader[tuple[str, ...]] = each(text)


# ---- members of objects -----------------------------------------------------------------------


def told(values: Mapping[str, Any], key: str, read: Reader[T], where: str = "") -> T | None:
    """The value under a key of the object at `where`; None where it is absent or null."""
    value = values.get(key)
    return None if value is None else read(value, f"{where}.{key}" if where else key)


def field(values: Mapping[str, Any], key: str, read: Reader[T], where: str = "") -> T | UnsetType:
    """The same, as a field of a request has it: UNSET where it is absent or null."""
    value = values.get(key)
    return UNSET if value is None else read(value, f"{where}.{key}" if where else key)


def take(rest: dict[str, Any], key: str, read: Reader[T], where: str = "") -> T | None:
    """What `told` gives, taken out of the object."""
    value = rest.pop(key, None)
    return None if value is None else read(value, f"{where}.{key}" if where else key)


def needed(values: Mapping[str, Any], key: str, read: Reader[T], where: str = "") -> T:
    """The value under a key, which must be there."""
    return read(values.get(key), f"{where}.{key}" if where else key)
