"""OpenAI Chat Completions and the habits of its many imitators. Pure: bytes and values, no provider.

Wire facts: openai SDK 3.x types; imitators' fields as their recorded traffic shows them.
"""

from __future__ import annotations

from polyvox.dialects import Dialect, Encoded, Endpoint, Peek, Reply, Wire
from polyvox.dialects.openai_chat.answer import decode_error, decode_response
from polyvox.dialects.openai_chat.from_client import decode_request, edit, peek
from polyvox.dialects.openai_chat.request import encode_request
from polyvox.dialects.openai_chat.rules import check_request
from polyvox.dialects.openai_chat.stream import ChatReader
from polyvox.dialects.openai_chat.to_client import encode_error, encode_response
from polyvox.dialects.openai_chat.to_client_stream import ChatWriter
from polyvox.errors import PolyvoxError
from polyvox.types import Loss, Request, Response


class OpenAIChat:
    """The dialect; it has no state, one object serves every call."""

    name = "openai.chat"
    needs_bytes: frozenset[str] = frozenset({"audio", "file"})
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

    def reader(self, at: Endpoint) -> ChatReader:
        """See `ClientSide`."""
        return ChatReader(at)

    def must_stream(self, request: Request, at: Endpoint) -> bool:
        """Never: every server of this dialect answers in one piece too."""
        return False

    def peek(self, wire: Wire) -> Peek:
        """See `ServerSide`."""
        return peek(wire)

    def edit(self, wire: Wire, *, model: str | None = None, usage: bool = False) -> Wire:
        """See `ServerSide`."""
        return edit(wire, model=model, usage=usage)

    def decode_request(self, wire: Wire, at: Endpoint) -> Request:
        """See `ServerSide`."""
        return decode_request(wire, at)

    def check_request(self, wire: Wire) -> None:
        """See `ServerSide`."""
        check_request(wire)

    def encode_response(self, response: Response, asked: Peek) -> tuple[Reply, tuple[Loss, ...]]:
        """See `ServerSide`."""
        return encode_response(response, asked)

    def encode_error(self, error: PolyvoxError) -> Reply:
        """See `ServerSide`."""
        return encode_error(error)

    def writer(self, asked: Peek) -> ChatWriter:
        """See `ServerSide`."""
        return ChatWriter(asked)


DIALECT: Dialect = OpenAIChat()
