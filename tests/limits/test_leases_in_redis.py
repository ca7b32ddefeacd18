"""Leases in Redis: processes share limits to the last one, a dead one is forgotten, no call fails for the server."""

import asyncio
import contextlib
import gc
import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import polyvox.stores.redis
from polyvox.errors import ConfigError, InputError, MissingExtraError
from polyvox.limits import FairQueue, Full, Limits, LimitsAwayError, LimitsHealth, RedisLeases, Used
from polyvox.limits.redis import POLL
from tests.limits.conftest import Clock
from tests.services import free_port
from tests.stores.resp import BadRedis

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def patient(monkeypatch):
    """The slowest machine is no server that is away."""
    monkeypatch.setattr(polyvox.stores.redis, "CONNECT_SECONDS", 10.0)
    monkeypatch.setattr(polyvox.stores.redis, "OPERATION_SECONDS", 10.0)


@contextlib.asynccontextmanager
async def opened(url, count=1, **options):
    """So many that share the server, as processes do."""
    several = [RedisLeases(url, **options) for _ in range(count)]
    try:
        yield several[0] if count == 1 else several
    finally:
        for leases in several:
            await leases.close()


async def asked(url, *words):
    import redis.asyncio

    async with redis.asyncio.Redis.from_url(url) as client:
        return await client.execute_command(*words)


async def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not await true():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.02)


async def room(leases, limits, tokens=0, key="a"):
    """A lease, as soon as there is room: the server hears of what was given back a moment later."""
    found = []

    async def take():
        found.append(await leases.take(key, limits, tokens))
        return not isinstance(found[-1], Full)

    await until(take)
    return found[-1]


# ---- one limit after the other ----------------------------------------------------------------


def test_calls_at_a_time_are_shared_and_a_place_that_was_left_is_free_for_all(redis_server, redis_prefix, patient):
    async def test():
        limits = Limits(concurrency=2)
        async with opened(redis_server, 2, prefix=redis_prefix) as (one, other):
            first, second = await one.take("a", limits), await other.take("a", limits)
            full = await one.take("a", limits)
            assert full[:2] == ("concurrency", 2)
            assert 0 < full.wait < 1
            first.settle()
            third = await room(other, limits)
            assert one.used("a").in_flight == 0
            second.refund()
            third.refund()
            (await room(one, limits)).settle()

    asyncio.run(test())


def test_requests_and_tokens_are_shared_settled_and_refunded(redis_server, redis_prefix, patient):
    async def test():
        limits = Limits(requests_per_minute=3, tokens_per_minute=100)
        async with opened(redis_server, 2, prefix=redis_prefix) as (one, other):
            first = await one.take("a", limits, 60)
            second = await other.take("a", limits, 40)
            full = await other.take("a", limits, 1)
            assert full[:2] == ("tokens", 100)
            assert 50 < full.wait <= 60.3
            first.settle(30)
            third = await room(other, limits, 30)
            full = await one.take("a", limits, 0)
            assert full[:2] == ("requests", 3)
            assert 50 < full.wait <= 60.3
            second.refund()
            (await room(one, limits, 40)).settle(90)  # more than it was thought to be
            third.settle()
            full = await other.take("a", limits, 1)
            assert full.what in ("tokens", "requests")

    asyncio.run(test())


def test_deployments_are_counted_apart_and_those_of_one_share_a_slot(redis_server, redis_prefix, patient):
    async def test():
        limits = Limits(concurrency=1)
        async with opened(redis_server, prefix=redis_prefix) as leases:
            held = [await leases.take(key, limits) for key in ("a", "b", "ä {x} *", "")]
            assert not any(isinstance(lease, Full) for lease in held)
            names = {name.decode() for name in await asked(redis_server, "KEYS", f"{redis_prefix}*")}
            assert f"{redis_prefix}{{a}}:window" in names
            # A server with slots takes what stands in braces for the slot.
            slots = {name.partition("{")[2].partition("}")[0] for name in names}
            assert len(names) == 3 * len(slots) == 12
            assert "" not in slots

    asyncio.run(test())


def test_nothing_is_kept_for_ever(redis_server, redis_prefix, patient):
    async def test():
        async with opened(redis_server, prefix=redis_prefix, lasts=30) as leases:
            lease = await leases.take("a", Limits(4, 60, 1000), 10)
            for name in await asked(redis_server, "KEYS", f"{redis_prefix}*"):
                assert 0 < await asked(redis_server, "PTTL", name) <= 90_000
            lease.settle()

    asyncio.run(test())


def test_a_lease_ends_once(redis_server, redis_prefix, patient):
    async def test():
        limits = Limits(10, 10, 100)
        async with opened(redis_server, 2, prefix=redis_prefix) as (one, other):
            with await one.take("a", limits, 50) as first:
                first.settle(40)
                first.refund()
            kept = await one.take("a", limits, 10)
            await one.close()
            assert (await other.take("a", limits, 51)).what == "tokens"
            last = await other.take("a", limits, 50)
            assert not isinstance(last, Full)
            last.settle()
            kept.settle()

    asyncio.run(test())


def test_a_lease_that_was_left_behind_gives_its_place_back(redis_server, redis_prefix, patient):
    async def test():
        limits = Limits(concurrency=1)
        async with opened(redis_server, prefix=redis_prefix) as leases:
            lease = await leases.take("a", limits)
            del lease
            gc.collect()
            (await room(leases, limits)).settle()

    asyncio.run(test())


def test_who_waits_in_a_queue_hears_of_a_place_that_was_left(redis_server, redis_prefix, patient):
    async def test():
        limits, order = Limits(concurrency=1), []
        async with opened(redis_server, prefix=redis_prefix) as leases:
            queue = FairQueue()
            leases.watch(queue.wake_soon)

            async def call(number):
                with await queue.wait(lambda: leases.take("a", limits)):
                    order.append(number)
                    assert leases.used("a").in_flight == 1

            await asyncio.wait_for(asyncio.gather(*(call(number) for number in range(20))), 60)
        assert order == list(range(20))

    asyncio.run(test())


def test_who_found_the_process_full_of_calls_that_only_ask_comes_to_its_turn(redis_server, redis_prefix, patient):
    async def test():
        limits = Limits(concurrency=2)
        async with opened(redis_server, 2, prefix=redis_prefix) as (one, other):
            held = [await other.take("a", limits) for _ in range(2)]
            queue = FairQueue()
            one.watch(queue.wake_soon)

            async def call():
                (await queue.wait(lambda: one.take("a", limits))).settle()

            asking = [asyncio.create_task(one.take("a", limits)) for _ in range(2)]
            await asyncio.sleep(0)  # they have room in this process, and wait for what the server says
            waiting = asyncio.create_task(call())
            assert all(isinstance(full, Full) for full in await asyncio.gather(*asking))
            for lease in held:
                lease.settle()
            await asyncio.wait_for(waiting, 20)

    asyncio.run(test())


def test_a_call_that_is_cancelled_while_it_asks_leaves_nothing_behind(redis_server, redis_prefix, patient):
    async def test():
        limits = Limits(concurrency=1)
        async with opened(redis_server, prefix=redis_prefix) as leases:
            for turns in range(12):
                task = asyncio.create_task(leases.take("a", limits))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    got = await task
                    if not isinstance(got, Full):
                        got.settle()
            (await room(leases, limits)).settle()
            assert leases.used("a").in_flight == 0

    asyncio.run(test())


def test_event_loops_of_several_threads_share_leases_and_one_may_end_what_another_took(
    redis_server, redis_prefix, patient
):
    leases, limits = RedisLeases(redis_server, prefix=redis_prefix), Limits(concurrency=1)
    ready, done, taken = threading.Event(), threading.Event(), []

    async def elsewhere():
        taken.append(await leases.take("a", limits))
        ready.set()
        while not done.is_set():
            await asyncio.sleep(0.01)

    async def here():
        await asyncio.to_thread(ready.wait, 20)
        assert isinstance(await leases.take("a", limits), Full)
        taken[0].settle()
        (await room(leases, limits)).settle()
        done.set()
        await leases.close()

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    asyncio.run(here())
    thread.join()


# ---- processes ----------------------------------------------------------------------------------


@contextlib.contextmanager
def processes(count, **options):
    """So many of `counting`, which are killed at the end."""
    begun = []
    try:
        for seed in range(count):
            words = json.dumps({**options, "seed": seed})
            command = [sys.executable, "-m", "tests.limits.counting", words]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            begun.append(subprocess.Popen(command, cwd=ROOT, text=True, **pipes))
        for process in begun:
            assert json.loads(process.stdout.readline())[1] == "ready"
        for process in begun:
            process.stdin.write("go\n")
            process.stdin.flush()
        yield begun
    finally:
        for process in begun:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


def told(process):
    """What a process said, each with its time; all processes have the clock of the machine."""
    return [json.loads(line) for line in process.communicate(timeout=120)[0].splitlines()]


@pytest.mark.parametrize("limits", [[3, None, None], [None, 40, None], [4, 60, None]])
def test_two_processes_are_never_over_the_limit_of_calls_and_requests(redis_server, redis_prefix, limits):
    with processes(2, url=redis_server, prefix=redis_prefix, limits=limits, calls=8, seconds=2.5) as both:
        runs = [told(process) for process in both]
    events = sorted(event for run in runs for event in run)
    assert all(run[-1][1] == "done" for run in runs)
    assert not [event for event in events if event[1] == "error"]
    assert all(any(event[1] == "taken" for event in run) for run in runs)
    in_flight = most = taken = 0
    for event in events:
        taken += event[1] == "taken"
        in_flight += {"taken": 1, "left": -1}.get(event[1], 0)
        most = max(most, in_flight)
    if limits[0] is not None:
        assert most == limits[0]
    if limits[1] is not None:
        assert taken == limits[1]  # the whole run is shorter than a window


def test_two_processes_are_over_the_limit_of_tokens_by_what_is_in_flight_at_most(redis_server, redis_prefix):
    limit = 1500
    options = {"limits": [None, None, limit], "calls": 1, "seconds": 3}
    with processes(2, url=redis_server, prefix=redis_prefix, **options) as both:
        runs = [told(process) for process in both]
    events = sorted(event for run in runs for event in run)
    took = sum(event[3] for event in events if event[1] == "left")
    # One call at a time in each process, of 19 tokens at most by estimate, and 5 more than that.
    assert limit - 19 < took <= limit + 2 * 19


def test_the_places_of_a_process_that_was_killed_are_free_again_when_its_leases_are_over(
    redis_server, redis_prefix, patient
):
    options = {"limits": [2, None, None], "calls": 2, "seconds": 60, "lasts": 1}
    with processes(1, url=redis_server, prefix=redis_prefix, **options) as (victim,):
        held = 0
        while held < 2:
            held += {"taken": 1, "left": -1}.get(json.loads(victim.stdout.readline())[1], 0)
        victim.kill()
        victim.wait()

    async def test():
        async with opened(redis_server, prefix=redis_prefix, lasts=1) as leases:
            (await room(leases, Limits(concurrency=1))).settle()

    asyncio.run(test())


def test_a_lease_that_is_held_for_long_is_renewed(redis_server, redis_prefix, patient):
    async def test():
        limits = Limits(concurrency=1)
        async with opened(redis_server, 2, prefix=redis_prefix, lasts=1.5) as (one, other):
            lease = await one.take("a", limits)
            end = time.monotonic() + 4
            while time.monotonic() < end:
                assert isinstance(await other.take("a", limits), Full)
                await asyncio.sleep(0.1)
            lease.settle()
            (await room(other, limits)).settle()

    asyncio.run(test())


# ---- the server is away -------------------------------------------------------------------------


def test_while_the_server_is_away_each_process_counts_for_itself_and_says_so(caplog):
    async def test():
        limits = Limits(2, 3, None)
        url = f"redis://user:hunter22-secret@127.0.0.1:{free_port()}/0"
        async with opened(url, clock=Clock()) as leases:
            with caplog.at_level(logging.INFO, "polyvox"):
                first, second = await leases.take("a", limits), await leases.take("a", limits)
                assert await leases.take("a", limits) == Full("concurrency", 2, POLL)
                first.settle()
                second.refund()
                for _ in range(2):
                    (await leases.take("a", limits)).settle()
                assert (await leases.take("a", limits)).what == "requests"
            health = leases.health()
            assert health.state == "degraded"
            assert "hunter22" not in str(health) + repr(leases) + caplog.text

    asyncio.run(test())
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_where_that_was_asked_for_a_server_that_is_away_lets_nothing_through():
    async def test():
        async with opened(f"redis://127.0.0.1:{free_port()}/0", failure="closed") as leases:
            with pytest.raises(LimitsAwayError) as caught:
                await leases.take("a", Limits(concurrency=2))
            error = caught.value
            assert (error.sent, error.billed, error.retryable) == ("no", False, True)
            assert "Redis" in error.hint
            assert leases.used("a") == Used(0, 0, 0)

    asyncio.run(test())


def test_row_60_a_server_that_is_killed_and_restored_amid_calls_fails_none_of_them(private_redis):
    async def test():
        limits, done, clock = Limits(concurrency=4), [], time.monotonic
        async with opened(private_redis.url, 2, clock=clock, lasts=2) as both:
            queues, stop = [FairQueue(), FairQueue()], asyncio.Event()
            for leases, queue in zip(both, queues, strict=True):
                leases.watch(queue.wake_soon)

            async def calls(leases, queue):
                while not stop.is_set():
                    with await queue.wait(lambda: leases.take("a", limits, 5), deadline=clock() + 60):
                        assert leases.used("a").in_flight <= 4
                        await asyncio.sleep(0.005)
                    done.append(leases)

            tasks = [asyncio.create_task(calls(*pair)) for pair in zip(both, queues, strict=True) for _ in range(6)]
            for leases in both:
                await until(lambda leases=leases: _true(leases in done))
            private_redis.stop()
            for leases in both:
                await until(lambda leases=leases: _true(leases.health().state == "degraded"))
                before = done.count(leases)
                await until(lambda leases=leases, before=before: _true(done.count(leases) > before + 5))
            await asyncio.to_thread(private_redis.start)
            for leases in both:
                await until(lambda leases=leases: _true(leases.health().state == "ok"), 60)
                before = done.count(leases)
                await until(lambda leases=leases, before=before: _true(done.count(leases) > before + 5))
            stop.set()
            await asyncio.gather(*tasks)  # which raises what any of the calls failed with
            assert all(leases.used("a").in_flight == 0 for leases in both)

    asyncio.run(test())


def test_row_60_two_processes_go_on_while_the_server_they_share_is_killed_and_restored(private_redis):
    options = {"limits": [4, None, 10**6], "calls": 6, "seconds": 5, "failure": "open"}
    with processes(2, url=private_redis.url, prefix="test:", **options) as both:
        time.sleep(1)
        private_redis.stop()
        down = time.monotonic()
        time.sleep(2)
        up = time.monotonic()
        private_redis.start()
        runs = [told(process) for process in both]
    for run in runs:
        assert run[-1][1] == "done"
        assert not [event for event in run if event[1] == "error"]
        taken = [event[0] for event in run if event[1] == "taken"]
        assert taken[0] < down
        assert any(down + 0.1 < at < up for at in taken)
        assert taken[-1] > up


async def _true(value):
    return value


def test_a_server_that_forgot_all_is_told_of_the_calls_in_flight(private_redis, patient):
    async def test():
        limits = Limits(concurrency=1)
        async with opened(private_redis.url, 2, lasts=1) as (one, other):
            lease = await one.take("a", limits)
            await asked(private_redis.url, "FLUSHALL")

            async def known():
                return await asked(private_redis.url, "ZCARD", "polyvox:limits:{a}:leases") == 1

            await until(known)
            assert isinstance(await other.take("a", limits), Full)
            lease.settle()
            (await room(other, limits)).settle()

    asyncio.run(test())


def test_what_could_not_be_given_back_is_given_back_when_the_server_is_there_again(private_redis, monkeypatch):
    async def test():
        limits, clock = Limits(concurrency=1), Clock()
        async with opened(private_redis.url, clock=clock) as one, opened(private_redis.url) as other:
            lease = await one.take("a", limits)
            private_redis.pause()
            try:
                lease.settle()
                await until(lambda: _true(one.health().state == "degraded"))
            finally:
                private_redis.go_on()
            clock.now += 100
            (await room(other, limits)).settle()  # long before the lease would be over

    asyncio.run(test())


BAD = {
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "moved": b"-MOVED 3999 127.0.0.1:6381\r\n",
    "out of memory": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "read only": b"-READONLY You can't write against a read only replica.\r\n",
    "no script, ever": b"-NOSCRIPT No matching script.\r\n",
    "no protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n<html></html>",
    "number": b":17\r\n",
    "short": b"*1\r\n$5\r\ntaken\r\n",
    "other words": b"*3\r\n$4\r\ngone\r\n:0\r\n:0\r\n",
    "other types": b"*3\r\n$5\r\ntaken\r\n$1\r\n0\r\n$1\r\n0\r\n",
    "lists": b"*3\r\n*0\r\n*0\r\n*0\r\n",
    "cut": b"*3\r\n$5\r\nta",
}


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD.keys())
def test_row_61_whatever_a_server_answers_no_call_fails_for_it(answer, caplog):
    async def test():
        async with BadRedis(answer) as server, opened(server.url, clock=Clock()) as leases:
            with caplog.at_level(logging.INFO, "polyvox"):
                for _ in range(3):
                    (await leases.take("a", Limits(concurrency=1))).settle()
            assert leases.health().state == "degraded"
            assert leases.health().why

    asyncio.run(test())
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_a_server_that_works_again_is_well(private_redis, caplog):
    async def test():
        clock = Clock()
        async with opened(private_redis.url, clock=clock) as leases:
            assert leases.health() == LimitsHealth()
            await asked(private_redis.url, "CONFIG", "SET", "maxmemory", "1")
            (await leases.take("a")).settle()
            assert leases.health().state == "degraded"
            await asked(private_redis.url, "CONFIG", "SET", "maxmemory", "0")

            async def well():
                (await leases.take("a")).settle()
                return leases.health().state == "ok"

            await until(well)

    asyncio.run(test())


# ---- making them --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"lasts": 0}, {"failure": "perhaps"}])
def test_what_cannot_work_is_refused_at_once(options):
    with pytest.raises(InputError) as caught:
        RedisLeases("redis://localhost", **options)
    assert caught.value.hint


def test_a_url_that_cannot_be_read_is_refused_and_not_shown():
    with pytest.raises(ConfigError) as caught:
        RedisLeases("redis://u:hunter22-secret@h:99999999/0")
    assert "hunter22" not in str(caught.value)


def test_without_the_client_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(MissingExtraError) as caught:
        RedisLeases("redis://localhost")
    assert "polyvox[redis]" in caught.value.hint


# ---- looking on -------------------------------------------------------------------------------


def test_who_only_looks_sees_what_all_processes_use_and_changes_nothing(redis_server, redis_prefix, patient):
    async def test():
        limits = Limits(concurrency=5, requests_per_minute=50, tokens_per_minute=5000)
        async with opened(redis_server, 3, prefix=redis_prefix) as (one, other, looking):
            assert await looking.counted("a") == Used(0, 0, 0)
            first, second = await one.take("a", limits, 100), await other.take("a", limits, 20)
            for _ in range(2):
                assert await looking.counted("a") == Used(2, 2, 120)
            first.settle(30)
            second.refund()
            await until(lambda: found(looking, Used(0, 1, 30)))
            assert await looking.counted("b") == Used(0, 0, 0)

    async def found(looking, used):
        return await looking.counted("a") == used

    asyncio.run(test())


def test_looking_at_a_server_that_is_away_tells_nothing():
    async def test():
        async with opened(f"redis://127.0.0.1:{free_port()}") as looking:
            assert await looking.counted("a") is None

    asyncio.run(test())
