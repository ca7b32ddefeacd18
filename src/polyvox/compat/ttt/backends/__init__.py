"""TTT's backends: the contract, the two that there are, and those that are registered by name."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from polyvox import backends as core
from polyvox.compat.errors import named, speaking
from polyvox.compat.ttt.backends.base import BaseBackend
from polyvox.compat.ttt.config import Config
from polyvox.errors import ConfigError, InputError

if TYPE_CHECKING:
    from polyvox.compat.ttt.backends.cloud import CloudBackend as CloudBackend
    from polyvox.compat.ttt.backends.local import LocalBackend as LocalBackend
    from polyvox.compat.ttt.backends.own import OwnBackend as OwnBackend

__all__ = ["Backend", "BaseBackend", "CloudBackend", "LocalBackend", "OwnBackend"]

BackendT = TypeVar("BackendT")

_HOME = {"CloudBackend": "cloud", "LocalBackend": "local", "OwnBackend": "own"}
_BUILT_IN = {"cloud": "CloudBackend", "local": "LocalBackend"}
_lock = threading.Lock()
_theirs: dict[str, Any] = {}  # what was registered: an object, or the class it is made of


def __getattr__(name: str) -> Any:
    """Those that ask are loaded on first touch (PEP 562): the core comes with them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


class Backend:
    """Makes backends by name, and makes those of the user's own known."""

    @staticmethod
    def create(name: str, config: Mapping[str, Any] | Config | None = None) -> BaseBackend:
        """A backend by its name. config is a table of its settings, or a `Config`; without one the configuration of the
        process holds. ConfigurationError, with the names there are, for a name that nobody has.

        >>> Backend.create("local", {"timeout": 5}).name
        'local'
        """
        own = _BUILT_IN.get(name.lower()) if isinstance(name, str) else None
        if own is not None:
            kind: type[CloudBackend | LocalBackend] = __getattr__(own)
            return kind(config)
        known = core.registered_as(name) if isinstance(name, str) else None
        if known is None:
            raise named(_nobody(name))
        from polyvox.compat.ttt.backends.own import OwnBackend

        theirs = _theirs.get(name.lower())
        with speaking():
            if isinstance(theirs, type):
                made: BaseBackend = _made(theirs, config)
                return made
            return theirs if isinstance(theirs, BaseBackend) else OwnBackend(known, config)

    @staticmethod
    def register(backend: BackendT, name: str | None = None) -> BackendT:
        """Make a backend of the user's own known by its name, or by another one: to TTT and to all of polyvox. Takes an
        object or a class, also as a decorator of the class; an earlier one of the name is replaced."""
        from polyvox.compat.ttt.backends.own import ForCore

        with speaking():
            made = _made(backend, None) if isinstance(backend, type) else backend
            own = name if name is not None else getattr(made, "name", None)
            if not isinstance(own, str | None):
                raise InputError(f"a backend's name is text, not {type(own).__name__}", param="name")
            if own is not None and own.lower() in _BUILT_IN:
                raise InputError(f"{own!r} is a backend of TTT itself", hint="give yours another name", param="name")
            thing = ForCore(made, name) if isinstance(made, BaseBackend) else made
            with _lock:
                core.register_backend(own, thing) if own is not None else core.register_backend(thing)
                if own is not None:
                    _theirs[own.lower()] = backend
        return backend

    @staticmethod
    def unregister(name: str) -> None:
        """Forget a backend of the user's own."""
        with speaking(), _lock:
            core.unregister_backend(name)
            _theirs.pop(name.lower(), None)

    @staticmethod
    def names() -> list[str]:
        """The names of all backends there are."""
        return [*_BUILT_IN, *sorted(core.registered)]


def _made(kind: Any, config: Any) -> Any:
    """An object of a class: with its configuration where it takes one."""
    import inspect

    try:
        takes = bool(inspect.signature(kind).parameters)
        return kind(config) if takes and config is not None else kind()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the backend class {kind.__name__} cannot be made: {error}", hint="register an object of it instead"
        ) from error


def _nobody(name: Any) -> ConfigError:
    near = get_close_matches(str(name), Backend.names(), 1)
    hint = f"did you mean {near[0]!r}?" if near else "make your own known: Backend.register(BACKEND)"
    return ConfigError(f"there is no backend {name!r}; there are {', '.join(Backend.names())}", hint=hint)
