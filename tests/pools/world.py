"""Pools over scripted deployments under virtual time: who is asked, when, and what is still held afterwards."""

import asyncio

from polyvox.dialects import Endpoint, dialect
from polyvox.engine import CallOptions, Deployment, Engine, Who
from polyvox.errors import PolyvoxError
from polyvox.limits import NO_LIMITS, MemoryLeases
from polyvox.pools import Made, Pools
from polyvox.registry import DictRegistry
from polyvox.routing import RetryRule
from polyvox.routing.needs import NOTHING_KNOWN
from polyvox.testing.virtual import Virtual
from polyvox.transports import Timeouts
from polyvox.types import Message, Request, Text
from tests.scripted import Scripted

REQUEST = Request("m", (Message("user", (Text("hi"),)),))


class Slow:
    """An answer that takes so many seconds to begin."""

    def __init__(self, seconds, answer):
        self.seconds, self.answer = seconds, answer


class Place(Scripted):
    """A transport that gives its answers in order, and then what `then` makes; when each was asked for."""

    def __init__(self, *answers, then=None):
        super().__init__(*answers)
        self.then = then
        self.asked_at = []

    async def send(self, outgoing, timeouts):
        self.asked_at.append(asyncio.get_running_loop().time())
        if not self.answers and self.then is not None:
            self.answers.append(self.then())
        if isinstance(self.answers[0], Slow):
            slow = self.answers.pop(0)
            self.sent.append(outgoing)
            await asyncio.sleep(slow.seconds)
            if isinstance(slow.answer, BaseException):
                raise slow.answer
            self.given.append(slow.answer)
            return slow.answer
        return await super().send(outgoing, timeouts)


class Later(MemoryLeases):
    """Leases that are counted elsewhere: to take one takes a moment."""

    waits = True

    async def take(self, key, limits=NO_LIMITS, tokens=0):
        await asyncio.sleep(0.2)
        return super().take(key, limits, tokens)


class World:
    """Deployments by name, the first asked first. entries has what is said of each beside its model, abilities what it
    is able to; who is in `closed` cannot be made."""

    def __init__(
        self,
        virtual,
        routing=None,
        entries=None,
        abilities=None,
        retries=2,
        leases=None,
        chance=0.5,
        books=None,
        money=None,
        hooks=(),
        **places,
    ):
        self.virtual = virtual
        self.places = places
        self.abilities = abilities or {}
        self.money = money
        self.closed = {}
        self.made = []
        rows = {
            name: {"model": f"x/{name}", "priority": place, **(entries or {}).get(name, {})}
            for place, name in enumerate(places)
        }
        self.registry = DictRegistry(rows)
        rule = RetryRule(retries)
        self.pools = Pools(
            self.registry,
            self.make,
            routing,
            rule=lambda: rule,
            leases=leases,
            clock=virtual.clock,
            chance=lambda: chance,
        )
        self.engine = Engine(
            rule=rule, chance=lambda: chance, random_bytes=virtual.random_bytes, books=books, hooks=hooks
        )

    def make(self, entry):
        if entry.name in self.closed:
            raise self.closed[entry.name]
        self.made.append(entry.name)
        made = Deployment(
            "test",
            entry.model,
            dialect=dialect("openai.chat"),
            endpoint=Endpoint("http://localhost/v1", entry.name),
            headers={},
            transport=self.places[entry.name],
            timeouts=Timeouts(),
            money=self.money,
        )
        made.name = entry.name
        return Made(made, self.abilities.get(entry.name, NOTHING_KNOWN), None)

    @property
    def now(self):
        return self.virtual.now()

    def member(self, name):
        return next(member for member in self.pools.members() if member.name == name)

    async def ask(self, named="*", *, timeout=None, request=REQUEST, tenant=None):
        return await self.engine.call(request, self.pools.named(named), options(timeout, tenant))

    def stream(self, named="*", *, timeout=None, request=REQUEST, tenant=None):
        return self.engine.stream(request, self.pools.named(named), options(timeout, tenant))

    def begin(self, *args, **facts):
        """A call in a task of its own."""
        return asyncio.create_task(self.ask(*args, **facts))

    def held(self):
        """All that is still held of anybody's."""
        found = {}
        for member in self.pools.members():
            used = self.pools.shared.leases.used(member.name)
            if used.in_flight or member.standing.in_flight:
                found[member.name] = (used.in_flight, member.standing.in_flight)
        for pool in self.pools._pools.values():
            if waiting := sum(map(len, getattr(pool, "_queues", {}).values())):
                found[pool.name] = f"{waiting} wait"
        if self.pools.shared.leases.watchers:
            found["watchers"] = len(self.pools.shared.leases.watchers)
        return found


def asked(route, request=REQUEST):
    """What the engine is told of a call to a route."""
    return request, route, options()


def options(timeout=None, tenant=None):
    return CallOptions(timeout=timeout, who=Who(tenant=tenant))


async def failing(work):
    """The error that a call ends with."""
    try:
        response = await work
    except PolyvoxError as error:
        return error
    raise AssertionError(f"it was answered: {response}")


def went(told):
    """Who was asked and what came of it, of an answer or an error."""
    return [(attempt.deployment, attempt.outcome) for attempt in told.attempts]


def under_time(test):
    """A test that is a coroutine function of the virtual run, and takes no time."""

    def run():
        Virtual(test.__name__).run(test)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run
