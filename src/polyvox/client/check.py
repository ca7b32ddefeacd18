"""Values and arguments held against the types they promise, before anything is sent. It knows no meaning,
only shapes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from polyvox import types
from polyvox.errors import InputError

_S = TypeVar("_S", bound=Struct)


@functools.cache
def _fields(kind: type[Struct]) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(kind, vars(types))
    return tuple((field, hints[field]) for field in kind.__struct_fields__)


def sound(value: _S) -> _S:
    """A value whose fields are what their annotations say, lists made tuples; InputError otherwise."""
    changed = {}
    for field, kind in _fields(type(value)):
        given = getattr(value, field)
        if given is UNSET:
            continue
        try:
            # bytes as they are: a text would be taken for base64.
            taken = msgspec.convert(given, kind, builtin_types=(bytes,))
        except (msgspec.ValidationError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{type(value).__name__}.{field} cannot be {shown(given)}: {error}") from None
        if type(taken) is not type(given):
            changed[field] = taken
    return replace(value, **changed) if changed else value


def shown(value: Any) -> str:
    """A value fit for an error message: its text cut short, and its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '…'} ({type(value).__name__})"


def seconds(name: str, value: Any) -> float:
    """A number of seconds above 0; InputError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise InputError(f"{name} must be a number of seconds above 0, not {shown(value)}")
    return value


def table(name: str, value: Any, of: type = object) -> dict[str, Any]:
    """A mapping from text, to values of one type; {} for None; InputError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{name} must be a dict with text keys, not {shown(value)}")
    for key, item in value.items():
        if not isinstance(item, of):
            raise InputError(f"{name}[{key!r}] must be {of.__name__}, not {type(item).__name__}")
    return dict(value)


def count(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`; InputError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, not {shown(value)}")
    return value


def text_or_none(name: str, value: Any) -> str | None:
    """Text or None; InputError for anything else."""
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} must be text, not {shown(value)}")
    return value
