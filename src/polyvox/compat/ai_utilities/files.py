"""Not in this version: who imports it is told what it comes with, and what works meanwhile."""

from __future__ import annotations

from polyvox.compat.waiting import not_yet

raise not_yet(__name__, "file operations", "polyvox.Client(...).files, which uploads, lists, reads and deletes,")
