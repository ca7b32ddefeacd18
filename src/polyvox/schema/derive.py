"""The JSON Schema of a Python type: msgspec's where it can, pydantic's where it must.
It knows nothing of tools, answers or providers.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from polyvox.errors import InputError

Schema = dict[str, Any]

REF = "#/$defs/"


def schema_of(kind: Any) -> Schema:
    """The JSON Schema of a type, a named type's own schema at the root; InputError when it has none.

    >>> schema_of(list[int])
    {'type': 'array', 'items': {'type': 'integer'}}
    """
    schema, defs = split(kind)
    name = schema.get("$ref", "").removeprefix(REF)
    if name in defs:
        schema = {**defs[name], **{key: value for key, value in schema.items() if key != "$ref"}}
        if not _mentions([schema, *(other for key, other in defs.items() if key != name)], REF + name):
            defs = {key: other for key, other in defs.items() if key != name}
    return {**schema, "$defs": defs} if defs else schema


def split(kind: Any) -> tuple[Schema, dict[str, Schema]]:
    """The schema of a type beside the definitions it refers to."""
    try:
        if _speaks_pydantic(kind):
            return _by_pydantic(kind)
        try:
            return _by_msgspec(kind)
        except TypeError:
            try:
                return _by_pydantic(kind)
            except (TypeError, RuntimeError, NameError, ValueError, AttributeError):
                # A pydantic model inside a type only msgspec knows: neither can do it alone.
                return _by_msgspec(kind, mixed=True)
    except Exception as error:
        reason = str(error).split("\n")[-1].strip() or type(error).__name__
        raise InputError(
            f"{called(kind)} has no JSON Schema: {reason}",
            hint="use plain types, a dataclass, TypedDict, msgspec.Struct or pydantic model, or pass a schema",
        ) from error


def _by_msgspec(kind: Any, *, mixed: bool = False) -> tuple[Schema, dict[str, Schema]]:
    defs: dict[str, Schema] = {}

    def foreign(inner: Any) -> Schema:
        return adopt(*_by_pydantic(inner), defs)

    (schema,), own = msgspec.json.schema_components(
        (kind,), schema_hook=foreign if mixed else None, ref_template=REF + "{name}"
    )
    return adopt(schema, own, defs), defs


def _by_pydantic(kind: Any) -> tuple[Schema, dict[str, Schema]]:
    from pydantic import TypeAdapter

    schema = _untitled(TypeAdapter(kind).json_schema())
    return schema, schema.pop("$defs", {})


def _speaks_pydantic(kind: Any) -> bool:
    """Whether msgspec would take the type but lose what its pydantic annotations say."""
    if hasattr(kind, "__pydantic_core_schema__"):
        return True
    marks = getattr(kind, "__metadata__", ())
    if any(type(mark).__module__.partition(".")[0] in ("pydantic", "annotated_types") for mark in marks):
        return True
    return any(_speaks_pydantic(inner) for inner in typing.get_args(kind) if not isinstance(inner, str))


def _untitled(node: Any) -> Any:
    """Without the titles that only repeat the property's name."""
    if isinstance(node, list):
        return [_untitled(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: _untitled(value) for key, value in node.items()}
    for name, inner in found["properties"].items() if isinstance(found.get("properties"), dict) else ():
        if isinstance(inner, dict) and inner.get("title") == name.replace("_", " ").title():
            del inner["title"]
    return found


def adopt(schema: Schema, defs: dict[str, Schema], into: dict[str, Schema]) -> Schema:
    """Move definitions `into` a common pool, under other names where theirs are taken by other things;
    gives the schema with its references renamed to match.
    """
    suffix = ""
    while True:
        names = {REF + name: REF + name + suffix for name in defs}
        moved = {name + suffix: _renamed(definition, names) for name, definition in defs.items()}
        if all(into.get(name, definition) == definition for name, definition in moved.items()):
            break
        suffix += "_"
    into.update(moved)
    renamed: Schema = _renamed(schema, names)
    return renamed


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    if isinstance(node, list):
        return [_renamed(item, names) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: names.get(value, value) if key == "$ref" and isinstance(value, str) else _renamed(value, names)
        for key, value in node.items()
    }


def _mentions(node: Any, ref: str) -> bool:
    if isinstance(node, list):
        return any(_mentions(item, ref) for item in node)
    return isinstance(node, dict) and (node.get("$ref") == ref or any(_mentions(item, ref) for item in node.values()))


def called(thing: Any) -> str:
    """What to call a type or function in an error."""
    return getattr(thing, "__name__", None) or str(thing)[:80]
