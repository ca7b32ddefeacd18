"""The key of a config that was pickled: it stays behind, and who needs it is told. Kept apart, for few configs are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polyvox import config as configuration
from polyvox.compat.creative_services.core.llm_config import row_of
from polyvox.compat.errors import named
from polyvox.errors import MissingKeyError, PolyvoxError
from polyvox.keys import Secret, find_key

if TYPE_CHECKING:
    from polyvox.compat.creative_services.core.llm_config import LLMConfig


class LeftBehind(Secret):
    """The place of a key that a pickle did not take along. It can be pickled: there is nothing in it."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("")

    def reveal(self) -> str:
        """Raises MissingKeyError: there is none."""
        hint = "say dataclasses.replace(config, api_key=...), or api_key=None for the provider's own"
        raise named(MissingKeyError("this LLMConfig was pickled, and its key stayed behind", hint=hint, sent="no"))

    def __repr__(self) -> str:
        """That there is none."""
        return f"Secret({str(self)!r})"

    def __str__(self) -> str:
        """That there is none."""
        return "left behind"

    def __reduce_ex__(self, protocol: object) -> str:  # type: ignore[override]  # of this one alone there is a pickle
        """The one of the process that reads it."""
        return "LEFT"


LEFT: Final = LeftBehind()


def is_usual(config: LLMConfig) -> bool:
    """Whether a config's key is the one that is found where none is said."""
    if config.provider is None or config.base_url is not None or config.api_key is LEFT:
        return False
    try:
        found = find_key(row_of(config.provider), configuration.current())
    except PolyvoxError:
        return False
    return found is not None and found.secret == config.api_key
