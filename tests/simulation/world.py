"""A world made from a seed: deployments with their manners, callers who come, wait and go away, budgets and hooks, and
the real engine between them. What it did is held against `tests.simulation.invariants`.

What makes a call is one function, `World.make`: whoever puts something before the engine puts another there.
"""

import asyncio
import gc
import logging
from contextlib import contextmanager
from decimal import Decimal

from msgspec import UNSET

from polyvox.books import Books
from polyvox.budgets import Budget, Budgets
from polyvox.engine import CallOptions, Engine, Who
from polyvox.errors import PolyvoxError
from polyvox.routing import RetryRule
from polyvox.testing import weather as w
from polyvox.testing.simulated import Manner, SimulatedDeployment
from polyvox.testing.virtual import Virtual
from polyvox.types import Message, Request, Text, TextDelta
from tests.simulation.watching import Counting, Failing, SlowStore, WatchedBooks

LATENCIES = (
    w.Constant(0.5),
    w.LogNormal(0.6, 0.6),
    w.HeavyTail(0.2, 1.1),
    w.SlowFirst(w.LogNormal(0.3), w.Constant(45.0), 0.3),
    w.UnderLoad(w.LogNormal(0.4), 4),
)
WEATHERS = (
    w.Weather(),
    w.Weather(w.SHAKY),
    w.Weather(w.Conditions(errors=(("server", 0.3), ("asks_to_wait", 0.2), ("reset", 0.1), ("conflict", 0.1)))),
    w.Weather(w.Conditions(errors=(("connect_timeout", 0.3), ("first_byte_timeout", 0.2), ("bad_response", 0.3)))),
    w.Weather(w.Conditions(errors=(("auth", 0.3), ("content_policy", 0.2), ("billing", 0.1), ("stop_trying", 0.2)))),
    w.Weather(w.Conditions(troubles=tuple((trouble, 0.18) for trouble in w.TROUBLES))),
    w.Weather(w.Conditions(per_second=0.5, burst=2)),
    w.Weather(w.Conditions(per_second=1.0, burst=1, tells=False)),
    w.Weather(w.HEALTHY, (w.Spell(2.0, 20.0, w.BROWN_OUT),)),
    w.outage(3.0, 15.0),
    w.flapping(4.0, 4.0),
)
PRICES = (Decimal("0.000003"), Decimal("0.000015"))
SEED_OF_REQUESTS = 7
LINGERS = 100.0
"""Seconds that a caller stays after a call: more than any time limit, so that a late one is seen."""


class Wanted:
    """A call that somebody will make. leaves says how they go before its end: "cancel" or "limit" (a time limit of
    asyncio's around it) after so many seconds, "close" or "drop" after so many pieces. again is how many seconds after
    it the cancellation comes once more.

    Many times are the same few numbers, so that several things happen at one moment.
    """

    def __init__(self, number, draw, deployments):
        self.caller = f"caller {number}"
        self.at = draw.randrange(deployments)
        self.arrives = 0.0
        self.reads = draw.random() < 0.6
        self.pause = draw.choice((0.0, 0.0, 0.0, 0.5, 5.0))
        self.leaves, self.after, self.again = None, 0.0, None
        if draw.random() < 0.3:
            self.leaves = draw.choice(("cancel", "limit", "close", "drop") if self.reads else ("cancel", "limit"))
            self.after = draw.choice((0.0, 0.5, 1.0, 10.0, draw.expovariate(0.5)))
            self.again = draw.choice((None, None, 0.0, 0.01))
        self.pieces = draw.randrange(1, 5)
        words = "word " * draw.randrange(1, 40)
        messages = [Message("user", (Text(words),))]
        if draw.random() < 0.1:
            messages.append(Message("assistant", (Text("So:"),)))
        limit = draw.randrange(1, 80) if draw.random() < 0.2 else UNSET
        seed = SEED_OF_REQUESTS if draw.random() < 0.1 else UNSET
        self.request = Request("m", tuple(messages), max_tokens=limit, seed=seed)
        timeout = draw.choice((None, None, 0.5, 2.0, 10.0, 60.0))
        who = Who(user=f"user {number % 3}", session=self.caller)
        self.options = CallOptions(timeout=timeout, strict=draw.random() < 0.5, who=who)


class Told:
    """What a caller saw of a call, and how it ended: "ok", "error", "cancelled", "left" or "defect". asked is when the
    engine was last asked for more, which is when the last wait for it began. cancelled is when somebody first cancelled
    it, cancelling how often its task still believed to be cancelled when it was over, and later what else befell that.
    """

    def __init__(self, wanted):
        self.wanted = wanted
        self.began = self.asked = self.over = None
        self.shown = ""
        self.events = []
        self.ends = []
        self.cancelled = self.later = None
        self.cancelling = 0
        self.response = self.error = None


class Left(Exception):
    """The caller went away by themselves."""


async def by_engine(world, told):
    """Make a call: give its response or raise."""
    wanted = told.wanted
    asked = world.asked(wanted)
    if wanted.reads:
        return await read(world, told, world.engine.stream(wanted.request, asked, wanted.options))
    return await world.engine.call(wanted.request, asked, wanted.options)


async def read(world, told, run):
    """Read a stream as its caller wants to."""
    wanted, pieces = told.wanted, 0
    try:
        while True:
            told.asked = world.virtual.now()
            events = await run.batch()
            if not events:
                return run.response
            told.events += [type(event) for event in events]
            told.shown += "".join([event.text for event in events if type(event) is TextDelta])
            pieces += 1
            if wanted.leaves in ("close", "drop") and pieces >= wanted.pieces:
                raise Left
            if wanted.pause:
                await world.virtual.sleep(wanted.pause)
    finally:
        if wanted.leaves != "drop":
            await run.close()
        del run


class World:
    """See the module. Its parts can be replaced in a subclass, one by one."""

    make = staticmethod(by_engine)
    deployment_type = SimulatedDeployment
    rule_type = RetryRule
    books_type = WatchedBooks
    retry_capacity = 500
    """Tokens of a deployment's retry budget."""
    continues = False
    """Whether an answer that breaks off after content may go on at another deployment."""
    hedges = False
    """Whether two deployments may be asked at once."""
    rules = ()
    """What must hold of each of its calls beside `invariants.OF_A_CALL`."""
    rules_of_all = ()
    """What must hold of it beside `invariants.OF_A_WORLD`."""

    def __init__(self, seed, *, keep=False):
        self.seed = seed
        self.virtual = Virtual(seed, keep=keep)
        draw = self.virtual.draw("world")
        self.rule = self.rule_type(retries=draw.choice((0, 1, 2, 2, 4)), cap=draw.choice((2.0, 20.0)))
        self.deployments = [
            self.deployment_type(f"d{number}", self.virtual, self._manner(draw))
            for number in range(self._how_many(draw))
        ]
        self.budgets = self._budgets(draw)
        self.books = None
        if self.budgets is not None or draw.random() < 0.5:
            inner = Books(None, self.budgets) if self.budgets is not None else None
            self.books = self.books_type(self.virtual, inner, draw.choice((0.0, 0.02)))
        self.counting = Counting() if draw.random() < 0.5 else None
        hooks = [self.counting] if self.counting is not None else []
        if draw.random() < 0.4:
            hooks.insert(0, Failing(self.virtual.draw("hooks"), draw.choice((0.1, 1.0))))
        self.hooks = hooks
        self.engine = self.made_engine()
        self.told = [Told(wanted) for wanted in self._wanted(draw)]
        self.states = []
        self._served = None
        self.left_over = []

    def asked(self, wanted):
        """What is asked: a deployment, or what stands where one does."""
        return self.deployments[wanted.at]

    def still(self):
        """What is still held when all is over, as lines."""
        return []

    # ---- how it is made -----------------------------------------------------------------------

    def made_engine(self):
        """An engine with all that it takes from this world."""
        virtual = self.virtual
        return Engine(
            rule=self.rule, hooks=self.hooks, books=self.books,
            sleep=virtual.sleep, chance=virtual.chance, random_bytes=virtual.random_bytes,
        )  # fmt: skip

    def _how_many(self, draw):
        return draw.randrange(1, 5)

    def _manner(self, draw):
        return Manner(
            first=draw.choice(LATENCIES),
            per_second=draw.choice((10.0, 50.0, 200.0)),
            weather=draw.choice(WEATHERS),
            answer=(1, draw.choice((5, 60))),
            chunk=draw.choice((1, 8, 100)),
            context=draw.choice((None, None, 80)),
            takes_prefill=draw.random() < 0.8,
            only_streams=draw.random() < 0.1,
            loses=draw.random() < 0.2,
            silent=draw.choice((0.0, 0.0, 0.5)),
            prices=PRICES if draw.random() < 0.8 else None,
            idle=draw.choice((5.0, 60.0)),
        )

    def _budgets(self, draw):
        if draw.random() < 0.5:
            return None
        limit = draw.choice(("0.002", "1", "1"))
        unknown = draw.choice(("allow", "allow", "allow", "refuse"))
        rules = [Budget(limit, unknown=unknown, warn_at=())]
        if draw.random() < 0.5:
            rules.append(Budget("0.005", window="60s", each="user", unknown=unknown, warn_at=()))
        store = SlowStore(self.virtual, draw.choice((0.0, 0.02)))
        return Budgets(rules, store, wall=self.virtual.wall)

    def _wanted(self, draw):
        """Callers one by one, as Poisson has them come, or many at once."""
        now, found = 0.0, []
        bursts = draw.random() < 0.4
        for number in range(1, draw.randrange(8, 50)):
            wanted = Wanted(number, draw, len(self.deployments))
            if not bursts or draw.random() < 0.15:
                now += draw.expovariate(1.0)
            wanted.arrives = now
            found.append(wanted)
        return found

    # ---- how it goes --------------------------------------------------------------------------

    def run(self):
        """Let it go on to its end. HangError where a call has none."""
        with quiet():
            self.virtual.run(self._main)
        return self

    async def _main(self, virtual):
        loop = asyncio.get_running_loop()
        callers = [loop.create_task(self._caller(told), name=told.wanted.caller) for told in self.told]
        await asyncio.wait(callers)
        gc.collect()  # what was dropped must have told the books
        if self.books is not None and self.books.inner is not None:
            await self.books.inner.settled()
        self.left_over = sorted(task.get_name() for task in asyncio.all_tasks(loop) - {asyncio.current_task()})
        self.left_over += [*loop.unhandled, *self.still()]
        if self.budgets is not None:
            self.states = await self.budgets.state()

    async def _caller(self, told):
        await self.virtual.sleep(told.wanted.arrives)
        told.began = told.asked = self.virtual.now()
        cancels = self._cancels(told)
        limit = told.wanted.after if told.wanted.leaves == "limit" else None
        try:
            async with asyncio.timeout(limit):
                told.response = await self.make(self, told)
            self._ended(told, "ok")
        except TimeoutError:
            self._ended(told, "cancelled")
        except PolyvoxError as error:
            told.error = error
            self._ended(told, "error", f" {error.kind}")
        except asyncio.CancelledError:
            self._ended(told, "cancelled")
        except Left:
            self._ended(told, "left")
        except Exception as error:
            told.error = error
            self._ended(told, "defect", f" {error!r}")
        for cancel in cancels:
            cancel.cancel()
        told.cancelling = asyncio.current_task().cancelling()
        try:
            await self.virtual.sleep(LINGERS)
        except BaseException as error:
            told.later = repr(error)

    def _cancels(self, told):
        """The timers that cancel the running task, as its caller wants."""
        wanted, task, loop = told.wanted, asyncio.current_task(), asyncio.get_running_loop()

        def cancel():
            told.cancelled = self.virtual.now() if told.cancelled is None else told.cancelled
            task.cancel()

        if wanted.leaves != "cancel":
            return []
        times = [wanted.after] if wanted.again is None else [wanted.after, wanted.after + wanted.again]
        return [loop.call_later(seconds, cancel) for seconds in times]

    def _ended(self, told, how, more=""):
        told.over = self.virtual.now()
        told.ends.append(how)
        self.virtual.trace.note(f"{told.wanted.caller} ends: {how}{more}")

    # ---- what is known of it ------------------------------------------------------------------

    def turn(self, served):
        """What attempts are sorted by."""
        return served.begun, served.name, served.number

    def served(self, caller):
        """All attempts that deployments had of a caller, in the order they began."""
        if self._served is None:
            self._served = {}
            for served in sorted(
                (served for deployment in self.deployments for served in deployment.served), key=self.turn
            ):
                self._served.setdefault(served.caller, []).append(served)
        return self._served.get(caller, [])


class Outage(World):
    """Many calls of patient callers while nothing works, and some after it."""

    def __init__(self, seed, *, keep=False):
        super().__init__(seed, keep=keep)
        self.rule = self.rule_type()
        self.engine = self.made_engine()

    def _manner(self, draw):
        return Manner(weather=w.outage(5.0, 60.0))

    def _budgets(self, draw):
        return None

    def _wanted(self, draw):
        found = [Wanted(number, draw, len(self.deployments)) for number in range(1, 400)]
        for wanted in found:
            wanted.arrives, wanted.leaves = draw.random() * 80.0, None
            wanted.options = CallOptions(who=wanted.options.who)
        return found


class Crowd(World):
    """Thousands of calls at hundreds of deployments."""

    deployments_many, calls_many = 300, 5_000

    def _how_many(self, draw):
        return self.deployments_many

    def _wanted(self, draw):
        found = [Wanted(number, draw, len(self.deployments)) for number in range(1, self.calls_many + 1)]
        for wanted in found:
            wanted.arrives = draw.random() * 300.0
        return found


@contextmanager
def quiet():
    """Without the warnings of failed attempts and hooks, which are what a world is made of."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
