"""What can be asked: `polyvox models` and `polyvox providers`, read from the catalog and the settings. Nothing
here asks a provider."""

from __future__ import annotations

from typing import Any

import click

from polyvox.cli import output, start
from polyvox.cli.listing import HELP, Listing

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=Listing, name="models", context_settings=HELP)
def models_command() -> None:
    """List the models that are known, and what is known of them.

    A model that is not listed can be asked all the same: what follows PROVIDER/ goes to the provider as
    it is typed.
    """


@models_command.command(name="list")
@click.argument("provider", required=False)
@_json_option
@output.debug_option
def list_models(provider: str | None, as_json: bool) -> None:
    """List the known models, all or those of PROVIDER."""
    rows = start.providers(start.settings())
    if provider is not None:
        rows.provider(provider)
    found = [model for model in rows.models if provider in (None, model.provider)]
    if as_json:
        output.data([_model_facts(model) for model in found])
        return
    cells = (
        (f"{model.provider}/{model.id}", model.context, model.max_output, ", ".join(model.capabilities) or None)
        for model in found
    )
    output.table(("MODEL", "CONTEXT", "OUTPUT", "CAN"), cells)


@models_command.command(name="show")
@click.argument("name")
@_json_option
@output.debug_option
def show_model(name: str, as_json: bool) -> None:
    """Say which model NAME means, and what is known of it."""
    from polyvox.keys import find_key

    found = start.settings()
    target = start.providers(found).resolve(name, found.aliases, lambda row: find_key(row, found) is not None)
    row = target.provider
    facts = {
        "name": target.name,
        "title": row.title or row.name,
        "dialect": row.dialect,
        "base_url": row.base_url,
        **(_model_facts(target.info) if target.info else {"id": target.model, "provider": row.name}),
    }
    if as_json:
        output.data(facts)
        return
    for key, value in facts.items():
        if value not in (None, (), []):
            output.line(f"{key + ':':<14} {', '.join(value) if isinstance(value, list) else value}")
    if target.info is None:
        output.note("the catalog knows nothing of this model; it can be asked all the same")


def _model_facts(model: Any) -> dict[str, Any]:
    import msgspec

    facts: dict[str, Any] = msgspec.to_builtins(model)
    return {"name": f"{model.provider}/{model.id}", **facts}


@click.group(cls=Listing, name="providers", context_settings=HELP)
def providers_command() -> None:
    """List the providers, how each is spoken to, and which have a key."""


@providers_command.command(name="list")
@_json_option
@output.debug_option
def list_providers(as_json: bool) -> None:
    """List the providers; where a key was found is said, the key is not."""
    from polyvox.keys import find_key, redact

    found = start.settings()
    facts = []
    for row in start.providers(found).providers.values():
        key = find_key(row, found)
        facts.append({
            "name": row.name,
            "title": row.title or row.name,
            "dialect": row.dialect,
            "key": key is not None,
            "key_source": key.source if key else None,
            "needs_key": row.needs_key,
            "base_url": redact(row.base_url),
            "base_url_source": row.url_source,
            "local": row.local,
            "default_model": row.default_model,
        })  # fmt: skip
    if as_json:
        output.data(facts)
        return
    cells = (
        (fact["name"], fact["dialect"], fact["key_source"] or ("missing" if fact["needs_key"] else "not needed"),
         fact["base_url"] or None)
        for fact in facts
    )  # fmt: skip
    output.table(("PROVIDER", "DIALECT", "KEY", "ADDRESS"), cells)
