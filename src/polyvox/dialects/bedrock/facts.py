"""The words of the Converse protocol: its name, paths, limits and the tables from its terms to ours.
It knows no value of a particular request or answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from msgspec import UNSET

from polyvox.dialects import Endpoint
from polyvox.errors import InputError
from polyvox.types import Extra, FinishReason

NAME = "bedrock.converse"

FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
    "model_context_window_exceeded": "context_overflow",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
}
TIERS = ("default", "priority", "flex", "reserved")
CACHE_TTLS = ("5m", "1h")
# Whether a tool must be called: our mode, and its member here; "tool" beside them names the one.
TOOL_CHOICES = {"auto": "auto", "required": "any"}
# The tag under which the end user goes: there is no field for one.
USER_TAG = "user_id"
TAG = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}")
DOCUMENT_NAME = re.compile(r"(?!.*\s\s)[a-zA-Z0-9\s()\[\]-]{1,200}", re.DOTALL)

# Fields that only models have, each where the endpoint's option `fields` says: the value that asks for
# nothing, and why any other is lost where it says nothing.
MODEL_FIELDS: tuple[tuple[str, Any, str], ...] = (
    ("top_k", UNSET, "top_k is a field of the model's own"),
    ("seed", UNSET, "sampling cannot be seeded"),
    ("presence_penalty", 0, "there are no penalties"),
    ("frequency_penalty", 0, "there are no penalties"),
    ("parallel_tool_calls", True, "parallel calls cannot be switched off"),
    ("verbosity", UNSET, "verbosity cannot be set"),
)

# Settings of every model: our field, and its name in inferenceConfig.
SAMPLING = (
    ("max_tokens", "maxTokens"),
    ("temperature", "temperature"),
    ("top_p", "topP"),
    ("stop", "stopSequences"),
)

# The formats of each kind of medium, with their media types. No media type stands twice in a kind.
FORMATS: dict[str, dict[str, str]] = {
    "image": {"png": "image/png", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"},
    "document": {
        "pdf": "application/pdf",
        "csv": "text/csv",
        "doc": "application/msword",
        "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xls": "application/vnd.ms-excel",
        "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "html": "text/html",
        "txt": "text/plain",
        "md": "text/markdown",
    },
    "video": {
        "mkv": "video/x-matroska", "mov": "video/quicktime", "mp4": "video/mp4", "webm": "video/webm",
        "flv": "video/x-flv", "mpeg": "video/mpeg", "mpg": "video/mpg", "wmv": "video/x-ms-wmv",
        "three_gp": "video/3gpp",
    },
    "audio": {
        "mp3": "audio/mpeg", "opus": "audio/opus", "wav": "audio/wav", "aac": "audio/aac", "flac": "audio/flac",
        "mp4": "audio/mp4", "ogg": "audio/ogg", "mkv": "audio/x-matroska", "mka": "audio/x-mka",
        "x-aac": "audio/x-aac", "m4a": "audio/x-m4a", "mpeg": "audio/x-mpeg", "mpga": "audio/mpga",
        "pcm": "audio/pcm", "webm": "audio/webm",
    },
}  # fmt: skip
FORMAT_OF = {kind: {media: name for name, media in names.items()} for kind, names in FORMATS.items()}
# Other names of media types, and of formats as names of files end in them.
FORMAT_OF["image"] |= {"image/jpg": "jpeg"}
FORMAT_OF["document"] |= {"text/x-markdown": "md"}
FORMAT_OF["audio"] |= {"audio/mp3": "mp3", "audio/x-wav": "wav", "audio/wave": "wav", "audio/m4a": "m4a"}
SUFFIXES = {"jpg": "jpeg", "3gp": "three_gp", "htm": "html"}

# Keys with a neutral place, at each level; every other key goes to extra. `p` pads events to hide their length.
ANSWER_KEYS = frozenset({"output", "stopReason", "usage"})
EVENT_KEYS = frozenset({"contentBlockIndex", "delta", "start", "role", "stopReason", "usage", "p"})
BLOCK_KEYS = {
    "image": frozenset({"format", "source"}),
    "audio": frozenset({"format", "source"}),
    "video": frozenset({"format", "source"}),
    "document": frozenset({"format", "source", "name", "context"}),
    "toolUse": frozenset({"toolUseId", "name", "input"}),
    "toolResult": frozenset({"toolUseId", "content", "status"}),
    "reasoningText": frozenset({"text", "signature"}),
    "citationsContent": frozenset({"content", "citations"}),
}
# A call the server ran itself; some models say "tool_use" where it is the caller's, which says nothing more.
SERVER_TOOL, PLAIN_TOOL = "server_tool_use", "tool_use"

_PATH = re.compile(r"(.*/model/)(.+)(/converse(?:-stream)?)(\?.*)?", re.DOTALL)


@lru_cache(maxsize=256)
def path_of(model: str, stream: bool) -> str:
    """The path of a call; raises InputError for a model that would make it another path."""
    if model in ("", ".", ".."):
        raise InputError(f"{model!r} cannot be the name of a model", param="model")
    return f"/model/{quote(model, safe='')}/converse{'-stream' if stream else ''}"


@lru_cache(maxsize=256)
def model_in(path: str) -> tuple[str | None, bool]:
    """The model a path names, None where it names none, and whether the answer is to be streamed."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None, False
    model = unquote(found[2])
    return None if model in (".", "..") else model, found[3].endswith("-stream")


def with_model(path: str, model: str) -> str:
    """The same path for another model; raises InputError where it has no place for one."""
    found = _PATH.fullmatch(path)
    if found is None:
        raise InputError("the path names no model", param="model", hint="use /model/{modelId}/converse")
    made = path_of(model, found[3].endswith("-stream"))
    return f"{found[1].removesuffix('/model/')}{made}{found[4] or ''}"


def place_of(at: Endpoint, field: str) -> tuple[str, ...] | None:
    """Where in additionalModelRequestFields a field stands, as a path of keys; None where the endpoint says nothing."""
    fields = at.options.get("fields")
    told = fields.get(field) if isinstance(fields, Mapping) else None
    return tuple(told.split(".")) if isinstance(told, str) and told else None


def finish_of(raw: str | None, has_calls: bool) -> FinishReason:
    """The neutral finish reason; calls under a plain stop are tool calls."""
    reason = FINISH.get(raw or "", "unknown")
    return "tool_calls" if has_calls and reason == "stop" else reason


def extra_of(values: Mapping[str, Any], known: frozenset[str]) -> Extra:
    """The keys of an object without a neutral place, as extra; null is as good as absent to this protocol."""
    rest = {key: value for key, value in values.items() if key not in known and value is not None}
    return {NAME: rest} if rest else {}


def kind_in(block: Mapping[str, Any]) -> str | None:
    """Which member of the union a block is: one that is known, else the first; None for an empty one."""
    said = [key for key, value in block.items() if value is not None]
    return next((key for key in said if key in KINDS), said[0] if said else None)


KINDS = frozenset({
    "text", "image", "document", "video", "audio", "toolUse", "toolResult", "guardContent", "cachePoint",
    "reasoningContent", "citationsContent", "searchResult", "toolAddition", "toolRemoval",
})  # fmt: skip
