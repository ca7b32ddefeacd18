"""A deployment as a row: which model with which key, for which tier, within which limits. It knows no provider and
reads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, force_setattr

from polyvox.config.fields import DEPLOYMENT_FIELDS, Field, Problem, deployment_name, price_of
from polyvox.errors import ConfigError, InputError
from polyvox.keys import MASK, Secret, redact
from polyvox.limits import NO_LIMITS, Limits

TIERS = {
    "economy": "many calls at low cost",
    "standard": "a balance of quality and cost",
    "premium": "the best quality",
    "local": "on this machine alone: private, and without a network",
}
"""The tiers that mean something to us, with what they are for; a registry may have any others."""
LOCAL = "local"


def nearly(name: str, names: Iterable[str]) -> str:
    """A question for a hint, with a space behind it, where one of some names is nearly this one; else nothing.

    >>> nearly("premum", ["economy", "premium"])
    "did you mean 'premium'? "
    """
    import difflib

    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {near[0]!r}? " if near else ""


class Entry(Struct, frozen=True):
    """A deployment by name. ConfigError, with all that is wrong, for one that cannot work.

    Attributes:
        name, aliases: what it is asked for by.
        model: "provider/model", or whatever else a Client takes; with base_url the model as that server has it.
        tier: economy, standard, premium, local or a word of the user's own, in any case; kept in lower case.
        weight: its share of the calls among those of its priority.
        priority: 0 is asked first; a group is tried whole before the next.
        api_key: the key itself. api_key_env: the variable that has it. api_key_of: its name in the key store. Without
            any, the provider's own.
        base_url, dialect: another address than the provider's, and the protocol spoken there.
        limits: how much it takes.
        price: what it costs, in the form of a `[prices."provider/model"]` table.
        active: False takes it out without forgetting it.
        default: it answers where nobody says which.
        timeout: seconds for a whole call; max_tokens, temperature: for requests that say none. None is what the
            settings say.
        description: for people.
        origin: where it was said: "argument", "row", "env NAME" or "file:line".

    >>> Entry("fast", "openai/gpt-5.4-mini", tier="Economy", api_key=Secret("sk-not-a-real-key"))
    Entry('fast', 'openai/gpt-5.4-mini', tier='economy', api_key='***')
    """

    name: str
    model: str
    tier: str | None = None
    weight: float = 1.0
    priority: int = 0
    api_key: Secret | None = None
    api_key_env: str | None = None
    api_key_of: str | None = None
    base_url: str | None = None
    dialect: str | None = None
    limits: Limits = NO_LIMITS
    price: Mapping[str, Any] | None = None
    active: bool = True
    default: bool = False
    aliases: tuple[str, ...] = ()
    timeout: float | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    description: str = ""
    origin: str = "argument"

    def __post_init__(self) -> None:
        """Refuse what cannot work, and keep the rest in one form."""
        problems = list(_settled(self))
        if problems:
            shown = redact(str(self.name))[:80]
            raise ConfigError(
                f"the deployment {shown!r} cannot be used",
                problems=tuple(f"{self.origin}: {problem}" for problem in problems),
                hint="see polyvox.registry.Entry for what may be said of a deployment",
            )

    def __repr__(self) -> str:
        """What differs from the defaults, without the key."""
        said = ", ".join(f"{field}={value!r}" for field, value in self.describe().items() if field not in _NAMED)
        return f"Entry({self.name!r}, {redact(self.model)!r}{f', {said}' if said else ''})"

    __str__ = __repr__

    def __hash__(self) -> int:
        """By name and model: a price is a table."""
        return hash((self.name, self.model))

    @property
    def usual(self) -> dict[str, Any]:
        """Fields of a request as they are for whoever says none of his own."""
        said = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        return {name: value for name, value in said.items() if value is not None}

    def describe(self) -> dict[str, Any]:
        """What was said of it as plain values, without the key."""
        found: dict[str, Any] = {}
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if field.name in _NAMED or value != field.default:
                found[field.name] = _plain(field.name, value)
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and its aliases."""
        return (self.name, *self.aliases)


_NAMED = ("name", "model")


def _plain(field: str, value: Any) -> Any:
    if field == "api_key":
        return MASK
    if isinstance(value, Limits):
        return {name: limit for name, limit in asdict(value).items() if limit is not None}
    if field == "price":
        return msgspec.to_builtins(value)
    if isinstance(value, tuple):
        return list(value)
    return redact(value) if isinstance(value, str) else value


def _settled(entry: Entry) -> Iterator[str]:
    """Put each field into its one form; what is wrong with it, a sentence each."""
    for field, reader in _READERS.items():
        value = getattr(entry, field)
        if value is None and field not in _NAMED:
            continue
        try:
            force_setattr(entry, field, reader.parse(value))
        except ValueError as error:
            yield f"{field}: {error}"
    limits: Any = entry.limits
    if not isinstance(limits, Limits):
        yield "limits: must be Limits"
    if entry.price is not None:
        table: dict[str, Any] = {}
        for item in price_of(("price",), entry.price):
            if isinstance(item, Problem):
                yield f"{'.'.join(item.key)}: {item.what}"
            else:
                table[item[0][-1]] = item[1]
        force_setattr(entry, "price", table)
    if entry.dialect is not None and entry.base_url is None:
        yield "dialect: goes with base_url; a provider speaks its own"


_READERS: dict[str, Field] = {"name": Field(deployment_name), **DEPLOYMENT_FIELDS}


def clashes(entries: Iterable[Entry]) -> Iterator[tuple[Entry, str]]:
    """Entries that cannot be told apart by a name, each with why."""
    owners: dict[str, Entry] = {}
    for entry in entries:
        for name in entry.names:
            other = owners.setdefault(name, entry)
            if other is not entry:
                yield entry, f"{name!r} means {other.name!r} too, at {other.origin}"


def tier_word(tier: Any) -> str:
    """A tier as it is kept; InputError for what is no word."""
    try:
        return str(DEPLOYMENT_FIELDS["tier"].parse(tier))
    except ValueError as error:
        raise InputError(f"tier {error}", hint=f"tiers are {', '.join(TIERS)}, and words of your own") from None
