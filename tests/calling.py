"""A process that makes calls through a client whose limits are counted in Redis, and prints a line of JSON for each
that ended. It begins when it is told a line, and makes no new call when it is told another."""

import asyncio
import json
import random
import sys

import polyvox.stores.redis as store
from polyvox import AsyncClient
from polyvox.errors import PolyvoxError
from polyvox.limits import Limits
from polyvox.registry import Entry


def tell(*what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main():
    options = json.loads(sys.argv[1])
    if options["patient"]:
        # The slowest machine is no server that is away.
        store.CONNECT_SECONDS = store.OPERATION_SECONDS = 20.0
    entry = Entry(options["name"], "m", base_url=options["base_url"], limits=Limits(*options["limits"]))
    draw, stop = random.Random(options["seed"]), asyncio.Event()
    left = iter(range(options["calls"]))

    async def calls(client):
        for _ in left:
            if stop.is_set():
                return
            await asyncio.sleep(draw.random() * 0.01)
            try:
                response = await client.ask("count me", max_tokens=20, timeout=options["timeout"])
            except PolyvoxError as error:
                tell("error", error.kind, error.sent, len(error.attempts), error.message)
            else:
                tell("answer", response.usage.total, len(response.attempts))

    def last_word():
        sys.stdin.readline()
        loop.call_soon_threadsafe(stop.set)

    loop = asyncio.get_running_loop()
    async with AsyncClient(entry.name, registry=[entry], limits=options["redis"]) as client:
        client.route("count me")  # everything is loaded before it is said to be ready
        tell("ready")
        await asyncio.to_thread(sys.stdin.readline)
        told = loop.run_in_executor(None, last_word)
        await asyncio.gather(*(calls(client) for _ in range(options["at_once"])))
        tell("done", sum(one["in_flight"] for one in client.standing()))
        await told


asyncio.run(main())
