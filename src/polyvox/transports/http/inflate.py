"""Bodies and headers as they come: decompressed in bounded pieces, header names in lower case."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import ClientResponse

MAX_INFLATED = 1024 * 1024  # decoded bytes one chunk() gives at most

_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class Inflate:
    """Decodes gzip and deflate in bounded pieces, and knows whether the data ended. aiohttp's own decoder
    takes gzip data that was cut short for whole, so it is switched off.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._stream: Any = None
        self._pending = b""
        self._more = False

    @staticmethod
    def of(encoding: str) -> Inflate | None:
        """A decoder for a Content-Encoding; None for identity. An unknown one fails when it is read."""
        name = encoding.strip().lower()
        return None if name in ("", "identity") else Inflate(name)

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


def plain_headers(reply: ClientResponse) -> dict[str, str]:
    """Header fields by lower-case name, repeated ones joined, always encodable."""
    found = reply.headers
    plain = {name.lower(): value for name, value in found.items()}
    if len(plain) != len(found):
        plain = {name: ", ".join(found.getall(name)) for name in plain}
    if not "".join(plain.values()).isascii():
        # Undecodable bytes come as lone surrogates, which no encoder downstream takes.
        for name, value in plain.items():
            plain[name] = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return plain
