"""The chat protocol of Ollama servers (`/api/chat`): JSON out, JSON or lines of JSON back.
Pure: bytes and values; it knows no model, downloads no picture and never asks twice.

Wire facts: the ollama SDK 0.6 types, the server's recorded answers and its documented errors.
"""

from __future__ import annotations

from polyvox.dialects import ClientSide, Encoded, Endpoint, Reply
from polyvox.dialects.ollama.answer import decode_error, decode_response
from polyvox.dialects.ollama.request import NAME, encode_request
from polyvox.dialects.ollama.stream import OllamaReader
from polyvox.errors import PolyvoxError
from polyvox.types import Request, Response


class OllamaChat:
    """The dialect; it has no state, one object serves every call."""

    name = NAME

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


DIALECT: ClientSide = OllamaChat()
