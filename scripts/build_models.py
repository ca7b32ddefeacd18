"""Writes `src/polyvox/data/models.json` from the prices package `genai-prices` and the facts kept by hand.
Run by hand when either changed; it fetches nothing and knows no price of its own."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent.parent / "src" / "polyvox" / "data"
Row = dict[str, Any]

# The source's provider -> ours, and which of the models it lists are at our address; others go by their own name.
SERVED: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "google": (("gemini", ("gemini-*", "gemma-*")), ("vertex", ("*",))),
    "x-ai": (("xai", ("*",)),),
    "moonshotai": (("moonshot", ("*",)),),
    "aws": (("bedrock", ("*",)),),
}
# The source's unit -> ours. A unit that is not here keeps its name, under "other".
UNITS = {
    "input_mtok": "input", "output_mtok": "output", "cache_read_mtok": "cache_read", "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h", "output_reasoning_mtok": "reasoning", "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output", "input_image_mtok": "image_input",
}  # fmt: skip
_HALF_A_DATE = re.compile(r"-20[0-9]{2}$")
# The order of a row's keys in the file; facts of a kind that is not here are a mistake.
KEYS = (
    "id", "provider", "aliases", "bare", "context", "max_output", "capabilities", "released", "deprecated", "retires",
    "successor", "prices",
)  # fmt: skip


# ---- from the source --------------------------------------------------------------------------


def source_rows(providers: Iterable[Any], known: Iterable[str]) -> list[Row]:
    """A row for each model of the providers we know, in the source's order."""
    ours = set(known)
    rows = []
    for provider in providers:
        for name, globs in SERVED.get(provider.id, ((provider.id, ("*",)),)):
            models = [model for model in provider.models if any(fnmatchcase(model.id, glob) for glob in globs)]
            if name in ours:
                rows += _named([_row(name, model) for model in models])
    return rows


def _row(provider: str, model: Any) -> Row:
    names = [word for kind, word in _words(model.match) if kind == "equals"]
    begins = [word.rstrip("-@") for kind, word in _words(model.match) if kind == "starts_with"]
    begins = [word for word in begins if not _HALF_A_DATE.search(word)]
    # The source's id is a title where its own rule does not take it.
    taken = _takes(model.match, model.id) or not names
    row: Row = {"id": model.id if taken else names[0], "provider": provider, "aliases": [*names, *begins]}
    if model.context_window:
        row["context"] = model.context_window
    if model.deprecated:
        row["deprecated"] = True
    prices = _prices(model)
    if prices:
        row["prices"] = prices
    return row


def _words(clause: Any) -> list[tuple[str, str]]:
    """The names a matching rule takes, and the beginnings of names; other kinds of rules name nothing."""
    if hasattr(clause, "or_"):
        return [word for inner in clause.or_ for word in _words(inner)]
    return [(kind, value) for kind in ("equals", "starts_with") if (value := getattr(clause, kind, None))]


def _takes(clause: Any, name: str) -> bool:
    """Whether a matching rule takes a name; the source compares without case."""
    if hasattr(clause, "or_"):
        return any(_takes(inner, name) for inner in clause.or_)
    if hasattr(clause, "and_"):
        return all(_takes(inner, name) for inner in clause.and_)
    return any(rule(getattr(clause, kind), name) for kind, rule in _RULES.items() if hasattr(clause, kind))


_RULES: dict[str, Callable[[str, str], bool]] = {
    "equals": lambda word, name: name.lower() == word.lower(),
    "starts_with": lambda word, name: name.lower().startswith(word.lower()),
    "ends_with": lambda word, name: name.lower().endswith(word.lower()),
    "contains": lambda word, name: word.lower() in name.lower(),
    "regex": lambda word, name: re.search(word, name, re.IGNORECASE) is not None,
}


def _named(rows: list[Row]) -> list[Row]:
    """The rows of one provider with every name told once: an id goes before an alias, a first row before a later."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row["id"], row)
    taken = set(first)
    for row in first.values():
        # "provider:name" and "provider/name" are spellings of other libraries.
        spelt = (f"{row['provider']}:", f"{row['provider']}/")
        row["aliases"] = [
            name for name in dict.fromkeys(row["aliases"]) if name not in taken and not name.startswith(spelt)
        ]
        taken.update(row["aliases"])
    return list(first.values())


def _prices(model: Any) -> list[Row]:
    """What a model costs, the most particular case first: the first that holds is the one."""
    said = model.prices if isinstance(model.prices, list) else [model.prices]
    cases: list[Row] = []
    for variant in model.price_variants or ():
        cases += _cases(variant.prices, variant.constraint, variant.when)
    for one in reversed(said):
        cases += _cases(getattr(one, "prices", one), getattr(one, "constraint", None), {})
    return cases


def _cases(prices: Any, constraint: Any, when: Mapping[str, str]) -> list[Row]:
    units = {unit: price for unit, price in vars(prices).items() if price is not None}
    if not units:
        return []
    limits = {tier.start for price in units.values() for tier in getattr(price, "tiers", ())}
    condition = {**_condition(constraint), **({"when": dict(sorted(when.items()))} if when else {})}
    return [_case(units, above, condition) for above in sorted({0, *limits}, reverse=True)]


def _case(units: Mapping[str, Any], above: int, condition: Row) -> Row:
    case: Row = {**condition, **({"above": above} if above else {})}
    for unit, price in sorted(units.items(), key=lambda item: list(UNITS).index(item[0]) if item[0] in UNITS else 99):
        amount = _decimal(_above(price, above))
        if unit in UNITS:
            case[UNITS[unit]] = amount
        else:
            case.setdefault("other", {})[unit] = amount
    return case


def _above(price: Any, above: int) -> Decimal:
    """The price of a unit when more than so many tokens go in."""
    amount = getattr(price, "base", price)
    for tier in getattr(price, "tiers", ()):
        if tier.start <= above:
            amount = tier.price
    return Decimal(amount)


def _decimal(amount: Decimal) -> str:
    text = f"{amount.normalize():f}"
    return "0" if text == "-0" else text


def _condition(constraint: Any) -> Row:
    if constraint is None:
        return {}
    if hasattr(constraint, "start_date"):
        return {"since": constraint.start_date.isoformat()}
    ends = (constraint.start_time, constraint.end_time)
    if any(end.utcoffset() for end in ends):
        raise SystemExit(f"a time of day that is not UTC: {constraint}")
    return {"hours": [f"{end:%H:%M}" for end in ends]}


# ---- with what is known by hand ---------------------------------------------------------------


def merged(rows: Iterable[Row], extra: Iterable[Row]) -> list[Row]:
    """The source's rows with the facts kept by hand, which go before the source's; sorted by provider and id."""
    made = [dict(row) for row in rows]
    for facts in extra:
        unknown = facts.keys() - set(KEYS)
        if unknown:
            raise SystemExit(f"{facts.get('id')}: unknown facts {sorted(unknown)}")
        mine = [row for row in made if row["provider"] == facts["provider"]]
        names = (facts["id"], *facts.get("aliases", ()))
        told = {name: row for row in mine for name in (*row.get("aliases", ()), row["id"])}
        old = next((told[name] for name in names if name in told), None)
        if old is None:
            old = {}
            made.append(old)
        others = {row["id"] for row in mine if row is not old}
        spelt = [*names[1:], *([old["id"]] if old else ()), *old.get("aliases", ())]
        aliases = [name for name in dict.fromkeys(spelt) if name != facts["id"] and name not in others]
        old.update({**facts, "aliases": aliases, "bare": True})
        for row in mine:
            if row is not old:
                row["aliases"] = [name for name in row.get("aliases", ()) if name not in (facts["id"], *aliases)]
    made.sort(key=lambda row: (row["provider"], row["id"]))
    return [{key: row[key] for key in KEYS if row.get(key) not in (None, [], ())} for row in made]


def text_of(note: Row, rows: Iterable[Row]) -> str:
    """The file: a JSON list, the note first, a row to a line."""
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in (note, *rows)]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def extra_rows(folder: Path = DATA) -> list[Row]:
    """What is known by hand."""
    found: list[Row] = tomllib.loads((folder / "models-extra.toml").read_text(encoding="utf-8"))["model"]
    return found


def main() -> None:
    """Read the package, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, help="a folder that holds the package genai_prices")
    parser.add_argument("--date", type=date.fromisoformat, required=True, help="the day the facts are from")
    options = parser.parse_args()
    if options.source:
        sys.path.insert(0, str(options.source))
    from importlib.metadata import version

    from genai_prices.data import providers  # type: ignore[import-not-found, unused-ignore]

    known = tomllib.loads((DATA / "providers.toml").read_text(encoding="utf-8"))
    rows = merged(source_rows(providers, known), [row for row in extra_rows() if row["provider"] in known])
    note = {
        "_source": f"genai-prices {version('genai-prices')} (MIT, see notice.toml) and models-extra.toml",
        "_date": options.date.isoformat(),
        "_note": "Written by scripts/build_models.py. Prices in USD per million tokens, others by their unit.",
    }
    text = text_of(note, rows)
    (DATA / "models.json").write_text(text, encoding="utf-8")
    print(f"{len(rows)} models, {len(text.encode())} bytes")


if __name__ == "__main__":
    main()
