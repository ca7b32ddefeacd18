"""The Messages protocol of Anthropic, asked: also spoken by Vertex AI, Bedrock's invoke and compatible servers.
It knows both API versions and no name of a model."""

from __future__ import annotations

from polyvox.dialects import Encoded, Endpoint, Reply
from polyvox.dialects.anthropic import answer
from polyvox.dialects.anthropic.facts import NAME, STREAM_ABOVE
from polyvox.dialects.anthropic.request import encode, max_tokens
from polyvox.dialects.anthropic.stream import Reader
from polyvox.errors import PolyvoxError
from polyvox.types import Request, Response


class AnthropicMessages:
    """The asking side of `POST /v1/messages`.

    Options of the endpoint: `version` (the API version, "2023-06-01" by default), `beta` (names of beta
    features), `max_output` (the limit in tokens to send where the request sets none).
    """

    name = NAME

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


DIALECT = AnthropicMessages()
