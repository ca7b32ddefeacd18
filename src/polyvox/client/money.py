"""What calls of one deployment cost: its protocol's reading of an answer, and the catalog's prices. It asks nobody."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from polyvox import tokens
from polyvox.dialects.billing import billed
from polyvox.models import Model
from polyvox.prices import cost, most, served
from polyvox.types import Answered, Cost, Request, Response, Usage

# What the price table calls what is done, where that changes how counts are read; see `prices.cost`.
_OPERATIONS = {"embeddings": "embeddings"}


_NAMES = 256
"""Names of models that are looked up once: servers answer with few."""


def _now() -> datetime:
    return datetime.now(UTC)


class PriceList:
    """See `engine.contract.Money`. info gives what is known of a model of a provider."""

    __slots__ = ("_dialect", "_info", "_model", "_now", "_operation", "_provider")

    def __init__(
        self,
        info: Callable[[str, str], Model | None],
        provider: str,
        model: str,
        dialect: str,
        operation: str = "chat",
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._info = functools.lru_cache(_NAMES)(info)
        self._provider = provider
        self._model = model
        self._dialect = dialect
        self._operation = operation
        self._now = now

    def of(self, operation: str) -> PriceList:
        """The same for another operation of the same model."""
        word = _OPERATIONS.get(operation, operation)
        return PriceList(self._info, self._provider, self._model, self._dialect, word, self._now)

    def at(self, info: Callable[[str, str], Model | None]) -> PriceList:
        """The same, where something else is known of models."""
        return PriceList(info, self._provider, self._model, self._dialect, self._operation, self._now)

    def bill(self, request: Any, answer: Response | Answered) -> Cost:
        """See `Money.bill`."""
        when, units = billed(answer, self._dialect, _tier(request))
        model = served(self._info, self._provider, answer.model, self._model)
        return cost(answer.usage, model, at=self._now(), told=when, units=units, operation=self._operation)

    def most(self, request: Any, bytes_out: int) -> Decimal | None:
        """See `Money.most`."""
        return most(request, self._info(self._provider, self._model), bytes_out=bytes_out, at=self._now())

    def begun(self, request: Any, partial: Response) -> tuple[Usage, Cost]:
        """See `Money.begun`."""
        usage = partial.usage
        if usage.source == "missing" or usage.output is None:
            usage = _estimated(request, partial, self._model)
        answer = replace(partial, usage=usage)
        return usage, self.bill(request, answer)


def _tier(request: Any) -> str | None:
    tier = getattr(request, "service_tier", None)
    return tier if isinstance(tier, str) else None


def _estimated(request: Any, partial: Response, model: str) -> Usage:
    """What an answer that broke off took as far as anybody can see; what the provider did say is kept."""
    told = partial.usage
    asked = told.input
    if asked is None and isinstance(request, Request):
        asked = tokens.count(request, model).tokens
    written = tokens.count((partial.text or "") + partial.reasoning, model).tokens
    written = max(written, told.output or 0)
    total = None if asked is None else asked + written
    return replace(told, input=asked, output=written, total=total, source="estimated")
