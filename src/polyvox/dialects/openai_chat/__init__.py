"""OpenAI Chat Completions and the habits of its many imitators. Pure: bytes and values, no provider.

Wire facts: openai SDK 3.x types; imitators' fields as their recorded traffic shows them.
"""

from __future__ import annotations

from polyvox.dialects import ClientSide, Encoded, Endpoint, Reply
from polyvox.dialects.openai_chat.answer import decode_error, decode_response
from polyvox.dialects.openai_chat.request import encode_request
from polyvox.dialects.openai_chat.stream import ChatReader
from polyvox.errors import PolyvoxError
from polyvox.types import Request, Response


class OpenAIChat:
    """The dialect; it has no state, one object serves every call."""

    name = "openai.chat"

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


DIALECT: ClientSide = OpenAIChat()
