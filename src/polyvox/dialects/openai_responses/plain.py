"""The answer that most calls get (one message of words, and a count of tokens) read the cheap way: a strict typed
decoder takes it or leaves it. Whatever has one key more goes the general way in `answer`."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from polyvox.dialects import Reply
from polyvox.dialects.openai_responses.facts import DEFAULTS, NAME, minted
from polyvox.types import Message, Response, Text, Usage

_Count = Annotated[int, Meta(ge=0)]
_Time = Annotated[int, Meta(ge=0, le=2**53)]  # what a float holds exactly


class _Words(Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["output_text"]
    text: str
    annotations: tuple[()] = ()
    logprobs: tuple[()] | None = None


class _Item(Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["message"]
    content: tuple[_Words]
    id: str | None = None
    phase: str | None = None
    role: str | None = None
    status: Literal["completed"] | None = None


class _Read(Struct, forbid_unknown_fields=True, gc=False):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None


class _Written(Struct, forbid_unknown_fields=True, gc=False):
    reasoning_tokens: _Count | None = None


class _Counts(Struct, forbid_unknown_fields=True, gc=False):
    input_tokens: _Count
    output_tokens: _Count
    total_tokens: _Count
    input_tokens_details: _Read | None = None
    output_tokens_details: _Written | None = None


class _Told(Struct, gc=False):
    """The keys without a neutral place that answers commonly have."""

    access_programs: Any = None
    background: Any = None
    billing: Any = None
    completed_at: Any = None
    conversation: Any = None
    frequency_penalty: Any = None
    instructions: Any = None
    max_output_tokens: Any = None
    max_tool_calls: Any = None
    metadata: Any = None
    moderation: Any = None
    parallel_tool_calls: Any = None
    presence_penalty: Any = None
    previous_response_id: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    reasoning: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    temperature: Any = None
    text: Any = None
    tool_choice: Any = None
    tools: Any = None
    top_logprobs: Any = None
    top_p: Any = None
    truncation: Any = None
    user: Any = None


_REST = _Told.__struct_fields__
_NOTHING = tuple([DEFAULTS.get(key) for key in _REST])
_rest_of = attrgetter(*_REST)


class _Answer(_Told, kw_only=True, forbid_unknown_fields=True, gc=False):
    status: Literal["completed"]
    output: tuple[_Item]
    usage: Raw
    id: str | None = None
    object: Literal["response"] | None = None
    created_at: _Time | None = None
    model: str | None = None
    error: None = None
    incomplete_details: None = None


_answer = msgspec.json.Decoder(_Answer).decode
_counts = msgspec.json.Decoder(_Counts).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode
_NO_READ, _NO_WRITTEN = _Read(), _Written()


def plain_response(reply: Reply, origin: str | None = None) -> Response | None:
    """The answer of this deployment, or None when it has anything that this decoder does not know."""
    try:
        answer = _answer(reply.body)
        counts = _counts(answer.usage)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    item = answer.output[0]
    keys = {} if item.id is None else minted({"id": item.id}, origin)
    if item.phase is not None:
        keys["phase"] = item.phase
    read, written = counts.input_tokens_details or _NO_READ, counts.output_tokens_details or _NO_WRITTEN
    rest: dict[str, Any] = {}
    values = _rest_of(answer)
    if values != _NOTHING:
        told = zip(_REST, values, _NOTHING, strict=True)
        rest = {key: value for key, value, nothing in told if value is not None and value != nothing}
    return Response(
        Message("assistant", (Text(item.content[0].text, extra={NAME: {"item": keys}} if keys else {}),)),
        "stop",
        "completed",
        usage=Usage(
            counts.input_tokens,
            counts.output_tokens,
            read.cached_tokens,
            read.cache_write_tokens,
            reasoning=written.reasoning_tokens,
            total=counts.total_tokens,
            source="provider",
            raw=_object(answer.usage),
        ),
        id=answer.id,
        model=answer.model,
        created=None if answer.created_at is None else float(answer.created_at),
        raw=reply.body,
        extra={NAME: rest} if rest else {},
    )
