"""One root, many names: every error of the core is what each document calls it, by multiple inheritance, from one
table. An `except` written for any of the documents catches what its document says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeVar

from polyvox import errors as core
from polyvox.compat import names
from polyvox.errors import PolyvoxError

ErrorT = TypeVar("ErrorT", bound=PolyvoxError)

# What failed on the provider's side, or on the way there.
_CALL = (names.ProviderAPIError, names.APICallError, names.AIError)
_AWAY = (names.ProviderAPIError, names.APICallError, names.BackendNotAvailableError)
_LIMIT = (names.ProviderRateLimitError, names.APICallError, names.RateLimitError)
_KEY = (names.ProviderAPIError, names.APICallError, names.APIKeyError)
# What is wrong on this side.
_WRONG = (names.AIUtilitiesError, names.ValidationError, names.AIError)
_CONFIG = (names.ProviderConfigurationError, names.ValidationError, names.ConfigurationError)

TABLE: dict[type[PolyvoxError], tuple[type[PolyvoxError], ...]] = {
    PolyvoxError: (names.AIUtilitiesError, names.LLMServiceError, names.AIError),
    core.InvalidRequestError: _CALL,
    core.InputError: _WRONG,
    core.RefusalError: _CALL,
    core.NotFoundError: (names.ProviderAPIError, names.APICallError, names.ModelNotFoundError),
    core.UnknownModelError: (names.ProviderConfigurationError, names.ValidationError, names.ModelNotFoundError),
    core.UnknownProviderError: (
        names.ProviderConfigurationError, names.UnsupportedProviderError, names.ConfigurationError,
    ),
    core.ConflictError: _CALL,
    core.AuthError: _KEY,
    core.MissingKeyError: (names.ProviderConfigurationError, names.APIKeyError),
    core.PermissionDeniedError: _KEY,
    core.BillingError: _CALL,
    core.QuotaError: _LIMIT,  # it comes as a 429, which is what the documents mean
    core.RateLimitError: _LIMIT,
    core.ServerError: _AWAY,
    core.BadResponseError: _AWAY,
    core.StreamInterruptedError: _AWAY,
    core.ConnectionFailedError: _AWAY,
    core.CallTimeoutError: _AWAY,
    core.CallCancelledError: _CALL,
    core.ConfigError: _CONFIG,
    core.MissingExtraError: _CONFIG,
    # What a document names and the core has no word for.
    names.TransformationError: (names.AIUtilitiesError, names.TransformationError, names.AIError),
    names.ToolExecutionError: (names.AIUtilitiesError, names.LLMServiceError, names.ToolExecutionError),
}  # fmt: skip
"""What each error of the core is called; one that has no row is what the nearest of its bases is."""

_made: dict[type[PolyvoxError], type[PolyvoxError]] = {}


def documented(kind: type[PolyvoxError]) -> type[PolyvoxError]:
    """The class of `kind` that is also what the documents call it; the same one each time.

    >>> issubclass(documented(core.RateLimitError), names.ProviderRateLimitError)
    True
    """
    if issubclass(kind, names.AIUtilitiesError) and issubclass(kind, names.AIError):
        return kind
    if kind not in _made:
        row = TABLE[next(base for base in kind.__mro__ if base in TABLE)]
        _made[kind] = _joined(kind, row)
    return _made[kind]


def _joined(kind: type[PolyvoxError], row: tuple[type[PolyvoxError], ...]) -> type[PolyvoxError]:
    # A base that another one is derived from would stand in its own way.
    given = (kind, *row)
    bases = [base for base in given if not any(other is not base and issubclass(other, base) for other in given)]
    whose = {"__doc__": kind.__doc__, "__module__": kind.__module__, "__reduce__": _reduce, "core": kind}
    return type(kind.__name__, tuple(dict.fromkeys(bases)), whose)


def _reduce(error: PolyvoxError) -> tuple[object, ...]:
    # The class is made here and stands in no module; it is made again where it is read.
    return _revive, (type(error).core, error.message, dict(error.__dict__))  # type: ignore[attr-defined]


def _revive(kind: type[PolyvoxError], message: str, state: dict[str, object]) -> PolyvoxError:
    error = documented(kind).__new__(documented(kind), message)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


def named(error: ErrorT) -> ErrorT:
    """The same object, now also what the documents call it.

    >>> isinstance(named(core.MissingKeyError("no key")), names.APIKeyError)
    True
    """
    error.__class__ = documented(type(error))  # type: ignore[assignment]
    return error


@contextlib.contextmanager
def speaking() -> Iterator[None]:
    """Around calls of the core: what it raises is named as the documents do. Nothing else is touched."""
    try:
        yield
    except PolyvoxError as error:
        named(error)
        raise
