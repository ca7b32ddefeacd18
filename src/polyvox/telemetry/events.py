"""OpenTelemetry's events of calls, by the names of the GenAI conventions: a failure, and on request all of an
inference. It knows no span but the one an event belongs to, and nothing of what was said but what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.json import decode

from polyvox.telemetry.names import names

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider


class Failure(NamedTuple):
    """What a call failed with: the name of the class; its words only where content is told, because they may quote
    what was asked."""

    kind: str
    words: str | None = None


def failure_of(error: BaseException, words: str | None) -> Failure:
    """The failure that an error is."""
    kind = type(error)
    return Failure(f"{kind.__module__}.{kind.__qualname__}", words)


class Events:
    """What tells them; nothing comes of it where the program gave OpenTelemetry no use for logs."""

    def __init__(self, provider: LoggerProvider | None) -> None:
        # What OpenTelemetry calls events has no other place in its API yet; the underscore says that it may move.
        from opentelemetry import _logs

        self._record, self._severity = _logs.LogRecord, _logs.SeverityNumber
        self._emit = _logs.get_logger("polyvox", logger_provider=provider).emit
        self._called = names().events

    def failed(self, failure: Failure, who: Mapping[str, Any], at: int, context: Any) -> None:
        """A call failed, at so many nanoseconds since the epoch; who are the attributes that say whose call it was."""
        said = {**who, "exception.type": failure.kind}
        if failure.words is not None:
            said["exception.message"] = failure.words
        self._tell("exception", self._severity.WARN, said, at, context)

    def details(self, said: Mapping[str, Any], content: Mapping[str, str], at: int, context: Any) -> None:
        """All that is known of an inference; content is JSON by attribute, and is told as the values it says."""
        held = {name: decode(text) for name, text in content.items()}
        self._tell("details", self._severity.INFO, {**said, **held}, at, context)

    def _tell(self, event: str, severity: Any, said: dict[str, Any], at: int, context: Any) -> None:
        self._emit(
            self._record(
                timestamp=at,
                context=context,
                severity_number=severity,
                severity_text=severity.name,
                event_name=self._called[event],
                attributes=said,
            )
        )
