"""The specifications of Anthropic's models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyvox.compat.llm_service.models.llm.specs import ModelSpec


def create_anthropic_specs() -> list[ModelSpec]:
    """Those of all models that are offered today, and of the documented ones that no longer are: `notice` says so."""
    from polyvox.compat.llm_service.models.llm.specs import ModelSpecRegistry

    return ModelSpecRegistry().list("anthropic")
