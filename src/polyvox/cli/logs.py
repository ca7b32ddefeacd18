"""The calls themselves: `polyvox logs` lists, searches, shows and follows what the ledger has, and switches writing
them down on and off. Nothing here writes a call."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from datetime import UTC, tzinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from polyvox.cli import output
from polyvox.cli.listing import HELP, Listing
from polyvox.cli.output import CommandLineError
from polyvox.cli.usage import choosing, chosen, ledger_option

if TYPE_CHECKING:
    from polyvox.ledger import CallRecord, History
    from polyvox.ledger.values import Privacy

_POLL = 0.5
"""Seconds between two looks at the ledger while following it."""
_SHORT = 18
"""Digits of an id in a table: the time and four of chance, which tell calls apart."""

_NAME = 32
"""Letters of a name in a table on a terminal."""

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_count_option = click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N",
                             help="How many calls at most.")  # fmt: skip


@click.group(cls=Listing, name="logs", context_settings=HELP)
def logs_command() -> None:
    """List the calls that were made, the latest first; search them, show one, follow them.

    Nothing is written down until it is switched on: polyvox logs on.
    """


@logs_command.command(name="list")
@_count_option
@click.option("--after", metavar="ID", help="Only calls before this one in time: the next page.")
@choosing
@_json_option
@output.debug_option
def list_calls(limit: int, after: str | None, as_json: bool, **said: Any) -> None:
    """List calls, the latest first."""
    _find(None, limit, after, as_json, said)


@logs_command.command(name="search")
@click.argument("words", nargs=-1, required=True)
@_count_option
@click.option("--after", metavar="ID", help="Only calls before this one in time: the next page.")
@choosing
@_json_option
@output.debug_option
def search_calls(words: tuple[str, ...], limit: int, after: str | None, as_json: bool, **said: Any) -> None:
    """List calls that have WORDS, as they stand, in what is kept of them: names, tags, errors, and the texts where
    those are kept."""
    _find(" ".join(words), limit, after, as_json, said)


def _find(text: str | None, limit: int, after: str | None, as_json: bool, said: dict[str, Any]) -> None:
    from polyvox.usage.switch import opened

    place = said.pop("place")
    since, until, zone, filters = chosen(said)
    with opened(place) as ledger:
        found = ledger.history.find(text, filters=filters, since=since, until=until, limit=limit, after=after)
    if as_json:
        output.data([_facts(record) for record in found])
    elif found:
        most = _NAME if output.is_terminal(sys.stdout) else None
        output.table(_HEADER, ([_cut(cell, most) for cell in _cells(record, zone)] for record in found))
    if not found:
        narrowed = text or since or until or filters or after
        output.note("no such calls" if narrowed else "no calls yet")


@logs_command.command(name="show")
@click.argument("id")
@click.option("--zone", default="UTC", metavar="NAME", help="The time zone of what is shown.")
@ledger_option
@_json_option
@output.debug_option
def show_call(id: str, zone: str, place: str | None, as_json: bool) -> None:
    """Show the call ID, or whose id begins so: all that is kept of it, its attempts, and its texts where kept."""
    from polyvox.usage.spans import zone_of
    from polyvox.usage.switch import opened

    shown_in = zone_of(zone)
    with opened(place) as ledger:
        record = ledger.history.get(id)
    if as_json:
        output.data(_facts(record))
        return
    for name, value in _lines(record, shown_in):
        output.line(f"{name + ':':<16} {' '.join(output.clean(value).split())}")
    if record.attempts:
        output.line("")
        output.table(_ATTEMPT_HEADER, (_attempt_cells(attempt) for attempt in record.attempts))
    for title, text in (("prompt", record.prompt), ("answer", record.answer)):
        if text is not None:
            output.line(f"\n{title}:\n{output.clean(_indented(text))}")
    if record.cut:
        output.note("the texts are longer than what is kept of them")


@logs_command.command(name="tail")
@click.option("-f", "--follow", is_flag=True, help="Go on with those that begin and end, until Ctrl-C.")
@_count_option
@choosing
@_json_option
@output.debug_option
def tail_calls(follow: bool, limit: int, as_json: bool, place: str | None, **said: Any) -> None:
    """Show the last calls, the latest last; with --json a line for each. A call that is followed comes when it begins
    and when it has ended."""
    from polyvox.usage.switch import opened

    since, until, zone, filters = chosen(said)
    if follow and until:
        raise CommandLineError("--follow has no end", "leave out --until or --follow")
    with opened(place) as ledger:
        news = ledger.history.tail()
        if follow:
            news.new()  # what is there already is listed; from here on it is followed
        found = ledger.history.find(filters=filters, since=since, until=until, limit=limit)[::-1]
        _show(found, zone, as_json, header=True)
        seen = {record.id: record.state for record in found}
        while follow:
            time.sleep(_POLL)
            fresh = [record for record in news.new() if seen.get(record.id) != record.state]
            seen.clear()
            if filters and fresh:
                fresh = _matching(ledger.history, fresh, filters)
            _show(fresh, zone, as_json)


def _matching(history: History, fresh: list[CallRecord], filters: dict[str, Any]) -> list[CallRecord]:
    """Those that the filters let through; what matches is the ledger's to say, as for a list."""
    from polyvox.database import moment

    first = moment(min(record.started for record in fresh))
    known = {record.id for record in history.find(filters=filters, since=first, limit=10_000)}
    return [record for record in fresh if record.id in known]


def _show(found: list[CallRecord], zone: tzinfo, as_json: bool, *, header: bool = False) -> None:
    if as_json:
        for record in found:
            output.json_line(json.dumps(_facts(record), ensure_ascii=False))
        return
    rows = [_cells(record, zone) for record in found]
    if header:
        output.line(_row(_HEADER))
    for row in rows:
        output.line(_row([_cut(cell, None) or "-" for cell in row]))


_WIDTHS = (18, 19, 28, 11, 7, 7, 11, 8, 0)


def _row(cells: Iterable[str]) -> str:
    """Cells in columns that were fixed before all rows are known."""
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


# ---- on and off -------------------------------------------------------------------------------


@logs_command.command(name="on")
@click.option("--texts", "texts", is_flag=True, help="Keep prompts and answers too, without secrets.")
@click.option("--hashed", is_flag=True, help="Keep a keyed hash of each prompt, which tells equal ones.")
@click.option("--ledger", "place", metavar="PATH|URL", help="Write to this ledger from now on.")
@output.debug_option
def switch_on(texts: bool, hashed: bool, place: str | None) -> None:
    """Write down every call of this command from now on: what was asked of whom, what it used and cost.

    Prompts and answers are not kept unless --texts says so.
    """
    from polyvox.usage.switch import switch, turn

    if texts and hashed:
        raise CommandLineError("--texts and --hashed exclude each other", "say one of them")
    kept: Privacy = "full" if texts else "hashed" if hashed else "none"
    path = turn(True, texts=kept, database=place)
    output.plain(f"calls are written down in {_address(switch().place)}, {_KEPT[kept]}")
    output.plain(f"set in {path}")


_KEPT = {
    "none": "without their texts",
    "hashed": "with a hash of each prompt",
    "full": "with their prompts and answers",
}


@logs_command.command(name="off")
@output.debug_option
def switch_off() -> None:
    """Write no calls down from now on; what is written stays."""
    from polyvox.usage.switch import switch, turn

    path = turn(False)
    output.plain(f"calls are no longer written down; those in {_address(switch().place)} stay")
    output.plain(f"set in {path}")


@logs_command.command(name="path")
@output.debug_option
def show_path() -> None:
    """Print where the ledger is, or would be."""
    from polyvox.usage.switch import switch

    output.line(_address(switch().place))


def _address(place: str) -> str:
    """A place without its password; a file as its path."""
    from polyvox.database.address import address_of

    address = address_of(place)
    return str(address.path or address)


@logs_command.command(name="status")
@ledger_option
@_json_option
@output.debug_option
def show_status(place: str | None, as_json: bool) -> None:
    """Say whether calls are written down, where, what is kept of them, and how many there are."""
    from polyvox.usage.switch import switch

    said = switch()
    facts: dict[str, Any] = {"on": said.enabled, "texts": said.texts, "ledger": _address(place or said.place)}
    facts |= _contents(place or said.place)
    if as_json:
        output.data(facts)
        return
    facts["on"] = "yes" if said.enabled else "no; switch it on with: polyvox logs on"
    facts["there"] = "yes" if facts["there"] else "not yet"
    for name, value in facts.items():
        if value is not None:
            output.line(f"{name + ':':<10} {value}")


def _contents(place: str) -> dict[str, Any]:
    """What is in a ledger, where there is one."""
    from polyvox.database.address import address_of
    from polyvox.usage.figures import Question, figures
    from polyvox.usage.switch import opened

    path = address_of(place).path
    if path is not None and not (path.is_file() and path.stat().st_size):
        return {"there": False}
    with opened(place) as ledger:
        total = figures(ledger.history, Question()).total
        oldest = ledger.history.day_of_oldest()
        health = ledger.health()
    return {
        "there": True,
        "calls": total.calls,
        "open": total.open,
        "oldest": oldest.isoformat() if oldest else None,
        "bytes": path.stat().st_size if path is not None else None,
        "state": health.state,
        "why": health.why,
    }


# ---- how a call is shown ----------------------------------------------------------------------

_HEADER = ("ID", "BEGAN", "MODEL", "STATE", "IN", "OUT", "COST", "TOOK", "WHO")


def _cells(record: CallRecord, zone: tzinfo) -> tuple[str | None, ...]:
    from polyvox.usage.shown import count, money, seconds

    who = " ".join(filter(None, (record.user, record.project, *(f"#{tag}" for tag in record.tags))))
    return (
        record.id[:_SHORT],
        _moment(record.started, zone),
        "/".join(filter(None, (record.provider, record.model))) or record.deployment or None,
        record.error_kind if record.state == "error" and record.error_kind else record.state,
        count(record.usage.input),
        count(record.usage.output),
        money(record.cost),
        seconds(None if record.duration is None else record.duration / 1_000_000),
        who or None,
    )


def _cut(cell: str | None, most: int | None) -> str | None:
    """A cell on one line, no longer than a terminal can bear."""
    text = None if cell is None else " ".join(output.clean(cell).split())
    return text if text is None or most is None or len(text) <= most else f"{text[: most - 1]}…"


def _moment(started: int, zone: tzinfo, *, exact: bool = False) -> str:
    from polyvox.database import moment

    return (
        moment(started).astimezone(zone).isoformat(" ", "microseconds" if exact else "seconds")[: 26 if exact else 19]
    )


def _facts(record: CallRecord) -> dict[str, Any]:
    """A call as JSON has it: what is unknown is not there, money is text, lengths are microseconds, `time` is when it
    began."""
    import msgspec

    from polyvox.database import moment

    told: dict[str, Any] = _plain(msgspec.to_builtins(record, builtin_types=(Decimal,)))
    for name in ("prompt", "answer"):
        if name in told and not record.cut:
            told[name] = msgspec.json.decode(told[name])
    time_of_it = moment(record.started).astimezone(UTC).isoformat(timespec="microseconds")
    return {"id": told.pop("id"), "time": time_of_it, **told}


def _plain(value: Any) -> Any:
    """A value with money as text, written out."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return f"{value:f}" if isinstance(value, Decimal) else value


def _lines(record: CallRecord, zone: tzinfo) -> Iterable[tuple[str, str]]:
    """What is known of a call, a line for each."""
    from polyvox.usage.shown import UNKNOWN, count, money, seconds

    def length(value: int | None) -> str:
        return seconds(None if value is None else value / 1_000_000)

    usage = record.usage
    tokens = (("input", usage.input), ("from its cache", usage.cache_read), ("to its cache", usage.cache_write),
              ("output", usage.output), ("reasoning", usage.reasoning))  # fmt: skip
    how = ", ".join(f"{name} {value}" for name, value in (record.cost_how or {}).items())
    everything = (
        ("id", record.id),
        ("began", f"{_moment(record.started, zone, exact=True)} {zone}"),
        ("state", f"{record.state} ({record.error_kind})" if record.error_kind else record.state),
        ("error", record.error_message),
        ("operation", f"{record.operation}, streamed" if record.stream else record.operation),
        ("deployment", record.deployment),
        ("provider", record.provider),
        ("model", record.model if record.model == record.asked else f"{record.model} (asked for {record.asked})"),
        ("finish", record.finish_reason),
        ("tokens", ", ".join(f"{name} {count(value)}" for name, value in tokens if value is not None) or UNKNOWN),
        ("tokens from", None if usage.source == "provider" else usage.source),
        ("cost", "unknown" if record.cost is None else f"${record.cost:f}"),
        ("cost from", f"{record.cost_source}{f' ({how})' if how else ''}" if record.cost is not None else None),
        ("own cache", f"yes; saved {money(record.saved)}" if record.own_cache else None),
        ("first token", length(record.first_token)),
        ("took", length(record.duration)),
        ("losses", str(record.losses) if record.losses else None),
        ("user", record.user), ("project", record.project), ("session", record.session), ("tenant", record.tenant),
        ("key", record.key),
        ("tags", ", ".join(record.tags)),
        ("request id", record.request_id),
        ("prompt hash", record.prompt_hash),
    )  # fmt: skip
    return ((name, value) for name, value in everything if value)


_ATTEMPT_HEADER = ("TRY", "DEPLOYMENT", "OUTCOME", "STATUS", "TOOK", "WAITED", "COST", "MESSAGE")


def _attempt_cells(attempt: Any) -> tuple[Any, ...]:
    from polyvox.usage.shown import money, seconds

    took, waited = (None if each is None else each / 1_000_000 for each in (attempt.duration, attempt.waited))
    message = None if attempt.message is None else " ".join(attempt.message.split())
    return (attempt.number, attempt.deployment, attempt.outcome, attempt.status, seconds(took), seconds(waited),
            money(attempt.cost), message)  # fmt: skip


def _indented(text: str) -> str:
    """A kept text as JSON a person can read; as it is where only a part was kept."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
