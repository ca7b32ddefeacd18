"""A provider on this machine to test programs against: `polyvox simulate`. What it answers and how it breaks is
the simulator's business.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import click

from polyvox.cli import output
from polyvox.cli.output import CommandLineError

if TYPE_CHECKING:
    from polyvox.testing import Asked, Counts, Simulator

# A wait without an end does not hear Ctrl-C everywhere.
_LOOK_UP = 0.5


@click.command(name="simulate")
@click.option("--port", type=int, default=8089, show_default=True, help="Where to listen; 0 for any port that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--replay", metavar="FILE", help="Answer from a recording instead of the offline model.")
@click.option(
    "--latency",
    default="0",
    metavar="SECONDS",
    help="Before each answer: 0.2, 0.1..0.5, lognormal(0.4,0.5) or exponential(0.3).",
)
@click.option("--token-rate", type=float, metavar="N", help="Tokens per second in streams.")
@click.option("--rpm", type=int, metavar="N", help="Requests a minute.")
@click.option("--tpm", type=int, metavar="N", help="Tokens a minute.")
@click.option("--concurrent", type=int, metavar="N", help="Answers at a time.")
@click.option("--plan", metavar="FILE", help="A plan of faults, TOML or JSON.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is left to chance.")
@click.option("--model", "models", multiple=True, metavar="NAME", help="A model it knows; may be repeated. Else any.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="KEY|@env:NAME",
    help="A key it accepts; may be repeated. Else any, where the provider wants one.",
)
@click.option("--any-key", is_flag=True, help="Accept any key, and no key at all.")
@click.option("--log", is_flag=True, help="Say a line on standard error for each request.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts at the end as a line of JSON.")
@output.debug_option
def simulate_command(
    models: tuple[str, ...],
    keys: tuple[str, ...],
    plan: str | None,
    any_key: bool,
    log: bool,
    as_json: bool,
    **said: Any,
) -> None:
    """Be a provider on this machine, for testing programs: every dialect, any model, no network, no cost.

    \b
      polyvox simulate --latency 'lognormal(0.4,0.5)' --token-rate 80
      polyvox simulate --rpm 10 --plan faults.toml --log
      polyvox simulate --replay cassette.jsonl

    The first line on standard output is the address. Ctrl-C ends it, with the counts on standard error.
    """  # noqa: D301 - the backspace is a mark for Click: keep these lines as they are
    if keys and any_key:
        raise CommandLineError("--key and --any-key exclude each other", "name the keys, or accept any")
    output.ready()
    from polyvox.testing import Simulator

    simulator = Simulator(
        **said,
        models=models or None,
        keys=[_key(key) for key in keys] or None,
        plan=plan or (),
        demand_key=not any_key,
        keep=0,
        on_answer=_log if log else None,
    )
    with _signals() as told, simulator:
        _introduce(simulator)
        _until(told)
    _print_counts(simulator.counts, as_json=as_json)


def _key(said: str) -> str:
    """A key as it is typed, or from a variable."""
    if not said.startswith("@env:"):
        return said
    found = os.environ.get(said[5:])
    if not found:
        raise CommandLineError(f"the variable {said[5:]} is not set", "set it, or name another one")
    return found


@contextmanager
def _signals() -> Iterator[SimpleQueue[int]]:
    """Gets the signals that say that this is to end: of Ctrl-C, or of whoever stops services. A queue and no
    `threading.Event`, whose lock the thread that waits may hold in the moment in which its handler wants it."""
    told: SimpleQueue[int] = SimpleQueue()
    before = {number: signal.signal(number, lambda one, _: told.put(one)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _until(told: SimpleQueue[int]) -> None:
    """Wait for a signal."""
    while True:
        with suppress(Empty):
            told.get(timeout=_LOOK_UP)
            return


def _introduce(simulator: Simulator) -> None:
    if not simulator.only_here:
        output.warn("whoever can reach this machine can use this server")
    output.line(simulator.url)
    output.note("point programs here with any of these; Ctrl-C ends it")
    for name, url in simulator.environment.items():
        output.plain(f"  export {name}={url}")


def _log(asked: Asked) -> None:
    """A request in a line: when asked for what, and what became of it."""
    words = [
        asked.method,
        asked.path,
        asked.model or "-",
        "stream" if asked.stream else "whole",
        "-" if asked.status is None else str(asked.status),
        asked.outcome or "-",
        f"{asked.seconds or 0.0:.3f}s",
        *([f"fault={asked.fault}"] if asked.fault else []),
    ]
    output.plain(" ".join(words))


def _print_counts(counts: Counts, *, as_json: bool) -> None:
    """The counts, for a person or for a program."""
    import msgspec

    if as_json:
        output.data(msgspec.to_builtins(counts, str_keys=True))
        return
    errors = ", ".join(f"{number} x {status}" for status, number in sorted(counts.errors.items())) or "none"
    faults = ", ".join(f"{number} x {kind}" for kind, number in sorted(counts.faults.items())) or "none"
    unknown = f" and {counts.usage_unknown} unknown" if counts.usage_unknown else ""
    output.plain(
        f"requests {counts.requests}, answers {counts.answers} ({counts.streams} streams), errors {errors}, "
        f"faults {faults}, cut by the client {counts.cut_by_client}, connections {counts.connections}, "
        f"tokens {counts.tokens_in} in and {counts.tokens_out} out{unknown}"
    )
