"""Which deployments a name means: one name, an alias, or a pattern with `*` in it. It compares text and knows no
registry."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence


def is_pattern(text: str) -> bool:
    """Whether a name may mean several: it has a `*` in it."""
    return "*" in text


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, re.split(r"\*+", pattern.casefold()))), re.DOTALL)


def matches(pattern: str, names: Iterable[str]) -> bool:
    """Whether a pattern means what goes by one of these names, in whatever case. `*` stands for any characters, even
    none, and every other character for itself. A pattern without a "/" also means what stands behind one.

    >>> matches("chat-*", ["main", "acme/chat-large"]), matches("acme/*", ["chat-large"])
    (True, False)
    """
    matched, bare = _compiled(pattern).fullmatch, "/" not in pattern
    for name in names:
        folded = name.casefold()
        if matched(folded) is not None or (bare and "/" in folded and matched(folded.partition("/")[2]) is not None):
            return True
    return False


def meant(pattern: str, rows: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """The places of the rows that a name means. rows has the names of each: its own first, then aliases and the model.

    A name goes before what it merely matches: who is called so is meant alone, then who has it as an alias or model
    letter by letter, and only then who matches.
    """
    own = tuple([place for place, names in enumerate(rows) if names and names[0] == pattern])
    if own:
        return own
    same = tuple([place for place, names in enumerate(rows) if pattern in names])
    return same or tuple([place for place, names in enumerate(rows) if matches(pattern, names)])
