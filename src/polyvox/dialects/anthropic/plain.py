"""What most calls say and get (words, few settings, a count of tokens) written and read the cheap way. Whatever has one
thing more goes the general way, in `request` and `answer`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct

from polyvox.dialects import Reply
from polyvox.dialects.anthropic.blocks import Block, Scope
from polyvox.dialects.anthropic.facts import FINISH
from polyvox.dialects.errors_on_wire import request_id
from polyvox.dialects.plain import plain_turns
from polyvox.types import Message, Request, Response, Text, Usage

_Count = Annotated[int, Meta(ge=0)]


def plain_body(request: Request, scope: Scope) -> Block | None:
    """The body of a request, or None when it says anything that is not plain, or that the endpoint may refuse."""
    said = plain_turns(request)
    if said is None or request.max_tokens is UNSET or request.seed is not UNSET:
        return None
    body: Block = {"model": request.model, "max_tokens": request.max_tokens}
    if said.system:
        blocks = [{"type": "text", "text": text} for text in said.system]
        body["system"] = said.system[0] if len(blocks) == 1 else blocks
    body["messages"] = [{"role": role, "content": text} for role, text in said.turns]
    if request.temperature is not UNSET or request.top_p is not UNSET:
        if scope.strict_version or "no_sampling" in scope.at.quirks:
            return None
        if request.temperature is not UNSET:
            body["temperature"] = request.temperature
        if request.top_p is not UNSET:
            body["top_p"] = request.top_p
    if request.stop is not UNSET:
        body["stop_sequences"] = request.stop
    if request.stream:
        body["stream"] = True
    return body


class _Words(Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["text"]
    text: str
    citations: tuple[()] | None = None


class _Answer(Struct, forbid_unknown_fields=True, gc=False):
    content: tuple[_Words]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence"]
    usage: Raw
    id: str | None = None
    type: Literal["message"] | None = None
    role: str | None = None
    model: str | None = None
    stop_sequence: str | None = None
    stop_details: None = None
    container: None = None
    context_management: None = None


class _Written(Struct, forbid_unknown_fields=True, gc=False):
    ephemeral_5m_input_tokens: _Count
    ephemeral_1h_input_tokens: _Count


class _Thought(Struct, gc=False):
    thinking_tokens: _Count | None = None


class _Counts(Struct, gc=False):
    input_tokens: _Count
    output_tokens: _Count
    cache_read_input_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None
    cache_creation: _Written | None = None
    server_tool_use: None = None
    output_tokens_details: _Thought | None = None


_answer = msgspec.json.Decoder(_Answer).decode
_counts = msgspec.json.Decoder(_Counts).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


def plain_response(reply: Reply) -> Response | None:
    """The answer, or None when it has anything that this decoder does not know."""
    try:
        answer = _answer(reply.body)
        counts = _counts(answer.usage)
        raw = _object(answer.usage)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    read, written, by_ttl = counts.cache_read_input_tokens, counts.cache_creation_input_tokens, {}
    if (kept := counts.cache_creation) is not None:
        by_ttl = {"5m": kept.ephemeral_5m_input_tokens, "1h": kept.ephemeral_1h_input_tokens}
        written = sum(by_ttl.values()) if written is None else written
    thought = counts.output_tokens_details
    return Response(
        Message("assistant", (Text(answer.content[0].text),)),
        FINISH[answer.stop_reason],
        answer.stop_reason,
        answer.stop_sequence,
        usage=Usage(
            counts.input_tokens + (read or 0) + (written or 0),
            counts.output_tokens,
            read,
            written,
            by_ttl,
            None if thought is None else thought.thinking_tokens,
            source="provider",
            raw=raw,
        ),
        id=answer.id,
        model=answer.model,
        request_id=request_id(reply.headers),
        raw=reply.body,
    )
