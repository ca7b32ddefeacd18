"""What holds besides `invariants` where a pool stands before the deployments: of whom it asks, and what it says of
that. It is counted at the simulated deployments themselves, or found in what callers and books were told."""

from collections import Counter
from itertools import pairwise
from math import ceil, inf

from msgspec import UNSET

from polyvox.testing.simulated import tokens_of
from tests.simulation.invariants import numbered, said_by

WINDOW = 60.0
_SLOW = 0.25
"""Seconds that books may take between the moment an attempt is let through and the one it is made."""
_FRAME = 4
"""Tokens that are counted for the marks around a message."""


@numbered("P1")
def the_decision_names_each_attempt(world, told, attempts):
    """Whoever looks at the record of a call finds each attempt in it, in order, and no other."""
    if told.ends not in (["ok"], ["error"]):
        return
    ended = told.response if told.ends == ["ok"] else told.error
    if ended.decision is None:
        yield "has no decision"
        return
    tries, listed = ended.decision.tries, [attempt.deployment.rpartition("/")[2] for attempt in ended.attempts]
    if Counter(tries) != Counter(listed):
        yield f"has the decision {tries} and the attempts {listed}"
    rest = iter(tries)
    if not all(any(name == served.name for name in rest) for served in attempts):
        yield f"has the decision {tries}, and asked {[served.name for served in attempts]}"


@numbered("P2")
def hedged_is_billed_twice_and_answered_once(world, told, attempts):
    """At most two are asked at once, at two deployments, where that is wished; both are paid for, and one answers."""
    over = {served: inf if served.over is None else served.over for served in attempts}
    for at, served in enumerate(attempts):
        beside = [before for before in attempts[:at] if over[before] > served.begun]
        if beside and world.pool.routing.hedge_after is None:
            yield "is asked twice at once, and nobody wished it"
        if len(beside) > 1 or any(before.name == served.name for before in beside):
            yield f"is asked at once of {[served.name, *[before.name for before in beside]]}"
    if told.ends not in (["ok"], ["error"]):
        return
    listed = (told.response if told.ends == ["ok"] else told.error).attempts
    answers = sum(1 for attempt in listed if attempt.outcome == "ok")
    if answers != (told.ends == ["ok"]):
        yield f"ended {told.ends[0]} with {answers} answers"
    for attempt in listed:
        if attempt.outcome == "hedged" and attempt.sent != "no" and attempt.cost == 0:
            yield f"has an attempt at {attempt.deployment} that another was faster than, and nobody pays for it"


@numbered("P2")
def all_is_paid(world):
    """Budgets have spent at least what is known of the costs of all attempts, whoever answered."""
    if world.books is None or not world.states:
        return
    known = sum(
        spent.cost.amount
        for row in world.books.rows
        for _, spent in row.told
        if spent is not None and spent.cost.amount is not None
    )
    if world.states[0].spent < known:
        yield f"{world.states[0].spent} USD are spent of {known} that attempts cost"


@numbered("P3")
def a_seam_is_marked(world, told, attempts):
    """An answer of several is the words of each, one behind the other, each where the one before broke off; and a note
    names everybody who did."""
    ended = told.response if told.ends == ["ok"] else told.error.partial if told.ends == ["error"] else None
    said = said_by(ended.text, attempts) if ended is not None else None
    if not said:
        return  # `invariants` see to that
    notes = [loss.why for loss in ended.losses if loss.field == "answer"]
    broke = said[:-1]
    if told.ends == ["error"] and len(notes) == len(said):
        broke = said  # whoever should have gone on said nothing
    if len(notes) != len(broke) or not all(
        why.startswith(f"simulated/{served.name} broke off") for why, served in zip(notes, broke, strict=True)
    ):
        yield f"has the words of {[served.name for served in said]} and the notes {notes}"
    for before, after in pairwise(said):
        if before.fate in ("whole", None) or before.over is None or after.begun < before.over:
            yield f"goes on at {after.name}, and {before.name} is {before.fate}"
        if before.name == after.name:
            yield f"goes on at {after.name}, where it broke off"


@numbered("P4")
def the_pool_is_never_ejected_whole(world):
    """At least half of the members stay in, and no call hears that nobody is there who could be asked."""
    members = world.pool.members
    least = max(1, ceil(len(members) / 2))
    if world.pool.fewest is not None and world.pool.fewest < least:
        yield f"of {len(members)} members {world.pool.fewest} were left in"
    for told in world.told:
        if told.ends == ["error"] and told.error.kind == "no_deployment":
            able = [member.name for member in members if not lacks(world, member, told.wanted.request, _FRAME)]
            if able:
                yield f"{told.wanted.caller} is told that nobody can serve it, and {able} could"


@numbered("P5")
def nobody_is_asked_for_what_they_lack(world):
    """No attempt at a deployment of which it is known that it cannot serve the request as it is sent there."""
    if len(world.pool.members) == 1 and world.tier is None:
        return  # whoever has no choice hears it from the provider
    members = {member.name: member for member in world.pool.members}
    for at in world.deployments:
        for served, (request, _) in zip(at.served, at.noted, strict=True):
            why = lacks(world, members[at.model], request)
            if why is not None:
                yield f"{served.caller} asks {at.model}, which {why}"


def lacks(world, member, request, more=0):
    """What a deployment is known to lack, in words; None where nothing. more is how many tokens a message may be
    counted above what the provider finds in it."""
    abilities = member.abilities
    if world.tier == "local" and not abilities.local:
        return "is not on this machine"
    if abilities.prefill is False and request.messages[-1].role == "assistant":
        return "takes no prefill"
    wanted = 0 if request.max_tokens is UNSET else request.max_tokens
    # What is let through is an estimate: a fifth less may be there in truth.
    counted = tokens_of(request) + more * len(request.messages)
    if abilities.context is not None and 0.8 * counted + wanted > abilities.context:
        return f"has a context of {abilities.context} tokens for {tokens_of(request)} and {wanted}"
    return None


@numbered("P6")
def limits_are_kept(world):
    """No deployment ever answers more calls at once than its limit, or is sent more in any minute."""
    members = {member.name: member for member in world.pool.members}
    window = WINDOW - (_SLOW if world.books is not None else 0.0)
    for at in world.deployments:
        limits = members[at.model].entry.limits
        if limits.concurrency is not None:
            most = _at_once(at.served)
            if most > limits.concurrency:
                yield f"{at.model} answered {most} at once of {limits.concurrency}"
        most = limits.requests_per_minute
        if most is not None:
            # What never left this machine is given back.
            began = sorted(served.begun for served in at.served if served.sent != "no")
            for first, last in zip(began, began[most:], strict=False):
                if last - first < window - 1e-6:
                    yield f"{at.model} was sent {most + 1} within {last - first:.3f} s of {most} a minute"
                    break


def _at_once(served):
    changes = [(one.begun, 1, 1) for one in served]
    changes += [(one.over, 0, -1) for one in served if one.over is not None]  # an end makes room at its very moment
    now = most = 0
    for _, _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


OF_A_CALL = (the_decision_names_each_attempt, hedged_is_billed_twice_and_answered_once, a_seam_is_marked)
OF_A_WORLD = (all_is_paid, the_pool_is_never_ejected_whole, nobody_is_asked_for_what_they_lack, limits_are_kept)
