"""Plots as inline SVG: stacked columns and lines over days or months. Pure: numbers and names in, markup out, every
text of others escaped; colours and sizes of type are the page's."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

WIDTH, HEIGHT = 860, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 14, 26
COLOURS = 8
"""How many series have a colour of their own; the page has a class for each: s0 to s7."""

_LABELS = 10
_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")

Format: TypeAlias = Callable[[float], str]


class Series(NamedTuple):
    """One colour of a plot: its name, a value for each place (None where nobody knows), and what to say of each."""

    name: str
    values: Sequence[float | None]
    said: Sequence[str]


def text(said: str) -> str:
    """A text of anybody's, fit for HTML between tags and in quotes; what would hide or turn other text is shown as a
    replacement mark."""
    return html.escape(_HIDDEN.sub("\N{REPLACEMENT CHARACTER}", said))


def columns(title: str, places: Sequence[str], series: Sequence[Series], shown: Format) -> str:
    """A column for each place, with the series stacked in it."""
    sums = [sum(one.values[at] or 0.0 for one in series) for at in range(len(places))]
    top, ticks = _ticks(max(sums, default=0.0))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(places))
    width = max(1.0, min(48.0, step * 0.8))
    marks: list[str] = []
    for at, place in enumerate(places):
        x, below = LEFT + step * at + (step - width) / 2, 0.0
        for number, one in enumerate(series):
            value = one.values[at]
            if not value:
                continue
            y, base = _y(below + value, top), _y(below, top)
            below += value
            told = text(f"{place} · {one.name}: {one.said[at]}")
            marks.append(
                f'<rect class="s{number % COLOURS}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                f'height="{max(base - y, 0.5):.1f}"><title>{told}</title></rect>'
            )
    return _plot(title, places, marks, ticks, top, shown)


def lines(title: str, places: Sequence[str], series: Sequence[Series], shown: Format) -> str:
    """A line for each series, broken where nothing is known."""
    known = [value for one in series for value in one.values if value is not None]
    top, ticks = _ticks(max(known, default=0.0))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(places))
    marks: list[str] = []
    for number, one in enumerate(series):
        path, pen = [], "M"
        for at, value in enumerate(one.values):
            if value is None:
                pen = "M"
                continue
            x, y = LEFT + step * (at + 0.5), _y(value, top)
            path.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
            marks.append(
                f'<circle class="s{number % COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">'
                f"<title>{text(f'{places[at]} · {one.name}: {one.said[at]}')}</title></circle>"
            )
        marks.append(f'<path class="l{number % COLOURS}" d="{" ".join(path)}"/>' if path else "")
    return _plot(title, places, marks, ticks, top, shown)


def legend(series: Sequence[Series]) -> str:
    """Which colour is what."""
    items = "".join(
        f'<li><svg class="key" viewBox="0 0 10 10" aria-hidden="true"><rect class="s{number % COLOURS}" width="10" '
        f'height="10" rx="2"/></svg><bdi>{text(one.name)}</bdi></li>'
        for number, one in enumerate(series)
    )
    return f'<ul class="legend">{items}</ul>'


def _plot(
    title: str, places: Sequence[str], marks: Sequence[str], ticks: Sequence[float], top: float, shown: Format
) -> str:
    parts = [f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(title)}">']
    for tick in ticks:
        y = _y(tick, top)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text(shown(tick))}</text>')
    step = (WIDTH - LEFT - RIGHT) / max(1, len(places))
    every = max(1, math.ceil(len(places) / _LABELS))
    for at in range(0, len(places), every):
        x = LEFT + step * (at + 0.5)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{text(places[at])}</text>')
    return "".join([*parts, *marks, "</svg>"])


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top


def _ticks(most: float) -> tuple[float, list[float]]:
    """The top of an axis and its marks, in steps of 1, 2 or 5 times a power of ten.

    >>> _ticks(7.3)
    (8.0, [0.0, 2.0, 4.0, 6.0, 8.0])
    """
    if not most > 1e-15:
        return 1.0, [0.0]
    rough = most / 4
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999999)
    count = math.ceil(most / size - 1e-9)
    # Through text, so that 3 x 0.1 is 0.3.
    marks = [float(f"{number * size:.12g}") for number in range(count + 1)]
    return marks[-1], marks
