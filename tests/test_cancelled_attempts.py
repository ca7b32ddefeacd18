"""An attempt that its caller left says how much of the request had left this machine: nothing where the transport never
began to write, all of it once an answer began, and else that nobody knows."""

import asyncio
import contextlib

import pytest

from polyvox import AsyncClient
from polyvox.budgets import Budget, Budgets
from polyvox.ledger import Ledger
from polyvox.testing import Simulator
from polyvox.transports.http import HttpTransport
from tests.test_books import asking, only


class Ends:
    """A hook that keeps how each call ended."""

    def __init__(self):
        self.attempts = []

    def on_done(self, info):
        """Keep the attempts of what failed."""
        self.attempts.append([] if info.error is None else [(one.outcome, one.sent) for one in info.error.attempts])


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


async def left(work, when):
    """Run it, cancel it once this is so."""
    task = asyncio.create_task(work)
    while not when():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def whole(client):
    await client.ask("hello", user="ann")


async def streamed(client):
    async with client.stream("hello", user="ann") as stream:
        await stream.finish()


@pytest.mark.parametrize("work", [whole, streamed])
def test_one_that_waited_for_a_connection_was_not_sent_and_counts_nowhere(ledger, work):
    hook, budgets = Ends(), Budgets([Budget("1", each="user")])

    async def go(simulator):
        transport = HttpTransport(pool_size=1)
        facts = {"transport": transport, "max_tokens": 9, "hooks": [hook]}
        async with (
            asking(simulator, AsyncClient, **facts) as first,
            asking(simulator, AsyncClient, ledger=ledger, budgets=budgets, **facts) as second,
        ):
            holds = asyncio.create_task(first.ask("hold the only connection"))
            while not simulator.requests:
                await asyncio.sleep(0.01)
            await left(work(second), lambda: ledger.health().backlog == 0 and ledger.database.health().written)
            holds.cancel()
            await asyncio.gather(holds, return_exceptions=True)
        return await budgets.state()

    with Simulator(plan=[{"kind": "first_byte_timeout", "at": 1}]) as simulator:
        states = asyncio.run(go(simulator))
        assert len(simulator.requests) == 1
    (attempt,) = only(ledger).attempts
    assert (attempt.outcome, attempt.sent) == ("cancelled", "no") and only(ledger).cost in (None, 0)
    assert [(state.spent, state.reserved) for state in states] in ([], [(0, 0)])
    assert [("cancelled", "no")] in hook.attempts


@pytest.mark.parametrize("work", [whole, streamed])
def test_one_that_waited_for_an_answer_may_have_been_sent_and_counts(ledger, work):
    budgets = Budgets([Budget("1")])

    async def go(simulator):
        async with asking(simulator, AsyncClient, ledger=ledger, budgets=budgets, max_tokens=9) as client:
            await left(work(client), lambda: simulator.requests)
        return await budgets.state()

    with Simulator(plan=[{"kind": "first_byte_timeout", "at": 1}]) as simulator:
        (state,) = asyncio.run(go(simulator))
    (attempt,) = only(ledger).attempts
    assert (attempt.outcome, attempt.sent) == ("cancelled", "unknown")
    assert state.reserved == 0 and state.spent > 0


def test_one_whose_answer_had_begun_was_sent(ledger):
    async def go(simulator):
        async with asking(simulator, AsyncClient, ledger=ledger) as client:
            seen = []

            async def read():
                async with client.stream("hello") as stream:
                    async for event in stream:
                        seen.append(event)

            await left(read(), lambda: seen)

    with Simulator(plan=[{"kind": "stall", "at": 1, "after": 900}]) as simulator:
        asyncio.run(go(simulator))
    (attempt,) = only(ledger).attempts
    assert (attempt.outcome, attempt.sent) == ("cancelled", "yes")


@pytest.mark.parametrize("work", [whole, streamed])
def test_the_wait_for_a_next_try_is_no_attempt(work):
    hook = Ends()

    async def go(simulator):
        async with asking(simulator, AsyncClient, hooks=[hook], retries=3) as client:
            await left(work(client), lambda: simulator.requests)

    with Simulator(plan=[{"kind": "status", "at": 1, "status": 503, "headers": {"retry-after": "30"}}]) as simulator:
        asyncio.run(go(simulator))
        assert len(simulator.requests) == 1
    (attempts,) = hook.attempts
    assert attempts == [("server", "yes")]
