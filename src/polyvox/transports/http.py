"""HTTP/1.1 over pooled connections: one call out, one answer in, every failure in our own words.
It follows no redirect, keeps no cookie, retries nothing, and knows neither dialects nor keys.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
import socket
import ssl
import weakref
import zlib
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextvars import ContextVar
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import SplitResult, urlsplit

from polyvox.errors import (
    BadResponseError,
    CallTimeoutError,
    ConfigError,
    ConnectionFailedError,
    InputError,
    PolyvoxError,
    Sent,
    StreamInterruptedError,
    UsageError,
)
from polyvox.transports import Outgoing, Timeouts

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from aiohttp.connector import Connection
    from yarl import URL

MAX_HEADER_BYTES = 16 * 1024  # one header line of an answer
MAX_HEADERS = 256  # header lines of an answer
MAX_INFLATED = 1024 * 1024  # decoded bytes one chunk() gives at most
MAX_TARGETS = 256  # URLs whose parsed form is kept
# aiohttp copies a bytes body whole and warns past this size; as a file it is written piece by piece.
LARGE_BODY = 1024 * 1024
# An unread end this small and this near is read, because a new TLS connection costs more.
DRAIN_BYTES = 16 * 1024
DRAIN_SECONDS = 0.05
# aiohttp tells nobody when it gives up on a body whose chunks are malformed; so we look.
LOOK_SECONDS = 0.5
# Servers drop idle connections without a word; aiohttp's default is below what common ones keep.
KEEPALIVE_SECONDS = 15.0
# Probes that keep NAT and firewall entries alive while a model thinks for minutes without a byte.
TCP_PROBES = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 30, "TCP_KEEPCNT": 5}

_CA_HINT = "if a company proxy or a private CA is in the way, give its certificates as ca_bundle; checks stay on"


class Target(NamedTuple):
    """A URL made ready: parsed, checked, named for messages, and by which way it is reached."""

    url: URL
    where: str
    proxy: str | None


class HttpTransport:
    """Carries requests over HTTP; one object serves any number of calls, event loops and threads.

    Args:
        pool_size: connections open at once per event loop; a call beyond that waits for a free one,
            and no timeout of this layer counts that wait.
        proxy: proxy URL, "" for none; None takes HTTPS_PROXY, HTTP_PROXY and NO_PROXY from the
            environment when a URL is first used. Loopback is never proxied.
        ca_bundle: PEM file or directory of the certificates to trust instead of the system's.
        allow_http: plain http to other machines; without it only loopback may be reached so.
    """

    def __init__(
        self,
        *,
        pool_size: int = 100,
        proxy: str | None = None,
        ca_bundle: str | Path | None = None,
        allow_http: bool = False,
    ) -> None:
        if pool_size < 1:
            raise ConfigError(f"pool_size must be at least 1, not {pool_size}")
        if proxy:
            _check_proxy(proxy, "proxy")
        self._pool_size = pool_size
        self._proxy = proxy
        self._ca_bundle = ca_bundle
        self._allow_http = allow_http
        self._closed = False
        self._targets: dict[str, Target] = {}
        self._pools: dict[int, _Pool] = {}
        _TRANSPORTS.add(self)

    async def send(self, outgoing: Outgoing, timeouts: Timeouts) -> HttpExchange:
        """Send and wait for the head of the answer; redirects come back as they are.

        Raises InputError before anything is sent, ConnectionFailedError, CallTimeoutError or
        BadResponseError after that.
        """
        loop = asyncio.get_running_loop()
        pool = self._pools.get(id(loop))
        if pool is None or pool.loop is not loop:
            pool = await self._open(loop)
        target = self._targets.get(outgoing.url) or self._target(outgoing.url)
        body = outgoing.body
        await pool.slots.acquire()
        watch = _Watch(pool.clock, timeouts)
        token = _WATCH.set(watch)
        try:
            reply = await pool.session.request(
                outgoing.method,
                target.url,
                data=body if len(body) <= LARGE_BODY else BytesIO(body),
                headers=outgoing.headers,
                proxy=target.proxy,
                allow_redirects=False,
            )
        except BaseException as error:
            raised = _head_error(error, watch, target, self._closed)
            watch.stop()
            pool.slots.release()
            if raised is error:
                raise
            raise raised from error
        finally:
            _WATCH.reset(token)
        return HttpExchange(reply, watch, pool, target.where)

    async def close(self) -> None:
        """Close every connection, of whatever event loop; calls under way fail, later ones are refused."""
        self._closed = True
        pools = list(self._pools.values())
        self._pools.clear()
        here = asyncio.get_running_loop()
        for pool in pools:
            if pool.loop is here:
                await pool.close()
            elif pool.loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(pool.close(), pool.loop))
            else:
                pool.abandon()

    async def _open(self, loop: asyncio.AbstractEventLoop) -> _Pool:
        if self._closed:
            raise UsageError("this transport is closed", hint="make a new one, or close it later", sent="no")
        for key, stale in list(self._pools.items()):
            if stale.loop.is_closed():
                del self._pools[key]
                stale.abandon()
        pool = self._pools[id(loop)] = _Pool(loop, self._pool_size, self._ca_bundle)
        await pool.keeper.asend(None)
        return pool

    def _target(self, text: str) -> Target:
        from yarl import URL

        parts = _http_url(text)
        if parts is None:
            raise InputError(
                f"not a URL that can be called: {_without_userinfo(text)!r}",
                hint="it must be absolute, http or https, and percent-encoded",
            )
        host, secure = parts.hostname or "", parts.scheme == "https"
        local = _is_loopback(host)
        where = f"{f'[{host}]' if ':' in host else host}:{parts.port or (443 if secure else 80)}"
        if not (secure or local or self._allow_http):
            raise InputError(
                f"plain http to {where} would send the request and its key unencrypted",
                hint="use an https URL, or allow_http=True where the network between is yours",
            )
        proxy = None
        if not local:
            proxy = _environment_proxy(parts.scheme, host, where) if self._proxy is None else self._proxy or None
        if len(self._targets) >= MAX_TARGETS:
            self._targets.clear()
        # encoded: what was signed and percent-encoded by the caller must reach the wire unchanged.
        target = self._targets[text] = Target(URL(text, encoded=True), where, proxy)
        return target


class HttpExchange:
    """An answer whose head has come; one task at a time reads it."""

    def __init__(self, reply: ClientResponse, watch: _Watch, pool: _Pool, where: str) -> None:
        self.status: int = reply.status
        self._headers: Mapping[str, str] | None = None
        self._reply = reply
        self._content = reply.content
        self._watch = watch
        self._pool = pool
        self._where = where
        self._open = True
        self._error: PolyvoxError | None = None
        headers = reply.headers
        encoding = headers.get("content-encoding")
        self._inflate = None if encoding is None else _Inflate.of(encoding)
        # Only the end of the connection ends such a body, so how it ended has to be asked for.
        until_eof = "content-length" not in headers and "transfer-encoding" not in headers
        self._protocol = reply.connection.protocol if until_eof and reply.connection else None

    @property
    def headers(self) -> Mapping[str, str]:
        """The head's fields, names in lower case; made when first asked for."""
        if self._headers is None:
            self._headers = _plain_headers(self._reply)
        return self._headers

    async def read(self, limit: int) -> bytes:
        """The whole body, decoded; BadResponseError and a closed connection beyond `limit` bytes."""
        content = self._content
        if self._inflate is None and self._error is None and content.is_eof():
            # The usual small answer has come with its head: nothing to wait for, so no coroutine for it.
            whole = content.read_nowait()
            if len(whole) <= limit:
                self._end()
                return whole
            self._refuse(limit)
        parts: list[bytes] = []
        size = 0
        while data := await self.chunk():
            size += len(data)
            if size > limit:
                self._refuse(limit)
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def chunk(self) -> Coroutine[Any, Any, bytes]:
        """The next bytes as they arrive, decoded; b"" when the body ended well."""
        return self._raw() if self._inflate is None else self._inflated(self._inflate)

    async def close(self) -> None:
        """Give the connection back, or cut it when the end of the body is not at hand."""
        if not self._open:
            return
        task = asyncio.current_task()
        if not self._content.is_eof() and not (task and task.cancelling()):
            try:
                await self._drain()
            except BaseException:
                self._cut()
                raise
        self._error = self._error or UsageError("this answer is closed; nothing more can be read from it", sent="yes")
        self._cut()

    def __del__(self) -> None:
        # Nobody closed it. aiohttp takes its connection back by itself; the slot is ours to return, and
        # the collector may run in any thread.
        if getattr(self, "_open", False) and self._pool.usable():
            self._pool.loop.call_soon_threadsafe(self._watch.stop)
            self._pool.loop.call_soon_threadsafe(self._pool.slots.release)

    async def _raw(self) -> bytes:
        if self._error is not None:
            raise self._error
        content = self._content
        try:
            data = content.read_nowait()
            if not data and not content.is_eof():
                self._watch.wait_for_more(self._reply)
                data = await content.readany()
                self._watch.rest()
        except Exception as error:  # noqa: BLE001 - whatever it is, it leaves as one of our tree
            return self._broken(error)
        except BaseException:
            self._error = StreamInterruptedError(f"reading the answer of {self._where} was cancelled", sent="yes")
            self._cut()
            raise
        if not data and self._open:
            self._end()
        return data

    async def _inflated(self, inflate: _Inflate) -> bytes:
        try:
            while not (data := inflate.more()):
                raw = await self._raw()
                if not raw:
                    inflate.end()
                    return b""
                inflate.feed(raw)
        except zlib.error as error:
            self._error = BadResponseError(
                f"the answer of {self._where} is not the {inflate.name} data it says it is ({error})", sent="yes"
            )
        except EOFError:
            self._error = StreamInterruptedError(
                f"the {inflate.name} data of {self._where} ends before its end mark", sent="yes"
            )
        else:
            return data
        self._cut()
        raise self._error

    def _broken(self, error: Exception) -> bytes:
        """Remember why the body broke; give what had arrived before it did, or raise at once."""
        self._error = _body_error(error, self._watch, self._where)
        left = b""
        if not isinstance(self._error, UsageError):
            self._content.set_exception(None)  # type: ignore[arg-type]
            left = self._content.read_nowait()
        self._cut()
        if left:
            return left
        raise self._error from error

    def _end(self) -> None:
        if self._open:
            # aiohttp has taken the connection back the moment the body ended.
            self._open = False
            self._watch.stop()
            self._pool.slots.release()
        cause = self._protocol.exception() if self._protocol is not None else None
        if isinstance(cause, OSError):
            self._error = _body_error(cause, self._watch, self._where)
            raise self._error from cause

    def _refuse(self, limit: int) -> NoReturn:
        self._error = BadResponseError(f"the answer of {self._where} is larger than {limit} bytes", sent="yes")
        self._cut()
        raise self._error

    async def _drain(self) -> None:
        import aiohttp

        size = 0
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while size <= DRAIN_BYTES and (data := await self._content.readany()):
                    size += len(data)
        except (TimeoutError, aiohttp.ClientError, RuntimeError):
            return

    def _cut(self) -> None:
        """Let go of the connection, which is lost unless the body had ended."""
        if self._open:
            self._open = False
            self._watch.stop()
            self._reply.close()
            self._pool.slots.release()


# ---- time -------------------------------------------------------------------------------------


class _Clock:
    """The one timer of an event loop's exchanges: it fires at the nearest of their deadlines, looks at all of
    them, and goes back to sleep. Deadlines that move on never touch it."""

    __slots__ = ("_armed", "_handle", "_watches", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._watches: dict[_Watch, None] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._armed = math.inf

    def expect(self, watch: _Watch, when: float) -> None:
        """Look at this watch at a time, or earlier."""
        self._watches[watch] = None
        if when < self._armed:
            if self._handle is not None:
                self._handle.cancel()
            self._armed = when
            self._handle = self.loop.call_at(when, self._fire)

    def forget(self, watch: _Watch) -> None:
        """Its exchange is over."""
        self._watches.pop(watch, None)

    def stop(self) -> None:
        """Nothing will come any more."""
        self._watches.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle, self._armed = None, math.inf
        for watch in list(self._watches):
            due = watch.look()
            if due < math.inf:
                self.expect(watch, due)


class _Watch:
    """The deadline of an exchange. Before the head it cancels the task that waits; after it, it breaks
    the body.
    """

    __slots__ = ("_clock", "_deadline", "_task", "cancels", "expired", "limits", "phase", "reply")

    def __init__(self, clock: _Clock, limits: Timeouts) -> None:
        self._clock = clock
        self.limits = limits
        self.phase = "connect"
        self.expired = False
        self.reply: ClientResponse | None = None
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self.cancels = self._task.cancelling() if self._task else 0
        self._deadline = math.inf
        self._move(limits.connect)

    def connected(self) -> None:
        """The connection is there and the request is going out."""
        self.phase = "first byte"
        self._move(self.limits.first_byte)

    def wait_for_more(self, reply: ClientResponse) -> None:
        """Somebody waits for the body now."""
        self.phase = "idle"
        self.reply = reply
        self._move(self.limits.idle)

    def rest(self) -> None:
        """Nobody waits: time may pass."""
        self._deadline = math.inf

    def stop(self) -> None:
        """No more deadlines."""
        self._deadline = math.inf
        self._task = self.reply = None
        self._clock.forget(self)

    def own_cancel(self) -> bool:
        """Whether a cancellation was this deadline's alone; takes it back."""
        return self.expired and self._task is not None and self._task.uncancel() <= self.cancels

    def _move(self, seconds: float | None) -> None:
        now = self._clock.loop.time()
        self._deadline = math.inf if seconds is None else now + seconds
        self._clock.expect(self, self._deadline if self.reply is None else min(self._deadline, now + LOOK_SECONDS))

    def look(self) -> float:
        """Act if the time has come; when to look again, or never."""
        if self._deadline == math.inf and self.reply is None:
            return math.inf
        now = self._clock.loop.time()
        connection = self.reply and self.reply.connection
        if self.reply is not None and connection and connection.transport is None and not self.reply.content.is_eof():
            self.reply.content.set_exception(ConnectionError("it is not framed as HTTP says"))
        elif self._deadline > now + 0.002:  # clocks of event loops are coarse to about 1 ms
            return self._deadline if self.reply is None else min(self._deadline, now + LOOK_SECONDS)
        else:
            self.expired = True
            if self.reply is not None:
                self.reply.content.set_exception(TimeoutError())
            elif self._task is not None:
                self._task.cancel()
        return math.inf

    def error(self, where: str) -> CallTimeoutError:
        """What to tell the caller when time ran out."""
        text, seconds = {
            "connect": (f"connect: no connection to {where}", self.limits.connect),
            "first byte": (f"first byte: no answer from {where}", self.limits.first_byte),
            "idle": (f"idle: nothing more came from {where}", self.limits.idle),
        }[self.phase]
        return CallTimeoutError(f"{text} within {seconds:g} s", sent="no" if self.phase == "connect" else "yes")


_WATCH: ContextVar[_Watch] = ContextVar("polyvox_http_watch")


# ---- one event loop's connections -------------------------------------------------------------


class _Pool:
    """The session of one event loop. Slots are counted here and not in aiohttp's connector, so that
    waiting for a free connection is not mistaken for a slow connect.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int, ca_bundle: str | Path | None) -> None:
        self.loop = loop
        self.clock = _Clock(loop)
        self.slots = asyncio.Semaphore(size)
        self.session = _session(ca_bundle)
        self.keeper = _keep(self.session)
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

    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
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
def _response_class() -> type[ClientResponse]:
    from aiohttp import ClientResponse

    class Response(ClientResponse):
        """Tells the watch when the request goes out, and lets go of a connection without ceremony."""

        def start(self, connection: Connection) -> Coroutine[Any, Any, ClientResponse]:
            _WATCH.get().connected()
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


_TRANSPORTS: weakref.WeakSet[HttpTransport] = weakref.WeakSet()
_INHERITED: list[_Pool] = []


def _after_fork() -> None:
    """In the child: the parent's sockets are the parent's. Kept, so that no finalizer closes them."""
    for transport in list(_TRANSPORTS):
        for pool in transport._pools.values():
            pool.inherited = True
            pool.abandon()
            _INHERITED.append(pool)
        transport._pools = {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# ---- where to ---------------------------------------------------------------------------------


def _http_url(text: str) -> SplitResult | None:
    """The parts of an absolute http or https URL in plain ASCII; None for anything else."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if usable and text.isascii() and text.isprintable() and " " not in text else None


def _without_userinfo(text: str) -> str:
    scheme, mark, rest = text.split("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _environment_proxy(scheme: str, host: str, where: str) -> str | None:
    """The proxy the environment names for a scheme, unless NO_PROXY excepts the host."""
    # Under CGI, HTTP_PROXY is a request header of the visitor: only the lower-case name counts there.
    names = [f"{scheme}_proxy"]
    if not (scheme == "http" and "REQUEST_METHOD" in os.environ):
        names.append(f"{scheme.upper()}_PROXY")
    name = next((name for name in names if os.environ.get(name)), None)
    excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if name is None or any(
        _excepts(entry.strip().lower(), host.lower(), where.lower()) for entry in excepted.split(",")
    ):
        return None
    _check_proxy(os.environ[name], name)
    return os.environ[name]


def _excepts(entry: str, host: str, where: str) -> bool:
    """Whether one NO_PROXY entry covers a host: *, a name and all below it, host:port, an address or network."""
    if not entry:
        return False
    name = entry.removeprefix("*").removeprefix(".")
    if not name or name in (host, where) or host.endswith("." + name) or where.endswith("." + name):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _check_proxy(proxy: str, name: str) -> None:
    if _http_url(proxy) is None:
        raise ConfigError(
            f"{name} is not a proxy that can be used: {_without_userinfo(proxy)!r}",
            hint="give an http:// or https:// URL; SOCKS is not supported",
        )


def _plain_headers(reply: ClientResponse) -> dict[str, str]:
    found = reply.headers
    plain = {name.lower(): value for name, value in found.items()}
    if len(plain) != len(found):
        plain = {name: ", ".join(found.getall(name)) for name in plain}
    if not "".join(plain.values()).isascii():
        # Undecodable bytes come as lone surrogates, which no encoder downstream takes.
        for name, value in plain.items():
            plain[name] = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return plain


# ---- compressed bodies ------------------------------------------------------------------------

_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class _Inflate:
    """Decodes gzip and deflate in bounded pieces, and knows whether the data ended. aiohttp's own decoder
    takes gzip data that was cut short for whole, so it is switched off.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._stream: Any = None
        self._pending = b""
        self._more = False

    @staticmethod
    def of(encoding: str) -> _Inflate | None:
        """A decoder for a Content-Encoding; None for identity. An unknown one fails when it is read."""
        name = encoding.strip().lower()
        return None if name in ("", "identity") else _Inflate(name)

    def feed(self, data: bytes) -> None:
        """Take bytes from the wire."""
        self._pending += data
        self._more = True

    def more(self) -> bytes:
        """Decoded bytes, at most MAX_INFLATED; b"" when more has to be fed first."""
        while self._more:
            if self._stream is None or self._stream.eof:
                # Past one gzip member may come another, or padding with zeros.
                if self._stream is not None:
                    self._pending = self._pending.lstrip(b"\0")
                if not self._pending:
                    self._more = False
                    break
                self._stream = zlib.decompressobj(self._window())
            data: bytes = self._stream.decompress(self._pending, MAX_INFLATED)
            self._pending = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            # A full piece may leave output inside zlib although no input is left.
            self._more = bool(self._pending) or len(data) == MAX_INFLATED
            if data:
                return data
        return b""

    def end(self) -> None:
        """The wire has ended; EOFError when the data has not."""
        if self._stream is not None and not self._stream.eof:
            raise EOFError

    def _window(self) -> int:
        window = _WINDOW.get(self.name)
        if window is None:
            raise zlib.error("encoding not supported")
        # Some servers call it deflate and leave out the zlib header (RFC 9110, 8.4.1.2, note).
        return -zlib.MAX_WBITS if self.name == "deflate" and self._pending[0] & 0x0F != 8 else window


# ---- what went wrong --------------------------------------------------------------------------


def _head_error(error: BaseException, watch: _Watch, target: Target, closed: bool) -> BaseException:
    """Our error for one that came before the head; cancellations and the like as they are."""
    import aiohttp

    where = target.where + (f" through the proxy {_host_port(target.proxy)}" if target.proxy else "")
    sent: Sent = "no" if watch.phase == "connect" else "unknown"
    if isinstance(error, asyncio.CancelledError):
        return watch.error(where) if watch.own_cancel() else error
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return ConnectionFailedError(
            f"no way to {where}: it answered {error.status} to CONNECT",
            hint="the proxy wants other credentials" if error.status == 407 else None,
            retryable=error.status >= 500,
            sent="no",
        )
    if isinstance(error, aiohttp.ClientResponseError):
        return BadResponseError(f"the answer of {where} is not HTTP, or its head is too large", sent="yes")
    if isinstance(error, aiohttp.ClientSSLError):
        reason = _reason(error.os_error)
        return ConnectionFailedError(f"TLS with {where} failed: {reason}", hint=_CA_HINT, retryable=False, sent="no")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return ConnectionFailedError(
            f"DNS: the name of {where} cannot be resolved: {_reason(error.os_error)}",
            hint="check the host name and the network",
            sent="no",
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        # asyncio's own text has the address again, not the reason.
        reason = os.strerror(error.errno) if error.errno else _reason(error.os_error)
        return ConnectionFailedError(f"no connection to {where}: {reason}", sent="no")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        begun = not isinstance(error.message, str)
        return ConnectionFailedError(f"{where} closed the connection before it answered", sent="yes" if begun else sent)
    if isinstance(error, (aiohttp.ClientError, OSError)):
        if closed:
            return UsageError("this transport was closed during the call", sent=sent)
        return ConnectionFailedError(f"the connection to {where} broke: {_reason(error)}", sent=sent)
    if isinstance(error, RuntimeError):
        return UsageError(f"the HTTP session cannot be used: {error}", sent=sent)
    if isinstance(error, (ValueError, TypeError)):
        return InputError(
            f"the request to {where} cannot be sent: {error}",
            hint="a key or header with a line break in it, most likely at its end",
        )
    return error


def _body_error(error: BaseException, watch: _Watch, where: str) -> PolyvoxError:
    """Our error for one that came in the body."""
    if watch.expired:
        return watch.error(where)
    if isinstance(error, RuntimeError):
        return UsageError(f"two tasks read one answer, or its session was closed: {error}", sent="yes")
    reason = _reason(error.__cause__ or error)
    return StreamInterruptedError(f"the answer of {where} broke off: {reason}", sent="yes")


def _reason(error: BaseException) -> str:
    """A cause in one line: the system's words where there are some."""
    texts = (getattr(error, name, None) for name in ("verify_message", "strerror", "message"))
    return " ".join(str(next(filter(None, texts), error)).split()) or type(error).__name__


def _host_port(proxy: str) -> str:
    parts = urlsplit(proxy)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
