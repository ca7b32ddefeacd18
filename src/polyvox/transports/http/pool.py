"""One event loop's connections: the aiohttp session, the places in it, and how a socket is set up."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyvox.errors import ConfigError
from polyvox.transports.http.clock import WATCH, Clock

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession, TCPConnector
    from aiohttp.connector import Connection

MAX_HEADER_BYTES = 16 * 1024  # one header line of an answer
MAX_HEADERS = 256  # header lines of an answer
MAX_INFORMATIONAL = 32  # answers of 1xx before the real one
# Servers drop idle connections without a word; aiohttp's default is below what common ones keep.
KEEPALIVE_SECONDS = 15.0
# Probes that keep NAT and firewall entries alive while a model thinks for minutes without a byte.
TCP_PROBES = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 30, "TCP_KEEPCNT": 5}


class Pool:
    """The session of one event loop. Slots are counted here and not in aiohttp's connector, so that
    waiting for a free connection is not mistaken for a slow connect.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int, ca_bundle: str | Path | None) -> None:
        self.loop = loop
        self.clock: Clock = Clock(loop)
        self.slots: asyncio.Semaphore = asyncio.Semaphore(size)
        self.session: ClientSession = _session(ca_bundle)
        self.keeper: AsyncGenerator[None, None] = _keep(self.session)
        self.inherited = False

    def usable(self) -> bool:
        """Whether the loop can still be told something."""
        return not (self.inherited or self.loop.is_closed())

    async def close(self) -> None:
        """Close the connections, in the loop they belong to."""
        self.clock.stop()
        await self.keeper.aclose()
        await self.session.close()

    def abandon(self) -> None:
        """Forget connections whose loop is gone or in another process, without touching one of them."""
        connector = self.session.connector
        self.session.detach()
        # aiohttp's finalizer would close the sockets through the old loop: after a fork that loop's
        # selector is shared with the parent, and it is the parent's registrations that would go.
        if connector is not None:
            connector._closed = True


async def _keep(session: ClientSession) -> AsyncGenerator[None, None]:
    """Close the session when the loop shuts down its generators, as asyncio.run does at its end."""
    try:
        yield
    finally:
        await session.close()


def _session(ca_bundle: str | Path | None) -> ClientSession:
    import aiohttp

    session = _session_class()(
        connector=_connector_class()(
            limit=0,
            keepalive_timeout=KEEPALIVE_SECONDS,
            ssl=True if ca_bundle is None else _trust(ca_bundle),
            socket_factory=_socket,
        ),
        timeout=aiohttp.ClientTimeout(total=None),
        headers={"user-agent": "polyvox", "accept-encoding": "gzip, deflate"},
        cookie_jar=aiohttp.DummyCookieJar(),
        response_class=_response_class(),
        auto_decompress=False,
        trust_env=False,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        max_headers=MAX_HEADERS,
    )
    # aiohttp repeats GET on a broken connection by itself; the engine is the one owner of retries.
    session._retry_connection = False
    return session


@cache
def _session_class() -> type[ClientSession]:
    from aiohttp import ClientSession

    class Silent:
        """Goes without a word: whoever lets a client go need not have closed it."""

        def __init_subclass__(cls) -> None:
            """That of aiohttp warns of every class made of a session."""

        def __del__(self, *_: object) -> None:
            """The connector closes itself; in a ring the collector may come to the session before it."""

    class Session(Silent, ClientSession):
        """The session of a pool."""

    return Session


@cache
def _connector_class() -> type[TCPConnector]:
    from functools import partial

    from aiohttp import TCPConnector
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.http_exceptions import HttpProcessingError

    class Handler(ResponseHandler):
        """Bounds the informational answers before the real one, and takes no offer to switch protocols."""

        informational = 0

        def feed_data(self, data: Any, size: int = 0) -> None:
            code = data[0].code
            self.informational = self.informational + 1 if 100 <= code < 200 else 0
            if code != 101 and self.informational <= MAX_INFORMATIONAL:
                super().feed_data(data, size)
                return
            if self.transport is not None:
                self.transport.abort()
            self.set_exception(HttpProcessingError(code=code, message="no end of informational answers"))

    class Connector(TCPConnector):
        """Gives out no connection on which something came that nobody had asked for: the next call would take it
        for its own answer."""

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self._factory = partial(Handler, loop=self._loop)  # type: ignore[assignment]

        def __del__(self, *_: object) -> None:
            """Closed without a word, as the session goes; by the loop, for the collector may run in any thread."""
            if not (self.closed or self._loop.is_closed()):
                with suppress(RuntimeError):  # it was closed since
                    self._loop.call_soon_threadsafe(self._close)

        async def _get(self, key: Any, traces: Any) -> Connection | None:
            while (found := await super()._get(key, traces)) is not None:
                if found.protocol is not None and not found.protocol.should_close:
                    return found
                found.close()
            return None

    return Connector


@cache
def _response_class() -> type[ClientResponse]:
    from aiohttp import ClientResponse

    class Response(ClientResponse):
        """Tells the watch when the request goes out, and lets go of a connection without ceremony."""

        def start(self, connection: Connection) -> Coroutine[Any, Any, ClientResponse]:
            WATCH.get().connected()
            return super().start(connection)

        def close(self) -> None:
            # close() of a transport waits to flush, or for the peer's TLS goodbye; a lost call does not.
            connection = self.connection
            if connection is not None and connection.transport is not None:
                connection.transport.abort()
            super().close()

    return Response


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in TCP_PROBES.items():
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


def _trust(ca_bundle: str | Path) -> ssl.SSLContext:
    path = Path(ca_bundle)
    try:
        context = ssl.create_default_context(capath=path) if path.is_dir() else ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the CA bundle {path} cannot be used: {error.strerror or error}",
            hint="ca_bundle is a PEM file, or a directory of hashed PEM files",
        ) from error
    context.set_alpn_protocols(("http/1.1",))
    return context
