"""Whatever answers a request without being a wire: an object of the user's, a client object of a vendor's library,
LiteLLM. Found by name: registered by the program, built in, or announced by an installed package. It knows no
engine, no client and no configuration."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from polyvox.errors import ConfigError, InputError, PolyvoxError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from polyvox.dialects import Reader
    from polyvox.engine import CallOptions, Pieces
    from polyvox.types import Loss, Request, Response

GROUP = "polyvox.backends"
"""The entry point group in which a package announces its backends."""

_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BUILT_IN = {"litellm": "polyvox.backends.litellm"}


class Backend(Protocol):
    """A backend ready to be asked, whatever it is made of. What goes out is its own business."""

    name: str

    @property
    def speaks(self) -> str:
        """The key of `Request.extra` whose keys are meant for it."""

    def must_stream(self, request: Request) -> bool:
        """Whether a whole answer to this request can only be had by streaming it."""

    def encoded(self, request: Request, options: CallOptions) -> tuple[Any, tuple[Loss, ...]]:
        """What it will be called with, and what it cannot be told."""

    async def answer(self, asked: Any) -> tuple[Response, str | None]:
        """A whole answer, made for this call alone, and the id of the request at its provider."""

    async def open(self, asked: Any) -> tuple[Pieces, Reader]:
        """A streamed answer and the reader of its pieces."""

    async def models(self) -> tuple[str, ...]:
        """The names of its models; () where it tells none."""

    async def status(self) -> dict[str, Any]:
        """How it is: name, available, detail and what else it tells."""


class BackendDeployment:
    """A backend as the engine asks it; see `engine.AnyDeployment`. timeout is in seconds."""

    __slots__ = ("backend", "model", "name", "provider", "timeout")

    operation = "chat"
    money: None = None  # nobody has a price for what is asked in this process

    def __init__(self, backend: Backend, model: str | None, timeout: float | None) -> None:
        self.backend: Backend = backend
        self.provider: str = backend.name
        self.model: str = model or backend.name
        self.name: str = f"{backend.name}/{model}" if model else backend.name
        self.timeout: float | None = timeout

    def __repr__(self) -> str:
        return f"<BackendDeployment {self.name}>"

    @property
    def speaks(self) -> str:
        """See `Backend`."""
        return self.backend.speaks

    def must_stream(self, request: Request) -> bool:
        """See `Backend`."""
        return self.backend.must_stream(request)

    def encoded(self, request: Request, options: CallOptions) -> tuple[Any, tuple[Loss, ...]]:
        """See `Backend`."""
        return self.backend.encoded(request, options)

    async def answer(self, outgoing: Any) -> tuple[Response, str | None]:
        """See `Backend`."""
        return await self.backend.answer(outgoing)

    async def open(self, outgoing: Any) -> tuple[Pieces, Reader]:
        """See `Backend`."""
        return await self.backend.open(outgoing)


# ---- from an object to a backend --------------------------------------------------------------


def backend_of(thing: Any, *, name: str | None = None, dialect: str | None = None) -> Backend:
    """The backend that an object, a class without arguments or a client object of a library is.

    dialect says what a client object is asked in, where it offers several: "openai.chat", "openai.responses",
    "anthropic.messages" or "ollama.chat". InputError for what cannot be asked.

    >>> class Echo:
    ...     name = "echo"
    ...     def ask(self, prompt):
    ...         return prompt
    >>> backend_of(Echo).name
    'echo'
    """
    from polyvox.backends.clients import ClientBackend, client_backend
    from polyvox.backends.own import OwnBackend
    from polyvox.backends.reading import is_stand_in

    if isinstance(thing, OwnBackend | ClientBackend):
        return thing
    if isinstance(thing, type):
        try:
            thing = thing()
        except PolyvoxError:
            raise
        except Exception as error:
            raise InputError(
                f"the backend class {thing.__name__} cannot be made: {type(error).__name__}: {error}",
                hint="register an object of it instead",
            ) from error
    # A stand-in of a client has an `ask` too, as it has everything; its own are those it was given.
    asks = callable(getattr(thing, "ask", None)) and (not is_stand_in(thing) or "ask" in vars(thing))
    if not asks:
        return client_backend(thing, None if name is None else _checked(name), dialect)
    if dialect is not None:
        raise InputError("dialect is for client objects; one with an ask of its own speaks none")
    return OwnBackend(thing, _checked(getattr(thing, "name", None) if name is None else name))


def _checked(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"a backend needs a name of letters, digits, '.', '_' and '-', not {str(name)[:60]!r}",
            hint='give the class name = "..." or say register_backend("NAME", ...)',
        )
    return name


# ---- by name ----------------------------------------------------------------------------------

registered: Mapping[str, Backend] = {}
"""Backends by their names in lower case. Replaced as a whole, never changed: what was made from an older one is
out of date."""

_lock = threading.Lock()
_discovered: dict[str, Backend] = {}


@overload
def register_backend(name_or_backend: str, backend: _T, *, dialect: str | None = None) -> _T: ...
@overload
def register_backend(name_or_backend: _T, *, dialect: str | None = None) -> _T: ...
def register_backend(name_or_backend: Any, backend: Any = None, *, dialect: str | None = None) -> Any:
    """Make a backend known by name, from now on and in this process; an earlier one of the name is replaced.

    register_backend("echo", Echo()), register_backend(Echo) with the name the class has, or as a decorator of the
    class. Takes what `backend_of` takes, and gives the backend back.

    >>> @register_backend
    ... class Shout:
    ...     name = "shout"
    ...     def ask(self, prompt):
    ...         return prompt.upper()
    >>> import polyvox
    >>> polyvox.ask("hello", model="shout").text
    'HELLO'
    >>> unregister_backend("shout")
    """
    global registered
    if isinstance(name_or_backend, str):
        if backend is None:
            raise InputError("which backend?", hint=f"register_backend({name_or_backend!r}, BACKEND)")
        made = backend_of(backend, name=name_or_backend, dialect=dialect)
    elif backend is not None:
        raise InputError("the name comes first", hint="register_backend(NAME, BACKEND)")
    else:
        made = backend_of(name_or_backend, dialect=dialect)
    with _lock:
        registered = {**registered, made.name.lower(): made}
    return name_or_backend if backend is None else backend


def unregister_backend(name: str) -> None:
    """Forget a registered backend; InputError where there is none of the name."""
    global registered
    with _lock:
        if not isinstance(name, str) or name.lower() not in registered:
            known = ", ".join(sorted(registered)) or "none"
            raise InputError(f"there is no registered backend {name!r}", hint=f"registered are: {known}")
        registered = {key: backend for key, backend in registered.items() if key != name.lower()}


def registered_as(name: str) -> Backend | None:
    """The registered backend of this name, or None."""
    return registered.get(name.lower())


def discovered(name: str) -> Backend | None:
    """The backend that is built in or that an installed package announces under this name; None without one.

    MissingExtraError where its library is missing, ConfigError where a package's cannot be loaded.
    """
    key = name.lower()
    found = _discovered.get(key)
    if found is None:
        found = import_module(_BUILT_IN[key]).load(key) if key in _BUILT_IN else _announced(key)
        if found is not None:
            _discovered[key] = found
    return found


def _announced(key: str) -> Backend | None:
    from importlib.metadata import entry_points

    found = {point.value: point for point in entry_points(group=GROUP) if point.name.lower() == key}
    if len(found) > 1:
        raise ConfigError(
            f"several packages announce a backend {key!r}: {', '.join(sorted(map(_described, found.values())))}",
            hint="uninstall all but one, or register the one you mean",
        )
    return next((_loaded(point) for point in found.values()), None)


def _loaded(point: EntryPoint) -> Backend:
    try:
        return backend_of(point.load(), name=point.name)
    except Exception as error:
        raise ConfigError(
            f"the backend {point.name!r} of {_described(point)} cannot be loaded: {type(error).__name__}: "
            f"{getattr(error, 'message', error)}",
            hint="update that package, or uninstall it",
        ) from error


def _described(point: EntryPoint) -> str:
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
    return f"{package} ({point.value})"
