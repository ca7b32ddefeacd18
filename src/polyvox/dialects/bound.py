"""Keys without a neutral form that are bound to who minted them: what one server keeps by a name, and proofs that
stand beside a part. Whoever does not speak their dialect cannot say them, and what they stand for is missing there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from polyvox.types import Extra, Loss

KEPT = {
    "openai.responses": {
        "previous_response_id": "the conversation so far", "conversation": "the conversation so far",
        "prompt": "the stored prompt",
    },
    "anthropic.messages": {"container": "the container with its files"},
    "gemini.generate": {"cachedContent": "the cached beginning of the prompt"},
}  # fmt: skip
"""Keys of a request by dialect, and what each stands for."""

PROOFS = {"gemini.generate": "thoughtSignature"}
"""The key of a proof that stands beside what has no place for one, a picture say."""


def missed(extra: Extra, name: str) -> tuple[Loss, ...]:
    """What a request for the dialect `name` loses with the keys of others, beside the keys themselves."""
    return tuple([
        Loss(f"extra.{dialect}.{key}", f"{what} is kept at a server of {dialect}, and is not sent here")
        for dialect, keys in extra.items()
        if dialect != name
        for key, what in KEPT.get(dialect, {}).items()
        if keys.get(key) is not None
    ])  # fmt: skip


def own_keys(extra: Extra, name: str, losses: list[Loss], where: str) -> dict[str, Any]:
    """The keys that are those of the dialect `name`; those of others are put among the losses."""
    if not extra:
        return {}
    losses += [
        Loss(f"{where}extra.{other}", "keys of another dialect", weight(other, keys))
        for other, keys in extra.items()
        if other != name
    ]
    return dict(extra.get(name, {}))


def weight(dialect: str, keys: Mapping[str, Any]) -> Literal["note", "loss"]:
    """How much is lost with keys of this dialect where another is spoken: a proof is a loss."""
    return "loss" if PROOFS.get(dialect) in keys else "note"
