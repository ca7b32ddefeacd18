"""One part of a message as one content block. It knows what a block may hold in which turn; it does not
know the turns around it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias
from urllib.parse import unquote_to_bytes

from polyvox.dialects import Endpoint
from polyvox.dialects.anthropic.facts import NAME, STRICT_VERSION, version_of
from polyvox.dialects.scope import Scope as BaseScope
from polyvox.dialects.scope import at_field
from polyvox.errors import InputError
from polyvox.types import (
    Audio,
    CacheHint,
    File,
    Image,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    Video,
)

Block: TypeAlias = dict[str, Any]

CACHE_TTLS = ("5m", "1h")
IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"%PDF-", "application/pdf"),
)


class Scope(BaseScope):
    """One encoding: its endpoint, its losses, and whether the endpoint holds to the strict version."""

    __slots__ = ("strict_version",)
    NAME: ClassVar[str] = NAME

    def __init__(self, at: Endpoint) -> None:
        super().__init__(at)
        self.strict_version: bool = version_of(at) >= STRICT_VERSION

    def cache(self, hint: CacheHint | None, field: str) -> Block:
        """A cache hint as the key that says it; empty without one."""
        if hint is None:
            return {}
        control: Block = {"type": "ephemeral"}
        if hint.ttl in CACHE_TTLS:
            control["ttl"] = hint.ttl
        elif hint.ttl is not None:
            self.lose(at_field(field, "cache"), f"cached for 5m or 1h, not {hint.ttl}: the default is used", "note")
        return {"cache_control": {**control, **self.own(hint.extra, at_field(field, "cache"))}}


def block_of(part: Part, role: str, where: str, scope: Scope) -> Block | None:
    """The block for a part of a turn of this role ("system", "user" or "assistant"), or None with a loss.

    Tool calls and results are not for here: they need the turns around them.
    """
    make = _MAKERS.get(type(part))
    if make is None or (role == "system" and type(part) in (Image, File)):
        scope.lose(f"{where}.{part.__struct_config__.tag}", f"it has no place in the {role}'s turn")
        return None
    return make(part, role, where, scope)


def is_plain(block: Block) -> bool:
    """Whether a block says nothing but its text."""
    return block.get("type") == "text" and len(block) == 2


def _text(part: Text, role: str, where: str, scope: Scope) -> Block | None:
    if part.signature is not None:
        scope.lose(f"{where}.signature", f"text carries no signature here; bound to {part.origin}")
    if not part.text.strip():
        scope.lose(f"{where}.text", "blank text blocks are refused, so it is not sent", "note")
        return None
    block: Block = {"type": "text", "text": part.text}
    if part.citations:
        citations = cited(part, role, where, scope)
        if citations:
            block["citations"] = citations
    return {**block, **scope.cache(part.cache, where), **scope.own(part.extra, where)}


def cited(part: Text, role: str, where: str, scope: Scope) -> list[Any]:
    """The citations of a text that came from this dialect, as they came; others are lost."""
    if role != "assistant" and scope.strict_version:
        scope.lose(f"{where}.citations", f"text of the {role} may not cite since version {STRICT_VERSION}")
        return []
    own = [citation.extra[NAME] for citation in part.citations if NAME in citation.extra]
    if len(own) < len(part.citations):
        scope.lose(f"{where}.citations", "only citations that came from this dialect can be sent")
    return own


def _reasoning(part: Reasoning, role: str, where: str, scope: Scope) -> Block | None:
    field = f"{where}.reasoning"
    others = [dialect for dialect in part.extra if dialect != NAME]
    if role != "assistant":
        scope.lose(field, f"only the assistant reasons, not the {role}")
    elif scope.is_foreign(part.origin):
        scope.lose(field, f"bound to {part.origin}")
    elif others and NAME not in part.extra:
        scope.lose(field, f"bound to {others[0]}")
    elif part.encrypted is not None:
        if part.text:
            scope.lose(field, "thoughts go back encrypted or in words, never both: the words are not sent", "note")
        return {"type": "redacted_thinking", "data": part.encrypted, **scope.own(part.extra, where)}
    elif part.signature is not None:
        thought = {"type": "thinking", "thinking": part.text, "signature": part.signature}
        return {**thought, **scope.own(part.extra, where)}
    else:
        scope.lose(field, "reasoning without a signature is refused")
    return None


def _image(part: Image, _role: str, where: str, scope: Scope) -> Block | None:
    if part.detail not in (None, "auto"):
        scope.lose(f"{where}.detail", "how closely to look cannot be said", "note")
    if part.name is not None:
        scope.lose(f"{where}.name", "images have no name", "note")
    inline = _inline(part, where)
    if inline is None:
        source = _linked(part, where, scope)
    else:
        kind, data = inline
        kind = "image/jpeg" if kind == "image/jpg" else kind
        if kind not in IMAGE_TYPES:
            scope.lose(f"{where}.image", f"takes JPEG, PNG, GIF and WebP, not {kind or 'an unknown type'}")
            return None
        source = {"type": "base64", "media_type": kind, "data": base64.b64encode(data).decode()}
    if source is None:
        return None
    return {"type": "image", "source": source, **scope.cache(part.cache, where), **scope.own(part.extra, where)}


def _file(part: File, role: str, where: str, scope: Scope) -> Block | None:
    if role == "assistant" and scope.strict_version:
        scope.lose(f"{where}.file", f"the assistant's turns hold no documents since version {STRICT_VERSION}")
        return None
    source = _document(part, where, scope)
    if source is None:
        return None
    block: Block = {"type": "document", "source": source}
    if part.name is not None:
        block["title"] = part.name
    if part.context is not None:
        block["context"] = part.context
    return {**block, **scope.cache(part.cache, where), **scope.own(part.extra, where)}


def _document(part: File, where: str, scope: Scope) -> Block | None:
    """The source of a document: plain text, a PDF in base64, a link or a file id."""
    if part.text is not None:
        return {"type": "text", "media_type": "text/plain", "data": part.text}
    inline = _inline(part, where)
    if inline is None:
        return _linked(part, where, scope)
    kind, data = inline
    if kind == "application/pdf":
        return {"type": "base64", "media_type": kind, "data": base64.b64encode(data).decode()}
    if kind is not None and kind.startswith("text/"):
        try:
            words = data.decode()
        except UnicodeDecodeError:
            scope.lose(f"{where}.file", f"the {kind} file is not UTF-8")
            return None
        scope.lose(f"{where}.file", "the bytes of a text are sent as plain text", "note")
        return {"type": "text", "media_type": "text/plain", "data": words}
    scope.lose(f"{where}.file", f"takes PDF and plain text, not {kind or 'an unknown type'}")
    return None


def _inline(part: Image | File, where: str) -> tuple[str | None, bytes] | None:
    """Type and bytes of a medium that is carried in the request; None for one that is linked."""
    if part.data is not None:
        kind, data = part.media_type, part.data
    elif part.url is not None and part.url[:5].lower() == "data:":
        head, _, tail = part.url[5:].partition(",")
        told, *flags = head.split(";")
        try:
            data = base64.b64decode(tail) if "base64" in flags else unquote_to_bytes(tail)
        except (binascii.Error, ValueError):
            raise InputError(f"{where}: the data URL is not valid base64") from None
        kind = part.media_type or told or None
    else:
        return None
    if kind is None:
        kind = next((name for at, magic, name in _MAGIC if data[at : at + len(magic)] == magic), None)
    return kind, data


def _linked(part: Image | File, where: str, scope: Scope) -> Block | None:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    if part.file_id is None:
        raise InputError(f"{where}: it holds nothing", hint="give it data, a url or a file_id")
    if scope.is_foreign(part.origin):
        scope.lose(f"{where}.file_id", f"the file is kept at {part.origin}")
        return None
    return {"type": "file", "file_id": part.file_id}


def _audio(part: Audio, _role: str, where: str, scope: Scope) -> Block | None:
    if part.transcript is None or not part.transcript.strip():
        scope.lose(f"{where}.audio", "sound is not taken")
        return None
    scope.lose(f"{where}.audio", "sound is not taken: its transcript is sent instead")
    return {"type": "text", "text": part.transcript}


def _video(_part: Video, _role: str, where: str, scope: Scope) -> Block | None:
    scope.lose(f"{where}.video", "moving pictures are not taken")
    return None


def _refusal(part: Refusal, role: str, where: str, scope: Scope) -> Block | None:
    scope.lose(f"{where}.refusal", "a refusal has no block of its own: its words are sent as text", "note")
    return _text(Text(part.text, extra=part.extra), role, where, scope)


def _opaque(part: Opaque, _role: str, where: str, scope: Scope) -> Block | None:
    if part.dialect == NAME and isinstance(part.raw, dict):
        return part.raw
    scope.lose(f"{where}.opaque", f"a {part.type} of {part.dialect} means nothing here")
    return None


_MAKERS: dict[type, Callable[[Any, str, str, Scope], Block | None]] = {
    Text: _text,
    Reasoning: _reasoning,
    Image: _image,
    File: _file,
    Audio: _audio,
    Video: _video,
    Refusal: _refusal,
    Opaque: _opaque,
}
