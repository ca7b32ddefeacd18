"""What the engine asks of others: a deployment that answers, pieces of a streamed answer, hooks that listen; and
what it is told about one call. Shapes only: nothing here does anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from polyvox.dialects import Reader
from polyvox.errors import PolyvoxError
from polyvox.types import Answered, Asked, Event, Loss, Request, Response


class Pieces(Protocol):
    """A streamed answer on its way, in pieces its reader understands: bytes of a wire, or what a backend yields."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The fields of the head; names in lower case."""

    async def chunk(self) -> Any:
        """The next piece; an empty one when the answer has ended."""

    async def close(self) -> None:
        """Let go of the connection, or of the backend's iterator."""


AskedT = TypeVar("AskedT", bound=Request | Asked, contravariant=True)
AnsweredT = TypeVar("AnsweredT", bound=Response | Answered, covariant=True)


class Answering(Protocol[AskedT, AnsweredT]):
    """What gives one whole answer to one kind of request. What goes out is its own business.

    timeout is the seconds a whole call may take when the caller names no other; speaks is the key of a
    request's extra that is meant for it.
    """

    name: str
    provider: str
    model: str
    timeout: float | None

    @property
    def speaks(self) -> str:
        """The key of a request's `extra` whose keys go out as they are."""

    def encoded(self, request: AskedT, options: CallOptions) -> tuple[Any, tuple[Loss, ...]]:
        """The request as it goes out, and what it cannot say; raises InputError for what can never be sent."""

    async def answer(self, outgoing: Any) -> tuple[AnsweredT, str | None]:
        """A whole answer, made for this call alone, and the provider's id of the request."""


class AnyDeployment(Answering[Request, Response], Protocol):
    """What can be chatted with: a model at a provider, or a backend."""

    def must_stream(self, request: Request) -> bool:
        """Whether a whole answer to this request can only be had by streaming it."""

    async def open(self, outgoing: Any) -> tuple[Pieces, Reader]:
        """A streamed answer once its head has come, and the reader of its pieces."""


class CallInfo(Struct, frozen=True):
    """What hooks see of a call: never a key, never a header."""

    request: Request | Asked
    deployment: str
    attempt: int = 0
    response: Response | Answered | None = None
    error: PolyvoxError | None = None


class Hooks(Protocol):
    """What a hook object may have; each method is optional. A hook that fails is logged and ignored."""

    def on_call(self, info: CallInfo) -> None:
        """The call begins."""

    def on_attempt(self, info: CallInfo) -> None:
        """An attempt begins."""

    def on_event(self, event: Event) -> None:
        """A stream event passes."""

    def on_done(self, info: CallInfo) -> None:
        """The call ended, with a response or an error."""


class CallOptions(Struct, frozen=True, gc=False):
    """How to make one call, beside what to ask: seconds in all, extra headers, strict."""

    timeout: float | None = None
    headers: Mapping[str, str] = {}
    strict: bool = False
