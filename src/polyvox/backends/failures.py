"""What an exception of somebody else's code means, as one error of our tree. It reads attributes that many
libraries share and imports none of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from polyvox.dialects import Reply, encode_json, snippet
from polyvox.errors import CallTimeoutError, ConnectionFailedError, PolyvoxError, ServerError

_TIMEOUT = re.compile(r"Time(d)?[oO]ut")
_CONNECTION = re.compile(r"Connect(ion)?(Error|Failed|Refused|Reset)|TransportError|NetworkError|ProtocolError")
_LENGTH = 500


def failure(name: str, error: Exception) -> PolyvoxError:
    """What a user's own code raised: a lack of time, a lost connection, or a fault that another try would
    only repeat. An error of our own tree is itself."""
    if isinstance(error, PolyvoxError):
        return error
    words = f"the backend {name!r} failed: {_said(error)}"
    if isinstance(error, TimeoutError):
        return CallTimeoutError(words, hint="give the backend longer, or ask it for less")
    if isinstance(error, ConnectionError):
        return ConnectionFailedError(words, hint="check what the backend connects to")
    return ServerError(
        words, retryable=False, hint="this is an exception of the backend's own code; its __cause__ has the traceback"
    )


def client_failure(name: str, error: Exception, decode_error: Callable[[Reply], PolyvoxError]) -> PolyvoxError:
    """What a client library raised: by the name of its class where nothing was answered, else by the status,
    body and headers of the answer."""
    if isinstance(error, PolyvoxError):
        return error
    names = [kind.__name__ for kind in type(error).__mro__]
    if any(_TIMEOUT.search(each) for each in names) and not _answered(error):
        return CallTimeoutError(f"the client {name!r} ran out of time: {_said(error)}")
    if any(_CONNECTION.search(each) for each in names) and not _answered(error):
        return ConnectionFailedError(f"the client {name!r} lost its connection: {_said(error)}")
    told = getattr(error, "status_code", None)
    if type(told) is not int and not isinstance(getattr(error, "body", None), Mapping):
        return failure(name, error)
    # Below 400 the error came inside an answer, and only its body tells what it is.
    status = told if type(told) is int and 400 <= told < 600 else 0
    found = decode_error(Reply(status, headers_of(error), _body(error, status)))
    found.request_id = found.request_id or _text(getattr(error, "request_id", None))
    return found


def _answered(error: Exception) -> bool:
    """Whether there is an answer behind it: then its status says more than a name does."""
    return type(getattr(getattr(error, "response", None), "status_code", None)) is int


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {snippet(str(error), _LENGTH)}"


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def headers_of(thing: Any) -> dict[str, str]:
    """The fields of the head of the answer behind an error or a stream, names in lower case; {} where none is told."""
    found = getattr(getattr(thing, "response", None), "headers", None) or getattr(thing, "headers", None)
    pairs = found.items() if isinstance(found, Mapping) else ()
    return {name.lower(): value for name, value in pairs if isinstance(name, str) and isinstance(value, str)}


def _body(error: Exception, status: int) -> bytes:
    """The body of an answer as it came, where the library kept it; else as it was read, else the library's words."""
    raw = _raw(error) if status else b""
    if raw.strip():
        return raw
    body = getattr(error, "body", None)
    if isinstance(body, Mapping) and body:
        try:
            return encode_json(dict(body) if "error" in body else {"error": dict(body)})
        except TypeError:
            pass  # it holds what is no JSON: then the words must do
    words = _text(getattr(error, "message", None)) or _text(getattr(error, "error", None)) or str(error)
    return encode_json({"error": {"message": words}})


def _raw(error: Exception) -> bytes:
    try:
        raw = getattr(getattr(error, "response", None), "content", None)
    except Exception:  # noqa: BLE001 - the body of a stream, which nobody has read
        return b""
    return raw if isinstance(raw, bytes) else b""
