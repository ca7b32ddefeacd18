"""Tools for testing programs that use language models, and for holding our own decoders to account. Each loads
on first touch: importing this starts nothing and loads no server.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # the name type checkers know, without the price of loading typing
if TYPE_CHECKING:
    from typing import Any

    from polyvox.testing.simulate import Asked as Asked
    from polyvox.testing.simulate import Counts as Counts
    from polyvox.testing.simulate import Numbers as Numbers
    from polyvox.testing.simulate import Simulator as Simulator
    from polyvox.transports.fault_plan import Fault as Fault

_HOME = {
    **dict.fromkeys(("Asked", "Counts", "Numbers", "Simulator"), "polyvox.testing.simulate"),
    "Fault": "polyvox.transports.fault_plan",
}
__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the list


def __getattr__(name: str) -> Any:
    """Load a public name's room on first touch (PEP 562)."""
    room = _HOME.get(name)
    if room is None:
        raise AttributeError(f"module 'polyvox.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(room), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
