"""The provider "openai": the Responses API, through an injected client or the core's own."""

from __future__ import annotations

from typing import ClassVar

from polyvox.compat.llm_service.services.llm.providers.core import CoreProvider


class OpenAIProvider(CoreProvider):
    """Calls `client.responses.create` once for each request. client is an `openai.OpenAI`, or anything with that
    method; without one the core asks by itself, with the key it finds."""

    provider: ClassVar[str | None] = "openai"
    row: ClassVar[str | None] = "openai-responses"
    dialect = "openai.responses"
