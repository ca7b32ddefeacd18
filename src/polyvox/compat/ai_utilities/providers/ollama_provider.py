"""Models that run on the user's own machine, served by Ollama."""

from __future__ import annotations

from polyvox.compat.ai_utilities.providers.catalog_provider import CatalogProvider


class OllamaProvider(CatalogProvider):
    """Ollama; see `CatalogProvider`. It needs no key, and nobody else is asked when it fails."""

    name = "ollama"
