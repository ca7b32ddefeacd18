"""HTTP/1.1 over pooled connections: one call out, one answer in, every failure in our own words.
It follows no redirect, keeps no cookie, retries nothing, and knows neither dialects nor keys.
"""

from __future__ import annotations

import asyncio
import os
import weakref
import zlib
from collections.abc import Coroutine, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from polyvox.errors import BadResponseError, ConfigError, InputError, PolyvoxError, StreamInterruptedError, UsageError
from polyvox.transports import Outgoing, Timeouts, tell_unsent
from polyvox.transports.http.address import (
    Target,
    check_proxy,
    environment_proxy,
    http_url,
    is_loopback,
    without_userinfo,
)
from polyvox.transports.http.clock import WATCH, Watch
from polyvox.transports.http.failures import body_error, head_error
from polyvox.transports.http.inflate import MAX_INFLATED, HeadFields, Inflate
from polyvox.transports.http.pool import Pool

if TYPE_CHECKING:
    from aiohttp import ClientResponse

__all__ = ["MAX_INFLATED", "HttpExchange", "HttpTransport"]

MAX_TARGETS = 256  # URLs whose parsed form is kept
# aiohttp copies a bytes body whole and warns past this size; as a file it is written piece by piece.
LARGE_BODY = 1024 * 1024
# An unread end this small and this near is read, because a new TLS connection costs more.
DRAIN_BYTES = 16 * 1024
DRAIN_SECONDS = 0.05


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
            check_proxy(proxy, "proxy")
        self._pool_size = pool_size
        self._proxy = proxy
        self._ca_bundle = ca_bundle
        self._allow_http = allow_http
        self._closed = False
        self._targets: dict[str, Target] = {}
        self._pools: dict[int, Pool] = {}
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
        try:
            await pool.slots.acquire()
        except asyncio.CancelledError as gone:
            tell_unsent(gone)
            raise
        watch = Watch(pool.clock, timeouts)
        token = WATCH.set(watch)
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
            raised = head_error(error, watch, target, self._closed)
            watch.stop()
            pool.slots.release()
            if raised is error:
                raise
            raise raised from error
        finally:
            WATCH.reset(token)
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

    async def _open(self, loop: asyncio.AbstractEventLoop) -> Pool:
        if self._closed:
            raise UsageError("this transport is closed", hint="make a new one, or close it later", sent="no")
        for key, stale in list(self._pools.items()):
            if stale.loop.is_closed():
                del self._pools[key]
                stale.abandon()
        pool = self._pools[id(loop)] = Pool(loop, self._pool_size, self._ca_bundle)
        await pool.keeper.asend(None)
        return pool

    def _target(self, text: str) -> Target:
        from yarl import URL

        parts = http_url(text)
        if parts is None:
            raise InputError(
                f"not a URL that can be called: {without_userinfo(text)!r}",
                hint="it must be absolute, http or https, and percent-encoded",
            )
        host, secure = parts.hostname or "", parts.scheme == "https"
        local = is_loopback(host)
        where = f"{f'[{host}]' if ':' in host else host}:{parts.port or (443 if secure else 80)}"
        if not (secure or local or self._allow_http):
            raise InputError(
                f"plain http to {where} would send the request and its key unencrypted",
                hint="use an https URL, or allow_http=True where the network between is yours",
            )
        proxy = None
        if not local:
            proxy = environment_proxy(parts.scheme, host, where) if self._proxy is None else self._proxy or None
        if len(self._targets) >= MAX_TARGETS:
            self._targets.clear()
        # encoded: what was signed and percent-encoded by the caller must reach the wire unchanged.
        target = self._targets[text] = Target(URL(text, encoded=True), where, proxy)
        return target


class HttpExchange:
    """An answer whose head has come; one task at a time reads it."""

    def __init__(self, reply: ClientResponse, watch: Watch, pool: Pool, where: str) -> None:
        self.status: int = reply.status
        self._reply = reply
        self._content = reply.content
        self._watch = watch
        self._pool = pool
        self._where = where
        self._open = True
        self._error: PolyvoxError | None = None
        headers = reply.headers
        encoding = headers.get("content-encoding")
        self._inflate = None if encoding is None else Inflate.of(encoding)
        # Only the end of the connection ends such a body, so how it ended has to be asked for.
        until_eof = "content-length" not in headers and "transfer-encoding" not in headers
        self._protocol = reply.connection.protocol if until_eof and reply.connection else None

    @property
    def headers(self) -> Mapping[str, str]:
        """The head's fields, names in lower case."""
        return HeadFields(self._reply.headers)

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
                parts.clear()  # the error holds this frame for as long as somebody holds the error
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
        # Nobody closed it, as when a loop over a stream is left early: the connection is cut. The collector
        # may run in any thread, so the loop does it.
        if getattr(self, "_open", False) and self._pool.usable():
            for step in (self._reply.close, self._watch.stop, self._pool.slots.release):
                self._pool.loop.call_soon_threadsafe(step)

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

    async def _inflated(self, inflate: Inflate) -> bytes:
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
        self._error = body_error(error, self._watch, self._where)
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
            self._error = body_error(cause, self._watch, self._where)
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


_TRANSPORTS: weakref.WeakSet[HttpTransport] = weakref.WeakSet()
_INHERITED: list[Pool] = []


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
