"""Usage as one page that needs nothing else: plots and tables drawn here, no script, nothing loaded from anywhere.
The numbers are those of `figures`, and are in the page as JSON too."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from polyvox.ledger import UsageRow
from polyvox.usage import shown
from polyvox.usage.charts import COLOURS, Series, columns, legend, lines, text
from polyvox.usage.figures import Ask, Figures, Question, as_json, facts
from polyvox.usage.spans import periods
from polyvox.usage.style import STYLE

SPLITS = ("provider", "model", "user")
"""What the spend of each day is split by."""
MANY_MONTHS = 4
"""With more months than this the plots are of months, else of days."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class Sheet(Struct, frozen=True, kw_only=True):
    """All figures of a page: the table, its time line (by day or month), and that line split by each of SPLITS."""

    table: Figures
    unit: str
    line: Figures
    splits: tuple[Figures, ...]


def sheet(ask: Ask, question: Question) -> Sheet:
    """Ask for all that a page shows; through `polyvox.usage.read` it is of one moment."""
    months = ask(replace(question, by=("month",)))
    known = [key for key in (row.key["month"] for row in months.rows) if key]
    # Days are asked for only where there are few: of years they are many to add up.
    unit = "month" if known and len(periods(known[0], known[-1])) > MANY_MONTHS else "day"
    line = months if unit == "month" else ask(replace(question, by=("day",)))
    splits = tuple(ask(replace(question, by=(unit, word))) for word in SPLITS)
    return Sheet(table=ask(question), unit=unit, line=line, splits=splits)


def page(sheet: Sheet, made: datetime) -> str:
    """The page, as HTML. made is when; it is only said."""
    table = sheet.table
    body = [
        "<header><h1>Usage</h1>", *_about(table, made), "</header><main>",
        _section("total", "In all", _totals(table.total)),
    ]  # fmt: skip
    if table.total.calls:
        body += [_spend(sheet), *[_plotted(sheet, plot) for plot in _PLOTS]]
    words = ", ".join(table.question.by)
    body.append(_section("table", f"By {words}" if words else "All calls", _table(table)))
    data = {"usage": as_json(table), "line": as_json(sheet.line), "splits": [as_json(one) for one in sheet.splits]}
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>Usage</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#table">To the table</a>\n'
        + "\n".join(body)
        + f'\n</main>\n<script type="application/json" id="figures">{_data(data)}</script>\n</body>\n</html>\n'
    )


def _data(value: Any) -> str:
    """JSON that cannot end the element it is in: whatever HTML or a terminal would obey is an escape."""
    said = json.dumps(value, ensure_ascii=True)
    return said.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


# ---- parts ------------------------------------------------------------------------------------


def _section(id: str, title: str, inner: str) -> str:
    return f'<section id="{id}" aria-labelledby="{id}-title"><h2 id="{id}-title">{text(title)}</h2>{inner}</section>'


def _about(found: Figures, made: datetime) -> list[str]:
    question = found.question
    zone = str(question.zone)

    def said(at: datetime) -> str:
        return f"{at.astimezone(question.zone):%Y-%m-%d %H:%M}"

    since = said(question.since) if question.since else "the first call"
    until = said(question.until) if question.until else "now"
    lines = [f'<p class="soft">From {text(since)} to {text(until)}, days in {text(zone)}; made {said(made)}.</p>']
    for word, wanted in question.filters.items():
        values = [wanted] if wanted is None or isinstance(wanted, str) else list(wanted)
        names = " or ".join(f"<bdi>{text(value)}</bdi>" if value else "none" for value in values)
        lines.append(f'<p class="soft">Only {text(word)}: {names}</p>')
    return lines + [f'<p class="warn">{text(line)}</p>' for line in caveats(found.total)]


def caveats(total: UsageRow) -> list[str]:
    """What the sums do not say, as sentences."""
    cases = (
        (total.unknown_cost, "The cost of {} is unknown and in no sum"),
        (total.estimated, "The tokens of {} are an estimate"),
        (total.missing, "The tokens of {} are unknown and in no sum"),
        (total.open, "{} in flight: counted among the calls, in no other number"),
    )
    return [said.format(f"{number:,} call{'' if number == 1 else 's'}") + "." for number, said in cases if number]


class Figure(NamedTuple):
    """A number of a row: its field, what people call it, how it is shown."""

    field: str
    title: str
    shown: Callable[[Any], str]


FIGURES = (
    Figure("calls", "Calls", shown.count),
    Figure("cost", "Cost", shown.money),
    Figure("unknown_cost", "Unknown cost", shown.count),
    Figure("estimated", "Estimated", shown.count),
    Figure("input", "Input", shown.count),
    Figure("cache_read", "Cached", shown.count),
    Figure("cached_share", "Cached share", shown.share),
    Figure("output", "Output", shown.count),
    Figure("reasoning", "Reasoning", shown.count),
    Figure("errors", "Errors", shown.count),
    Figure("interrupted", "Interrupted", shown.count),
    Figure("cancelled", "Cancelled", shown.count),
    Figure("open", "In flight", shown.count),
    Figure("error_share", "Failed", shown.share),
    Figure("p50", "p50", shown.seconds),
    Figure("p95", "p95", shown.seconds),
    Figure("tokens_per_second", "Tokens/s", shown.count),
    Figure("own_cache", "From own cache", shown.count),
    Figure("saved", "Saved", shown.money),
)
"""All that the page shows of a row, in this order."""


def _totals(total: UsageRow) -> str:
    cells = _cells(total)
    boxes = (f"<div><dt>{figure.title}</dt><dd>{cells[figure.field]}</dd></div>" for figure in FIGURES)
    return f'<dl class="totals">{"".join(boxes)}</dl>'


def _cells(row: UsageRow) -> dict[str, str]:
    """Each of FIGURES for people, with the exact one beside it for programs."""
    exact = facts(row)
    cells = {}
    for figure in FIGURES:
        said = text(figure.shown(getattr(row, figure.field)))
        value = exact[figure.field]
        cells[figure.field] = said if value is None else f'<data value="{value}">{said}</data>'
    return cells


def _table(found: Figures) -> str:
    words = found.question.by
    names = "".join(f'<th scope="col" class="name">{text(word)}</th>' for word in words)
    titles = "".join(f'<th scope="col">{figure.title}</th>' for figure in FIGURES)
    body = ""
    for row in found.rows if words else ():
        keys = (text(row.key[word] or shown.UNKNOWN) for word in words)
        named = "".join(f'<th scope="row" class="name"><bdi>{key}</bdi></th>' for key in keys)
        body += f"<tr>{named}{_line(row)}</tr>"
    everything = f'<th scope="row" class="name" colspan="{len(words)}">all</th>' if words else ""
    rows = (
        f"<thead><tr>{names}{titles}</tr></thead><tbody>{body}</tbody>"
        f"<tfoot><tr>{everything}{_line(found.total)}</tr></tfoot>"
    )
    return _scrolled("All figures", rows)


def _line(row: UsageRow) -> str:
    return "".join(f"<td>{cell}</td>" for cell in _cells(row).values())


def _scrolled(label: str, rows: str) -> str:
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{text(label)}"><table>{rows}</table></div>'


def _numbers(unit: str, places: Sequence[str], series: Sequence[Series]) -> str:
    """The numbers of a plot as a table, for those who do not see it or want more of it."""
    head = "".join(f'<th scope="col"><bdi>{text(one.name)}</bdi></th>' for one in series)
    body = "".join(
        f'<tr><th scope="row" class="name">{text(place)}</th>'
        + "".join(f"<td>{text(one.said[at])}</td>" for one in series)
        + "</tr>"
        for at, place in enumerate(places)
    )
    rows = f'<thead><tr><th scope="col" class="name">{unit}</th>{head}</tr></thead><tbody>{body}</tbody>'
    return f"<details><summary>Numbers</summary>{_scrolled('Numbers of the plot', rows)}</details>"


# ---- plots ------------------------------------------------------------------------------------


class Plot(NamedTuple):
    """A plot over time: its id and title, whether it is of lines, how its numbers are shown, and its series."""

    id: str
    title: str
    drawn: Callable[..., str]
    shown: Callable[[Any], str]
    series: tuple[tuple[str, Callable[[UsageRow], Any]], ...]


def _uncached(row: UsageRow) -> int | None:
    return None if row.input is None else max(0, row.input - (row.cache_read or 0))


_PLOTS = (
    Plot("tokens", "Tokens", columns, shown.count, (
        ("input", _uncached),
        ("input from the provider's cache", lambda row: row.cache_read),
        ("output", lambda row: row.output),
    )),
    Plot("latency", "Latency", lines, shown.seconds, (
        ("p50", lambda row: row.p50),
        ("p95", lambda row: row.p95),
    )),
    Plot("errors", "Calls that did not end well", columns, shown.count, (
        ("errors", lambda row: row.errors),
        ("interrupted", lambda row: row.interrupted),
        ("cancelled", lambda row: row.cancelled),
    )),
    Plot("unknown", "Calls whose cost is unknown, and whose tokens are estimated or unknown", columns, shown.count, (
        ("unknown cost", lambda row: row.unknown_cost),
        ("estimated tokens", lambda row: row.estimated),
        ("unknown tokens", lambda row: row.missing),
    )),
)  # fmt: skip


def _places(sheet: Sheet) -> list[str]:
    known = [key for key in (row.key[sheet.unit] for row in sheet.line.rows) if key]
    return periods(known[0], known[-1]) if known else []


def _series(
    name: str, rows: Sequence[UsageRow | None], of: Callable[[UsageRow], Any], say: Callable[[Any], str]
) -> Series:
    values = [None if row is None else of(row) for row in rows]
    return Series(name, [None if value is None else float(value) for value in values], [say(value) for value in values])


def _plotted(sheet: Sheet, plot: Plot) -> str:
    places = _places(sheet)
    rows = {row.key[sheet.unit]: row for row in sheet.line.rows}
    at = [rows.get(place) for place in places]
    series = [_series(name, at, of, plot.shown) for name, of in plot.series]
    title = f"{plot.title} by {sheet.unit}"
    inner = plot.drawn(title, places, series, plot.shown) + legend(series) + _numbers(sheet.unit, places, series)
    return _section(plot.id, title, inner)


def _spend(sheet: Sheet) -> str:
    """What was spent, split by each of SPLITS: one shown at a time, chosen with the keyboard or the mouse."""
    places = _places(sheet)
    title = f"Spend by {sheet.unit}"
    choices, panels = [], []
    for number, (word, split) in enumerate(zip(SPLITS, sheet.splits, strict=True)):
        checked = " checked" if number == 0 else ""
        choices.append(
            f'<input class="choice" type="radio" name="by" id="by-{number}"{checked}>'
            f'<label for="by-{number}">by {word}</label>'
        )
        series = _split(split, sheet.unit, word, places)
        plot = columns(f"{title} and {word}", places, series, lambda value: shown.money(Decimal(str(value))))
        panels.append(
            f'<div class="panel panel-{number}">{plot}{legend(series)}{_numbers(sheet.unit, places, series)}</div>'
        )
    return _section("spend", title, "".join([*choices, *panels]))


def _split(found: Figures, unit: str, word: str, places: Sequence[str]) -> list[Series]:
    """A series for each of those that cost most, and one for all others."""
    by: dict[str | None, dict[str, UsageRow]] = {}
    for row in found.rows:
        by.setdefault(row.key[word], {})[row.key[unit] or ""] = row

    def weight(name: str | None) -> tuple[Decimal, int]:
        rows = by[name].values()
        return sum((row.cost or Decimal(0) for row in rows), Decimal(0)), sum(row.calls for row in rows)

    ranked = sorted(by, key=weight, reverse=True)
    alone = ranked if len(ranked) <= COLOURS else ranked[: COLOURS - 1]
    series = [_spent(name or f"no {word}", [by[name]], places) for name in alone]
    if len(alone) < len(ranked):
        rest = ranked[len(alone) :]
        series.append(_spent(f"{len(rest)} others", [by[name] for name in rest], places))
    return series


def _spent(name: str, rows: Sequence[dict[str, UsageRow]], places: Sequence[str]) -> Series:
    values: list[float | None] = []
    said: list[str] = []
    for place in places:
        here = [found[place] for found in rows if place in found]
        known = [row.cost for row in here if row.cost is not None]
        unknown = sum(row.unknown_cost for row in here)
        cost = sum(known, Decimal(0)) if known else None
        values.append(None if cost is None else float(cost))
        parts = [shown.money(cost)] if cost is not None or not unknown else []
        said.append(" + ".join([*parts, f"{unknown:,} of unknown cost"] if unknown else parts))
    return Series(name, values, said)
