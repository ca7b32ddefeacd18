"""A command group whose bare name lists: `polyvox models` is `polyvox models list`. It knows no group's verbs."""

from __future__ import annotations

import difflib

import click

from polyvox.cli.output import CommandLineError

HELP = {"help_option_names": ["-h", "--help"]}


class Listing(click.Group):
    """A group with a `list` command, which is meant when no other is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put "list" where no command is said."""
        bare = not args or (args[0].startswith("-") and args[0] not in HELP["help_option_names"])
        return super().parse_args(ctx, ["list", *args] if bare and not ctx.resilient_parsing else args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named, or an error with the nearest one."""
        if args and args[0] not in self.commands and not ctx.resilient_parsing:
            near = difflib.get_close_matches(args[0], self.commands, n=1, cutoff=0.5)
            hint = f"did you mean: {ctx.command_path} {near[0]}" if near else f"commands are {', '.join(self.commands)}"
            raise CommandLineError(f"there is no command {args[0]!r} in {ctx.command_path}", hint)
        return super().resolve_command(ctx, args)
