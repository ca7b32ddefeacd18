"""What can be asked: `polyvox models` and `polyvox providers`, read from the catalog and the settings. Only
`models list --live` asks a provider, for its list, and `models show` a server that keeps the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import click

from polyvox.cli import model_store, output, routes, start
from polyvox.cli.listing import HELP, Listing
from polyvox.cli.output import CommandLineError

if TYPE_CHECKING:
    from polyvox.catalog import Catalog
    from polyvox.config import Settings
    from polyvox.models import Model, Price
    from polyvox.registry import Entry

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _money(ctx: click.Context, param: click.Parameter, text: str | None) -> Decimal | None:
    """An amount from 0 up, as it was typed."""
    if text is None:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not (amount.is_finite() and amount >= 0):
        raise click.BadParameter(f"{text!r} is not an amount from 0 up", ctx, param)
    return amount


# What people call an ability that the catalog calls otherwise.
_SAME = {"json": "schema", "structured": "schema", "images": "vision", "image": "vision", "thinking": "reasoning"}


@click.group(cls=Listing, name="models", context_settings=HELP)
def models_command() -> None:
    """List the models that are known, and what is known of them.

    A model that is not listed can be asked all the same: what follows PROVIDER/ goes to the provider as
    it is typed. A server on this machine keeps its models itself: it pulls, loads and deletes them.
    """


for _command in model_store.COMMANDS:
    models_command.add_command(_command)


@models_command.command(name="list")
@click.argument("provider", required=False)
@click.option("--provider", "named", metavar="NAME", help="Only models of this provider.")
@click.option(
    "--can",
    "abilities",
    multiple=True,
    metavar="WORD",
    help="Only models known to do this: tools, vision, reasoning, schema, audio; may be repeated.",
)
@click.option(
    "--max-price",
    callback=_money,
    metavar="USD",
    help="Only models whose input and output cost no more, each per million tokens; unknown prices are left out.",
)
@click.option("--min-context", type=click.IntRange(min=1), metavar="TOKENS", help="Only models known to take so many.")
@click.option("--alive", is_flag=True, help="Leave out deprecated and retired models.")
@click.option("--live", is_flag=True, help="Ask PROVIDER itself which models it has; costs nothing.")
@_json_option
@output.debug_option
def list_models(
    provider: str | None, named: str | None, abilities: tuple[str, ...], max_price: Decimal | None,
    min_context: int | None, alive: bool, live: bool, as_json: bool,
) -> None:  # fmt: skip
    """List the known models, all or those of PROVIDER. Prices are in USD per million tokens.

    In the place of a provider, cloud means all on the network and local all on this machine.
    """
    settings = start.settings()
    rows = start.providers(settings)
    if provider is not None and named is not None and provider != named:
        raise CommandLineError(f"two providers are named: {provider} and {named}", "name one")
    provider = provider or named
    owners = None if provider is None else _owners(provider, rows)
    if live and (provider is None or provider not in rows.providers):
        raise CommandLineError("--live asks one provider, and none is named", "polyvox models list --live PROVIDER")
    models = _live(provider, settings) if live else rows.models
    words = sorted({word for model in rows.models for word in model.capabilities})
    abilities = tuple(_SAME.get(ability.lower(), ability.lower()) for ability in abilities)
    for ability in abilities:
        if ability not in words:
            raise CommandLineError(f"nothing is known of {ability!r}", f"--can takes {', '.join(words)}")
    now = datetime.now(UTC)
    found = [
        (model, model.price(now))
        for model in models
        if (live or owners is None or model.provider in owners)
        and set(abilities) <= set(model.capabilities)
        and (min_context is None or (model.context or 0) >= min_context)
        and not (alive and model.standing(now.date()) != "alive")
    ]
    if max_price is not None:
        found = [(model, price) for model, price in found if _costs_at_most(price, max_price)]
    if as_json:
        output.data([_model_facts(model, now) for model, _ in found])
        return
    cells = (
        (model.name, model.context, model.max_output, _amount(price, "input"), _amount(price, "output"),
         ", ".join(model.capabilities) or None, _unless_alive(model, now))
        for model, price in found
    )  # fmt: skip
    output.table(("MODEL", "CONTEXT", "OUTPUT", "$ IN", "$ OUT", "CAN", "LIFE"), cells)
    if not live and provider == "local":
        servers = ", ".join(row.name for row in rows.providers.values() if row.local and row.lists_models)
        output.note(f"what a server on this machine has, it tells: polyvox models list --live NAME ({servers})")


_PLACES = {"cloud": False, "local": True}  # whether those that are meant are on this machine


def _owners(word: str, rows: Catalog) -> set[str]:
    """The names of the providers that a word means: one, or all in a place."""
    there = {row.name for row in rows.providers.values() if row.local is _PLACES.get(word)}
    return there if word == "local" or (there and word not in rows.providers) else {rows.provider(word).name}


def _live(provider: str | None, settings: Settings) -> tuple[Model, ...]:
    """The models that a provider says it has."""
    from polyvox.client import Client

    with Client(settings=settings) as client:
        return client.models(provider)


def _costs_at_most(price: Price | None, most: Decimal) -> bool:
    amounts = (price.input, price.output) if price else (None,)
    return all(amount is not None and amount <= most for amount in amounts)


def _amount(price: Price | None, unit: str) -> str | None:
    amount = getattr(price, unit, None)
    return None if amount is None else f"{amount:f}"


def _unless_alive(model: Model, now: datetime) -> str | None:
    standing = model.standing(now.date())
    if standing == "alive":
        return None
    return f"{standing} {model.retires}" if model.retires else standing


@models_command.command(name="show")
@click.argument("name")
@_json_option
@output.debug_option
def show_model(name: str, as_json: bool) -> None:
    """Say which model NAME means, and what is known of it; what its server says of it, where that keeps it. NAME may
    be that of a configured deployment.
    """
    from polyvox.dialects.model_store import KEEPERS

    found = start.settings()
    entry = routes.configured(found).get_by_name(name)
    if entry is not None and entry.base_url is not None:
        _show_elsewhere(entry, found, as_json)
        return
    target = start.target(name if entry is None else entry.model, found)
    row = target.provider
    told = model_store.told_by_server(row.name, target.model, found) if row.dialect in KEEPERS else None
    now = datetime.now(UTC)
    facts = {
        **({} if entry is None else {"deployment": entry.describe()}),
        "name": target.name,
        "title": row.title or row.name,
        "dialect": row.dialect,
        "base_url": row.base_url,
        **(_model_facts(target.info, now) if target.info else {"id": target.model, "provider": row.name}),
    }
    if told is not None:
        facts = {**facts, "context": facts.get("context") or told.context,
                 "capabilities": facts.get("capabilities") or told.capabilities}  # fmt: skip
    if as_json:
        import msgspec

        server = {"server": msgspec.to_builtins(told)} if row.dialect in KEEPERS else {}
        output.data({**facts, **server})
        return
    _show_facts(facts)
    for key, text in model_store.lines_of(told) if told is not None else ():
        output.line(f"{key + ':':<14} {text}")
    _show_price(facts)
    if target.info is None and row.dialect not in KEEPERS:
        output.note("the catalog knows nothing of this model; it can be asked all the same")
    elif target.info is not None and (notice := target.info.notice(now.date())):
        output.note(notice)


def _show_elsewhere(entry: Entry, found: Settings, as_json: bool) -> None:
    """A deployment with an address of its own: what is said of it, and what it costs where anybody says."""
    from polyvox.registry import known_of

    known = known_of(entry, found)
    facts = {"deployment": entry.describe(), "name": entry.model, "base_url": entry.base_url}
    if known is not None:
        facts |= {key: value for key, value in _model_facts(known, datetime.now(UTC)).items() if key not in facts}
    if as_json:
        output.data(facts)
        return
    _show_facts(facts)
    _show_price(facts)


def _show_facts(facts: Mapping[str, Any]) -> None:
    for key, value in facts.items():
        if key == "deployment":
            apart = ("name", "model", "base_url", "price")
            said = (f"{name} {text}" for name, text in value.items() if name not in apart)
            value = ", ".join([value["name"], *said])
        if key not in ("bare", "price", "prices") and value not in (None, (), [], False):
            output.line(f"{key + ':':<14} {', '.join(value) if isinstance(value, list | tuple) else value}")


def _show_price(facts: Mapping[str, Any]) -> None:
    for unit, amount in facts.get("price", {}).items():
        output.line(f"{'price:':<14} {amount} USD per {_unit(unit)}")


def _unit(name: str) -> str:
    """What a price is for, from the name of its field or unit."""
    if "count" in name or name.endswith(("hours", "pages", "chars")):
        return name
    return f"million tokens of {name.replace('_', ' ')}"


def _model_facts(model: Model, now: datetime) -> dict[str, Any]:
    """All that is known, with what it costs now and how it stands; what is not known is not there."""
    import msgspec

    facts: dict[str, Any] = msgspec.to_builtins(model)
    facts = {"name": model.name, **facts, "standing": model.standing(now.date())}
    price = model.price(now)
    if price is not None:
        told = msgspec.to_builtins(price)
        other = told.pop("other", {})
        for condition in ("above", "since", "hours", "when"):
            told.pop(condition, None)
        facts["price"] = {**told, **other}
    return facts


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
