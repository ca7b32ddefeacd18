"""The interface of the document on the LLM service module: `polyvox.compat.llm_service` stands where it prints `app`.
What is asked and answered stands in `models`, who answers in `services`; neither does anything the core does not."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # the name type checkers know, without the price of loading typing
if TYPE_CHECKING:
    from typing import Any

__all__ = ["models", "services"]


def __getattr__(name: str) -> Any:
    """Load `models` or `services` on first touch (PEP 562)."""
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


def constant(name: str) -> Any:
    """What `services.llm.constants` says at this moment. The models' defaults are asked for here, so that `models`
    imports nothing of `services`."""
    return getattr(import_module(f"{__name__}.services.llm.constants"), name)
