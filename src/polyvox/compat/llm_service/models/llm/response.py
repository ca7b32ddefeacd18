"""One call as it was answered: the documented view of a `polyvox.Response`."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Self

import pydantic
from pydantic import AliasChoices, Field

from polyvox.compat.llm_service.models.llm.checked import Checked, Whole

if TYPE_CHECKING:
    from polyvox.types import Response

_Count = Annotated[Whole, Field(ge=0)] | None


class LLMCallResponse(Checked):
    """An answer. It is true, and its text is `str()` of it. A number that nobody told is None, never 0.

    Attributes:
        message: the text of the answer.
        model, provider: who served it.
        response_id: the provider's name for the answer; `id` is the same.
        status: "completed", or why it is not whole.
        input_tokens, output_tokens, total_tokens: `prompt_tokens` and `completion_tokens` are the first two by the
            names that others use; the total is their sum where it was not told.
        cached_tokens, reasoning_tokens: the parts of them that were read from a cache, and thought.
        file_search_results: the passages found, each with `score` and `text`, or None where nothing was searched.
        cost: in USD, or None where nobody knows it.
        attempts: who was tried, in order, each with `deployment`, `outcome` ("ok" or the kind of its error), `message`
            and `status`; the last one answered.
        losses: what of the request could not be said, each with `field`, `why` and `severity`.
        warnings: what whoever asked should know, in sentences.
    """

    message: str
    model: str | None = None
    provider: str | None = None
    response_id: str | None = Field(default=None, validation_alias=AliasChoices("response_id", "id"))
    status: str = "completed"
    input_tokens: _Count = Field(default=None, validation_alias=AliasChoices("input_tokens", "prompt_tokens"))
    output_tokens: _Count = Field(default=None, validation_alias=AliasChoices("output_tokens", "completion_tokens"))
    total_tokens: _Count = None
    cached_tokens: _Count = None
    reasoning_tokens: _Count = None
    file_search_results: list[dict[str, Any]] | None = None
    cost: Decimal | None = None
    attempts: list[dict[str, str | int | None]] = Field(default_factory=list)
    losses: list[dict[str, str]] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _summed(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("total_tokens") is not None:
            return given
        asked = given.get("input_tokens", given.get("prompt_tokens"))
        answered = given.get("output_tokens", given.get("completion_tokens"))
        if type(asked) is int and type(answered) is int:
            return {**given, "total_tokens": asked + answered}
        return given

    @classmethod
    def from_response(cls, response: Response, **more: Any) -> Self:
        """The view of an answer of the core; `more` replaces what it says."""
        usage = response.usage
        facts = {
            "message": response.text,
            "model": response.model,
            "provider": response.provider,
            "response_id": response.id,
            "status": _STATUS.get(response.finish_reason or "stop", response.finish_reason),
            "input_tokens": usage.input,
            "output_tokens": usage.output,
            "total_tokens": usage.total,
            "cached_tokens": usage.cache_read,
            "reasoning_tokens": usage.reasoning,
            "cost": response.cost.amount,
            "attempts": [
                {"deployment": one.deployment, "outcome": one.outcome, "message": one.message, "status": one.status}
                for one in response.attempts
            ],
            "losses": [{"field": one.field, "why": one.why, "severity": one.severity} for one in response.losses],
            # That a model is at its end changes nothing in the meaning, and is a warning all the same.
            "warnings": [
                one.why if one.field == "model" else f"{one.field}: {one.why}"
                for one in response.losses
                if one.severity == "loss" or one.field == "model"
            ],
        }
        return cls(**{**facts, **more})

    @property
    def id(self) -> str | None:
        """The provider's name for the answer."""
        return self.response_id

    @property
    def prompt_tokens(self) -> int | None:
        """`input_tokens`."""
        return self.input_tokens

    @property
    def completion_tokens(self) -> int | None:
        """`output_tokens`."""
        return self.output_tokens

    def __bool__(self) -> bool:
        """True: there is an answer, even an empty one."""
        return True

    def __str__(self) -> str:
        """The text of the answer."""
        return self.message


# Why the model stopped, in the words that the Responses API has for how an answer stands.
_STATUS = {"stop": "completed", "tool_calls": "completed", "length": "incomplete", "content_filter": "incomplete"}
