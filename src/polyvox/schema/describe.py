"""Tools from functions and answer formats from types, and both from the dicts people already have.
It never runs the function it describes, and names no provider.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from polyvox.errors import InputError
from polyvox.schema.derive import Schema, adopt, called, schema_of, split
from polyvox.schema.docstrings import read_docstring
from polyvox.types import CacheHint, ResponseFormat, Tool

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


# ---- tools ------------------------------------------------------------------------------------


def tool_from(
    function_or_schema: Any,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | UnsetType = UNSET,
) -> Tool:
    """A tool from a function, a class of fields, a dict in any common form, or a tool.

    A function gives its name, its docstring and one property a parameter (`self`, `cls` and `ctx` are
    left out). Raises InputError for what a model cannot call by name with JSON.
    """
    thing = function_or_schema
    if isinstance(thing, Tool):
        tool = thing
    elif isinstance(thing, Mapping):
        tool = _tool_from_dict(dict(thing), name)
    elif isinstance(thing, type) or typing.get_origin(thing) is not None:
        tool = _tool_from_class(thing)
    elif callable(thing):
        tool = _tool_from_function(thing, name)
    else:
        raise InputError(
            f"a {type(thing).__name__} is not a tool", hint="pass a function, a model class, a dict or a Tool"
        )
    changes = {"name": name, "description": description}
    changed = {key: value for key, value in changes.items() if value is not None}
    if strict is not UNSET:
        tool = msgspec.structs.replace(tool, strict=strict)
    tool = msgspec.structs.replace(tool, **changed) if changed else tool
    if not isinstance(tool.name, str) or not _NAME.fullmatch(tool.name):
        raise InputError(
            f"{tool.name!r} cannot be the name of a tool", hint="pass name=..., made of letters, digits, _ and -"
        )
    return tool


_DICT_KEYS = {"name", "description", "parameters", "input_schema", "inputSchema", "strict", "type", "cache_control"}


def _tool_from_dict(given: Schema, name: str | None) -> Tool:
    for kind in ("function", "custom"):
        if isinstance(given.get(kind), dict) and given.get("type", kind) == kind:
            given = {**given[kind], "type": kind, **{k: v for k, v in given.items() if k not in (kind, "type")}}
    schemas = [given[key] for key in ("parameters", "input_schema", "inputSchema") if key in given]
    if not schemas and (given.get("type") == "object" or "properties" in given):
        title = name or _plain_name(given.get("title"))
        if not title:
            raise InputError("a bare schema does not say what the tool is called", hint="pass name=...")
        schema = {key: value for key, value in given.items() if key not in ("title", "description")}
        return Tool(name=title, description=given.get("description"), parameters=_parameters(schema, title))
    title = name or given.get("name")
    if not isinstance(title, str):
        raise InputError(
            "the tool has no name", hint='a tool is {"name": ..., "description": ..., "parameters": {...}}'
        )
    kind = given.get("type", "function")
    custom = kind == "custom" and not schemas
    extra = sorted(set(given) - _DICT_KEYS - ({"format"} if custom else set()))
    if kind not in ("function", "custom") or extra:
        what = f"has keys with no neutral meaning: {', '.join(extra)}" if extra else f"is of type {kind!r}"
        raise InputError(
            f"the tool {title} {what}",
            hint="pass such a tool as Opaque(dialect, type, raw), such keys in Tool(extra={dialect: {...}})",
        )
    cache = given.get("cache_control")
    return Tool(
        name=title,
        description=given.get("description"),
        parameters={} if custom else _parameters(schemas[0] if schemas else {}, title),
        strict=given["strict"] if isinstance(given.get("strict"), bool) else UNSET,
        kind="custom" if custom else "function",
        format=given.get("format") if custom else None,
        cache=CacheHint(ttl=cache.get("ttl")) if isinstance(cache, dict) else None,
    )


def _parameters(schema: Any, name: str) -> Schema:
    """A schema fit to be a tool's parameters: that of an object."""
    if schema is None or schema == {}:
        return {"type": "object", "properties": {}}
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise InputError(
            f"the parameters of tool {name} are not an object",
            hint='wrap them: {"type": "object", "properties": {...}}',
        )
    return {"type": "object", **schema}


def _tool_from_class(cls: Any) -> Tool:
    words, fields = read_docstring(_own_doc(cls))
    schema = schema_of(cls)
    title = _plain_name(schema.pop("title", None)) or _plain_name(called(cls)) or "tool"
    described = schema.pop("description", None)
    schema = _parameters({"type": None, **schema}, title)
    return Tool(name=title, description=words or described, parameters=_describe(schema, fields))


def _tool_from_function(function: Callable[..., Any], name: str | None) -> Tool:
    inner: Any = function.func if isinstance(function, functools.partial) else function
    routine = inspect.isroutine(inner)
    title = name or (inner.__name__ if routine else type(inner).__name__)
    words, described = read_docstring((inner.__doc__ if routine else _own_doc(type(inner))) or "")
    properties: dict[str, Any] = {}
    required, defs, free = [], dict[str, Schema](), False
    for parameter, hint in _signature(function, inner if routine else type(inner).__call__, title):
        if parameter.kind is parameter.VAR_KEYWORD:
            free = True
            continue
        schema = dict(adopt(*split(hint), defs))
        note = next((mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, str)), None)
        note = note or (described.get(parameter.name) if "description" not in schema else None)
        if note:
            schema["description"] = note
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        else:
            schema |= _default(parameter.default)
        properties[parameter.name] = schema
    parameters: Schema = {"type": "object", "properties": properties, "additionalProperties": free}
    parameters |= {"required": required} if required else {}
    parameters |= {"$defs": defs} if defs else {}
    return Tool(name=title, description=words or None, parameters=parameters)


def _signature(function: Any, annotated: Any, name: str) -> Iterator[tuple[inspect.Parameter, Any]]:
    """The parameters a model fills in, each with its type hint."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
        hints = typing.get_type_hints(annotated, include_extras=True)
    except NameError as error:
        raise InputError(
            f"a type in the signature of {name} cannot be found: {error}",
            hint="define or import the type at module level, outside `if TYPE_CHECKING`",
        ) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the signature of {name} cannot be read: {error}", hint="wrap it in a function of your own"
        ) from error
    for position, parameter in enumerate(parameters):
        if parameter.name == "ctx" or (position == 0 and parameter.name in ("self", "cls")):
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
            raise InputError(
                f"{name} takes {star}{parameter.name} by position, and a model can only name its arguments",
                hint="give every parameter a name of its own; take many values as one list",
            )
        yield parameter, hints.get(parameter.name, Any)


def _default(value: Any) -> Schema:
    """The default as schema says it; nothing for one that JSON cannot hold."""
    try:
        return {"default": msgspec.json.decode(msgspec.json.encode(value))}
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return {}


def _describe(schema: Schema, fields: Mapping[str, str]) -> Schema:
    properties = schema.get("properties", {})
    described = {
        key: {**inner, "description": fields[key]}
        if key in fields and isinstance(inner, dict) and "description" not in inner
        else inner
        for key, inner in properties.items()
    }
    return {**schema, "properties": described}


def _plain_name(title: Any) -> str | None:
    """A title as a name every protocol takes: "Box[int]" becomes "Box_int"."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", title).strip("_")[:64] or None if isinstance(title, str) else None


def _own_doc(cls: Any) -> str:
    """The class's own docstring, but not the signature that dataclasses put in its place."""
    doc = getattr(cls, "__doc__", None)
    if not isinstance(cls, type) or not isinstance(doc, str):
        return ""
    return "" if dataclasses.is_dataclass(cls) and doc.startswith(f"{cls.__name__}(") else doc


# ---- the form of an answer --------------------------------------------------------------------

_WORDS = {"json": "json", "json_object": "json", "text": "text"}


def format_from(thing: Any, *, name: str | None = None, strict: bool | UnsetType = UNSET) -> ResponseFormat:
    """The response format for "json", "text", a JSON Schema, or any type that has one.

    The schema is the type's own: list[int] gives an array, which some providers do not take at the root.
    """
    if isinstance(thing, ResponseFormat):
        made = thing
    elif isinstance(thing, str):
        if thing not in _WORDS:
            raise InputError(f"{thing!r} is not a response format", hint='use "json", "text", a type or a JSON Schema')
        made = ResponseFormat(kind="json" if _WORDS[thing] == "json" else "text")
    elif isinstance(thing, Mapping):
        made = _format_from_dict(dict(thing))
    else:
        schema = schema_of(thing)
        words = schema.get("description") or (read_docstring(_own_doc(thing))[0] if isinstance(thing, type) else "")
        title = _plain_name(schema.get("title")) or "answer"
        made = ResponseFormat(kind="schema", schema=schema, name=title, description=words or None)
    if strict is not UNSET:
        made = msgspec.structs.replace(made, strict=strict)
    return msgspec.structs.replace(made, name=name) if name else made


def _format_from_dict(given: Schema) -> ResponseFormat:
    kind = given.get("type")
    if isinstance(kind, str) and kind in _WORDS:
        return ResponseFormat(kind="json" if _WORDS[kind] == "json" else "text")
    if kind != "json_schema":
        return ResponseFormat(
            kind="schema",
            schema=given,
            name=_plain_name(given.get("title")) or "answer",
            description=given["description"] if isinstance(given.get("description"), str) else None,
        )
    inner = given["json_schema"] if isinstance(given.get("json_schema"), dict) else given
    if not isinstance(inner.get("schema"), dict):
        raise InputError(
            "the response format has no schema",
            hint='write {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}, or the schema alone',
        )
    return ResponseFormat(
        kind="schema",
        schema=inner["schema"],
        name=_plain_name(inner.get("name")) or "answer",
        description=inner["description"] if isinstance(inner.get("description"), str) else None,
        strict=inner["strict"] if isinstance(inner.get("strict"), bool) else UNSET,
    )
