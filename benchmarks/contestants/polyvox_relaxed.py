"""polyvox, awaited, with everything on, and a ledger whose durability is "relaxed"."""

from benchmarks.everything import Everything
from polyvox.telemetry import Prometheus

ASYNC = True


def make(base_url: str) -> Everything:
    """A client of its own."""
    return Everything(base_url, "relaxed", (Prometheus(),))
