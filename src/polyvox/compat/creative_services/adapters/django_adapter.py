"""The document's registry and tracker over Django come with the Django app, which is not there yet: to import one says
so."""

from __future__ import annotations

from polyvox.compat.waiting import waiting

__all__: list[str] = []

__getattr__ = waiting(
    __name__,
    "the Django app of polyvox",
    {
        "DjangoLLMRegistry": "DictRegistry of polyvox.compat.creative_services",
        "DjangoUsageTracker": "InMemoryTracker of polyvox.compat.creative_services",
    },
)
