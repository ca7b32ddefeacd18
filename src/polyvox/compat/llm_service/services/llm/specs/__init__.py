"""The specifications that come with the service, a function a provider: `create_openai_specs`, `create_groq_specs`
and so on for each provider of the catalog. There is nothing to load: the registry has them all from the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from polyvox.compat.llm_service.services.llm.specs.anthropic import create_anthropic_specs as create_anthropic_specs
from polyvox.compat.llm_service.services.llm.specs.openai import create_openai_specs as create_openai_specs

if TYPE_CHECKING:
    from polyvox.compat.llm_service.models.llm.specs import ModelSpec

__all__ = ["create_anthropic_specs", "create_openai_specs"]


def __getattr__(name: str) -> Callable[[], list[ModelSpec]]:
    """`create_PROVIDER_specs` for every provider of the catalog, with "_" in the place of "-"."""
    from polyvox import catalog

    if name.startswith("create_") and name.endswith("_specs"):
        wanted = name.removeprefix("create_").removesuffix("_specs")
        provider = next((known for known in catalog.load().providers if known.replace("-", "_") == wanted), None)
        if provider is not None:
            from polyvox.compat.llm_service.models.llm.specs import ModelSpecRegistry

            return lambda: ModelSpecRegistry().list(provider)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
