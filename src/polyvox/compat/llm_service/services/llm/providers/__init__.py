"""Who executes a request of the LLM service, by the name of a provider."""

from __future__ import annotations

from polyvox.compat.llm_service.services.llm.providers.base import BaseProvider
from polyvox.compat.llm_service.services.llm.providers.core import CoreProvider
from polyvox.compat.llm_service.services.llm.providers.factory import ProviderFactory
from polyvox.compat.llm_service.services.llm.providers.openai import OpenAIProvider

__all__ = ["BaseProvider", "CoreProvider", "OpenAIProvider", "ProviderFactory"]
