"""What pricing a call costs, beside the one multiplication and addition of decimals that it could not do without."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from benchmarks.figures import Figure, Size, took
from polyvox.models import Model, Price
from polyvox.prices import bound, cost
from polyvox.types import Message, Request, Text, Usage

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PRICES = (
    Price(above=200_000, input=Decimal(6), output=Decimal("22.5"), cache_read=Decimal("0.6"), since="2026-01-01"),
    Price(input=Decimal(3), output=Decimal(15), cache_read=Decimal("0.3"), cache_write=Decimal("3.75")),
)
MODEL = Model(id="m", provider="p", max_output=4096, prices=PRICES)
PLAIN = Usage(input=1200, output=340, source="provider")
FULL = Usage(
    input=9000, output=800, cache_read=6000, cache_write=1200, cache_write_by_ttl={"5m": 1000, "1h": 200},
    reasoning=300, audio_input=50, server_tools={}, source="provider",
)  # fmt: skip
REQUEST = Request("m", (Message("user", (Text("Hello"),)),), max_tokens=500)


def measure(size: Size) -> list[Figure]:
    """All figures of prices."""
    price, count, total = Decimal("0.000003"), Decimal(1200), Decimal("0.0042")
    bare = took(size._replace(times=size.times * 10), lambda: count * price + total).wall
    works = {
        "cost of a plain usage": lambda: cost(PLAIN, MODEL, at=NOON),
        "cost of a usage with all there is": lambda: cost(FULL, MODEL, at=NOON),
        "the most that a short request can cost": lambda: bound(REQUEST, MODEL, bytes_out=200, at=NOON),
    }
    return [Figure(name, took(size, work).wall, "µs", "decimal sum", bare) for name, work in works.items()]
