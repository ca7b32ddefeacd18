"""Configuration of TTT: Program > Env > Files > Defaults, a chain of loaders that anybody may add to, each value with
its origin. It judges values by the core's own rules and opens no connection.

Files: `ttt.toml`, `.yaml`, `.yml` or `.json` in polyvox's own folder ($POLYVOX_HOME), or the one that AI_CONFIG_FILE
names. Settings of polyvox itself hold below all of these."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from polyvox.compat.errors import named
from polyvox.compat.shared import snapshot
from polyvox.errors import ConfigError, PolyvoxError

if TYPE_CHECKING:
    from polyvox.config.sources import Document

# What reads keys, files and values is loaded with the first of them: naming a loader or an error costs nothing.

Key = tuple[str, ...]
ALIASES: Key = ("models", "aliases")
"""Whose names may have dots."""

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


class TableLoader(ConfigLoader):
    """A table at hand: what holds where nobody says otherwise, and what the program says itself."""

    def __init__(self, values: Mapping[str, Any], name: str, priority: int) -> None:
        self.values, self.name, self.priority = dict(values), name, priority

    def load(self) -> dict[str, Any]:
        """See `ConfigLoader`."""
        return self.values

    def origin(self, key: Key) -> str:
        """See `ConfigLoader`."""
        return self.name


DEFAULTS = TableLoader(
    {"backends": {"default": "auto", "enable_fallbacks": False, "fallback_order": ["cloud", "local"]}},
    "default",
    PRIORITIES["defaults"],
)


class FileLoader(ConfigLoader):
    """One file, by its path, or the user's own; read again only when it has changed."""

    priority: int = PRIORITIES["files"]

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._given = None if path is None else Path(path)
        self._held: tuple[object, Document] | None = None
        self._path: Path | None = None

    def _named(self) -> Path | None:
        """The file that somebody named."""
        said = os.environ.get("AI_CONFIG_FILE", "").strip()
        return self._given or (Path(said).expanduser() if said else None)

    def stamp(self) -> tuple[object, ...]:
        """What changes when the file does, or another takes its place."""
        from polyvox.config import candidates

        path = self._named()
        return tuple(map(_stamp, candidates("ttt") if path is None else (path,)))

    def load(self) -> dict[str, Any]:
        """See `ConfigLoader`; ConfigurationError with file and line where it cannot be read."""
        from polyvox.config import default_files, sources

        stamp, self._path = self.stamp(), self._named()
        if self._path is None:
            self._path = next(iter(default_files(name="ttt")), None)
        if self._path is None:
            return {}
        if self._held is None or self._held[0] != (self._path, stamp):
            self._held = ((self._path, stamp), sources.read(self._path))
        return self._held[1].data

    def warn(self, values: Mapping[Key, _Value]) -> None:
        """Log it where others can read a key in this file."""
        from polyvox.config import warn_if_open
        from polyvox.keys import Secret

        here = f"{self._path}:"
        if self._path and any(isinstance(v.value, Secret) and v.origin.startswith(here) for v in values.values()):
            warn_if_open(self._path)

    def origin(self, key: Key) -> str:
        """See `ConfigLoader`."""
        line = self._held[1].line(key) if self._held is not None else 1
        return f"{self._path}:{line}"


def _stamp(path: Path) -> object:
    try:
        facts = path.stat()
    except OSError:
        return path, path.is_symlink()
    return path, facts.st_mtime_ns, facts.st_size, facts.st_ino


class EnvLoader(ConfigLoader):
    """The variables of VARIABLES, as they are at this moment."""

    priority: int = PRIORITIES["env"]

    def load(self) -> dict[str, Any]:
        """See `ConfigLoader`."""
        return {setting: os.environ[name] for name, setting in VARIABLES.items() if os.environ.get(name, "").strip()}

    def origin(self, key: Key) -> str:
        """See `ConfigLoader`."""
        return f"env {next((name for name, setting in VARIABLES.items() if setting == '.'.join(key)), '')}"


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


def _key(name: Any, above: Key = ()) -> Key:
    """A dotted name in its parts."""
    key = (*above, *str(name).split("."))
    return (*ALIASES, ".".join(key[2:])) if key[:2] == ALIASES and len(key) > 3 else key


def _flat(data: Mapping[str, Any], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every value by its whole name; "backends.local.timeout" is short for tables in tables."""
    for name, value in data.items():
        key = _key(name, above)
        if isinstance(value, Mapping):
            yield from _flat(value, key)
        else:
            yield key, value


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
            raise _no_table(values)
        chain = [DEFAULTS, FileLoader(), EnvLoader()] if loaders is None else _loaders(loaders)
        self._values = _gathered([*chain, TableLoader(values or {}, "program", PRIORITIES["program"])])
        self._of: dict[str, dict[str, Any]] = {}

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a dotted name, or `default` where nobody says."""
        found = self._values.get(_key(name))
        return default if found is None else found.value

    def origin(self, name: str) -> str | None:
        """Where a value comes from: "program", "env NAME", "file:line", "loader NAME" or "default"; None where there is
        none."""
        found = self._values.get(_key(name))
        return None if found is None else found.origin

    def table(self, name: str) -> dict[str, Any]:
        """All that is said below a dotted name, one level down."""
        above = _key(name)
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
        return {".".join(key): _shown(key, found.value) for key, found in sorted(self._values.items())}

    def __repr__(self) -> str:
        said = [f"{key}={value!r}" for key, value in self.shown().items() if self.origin(key) != "default"]
        return f"Config({', '.join(said)})"


def _no_table(given: Any) -> ConfigError:
    hint = 'for example {"models": {"default": "gpt-4"}}'
    return named(ConfigError(f"configuration is a table of settings, not {type(given).__name__}", hint=hint))


def _loaders(given: Any) -> list[ConfigLoader]:
    found = list(given) if isinstance(given, Iterable) else [given]
    for loader in found:
        _check_loader(loader, getattr(loader, "priority", 0))
    return found


def _check_loader(loader: Any, priority: Any) -> None:
    """ConfigurationError for what cannot be asked, or put in its place."""
    if not isinstance(loader, ConfigLoader):
        what = f"the class {loader.__name__}" if isinstance(loader, type) else type(loader).__name__
        hint = "derive a class from it, write load(), and give an object of that class"
        raise named(ConfigError(f"a loader is an object of a class derived from ConfigLoader, not {what}", hint=hint))
    if isinstance(priority, bool) or not isinstance(priority, int | float):
        hint = f"where the documented sources stand: {PRIORITIES}"
        raise named(ConfigError(f"a loader's priority is a number, not {priority!r}", hint=hint))


def _shown(key: Key, value: Any) -> Any:
    from polyvox.keys import MASK, Secret, is_secret_name, redact

    if isinstance(value, Secret) or is_secret_name(key[-1]):
        return MASK
    return redact(value) if isinstance(value, str) else value


def _gathered(loaders: list[ConfigLoader]) -> dict[Key, _Value]:
    """The values of all loaders, the highest one's last; of equals the later one is believed."""
    from polyvox.compat.ttt.settings import NAMES, parsed

    values: dict[Key, _Value] = {}
    problems: list[str] = []
    for loader in sorted(loaders, key=lambda one: one.priority):
        for key, value in _flat(_loaded(loader, problems)):
            if value is None:
                continue
            try:
                values[key] = _Value(parsed(key, value), loader.origin(key))
            except ValueError as error:
                problems.append(f"{loader.origin(key)}: {'.'.join(key)}: {error}")
    if problems:
        hint = NAMES if any("is not a setting" in problem for problem in problems) else "mend it where it is said"
        raise named(ConfigError("the configuration of TTT cannot be used", problems=tuple(problems), hint=hint))
    for loader in loaders:
        if isinstance(loader, FileLoader):
            loader.warn(values)
    return values


def _loaded(loader: ConfigLoader, problems: list[str]) -> Mapping[str, Any]:
    name = loader.origin(())
    try:
        data: Any = loader.load()
    except ConfigError as error:
        problems.extend(error.problems or (error.message,))
        return {}
    except Exception as error:  # noqa: BLE001 - a user's code: whatever it raises is a problem of that source
        from polyvox.keys import redact

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
_held: tuple[_State, Config] | None = None
_looked: tuple[object, float] = (None, 0.0)
_CHECK_EVERY = 0.25
_READ = (*VARIABLES, "AI_CONFIG_FILE", "POLYVOX_HOME", "XDG_CONFIG_HOME", "APPDATA")


def get_config() -> Config:
    """The configuration of this process: the same object until the program, the environment or the file changes. The
    file is looked at four times a second at most; a change of it that cannot be used is logged, and what held before
    goes on. ConfigurationError for all else that cannot be used."""
    global _held, _looked
    with _lock:
        surroundings, now = snapshot(), time.monotonic()
        if _held is not None and _looked[0] is surroundings and now - _looked[1] < _CHECK_EVERY:
            return _held[1]
        held, state = _held, _state()
        if held is None or held[0] != state:
            try:
                made = _anew()
            except ConfigError as error:
                if held is None or held[0].variables != state.variables:
                    raise
                from logging import getLogger

                getLogger("polyvox.config").warning("the changed configuration is not used: %s", error)
                made = held[1]
            held = _held = (state, made)
        _looked = (surroundings, now)
        return held[1]


class _State(NamedTuple):
    """What the configuration of this process was made of, as far as it changes by itself."""

    variables: tuple[str | None, ...]
    file: object


def _state() -> _State:
    return _State(tuple([os.environ.get(name) for name in _READ]), _file.stamp())


def _anew() -> Config:
    return Config(_program, loaders=[DEFAULTS, _file, EnvLoader(), *_added])


def reload_config() -> Config:
    """Ask every source again. ConfigurationError, and nothing changed, for what cannot be used."""
    global _held
    with _lock:
        state = _state()  # before reading: a change in between is seen the next time
        made = _anew()
        _held = (state, made)
        return made


def configure(values: Mapping[str, Any] | None = None, /, **more: Any) -> Config:
    """Set what holds for this process above all other sources, from the next call on. Later calls add to earlier ones;
    None takes back what was set, a value or a whole table. ConfigurationError, and nothing changed, for what cannot be.

    >>> configure(backends={"local": {"timeout": 5}}).origin("backends.local.timeout")
    'program'
    >>> reset_config()
    """
    global _program
    if values is not None and not isinstance(values, Mapping):
        raise _no_table(values)
    with _lock:
        before = _program
        for key, value in _flat({**(values or {}), **more}):
            name = ".".join(key)
            if value is None:
                _program = {had: said for had, said in _program.items() if not f"{had}.".startswith(f"{name}.")}
            else:
                _program = {**_program, name: value}
        try:
            return reload_config()
        except PolyvoxError:
            _program = before
            raise


def add_loader(loader: ConfigLoader, priority: int | None = None) -> None:
    """Make a source of configuration known, where its `priority` or the given one says; see PRIORITIES. What it gives
    is read now, and again when any other source changes or `reload_config` asks for it."""
    global _added
    place = getattr(loader, "priority", 0) if priority is None else priority
    _check_loader(loader, place)
    with _lock:
        before = _added
        _added = (*before, _At(loader, place))
        try:
            reload_config()
        except PolyvoxError:
            _added = before
            raise


def remove_loader(loader: ConfigLoader) -> None:
    """Forget a source that was added; nothing where it was not."""
    global _added, _held
    with _lock:
        _added, _held = tuple([one for one in _added if one.loader is not loader]), None


def reset_config() -> None:
    """Forget what `configure` and `add_loader` were told."""
    global _program, _added, _held
    with _lock:
        _program, _added, _held = {}, (), None
