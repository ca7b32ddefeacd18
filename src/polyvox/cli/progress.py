"""How far a download is, on standard error: a line that is drawn anew for a person, plain lines for a log. It knows
no server; what is told and when is the caller's business.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable

from polyvox.cli import output

_REDRAW = 0.1  # seconds between two drawings of a bar
_WIDTH = 24
_UNITS = ("B", "kB", "MB", "GB", "TB")


def size(count: int | None) -> str:
    """Bytes as people read them, in powers of 1000; "?" for what is not known."""
    if count is None:
        return "?"
    value, unit = float(count), _UNITS[0]
    for unit in _UNITS:
        if value < 999.95 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


class Progress:
    """Pieces that come one after the other, each with its bytes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._live = output.is_terminal(sys.stderr)
        self._piece: str | None = None
        self._begun = (0.0, 0)  # when the piece was first told, and how much of it was there then
        self._drawn = ""
        self._next = 0.0

    def says(self, piece: str, completed: int | None = None, total: int | None = None) -> None:
        """A piece is so far; without a total it is only a word."""
        piece = output.clean(piece)
        if piece != self._piece:
            self.ends()
            self._piece, self._begun, self._next = piece, (self._clock(), completed or 0), 0.0
            if not self._live:
                output.plain(self._line(piece, None, total))
        if self._live and (self._clock() >= self._next or completed == total):
            self._next = self._clock() + _REDRAW
            self._draw(self._line(piece, completed, total))

    def ends(self) -> None:
        """Nothing more is said of the piece that came last: what comes next has a line of its own."""
        if self._drawn:
            self._drawn = ""
            _write("\n")
        self._piece = None

    def _line(self, piece: str, completed: int | None, total: int | None) -> str:
        if total is None:
            return piece
        return f"{piece}: {size(total)}" if completed is None else f"{piece}  {self._bar(completed, total)}"

    def _bar(self, completed: int, total: int) -> str:
        share = min(1.0, completed / total) if total else 1.0
        full = int(share * _WIDTH)
        since, had = self._begun
        took = self._clock() - since
        rate = f"  {size(int((completed - had) / took))}/s" if took > 1 and completed > had else ""
        return f"{share:4.0%} [{'#' * full}{'.' * (_WIDTH - full)}] {size(completed)} of {size(total)}{rate}"

    def _draw(self, text: str) -> None:
        text = text[: max(20, shutil.get_terminal_size().columns - 1)]
        _write("\r" + text.ljust(len(self._drawn)))
        self._drawn = text


def _write(text: str) -> None:
    # Nobody listening is no reason to stop a download.
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()
