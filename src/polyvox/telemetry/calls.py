"""Calls as lines of the log `polyvox.calls`: who was asked, how it ended, what it took. Never what was said."""

from __future__ import annotations

import logging
from typing import Any

from polyvox.telemetry import facts

log: logging.Logger = logging.getLogger("polyvox.calls")


class CallLog:
    """Hooks that log every call: its end at INFO, at ERROR when it failed; its start and its attempts at DEBUG.

    Every fact is an `extra` of its record, so that `JSONLines` makes it a field.

    Example:
        >>> import logging
        >>> from polyvox import Client
        >>> from polyvox.telemetry import CallLog
        >>> logging.getLogger("polyvox.calls").setLevel(logging.INFO)
        >>> with Client("demo", hooks=[CallLog()]) as client:
        ...     _ = client.ask("hello")
    """

    def on_call(self, info: Any) -> None:
        """A call begins."""
        if log.isEnabledFor(logging.DEBUG):
            log.debug("a call begins", extra=_who(info))

    def on_attempt(self, info: Any) -> None:
        """An attempt begins."""
        if log.isEnabledFor(logging.DEBUG):
            log.debug("an attempt begins", extra={**_who(info), "attempt": info.attempt})

    def on_done(self, info: Any) -> None:
        """A call ended, well or not."""
        failed = facts.outcome_of(info) == "error"
        if not log.isEnabledFor(logging.ERROR if failed else logging.INFO):
            return
        if failed:
            log.error("a call failed", extra=_ended(info))
        else:
            log.info("a call ended", extra=_ended(info))


def _who(info: Any) -> dict[str, Any]:
    provider, model = facts.place_of(info)
    said = {
        "call": info.call or None,
        "operation": facts.operation_of(info).name,
        "provider": provider,
        "model": model,
        "stream": info.stream,
    }
    return {name: value for name, value in said.items() if value is not None}


def _ended(info: Any) -> dict[str, Any]:
    """What is known; what is not is left out."""
    answer, usage = facts.answer_of(info), facts.usage_of(info)
    attempts = facts.attempts_of(info)
    cost = facts.cost_of(info)
    amount = None if cost is None else cost.amount
    error = info.error
    said = {
        **_who(info),
        "outcome": facts.outcome_of(info),
        "kind": getattr(error, "kind", None),
        "status": getattr(error, "status", None),
        "seconds": None if info.seconds is None else round(info.seconds, 6),
        "first_token": info.first_token,
        "attempts": len(attempts),
        "served": getattr(answer, "model", None),
        "finish_reason": getattr(answer, "finish_reason", None),
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cached_tokens": usage.cache_read,
        "reasoning_tokens": usage.reasoning,
        "cost_usd": None if amount is None or facts.given_again(info) else f"{amount:f}",
        "own_cache": info.own_cache,
        "losses": len(getattr(answer, "losses", ())) if answer is not None else None,
        "request_id": getattr(answer, "request_id", None) or getattr(error, "request_id", None),
    }
    return {name: value for name, value in said.items() if value is not None}
