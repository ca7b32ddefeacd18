"""polyvox, awaited, with a pool of three deployments that have limits: all of them at the benchmark's server."""

from benchmarks.contestants.polyvox_async import Polyvox
from polyvox import AsyncClient
from polyvox.keys import Secret
from polyvox.limits import Limits
from polyvox.registry import Entry

ASYNC = True

LIMITS = Limits(concurrency=10_000, requests_per_minute=10**9, tokens_per_minute=10**12)


class Pooled(Polyvox):
    """One client of three deployments."""

    def __init__(self, base_url: str) -> None:
        entries = [
            Entry(f"bench-{number}", "bench", tier="standard", base_url=base_url, api_key=Secret("test"), limits=LIMITS)
            for number in range(3)
        ]
        self.client = AsyncClient(tier="standard", registry=entries)


def make(base_url: str) -> Pooled:
    """A client of its own."""
    return Pooled(base_url)
