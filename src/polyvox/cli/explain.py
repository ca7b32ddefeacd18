"""explain: the exact request a question would send, as JSON or as a command for a shell, or among whom it would choose.
It sends nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from polyvox.cli import ask, output, routes, start

if TYPE_CHECKING:
    from polyvox.client import Client
    from polyvox.config import Settings


@click.command(name="explain")
@click.argument("words", nargs=-1, metavar="[PROMPT]...")
@click.option("-a", "--attach", "attach", multiple=True, metavar="PATH|URL|-", help="Attach a file; may be repeated.")
@click.option("--schema", metavar="FILE|JSON", help="Ask for JSON of this JSON Schema.")
@click.option("--curl", is_flag=True, help="Print a command for a shell; the key stands as a variable.")
@click.option("--stream", is_flag=True, help="The request for a streamed answer.")
@click.option("--route", is_flag=True, help="Show among whom the question would choose, who is left out and why.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; only --route prints anything else.")
@start.model_options
def explain_command(words: tuple[str, ...], curl: bool, stream: bool, route: bool, as_json: bool, **said: Any) -> None:
    """Show the exact request a question would send, and what its protocol cannot say. Nothing is sent.

    \b
      polyvox explain -m anthropic/claude-haiku-4-5 "Why is the sky blue?"
      polyvox explain -m openai/gpt-5.4-mini -o temperature=0.2 --curl "A poem about rain"
      polyvox explain --route --tier auto "Prove that there are infinitely many primes"

    With --route it asks nobody either: who would be asked first, who after a failure, and who is left out,
    where a tier, a deployment or a pattern is named, or deployments are configured.
    """  # noqa: D301 - the backspace is a mark for Click: keep these lines as they are
    if said["record"] or said["replay"]:
        raise output.CommandLineError("explain sends nothing, so there is nothing to record or replay", "leave it out")
    if route and (curl or stream):
        raise output.CommandLineError("--route shows no request", "leave out --curl and --stream, or --route")
    if said["quiet"]:
        output.be_quiet()
    output.ready()
    question = ask.question_of(words, said)
    settings = start.settings()
    choice = start.choose(said, question.key, settings)
    if choice.remark:
        output.note(choice.remark, always=True)
    from polyvox.client import Client

    facts = {**choice.among, "strict": said["strict"] or None, "upgrade": said["upgrade"], "settings": settings}
    with Client(choice.model, **facts) as client:
        if route:
            _route(client, question, settings, choice, as_json)
            return
        found = client.explain(question.prompt, stream=stream, **question.facts)
    for loss in found.losses:
        output.warn(f"{loss.field}: {loss.why}")
    if curl:
        output.line(found.curl())
    else:
        output.data(found.describe())


def _route(client: Client, question: Any, settings: Settings, choice: start.Choice, as_json: bool) -> None:
    """Print the decision; then fail as the call would where nobody can be asked."""
    decision, problem = routes.decided(client, question.prompt, question.facts)
    if as_json:
        output.data(decision.describe())
    else:
        entries = (choice.among.get("registry") or routes.configured(settings)).list_active()
        routes.show(decision, entries)
    if problem is not None:
        raise problem
