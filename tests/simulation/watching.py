"""Whoever listens to a call in a simulated world: books that write down what they are told before they do what real
ones do, budgets whose store takes its time, hooks that count, and hooks that fail."""

from itertools import count

from polyvox.budgets import MemoryStore
from polyvox.pools.pool import Pool
from polyvox.testing.simulated import SimulatedDeployment


class Row:
    """What the books were told of one call. finals are the ways in which it was said to be over."""

    def __init__(self, caller):
        self.caller = caller
        self.admitted = 0
        self.told = []
        self.finals = []


class WatchedAccount:
    """See `engine.contract.Account`. Real budgets stand behind it where the world has some."""

    def __init__(self, books, facts, row):
        self.books, self.row = books, row
        self.inner = books.inner.account(facts) if books.inner is not None else None

    @property
    def counts(self):
        return self.inner is not None and self.inner.counts

    async def admit(self, at_most, at):
        await self.books.delay()
        ticket = None if self.inner is None else await self.inner.admit(at_most, at)
        self.row.admitted += 1
        return ticket

    async def attempted(self, ticket, attempt, spent, at):
        self._told(attempt, spent)
        if self.inner is not None:
            await self.inner.attempted(ticket, attempt, spent, at)
        await self.books.delay()

    def dropped(self, ticket, attempt, spent, at):
        self._told(attempt, spent)
        if self.inner is not None:
            self.inner.dropped(ticket, attempt, spent, at)

    def _told(self, attempt, spent):
        self.row.told.append((attempt, spent))
        self.books.note(f"{self.row.caller}: attempt {len(self.row.told)} is {attempt.outcome}")

    async def close(self, state, seconds, answer=None, error=None, first_token=None):
        self.row.finals.append(state)
        self.books.note(f"{self.row.caller}: the row says {state} after {seconds!r} s")
        if self.inner is not None:
            await self.inner.close(state, seconds, answer, error, first_token)
        await self.books.delay()

    def left(self, seconds, first_token):
        self.row.finals.append("left")
        self.books.note(f"{self.row.caller}: the row says left after {seconds!r} s")
        if self.inner is not None:
            self.inner.left(seconds, first_token)


class WatchedBooks:
    """See `engine.Books`. inner are real books, or None."""

    account_type = WatchedAccount

    def __init__(self, virtual, inner, slowest):
        self.inner = inner
        self.rows = []
        self.note = virtual.trace.note
        self._sleep, self._draw, self._slowest = virtual.sleep, virtual.draw("books"), slowest

    def account(self, facts):
        self.rows.append(Row(facts.who.session))
        return self.account_type(self, facts, self.rows[-1])

    async def delay(self):
        if self._slowest:
            await self._sleep(self._draw.random() * self._slowest)


class SlowStore(MemoryStore):
    """Counts in memory, and takes up to so many seconds before and after, as one that is away does."""

    def __init__(self, virtual, slowest):
        super().__init__(clock=virtual.clock)
        self._sleep, self._draw, self._slowest = virtual.sleep, virtual.draw("store"), slowest

    async def _delay(self):
        if self._slowest:
            await self._sleep(self._draw.random() * self._slowest)

    async def reserve(self, order):
        await self._delay()
        answer = await super().reserve(order)
        try:
            await self._delay()
        except BaseException:
            await super().refund(order)  # whoever did not hear that it was granted cannot give it back
            raise
        return answer

    async def settle(self, order, actual):
        await self._delay()
        settled = await super().settle(order, actual)
        await self._delay()
        return settled

    async def refund(self, order):
        await self._delay()
        settled = await super().refund(order)
        await self._delay()
        return settled


class Counting:
    """Hooks that count what they hear of each caller."""

    def __init__(self):
        self.calls, self.attempts, self.done = {}, {}, {}

    def on_call(self, info):
        self.calls[info.session] = self.calls.get(info.session, 0) + 1

    def on_attempt(self, info):
        self.attempts[info.session] = self.attempts.get(info.session, 0) + 1

    def on_done(self, info):
        self.done.setdefault(info.session, []).append("ok" if info.error is None else info.error.kind)


class Failing:
    """Hooks that fail now and then, at every moment there is."""

    def __init__(self, draw, share):
        self._draw, self._share = draw, share

    def _may_fail(self, told):
        if self._draw.random() < self._share:
            raise ValueError("a hook that fails")

    on_call = on_attempt = on_event = on_done = _may_fail


class NotingDeployment(SimulatedDeployment):
    """Remembers of each attempt, in the order of `served`, what it was asked and its turn among all attempts
    anywhere."""

    turns = count()

    def __init__(self, *made):
        super().__init__(*made)
        self.noted = []

    def _begin(self, outgoing):
        self.noted.append((outgoing.request, next(self.turns)))
        return super()._begin(outgoing)


class WatchedPool(Pool):
    """Remembers the fewest members that it ever left in."""

    fewest = None

    def look(self):
        super().look()
        left = len(self.members) - len(self.out)
        self.fewest = left if self.fewest is None else min(self.fewest, left)
