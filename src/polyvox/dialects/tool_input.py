"""The arguments of a call where a protocol demands an object. It knows no protocol."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from polyvox.types import ToolCall


class Lose(Protocol):
    """Takes what could not be said."""

    def __call__(self, field: str, why: str, severity: Literal["note", "loss"] = "loss") -> None:
        """Record it."""


def input_of(part: ToolCall, where: str, lose: Lose) -> msgspec.Raw | dict[str, Any]:
    """The arguments in the model's own bytes where they are an object, else wrapped in one."""
    text = part.arguments
    if part.kind == "custom":
        lose(f"{where}.arguments", "free text is sent as {input: text}", "note")
        return {"input": text}
    if not text.strip():
        return {}
    try:
        if isinstance(msgspec.json.decode(text), dict):
            return msgspec.Raw(text.encode())
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    lose(f"{where}.arguments", "the arguments are not a JSON object: sent as {input: text}")
    return {"input": text}
