"""What the decisions about a call cost: a pick among a hundred candidates with its record, what a request needs, how
demanding it is, and what follows an error."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from decimal import Decimal

from benchmarks.figures import Figure, Size, took
from polyvox.errors import ServerError
from polyvox.models import Price
from polyvox.routing import RetryBudget, RetryRule
from polyvox.routing.affinity import key_of, pins_of
from polyvox.routing.after import after
from polyvox.routing.decision import Deciding
from polyvox.routing.needs import Abilities, Wanted, needs_of, why_not
from polyvox.routing.pick import STRATEGIES, Candidate, Candidates, Order, Standing, rates_of
from polyvox.routing.tiers import score
from polyvox.types import Message, Request, Text, Tool

AMONG = 100
SENTENCE = "Explain why the quick brown fox jumps over the lazy dog, and compare it with a function in Python. "
ASKED = Request("m", (Message("user", (Text((SENTENCE * 11)[:1024]),)),), max_tokens=500)
LONG = Request(
    "m",
    (
        Message("system", (Text(SENTENCE * 100),)),
        *[Message(role, (Text(SENTENCE * 3),)) for _ in range(20) for role in ("user", "assistant")],
        Message("user", (Text(SENTENCE),)),
    ),
    tools=(Tool("look_up", "Looks a word up", {"type": "object", "properties": {"word": {"type": "string"}}}),),
)
SOME = Abilities(context=128_000, max_output=8192, tools=True)


def candidates(weights: Callable[[int], float] = lambda _: 1.0) -> Candidates:
    """A hundred, each with a speed and a price of its own."""
    made = []
    for number in range(AMONG):
        standing = Standing()
        standing.in_flight = number * 7 % 5
        for moment in range(3):
            standing.first(0.3 + number * 37 % 100 / 100, float(moment))
            standing.wrote(500, 5.0 + number * 13 % 7, float(moment))
        price = Price(input=Decimal(1 + number * 11 % 17), output=Decimal(4 + number % 9))
        made.append(Candidate(f"d{number}", weights(number), 0, standing, rates_of(price), SOME))
    return Candidates(made)


def picking(field: Candidates, name: str, chances: Iterator[float], key: int | None = None) -> Callable[[], object]:
    """One pick with its capability check and its record."""
    strategy = STRATEGIES[name]

    def pick() -> object:
        wanted = Wanted(ASKED, 10.0)
        order = Order(field, strategy, wanted, next(chances), key=key)
        deciding = Deciding(order, named="any")
        for place in order:
            why = wanted.why_not(field.abilities[place])
            if why is None:
                deciding.ask(place)
                return deciding.decision
            deciding.skip(place, why)
        return None

    return pick


def measure(size: Size) -> list[Figure]:
    """All figures of routing."""
    chances = itertools.cycle([number / 997 for number in range(997)])
    even, uneven = candidates(), candidates(lambda number: 1.0 + number % 3)
    standings = uneven.standings
    bare = took(size, lambda: min([standing.in_flight for standing in standings])).cpu
    picks = {f"pick among {AMONG}: {name}": picking(uneven, name, chances) for name in STRATEGIES}
    for what, field in (("even weights", even), ("uneven weights", uneven)):
        picks[f"pick among {AMONG}: the same beginning, {what}"] = picking(field, "weighted", chances, key=12345)
    figures = [
        Figure(what, took(size, pick).cpu, "µs CPU", "least of a list", bare, at_most=30.0)
        for what, pick in picks.items()
    ]
    budget, rule, error = RetryBudget(10**12), RetryRule(), ServerError("x", sent="yes")
    works: dict[str, tuple[Callable[[], object], float | None]] = {
        f"all {AMONG} in order": (lambda: list(Order(uneven, STRATEGIES["fastest"], Wanted(ASKED), 0.5)), None),
        "the record of a pick, looked at": (
            lambda: picking(uneven, "fastest", chances)().describe(), None,  # type: ignore[attr-defined]  # a Decision
        ),
        "tier of a question of 1 KB": (lambda: score(ASKED), 20.0),
        "tier of a long conversation": (lambda: score(LONG), None),
        "needs of a question": (lambda: needs_of(ASKED), None),
        "needs of 42 messages": (lambda: needs_of(LONG), None),
        "why not, of one candidate": (lambda: why_not(NEEDS, SOME), None),
        "pins of 42 messages": (lambda: pins_of(LONG), None),
        "key of 42 messages": (lambda: key_of(LONG), None),
        "what follows an error": (lambda: after(error, 1, 1, budget, rule, True, 0.3, 10.0), None),
    }  # fmt: skip
    for what, (work, most) in works.items():
        figures.append(Figure(what, took(size, work).cpu, "µs CPU", "least of a list", bare, at_most=most))
    return figures


NEEDS = needs_of(LONG)
