"""Which model a call is priced as, and calls of the past priced anew from what was kept of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeAlias

from polyvox.models import Model
from polyvox.prices.bill import cost
from polyvox.prices.values import Bill
from polyvox.types import Usage

Info: TypeAlias = Callable[[str, str], Model | None]
"""What is known of a model at a provider, such as `Catalog.info`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What marks one day's state of a model: a date, or the number of a release.
_MARK = re.compile(r"[-@:]v?[0-9]{3,}[0-9:-]*|[-@:]latest")


def served(info: Info, provider: str, answered: str | None, asked: str) -> Model | None:
    """The model whose prices a call has: the one that answered, as far as that is known, else the one asked for.

    None where an unknown model answered, even if the one asked for is known: what a router chose has another price.
    Of a model and a day's state of it the more particular counts, whichever of the two was asked for.

    >>> from polyvox.catalog import load
    >>> served(load().info, "openai", "gpt-5-2025-08-07", "gpt-5").name
    'openai/gpt-5'
    >>> served(load().info, "openai", "no-such-model", "gpt-5") is None
    True
    """
    wanted = info(provider, asked)
    if not answered or answered == asked:
        return wanted
    bare = answered.rpartition("/")[2]
    if wanted is not None and _is_state(asked, answered):
        return wanted
    found = info(provider, answered) or (info(provider, bare) if bare != answered else None)
    if found is not None or wanted is None:
        return found
    names = (wanted.id, *wanted.aliases, asked, asked.rpartition("/")[2])
    spelt = {bare.casefold(), answered.casefold()}
    same = any(name.casefold() in spelt or _is_state(answered, name) or _is_state(bare, name) for name in names)
    return wanted if same else None


def _is_state(particular: str, name: str) -> bool:
    """Whether one name is the other with a day's mark at its end."""
    rest = particular[len(name) :]
    return particular.casefold().startswith(name.casefold()) and _MARK.fullmatch(rest) is not None


class Kept(Protocol):
    """What is read of a call of the past: columns of the ledger, started in microseconds since the epoch."""

    @property
    def provider(self) -> str:
        """Who was asked."""

    @property
    def asked(self) -> str:
        """The model that was asked for."""

    @property
    def model(self) -> str:
        """The model that answered, as it names itself."""

    @property
    def started(self) -> int:
        """When it began."""

    @property
    def operation(self) -> str:
        """What was asked for, such as "chat"."""

    @property
    def usage(self) -> Usage:
        """Its counts."""

    @property
    def own_cache(self) -> bool:
        """Whether it was answered from our own cache."""

    @property
    def cost_how(self) -> Mapping[str, Any] | None:
        """How its cost came about: `Bill.how`."""


def again(call: Kept, info: Info) -> Bill | None:
    """What a call of the past costs by the prices of now for its time; None to leave it as it is, which is right for an
    answer from our own cache and for a call of which no usage is known.

    It reads the usage, and of how it was priced (`Bill.how`) the words and units that decided. So the same table
    gives the same amount, without the answer.
    """
    if call.own_cache or call.usage.source == "missing":
        return None
    how = call.cost_how or {}
    at = _EPOCH + timedelta(microseconds=call.started)
    model = served(info, call.provider, call.model, call.asked)
    return cost(
        call.usage, model, at=at, told=_words(how.get("when")), units=_counts(how.get("units")),
        operation=call.operation,
    )  # fmt: skip


def _words(value: Any) -> dict[str, str]:
    """What was written down; what somebody else wrote there says nothing."""
    if not isinstance(value, Mapping):
        return {}
    return {key: word for key, word in value.items() if isinstance(key, str) and isinstance(word, str)}


def _counts(value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping):
        return {}
    return {key: count for key, count in value.items() if isinstance(key, str) and type(count) is int}
