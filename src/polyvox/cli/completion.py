"""Help on a verb, and the scripts that complete commands in a shell; both read the group they stand in."""

from __future__ import annotations

import click

from polyvox.cli import output

SHELLS = ("bash", "zsh", "fish")


@click.command(name="completion")
@click.argument("shell", type=click.Choice(SHELLS))
@output.debug_option
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash:  eval "$(polyvox completion bash)"      in ~/.bashrc
    zsh:   eval "$(polyvox completion zsh)"       in ~/.zshrc
    fish:  polyvox completion fish | source       in ~/.config/fish/config.fish
    """  # noqa: D301 - the backspace is a mark for Click: keep these lines as they are
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    if made is None:
        raise output.CommandLineError(f"there is no completion for {shell}", f"shells are {', '.join(SHELLS)}")
    root = ctx.find_root().command
    # bash's own class asks the installed bash for its version first; the script needs no such check.
    script = made.source_template % made(root, {}, "polyvox", "_POLYVOX_COMPLETE").source_vars()
    output.line(script.rstrip("\n"))


@click.command(name="help")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help_command(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Explain a command: polyvox help keys set."""
    here = ctx.find_root()
    for word in words:
        found = here.command.get_command(here, word) if isinstance(here.command, click.Group) else None
        if found is None:
            raise output.CommandLineError(f"there is no command {' '.join(words)!r}", "polyvox --help lists them")
        here = click.Context(found, info_name=word, parent=here)
    output.line(here.get_help())
