"""The Responses protocol of OpenAI, both sides: also spoken by its imitators. Pure: bytes and values, no provider.

Wire facts: openai SDK 3.x types; imitators' fields as their recorded traffic shows them.
"""

from __future__ import annotations

from polyvox.dialects import Dialect, Encoded, Endpoint, Peek, Reply, Wire
from polyvox.dialects.openai_chat.to_client import encode_error
from polyvox.dialects.openai_responses import from_client
from polyvox.dialects.openai_responses.answer import decode_error, decode_response
from polyvox.dialects.openai_responses.facts import NAME
from polyvox.dialects.openai_responses.from_client import decode_request, peek
from polyvox.dialects.openai_responses.request import encode_request
from polyvox.dialects.openai_responses.rules import check_request
from polyvox.dialects.openai_responses.stream import ResponsesReader
from polyvox.dialects.openai_responses.to_client import encode_response
from polyvox.dialects.openai_responses.to_client_stream import ResponsesWriter
from polyvox.errors import PolyvoxError
from polyvox.types import Loss, Request, Response


class OpenAIResponses:
    """`POST /responses`, asked and answered; it has no state, one object serves every call.

    Options of the endpoint: `path`, `user_field` (the key of the end user's id), `instructions` (False where the
    endpoint takes them as an item only), `stream_only` (True where it refuses to answer in one piece).
    """

    name = NAME
    needs_bytes: frozenset[str] = frozenset({"audio"})
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

    def reader(self, at: Endpoint) -> ResponsesReader:
        """See `ClientSide`."""
        return ResponsesReader(at)

    def must_stream(self, request: Request, at: Endpoint) -> bool:
        """Whether the endpoint is said to refuse answers in one piece."""
        return at.options.get("stream_only") is True

    def peek(self, wire: Wire) -> Peek:
        """See `ServerSide`."""
        return peek(wire)

    def edit(self, wire: Wire, *, model: str | None = None, usage: bool = False) -> Wire:
        """See `ServerSide`; a stream of this protocol always tells its usage."""
        return from_client.edit(wire, model)

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

    def writer(self, asked: Peek) -> ResponsesWriter:
        """See `ServerSide`."""
        return ResponsesWriter(asked)


DIALECT: Dialect = OpenAIResponses()
