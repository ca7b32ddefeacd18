"""LiteLLM as a backend, where it is installed: model "litellm/NAME", with NAME as LiteLLM spells it. What it drops by
its own settings is its business; our losses tell what we could not say."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from polyvox.backends.clients import ClientBackend
from polyvox.backends.shapes import SHAPES
from polyvox.errors import MissingExtraError

_SHAPE = next(shape for shape in SHAPES if shape.dialect == "openai.chat")
_ONCE = {"num_retries": 0, "max_retries": 0}
# The spellings that it knows how to say in every provider's own way.
_QUIRKS = frozenset({"max_tokens", "system_role"})


def load(name: str) -> ClientBackend:
    """The backend; MissingExtraError where the library is not installed."""
    try:
        acompletion = import_module("litellm").acompletion
    except ImportError as error:
        raise MissingExtraError(
            f"asking through LiteLLM needs the library ({error})", hint="pip install 'polyvox[litellm]'", sent="no"
        ) from None
    return backend(name, acompletion)


def backend(name: str, acompletion: Callable[..., Any]) -> ClientBackend:
    """What asks through a function of that form."""
    return ClientBackend(name, ((_SHAPE, acompletion),), fixed=_ONCE, quirks=_QUIRKS)
