"""How a provider is reached: its complete address, what proves who asks, and the way of the requests that fetch
such a proof. It asks no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from polyvox.catalog import Provider
from polyvox.dialects import Reply
from polyvox.transports import Outgoing, Timeouts, Transport

if TYPE_CHECKING:
    from polyvox.auth import Prove
    from polyvox.auth.google import Carry

_TIMEOUTS = Timeouts(5.0, 20.0, 10.0)
_LARGEST = 1 << 20


class Access(NamedTuple):
    """A provider at its complete address, and what proves who asks: see `engine.Deployment`."""

    row: Provider
    headers: Mapping[str, str]
    query: str = ""
    prove: Prove | None = None

    def __repr__(self) -> str:
        """The provider's name only: the rest holds credentials."""
        return f"<Access {self.row.name}>"


def proof_carrier(given: Transport | None, usual: Callable[[], Transport]) -> Carry:
    """What carries the requests that fetch a proof: the caller's own transport, or the usual one, which is made
    when it is first needed. No recording hears them: their answers are keys."""

    async def carry(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        outgoing = Outgoing(method, url, headers, body)
        if given is not None or not url.startswith("http://"):
            return await _answer(given or usual(), outgoing)
        # The metadata server of the machine itself has no TLS, and no proxy stands before it.
        from polyvox.transports.http import HttpTransport

        once = HttpTransport(proxy="", allow_http=True)
        try:
            return await _answer(once, outgoing)
        finally:
            await once.close()

    return carry


async def _answer(transport: Transport, outgoing: Outgoing) -> Reply:
    exchange = await transport.send(outgoing, _TIMEOUTS)
    try:
        return Reply(exchange.status, dict(exchange.headers), await exchange.read(_LARGEST))
    finally:
        await exchange.close()
