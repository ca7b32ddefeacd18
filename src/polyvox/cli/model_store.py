"""The models that a server on this machine keeps: `polyvox models pull`, `delete`, `running`, `load` and `unload`. How
the server is asked is the client's business.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from polyvox.cli import output, start
from polyvox.cli.output import CommandLineError

if TYPE_CHECKING:
    from polyvox.client import Client
    from polyvox.dialects.model_store import ModelFacts

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_provider_option = click.option("--provider", "named", metavar="NAME", help="The server, if it is not the usual one.")
_CENTURY = 100 * 365 * 86400.0


class _Meant(NamedTuple):
    """A client, the provider whose server is meant (None for the usual one), and the model's name there."""

    client: Client
    provider: str | None
    model: str


def _meant(name: str, named: str | None) -> _Meant:
    """What NAME means here: a server's model, with its provider before it or without."""
    from polyvox.client import Client

    found = start.settings()
    left, slash, rest = name.partition("/")
    if slash and left in start.providers(found).providers:
        if named not in (None, left):
            raise CommandLineError(f"two providers are named: {named} and {left}", "name one")
        return _Meant(Client(settings=found), left, rest)
    return _Meant(Client(settings=found), named, name)


@click.command(name="pull")
@click.argument("name")
@_provider_option
@click.option("--stall", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              help="Give up after so long a silence; 180 unless said.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print each step as a line of JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@output.debug_option
def pull_model(name: str, named: str | None, stall: float | None, as_json: bool, quiet: bool) -> None:
    """Have the server fetch model NAME, or what is new of it.

    Ctrl-C stops it; what has come is kept, and the same command goes on from there.
    """
    from polyvox.cli.progress import Progress

    if quiet:
        output.be_quiet()
    meant = _meant(name, named)
    shown = None if quiet or as_json else Progress()
    with meant.client as client:
        facts: dict[str, Any] = {} if stall is None else {"stall": stall}
        pull = client.model_store(meant.provider).pull(meant.model, **facts)
        try:
            with pull:
                for step in pull:
                    if as_json:
                        output.json_line(_line(step))
                    elif shown is not None:
                        shown.says(step.status, step.completed, step.total)
        except KeyboardInterrupt:
            if shown is not None:
                shown.ends()
            output.note("stopped; what has come is kept, and the same command goes on from there")
            raise
        finally:
            if shown is not None:
                shown.ends()


def _line(step: Any) -> str:
    import msgspec

    return msgspec.json.encode(msgspec.structs.asdict(step)).decode()


@click.command(name="delete")
@click.argument("name")
@_provider_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output.debug_option
def delete_model(name: str, named: str | None, yes: bool) -> None:
    """Delete model NAME from the server's disk; asks before."""
    if not yes and not output.is_terminal(sys.stdin):
        raise CommandLineError(
            f"nobody is there to be asked whether {name} is to be deleted", f"polyvox models delete {name} --yes"
        )
    meant = _meant(name, named)
    with meant.client as client:
        store = client.model_store(meant.provider)
        if not yes:
            store.show(meant.model)  # nobody is asked about a model that is not there
            click.confirm(f"Delete {meant.model} from the server's disk?", abort=True, err=True)
        store.delete(meant.model)
    output.plain(f"deleted {meant.model}")


@click.command(name="running")
@_provider_option
@_json_option
@output.debug_option
def running_models(named: str | None, as_json: bool) -> None:
    """List the models in the server's memory, and how long each stays there."""
    import msgspec

    from polyvox.cli.progress import size
    from polyvox.client import Client

    with Client(settings=start.settings()) as client:
        loaded = client.model_store(named).loaded()
    if as_json:
        output.data([msgspec.to_builtins(model) for model in loaded])
        return
    now = time.time()
    cells = (
        (model.name, size(model.size), None if model.vram is None else size(model.vram), model.context,
         _left(model.expires, now))
        for model in loaded
    )  # fmt: skip
    output.table(("MODEL", "MEMORY", "OF IT GPU", "CONTEXT", "STAYS"), cells)
    if not loaded:
        output.note("no model is loaded")


def _left(expires: float | None, now: float) -> str | None:
    """How long it is until a time, in words."""
    if expires is None:
        return None
    left = expires - now
    if left > _CENTURY:
        return "for ever"
    for seconds, word in ((86400, "d"), (3600, "h"), (60, "min")):
        if left >= seconds:
            return f"{left / seconds:.0f} {word}"
    return f"{max(0.0, left):.0f} s"


@click.command(name="load")
@click.argument("name")
@_provider_option
@click.option("--keep-alive", metavar="TIME", help="How long it stays after it was last asked: 10m, seconds, -1.")
@output.debug_option
def load_model(name: str, named: str | None, keep_alive: str | None) -> None:
    """Load model NAME into the server's memory before it is asked."""
    meant = _meant(name, named)
    with meant.client as client:
        client.model_store(meant.provider).load(meant.model, keep_alive=keep_alive)
    output.plain(f"loaded {meant.model}")


@click.command(name="unload")
@click.argument("name")
@_provider_option
@output.debug_option
def unload_model(name: str, named: str | None) -> None:
    """Let model NAME go from the server's memory, now."""
    meant = _meant(name, named)
    with meant.client as client:
        client.model_store(meant.provider).unload(meant.model)
    output.plain(f"unloaded {meant.model}")


COMMANDS = (pull_model, delete_model, running_models, load_model, unload_model)


# ---- what a server says of a model ------------------------------------------------------------


def told_by_server(provider: str, model: str, settings: Any) -> ModelFacts | None:
    """What the server that keeps a model says of it; None, with a note, where it is not to be had."""
    from polyvox.client import Client
    from polyvox.errors import PolyvoxError

    with Client(settings=settings) as client:
        try:
            return client.model_store(provider).show(model)
        except PolyvoxError as error:
            output.note(f"{error.message}; {error.hint}")
            return None


def lines_of(facts: ModelFacts) -> list[tuple[str, str]]:
    """What a server says of a model, as names and values; of long texts the first line."""
    made = (("parameters", facts.parameter_size), ("quantized", facts.quantization), ("format", facts.format))
    rows = [(name, value) for name, value in made if value]
    rows += [("setting", " ".join(line.split())) for line in (facts.parameters or "").splitlines() if line.strip()]
    for name, text in (("system", facts.system), ("template", facts.template), ("license", facts.license)):
        lines = (text or "").strip().splitlines()
        if lines:
            more = " …" if len(lines) > 1 or len(lines[0]) > 80 else ""
            rows.append((name, lines[0][:80] + more))
    return rows
