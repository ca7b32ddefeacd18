"""In which order the candidates for a call are asked: by weight, by how busy or how fast they are, or by price, one
priority after the other. It knows names and numbers; whether a candidate is fit to be asked, whoever takes it finds
out."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import NamedTuple, Self

from polyvox.errors import InputError
from polyvox.models import Price
from polyvox.routing.needs import NOTHING_KNOWN, Abilities, Wanted

# ---- how a deployment does --------------------------------------------------------------------

HALF_LIFE = 60.0
"""Seconds after which what was measured counts half as much as what is measured now."""
FORGOTTEN = 900.0
"""Seconds after which a deployment that nobody asked is as one that nobody ever asked."""
TRIED = 3
"""Measurements from which on a deployment's speed counts as known."""


class Standing:
    """How one deployment does just now: what is in flight, how soon it begins and how fast it writes.

    Speeds are averages in which what is older counts less, by its age. Times are monotonic seconds. Its user begins,
    hears and ends attempts; nothing here asks a clock. Not for several threads.
    """

    __slots__ = ("calls", "errors", "first_token", "heard", "heard_at", "in_flight", "rate_at", "tokens_per_second")

    def __init__(self) -> None:
        self.in_flight: int = 0
        self.calls: int = 0
        self.errors: int = 0
        self.heard: int = 0
        self.first_token: float | None = None
        self.heard_at: float = 0.0
        self.tokens_per_second: float | None = None
        self.rate_at: float = 0.0

    def begun(self) -> None:
        """An attempt is under way."""
        self.in_flight += 1
        self.calls += 1

    def first(self, seconds: float, now: float) -> None:
        """The first content of an attempt came after so many seconds."""
        self.first_token = _mixed(self.first_token, seconds, now - self.heard_at)
        self.heard += 1
        self.heard_at = now

    def wrote(self, tokens: int, seconds: float, now: float) -> None:
        """So many tokens came in so many seconds; too few to tell a speed change nothing."""
        if tokens > 1 and seconds > 0:
            self.tokens_per_second = _mixed(self.tokens_per_second, tokens / seconds, now - self.rate_at)
            self.rate_at = now

    def whole(self, tokens: int, seconds: float, now: float) -> None:
        """An answer came whole after so many seconds, so that nobody knows when it began: all of them were writing."""
        if tokens > 1:
            if seconds > 0:
                self.tokens_per_second = _mixed(self.tokens_per_second, tokens / seconds, now - self.rate_at)
                self.rate_at = now
            self.heard += 1
            self.heard_at = now
        else:
            self.first(seconds, now)

    def ended(self, well: bool) -> None:
        """An attempt is over."""
        self.in_flight -= 1
        if not well:
            self.errors += 1


_LEAST = 0.2
"""How much a new measurement counts at the least: many at once are as telling as the last five."""


def _mixed(before: float | None, now: float, age: float) -> float:
    """The average with a new measurement, the one before it so many seconds old."""
    if before is None:
        return now
    share = max(_LEAST, 1.0 - math.pow(0.5, max(age, 0.0) / HALF_LIFE))
    return before + share * (now - before)


# ---- the candidates ---------------------------------------------------------------------------


class Rates(NamedTuple):
    """USD per million tokens, to compare by and not to bill."""

    input: float
    output: float


def rates_of(price: Price | None) -> Rates | None:
    """What a price comes to for tokens in and out; None where either is not known, which is not cheap."""
    if price is None or price.input is None or price.output is None:
        return None
    return Rates(float(price.input), float(price.output))


class Candidate(NamedTuple):
    """One that may be asked. priority 0 is asked first; weight is its share of the traffic within its priority, where
    0 is none as long as another can be asked."""

    name: str
    weight: float = 1.0
    priority: int = 0
    standing: Standing | None = None
    rates: Rates | None = None
    abilities: Abilities = NOTHING_KNOWN


class Group(NamedTuple):
    """Candidates of one priority: their places, weights, standings, rates and seeds, the running sums of the weights,
    and whether all weigh the same. Those that weigh nothing are a group of their own, behind the others."""

    priority: int
    places: tuple[int, ...]
    weights: tuple[float, ...]
    standings: tuple[Standing, ...]
    rates: tuple[Rates | None, ...]
    seeds: tuple[int, ...]
    sums: tuple[float, ...]
    even: bool


class Candidates:
    """Those who may be asked, with all that does not change from call to call made ready. Places count from 0."""

    __slots__ = ("abilities", "groups", "names", "places", "priorities", "rates", "standings", "weights")

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.names: tuple[str, ...] = tuple([one.name for one in candidates])
        self.places: dict[str, int] = {name: place for place, name in enumerate(self.names)}
        if len(self.places) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise InputError(f"two candidates are called {twice!r}", hint="give each a name of its own")
        for one in candidates:
            if one.weight and not _LIGHTEST <= one.weight <= _HEAVIEST:
                raise InputError(f"{one.name}: a weight is 0 or from {_LIGHTEST} to {_HEAVIEST}, not {one.weight!r}")
        self.weights: tuple[float, ...] = tuple([float(one.weight) for one in candidates])
        self.priorities: tuple[int, ...] = tuple([one.priority for one in candidates])
        self.standings: tuple[Standing, ...] = tuple([one.standing or Standing() for one in candidates])
        self.rates: tuple[Rates | None, ...] = tuple([one.rates for one in candidates])
        self.abilities: tuple[Abilities, ...] = tuple([one.abilities for one in candidates])
        ranks = sorted({(one.priority, not one.weight) for one in candidates})
        self.groups: tuple[Group, ...] = tuple([
            _group(self, rank[0], [
                place for place, one in enumerate(candidates) if (one.priority, not one.weight) == rank
            ])
            for rank in ranks
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.names)


_LIGHTEST, _HEAVIEST = 1e-6, 1e6


def _group(candidates: Candidates, priority: int, places: list[int]) -> Group:
    weights = [candidates.weights[place] or 1.0 for place in places]
    return Group(
        priority,
        tuple(places),
        tuple(weights),
        tuple([candidates.standings[place] for place in places]),
        tuple([candidates.rates[place] for place in places]),
        tuple([seed_of(candidates.names[place]) for place in places]),
        tuple(accumulate(weights)),
        len(set(weights)) == 1,
    )


# A prime: seeds and keys are numbers below it, so that the product of two takes one machine word.
_PRIME = (1 << 31) - 1


def seed_of(text: str | bytes) -> int:
    """A number from 1 up to 2**31 - 2 that is always the same for a text, and even over all texts."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=16).digest()) % (_PRIME - 1) + 1


# ---- the strategies ---------------------------------------------------------------------------

Scores = list[float] | None
"""For each place of a group its score, the lowest best; infinity for what nobody knows. None: all are equal."""


class Strategy(NamedTuple):
    """How candidates of one priority compare. Those whose score is within `near` times the best are equals, and go by
    their weights. Where a call has a reason to meet the same one again, those within `sticky` times the best are."""

    name: str
    scores: Callable[[Group, Wanted], Scores] | None
    near: float = 1.0
    sticky: float = math.inf


def _least_busy(group: Group, _: Wanted) -> Scores:
    """Attempts in flight for each unit of weight."""
    return [standing.in_flight / weight for standing, weight in zip(group.standings, group.weights, strict=True)]


USUAL_OUTPUT = 400
"""Tokens of an answer of which nobody said how long it may be, and of one that may be longer than that."""


def _tokens_out(wanted: Wanted) -> int:
    return min(wanted.needs.output_tokens or USUAL_OUTPUT, USUAL_OUTPUT)


def _fastest(group: Group, wanted: Wanted) -> Scores:
    """Seconds that the whole answer is likely to take. Who was not tried enough counts as the fastest, and so gets its
    share until its speed is known."""
    out, long_ago = _tokens_out(wanted), wanted.now - FORGOTTEN
    scores = []
    for standing in group.standings:
        if standing.heard < TRIED or standing.heard_at < long_ago:
            scores.append(_UNTRIED)
        else:
            rate = standing.tokens_per_second
            scores.append((standing.first_token or 0.0) + (out / rate if rate else 0.0))
    if _UNTRIED in scores:
        best = min([score for score in scores if score >= 0], default=0.0)
        return [best if score < 0 else score for score in scores]
    return scores


_UNTRIED = -1.0


def _cheapest(group: Group, wanted: Wanted) -> Scores:
    """USD for a million calls like this one. Who has no known price comes last."""
    out, tokens = _tokens_out(wanted), wanted.needs.input_tokens
    return [math.inf if rate is None else tokens * rate[0] + out * rate[1] for rate in group.rates]


STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy("weighted", None),
        Strategy("least_busy", _least_busy),
        Strategy("fastest", _fastest, near=1.1, sticky=1.5),
        Strategy("cheapest", _cheapest, sticky=1.0),
    )
}
"""The strategies by name; "weighted" is the usual one. Whoever has another one makes a `Strategy`."""


def strategy_of(name: str | Strategy) -> Strategy:
    """The strategy of a name, or the one that was given; raises InputError for a name of none."""
    if isinstance(name, Strategy):
        return name
    if name not in STRATEGIES:
        raise InputError(f"there is no strategy {name!r}", hint=f"choose one of {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


# ---- the order --------------------------------------------------------------------------------


class Order:
    """The places of the candidates for one call, the one to ask first first. Each comes once; what nobody asks for is
    not worked out. scores has, by the number of the group, what was.

    Args:
        candidates: who may be asked.
        strategy: how those of one priority compare.
        wanted: the call's request, and when it is made.
        chance: a random number in [0, 1); the same one gives the same order.
        first: places that go before all others, such as that of whoever holds a part of the conversation.
        only: the sole places that may be asked; None for all.
        key: the number of what the call begins with, from `polyvox.routing.affinity`: calls with the same one meet
            the same deployment, among those that the strategy then takes for equals.
    """

    __slots__ = (
        "_ahead", "_best_of", "_chance", "_first", "_group", "_near", "candidates", "key", "only", "scores", "strategy",
        "wanted",
    )  # fmt: skip

    def __init__(
        self,
        candidates: Candidates,
        strategy: Strategy,
        wanted: Wanted,
        chance: float,
        *,
        first: Sequence[int] = (),
        only: Collection[int] | None = None,
        key: int | None = None,
    ) -> None:
        self.candidates: Candidates = candidates
        self.strategy: Strategy = strategy
        self.wanted: Wanted = wanted
        self.scores: dict[int, Scores] = {}
        self._chance = chance
        self.only: Collection[int] | None = only
        self.key: int | None = key
        self._near = strategy.near if key is None else strategy.sticky
        self._first: tuple[int, ...] = ()
        if first:
            self._first = tuple([place for place in dict.fromkeys(first) if only is None or place in only])
        self._ahead = list(self._first[::-1])  # those whose turn is known, the next one last
        self._group = 0  # the number of the first group of which not all are known
        self._best_of: int | None = None  # the place that it gave alone

    def __iter__(self) -> Self:
        """Itself: what was given does not come again."""
        return self

    def __next__(self) -> int:
        """The next place; StopIteration when all have been given."""
        if self._ahead:
            return self._ahead.pop()
        groups, only, first = self.candidates.groups, self.only, self._first
        while self._group < len(groups):
            number = self._group
            group = groups[number]
            if self._best_of is None and only is None and not (first and set(first).intersection(group.places)):
                if len(group.places) == 1:
                    if self.strategy.scores is not None:
                        self._scored(number, group)  # for the record
                    self._group = number + 1
                    return group.places[0]
                place = self._best_of = self._best(number, group)
                return place
            best, self._group, self._best_of = self._best_of, number + 1, None
            left = [
                index
                for index, place in enumerate(group.places)
                if place != best and place not in first and (only is None or place in only)
            ]
            if left:
                self._ahead = [group.places[index] for index in reversed(self._sorted(number, group, left))]
                return self._ahead.pop()
        raise StopIteration

    def _scored(self, number: int, group: Group) -> Scores:
        """The scores of a group, worked out once a call."""
        compare = self.strategy.scores
        if compare is None or self._near == math.inf:
            return None
        if number not in self.scores:
            self.scores[number] = compare(group, self.wanted)
        return self.scores[number]

    def _best(self, number: int, group: Group) -> int:
        """The place to ask first, without an order of the others."""
        scores, chance = self._scored(number, group), self._chance
        if scores is None and self.key is None:
            # The first sum above a random part of the whole; rounding may reach the whole itself.
            index = bisect_right(group.sums, chance * group.sums[-1])
            return group.places[min(index, len(group.places) - 1)]
        lots = _lots(group, self.key) if self.key is not None else None
        if scores is None:
            assert lots is not None
            return group.places[lots.index(min(lots))]
        limit = _limit(scores, self._near)
        best = [index for index, score in enumerate(scores) if score <= limit]
        if lots is not None:
            return group.places[min(best, key=lots.__getitem__)]
        if group.even:
            return group.places[best[int(chance * len(best))]]
        weights = [group.weights[index] for index in best]
        target = chance * sum(weights)
        for index, weight in zip(best, weights, strict=True):
            target -= weight
            if target < 0:
                return group.places[index]
        return group.places[best[-1]]

    def _sorted(self, number: int, group: Group, left: list[int]) -> list[int]:
        """These of a group in the order to ask them: the better first, equals as lots fall that weights bend."""
        scores = self._scored(number, group)
        key = self.key
        if key is None:
            key = int(self._chance * 2.0**53) * _MIX % (_PRIME - 1) + 1
        lots = _lots(group, key)
        if scores is None:
            return sorted(left, key=lots.__getitem__)
        classes = _classes(scores, self._near)
        return sorted(left, key=lambda index: (classes[index], lots[index]))


_MIX = 0x9E3779B97F4A7C15
"""A multiplier that makes neighbours differ in all digits."""


def _lots(group: Group, key: int) -> Sequence[float]:
    """A random number for each of a group, the same for the same key, that is the more likely to be the least the more
    it weighs: the least of exponential numbers with these rates. Who goes leaves the order of the others as it was."""
    prime = _PRIME
    if group.even:
        key = prime - key  # turns the order around: it is then that of the exponential numbers
        return [key * seed % prime for seed in group.seeds]
    lots = [key * seed % prime for seed in group.seeds]
    log, most = math.log, _LOG_PRIME
    return [(most - log(lot)) / weight for lot, weight in zip(lots, group.weights, strict=True)]


_LOG_PRIME = math.log(_PRIME)


def _limit(scores: list[float], near: float) -> float:
    """The highest score that is as good as the best."""
    best = min(scores)
    return best if near == 1.0 or best < 0 else max(best * near, _SMALLEST)


_SMALLEST = 1e-9
"""A score below it is as good as 0, of which nothing is a share."""


def _classes(scores: list[float], near: float) -> list[float]:
    """For each score the number of its class: in the first are the best and those near to it."""
    limit = _limit(scores, near)
    if near == 1.0 or not 0.0 < limit < math.inf:
        return scores
    step, first = math.log(near), math.log(limit)
    return [
        0.0 if score <= limit else score if score == math.inf else 1.0 + (math.log(score) - first) // step
        for score in scores
    ]
