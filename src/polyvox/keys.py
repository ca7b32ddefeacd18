"""Where keys come from and how they stay secret: the `Secret` value, redaction of text and logs, the key
store and the rule of which host a key may go to. It sends nothing and knows no provider by name.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hmac
import json
import logging
import os
import re
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, cast
from urllib.parse import quote, quote_plus

from msgspec import Struct

from polyvox.catalog import Provider, host_of
from polyvox.errors import AuthError, ConfigError, MissingExtraError, MissingKeyError, UsageError

log = logging.getLogger("polyvox.keys")

MASK: Final = "***"


class Secret:
    """A value that shows itself only to `reveal()`. Printing, formatting and logging give '***';
    pickling is refused and JSON encoders do not know it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; for the line that puts it on the wire, and nothing else."""
        return self._value

    def __repr__(self) -> str:
        """Never the value."""
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        """Never the value."""
        return MASK

    def __format__(self, spec: str) -> str:
        """Never the value."""
        return format(MASK, spec)

    def __bool__(self) -> bool:
        """Whether there is a value."""
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        """Compare in constant time, with other secrets only."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_utf8(self._value), _utf8(other._value))

    def __hash__(self) -> int:
        """Fit for sets and dict keys; salted by the process."""
        return hash((Secret, self._value))

    def __copy__(self) -> Secret:
        """The same secret: there is nothing in it to change."""
        return self

    def __deepcopy__(self, memo: Any) -> Secret:
        """The same secret."""
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuse: a pickle is a copy in clear."""
        self.__getstate__()

    def __getstate__(self) -> NoReturn:
        """Refuse, likewise."""
        raise UsageError("a Secret cannot be pickled", hint="pass the key's name and look it up on the other side")

    @property
    def fingerprint(self) -> str:
        """Enough to tell keys apart: "sk-…1234" for those of 20 characters and more, "…" for others."""
        if len(self._value) < 20:
            return "…"
        prefix = re.match(r"[A-Za-z]{2,4}[-_]", self._value)
        return f"{prefix[0] if prefix else ''}…{self._value[-4:]}"


def secret_of(value: str | Secret) -> Secret:
    """A remembered secret of what people paste: without the white space around it."""
    secret = value if isinstance(value, Secret) else Secret(value.strip())
    remember(secret)
    return secret


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# ---- redaction --------------------------------------------------------------------------------

# Shorter values are words ("ollama", "EMPTY") given where a key is asked for but not needed;
# masking them would black out ordinary text.
_SHORTEST = 8
_MOST = 256
_lock = threading.Lock()
_known: dict[str, None] = {}
_known_forms: tuple[str, ...] = ()


def remember(secret: Secret) -> None:
    """Mask this secret in all that `redact` sees from now on. The latest 256 are kept."""
    global _known_forms
    value = secret.reveal()
    if len(value) < _SHORTEST or value in _known:
        return
    with _lock:
        _known[value] = None
        while len(_known) > _MOST:
            del _known[next(iter(_known))]
        forms = {form for known in _known for form in _forms(known)}
        # Longest first: a secret that begins like another must not leave its tail behind.
        _known_forms = tuple(sorted(forms, key=len, reverse=True))


def _forms(value: str) -> Iterator[str]:
    """The value as it looks in text, JSON, URLs and base64."""
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    data = _utf8(value)
    yield quote(data, safe="")
    yield quote_plus(data)
    yield base64.b64encode(data).decode().rstrip("=")
    yield base64.urlsafe_b64encode(data).decode().rstrip("=")


# Every alternative starts with a literal and runs through one character class; where something must
# follow, the run is bounded or can start only once in a word. So matching is linear, whatever the text.
# After a word like "bearer", a word of prose is told from a token by its digits or its length.
_SHAPES = r"""
      -----BEGIN\ [^-\n]{0,40}PRIVATE\ KEY-----[^-]*(?:-----END[^-\n]{0,60}-----)?
    | (?<![A-Za-z0-9])(?:
          sk-[A-Za-z0-9_*\-]{16,}
        | AIza[A-Za-z0-9_\-]{20,}
        | (?-i:AKIA|ASIA)[A-Z0-9]{16}
        | (?:gsk|hf|fw|ghp|gho|ghs)_[A-Za-z0-9]{16,}
        | (?:xai|csk|pplx|nvapi|xox[abprs])-[A-Za-z0-9\-_]{16,}
        | (?:tgp_v1|github_pat)_[A-Za-z0-9_\-]{16,}
        | ya29\.[A-Za-z0-9_\-.]{16,}
      )
    | (?<![A-Za-z0-9_\-])eyJ[A-Za-z0-9_\-]{10,4096}\.[A-Za-z0-9_\-]{4,}(?:\.[A-Za-z0-9_\-]+)?
    | (?P<url>://)[^\s/@:'"<>]{0,256}:[^\s/@'"<>]{1,256}(?=@)
    | (?P<query>[?&;](?:key|api[_-]?key|(?:access_|auth_|id_)?token|sig|signature|(?:client_)?secret|password)=)
        [^&\s"'<>\#;]+
    | (?P<scheme>(?<![A-Za-z])(?:bearer|basic)\ {1,4})
        (?:(?=[A-Za-z+/_=.~\-]{0,64}[0-9])[A-Za-z0-9+/_=.~\-]{8,} | [A-Za-z0-9+/_=.~\-]{24,})
    | (?P<field>(?<![A-Za-z0-9_\-])
        (?:x-api-key|x-goog-api-key|api[-_]?key|(?:proxy-)?authorization|x-amz-security-token|(?:set-)?cookie)
        ['"]?\ {0,3}[:=,]\ {0,3}b?['"(]{0,2}(?:(?:bearer|basic)\ {1,4})?)
        (?:(?=[^\s0-9'",)}\]]{0,64}[0-9])[^\s'",)}\]]{8,} | [^\s'",)}\]]{24,})
    """
_KEPT = ("url", "query", "scheme", "field")


@functools.cache
def _shapes() -> re.Pattern[str]:
    return re.compile(_SHAPES, re.VERBOSE | re.IGNORECASE)


def redact(text: str) -> str:
    """The text with every known secret, and all that is shaped like one, masked."""
    for form in _known_forms:
        if form in text:
            # What goes on behind a known secret is a longer one that nobody remembered.
            text = re.sub(re.escape(form) + r"[A-Za-z0-9_-]*", MASK, text)
    return _shapes().sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    kept = match.lastgroup
    return f"{match[kept]}{MASK}" if kept in _KEPT and kept is not None else MASK


_SECRET_WORDS = re.compile(r"key|token|secret|auth|cookie|password|passwd|credential", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a header or field of this name is bound to hold a secret."""
    return bool(_SECRET_WORDS.search(name))


# ---- logs -------------------------------------------------------------------------------------

_OURS = {"polyvox"}
_HTTP = {"aiohttp", "httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "requests"}
_FAMILIES = _OURS | _HTTP | {"botocore", "openai", "anthropic"}
_RECORD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime"}


class RedactingFilter(logging.Filter):
    """Masks secrets in what a record says, in its traceback and in its extra fields."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record where it must be; every record passes."""
        try:
            said = record.getMessage()
        except Exception:  # noqa: BLE001 - a record whose arguments do not fit would be printed raw by its handler
            said = f"(a log message that cannot be formatted) {record.msg}"
            record.msg, record.args = redact(said), ()
        else:
            safe = redact(said)
            if safe != said:
                record.msg, record.args = safe, ()
        if record.exc_info and record.exc_info[0] is not None:
            trace = logging.Formatter().formatException(record.exc_info)
            safe = redact(trace)
            if safe != trace:
                record.exc_text, record.exc_info = safe, None
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        for name, value in record.__dict__.items():
            if isinstance(value, str) and name not in _RECORD:
                record.__dict__[name] = redact(value)
        return True


_filter = RedactingFilter()
_silent = logging.NullHandler()
_loggers_seen = 0


def install_redaction() -> None:
    """Put the filter on our loggers and those of HTTP and provider libraries.

    A logger's filters do not reach its children, so each gets its own; a call after new loggers
    appeared catches up, any other call costs one comparison.
    """
    global _loggers_seen
    manager = logging.Logger.manager
    if len(manager.loggerDict) == _loggers_seen:
        return
    for family in _FAMILIES:
        logging.getLogger(family)
    # A library says nothing unless the program listens; Python would print warnings of its own accord.
    logging.getLogger("polyvox").addHandler(_silent)
    for name in list(manager.loggerDict):
        if name.split(".", 1)[0] in _FAMILIES:
            logging.getLogger(name).addFilter(_filter)  # adding it twice adds it once
    _loggers_seen = len(manager.loggerDict)


# ---- files ------------------------------------------------------------------------------------


def config_dir(env: Mapping[str, str] | None = None) -> Path:
    """Where configuration and keys live: $POLYVOX_HOME, else the platform's folder for settings."""
    env = os.environ if env is None else env
    if env.get("POLYVOX_HOME"):
        return Path(env["POLYVOX_HOME"]).expanduser()
    if sys.platform == "win32" and env.get("APPDATA"):
        return Path(env["APPDATA"]) / "polyvox"
    base = Path(env.get("XDG_CONFIG_HOME", ""))
    # The XDG specification has relative paths ignored.
    return (base if base.is_absolute() else Path("~/.config").expanduser()) / "polyvox"


def write_atomically(path: Path, data: bytes, mode: int) -> None:
    """Replace a file in one step, so that no reader and no crash ever sees half of it.

    A symbolic link stays one. Raises OSError.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(temporary, flags, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            if hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system lets a folder be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes that change files in it; no-op where that cannot be done."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class StoredKey(Struct, frozen=True):
    """A key in the store, without the key."""

    name: str
    source: str
    fingerprint: str


class _Keyring(Protocol):
    def get_password(self, service: str, name: str) -> str | None: ...
    def set_password(self, service: str, name: str, password: str) -> None: ...
    def delete_password(self, service: str, name: str) -> None: ...


_SERVICE = "polyvox"


class KeyStore:
    """Keys by provider name: in a file of mode 0600, or in the system's keyring when asked for.

    The file says which keys are in the keyring (null), so that reading needs no choice.
    keyring None means: as POLYVOX_KEYRING says. Every method raises ConfigError for a file that
    others can write, that is damaged, or that cannot be read or written.
    """

    def __init__(
        self, path: Path | None = None, *, keyring: bool | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        env = os.environ if env is None else env
        self.path = path or config_dir(env) / "keys.json"
        wanted = env.get("POLYVOX_KEYRING", "").lower() in ("1", "true", "yes", "on")
        self._keyring = wanted if keyring is None else keyring

    def get(self, name: str) -> Secret | None:
        """The key of a provider, or None."""
        found = self.find(name)
        return found[0] if found else None

    def find(self, name: str) -> tuple[Secret, str] | None:
        """The key of a provider and where it is: "keys file" or "keyring"; None when there is none."""
        rows = self._read()
        if name not in rows:
            return None
        value, source = rows[name], "keys file"
        if value is None:
            with _keyring_errors():
                value, source = _keyring_backend().get_password(_SERVICE, name), "keyring"
        return (secret_of(value), source) if value else None

    def set(self, name: str, secret: Secret | str) -> str:
        """Keep a key; returns where: "keys file" or "keyring"."""
        secret = secret_of(secret)
        if not secret:
            raise ConfigError(f"the key for {name} is empty", hint="paste the key without quotes")
        if self._keyring:
            with _keyring_errors():
                _keyring_backend().set_password(_SERVICE, name, secret.reveal())
        self._change(lambda rows: rows.__setitem__(name, None if self._keyring else secret.reveal()))
        return "keyring" if self._keyring else "keys file"

    def remove(self, name: str) -> bool:
        """Forget a key; False when there was none."""
        rows = self._read()
        if name not in rows:
            return False
        if rows[name] is None:
            with _keyring_errors():
                _keyring_backend().delete_password(_SERVICE, name)
        self._change(lambda rows: rows.pop(name, None))
        return True

    def list(self) -> tuple[StoredKey, ...]:
        """What is kept, by name, as fingerprints."""
        return tuple(self._listed(name, value) for name, value in sorted(self._read().items()))

    @staticmethod
    def _listed(name: str, value: str | None) -> StoredKey:
        # The keyring is not opened for a list: it may ask the user for a password.
        if value is None:
            return StoredKey(name, "keyring", "…")
        return StoredKey(name, "keys file", Secret(value).fingerprint)

    def _read(self) -> dict[str, str | None]:
        try:
            with self.path.open("rb") as file:
                self._check(file.fileno())
                data = file.read()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror}") from None
        try:
            rows = json.loads(data or b"{}")
            good = isinstance(rows, dict) and all(value is None or isinstance(value, str) for value in rows.values())
        except (ValueError, RecursionError):
            good = False
        if not good:
            # Without the cause: a JSON error would carry the text of the file.
            raise ConfigError(
                f"{self.path} is damaged", hint="it must be a JSON object of provider names and keys; mend or delete it"
            ) from None
        return cast("dict[str, str | None]", rows)

    def _check(self, handle: int) -> None:
        """Refuse a key file others could have written; close one that others can read."""
        if os.name != "posix":
            return
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigError(f"{self.path} is not a regular file")
        if facts.st_uid not in (os.geteuid(), 0):
            raise ConfigError(f"{self.path} belongs to another user", hint="delete it and set the keys again")
        if facts.st_mode & 0o022:
            raise ConfigError(
                f"{self.path} can be written by other users, so its keys cannot be trusted",
                hint=f"look at what is in it, then: chmod 600 {self.path}",
            )
        if facts.st_mode & 0o044:
            try:
                os.fchmod(handle, 0o600)
            except OSError:
                log.warning("%s can be read by other users and its mode cannot be changed", self.path)
            else:
                log.warning("%s could be read by other users; its mode is now 600", self.path)

    def _change(self, change: Any) -> None:
        folder = Path(os.path.realpath(self.path)).parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _close_folder(folder)
            with locked(folder):
                rows = self._read()
                change(rows)
                text = json.dumps(rows, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
                write_atomically(self.path, _utf8(text), 0o600)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}") from None


def _close_folder(folder: Path) -> None:
    """Take away the right of others to replace files in a folder of ours."""
    if os.name != "posix":
        return
    facts = folder.stat()
    if facts.st_mode & 0o022 and not facts.st_mode & stat.S_ISVTX:
        folder.chmod(stat.S_IMODE(facts.st_mode) & ~0o022)
        log.warning("%s could be written by other users; it no longer can", folder)


def _keyring_backend() -> _Keyring:
    try:
        import keyring
        import keyring.core
    except ImportError:
        raise MissingExtraError("the keyring is not installed", hint="pip install 'polyvox[keyring]'") from None
    backend = keyring.get_keyring()
    if backend.__class__.__module__ in ("keyring.backends.fail", "keyring.backends.null"):
        raise ConfigError(
            "this system has no keyring that works",
            hint="unset POLYVOX_KEYRING to keep keys in a file only you can read",
        )
    return cast("_Keyring", backend)


@contextlib.contextmanager
def _keyring_errors() -> Iterator[None]:
    """What the keyring raises, as ConfigError without its cause."""
    try:
        yield
    except (ConfigError, MissingExtraError):
        raise
    except Exception as error:  # noqa: BLE001 - back ends raise what their system gives them
        raise ConfigError(f"the keyring refused ({type(error).__name__})", hint="unlock it and try again") from None


# ---- finding a key ----------------------------------------------------------------------------


class FoundKey(Struct, frozen=True):
    """A key and where it was found: "argument", "row", "env NAME", "config FILE:LINE", "keys file" or "keyring"."""

    secret: Secret
    source: str


class _Settings(Protocol):
    """The part of `config.Settings` that keys need."""

    @property
    def providers(self) -> Mapping[str, Mapping[str, Any]]: ...

    @property
    def origins(self) -> Mapping[str, str]: ...


def find_key(
    provider: Provider,
    settings: _Settings | None = None,
    explicit: str | Secret | None = None,
    *,
    env: Mapping[str, str] | None = None,
    store: KeyStore | None = None,
) -> FoundKey | None:
    """The key for a provider, or None: argument, environment, configuration file, key store, in this order."""
    env = os.environ if env is None else env
    if explicit:
        return FoundKey(secret_of(explicit), "argument")
    own: Mapping[str, Any] = settings.providers.get(provider.name, {}) if settings else {}
    given = own.get("api_key")
    origin = settings.origins.get(f"providers.{provider.name}.api_key", "argument") if settings else ""
    if given and origin in ("argument", "row"):
        return FoundKey(secret_of(given), origin)
    named = own.get("api_key_env", provider.key_env)
    found = _in_environment((named,) if isinstance(named, str) else tuple(named), env)
    if found:
        return found
    if given:
        return FoundKey(secret_of(given), f"config {origin}")
    if provider.auth == "none":
        return None
    stored = (store or KeyStore(env=env)).find(provider.name)
    return FoundKey(*stored) if stored else None


_warned: set[tuple[str, ...]] = set()


def _in_environment(names: tuple[str, ...], env: Mapping[str, str]) -> FoundKey | None:
    present = tuple(name for name in names if env.get(name, "").strip())
    if not present:
        return None
    if len({env[name].strip() for name in present}) > 1 and present not in _warned:
        _warned.add(present)
        log.warning("%s is used; %s differs and is ignored", present[0], ", ".join(present[1:]))
    return FoundKey(secret_of(env[present[0]]), f"env {present[0]}")


def missing_key_error(provider: Provider) -> MissingKeyError:
    """The error for a provider without a key: which variable to set, which command to run."""
    ways = [f"set {provider.key_env[0]}"] if provider.key_env else []
    ways.append(f"run: polyvox keys set {provider.name}")
    where = f" (keys are made at {provider.docs})" if provider.docs else ""
    return MissingKeyError(
        f"no API key for {provider.title or provider.name}", hint=" or ".join(ways) + where, provider=provider.name
    )


def allowed_host(provider: Provider, url: str, key_source: str) -> bool:
    """True when a key may go to this URL; raises AuthError otherwise.

    A key goes only to the hosts bound to it (`provider.hosts`), or to an address that came from the
    same hand as the key itself: both as arguments, both in one database row or both in one file.
    A base URL from the environment never takes along a key that lies elsewhere.
    """
    host = host_of(url)
    if host and host in provider.hosts:
        return True
    if host and host == host_of(provider.base_url) and _same_hand(provider.url_source, key_source):
        return True
    where = f" (the address comes from {provider.url_source})" if provider.url_source != "catalog" else ""
    raise AuthError(
        f"the {provider.name} key from {key_source} is not sent to {host or 'an address without a host'}{where}",
        hint=f'allow it with hosts = ["{host}"] under [providers.{provider.name}] in the configuration, '
        "or pass api_key and base_url together",
        provider=provider.name,
        sent="no",
        billed=False,
    )


def _same_hand(url_source: str, key_source: str) -> bool:
    if key_source in ("argument", "row"):
        return url_source == key_source
    if not key_source.startswith("config "):
        return False
    return url_source.rpartition(":")[0] == key_source.removeprefix("config ").rpartition(":")[0]
