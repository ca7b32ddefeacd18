"""Backends of the user's own in TTT: known by name to the core too, so that what is registered in one place is asked
from everywhere. The core calls them; nothing that they tell is lost on the way."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from polyvox import AsyncClient, backends
from polyvox.backends.worker import called
from polyvox.compat.ttt.backends.asking import Asking, Model
from polyvox.compat.ttt.backends.base import BaseBackend, pieces_of
from polyvox.compat.ttt.config import Config
from polyvox.compat.ttt.responses import as_core

if TYPE_CHECKING:
    from polyvox.compat.ttt.backends.cloud import CloudBackend


class ForCore:
    """A backend of TTT as an object that the core can ask."""

    def __init__(self, backend: BaseBackend, name: str | None = None) -> None:
        self.backend = backend
        self.name: str = name or backend.name
        self.ask: Any = self._asked()
        self.astream: Any = self._streamed()
        self.models: Callable[[], Awaitable[list[str]]] = backend.models
        self.status: Callable[[], Awaitable[dict[str, Any]]] = backend.status

    def _asked(self) -> Any:
        theirs, name = self.backend.ask, self.name

        @functools.wraps(theirs)  # what it takes is read from its own signature
        async def ask(prompt: Any, **kwargs: Any) -> Any:
            return as_core(await called(f"polyvox-{name}", theirs, prompt, **_said(kwargs, name)), name)

        return ask

    def _streamed(self) -> Any:
        if type(self.backend).astream is not BaseBackend.astream:
            return self.backend.astream
        theirs, name = self.backend.ask, self.name

        @functools.wraps(theirs)
        async def astream(prompt: Any, **kwargs: Any) -> AsyncIterator[str]:
            for piece in pieces_of(await called(f"polyvox-{name}", theirs, prompt, **_said(kwargs, name)), name):
                yield piece

        return astream


def _said(keywords: dict[str, Any], name: str) -> dict[str, Any]:
    """What the caller said: where no model was named, the core calls it as the backend."""
    return {word: value for word, value in keywords.items() if (word, value) != ("model", name)}


class OwnBackend(Asking):
    """A backend by the name it is registered under, or an object that is one, asked through the core."""

    def __init__(
        self,
        thing: BaseBackend | backends.Backend,
        config: Mapping[str, Any] | Config | None = None,
        *,
        core_backend: backends.Backend | None = None,
    ) -> None:
        self.thing = thing
        made = backends.backend_of(ForCore(thing)) if isinstance(thing, BaseBackend) else thing
        self._core = core_backend or made
        self._name = self._core.name
        super().__init__(config)

    @property
    def name(self) -> str:
        """See `BaseBackend`."""
        return self._name

    @property
    def given(self) -> BaseBackend:
        """See `Asking`."""
        return self.thing if isinstance(self.thing, BaseBackend) else self

    def called(self, model: Model) -> list[str]:
        """See `Asking`."""
        return [self._name] if backends.registered_as(self._name) is not None else []

    def as_spare(self, reach: CloudBackend) -> str:
        """See `Asking`."""
        return self._name

    def meant(self, model: Model) -> tuple[AsyncClient, Model]:
        """See `Asking`."""
        model = model or self.said.get("model")
        if isinstance(model, str):
            model = None if model == self._name else model.removeprefix(f"{self._name}/")
        return self.client("", {"backend": self._core}), model

    async def models(self) -> list[str]:
        """See `BaseBackend`."""
        return list(await self._core.models())

    async def status(self) -> dict[str, Any]:
        """See `BaseBackend`."""
        return {"latency": None, **await self._core.status()}

    @property
    def is_available(self) -> bool:
        """See `BaseBackend`."""
        return self.thing.is_available if isinstance(self.thing, BaseBackend) else True
