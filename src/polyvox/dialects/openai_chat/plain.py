"""The answer that nearly every call gets (one choice, words, a count of tokens) read the cheap way: a strict
typed decoder takes it or leaves it. Whatever has one key more goes the general way in `answer`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from polyvox.dialects import Reply
from polyvox.types import Message, Response, Text, Usage

NAME = "openai.chat"

_Count = Annotated[int, Meta(ge=0)]
_Time = Annotated[int, Meta(ge=0, le=2**53)]  # what a float holds exactly


class _Message(Struct, forbid_unknown_fields=True, gc=False):
    content: Annotated[str, Meta(min_length=1)]
    role: str = "assistant"
    refusal: None = None
    annotations: tuple[()] | None = None
    tool_calls: None = None
    function_call: None = None
    audio: None = None
    reasoning_content: None = None
    reasoning: None = None


class _Choice(Struct, forbid_unknown_fields=True, gc=False):
    message: _Message
    finish_reason: Literal["stop", "length"]
    index: Literal[0] = 0
    logprobs: None = None


class _Prompt(Struct, forbid_unknown_fields=True, gc=False):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    image_tokens: _Count | None = None
    text_tokens: _Count | None = None


class _Completion(Struct, forbid_unknown_fields=True, gc=False):
    reasoning_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    text_tokens: _Count | None = None
    accepted_prediction_tokens: _Count | None = None
    rejected_prediction_tokens: _Count | None = None


class _Counts(Struct, forbid_unknown_fields=True, gc=False):
    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count
    prompt_tokens_details: _Prompt | None = None
    completion_tokens_details: _Completion | None = None


class _Answer(Struct, forbid_unknown_fields=True, gc=False):
    choices: tuple[_Choice]
    usage: Raw
    id: str | None = None
    object: Raw = Raw()
    created: _Time | None = None
    model: str | None = None
    service_tier: str | UnsetType | None = UNSET
    system_fingerprint: str | UnsetType | None = UNSET


_answer = msgspec.json.Decoder(_Answer).decode
_counts = msgspec.json.Decoder(_Counts).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode
_NO_PROMPT, _NO_COMPLETION = _Prompt(), _Completion()


def plain_response(reply: Reply) -> Response | None:
    """The answer, or None when it has anything that this decoder does not know."""
    try:
        answer = _answer(reply.body)
        counts = _counts(answer.usage)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    prompt = counts.prompt_tokens_details or _NO_PROMPT
    completion = counts.completion_tokens_details or _NO_COMPLETION
    output, reasoning = counts.completion_tokens, completion.reasoning_tokens
    if reasoning and counts.total_tokens == counts.prompt_tokens + output + reasoning:
        return None
    extra = {}
    if answer.service_tier is not UNSET:
        extra["service_tier"] = answer.service_tier
    if answer.system_fingerprint is not UNSET:
        extra["system_fingerprint"] = answer.system_fingerprint
    choice = answer.choices[0]
    return Response(
        Message("assistant", (Text(choice.message.content),)),
        choice.finish_reason,
        choice.finish_reason,
        usage=Usage(
            counts.prompt_tokens,
            output,
            prompt.cached_tokens,
            prompt.cache_write_tokens,
            reasoning=reasoning,
            audio_input=prompt.audio_tokens,
            audio_output=completion.audio_tokens,
            image_input=prompt.image_tokens,
            total=counts.total_tokens,
            source="provider",
            raw=_object(answer.usage),
        ),
        id=answer.id or None,
        model=answer.model,
        created=None if answer.created is None else float(answer.created),
        raw=reply.body,
        extra={NAME: extra} if extra else {},
    )
