"""The messages of a client's request as turns of a conversation, each of one wire message. It reads every
spelling in use, today's and the older ones; what is allowed is not its business."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from polyvox.dialects import Endpoint
from polyvox.dialects.openai_chat.answer import (
    NAME,
    OWN_DETAILS,
    arguments_text,
    audio_part,
    call_extra,
    chunk_part,
    reasoning_text,
)
from polyvox.dialects.openai_chat.request import AUDIO_FORMATS
from polyvox.dialects.shapes import mapping, missing, needed, one_of, sequence, take, text, wrong, wrong_type
from polyvox.types import (
    ROLES,
    Audio,
    CacheHint,
    Extra,
    File,
    Image,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Video,
)

_ROLE = one_of(*ROLES)
_MEDIA_TYPES = {form: kind for kind, form in reversed(AUDIO_FORMATS.items())}
_DATA_URL = re.compile(r"data:([^,]+);base64,(.+)", re.DOTALL)
# Both spellings of a cache breakpoint: the key, and the word in it that says nothing more.
_BREAKPOINTS = (("cache_control", "type", "ephemeral"), ("prompt_cache_breakpoint", "mode", "explicit"))


def messages_of(raw: Any, at: Endpoint) -> tuple[Message, ...]:
    """The turns, one for each message; raises InputError for a value of a shape that has no meaning."""
    found: list[Message] = []
    legacy: dict[str, str] = {}  # function name -> the id given to its latest call, which had none
    for i, item in enumerate(sequence(raw, "messages")):
        if type(item) is dict and len(item) == 2 and type(words := item.get("content")) is str:
            # The common case: plain words from somebody.
            if (role := item.get("role")) in ("user", "assistant", "system", "developer"):
                found.append(Message(role, (Text(words),)))
                continue
        found.append(_message(item, i, legacy, at))
    return tuple(found)


def _message(raw: Any, i: int, legacy: dict[str, str], at: Endpoint) -> Message:
    where = f"messages[{i}]"
    rest = dict(mapping(raw, where))
    role = rest.pop("role", None)
    if role == "function":
        return _function_result(rest, i, legacy, at)
    _ROLE(role, f"{where}.role")
    if role == "tool":
        return _tool_result(rest, where, at)
    if role == "assistant":
        parts = _assistant(rest, i, legacy, at)
    else:
        parts = _content(rest, where, at)
    name = take(rest, "name", text, where)
    return Message(role, tuple(parts), name, _extra(rest))


def _extra(rest: dict[str, Any]) -> Extra:
    return {NAME: rest} if rest else {}


def take_cache(rest: dict[str, Any], where: str) -> CacheHint | None:
    """Take a cache breakpoint from what is left of an object. Where both spellings are there, one stays."""
    for key, word, usual in _BREAKPOINTS:
        if rest.get(key) is None:
            continue
        mark = dict(mapping(rest.pop(key), f"{where}.{key}"))
        if mark.get(word) == usual:
            del mark[word]
        ttl = mark.pop("ttl") if isinstance(mark.get("ttl"), str) and mark["ttl"] else None
        return CacheHint(ttl, _extra(mark))
    return None


# ---- content ----------------------------------------------------------------------------------


def _content(rest: dict[str, Any], where: str, at: Endpoint) -> list[Part]:
    """Take the content: a string is one text, also an empty one; null is nothing."""
    content = rest.pop("content", None)
    if content is None:
        return []
    if isinstance(content, str):
        # Some clients put the breakpoint beside plain words.
        return [Text(content, cache=take_cache(rest, where))]
    if not isinstance(content, list):
        raise wrong_type(content, f"{where}.content", "a string or a list of parts")
    return [_chunk(item, f"{where}.content[{j}]", at) for j, item in enumerate(content)]


def _chunk(raw: Any, where: str, at: Endpoint) -> Part:
    if isinstance(raw, str):
        return Text(raw)
    kind = needed(mapping(raw, where), "type", text, where)
    if kind == "thinking":
        return chunk_part(raw, at)
    read = _CHUNKS.get(kind)
    if read is None:
        return Opaque(NAME, kind, raw, at.origin)
    rest = {key: value for key, value in raw.items() if key != "type"}
    cache = None if kind == "refusal" else take_cache(rest, where)
    part = read(rest, where)
    if part is None:
        return Opaque(NAME, kind, raw, at.origin)
    facts: dict[str, Any] = {"extra": _extra(rest)} if rest else {}
    if cache is not None:
        facts["cache"] = cache
    if type(part) is File and part.file_id is not None:
        facts["origin"] = at.origin
    return msgspec.structs.replace(part, **facts) if facts else part


def _text(rest: dict[str, Any], where: str) -> Part:
    return Text(text(rest.pop("text", None), f"{where}.text"))


def _refusal(rest: dict[str, Any], where: str) -> Part:
    return Refusal(text(rest.pop("refusal", None), f"{where}.refusal"))


def _inner(rest: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """Take the object a chunk is about; what remains in it when it has been read stays under its key."""
    inner = rest.pop(key, None)
    return dict(mapping(inner, f"{where}.{key}"))


def _leave(rest: dict[str, Any], key: str, inner: dict[str, Any]) -> None:
    if inner:
        rest[key] = inner


def _image(rest: dict[str, Any], where: str) -> Part:
    if isinstance(rest.get("image_url"), str):  # as Mistral has it
        return Image(**_located(rest.pop("image_url")))
    inner = _inner(rest, "image_url", where)
    url = text(inner.pop("url", None), f"{where}.image_url.url")
    detail = take(inner, "detail", text, f"{where}.image_url")
    _leave(rest, "image_url", inner)
    return Image(**_located(url), detail=detail)


def _video(rest: dict[str, Any], where: str) -> Part:
    inner = _inner(rest, "video_url", where)
    url = text(inner.pop("url", None), f"{where}.video_url.url")
    _leave(rest, "video_url", inner)
    return Video(**_located(url))


def _located(url: str) -> dict[str, Any]:
    """What a URL says: the bytes of a data URL that can be read, else itself."""
    found = _DATA_URL.fullmatch(url)
    data = _bytes_of(found[2]) if found else None
    return {"url": url} if found is None or data is None else {"data": data, "media_type": found[1]}


def _bytes_of(encoded: str) -> bytes | None:
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        return None


def _audio(rest: dict[str, Any], where: str) -> Part | None:
    if isinstance(rest.get("input_audio"), str):  # as Mistral has it: base64 or an address, nobody says which
        return None
    inner = _inner(rest, "input_audio", where)
    data = _bytes_of(text(inner.pop("data", None), f"{where}.input_audio.data"))
    if data is None:
        raise wrong(f"{where}.input_audio.data", "must be base64")
    form = text(inner.pop("format", None), f"{where}.input_audio.format")
    _leave(rest, "input_audio", inner)
    return Audio(data, media_type=_MEDIA_TYPES.get(form) or f"audio/{form}")


def _file(rest: dict[str, Any], where: str) -> Part:
    inner = _inner(rest, "file", where)
    where = f"{where}.file"
    file_id, name = take(inner, "file_id", text, where), take(inner, "filename", text, where)
    facts: dict[str, Any] = {}
    if (content := take(inner, "file_data", text, where)) is not None:
        facts = _located(content)
        if "url" in facts and content.startswith(("data:", "http:", "https:")):
            inner["file_data"] = content  # the encoder says addresses of files to those alone who gave them
        elif "url" in facts:
            facts = {"data": _bytes_of(content)}
            if facts["data"] is None:
                raise wrong(f"{where}.file_data", "must be base64 or a data URL")
    elif file_id is None:
        raise missing(f"{where}.file_data")
    _leave(rest, "file", inner)
    return File(**facts, file_id=file_id, name=name)


_CHUNKS: dict[str, Callable[[dict[str, Any], str], Part | None]] = {
    "text": _text, "input_text": _text, "output_text": _text, "refusal": _refusal, "image_url": _image,
    "input_audio": _audio, "file": _file, "video_url": _video,
}  # fmt: skip


# ---- turns of the assistant -------------------------------------------------------------------


def _assistant(rest: dict[str, Any], i: int, legacy: dict[str, str], at: Endpoint) -> list[Part]:
    """Take the parts of a turn of the assistant: reasoning, content, refusal, sound, calls."""
    where = f"messages[{i}]"
    parts = [*_reasoning(rest, where, at), *_content(rest, where, at)]
    if refusal := take(rest, "refusal", text, where):
        parts.append(Refusal(refusal))
    sound = rest.pop("audio", None)
    if sound is not None and (spoken := audio_part(mapping(sound, f"{where}.audio"), at)) is not None:
        parts.append(spoken)
    calls = rest.pop("tool_calls", None)
    for j, call in enumerate(sequence(calls, f"{where}.tool_calls") if calls is not None else ()):
        parts.append(_call(call, f"{where}.tool_calls[{j}]"))
    if not calls and (call := rest.pop("function_call", None)) is not None:
        spot = f"{where}.function_call"
        inner = mapping(call, spot)
        name = needed(inner, "name", text, spot)
        legacy[name] = f"call_{i}"
        parts.append(_call({"id": legacy[name], "function": inner}, where, spot))
    return parts


def _reasoning(rest: dict[str, Any], where: str, at: Endpoint) -> Sequence[Part]:
    """Take the reasoning, in whichever of its spellings; a second that says something else stays."""
    details = rest.pop("reasoning_details", None)
    if details is not None:
        spot = f"{where}.reasoning_details"
        details = [mapping(item, f"{spot}[{j}]") for j, item in enumerate(sequence(details, spot))]
    words = take(rest, "reasoning_content", text, where) or ""
    if not words or rest.get("reasoning") in (None, "", words):
        words = take(rest, "reasoning", text, where) or words
    if details:
        if all(detail.get("format") == OWN_DETAILS for detail in details):
            thoughts = [_own_detail(detail, at) for detail in details]
            if words != "".join([thought.text for thought in thoughts]):
                rest["reasoning_content"] = words  # it says more than the details
            return thoughts
        words = words or reasoning_text({"reasoning_details": details})
        return [Reasoning(words, origin=at.origin, extra={NAME: {"reasoning_details": details}})]
    return [Reasoning(words)] if words else []


def _own_detail(detail: dict[str, Any], at: Endpoint) -> Reasoning:
    """A detail as we give it to clients for reasoning of another dialect."""
    proof = {key: detail[key] for key in ("text", "signature") if isinstance(detail.get(key), str)}
    encrypted = detail.get("data")
    return Reasoning(**proof, encrypted=encrypted if isinstance(encrypted, str) else None, origin=at.origin)


def _call(raw: Any, where: str, spot: str | None = None) -> ToolCall:
    """One call; `spot` is where its name and arguments stand, if not under its kind."""
    raw = mapping(raw, where)
    kind: Literal["function", "custom"] = "custom" if "custom" in raw and "function" not in raw else "function"
    spot = spot or f"{where}.{kind}"
    call_id = needed(raw, "id", text, where)
    inner = mapping(raw.get(kind), spot)
    key = "input" if kind == "custom" else "arguments"
    arguments = inner.get(key)
    if arguments is not None and not isinstance(arguments, str | dict):
        raise wrong_type(arguments, f"{spot}.{key}", "a string")
    name = needed(inner, "name", text, spot)
    return ToolCall(call_id, name, arguments_text(arguments), kind, extra=_extra(call_extra(raw, kind)))


# ---- results of tools -------------------------------------------------------------------------


def _tool_result(rest: dict[str, Any], where: str, at: Endpoint) -> Message:
    call_id = text(rest.pop("tool_call_id", None), f"{where}.tool_call_id")
    parts = _content(rest, where, at)
    # The name stays among the keys too: this dialect's own form of a result has none.
    name = rest["name"] if rest.get("name") is not None else rest.pop("name", None)
    result = ToolResult(
        call_id, tuple(parts), None if name is None else text(name, f"{where}.name"), extra=_extra(rest)
    )
    return Message("tool", (result,))


def _function_result(rest: dict[str, Any], i: int, legacy: dict[str, str], at: Endpoint) -> Message:
    """The result of a legacy function call: it answers the latest call of its name."""
    where = f"messages[{i}]"
    name = text(rest.pop("name", None), f"{where}.name")
    parts = _content(rest, where, at)
    return Message("tool", (ToolResult(legacy.get(name, f"call_{i}"), tuple(parts), name, extra=_extra(rest)),))
