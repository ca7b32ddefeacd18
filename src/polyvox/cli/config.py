"""Settings: `polyvox config`. Which there are and what they may be is the configuration's business."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import click

from polyvox.cli import output, start
from polyvox.cli.listing import HELP, Listing
from polyvox.errors import InputError


@click.group(cls=Listing, name="config", context_settings=HELP)
def config_command() -> None:
    """Read and change settings, and see where each comes from.

    A setting is named with dots: timeout, aliases.fast, providers.NAME.base_url.
    """


@config_command.command(name="list")
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@output.debug_option
def list_settings(origin: bool, as_json: bool) -> None:
    """List all settings in force; secrets are masked."""
    found = start.settings()
    shown = {name: _plain(value) for name, value in found.shown().items()}
    if as_json:
        output.data(
            {name: {"value": value, "origin": found.origin(name)} for name, value in shown.items()} if origin else shown
        )
    elif origin:
        rows = ((name, _text(value), found.origin(name)) for name, value in shown.items())
        output.table(("SETTING", "VALUE", "FROM"), rows)
    else:
        output.table(("SETTING", "VALUE"), ((name, _text(value)) for name, value in shown.items()))


def _plain(value: Any) -> Any:
    """A value as JSON says it."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return None if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@config_command.command(name="get")
@click.argument("key")
@output.debug_option
def get_setting(key: str) -> None:
    """Print the value of setting KEY; an empty line where it is not set."""
    from polyvox.config.fields import BUDGETS_FIELDS, OWN_TABLES

    tables = {**OWN_TABLES, "budgets": BUDGETS_FIELDS}
    unset = {f"{table}.{name}": None for table, fields in tables.items() for name in fields}
    shown = {**unset, **start.settings().shown()}
    if key not in shown:
        near = difflib.get_close_matches(key, shown, n=1)
        hint = f"did you mean {near[0]}?" if near else "polyvox config list shows them"
        raise InputError(f"there is no setting {key!r}", hint=hint)
    output.line(_text(_plain(shown[key])) or "")


@config_command.command(name="set", context_settings={"ignore_unknown_options": True})
@click.argument("key")
@click.argument("value")
@output.debug_option
def set_setting(key: str, value: str) -> None:
    """Set KEY to VALUE in the configuration file; lists are given with commas."""
    from polyvox.config.edit import set_value

    path = _file()
    set_value(path, key, value)
    output.plain(f"{key} is set in {path}")
    _say_if_hidden(key, path)


def _say_if_hidden(key: str, path: Path) -> None:
    """Something above the file may say otherwise, and then the change changes nothing."""
    origin = start.settings().origin(key)
    if not origin.startswith((f"{path}:", "default")):
        output.warn(f"{origin} says otherwise, and wins")


@config_command.command(name="unset")
@click.argument("key")
@output.debug_option
def unset_setting(key: str) -> None:
    """Remove KEY from the configuration file."""
    from polyvox.config.edit import unset_value

    path = _file()
    if not unset_value(path, key):
        raise InputError(f"{key} is not set in {path}", hint="polyvox config list --origin shows what is, and where")
    output.plain(f"{key} is no longer set in {path}")


@config_command.command(name="path")
@output.debug_option
def config_path() -> None:
    """Print where the configuration file is, or would be."""
    output.line(str(_file()))


@config_command.command(name="validate")
@click.argument("file", required=False)
@output.debug_option
def validate(file: str | None) -> None:
    """Check the configuration, or FILE; exit code 78 and every problem if there are any."""
    from polyvox import config
    from polyvox.cli.kept import rules

    found = start.settings() if file is None else config.load(env={}, files=[file])
    start.providers(found)
    rules(found)
    if file is None:
        files = [str(path) for path in config.default_files()]
        output.plain(f"valid: {', '.join(files) if files else 'no file, defaults and environment only'}")
    else:
        output.plain(f"valid: {file}")


def _file() -> Path:
    """The configuration file in use, or the one that would be made."""
    from polyvox.config import default_files
    from polyvox.keys import config_dir

    return next(iter(default_files()), config_dir() / "config.toml")
