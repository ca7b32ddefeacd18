"""What to do after an attempt failed: try again here, go elsewhere, or stop. It decides by the kind of the error, and
knows no deployment: whoever asks says whether another one may help."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from polyvox.errors import PolyvoxError
from polyvox.routing.needs import Abilities
from polyvox.routing.retry import RetryBudget, RetryRule

Elsewhere = Literal["any", "more_context", "able", "opted_in", "never"]
"""Which other deployments may help: any; one with more context; one that may have what is missing here; any, where the
caller said that another may be asked; none."""


class Act(NamedTuple):
    """What an error of one kind calls for. here is whether the same request may work at the same deployment, where
    the error itself does not say otherwise; why is the reason, as a decision record shows it."""

    here: bool
    elsewhere: Elsewhere
    why: str


ACTS: dict[str, Act] = {
    # It is busy or ill: it may be well soon, and others are well now.
    "rate_limit": Act(True, "any", "there are too many requests for now"),
    "overloaded": Act(True, "any", "it has no capacity now"),
    "server": Act(True, "any", "the fault is the provider's"),
    "connection": Act(True, "any", "no answer began"),
    "stream_interrupted": Act(True, "any", "the answer broke off before it showed anything"),
    "conflict": Act(True, "any", "another request holds what this one needs"),
    "bad_response": Act(True, "any", "what it answers is no answer"),
    # Here only while nothing was sent, or where the provider says so itself, which `RetryRule` sees to: else the same
    # work may be billed twice here.
    "timeout": Act(True, "any", "it took too long"),
    # The same request cannot work here. Another key, account or provider is another matter.
    "auth": Act(False, "any", "its key is refused"),
    "permission": Act(False, "any", "its key may not do this"),
    "billing": Act(False, "any", "its account cannot pay"),
    "quota": Act(False, "any", "its quota is used up"),
    "not_found": Act(False, "any", "it does not know the model"),
    "missing_extra": Act(False, "any", "what it needs is not installed"),
    "config": Act(False, "any", "it is configured wrongly"),
    "too_large": Act(False, "any", "the request is larger than it accepts"),
    # What the request asks for is the matter: only where it can be had.
    "context_length": Act(False, "more_context", "the request is longer than its context"),
    "unsupported_param": Act(False, "able", "it lacks an ability that the request asks for"),
    "invalid_request": Act(False, "able", "it lacks an ability that the request asks for"),
    # To ask another in the hope of another answer is a choice that the caller makes.
    "content_policy": Act(False, "opted_in", "it refuses the prompt on grounds of policy"),
    "refusal": Act(False, "opted_in", "the model refuses"),
    # Ours, or the caller's own doing: everywhere the same.
    "cancelled": Act(False, "never", "the call was cancelled"),
    "usage": Act(False, "never", "polyvox is used in a way that cannot work"),
    "budgets_away": Act(True, "never", "where budgets are counted cannot be reached"),
    "no_deployment": Act(False, "never", "no deployment can serve it"),
    "limits_away": Act(True, "never", "where limits are counted cannot be reached"),
}
_UNKNOWN = Act(False, "never", "nobody knows what it means")
_OURS = Act(False, "never", "a budget of ours refuses it")
_WRONG = Act(False, "never", "the request is wrong")

MOVING = 0.25
"""Seconds that moving on costs: a cold connection, and whatever the deployment had kept of the prompt. A shorter wait
is spent here."""
MOST_TRIES = 10
"""Attempts of one call in all, however many deployments there are."""


class Next(NamedTuple):
    """Try again after so many seconds, here or elsewhere. taken is what a retry here took from the retry budget: it
    goes back with `RetryBudget.succeeded` if the call then ends well."""

    wait: float
    here: bool
    taken: int = 0


def act_on(error: PolyvoxError) -> Act:
    """What an error calls for, by its kind, and by where it comes from where that decides."""
    act = ACTS.get(error.kind, _UNKNOWN)
    if act.elsewhere == "able" and missing_ability(error) is None:
        return _WRONG
    if error.kind in ("quota", "billing") and error.sent == "no":
        return _OURS  # no provider refused it: nothing was sent
    return act


def after(
    error: PolyvoxError,
    tries_here: int,
    tries: int,
    budget: RetryBudget,
    rule: RetryRule,
    others: bool,
    chance: float,
    left: float | None,
) -> Next | None:
    """What follows a failed attempt of which the caller has seen nothing; None: the error is the end of the call.

    Args:
        error: what the attempt ended with. Its `retryable` is obeyed, whatever its kind.
        tries_here: attempts made at this deployment.
        tries: attempts of the call in all.
        budget: the retry budget of this deployment; a retry here takes from it.
        rule: how often and how long to wait here.
        others: whether there is another deployment for which `cannot_help` gives no reason, fit to be asked now.
        chance: a random number in [0, 1).
        left: seconds until the deadline, None for none.
    """
    if tries >= max(MOST_TRIES, rule.retries + 1) or (left is not None and left <= 0):
        return None
    act = act_on(error)
    may_move = others and act.elsewhere != "never"
    wait = rule.wait(error, tries_here, chance, left) if error.kind != "cancelled" else None
    if wait is not None and not (may_move and wait > MOVING):
        taken = budget.take(error.kind)
        if taken:
            return Next(wait, True, taken)
    return Next(0.0, False) if may_move else None


def cannot_help(error: PolyvoxError, here: Abilities, there: Abilities, opted_in: bool = False) -> str | None:
    """Why asking another deployment after this error makes no sense, in a sentence; None where it does.

    here and there are what the one that failed and the other are able to; opted_in is whether the caller wants
    another asked where this one refuses what the prompt says.
    """
    elsewhere = act_on(error).elsewhere
    if elsewhere == "never" or (elsewhere == "opted_in" and not opted_in):
        return act_on(error).why
    if elsewhere == "more_context":
        # Unknown against known is a chance; both unknown is none.
        if there.context == here.context or (here.context and there.context and there.context < here.context):
            return "its context is not known to be longer"
    if elsewhere == "able" and getattr(there, missing_ability(error) or "", None) is False:
        return f"takes no {missing_ability(error)} either"
    return None


# What providers write where a request asks for what a model does not have, most telling first.
_SAYS_NOT = re.compile(
    r"not (?:be |currently )?(?:support|available|allow|enabl|permit)|unsupported|(?:does|do|can)(?: ?n[o']t|not) "
    r"(?:support|accept|take|handle|allow|use)|must end with a user|no endpoints? found",
    re.IGNORECASE,
)
_ABILITIES = tuple(
    (ability, re.compile(words, re.IGNORECASE))
    for ability, words in (
        ("prefill", r"pre-?fill|must end with a user|last message .{0,40}(?:user|assistant)|end with .{0,20}assistant"),
        ("structured", r"response_?format|json[_ ]?(?:schema|mode|object)|structured[_ ]?output|output_config"),
        ("tools", r"\btools?\b|tool_(?:choice|use|call)|function[_ ]call"),
        ("audio", r"\baudio\b|input_audio"),
        ("files", r"\b(?:documents?|pdfs?|input_file|file (?:input|content))\b"),
        ("images", r"\bimages?\b|image_url|\bvision\b|multimodal"),
    )
)
_LOOK_AT = 4000


def missing_ability(error: PolyvoxError) -> str | None:
    """The ability that a refusal says is missing, as `Abilities` names it; None where it names none.

    >>> from polyvox.errors import InvalidRequestError
    >>> missing_ability(InvalidRequestError("This model does not support assistant message prefill."))
    'prefill'
    """
    if error.kind not in ("unsupported_param", "invalid_request"):
        return None
    said = error.message[:_LOOK_AT]
    if error.kind == "invalid_request" and not _SAYS_NOT.search(said):
        return None
    for text in (error.param or "", said):
        for ability, words in _ABILITIES:
            if words.search(text):
                return ability
    return None
