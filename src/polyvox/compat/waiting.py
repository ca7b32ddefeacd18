"""Names that a document prints and this version does not have yet: whoever imports one is told what it waits for and
what works instead; whoever only asks whether it is there is told that it is not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import NoReturn

from polyvox.compat.errors import named
from polyvox.errors import UsageError


class NotYetError(UsageError, ImportError):
    """What was imported comes with something that this version does not have."""

    kind = "not_yet"


class NotThereError(UsageError, AttributeError):
    """The same, for who does not import it: `hasattr` is False."""

    kind = "not_yet"


def not_yet(name: str, waits: str, instead: str, *, imported: bool = True) -> UsageError:
    """The error for a name or a module: waits ends "NAME comes with ...", instead ends "use ... meanwhile"."""
    kind = NotYetError if imported else NotThereError
    return named(kind(f"{name} comes with {waits}, which this version does not have", hint=f"use {instead} meanwhile"))


def waiting(module: str, waits: str, instead: str | Mapping[str, str]) -> Callable[[str], NoReturn]:
    """The `__getattr__` of a module whose public names come later.

    Args:
        module: its name.
        waits: ends the sentence "NAME comes with ...".
        instead: ends the hint "use ... meanwhile", for any public name, or by name for those that are meant.
    """

    def __getattr__(name: str) -> NoReturn:  # noqa: N807 - it is one
        hint = instead if isinstance(instead, str) else instead.get(name)
        if name.startswith("_") or hint is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        raise not_yet(name, waits, hint, imported=_is_import(sys._getframe(1)))

    return __getattr__


def _is_import(asker: FrameType | None) -> bool:
    """Whether a name is read by `from ... import`, which would put its own words in the place of an AttributeError's;
    hasattr takes nothing else for no."""
    import dis  # for the few who come here

    while asker is not None and asker.f_code.co_name == "__getattr__":  # a package's, which passes the question on
        asker = asker.f_back
    return asker is not None and dis.opname[asker.f_code.co_code[asker.f_lasti]] == "IMPORT_FROM"
