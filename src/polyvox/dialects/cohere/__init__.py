"""The second version of Cohere's chat protocol (`/v2/chat`): JSON out, JSON or server-sent events back.
Pure: bytes and values; it knows no model and asks for nothing itself.

Wire facts: the types and comments of the cohere SDK 7.3, and the provider's recorded answers.
"""

from __future__ import annotations

from polyvox.dialects import Dialect, Encoded, Endpoint, Peek, Reply, Wire
from polyvox.dialects.cohere.answer import decode_error, decode_response
from polyvox.dialects.cohere.from_client import decode_request, edit, peek
from polyvox.dialects.cohere.request import NAME, encode_request
from polyvox.dialects.cohere.rules import check_request
from polyvox.dialects.cohere.stream import CohereReader
from polyvox.dialects.cohere.to_client import encode_error, encode_response
from polyvox.dialects.cohere.to_client_stream import CohereWriter
from polyvox.errors import PolyvoxError
from polyvox.types import Loss, Request, Response


class CohereChat:
    """The dialect; it has no state, one object serves every call."""

    name = NAME
    # Of a file only the text can be said, so it must be at hand.
    needs_bytes: frozenset[str] = frozenset({"file"})
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

    def reader(self, at: Endpoint) -> CohereReader:
        """See `ClientSide`."""
        return CohereReader(at)

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

    def writer(self, asked: Peek) -> CohereWriter:
        """See `ServerSide`."""
        return CohereWriter()


DIALECT: Dialect = CohereChat()
