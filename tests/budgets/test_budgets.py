"""What a call may cost is taken before it is sent, and given back but for what it did cost: in every kind of store."""

import asyncio
import itertools
import pickle
from decimal import Decimal

import pytest

from polyvox.budgets import Budget, BudgetExceededError, Budgets, Facts, MemoryStore
from polyvox.cli.output import LIMIT, exit_code
from polyvox.errors import InputError, UsageError
from tests.budgets.conftest import NOON

ANN = Facts(user="ann")
DAY = 86_400
numbers = itertools.count()


def reserve(budgets, at_most, facts=ANN, attempt=None):
    amount = None if at_most is None else Decimal(at_most)
    return asyncio.run(budgets.reserve(attempt or f"attempt-{next(numbers)}", facts, amount))


def settle(budgets, reservation, actual):
    return asyncio.run(budgets.settle(reservation, None if actual is None else Decimal(actual)))


def refund(budgets, reservation):
    return asyncio.run(budgets.refund(reservation))


def refused(budgets, at_most, facts=ANN):
    with pytest.raises(BudgetExceededError) as caught:
        reserve(budgets, at_most, facts)
    return caught.value


def state(budgets):
    return asyncio.run(budgets.state())


def figures(budgets):
    """Spent, reserved and left of the one account there is, as text."""
    (row,) = state(budgets)
    return tuple(f"{amount:f}" for amount in (row.spent, row.reserved, row.left))


# ---- reserve, settle, refund ------------------------------------------------------------------


def test_what_is_reserved_is_taken_and_what_is_not_spent_is_given_back(make):
    budgets = make(Budget("1"))
    assert figures(budgets) == ("0", "0", "1")
    reservation = reserve(budgets, "0.6")
    assert figures(budgets) == ("0", "0.6", "0.4")
    settle(budgets, reservation, "0.25")
    assert figures(budgets) == ("0.25", "0", "0.75")


def test_what_is_in_flight_counts_in_full_so_the_next_is_refused(make):
    budgets = make(Budget("1"))
    reservation = reserve(budgets, "0.6")
    refused(budgets, "0.400000000001")
    exactly = reserve(budgets, "0.4")
    assert figures(budgets) == ("0", "1", "0")
    settle(budgets, reservation, "0.1")
    settle(budgets, exactly, "0.4")
    assert figures(budgets) == ("0.5", "0", "0.5")


def test_a_refund_makes_room_again(make):
    budgets = make(Budget("1"))
    reservation = reserve(budgets, "1")
    refused(budgets, "0.1")
    assert refund(budgets, reservation).done
    assert figures(budgets) == ("0", "0", "1")
    reserve(budgets, "1")


def test_settling_and_refunding_twice_changes_nothing(make):
    budgets = make(Budget("1"), Budget("9", window="5h"), Budget("9", window="day"))
    for first, second in itertools.product(("settle", "refund"), repeat=2):
        reservation = reserve(budgets, "0.2")
        ways = {"settle": lambda: settle(budgets, reservation, "0.1"), "refund": lambda: refund(budgets, reservation)}
        assert ways[first]().done and not ways[second]().done
    assert [f"{row.spent:f} {row.reserved:f}" for row in state(budgets)] == ["0.2 0"] * 3


def test_the_same_attempt_reserves_once(make):
    budgets = make(Budget("1"))
    first, again = reserve(budgets, "0.6", attempt="a"), reserve(budgets, "0.6", attempt="a")
    assert figures(budgets) == ("0", "0.6", "0.4")
    assert settle(budgets, first, "0.5").done and not settle(budgets, again, "0.5").done
    assert figures(budgets) == ("0.5", "0", "0.5")


def test_budgets_of_two_owners_in_one_store_each_count_an_attempt_of_one_name(make):
    mine = make(Budget("1", name="mine"), Budget("5", name="shared"))
    yours = make(Budget("1", name="yours"), Budget("5", name="shared"), store=mine.store)
    first, second = reserve(mine, "0.6", attempt="a"), reserve(yours, "0.6", attempt="a")
    assert [row.reserved for row in state(mine) + state(yours)] == [Decimal("0.6")] * 4
    settle(mine, first, "0.1")
    settle(yours, second, "0.2")
    assert [f"{row.spent:f} {row.reserved:f}" for row in state(mine) + state(yours)] == [
        "0.1 0", "0.1 0", "0.2 0", "0.1 0",
    ]  # fmt: skip


def test_an_unknown_cost_counts_as_the_reserved_maximum_and_is_marked(make):
    budgets = make(Budget("1"))
    outcome = settle(budgets, reserve(budgets, "0.6"), None)
    (row,) = state(budgets)
    assert outcome.estimated and row.spent == row.estimated == Decimal("0.6") and row.reserved == 0


def test_a_cost_above_the_reservation_is_counted_in_full_flagged_and_blocks_the_next(make):
    notices = []
    budgets = make(Budget("1"), notices=notices)
    outcome = settle(budgets, reserve(budgets, "0.6"), "1.7")
    (row,) = state(budgets)
    assert outcome.over and row.over and row.spent == Decimal("1.7") and row.left == 0
    assert refused(budgets, "0").spent == Decimal("1.7")
    assert "over" in [notice.kind for notice in notices]


def test_all_budgets_of_a_call_are_taken_or_none(make):
    budgets = make(Budget("5", name="wide"), Budget("1", each="user", name="narrow"), Budget("5", name="last"))
    reserve(budgets, "0.9")
    error = refused(budgets, "0.2")
    assert (error.budget, error.scope) == ("narrow", (("user", "ann"),))
    assert [row.reserved for row in state(budgets)] == [Decimal("0.9")] * 3
    reserve(budgets, "0.2", Facts(user="bob"))
    assert {(row.name, row.scope.get("user")): f"{row.reserved:f}" for row in state(budgets)} == {
        ("wide", None): "1.1", ("narrow", "ann"): "0.9", ("narrow", "bob"): "0.2", ("last", None): "1.1",
    }  # fmt: skip


def test_each_tag_of_a_call_is_counted(make):
    budgets = make(Budget("1", each="tag"))
    settle(budgets, reserve(budgets, "0.6", Facts(tags=("a", "b"))), "0.6")
    refused(budgets, "0.5", Facts(tags=("b", "c")))
    reserve(budgets, "0.5", Facts(tags=("c",)))
    assert {row.scope["tag"]: f"{row.spent:f} {row.reserved:f}" for row in state(budgets)} == {
        "a": "0.6 0", "b": "0.6 0", "c": "0 0.5",
    }  # fmt: skip


def test_a_call_no_budget_is_for_passes(make):
    budgets = make(Budget("0", user="bob"))
    reservation = reserve(budgets, "100")
    assert not settle(budgets, reservation, "100").done and not refund(budgets, reservation).done
    refused(budgets, "0.01", Facts(user="bob"))
    reserve(budgets, "0", Facts(user="bob"))


def test_a_call_knows_whether_a_hard_budget_is_for_it():
    budgets = Budgets([Budget(1, user="ann"), Budget(1, hard=False)])
    assert budgets.has_hard(ANN) and not budgets.has_hard(Facts(user="bob"))


def test_names_with_any_letters_are_counted_apart(make):
    budgets = make(Budget("1", each=("user", "project")))
    names = ['a"', "a\\", "a b", "ä", "{a}", "%s ?", "a\x00b", "a,b", '["a"', "x" * 500, ""]
    for name in names:
        reserve(budgets, "0.6", Facts(user=name, project="p"))
        reserve(budgets, "0.6", Facts(user="p", project=name))
    assert sorted(row.scope["user"] for row in state(budgets) if row.scope["project"] == "p") == sorted(names)
    for name in names:
        refused(budgets, "0.6", Facts(user=name, project="p"))


def test_amounts_are_exact_to_the_pico_dollar_beyond_what_a_double_holds(make):
    budgets = make(Budget("9000000.000000000003"))
    settle(budgets, reserve(budgets, "9000000.000000000001"), "9000000.000000000001")
    refused(budgets, "0.000000000003")
    settle(budgets, reserve(budgets, "0.000000000002"), "0.000000000001")
    assert figures(budgets) == ("9000000.000000000002", "0", "0.000000000001")
    refused(budgets, "0.000000000002")
    reserve(budgets, "0.000000000001")


def test_more_than_fits_stays_at_the_most_and_goes_on_blocking(make):
    budgets = make(Budget("9000000"))
    settle(budgets, reserve(budgets, "9000000"), "9000000")
    budgets.rules[0].ceiling = 2**63 - 1
    first = asyncio.run(budgets.store.standings([budgets.rules[0].all_of(budgets.rules[0].family(0))], 5))
    assert first[0].spent == 9_000_000 * 10**12
    refused(budgets, "0.01")


# ---- unknown prices ---------------------------------------------------------------------------


def test_a_call_of_unknown_price_is_refused_under_a_hard_budget_unless_allowed(make):
    error = refused(make(Budget("1", name="a")), None)
    assert "nobody knows" in error.message and error.budget == "a" and "allow" in error.hint
    allowed = make(Budget("1", name="b", unknown="allow"))
    settle(allowed, reserve(allowed, None), "0.3")
    assert figures(allowed) == ("0.3", "0", "0.7")
    soft = make(Budget("1", name="c", hard=False))
    settle(soft, reserve(soft, None), "0.3")
    assert figures(soft) == ("0.3", "0", "0.7")


def test_a_call_of_unknown_price_is_not_allowed_where_nothing_is_left(make):
    budgets = make(Budget("1", unknown="allow"))
    settle(budgets, reserve(budgets, "1"), "1")
    refused(budgets, None)


def test_calls_whose_cost_stays_unknown_are_counted_as_such_and_never_as_free(make):
    budgets = make(Budget("1", window="5h", unknown="allow"))
    assert settle(budgets, reserve(budgets, None), None).estimated
    settle(budgets, reserve(budgets, None), "0.1")
    (row,) = state(budgets)
    assert (row.unpriced, row.spent, row.estimated) == (1, Decimal("0.1"), 0)


# ---- soft budgets and what they tell ----------------------------------------------------------


def test_a_soft_budget_refuses_nothing_and_tells_each_threshold_once(make):
    notices = []
    budgets = make(Budget("1", window="day", hard=False, name="soft"), notices=notices)
    for _ in range(13):
        settle(budgets, reserve(budgets, "0.1"), "0.1")
    told = [(notice.kind, notice.percent, notice.budget) for notice in notices]
    assert told == [("threshold", percent, "soft") for percent in (50, 80, 100)]
    assert notices[0].spent == Decimal("0.5") and notices[0].limit == 1
    assert state(budgets)[0].over


def test_each_window_tells_anew_and_several_thresholds_at_once_are_one_notice(make, clock):
    notices = []
    budgets = make(Budget("1", window="day", hard=False), notices=notices)
    for _ in range(2):
        settle(budgets, reserve(budgets, "2"), "2")
        clock.pass_by(DAY)
    assert [notice.percent for notice in notices] == [100, 100]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "redis"], indirect=True)
def test_thresholds_are_told_by_one_process_of_all(make):
    notices = []
    several = [make(Budget("1", window="day", name="shared"), notices=notices) for _ in range(3)]
    for number in range(10):
        settle(several[number % 3], reserve(several[number % 3], "0.1"), "0.1")
    assert [notice.percent for notice in notices] == [50, 80, 100]


def test_a_hook_that_fails_harms_no_call(open_store, clock, caplog):
    def broken(notice):
        raise RuntimeError("broken hook")

    budgets = Budgets([Budget("1", hard=False)], open_store(clock=clock), wall=clock, on_notice=broken)
    assert settle(budgets, reserve(budgets, "1"), "1").done
    assert "100 %" in caplog.text and "broken hook" in caplog.text


# ---- windows ----------------------------------------------------------------------------------


def test_a_calendar_window_begins_with_nothing_spent_and_counts_calls_where_they_were_reserved(make, clock):
    budgets = make(Budget("1", window="day"))
    late = reserve(budgets, "0.9")
    clock.now = NOON + DAY / 2 - 0.5
    error = refused(budgets, "0.2")
    assert error.retry_after == pytest.approx(0.5)
    clock.now = NOON + DAY / 2
    assert figures(budgets) == ("0", "0", "1")
    settle(budgets, late, "0.9")
    assert figures(budgets) == ("0", "0", "1")
    reserve(budgets, "1")
    clock.now = NOON
    assert figures(budgets) == ("0.9", "0", "0.1")


def test_a_clock_that_goes_back_gives_no_window_twice(make, kind, clock):
    budgets = make(Budget("1", window="hour"), store=MemoryStore() if kind == "memory" else None)
    settle(budgets, reserve(budgets, "1"), "1")
    for jump in (3600, -3600, 40 * DAY, -40 * DAY, -7200, 7200):
        clock.pass_by(jump)
        if clock.now == NOON:
            refused(budgets, "0.1")
        else:
            refund(budgets, reserve(budgets, "1"))
    assert clock.now == NOON and figures(budgets) == ("1", "0", "0")


def test_a_rolling_window_forgets_a_call_one_whole_length_after_it_was_settled(make, clock):
    budgets = make(Budget("1", window="1h"))
    first = reserve(budgets, "0.6")
    clock.pass_by(600)
    settle(budgets, first, "0.6")
    clock.pass_by(600)
    settle(budgets, reserve(budgets, "0.4"), "0.4")
    error = refused(budgets, "0.5")
    assert error.retry_after == pytest.approx(3000)
    clock.pass_by(3000 - 0.001)
    refused(budgets, "0.5")
    clock.pass_by(0.001)
    assert figures(budgets) == ("0.4", "0", "0.6")
    reserve(budgets, "0.5")


def test_a_rolling_window_holds_what_is_in_flight_however_long_that_takes(make, clock):
    budgets = make(Budget("1", window="60s"), lease=10_000)
    long = reserve(budgets, "1")
    clock.pass_by(3000)
    refused(budgets, "0.1")
    settle(budgets, long, "1")
    clock.pass_by(59)
    refused(budgets, "0.1")
    clock.pass_by(1)
    reserve(budgets, "1")


def test_a_clock_that_goes_back_frees_nothing_of_a_rolling_window(make, clock):
    budgets = make(Budget("1", window="1h"))
    settle(budgets, reserve(budgets, "1"), "1")
    clock.pass_by(-10 * DAY)
    refused(budgets, "0.1")
    clock.pass_by(10 * DAY + 3599)
    refused(budgets, "0.1")


def test_a_jump_of_the_wall_clock_frees_nothing_of_a_rolling_window_in_memory(clock):
    steady = lambda: NOON  # noqa: E731
    budgets = Budgets([Budget("1", window="1h")], MemoryStore(clock=steady), wall=clock)
    settle(budgets, reserve(budgets, "1"), "1")
    for jump in (DAY, 400 * DAY, -900 * DAY):
        clock.pass_by(jump)
        refused(budgets, "0.1")


def test_a_budget_for_all_time_never_forgets(make, clock):
    budgets = make(Budget("1"))
    settle(budgets, reserve(budgets, "1"), "1")
    clock.pass_by(3000 * DAY)
    assert refused(budgets, "0.1").retry_after is None
    assert figures(budgets) == ("1", "0", "0")


def test_many_that_are_due_at_once_are_all_forgotten(make, clock):
    budgets = make(Budget("1", window="60s"))

    async def fill():
        for number in range(300):
            await budgets.settle(await budgets.reserve(f"m{number}", ANN, Decimal("0.003")), Decimal("0.003"))

    asyncio.run(fill())
    refused(budgets, "0.2")
    clock.pass_by(60)
    assert figures(budgets) == ("0", "0", "1")
    reserve(budgets, "1")


# ---- what was left behind ---------------------------------------------------------------------


def test_what_nobody_settled_counts_in_full_once_its_lease_is_over(make, clock):
    budgets = make(Budget("1"), lease=60)
    reserve(budgets, "0.6")
    clock.pass_by(59)
    assert figures(budgets) == ("0", "0.6", "0.4")
    clock.pass_by(1)
    (row,) = state(budgets)
    assert (row.spent, row.reserved, row.estimated) == (Decimal("0.6"), 0, Decimal("0.6"))
    refused(budgets, "0.5")


@pytest.mark.parametrize("window", [None, "month", "1h"])
@pytest.mark.parametrize("lapsed", ["count", "release"])
def test_what_is_settled_after_its_lease_counts_once_and_as_it_was(make, clock, window, lapsed):
    budgets = make(Budget("1", window=window), lease=60, lapsed=lapsed)
    late, never_sent = reserve(budgets, "0.6"), reserve(budgets, "0.3")
    clock.pass_by(61)
    assert figures(budgets)[1] == "0"
    assert settle(budgets, late, "0.2").done and refund(budgets, never_sent).done
    assert figures(budgets) == ("0.2", "0", "0.8")
    assert not settle(budgets, late, "0.2").done and not refund(budgets, never_sent).done
    assert figures(budgets) == ("0.2", "0", "0.8")
    if window == "1h":
        clock.pass_by(3600)
        assert figures(budgets) == ("0", "0", "1")


def test_what_was_left_behind_leaves_a_rolling_window_and_may_still_be_settled_later(make, clock):
    budgets = make(Budget("1", window="60s"), lease=60)
    late = reserve(budgets, "0.6")
    clock.pass_by(60)
    assert figures(budgets) == ("0.6", "0", "0.4")
    clock.pass_by(60)
    assert figures(budgets) == ("0", "0", "1")
    assert settle(budgets, late, "0.5").done
    assert figures(budgets) == ("0.5", "0", "0.5")
    clock.pass_by(60)
    assert figures(budgets) == ("0", "0", "1")


def test_a_store_may_release_what_was_left_behind(make, clock):
    budgets = make(Budget("1"), lease=60, lapsed="release")
    reserve(budgets, "1")
    clock.pass_by(60)
    reserve(budgets, "1")


# ---- errors and states ------------------------------------------------------------------------


def test_a_refusal_says_which_budget_how_it_stands_and_when_there_is_room_again(make):
    budgets = make(Budget("1", window="day", each="user", name="daily"))
    settle(budgets, reserve(budgets, "0.5"), "0.25")
    reserve(budgets, "0.5")
    error = refused(budgets, "0.75")
    assert (error.budget, error.scope, error.limit) == ("daily", (("user", "ann"),), 1)
    assert (error.spent, error.reserved, error.needed) == (Decimal("0.25"), Decimal("0.5"), Decimal("0.75"))
    assert error.frees_at.isoformat() == "2030-03-18T00:00:00+00:00" and error.retry_after == DAY / 2
    assert (error.sent, error.billed, error.retryable) == ("no", False, False)
    assert exit_code(error) == LIMIT == 6
    assert "'daily' (user ann)" in error.message and "2030-03-18" in error.hint
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.budget, copy.limit, str(copy)) == (error.budget, error.limit, str(error))


def test_what_never_fits_gives_no_time_to_wait_for(make):
    assert refused(make(Budget("1", window="day")), "1.01").retry_after is None


def test_a_state_foretells_the_end_of_the_window(make, clock):
    budgets = make(Budget("10", window="day"))
    settle(budgets, reserve(budgets, "2"), "2")
    (row,) = state(budgets)
    assert row.forecast == 4 and row.window == "day@UTC" and (row.ends - row.starts).days == 1
    clock.now = NOON - DAY / 2 + 60
    assert state(budgets)[0].forecast is None
    assert state(make(Budget("10", window="5h", name="rolling")))[0].forecast is None


def test_a_limit_that_is_changed_keeps_what_was_spent(make):
    budgets = make(Budget("1", window="day"))
    settle(budgets, reserve(budgets, "1"), "0.8")
    raised = make(Budget("2", window="day"), store=budgets.store)
    assert figures(raised) == ("0.8", "0", "1.2")
    lowered = make(Budget("0.5", window="day"), store=budgets.store)
    refused(lowered, "0")
    assert state(lowered)[0].left == 0


@pytest.mark.parametrize("wrong", ["NaN", "Infinity", "-Infinity", "-0.01", "1e999"])
def test_an_amount_that_is_none_is_refused_and_changes_nothing(make, wrong):
    budgets = make(Budget("1"))
    reservation = reserve(budgets, "0.5")
    with pytest.raises(InputError):
        reserve(budgets, wrong)
    with pytest.raises(InputError):
        settle(budgets, reservation, wrong)
    for other in (1.5, 5, True, "0.5"):
        with pytest.raises(InputError):
            asyncio.run(budgets.settle(reservation, other))
    assert figures(budgets) == ("0", "0.5", "0.5")


def test_an_attempt_without_a_name_is_refused(make):
    budgets = make(Budget("1", each="user"))
    for wrong in ("", None, 5, "a\0b", "\ud800", "ä"):
        with pytest.raises(InputError):
            asyncio.run(budgets.reserve(wrong, ANN, Decimal(1)))
    for nobody in ("\ud800", object()):
        with pytest.raises(InputError):
            asyncio.run(budgets.reserve("a", Facts(user=nobody), Decimal(1)))


def test_budgets_outside_a_database_have_no_unit_for_one():
    with pytest.raises(UsageError):
        Budgets([Budget("1")]).reserving("a", ANN, Decimal(1))
