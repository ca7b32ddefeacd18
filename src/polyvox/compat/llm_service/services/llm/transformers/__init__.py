"""From a request of the LLM service to what a provider's client is called with."""

from __future__ import annotations

from polyvox.compat.llm_service.services.llm.transformers.base import ConfigTransformer, DialectTransformer, Params
from polyvox.compat.llm_service.services.llm.transformers.factory import TransformerFactory
from polyvox.compat.llm_service.services.llm.transformers.openai import OpenAITransformer

__all__ = ["ConfigTransformer", "DialectTransformer", "OpenAITransformer", "Params", "TransformerFactory"]
