"""What a question needs before its first word: standard input, a key, options, settings and who is asked. It asks
no model itself; the one thing it may talk to is a server on this machine."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from polyvox.cli import output, routes
from polyvox.cli.output import CommandLineError

if TYPE_CHECKING:
    from polyvox.catalog import Catalog, Provider, Target
    from polyvox.config import Settings
    from polyvox.keys import Secret

Command = TypeVar("Command", bound=Callable[..., Any])

_PROBE_SECONDS = 0.3
_PROBE_BYTES = 1 << 20


def who_options(command: Command) -> Command:
    """The options that say on whose behalf a call is made, as ledger and budgets count it; its user is -o user=NAME."""
    project = click.option("--project", metavar="NAME", help="The project that the call is for.")
    return click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag of the call; may be repeated.")(
        project(command)
    )


def model_options(command: Command) -> Command:
    """The options that ask and chat share."""
    for option in reversed((
        click.option("-m", "--model", "models", multiple=True, metavar="NAME", shell_complete=routes.known_names,
                     help="PROVIDER/MODEL, a model's own name, an @alias, a deployment, a pattern of those, or demo; "
                     "repeated, each is asked when those before it fail."),
        click.option("--tier", metavar="TIER", shell_complete=routes.known_tiers,
                     help="In place of a model: economy, standard, premium, local, or auto, which goes by the prompt."),
        click.option("-s", "--system", help="Instructions for the model: text, or @FILE."),
        click.option("-o", "--option", "options", multiple=True, metavar="NAME=VALUE",
                     help="An option of the call, such as temperature=0.2; may be repeated."),
        click.option("--upgrade", is_flag=True, help="Ask a retired or deprecated model's successor in its place."),
        click.option("--keep-alive", "keep_alive", metavar="TIME",
                     help="How long a local model stays loaded: 10m, seconds, -1 for ever, 0 not at all."),
        click.option("--timeout", type=float, metavar="SECONDS", help="Time for a whole answer, retries included."),
        click.option("--strict", is_flag=True, help="Fail rather than leave out what the model's protocol cannot say."),
        click.option("--key", metavar="-|@env:NAME", help="Where to read the key: standard input, or a variable."),
        click.option("--record", metavar="FILE", help="Add what is said on the wire to a file, without keys."),
        click.option("--replay", metavar="FILE", help="Answer from such a file instead of a network."),
        click.option("--no-cache", is_flag=True, help="Ask anew, and keep nothing, where answers are kept."),
        click.option("--refresh", is_flag=True, help="Ask anew, and keep that, where answers are kept."),
        who_options,
        click.option("-u", "--usage", is_flag=True, help="Say on standard error what it took and cost."),
        click.option("-R", "--hide-reasoning", is_flag=True, help="Do not show the model's reasoning."),
        click.option("-q", "--quiet", is_flag=True, help="No notes, no warnings, no reasoning."),
        output.debug_option,
    )):  # fmt: skip
        command = option(command)
    return command


# ---- what was typed ---------------------------------------------------------------------------


def piped() -> bytes | None:
    """Standard input to its end, or None when it is a terminal or missing: a terminal is never read."""
    stdin = sys.stdin
    if stdin is None or stdin.closed or stdin.isatty():
        return None
    try:
        return stdin.buffer.read()
    except OSError as error:
        raise CommandLineError(
            f"standard input cannot be read: {error.strerror}", "end the command with: < /dev/null"
        ) from None


def needed_from_stdin(what: str) -> bytes:
    """Standard input, where the command line says that something comes from there."""
    data = piped()
    if data is None:
        raise CommandLineError(f"{what} is to come from standard input, which is a terminal", "pipe it in")
    return data


def text_of(data: bytes, what: str) -> str:
    """Bytes as UTF-8 text, without a byte order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CommandLineError(
            f"{what} is not UTF-8 text", "attach a file that is not text: -a PATH, or -a - from a pipe"
        ) from None


def text_or_file(said: str | None, what: str) -> str | None:
    """Text as it was typed, or what is in the file after "@"."""
    if said is None or not said.startswith("@"):
        return said
    return text_of(file_bytes(said[1:], what), said[1:])


def file_bytes(path: str, what: str) -> bytes:
    """What is in a file named on the command line."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CommandLineError(f"{what}: {path} cannot be read: {reason}", "check the path") from None


def options_of(pairs: Iterable[str], keep_alive: str | None = None) -> dict[str, Any]:
    """NAME=VALUE pairs as options of a call: VALUE is JSON where it reads as JSON, else text. keep_alive is how long
    the model is to stay loaded, where its server keeps it."""
    from polyvox.client.inputs import OPTION_NAMES

    made: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise CommandLineError(
                f"-o {pair}: an option is NAME=VALUE", f"options are {', '.join(sorted(OPTION_NAMES))}"
            )
        if name not in OPTION_NAMES:
            raise _unknown_option(name, OPTION_NAMES)
        made[name] = _value(name, value)
    if keep_alive is not None:
        from polyvox.dialects.model_store import KEEPERS, store

        said = made.get("extra")
        extra = said if isinstance(said, dict) else {}
        stay = {name: {**extra.get(name, {}), "keep_alive": store(name).keep_alive(keep_alive)} for name in KEEPERS}
        made["extra"] = {**extra, **stay}
    return made


_FLAGS = {"model": "-m", "system": "-s", "timeout": "--timeout", "strict": "--strict", "attachments": "-a"}


def _unknown_option(name: str, names: Iterable[str]) -> CommandLineError:
    import difflib

    if name in _FLAGS:
        return CommandLineError(f"{name} is no -o option", f"say {_FLAGS[name]}")
    near = difflib.get_close_matches(name, names, n=1)
    return CommandLineError(
        f"there is no option {name!r}",
        f"did you mean {near[0]}?" if near else f"options are {', '.join(sorted(names))}",
    )


def _value(name: str, text: str) -> Any:
    """What the text after NAME= means: JSON, or the text itself where it is none."""
    from polyvox.client.inputs import Options

    try:
        # NaN and Infinity are Python's idea of JSON, not JSON's; they stay text and are refused as such.
        value = json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text
    # An option that is text in the first place takes stop=5 and user=42 as they are typed.
    said = Options.__annotations__[name]
    is_text = getattr(said, "__forward_arg__", str(said)).startswith("str")
    return text if is_text and not isinstance(value, (str, list, dict)) else value


def key_of(said: str | None) -> Secret | None:
    """The key that "-" or "@env:NAME" stands for. A key itself is refused: other users see command lines."""
    if said is None:
        return None
    from polyvox.keys import secret_of

    if said == "-":
        return secret_of(one_line(needed_from_stdin("the key")))
    if not said.startswith("@env:"):
        raise CommandLineError(
            "a key on the command line can be read by every user of this machine, and stays in the shell's history",
            "say --key - and pipe it in, --key @env:NAME to take it from a variable, or keep it: polyvox keys set NAME",
        )
    name = said.removeprefix("@env:")
    if not os.environ.get(name, "").strip():
        raise CommandLineError(f"the variable {name} is not set or empty", f"set {name}, or leave --key out")
    return secret_of(os.environ[name])


def one_line(data: bytes) -> str:
    """The key in what was piped in: one line that is not empty."""
    lines = [line.strip() for line in text_of(data, "the key").splitlines() if line.strip()]
    if len(lines) != 1:
        raise CommandLineError(
            "the key is empty" if not lines else "the key must be one line", "pipe in the key and nothing else"
        )
    return lines[0]


# ---- settings and a model ---------------------------------------------------------------------


def settings() -> Settings:
    """The settings in force; raises ConfigError with all that is wrong with them."""
    from polyvox import config

    found = config.load()
    output.set_log_level(found.log_level)
    return found


def providers(found: Settings) -> Catalog:
    """The catalog with what the settings say of providers and prices."""
    from polyvox import catalog
    from polyvox.prices import overrides_of

    return (
        catalog.load()
        .with_overrides(found.providers, found.origins)
        .with_prices(overrides_of(found.prices, found.origins))
    )


def target(name: str, found: Settings) -> Target:
    """Who is meant by a name; servers on this machine are asked where nobody else is known to serve it."""
    from polyvox.errors import NotFoundError
    from polyvox.keys import find_key

    try:
        return providers(found).resolve(name, found.aliases, lambda row: find_key(row, found) is not None)
    except NotFoundError:
        from polyvox import portal
        from polyvox.client.deployments import Deployments

        return portal.run(Deployments(found).target(name))


class Choice(NamedTuple):
    """The model to ask, or several, None for the one the settings or the keys imply, and what to say about it. among is
    what a client is told where the model alone does not say who may answer."""

    model: str | list[str] | None
    remark: str | None = None
    among: Mapping[str, Any] = {}


def choose(said: Mapping[str, Any], key: Secret | None, found: Settings) -> Choice:
    """Who is asked: the tier or the model that was named, is configured or is there; the built-in demo when there is
    nothing at all."""
    models, tier = said["models"], said["tier"]
    if tier is not None and models:
        raise CommandLineError("-m and --tier exclude each other", "name a model, or a tier")
    if key is not None and (tier is not None or len(models) > 1):
        raise CommandLineError("--key says nothing about whose key it is", "name one model: -m PROVIDER/MODEL")
    if tier is not None:
        return Choice(None, among={"tier": tier, "registry": routes.registry(found, tier)})
    if models or found.model is not None:
        return Choice(models[0] if len(models) == 1 else list(models) or None)
    if key is not None:
        raise CommandLineError("--key says nothing about whose key it is", "name the model too: -m PROVIDER/MODEL")
    if routes.has_default(found):
        return Choice(None)
    from polyvox.keys import find_key

    rows = providers(found)
    needing = [row for row in rows.providers.values() if row.needs_key]
    if any(row.default_model and find_key(row, found) for row in needing) or _configured(found):
        return Choice(None)
    local = _on_this_machine(rows)
    if local:
        return Choice(local, f"no model configured: using {local}, found on this machine")
    demo = next(row.name for row in rows.providers.values() if row.transport == "demo")
    hint = f"run `polyvox keys set {needing[0].name}`, or name a model with -m" if needing else "name a model with -m"
    return Choice(demo, f"no model configured: using the built-in offline demo; {hint}")


def _configured(found: Settings) -> bool:
    """Whether somebody set up a provider, so that the demo in its place would surprise. An address in the
    environment alone is no such wish."""
    return any(name.startswith("providers.") and not where.startswith("env ") for name, where in found.origins.items())


def _on_this_machine(rows: Catalog) -> str | None:
    """The first model of a local server that tells its models, or None; asks for 0.3 s at most."""
    answers: list[str] = []
    asked = [
        threading.Thread(target=_ask_for_models, args=(row, answers), daemon=True)
        for row in rows.providers.values()
        if row.local and row.dialect == "ollama.chat" and _is_loopback(row)
    ]
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join(_PROBE_SECONDS)
    return answers[0] if answers else None


def _is_loopback(row: Provider) -> bool:
    from polyvox.catalog import host_of

    host = host_of(row.base_url)
    return host in ("localhost", "::1") or host.startswith("127.")


def _ask_for_models(row: Provider, answers: list[str]) -> None:
    # http.client: no proxy stands between us and this machine, and nothing heavy is loaded for a look.
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlsplit

    parts = urlsplit(row.base_url)
    connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/api/tags")
        reply = connection.getresponse()
        if reply.status != 200:
            return
        names = [model["name"] for model in json.loads(reply.read(_PROBE_BYTES))["models"]]
        answers.extend(f"{row.name}/{name}" for name in names if isinstance(name, str) and name)
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        return  # nobody there, or somebody else: both mean no local model
    finally:
        connection.close()
