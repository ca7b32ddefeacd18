"""One contestant in a process of its own: a JSON order a line on standard input, a JSON result a line out.
CPU is user and system time of the whole process, so a background thread is counted too."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from benchmarks.server import ANSWER, CHUNKS, PIECE, fastest_loop

WANTED = {"chat": ANSWER, "stream": PIECE * CHUNKS}


def rss_mib() -> float:
    """Resident memory in MiB: now, or the highest so far where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def descriptors() -> int | None:
    """Open file descriptors, None where the system does not tell."""
    for place in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(place)) - 1
        except OSError:
            continue
    return None


def _right(action: str, text: str) -> None:
    if text != WANTED[action]:
        raise RuntimeError(f"{action} gave {len(text)} characters, not the {len(WANTED[action])} that were sent")


def _opener(action: str, concurrency: int) -> str:
    """What to call once, unmeasured, so that every connection is open: the thing itself where that is cheap."""
    return action if concurrency == 1 else "chat"


class Awaited:
    """Runs an async contestant on one loop, which outlives the orders."""

    def __init__(self, make_client: Callable[[str], Any], *, uvloop: bool = False) -> None:
        self.make_client = make_client
        self.runner = asyncio.Runner(loop_factory=fastest_loop() if uvloop else None)
        self.clients: dict[str, Any] = {}

    def block(self, base_url: str, action: str, concurrency: int, seconds: float) -> tuple[int, float]:
        """Calls made and CPU seconds used by `concurrency` tasks calling for about `seconds`."""
        return self.runner.run(self._block(base_url, action, concurrency, seconds))

    async def _block(self, base_url: str, action: str, concurrency: int, seconds: float) -> tuple[int, float]:
        if base_url not in self.clients:
            self.clients[base_url] = self.make_client(base_url)
        client = self.clients[base_url]

        async def work(action: str, until: float) -> int:
            done = 0
            while True:
                _right(action, await getattr(client, action)())
                done += 1
                if time.perf_counter() >= until:
                    return done

        await asyncio.gather(*(work(_opener(action, concurrency), 0) for _ in range(concurrency)))
        started, until = time.process_time(), time.perf_counter() + seconds
        done = sum(await asyncio.gather(*(work(action, until) for _ in range(concurrency))))
        return done, time.process_time() - started

    def churn(self, base_url: str, clients: int) -> None:
        """Open a client, make one call, close it; so many times."""

        async def all_of_them() -> None:
            for _ in range(clients):
                client = self.make_client(base_url)
                _right("chat", await client.chat())
                await client.close()

        self.runner.run(all_of_them())

    def close(self) -> None:
        """Close the clients still open."""
        for client in self.clients.values():
            self.runner.run(client.close())
        self.runner.close()


class Called:
    """Runs a sync contestant on plain threads."""

    def __init__(self, make_client: Callable[[str], Any]) -> None:
        self.make_client = make_client
        self.clients: dict[str, Any] = {}
        self.pool = ThreadPoolExecutor(max_workers=64)

    def block(self, base_url: str, action: str, concurrency: int, seconds: float) -> tuple[int, float]:
        """Calls made and CPU seconds used by `concurrency` threads calling for about `seconds`."""
        if base_url not in self.clients:
            self.clients[base_url] = self.make_client(base_url)
        client = self.clients[base_url]

        def work(action: str, until: float) -> int:
            done = 0
            while True:
                _right(action, getattr(client, action)())
                done += 1
                if time.perf_counter() >= until:
                    return done

        def all_of_them(action: str, until: float) -> int:
            if concurrency == 1:
                return work(action, until)
            return sum(self.pool.map(work, [action] * concurrency, [until] * concurrency))

        all_of_them(_opener(action, concurrency), 0)
        started = time.process_time()
        done = all_of_them(action, time.perf_counter() + seconds)
        return done, time.process_time() - started

    def churn(self, base_url: str, clients: int) -> None:
        """Open a client, make one call, close it; so many times."""
        for _ in range(clients):
            client = self.make_client(base_url)
            _right("chat", client.chat())
            client.close()

    def close(self) -> None:
        """Close the clients still open."""
        for client in self.clients.values():
            client.close()
        self.pool.shutdown()


def churned(contestant: Awaited | Called, base_url: str, clients: int) -> dict[str, Any]:
    """Memory and descriptors before and after; a few clients first, so that caches are filled."""
    contestant.churn(base_url, 20)
    gc.collect()
    before = rss_mib(), descriptors()
    contestant.churn(base_url, clients)
    gc.collect()
    return {
        "clients": clients,
        "rss_mib": [round(before[0], 1), round(rss_mib(), 1)],
        "descriptors": [before[1], descriptors()],
    }


def main() -> None:
    """Obey orders until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker")
    parser.add_argument("name")
    parser.add_argument("--cpu", type=int, help="the CPU to stay on")
    parser.add_argument("--uvloop", action="store_true", help="run an awaited contestant on uvloop")
    options = parser.parse_args()
    if options.cpu is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {options.cpu})
    contestant: Awaited | Called | None = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if contestant is None:
                module = import_module(f"benchmarks.contestants.{options.name}")
                contestant = Awaited(module.make, uvloop=options.uvloop) if module.ASYNC else Called(module.make)
            if "clients" in order:
                result = churned(contestant, **order)
            else:
                calls, cpu = contestant.block(**order)
                result = {"calls": calls, "cpu": cpu}
        except Exception as error:  # whatever a contestant does wrong belongs in the report
            result = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(result), flush=True)
    if contestant is not None:
        contestant.close()


if __name__ == "__main__":
    main()
