"""Prices of the user's own, which go before the table's: read from settings or a program, and refused where they cannot
be prices. It reads no file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
from msgspec.structs import replace

from polyvox.errors import ConfigError
from polyvox.models import Model, Price

_CONDITIONS = ("above", "since", "hours", "when")
AMOUNTS = tuple(field.name for field in msgspec.structs.fields(Price) if field.name not in ("other", *_CONDITIONS))
"""The prices a row may say, in USD per million tokens."""
_MOST = Decimal(10) ** 9


class Override(Price, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A price that goes before those of the table, for what it says; the rest costs as it did. origin is who said it,
    such as "config.toml:12"."""

    origin: str = "argument"

    @property
    def own(self) -> bool:
        """Always."""
        return True


def overridden(model: Model, rows: Iterable[Override]) -> Model:
    """A model with prices of the user's own in front of its others, the most particular first.

    >>> from polyvox.models import Model
    >>> house = overridden(Model(id="m", provider="p"), [Override(input=Decimal(1), output=Decimal(2))])
    >>> house.prices[0].origin
    'argument'
    """
    table = [row for row in model.prices if not isinstance(row, Override)]
    mine = [row for row in model.prices if isinstance(row, Override)]
    # Rows said later go before rows said earlier that are as particular.
    mine = sorted([*reversed(list(rows)), *mine], key=_particular, reverse=True)
    return replace(model, prices=(*mine, *table))


def _particular(row: Override) -> tuple[int, bool, str, int]:
    return len(row.when), row.hours is not None, row.since or "", row.above


def overrides_of(said: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> dict[str, tuple[Override, ...]]:
    """Settings of the form {"provider/model": {"input": 1.5, …}} as rows, by the model's full name. Under "cases" a
    table may have further ones, each a row for calls of a kind. origins says where each setting comes from, by its
    dotted name ("prices.provider/model.input").

    ConfigError, with every problem, for what cannot be a price: NaN, infinite, negative, too large, or no number.

    >>> overrides_of({"vllm/house-7b": {"input": "0.5", "output": 1}})["vllm/house-7b"][0].output
    Decimal('1')
    """
    problems: list[str] = []
    found: dict[str, tuple[Override, ...]] = {}
    for name, table in said.items():
        reading = _Reading(f"prices.{name}", origins or {})
        if not is_full_name(name):
            reading.problem("", NO_NAME)
        found[name] = reading.rows(table)
        problems += reading.problems
    if problems:
        raise ConfigError("the prices cannot be used", problems=tuple(problems))
    return found


NO_NAME = 'is not the full name of a model, such as "provider/model"'


def is_full_name(name: str) -> bool:
    """Whether it has a provider and a model."""
    return all(name.partition("/")[::2])


class _Reading:
    """One row as it is read, and what is wrong with it."""

    def __init__(self, place: str, origins: Mapping[str, str]) -> None:
        self.place, self.origins = place, origins
        self.problems: list[str] = []

    def origin(self, field: str) -> str:
        """Where a field comes from, or the row where nobody says it of the field."""
        names = (f"{self.place}.{field}" if field else self.place, self.place)
        inside = (origin for name, origin in self.origins.items() if name.startswith(f"{self.place}."))
        return next((self.origins[name] for name in names if name in self.origins), next(inside, "argument"))

    def problem(self, field: str, text: str) -> None:
        name = f"{self.place}.{field}" if field else self.place
        self.problems.append(f"{self.origin(field)}: {name} {text}")

    def rows(self, table: Any) -> tuple[Override, ...]:
        """The rows; what is wrong is among the problems and left out."""
        if not isinstance(table, Mapping):
            self.problem("", "must be a table of prices")
            return ()
        facts: dict[str, Any] = {}
        for field, value in table.items():
            if field not in READERS:
                self.problem(field, UNKNOWN)
                continue
            try:
                facts[field] = READERS[field](value)
            except ValueError as error:
                self.problem(field, str(error))
        cases = facts.pop("cases", ())
        if not self.problems and not cases and not _says_price(facts):
            self.problem("", NOTHING)
        rows = [Override(origin=self.origin("cases"), **case) for case in cases]
        return (*rows, Override(origin=self.origin(""), **facts)) if _says_price(facts) else tuple(rows)


UNKNOWN = f"is no price; prices are {', '.join(AMOUNTS)}, and other for other units"
NOTHING = "says no price"


def _says_price(facts: Mapping[str, Any]) -> bool:
    return not facts.keys().isdisjoint((*AMOUNTS, "other"))


def _amount(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError("must be a number of USD per million tokens")  # noqa: TRY004 - one kind for all readers
    try:
        # The text of a float is what was written; its value is not.
        amount = value if isinstance(value, Decimal) else Decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError("must be a number of USD per million tokens") from None
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"must be a finite number from 0 up, not {amount}")
    # Sums stay exact only while numbers are of a size that prices have.
    if amount > _MOST or amount.normalize().as_tuple().exponent < -24:  # type: ignore[operator]
        raise ValueError("must be at most 1e9, with at most 24 digits behind the point")
    return amount


def _other(value: Any) -> dict[str, Decimal]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError("must be a table of prices by unit")
    return {name: _amount(amount) for name, amount in value.items()}


def _above(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError("must be a whole number of tokens from 0 up")
    return value


def _since(value: Any) -> str:
    text = value.isoformat() if type(value) is date else value
    try:
        if date.fromisoformat(text).isoformat() != text:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError("must be a date like 2026-11-21") from None
    return str(text)


def _hours(value: Any) -> tuple[str, str]:
    edges = tuple(value) if isinstance(value, list | tuple) else ()
    if len(edges) != 2 or not all(map(_is_clock, edges)) or edges[0] == edges[1]:
        raise ValueError('must be two different times of day in UTC, like ["22:00", "06:30"]')
    return edges


def _is_clock(value: Any) -> bool:
    return (
        isinstance(value, str)
        and len(value) == 5
        and value[2] == ":"
        and (value[:2] + value[3:]).isascii()
        and (value[:2] + value[3:]).isdigit()
        and value < "24:00"
        and value[3:] < "60"
    )


def _when(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(word, str) and word for word in (*value, *value.values())):
        raise ValueError('must be a table of words, like { service_tier = "flex" }')
    return dict(value)


def _cases(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list | tuple) or not all(isinstance(table, Mapping) for table in value):
        raise ValueError("must be a list of tables of prices")
    made = []
    for number, table in enumerate(value, 1):
        case: dict[str, Any] = {}
        for field, given in table.items():
            if field not in READERS or field == "cases":
                raise ValueError(f"has in its table {number} {field!r}, which {UNKNOWN}")
            try:
                case[field] = READERS[field](given)
            except ValueError as error:
                raise ValueError(f"has in its table {number} a wrong {field}: it {error}") from None
        if not _says_price(case):
            raise ValueError(f"has a table {number} that {NOTHING}")
        made.append(case)
    return made


READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(AMOUNTS, _amount),
    "other": _other,
    "above": _above,
    "since": _since,
    "hours": _hours,
    "when": _when,
    "cases": _cases,
}
"""What may be said of a model's price, and what reads it: a value of a row, or ValueError with "must be ..."."""
