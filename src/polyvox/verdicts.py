"""The values of judgements over texts: how well documents fit a question, and whether something harms.
Frozen; they know no protocol and no provider."""

from __future__ import annotations

from msgspec import UNSET, UnsetType, field

from polyvox.types import Answered, Asked, Extra, Image, Value


class RerankRequest(Asked, frozen=True):
    """Documents to put into the order in which they answer a query. top is how many of the best come back; with
    return_documents their texts come back too; truncate says whether what is too long is cut rather than refused."""

    query: str
    documents: tuple[str, ...]
    top: int | UnsetType = UNSET
    return_documents: bool | UnsetType = UNSET
    truncate: bool | UnsetType = UNSET


class Ranked(Value, frozen=True):
    """A document by its place in the request, from 0, and how well it fits: more is better, and what the numbers mean
    is the model's own. document is its text, where it came back."""

    index: int
    score: float
    document: str | None = None
    extra: Extra = field(default_factory=dict)


class Ranking(Answered, frozen=True):
    """The documents that fit best, the best first."""

    results: tuple[Ranked, ...] = ()


class ModerateRequest(Asked, frozen=True):
    """What is to be judged: each text by itself; with pictures, all of it together as one."""

    texts: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()


class Verdict(Value, frozen=True):
    """Whether something harms, and by category, in the provider's own words, whether and how much: 0 to 1."""

    flagged: bool
    categories: dict[str, bool] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    extra: Extra = field(default_factory=dict)


class Verdicts(Answered, frozen=True):
    """A verdict for each text, in order; one for all where there were pictures."""

    results: tuple[Verdict, ...] = ()

    @property
    def flagged(self) -> bool:
        """Whether any of it harms."""
        return any(verdict.flagged for verdict in self.results)
