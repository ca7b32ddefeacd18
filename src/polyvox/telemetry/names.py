"""The names of telemetry, read from `data/telemetry.toml`: attributes and metrics by version of the conventions,
operations, providers. It knows no call and no library of telemetry."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import msgspec
from msgspec import Struct, field

from polyvox.errors import InputError

Version = Literal["latest", "v1.41", "both"]
VERSIONS: tuple[str, ...] = get_args(Version)

_DATA = Path(__file__).parent.parent / "data" / "telemetry.toml"


class Attribute(Struct, frozen=True, forbid_unknown_fields=True):
    """The names of one fact. v1_41 None is the same as `latest`, "" none; older is said beside them with "both"."""

    latest: str
    need: Literal["required", "conditional", "recommended", "content"]
    at: Literal["start", "end"]
    v1_41: str | None = field(default=None, name="v1.41")
    older: str = ""

    def names(self, version: str) -> tuple[str, ...]:
        """What the fact is called in a version; () where it has no name there."""
        v1_41 = self.latest if self.v1_41 is None else self.v1_41
        said = {"latest": (self.latest,), "v1.41": (v1_41,)}.get(version, (self.latest, v1_41, self.older))
        return tuple(dict.fromkeys(name for name in said if name))


class Metric(Struct, frozen=True, forbid_unknown_fields=True):
    """One instrument, and the fact it measures. choice: made only when asked for."""

    name: str
    version: Literal["latest", "v1.41"]
    of: str
    scope: Literal["inference", "other", "all"] = field(name="for")
    kind: Literal["histogram", "counter"]
    unit: str
    says: str
    buckets: str = ""
    choice: bool = False
    more: Mapping[str, str] = field(default_factory=dict, name="with")


class Operation(Struct, frozen=True, forbid_unknown_fields=True):
    """What kind of call the conventions take it for, and what comes out of it where that is certain."""

    name: str
    inference: bool = False
    output: str | None = None


class Names(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole table."""

    attributes: dict[str, Attribute]
    metrics: tuple[Metric, ...]
    events: dict[str, str]
    buckets: dict[str, tuple[float, ...]]
    operations: dict[str, Operation]
    spellings: dict[str, str]
    providers: dict[str, str]

    def provider(self, name: str) -> str:
        """What the conventions call a provider; its own name where they do not know it."""
        return self.providers.get(name, name)

    def operation(self, word: str) -> Operation:
        """The operation of a word; one that nobody knows keeps its word."""
        found = self.operations.get(self.spellings.get(word, word))
        return Operation(word) if found is None else found


@functools.cache
def names() -> Names:
    """The table, read once."""
    return msgspec.toml.decode(_DATA.read_bytes(), type=Names)


@functools.cache
def spoken(version: str) -> dict[str, tuple[str, ...]]:
    """The names of every fact in a version; facts without one are left out."""
    found = {fact: row.names(version) for fact, row in names().attributes.items()}
    return {fact: said for fact, said in found.items() if said}


@functools.cache
def metrics_of(version: str) -> tuple[Metric, ...]:
    """The metrics of a version; those that differ in nothing but whom they are for stand in the table once each."""
    return tuple(row for row in names().metrics if version in ("both", row.version))


def check_version(param: str, version: str) -> str:
    """The version; raises InputError for one there is not."""
    if version not in VERSIONS:
        raise InputError(f"{param} is {version!r}", hint=f"it is one of {', '.join(VERSIONS)}", param=param)
    return version
