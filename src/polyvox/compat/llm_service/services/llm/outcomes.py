"""Failures as the LLM service tells them: a text, with the error beside it. Whatever a text is made of, no key stands
in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from polyvox.compat import names
from polyvox.compat.errors import named
from polyvox.errors import PolyvoxError, ServerError

if TYPE_CHECKING:
    from polyvox.compat.llm_service.models.llm import LLMCallRequest, LLMCallResponse


class ErrorText(str):
    """What went wrong, in words; `error` is the exception that they are of, by all its documented names."""

    __slots__ = ("error",)
    error: PolyvoxError

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross process borders with the error."""
        return _again, (str(self), self.error)


def _again(text: str, error: PolyvoxError) -> ErrorText:
    made = ErrorText(text)
    made.error = error
    return made


def _masked(text: object) -> str:
    from polyvox import keys

    return keys.redact(str(text))


def told(error: PolyvoxError) -> ErrorText:
    """The text of an error, with its place and its hint, and every key in it masked."""
    return _again(_masked(named(error)), error)


def passed_on(text: Any, request: LLMCallRequest) -> ErrorText:
    """The text that a provider gave, unchanged but for keys, with an error behind it."""
    return text if isinstance(text, ErrorText) else _again(_masked(text), error_of(text, request))


def error_of(text: Any, request: LLMCallRequest) -> PolyvoxError:
    """The error behind a text that a provider gave; an APICallError with its words where there is none."""
    found = getattr(text, "error", None)
    if isinstance(found, PolyvoxError):
        return named(found)
    spec = request.llm.llm_model_spec
    made = names.APICallError(_masked(text), provider=spec.provider, model=spec.model)
    return cast("PolyvoxError", named(made))


def pair_of(given: Any, request: LLMCallRequest) -> tuple[LLMCallResponse | None, str | None]:
    """What a provider gave, as it is, where it is an answer or an error. An error's text is masked."""
    spec = request.llm.llm_model_spec
    if not isinstance(given, tuple) or len(given) != 2 or (given[0] is None) == (given[1] is None):
        raise named(
            ServerError(
                f"the provider {spec.provider!r} gave {type(given).__name__}, where a pair of an answer and None, or "
                "of None and an error, is due",
                hint="return llm_response, None from its execute",
                provider=spec.provider,
                model=spec.model,
                retryable=False,
            )
        )
    response, problem = given
    return response, None if problem is None else passed_on(problem, request)
