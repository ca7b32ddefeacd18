"""The Messages protocol of Anthropic, both sides: also spoken by Vertex AI, Bedrock's invoke and compatible
servers. It knows both API versions and no name of a model."""

from __future__ import annotations

from polyvox.dialects import Dialect, Encoded, Endpoint, Peek, Reply, Wire
from polyvox.dialects.anthropic import answer, from_client, rules, to_client
from polyvox.dialects.anthropic.facts import NAME, STREAM_ABOVE
from polyvox.dialects.anthropic.request import encode, max_tokens
from polyvox.dialects.anthropic.stream import Reader
from polyvox.dialects.anthropic.to_client_stream import Writer
from polyvox.errors import PolyvoxError
from polyvox.types import Loss, Request, Response


class AnthropicMessages:
    """`POST /v1/messages`, asked and answered.

    Options of the endpoint: `version` (the API version, "2023-06-01" by default), `beta` (names of beta
    features), `max_output` (the limit in tokens to send where the request sets none).
    """

    name = NAME
    needs_bytes: frozenset[str] = frozenset()
    own_places: tuple[str, ...] = ()

    # ---- asking -------------------------------------------------------------------------------

    def encode_request(self, request: Request, at: Endpoint) -> Encoded:
        """The wire request; raises InputError for what can never be sent."""
        return encode(request, at)

    def decode_response(self, reply: Reply, at: Endpoint) -> Response:
        """A whole answer; raises BadResponseError, or the provider's error where a 200 holds one."""
        return answer.decode(reply, at)

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """The error in a reply with status >= 400, classified by its structured fields."""
        return answer.decode_error(reply)

    def reader(self, at: Endpoint) -> Reader:
        """A reader for one streamed answer, in server-sent events or AWS framing."""
        return Reader(at)

    def must_stream(self, request: Request, at: Endpoint) -> bool:
        """Whether the limit on the answer is too large to wait for it in one piece."""
        return max_tokens(request, at)[0] > STREAM_ABOVE

    # ---- answering ----------------------------------------------------------------------------

    def peek(self, wire: Wire) -> Peek:
        """Model and stream flag of a client's request; raises InputError for no JSON object."""
        return from_client.peek(wire)

    def edit(self, wire: Wire, *, model: str | None = None, usage: bool = False) -> Wire:
        """The same request for another model; a stream of this protocol always tells its usage."""
        return from_client.edit(wire, model)

    def decode_request(self, wire: Wire, at: Endpoint) -> Request:
        """A client's request; raises InputError, with `param`, for a value that has no meaning."""
        return from_client.decode(wire, at)

    def check_request(self, wire: Wire) -> None:
        """Raises InputError, with `param`, for what the protocol's inventor refuses though it can be read."""
        rules.check(wire)

    def encode_response(self, response: Response, asked: Peek) -> tuple[Reply, tuple[Loss, ...]]:
        """A whole answer for a client; an error reply for one that did not come to its end."""
        return to_client.encode(response, asked)

    def encode_error(self, error: PolyvoxError) -> Reply:
        """An error for a client, in the protocol's envelope."""
        return to_client.encode_error(error)

    def writer(self, asked: Peek) -> Writer:
        """A writer for one streamed answer."""
        return Writer(asked)


DIALECT: Dialect = AnthropicMessages()
