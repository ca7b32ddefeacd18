"""The key of a cached answer, as AI Utilities' document has it: one digest of all that was asked. It knows no cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import PurePath
from typing import Any

import msgspec

from polyvox.compat.errors import named
from polyvox.errors import InputError


def _generate_cache_key(prompt: str, provider: str, model: str, temperature: float, **kwargs: Any) -> str:
    """64 hexadecimal digits: SHA-256 over the JSON of what was asked, the same in every process.

    Whatever shapes the answer goes in kwargs (system, tools, max_tokens, tenant, images); their order says nothing,
    white space in the prompt does. 0 and 0.0 are one temperature. Where all of it is JSON, the digest is the one that
    the document's own function gives. Bytes, paths, sets, models and classes are told by what is in them; InputError,
    naming it, for an object that only its address tells from another.

    >>> _generate_cache_key("Hi", "openai", "gpt-4", 0) == _generate_cache_key("Hi", "openai", "gpt-4", 0.0)
    True
    """
    for name, text in (("prompt", prompt), ("provider", provider), ("model", model)):
        if not isinstance(text, str):
            raise named(InputError(f"{name} is text, not {type(text).__name__}", param=name))
    if temperature is not None and (isinstance(temperature, bool) or not isinstance(temperature, int | float)):
        raise named(InputError(f"temperature is a number, not {type(temperature).__name__}", param="temperature"))
    material = {
        "prompt": prompt,
        "provider": provider,
        "model": model,
        # Adding 0.0 makes one number of 0, 0.0 and -0.0.
        "temperature": None if temperature is None else temperature + 0.0,
        "kwargs": sorted((name, _plain(value, name)) for name, value in kwargs.items()),
    }
    return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()


def _plain(value: Any, name: str) -> Any:
    """A value as JSON. What is no JSON becomes a pair of what it is and what is in it, which no JSON object looks
    like by chance."""
    try:
        return _rendered(value)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        raise named(InputError(
            f"{name} holds a {type(value).__name__}, which cannot be part of a key",
            hint="give its content as text, numbers, lists and dicts", param=name,
        )) from None  # fmt: skip


def _rendered(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_rendered(item) for item in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _rendered(item) for key, item in value.items()}
        return _tagged("mapping", _in_order([[_rendered(key), _rendered(item)] for key, item in value.items()]))
    if isinstance(value, AbstractSet):
        return _tagged("set", _in_order([_rendered(item) for item in value]))
    if isinstance(value, bytes | bytearray | memoryview):
        return _tagged("bytes", hashlib.sha256(value).hexdigest())
    if isinstance(value, PurePath):
        return _tagged("path", str(value))
    if isinstance(value, type):
        return _tagged("class", [f"{value.__module__}.{value.__qualname__}", _schema(value)])
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    dumped = getattr(value, "model_dump", None)  # a model of pydantic's
    content = dumped(mode="python") if callable(dumped) else msgspec.to_builtins(value, order="deterministic")
    return _tagged(kind, _rendered(content))


def _schema(kind: type) -> Any:
    """The shape that a class describes, where it describes one: two versions of a class want different answers."""
    described = getattr(kind, "model_json_schema", None)
    if callable(described):
        return _rendered(described())
    return _rendered({field: str(hint) for field, hint in getattr(kind, "__annotations__", {}).items()})


def _tagged(kind: str, content: Any) -> Any:
    return {"\x00polyvox": [kind, content]}


def _in_order(items: list[Any]) -> list[Any]:
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
