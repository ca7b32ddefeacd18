"""A budget says what it limits and whom it is for; what no budget can be is refused when it is made."""

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.budgets import Budget, Budgets, Facts
from polyvox.budgets.amounts import dollars, limit_of, pico_of
from polyvox.budgets.rules import Rule
from polyvox.errors import InputError
from polyvox.keys import Secret, remember


def accounts(budget, facts):
    rule = Rule(budget, 0)
    return [dict(rule.scope(claim.account)) for claim in rule.claims(facts, rule.family(0))]


@pytest.mark.parametrize("limit", [Decimal("2.50"), "2.50", "2.5", "25e-1"])
def test_a_limit_is_a_decimal_or_text(limit):
    assert Budget(limit).limit == Decimal("2.5")
    assert Budget(3).limit == 3 and Budget(0).limit == 0


@pytest.mark.parametrize(
    "limit",
    [Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("-Infinity"), "nan", "NaN", "inf", "Infinity",
     "-1", -1, Decimal("-0.01"), True, False, None, 2.5, float("nan"), "1e999", "1e99999999999", "9223373", "", "abc",
     "0x10", b"5", [5]],
)  # fmt: skip
def test_a_limit_that_is_no_amount_of_money_is_refused_in_one_line(limit):
    with pytest.raises(InputError) as caught:
        Budget(limit)
    assert "\n" not in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    "wrong",
    [{"window": "0s"}, {"zone": "Nowhere", "window": "day"}, {"each": "color"}, {"each": ("user", "shoe")},
     {"hard": 1}, {"hard": "yes"}, {"unknown": "maybe"}, {"warn_at": "50"}, {"warn_at": (0,)}, {"warn_at": (50.5,)},
     {"warn_at": (True,)}, {"user": ""}, {"user": 5}, {"model": ("a",)}, {"name": ""}, {"name": "\ud800"}],
)  # fmt: skip
def test_what_no_budget_can_be_is_refused(wrong):
    with pytest.raises(InputError) as caught:
        Budget(1, **wrong)
    assert "\n" not in caught.value.message


def test_a_budget_is_for_the_calls_that_fit_all_it_names():
    budget = Budget(1, user="ann", project="moon", model="openai/*", tag="night", key="team-a")
    good = Facts(user="ann", project="moon", model="openai/x", tags=("day", "night"), key="team-a")
    assert accounts(budget, good) == [{}]
    for word, other in [
        ("user", "bob"), ("user", None), ("project", None), ("model", "anthropic/x"), ("model", None),
        ("tags", ("day",)), ("tags", ()), ("key", None),
    ]:  # fmt: skip
        facts = {name: getattr(good, name) for name in good.__struct_fields__} | {word: other}
        assert accounts(budget, Facts(**facts)) == [], word


def test_each_value_of_a_word_has_an_account_of_its_own():
    budget = Budget(1, each="user")
    assert accounts(budget, Facts(user="ann")) == [{"user": "ann"}]
    assert accounts(budget, Facts()) == [{"user": None}]
    both = Budget(1, each=("tag", "user"))
    assert accounts(both, Facts(user="ann", tags=("a", "b", "a"))) == [
        {"user": "ann", "tag": "a"}, {"user": "ann", "tag": "b"},
    ]  # fmt: skip
    one = Budget(1, each="tag", tag="b")
    assert accounts(one, Facts(tags=("a", "b"))) == [{"tag": "b"}]


@given(st.lists(st.tuples(*[st.none() | st.text(max_size=5)] * 4), min_size=2, max_size=2, unique=True))
def test_accounts_of_different_callers_never_share_a_name(callers):
    budget = Budget(1, each=("key", "user", "project", "model"), name="all")
    names = [Rule(budget, 0).claims(Facts(*caller), Rule(budget, 0).family(0))[0].account for caller in callers]
    assert names[0] != names[1]


def test_a_name_is_made_of_window_and_scope_and_not_of_the_limit():
    assert Budget(1, window="day", user="ann").name == Budget(2, window="day", user="ann").name
    names = {Budget(1).name, Budget(1, window="day").name, Budget(1, window="5h").name, Budget(1, user="ann").name,
             Budget(1, each="user").name, Budget(1, window="day", zone="Europe/Berlin").name}  # fmt: skip
    assert len(names) == 6


def test_two_budgets_of_one_name_are_refused():
    with pytest.raises(InputError, match="two budgets"):
        Budgets([Budget(1, window="day"), Budget(2, window="day")])


def test_a_key_itself_is_no_name_of_a_key():
    remember(Secret("sk-budget-test-0123456789abcdef"))
    with pytest.raises(InputError) as caught:
        Budget(1, key="sk-budget-test-0123456789abcdef")
    assert "0123456789" not in str(caught.value)


@given(st.decimals(0, 9_000_000, allow_nan=False, allow_infinity=False))
def test_amounts_are_rounded_up_and_by_less_than_one_pico_dollar_whatever_the_context(amount):
    with localcontext() as context:
        context.prec = 3
        whole = pico_of(amount, "it")
        shown = dollars(whole)
    with localcontext() as context:
        context.prec = 100
        assert 0 <= Decimal(whole) - amount * 10**12 < 1
        assert shown * 10**12 == whole


def test_what_is_shown_of_an_amount_has_no_exponent():
    assert [str(dollars(amount)) for amount in (0, 10**13, 2_500_000_000_000, 500_000_000_000)] == [
        "0", "10", "2.5", "0.5",
    ]  # fmt: skip
    assert str(limit_of("1E+2")) == "1E+2" and f"{limit_of('1E+2'):f}" == "100"
