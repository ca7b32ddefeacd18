"""Arguments of calls that are no chats as fields of a request: what is None is left unsaid. It knows no meaning."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from msgspec import UNSET, UnsetType

from polyvox.client.check import count, shown
from polyvox.errors import InputError


def text_needed(name: str, value: Any) -> str:
    """Text with something in it; InputError for anything else."""
    if not isinstance(value, str):
        raise InputError(f"{name} must be text, not {shown(value)}", param=name)
    if not value.strip():
        raise InputError(f"{name} is empty", param=name)
    return value


def text_or_unset(name: str, value: Any) -> str | UnsetType:
    """Text with something in it; UNSET for None."""
    return UNSET if value is None else text_needed(name, value)


def number_or_unset(name: str, value: Any) -> float | UnsetType:
    """A finite number; UNSET for None."""
    if value is None:
        return UNSET
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} must be a number, not {shown(value)}", param=name)
    return value


def count_or_unset(name: str, value: Any, least: int = 1) -> int | UnsetType:
    """A whole number of at least `least`; UNSET for None."""
    return UNSET if value is None else count(name, value, least)


def flag_or_unset(name: str, value: Any) -> bool | UnsetType:
    """True or False; UNSET for None."""
    if value is None:
        return UNSET
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, not {shown(value)}", param=name)
    return value


def texts_needed(name: str, value: Any) -> tuple[str, ...]:
    """Texts, at least one, none of them empty; InputError for anything else, a single text included."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InputError(f"{name} must be a sequence of texts, not {shown(value)}", param=name)
    found = tuple(value)
    if not found:
        raise InputError(f"{name} is empty", param=name, hint="give at least one text")
    return tuple([text_needed(f"{name}[{place}]", each) for place, each in enumerate(found)])
