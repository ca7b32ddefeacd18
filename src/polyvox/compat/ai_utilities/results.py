"""What AI Utilities answers with: a text and what it used. Views of the core's answer; nothing is counted here."""

from __future__ import annotations

import operator
from decimal import Decimal
from typing import Any, Self, cast

from msgspec import Struct
from msgspec.structs import force_setattr

from polyvox.compat.errors import named
from polyvox.errors import InputError
from polyvox.types import Message, Response, Text, Usage

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")


def _count(name: str, value: Any) -> int:
    try:
        count = 0 if value is None else operator.index(value)
    except TypeError:
        count = -1
    if count < 0:
        raise named(InputError(f"{name} is a whole number from 0 up, not {value!r:.60}", param=name))
    return count


class UsageData(Struct, frozen=True, omit_defaults=True):
    """Tokens of one request.

    Attributes:
        prompt_tokens, completion_tokens: what went in and came out; None counts as 0.
        total_tokens: the sum of both, unless said.
        cached_tokens, reasoning_tokens: the part of the prompt that the provider had kept, and the part of the
            completion that was reasoning; both are in the counts above.
        cached: whether the answer came from a cache of ours, and nothing was used for it.
        cost: USD, or None where nobody knows; 0 only where nobody bills.
        model, provider: who was asked, where that is known.
        source: who counted: "provider", "estimated", or "missing" where nobody did; then the counts are 0, and are not
            known. Unless said, it is "provider" where there is anything to count.

    >>> UsageData(prompt_tokens=2, completion_tokens=3).total_tokens
    5
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cached: bool = False
    cost: Decimal | None = None
    model: str = ""
    provider: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        """Fill in what was left out: the counts of vendors' libraries may be None. InputError for what is no count."""
        for name in _COUNTS:
            force_setattr(self, name, _count(name, getattr(self, name)))
        if not self.total_tokens:
            force_setattr(self, "total_tokens", self.prompt_tokens + self.completion_tokens)
        if not self.source:
            force_setattr(self, "source", "provider" if self.total_tokens else "missing")

    @property
    def input_tokens(self) -> int:
        """prompt_tokens, by its other name."""
        return self.prompt_tokens

    @property
    def output_tokens(self) -> int:
        """completion_tokens, by its other name."""
        return self.completion_tokens

    @classmethod
    def of(cls, usage: Usage, **facts: Any) -> Self:
        """The view of the core's usage."""
        return cls(
            prompt_tokens=usage.input or 0,
            completion_tokens=usage.output or 0,
            total_tokens=usage.total or 0,
            cached_tokens=usage.cache_read or 0,
            reasoning_tokens=usage.reasoning or 0,
            source=usage.source,
            **facts,
        )


class AskResult(Struct, frozen=True, omit_defaults=True):
    """The answer to a prompt; as a string it is its text.

    Attributes:
        text: the answer; "" where there is none.
        usage: what it used.
        cached: whether it came from a cache of ours.
        model, provider: who answered, where that is known.
        cost: USD, or None where nobody knows; 0 from a cache.
        finish_reason: why it ended, in the core's words ("stop", "length", ...).
        request_id: the provider's id of the request.
        error: in a batch, why there is no answer to this prompt; else None.
        response: the core's whole answer, where the core was asked.

    >>> str(AskResult(text="Hello", usage=UsageData()))
    'Hello'
    """

    text: str
    usage: UsageData = UsageData()
    cached: bool = False
    model: str = ""
    provider: str = ""
    cost: Decimal | None = None
    finish_reason: str | None = None
    request_id: str | None = None
    error: Exception | None = None
    response: Response | None = None

    def __post_init__(self) -> None:
        """Put an empty text in the place of None, which vendors' libraries have where a model said nothing. InputError
        for a text that is none."""
        if not self.text:
            force_setattr(self, "text", "")
        text, usage = cast("Any", self.text), cast("Any", self.usage)  # what a caller without types may give
        if not isinstance(text, str):
            raise named(InputError(f"text is text, not {type(text).__name__}", param="text"))
        if usage is None:
            force_setattr(self, "usage", UsageData())
        elif not hasattr(usage, "prompt_tokens"):
            raise named(InputError(
                f"usage is UsageData, not {type(usage).__name__}", hint="UsageData(prompt_tokens=..., ...)",
                param="usage",
            ))  # fmt: skip

    def __str__(self) -> str:
        """The text."""
        return self.text

    @property
    def ok(self) -> bool:
        """Whether this is an answer."""
        return self.error is None

    @classmethod
    def of(cls, response: Response, *, cached: bool = False) -> Self:
        """The view of the core's answer; one out of a cache of ours costs nothing now."""
        facts: dict[str, Any] = {
            "model": response.model or "",
            "provider": response.provider or "",
            "cached": cached,
            "cost": Decimal(0) if cached else response.cost.amount,
        }
        return cls(
            text=response.text,
            usage=UsageData.of(response.usage, **facts),
            finish_reason=response.finish_reason,
            request_id=response.request_id,
            response=response,
            **facts,
        )

    @classmethod
    def failed(cls, error: Exception) -> Self:
        """What stands in a batch for a prompt that has no answer."""
        return cls(text="", usage=UsageData(source="missing"), error=error)


def response_of(result: AskResult) -> Response:
    """An answer in the core's form, in which it is kept: the one it is a view of, or all that it says."""
    if result.response is not None:
        return result.response
    usage = result.usage
    return Response(
        Message("assistant", (Text(result.text),) if result.text else ()),
        result.finish_reason or "stop",  # type: ignore[arg-type]  # a word that is none of ours is not kept
        model=result.model or None,
        provider=result.provider or None,
        usage=Usage()
        if usage.source == "missing"
        else Usage(
            input=usage.prompt_tokens,
            output=usage.completion_tokens,
            total=usage.total_tokens,
            cache_read=usage.cached_tokens,
            reasoning=usage.reasoning_tokens,
            source="estimated" if usage.source == "estimated" else "provider",
        ),
    )
