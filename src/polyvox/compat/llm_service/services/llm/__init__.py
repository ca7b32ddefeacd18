"""The public names of the LLM service: ask with `execute_llm_call`, add providers through the two factories."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # the name type checkers know, without the price of loading typing
if TYPE_CHECKING:
    from typing import Any

    from polyvox.compat.llm_service.services.llm.constants import DEFAULT_MAX_RESULTS as DEFAULT_MAX_RESULTS
    from polyvox.compat.llm_service.services.llm.constants import DEFAULT_TEMPERATURE as DEFAULT_TEMPERATURE
    from polyvox.compat.llm_service.services.llm.constants import DEFAULT_TOP_P as DEFAULT_TOP_P
    from polyvox.compat.llm_service.services.llm.constants import SUPPORTED_PROVIDERS as SUPPORTED_PROVIDERS
    from polyvox.compat.llm_service.services.llm.exceptions import APICallError as APICallError
    from polyvox.compat.llm_service.services.llm.exceptions import LLMServiceError as LLMServiceError
    from polyvox.compat.llm_service.services.llm.exceptions import ProviderError as ProviderError
    from polyvox.compat.llm_service.services.llm.exceptions import TransformationError as TransformationError
    from polyvox.compat.llm_service.services.llm.exceptions import UnsupportedProviderError as UnsupportedProviderError
    from polyvox.compat.llm_service.services.llm.exceptions import ValidationError as ValidationError
    from polyvox.compat.llm_service.services.llm.orchestrator import LLMCallStream as LLMCallStream
    from polyvox.compat.llm_service.services.llm.orchestrator import execute_llm_call as execute_llm_call
    from polyvox.compat.llm_service.services.llm.orchestrator import stream_llm_call as stream_llm_call
    from polyvox.compat.llm_service.services.llm.providers import BaseProvider as BaseProvider
    from polyvox.compat.llm_service.services.llm.providers import OpenAIProvider as OpenAIProvider
    from polyvox.compat.llm_service.services.llm.providers import ProviderFactory as ProviderFactory
    from polyvox.compat.llm_service.services.llm.transformers import ConfigTransformer as ConfigTransformer
    from polyvox.compat.llm_service.services.llm.transformers import OpenAITransformer as OpenAITransformer
    from polyvox.compat.llm_service.services.llm.transformers import TransformerFactory as TransformerFactory

_ROOMS = {
    "constants": ("DEFAULT_MAX_RESULTS", "DEFAULT_TEMPERATURE", "DEFAULT_TOP_P", "SUPPORTED_PROVIDERS"),
    "exceptions": (
        "APICallError", "LLMServiceError", "ProviderError", "TransformationError", "UnsupportedProviderError",
        "ValidationError",
    ),
    "orchestrator": ("LLMCallStream", "execute_llm_call", "stream_llm_call"),
    "providers": ("BaseProvider", "OpenAIProvider", "ProviderFactory"),
    "transformers": ("ConfigTransformer", "OpenAITransformer", "TransformerFactory"),
}  # fmt: skip
_HOME = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the list


def __getattr__(name: str) -> Any:
    """Load a name's module on first touch (PEP 562)."""
    room = _HOME.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{room}"), name)


def __dir__() -> list[str]:
    return [*__all__]
