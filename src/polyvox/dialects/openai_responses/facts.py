"""The words of the Responses protocol: its name, its keys, and the tables from its terms to ours. It knows no value
of a particular request or answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from polyvox.types import Extra, FinishReason

NAME = "openai.responses"
PATH = "/responses"

# Neutral field -> wire field, where the value goes over as it is.
SAME = (
    ("max_tokens", "max_output_tokens"),
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("top_logprobs", "top_logprobs"),
    ("parallel_tool_calls", "parallel_tool_calls"),
    ("service_tier", "service_tier"),
    ("metadata", "metadata"),
    ("cache_key", "prompt_cache_key"),
)
# Neutral kind of an answer's form -> the wire's word.
FORMATS: dict[Literal["text", "json", "schema"], str] = {"text": "text", "json": "json_object", "schema": "json_schema"}
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}  # of a function that takes none
WITH_LOGPROBS = "message.output_text.logprobs"  # the word in `include` that asks for them
UNNAMED = "file.pdf"  # how a file without a name is called, as one is demanded
CACHE_TTLS = ("30m", "12h")
AUDIO_FORMATS = {
    "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3",
}  # fmt: skip

# Kinds of calls: the item's type, the key its arguments stand under, and the type of the item that answers it.
CALLS: dict[str, tuple[Literal["function", "custom"], str, str]] = {
    "function_call": ("function", "arguments", "function_call_output"),
    "custom_tool_call": ("custom", "input", "custom_tool_call_output"),
}
RESULTS = {result: kind for kind, _, result in CALLS.values()}

# Within an opaque part's type, what tells that it stands in the content of a message and is no item.
IN_MESSAGE = "message."

# ---- how it ended -----------------------------------------------------------------------------

INCOMPLETE: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_STATUS: dict[str, FinishReason] = {
    "failed": "error", "cancelled": "cancelled", "queued": "incomplete", "in_progress": "incomplete",
}  # fmt: skip
# A response in one of these goes on without us.
UNFINISHED = frozenset({"queued", "in_progress"})


def finish_of(status: str | None, why: str | None, has_calls: bool, has_refusal: bool) -> FinishReason:
    """The neutral finish reason; `why` is what incomplete_details say."""
    if status == "incomplete":
        return INCOMPLETE.get(why or "", "unknown")
    if status in _STATUS:
        return _STATUS[status]
    if status != "completed":
        return "unknown"
    return "tool_calls" if has_calls else "refusal" if has_refusal else "stop"


# ---- keys -------------------------------------------------------------------------------------

# Keys of a response with a neutral place.
TOP = frozenset({
    "id", "object", "created_at", "model", "status", "output", "output_text", "usage", "error", "incomplete_details",
})  # fmt: skip
# Keys that every response has, and the value in which they say nothing.
DEFAULTS: dict[str, Any] = {
    "instructions": None, "max_output_tokens": None, "metadata": {}, "parallel_tool_calls": True,
    "previous_response_id": None, "temperature": None, "tool_choice": "auto", "tools": [], "top_p": None,
}  # fmt: skip

MESSAGE = frozenset({"type", "role", "content"})
TEXT = frozenset({"type", "text", "annotations", "logprobs"})
REFUSAL = frozenset({"type", "refusal"})


def keys_beside(values: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The keys of an answer's object without a neutral place; null says nothing, nor does a status of completed."""
    return {
        key: value
        for key, value in values.items()
        if key not in known and value is not None and not (key == "status" and value == "completed")
    }


# The key beside the id of a message or a call that says which deployment made it: it is the name of what that one
# keeps, and nothing to another. It stands in extra alone, never on the wire.
MINTED_BY = "minted_by"


def minted(keys: dict[str, Any], origin: str | None) -> dict[str, Any]:
    """The keys of an item, with whose its id is where it has one."""
    return {**keys, MINTED_BY: origin} if origin is not None and "id" in keys else keys


def extra_of(keys: dict[str, Any]) -> Extra:
    """Keys of this dialect as extra."""
    return {NAME: keys} if keys else {}
