"""Keys that are kept: `polyvox keys`. A key comes in hidden or through a pipe and goes out only when it is
asked for by name; where keys lie is the key store's business."""

from __future__ import annotations

from typing import Any

import click

from polyvox.cli import output, start
from polyvox.cli.listing import HELP, Listing
from polyvox.cli.output import CommandLineError
from polyvox.errors import InputError


@click.group(cls=Listing, name="keys", context_settings=HELP)
def keys_command() -> None:
    """Keep API keys in a file that only you can read, or in the system's keyring (POLYVOX_KEYRING=1)."""


@keys_command.command(name="set")
@click.argument("name")
@click.option("--key", metavar="-|@env:NAME", help="Where to read the key: standard input, or a variable.")
@output.debug_option
def set_key(name: str, key: str | None) -> None:
    """Keep the key of provider NAME: typed without an echo, or piped in."""
    from polyvox.keys import KeyStore, secret_of

    row = start.providers(start.settings()).provider(name)
    name = row.key_of or row.name
    secret = start.key_of(key)
    if secret is None:
        piped = start.piped()
        if piped is None:
            where = f" (made at {row.docs})" if row.docs else ""
            typed = click.prompt(f"Key for {row.title or name}{where}", hide_input=True, err=True)
            secret = secret_of(typed)
        else:
            secret = secret_of(start.one_line(piped))
    _check(row, secret)
    store = KeyStore()
    place = store.set(name, secret)
    where = f"{store.path}" if place == "keys file" else "the keyring"
    output.plain(f"kept the key for {name} ({secret.fingerprint}) in {where}")
    shadow = _found_elsewhere(row)
    if shadow:
        output.warn(f"{shadow} is set too, and is used before the key kept here")


def _check(row: Any, secret: Any) -> None:
    """Refuse what can be no key, before it is kept: the error of the first call would come too late."""
    from polyvox.auth import credentials
    from polyvox.errors import AuthError

    try:
        credentials(row, secret)
    except AuthError as error:
        raise InputError(error.message, hint="copy it again, without line breaks or quotes") from None


def _found_elsewhere(row: Any) -> str | None:
    """Where else a key for this provider lies, if it is used before the kept one."""
    from polyvox.keys import find_key

    found = find_key(row, start.settings())
    return found.source if found and found.source not in ("keys file", "keyring") else None


@keys_command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@output.debug_option
def list_keys(as_json: bool) -> None:
    """List the keys that are kept here and found in the environment, as fingerprints."""
    from polyvox.keys import KeyStore, find_key

    found = start.settings()
    rows = start.providers(found).providers
    kept = KeyStore().list()
    facts: list[dict[str, Any]] = []
    for row in rows.values():
        if row.key_of:  # listed with the provider whose key it takes
            continue
        # The keyring is not asked: it may want a password, and a list is no reason to.
        if any(key.name == row.name and key.source == "keyring" for key in kept):
            continue
        key = find_key(row, found)
        if key is not None and key.source != "keys file":
            facts.append({"name": row.name, "source": key.source, "fingerprint": key.secret.fingerprint, "used": True})
    outside = {fact["name"] for fact in facts}
    facts += [
        {"name": key.name, "source": key.source, "fingerprint": key.fingerprint,
         "used": key.name in rows and key.name not in outside}
        for key in kept
    ]  # fmt: skip
    facts.sort(key=lambda fact: (fact["name"], not fact["used"]))
    if as_json:
        output.data(facts)
    elif facts:
        output.table(
            ("PROVIDER", "KEY", "WHERE", "USED"),
            ((fact["name"], fact["fingerprint"], fact["source"], "yes" if fact["used"] else "no") for fact in facts),
        )
    else:
        output.note("no keys yet; keep one with: polyvox keys set PROVIDER")


@keys_command.command(name="get")
@click.argument("name")
@click.option("--reveal", is_flag=True, help="Print the key itself.")
@output.debug_option
def get_key(name: str, reveal: bool) -> None:
    """Print the kept key of provider NAME; only with --reveal."""
    from polyvox.keys import KeyStore

    secret = KeyStore().get(name)
    if secret is None:
        raise _no_key(name)
    if not reveal:
        raise CommandLineError(
            f"the key for {name} is {secret.fingerprint}; it is shown only when asked for",
            f"polyvox keys get {name} --reveal",
        )
    output.line(secret.reveal())


@keys_command.command(name="rm")
@click.argument("name")
@output.debug_option
def remove_key(name: str) -> None:
    """Forget the kept key of provider NAME."""
    from polyvox.keys import KeyStore

    if not KeyStore().remove(name):
        raise _no_key(name)
    output.plain(f"forgot the key for {name}")


@keys_command.command(name="path")
@output.debug_option
def keys_path() -> None:
    """Print where the key file is, or would be."""
    from polyvox.keys import KeyStore

    output.line(str(KeyStore().path))


def _no_key(name: str) -> Exception:
    import difflib

    from polyvox.keys import KeyStore

    near = difflib.get_close_matches(name, [key.name for key in KeyStore().list()], n=1)
    return InputError(
        f"no key is kept for {name!r}", hint=f"did you mean {near[0]}?" if near else "polyvox keys list shows them"
    )
