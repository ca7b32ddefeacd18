"""What a client's calls cost is written down, counted against budgets, given again: whole, streamed, failed, left."""

import asyncio
from decimal import Decimal

import pytest

from polyvox import AsyncClient, Client
from polyvox.budgets import Budget, BudgetExceededError, Budgets
from polyvox.config import Settings
from polyvox.database import Unit
from polyvox.errors import InputError, PolyvoxError, StreamInterruptedError
from polyvox.ledger import Ledger
from polyvox.testing import Simulator

KEY = "sk-simulated-0123456789"
MODEL = "openai/gpt-5.4-mini"


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db", privacy="full") as opened:
        yield opened


@pytest.fixture
def simulator():
    with Simulator() as running:
        yield running


def asking(simulator, kind=Client, **facts):
    """A client of a provider whose prices are known, at the simulated one's address."""
    row = {"base_url": simulator.base_url("openai.chat"), "hosts": ["127.0.0.1"], "api_key": KEY}
    return kind(MODEL, settings=Settings(providers={"openai": row}), **facts)


def rows(ledger):
    ledger.database.write_sync(_Nothing())
    return sorted(ledger.history.find("", limit=100), key=lambda row: row.id)


def only(ledger):
    (row,) = rows(ledger)
    return ledger.history.get(row.id)


def test_a_call_is_one_row_with_what_it_cost(simulator, ledger):
    with asking(simulator, ledger=ledger) as client:
        answer = client.ask("hello", user="ann", tags=["a", "b"], project="bees", session="s1", tenant="t")
    row = only(ledger)
    assert (row.state, row.operation, row.deployment, row.asked) == ("ok", "chat", MODEL, "gpt-5.4-mini")
    assert (row.user, set(row.tags), row.project, row.session, row.tenant) == ("ann", {"a", "b"}, "bees", "s1", "t")
    assert row.usage.input == answer.usage.input and row.usage.output == answer.usage.output
    assert row.cost == answer.cost.amount and answer.cost.source == "catalog" and row.cost > 0
    assert row.cost == (answer.usage.input * Decimal("0.75") + answer.usage.output * Decimal("4.5")) / 1_000_000
    assert row.finish_reason == "stop" and len(row.attempts) == 1 and row.attempts[0].outcome == "ok"
    assert "hello" in row.prompt and answer.text in row.answer and KEY not in row.prompt


def test_a_stream_is_one_row_with_the_time_of_its_first_words(simulator, ledger):
    with asking(simulator, ledger=ledger) as client:
        answer = client.stream("hello").finish()
    row = only(ledger)
    assert row.state == "ok" and row.stream and row.cost == answer.cost.amount > 0
    assert 0 < row.first_token <= row.duration


def test_an_embedding_is_a_row_of_its_own_kind(simulator, ledger):
    with asking(simulator, ledger=ledger) as client:
        found = client.embed("hello", model="openai/text-embedding-3-small", tags=["v"])
    row = only(ledger)
    assert (row.state, row.operation, row.tags) == ("ok", "embeddings", ("v",))
    assert row.cost == found.cost.amount > 0


def test_every_attempt_is_kept_and_one_that_was_refused_costs_nothing(ledger):
    with Simulator(plan=[{"kind": "status", "status": 500, "at": 1}]) as simulator:
        with asking(simulator, ledger=ledger, retries=1) as client:
            answer = client.ask("hello")
    row = only(ledger)
    first, second = row.attempts
    assert (row.state, first.outcome, first.status, first.cost) == ("ok", "server", 500, 0)
    assert row.cost == second.cost == answer.cost.amount > 0


def test_a_broken_stream_is_an_error_with_an_estimate_never_a_success(ledger):
    with Simulator(plan=[{"kind": "reset", "at": 1, "after": 300}]) as simulator:
        with asking(simulator, ledger=ledger, retries=0) as client, pytest.raises(StreamInterruptedError):
            client.stream("hello bees").finish()
    row = only(ledger)
    assert row.state == "error" and row.error_kind == "stream_interrupted"
    assert row.usage.source == "estimated" and row.usage.input > 0 and row.cost is not None


def test_a_stream_that_is_left_is_a_row_that_says_so_with_what_had_come(ledger):
    async def go(simulator):
        async with asking(simulator, AsyncClient, ledger=ledger) as client:
            async with client.stream("hello") as stream:
                async for _ in stream:
                    break

    with Simulator(plan=[{"kind": "stall", "at": 1, "after": 900}]) as simulator:
        asyncio.run(go(simulator))
    row = only(ledger)
    assert (row.state, row.attempts[0].outcome, row.usage.source) == ("cancelled", "cancelled", "estimated")
    assert row.usage.input > 0 and row.cost > 0


def test_a_call_whose_task_is_cancelled_is_a_row_too_and_nothing_stays_reserved(ledger):
    budgets = Budgets([Budget("1", window="day")])

    async def go(simulator):
        async with asking(simulator, AsyncClient, ledger=ledger, budgets=budgets, max_tokens=9) as client:
            task = asyncio.create_task(client.ask("hello"))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return await budgets.state()

    with Simulator(plan=[{"kind": "first_byte_timeout", "at": 1}]) as simulator:
        (state,) = asyncio.run(go(simulator))
    row = only(ledger)
    # Nobody knows whether the provider bills it: the most that it can have cost counts.
    assert row.state == "cancelled" and row.cost is None and state.reserved == 0 and state.spent > 0


class _Nothing(Unit):
    """Takes its turn behind what was handed over before."""

    in_order = True

    def apply(self, connection):
        return None


def test_a_hard_budget_refuses_before_anything_is_sent(simulator, ledger):
    budgets = Budgets([Budget("0.0000001", window="day")])
    with asking(simulator, ledger=ledger, budgets=budgets, max_tokens=50) as client:
        with pytest.raises(BudgetExceededError) as caught:
            client.ask("hello")
    assert caught.value.sent == "no" and simulator.counts.requests == 0 and rows(ledger) == []


def test_what_a_call_did_cost_is_settled_and_nothing_stays_reserved(simulator):
    budgets = Budgets([Budget("1", window="day")])
    with asking(simulator, budgets=budgets, max_tokens=50) as client:
        answer = client.ask("hello")
        (state,) = asyncio.run(budgets.state())
    assert state.spent == answer.cost.amount and state.reserved == 0


def test_a_failed_call_gives_its_reservation_back(simulator):
    budgets = Budgets([Budget("1", window="day")])
    with asking(simulator, budgets=budgets, max_tokens=50, retries=0) as client:
        with pytest.raises(PolyvoxError):
            client.ask("hello", headers={"authorization": "Bearer wrong"}, extra_body={"temperature": "hot"})
        (state,) = asyncio.run(budgets.state())
    assert (state.spent, state.reserved) == (0, 0)


def test_an_equal_question_is_answered_from_the_cache_and_costs_nothing(simulator, ledger):
    with asking(simulator, ledger=ledger, cache=True) as client:
        first = client.ask("hello")
        again = client.ask("hello")
        streamed = client.stream("hello")
        assert "".join(streamed) == first.text == again.text
        anew = client.ask("hello", cached=False)
    assert simulator.counts.requests == 2 and again.cost.amount == 0 and anew.cost.amount == first.cost.amount
    with pytest.raises(InputError):
        asking(simulator, cache=5)


def test_a_hit_is_a_row_that_says_what_it_saved(simulator, ledger):
    with asking(simulator, ledger=ledger, cache=True) as client:
        first = client.ask("hello")
        client.ask("hello")
        assert client.stream("hello").finish().cost.amount == 0
    made, given, streamed = rows(ledger)
    assert (made.own_cache, given.own_cache, streamed.own_cache) == (False, True, True)
    assert given.cost == streamed.cost == 0 and given.saved == streamed.saved == first.cost.amount
