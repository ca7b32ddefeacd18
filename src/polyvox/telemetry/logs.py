"""Log records as JSON lines, and the audit of what is logged at which level (`data/logs.toml`). It knows no logger but
by its name."""

from __future__ import annotations

import functools
import logging
import math
import sys
import traceback
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from polyvox.keys import MASK, is_secret_name
from polyvox.telemetry.texts import masked

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
_DATA = Path(__file__).parent.parent / "data" / "logs.toml"
_RECORD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}
_FIRST = ("time", "level", "logger", "message", "exception", "trace_id", "span_id")
# Counts of tokens are no secrets, though the word is in their names.
_COUNTS = ("_tokens", "first_token")


class Audited(Struct, frozen=True, forbid_unknown_fields=True):
    """What one logger says at one level, when, and with which values."""

    logger: str
    level: Level
    when: str
    values: str


@functools.cache
def audit() -> tuple[Audited, ...]:
    """Every logger of polyvox at every level it uses, with what it says there."""
    return msgspec.toml.decode(_DATA.read_bytes(), type=dict[str, tuple[Audited, ...]])["log"]


class JSONLines(logging.Formatter):
    """One JSON object a record, in one line: time (UTC), level, logger, message, and every `extra` as a field.

    Secrets are masked in all of it. An exception is told by its kind and place: what it says may quote a prompt, so its
    words are there with messages=True only. With OpenTelemetry in use, the ids of the current span are there too.

    Example:
        >>> import logging
        >>> handler = logging.StreamHandler()
        >>> handler.setFormatter(JSONLines())
        >>> logging.getLogger("polyvox").addHandler(handler)
        >>> logging.getLogger("polyvox").removeHandler(handler)
    """

    def __init__(self, *, messages: bool = False) -> None:
        super().__init__()
        self._messages = messages

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": masked(_message(record)),
        }
        for name, value in record.__dict__.items():
            if name not in _RECORD and not name.startswith("_"):
                said[f"extra_{name}" if name in _FIRST else name] = _safe(name, value)
        if record.exc_info and record.exc_info[1] is not None:
            said["exception"] = self._exception(record.exc_info[1])
        said.update(_span())
        return msgspec.json.encode(said).decode()

    def _exception(self, error: BaseException) -> dict[str, Any]:
        frames = traceback.extract_tb(error.__traceback__)
        told: dict[str, Any] = {
            "type": type(error).__name__,
            "at": [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames],
        }
        if self._messages:
            told["message"] = masked(str(error))
        return told


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit their template
        return str(record.msg)


def _safe(name: str, value: Any) -> Any:
    """A value JSON can say, with no secret in it."""
    if _secret(name):
        return MASK
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return {masked(str(key)): _safe(str(key), part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_safe("", part) for part in value]
    return masked(value if isinstance(value, str) else _shown(value))


@functools.lru_cache(maxsize=1024)
def _secret(name: str) -> bool:
    return is_secret_name(name) and not name.endswith(_COUNTS)


def _shown(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a value that cannot be shown must not lose its record
        return f"<{type(value).__name__}>"


def _span() -> dict[str, str]:
    """The ids of the span that is current, where the program uses OpenTelemetry at all."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
