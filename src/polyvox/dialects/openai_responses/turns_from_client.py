"""The input items of a client's request as turns of a conversation: the mirror of `items`. What stands in a row of
the model's making is one turn, and so are results in a row. What is allowed is not its business."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

from polyvox.dialects import Endpoint
from polyvox.dialects.openai_responses.answer import citation_of, reasoning_of
from polyvox.dialects.openai_responses.facts import AUDIO_FORMATS, CALLS, IN_MESSAGE, NAME, RESULTS, extra_of, minted
from polyvox.dialects.openai_responses.items import bare_text
from polyvox.dialects.shapes import mapping, missing, needed, one_of, sequence, take, text, told, wrong, wrong_type
from polyvox.types import (
    Audio,
    CacheHint,
    Extra,
    File,
    Image,
    Message,
    Opaque,
    Part,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
)

Json = dict[str, Any]

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "developer"}
_ROLE = one_of(*_ROLES)
_MEDIA_TYPES = {form: kind for kind, form in reversed(AUDIO_FORMATS.items())}
_DATA_URL = re.compile(r"data:([^,]+);base64,(.+)", re.DOTALL)
# Items by which a client answers what the model asked of it, beside the results of calls.
_ANSWERS = frozenset({
    "computer_call_output", "local_shell_call_output", "shell_call_output", "apply_patch_call_output",
    "mcp_approval_response",
})  # fmt: skip


def messages_of(raw: Any, instructions: str | None, at: Endpoint) -> tuple[Message, ...]:
    """The turns; raises InputError for a value of a shape that has no meaning. A string is a user's turn."""
    reading = _Reading(at)
    if instructions is not None:
        reading.found.append(Message("system", (Text(instructions),)))
    if isinstance(raw, str):
        reading.found.append(Message("user", (Text(raw),)))
    elif raw is not None:
        if not isinstance(raw, list):
            raise wrong_type(raw, "input", "a string or a list of items")
        reading.items(raw)
    return tuple(reading.found)


class _Reading:
    """What reading one list of items carries along: the turns so far, and the one that is being put together."""

    def __init__(self, at: Endpoint) -> None:
        self.at = at
        self.found: list[Message] = []
        self.kinds: dict[str, str] = {}  # id of a call -> its kind
        self.role: Role = "user"
        self.parts: list[Part] = []
        self.keys: Json | None = None  # those of the message that the turn ends with; None where it ends otherwise

    def items(self, items: list[Any]) -> None:
        for i, item in enumerate(items):
            if type(item) is dict and len(item) == 2 and type(words := item.get("content")) is str:
                # The common case: plain words from somebody.
                role = item.get("role")
                if role == "user" or (role in ("system", "developer") and (self.found or self.parts)):
                    self.close()
                    self.found.append(Message(role, (Text(words),)))
                    continue
            self.item(mapping(item, f"input[{i}]"), f"input[{i}]")
        self.close()

    def item(self, item: Json, where: str) -> None:
        kind = told(item, "type", text, where)
        if kind is None:
            if "role" not in item:
                raise missing(f"{where}.type")
            kind = "message"
        read = _ITEMS.get(kind)
        if read is not None:
            read(self, item, where)
        else:
            self.add("tool" if kind in _ANSWERS else "assistant", Opaque(NAME, kind, item, self.at.origin))

    def add(self, role: Role, *parts: Part) -> None:
        """Add to the turn, where it is this role's, or begin another."""
        if self.parts and self.role != role:
            self.close()
        self.role = role
        self.parts += parts
        self.keys = None

    def close(self) -> None:
        if self.parts:
            self.found.append(Message(self.role, tuple(self.parts)))
            self.parts = []
        self.keys = None

    # ---- messages -----------------------------------------------------------------------------

    def message(self, item: Json, where: str) -> None:
        role = _ROLES[needed(item, "role", _ROLE, where)]
        content = item.get("content")
        rest = {key: value for key, value in item.items() if key not in ("type", "role", "content")}
        if not isinstance(content, str | list):
            raise wrong_type(content, f"{where}.content", "a string or a list of content parts")
        if role == "assistant":
            self.spoken(item, content, rest, where)
            return
        parts: tuple[Part, ...] = (Text(content),) if isinstance(content, str) else self.content(content, where)
        first = (
            role == "system" and not self.found and not self.parts and self.at.options.get("instructions") is not False
        )
        if first and not rest and len(parts) == 1 and bare_text(parts[0]) is not None:
            rest = {"type": "message"}  # tells it from instructions
        self.close()
        self.found.append(Message(role, parts, extra=extra_of(rest)))

    def spoken(self, item: Json, content: str | list[Any], rest: Json, where: str) -> None:
        """A message of the model. Its own keys hang on its words; where it has none, it stays as it is."""
        if rest.get("status") == "completed":
            del rest["status"]
        pieces = [{"type": "output_text", "text": content}] if isinstance(content, str) else content
        parts = self.content(pieces, where, {"item": minted(rest, self.at.origin)} if rest else {})
        if not any(type(part) in (Text, Refusal) for part in parts):
            parts = (Opaque(NAME, "message", item, self.at.origin),)
        elif rest == self.keys:
            self.close()
        self.add("assistant", *parts)
        self.keys = rest

    def content(self, pieces: list[Any], where: str, keys: Json | None = None) -> tuple[Part, ...]:
        """Content as parts; `keys` go along with words."""
        return tuple([self.piece(piece, f"{where}.content[{j}]", keys or {}) for j, piece in enumerate(pieces)])

    def piece(self, piece: Any, where: str, keys: Json) -> Part:
        kind = needed(mapping(piece, where), "type", text, where)
        read = _PIECES.get(kind)
        rest = {key: value for key, value in piece.items() if key != "type"}
        part = read(rest, where, keys, self.at) if read is not None else None
        return Opaque(NAME, IN_MESSAGE + kind, piece, self.at.origin) if part is None else part

    # ---- calls and what they gave -------------------------------------------------------------

    def call(self, item: Json, where: str) -> None:
        kind, key, _ = CALLS[item["type"]]
        rest = {name: value for name, value in item.items() if name != "type"}
        if rest.get("status") == "completed":
            del rest["status"]
        call_id = needed(rest, "call_id", text, where)
        name, arguments = needed(rest, "name", text, where), needed(rest, key, text, where)
        for known in ("call_id", "name", key):
            del rest[known]
        self.kinds[call_id] = kind
        self.add("assistant", ToolCall(call_id, name, arguments, kind, extra=extra_of(minted(rest, self.at.origin))))

    def result(self, item: Json, where: str) -> None:
        if item.get("call_id") is None and "call_id" in item:
            self.add("tool", Opaque(NAME, item["type"], item, self.at.origin))
            return
        call_id, output = needed(item, "call_id", text, where), item.get("output")
        rest = {key: value for key, value in item.items() if key not in ("type", "call_id", "output")}
        if RESULTS[item["type"]] != self.kinds.get(call_id, "function"):
            rest["type"] = item["type"]  # nothing else here tells which kind of call it answers
        if isinstance(output, str):
            parts: tuple[Part, ...] = (Text(output),) if output else ()
        elif isinstance(output, list):
            parts = tuple([self.piece(piece, f"{where}.output[{j}]", {}) for j, piece in enumerate(output)])
        else:
            raise wrong_type(output, f"{where}.output", "a string or a list of content parts")
        self.add("tool", ToolResult(call_id, parts, extra=extra_of(rest)))

    # ---- reasoning and pictures ---------------------------------------------------------------

    def reasoning(self, item: Json, where: str) -> None:
        for key in ("summary", "content"):
            for j, piece in enumerate(told(item, key, sequence, where) or ()):
                needed(mapping(piece, f"{where}.{key}[{j}]"), "text", text, f"{where}.{key}[{j}]")
        told(item, "encrypted_content", text, where)
        self.add("assistant", reasoning_of(item, self.at.origin))

    def picture(self, item: Json, _where: str) -> None:
        result = item.get("result")
        data = _bytes_of(result) if isinstance(result, str) and result else None
        if data is None:
            self.add("assistant", Opaque(NAME, item["type"], item, self.at.origin))
            return
        form = item.get("output_format")
        own = {key: value for key, value in item.items() if key != "result"}
        media_type = f"image/{form if isinstance(form, str) and form else 'png'}"
        self.add("assistant", Image(data, media_type=media_type, extra={NAME: own}))


_ITEMS: dict[str, Callable[[_Reading, Json, str], None]] = {
    "message": _Reading.message,
    **dict.fromkeys(CALLS, _Reading.call),
    **dict.fromkeys(RESULTS, _Reading.result),
    "reasoning": _Reading.reasoning,
    "image_generation_call": _Reading.picture,
}


# ---- pieces of content ------------------------------------------------------------------------
# Each takes what it knows out of `rest`; what is left are keys of this dialect.


def _text(rest: Json, where: str, keys: Json, _at: Endpoint) -> Part:
    words = needed(rest, "text", text, where)
    del rest["text"]
    cited = take(rest, "annotations", sequence, where) or ()
    citations = tuple([citation_of(mapping(raw, f"{where}.annotations[{j}]")) for j, raw in enumerate(cited)])
    if not rest.get("logprobs", True):
        del rest["logprobs"]
    return Text(words, citations, _cache(rest, where), extra=extra_of({**rest, **keys}))


def _refusal(rest: Json, where: str, keys: Json, _at: Endpoint) -> Part:
    words = needed(rest, "refusal", text, where)
    del rest["refusal"]
    return Refusal(words, extra=extra_of({**rest, **keys}))


def _image(rest: Json, where: str, _keys: Json, at: Endpoint) -> Part | None:
    url, file_id = take(rest, "image_url", text, where), take(rest, "file_id", text, where)
    if url is not None and file_id is not None:
        return None
    if url is None and file_id is None:
        raise missing(f"{where}.image_url")
    detail = take(rest, "detail", text, where)
    return Image(
        **_located(url),
        file_id=file_id,
        origin=None if file_id is None else at.origin,
        detail=None if detail == "auto" else detail,
        cache=_cache(rest, where),
        extra=extra_of(rest),
    )


def _file(rest: Json, where: str, _keys: Json, at: Endpoint) -> Part | None:
    sources = {key: found for key in _SOURCES if (found := take(rest, key, text, where)) is not None}
    if not sources:
        raise missing(f"{where}.file_data")
    if len(sources) > 1:
        return None
    file_id, url = sources.get("file_id"), sources.get("file_url")
    facts: Json = {} if url is None else {"url": url}
    if (content := sources.get("file_data")) is not None:
        facts = _located(content)
        if "url" in facts:
            return None  # neither base64 nor an address: whatever it is, it goes on as it is
    return File(
        **facts,
        file_id=file_id,
        origin=None if file_id is None else at.origin,
        name=take(rest, "filename", text, where),
        cache=_cache(rest, where),
        extra=extra_of(rest),
    )


_SOURCES = ("file_id", "file_data", "file_url")


def _audio(rest: Json, where: str, _keys: Json, _at: Endpoint) -> Part | None:
    inner = needed(rest, "input_audio", mapping, where)
    data = _bytes_of(needed(inner, "data", text, f"{where}.input_audio"))
    form = needed(inner, "format", text, f"{where}.input_audio")
    if data is None:
        raise wrong(f"{where}.input_audio.data", "must be base64")
    if inner.keys() != {"data", "format"}:
        return None
    del rest["input_audio"]
    return Audio(
        data, media_type=_MEDIA_TYPES.get(form) or f"audio/{form}", cache=_cache(rest, where), extra=extra_of(rest)
    )


_PIECES: dict[str, Callable[[Json, str, Json, Endpoint], Part | None]] = {
    "input_text": _text, "output_text": _text, "text": _text, "refusal": _refusal, "input_image": _image,
    "input_file": _file, "input_audio": _audio,
}  # fmt: skip


def _cache(rest: Json, where: str) -> CacheHint | None:
    """Take the cache breakpoint; a null one is none."""
    mark = take(rest, "prompt_cache_breakpoint", mapping, where)
    if mark is None:
        return None
    left = dict(mark)
    if left.get("mode") == "explicit":
        del left["mode"]
    ttl = take(left, "ttl", text, f"{where}.prompt_cache_breakpoint")
    extra: Extra = extra_of(left)
    return CacheHint(ttl, extra)


def _located(url: str | None) -> Json:
    """A data URL as its bytes and type, another as an address."""
    if url is None:
        return {}
    found = _DATA_URL.fullmatch(url)
    data = _bytes_of(found[2]) if found else None
    return {"url": url} if found is None or data is None else {"data": data, "media_type": found[1]}


def _bytes_of(encoded: str) -> bytes | None:
    """The bytes of a base64 text; None where writing them anew would give other text."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:
        return None
    return data if base64.b64encode(data).decode() == encoded else None
