"""Every setting there is, and what its value must be. It reads no source and merges nothing."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from polyvox import dialects
from polyvox.catalog import AUTH_SCHEMES, url_problems
from polyvox.keys import Secret, is_secret_name, redact, secret_of

Key = tuple[str, ...]
"""A setting's place: ("timeout",) or ("providers", "openai", "base_url")."""


class Field(NamedTuple):
    """A setting's parser, which raises ValueError with "must be ...", and whether its value is a list."""

    parse: Callable[[Any], Any]
    is_list: bool = False


def _shown(value: Any) -> str:
    """A wrong value fit for an error: short, and nothing that looks like a key."""
    text = redact(str(value))
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"must be text, not {_shown(value)}")


def _name(value: Any) -> str:
    text = _text(value).strip()
    if not text:
        raise ValueError("must not be empty")
    return text


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"must be a number, not {_shown(value)}") from None
    if math.isnan(number):
        raise ValueError(f"must be a number, not {_shown(value)}")
    return number


def _seconds(value: Any) -> float | None:
    if isinstance(value, str) and value.strip().lower() in ("none", "inf"):
        return None
    number = _number(value)
    if number <= 0:
        raise ValueError(f'must be more than 0 seconds, or "none" for no limit, not {_shown(value)}')
    return None if math.isinf(number) else number


def _count(least: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        number = _number(value)
        if not number.is_integer() or not least <= number < 2**31:
            raise ValueError(f"must be a whole number from {least} up, not {_shown(value)}")
        return int(number)

    return parse


def _temperature(value: Any) -> float:
    number = _number(value)
    # No upper limit: providers differ in theirs and say so themselves.
    if number < 0 or math.isinf(number):
        raise ValueError(f"must be 0 or more, not {_shown(value)}")
    return number


_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    raise ValueError(f"must be true or false, not {_shown(value)}")


def _one_of(*words: str, fold: Callable[[str], str] = str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        word = fold(_text(value).strip())
        if word not in words:
            raise ValueError(f"must be one of {', '.join(words)}, not {_shown(value)}{meant(word, words)}")
        return word

    return parse


def _list(item: Callable[[Any], str]) -> Callable[[Any], tuple[str, ...]]:
    def parse(value: Any) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [part for part in (part.strip() for part in value.split(",")) if part]
        if isinstance(value, list | tuple | set | frozenset):
            return tuple(item(part) for part in value)
        raise ValueError(f"must be a list of texts, not {_shown(value)}")

    return parse


def _base_url(value: Any) -> str:
    url = _name(value).rstrip("/")
    problems = url_problems(url)
    if problems:
        raise ValueError(", ".join(problems))
    return url


def _proxy(value: Any) -> str:
    # A proxy may need a user and password, so only its form is checked.
    url = _name(value)
    if not re.match(r"https?://[^/\s]", url):
        raise ValueError("must begin with http:// or https://")
    return url


def _variable(value: Any) -> str:
    # The value is not repeated: what stands here by mistake is a key.
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value.strip()):
        raise ValueError("must be the name of an environment variable (the key itself does not go here)")
    return value.strip()


def _key(value: Any) -> Secret:
    if not isinstance(value, str | Secret) or not value:
        raise ValueError("must be text")
    return secret_of(value)


def _header_value(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    if not text.isprintable() or not text.isascii() or not isinstance(value, str):
        raise ValueError("must be one line of ASCII text")
    return text


LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

FIELDS: dict[str, Field] = {
    "model": Field(_name),
    "system": Field(_text),
    "timeout": Field(_seconds),
    "connect_timeout": Field(_seconds),
    "first_byte_timeout": Field(_seconds),
    "idle_timeout": Field(_seconds),
    "retries": Field(_count(0)),
    "temperature": Field(_temperature),
    "max_tokens": Field(_count(1)),
    "strict": Field(_flag),
    "log_level": Field(_one_of(*LEVELS, fold=str.upper)),
    "proxy": Field(_proxy),
    "ca_bundle": Field(_name),
    "pool_size": Field(_count(1)),
    "allow_http": Field(_flag),
}
"""The settings that are one value each; POLYVOX_ and the name in capitals is its variable."""

PROVIDER_FIELDS: dict[str, Field] = {
    "base_url": Field(_base_url),
    "api_key": Field(_key),
    "api_key_env": Field(_list(_variable), is_list=True),
    "model": Field(_name),
    "timeout": Field(_seconds),
    "dialect": Field(_one_of(*dialects.NAMES)),
    "quirks": Field(_list(_one_of(*dialects.QUIRKS)), is_list=True),
    "hosts": Field(_list(lambda value: _name(value).lower()), is_list=True),
    "models": Field(_list(_name), is_list=True),
    "auth": Field(_one_of(*AUTH_SCHEMES)),
    "auth_header": Field(_name),
    "local": Field(_flag),
    "title": Field(_text),
    "docs": Field(_text),
}
"""What may be said of a provider, besides its `headers` and `options`."""

_TABLES = ("headers", "options")
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9_-]*")


class Problem(NamedTuple):
    """A setting that cannot be used, and why."""

    key: Key
    what: str


def check(data: Mapping[str, Any]) -> Iterator[tuple[Key, Any] | Problem]:
    """Every setting in a source as (key, parsed value), or as a Problem. None means not given."""
    for name, value in data.items():
        if value is None:
            continue
        if name in FIELDS:
            yield _parsed((name,), FIELDS[name], value)
        elif name == "aliases":
            yield from _aliases(value)
        elif name == "providers":
            yield from _providers(value)
        elif name in ("api_key", "base_url"):
            yield Problem((name,), f"belongs to a provider; say providers.NAME.{name}")
        else:
            yield Problem((name,), f"is not a setting{meant(name, (*FIELDS, 'aliases', 'providers'))}")


def _parsed(key: Key, field: Field, value: Any) -> tuple[Key, Any] | Problem:
    try:
        return key, field.parse(value)
    except ValueError as error:
        return Problem(key, str(error))


def _aliases(value: Any) -> Iterator[tuple[Key, Any] | Problem]:
    if not isinstance(value, Mapping):
        yield Problem(("aliases",), "must be a table of names and models")
        return
    for name, model in value.items():
        alias = str(name).removeprefix("@")
        if not alias or alias != alias.strip():
            yield Problem(("aliases", str(name)), "must have a name without spaces around it")
        else:
            yield _parsed(("aliases", alias), Field(_name), model)


def _providers(value: Any) -> Iterator[tuple[Key, Any] | Problem]:
    if not isinstance(value, Mapping):
        yield Problem(("providers",), "must be a table of providers")
        return
    for name, fields in value.items():
        if not isinstance(name, str) or not _PROVIDER.fullmatch(name):
            yield Problem(("providers", str(name)), "a provider's name is lower-case letters, digits, - and _")
        elif not isinstance(fields, Mapping):
            yield Problem(("providers", name), "must be a table")
        else:
            for field, given in fields.items():
                if given is not None:
                    yield from _provider_field(("providers", name, str(field)), given)


def _provider_field(key: Key, value: Any) -> Iterator[tuple[Key, Any] | Problem]:
    field = key[-1]
    if field in PROVIDER_FIELDS:
        yield _parsed(key, PROVIDER_FIELDS[field], value)
    elif field not in _TABLES:
        yield Problem(key, f"is not a provider setting{meant(field, (*PROVIDER_FIELDS, *_TABLES))}")
    elif not isinstance(value, Mapping):
        yield Problem(key, "must be a table")
    elif field == "options":
        yield from (((*key, str(name)), item) for name, item in value.items())
    else:
        yield from (_header(key, str(name), item) for name, item in value.items())


def _header(key: Key, name: str, value: Any) -> tuple[Key, Any] | Problem:
    place = (*key, name.lower())
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        return Problem(place, "is not a header name")
    if isinstance(value, Secret) or is_secret_name(name):
        parsed = _parsed(place, Field(_key), value)
        return parsed if isinstance(parsed, Problem) else ((*key[:-1], "secret_headers", name.lower()), parsed[1])
    return _parsed(place, Field(_header_value), value)


def meant(word: str, words: tuple[str, ...]) -> str:
    """The end of a sentence that offers the nearest word, or nothing."""
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
