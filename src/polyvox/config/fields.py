"""Every setting there is, and what its value must be. It reads no source and merges nothing."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from polyvox import dialects
from polyvox.catalog import AUTH_SCHEMES, url_problems
from polyvox.keys import Secret, is_secret_name, redact, secret_of
from polyvox.prices import overrides

Item = TypeVar("Item")
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


def _list(item: Callable[[Any], Item]) -> Callable[[Any], tuple[Item, ...]]:
    def parse(value: Any) -> tuple[Item, ...]:
        if isinstance(value, str):
            value = [part for part in (part.strip() for part in value.split(",")) if part]
        if isinstance(value, list | tuple | set | frozenset):
            return tuple(item(part) for part in value)
        raise ValueError(f"must be a list, not {_shown(value)}")

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


# ---- places, money and time --------------------------------------------------------------------

_CACHE_SERVERS = ("sqlite", "redis", "rediss", "unix")
_BUDGET_SERVERS = (*_CACHE_SERVERS, "postgresql", "postgres")


def _place(word: str, servers: tuple[str, ...]) -> Callable[[Any], str]:
    """A word for the usual place, a path, or a URL of one of these schemes."""

    def parse(value: Any) -> str:
        text = _name(value)
        scheme, is_url, rest = text.partition("://")
        if is_url and (scheme.lower().partition("+")[0] not in servers or not rest):
            raise ValueError(f'must be "{word}", a path, or a URL that begins with {", ".join(servers)}')
        # A bare word is more likely a slip than a file.
        if not is_url and text != word and ("\0" in text or not ("/" in text or Path(text).suffix)):
            raise ValueError(f'must be "{word}", a path such as ./{word}.db, or a URL, not {_shown(text)}')
        return text

    return parse


def _space(value: Any) -> str:
    text = _name(value)
    if len(text) > 200:
        raise ValueError("must be a name of at most 200 characters")
    return text


_MOST_DOLLARS = 9_000_000


def _dollars(value: Any) -> Decimal:
    try:
        # The text of a float is what was written; its value is not.
        given = isinstance(value, int | float | str | Decimal) and not isinstance(value, bool)
        amount = Decimal(str(value).strip()) if given else None
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite() or not 0 <= amount <= _MOST_DOLLARS:
        raise ValueError(f"must be USD from 0 to 9 million, such as 2.50, not {_shown(value)}")
    return amount


_WINDOWS = ("hour", "day", "week", "month", "year")
_LENGTH = re.compile(r"([0-9]{1,9})\s*([smhd])")
_LENGTHS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST = 36_525 * 86_400


def _window(value: Any) -> str:
    word = _name(value)
    length = _LENGTH.fullmatch(word)
    if word not in _WINDOWS and not (length and 0 < int(length[1]) * _LENGTHS[length[2]] <= _LONGEST):
        what = f"must be one of {', '.join(_WINDOWS)}, or a length such as 90m, 5h or 30d, not {_shown(value)}"
        raise ValueError(f"{what}{meant(word, _WINDOWS)}")
    return word


def _zone(value: Any) -> str:
    from zoneinfo import ZoneInfo  # it looks at the machine's files, and nearly nobody names a zone

    name = _name(value)
    try:
        if name != "UTC":
            ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise ValueError(f"must be a time zone such as Europe/Berlin, not {_shown(value)}") from None
    return name


def _percent(value: Any) -> int:
    percent = _count(1)(value)
    if percent > 1000:
        raise ValueError(f"must be percents from 1 to 1000, not {_shown(value)}")
    return percent


# ---- deployments ------------------------------------------------------------------------------

_LONGEST_NAME = 200
_NO_NAME = re.compile(r"[*?\[\]]|^@")  # patterns and aliases look so


def deployment_name(value: Any) -> str:
    """The name of a deployment; ValueError with "must be ..."."""
    name = _name(value)
    if name != value or not name.isprintable() or len(name) > _LONGEST_NAME or _NO_NAME.search(name):
        what = f"must be one line of at most {_LONGEST_NAME} characters, without *, ?, [ and ], and not begin with @"
        raise ValueError(f"{what}, not {_shown(value)}")
    return name


def _tier(value: Any) -> str:
    word = _name(value).lower()
    if not word.isprintable() or len(word) > _LONGEST_NAME:
        raise ValueError(f"must be one word, such as standard, not {_shown(value)}")
    return word


def _weight(value: Any) -> float:
    number = _number(value)
    if not 0 < number < math.inf:
        raise ValueError(f"must be a number above 0, not {_shown(value)}; active = false takes a deployment out")
    return number


def _finite_seconds(value: Any) -> float:
    seconds = _seconds(value)
    if seconds is None:
        raise ValueError("must be a number of seconds; leave it out for what the settings say")
    return seconds


def _share(value: Any) -> float:
    number = _number(value)
    if not 0 <= number <= 1:
        raise ValueError(f"must be from 0 to 1, not {_shown(value)}")
    return number


_LIMIT_SERVERS = ("redis", "rediss", "unix")


def _counted_at(value: Any) -> str:
    place = _name(value)
    scheme, _, rest = place.partition("://")
    if place != "memory" and (scheme.lower() not in _LIMIT_SERVERS or not rest):
        raise ValueError('must be "memory" or the URL of a Redis server')
    return place


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
LEDGER_FIELDS = {
    "enabled": Field(_flag),  # whether the command line writes its calls down
    "texts": Field(_one_of("none", "hashed", "full")),
    "database": Field(_name),
}
CACHE_FIELDS = {
    "enabled": Field(_flag),  # whether the command line gives answers again
    "place": Field(_place("memory", _CACHE_SERVERS)),
    "ttl": Field(_seconds),
    "max_entries": Field(_count(1)),
    "namespace": Field(_space),
}
# What `polyvox.pools.Routing` takes, and where limits are counted; a test holds the two together.
ROUTING_FIELDS = {
    "strategy": Field(_one_of("weighted", "least_busy", "fastest", "cheapest")),
    "first_token": Field(_finite_seconds),
    "hedge_after": Field(_finite_seconds),
    "hedge_share": Field(_share),
    "continue_streams": Field(_flag),
    "after_refusal": Field(_flag),
    "queue": Field(_count(0)),
    "limits": Field(_counted_at),
}
# Tables of settings, beside those whose names are the user's own.
OWN_TABLES = {"ledger": LEDGER_FIELDS, "cache": CACHE_FIELDS, "routing": ROUTING_FIELDS}

# What `polyvox.budgets.Budget` takes; a test holds the two together.
BUDGET_FIELDS = {
    "limit": Field(_dollars),
    "window": Field(_window),
    "zone": Field(_zone),
    **dict.fromkeys(("key", "user", "project", "tag", "model"), Field(_name)),
    "each": Field(_list(_one_of("key", "user", "project", "tag", "model")), is_list=True),
    "hard": Field(_flag),
    "unknown": Field(_one_of("refuse", "allow")),
    "warn_at": Field(_list(_percent), is_list=True),
}
BUDGETS_FIELDS = {"place": Field(_place("ledger", _BUDGET_SERVERS))}
"""What is said of all budgets; everything else in their table is a budget of that name."""

DEPLOYMENT_FIELDS: dict[str, Field] = {
    "model": Field(_name),
    "tier": Field(_tier),
    "weight": Field(_weight),
    "priority": Field(_count(0)),
    "api_key": Field(_key),
    "api_key_env": Field(_variable),
    "api_key_of": Field(_name),
    "base_url": Field(_base_url),
    "dialect": Field(_one_of(*dialects.NAMES)),
    "active": Field(_flag),
    "default": Field(_flag),
    "aliases": Field(_list(deployment_name), is_list=True),
    "timeout": Field(_finite_seconds),
    "max_tokens": Field(_count(1)),
    "temperature": Field(_temperature),
    "description": Field(_text),
}
"""What may be said of a deployment, besides its `limits` and its `price`; `polyvox.registry.Entry` explains it."""
LIMIT_FIELDS = dict.fromkeys(("concurrency", "requests_per_minute", "tokens_per_minute"), Field(_count(1)))
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9_-]*")


_NAMES = (*FIELDS, "aliases", "providers", "prices", "budgets", "deployments", *OWN_TABLES)


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
        elif name == "prices":
            yield from _prices(value)
        elif name == "budgets":
            yield from _budgets(value)
        elif name == "deployments":
            yield from deployments(value)
        elif name in OWN_TABLES:
            yield from _own_table((name,), OWN_TABLES[name], value)
        elif name in ("api_key", "base_url"):
            yield Problem((name,), f"belongs to a provider; say providers.NAME.{name}")
        else:
            yield Problem((name,), f"is not a setting{meant(name, _NAMES)}")


def _own_table(place: Key, fields: Mapping[str, Field], value: Any) -> Iterator[tuple[Key, Any] | Problem]:
    if not isinstance(value, Mapping):
        yield Problem(place, "must be a table")
        return
    for field, given in value.items():
        if field not in fields:
            near = meant(str(field), tuple(fields)) or f"; there are {', '.join(fields)}"
            yield Problem((*place, str(field)), f"is not a setting{near}")
        elif given is not None:
            yield _parsed((*place, field), fields[field], given)


def _budgets(value: Any) -> Iterator[tuple[Key, Any] | Problem]:
    if not isinstance(value, Mapping):
        yield Problem(
            ("budgets",), "must be tables with names, such as [budgets.daily]: a budget is counted by its name"
        )
        return
    for name, table in value.items():
        key = ("budgets", str(name))
        if name in BUDGETS_FIELDS:
            if table is not None:
                yield _parsed(key, BUDGETS_FIELDS[name], table)
        elif table is not None and not isinstance(table, Mapping):
            yield Problem(key, f"is not a setting; a budget is a table{meant(str(name), tuple(BUDGETS_FIELDS))}")
        elif table is not None:
            yield from _own_table(key, BUDGET_FIELDS, table)


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


def _prices(value: Any) -> Iterator[tuple[Key, Any] | Problem]:
    if not isinstance(value, Mapping):
        yield Problem(("prices",), "must be a table of models")
        return
    for name, table in value.items():
        place = ("prices", str(name))
        if not overrides.is_full_name(str(name)):
            yield Problem(place, overrides.NO_NAME)
        else:
            yield from price_of(place, table)


def price_of(place: Key, value: Any) -> Iterator[tuple[Key, Any] | Problem]:
    """Every price in a table as (key, parsed value), or as a Problem."""
    if not isinstance(value, Mapping):
        yield Problem(place, "must be a table of prices")
        return
    for field, given in value.items():
        reader = overrides.READERS.get(field)
        if reader is None:
            yield Problem((*place, str(field)), f"{overrides.UNKNOWN}{meant(str(field), (*overrides.READERS,))}")
        elif given is not None:
            yield _parsed((*place, field), Field(reader), given)


def deployments(value: Any) -> Iterator[tuple[Key, Any] | Problem]:
    """Every setting in the tables of deployments as (key, parsed value), or as a Problem."""
    if not isinstance(value, Mapping):
        yield Problem(("deployments",), "must be tables with names, such as [deployments.fast]")
        return
    for name, table in value.items():
        key = ("deployments", str(name))
        named = _parsed(key, Field(deployment_name), name)
        if isinstance(named, Problem):
            yield Problem(key, f"its name {named.what}")
        elif table is not None and not isinstance(table, Mapping):
            yield Problem(key, "must be a table")
        elif table is not None:
            yield from _deployment(key, table)


def _deployment(place: Key, table: Mapping[str, Any]) -> Iterator[tuple[Key, Any] | Problem]:
    for field, given in table.items():
        key = (*place, str(field))
        if given is None:
            continue
        if field == "limits":
            yield from _own_table(key, LIMIT_FIELDS, given)
        elif field == "price":
            yield from price_of(key, given)
        elif field in DEPLOYMENT_FIELDS:
            yield _parsed(key, DEPLOYMENT_FIELDS[field], given)
        else:
            known = (*DEPLOYMENT_FIELDS, "limits", "price")
            yield Problem(key, f"is not a setting of a deployment{meant(str(field), known)}")


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
