"""What is on this machine, and what is not: asked of the core's catalog and of registered deployments. It sends nothing
and asks nobody what a name stands for."""

from __future__ import annotations

from datetime import UTC, datetime
from difflib import get_close_matches

from polyvox import catalog, config
from polyvox.catalog import Catalog, Provider
from polyvox.compat import shared
from polyvox.config import Settings
from polyvox.models import Model
from polyvox.places import located
from polyvox.registry import Entry, SettingsRegistry, why_not_local
from polyvox.registry.reach import is_loopback
from polyvox.types import Response

_held: tuple[Settings, Catalog, Catalog] | None = None


def rows() -> Catalog:
    """The catalog under the settings that hold now; kept until either changes."""
    global _held
    held, settings, known = _held, config.current(), catalog.load()
    if held is None or held[0] is not settings or held[1] is not known:
        held = _held = (settings, known, known.with_overrides(settings.providers, settings.origins))
    return held[2]


def deployment_named(name: str) -> Entry | None:
    """The deployment of this name, registered by anybody or configured; None where there is none."""
    found = shared.EVERYONE.get_by_name(name)
    return found or (SettingsRegistry(None).get_by_name(name) if config.current().deployments else None)


def added_as(name: str) -> list[Model]:
    """The models that the program added which have this name, an alias or with the provider; the newest last."""
    called = shared.in_catalog(name)
    return [model for model in catalog.added() if called == model.name or name in (model.id, *model.aliases)]


def is_local_entry(entry: Entry) -> bool:
    """Whether what a deployment is asked stays on this machine."""
    return why_not_local(entry, config.current()) is None


def is_local_answer(response: Response) -> bool:
    """Whether an answer was made on this machine, as far as anybody can know."""
    entry = deployment_named(response.deployment) if response.deployment else None
    if entry is not None:
        return is_local_entry(entry)
    row = rows().providers.get(response.provider or "")
    return row is not None and stays(row)


def instead(provider: str, model: str) -> str | None:
    """What to ask in the place of a model that its provider does not have: its successor where it is at its end, else
    those with the nearest names; None where nothing is near."""
    known = rows()
    info = known.info(provider, model)
    if info is not None and info.successor is not None:
        return f"{info.notice(datetime.now(UTC).date()) or info.name}: ask {provider}/{info.successor}"
    alive = [one.id for one in known.models if one.provider == provider and one.id != model]
    near = get_close_matches(model, alive, 3)
    return f"did you mean {' or '.join(f'{provider}/{name}' for name in near)}?" if near else None


def stays(row: Provider) -> bool:
    """Whether a provider runs on this machine, or wherever its owner said that it is his own."""
    if not row.local:
        return False
    said = config.current().providers.get(row.name, {}).get("local") is True
    return row.transport != "http" or said or is_loopback(located(row).base_url)
