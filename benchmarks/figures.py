"""What a room of the library costs by itself: figures, each beside the least that the same could cost, and beside what
was promised. Shapes and a process to measure in; they measure nothing themselves."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, NamedTuple

ROOMS = ("ledger", "cache", "budgets", "prices", "telemetry", "routing", "limits", "pools")
"""Modules with `measure(size)`, which gives their figures."""
POSTGRES = os.environ.get("POLYVOX_TEST_POSTGRES", "postgresql://root@127.0.0.1:5432/test")
REDIS = os.environ.get("POLYVOX_TEST_REDIS", "redis://127.0.0.1:6379/0")


class Figure(NamedTuple):
    """One thing measured, in a unit: "µs" on the clock, "µs CPU", "rows/s", …; `bare` names the least that the same
    could cost, and `of` is that; at_most and at_least are what was promised."""

    what: str
    value: float
    unit: str = "µs"
    bare: str = ""
    of: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    @property
    def kept(self) -> bool:
        """Whether it is as was promised."""
        most, least = self.at_most, self.at_least
        return (most is None or self.value <= most) and (least is None or self.value >= least)


class Size(NamedTuple):
    """How much to measure: rounds of which the median counts, how often in each, and calls to load for a history."""

    rounds: int
    times: int
    history: int


FULL = Size(rounds=5, times=2000, history=1_000_000)
QUICK = Size(rounds=3, times=200, history=20_000)


class Took(NamedTuple):
    """Microseconds a time: on the clock, and of the CPU in all threads."""

    wall: float
    cpu: float


def took(size: Size, work: Callable[[], Any], after: Callable[[], Any] | None = None) -> Took:
    """The medians over the rounds of what one run takes; after is what else must be done in a round: it counts as CPU
    and not on the clock."""
    found = []
    for _ in range(size.rounds + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(size.times):
            work()
        wall = time.perf_counter() - wall
        if after is not None:
            after()
        found.append((wall / size.times * 1e6, (time.process_time() - cpu) / size.times * 1e6))
    return _medians(found)


async def awaited(size: Size, work: Callable[[], Awaitable[Any]]) -> Took:
    """The same of what is awaited."""
    found = []
    for _ in range(size.rounds + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(size.times):
            await work()
        found.append(((time.perf_counter() - wall) / size.times * 1e6, (time.process_time() - cpu) / size.times * 1e6))
    return _medians(found)


def _medians(found: list[tuple[float, float]]) -> Took:
    rows = found[1:]  # the first round only warms up
    return Took(statistics.median(wall for wall, _ in rows), statistics.median(cpu for _, cpu in rows))


@contextlib.contextmanager
def postgres_schema() -> Any:
    """The URL of an empty schema in the server of the tests, or None where there is none; it is dropped afterwards."""
    import uuid

    import psycopg

    schema = f"polyvox_bench_{uuid.uuid4().hex[:8]}"
    try:
        connection = psycopg.connect(POSTGRES, autocommit=True, connect_timeout=2)
    except psycopg.OperationalError:
        yield None
        return
    with connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        try:
            yield f"{POSTGRES}?options=-csearch_path%3D{schema}"
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")


# ---- a process for each room ------------------------------------------------------------------


def of_room(name: str, size: Size, cpu: int | None) -> list[Figure]:
    """The figures of a room, measured in a process of its own; RuntimeError with what it said where it fails."""
    command = [sys.executable, "-m", "benchmarks.figures", name, json.dumps(size)]
    if cpu is not None:
        command += ["--cpu", str(cpu)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300])
    return [Figure(*row) for row in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    """Measure one room, and print its figures as a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures")
    parser.add_argument("room", choices=ROOMS)
    parser.add_argument("size", type=lambda text: Size(*json.loads(text)))
    parser.add_argument("--cpu", type=int, help="the CPU to stay on")
    options = parser.parse_args()
    if options.cpu is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {options.cpu})
    figures: list[Figure] = import_module(f"benchmarks.{options.room}").measure(options.size)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
