"""What may be said in TTT's configuration, and what reads each value: the core's own rules, under TTT's names. It knows
no source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyvox.compat.ttt.config import ALIASES, Key
from polyvox.config.fields import CACHE_FIELDS, FIELDS, PROVIDER_FIELDS, meant

Parser = Callable[[Any], Any]

_BUILT_IN = ("cloud", "local")
_NAME, _FLAG = FIELDS["model"].parse, FIELDS["strict"].parse


def _names(value: Any) -> tuple[str, ...]:
    items = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) and item for item in items):
        raise ValueError("must be a list of names")
    return tuple(items)


def _engine(value: Any) -> str:
    if value not in ("polyvox", "litellm"):
        raise ValueError('must be "polyvox" or "litellm"')
    return str(value)


def _cache(value: Any) -> Any:
    """Whether answers are kept, or where: memory, a path, a URL."""
    try:
        return _FLAG(value)
    except ValueError:
        return CACHE_FIELDS["place"].parse(value)


OF_BACKEND: dict[str, Parser] = {
    "model": _NAME,
    "timeout": FIELDS["timeout"].parse,
    "retries": FIELDS["retries"].parse,
    "base_url": _NAME,
    "api_key": PROVIDER_FIELDS["api_key"].parse,
    "engine": _engine,
    "pull": _FLAG,
    "cache": _cache,
}
"""What may be said of a backend; one of the user's own may have more."""

_PLAIN: dict[Key, Parser] = {
    ("models", "default"): _NAME,
    ("backends", "default"): _NAME,
    ("backends", "enable_fallbacks"): _FLAG,
    ("backends", "fallback_order"): _names,
    **{(name,): FIELDS[name].parse for name in ("timeout", "retries", "temperature", "max_tokens", "system")},
}
NAMES = f"there are {', '.join(map('.'.join, (*_PLAIN, ALIASES)))}, and of a backend {', '.join(OF_BACKEND)}"
"""All settings there are, in words."""

_TABLES = {ALIASES[:1], ALIASES, ("backends",), *[("backends", name) for name in _BUILT_IN]}


def parsed(key: Key, value: Any) -> Any:
    """A setting's value; ValueError, in words that follow the setting's name, for one that cannot be or that there is
    not."""
    if key in _PLAIN:
        return _PLAIN[key](value)
    if key in _TABLES:
        raise ValueError("must be a table of settings")
    if len(key) == 3 and key[:2] == ALIASES:
        return _NAME(value)
    if len(key) > 2 and key[0] == "backends":
        if len(key) == 3 and key[2] in OF_BACKEND:
            return OF_BACKEND[key[2]](value)
        if key[1] not in _BUILT_IN:
            return value  # a backend of the user's own knows what it takes
    raise ValueError(f"is not a setting{meant('.'.join(key), _known(key))}")


def _known(key: Key) -> tuple[str, ...]:
    if key[0] == "backends" and len(key) > 2:
        return tuple([f"backends.{key[1]}.{name}" for name in OF_BACKEND])
    return (*[".".join(plain) for plain in _PLAIN], ".".join(ALIASES))
