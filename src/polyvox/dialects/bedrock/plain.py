"""What most calls say and get (words, few settings, a count of tokens) written and read the cheap way. Whatever has one
thing more goes the general way, in `request` and `answer`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct

from polyvox.dialects import Reply
from polyvox.dialects.bedrock.facts import FINISH, NAME, SAMPLING
from polyvox.dialects.bedrock.scope import Block
from polyvox.dialects.errors_on_wire import request_id
from polyvox.dialects.plain import plain_turns
from polyvox.types import Message, Request, Response, Text, Usage

_Count = Annotated[int, Meta(ge=0)]


def plain_body(request: Request) -> Block | None:
    """The body of a request, or None when it says anything that is not plain."""
    said = plain_turns(request)
    if said is None or request.seed is not UNSET:
        return None
    body: Block = {"messages": [{"role": role, "content": [{"text": text}]} for role, text in said.turns]}
    if said.system:
        body["system"] = [{"text": text} for text in said.system]
    settings = {}
    for field, name in SAMPLING:
        value = getattr(request, field)
        if value is not UNSET:
            settings[name] = value
    if settings:
        body["inferenceConfig"] = settings
    return body


class _Words(Struct, forbid_unknown_fields=True, gc=False):
    text: str


class _Message(Struct, forbid_unknown_fields=True, gc=False):
    content: tuple[_Words]
    role: str = "assistant"


class _Output(Struct, forbid_unknown_fields=True, gc=False):
    message: _Message


class _Metrics(Struct, forbid_unknown_fields=True, rename="camel", gc=False):
    latency_ms: int


class _Answer(Struct, forbid_unknown_fields=True, rename="camel", gc=False):
    output: _Output
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence"]
    usage: Raw
    metrics: _Metrics | None = None


class _Nothing(Struct, forbid_unknown_fields=True, gc=False):
    pass


class _Counts(Struct, rename="camel", gc=False):
    input_tokens: _Count
    output_tokens: _Count
    total_tokens: _Count
    cache_read_input_tokens: _Count | None = None
    cache_write_input_tokens: _Count | None = None
    cache_details: tuple[()] | None = None
    server_tool_usage: _Nothing | None = None


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
    read, written = counts.cache_read_input_tokens, counts.cache_write_input_tokens
    # No answer takes 0 ms: that only fills a place.
    latency = 0 if answer.metrics is None else answer.metrics.latency_ms
    return Response(
        Message("assistant", (Text(answer.output.message.content[0].text),)),
        FINISH[answer.stop_reason],
        answer.stop_reason,
        usage=Usage(
            counts.input_tokens + (read or 0) + (written or 0),
            counts.output_tokens,
            read,
            written,
            total=counts.total_tokens,
            source="provider",
            raw=raw,
        ),
        request_id=request_id(reply.headers),
        raw=reply.body,
        extra={NAME: {"metrics": {"latencyMs": latency}}} if latency else {},
    )
