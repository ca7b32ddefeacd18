"""The errors that three of the four documents name, each tree as it is printed. Which of them an error of ours is
stands in `errors`."""

from __future__ import annotations

from typing import Any

from polyvox.errors import PolyvoxError


class AIUtilitiesError(PolyvoxError):
    """Root of what AI Utilities raises."""


class LLMServiceError(PolyvoxError):
    """Root of what the LLM service raises."""


class AIError(PolyvoxError):
    """Root of what TTT raises."""


# ---- AI Utilities, and the one name it shares with the LLM service ------------------------------


class ProviderError(AIUtilitiesError, LLMServiceError):
    """Something is wrong with a provider; it carries the provider's name."""


class ProviderConfigurationError(ProviderError):
    """The configuration of a provider cannot work."""


class ProviderAPIError(ProviderError):
    """A provider, or the way to it, answered with an error."""


class ProviderRateLimitError(ProviderAPIError):
    """A provider's limit is reached; `retry_after` says for how long, when the provider does."""


# ---- the LLM service --------------------------------------------------------------------------


class UnsupportedProviderError(LLMServiceError):
    """No provider of this name is known."""


class ValidationError(LLMServiceError, ValueError):
    """What was asked for, or configured, cannot be; `param` says what."""

    def errors(self) -> list[dict[str, Any]]:
        """What is wrong, in the form in which pydantic tells it: type, loc, msg."""
        if told := getattr(self, "found", ()):  # it came of pydantic
            return [dict(one) for one in told]
        found: tuple[str, ...] = getattr(self, "problems", ()) or (self.message,)
        return [{"type": self.kind, "loc": (self.param,) if self.param else (), "msg": text} for text in found]


class TransformationError(LLMServiceError):
    """A request could not be put into a provider's form."""


class APICallError(LLMServiceError):
    """A call failed."""


# ---- TTT --------------------------------------------------------------------------------------


class APIKeyError(AIError):
    """The key is missing or refused."""


class ModelNotFoundError(AIError):
    """There is no such model."""


class BackendNotAvailableError(AIError):
    """Who should answer cannot be reached, or fails."""


class RateLimitError(AIError):
    """A limit is reached; `retry_after` says for how long, when the provider does."""


class ToolExecutionError(AIError):
    """A tool failed."""


class ConfigurationError(AIError):
    """Configuration is wrong."""
