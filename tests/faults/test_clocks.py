"""The wall clock jumps, or everything stands still for a while: limits are those that were set, nobody is left alone
for longer or shorter, and what wakes up does not storm."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from polyvox import AsyncClient, config
from polyvox.cache import ResponseCache
from polyvox.errors import PolyvoxError
from polyvox.testing.fault_server import FaultServer, answer, stall
from tests.faults.calls import AMPLE, CHAT, KEY, QUICK, TEXT, begun, good

DAY = 86_400.0
JUMPS = pytest.mark.parametrize("jump", [DAY, -DAY], ids=["forward", "back"])


@pytest.fixture
def wall(monkeypatch):
    """Moves the wall clock, and no other."""
    real, moved = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + moved[0])

    def wall(seconds):
        moved[0] += seconds

    return wall


# ---- the wall clock (52) ----------------------------------------------------------------------


@JUMPS
def test_a_jump_of_the_wall_clock_ends_no_call(told, serve, stream, wall, jump):
    async def jumping(connection):
        wall(jump)

    told(serve(jumping, good(CHAT, stream)), stream=stream).ended_well()


@JUMPS
def test_a_jump_of_the_wall_clock_puts_off_no_limit(told, serve, wall, jump):
    async def jumping(connection):
        wall(jump)

    found = told(serve(begun(CHAT), jumping, stall), stream=True, idle_timeout=QUICK)
    found.ended_in("stream_interrupted", sent="yes", text="Hello, ", says="idle: ")


def settings(**servers):
    """Settings with a deployment at each server."""
    deployments = {
        name: {"model": "m", "base_url": f"{server.url}v1", "api_key": KEY, "priority": place}
        for place, (name, server) in enumerate(servers.items())
    }
    limits = {"first_byte_timeout": AMPLE, "timeout": 2 * AMPLE, "retries": 0}
    return config.load(env={}, files=(), arguments={**limits, "deployments": deployments})


async def ask(client, model="house-*"):
    try:
        return (await client.ask("hi", model=model)).deployment
    except PolyvoxError as error:
        return error.kind


@JUMPS
def test_who_is_left_alone_stays_so_however_the_wall_clock_jumps(wall, jump):
    async def go():
        async with AsyncClient(settings=settings(**{"house-a": ill, "house-b": well})) as client:
            before = [await ask(client) for _ in range(8)]
            wall(jump)
            return before, [await ask(client) for _ in range(8)]

    refusal = answer(b'{"error": {"message": "no"}}', status="503 No")
    with FaultServer(refusal) as ill, FaultServer(good(CHAT, False)) as well:
        before, after = asyncio.run(go())
        assert before == after == ["house-b"] * 8
        assert len(ill.requests) == 5  # then it was left alone, and is so still


@JUMPS
def test_who_asked_for_time_is_given_it_however_the_wall_clock_jumps(wall, jump):
    async def go():
        async with AsyncClient(settings=settings(**{"house-a": busy, "house-b": well})) as client:
            before = [await ask(client) for _ in range(3)]
            wall(jump)
            return before, [await ask(client) for _ in range(3)]

    refusal = answer(b'{"error": {"message": "no"}}', "retry-after: 3000", status="429 No")
    with FaultServer(refusal) as busy, FaultServer(good(CHAT, False)) as well:
        before, after = asyncio.run(go())
        assert before == after == ["house-b"] * 3 and len(busy.requests) == 1


@JUMPS
def test_an_answer_is_kept_as_long_as_was_said_however_the_wall_clock_jumps(wall, jump):
    async def go():
        cache = ResponseCache(ttl=3600, wall=lambda: time.time())  # looked up anew: it is what jumps
        async with AsyncClient(settings=settings(**{"house-a": well}), cache=cache) as client:
            told = []
            for _ in range(3):
                told.append(await client.ask("hi", model="house-a"))
                wall(jump)
            return told

    with FaultServer(good(CHAT, False)) as well:
        told = asyncio.run(go())
        assert [response.text for response in told] == [TEXT] * 3 and len(well.requests) == 1


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="time zones are not set like this here")
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/New_York"])
def test_a_date_means_the_same_moment_in_every_time_zone(told, serve, monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        head = ["date: Sun, 01 Nov 2026 05:59:50 GMT", "retry-after: Sun, 01 Nov 2026 06:00:10 GMT"]
        refusal = answer(b'{"error": {"message": "no"}}', *head, status="429 No")
        found = told(serve(refusal), stream=False, retries=0, kept=1)
        assert found.error.retry_after == 20.0  # an hour is repeated in New York at that moment
    finally:
        monkeypatch.undo()
        time.tzset()


# ---- everything stands still (53) -------------------------------------------------------------

ASKING = """
    import asyncio, json, sys
    from collections import Counter
    from polyvox import AsyncClient, config

    async def one(client):
        try:
            return (await client.ask("hi")).text
        except Exception as error:
            return f"{type(error).__name__} {error.kind} {len(error.attempts)}"

    async def main():
        settings = config.load(env={}, files=(), arguments=json.loads(sys.argv[1]))
        async with AsyncClient("m", base_url=sys.argv[2], api_key="test-key-123", settings=settings) as client:
            print(json.dumps(Counter(await asyncio.gather(*[one(client) for _ in range(20)]))))

    asyncio.run(main())
"""
MANY = 20
STOPPED = 1.5  # seconds; more than the limits below


def stopped_after(server, requests, **arguments):
    """A process that asks many times at once, and stands still from the time when so many requests have come."""
    command = [sys.executable, "-c", textwrap.dedent(ASKING), json.dumps(arguments), f"{server.url}v1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            while not server.wait_for(lambda it: len(it.requests) >= requests, 1):
                assert child.poll() is None, "it ended before it had asked"
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(STOPPED)
            os.kill(child.pid, signal.SIGCONT)
            out, _ = child.communicate(timeout=60)
        finally:
            child.kill()
    return json.loads(out)


NEEDS_STOP = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")


@NEEDS_STOP
def test_limits_that_ran_out_while_all_stood_still_end_each_call_once(no_pause_between_tries):
    with FaultServer(stall) as server:
        ends = stopped_after(server, MANY, first_byte_timeout=1.0)
        assert ends == {"CallTimeoutError timeout 1": MANY}
        assert len(server.requests) == MANY


@NEEDS_STOP
def test_tries_that_waited_while_all_stood_still_are_made_once_each(no_pause_between_tries):
    refusal = answer(b'{"error": {"message": "no"}}', "retry-after: 1", status="503 No")
    with FaultServer(refusal) as server:
        ends = stopped_after(server, MANY, retries=1)
        assert ends == {"ServerError server 2": MANY}
        assert len(server.requests) == 2 * MANY


@NEEDS_STOP
def test_an_answer_that_came_while_all_stood_still_is_given(no_pause_between_tries):
    async def later(connection):
        await asyncio.sleep(STOPPED / 3)

    with FaultServer(later, good(CHAT, False)) as server:
        assert stopped_after(server, MANY, first_byte_timeout=AMPLE) == {TEXT: MANY}
        assert len(server.requests) == MANY
