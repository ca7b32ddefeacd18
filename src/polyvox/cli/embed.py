"""Texts into vectors: `polyvox embed`. It finds the texts and writes the vectors; how they are asked for is the
client's business."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polyvox.cli import output, start
from polyvox.cli.kept import kept, who
from polyvox.cli.output import CommandLineError

if TYPE_CHECKING:
    from polyvox.types import Embeddings

_BAR = 24  # characters
_FEW = 32  # texts that are done before a bar would say anything


@click.command(name="embed")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "-m", "--model", help="PROVIDER/MODEL, a deployment, or a provider's name for its usual model for embeddings."
)
@click.option("--file", "files", multiple=True, metavar="PATH", help="Embed what is in a file; may be repeated.")
@click.option("--lines", is_flag=True, help="Each line of a file or of standard input is a text of its own.")
@click.option("--dimensions", type=int, metavar="N", help="How many numbers a vector has, where the model lets choose.")
@click.option("--purpose", metavar="WORD",
              help="query, document, classification, clustering, or the provider's own word.")  # fmt: skip
@click.option("--truncate/--no-truncate", default=None, help="Whether a text that is too long is cut, or refused.")
@click.option("--format", "form", type=click.Choice(("json", "ndjson", "csv", "base64")), default="json",
              show_default=True, help="How the vectors are written.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The same as --format json; errors are JSON too.")
@click.option("-o", "--output", "target", metavar="FILE", help="Write to a file, which is whole or not there.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Time for all of it, retries included.")
@click.option("--strict", is_flag=True, help="Fail rather than leave out what the model's protocol cannot say.")
@click.option("--key", metavar="-|@env:NAME", help="Where to read the key: standard input, or a variable.")
@click.option("--record", metavar="FILE", help="Add what is said on the wire to a file, without keys.")
@click.option("--replay", metavar="FILE", help="Answer from such a file instead of a network.")
@click.option("-u", "--usage", is_flag=True, help="Say on standard error what it took and cost.")
@click.option("-q", "--quiet", is_flag=True, help="No notes, no warnings, no progress.")
@start.who_options
@output.debug_option
def embed_command(texts: tuple[str, ...], form: str, as_json: bool, target: str | None, **said: Any) -> None:
    """Turn texts into vectors. Each TEXT is one; without any, standard input is.

    \b
      polyvox embed -m PROVIDER/MODEL "a red fox" "tax law"
      polyvox embed --lines --file names.txt --format csv -o vectors.csv
      cat notes.txt | polyvox embed --purpose document

    \b
    json     one object: vectors, model, usage and what else is known
    ndjson   a line of JSON for each text: index, text, vector
    csv      a row for each text: index, text, then its numbers
    base64   a line for each text: its numbers in single precision, little endian
    """  # noqa: D301 - the backspace is a mark for Click: keep these lines as they are
    if as_json and form != "json":
        raise CommandLineError(f"--json and --format {form} exclude each other", "leave one of them out")
    if said["quiet"]:
        output.be_quiet()
    path = None if target in (None, "-") else _target(str(target))
    if path is None:
        output.ready()
    if said["key"] == "-" and ("-" in texts or not (texts or said["files"])):
        raise CommandLineError("standard input is wanted for the texts and for --key", "say --key @env:NAME")
    key = start.key_of(said["key"])
    inputs = _texts(texts, said["files"], lines=said["lines"])
    begun = time.monotonic()
    found = _asked(inputs, key, said)
    for loss in found.losses:
        (output.warn if loss.severity == "loss" else output.note)(f"{loss.field}: {loss.why}")
    _write(_FORMS[form](inputs, found), path, form)
    if said["usage"]:
        used = found.usage.input
        output.plain(
            f"usage: {len(inputs)} texts, {'?' if used is None else used} tokens, "
            f"{time.monotonic() - begun:.1f} s, cost {found.cost}"
        )


def _asked(inputs: list[str], key: Any, said: dict[str, Any]) -> Embeddings:
    from polyvox.client import Client

    settings = start.settings()
    with (
        kept(settings, {**said, "no_cache": True}) as keeping,  # vectors are not kept
        Client(
            said["model"],
            api_key=key,
            timeout=said["timeout"],
            strict=said["strict"] or None,
            settings=settings,
            record=said["record"],
            replay=said["replay"],
            **keeping,
        ) as client,
    ):
        bar = _show_progress if len(inputs) > _FEW and output.shows_progress() else None
        if bar is not None:
            bar(0, len(inputs))
        try:
            return client.embed(
                inputs,
                model=said["model"],
                dimensions=said["dimensions"],
                purpose=said["purpose"],
                truncate=said["truncate"],
                on_progress=bar,
                **who(said),
            )
        finally:
            if bar is not None:
                output.progress("")


def _show_progress(done: int, total: int) -> None:
    full = _BAR * done // total
    output.progress(f"embedding [{'#' * full}{'.' * (_BAR - full)}] {done} of {total}")


# ---- the texts --------------------------------------------------------------------------------


def _texts(words: tuple[str, ...], files: tuple[str, ...], *, lines: bool) -> list[str]:
    """What is to be embedded, in the order it was named."""
    found: list[str] = []
    if words.count("-") + files.count("-") > 1:
        raise CommandLineError("standard input is wanted more than once", "say - once")
    for word in words:
        found += _in(start.needed_from_stdin("a text"), "standard input", lines) if word == "-" else [word]
    for path in files:
        data = start.needed_from_stdin("a text") if path == "-" else start.file_bytes(path, "--file")
        found += _in(data, path, lines)
    if not words and not files and (piped := start.piped()) is not None:
        found = _in(piped, "standard input", lines)
    if not any(each.strip() for each in found):
        raise CommandLineError("there is nothing to embed", 'say it: polyvox embed "a text"')
    empty = next((place for place, each in enumerate(found) if not each.strip()), None)
    if empty is not None:
        raise CommandLineError(f"text {empty + 1} is empty, and no model embeds nothing", "leave it out")
    return found


def _in(data: bytes, where: str, lines: bool) -> list[str]:
    """The texts in some bytes: all of it, or its lines that are not empty."""
    text = start.text_of(data, where)
    if not lines:
        return [text.removesuffix("\n")]
    return [each for line in text.split("\n") if (each := line.removesuffix("\r")).strip()]


# ---- the vectors ------------------------------------------------------------------------------


def _as_json(_: list[str], found: Embeddings) -> Iterator[str]:
    """One object with all that is known; keys are there whether or not anything is."""
    import msgspec

    built = msgspec.to_builtins
    usage = {name: built(value) for name, value in msgspec.structs.asdict(found.usage).items() if name != "raw"}
    yield json.dumps({
        "vectors": found.vectors,
        "model": found.model,
        "provider": found.provider,
        "deployment": found.deployment,
        "dimensions": len(found.vectors[0]),
        "usage": usage,
        "cost": output.money(found.cost),
        "losses": [msgspec.structs.asdict(loss) for loss in found.losses],
        "attempts": [output.attempt(attempt) for attempt in found.attempts],
        "id": found.id,
        "request_id": found.request_id,
    })  # fmt: skip


def _as_ndjson(inputs: list[str], found: Embeddings) -> Iterator[str]:
    for index, (text, vector) in enumerate(zip(inputs, found.vectors, strict=True)):
        yield json.dumps({"index": index, "text": text, "vector": vector})


def _as_csv(inputs: list[str], found: Embeddings) -> Iterator[str]:
    widest = max(map(len, found.vectors))
    yield _row(["index", "text", *map(str, range(widest))])
    for index, (text, vector) in enumerate(zip(inputs, found.vectors, strict=True)):
        yield _row([index, text, *map(repr, vector)])


def _row(cells: list[Any]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line).writerow(cells)  # its own end of line decides what is quoted
    return line.getvalue().removesuffix("\r\n")


def _as_base64(_: list[str], found: Embeddings) -> Iterator[str]:
    from polyvox.dialects.embedding import write_vector
    from polyvox.types import EmbedRequest

    wanted = EmbedRequest(model="", encoding="base64")
    for vector in found.vectors:
        yield str(write_vector(vector, wanted))


_FORMS: dict[str, Callable[[list[str], Embeddings], Iterator[str]]] = {
    "json": _as_json,
    "ndjson": _as_ndjson,
    "csv": _as_csv,
    "base64": _as_base64,
}


def _write(rows: Iterator[str], path: Path | None, form: str) -> None:
    """Print the rows, or write them to a file that is replaced in one step."""
    if path is None:
        say = output.json_line if form in ("json", "ndjson") else output.line
        for row in rows:
            say(row)
        return
    with _replacing(path) as file:
        for row in rows:
            file.write(row + "\n")


def _target(said: str) -> Path:
    """The file to write, which is looked at before anything is paid for."""
    path = Path(said)
    try:
        path = path.resolve()  # what a link leads to is replaced, and not the link
        why = "it is a folder" if path.is_dir() else None if path.parent.is_dir() else "there is no such folder"
        if why is None and not os.access(path.parent, os.W_OK):
            why = "its folder may not be changed"
    except (OSError, ValueError, RuntimeError) as error:
        why = str(error)
    if why is not None:
        raise CommandLineError(f"-o {said} cannot be written: {why}", "name a file in a folder that is there")
    return path


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[io.TextIOWrapper]:
    """A file beside the one that is meant, which takes its place when all is written, and is gone otherwise."""
    beside: str | None = None
    try:
        handle, beside = tempfile.mkstemp(prefix=".polyvox-embed-", dir=path.parent)
        with open(handle, "w", encoding="utf-8", errors="replace", newline="") as file:  # noqa: PTH123 - a descriptor
            yield file
        if path.exists():
            os.chmod(beside, path.stat().st_mode & 0o777)  # noqa: PTH101 - beside is a name of tempfile's
        else:
            os.chmod(beside, 0o666 & ~_umask())  # noqa: PTH101
        os.replace(beside, path)  # noqa: PTH105
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CommandLineError(f"-o {path} cannot be written: {reason}", "name another file") from None
    finally:
        if beside is not None:
            Path(beside).unlink(missing_ok=True)


def _umask() -> int:
    """What a new file must not allow. It can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
