"""The document's generator of characters comes with the creative room, which is not there yet: to import it says so."""

from __future__ import annotations

from polyvox.compat.waiting import waiting

__all__: list[str] = []

__getattr__ = waiting(
    __name__,
    "the creative room of polyvox",
    "a handler of your own, a subclass of polyvox.compat.creative_services.BaseHandler,",
)
