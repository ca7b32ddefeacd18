"""How fast calls are simulated: the engine under virtual time against deployments that fail and stall as real ones do,
beside the same deployments asked without an engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from random import Random

from benchmarks.figures import Figure, Size
from polyvox.engine import CallOptions, Engine, Who
from polyvox.errors import PolyvoxError
from polyvox.testing.simulated import Manner, SimulatedDeployment
from polyvox.testing.virtual import Virtual
from polyvox.testing.weather import HEALTHY, SHAKY, LogNormal, SlowFirst, UnderLoad, Weather, flapping, outage
from polyvox.types import Message, Request, Text

DEPLOYMENTS = 1_000
PER_SECOND = 500.0
"""Calls that arrive in a virtual second."""
MOST = 600.0
"""Microseconds a call: 100,000 of them in a minute."""
REQUEST = Request("m", (Message("user", (Text("Hello, how are you?"),)),))
WEATHERS = (Weather(HEALTHY), Weather(HEALTHY), Weather(SHAKY), outage(20.0, 30.0), flapping(20.0, 5.0))
FIRST = (LogNormal(), UnderLoad(), SlowFirst())

Ask = Callable[[SimulatedDeployment, int], Awaitable[object]]


def simulated(calls: int, asking: Callable[[Virtual], Ask]) -> float:
    """CPU microseconds a call, for so many calls that arrive by chance, each at a deployment of its own choice."""

    async def main(virtual: Virtual) -> None:
        draw, ask = virtual.draw("benchmark"), asking(virtual)
        deployments = [_deployment(number, virtual) for number in range(DEPLOYMENTS)]
        await asyncio.gather(*[_caller(virtual, deployments, ask, draw, number, calls) for number in range(calls)])

    before = time.process_time()
    Virtual(calls).run(main)
    return (time.process_time() - before) / calls * 1e6


def _deployment(number: int, virtual: Virtual) -> SimulatedDeployment:
    manner = Manner(first=FIRST[number % len(FIRST)], weather=WEATHERS[number % len(WEATHERS)])
    return SimulatedDeployment(f"d{number}", virtual, manner)


async def _caller(
    virtual: Virtual, deployments: list[SimulatedDeployment], ask: Ask, draw: Random, number: int, calls: int
) -> None:
    deployment, arrives = draw.choice(deployments), draw.random() * calls / PER_SECOND
    await virtual.sleep(arrives)
    with contextlib.suppress(PolyvoxError):
        await ask(deployment, number)


def with_engine(virtual: Virtual) -> Ask:
    """The engine asks; half of the calls stream."""
    engine = Engine(sleep=virtual.sleep, chance=virtual.chance, random_bytes=virtual.random_bytes)

    def ask(deployment: SimulatedDeployment, number: int) -> Awaitable[object]:
        options = CallOptions(timeout=60.0, who=Who(session=str(number)))
        if number % 2:
            return engine.stream(REQUEST, deployment, options).finish()
        return engine.call(REQUEST, deployment, options)

    return ask


def without(virtual: Virtual) -> Ask:
    """Nobody is between: one attempt, for the whole answer."""

    def ask(deployment: SimulatedDeployment, number: int) -> Awaitable[object]:
        return deployment.answer(deployment.encoded(REQUEST, CallOptions())[0])

    return ask


def measure(size: Size) -> list[Figure]:
    """All figures of the simulation."""
    calls = size.times * 10
    logging.disable(logging.ERROR)  # failed attempts are what it is made of
    try:
        bare = min(simulated(calls, without) for _ in range(size.rounds))
        took = min(simulated(calls, with_engine) for _ in range(size.rounds))
    finally:
        logging.disable(logging.NOTSET)
    least = "one attempt without an engine"
    return [
        Figure(f"a simulated call, {DEPLOYMENTS:,} deployments", took, "µs CPU", least, bare, at_most=MOST),
        Figure("simulated calls a second of CPU", 1e6 / took, "calls/s", least, 1e6 / bare, at_least=1e6 / MOST),
    ]
