"""One part of the wire as one part of a message, the mirror of `parts`. Its keys are in camel case by now, and of
the types they must have; results of tools are read where the calls are known."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection
from typing import Any

from polyvox.dialects import Endpoint, encode_json
from polyvox.dialects.gemini.facts import FILE, NAME, Json, named, rest_of
from polyvox.dialects.gemini.parts import RESOLUTION
from polyvox.types import Audio, Extra, File, Image, Opaque, Part, Reasoning, Text, ToolCall, Video

KINDS = (
    "text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "codeExecutionResult",
    "toolCall", "toolResponse",
)  # fmt: skip
_WORDS = frozenset({"text", "thoughtSignature"})
_THOUGHT = frozenset({"text", "thought", "thoughtSignature"})
_CALL = frozenset({"functionCall", "thoughtSignature"})
CALLED = frozenset({"id", "name", "args"})
_INLINE = frozenset({"mimeType", "data", "displayName"})
_LINKED = frozenset({"mimeType", "fileUri", "displayName"})
_MEDIA: dict[str, type[Image | Audio | Video]] = {"image": Image, "audio": Audio, "video": Video}
_STANDARD = str.maketrans("-_", "+/")


def kind_of(part: Json) -> str:
    """What a part holds; "part" where nobody knows."""
    return next((kind for kind in KINDS if kind in part), "part")


def mark_of(at: Endpoint) -> dict[str, Any]:
    """What tells thoughts of this dialect from others', so that they may go back."""
    return {"origin": at.origin} if at.origin is not None else {"extra": {NAME: {}}}


def part_from(part: Json, raw: Json, at: Endpoint) -> Part:
    """The part, calls and results of tools aside; a kind nobody knows stays as it came, `raw`."""
    kind = kind_of(part)
    signature = part.get("thoughtSignature")
    if part.get("thought") is True:
        if kind != "text":
            return Opaque(NAME, "thought", raw, at.origin)
        mark, extra = mark_of(at), rest_of(part, _THOUGHT)
        return Reasoning(part["text"], signature, **({**mark, "extra": extra} if extra else mark))
    if kind == "text":
        origin = at.origin if signature is not None else None
        return Text(part["text"], signature=signature, origin=origin, extra=rest_of(part, _WORDS))
    medium = _READ[kind](part, named(part[kind]), at) if kind in _READ else None
    return Opaque(NAME, kind, raw, at.origin) if medium is None else medium


def call_from(part: Json, call: Json, identity: str, at: Endpoint) -> ToolCall:
    """A call; its arguments are an object on the wire, and JSON text here."""
    extra = rest_of(part, _CALL)
    if inner := rest_of(call, CALLED):
        extra = {NAME: {**extra.get(NAME, {}), "functionCall": inner[NAME]}}
    signature = part.get("thoughtSignature")
    return ToolCall(
        identity,
        call["name"],
        encode_json(call.get("args") or {}).decode(),
        signature=signature,
        origin=at.origin if signature is not None else None,
        extra=extra,
    )


def fresh_id(given: str, ids: Collection[str]) -> str:
    """The id of a call, changed where it is among `ids`: the same id twice would answer two calls with one result."""
    while given in ids:
        given += "_"
    return given


_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")


def standard(text: str) -> str:
    """Base64 in the standard alphabet: clients send either. What is no base64 stays as it is."""
    told = text.translate(_STANDARD)
    return told + "=" * (-len(told) % 4) if _BASE64.fullmatch(told) else text


def _inline(part: Json, inner: Json, at: Endpoint) -> Part | None:
    media_type, text = inner.get("mimeType"), inner.get("data")
    if not isinstance(media_type, str) or not isinstance(text, str):
        return None
    try:
        data = base64.b64decode(standard(text), validate=True)
    except (ValueError, binascii.Error):
        return None
    return _medium(part, inner, at, media_type, {"data": data})


def _linked(part: Json, inner: Json, at: Endpoint) -> Part | None:
    uri, media_type = inner.get("fileUri"), inner.get("mimeType")
    if not isinstance(uri, str) or not isinstance(media_type, str | None):
        return None
    held: Json = {"file_id": uri, "origin": at.origin} if FILE.fullmatch(uri) else {"url": uri}
    return _medium(part, inner, at, media_type, held)


def _medium(part: Json, inner: Json, at: Endpoint, media_type: str | None, held: Json) -> Part | None:
    name = inner.get("displayName")
    if not isinstance(name, str | None):
        return None
    key, keys = ("inlineData", _INLINE) if "data" in held else ("fileData", _LINKED)
    make = _MEDIA.get((media_type or "").partition("/")[0].lower(), File)
    facts: Json = {"media_type": media_type, "name": name, **held}
    known = {key}
    if make is Image and (detail := _detail(part.get("mediaResolution"))) is not None:
        facts["detail"] = detail
        known.add("mediaResolution")
    extra: Extra = rest_of(part, frozenset(known))
    if more := rest_of(inner, keys):
        extra = {NAME: {**extra.get(NAME, {}), key: more[NAME]}}
    if "thoughtSignature" in part:
        facts["origin"] = at.origin
    return make(**facts, extra=extra)


def _detail(resolution: Any) -> str | None:
    level = resolution.get("level") if isinstance(resolution, dict) and len(resolution) == 1 else None
    if not isinstance(level, str) or level.removeprefix(RESOLUTION) not in ("LOW", "MEDIUM", "HIGH", "ULTRA_HIGH"):
        return None
    return level.removeprefix(RESOLUTION).lower()


_READ = {"inlineData": _inline, "fileData": _linked}
