"""Pictures, sounds, films and documents as blocks and back: inline bytes or a place in S3, and a format by
its short name. It knows nothing of the turns they stand in."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import unquote_to_bytes

from polyvox.dialects import string
from polyvox.dialects.bedrock.facts import BLOCK_KEYS, DOCUMENT_NAME, FORMAT_OF, FORMATS, SUFFIXES, extra_of
from polyvox.dialects.bedrock.scope import Block, Scope
from polyvox.errors import InputError
from polyvox.types import Audio, CacheHint, File, Image, Part, Video

Medium = Image | Audio | Video | File

KIND_OF: dict[type[Part], str] = {Image: "image", Audio: "audio", Video: "video", File: "document"}
_TYPE_OF: dict[str, type[Medium]] = {"image": Image, "audio": Audio, "video": Video, "document": File}
_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (0, b"%PDF-", "application/pdf"),
)
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9\s()\[\]-]+")
_SPACES = re.compile(r"\s+")
_S3 = "s3://"


# ---- ours to wire -----------------------------------------------------------------------------


def medium_block(part: Medium, where: str, scope: Scope) -> Block | None:
    """The block for a medium, its cache hint aside; None, with a loss, where there is none."""
    kind = KIND_OF[type(part)]
    field = f"{where}.{part.__struct_config__.tag}"
    if isinstance(part, File) and part.text is not None:
        told = part.media_type if part.media_type in FORMAT_OF[kind] else "text/plain"
        found: tuple[str | None, Block] | None = (told, {"text": part.text})
    else:
        found = _source(part, field, where, scope)
    if found is None:
        return None
    media_type, source = found
    form = FORMAT_OF[kind].get((media_type or "").partition(";")[0].strip().lower()) or _by_name(part, kind)
    if form is None and (media_type is not None or kind != "document"):
        scope.lose(field, f"takes {', '.join(FORMATS[kind])}, not {media_type or 'an unknown type'}")
        return None
    value: Block = {} if form is None else {"format": form}
    if isinstance(part, File):
        value["name"] = _name(part, where, scope)
        if part.context is not None:
            value["context"] = part.context
    else:
        _unsaid(part, where, scope)
    return {kind: {**value, "source": source, **scope.own(part.extra, where)}}


def _unsaid(part: Image | Audio | Video, where: str, scope: Scope) -> None:
    if isinstance(part, Image) and part.detail not in (None, "auto"):
        scope.lose(f"{where}.detail", "how closely to look cannot be said", "note")
    if isinstance(part, Audio) and part.transcript is not None:
        scope.lose(f"{where}.transcript", "sound is sent without its transcript", "note")
    if part.name is not None:
        scope.lose(f"{where}.name", "only documents have a name", "note")


def _source(part: Medium, field: str, where: str, scope: Scope) -> tuple[str | None, Block] | None:
    """Media type and source of a medium; None, with a loss, for one that is neither here nor in S3."""
    if part.data is not None:
        return _told_type(part.media_type, part.data), {"bytes": base64.b64encode(part.data).decode()}
    if part.url is not None and part.url[:5].lower() == "data:":
        head, _, tail = part.url[5:].partition(",")
        told, *flags = head.split(";")
        try:
            data = base64.b64decode(tail) if "base64" in flags else unquote_to_bytes(tail)
        except (binascii.Error, ValueError):
            raise InputError(f"{where}: the data URL is not valid base64", param=where) from None
        return _told_type(part.media_type or told or None, data), {"bytes": base64.b64encode(data).decode()}
    if part.url is not None and part.url.startswith(_S3):
        return part.media_type, {"s3Location": {"uri": part.url}}
    if part.url is not None:
        scope.lose(field, "only bytes and s3:// addresses are taken, no other URL")
        return None
    if part.file_id is not None:
        scope.lose(field, "only bytes and s3:// addresses are taken, no file ids")
        return None
    if isinstance(part, Audio) and part.transcript is not None:
        scope.lose(field, "there is no sound to send")
        return None
    raise InputError(f"{where}: it holds nothing", param=where, hint="give it data or an s3:// url")


def _told_type(told: str | None, data: bytes) -> str | None:
    if told is not None:
        return told
    return next((name for at, magic, name in _MAGIC if data[at : at + len(magic)] == magic), None)


def _by_name(part: Medium, kind: str) -> str | None:
    """The format that the end of a name tells, where nothing else does."""
    if part.media_type is not None:
        return None
    for name in (part.name, part.url):
        if name is not None and not name.startswith("data:"):
            end = name.rpartition(".")[2].lower()
            end = SUFFIXES.get(end, end)
            if end in FORMATS[kind]:
                return end
    return None


def _name(part: File, where: str, scope: Scope) -> str:
    """The name of a document, which is demanded, in the letters allowed."""
    scope.documents += 1
    told = part.name
    if told is not None and DOCUMENT_NAME.fullmatch(told):
        return told
    sent = _SPACES.sub(" ", _NOT_IN_NAMES.sub("-", told or "")).strip()[:200] or f"document {scope.documents}"
    why = "a name is demanded" if told is None else "names are of letters, digits, spaces, hyphens and brackets"
    scope.lose(f"{where}.name", f"{why}: sent as {sent!r}", "note")
    return sent


# ---- wire to ours -----------------------------------------------------------------------------


def medium_of(kind: str, value: Any, cache: CacheHint | None = None) -> Part | None:
    """The medium that a block's value is; None for one that only its dialect understands."""
    source = value.get("source") if isinstance(value, dict) else None
    if not isinstance(source, dict):
        return None
    form = value.get("format")
    media_type = FORMATS[kind].get(form) if isinstance(form, str) else None
    if media_type is None and not (kind == "document" and form is None):
        return None
    facts = _held(kind, source, media_type)
    if facts is None:
        return None
    if kind == "document":
        facts |= {"name": string(value.get("name")), "context": string(value.get("context"))}
    return _TYPE_OF[kind](**facts, cache=cache, extra=extra_of(value, BLOCK_KEYS[kind]))


def _held(kind: str, source: Block, media_type: str | None) -> dict[str, Any] | None:
    """What a source holds, as fields of a medium."""
    if len(source) != 1:
        return None
    ((form, held),) = source.items()
    if form == "bytes" and isinstance(held, str):
        try:
            return {"data": base64.b64decode(held, validate=True), "media_type": media_type}
        except (binascii.Error, ValueError):
            return None
    if form == "s3Location" and isinstance(held, dict) and held.keys() == {"uri"} and isinstance(held["uri"], str):
        return {"url": held["uri"], "media_type": media_type}
    if form == "text" and isinstance(held, str) and kind == "document":
        return {"text": held, "media_type": None if media_type == "text/plain" else media_type}
    return None
