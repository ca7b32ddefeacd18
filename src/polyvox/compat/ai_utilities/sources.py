"""Where settings of AI Utilities come from: what is said goes before the environment, that before the .env file. It
reads texts with their origins, decides which key may go to which address, and judges no other value."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from polyvox.compat.shared import VARIABLES
from polyvox.errors import AuthError, InputError

# The catalog, the configuration and the keys are loaded with the first question about them.
if TYPE_CHECKING:
    from polyvox.catalog import Provider

log: logging.Logger = logging.getLogger("polyvox.compat.ai_utilities")

PREFIX = "AI_"
ARGUMENT = "argument"
DEFAULT = "default"


USUAL = f"{DEFAULT} of "
"""How the origin of a value begins that is usual for a provider."""


def is_of_file(origin: str) -> bool:
    """Whether a value of this origin stands in a .env file."""
    return origin not in (ARGUMENT, DEFAULT) and not origin.startswith(("env ", USUAL))


class Value(NamedTuple):
    """A value, where it comes from, and the name it has there."""

    value: Any
    origin: str
    name: str

    @property
    def is_of_file(self) -> bool:
        """Whether it stands in a .env file."""
        return is_of_file(self.origin)


class Surroundings(NamedTuple):
    """Variables by their names in capitals, from the environment or a file; empty ones say nothing."""

    values: dict[str, Value]

    @classmethod
    def of_environment(cls) -> Surroundings:
        """Those of this process at this moment."""
        found = {name: Value(text.strip(), f"env {name}", name) for name, text in os.environ.items() if text.strip()}
        return cls({name.upper(): value for name, value in found.items()})

    @classmethod
    def of_file(cls, path: Path) -> Surroundings:
        """Those of a .env file; one that is not there says nothing. ConfigError for lines that are none."""
        if not path.is_file():
            return cls({})
        from polyvox.config.sources import read_dotenv

        texts, lines = read_dotenv(path)
        return cls({
            name.upper(): Value(text.strip(), f"{path}:{lines[name]} {name}", name)
            for name, text in texts.items()
            if text.strip()
        })  # fmt: skip

    def find(self, names: Iterable[str]) -> Value | None:
        """The first of these variables that is set."""
        return next((self.values[name] for name in names if name in self.values), None)


def variables(field: str) -> tuple[str, ...]:
    """The variables that may say a setting, best first."""
    return VARIABLES.get(field) or (f"{PREFIX}{field.upper()}",)


def gathered(
    said: Mapping[str, Any], fields: Collection[str], env_file: str | os.PathLike[str] | None, find_key: bool = True
) -> dict[str, Value]:
    """What is said of each field, from the highest source that says anything.

    A key from elsewhere never goes to an address that stands in a .env file: whoever wrote that file would get it.
    """
    if env_file is not None and not isinstance(env_file, str | os.PathLike):
        raise InputError(
            f"_env_file is a path, not {type(env_file).__name__}",
            hint="a path, or None to read no file",
            param="_env_file",
        )
    env = Surroundings.of_environment()
    file = Surroundings.of_file(Path(env_file)) if env_file is not None else Surroundings({})
    found = {field: Value(value, ARGUMENT, field) for field, value in said.items()}
    for field in fields:
        if field not in found and (value := env.find(variables(field)) or file.find(variables(field))):
            found[field] = value
    # None as an argument is what a caller has who was told of no key.
    if said.get("api_key") is None:
        found.pop("api_key", None)
        key = _key(found, env, file) if find_key else None
        if key is not None:
            found["api_key"] = key
    return found


def _key(found: Mapping[str, Value], env: Surroundings, file: Surroundings) -> Value | None:
    """The key where none was said: AI_API_KEY, else the provider's own variable, where the address may have it."""
    address = found.get("base_url")
    name = str(found["provider"].value).strip().lower() if "provider" in found else "openai"
    row = row_of(name)
    own = tuple(variable.upper() for variable in row.key_env) if row is not None else ()
    general = variables("api_key")
    if address is not None and address.is_of_file:
        key = file.find(general) or file.find(own)
        if key is None and env.find((*general, *own)) is not None:
            log.warning(
                "the address in %s gets no key of the environment; put %s beside it, or pass api_key",
                address.origin, general[0],
            )  # fmt: skip
        return key
    key = env.find(general) or file.find(general)
    if key is None and (address is None or address.value is None or is_own_address(row, str(address.value))):
        key = env.find(own) or file.find(own)
    return key


def row_of(provider: str) -> Provider | None:
    """The provider of the catalog as it is configured; None for a name that is not there."""
    from polyvox import catalog, config

    settings = config.current()
    return catalog.load().with_overrides(settings.providers, settings.origins).providers.get(provider)


def is_own_address(row: Provider | None, url: str) -> bool:
    """Whether an address is one that the provider's own key may go to."""
    if row is None:
        return False
    from polyvox import catalog, keys

    try:
        # A key of the environment has no address of its own, so only where the provider's keys may go counts.
        return keys.allowed_host(row, catalog.complete_url(url, row), "env")
    except AuthError:
        return False


def as_json(value: Value) -> Any:
    """A list or a table is written as JSON in a variable; other texts are what they are."""
    text = value.value
    if value.origin != ARGUMENT and isinstance(text, str) and text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return text


def keep_secret(key: Any) -> None:
    """Mask a key in all that is logged and raised from now on."""
    if isinstance(key, str) and key.strip():
        from polyvox.keys import install_redaction, secret_of

        secret_of(key)
        install_redaction()
