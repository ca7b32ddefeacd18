"""explain: the exact request a question would send, as JSON or as a command for a shell. It sends nothing."""

from __future__ import annotations

from typing import Any

import click

from polyvox.cli import ask, output, start


@click.command(name="explain")
@click.argument("words", nargs=-1, metavar="[PROMPT]...")
@click.option("-a", "--attach", "attach", multiple=True, metavar="PATH|URL|-", help="Attach a file; may be repeated.")
@click.option("--schema", metavar="FILE|JSON", help="Ask for JSON of this JSON Schema.")
@click.option("--curl", is_flag=True, help="Print a command for a shell; the key stands as a variable.")
@click.option("--stream", is_flag=True, help="The request for a streamed answer.")
@start.model_options
def explain_command(words: tuple[str, ...], curl: bool, stream: bool, **said: Any) -> None:
    """Show the exact request a question would send, and what its protocol cannot say. Nothing is sent.

    \b
      polyvox explain -m anthropic/claude-haiku-4-5 "Why is the sky blue?"
      polyvox explain -m openai/gpt-5.4-mini -o temperature=0.2 --curl "A poem about rain"
    """  # noqa: D301 - the backspace is a mark for Click: keep these lines as they are
    if said["record"] or said["replay"]:
        raise output.CommandLineError("explain sends nothing, so there is nothing to record or replay", "leave it out")
    if said["quiet"]:
        output.be_quiet()
    output.ready()
    question = ask.question_of(words, said)
    settings = start.settings()
    choice = start.choose(said["model"], question.key, settings)
    if choice.remark:
        output.note(choice.remark, always=True)
    from polyvox.client import Client

    with Client(choice.model, strict=said["strict"] or None, upgrade=said["upgrade"], settings=settings) as client:
        found = client.explain(question.prompt, stream=stream, **question.facts)
    for loss in found.losses:
        output.warn(f"{loss.field}: {loss.why}")
    if curl:
        output.line(found.curl())
    else:
        output.data(found.describe())
