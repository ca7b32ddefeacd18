"""Specifications of models: what each is able to and what may be set. They are a view of polyvox's one catalog."""

from __future__ import annotations

from polyvox.compat.llm_service.models.llm.specs.base import ModelCapabilities as ModelCapabilities
from polyvox.compat.llm_service.models.llm.specs.base import ModelSpec as ModelSpec
from polyvox.compat.llm_service.models.llm.specs.base import ParameterSpec as ParameterSpec
from polyvox.compat.llm_service.models.llm.specs.registry import ModelSpecRegistry as ModelSpecRegistry

__all__ = ["ModelCapabilities", "ModelSpec", "ModelSpecRegistry", "ParameterSpec"]
