"""The generateContent protocol of Gemini, both sides: the Developer API's and Vertex AI's. It knows no name of a
model; the model is in the path.

Options of the endpoint: `schema` ("openapi" where only the older kind of schemas is taken), `include_thoughts`
(true to ask for summaries of thoughts wherever thinking is asked for).

Wire facts: the google-genai SDK 3.4, the API's reference, and recorded answers of both servers.
"""

from __future__ import annotations

from polyvox.dialects import Dialect, Encoded, Endpoint, Peek, Reply, Wire
from polyvox.dialects.gemini.answer import decode_error, decode_response
from polyvox.dialects.gemini.facts import NAME
from polyvox.dialects.gemini.from_client import decode_request, edit, peek
from polyvox.dialects.gemini.request import encode_request
from polyvox.dialects.gemini.rules import check_request
from polyvox.dialects.gemini.stream import GeminiReader
from polyvox.dialects.gemini.to_client import encode_error, encode_response
from polyvox.dialects.gemini.to_client_stream import GeminiWriter
from polyvox.errors import PolyvoxError
from polyvox.types import Loss, Request, Response


class GeminiGenerate:
    """The dialect; it has no state, one object serves every call."""

    name = NAME
    needs_bytes: frozenset[str] = frozenset()
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

    def reader(self, at: Endpoint) -> GeminiReader:
        """See `ClientSide`."""
        return GeminiReader(at)

    def must_stream(self, request: Request, at: Endpoint) -> bool:
        """Never: every call may be answered in one piece."""
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

    def writer(self, asked: Peek) -> GeminiWriter:
        """See `ServerSide`. Who does not ask for events by `alt=sse` gets the pieces as one list of JSON."""
        return GeminiWriter(asked.framing)


DIALECT: Dialect = GeminiGenerate()
