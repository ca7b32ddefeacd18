"""The answer that nearly every call gets (words, and a count of tokens) read the cheap way: a strict typed decoder
takes it or leaves it. Whatever has one key more goes the general way in `answer`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from polyvox.dialects import Reply
from polyvox.types import Message, Response, Text, Usage

_Count = Annotated[int, Meta(ge=0)]


class _Words(Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["text"]
    text: str


class _Message(Struct, forbid_unknown_fields=True, gc=False):
    content: tuple[_Words]
    role: str = "assistant"


class _Tokens(Struct, gc=False):
    input_tokens: _Count
    output_tokens: _Count


class _Counts(Struct, gc=False):
    tokens: _Tokens
    cached_tokens: _Count | None = None


class _Answer(Struct, forbid_unknown_fields=True, gc=False):
    message: _Message
    usage: Raw
    finish_reason: Literal["COMPLETE", "MAX_TOKENS"]
    id: str | None = None


_answer = msgspec.json.Decoder(_Answer).decode
_counts = msgspec.json.Decoder(_Counts).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


def plain_response(reply: Reply) -> Response | None:
    """The answer, or None when it has anything that this decoder does not know."""
    try:
        answer = _answer(reply.body)
        counts = _counts(answer.usage)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return Response(
        Message("assistant", (Text(answer.message.content[0].text),)),
        "stop" if answer.finish_reason == "COMPLETE" else "length",
        answer.finish_reason,
        usage=Usage(
            counts.tokens.input_tokens,
            counts.tokens.output_tokens,
            counts.cached_tokens,
            source="provider",
            raw=_object(answer.usage),
        ),
        id=answer.id or None,
        raw=reply.body,
    )
