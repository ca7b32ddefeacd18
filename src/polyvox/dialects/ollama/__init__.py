"""The chat protocol of Ollama servers (`/api/chat`): JSON out, JSON or lines of JSON back.
Pure: bytes and values; it knows no model, downloads no picture and never asks twice.

Wire facts: the ollama SDK 0.6 types, the server's own types, its recorded answers and its documented errors.
"""

from __future__ import annotations

from polyvox.dialects import Dialect, Encoded, Endpoint, Peek, Reply, Wire
from polyvox.dialects.ollama.answer import decode_error, decode_response
from polyvox.dialects.ollama.from_client import decode_request, edit, peek
from polyvox.dialects.ollama.request import NAME, encode_request
from polyvox.dialects.ollama.rules import check_request
from polyvox.dialects.ollama.stream import OllamaReader
from polyvox.dialects.ollama.to_client import encode_error, encode_response
from polyvox.dialects.ollama.to_client_stream import OllamaWriter
from polyvox.errors import PolyvoxError
from polyvox.types import Loss, Request, Response


class OllamaChat:
    """The dialect; it has no state, one object serves every call."""

    name = NAME
    # Of a file only the text can be said, so it must be at hand.
    needs_bytes: frozenset[str] = frozenset({"image", "file"})
    own_places: tuple[str, ...] = ()

    def encode_request(self, request: Request, at: Endpoint) -> Encoded:
        """See `ClientSide`."""
        return encode_request(request, at)

    def decode_response(self, reply: Reply, at: Endpoint) -> Response:
        """See `ClientSide`."""
        return decode_response(reply, at)

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """See `ClientSide`."""
        return decode_error(reply)

    def reader(self, at: Endpoint) -> OllamaReader:
        """See `ClientSide`."""
        return OllamaReader(at)

    def must_stream(self, request: Request, at: Endpoint) -> bool:
        """Never: the server answers in one piece when told to."""
        return False

    def peek(self, wire: Wire) -> Peek:
        """See `ServerSide`."""
        return peek(wire)

    def edit(self, wire: Wire, *, model: str | None = None, usage: bool = False) -> Wire:
        """See `ServerSide`."""
        return edit(wire, model)

    def decode_request(self, wire: Wire, at: Endpoint) -> Request:
        """See `ServerSide`."""
        return decode_request(wire, at)

    def check_request(self, wire: Wire) -> None:
        """See `ServerSide`."""
        check_request(wire)

    def encode_response(self, response: Response, asked: Peek) -> tuple[Reply, tuple[Loss, ...]]:
        """See `ServerSide`."""
        return encode_response(response)

    def encode_error(self, error: PolyvoxError) -> Reply:
        """See `ServerSide`."""
        return encode_error(error)

    def writer(self, asked: Peek) -> OllamaWriter:
        """See `ServerSide`."""
        return OllamaWriter()


DIALECT: Dialect = OllamaChat()
