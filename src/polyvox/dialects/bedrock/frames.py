"""Messages of a stream that are alike but for a few words: what depends on their length alone is worked out once a
length, checksums included. It knows no event."""

from __future__ import annotations

import struct
from binascii import crc32

from polyvox.dialects.framing import aws_message

_CHECKSUM = struct.Struct(">I").pack
_LENGTHS = 256  # lengths that are remembered; longer words are rare


class Frames:
    """Messages of the same headers whose payload begins and ends with the same bytes."""

    __slots__ = ("_begin", "_end", "_headers", "_heads")

    def __init__(self, headers: bytes, begin: bytes, end: bytes) -> None:
        self._headers = headers
        self._begin = begin
        self._end = end
        # By length: the message up to the words, and the checksum so far.
        self._heads: dict[int, tuple[bytes, int]] = {}

    def message(self, words: bytes) -> bytes:
        """The message with these bytes in the middle of its payload."""
        head = self._heads.get(len(words))
        if head is None:
            if len(words) >= _LENGTHS:
                return aws_message(self._headers, self._begin + words + self._end)
            head = self._head(len(words))
        rest = words + self._end
        return head[0] + rest + _CHECKSUM(crc32(rest, head[1]))

    def _head(self, length: int) -> tuple[bytes, int]:
        whole = aws_message(self._headers, self._begin + bytes(length) + self._end)
        head = whole[: -len(self._end) - length - 4]  # the last four bytes are the checksum of all others
        found = self._heads[length] = head, crc32(head)
        return found
