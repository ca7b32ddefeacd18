"""The numbers that hold where nobody says another, and who can be asked. They are looked up when they are needed: one
that is changed here, in the file or at run time, holds from then on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

DEFAULT_TEMPERATURE = 1.0
"""What the specifications of models declare as the default; it is never sent by itself."""
DEFAULT_TOP_P = 1.0
"""The same for top_p."""
DEFAULT_MAX_RESULTS = 20
"""The most passages that a search in files finds, where a request does not say."""


class _Supported(Sequence[str]):
    """The names of the providers that are registered at this moment, in their order."""

    @staticmethod
    def _now() -> tuple[str, ...]:
        from polyvox.compat.llm_service.services.llm.providers.factory import ProviderFactory

        return tuple(ProviderFactory.registered())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.strip().lower() in self._now()

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[str, ...]: ...
    def __getitem__(self, place: int | slice) -> str | tuple[str, ...]:
        return self._now()[place]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (list, tuple, _Supported)):
            return self._now() == tuple(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # what changes has no hash

    def __repr__(self) -> str:
        return repr(list(self._now()))


SUPPORTED_PROVIDERS: Sequence[str] = _Supported()
"""Who can be asked, by name: "openai" and those registered since. Upper and lower case are the same."""
