"""One voice for every model: ask any language model, get a faithful answer or an honest error.
The public names, each loaded on first touch; importing this does no I/O."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # the name type checkers know, without the price of loading typing
if TYPE_CHECKING:
    from typing import Any

    from polyvox.backends import register_backend as register_backend
    from polyvox.backends import unregister_backend as unregister_backend
    from polyvox.catalog import add_model as add_model
    from polyvox.client import AsyncChat as AsyncChat
    from polyvox.client import AsyncClient as AsyncClient
    from polyvox.client import AsyncStream as AsyncStream
    from polyvox.client import Chat as Chat
    from polyvox.client import Client as Client
    from polyvox.client import Stream as Stream
    from polyvox.client.functions import achat as achat
    from polyvox.client.functions import ask as ask
    from polyvox.client.functions import ask_async as ask_async
    from polyvox.client.functions import ask_batch as ask_batch
    from polyvox.client.functions import chat as chat
    from polyvox.client.functions import embed as embed
    from polyvox.client.functions import embed_async as embed_async
    from polyvox.client.functions import stream as stream
    from polyvox.client.functions import stream_async as stream_async
    from polyvox.config import configure as configure
    from polyvox.errors import PolyvoxError as PolyvoxError
    from polyvox.keys import Secret as Secret
    from polyvox.media import Pictures as Pictures
    from polyvox.media import Speech as Speech
    from polyvox.media import Transcript as Transcript
    from polyvox.stored import Batch as Batch
    from polyvox.stored import StoredFile as StoredFile
    from polyvox.types import Audio as Audio
    from polyvox.types import CacheHint as CacheHint
    from polyvox.types import Citation as Citation
    from polyvox.types import Cost as Cost
    from polyvox.types import Embeddings as Embeddings
    from polyvox.types import Event as Event
    from polyvox.types import File as File
    from polyvox.types import Image as Image
    from polyvox.types import Loss as Loss
    from polyvox.types import Message as Message
    from polyvox.types import Opaque as Opaque
    from polyvox.types import Reasoning as Reasoning
    from polyvox.types import Refusal as Refusal
    from polyvox.types import Request as Request
    from polyvox.types import Response as Response
    from polyvox.types import ResponseFormat as ResponseFormat
    from polyvox.types import Text as Text
    from polyvox.types import Thinking as Thinking
    from polyvox.types import Tool as Tool
    from polyvox.types import ToolCall as ToolCall
    from polyvox.types import ToolChoice as ToolChoice
    from polyvox.types import ToolResult as ToolResult
    from polyvox.types import Usage as Usage
    from polyvox.types import Video as Video
    from polyvox.verdicts import Ranking as Ranking
    from polyvox.verdicts import Verdicts as Verdicts

_ROOMS = {
    "polyvox.backends": ("register_backend", "unregister_backend"),
    "polyvox.catalog": ("add_model",),
    "polyvox.client": ("AsyncChat", "AsyncClient", "AsyncStream", "Chat", "Client", "Stream"),
    "polyvox.client.functions": (
        "achat", "ask", "ask_async", "ask_batch", "chat", "embed", "embed_async", "stream", "stream_async",
    ),
    "polyvox.config": ("configure",),
    "polyvox.errors": ("PolyvoxError",),
    "polyvox.keys": ("Secret",),
    "polyvox.media": ("Pictures", "Speech", "Transcript"),
    "polyvox.stored": ("Batch", "StoredFile"),
    "polyvox.types": (
        "Audio", "CacheHint", "Citation", "Cost", "Embeddings", "Event", "File", "Image", "Loss", "Message", "Opaque",
        "Reasoning", "Refusal", "Request", "Response", "ResponseFormat", "Text", "Thinking", "Tool", "ToolCall",
        "ToolChoice", "ToolResult", "UNSET", "Usage", "Video",
    ),
    "polyvox.verdicts": ("Ranking", "Verdicts"),
    "importlib.metadata": ("__version__",),
}  # fmt: skip
_HOME = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = sorted(set(_HOME) - {"__version__"})  # noqa: PLE0605 - the table above is the list


def __getattr__(name: str) -> Any:
    """Load a public name's room on first touch (PEP 562)."""
    room = _HOME.get(name)
    if room is None:
        raise AttributeError(f"module 'polyvox' has no attribute {name!r}")
    value = import_module(room).version("polyvox") if name == "__version__" else getattr(import_module(room), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
