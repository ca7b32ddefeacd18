"""How many tokens a text or a request takes: counted where the tokenizer is there, else estimated by script of
writing and family of model, and always saying which. It knows no price and asks no provider."""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Struct

from polyvox.types import (
    PART_TYPES,
    Audio,
    File,
    Image,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Request,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Video,
)

Source = Literal["exact", "estimate"]


class Count(NamedTuple):
    """A number of tokens, and whether it was counted as the model counts or estimated."""

    tokens: int
    source: Source


class ImageRule(Struct, frozen=True):
    """What a picture takes. "tiles": base, and each for every square of size pixels it covers; "area": one token
    for each so many pixels, most at most. typical is for a picture whose size cannot be seen."""

    rule: Literal["tiles", "area"]
    each: int
    typical: int
    base: int = 0
    size: int = 512
    most: int | None = None


class Family(Struct, frozen=True, kw_only=True):
    """What a family of models adds to the words, in tokens.

    Attributes:
        text: tokens of plain text, against those of the estimate for any model; json: of tool schemas.
        base, message: once for a request, and for each message.
        tools, tool: once where tools are offered, and for each of them.
        call: for a call of a tool and its result.
        schema, schema_json: where an answer must be of a schema: once, and against the estimate of the schema.
        thinking: once where reasoning is asked for.
        frame: base and message as the provider tells them, for words that are counted.
    """

    name: str
    match: tuple[str, ...]
    text: float
    json: float
    base: float
    message: float
    tools: float
    tool: float
    call: float
    schema: float
    schema_json: float
    thinking: float
    frame: tuple[int, int] | None = None
    image: ImageRule | None = None


_MAKERS = re.compile(r"^(?:[a-z]+\.)+(?=[a-z])")
# A picture whose rule nobody tells, a page, half a minute of sound: recorded ones took 200 to 1,600.
_UNSEEN = 600.0


@functools.cache
def _families() -> tuple[Family, ...]:
    import tomllib

    rows = tomllib.loads((Path(__file__).parent / "data" / "tokens.toml").read_text(encoding="utf-8"))["family"]
    return tuple(msgspec.convert(rows, list[Family]))


def family_of(model: str | None) -> Family:
    """The family of a model by its bare name: providers before a "/", and makers before a ".", do not matter."""
    bare = _MAKERS.sub("", str(model or "").lower().rsplit("/", 1)[-1])
    return next(row for row in _families() if any(fnmatchcase(bare, pattern) for pattern in row.match))


def count(what: Any, model: str | None = None) -> Count:
    """How many tokens a text takes, or messages or a Request as input with all that goes around their words.

    model is its name, or the request's own. "exact" where `tiktoken` is installed and knows the model, for text,
    and for requests of text alone where the provider tells what goes around; the first time it may fetch a
    vocabulary. Nothing that is written raises; what holds no words takes no tokens.

    >>> count("Hello, world!", "claude-sonnet-5").source
    'estimate'
    """
    model = str(model) if model is not None else None
    if isinstance(what, Request):
        return _request(what, model or what.model)
    if isinstance(what, bytes | bytearray):
        what = what.decode("utf-8", "replace")
    if isinstance(what, str):
        words = _exact(model)
        return (
            Count(words(what), "exact") if words else Count(round(estimate(what) * family_of(model).text), "estimate")
        )
    return _request(Request(model or "", tuple(_messages(what))), model)


def _messages(what: Any) -> Iterable[Message]:
    """Messages of whatever was given: values of ours, or anything that holds words."""
    for one in (what,) if isinstance(what, Message | Mapping) or not isinstance(what, Iterable) else what:
        yield one if isinstance(one, Message) else Message("user", tuple(_parts(one)))


# What other libraries' messages say beside their words.
_NO_WORDS = frozenset({"role", "type", "id", "tool_call_id", "tool_use_id", "media_type", "detail", "format"})
_BYTES = frozenset({"data", "image", "audio", "file_data", "bytes"})


def _parts(value: Any, depth: int = 0) -> Iterable[Part]:
    """The words in a value of any shape, to a depth nobody writes; what stands for bytes is media."""
    if isinstance(value, PART_TYPES):
        yield value
    elif isinstance(value, str):
        yield Image(url=value) if value.startswith("data:") else Text(value)
    elif isinstance(value, Mapping) and depth < _DEEPEST:
        for key, inner in value.items():
            if key in _BYTES and isinstance(inner, str | bytes):
                yield File(url="data:")
            elif key not in _NO_WORDS:
                yield from _parts(inner, depth + 1)
    elif isinstance(value, list | tuple) and depth < _DEEPEST:
        for inner in value:
            yield from _parts(inner, depth + 1)


_DEEPEST = 16


# ---- exact ------------------------------------------------------------------------------------


@functools.cache
def _exact(model: str | None) -> Callable[[str], int] | None:
    """What counts the tokens of a text as the model does, or None."""
    try:
        import tiktoken  # type: ignore[import-not-found, unused-ignore]

        encode = tiktoken.encoding_for_model((model or "").rsplit("/", 1)[-1]).encode
    except Exception:  # noqa: BLE001 - not installed, not known, or its vocabulary cannot be had: it is estimated
        return None
    # Words that look like a marker are words here.
    return lambda text: len(encode(text, disallowed_special=()))


# ---- estimated --------------------------------------------------------------------------------

# What is read as one piece, and its tokens: each, and more for every character beyond the free ones. Latin was
# fitted on recorded requests; the other scripts are between what today's vocabularies of 100,000 to 260,000
# entries take, which differ by half, so they are coarse.
_PIECES: tuple[tuple[str, str, float, int, float], ...] = (
    ("latin", "[A-Za-z\u00c0-\u024f]+", 1.0, 7, 0.14),
    ("digits", r"\d+", 1.0, 3, 0.34),
    ("marks", r"[!-/:-@\[-`{-~]+", 0.9, 4, 0.2),
    ("breaks", r"\s*\n\s*|\s{2,}", 0.8, 16, 0.05),
    ("blank", r"\s", 0.0, 1, 0.0),
    ("han", "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+", 0.9, 1, 0.9),
    ("kana", "[\u3040-\u30ff]+", 0.8, 1, 0.8),
    ("hangul", "[\uac00-\ud7af\u1100-\u11ff]+", 0.9, 1, 0.8),
    ("cyrillic", "[\u0400-\u052f]+", 1.0, 3, 0.3),
    ("greek", "[\u0370-\u03ff\u1f00-\u1fff]+", 1.0, 2, 0.4),
    ("semitic", "[\u0590-\u06ff]+", 1.0, 2, 0.4),
    ("indic", "[\u0900-\u0dff]+", 1.0, 2, 0.45),
    ("thai", "[\u0e00-\u0eff]+", 1.0, 2, 0.45),
    ("other", r"[^\s]", 1.5, 1, 0.0),
)
_PIECE = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern, *_ in _PIECES))
_COSTS = {name: (each, free, more) for name, _, each, free, more in _PIECES}


def estimate(text: str) -> float:
    """About how many tokens a text takes at a model of no particular family.

    >>> round(estimate("The quick brown fox jumps over the lazy dog."))
    10
    """
    tokens = 0.0
    for piece in _PIECE.finditer(text):
        each, free, more = _COSTS[piece.lastgroup or "other"]
        beyond = piece.end() - piece.start() - free
        tokens += each + more * beyond if beyond > 0 else each
    return tokens


def amounts(request: Request, words: Callable[[str], float] = estimate) -> dict[str, float]:
    """How much of each thing a request holds that a family counts, by the names of `Family`'s fields."""
    parts = [part for message in request.messages for part in _flat(message.parts)]
    calls = [part for part in parts if isinstance(part, ToolCall)]
    said = [part.text for part in parts if isinstance(part, Text | Refusal | Reasoning)]
    form = request.response_format
    schema = form.schema if isinstance(form, ResponseFormat) else None
    thinking = request.thinking
    reasons = thinking is not UNSET and thinking.enabled is not False and thinking.effort != "none"
    return {
        "base": 1.0,
        "message": float(len(request.messages)),
        "text": sum(map(words, said)) + sum(words(call.name) + words(call.arguments) for call in calls),
        "call": float(len(calls)),
        "tools": float(bool(request.tools)),
        "tool": float(len(request.tools)),
        "json": sum(estimate(_json(_offered(tool))) for tool in request.tools),
        "schema": float(bool(schema)),
        "schema_json": estimate(_json(schema)) if schema else 0.0,
        "thinking": float(reasons),
    }


def _flat(parts: Iterable[Part]) -> Iterable[Part]:
    """The parts, with what is in a tool's result in the result's place."""
    for part in parts:
        if isinstance(part, ToolResult):
            yield from _flat(part.parts)
        else:
            yield part


def _offered(tool: Tool | Opaque) -> Any:
    if isinstance(tool, Opaque):
        return tool.raw
    return {"name": tool.name, "description": tool.description or "", "parameters": tool.parameters}


def _request(request: Request, model: str | None) -> Count:
    """The words of a request, and what its family adds to them."""
    family = family_of(model)
    exact = _exact(model)
    held = amounts(request, exact or estimate)
    parts = [part for message in request.messages for part in _flat(message.parts)]
    beside = sum(_beside(part, family.image) for part in parts)
    only_words = not beside and not any(held[field] for field in ("call", "tools", "schema", "thinking"))
    if exact and family.frame and only_words:
        base, message = family.frame
        return Count(round(base + message * held["message"] + held["text"]), "exact")
    weights = {field: getattr(family, field) for field in held}
    if exact:
        weights["text"] = 1.0
    return Count(round(sum(amount * weights[field] for field, amount in held.items()) + beside), "estimate")


def _beside(part: Part, rule: ImageRule | None) -> float:
    """What a part takes that is no words of the conversation."""
    if isinstance(part, Image):
        return _picture(part, rule)
    if isinstance(part, Opaque):
        return estimate(_json(part.raw))
    if not isinstance(part, File | Audio | Video):
        return 0.0
    said = getattr(part, "text", None) or getattr(part, "transcript", None) or ""
    if not said and isinstance(part, File) and part.data and (part.media_type or "").startswith("text/"):
        said = part.data.decode("utf-8", "replace")
    return estimate(said) or _UNSEEN


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode("utf-8", "replace")
    except (TypeError, ValueError, OverflowError, RecursionError):
        return str(type(value))


# ---- pictures ---------------------------------------------------------------------------------


def _picture(image: Image, rule: ImageRule | None) -> float:
    """What a picture takes by the rule of its family."""
    if rule is None:
        return _UNSEEN
    if rule.rule == "tiles" and image.detail == "low":
        return float(rule.base or rule.each)
    size = _pixels(image.data or b"")
    if size is None:
        return float(rule.typical)
    width, height = size
    if rule.rule == "area":
        return min(width * height / rule.each, rule.most or float("inf"))
    # The longer side is brought to 2048 pixels at most, then the shorter to 768.
    shrink = min(1.0, 2048 / max(width, height))
    shrink *= min(1.0, 768 / (min(width, height) * shrink))
    across, down = (-(-int(side * shrink) // rule.size) or 1 for side in (width, height))
    return float(rule.base + rule.each * across * down)


def _pixels(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG, GIF, JPEG or WebP by its head; None for what cannot be read."""
    try:
        if data.startswith(b"\x89PNG"):
            size = struct.unpack(">II", data[16:24])
        elif data.startswith(b"GIF8"):
            size = struct.unpack("<HH", data[6:10])
        elif data.startswith(b"\xff\xd8"):
            size = _jpeg(data)
        elif data[8:16] == b"WEBPVP8X":
            wide, high = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
            size = (wide, high)
        else:
            return None
    except (struct.error, IndexError):
        return None
    return (size[0], size[1]) if size[0] > 0 and size[1] > 0 else None


def _jpeg(data: bytes) -> tuple[int, int]:
    """The size in the first frame header; IndexError where there is none."""
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            high, wide = struct.unpack(">HH", data[at + 5 : at + 9])
            return wide, high
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    raise IndexError
