"""Classes by the names of providers, as both factories keep them: what was registered at run time goes before what is
there for every provider of the core's catalog. It makes no objects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any, Generic, TypeVar

from polyvox.compat.errors import named
from polyvox.compat.shared import IN_CATALOG
from polyvox.errors import InputError, UnknownProviderError

KindT = TypeVar("KindT")


class Names(Generic[KindT]):
    """The classes of one factory.

    Args:
        word: what they are called in messages, such as "provider".
        base: the class that all of them are subclasses of, abstract as it is.
        built_in: those that are there from the beginning.
        usual: the class for any other provider of the catalog.
    """

    def __init__(
        self,
        word: str,
        base: Any,
        built_in: dict[str, type[KindT]],
        usual: Callable[[str], type[KindT]],
    ) -> None:
        self.word = word
        self.base: type[KindT] = base
        self._built_in = built_in
        self._usual = usual
        self._registered: dict[str, type[KindT]] = {}
        self._lock = threading.Lock()

    def add(self, name: Any, kind: Any) -> None:
        """Register a class; one that was registered before is replaced, with a warning in the log."""
        key = self._key(name)
        if not (isinstance(kind, type) and issubclass(kind, self.base)):
            given = kind.__name__ if isinstance(kind, type) else f"a {type(kind).__name__}"
            raise named(
                InputError(
                    f"the {self.word} {key!r} must be a subclass of {self.base.__name__}, not {given}",
                    hint=f"write class {key.title().replace('-', '')}({self.base.__name__}), and register the class",
                )
            )
        with self._lock:
            before = self._registered.get(key)
            self._registered = {**self._registered, key: kind}
        if before is not None and before is not kind:
            import logging

            log = logging.getLogger("polyvox.llm_service")
            log.warning("the %s %r is registered anew: %s takes the place of %s", self.word, key, kind, before)

    def remove(self, name: Any) -> None:
        """Forget what was registered; what is there without registering stays. UnsupportedProviderError for others."""
        key = self._key(name)
        with self._lock:
            if key not in self._registered:
                raise self._unknown(key, self._registered)
            self._registered = {known: kind for known, kind in self._registered.items() if known != key}

    def get(self, name: Any) -> type[KindT]:
        """The class of a name, in any case; UnsupportedProviderError, with the names there are, for others."""
        key = self.known_as(name)
        found = self._registered.get(key) or self._built_in.get(key)
        if found is not None:
            return found
        if key not in _catalogued():
            raise self._unknown(key, dict.fromkeys(self.all()))
        return self._usual(key)

    def known_as(self, name: Any) -> str:
        """A name as it is kept here, or as the catalog has it, which calls some providers by another word."""
        key = self._key(name)
        return key if key in self._registered else IN_CATALOG.get(key, key)

    def all(self) -> tuple[str, ...]:
        """Every name: those that are built in, those that were registered, then the rest of the catalog."""
        return tuple(dict.fromkeys((*self._built_in, *self._registered, *_catalogued())))

    def name_of(self, kind: type) -> str | None:
        """The name that a class is registered under, or None."""
        classes = {**self._built_in, **self._registered}
        return next((name for name, found in classes.items() if found is kind), None)

    def _key(self, name: Any) -> str:
        if not isinstance(name, str) or not name.strip():
            problem = f"a {self.word} is named by text that is not empty, not {name!r:.60}"
            raise named(InputError(problem, hint='such as "openai"', param="name"))
        return name.strip().lower()

    def _unknown(self, key: str, known: dict[str, Any]) -> UnknownProviderError:
        import difflib

        near = difflib.get_close_matches(key, list(known), 1)
        there = f"there are: {', '.join(known) or 'none'}"
        return named(
            UnknownProviderError(
                f"there is no {self.word} {key!r}; {there}",
                hint=f"did you mean {near[0]!r}?" if near else f"register_{self.word}({key!r}, ...) adds one",
                provider=key,
            )
        )


def _catalogued() -> Collection[str]:
    """The providers of the core's catalog."""
    from polyvox import catalog

    return catalog.load().providers
