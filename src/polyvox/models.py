"""What is known of one model: its limits, its abilities, how long it lives and what it costs. Plain values; it
knows no provider, no file and no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace


class Price(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a model costs in one case, in USD per million tokens; None is not known, which is never 0.

    Attributes:
        input, output, cache_read, cache_write, cache_write_1h, reasoning, audio_input, audio_output, image_input:
            as `polyvox.types.Usage` counts them; what has no price of its own costs as what it is part of.
        other: prices of other units by the name of the unit, which says how many of them: "web_searches_kcount".
        above: holds when more tokens than this go in, for all of them.
        since: the ISO date from which it holds.
        hours: the times of day in UTC between which it holds, the first included.
        when: what the call must have been, for example {"service_tier": "flex"}. What such a case does not
            say costs as usual.
    """

    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None
    image_input: Decimal | None = None
    other: dict[str, Decimal] = {}
    above: int = 0
    since: str | None = None
    hours: tuple[str, str] | None = None
    when: dict[str, str] = {}

    @property
    def own(self) -> bool:
        """Whether it is a price of the user's own, which goes before all others for what it says."""
        return False

    def holds(self, at: datetime, input_tokens: int, told: Mapping[str, str]) -> bool:
        """Whether this is the case for a call at a time with so many tokens and of this kind."""
        at = at.astimezone(UTC) if at.tzinfo else at
        if self.since is not None and at.date().isoformat() < self.since:
            return False
        if self.hours is not None:
            start, end = self.hours
            clock = f"{at:%H:%M}"
            if not (start <= clock < end if start <= end else clock >= start or clock < end):
                return False
        if self.above and input_tokens <= self.above:
            return False
        return all(told.get(key) == value for key, value in self.when.items())


Standing = Literal["alive", "deprecated", "retired"]


class Model(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is known of a model at a provider. Limits are in tokens; None is not known.

    Attributes:
        id, aliases: the name on the wire, and the others that mean the same model.
        bare: the name without its provider finds it; else only the provider's patterns do.
        capabilities: words like "vision", "tools", "schema", "reasoning"; () is not known.
        released, retires: ISO dates; retires is the announced last day.
        deprecated: whether the provider advises against it, or the ISO date since when.
        successor: the id its provider names in its place.
        prices: the most particular case first; see `price`.
    """

    id: str
    provider: str
    aliases: tuple[str, ...] = ()
    bare: bool = False
    context: int | None = None
    max_output: int | None = None
    capabilities: tuple[str, ...] = ()
    released: str | None = None
    deprecated: bool | str = False
    retires: str | None = None
    successor: str | None = None
    prices: tuple[Price, ...] = ()

    @property
    def name(self) -> str:
        """The full name, "provider/model"."""
        return f"{self.provider}/{self.id}"

    def price(self, at: datetime, input_tokens: int = 0, when: Mapping[str, str] | None = None) -> Price | None:
        """What a call at this time costs, or None where nobody says; `at` without a zone is UTC.

        when tells what the call was, for example {"service_tier": "flex"} or {"processing": "batch"}.
        """
        told = when or {}
        held = [price for price in self.prices if price.holds(at, input_tokens, told)]
        own, table = [price for price in held if price.own], [price for price in held if not price.own]
        usual = next((price for price in table if not price.when), Price() if own else None)
        if usual is None:
            return None
        # The last to be laid over is the first in the list.
        for special in (*reversed([price for price in table if price.when]), *reversed(own)):
            said = {field: value for field in _AMOUNTS if (value := getattr(special, field)) is not None}
            usual = replace(usual, **said, other={**usual.other, **special.other})
        return usual

    def standing(self, today: date) -> Standing:
        """Whether it is alive on a day. A model whose last day is announced is deprecated until then."""
        if self.retires is not None and self.retires < today.isoformat():
            return "retired"
        since = self.deprecated
        if self.retires is not None or (since is True or (isinstance(since, str) and since <= today.isoformat())):
            return "deprecated"
        return "alive"

    def notice(self, today: date) -> str | None:
        """What whoever asks it on this day should know, in one sentence; None while it is alive."""
        standing = self.standing(today)
        if standing == "alive":
            return None
        if standing == "retired":
            text = f"{self.name} was retired after {self.retires}"
        elif self.retires is not None:
            text = f"{self.name} is deprecated: its last day is {self.retires}"
        else:
            text = f"{self.name} is deprecated"
        return f"{text}; its successor is {self.provider}/{self.successor}" if self.successor else text


_AMOUNTS = tuple(
    field.name
    for field in msgspec.structs.fields(Price)
    if field.name not in ("other", "above", "since", "hours", "when")
)


def problems_of(model: Model) -> Iterable[str]:
    """What cannot be among the facts of a model, a sentence each. Models are made without being checked, so that
    reading thousands takes no time; whoever takes one from outside asks here."""
    for field in ("id", "provider"):
        if not getattr(model, field).strip():
            yield f"{field}: is empty"
    for field in ("context", "max_output"):
        limit = getattr(model, field)
        if limit is not None and limit <= 0:
            yield f"{field}: is a number of tokens above 0, not {limit}"
    for field in ("released", "retires", "deprecated"):
        day = getattr(model, field)
        if isinstance(day, str) and not _is_date(day):
            yield f"{field}: is a date like 2026-11-21, not {day!r}"
    for price in model.prices:
        amounts = [getattr(price, field) for field in _AMOUNTS] + list(price.other.values())
        if any(amount is not None and not (amount.is_finite() and amount >= 0) for amount in amounts):
            yield "prices: an amount is a number from 0 up"


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
