"""The answer that nearly every call gets (words, and what they took) read the cheap way: a strict typed decoder takes
it or leaves it. Whatever has one key more goes the general way in `answer`."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

_Count = Annotated[int, Meta(ge=0)]


class _Message(Struct, forbid_unknown_fields=True, gc=False):
    content: Annotated[str, Meta(min_length=1)]
    role: str | None = None


class _Metrics(Struct, kw_only=True, gc=False):
    total_duration: _Count | None = None
    load_duration: _Count | None = None
    prompt_eval_count: _Count
    prompt_eval_duration: _Count | None = None
    eval_count: _Count
    eval_duration: _Count | None = None


METRICS = _Metrics.__struct_fields__
metrics_of: attrgetter[tuple[Any, ...]] = attrgetter(*METRICS)


class PlainAnswer(_Metrics, kw_only=True, forbid_unknown_fields=True, gc=False):
    """An answer of words, whole, with its counts (tokens), and durations (nanoseconds) where they are told."""

    message: _Message
    done: bool
    done_reason: Literal["stop", "length"]
    created_at: str | None = None
    model: str | None = None


_answer = msgspec.json.Decoder(PlainAnswer).decode


def plain_answer(data: bytes) -> PlainAnswer | None:
    """The answer, or None when it has anything that this decoder does not know."""
    try:
        answer = _answer(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return answer if answer.done else None
