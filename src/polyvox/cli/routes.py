"""Among whom a question goes, for the command line: which deployments there are, what can be completed of their names,
and a decision as people read it. How calls choose is not decided here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from polyvox.cli import output

if TYPE_CHECKING:
    from polyvox.client import Client
    from polyvox.config import Settings
    from polyvox.registry import DictRegistry, Entry, Registry, SettingsRegistry
    from polyvox.routing.decision import Considered, Decision

_MOST = 50  # completions; a terminal asks before it shows more

# ---- which deployments there are --------------------------------------------------------------


def configured(found: Settings) -> SettingsRegistry:
    """The deployments of the configuration."""
    from polyvox.registry import SettingsRegistry

    return SettingsRegistry(found)


def registry(found: Settings, tier: str) -> Registry | None:
    """What a tier means beside the configuration: nothing where that has deployments, else one at each provider that
    has a key. MissingKeyError where nobody has any."""
    if found.deployments:
        return None
    from polyvox.errors import MissingKeyError
    from polyvox.registry.values import LOCAL, tier_word

    made = _of_keys(found)
    if tier_word(tier) != LOCAL and all(entry.tier == LOCAL for entry in made.list_active()):
        raise MissingKeyError(
            f"nobody is of the tier {tier}: no deployment is configured, and no provider has a key",
            hint="keep a key with: polyvox keys set PROVIDER, or ask a model on this machine: --tier local",
        )
    return made


def _of_keys(found: Settings) -> DictRegistry:
    from msgspec.structs import replace

    from polyvox.cli import start
    from polyvox.keys import find_key
    from polyvox.registry import DictRegistry

    keyed = {}
    for row in start.providers(found).providers.values():
        key = find_key(row, found) if row.needs_key else None
        if key is not None:
            # Only that there is one is told here: it is looked for again where it is needed.
            keyed.update(dict.fromkeys(row.key_env[:1] or row.key_parts, "there"))
    entries = DictRegistry.from_env(keyed, settings=found).list_active()
    return DictRegistry([replace(entry, api_key=None, origin="catalog") for entry in entries], settings=found)


def has_default(found: Settings) -> bool:
    """Whether one of the configured deployments answers where nobody says which."""
    return bool(found.deployments) and configured(found).get_default() is not None


def is_known(name: str, found: Settings) -> bool:
    """Whether a name, an alias or a pattern means configured deployments."""
    from polyvox.routing.patterns import is_pattern, matches

    rows = configured(found).rows
    pattern = is_pattern(name)
    return rows.get(name) is not None or any(
        entry.model == name or (pattern and matches(name, (*entry.names, entry.model))) for entry in rows.active
    )


# ---- completion -------------------------------------------------------------------------------


def _completing(words: Callable[[Settings, str], Iterable[str]]) -> Callable[..., list[str]]:
    """What Click asks to complete an option's value; it gives what is typed so far last."""

    def complete(*asked: Any) -> list[str]:
        from polyvox import config

        try:
            begun = asked[-1]
            return [word for word in dict.fromkeys(words(config.load(), begun)) if word.startswith(begun)][:_MOST]
        except Exception:  # noqa: BLE001 - what is wrong is told when the command is run, not in the middle of a word
            return []

    return complete


def _names(found: Settings, begun: str) -> Iterator[str]:
    for entry in configured(found).list_active():
        yield from entry.names
    yield from (f"@{alias}" for alias in found.aliases)
    from polyvox.cli import start

    rows = start.providers(found)
    yield from (row.name for row in rows.providers.values() if row.transport == "demo")
    if "/" in begun:  # else there would be a thousand
        yield from (model.name for model in rows.models)


def _tiers(found: Settings, _: str) -> Iterator[str]:
    from polyvox.registry import TIERS

    yield from (*TIERS, "auto")
    yield from configured(found).rows.tiers


known_names: Final = _completing(_names)
"""What -m may go on with: deployments, aliases, and models once their provider is said."""
known_tiers: Final = _completing(_tiers)
"""What --tier may go on with."""


# ---- a decision -------------------------------------------------------------------------------


def decided(client: Client, prompt: Any, facts: Mapping[str, Any]) -> tuple[Decision, Exception | None]:
    """Among whom a call would choose, and what is in the way where nobody can be asked."""
    from polyvox.errors import PolyvoxError

    try:
        return client.route(prompt, **facts), None
    except PolyvoxError as error:
        if error.decision is None:
            raise
        return error.decision, error


def show(decision: Decision, entries: Iterable[Entry]) -> None:
    """A decision as lines and a table, in the order in which candidates would be asked as far as that is known."""
    for label, text in _lines(decision):
        output.line(f"{label + ':':<10} {text}")
    models = {entry.name: entry.model for entry in entries}
    cells = [
        (one.name, models.get(one.name, one.name), one.priority, f"{one.weight:g}", _score(one.score), _turn(one),
         one.skipped)
        for one in sorted(decision.candidates, key=_rank)
    ]  # fmt: skip
    output.line("")
    output.table(("DEPLOYMENT", "MODEL", "PRIORITY", "WEIGHT", "SCORE", "ASKED", "WHY NOT"), cells)


def _lines(decision: Decision) -> Iterator[tuple[str, str]]:
    if decision.named is not None:
        yield "among", decision.named
    if decision.tier is not None:
        found = "" if decision.points is None else f", {decision.points} points"
        reasons = f" ({', '.join(decision.reasons)})" if decision.reasons else ""
        yield "tier", f"{decision.tier}{found}{reasons}"
    yield "strategy", decision.strategy
    if decision.bound:
        yield "only", f"{', '.join(decision.bound)}, which keeps what the request names"
    if decision.rather:
        yield "rather", f"{', '.join(decision.rather)}, whose words are in the request"
    if decision.sticky:
        yield "sticky", "calls that begin like this one meet the same deployment"


def _rank(one: Considered) -> tuple[int, int, float]:
    turn = 2 if one.skipped is not None else 0 if one.asked is not None else 1
    return turn, one.priority, one.score if one.score is not None else 0.0


def _turn(one: Considered) -> str:
    if one.skipped is not None:
        return "no"
    return "first" if one.asked is not None else "after a failure"


def _score(score: float | None) -> str | None:
    return None if score is None else f"{score:.4g}"
