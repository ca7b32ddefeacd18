"""One part of a message as one part of the wire. It knows what a part may hold; it does not know the turns
around it, so results of tools are not for here."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

from polyvox.dialects.gemini.facts import NAME, Json
from polyvox.dialects.scope import Scope as BaseScope
from polyvox.errors import InputError
from polyvox.types import (
    Audio,
    File,
    Image,
    Media,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Video,
)

# A link must tell its type, and names often do.
_BY_SUFFIX = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "heic": "image/heic",
    "heif": "image/heif", "gif": "image/gif", "mp3": "audio/mpeg", "wav": "audio/wav", "ogg": "audio/ogg",
    "flac": "audio/flac", "mp4": "video/mp4", "webm": "video/webm", "mov": "video/quicktime",
    "pdf": "application/pdf", "txt": "text/plain", "html": "text/html", "csv": "text/csv", "md": "text/markdown",
}  # fmt: skip
_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (0, b"%PDF-", "application/pdf"),
)
_DETAILS = ("low", "medium", "high", "ultra_high")
RESOLUTION = "MEDIA_RESOLUTION_"


class Scope(BaseScope):
    """One encoding: its endpoint and its losses."""

    __slots__ = ()
    NAME: ClassVar[str] = NAME

    def proof(self, part: Text | ToolCall, where: str) -> Json:
        """The signature of a part, which goes back on that part and to nobody but its maker."""
        if part.signature is None:
            return {}
        if self.may_tell(part.origin):
            return {"thoughtSignature": part.signature}
        self.lose(f"{where}.signature", f"bound to {part.origin}")
        return {}


def part_of(part: Part, where: str, scope: Scope) -> Json | None:
    """The wire's form of a part, or None with a loss."""
    make = MAKERS.get(type(part))
    if make is None:
        scope.lose(f"{where}.{part.__struct_config__.tag}", "it has no place in this turn")
        return None
    return make(part, where, scope)


def _text(part: Text, where: str, scope: Scope) -> Json | None:
    proof = scope.proof(part, where) if part.signature is not None else {}
    if not part.text and not proof:
        scope.lose(f"{where}.text", "empty text is refused, so it is not sent", "note")
        return None
    wire: Json = {"text": part.text, **proof}
    if part.citations:
        scope.lose(f"{where}.citations", "sources of earlier answers are not sent", "note")
    if part.cache is not None:
        scope.lose(f"{where}.cache", "prompts are cached by their beginning, without breakpoints", "note")
    return wire | scope.own(part.extra, where) if part.extra else wire


def _refusal(part: Refusal, where: str, scope: Scope) -> Json:
    scope.lose(f"{where}.refusal", "a refusal is plain text here", "note")
    return {"text": part.text, **scope.own(part.extra, where)}


def _reasoning(part: Reasoning, where: str, scope: Scope) -> Json | None:
    field = f"{where}.reasoning"
    others = [dialect for dialect in part.extra if dialect != NAME]
    if part.origin is not None and part.origin != scope.at.origin:
        scope.lose(field, f"bound to {part.origin}")
    elif part.origin is None and NAME not in part.extra:
        scope.lose(field, f"bound to {others[0]}" if others else "only thoughts of the same model go back")
    elif part.encrypted is not None:
        scope.lose(field, "thoughts are not encrypted here")
    else:
        return thought(part.text, part.signature) | scope.own(part.extra, where)
    return None


def thought(text: str, signature: str | None) -> Json:
    """A thought as the wire has it."""
    wire: Json = {"text": text, "thought": True}
    if signature is not None:
        wire["thoughtSignature"] = signature
    return wire


def _call(part: ToolCall, where: str, scope: Scope) -> Json:
    own = dict(scope.own(part.extra, where))
    call = {"id": part.id, "name": part.name, "args": arguments_of(part, where, scope), **own.pop("functionCall", {})}
    return {"functionCall": call, **scope.proof(part, where), **own}


def arguments_of(part: ToolCall, where: str, scope: Scope) -> msgspec.Raw | Json:
    """The arguments in the model's own bytes where they are an object, else wrapped in one."""
    if part.kind == "custom":
        scope.lose(f"{where}.arguments", "free text is sent as {input: text}", "note")
        return {"input": part.arguments}
    if not part.arguments.strip():
        return {}
    try:
        if isinstance(msgspec.json.decode(part.arguments), dict):
            return msgspec.Raw(part.arguments.encode())
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    scope.lose(f"{where}.arguments", "the arguments are not a JSON object: sent as {input: text}")
    return {"input": part.arguments}


def _image(part: Image, where: str, scope: Scope) -> Json | None:
    wire = _media(part, where, scope)
    if wire is not None and part.detail in _DETAILS:
        wire["mediaResolution"] = {"level": RESOLUTION + part.detail.upper()}
    elif part.detail not in (None, "auto"):
        scope.lose(f"{where}.detail", f"the details are {', '.join(_DETAILS)}, not {part.detail}", "note")
    return wire


def _audio(part: Audio, where: str, scope: Scope) -> Json | None:
    if part.transcript and not _is_at_hand(part, scope):
        scope.lose(f"{where}.audio", "the sound is not at hand, or its type is not: its transcript is sent instead")
        return {"text": part.transcript}
    if part.transcript is not None:
        scope.lose(f"{where}.transcript", "what is said in a sound is not told beside it", "note")
    return _media(part, where, scope)


def _is_at_hand(part: Audio, scope: Scope) -> bool:
    if part.data is not None:
        return (part.media_type or _type_of(part.data)) is not None
    return part.url is not None or (part.file_id is not None and scope.may_tell(part.origin))


def _file(part: File, where: str, scope: Scope) -> Json | None:
    if part.context is not None:
        scope.lose(f"{where}.context", "there is no word about a file beside it", "note")
    if part.text is not None:
        scope.lose(f"{where}.text", "plain text is sent as the bytes of a file", "note")
        part = msgspec.structs.replace(part, text=None, data=part.text.encode(), media_type="text/plain")
    return _media(part, where, scope)


def _media(part: Media, where: str, scope: Scope) -> Json | None:
    """Bytes in place, or a link to them."""
    data, media_type = part.data, part.media_type
    if data is None and part.url is not None and part.url[:5].lower() == "data:":
        told, data = _data_url(part.url, where)
        media_type = media_type or told
    if data is not None:
        if media_type is None:
            media_type = _type_of(data)
            if media_type is None:
                scope.lose(where, "the type of a medium must be told, and nothing tells it")
                return None
            scope.lose(f"{where}.media_type", f"it must be told, and the first bytes say {media_type}", "note")
        inner = {"mimeType": media_type, "data": base64.b64encode(data).decode()}
        key = "inlineData"
    else:
        link = part.url if part.url is not None else part.file_id
        if link is None:
            raise InputError(f"{where}: it holds nothing", hint="give it data, a url or a file_id")
        if part.url is None and not scope.may_tell(part.origin):
            scope.lose(f"{where}.file_id", f"the file is kept at {part.origin}")
            return None
        if media_type is None and part.url is not None:
            media_type = _BY_SUFFIX.get(_path_of(link).rpartition(".")[2].lower())
            if media_type is not None:
                scope.lose(f"{where}.media_type", f"it should be told, and the link says {media_type}", "note")
        if media_type is None and not isinstance(part, File):
            scope.lose(f"{where}.media_type", "it should be told, and the link does not: sent as any file", "note")
        inner = {"mimeType": media_type, "fileUri": link} if media_type is not None else {"fileUri": link}
        key = "fileData"
    if part.name is not None:
        inner["displayName"] = part.name
    if part.cache is not None:
        scope.lose(f"{where}.cache", "prompts are cached by their beginning, without breakpoints", "note")
    own = dict(scope.own(part.extra, where))
    if "thoughtSignature" in own and not scope.may_tell(part.origin):
        del own["thoughtSignature"]
        scope.lose(f"{where}.signature", f"bound to {part.origin}")
    return {key: {**inner, **own.pop(key, {})}, **own}


def _path_of(link: str) -> str:
    try:
        return urlsplit(link).path
    except ValueError:
        return ""


def _data_url(url: str, where: str) -> tuple[str | None, bytes]:
    head, _, tail = url[5:].partition(",")
    told, *flags = head.split(";")
    try:
        return told or None, base64.b64decode(tail) if "base64" in flags else unquote_to_bytes(tail)
    except (binascii.Error, ValueError):
        raise InputError(f"{where}: the data URL is not valid base64") from None


def _type_of(data: bytes) -> str | None:
    return next((name for at, magic, name in _MAGIC if data[at : at + len(magic)] == magic), None)


def _opaque(part: Opaque, where: str, scope: Scope) -> Any:
    if part.dialect != NAME or not isinstance(part.raw, dict):
        scope.lose(f"{where}.opaque", f"a {part.type} of {part.dialect} means nothing here")
        return None
    if not scope.may_tell(part.origin) and "thoughtSignature" in part.raw:
        scope.lose(f"{where}.signature", f"bound to {part.origin}")
        return {key: value for key, value in part.raw.items() if key != "thoughtSignature"}
    return part.raw


MAKERS: dict[type[Part], Callable[[Any, str, Scope], Json | None]] = {
    Text: _text,
    Refusal: _refusal,
    Reasoning: _reasoning,
    ToolCall: _call,
    Image: _image,
    Audio: _audio,
    Video: _media,
    File: _file,
    Opaque: _opaque,
}
