"""Setting up AI Utilities: a wizard that a person talks to, and the same without questions for scripts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyvox.compat.ai_utilities.setup.guidance import Guidance as Guidance
    from polyvox.compat.ai_utilities.setup.wizard import Answers as Answers
    from polyvox.compat.ai_utilities.setup.wizard import SetupResult as SetupResult
    from polyvox.compat.ai_utilities.setup.wizard import SetupWizard as SetupWizard

_ROOMS = {
    "Answers": "wizard",
    "Guidance": "guidance",
    "SetupResult": "wizard",
    "SetupWizard": "wizard",
}

__all__ = sorted(_ROOMS)  # noqa: PLE0605 - the names above, each once


def __getattr__(name: str) -> Any:
    """Each is loaded on first use."""
    if name in _ROOMS:
        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
