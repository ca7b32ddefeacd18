"""Schemas of the protocol's older kind, a subset of OpenAPI's, as JSON Schema and back. It judges no schema: what
it does not know goes over as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_WORDS = frozenset({"STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"})
_ONE = ("items", "additionalProperties", "not")
_MANY = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "$defs", "defs", "definitions")


def json_schema(schema: Any) -> Any:
    """JSON Schema: types in lower case, and null as a type of its own."""
    if not isinstance(schema, dict):
        return schema
    found = _within(schema, json_schema)
    kind = found.get("type")
    if isinstance(kind, str) and kind in _WORDS:
        found["type"] = kind.lower()
    if found.get("nullable") is True and isinstance(found.get("type"), str):
        del found["nullable"]
        found["type"] = [found["type"], "null"]
    return found


def openapi(schema: Any) -> Any:
    """The subset of OpenAPI's: one type each, and null as a flag."""
    if not isinstance(schema, dict):
        return schema
    found = _within(schema, openapi)
    kinds = found.get("type")
    if isinstance(kinds, list) and len(kinds) == 2 and kinds[1] == "null" and isinstance(kinds[0], str):
        found["type"] = kinds[0]
        found["nullable"] = True
    return found


def _within(schema: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    found = dict(schema)
    for key in _ONE:
        if key in found:
            found[key] = change(found[key])
    for key in _MANY:
        if isinstance(found.get(key), list):
            found[key] = [change(inner) for inner in found[key]]
    for key in _NAMED:
        if isinstance(found.get(key), dict):
            found[key] = {name: change(inner) for name, inner in found[key].items()}
    return found
