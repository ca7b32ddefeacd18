"""Tells a caller how far many calls have come. A callback that fails harms none of them."""

from __future__ import annotations

import logging
from collections.abc import Callable

log: logging.Logger = logging.getLogger("polyvox.client")

Progress = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


def tell(on_progress: Progress | None, done: int, total: int) -> None:
    """Call it, where there is one; what it raises is logged and forgotten."""
    if on_progress is None:
        return
    try:
        on_progress(done, total)
    except Exception:
        log.warning("on_progress failed", exc_info=True)
