"""The main entry point of the LLM service: a request goes to the provider it names, and comes back as an answer or as
the text of what went wrong. It logs who was asked and how it went, never what was said."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from polyvox.compat.errors import named
from polyvox.compat.llm_service.services.llm.outcomes import pair_of, told
from polyvox.compat.llm_service.services.llm.providers.factory import ProviderFactory
from polyvox.errors import PolyvoxError

if TYPE_CHECKING:
    from polyvox.compat.llm_service.models.llm import LLMCallRequest, LLMCallResponse


def execute_llm_call(request: LLMCallRequest, client: Any = None) -> tuple[LLMCallResponse | None, str | None]:
    """Ask the provider that the request names. `(response, None)`, or `(None, error)` with a text, without any key in
    it; the exception is its `error.error`. Nothing that a provider does wrong is raised.

    Args:
        request: what is asked, and of which model.
        client: a client of the provider's library, whose own key and address hold; or a `polyvox.Client`, which brings
            its cache, ledger, budgets and deployments along; or None, and the core asks by itself: with the deployments
            and keys that are configured, those of the AI_ variables among them.

    >>> from polyvox.compat.llm_service.models.llm import LLMCallRequest, LLMConfig, LLMModelSpec
    >>> spec = LLMModelSpec(model="demo", provider="demo")
    >>> response, error = execute_llm_call(LLMCallRequest(llm=LLMConfig(prompt="hello", llm_model_spec=spec)))
    >>> response.model, error
    ('demo', None)
    """
    from polyvox.compat.llm_service.models.llm.request import checked_request

    begun = time.monotonic()
    try:
        provider = ProviderFactory.create(checked_request(request).llm.llm_model_spec.provider, client)
        response, problem = pair_of(provider.execute(request), request)
    except Exception as error:  # noqa: BLE001 - whatever a provider's own code raises is told
        response, problem = None, told(_named(error, request, client))
    _log(request, time.monotonic() - begun, response, problem)
    return response, problem


class LLMCallStream:
    """An answer as it comes. Iterating gives its words and, last, the whole `LLMCallResponse`.

    Attributes:
        response: the whole answer, once it is there; else None.
        error: what went wrong, as `execute_llm_call` tells it; else None. Nothing is raised.
    """

    def __init__(self, request: LLMCallRequest, client: Any = None) -> None:
        self.response: LLMCallResponse | None = None
        self.error: str | None = None
        self._pieces = self._read(request, client)

    def __iter__(self) -> Iterator[str | LLMCallResponse]:
        return self._pieces

    def _read(self, request: LLMCallRequest, client: Any) -> Iterator[str | LLMCallResponse]:
        from polyvox.compat.llm_service.models.llm import LLMCallResponse
        from polyvox.compat.llm_service.models.llm.request import checked_request

        begun = time.monotonic()
        try:
            provider = ProviderFactory.create(checked_request(request).llm.llm_model_spec.provider, client)
            for piece in provider.stream(request):
                if isinstance(piece, LLMCallResponse):
                    self.response = piece
                yield piece
        except Exception as error:  # noqa: BLE001 - as in execute_llm_call
            self.response, self.error = None, told(_named(error, request, client))
        _log(request, time.monotonic() - begun, self.response, self.error)


def stream_llm_call(request: LLMCallRequest, client: Any = None) -> LLMCallStream:
    """`execute_llm_call`, as the answer comes; see `LLMCallStream`. Nobody is asked before it is read."""
    return LLMCallStream(request, client)


def _named(error: Exception, request: Any, client: Any) -> PolyvoxError:
    """An exception of anybody's code as an error of ours, by what the provider's library says of it."""
    if isinstance(error, PolyvoxError):
        return named(error)
    from polyvox.compat.foreign import as_error

    spec = request.llm.llm_model_spec
    made = as_error(error, spec.provider, spec.model)
    if client is None and isinstance(error, AttributeError | TypeError):
        made.hint = f"the provider {spec.provider!r} was called without a client: execute_llm_call(request, client)"
    return made


def _log(request: Any, seconds: float, response: LLMCallResponse | None, problem: str | None) -> None:
    """Who was asked and how it went, as fields of one record."""
    import logging

    from polyvox.compat.llm_service.models.llm import LLMCallRequest

    log = logging.getLogger("polyvox.llm_service")
    spec = request.llm.llm_model_spec if isinstance(request, LLMCallRequest) else None
    error = getattr(problem, "error", None)
    said = {
        "provider": getattr(spec, "provider", None),
        "model": getattr(spec, "model", None),
        "latency": round(seconds, 6),
        "input_tokens": getattr(response, "input_tokens", None),
        "output_tokens": getattr(response, "output_tokens", None),
        "total_tokens": getattr(response, "total_tokens", None),
        "outcome": "ok" if problem is None else "error",
        "kind": getattr(error, "kind", None),
        "status": getattr(error, "status", None),
    }
    known = {name: value for name, value in said.items() if value is not None}
    if problem is None:
        log.info("an LLM call ended", extra=known)
    else:
        log.error("an LLM call failed", extra=known)
