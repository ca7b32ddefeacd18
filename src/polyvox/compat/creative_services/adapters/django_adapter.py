"""Where the document has its registry and its tracker over Django. They come with the Django app, which is not there
yet: to ask for them says so."""

from __future__ import annotations

from typing import Any, NoReturn

from polyvox.compat.errors import named
from polyvox.errors import MissingExtraError

_WITH_APP = ("DjangoLLMRegistry", "DjangoUsageTracker")


class MissingAppError(MissingExtraError, ImportError):
    """Something comes with the Django app, and that is not there."""


def __getattr__(name: str) -> Any:
    """Say of the documented names what they wait for."""
    if name in _WITH_APP:
        _refuse(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _refuse(name: str) -> NoReturn:
    raise named(
        MissingAppError(
            f"{name} comes with the Django app of polyvox, which this version does not have",
            hint="use DictRegistry and InMemoryTracker of polyvox.compat.creative_services meanwhile",
        )
    )
