"""Counts as they can be priced: what a usage says, with what cannot be read as the dearest it can mean. It knows no
price."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from polyvox.types import Usage

LARGEST = 2**63 - 1
"""No count is larger than a column of a database holds; what claims to be is no count."""

_KINDS = ("audio_input", "image_input", "audio_output")


class Counts(NamedTuple):
    """Counts that can be.

    Attributes:
        asked, answered: the totals; None where nobody says.
        fresh, read, written: the input, apart: neither read from a cache nor written to one, read, and written, by
            the name of the price.
        reasoning: of the output.
        kinds: tokens of a kind within those totals, by the name of the price.
        notes: what was odd, and how it was read.
    """

    asked: int | None
    fresh: int
    read: int
    written: dict[str, int]
    answered: int | None
    reasoning: int
    kinds: dict[str, int]
    notes: list[str]


def counts_of(usage: Usage, operation: str = "chat") -> Counts:
    """What a usage says, made possible. Where parts are more than their whole they are taken to stand beside it: some
    servers count so, and it is the dearest it can mean."""
    notes: list[str] = []
    if operation == "chat" and _is_plain(usage):
        assert usage.input is not None
        return Counts(usage.input, usage.input, 0, {}, usage.output, 0, {}, notes)
    asked, answered = _totals(usage, operation, notes)
    read, reasoning = _part("cache_read", usage.cache_read, notes), _part("reasoning", usage.reasoning, notes)
    written = _written(usage, notes)
    cached, fresh = read + sum(written.values()) if written else read, asked or 0
    if asked is not None:
        if cached > asked:
            notes.append(f"{cached} cached tokens of {asked} of input: they are counted beside it")
            asked += cached
        else:
            fresh = asked - cached
    if answered is not None and reasoning > answered:
        notes.append(f"{reasoning} tokens of reasoning of {answered} of output: they are counted beside it")
        answered += reasoning
    kinds = {kind: _part(kind, said, notes) for kind in _KINDS if (said := getattr(usage, kind)) is not None}
    return Counts(asked, fresh, read, written, answered, reasoning, kinds, notes)


def _is_plain(usage: Usage) -> bool:
    """Whether there is nothing to tell apart in it, as in most: two totals that can be, and no parts."""
    asked, answered = usage.input, usage.output
    if asked is None or answered is None or not (0 <= asked <= LARGEST and 0 <= answered <= LARGEST):
        return False
    cached = usage.cache_read or usage.cache_write or usage.cache_write_by_ttl
    return not (cached or usage.reasoning or usage.audio_input or usage.image_input or usage.audio_output)


def _totals(usage: Usage, operation: str, notes: list[str]) -> tuple[int | None, int | None]:
    """What went in and what came out; one that nobody says follows from the sum of both."""
    asked, answered = _whole("input", usage.input, notes), _whole("output", usage.output, notes)
    if asked is not None and answered is not None:
        return asked, answered
    total = _whole("total", usage.total, notes)
    if total is not None and asked is not None and total >= asked:
        return asked, total - asked
    if total is not None and answered is not None and total >= answered:
        return total - answered, answered
    # Nothing but a chat's answer is made of tokens that somebody forgets to count.
    return asked, 0 if answered is None and operation != "chat" else answered


def _written(usage: Usage, notes: list[str]) -> dict[str, int]:
    """Tokens written to caches by the name of their price; those of no known lifetime are plain ones."""
    written = _part("cache_write", usage.cache_write, notes)
    if not usage.cache_write_by_ttl:
        return {"cache_write": written} if written else {}
    by_ttl = {ttl: count for ttl, said in usage.cache_write_by_ttl.items() if (count := _part(ttl, said, notes))}
    told = sum(by_ttl.values())
    if usage.cache_write is not None and told > written:
        notes.append(f"{told} tokens written to caches, {written} in all: the larger number counts")
    found = {_ttl_price(ttl): 0 for ttl in by_ttl}
    for ttl, count in by_ttl.items():
        found[_ttl_price(ttl)] += count
    if written > told:
        found["cache_write"] = found.get("cache_write", 0) + written - told
    return found


def _ttl_price(ttl: str) -> str:
    """The name of the price of a lifetime: five minutes are the plain one."""
    return "cache_write" if ttl == "5m" else f"cache_write_{ttl}"


def known_units(units: Mapping[str, int], notes: list[str]) -> dict[str, int | None]:
    """Counts beside tokens; None for what is no count."""
    return {unit: _whole(unit, count, notes) for unit, count in units.items()}


def _whole(name: str, count: int | None, notes: list[str]) -> int | None:
    if count is None or 0 <= count <= LARGEST:
        return count
    notes.append(f"{name} is {count if count >= -LARGEST and count <= LARGEST else 'too large'}, which is no count")
    return None


def _part(name: str, count: int | None, notes: list[str]) -> int:
    return _whole(name, count, notes) or 0
