"""The contract of a transport: bytes out, bytes in, and an honest word on how far the request got.
Transports know no dialect, no key store and no retry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from polyvox.errors import Sent


class Outgoing(Struct, frozen=True, gc=False):
    """A request ready to send: the absolute URL, and headers with credentials in them."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


class Timeouts(Struct, frozen=True):
    """Limits in seconds; None is no limit. total is left to the engine's one deadline."""

    connect: float | None = 5.0
    first_byte: float | None = 120.0
    idle: float | None = 60.0


def tell_unsent(gone: BaseException) -> None:
    """Note on a cancellation that nothing of the request had left."""
    vars(gone)["sent"] = "no"


def how_far(gone: BaseException | None, otherwise: Sent) -> Sent:
    """How much of a request had left when it was cancelled, where the transport said so."""
    told: Sent = otherwise if gone is None else vars(gone).get("sent", otherwise)
    return told


class Exchange(Protocol):
    """An answer whose head has come; header names are in lower case. Every method may raise CallTimeoutError,
    ConnectionFailedError, StreamInterruptedError or BadResponseError, with `sent` set."""

    status: int

    @property
    def headers(self) -> Mapping[str, str]:
        """The fields of the head."""

    async def read(self, limit: int) -> bytes:
        """The whole body; BadResponseError beyond `limit` decoded bytes. Gives the connection back."""

    async def chunk(self) -> bytes:
        """The next bytes as they arrive; b"" when the body ended well."""

    async def close(self) -> None:
        """Give the connection back, or cut it when the body was not read to its end."""


class Transport(Protocol):
    """Something that carries requests. One may be shared by many calls at once."""

    async def send(self, outgoing: Outgoing, timeouts: Timeouts) -> Exchange:
        """Send and wait for the head of the answer. A cancellation before anything was written is noted as such, see
        `tell_unsent`."""

    async def close(self) -> None:
        """Let go of everything held; a closed transport refuses further use."""
