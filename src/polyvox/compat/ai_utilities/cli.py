"""The command line of AI Utilities: the `polyvox` command with one verb more, `setup`, which runs the wizard. How a
command speaks and ends is the core's."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from polyvox.cli import VERBS, Voice, output, start
from polyvox.cli import cli as core

PROGRAM = "polyvox-ai-utilities"
_TYPO_RATIO = 0.75


class Program(Voice):
    """The verbs of the core, and those of its own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs; its own come first."""
        return [*self.commands, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of its own, or of the core's."""
        return self.commands.get(cmd_name) or super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs."""
        with formatter.section("Setup"):
            formatter.write_dl([(name, verb.get_short_help_str()) for name, verb in self.commands.items()])
        super().format_commands(ctx, formatter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Its own verbs are no beginning of a question."""
        words = [word for word in args if word != "--debug"]
        first = words[0] if words else ""
        if first in self.commands:
            return click.Group.parse_args(self, ctx, args)
        # A word alone that is nearly a verb is no question, which would be sent to a provider.
        if not any(not word.startswith("-") for word in words[1:]) and first not in VERBS:
            near = difflib.get_close_matches(first, self.commands, n=1, cutoff=_TYPO_RATIO)
            if near:
                raise output.CommandLineError(f"there is no command {first!r}", f"did you mean: {PROGRAM} {near[0]}")
        return super().parse_args(ctx, args)

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> NoReturn:
        """Run, and end the process with one of the core's exit codes."""
        words = list(sys.argv[1:] if args is None else args)
        output.begin(words)
        sys.exit(output.guarded(lambda: self._begun(words)))

    def _begun(self, words: list[str]) -> Any:
        with self.make_context(PROGRAM, words) as ctx:
            return self.invoke(ctx)


@click.group(cls=Program, context_settings=core.context_settings, no_args_is_help=False)
@output.debug_option
def cli() -> None:
    """Set up a provider, and ask it: the polyvox command, with a wizard.

    \b
      polyvox-ai-utilities setup
      polyvox-ai-utilities setup --yes --provider ollama --model llama3.2
    """  # noqa: D301 - the backspace is a mark for Click: keep these lines as they are


@cli.command(name="setup", short_help="Write the settings of a provider to a .env file.")
@click.option("--provider", metavar="NAME", help="The provider to set up; asked for when it is not named.")
@click.option("--model", metavar="NAME", help="The model to ask, in place of the provider's usual one.")
@click.option("--base-url", metavar="URL", help="Another address than the provider's own.")
@click.option("--key", metavar="-|@env:NAME", help="Where to read the key: standard input, or a variable.")
@click.option("--file", "path", metavar="PATH", default=".env", show_default=True, help="The file to write.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing: what is not said stays as it is, or usual.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--probe/--no-probe", default=None, help="Ask the provider for its models at the end; costs nothing.")
@output.debug_option
def setup_command(
    provider: str | None, model: str | None, base_url: str | None, key: str | None, path: str, yes: bool, dry_run: bool,
    probe: bool | None,
) -> None:  # fmt: skip
    """Write the settings of a provider to a .env file, with questions or without.

    The file gets mode 0600, its other lines and comments stay, and what it said before is kept as PATH.bak. A key is
    typed without an echo, or comes from a pipe or a variable; it is never shown. Exit code 0 when that is done, 2 for
    words that cannot be, 78 for a file that cannot be written, that of the failure where --probe has one.
    """
    from polyvox.compat.ai_utilities.setup.wizard import Answers, SetupWizard

    if not yes and not output.is_terminal(sys.stdin):
        raise output.CommandLineError(
            "setup asks questions, and nobody is at a terminal", "say --yes and --provider NAME, and nothing is asked"
        )
    answers = Answers(provider=provider, model=model, base_url=base_url, api_key=start.key_of(key), probe=probe)
    wizard = SetupWizard(path, input=_asked, output=output.plain, secret=_hidden)
    result = wizard.run(answers, ask=not yes, dry_run=dry_run)
    if result.problem is not None:
        raise click.exceptions.Exit(output.exit_code(result.problem))


def _asked(question: str) -> str:
    typed: str = click.prompt(question.rstrip(": "), default="", show_default=False, err=True)
    return typed


def _hidden(question: str) -> str:
    typed: str = click.prompt(question.rstrip(": "), default="", show_default=False, hide_input=True, err=True)
    return typed


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console entry point; argv are the words after the command's name, those of the process when None."""
    cli.main(argv)


if __name__ == "__main__":
    main()
