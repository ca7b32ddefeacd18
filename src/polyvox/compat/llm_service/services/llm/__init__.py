"""The public names of the LLM service: ask with `execute_llm_call`, add providers through the two factories."""

from __future__ import annotations

from polyvox.compat.llm_service.services.llm.constants import (
    DEFAULT_MAX_RESULTS,
    DEFAULT_TEMPERATURE,
    DEFAULT_TOP_P,
    SUPPORTED_PROVIDERS,
)
from polyvox.compat.llm_service.services.llm.exceptions import (
    APICallError,
    LLMServiceError,
    ProviderError,
    TransformationError,
    UnsupportedProviderError,
    ValidationError,
)
from polyvox.compat.llm_service.services.llm.orchestrator import LLMCallStream, execute_llm_call, stream_llm_call
from polyvox.compat.llm_service.services.llm.providers import BaseProvider, OpenAIProvider, ProviderFactory
from polyvox.compat.llm_service.services.llm.transformers import (
    ConfigTransformer,
    OpenAITransformer,
    TransformerFactory,
)

__all__ = [
    "DEFAULT_MAX_RESULTS",
    "DEFAULT_TEMPERATURE",
    "DEFAULT_TOP_P",
    "SUPPORTED_PROVIDERS",
    "APICallError",
    "BaseProvider",
    "ConfigTransformer",
    "LLMCallStream",
    "LLMServiceError",
    "OpenAIProvider",
    "OpenAITransformer",
    "ProviderError",
    "ProviderFactory",
    "TransformationError",
    "TransformerFactory",
    "UnsupportedProviderError",
    "ValidationError",
    "execute_llm_call",
    "stream_llm_call",
]  # fmt: skip
