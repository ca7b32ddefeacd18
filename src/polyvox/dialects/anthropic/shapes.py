"""Values in a client's JSON, each of the type it must have or refused by the name of its place. It knows no
field of the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from msgspec import UNSET, UnsetType

from polyvox.dialects.anthropic.facts import NAME
from polyvox.errors import InputError
from polyvox.types import Extra

_T = TypeVar("_T")
_NAMED: dict[type, str] = {str: "a string", bool: "true or false", list: "a list", dict: "an object"}


def unfit(param: str, expected: str) -> InputError:
    """The error for a value that is not what it must be."""
    return InputError(f"{param} must be {expected}", param=param)


def told(values: Mapping[str, Any], key: str, where: str, kind: type[_T]) -> _T | None:
    """The value under a key, None where it is absent or null; raises InputError for another type. `where` is
    what the key's name is put behind, such as "thinking."."""
    value = values.get(key)
    if value is None or isinstance(value, kind):
        return value
    raise unfit(where + key, _NAMED[kind])


def needed(values: Mapping[str, Any], key: str, where: str, kind: type[_T]) -> _T:
    """The same for a value that must be there."""
    value = values.get(key)
    if isinstance(value, kind):
        return value
    raise unfit(where + key, _NAMED[kind])


def whole(values: Mapping[str, Any], key: str, where: str = "") -> int | UnsetType:
    """A whole number, which may be written 5.0; UNSET where there is none."""
    value = values.get(key)
    if value is None:
        return UNSET
    if type(value) is int or (type(value) is float and value.is_integer()):
        return int(value)
    raise unfit(where + key, "an integer")


def number(values: Mapping[str, Any], key: str) -> float | UnsetType:
    """A number; UNSET where there is none."""
    value = values.get(key)
    if value is None:
        return UNSET
    if type(value) is float or type(value) is int:
        return value
    raise unfit(key, "a number")


def an_object(value: Any, where: str) -> dict[str, Any]:
    """The value, which must be an object."""
    if isinstance(value, dict):
        return value
    raise unfit(where, "an object")


def rest_of(values: Mapping[str, Any], known: frozenset[str]) -> Extra:
    """The keys without a neutral place, as extra. Unlike an answer's, a request's null was written by somebody."""
    rest = {key: value for key, value in values.items() if key not in known}
    return {NAME: rest} if rest else {}
