"""Data models of the LLM service: what is asked, for which model, and what was answered."""

from __future__ import annotations

from polyvox.compat.llm_service.models.llm.config import LLMConfig as LLMConfig
from polyvox.compat.llm_service.models.llm.config import LLMModelSpec as LLMModelSpec
from polyvox.compat.llm_service.models.llm.config import ReasoningConfig as ReasoningConfig
from polyvox.compat.llm_service.models.llm.config import TextConfig as TextConfig
from polyvox.compat.llm_service.models.llm.request import LLMCallRequest as LLMCallRequest
from polyvox.compat.llm_service.models.llm.response import LLMCallResponse as LLMCallResponse

__all__ = ["LLMCallRequest", "LLMCallResponse", "LLMConfig", "LLMModelSpec", "ReasoningConfig", "TextConfig"]
