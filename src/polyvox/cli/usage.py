"""What was used and what it cost: `polyvox usage`, as a table with bars, JSON, CSV or a page. The figures are those of
`polyvox.usage`; here they are only shown."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from polyvox.cli import output
from polyvox.cli.output import CommandLineError
from polyvox.errors import ConfigError

if TYPE_CHECKING:
    from polyvox.ledger import UsageRow
    from polyvox.usage import Figures

Command = TypeVar("Command", bound=Callable[..., Any])

FILTERS = (
    "model", "provider", "deployment", "operation", "state", "error", "user", "project", "session", "tenant", "key",
    "tag",
)  # fmt: skip
"""The words one can filter by; each is an option."""

ledger_option: Final = click.option(
    "--ledger", "place", metavar="PATH|URL", help="Which ledger; else the configured one."
)


def choosing(command: Command) -> Command:
    """The options that choose calls, and the ledger they are in."""
    for word in reversed(FILTERS):
        say = f'Only calls with this {word}; may be repeated, "" is none.' if word != "tag" else "Only calls so tagged."
        command = click.option(f"--{word}", word, multiple=True, metavar="WORD", help=say)(command)
    for option in reversed((
        click.option("--since", metavar="TIME", help="From this time: 7d, 24h, today, week, month, 2026-11-01."),
        click.option("--until", metavar="TIME", help="Up to this time, without it."),
        click.option("--zone", default="UTC", metavar="NAME",
                     help="Where days begin, such as Europe/Berlin; else UTC."),
        ledger_option,
    )):  # fmt: skip
        command = option(command)
    return command


class Chosen(NamedTuple):
    """Which calls are meant, from the options of `choosing`."""

    since: datetime | None
    until: datetime | None
    zone: tzinfo
    filters: dict[str, Any]


def chosen(said: dict[str, Any]) -> Chosen:
    """Read the options of `choosing`. What is empty is what calls do not have."""
    from polyvox.usage.spans import moment_of, zone_of

    zone, now = zone_of(said["zone"]), datetime.now(UTC)
    since, until = (moment_of(said[name], now, zone) if said[name] else None for name in ("since", "until"))
    if since and until and since >= until:
        raise CommandLineError("--since is not before --until", "nothing is between them")
    named = ("model", "provider", "deployment", "operation")  # these columns have "", not NULL
    filters = {
        word: [value if value or word in named else None for value in said[word]] for word in FILTERS if said[word]
    }
    return Chosen(since, until, zone, filters)


@click.command(name="usage")
@click.option("--by", "words", multiple=True, metavar="WORD",
              help="Group by model, provider, day, hour, month, user, project, session, tag, key, deployment, "
                   "operation, state, error, tenant or asked; may be repeated. By model unless said.")  # fmt: skip
@choosing
@click.option("--json", "as_json", is_flag=True, help="Print JSON: exact numbers, null for what is unknown.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with the same numbers.")
@click.option("--html", "file", metavar="FILE", help="Write a page with plots to FILE; it needs nothing else.")
@output.debug_option
def usage_command(words: tuple[str, ...], as_json: bool, as_csv: bool, file: str | None, place: str | None,
                  **said: Any) -> None:  # fmt: skip
    """Show what was used and what it cost.

    Costs are in USD and add up what is known; calls of unknown cost are counted apart. A call with
    several tags counts under each, and once in the total.
    """
    if as_json and as_csv:
        raise CommandLineError("--json and --csv exclude each other", "run it twice")
    from polyvox.usage import Question, read
    from polyvox.usage.switch import opened

    since, until, zone, filters = chosen(said)
    by = tuple(dict.fromkeys(word.strip() for each in words for word in each.split(",") if word.strip())) or ("model",)
    question = Question(by=by, since=since, until=until, filters=filters, zone=zone)
    if file is not None:
        _check_file(file)
    with opened(place) as ledger:
        if file is None:
            found = read(ledger.history, lambda ask: ask(question))
        else:
            from polyvox.usage.page import page, sheet

            whole = read(ledger.history, lambda ask: sheet(ask, question))
            found = whole.table
            _write(Path(file), page(whole, datetime.now(UTC)))
    _print(found, as_json, as_csv, quiet=file is not None)
    if not found.total.calls:
        output.note("no calls there" + (" in that time and of that kind" if since or until or filters else " yet"))
    elif file is None and not as_json and not as_csv:
        from polyvox.usage.page import caveats

        for caveat in caveats(found.total):
            output.note(caveat)


def _print(found: Figures, as_json: bool, as_csv: bool, *, quiet: bool) -> None:
    from polyvox.usage import as_csv as csv_of
    from polyvox.usage import as_json as json_of

    if as_json:
        output.data(json_of(found))
    elif as_csv:
        output.line(csv_of(found).removesuffix("\n"))
    elif not quiet and found.total.calls:
        for line in table(found, _screen()):
            click.echo(line, color=output.colour(sys.stdout))


# ---- the page ---------------------------------------------------------------------------------


def _check_file(file: str) -> None:
    """Say what is wrong with a place before anything is asked."""
    path = Path(file)
    if path.is_dir():
        raise CommandLineError(f"{file} is a folder", "name a file in it, such as usage.html")
    if not path.absolute().parent.is_dir():
        raise CommandLineError(f"there is no folder {path.absolute().parent}", "make it first")


def _write(path: Path, text: str) -> None:
    from polyvox.keys import write_atomically

    mode = 0o600  # it tells who asked what for how much; whom else to show it is for its owner to say
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode & 0o777
    try:
        write_atomically(path, text.encode("utf-8", "replace"), mode)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", hint="name another file") from None
    output.note(f"the page is in {path}")


# ---- the table --------------------------------------------------------------------------------

_BAR, _LEAST_BAR, _MOST_BAR = 20, 8, 40
_NAME = 16  # cells that a name keeps however narrow the terminal is, as the bar keeps its least
_EIGHTHS = " ▏▎▍▌▋▊▉"


class Screen(NamedTuple):
    """What is written to: its width in cells (None where nobody counts them), whether it has colours, and whether it
    can say blocks."""

    width: int | None
    colours: bool
    blocks: bool


class Column(NamedTuple):
    """A number in the table. Where there is no room the one with the highest rank goes first; one that counts something
    is left out where there is none of it."""

    title: str
    rank: int
    cell: Callable[[UsageRow], str]
    counts: Callable[[UsageRow], int] | None = None


def _columns() -> tuple[Column, ...]:
    from polyvox.usage.shown import count, money, seconds, share

    return (
        Column("CALLS", 0, lambda row: count(row.calls)),
        Column("COST", 0, lambda row: money(row.cost)),
        Column("UNPRICED", 1, lambda row: count(row.unknown_cost), lambda row: row.unknown_cost),
        Column("FAILED", 2, lambda row: count(row.errors + row.interrupted)),
        Column("INPUT", 3, lambda row: count(row.input)),
        Column("CACHED", 5, lambda row: share(row.cached_share)),
        Column("OUTPUT", 3, lambda row: count(row.output)),
        Column("ESTIMATED", 8, lambda row: count(row.estimated), lambda row: row.estimated),
        Column("P50", 6, lambda row: seconds(row.p50)),
        Column("P95", 4, lambda row: seconds(row.p95)),
        Column("TOK/S", 7, lambda row: count(row.tokens_per_second)),
    )


def _screen() -> Screen:
    blocks = True
    try:
        "█▏".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        blocks = False
    wide = shutil.get_terminal_size().columns if output.is_terminal(sys.stdout) or "COLUMNS" in os.environ else None
    return Screen(wide, output.colour(sys.stdout), blocks)


def table(found: Figures, screen: Screen) -> Iterator[str]:
    """The lines of a table: a row for each key with a bar of its cost, or of its calls where no cost is known, then
    the total. It is no wider than the screen: columns are left out, then names are cut."""
    words = found.question.by
    names = [[_fit(row.key[word]) for word in words] for row in found.rows]
    heads = [word.upper() for word in words]
    total = ["total", *([""] * (len(words) - 1))]
    picked = [c for c in _columns() if c.counts is None or any(c.counts(row) for row in found.rows)]
    wide = [max(map(_cells, each)) for each in zip(heads, total, *names, strict=True)]
    cells = {column: [column.cell(row) for row in (*found.rows, found.total)] for column in picked}
    sizes = {column: max(len(column.title), *map(len, cells[column])) for column in picked}
    room = _BAR
    if screen.width is not None:
        wide, picked = _narrowed(wide, picked, sizes, screen.width - _LEAST_BAR - 2)
        room = screen.width - sum(wide) - sum(sizes[c] for c in picked) - 2 * (len(wide) + len(picked))

    def line(keys: Sequence[str], numbers: Sequence[str], bar: str = "") -> str:
        shown = [_padded(key, width) for key, width in zip(keys, wide, strict=True)]
        shown += [number.rjust(sizes[column]) for number, column in zip(numbers, picked, strict=True)]
        return "  ".join([*shown, bar] if bar else shown).rstrip()

    def dim(text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m" if screen.colours else text

    bars = _bars(found, min(room, _MOST_BAR), screen) if room >= _LEAST_BAR else [""] * len(names)
    yield dim(line(heads, [column.title for column in picked]))
    for at, keys in enumerate(names):
        yield line(keys, [cells[column][at] for column in picked], bars[at])
    yield dim(line(total, [cells[column][-1] for column in picked]))


def _narrowed(
    wide: list[int], picked: list[Column], sizes: dict[Column, int], most: int
) -> tuple[list[int], list[Column]]:
    """Widths of names, and columns, that fit: names are cut to what they keep at least before a column goes."""

    def over() -> int:
        return sum(wide) + sum(sizes[c] for c in picked) + 2 * (len(wide) + len(picked) - 1) - most

    wide, picked = list(wide), list(picked)
    while over() > 0:
        longest = max(range(len(wide)), key=wide.__getitem__)
        if wide[longest] > _NAME:
            wide[longest] = max(_NAME, wide[longest] - over())
        elif picked and max(column.rank for column in picked) > 0:
            picked.remove(max(picked, key=lambda column: column.rank))
        else:
            break
    return wide, picked


def _bars(found: Figures, width: int, screen: Screen) -> list[str]:
    of_cost = any(row.cost for row in found.rows)
    values = [float(row.cost or 0) if of_cost else float(row.calls) for row in found.rows]
    most = max(values, default=0.0) or 1.0
    return [_painted(_bar(value / most * width, screen.blocks), screen) for value in values]


def _bar(length: float, blocks: bool) -> str:
    """A bar so many cells long; what is more than nothing is seen."""
    if length <= 0:
        return ""
    if not blocks:
        return "#" * max(1, round(length))
    eighths = max(1, round(length * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _painted(bar: str, screen: Screen) -> str:
    return f"\x1b[36m{bar}\x1b[0m" if bar and screen.colours else bar


def _fit(name: str | None) -> str:
    return "-" if name is None else " ".join(output.clean(name).split()) or "-"


def _cells(text: str) -> int:
    """How many cells of a terminal a text takes."""
    return sum(_width(letter) for letter in text)


def _width(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _padded(text: str, width: int) -> str:
    if _cells(text) <= width:
        return text + " " * (width - _cells(text))
    kept, taken = "", 0
    for letter in text:
        if taken + _width(letter) > width - 1:
            break
        kept, taken = kept + letter, taken + _width(letter)
    return f"{kept}…" + " " * (width - taken - 1)
