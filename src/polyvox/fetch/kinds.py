"""What fetched bytes are, by themselves where they tell, and what a data: URL holds. It opens nothing."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from polyvox.fetch.rules import STRICT, refusal


class Fetched(Struct, frozen=True):
    """What came: url is the last one, after redirects, "" for a data: URL; media_type is what the bytes are, by
    themselves where they tell."""

    url: str
    data: bytes
    media_type: str


# ---- data: URLs -------------------------------------------------------------------------------


def data_url(url: str, max_bytes: int = STRICT.max_bytes) -> Fetched:
    """What a data: URL holds (RFC 2397), percent-encoded or base64; raises InputError.

    >>> data_url("data:;base64,aGk=").data
    b'hi'
    """
    head, comma, body = url[5:].partition(",")
    if not comma:
        raise refusal("url_invalid", "the data: URL has no comma before its data")
    kind, encoded = head, head.lower().endswith(";base64")
    if encoded:
        kind = head[: -len(";base64")]
    # The least a body can hold, checked before it is decoded.
    if len(body) // (4 if encoded else 3) > max_bytes:
        raise refusal("url_too_large", f"the data: URL holds more than {max_bytes} bytes")
    try:
        data = unquote_to_bytes(body)
        if encoded:
            data = base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise refusal("url_invalid", f"the data: URL is not valid {'base64' if encoded else 'text'}") from None
    if len(data) > max_bytes:
        raise refusal("url_too_large", f"the data: URL holds more than {max_bytes} bytes")
    return Fetched("", data, kind.partition(";")[0].strip().lower() or "text/plain")


# ---- what it is -------------------------------------------------------------------------------

# The first bytes of a kind of file, and where they stand (WHATWG MIME Sniffing, and the formats' own documents).
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"), (0, b"\xff\xd8\xff", "image/jpeg"), (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"), (8, b"WEBP", "image/webp"), (0, b"II*\0", "image/tiff"), (0, b"MM\0*", "image/tiff"),
    (4, b"ftypavif", "image/avif"), (4, b"ftypheic", "image/heic"), (0, b"%PDF-", "application/pdf"),
    (0, b"ID3", "audio/mpeg"), (0, b"\xff\xfb", "audio/mpeg"), (0, b"\xff\xf3", "audio/mpeg"),
    (0, b"OggS", "audio/ogg"), (0, b"fLaC", "audio/flac"), (8, b"WAVE", "audio/wav"), (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftyp", "video/mp4"), (0, b"\x1aE\xdf\xa3", "video/webm"),
)  # fmt: skip
_RIFF = ("image/webp", "audio/wav")
_WORDS = ("text/", "application/json", "application/xml", "application/yaml", "application/x-sh")


def sniff(data: bytes) -> str | None:
    """The media type that the bytes themselves show, or None."""
    for start, magic, kind in _MAGIC:
        if data.startswith(magic, start) and (kind not in _RIFF or data.startswith(b"RIFF")):
            return kind
    return None


def media_type_of(data: bytes, declared: str | None = None) -> str:
    """What bytes are: by themselves where they tell; text as declared, if it is text; never a picture, sound or
    film because a server says so."""
    said = (declared or "").partition(";")[0].strip().lower()
    found = sniff(data)
    if found is not None:
        return found
    try:
        data.decode()
    except UnicodeDecodeError:
        unshown = said.startswith((*_WORDS, "image/", "audio/", "video/"))
        return "application/octet-stream" if unshown or not said else said
    if data.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "text/html"
    return said if said.startswith(_WORDS) else "text/plain"
