"""Secrets masked in log records: ours, and those of the HTTP and provider libraries a program may use."""

from __future__ import annotations

import logging

from polyvox.keys.secret import redact

_OURS = {"polyvox"}
_HTTP = {"aiohttp", "httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "requests"}
_FAMILIES = _OURS | _HTTP | {"botocore", "openai", "anthropic"}
_RECORD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime"}


class RedactingFilter(logging.Filter):
    """Masks secrets in what a record says, in its traceback and in its extra fields."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record where it must be; every record passes."""
        try:
            said = record.getMessage()
        except Exception:  # noqa: BLE001 - a record whose arguments do not fit would be printed raw by its handler
            said = f"(a log message that cannot be formatted) {record.msg}"
            record.msg, record.args = redact(said), ()
        else:
            safe = redact(said)
            if safe != said:
                record.msg, record.args = safe, ()
        if record.exc_info and record.exc_info[0] is not None:
            trace = logging.Formatter().formatException(record.exc_info)
            safe = redact(trace)
            if safe != trace:
                record.exc_text, record.exc_info = safe, None
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        for name, value in record.__dict__.items():
            if isinstance(value, str) and name not in _RECORD:
                record.__dict__[name] = redact(value)
        return True


_filter = RedactingFilter()
_silent = logging.NullHandler()
_loggers_seen = 0


def install_redaction() -> None:
    """Put the filter on our loggers and those of HTTP and provider libraries.

    A logger's filters do not reach its children, so each gets its own; a call after new loggers
    appeared catches up, any other call costs one comparison.
    """
    global _loggers_seen
    manager = logging.Logger.manager
    if len(manager.loggerDict) == _loggers_seen:
        return
    for family in _FAMILIES:
        logging.getLogger(family)
    # A library says nothing unless the program listens; Python would print warnings of its own accord.
    logging.getLogger("polyvox").addHandler(_silent)
    for name in list(manager.loggerDict):
        if name.split(".", 1)[0] in _FAMILIES:
            logging.getLogger(name).addFilter(_filter)  # adding it twice adds it once
    _loggers_seen = len(manager.loggerDict)
