"""The contract of a dialect: both sides of one wire protocol in one pure object.
A dialect knows bytes and values; it knows no network, no clock, no provider and no model name.

**decode** is wire to ours, **encode** is ours to wire. Every encode returns its losses beside its
bytes. Nothing here raises anything but errors of our own tree, whatever the wire says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Struct

from polyvox.errors import BadResponseError, InputError, PolyvoxError
from polyvox.types import Answered, Asked, Embeddings, EmbedRequest, Event, Loss, Request, Response


class Endpoint(Struct, frozen=True):
    """Where a request goes, as far as its bytes depend on it.

    Attributes:
        base_url: what the dialect's path is appended to, without a slash at its end.
        origin: the deployment ("provider/model") that opaque state decoded here is bound to.
        quirks: names from the closed set in `QUIRKS`, as the provider's row gives them.
        options: the dialect's own settings (`version`, `beta`, `max_output`, ...), plain values.
    """

    base_url: str = ""
    origin: str | None = None
    quirks: frozenset[str] = frozenset()
    options: Mapping[str, Any] = {}


class Wire(Struct, frozen=True, gc=False):
    """A request as it goes out, but for the credentials: `auth` adds those."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    method: str = "POST"


class Reply(Struct, frozen=True, gc=False):
    """An answer as it came in. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Encoded(NamedTuple):
    """What encoding gives: the wire form, and what it could not say."""

    wire: Wire
    losses: tuple[Loss, ...]


class Peek(Struct, frozen=True, gc=False):
    """What can be read of a client's request without decoding it, and all an answer needs to know of it.

    Attributes:
        model: the model asked for, None where the request names none.
        stream: whether the answer is to be streamed.
        usage: whether a streamed answer tells its usage; a whole one always does.
        framing: the dialect's own word for how a streamed answer is framed, where a client may choose; "" is as usual.
    """

    model: str | None = None
    stream: bool = False
    usage: bool = True
    framing: str = ""


class Reader(Protocol):
    """A stream being read: a state machine over bytes in any chunking.

    The last event of a stream is `Ended`, or `Failed` with the error; it comes exactly once, and
    neither method raises. `done` is true from then on, and later bytes are ignored.
    """

    done: bool

    def feed(self, data: bytes) -> list[Event]:
        """Take some bytes, give the events they complete."""

    def close(self) -> list[Event]:
        """The connection ended: what was pending, then `Failed` unless the end had come."""


class Writer(Protocol):
    """A stream being written for a client of ours: a state machine over events, in the order readers give them.

    `Ended` and `Failed` end it; `done` is true from then on, and later events are ignored. What the
    dialect cannot say is put into `losses`, as an encode gives them. No method raises.
    """

    done: bool
    content_type: str
    losses: list[Loss]

    def send(self, event: Event) -> bytes:
        """The bytes that say this event; b"" while it waits for others, or where nothing says it."""

    def keep_alive(self) -> bytes:
        """Bytes that mean nothing, for when there is nothing to say; b"" where the dialect has none."""

    def close(self) -> bytes:
        """No more events come. Without `Ended` or `Failed` the stream was cut: the bytes that say so."""


class ClientSide(Protocol):
    """What it takes to ask a provider in this dialect.

    Attributes:
        needs_bytes: the tags of the media (`image`, `audio`, `video`, `file`) that are taken as bytes and never by
            URL: whoever asks must have fetched them.
        own_places: how URLs begin that are taken even of those, as the provider itself reads what is there.
    """

    name: str
    needs_bytes: frozenset[str]
    own_places: tuple[str, ...]

    def encode_request(self, request: Request, at: Endpoint) -> Encoded:
        """The wire request; raises InputError for what can never be sent."""

    def decode_response(self, reply: Reply, at: Endpoint) -> Response:
        """A whole answer; raises BadResponseError, or the provider's error where a 200 holds one."""

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """The error in a reply with status >= 400, classified by structured fields."""

    def reader(self, at: Endpoint) -> Reader:
        """A reader for one streamed answer."""

    def must_stream(self, request: Request, at: Endpoint) -> bool:
        """Whether the provider refuses to answer this request in one piece."""


class ServerSide(Protocol):
    """What it takes to answer a client in this dialect. Header names are in lower case."""

    name: str

    def peek(self, wire: Wire) -> Peek:
        """Enough of a client's request to route it and to answer it; raises InputError for no JSON object."""

    def edit(self, wire: Wire, *, model: str | None = None, usage: bool = False) -> Wire:
        """The identity lane: the same request for another model, or asking a stream for its usage.
        Every other byte stays as it was; raises InputError for no JSON object."""

    def decode_request(self, wire: Wire, at: Endpoint) -> Request:
        """A client's request; opaque state in it is bound to `at.origin`. All spellings the dialect's
        quirks know are read, whatever `at.quirks` says. Raises InputError, with `param`, for a value of
        a shape that has no meaning; keys without a neutral place go to extra."""

    def check_request(self, wire: Wire) -> None:
        """Raises InputError, with `param`, for what the protocol's inventor refuses though it can be read:
        unknown fields, values out of range, turns out of order."""

    def encode_response(self, response: Response, asked: Peek) -> tuple[Reply, tuple[Loss, ...]]:
        """A whole answer for a client. Ids, times and the model are the response's; nothing is made up."""

    def encode_error(self, error: PolyvoxError) -> Reply:
        """An error for a client: status, headers and body such that `decode_error` gives its kind again."""

    def writer(self, asked: Peek) -> Writer:
        """A writer for one streamed answer."""


class Dialect(ClientSide, ServerSide, Protocol):
    """Both sides of one protocol."""


AskedT = TypeVar("AskedT", bound=Asked, contravariant=True)
AnsweredT = TypeVar("AnsweredT", bound=Answered, covariant=True)


class Operation(Protocol[AskedT, AnsweredT]):
    """What it takes to ask a provider for something that is no chat: one request, one whole answer."""

    name: str

    def encode(self, request: AskedT, at: Endpoint) -> Encoded:
        """The wire request; raises InputError for what can never be sent."""

    def decode(self, reply: Reply, at: Endpoint) -> AnsweredT:
        """The answer; raises BadResponseError, or the provider's error where a 200 holds one."""

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """The error in a reply with status >= 400."""


class Most(NamedTuple):
    """How much one call may hold: texts, and bytes of all of them in UTF-8. None is no limit that is known."""

    inputs: int | None = None
    size: int | None = None


class Embeds(Operation[EmbedRequest, Embeddings], Protocol):
    """Both sides of the embeddings that belong to a dialect: the errors are that dialect's own. Header names are in
    lower case. The vectors are in the order of the inputs."""

    def most(self, at: Endpoint) -> Most:
        """What one call may hold: as the endpoint's options `embed_inputs` and `embed_bytes` say, else as the
        protocol's inventor takes it. ConfigError for options that are no counts."""

    def decode_request(self, wire: Wire, at: Endpoint) -> EmbedRequest:
        """A client's request. Raises InputError, with `param`, for a value of a shape that has no meaning; keys
        without a neutral place go to extra, and so do inputs that are no text."""

    def encode_response(self, embeddings: Embeddings, asked: EmbedRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """The vectors for a client, in the encoding that was asked for."""


QUIRKS = {
    "max_tokens": "the limit is called max_tokens, not max_completion_tokens",
    "system_role": "instructions have role system; developer is not known",
    "no_usage_option": "streams tell their usage unasked, and stream_options is refused",
    "random_seed": "the seed is called random_seed",
    "tool_choice_any": "tool_choice required is called any",
    "echo_reasoning": "reasoning_content of earlier turns must go back",
    "reasoning_object": "effort goes into a reasoning object, not reasoning_effort",
    "thinking_switch": "reasoning is switched by thinking {type: enabled|disabled}",
    "top_k": "top_k is taken, though the protocol's inventor has no such field",
    "cache_breakpoint": "parts may carry prompt_cache_breakpoint",
    "cache_control": "parts may carry cache_control",
    "no_sampling": "temperature, top_p and top_k are refused",
}
"""Every habit a provider's row may name, and what it means. Dialects test for these, never for names."""

_ROOMS = {
    "openai.chat": "polyvox.dialects.openai_chat",
    "anthropic.messages": "polyvox.dialects.anthropic",
    "ollama.chat": "polyvox.dialects.ollama",
    "cohere.chat": "polyvox.dialects.cohere",
    "gemini.generate": "polyvox.dialects.gemini",
    "openai.responses": "polyvox.dialects.openai_responses",
    "bedrock.converse": "polyvox.dialects.bedrock",
}
NAMES = tuple(_ROOMS)


def dialect(name: str) -> Dialect:
    """The dialect of this name, loaded on first use; KeyError for a name that is not in NAMES."""
    found: Dialect = import_module(_ROOMS[name]).DIALECT
    return found


_EMBEDS = {
    "openai.chat": "polyvox.dialects.openai_more.embeddings",
    "openai.responses": "polyvox.dialects.openai_more.embeddings",
    "cohere.chat": "polyvox.dialects.cohere.embed",
    "ollama.chat": "polyvox.dialects.ollama.embed",
    "gemini.generate": "polyvox.dialects.gemini.embed",
}


def embeds(name: str) -> Embeds | None:
    """The embeddings that belong to the dialect of this name, loaded on first use; None where it has none."""
    room = _EMBEDS.get(name)
    return None if room is None else import_module(room).EMBEDS


# ---- what all dialects share ------------------------------------------------------------------

_decode = msgspec.json.Decoder().decode
encode_json: Callable[[Any], bytes] = msgspec.json.Encoder().encode

_T = TypeVar("_T")

# What careless indexing into somebody else's JSON raises. A provider that sends another shape than
# its protocol says must come out as one error of our tree, whichever line notices.
SHAPE_ERRORS = (TypeError, KeyError, IndexError, AttributeError, ValueError, RecursionError)


def request_body(body: Mapping[str, Any]) -> bytes:
    """A request as JSON; raises InputError for values JSON cannot say."""
    try:
        return encode_json(body)
    except (TypeError, ValueError, RecursionError, OverflowError, msgspec.MsgspecError) as error:
        raise InputError(f"the request cannot be written as JSON: {error}") from None


def decode_json(body: bytes | str) -> Any:
    """JSON as the RFC has it (no NaN, valid UTF-8); raises BadResponseError with the body's start."""
    if isinstance(body, bytes) and body.startswith(b"\xef\xbb\xbf"):
        body = body[3:]
    try:
        return _decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BadResponseError(f"the answer is not valid JSON ({error}): {snippet(body)}") from None


def client_object(wire: Wire) -> dict[str, Any]:
    """The body of a client's request, which must be a JSON object; raises InputError for anything else."""
    try:
        value = decode_json(wire.body)
    except BadResponseError:
        raise InputError(f"the request is not valid JSON: {snippet(wire.body)}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise InputError("the request must be a JSON object", code="invalid_json")
    return value


def decode_object(body: bytes | str) -> dict[str, Any]:
    """`decode_json` for what must be an object."""
    value = decode_json(body)
    if not isinstance(value, dict):
        raise BadResponseError(f"the answer is not a JSON object: {snippet(body)}")
    return value


def snippet(body: bytes | str, limit: int = 200) -> str:
    """The start of a body, fit for an error message: one line, at most `limit` characters."""
    text = body[: limit * 4].decode("utf-8", "replace") if isinstance(body, bytes) else body
    text = " ".join(text.split())
    text = "".join(char if char.isprintable() else "?" for char in text)
    return (text[:limit] + "…" if len(text) > limit else text) or "(empty)"


def guarded(decode: Callable[[], _T]) -> _T:
    """Run a decoder of somebody else's JSON; a wrong shape becomes BadResponseError."""
    try:
        return decode()
    except SHAPE_ERRORS as error:
        raise BadResponseError(f"the answer has an unexpected shape ({type(error).__name__}: {error})") from error


def integer(value: Any) -> int | None:
    """A count from the wire: a whole number >= 0, or None for anything else."""
    if type(value) is int:
        return value if value >= 0 else None
    if type(value) is float and value.is_integer() and value >= 0:
        return int(value)
    return None


def string(value: Any) -> str | None:
    """A string from the wire, or None for anything else."""
    return value if isinstance(value, str) else None
