"""A process that takes leases in Redis again and again, and prints a line of JSON for each thing that happens, with its
time. It begins when it is told a line. Killed at any moment, it leaves behind what it had."""

import asyncio
import json
import random
import sys
import time

import polyvox.stores.redis as store
from polyvox.errors import PolyvoxError
from polyvox.limits import Full, Limits, RedisLeases


def tell(*what):
    sys.stdout.write(json.dumps([time.monotonic(), *what]) + "\n")
    sys.stdout.flush()


async def call(leases, limits, number, until, draw):
    while time.monotonic() < until:
        tokens = draw.randrange(1, 20)
        try:
            lease = await leases.take("a", limits, tokens)
        except PolyvoxError as error:
            tell("error", number, error.kind)
            await asyncio.sleep(0.05)
            continue
        if isinstance(lease, Full):
            await asyncio.sleep(min(lease.wait or 0.01, 0.02))
            continue
        tell("taken", number, tokens)
        await asyncio.sleep(draw.random() * 0.02)
        took = tokens + draw.randrange(-5, 6) if draw.random() < 0.5 else tokens
        took = max(took, 0)
        # Told before, because from then on another one may have the place.
        tell("left", number, took)
        lease.settle(took)


async def main():
    options = json.loads(sys.argv[1])
    failure = options.get("failure", "closed")
    if failure == "closed":
        # The slowest machine is no server that is away.
        store.CONNECT_SECONDS = store.OPERATION_SECONDS = 10.0
    leases = RedisLeases(options["url"], prefix=options["prefix"], failure=failure, lasts=options.get("lasts", 30))
    limits = Limits(*options["limits"])
    draw = random.Random(options["seed"])
    (await leases.take("connected")).settle()
    tell("ready")
    sys.stdin.readline()
    until = time.monotonic() + options["seconds"]
    await asyncio.gather(*(call(leases, limits, number, until, draw) for number in range(options["calls"])))
    await leases.close()
    tell("done")


asyncio.run(main())
