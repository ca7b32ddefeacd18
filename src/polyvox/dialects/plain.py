"""The request that most calls make: words of the system, then of user and assistant in turn, and few settings. It is
told apart here once, so that a dialect can write it the cheap way; one that says anything more goes the general way."""

from __future__ import annotations

from operator import attrgetter
from typing import NamedTuple

from polyvox.types import Message, Part, Request, Text

_PLAIN = {"model", "messages", "stream", "max_tokens", "temperature", "top_p", "stop", "seed"}
_beside = attrgetter(*[field for field in Request.__struct_fields__ if field not in _PLAIN])
_NOTHING = _beside(Request(""))
_beside_words = attrgetter(*[field for field in Text.__struct_fields__ if field != "text"])
_BARE = _beside_words(Text(""))
_ALTERNATING = ("user", "assistant")


class PlainTurns(NamedTuple):
    """What is said, in order: roles alternate, the first and the last turn are the user's, and none is blank."""

    system: list[str]
    turns: list[tuple[str, str]]


def plain_turns(request: Request) -> PlainTurns | None:
    """The words of a request that says nothing else but its model, whether it streams, max_tokens, temperature,
    top_p, stop and seed; None for any other."""
    if _beside(request) != _NOTHING:
        return None
    system: list[str] = []
    turns: list[tuple[str, str]] = []
    for message in request.messages:
        text = plain_words(message)
        if not text or text.isspace():
            return None
        if message.role == _ALTERNATING[len(turns) & 1]:
            turns.append((message.role, text))
        elif message.role == "system" and not turns:
            system.append(text)
        else:
            return None
    return PlainTurns(system, turns) if len(turns) & 1 else None


def plain_words(message: Message) -> str | None:
    """The words of a message that has one part, and says nothing but these; None for any other."""
    parts = message.parts
    if len(parts) != 1 or message.name is not None or message.extra:
        return None
    return bare_words(parts[0])


def bare_words(part: Part) -> str | None:
    """The words of a part that says nothing but these; None for any other."""
    if type(part) is Text and _beside_words(part) == _BARE and type(part.text) is str:
        return part.text
    return None
