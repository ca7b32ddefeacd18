"""A test of the test: worlds in which one rule is broken on purpose are found out, and by the right invariant."""

import asyncio
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from polyvox.errors import StreamInterruptedError
from polyvox.routing import RetryRule
from polyvox.testing.simulated import SimulatedDeployment, SimulatedMoney, SimulatedReader
from polyvox.testing.virtual import HangError
from polyvox.types import Cost, Ended
from tests.simulation.invariants import broken
from tests.simulation.watching import WatchedAccount, WatchedBooks
from tests.simulation.world import Outage, World, by_engine

SEEDS = range(80)


class AsksWhateverHappened(RetryRule, frozen=True):
    def wait(self, error, tries, chance, left):
        return 0.1 if tries <= self.retries else None


class AsksTooOften(RetryRule, frozen=True):
    def wait(self, error, tries, chance, left):
        return super().wait(error, max(1, tries - 2), chance, left)


class IgnoresWishes(RetryRule, frozen=True):
    def wait(self, error, tries, chance, left):
        wait = super().wait(error, tries, chance, left)
        return None if wait is None else 0.0


class TrustsEveryEnd(SimulatedReader):
    def close(self):
        return [] if self.done else [Ended("stop", "stop")]


class WithTrust(SimulatedDeployment):
    def reader(self):
        return TrustsEveryEnd()


class Holds(SimulatedDeployment):
    """Its answers are held by somebody, and to be closed means nothing to them."""

    async def open(self, outgoing):
        pieces, reader = await super().open(outgoing)
        self.held = [*getattr(self, "held", ()), pieces]
        return KeptOpen(pieces), reader


class KeptOpen:
    def __init__(self, pieces):
        self.headers, self.chunk = pieces.headers, pieces.chunk

    async def close(self):
        pass


class SettlesNothing(WatchedAccount):
    async def attempted(self, ticket, attempt, spent, at):
        self.row.told.append((attempt, spent))


class ForgetsWhoLeft(WatchedAccount):
    def left(self, *what):
        pass


class WithBooks(WatchedBooks):
    account_type = SettlesNothing


class WithForgetfulBooks(WatchedBooks):
    account_type = ForgetsWhoLeft


class Underrates(SimulatedMoney):
    def most(self, request, bytes_out):
        return super().most(request, bytes_out) / 50


class Dear(SimulatedDeployment):
    def __init__(self, *made):
        super().__init__(*made)
        if self.money is not None:
            self.money = Underrates(self.manner.prices, self.manner.answer[1])


class Flatters(SimulatedDeployment):
    def __init__(self, *made):
        super().__init__(*made)
        if self.money is not None:
            self.money = Unsteady(self.manner.prices, self.manner.answer[1])


class Unsteady(SimulatedMoney):
    def bill(self, request, answer):
        return Cost() if request is None else super().bill(request, answer)


async def begins_anew_after_content(world, told):
    try:
        return await by_engine(world, told)
    except StreamInterruptedError:
        return await by_engine(world, told)


async def without_deadline(world, told):
    options = told.wanted.options
    told.wanted.options = replace(options, timeout=None)
    try:
        return await by_engine(world, told)
    finally:
        told.wanted.options = options


async def swallows_cancellation(world, told):
    try:
        return await by_engine(world, told)
    except asyncio.CancelledError as error:
        raise RuntimeError("lost") from error


async def cancels_itself(world, told):
    if told.wanted.caller == "caller 3":
        raise asyncio.CancelledError
    return await by_engine(world, told)


async def goes_on_by_itself(world, told):
    """Whoever waits goes away at once, and the call does not."""
    call = asyncio.get_running_loop().create_task(by_engine(world, told))
    world.kept = [*getattr(world, "kept", ()), call]
    return await asyncio.shield(call)


async def leaves_a_task(world, told):
    asyncio.get_running_loop().create_task(asyncio.Event().wait())
    return await by_engine(world, told)


BROKEN = {
    "a call that ends with no error of ours": ("I1", {"make": staticmethod(swallows_cancellation)}),
    "a call that is cancelled by nobody": ("I1", {"make": staticmethod(cancels_itself)}),
    "a row that is never final": ("I2", {"books_type": WithForgetfulBooks}),
    "a reader that takes every end for the end": ("I3", {"deployment_type": WithTrust}),
    "a stream that begins anew after content": ("I4", {"make": staticmethod(begins_anew_after_content)}),
    "a call without its deadline": ("I5", {"make": staticmethod(without_deadline)}),
    "a rule that repeats what cannot be mended": ("I6", {"rule_type": AsksWhateverHappened}),
    "a rule that repeats too often": ("I6", {"rule_type": AsksTooOften}),
    "a rule that waits for no wish": ("I6", {"rule_type": IgnoresWishes}),
    "a reservation that is never settled": ("I7", {"books_type": WithBooks}),
    "an answer that is never closed": ("I7", {"deployment_type": Holds}),
    "a task that nobody waits for": ("I7", {"make": staticmethod(leaves_a_task)}),
    "a call that goes on without its caller": ("I14", {"make": staticmethod(goes_on_by_itself)}),
    "a bound that is too low": ("I11", {"deployment_type": Dear}),
    "a cost that is another": ("I11", {"deployment_type": Flatters}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_found_out(name):
    number, parts = BROKEN[name]
    made = type("Broken", (World,), parts)
    assert any(line.startswith(f"{number}: ") for seed in SEEDS for line in broken(made(seed).run()))


async def with_an_engine_of_its_own(world, told):
    """No engine knows what the others have taken of the retry budget."""
    parts = SimpleNamespace(virtual=world.virtual, asked=world.asked, engine=world.made_engine())
    return await by_engine(parts, told)


def test_retries_beyond_their_budget_are_found_out():
    made = type("Broken", (Outage,), {"make": staticmethod(with_an_engine_of_its_own)})
    found = broken(made(1).run())
    assert found
    assert all(line.startswith("I6: ") and line.endswith("no retry was left") for line in found)


async def waits_for_ever(world, told):
    if told.wanted.caller == "caller 3":
        await asyncio.Event().wait()
    return await by_engine(world, told)


def test_a_call_that_never_ends_is_found_out_by_name():
    made = type("Broken", (World,), {"make": staticmethod(waits_for_ever)})
    seed = next(seed for seed in SEEDS if World(seed).told[2].wanted.leaves is None)
    with pytest.raises(HangError, match=r"caller 3 waits at locks\.py:\d+ in Event\.wait"):
        made(seed).run()
