"""A model at a provider, ready to be asked: a chat, or any other operation of its protocol. What goes out is what a
dialect says, with an address and credentials; what comes back is read whole or handed on as it comes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

from msgspec.structs import replace

from polyvox.dialects import ClientSide, Encoded, Endpoint, Operation, Reader, Reply
from polyvox.dialects.errors_on_wire import request_id, retry_delay
from polyvox.engine.contract import CallOptions, Money
from polyvox.errors import BadResponseError, PolyvoxError
from polyvox.transports import Exchange, Outgoing, Timeouts, Transport
from polyvox.types import Answered, Asked, Loss, Request, Response

MAX_BODY = 256 * 1024 * 1024
MAX_ERROR_BODY = 1024 * 1024

AskedT = TypeVar("AskedT", bound=Request | Asked)
AnsweredT = TypeVar("AnsweredT", bound=Response | Answered)
_AskedT = TypeVar("_AskedT", bound=Asked)
_AnsweredT = TypeVar("_AnsweredT", bound=Answered)


class WireDeployment(Generic[AskedT, AnsweredT]):
    """What every deployment on a wire is made of. Its headers hold credentials, so it shows its name only.

    timeout is the seconds a whole call may take when the caller names no other; fit makes a request one the
    model takes, and tells what had to go. query is put behind the URL of every request; prove gives the headers
    that are made for one request alone, anew for every attempt; money says what it costs, where anybody knows. on_head
    is told the fields of each answer's head, names in lower case; it must not raise.
    """

    __slots__ = (
        "_decode", "_decode_error", "_encode", "endpoint", "fit", "headers", "model", "money", "name", "on_head",
        "prove", "provider", "query", "speaks", "timeout", "timeouts", "transport",
    )  # fmt: skip

    operation: str

    _encode: Callable[[AskedT, Endpoint], Encoded]
    _decode: Callable[[Reply, Endpoint], AnsweredT]
    _decode_error: Callable[[Reply, Endpoint], PolyvoxError]
    speaks: str

    def __init__(
        self,
        provider: str,
        model: str,
        *,
        endpoint: Endpoint,
        headers: Mapping[str, str],
        transport: Transport,
        timeouts: Timeouts,
        timeout: float | None = None,
        fit: Callable[[AskedT], tuple[AskedT, tuple[Loss, ...]]] | None = None,
        query: str = "",
        prove: Callable[[Outgoing], Awaitable[Mapping[str, str]]] | None = None,
        money: Money | None = None,
    ) -> None:
        self.provider: str = provider
        self.model: str = model
        self.name: str = f"{provider}/{model}"
        self.endpoint: Endpoint = endpoint
        self.headers: Mapping[str, str] = headers
        self.transport: Transport = transport
        self.timeouts: Timeouts = timeouts
        self.timeout: float | None = timeout
        self.fit: Callable[[AskedT], tuple[AskedT, tuple[Loss, ...]]] | None = fit
        self.query: str = query
        self.prove: Callable[[Outgoing], Awaitable[Mapping[str, str]]] | None = prove
        self.money: Money | None = money
        self.on_head: Callable[[Mapping[str, str]], None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def encoded(self, request: AskedT, options: CallOptions) -> tuple[Outgoing, tuple[Loss, ...]]:
        """See `Answering`."""
        if self.fit is None:
            wire, losses = self._encode(request, self.endpoint)
        else:
            request, unfit = self.fit(request)
            wire, losses = self._encode(request, self.endpoint)
            losses = unfit + losses
        headers = {**wire.headers, **self.headers}
        if options.headers:
            headers.update(options.headers)
        url = self.endpoint.base_url + wire.path
        if self.query:
            url += f"{'&' if '?' in wire.path else '?'}{self.query}"
        return Outgoing(wire.method, url, headers, wire.body), losses

    async def proved(self, outgoing: Outgoing) -> Outgoing:
        """The request with the headers made for it; raises what `prove` does, before any of it is sent."""
        if self.prove is None:
            return outgoing
        return replace(outgoing, headers={**outgoing.headers, **await self.prove(outgoing)})

    async def answer(self, outgoing: Outgoing) -> tuple[AnsweredT, str | None]:
        """See `Answering`."""
        if self.prove is not None:
            outgoing = await self.proved(outgoing)
        exchange = await self.transport.send(outgoing, self.timeouts)
        if self.on_head is not None:
            self.on_head(exchange.headers)
        if not 200 <= exchange.status < 300:
            raise await self._refused(exchange)
        try:
            body = await exchange.read(MAX_BODY)
        except BaseException:
            await exchange.close()
            raise
        headers = exchange.headers
        try:
            response = self._decode(Reply(exchange.status, headers, body), self.endpoint)
        except PolyvoxError as error:
            error.sent = "yes"
            raise
        return response, request_id(headers)

    async def _refused(self, exchange: Exchange) -> PolyvoxError:
        """What a head without an answer means."""
        body, unread = b"", None
        try:
            body = await exchange.read(MAX_ERROR_BODY)
        except BadResponseError as error:
            unread = error.message  # the status still says what kind it is
        finally:
            await exchange.close()
        if exchange.status < 400:
            return BadResponseError(
                f"the server answered with a redirect (HTTP {exchange.status}), which an API call does not follow",
                status=exchange.status,
                hint="check base_url: its scheme, host and path",
                sent="yes",
            )
        refusal = self._decode_error(Reply(exchange.status, exchange.headers, body), self.endpoint)
        if refusal.retry_after is None and "retry-after" in exchange.headers:
            # A date, in a head that does not say what time it is there.
            refusal.retry_after = retry_delay({"retry-after": exchange.headers["retry-after"]}, now=time.time())
        if unread is not None:
            refusal.message = f"the provider refused, and its words cannot be read: {unread}"
        return refusal


class Deployment(WireDeployment[Request, Response]):
    """A model at a provider, ready to chat; see `WireDeployment`."""

    __slots__ = ("dialect",)

    operation = "chat"

    def __init__(
        self,
        provider: str,
        model: str,
        *,
        dialect: ClientSide,
        endpoint: Endpoint,
        headers: Mapping[str, str],
        transport: Transport,
        timeouts: Timeouts,
        timeout: float | None = None,
        fit: Callable[[Request], tuple[Request, tuple[Loss, ...]]] | None = None,
        query: str = "",
        prove: Callable[[Outgoing], Awaitable[Mapping[str, str]]] | None = None,
        money: Money | None = None,
    ) -> None:
        super().__init__(
            provider,
            model,
            endpoint=endpoint,
            headers=headers,
            transport=transport,
            timeouts=timeouts,
            timeout=timeout,
            fit=fit,
            query=query,
            prove=prove,
            money=money,
        )
        self.dialect: ClientSide = dialect
        self.speaks: str = dialect.name
        self._encode = dialect.encode_request
        self._decode = dialect.decode_response
        self._decode_error = dialect.decode_error

    def must_stream(self, request: Request) -> bool:
        """See `AnyDeployment`."""
        return self.dialect.must_stream(request, self.endpoint)

    async def open(self, outgoing: Outgoing) -> tuple[Exchange, Reader]:
        """See `AnyDeployment`."""
        if self.prove is not None:
            outgoing = await self.proved(outgoing)
        exchange = await self.transport.send(outgoing, self.timeouts)
        if self.on_head is not None:
            self.on_head(exchange.headers)
        if 200 <= exchange.status < 300:
            return exchange, self.dialect.reader(self.endpoint)
        raise await self._refused(exchange)


class OperationDeployment(WireDeployment[_AskedT, _AnsweredT]):
    """The same model at the same provider, ready for an operation that is no chat: `Engine.operate` asks it.

    A model's profile is about chats, so nothing fits a request here; notes are told with every call. helped puts into
    an error what would help, where anybody knows that.
    """

    __slots__ = ("_helped", "operation", "protocol")

    def __init__(
        self,
        of: Deployment,
        protocol: Operation[_AskedT, _AnsweredT],
        operation: str,
        notes: tuple[Loss, ...] = (),
        helped: Callable[[PolyvoxError], None] | None = None,
        money: Money | None = None,
    ) -> None:
        super().__init__(
            of.provider,
            of.model,
            endpoint=of.endpoint,
            headers=of.headers,
            transport=of.transport,
            timeouts=of.timeouts,
            timeout=of.timeout,
            fit=(lambda request: (request, notes)) if notes else None,
            query=of.query,
            prove=of.prove,
            money=money,
        )
        self.operation: str = operation
        self.protocol: Operation[_AskedT, _AnsweredT] = protocol
        self.speaks: str = protocol.name
        self._encode = protocol.encode
        self._decode = protocol.decode
        self._decode_error = protocol.decode_error
        self._helped = helped

    async def answer(self, outgoing: Outgoing) -> tuple[_AnsweredT, str | None]:
        """See `Answering`."""
        try:
            return await super().answer(outgoing)
        except PolyvoxError as error:
            if self._helped is not None:
                self._helped(error)
            raise
