"""Texts made fit to be told: what a name or a word must be for any exporter, file or database to take it."""

from __future__ import annotations

from polyvox.keys import redact


def clean(text: str) -> str:
    """The text without lone surrogates, which no encoder takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def masked(text: str) -> str:
    """The same, with secrets masked."""
    return clean(redact(text))
