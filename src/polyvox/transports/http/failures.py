"""What went wrong on the way, in our own words, with how far the request got."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import urlsplit

from polyvox.errors import (
    BadResponseError,
    ConnectionFailedError,
    InputError,
    PolyvoxError,
    Sent,
    StreamInterruptedError,
    UsageError,
)
from polyvox.transports import tell_unsent
from polyvox.transports.http.address import Target
from polyvox.transports.http.clock import Watch

_CA_HINT = "if a company proxy or a private CA is in the way, give its certificates as ca_bundle; checks stay on"


def head_error(error: BaseException, watch: Watch, target: Target, closed: bool) -> BaseException:
    """Our error for one that came before the head; cancellations and the like as they are."""
    import aiohttp

    where = target.where + (f" through the proxy {_host_port(target.proxy)}" if target.proxy else "")
    sent: Sent = "no" if watch.phase == "connect" else "unknown"
    if isinstance(error, asyncio.CancelledError):
        if watch.own_cancel():
            return watch.error(where)
        if sent == "no":
            tell_unsent(error)
        return error
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


def body_error(error: BaseException, watch: Watch, where: str) -> PolyvoxError:
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
