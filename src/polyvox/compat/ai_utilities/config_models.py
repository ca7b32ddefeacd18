"""The settings of AI Utilities, `AiSettings`. Pydantic's library for settings is loaded when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyvox.compat.ai_utilities.settings import AiSettings as AiSettings

__all__ = ["AiSettings"]


def __getattr__(name: str) -> Any:
    """The class, made on first use; MissingExtraError where its library is not installed."""
    if name != "AiSettings":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from polyvox.compat.ai_utilities.settings import AiSettings
    except ModuleNotFoundError as error:
        if error.name != "pydantic_settings":
            raise
        from polyvox.compat.errors import named
        from polyvox.errors import MissingExtraError

        raise named(MissingExtraError(
            "AiSettings needs pydantic-settings", hint="pip install 'polyvox[settings]'", sent="no"
        )) from None  # fmt: skip
    return AiSettings
