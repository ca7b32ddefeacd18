"""The real engine in worlds made from seeds: whatever the weather, what must hold holds, and a seed tells all again."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from polyvox.testing.virtual import HangError
from tests.simulation.invariants import broken
from tests.simulation.pooled import PooledWorld, TornWorld
from tests.simulation.world import Crowd, Outage, World

BLOCK = 50
ROOT = Path(__file__).parent.parent.parent


def blocks(start, end):
    return [pytest.param(first, id=f"seeds {first} to {first + BLOCK - 1}") for first in range(start, end, BLOCK)]


def hold(seeds, kind=World, how=""):
    for seed in seeds:
        try:
            found = broken(kind(seed).run())
        except HangError as error:
            found = [str(error)]
        replay = f"seed {seed}; see all of it with: python -m tests.simulation {how}{seed}\n"
        assert not found, replay + "\n".join(found)


def block(first):
    return range(first, first + BLOCK)


@pytest.mark.parametrize("first", blocks(0, 500))
def test_every_invariant_holds_in_every_world(first):
    hold(block(first))


@pytest.mark.slow
@pytest.mark.parametrize("first", blocks(500, 10_000))
def test_every_invariant_holds_in_ten_thousand_worlds(first):
    hold(block(first))


def test_every_invariant_holds_in_every_world_with_a_pool():
    hold(range(150), PooledWorld, "--pooled ")


def test_every_invariant_holds_where_nearly_every_stream_is_gone_on_with():
    hold(range(100), TornWorld, "--torn ")


@pytest.mark.slow
@pytest.mark.parametrize("first", blocks(150, 10_000))
def test_every_invariant_holds_in_ten_thousand_worlds_with_a_pool(first):
    hold(block(first), PooledWorld, "--pooled ")


@pytest.mark.slow
@pytest.mark.parametrize("first", blocks(100, 3_000))
def test_every_invariant_holds_where_many_streams_are_gone_on_with(first):
    hold(block(first), TornWorld, "--torn ")


@pytest.mark.slow
def test_every_invariant_holds_in_a_crowd():
    for seed in range(5):
        assert not broken(Crowd(seed).run())


def test_in_an_outage_retries_stay_within_their_budget_and_after_it_every_call_is_answered():
    for seed in range(5):
        world = Outage(seed).run()
        assert not broken(world)
        after = [told for told in world.told if told.began >= 65.0]
        assert len(after) > 20
        assert all(told.ends == ["ok"] for told in after)


def told_by_another_process(seed, hash_seed):
    command = [sys.executable, "-m", "tests.simulation", str(seed), "--digest"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def test_a_seed_gives_the_same_trace_again():
    for seed in range(20):
        first, second = World(seed, keep=True).run(), World(seed, keep=True).run()
        assert first.virtual.trace.lines == second.virtual.trace.lines
        assert first.virtual.trace.digest == second.virtual.trace.digest


def test_a_seed_gives_the_same_trace_in_every_process():
    for seed in (3, 242):
        here = World(seed).run().virtual.trace.digest
        assert {told_by_another_process(seed, hash_seed) for hash_seed in ("0", "1", "4711")} == {here}


def test_nothing_asks_a_real_clock_or_takes_real_chance(monkeypatch):
    for module, name in ((time, "time"), (time, "monotonic"), (random, "random"), (os, "urandom")):
        monkeypatch.setattr(module, name, lambda *rest, name=name: pytest.fail(f"{name} of the real world"))
    for seed in range(30):
        assert not broken(World(seed).run())


def test_another_seed_gives_another_trace():
    assert len({World(seed).run().virtual.trace.digest for seed in range(50)}) == 50


def test_a_replay_prints_what_happened():
    command = [sys.executable, "-m", "tests.simulation", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    world = World(5, keep=True).run()
    assert not done.returncode, done.stderr
    assert done.stdout.splitlines() == [*world.virtual.trace.lines, world.virtual.trace.digest]


def test_the_worlds_have_all_kinds_of_weather_and_ends():
    fates, ends = Counter(), Counter()
    for seed in range(100):
        world = World(seed).run()
        fates.update(served.fate for deployment in world.deployments for served in deployment.served)
        ends.update(told.error.kind if told.ends == ["error"] else told.ends[0] for told in world.told)
    assert set(fates) >= {
        "whole", "cut", "stall", "bad_chunk", "error_event", "gave_up", "closed", "dropped", "cancelled", "connection",
        "timeout", "rate_limit", "server", "overloaded", "auth", "context_length", "invalid_request", "bad_response",
    }  # fmt: skip
    assert set(ends) >= {"ok", "cancelled", "left", "timeout", "stream_interrupted", "rate_limit", "quota"}
    assert ends["ok"] > sum(ends.values()) / 5
