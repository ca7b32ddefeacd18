"""The specifications of Anthropic's models."""

from __future__ import annotations

from polyvox.compat.llm_service.models.llm.specs import ModelSpec, ModelSpecRegistry


def create_anthropic_specs() -> list[ModelSpec]:
    """Those of all models that are offered today, and of the documented ones that no longer are: `notice` says so."""
    return ModelSpecRegistry().list("anthropic")
