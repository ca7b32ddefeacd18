"""What is said to whoever has no key: every way to one, and whoever can be asked at this moment without another. It
knows keys by the names of their variables alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from polyvox import catalog
from polyvox.compat.errors import speaking
from polyvox.errors import MissingKeyError

_WITHOUT = 'without a key: provider="ollama" asks models on this machine, provider="demo" the built-in offline one'


@contextlib.contextmanager
def speaking_of_keys(provider: str) -> Iterator[None]:
    """Around calls of the core; see `polyvox.compat.errors.speaking`."""
    try:
        with speaking():
            yield
    except MissingKeyError as error:
        tell_ways(error, provider)
        raise


def tell_ways(error: MissingKeyError, provider: str) -> None:
    """Let the hint of an error name all ways, the provider's own among them; of the key of a deployment, which the
    settings do not say, it is left as it is."""
    if error.provider != provider:
        return
    others = [f'provider="{name}" ({variable})' for name, variable in _present() if name != provider]
    there = f"there is a key for {', '.join(others)}; " if others else ""
    error.hint = (
        f"set AI_API_KEY, pass api_key=..., or let polyvox-ai-utilities setup ask for one; or {error.hint}; "
        f"{there}{_WITHOUT}"
    )


def _present() -> Iterator[tuple[str, str]]:
    """The providers whose own variable is set, with that variable."""
    for row in catalog.load().providers.values():
        variable = next((name for name in row.key_env if os.environ.get(name, "").strip()), None)
        if variable is not None and row.needs_key and not row.key_of:
            yield row.name, variable
