"""TTT by the names its document gives: ask, stream and chat with every model, in the cloud or on this machine. The
names, each loaded on first touch; what they do, the core does."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # the name type checkers know, without the price of loading typing
if TYPE_CHECKING:
    from typing import Any

    from polyvox.compat.names import AIError as AIError
    from polyvox.compat.names import APIKeyError as APIKeyError
    from polyvox.compat.names import BackendNotAvailableError as BackendNotAvailableError
    from polyvox.compat.names import ConfigurationError as ConfigurationError
    from polyvox.compat.names import ModelNotFoundError as ModelNotFoundError
    from polyvox.compat.names import RateLimitError as RateLimitError
    from polyvox.compat.names import ToolExecutionError as ToolExecutionError
    from polyvox.compat.ttt.api import achat as achat
    from polyvox.compat.ttt.api import ask as ask
    from polyvox.compat.ttt.api import ask_async as ask_async
    from polyvox.compat.ttt.api import chat as chat
    from polyvox.compat.ttt.api import stream as stream
    from polyvox.compat.ttt.api import stream_async as stream_async
    from polyvox.compat.ttt.backends import Backend as Backend
    from polyvox.compat.ttt.backends import BaseBackend as BaseBackend
    from polyvox.compat.ttt.backends import CloudBackend as CloudBackend
    from polyvox.compat.ttt.backends import LocalBackend as LocalBackend
    from polyvox.compat.ttt.config import Config as Config
    from polyvox.compat.ttt.config import ConfigLoader as ConfigLoader
    from polyvox.compat.ttt.config import add_loader as add_loader
    from polyvox.compat.ttt.config import configure as configure
    from polyvox.compat.ttt.config import get_config as get_config
    from polyvox.compat.ttt.models import ModelInfo as ModelInfo
    from polyvox.compat.ttt.models import ModelRegistry as ModelRegistry
    from polyvox.compat.ttt.models import model_registry as model_registry
    from polyvox.compat.ttt.responses import AIResponse as AIResponse
    from polyvox.compat.ttt.routing import Router as Router
    from polyvox.compat.ttt.routing import Selection as Selection
    from polyvox.compat.ttt.session import AsyncChatSession as AsyncChatSession
    from polyvox.compat.ttt.session import ChatSession as ChatSession

_ROOMS = {
    "polyvox.compat.names": (
        "AIError", "APIKeyError", "BackendNotAvailableError", "ConfigurationError", "ModelNotFoundError",
        "RateLimitError", "ToolExecutionError",
    ),
    "polyvox.compat.ttt.api": ("achat", "ask", "ask_async", "chat", "stream", "stream_async"),
    "polyvox.compat.ttt.backends": ("Backend", "BaseBackend", "CloudBackend", "LocalBackend"),
    "polyvox.compat.ttt.config": ("Config", "ConfigLoader", "add_loader", "configure", "get_config"),
    "polyvox.compat.ttt.models": ("ModelInfo", "ModelRegistry", "model_registry"),
    "polyvox.compat.ttt.responses": ("AIResponse",),
    "polyvox.compat.ttt.routing": ("Router", "Selection"),
    "polyvox.compat.ttt.session": ("AsyncChatSession", "ChatSession"),
}  # fmt: skip
_HOME = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the list


def __getattr__(name: str) -> Any:
    """Load a name's room on first touch (PEP 562)."""
    room = _HOME.get(name)
    if room is None and f"{__name__}.{name}" in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if room is None:
        from polyvox.compat.ttt.later import NAMES

        if name in NAMES:
            NAMES[name](name)
        raise AttributeError(f"module 'polyvox.compat.ttt' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(room), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
