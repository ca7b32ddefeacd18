"""What follows a failed attempt: here again, elsewhere, or the end."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyvox
from polyvox.budgets.faults import BudgetExceededError
from polyvox.errors import (
    BY_KIND,
    InputError,
    InvalidRequestError,
    LossError,
    MissingKeyError,
    UnsupportedParamError,
    of_kind,
)
from polyvox.routing import RetryBudget, RetryRule
from polyvox.routing.after import ACTS, MOST_TRIES, MOVING, Next, act_on, after, cannot_help, missing_ability
from polyvox.routing.needs import Abilities

RULE = RetryRule()
HERE = Abilities(context=8000)
ELSEWHERE = Next(0.0, False)


def follows(error, *, here=1, tries=None, budget=None, others=True, chance=0.0, left=None, rule=RULE):
    return after(
        error, here, here if tries is None else tries, budget or RetryBudget(), rule, others, chance, left
    )  # fmt: skip


def of(kind, **facts):
    return of_kind(kind, "x", **{"sent": "yes", **facts})


MENDED = ["rate_limit", "overloaded", "server", "connection", "stream_interrupted", "conflict", "bad_response"]
ELSEWHERE_ONLY = ["auth", "permission", "billing", "quota", "not_found", "too_large", "context_length"]


@pytest.mark.parametrize("kind", MENDED)
def test_what_another_try_may_mend_is_tried_again_here_when_that_is_soon(kind):
    found = follows(of(kind))
    assert found == Next(0.0, True, 5 if kind == "rate_limit" else 14)


@pytest.mark.parametrize("kind", MENDED)
def test_a_longer_wait_is_spent_elsewhere_and_here_only_when_there_is_nobody_else(kind):
    error = of(kind, retry_after=MOVING + 1)
    assert follows(error) == ELSEWHERE
    assert follows(error, others=False).wait == MOVING + 1


@pytest.mark.parametrize("kind", MENDED)
def test_tried_often_enough_here_it_goes_elsewhere(kind):
    assert follows(of(kind), here=3) == ELSEWHERE
    assert follows(of(kind), here=3, others=False) is None


@pytest.mark.parametrize("kind", [*ELSEWHERE_ONLY, "content_policy", "refusal"])
def test_what_stays_as_it_is_here_may_go_elsewhere_and_is_never_repeated(kind):
    assert follows(of(kind)) == ELSEWHERE
    assert follows(of(kind), others=False) is None


@pytest.mark.parametrize("kind", ["invalid_request", "unsupported_param", "cancelled"])
def test_what_is_wrong_everywhere_is_the_end(kind):
    assert follows(of(kind)) is None


def test_a_wish_beyond_what_is_honoured_goes_elsewhere_or_ends_the_call():
    assert follows(of("rate_limit", retry_after=61)) == ELSEWHERE
    assert follows(of("rate_limit", retry_after=61), others=False) is None


def test_a_timeout_is_repeated_here_only_if_nothing_was_sent():
    assert follows(of("timeout")) == ELSEWHERE
    assert follows(of("timeout"), others=False) is None
    assert follows(of("timeout", sent="no")).here


def test_an_empty_retry_budget_sends_the_call_elsewhere_and_nothing_is_taken():
    empty = RetryBudget(4)
    assert follows(of("server"), budget=empty) == ELSEWHERE
    assert follows(of("server"), budget=empty, others=False) is None
    assert empty.left == 4


def test_going_elsewhere_takes_nothing_from_the_retry_budget():
    budget = RetryBudget()
    assert follows(of("auth"), budget=budget) == ELSEWHERE
    assert budget.left == 500


def test_what_the_server_says_of_repeats_is_obeyed_whatever_the_kind():
    assert follows(of("server", retryable=False)) == ELSEWHERE
    assert follows(of("server", retryable=False), others=False) is None
    assert follows(of("invalid_request", retryable=True)).here


def test_a_budget_of_ours_that_refuses_is_the_end_and_a_providers_quota_is_not():
    assert follows(BudgetExceededError("x")) is None
    assert follows(of("quota", status=429)) == ELSEWHERE
    assert follows(MissingKeyError("x")) == ELSEWHERE


@given(
    st.sampled_from(sorted({*BY_KIND, *ACTS, "error"})), st.integers(1, 12), st.integers(0, 12), st.booleans(),
    st.floats(0, 1, exclude_max=True), st.none() | st.floats(-1, 100), st.none() | st.floats(0, 1e9),
    st.sampled_from([None, True, False]), st.integers(0, 500), st.integers(0, 20),
)  # fmt: skip
def test_whatever_fails_a_call_ends_and_keeps_its_deadline(
    kind, here, beyond, others, chance, left, wish, told, tokens, retries
):
    error = of(kind, retry_after=wish, retryable=told)
    budget, rule = RetryBudget(tokens), RetryRule(retries)
    found = follows(
        error, here=here, tries=here + beyond, budget=budget, others=others, chance=chance, left=left, rule=rule
    )
    if found is None:
        assert budget.left == tokens
        return
    assert here + beyond < max(MOST_TRIES, retries + 1)
    assert found.here or others
    assert left is None or found.wait < left
    assert tokens - budget.left == found.taken
    assert bool(found.taken) is found.here
    assert not found.here or (here <= retries and found.wait >= (wish or 0))


def test_every_kind_of_error_there_is_has_its_row():
    kinds = set(BY_KIND)
    for path in Path(polyvox.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                kinds |= {
                    line.value.value
                    for line in node.body
                    if isinstance(line, ast.Assign)
                    and isinstance(line.targets[0], ast.Name)
                    and line.targets[0].id == "kind"
                    and isinstance(line.value, ast.Constant)
                }
    never_asked = {"error", "database", "database_away", "schema", "not_yet"}  # no attempt ends with these
    assert kinds - never_asked == set(ACTS) - never_asked


@pytest.mark.parametrize(("kind", "act"), ACTS.items())
def test_the_table_says_of_repeats_what_the_errors_say_of_themselves(kind, act):
    known = BY_KIND.get(kind)
    if known is not None and kind != "bad_response":  # tried once more, though the same may come again
        assert act.here is known.retry


# ---- who may help -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "there", "helps"),
    [(8000, 16000, True), (8000, 8000, False), (8000, 4000, False), (8000, None, True), (None, 8000, True),
     (None, None, False)],
)  # fmt: skip
def test_a_request_that_is_too_long_helps_only_where_the_context_may_be_longer(here, there, helps):
    why = cannot_help(of("context_length"), Abilities(context=here), Abilities(context=there))
    assert (why is None) is helps


@pytest.mark.parametrize("kind", ["content_policy", "refusal"])
def test_another_is_asked_about_what_one_refuses_only_if_the_caller_wants_that(kind):
    assert cannot_help(of(kind), HERE, HERE) is not None
    assert cannot_help(of(kind), HERE, HERE, opted_in=True) is None


@pytest.mark.parametrize(
    ("error", "ability"),
    [
        (UnsupportedParamError("not supported", param="response_format"), "structured"),
        (InvalidRequestError("This model does not support assistant message prefill."), "prefill"),
        (InvalidRequestError("The conversation must end with a user message."), "prefill"),
        (InvalidRequestError("`tools` is not supported by this model"), "tools"),
        (InvalidRequestError("m does not support tools"), "tools"),
        (InvalidRequestError("This model doesn't accept image input"), "images"),
        (InvalidRequestError("audio input is not supported"), "audio"),
        (InvalidRequestError("documents are not supported by this model"), "files"),
        (LossError("strict: the request says what this model's protocol cannot: response_format: x"), "structured"),
        (InvalidRequestError("tools.0.name: String should match pattern"), None),
        (InvalidRequestError("temperature: not supported"), None),
        (InputError("an image needs data, a url or a file_id"), None),
        (of("server"), None),
    ],
)
def test_a_refusal_tells_which_ability_is_missing(error, ability):
    assert missing_ability(error) == ability
    assert (follows(error) is None) is (ability is None and error.kind != "server")
    if ability is not None:
        lacks = Abilities(**{ability: False})
        assert cannot_help(error, HERE, lacks) == f"takes no {ability} either"
        assert cannot_help(error, HERE, Abilities()) is None


@given(st.text(max_size=300), st.sampled_from(["invalid_request", "unsupported_param"]))
def test_no_words_of_a_server_break_the_reading(text, kind):
    error = of_kind(kind, text, param=text)
    assert act_on(error).elsewhere in ("able", "never")


def test_what_stops_a_call_says_why_nobody_else_is_asked():
    assert cannot_help(BudgetExceededError("x"), HERE, HERE) == "a budget of ours refuses it"
    assert cannot_help(InvalidRequestError("x"), HERE, HERE) == "the request is wrong"
