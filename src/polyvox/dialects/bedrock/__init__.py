"""The Converse protocol of Amazon Bedrock, both sides: JSON out, JSON or an AWS event stream back. It signs
nothing, and knows no name of a model."""

from __future__ import annotations

from polyvox.dialects import Dialect, Encoded, Endpoint, Peek, Reply, Wire
from polyvox.dialects.bedrock import answer, from_client, rules, to_client
from polyvox.dialects.bedrock.facts import NAME
from polyvox.dialects.bedrock.request import encode
from polyvox.dialects.bedrock.stream import Reader
from polyvox.dialects.bedrock.to_client_stream import Writer
from polyvox.errors import PolyvoxError
from polyvox.types import Loss, Request, Response


class BedrockConverse:
    """`POST /model/{modelId}/converse` and `/converse-stream`, asked and answered.

    Option of the endpoint: `fields`, where in additionalModelRequestFields the settings stand that only models
    know, by neutral name, such as `{"top_k": "top_k", "thinking": "thinking"}` or `{"top_k": "inferenceConfig.topK"}`.
    """

    name = NAME
    needs_bytes: frozenset[str] = frozenset({"image", "audio", "video", "file"})
    own_places: tuple[str, ...] = ("s3://",)

    # ---- asking -------------------------------------------------------------------------------

    def encode_request(self, request: Request, at: Endpoint) -> Encoded:
        """The wire request; raises InputError for what can never be sent."""
        return encode(request, at)

    def decode_response(self, reply: Reply, at: Endpoint) -> Response:
        """A whole answer; raises BadResponseError, or the provider's error where a 200 holds one."""
        return answer.decode(reply, at)

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """The error in a reply with status >= 400, classified by its name and its words."""
        return answer.decode_error(reply)

    def reader(self, at: Endpoint) -> Reader:
        """A reader for one streamed answer."""
        return Reader(at)

    def must_stream(self, request: Request, at: Endpoint) -> bool:
        """Never: the server answers in one piece when asked to."""
        return False

    # ---- answering ----------------------------------------------------------------------------

    def peek(self, wire: Wire) -> Peek:
        """Model and stream flag, which stand in the path; raises InputError for no JSON object."""
        return from_client.peek(wire)

    def edit(self, wire: Wire, *, model: str | None = None, usage: bool = False) -> Wire:
        """The same request for another model, which changes its path alone; a stream always tells its usage."""
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
        """An error for a client, by the protocol's name for it."""
        return to_client.encode_error(error)

    def writer(self, asked: Peek) -> Writer:
        """A writer for one streamed answer."""
        return Writer(asked)


DIALECT: Dialect = BedrockConverse()
