"""What is asked, and of which model it is asked: the configuration of one call. It is content, no connection: that
is `creative_services.LLMConfig`, and who mistakes one for the other is told."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal, Self, get_args

import pydantic
from pydantic import BeforeValidator, Field, StringConstraints

from polyvox.compat.llm_service.models.llm.checked import Checked, Number, Whole

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Verbosity = Literal["low", "medium", "high"]
EFFORTS: tuple[str, ...] = get_args(Effort)
VERBOSITIES: tuple[str, ...] = get_args(Verbosity)


def _provider(value: Any) -> Any:
    value = value.value if isinstance(value, Enum) else value
    if not isinstance(value, str):
        return value
    if not value.strip():
        raise ValueError("must be a name that is not empty")
    return value.strip().lower()


Provider = Annotated[str, BeforeValidator(_provider), StringConstraints(min_length=1)]
"""A provider's name, in lower case. Any name: providers may be registered at any time."""
Named = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class ReasoningConfig(Checked):
    """How much to reason: "none", "minimal", "low", "medium", "high", "xhigh" or "max"; None leaves it to the model."""

    effort: Effort | None = None


class TextConfig(Checked):
    """How wordy the answer is: "low", "medium" or "high"; None leaves it to the model."""

    verbosity: Verbosity | None = None


class LLMModelSpec(Checked):
    """The model that is asked, and its settings. What is None is not sent: the provider's default holds.

    Attributes:
        model: its name at the provider.
        provider: who serves it, "openai" unless said; any name, for providers may be registered at any time.
        temperature: 0 or more; how far up, and whether it is taken at all, differs by model.
        max_tokens: the most tokens of the answer, sent as what the provider calls it.
        top_p: 0 to 1.
        reasoning, text: how much to reason and how wordy to be.
    """

    model: Named
    provider: Provider = "openai"
    temperature: Annotated[Number, Field(ge=0)] | None = None
    max_tokens: Annotated[Whole, Field(ge=1)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    reasoning: ReasoningConfig | None = None
    text: TextConfig | None = None

    def config(self) -> dict[str, Any]:
        """The settings that were made, flat, by the names that specifications know them by; without the model.

        >>> LLMModelSpec(model="o1", reasoning=ReasoningConfig(effort="high")).config()
        {'effort': 'high'}
        """
        said = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "top_p": self.top_p,
            "effort": self.reasoning.effort if self.reasoning else None,
            "verbosity": self.text.verbosity if self.text else None,
        }
        return {name: value for name, value in said.items() if value is not None}

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """The same model as a connection's configuration names, such as a `creative_services.LLMConfig`; of its
        settings those that a call has. Keys and addresses stay where they are."""
        fields = ("model", "provider", "temperature", "max_tokens", "top_p")
        return cls(**{name: value for name in fields if (value := getattr(config, name, None)) is not None})


# What a connection's configuration has, and the content of a call has not.
_OF_A_CONNECTION = frozenset({
    "provider", "model", "api_key", "base_url", "temperature", "max_tokens", "top_p", "timeout", "max_retries", "tier",
})  # fmt: skip


class LLMConfig(Checked):
    """The content of a call.

    Attributes:
        prompt: what is asked; never empty.
        vector_store_id: files of the provider to search in, or None.
        llm_model_spec: the model that is asked.
    """

    prompt: Annotated[str, StringConstraints(min_length=1)]
    vector_store_id: Named | None = None
    llm_model_spec: LLMModelSpec

    @classmethod
    def _advice(cls, error: pydantic.ValidationError) -> str | None:
        extra = {str(one["loc"][-1]) for one in error.errors() if one["type"] == "extra_forbidden"}
        if mistaken := sorted(extra & _OF_A_CONNECTION):
            return (
                f"{' and '.join(mistaken)}: fields of polyvox.compat.creative_services.LLMConfig; here the model is "
                "llm_model_spec=LLMModelSpec(model=..., provider=...)"
            )
        return None
