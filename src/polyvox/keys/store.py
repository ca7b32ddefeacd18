"""Keys that are kept: in a file only their owner can read, or in the system's keyring. It knows providers by name
only."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from msgspec import Struct

from polyvox.errors import ConfigError, MissingExtraError
from polyvox.keys.files import config_dir, locked, write_atomically
from polyvox.keys.secret import Secret, secret_of, utf8

log: logging.Logger = logging.getLogger("polyvox.keys")


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
        self.path: Path = path or config_dir(env) / "keys.json"
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
                write_atomically(self.path, utf8(text), 0o600)
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
