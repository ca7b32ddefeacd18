"""What code of somebody else's raises, as an error of ours with all its documented names: by the status that a vendor's
library tells, else by what kind of exception it is. It imports no such library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from polyvox.compat.errors import named
from polyvox.errors import PolyvoxError, UsageError


class NotSupportedError(UsageError, NotImplementedError):
    """A provider does not do this."""

    advice = "ask another provider, or write this method of your own"


def as_error(error: Exception, provider: str, model: str | None = None) -> PolyvoxError:
    """Any exception as one of ours, by the status it tells where it is a provider's; its cause is the exception."""
    if isinstance(error, PolyvoxError):
        return named(error)
    from polyvox import catalog, dialects, keys  # loaded with the first failure
    from polyvox.backends.failures import client_failure

    if isinstance(error, NotImplementedError):
        made: PolyvoxError = NotSupportedError(str(error) or "it is not supported", sent="no")
    else:
        row = catalog.load().providers.get(provider)
        codec = dialects.dialect(row.dialect if row is not None and row.dialect in dialects.NAMES else "openai.chat")
        made = client_failure(provider, error, lambda reply: codec.decode_error(reply, dialects.Endpoint()))
    made.message = keys.redact(made.message)
    made.provider, made.model = provider, model
    made.__cause__ = error
    return named(made)


@contextlib.contextmanager
def told(provider: str) -> Iterator[None]:
    """Around code of somebody else's: whatever it raises is an error of the document."""
    try:
        yield
    except Exception as error:
        made = as_error(error, provider)
        if made is error:
            raise
        raise made from error
