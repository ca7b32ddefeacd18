"""The headers of a call that are the caller's own choice and say nothing of who asks: betas, and what it belongs to.
They are kept in extra under their names, beside the keys of the body, and are headers again when the call goes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polyvox.dialects import Endpoint
from polyvox.errors import InputError

BETA = "anthropic-beta"
NAMES = (BETA, "anthropic-user-profile-id", "anthropic-workspace-id")


def kept(headers: Mapping[str, str]) -> dict[str, Any]:
    """Those of a client's headers; names are in lower case."""
    return {name: headers[name] for name in NAMES if headers.get(name)}


def said(own: Mapping[str, Any], at: Endpoint) -> dict[str, str]:
    """The headers of a call from its own keys; the betas the endpoint is set to have come first, each once."""
    found = {name: ",".join(_words(own[name], name)) for name in NAMES[1:] if own.get(name)}
    betas = dict.fromkeys([*_words(at.options.get("beta"), BETA), *_words(own.get(BETA), BETA)])
    return {BETA: ",".join(betas), **found} if betas else found


def _words(value: Any, name: str) -> list[str]:
    """The words of a header's value, which may be a list; InputError for what no header can hold."""
    values = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(values, list | tuple) or not all(isinstance(each, str) for each in values):
        raise InputError(f"{name} must be text", param=name)
    words = [word.strip() for each in values for word in each.split(",") if word.strip()]
    if not all(word.isascii() and word.isprintable() for word in words):
        raise InputError(f"{name} must be printable ASCII, as headers are", param=name)
    return words
