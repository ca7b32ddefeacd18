"""Passes requests on to another transport and keeps every exchange as a line that replay reads.
It knows no dialect, keeps no credential of a request, and never harms the call it listens to.
"""

from __future__ import annotations

import asyncio
import base64
import bisect
import contextlib
import errno
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

import msgspec

from polyvox.errors import BadResponseError, ConfigError
from polyvox.keys import MASK, is_secret_name, redact
from polyvox.transports import Exchange, Outgoing, Timeouts, Transport
from polyvox.transports.replay import _body, record_of

log: logging.Logger = logging.getLogger("polyvox.transports.record")

_MODE = 0o600
_LONGEST_PAUSE = 3600.0  # what a record may hold
_SHORTEST_SECRET = 8  # masking shorter values would black out ordinary words
_MASK = MASK.encode()

# What a decoder, a retry or a support desk reads; cookies, accounts and the framing of bytes that are stored
# decoded stay out.
_KEPT_HEADERS = re.compile(
    r"content-type|date|cf-ray|(?:[a-z-]*-)?retry-after(?:-ms)?|x-should-retry|[a-z-]*request-?id|[a-z-]*error-?type"
    r"|[a-z-]*rate-?limit[a-z0-9-]*|[a-z-]*processing-ms|[a-z-]*(?:api-)?version"
)


class RecordTransport:
    """Carries requests through `inner` and appends each exchange to a JSON Lines file that
    `ReplayTransport.from_jsonl` reads. Several transports and processes may share one file.

    A line is written when its exchange ends: read to its end, closed, left alone or broken. One that failed
    before its head leaves none. A secret in it is masked, so such a body is not the one that came; a secret
    that a model spells out over several events of a stream is not found.

    Args:
        inner: what really carries the requests; it is closed together with this.
        path: the file; made with mode 0600 where it is missing, and put to that mode where it is there.
        clock: monotonic seconds, the event loop's own unless given.

    Raises ConfigError when the file cannot be written. Where that shows only later, it is logged.
    """

    def __init__(
        self, inner: Transport, path: str | os.PathLike[str], *, clock: Callable[[], float] | None = None
    ) -> None:
        self._inner = inner
        self._clock = clock
        try:
            # absolute: a later change of the working directory does not move the recording.
            self._path = Path(path).absolute()
            _mend(self._path)
        except (OSError, TypeError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ConfigError(
                f"cannot write the recording {path!s}: {why}",
                hint="name a file in a folder that exists and that you may write to",
            ) from None

    async def send(self, outgoing: Outgoing, timeouts: Timeouts) -> RecordExchange:
        """Send through the inner transport; its errors pass as they are."""
        exchange = await self._inner.send(outgoing, timeouts)
        return RecordExchange(exchange, outgoing, self._keep, self._clock or asyncio.get_running_loop().time)

    async def close(self) -> None:
        """Close the inner transport; exchanges that are still open are recorded when they end."""
        await self._inner.close()

    def _keep(self, outgoing: Outgoing, exchange: Exchange, chunks: list[Heard], cut: bool) -> None:
        """Write one exchange down; whatever goes wrong with that is logged."""
        try:
            _append(self._path, _line(outgoing, exchange, chunks, cut))
        except Exception as error:  # noqa: BLE001 - the call goes on, whatever becomes of its recording
            why = (isinstance(error, OSError) and error.strerror) or error
            log.warning("an exchange was not recorded in %s: %s", self._path, redact(str(why)))


Heard = tuple[float, bytes]
"""Seconds waited, and the bytes that then came."""


class RecordExchange:
    """See `transports.Exchange`. A pause is the time spent waiting for the transport: the reader's own time
    comes on top of it again when it reads the replay."""

    def __init__(
        self,
        inner: Exchange,
        outgoing: Outgoing,
        keep: Callable[[Outgoing, Exchange, list[Heard], bool], None],
        clock: Callable[[], float],
    ) -> None:
        self.status: int = inner.status
        self._inner = inner
        self._outgoing = outgoing
        self._keep = keep
        self._clock = clock
        self._chunks: list[Heard] = []
        self._over = False

    @property
    def headers(self) -> Mapping[str, str]:
        """The head's fields, all of them."""
        return self._inner.headers

    async def read(self, limit: int) -> bytes:
        """See `transports.Exchange.read`. Read by chunks, so that what came before a break is recorded."""
        pieces, size = [], 0
        while data := await self.chunk():
            pieces.append(data)
            size += len(data)
            if size > limit:
                self._end(cut=True)
                await self._inner.close()
                raise BadResponseError(f"the answer is larger than {limit} bytes", status=self.status, sent="yes")
        return b"".join(pieces)

    async def chunk(self) -> bytes:
        """See `transports.Exchange.chunk`."""
        start = self._clock()
        try:
            data = await self._inner.chunk()
        except BaseException:
            self._end(cut=True)
            raise
        if not data:
            self._end()
        elif not self._over:
            self._chunks.append((self._clock() - start, data))
        return data

    async def close(self) -> None:
        """See `transports.Exchange.close`."""
        self._end()
        await self._inner.close()

    def __del__(self) -> None:
        # Nobody closed it, as when a loop over a stream is left early.
        with contextlib.suppress(Exception):
            self._end()

    def _end(self, *, cut: bool = False) -> None:
        if not self._over:
            self._over = True
            chunks, self._chunks = self._chunks, []
            self._keep(self._outgoing, self._inner, chunks, cut)


# ---- the file ---------------------------------------------------------------------------------

# Not blocking: opening a pipe that nobody reads would wait forever.
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The file, for its owner only, open for appending; raises OSError or ValueError."""
    handle = os.open(path, _FLAGS, _MODE)
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("it is not a regular file")
        if stat.S_IMODE(facts.st_mode) & 0o077 and hasattr(os, "fchmod"):
            os.fchmod(handle, _MODE)
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def _held(handle: int, *, alone: bool) -> Iterator[bool]:
    """Hold an open file, alone or among others; False where that cannot be had at once. It never waits: a
    finalizer may write while its own thread holds the file."""
    try:
        import fcntl

        fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except (ImportError, OSError):
        yield False
        return
    try:
        yield True
    finally:
        # Closing is not enough: a process forked just now has the file open too.
        fcntl.flock(handle, fcntl.LOCK_UN)


def _mend(path: Path) -> None:
    """End a last line that has no end, as after an editor: it would swallow the first one that is added."""
    with _opened(path) as handle, _held(handle, alone=True) as quiet:
        # A line that is just being written has no end either, and needs none from here.
        if not quiet and os.name == "posix":
            return
        if os.lseek(handle, 0, os.SEEK_END) and os.lseek(handle, -1, os.SEEK_END) and os.read(handle, 1) != b"\n":
            os.write(handle, b"\n")


def _append(path: Path, line: bytes) -> None:
    """Add a line in one write, which the system keeps apart from others; raises OSError or ValueError."""
    with _opened(path) as handle, _held(handle, alone=False):
        written = os.write(handle, line)
        if written < len(line):
            end = os.lseek(handle, 0, os.SEEK_CUR)
            if os.fstat(handle).st_size == end:  # else another's line stands behind it already
                os.ftruncate(handle, end - written)
            raise OSError(errno.ENOSPC, "there is no room for it")


# ---- the line ---------------------------------------------------------------------------------


def _line(outgoing: Outgoing, exchange: Exchange, chunks: list[Heard], cut: bool) -> bytes:
    """An exchange as the JSON line that replay reads, secrets masked, with its newline."""
    own = _own_secrets(outgoing)
    parts = urlsplit(outgoing.url)
    # Without user, query and fragment: credentials travel there, and replay looks at the path only.
    url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    value: dict[str, Any] = {
        "method": outgoing.method,
        "url": _masked(url, own),
        "request": _masked_value(_body(outgoing.body), own),
        "status": exchange.status,
        "headers": {
            name: _masked(text.encode("utf-8", "replace").decode(), own)
            for name, text in exchange.headers.items()
            if _KEPT_HEADERS.fullmatch(name)
        },
        "chunks": [_chunk(pause, data) for pause, data in _masked_chunks(chunks, own)],
    }
    if cut:
        value["cut"] = True
    record_of(value)  # a line that replay refuses would spoil the whole file
    return msgspec.json.encode(value) + b"\n"


def _chunk(pause: float, data: bytes) -> dict[str, Any]:
    try:
        chunk: dict[str, Any] = {"text": data.decode()}
    except UnicodeDecodeError:
        chunk = {"base64": base64.b64encode(data).decode()}
    if seconds := round(min(max(pause, 0.0), _LONGEST_PAUSE), 3):
        chunk["pause"] = seconds
    return chunk


# ---- secrets ----------------------------------------------------------------------------------


def _own_secrets(outgoing: Outgoing) -> tuple[str, ...]:
    """The credentials of this very request as an answer may repeat them, longest first. They need be neither
    known to `keys` nor shaped like a key."""
    parts = urlsplit(outgoing.url)
    given = [*outgoing.headers.items(), *parse_qsl(parts.query), ("password", parts.password or "")]
    found = {form for name, text in given if is_secret_name(name) for form in _forms(text)}
    return tuple(sorted(found, key=len, reverse=True))


def _forms(text: str) -> Iterator[str]:
    """A header's value and its last word, which is the secret behind a word like Bearer: plain, in JSON, in URLs."""
    for secret in (text.strip(), text.strip().rpartition(" ")[2]):
        if len(secret) >= _SHORTEST_SECRET:
            yield from (secret, json.dumps(secret)[1:-1], quote(secret, safe=""))


def _masked(text: str, own: tuple[str, ...]) -> str:
    for secret in own:
        text = text.replace(secret, MASK)
    return redact(text)


def _masked_value(value: Any, own: tuple[str, ...]) -> Any:
    """A JSON value with every text in it masked."""
    if isinstance(value, str):
        return _masked(value, own)
    if isinstance(value, list):
        return [_masked_value(item, own) for item in value]
    if isinstance(value, dict):
        return {_masked(name, own): _masked_field(name, item, own) for name, item in value.items()}
    return value


def _masked_field(name: str, value: Any, own: tuple[str, ...]) -> Any:
    """A field's value masked; a secret may be one by its name only."""
    if isinstance(value, str) and is_secret_name(name):
        shown = f"{name}: {value}"
        return _masked_value(value, own) if redact(shown) == shown else MASK
    return _masked_value(value, own)


def _masked_chunks(chunks: list[Heard], own: tuple[str, ...]) -> list[Heard]:
    """The chunks with secrets masked, also those that lie across their borders."""
    whole = b"".join([data for _, data in chunks])
    safe = _masked(whole.decode("utf-8", "surrogateescape"), own).encode("utf-8", "surrogateescape")
    if safe == whole:
        return chunks
    cuts = _cuts_alike(whole, safe, [len(data) for _, data in chunks])
    return [(pause, safe[a:b]) for (pause, _), a, b in zip(chunks, [0, *cuts], cuts, strict=False)]


def _cuts_alike(whole: bytes, safe: bytes, sizes: list[int]) -> list[int]:
    """Where to cut the masked bytes, so that the chunks are those of the original; a mask is never cut.
    Between masks that stand a letter or two apart a cut may be off by those.
    """
    starts, places = [], []
    at, place = 0, 0
    for literal in safe.split(_MASK):
        # It is there: masking replaces and moves nothing.
        at = max(whole.find(literal, at), at)
        starts.append(at)
        places.append((place, len(literal)))
        at += len(literal)
        place += len(literal) + len(_MASK)
    cuts, border = [], 0
    for size in sizes:
        border += size
        i = bisect.bisect_right(starts, border) - 1
        place, length = places[max(i, 0)]
        beyond = border - starts[max(i, 0)]
        cuts.append(min(place + (beyond if beyond <= length else length + len(_MASK)), len(safe)))
    if cuts:
        cuts[-1] = len(safe)
    return cuts
