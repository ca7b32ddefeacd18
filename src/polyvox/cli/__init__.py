"""The `polyvox` command: which verbs there are, and which one is meant when none is said. Each verb's module
loads when it is used; what a verb does is that module's business."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import click

from polyvox.cli import output


class Verb(NamedTuple):
    """Where a verb is, and its line in the list of verbs."""

    module: str
    summary: str


VERBS: dict[str, Verb] = {
    "ask": Verb("ask", "Ask a model. The word itself may be left out."),
    "explain": Verb("explain", "Show the exact request a question would send; send nothing."),
    "chat": Verb("chat", "Talk with a model, turn by turn."),
    "embed": Verb("embed", "Turn texts into vectors."),
    "models": Verb("models", "List the models that are known; pull, load and delete those of a local server."),
    "providers": Verb("models", "List the providers, and which have a key."),
    "status": Verb("status", "Ask the providers whether they are there; costs nothing."),
    "usage": Verb("usage", "Show what was used and what it cost."),
    "logs": Verb("logs", "List, search and follow the calls that were made; switch writing them down on and off."),
    "keys": Verb("keys", "Keep API keys: set, list, get, rm, path."),
    "config": Verb("config", "Read and change settings, and see where each comes from."),
    "simulate": Verb("simulate", "Be a provider on this machine, for testing programs."),
    "doctor": Verb("doctor", "Look for what may be wrong with this installation."),
    "completion": Verb("completion", "Print the completion script of a shell."),
    "help": Verb("completion", "Explain a command."),
}

_GLOBAL = ("-h", "--help", "-V", "--version")
_COMPLETE = "_POLYVOX_COMPLETE"
# Close enough to be a slip of the fingers, too far for an ordinary word to be taken for one.
_TYPO_RATIO = 0.8


class Voice(click.Group):
    """The group of all verbs. A first word that is none of them begins a question."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a verb."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        found: click.Command = getattr(import_module(f"polyvox.cli.{verb.module}"), f"{cmd_name}_command")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, from the table: help loads none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.summary) for name, verb in VERBS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put "ask" before a question that was asked without it."""
        return super().parse_args(ctx, args if ctx.resilient_parsing else self._with_verb(ctx, args))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb, with our log on standard error."""
        output.watch_logs()
        return super().invoke(ctx)

    def _with_verb(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = 0
        while flags < len(args) and args[flags] == "--debug":
            flags += 1
        said = args[flags:]
        if not said:
            return [*args, "--help" if sys.stdin is None or sys.stdin.isatty() else "ask"]
        if said[0] in VERBS or said[0] in _GLOBAL:
            return args
        self._refuse_slip(ctx, said)
        return [*args[:flags], "ask", *said]

    def _refuse_slip(self, ctx: click.Context, said: list[str]) -> None:
        """A word alone that is nearly a verb is no question; nor is one with a verb's own word after it."""
        import difflib

        near = difflib.get_close_matches(said[0], VERBS, n=1, cutoff=_TYPO_RATIO)
        if not near or len(said) > 2:
            return
        if len(said) == 2:
            group = self.get_command(ctx, near[0])
            if not isinstance(group, click.Group) or said[1] not in group.commands:
                return
        raise output.CommandLineError(
            f"there is no command {said[0]!r}",
            f"did you mean: polyvox {' '.join([near[0], *said[1:]])} (to ask a model: polyvox ask {' '.join(said)})",
        )

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> NoReturn:
        """Run, and end the process with one of the fixed exit codes; see `output.EXIT_CODES`."""
        if _COMPLETE in os.environ:
            super().main(args=args, prog_name="polyvox", complete_var=_COMPLETE)
        words = list(sys.argv[1:] if args is None else args)
        output.begin(words)
        sys.exit(output.guarded(lambda: self._run(words)))

    def _run(self, words: list[str]) -> Any:
        with self.make_context("polyvox", words) as ctx:
            return self.invoke(ctx)


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import polyvox

        output.line(f"polyvox {polyvox.__version__}")
        ctx.exit()


@click.group(cls=Voice, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@click.option("-V", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Print the version.")  # fmt: skip
@output.debug_option
def cli() -> None:
    """One voice for every model: ask any language model, and get a faithful answer or an honest error.

    \b
      polyvox "Why is the sky blue?"
      polyvox -m PROVIDER/MODEL -a photo.png "What is this?"
      git diff | polyvox "Write a commit message"

    Answers go to standard output, everything else to standard error. What is piped in is read to its
    end and comes after the prompt; "< /dev/null" where nothing should be.
    """  # noqa: D301 - the backspace is a mark for Click: keep these lines as they are


def main() -> NoReturn:
    """The console entry point."""
    cli.main()
