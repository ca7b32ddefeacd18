"""The transformer of the provider "openai": what the Responses API is called with."""

from __future__ import annotations

from typing import ClassVar

from polyvox.compat.llm_service.services.llm.transformers.base import DialectTransformer


class OpenAITransformer(DialectTransformer):
    """Keyword arguments for `client.responses.create`: input, max_output_tokens, reasoning, text, and a search in files
    where a vector store is named. What is not set is not sent, nor is what the model refuses."""

    dialect = "openai.responses"
    provider: ClassVar[str | None] = "openai"
