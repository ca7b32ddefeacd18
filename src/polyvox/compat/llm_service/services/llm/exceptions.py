"""The errors that the document on the LLM service names. Each error of the core is one of them, or several."""

from __future__ import annotations

from polyvox.compat.names import APICallError as APICallError
from polyvox.compat.names import LLMServiceError as LLMServiceError
from polyvox.compat.names import ProviderError as ProviderError
from polyvox.compat.names import TransformationError as TransformationError
from polyvox.compat.names import UnsupportedProviderError as UnsupportedProviderError
from polyvox.compat.names import ValidationError as ValidationError

__all__ = [
    "APICallError", "LLMServiceError", "ProviderError", "TransformationError", "UnsupportedProviderError",
    "ValidationError",
]  # fmt: skip
