"""What a budget is, what is said of a call, and which accounts a call must fit into. Pure: it holds no money."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta, tzinfo
from decimal import Decimal
from fnmatch import fnmatchcase
from itertools import product
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from polyvox.budgets.amounts import limit_of, pico_of
from polyvox.budgets.values import Claim, Scope
from polyvox.budgets.windows import Window, window_of
from polyvox.database.money import LARGEST
from polyvox.errors import InputError
from polyvox.keys import redact

Word = Literal["key", "user", "project", "tag", "model"]
WORDS: tuple[Word, ...] = ("key", "user", "project", "tag", "model")


class Facts(Struct, frozen=True):
    """What budgets look at in a call. key is the name the caller has for a key, never the key; model is the name of
    the deployment."""

    key: str | None = None
    user: str | None = None
    project: str | None = None
    model: str | None = None
    tags: tuple[str, ...] = ()

    def values(self, word: str) -> tuple[str | None, ...]:
        """What a call has under a word; of tags it may have several."""
        if word == "tag":
            return tuple(dict.fromkeys(self.tags)) or (None,)
        return (getattr(self, word),)


class _Limit(Struct, frozen=True):
    limit: Decimal | int | str


class Budget(_Limit, frozen=True, kw_only=True):
    """A limit on what calls may cost.

    Attributes:
        limit: USD, as a Decimal, a whole number or text.
        window: "hour", "day", "week", "month", "year" of the calendar in zone; a length such as "90m", "5h", "30d" or a
            timedelta for a window that rolls; None for all time. A call counts in the calendar window in which it was
            reserved, and in a rolling one until a whole length after it was settled.
        key, user, project, tag, model: calls the budget is for; all that are named must fit. model may be a pattern
            such as "openai/*".
        each: words of these to count one by one, each value with the whole limit: each="user" is a budget for every
            user. Calls without a value share one.
        hard: True refuses what may exceed the limit, False only tells.
        unknown: what a hard budget does with a call whose price nobody knows: "refuse" or "allow".
        warn_at: percent of the limit at which it tells.
        name: what it is called, and what its count is kept under; by default made of window and scope.
    """

    window: str | timedelta | None = None
    zone: str | tzinfo = "UTC"
    key: str | None = None
    user: str | None = None
    project: str | None = None
    tag: str | None = None
    model: str | None = None
    each: str | tuple[str, ...] = ()
    hard: bool = True
    unknown: Literal["refuse", "allow"] = "refuse"
    warn_at: tuple[int, ...] = (50, 80, 100)
    name: str | None = None

    def __post_init__(self) -> None:
        """Check and tidy what was given; InputError for what no budget can be."""
        force_setattr(self, "limit", limit_of(self.limit))
        force_setattr(self, "each", _each_of(self.each))
        window = window_of(self.window, self.zone)
        for word in (*WORDS, "name"):
            value = getattr(self, word)
            if value is not None and (not isinstance(value, str) or not value or not _can_be_written(value)):
                raise InputError(f"the {word} of a budget is text, not {value!r}")
        if not isinstance(self.hard, bool) or self.unknown not in ("refuse", "allow"):
            raise InputError("hard is True or False, and unknown is 'refuse' or 'allow'")
        force_setattr(self, "warn_at", _percents_of(self.warn_at))
        if self.key is not None:
            no_secret(self.key)
        if self.name is None:
            force_setattr(self, "name", _name_of(self, window))


def _can_be_written(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _each_of(given: Any) -> tuple[str, ...]:
    words = (given,) if isinstance(given, str) else given
    if not isinstance(words, Sequence) or any(word not in WORDS for word in words):
        raise InputError(f"each is made of {', '.join(WORDS)}, not {given!r}")
    return tuple(word for word in WORDS if word in words)


def _percents_of(given: Any) -> tuple[int, ...]:
    def good(percent: Any) -> bool:
        return isinstance(percent, int) and not isinstance(percent, bool) and 0 < percent <= 1000

    if not isinstance(given, Sequence) or isinstance(given, str) or not all(good(percent) for percent in given):
        raise InputError(f"warn_at has whole numbers of percent, not {given!r}")
    return tuple(sorted(set(given)))


def _name_of(budget: Budget, window: Window) -> str:
    parts = [f"{word}={getattr(budget, word)}" for word in WORDS if getattr(budget, word) is not None]
    parts += [f"each {word}" for word in budget.each]
    length = str(timedelta(microseconds=window.span)) if window.span else window.text
    return " ".join((length, *(parts or ["all"])))


def no_secret(name: str) -> None:
    """InputError where the name of a key is a key itself."""
    if redact(name) != name:
        raise InputError("a budget wants the name of a key, not the key", hint="give the name you keep it under")


# ---- the accounts of a call -------------------------------------------------------------------

Family: TypeAlias = tuple[str, int | None, int | None]
"""The name of all accounts of a budget in one window, and its bounds."""


class Rule:
    """A budget, read for counting: place is its number among its like."""

    def __init__(self, budget: Budget, place: int) -> None:
        assert isinstance(budget.limit, Decimal)
        assert budget.name is not None
        self.budget: Budget = budget
        self.place: int = place
        self.name: str = budget.name
        self.dollars: Decimal = budget.limit
        self.limit: int = pico_of(budget.limit, "a limit")
        self.window: Window = window_of(budget.window, budget.zone)
        self.ceiling: int = self.limit if budget.hard else LARGEST
        self._fixed = [(word, getattr(budget, word)) for word in WORDS if getattr(budget, word) is not None]

    def applies(self, facts: Facts) -> bool:
        """Whether a call with these facts is one of the budget's."""
        for word, wanted in self._fixed:
            values = facts.values(word)
            if word == "model":
                if values[0] is None or not fnmatchcase(values[0], wanted):
                    return False
            elif wanted not in values:
                return False
        return True

    def family(self, now: int) -> Family:
        """The family of accounts that counts at a time."""
        start, end = self.window.bounds(now)
        return msgspec.json.encode([self.name, self.window.text, start]).decode(), start, end

    def claims(self, facts: Facts, family: Family) -> list[Claim]:
        """The accounts that a call with these facts must fit into: none where the budget is not for it."""
        if not self.applies(facts):
            return []
        # Of several tags only the one the budget is for counts, where it is for one.
        values = [
            (self.budget.tag,) if word == "tag" and self.budget.tag is not None else facts.values(word)
            for word in self.budget.each
        ]
        return [self._claim(family, chosen) for chosen in product(*values)]

    def all_of(self, family: Family) -> Claim:
        """A claim that stands for the family: its account is the one of a budget that counts nothing one by one."""
        return self._claim(family, ())

    def _claim(self, family: Family, values: tuple[str | None, ...]) -> Claim:
        # JSON in JSON, so that no value can be taken for the beginning of another.
        try:
            account = msgspec.json.encode([family[0], *values]).decode()
        except (TypeError, UnicodeEncodeError):
            raise InputError(
                f"what budget {self.name!r} counts one by one is text that can be written down, not {values!r}"
            ) from None
        return Claim(
            account, family[0], self.ceiling, self.budget.hard, self.window.span, family[1], family[2], self.place
        )

    def scope(self, account: str) -> Scope:
        """The values an account counts for, read from its name."""
        return tuple(zip(self.budget.each, msgspec.json.decode(account)[1:], strict=False))
