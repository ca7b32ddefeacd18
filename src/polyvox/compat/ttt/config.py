"""Configuration of TTT: Program > Env > Files > Defaults, a chain of loaders that anybody may add to, each value with
its origin. It judges values by the core's own rules and opens no connection.

Files: `ttt.toml`, `.yaml`, `.yml` or `.json` in polyvox's own folder ($POLYVOX_HOME), or the one that AI_CONFIG_FILE
names. Settings of polyvox itself hold below all of these."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from polyvox.compat.errors import named
from polyvox.compat.shared import snapshot
from polyvox.config.fields import CACHE_FIELDS, FIELDS, PROVIDER_FIELDS, meant
from polyvox.config.sources import Document, read
from polyvox.errors import ConfigError, PolyvoxError
from polyvox.keys import MASK, Secret, config_dir, redact

Key = tuple[str, ...]

PRIORITIES = {"defaults": 0, "files": 100, "env": 200, "program": 300}
"""Where the documented sources stand; the higher one is believed. A loader may stand anywhere between and beside."""

VARIABLES = {
    "AI_DEFAULT_MODEL": "models.default",
    "AI_DEFAULT_BACKEND": "backends.default",
    "AI_ENABLE_FALLBACKS": "backends.enable_fallbacks",
    "AI_TIMEOUT": "timeout",
    "AI_MAX_RETRIES": "retries",
    "OLLAMA_BASE_URL": "backends.local.base_url",
}
"""Environment variables and the settings they say; an empty one says nothing."""

DEFAULTS: dict[str, Any] = {
    "backends": {"default": "auto", "enable_fallbacks": False, "fallback_order": ["cloud", "local"]},
}


def _names(value: Any) -> tuple[str, ...]:
    items = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) and item for item in items):
        raise ValueError("must be a list of names")
    return tuple(items)


def _engine(value: Any) -> str:
    if value not in ("polyvox", "litellm"):
        raise ValueError('must be "polyvox" or "litellm"')
    return str(value)


def _cache(value: Any) -> Any:
    """Whether answers are kept, or where: memory, a path, a URL."""
    try:
        return _FLAG(value)
    except ValueError:
        return CACHE_FIELDS["place"].parse(value)


_NAME, _FLAG = FIELDS["model"].parse, FIELDS["strict"].parse
OF_BACKEND: dict[str, Callable[[Any], Any]] = {
    "model": _NAME,
    "timeout": FIELDS["timeout"].parse,
    "retries": FIELDS["retries"].parse,
    "base_url": _NAME,
    "api_key": PROVIDER_FIELDS["api_key"].parse,
    "engine": _engine,
    "pull": _FLAG,
    "cache": _cache,
}
"""What may be said of a backend; one of the user's own may have more."""

_PLAIN: dict[Key, Callable[[Any], Any]] = {
    ("models", "default"): _NAME,
    ("backends", "default"): _NAME,
    ("backends", "enable_fallbacks"): _FLAG,
    ("backends", "fallback_order"): _names,
    **{(name,): FIELDS[name].parse for name in ("timeout", "retries", "temperature", "max_tokens", "system")},
}
_BUILT_IN = ("cloud", "local")
_ALIASES = ("models", "aliases")


class ConfigLoader(ABC):
    """A source of configuration: `load` is all that it must have. `name` and `priority` may be said beside."""

    name: str = ""
    priority: int = 50  # above the defaults, below the files

    @abstractmethod
    def load(self) -> dict[str, Any]:
        """Settings as tables: {"models": {"default": ...}, "backends": {"local": {"timeout": 5}}}."""

    def origin(self, key: Key) -> str:
        """Where a value of this source comes from."""
        return f"loader {self.name or type(self).__name__}"


class DefaultsLoader(ConfigLoader):
    """What holds where nobody says otherwise."""

    priority: int = PRIORITIES["defaults"]

    def load(self) -> dict[str, Any]:
        """See `ConfigLoader`."""
        return DEFAULTS

    def origin(self, key: Key) -> str:
        """See `ConfigLoader`."""
        return "default"


class FileLoader(ConfigLoader):
    """One file, by its path, or the user's own; read again only when it has changed."""

    priority: int = PRIORITIES["files"]

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._given = None if path is None else Path(path)
        self._held: tuple[object, Document] | None = None
        self._path: Path | None = None

    @property
    def path(self) -> Path | None:
        """The file that is read; None where there is none."""
        if self._given is not None:
            return self._given
        if os.environ.get("AI_CONFIG_FILE", "").strip():
            return Path(os.environ["AI_CONFIG_FILE"].strip()).expanduser()
        folder = config_dir()
        places = (folder / f"ttt{ending}" for ending in (".toml", ".yaml", ".yml", ".json"))
        return next((place for place in places if place.is_file()), None)

    def stamp(self) -> object:
        """What changes when the file does."""
        path = self.path
        try:
            facts = path.stat() if path is not None else None
        except OSError:
            facts = None
        return path, facts and (facts.st_mtime_ns, facts.st_size, facts.st_ino)

    def load(self) -> dict[str, Any]:
        """See `ConfigLoader`; ConfigurationError with file and line where it cannot be read."""
        stamp, self._path = self.stamp(), self.path
        if self._path is None:
            return {}
        if self._held is None or self._held[0] != stamp:
            self._held = (stamp, read(self._path))
        return self._held[1].data

    def origin(self, key: Key) -> str:
        """See `ConfigLoader`."""
        line = self._held[1].line(key) if self._held is not None else 1
        return f"{self._path}:{line}"


class EnvLoader(ConfigLoader):
    """The variables of VARIABLES, as they are at this moment."""

    priority: int = PRIORITIES["env"]

    def load(self) -> dict[str, Any]:
        """See `ConfigLoader`."""
        return {setting: os.environ[name] for name, setting in VARIABLES.items() if os.environ.get(name, "").strip()}

    def origin(self, key: Key) -> str:
        """See `ConfigLoader`."""
        return f"env {next((name for name, setting in VARIABLES.items() if setting == '.'.join(key)), '')}"


class ProgramLoader(ConfigLoader):
    """What the program says itself."""

    priority: int = PRIORITIES["program"]

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self.values: dict[str, Any] = dict(values or {})

    def load(self) -> dict[str, Any]:
        """See `ConfigLoader`."""
        return self.values

    def origin(self, key: Key) -> str:
        """See `ConfigLoader`."""
        return "program"


class _At(ConfigLoader):
    """A loader at a priority that somebody chose for it."""

    def __init__(self, loader: ConfigLoader, priority: int) -> None:
        self.loader, self.priority = loader, priority

    def load(self) -> dict[str, Any]:
        """See `ConfigLoader`."""
        return self.loader.load()

    def origin(self, key: Key) -> str:
        """See `ConfigLoader`."""
        return self.loader.origin(key)


class _Value(NamedTuple):
    value: Any
    origin: str


def _flat(data: Mapping[str, Any], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every value by its whole name; "backends.local.timeout" is short for tables in tables."""
    for name, value in data.items():
        key = (*above, *str(name).split("."))
        if key[:2] == _ALIASES and len(key) > 3:
            key = (*_ALIASES, ".".join(key[2:]))  # an alias may have dots in its name
        if isinstance(value, Mapping):
            yield from _flat(value, key)
        elif value is not None:
            yield key, value


def _parser(key: Key) -> Callable[[Any], Any] | None:
    """What reads a setting; None for one that there is not."""
    if key in _PLAIN:
        return _PLAIN[key]
    if len(key) == 3 and key[:2] == _ALIASES:
        return _NAME
    if len(key) == 3 and key[0] == "backends" and key[2] in OF_BACKEND:
        return OF_BACKEND[key[2]]
    if len(key) > 2 and key[0] == "backends" and key[1] not in _BUILT_IN:
        return lambda value: value  # a backend of the user's own knows what it takes
    return None


def _known(key: Key) -> tuple[str, ...]:
    if key[0] == "backends" and len(key) > 2:
        return tuple([f"backends.{key[1]}.{name}" for name in OF_BACKEND])
    return (*[".".join(plain) for plain in _PLAIN], "models.aliases")


class Config:
    """All settings at one moment, each with where it came from. Values are got by dotted name.

    values are the program's own, which are believed before all else; loaders take the place of all sources but these.
    ConfigurationError with every problem of every source.

    >>> Config({"backends": {"local": {"timeout": 5}}}, loaders=()).get("backends.local.timeout")
    5.0
    """

    def __init__(
        self, values: Mapping[str, Any] | None = None, *, loaders: Iterable[ConfigLoader] | None = None
    ) -> None:
        if values is not None and not isinstance(values, Mapping):
            raise named(ConfigError(f"configuration is a table of settings, not {type(values).__name__}"))
        chain = [DefaultsLoader(), FileLoader(), EnvLoader()] if loaders is None else _loaders(loaders)
        self._values = _gathered([*chain, ProgramLoader(values)])
        self._of: dict[str, dict[str, Any]] = {}

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a dotted name, or `default` where nobody says."""
        found = self._values.get(tuple(str(name).split(".")))
        return default if found is None else found.value

    def origin(self, name: str) -> str | None:
        """Where a value comes from: "program", "env NAME", "file:line", "loader NAME" or "default"; None where there is
        none."""
        found = self._values.get(tuple(str(name).split(".")))
        return None if found is None else found.origin

    def table(self, name: str) -> dict[str, Any]:
        """All that is said below a dotted name, one level down."""
        above = tuple(str(name).split("."))
        return {
            key[-1]: found.value
            for key, found in self._values.items()
            if key[:-1] == above
        }  # fmt: skip

    def of_backend(self, backend: str) -> dict[str, Any]:
        """What holds for a backend: what is said of it before what is said for all."""
        held = self._of.get(backend)
        if held is None:
            usual = {name: self.get(name) for name in ("timeout", "retries")}
            held = {name: value for name, value in usual.items() if value is not None}
            held = self._of[backend] = held | self.table(f"backends.{backend}")
        return dict(held)

    def shown(self) -> dict[str, Any]:
        """Every value by its dotted name, fit to print: keys are masked."""
        return {".".join(key): _shown(found.value) for key, found in sorted(self._values.items())}

    def __repr__(self) -> str:
        said = [f"{key}={value!r}" for key, value in self.shown().items() if self.origin(key) != "default"]
        return f"Config({', '.join(said)})"


def _loaders(given: Any) -> list[ConfigLoader]:
    found = list(given) if isinstance(given, Iterable) else [given]
    for loader in found:
        _check_loader(loader, getattr(loader, "priority", 0))
    return found


def _check_loader(loader: Any, priority: Any) -> None:
    """ConfigurationError for what cannot be asked, or put in its place."""
    if not isinstance(loader, ConfigLoader):
        what = f"the class {loader.__name__}" if isinstance(loader, type) else type(loader).__name__
        raise named(ConfigError(f"a loader is an object of a class derived from ConfigLoader, not {what}"))
    if isinstance(priority, bool) or not isinstance(priority, int | float):
        hint = f"where the documented sources stand: {PRIORITIES}"
        raise named(ConfigError(f"a loader's priority is a number, not {priority!r}", hint=hint))


def _shown(value: Any) -> Any:
    return MASK if isinstance(value, Secret) else redact(value) if isinstance(value, str) else value


def _gathered(loaders: list[ConfigLoader]) -> dict[Key, _Value]:
    """The values of all loaders, the highest one's last; of equals the later one is believed."""
    values: dict[Key, _Value] = {}
    problems: list[str] = []
    for loader in sorted(loaders, key=lambda one: one.priority):
        for key, value in _flat(_loaded(loader, problems)):
            parse = _parser(key)
            if parse is None:
                what = f"is not a setting{meant('.'.join(key), _known(key))}"
                problems.append(f"{loader.origin(key)}: {'.'.join(key)}: {what}")
                continue
            try:
                values[key] = _Value(parse(value), loader.origin(key))
            except ValueError as error:
                problems.append(f"{loader.origin(key)}: {'.'.join(key)}: {error}")
    if problems:
        raise named(ConfigError("the configuration of TTT cannot be used", problems=tuple(problems)))
    return values


def _loaded(loader: ConfigLoader, problems: list[str]) -> Mapping[str, Any]:
    name = loader.origin(())
    try:
        data: Any = loader.load()
    except ConfigError as error:
        problems.extend(error.problems or (error.message,))
        return {}
    except Exception as error:  # noqa: BLE001 - a user's code: whatever it raises is a problem of that source
        what = error.message if isinstance(error, PolyvoxError) else f"{type(error).__name__}: {error}"
        problems.append(f"{name}: failed with {redact(what)}")
        return {}
    if isinstance(data, Mapping):
        return data
    problems.append(f"{name}: gave {type(data).__name__}, not a table of settings")
    return {}


# ---- the configuration of this process --------------------------------------------------------

_lock = threading.RLock()
_program: dict[str, Any] = {}
_added: tuple[_At, ...] = ()
_file = FileLoader()
_held: tuple[tuple[Any, object], Config] | None = None
_looked: tuple[object, float] = (None, 0.0)
_CHECK_EVERY = 0.25
_READ = (*VARIABLES, "AI_CONFIG_FILE", "POLYVOX_HOME", "XDG_CONFIG_HOME", "APPDATA")


def get_config() -> Config:
    """The configuration of this process: the same object until the program, the environment or the file changes. The
    file is looked at four times a second at most."""
    global _held, _looked
    with _lock:
        surroundings, now = snapshot(), time.monotonic()
        if _held is not None and _looked[0] is surroundings and now - _looked[1] < _CHECK_EVERY:
            return _held[1]
        said = tuple([os.environ.get(name) for name in _READ])
        state, _looked = (said, _file.stamp()), (surroundings, now)
        if _held is None or _held[0] != state:
            chain = [DefaultsLoader(), _file, EnvLoader(), *_added]
            _held = (state, Config(_program, loaders=chain))
        return _held[1]


def configure(values: Mapping[str, Any] | None = None, /, **more: Any) -> Config:
    """Set what holds for this process above all other sources, from the next call on. Later calls add to earlier ones;
    a value None takes back what was set. ConfigurationError, and nothing changed, for what cannot be.

    >>> configure(backends={"local": {"timeout": 5}}).origin("backends.local.timeout")
    'program'
    >>> reset_config()
    """
    global _program, _held
    with _lock:
        before = _program
        _program = dict(before)
        for key, value in _said({**_table(values), **more}):
            _program.pop(".".join(key), None)
            if value is not None:
                _program[".".join(key)] = value
        _held = None
        try:
            return get_config()
        except PolyvoxError:
            _program, _held = before, None
            raise


def _table(values: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if values is not None and not isinstance(values, Mapping):
        _refuse(f"configuration is a table of settings, not {type(values).__name__}")
    return values or {}


def _refuse(message: str) -> NoReturn:
    raise named(ConfigError(message, hint='for example configure(models={"default": "gpt-4"})'))


def _said(data: Mapping[str, Any], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """As `_flat`, with the values that are None."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _said(value, (*above, str(name)))
        else:
            yield (*above, str(name)), value


def add_loader(loader: ConfigLoader, priority: int | None = None) -> None:
    """Make a source of configuration known, where its `priority` or the given one says; see PRIORITIES. What it gives
    is read now, and again when any other source changes or `reload_config` asks for it."""
    global _added, _held
    place = getattr(loader, "priority", 0) if priority is None else priority
    _check_loader(loader, place)
    with _lock:
        before = _added
        _added, _held = (*before, _At(loader, place)), None
        try:
            get_config()
        except PolyvoxError:
            _added, _held = before, None
            raise


def remove_loader(loader: ConfigLoader) -> None:
    """Forget a source that was added; nothing where it was not."""
    global _added, _held
    with _lock:
        _added, _held = tuple([one for one in _added if one.loader is not loader]), None


def reload_config() -> Config:
    """Ask every source again."""
    global _held
    with _lock:
        _held = None
        return get_config()


def reset_config() -> None:
    """Forget what `configure` and `add_loader` were told."""
    global _program, _added, _held
    with _lock:
        _program, _added, _held = {}, (), None
