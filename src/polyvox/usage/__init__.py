"""Usage for people: figures over the ledger, the same for a program, a table and a page, and objects that track what
is used by hand. It writes no row but those a tracker is given, and knows no command line."""

from __future__ import annotations

from polyvox.usage.figures import FIELDS, Ask, Figures, Question, as_csv, as_json, facts, figures, read
from polyvox.usage.tracker import UsageStats, UsageTracker

__all__ = [
    "FIELDS", "Ask", "Figures", "Question", "UsageStats", "UsageTracker", "as_csv", "as_json", "facts", "figures",
    "read",
]  # fmt: skip
