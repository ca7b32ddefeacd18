"""How demanding a request is, and which tier of models that calls for: points for what can be seen of it, each with its
reason. It reads words and numbers and asks no model, so that the same request always gets the same answer."""

from __future__ import annotations

import functools
import pkgutil
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from polyvox.routing.needs import Needs, needs_of
from polyvox.types import Image, Message, Request, Text, Thinking, Video

TIERS = ("economy", "standard", "premium", "local")
"""The tiers everybody knows, the lesser first; a user may have others. "local" is never chosen by points."""


class Scored(NamedTuple):
    """A tier, the points that led to it, and what each of them is for: "code: +2"."""

    tier: str
    points: int
    reasons: tuple[str, ...]


Steps = list[tuple[int, int]]


class Table(Struct, frozen=True, forbid_unknown_fields=True):
    """Points for a number, by steps: (from, points), the last one that is reached counts. The number is of hits where
    there are words, which stand alone, and signs, which stand anywhere."""

    steps: Steps
    words: frozenset[str] = frozenset()
    signs: tuple[str, ...] = ()

    def points(self, number: int) -> int:
        """The points for a number."""
        found = 0
        for least, points in self.steps:
            if number < least:
                break
            found = points
        return found


class Tier(Struct, frozen=True, forbid_unknown_fields=True, rename={"least": "from"}):
    """What a tier is for, and from how many points on it is chosen; None is never."""

    description: str
    least: int | None = None


class Efforts(Struct, frozen=True, forbid_unknown_fields=True):
    """Points for the effort that the caller asks for."""

    points: dict[str, int]


class Languages(Struct, frozen=True, forbid_unknown_fields=True):
    """Points for another script than the Latin one, and for several in one text."""

    other: int
    mixed: int


class Weights(Struct, frozen=True, forbid_unknown_fields=True):
    """What counts how much: the tables of `data/routing.toml`, or a user's own of the same form."""

    tiers: dict[str, Tier]
    length: Table
    output: Table
    turns: Table
    tools: Table
    images: Table
    effort: Efforts
    code: Table
    mathematics: Table
    reasoning: Table
    languages: Languages


def weights_of(tables: Mapping[str, Any]) -> Weights:
    """The weights in tables as a TOML file has them; raises `msgspec.ValidationError` for others."""
    return msgspec.convert(tables, Weights)


class Scorer:
    """Scores requests by weights; it has made ready what does not change from request to request."""

    __slots__ = ("_known", "_pattern", "_signs", "_words", "tiers", "weights")

    def __init__(self, weights: Weights) -> None:
        self.weights: Weights = weights
        tables = {name: getattr(weights, name) for name in _TEXTUAL}
        # As bytes: the words of a question are found faster so.
        self._words = {word.encode(): name for name, table in tables.items() for word in table.words}
        self._known = frozenset(self._words)
        self._signs = {sign: name for name, table in tables.items() for sign in table.signs}
        # The longer first, so that none hides behind one that it begins with.
        longest = sorted(self._signs, key=lambda sign: (-len(sign), sign))
        self._pattern = re.compile("|".join(map(re.escape, longest)) or r"(?!)")
        chosen = [(tier.least, name) for name, tier in weights.tiers.items() if tier.least is not None]
        self.tiers: list[tuple[int, str]] = sorted(chosen, reverse=True)

    def __call__(self, request: Request, needs: Needs | None = None) -> Scored:
        """See `score`."""
        found = _text_free(request, needs or needs_of(request), self.weights)
        text = _question(request.messages)
        if text:
            found += self._textual(text)
        points = sum([each for _, each in found])
        # Whatever reaches no tier is for the lowest.
        tier = next((name for least, name in self.tiers if points >= least), self.tiers[-1][1] if self.tiers else "")
        return Scored(tier, points, tuple([f"{what}: {each:+d}" for what, each in found if each]))

    def _textual(self, text: str) -> list[tuple[str, int]]:
        """Points for what the user's words are about."""
        lower, hits, weights = text.lower(), dict.fromkeys(_TEXTUAL, 0), self.weights
        for word in self._known.intersection(lower.encode("ascii", "replace").translate(_LETTERS).split()):
            hits[self._words[word]] += 1
        for sign in set(self._pattern.findall(lower)):
            hits[self._signs[sign]] += 1
        found = [(name, getattr(weights, name).points(number)) for name, number in hits.items() if number]
        if not text.isascii():
            scripts = scripts_of(text)
            if scripts - {"latin"}:
                languages = weights.languages
                points = languages.mixed if len(scripts) > 1 else languages.other
                found.append((f"languages ({', '.join(sorted(scripts))})", points))
        return found


_TEXTUAL = ("code", "mathematics", "reasoning")


@functools.cache
def usual() -> Scorer:
    """The scorer with the weights that come with polyvox, which are read once."""
    import tomllib

    text = (pkgutil.get_data("polyvox", "data/routing.toml") or b"").decode()
    return Scorer(weights_of(tomllib.loads(text)))


def describe(tier: str) -> str:
    """What a tier is for, in one line for people; "" for one of the user's own."""
    known = usual().weights.tiers.get(tier)
    return known.description if known is not None else ""


# ---- the score --------------------------------------------------------------------------------

_LOOK_AT = 400
"""Characters of the question that are read from its beginning, and as many from its end: there stands what is wanted,
and so a long one takes no longer."""
# Every byte that is no small letter parts words.
_LETTERS = bytes([byte if 97 <= byte <= 122 else 32 for byte in range(256)])


def score(request: Request, needs: Needs | None = None) -> Scored:
    """The tier for a request, by the user's latest words and by what goes with them.

    needs is what `needs_of` says, where somebody knows it already. Weights of one's own go into a `Scorer`.

    >>> from polyvox.types import Message
    >>> score(Request("m", (Message("user", (Text("Prove by induction that the sum converges."),)),))).reasons
    ('mathematics: +3',)
    """
    return usual()(request, needs)


def _text_free(request: Request, needs: Needs, weights: Weights) -> list[tuple[str, int]]:
    """Points for what can be counted."""
    found = [
        ("length", weights.length.points(needs.input_tokens)),
        ("output", weights.output.points(needs.output_tokens)),
    ]
    if request.tools:
        found.append(("tools", weights.tools.points(len(request.tools))))
    if len(request.messages) > 1:
        turns = sum([message.role in ("user", "assistant") for message in request.messages])
        found.append(("turns", weights.turns.points(turns)))
    if needs.images:
        found.append(("images", weights.images.points(_images(request.messages))))
    if isinstance(request.thinking, Thinking) and isinstance(request.thinking.effort, str):
        found.append(("effort", weights.effort.points.get(request.thinking.effort, 0)))
    return found


def _question(messages: tuple[Message, ...]) -> str:
    """The latest words of the user, of long ones the beginning and the end."""
    for message in reversed(messages):
        if message.role == "user":
            text = " ".join([part.text for part in message.parts if isinstance(part, Text)])
            if text:
                return text if len(text) <= 2 * _LOOK_AT else f"{text[:_LOOK_AT]} {text[-_LOOK_AT:]}"
    return ""


def _images(messages: Iterable[Message]) -> int:
    return sum([isinstance(part, Image | Video) for message in messages for part in message.parts])


# ---- scripts ----------------------------------------------------------------------------------

# By 128 characters, as far as letters go: the few of another script within the same 128 do not matter here.
_BLOCKS: dict[int, str] = {}
for _script, _from, _to in (
    ("latin", 0x41, 0x7A), ("latin", 0xC0, 0x24F), ("latin", 0x1E00, 0x1EFF), ("greek", 0x380, 0x3FF),
    ("greek", 0x1F00, 0x1FFF), ("cyrillic", 0x400, 0x52F), ("hebrew", 0x580, 0x5FF), ("arabic", 0x600, 0x7FF),
    ("devanagari", 0x900, 0x97F), ("indic", 0x980, 0xDFF), ("thai", 0xE00, 0xEFF), ("ethiopic", 0x1200, 0x137F),
    ("hangul", 0x1100, 0x11FF), ("kana", 0x3080, 0x30FF), ("han", 0x3400, 0x4DBF), ("han", 0x4E00, 0x9FFF),
    ("hangul", 0xAC00, 0xD7A3), ("han", 0xF900, 0xFAFF),
):  # fmt: skip
    for _block in range(_from >> 7, (_to >> 7) + 1):
        _BLOCKS[_block] = _script
_SAMPLE = 60


def scripts_of(text: str) -> set[str]:
    """The scripts that a text is written in, by a few of its characters from the beginning, the middle and the end.

    Japanese is written in several and counts as one.

    >>> scripts_of("Привет, мир")
    {'cyrillic'}
    """
    if len(text) > 3 * _SAMPLE:
        middle = len(text) // 2
        text = text[:_SAMPLE] + text[middle : middle + _SAMPLE] + text[-_SAMPLE:]
    found = {_BLOCKS.get(ord(letter) >> 7, "") if letter.isalpha() else "" for letter in set(text)} - {""}
    if "kana" in found:
        found.discard("han")
    return found
