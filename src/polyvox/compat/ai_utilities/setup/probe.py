"""What the setup wizard finds out with the core's help: whether a key and an address can be, what a .env file says
now, and whether a provider answers."""

from __future__ import annotations

from pathlib import Path

from polyvox import catalog
from polyvox.compat.errors import named, speaking
from polyvox.errors import AuthError, InputError
from polyvox.keys import Secret, secret_of

SECONDS = 10.0


def checked_key(provider: str, key: Secret | str) -> Secret:
    """A key that a request could carry; InputError, which does not show it, for one that none could."""
    from polyvox.auth import credentials

    try:
        secret = secret_of(key)
        if not secret:
            raise named(InputError("the key is empty", hint="paste it without quotes"))
        credentials(catalog.load().provider(provider), secret)
    except AuthError as error:
        raise named(InputError(error.message, hint="copy it again, without line breaks or quotes")) from None
    return secret


def checked_url(url: str) -> str:
    """An address that settings take; InputError, which does not show it, for one that they would refuse."""
    text = url.strip().rstrip("/")
    if problems := catalog.url_problems(text):
        raise named(InputError(f"the address {problems[0]}", hint="such as https://host/v1", param="base_url"))
    return text


def variables_of(path: Path) -> dict[str, str]:
    """The AI_ variables of a .env file, names in upper case; none where there is no file. ConfigError for a file that
    is none."""
    from polyvox.config.sources import read_dotenv

    if not path.exists():
        return {}
    with speaking():
        values, _ = read_dotenv(path)
    return {name.upper(): value for name, value in values.items() if name.upper().startswith("AI_")}


def models_at(provider: str, base_url: str | None, key: Secret | None) -> int:
    """How many models a provider tells of; raises what its answer means."""
    from polyvox import Client

    row = catalog.load().provider(provider)
    model = row.default_model or "any"
    if base_url:
        client = Client(model, base_url=base_url, dialect=row.dialect, api_key=key, timeout=SECONDS)
    else:
        client = Client(f"{row.name}/{model}", api_key=key, timeout=SECONDS)
    with client, speaking():
        return len(client.models())
