"""Deployments by name and tier: from arguments, a table of a database, the environment, files. A change acts on the
next call; keys are shown nowhere. It asks no model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from polyvox.registry.base import Registry
from polyvox.registry.followed import FileRegistry, SettingsRegistry
from polyvox.registry.given import DictRegistry
from polyvox.registry.reach import key_of, known_of, target_of, usable, usual_price, why_not_local
from polyvox.registry.rows import Rows
from polyvox.registry.several import Registries
from polyvox.registry.values import LOCAL, TIERS, Entry

if TYPE_CHECKING:
    from polyvox.registry.table import TableRegistry as TableRegistry

__all__ = [
    "LOCAL", "TIERS", "DictRegistry", "Entry", "FileRegistry", "Registries", "Registry", "Rows", "SettingsRegistry",
    "TableRegistry", "key_of", "known_of", "target_of", "usable", "usual_price", "why_not_local",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """The one in a database is loaded on first use."""
    if name == "TableRegistry":
        return import_module("polyvox.registry.table").TableRegistry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
