"""What holds in every simulated world, whatever its weather; the numbers are those of the reference. Each rule gives a
line for each thing that breaks it."""

from itertools import pairwise

from polyvox.budgets import BudgetExceededError
from polyvox.errors import CallTimeoutError, PolyvoxError
from polyvox.types import Ended, Failed, Started

LATE = 0.25
"""Seconds that a call may take beyond its deadline."""
_ROUNDING = 1e-6
_ONCE = ("bad_response", "conflict")
_EXPECTED = {"cancelled": ("cancel", "limit"), "left": ("close", "drop")}


def broken(world):
    """All that is not as it must be, as lines that begin with the number of the invariant."""
    found = []
    for told in world.told:
        attempts = world.served(told.wanted.caller)
        for rule in (*OF_A_CALL, *world.rules):
            found += [f"{rule.number}: {told.wanted.caller} {line}" for line in rule(world, told, attempts)]
    for rule in (*OF_A_WORLD, *world.rules_of_all):
        found += [f"{rule.number}: {line}" for line in rule(world)]
    return found


def numbered(number):
    def known(rule):
        rule.number = number
        return rule

    return known


@numbered("I1")
def ends_once(world, told, attempts):
    """Each call ends exactly once: well, with an error of our tree, or as its caller left."""
    if len(told.ends) != 1:
        yield f"ended {len(told.ends)} times"
        return
    how = told.ends[0]
    if how == "defect" or (how == "error" and not isinstance(told.error, PolyvoxError)):
        yield f"ended with {told.error!r}"
    if how in _EXPECTED and told.wanted.leaves not in _EXPECTED[how]:
        yield f"is {how}, and nobody wished it"
    if how == "error" and not told.error.hint:
        yield "has an error without a hint"
    if told.cancelled is not None and how != "cancelled":
        yield f"was cancelled at {told.cancelled:.3f} s, and ended {how} at {told.over:.3f} s"
    if told.cancelling and how != "cancelled":
        yield "ended by itself, and its task believes to be cancelled"
    if told.later is not None:
        yield f"was over, and then its task had {told.later}"


@numbered("I3")
def no_silent_success(world, told, attempts):
    """What is given as whole is whole, and what came whole is given."""
    whole = [served for served in attempts if served.fate == "whole"]
    if told.ends == ["ok"]:
        response, fates = told.response, [served.fate for served in attempts]
        said = said_by(response.text, attempts)
        if len(whole) != 1 or any(follows(world, whole[0], served) for served in attempts):
            yield f"was told all is well by {fates}"
        elif not said or said[-1] is not whole[0] or not response.text.endswith(whole[0].whole):
            yield f"was given {response.text!r} as whole by {fates}"
        elif not response.complete:
            yield "was given an answer that says itself that it is not complete"
        elif response.finish_reason not in ("stop", "length"):
            yield f"was given an answer that ended by {response.finish_reason}"
    elif told.ends == ["error"]:
        if whole:
            yield f"never got an answer that was whole: {told.error.kind}"
        if told.error.partial is not None and told.error.partial.complete:
            yield "was given a part as if it were whole"


def follows(world, before, after):
    """Whether an attempt begins when another is over. One that is asked beside it may begin at its very last moment."""
    if before is after or before.over is None:
        return False
    return after.begun > before.over or (after.begun == before.over and not world.hedges)


def said_by(text, attempts):
    """The attempts that sent this text, one behind the other: each from its first word on and none twice. None where
    they did not send it so; every word tells whose it is, and its place."""
    by_mark = {f"{served.name}:{served.number}": served for served in attempts}
    said, expected = [], 0
    for word in text.split():
        mark, _, place = word.rpartition(".")
        served = by_mark.get(mark)
        if served is None or int(place) >= served.told:
            return None
        if not said or served is not said[-1]:
            if served in said:
                return None
            said.append(served)
            expected = 0
        if int(place) != expected:
            return None
        expected += 1
    return said


@numbered("I4")
def a_prefix_of_one_attempt(world, told, attempts):
    """The text a caller sees is how one attempt begins: never another's as well, unless broken answers are continued,
    and nothing twice."""
    partial = told.error.partial if told.ends == ["error"] else None
    for what, text in (("was shown", told.shown), ("has the partial answer", partial.text if partial else "")):
        said = said_by(text, attempts)
        if said is None or (len(said) > 1 and not world.continues):
            yield f"{what} {text!r}, which no attempt sent so"
    if told.ends == ["ok"] and told.wanted.reads and told.shown != told.response.text:
        yield f"was shown {told.shown!r} of {told.response.text!r}"
    if Started in told.events[1:] or Ended in told.events[:-1] or Failed in told.events:
        yield f"was shown events in this order: {[kind.__name__ for kind in told.events]}"
    if partial is not None and partial.text and not partial.text.startswith(told.shown):
        yield "was shown more than the partial answer has"
    if partial is None and told.shown and told.ends == ["error"]:
        yield "was shown a part, and the error has none"


@numbered("I5")
def in_time(world, told, attempts):
    """No attempt begins after the deadline, and the call is over at it; or, where its caller was away, once back."""
    timeout = told.wanted.options.timeout
    if timeout is None or not told.ends:
        return
    deadline = told.began + timeout
    if attempts and attempts[-1].begun > deadline + _ROUNDING:
        yield f"has an attempt {attempts[-1].begun - deadline:.3f} s after its deadline"
    if told.ends[0] in ("ok", "error") and told.over > max(deadline, told.asked) + LATE:
        yield f"ended {told.over - deadline:.3f} s after its deadline"
    if type(told.error) is CallTimeoutError and told.error.message.startswith("no answer within"):
        if told.over < deadline - 0.01:
            yield f"ran out of time {deadline - told.over:.3f} s before its deadline"


@numbered("I14")
def nobody_answers_who_is_gone(world, told, attempts):
    """When a call is over, its attempts are too, within a second."""
    for served in attempts:
        if told.over is not None and (served.over is None or served.over > told.over + 1.0):
            yield f"is gone, and {served.name} answers on"


@numbered("I6")
def only_what_may_be_repeated(world, told, attempts):
    """No more attempts at one deployment than the rule has; none after content was shown or, at the same deployment,
    after what cannot be mended or before the server's wish."""
    most = world.rule.retries + 1
    for name in {served.name: None for served in attempts}:
        its = [served for served in attempts if served.name == name]
        if len(its) > most:
            yield f"has {len(its)} attempts of {most} at {name}"
        for kind in _ONCE:
            if sum(1 for served in its if served.kind == kind) > 2:
                yield f"is asked more than once again after {kind}"
        for before, after in pairwise(its):
            why = unrepeatable(before)
            if why:
                yield f"is asked again after {why}"
            if before.over is None or after.begun < before.over + (before.wish or 0.0) - _ROUNDING:
                yield f"is asked again before {before.fate} said"
    for before in attempts:
        again = any(follows(world, before, after) for after in attempts)
        if told.wanted.reads and before.told and again and not world.continues:
            yield f"is asked again after {before.told} tokens were shown"


@numbered("I6")
def retries_within_their_budget(world):
    """Retries take tokens of their deployment's bucket, and answers give them back: it is never overdrawn."""
    for deployment in world.deployments:
        left = world.retry_capacity
        for when, _, what, tokens in sorted(_tokens(deployment.served)):
            left = min(world.retry_capacity, left + tokens)
            if left < 0:
                yield f"{what} at {when:.3f} s, and no retry was left"
                break


def _tokens(served):
    """When a retry took tokens, below 0, and when an answer gave some back, which of one moment comes first."""
    last, taken = {}, {}
    for attempt in served:
        before = last.get(attempt.caller)
        if before is not None:
            cost = 5 if before.kind == "rate_limit" else 14
            taken[attempt.caller] = cost
            yield before.over, 1, f"{attempt.name} is asked again by {attempt.caller}", -cost
        last[attempt.caller] = attempt
        if attempt.fate == "whole":
            yield attempt.over, 0, "an answer", taken.get(attempt.caller, 1)


def unrepeatable(served):
    """Why an attempt may have no other at the same deployment after it; None where it may."""
    if served.fate in ("whole", "closed", "dropped", "cancelled", None):
        return served.fate or "nothing"
    if served.kind is None or served.kind in _ONCE:
        return None
    if served.kind == "timeout":
        # A stream whose head had come broke off; it did not run out of time.
        return None if served.sent == "no" or served.fate == "stall" else "it may have been billed"
    return None if served.retryable else f"{served.kind}, which another try does not mend"


@numbered("I2")
def one_row_a_call(world):
    """Each call has one row that is final, with every attempt that was made, once."""
    if world.books is None:
        return
    rows = {}
    for row in world.books.rows:
        if row.caller in rows:
            yield f"{row.caller} has two accounts"
        rows[row.caller] = row
    for told in world.told:
        caller, attempts = told.wanted.caller, world.served(told.wanted.caller)
        row = rows.get(caller)
        if row is None:
            if attempts:
                yield f"{caller} has no account"
            continue
        yield from (f"{caller} {line}" for line in _row(told, row, attempts))


def _row(told, row, attempts):
    # To be told once more that nobody waits changes nothing: an end that was being written down is an end.
    finals = row.finals[:1] + [final for final in row.finals[1:] if final != "left"]
    if len(finals) != 1:
        yield f"has the final rows {row.finals}"
        return
    if row.admitted != len(attempts):
        yield f"had {row.admitted} attempts admitted and {len(attempts)} made"
    if len(row.told) != row.admitted:
        yield f"has {len(row.told)} attempts in its row of {row.admitted} that were admitted"
    how = told.ends[0] if told.ends else None
    if how in ("ok", "error") and finals[0] != how:
        yield f"ended {how}, and its row says {finals[0]}"


@numbered("I2")
def each_attempt_is_told(world, told, attempts):
    """The caller is told of each attempt once. Of those beside them none left this machine, but for the last of a call
    that ran out of time."""
    if told.ends not in (["ok"], ["error"]):
        return
    listed = (told.response if told.ends == ["ok"] else told.error).attempts
    made = [attempt for attempt in listed if attempt.sent != "no"]
    unsent = sum(1 for served in attempts if served.sent == "no")
    extra = len(made) + unsent - len(attempts)
    late = told.ends == ["error"] and bool(listed) and listed[-1].outcome == "timeout"
    if extra not in ((0, 1) if late else (0,)) or len(listed) < len(attempts):
        yield f"is told of the attempts {[attempt.outcome for attempt in listed]} of {len(attempts)}"


@numbered("I2")
def hooks_hear_all(world):
    """Hooks hear of each call once that it begins and once that it ends, and of each attempt."""
    if world.counting is None:
        return
    for told in world.told:
        caller, attempts = told.wanted.caller, world.served(told.wanted.caller)
        if told.began is None or not told.ends:
            continue
        calls, done = world.counting.calls.get(caller, 0), world.counting.done.get(caller, [])
        never_began = told.ends == ["cancelled"] and not calls
        if calls != 1 and not never_began:
            yield f"hooks heard {calls} times that {caller} begins"
        if len(done) != calls and told.wanted.leaves != "drop":
            yield f"hooks heard {done} of the end of {caller}"
        if world.counting.attempts.get(caller, 0) < len(attempts):
            yield f"hooks missed an attempt of {caller}"
        if told.ends == ["ok"] and done != ["ok"]:
            yield f"{caller} ended well, and hooks heard {done}"
        if told.ends == ["error"] and done != [told.error.kind]:
            yield f"{caller} ended with {told.error.kind}, and hooks heard {done}"


@numbered("I7")
def nothing_is_left(world):
    """When all callers are gone nothing is being answered, open, reserved, waited for or left unsaid."""
    dropped = {told.wanted.caller for told in world.told if told.wanted.leaves == "drop"}
    for deployment in world.deployments:
        if deployment.busy:
            yield f"{deployment.name} still answers {deployment.busy}"
        for served in deployment.served:
            if served.open and served.caller not in dropped:
                yield f"{served.caller} never closed the stream that was {served.fate}"
    for state in world.states:
        if state.reserved:
            yield f"{state.reserved} USD are still reserved in {state.name!r}"
    yield from (f"left over: {what}" for what in world.left_over)


@numbered("I11")
def money_is_kept(world):
    """A hard budget is never exceeded, and what was paid is what the provider's prices say."""
    for state in world.states:
        if state.hard and state.spent > state.limit:
            yield f"{state.name!r} has {state.spent} spent of {state.limit}"
    for told in world.told:
        if told.ends == ["error"] and isinstance(told.error, BudgetExceededError) and world.budgets is None:
            yield f"{told.wanted.caller} is refused by a budget, and there is none"
        if told.ends == ["ok"]:
            response = told.response
            (money,) = [at.money for at in world.deployments if at.name == response.deployment]
            if len(response.attempts) == 1 and money is not None and response.cost != money.bill(None, response):
                yield f"{told.wanted.caller} is told another cost than its answer has"


OF_A_CALL = (
    ends_once, each_attempt_is_told, no_silent_success, a_prefix_of_one_attempt, in_time, nobody_answers_who_is_gone,
    only_what_may_be_repeated,
)  # fmt: skip
OF_A_WORLD = (one_row_a_call, hooks_hear_all, retries_within_their_budget, nothing_is_left, money_is_kept)
