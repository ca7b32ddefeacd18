"""OpenAI, by its Chat Completions."""

from __future__ import annotations

from polyvox.compat.ai_utilities.providers.catalog_provider import CatalogProvider


class OpenAIProvider(CatalogProvider):
    """OpenAI, by its Chat Completions; see `CatalogProvider`."""

    name = "openai"
