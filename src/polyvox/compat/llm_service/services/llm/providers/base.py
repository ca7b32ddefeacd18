"""What every provider of the LLM service is: an execute of its own, and the way to its client's arguments. Where a
request leads and what is logged is the orchestrator's business."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyvox.compat.llm_service.models.llm import LLMCallRequest, LLMCallResponse
    from polyvox.compat.llm_service.services.llm.transformers.base import ConfigTransformer


class BaseProvider(ABC):
    """Answers requests through a client. A subclass needs `execute` and nothing else.

    Attributes:
        client: what it was given; for the providers of the core None means the core's own.
        transformer: the one it was given, or None for the one that is registered under its name.
        name: what it was asked for by; None until a factory made it.
    """

    name: str | None = None
    transformer: ConfigTransformer | None = None

    def __init__(self, client: Any = None, transformer: ConfigTransformer | None = None) -> None:
        self.client = client
        self.transformer = transformer

    @abstractmethod
    def execute(self, request: LLMCallRequest) -> tuple[LLMCallResponse | None, str | None]:
        """The answer and None, or None and what went wrong."""

    def stream(self, request: LLMCallRequest) -> Iterator[str | LLMCallResponse]:
        """The words as they come, then the whole answer. Here in one piece, as `execute` gives it; a failure raises."""
        from polyvox.compat.llm_service.services.llm.outcomes import error_of, pair_of

        response, error = pair_of(self.execute(request), request)
        if response is None:
            raise error_of(error, request)
        if response.message:
            yield response.message
        yield response

    def build_params(self, request: LLMCallRequest) -> dict[str, Any]:
        """The keyword arguments for the client, by the transformer that is registered under this provider's name.
        ValidationError for what the model does not take, TransformationError where it cannot be put."""
        from polyvox.compat.llm_service.models.llm.request import checked_request
        from polyvox.compat.llm_service.services.llm.providers.factory import ProviderFactory
        from polyvox.compat.llm_service.services.llm.transformers.factory import TransformerFactory

        spec = checked_request(request).llm.llm_model_spec
        name = self.name or ProviderFactory._names.name_of(type(self)) or spec.provider
        transformer = self.transformer or TransformerFactory.create(name, spec.model)
        return transformer.validate_and_transform(request)
