"""What a client library gave, as the JSON its dialect reads. Objects that can be dumped are; of others the
attributes a shape names are taken, each held against its type: a test's stand-in has every attribute there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polyvox.dialects import encode_json

_MISSING = object()
_PLAIN = (str, int, float, bool, type(None), dict, list)
_NOBODYS = "an_attribute_that_nobody_gave_it"

Template = Any
"""str, int, float, bool or dict for a value of that type; [template] for a list; {name: template} for an object."""


def is_stand_in(thing: Any) -> bool:
    """Whether it answers to any name at all, as the objects of `unittest.mock` do."""
    return not isinstance(thing, Mapping) and hasattr(thing, _NOBODYS)


def as_json(answer: Any, template: Template) -> dict[str, Any] | None:
    """An answer as a JSON object; None where there is nothing in it that the template knows."""
    found = taken(answer, template)
    return found if isinstance(found, dict) else None


def taken(value: Any, template: Template) -> Any:
    """What of a value fits a template; `_MISSING` for nothing."""
    if isinstance(template, list):
        items = [taken(item, template[0]) for item in value] if type(value) in (list, tuple) else []
        items = [item for item in items if item is not _MISSING]
        return items or _MISSING
    if isinstance(template, dict):
        return _object(value, template)
    if template is float:
        return value if type(value) in (int, float) else _MISSING
    return value if type(value) is template else _MISSING


def _object(value: Any, template: Mapping[str, Template]) -> Any:
    dumped = _dumped(value)
    if dumped is not None:
        return dumped
    if isinstance(value, str | bytes | int | float | list | tuple) or value is None:
        return _MISSING
    # An honest object's other plain attributes are part of what it says; a stand-in's are its machinery.
    named = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
    found = {
        name: item
        for name, item in named.items()
        if not is_stand_in(value) and isinstance(name, str) and not name.startswith("_") and _is_plain(item)
    }
    for name, inner in template.items():
        item = taken(named[name] if name in named else getattr(value, name, None), inner)
        if item is not _MISSING:
            found[name] = item
    return found or _MISSING


def _is_plain(value: Any) -> bool:
    if type(value) not in _PLAIN:
        return False
    try:
        encode_json(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _dumped(value: Any) -> dict[str, Any] | None:
    """A mapping, or what a model class of its library dumps; None for others and for what is no JSON."""
    found: Any = value
    # Looked up on the class: a stand-in has the method too, and it gives another stand-in.
    dump = getattr(type(value), "model_dump", None)
    if callable(dump):
        try:
            found = dump(value, mode="json", by_alias=True, exclude_unset=True, warnings=False)
        except TypeError:
            found = dump(value)  # one that is not pydantic's
    return dict(found) if isinstance(found, Mapping) and _is_plain(dict(found)) else None
