"""Bodies and headers as they come: decompressed in bounded pieces, header names in lower case."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

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


class HeadFields(Mapping[str, str]):
    """The fields of a head by lower-case name, repeated ones joined, always encodable. Each is made when it
    is asked for: of a score of fields a call needs one or two."""

    __slots__ = ("_found",)

    def __init__(self, found: CIMultiDictProxy[str]) -> None:
        self._found = found

    def __getitem__(self, name: str) -> str:
        values = self._found.getall(name)
        value = values[0] if len(values) == 1 else ", ".join(values)
        # Undecodable bytes come as lone surrogates, which no encoder downstream takes.
        return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or the default."""
        return self[name] if name in self._found else default

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([name.lower() for name in self._found]))

    def __len__(self) -> int:
        return len(list(iter(self)))
