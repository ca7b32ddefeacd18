"""Settings from arguments, database rows, environment and files, every value with its origin.
It finds no keys beyond those written in its sources, and opens no connection.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from msgspec import Struct

from polyvox import catalog
from polyvox.catalog import Provider
from polyvox.config.fields import FIELDS, OWN_TABLES, Key, Problem, check, meant
from polyvox.errors import ConfigError
from polyvox.keys import MASK, Secret, config_dir, is_secret_name, key_of_parts, redact

__all__ = ["FIELDS", "Loader", "Settings", "configure", "current", "default_files", "load"]
__all__ += ["problem", "reset"]

log: logging.Logger = logging.getLogger("polyvox.config")


class Settings(Struct, frozen=True, kw_only=True):
    """All settings at one moment.

    Attributes:
        model: what is asked when a call names no model. system: the standing instruction.
        timeout: seconds for a whole call; connect_timeout, first_byte_timeout, idle_timeout: seconds
            for its phases; None is no limit.
        retries: further tries after the first.
        temperature, max_tokens: sent when not None.
        strict: a Loss is an error.
        proxy, ca_bundle, pool_size, allow_http: for the HTTP transport; pool_size in connections.
        aliases: short names of models.
        providers: by name, what is said of them; keys are `Secret`, as are the values in
            `secret_headers` (headers whose name says they hold one).
        ledger, cache, budgets: what the command line keeps of its calls; a program says so to its clients. budgets
            has each by its name, and the place where they are counted.
        deployments: by name, what is said of each; see `polyvox.registry`. routing: how calls choose among them; see
            `polyvox.pools.Routing`.
        origins: by dotted name, where a value comes from: "argument", "row", "env NAME",
            "file:line", "loader NAME" or "default".
    """

    model: str | None = None
    system: str | None = None
    timeout: float | None = 600.0
    connect_timeout: float | None = 5.0
    first_byte_timeout: float | None = 120.0
    idle_timeout: float | None = 60.0
    retries: int = 2
    temperature: float | None = None
    max_tokens: int | None = None
    strict: bool = False
    log_level: str = "WARNING"
    proxy: str | None = None
    ca_bundle: str | None = None
    pool_size: int = 100
    allow_http: bool = False
    aliases: dict[str, str] = {}
    providers: dict[str, dict[str, Any]] = {}
    prices: dict[str, dict[str, Any]] = {}
    ledger: dict[str, Any] = {}
    cache: dict[str, Any] = {}
    budgets: dict[str, Any] = {}
    deployments: dict[str, dict[str, Any]] = {}
    routing: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def __repr__(self) -> str:
        """What differs from the defaults, without secrets."""
        said = [f"{name}={value!r}" for name, value in self.shown().items() if self.origin(name) != "default"]
        return f"Settings({', '.join(said)})"

    __str__ = __repr__

    def origin(self, name: str) -> str:
        """Where the value of a dotted name comes from."""
        return self.origins.get(name, "default")

    def shown(self) -> dict[str, Any]:
        """Every value by dotted name, fit to print: secrets are masked."""
        flat: dict[str, Any] = {name: getattr(self, name) for name in FIELDS}
        flat.update((f"aliases.{name}", model) for name, model in self.aliases.items())
        for provider, fields in self.providers.items():
            for name, value in fields.items():
                inner = value if isinstance(value, Mapping) else {"": value}
                flat.update((".".join(filter(None, ("providers", provider, name, key))), v) for key, v in inner.items())
        for model, table in self.prices.items():
            flat.update((f"prices.{model}.{name}", value) for name, value in table.items())
        for deployment, table in self.deployments.items():
            for name, value in table.items():
                inner = value if isinstance(value, Mapping) else {"": value}
                said = ("deployments", deployment, name)
                flat.update((".".join(filter(None, (*said, field))), v) for field, v in inner.items())
        for name in OWN_TABLES:
            flat.update((f"{name}.{field}", value) for field, value in getattr(self, name).items())
        for budget, said in self.budgets.items():
            inner = said if isinstance(said, Mapping) else {"": said}
            flat.update((".".join(filter(None, ("budgets", budget, field))), v) for field, v in inner.items())
        return {name: _shown(name, value) for name, value in flat.items()}


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, Secret):
        return MASK
    last = name.rpartition(".")[2]
    if ".options." in name and is_secret_name(last) and isinstance(value, str):
        return MASK
    return redact(value) if isinstance(value, str) else value


@runtime_checkable
class Loader(Protocol):
    """A source of settings of the user's own; consulted after files, before the defaults."""

    def load(self) -> dict[str, Any]:
        """Settings in the form of a configuration file's tables."""


class _Entry(NamedTuple):
    value: Any
    origin: str


_Entries = dict[Key, _Entry]


class _Layers:
    """Entries gathered from the lowest source to the highest, and all problems met on the way."""

    def __init__(self) -> None:
        self.entries: _Entries = {}
        self.problems: list[str] = []

    def add(self, data: Mapping[str, Any], where: Callable[[Key], str]) -> None:
        """Lay a source over what is there; `where` tells the origin of a key."""
        for item in check(data):
            if isinstance(item, Problem):
                self.problems.append(f"{where(item.key)}: {'.'.join(item.key)}: {item.what}")
            else:
                self.entries[item[0]] = _Entry(item[1], where(item[0]))

    def collect(self, error: ConfigError) -> None:
        """Keep an error's problems for the one report."""
        self.problems.extend(error.problems or (error.message,))


# ---- loading ----------------------------------------------------------------------------------


def load(
    *,
    arguments: Mapping[str, Any] | None = None,
    row: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    dotenv: str | os.PathLike[str] | None = None,
    files: Sequence[str | os.PathLike[str]] | None = None,
    loaders: Sequence[Loader] = (),
) -> Settings:
    """Settings from all sources, highest first: arguments, row, env, dotenv, files, loaders, defaults.

    A value None in arguments or row means "not given". Of several files or loaders the later wins.
    Without `files`, the user's own configuration file is read if there is one; a .env file is read
    only when named. Raises one ConfigError with every problem of every source.

        >>> load(arguments={"timeout": 30}, env={}, files=()).timeout
        30.0
    """
    _check_sources(dotenv, files, loaders)
    env = os.environ if env is None else env
    known = catalog.load().providers
    layers = _Layers()
    for loader in loaders:
        _add_loader(layers, loader)
    for path in default_files(env) if files is None else map(Path, files):
        _add_file(layers, path)
    if dotenv is not None:
        _add_dotenv(layers, Path(dotenv), known)
    _add_variables(layers, env, known, lambda name: f"env {name}")
    layers.add(row or {}, _from("row"))
    layers.add(arguments or {}, _from("argument"))
    _refuse_strangers(layers, known)
    _refuse_incomplete(layers)
    if layers.problems:
        raise ConfigError("the configuration cannot be used", problems=tuple(dict.fromkeys(layers.problems)))
    return _built(layers.entries)


def _check_sources(dotenv: Any, files: Any, loaders: Any) -> None:
    """Refuse sources that are no paths or no loaders, before any of them is read."""
    for name, value in (("files", files), ("loaders", loaders)):
        if value is not None and (isinstance(value, str | bytes) or not isinstance(value, Sequence)):
            raise ConfigError(f"{name} must be a sequence, not {type(value).__name__}", hint=f"say {name}=[...]")
    for path in (*(files or ()), *(() if dotenv is None else (dotenv,))):
        if not isinstance(path, str | os.PathLike):
            raise ConfigError(f"a configuration file is named by a path, not by {type(path).__name__}")


def default_files(env: Mapping[str, str] | None = None, *, name: str = "config") -> tuple[Path, ...]:
    """The user's own configuration file, if there is one: config.toml, .yaml, .yml or .json, in this order; or the one
    of another name."""
    # A link that leads nowhere is a mistake, not the wish to have no file.
    present = [path for path in candidates(name, env) if path.is_file() or path.is_symlink()]
    if len(present) > 1:
        log.warning("%s is read; %s is not", present[0], ", ".join(map(str, present[1:])))
    return tuple(present[:1])


def candidates(name: str = "config", env: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Where a configuration file of the user's own may be."""
    folder = config_dir(env)
    return tuple(folder / f"{name}{ending}" for ending in (".toml", ".yaml", ".yml", ".json"))


def _from(origin: str) -> Callable[[Key], str]:
    """The one origin of all keys of a source."""
    return lambda _: origin


def _add_loader(layers: _Layers, loader: Loader) -> None:
    name = getattr(loader, "name", None) or type(loader).__name__
    try:
        data: Any = loader.load()
    except ConfigError as error:
        layers.collect(error)
        return
    except Exception as error:  # noqa: BLE001 - a user's code: whatever it raises is a problem of that source
        layers.problems.append(f"loader {name}: failed with {type(error).__name__}: {redact(str(error))}")
        return
    if isinstance(data, Mapping):
        layers.add(data, _from(f"loader {name}"))
    else:
        layers.problems.append(f"loader {name}: gave {type(data).__name__}, not a table of settings")


def _add_file(layers: _Layers, path: Path) -> None:
    from polyvox.config.sources import read

    try:
        document = read(path)
    except ConfigError as error:
        layers.collect(error)
        return
    layers.add(document.data, lambda key: f"{path}:{document.line(_as_written(key))}")
    if any(
        isinstance(entry.value, Secret) and entry.origin.startswith(f"{path}:") for entry in layers.entries.values()
    ):
        warn_if_open(path)


def _as_written(key: Key) -> Key:
    return tuple("headers" if part == "secret_headers" else part for part in key)


def warn_if_open(path: Path) -> None:
    """Log it where users other than its owner can read a file that holds a key."""
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        log.warning("%s holds a key and other users can read it; run: chmod 600 %s", path, path)


def _add_dotenv(layers: _Layers, path: Path, known: Mapping[str, Provider]) -> None:
    from polyvox.config.sources import read_dotenv

    try:
        values, lines = read_dotenv(path)
    except ConfigError as error:
        layers.collect(error)
        return
    _add_variables(layers, values, known, lambda name: f"{path}:{lines[name]}")
    named = {key[1] for key in layers.entries if key[0] == "providers"}
    for provider in {**dict.fromkeys(known), **dict.fromkeys(named)}:
        own = layers.entries.get(("providers", provider, "api_key_env"))
        for name in own.value if own else known[provider].key_env if provider in known else ():
            if values.get(name):
                layers.add({"providers": {provider: {"api_key": values[name]}}}, _from(f"{path}:{lines[name]}"))
                break
        else:
            parts = known[provider].key_parts if provider in known else ()
            key = key_of_parts(parts, values)
            if key is not None:
                layers.add({"providers": {provider: {"api_key": key.secret}}}, _from(f"{path}:{lines[parts[0]]}"))


def _add_variables(
    layers: _Layers, env: Mapping[str, str], known: Mapping[str, Provider], origin: Callable[[str], str]
) -> None:
    """POLYVOX_ variables, and the providers' own for their addresses; an empty one is not set."""
    for name in FIELDS:
        variable = f"POLYVOX_{name.upper()}"
        if env.get(variable):
            layers.add({name: env[variable]}, _from(origin(variable)))
    for provider in known.values():
        variable = next((name for name in provider.base_url_env if env.get(name, "").strip()), "")
        if variable:
            url = catalog.complete_url(env[variable], provider)
            layers.add({"providers": {provider.name: {"base_url": url}}}, _from(origin(variable)))
        for option, variables in provider.needs.items():
            variable = next((name for name in variables if env.get(name, "").strip()), "")
            if variable:
                said = {provider.name: {"options": {option: env[variable].strip()}}}
                layers.add({"providers": said}, _from(origin(variable)))


def _refuse_strangers(layers: _Layers, known: Mapping[str, Provider]) -> None:
    """A provider that is not in the catalog needs an address, else its name is a slip."""
    for key, entry in layers.entries.items():
        name = key[1] if key[0] == "providers" else ""
        if name and name not in known and ("providers", name, "base_url") not in layers.entries:
            what = f"is not a known provider, and a new one needs base_url{meant(name, tuple(known))}"
            layers.problems.append(f"{entry.origin}: providers.{name}: {what}")


def _refuse_incomplete(layers: _Layers) -> None:
    """A budget says how much and a deployment which model; what else is said of it may come from other sources."""
    for key, entry in layers.entries.items():
        needed, what = _NEEDED.get(key[0], ("", ""))
        if needed and len(key) > 2 and (*key[:2], needed) not in layers.entries:
            layers.problems.append(f"{entry.origin}: {key[0]}.{key[1]}: needs a {what}")


_NEEDED = {"budgets": ("limit", "limit, in USD"), "deployments": ("model", "model")}


def _built(entries: _Entries) -> Settings:
    values: dict[str, Any] = {}
    origins = dict.fromkeys(FIELDS, "default")
    for key, entry in entries.items():
        inner = values
        for part in key[:-1]:
            inner = inner.setdefault(part, {})
        inner[key[-1]] = entry.value
        origins[".".join(key)] = entry.origin
    return Settings(**values, origins=origins)


# ---- the settings of this process -------------------------------------------------------------

_SOURCES = ("dotenv", "files", "loaders")
_CHECK_EVERY = 1.0
_lock = threading.Lock()
_arguments: dict[str, Any] = {}


class _Current(NamedTuple):
    settings: Settings
    watched: tuple[Path, ...]
    stamps: tuple[object, ...]
    there: tuple[Path, ...]  # those of them that there are, and their stamps
    stamps_there: tuple[object, ...]


_current: _Current | None = None
_problem: str | None = None
_checked = 0.0


def configure(**values: Any) -> Settings:
    """Set what holds for this process above everything but a call's own arguments.

    Values are settings by name, as in `load(arguments=...)`; `files`, `dotenv` and `loaders` name
    other sources. Later calls add to earlier ones. Raises ConfigError and changes nothing when a
    value cannot be used.
    """
    global _arguments, _current, _checked, _problem
    with _lock:
        merged = {**_arguments, **values}
        for name in ("aliases", "providers", "prices", "budgets", "deployments", *OWN_TABLES):
            merged_table = _merged(_arguments.get(name), values.get(name))
            if merged_table is not None:
                merged[name] = merged_table
        made = _load_current(merged)
        _arguments, _current, _checked, _problem = merged, made, time.monotonic(), None
        return made.settings


def reset() -> None:
    """Forget everything `configure` was told, and read the sources anew at the next use."""
    global _arguments, _current, _problem
    with _lock:
        _arguments, _current, _problem = {}, None, None


def current(*, at_once: bool = False) -> Settings:
    """The settings of this process, read anew when a configuration file changes.

    Files are looked at once a second at most; at_once looks now at those that there were. A change that cannot be
    used is logged, and what held before goes on; `problem` says why.
    """
    global _current, _checked, _problem
    held = _current
    now = time.monotonic()
    if (
        held is not None
        and now - _checked < _CHECK_EVERY
        and not (at_once and _stamps(held.there) != held.stamps_there)
    ):
        return held.settings
    with _lock:
        held = _current
        if held is None:
            held = _current = _load_current(_arguments)
            _problem = None
        elif (stamps := _stamps(held.watched)) != held.stamps:
            try:
                held = _current = _load_current(_arguments)
                _problem = None
            except ConfigError as error:
                log.warning("the changed configuration is not used: %s", error)
                _problem = "; ".join(error.problems) or error.message
                # As they were before they were read: a change meanwhile is seen the next time.
                held = _current = _held(held.settings, held.watched, stamps)
        _checked = now
        return held.settings


def problem() -> str | None:
    """Why the newest configuration files cannot be used, with file and line; None when they are."""
    return _problem


def _load_current(arguments: Mapping[str, Any]) -> _Current:
    sources = {name: arguments[name] for name in _SOURCES if arguments.get(name) is not None}
    values = {name: value for name, value in arguments.items() if name not in _SOURCES}
    files = sources.get("files")
    _check_sources(sources.get("dotenv"), files, sources.get("loaders"))
    watched = tuple(map(Path, files)) if files is not None else candidates()
    if "dotenv" in sources:
        watched += (Path(sources["dotenv"]),)
    stamps = _stamps(watched)  # before reading: a change in between is seen the next time
    return _held(load(arguments=values, **sources), watched, stamps)


def _held(settings: Settings, watched: tuple[Path, ...], stamps: tuple[object, ...]) -> _Current:
    there = tuple([path for path, stamp in zip(watched, stamps, strict=True) if stamp is not None])
    return _Current(settings, watched, stamps, there, tuple([stamp for stamp in stamps if stamp is not None]))


def _stamps(paths: Iterable[Path]) -> tuple[object, ...]:
    return tuple(_stamp(path) for path in paths)


def _stamp(path: Path) -> object:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def _merged(old: Any, new: Any) -> Any:
    """Two tables laid over each other at every depth; what is no table replaces."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {key: _merged(old.get(key), new.get(key)) for key in {**old, **new}}
    return old if new is None else new
