"""Groq."""

from __future__ import annotations

from polyvox.compat.ai_utilities.providers.catalog_provider import CatalogProvider


class GroqProvider(CatalogProvider):
    """Groq; see `CatalogProvider`."""

    name = "groq"
