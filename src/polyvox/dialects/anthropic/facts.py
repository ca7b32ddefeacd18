"""The words of the Messages protocol: its name, versions, limits and the tables from its terms to ours.
It knows no value of a particular request or answer."""

from __future__ import annotations

from polyvox.dialects import Endpoint
from polyvox.types import FinishReason

NAME = "anthropic.messages"
PATH = "/v1/messages"

FIRST_VERSION = "2023-06-01"
# The version that dropped sampling, took system messages in place, and refuses documents in the
# assistant's turns and citations in the user's. Versions are dates, so they compare as text.
STRICT_VERSION = "2026-10-21"

DEFAULT_MAX_TOKENS = 4096
# The protocol's own client allows an hour for 128,000 tokens and refuses to wait over ten minutes for an
# answer in one piece, so a larger limit must stream.
STREAM_ABOVE = 21_333

FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "refusal": "refusal",
    "model_context_window_exceeded": "context_overflow",
    "compaction": "compaction",
}

EFFORTS = ("low", "medium", "high", "xhigh", "max")
TIERS = ("auto", "standard_only")
SAMPLING = ("temperature", "top_p", "top_k")
# Whether a tool must be called: our mode, and its type here; "tool" beside them names the one.
TOOL_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def version_of(at: Endpoint) -> str:
    """The API version the endpoint asks for."""
    return str(at.options.get("version", FIRST_VERSION))


def finish_of(raw: str | None, has_calls: bool) -> FinishReason:
    """The neutral finish reason; calls under a plain stop are tool calls."""
    reason = FINISH.get(raw or "", "unknown")
    return "tool_calls" if has_calls and reason == "stop" else reason
