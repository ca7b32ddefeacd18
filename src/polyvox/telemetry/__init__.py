"""What observers are told of calls: OpenTelemetry spans and metrics, Prometheus metrics, structured logs. Each is an
object for `Client(hooks=[...])` and loads on first touch; none of them knows how a call is made, or can harm one.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # the name type checkers know, without the price of loading typing
if TYPE_CHECKING:
    from typing import Any

    from polyvox.telemetry.calls import CallLog as CallLog
    from polyvox.telemetry.logs import JSONLines as JSONLines
    from polyvox.telemetry.logs import audit as audit
    from polyvox.telemetry.otel import OpenTelemetry as OpenTelemetry
    from polyvox.telemetry.prometheus import Prometheus as Prometheus

_HOME = {
    "audit": "polyvox.telemetry.logs",
    "CallLog": "polyvox.telemetry.calls",
    "JSONLines": "polyvox.telemetry.logs",
    "OpenTelemetry": "polyvox.telemetry.otel",
    "Prometheus": "polyvox.telemetry.prometheus",
}
__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the list


def __getattr__(name: str) -> Any:
    """Load a public name's room on first touch (PEP 562)."""
    room = _HOME.get(name)
    if room is None:
        raise AttributeError(f"module 'polyvox.telemetry' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(room), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
