"""Two processes that share limits in Redis, seen from the server that both ask: what it counts stays within the limits,
and no call fails because the Redis server is gone."""

import contextlib
import json
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import services

private_redis, redis_server = services.private_redis, services.redis_server

pytestmark = pytest.mark.services

ROOT = Path(__file__).parent.parent
TAKEN = 40
"""Tokens that a call takes, though it was thought to take fewer."""
PATIENCE = 60
"""Seconds after which what should have happened did not."""


class Counting:
    """A server that counts its calls: when each began, and the most at a time. A call counts from when it was read
    until its answer is about to be written, which is while its caller has a lease."""

    def __init__(self, hold=0.0):
        self.begun, self.at_once, self.most = [], 0, 0
        counts, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                with lock:
                    counts.begun.append(time.monotonic())
                    counts.at_once += 1
                    counts.most = max(counts.most, counts.at_once)
                time.sleep(hold)
                body = json.dumps({
                    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
                    "choices": [
                        {"index": 0, "message": {"role": "assistant", "content": "one"}, "finish_reason": "stop"}
                    ],
                    "usage": {"prompt_tokens": 5, "completion_tokens": TAKEN - 5, "total_tokens": TAKEN},
                }).encode()  # fmt: skip
                with lock:
                    counts.at_once -= 1
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Process:
    """One that calls; see `tests.calling`. answers and errors are what it told so far."""

    def __init__(self, **options):
        command = [sys.executable, "-m", "tests.calling", json.dumps(options)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.child = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
        self.answers, self.errors, self.done = [], [], None
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.child.stdout:
            what, *facts = json.loads(line)
            if what == "ready":
                self.ready.set()
            elif what == "done":
                self.done = facts
            else:
                (self.answers if what == "answer" else self.errors).append(facts)

    def say(self):
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.write("\n")
            self.child.stdin.flush()

    def close(self):
        self.child.kill()
        self.child.wait()
        self.thread.join()
        self.child.stdin.close()
        self.child.stdout.close()


def until(true, what):
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.01)


@contextlib.contextmanager
def two(server, redis, limits, *, at_once, calls=10**9, timeout=PATIENCE, patient=True):
    """Two processes at work, each with so many calls at a time."""
    both = []
    options = {
        "name": f"counted-{uuid.uuid4().hex[:12]}", "base_url": server.base_url, "redis": redis, "limits": limits,
        "at_once": at_once, "calls": calls, "timeout": timeout, "patient": patient,
    }  # fmt: skip
    try:
        for seed in range(2):
            both.append(Process(**options, seed=seed))
        for process in both:
            assert process.ready.wait(PATIENCE)
        for process in both:
            process.say()
        yield both
    finally:
        for process in both:
            process.close()


def finished(both):
    """Wait until both have made their calls."""
    until(lambda: all(process.done is not None for process in both), "the end of all calls")
    assert [process.done for process in both] == [[0], [0]]  # nothing in flight is left behind


def test_calls_at_a_time_are_never_more_than_the_limit_and_as_many(redis_server):
    with Counting(hold=0.01) as server, two(server, redis_server, [3, None, None], at_once=6, calls=40) as both:
        finished(both)
    assert [process.errors for process in both] == [[], []]
    assert [len(process.answers) for process in both] == [40, 40]
    assert len(server.begun) == 80  # none was asked twice
    assert server.most == 3


def test_requests_are_never_more_than_the_limit_and_as_many(redis_server):
    started = time.monotonic()
    with Counting() as server, two(server, redis_server, [None, 25, None], at_once=4, calls=30, timeout=5) as both:
        finished(both)
    if time.monotonic() - started > 55:
        pytest.skip("too slow a machine: a minute went by")
    assert len(server.begun) == sum(len(process.answers) for process in both) == 25
    errors = [error for process in both for error in process.errors]
    assert len(errors) == 60 - 25
    # Said by us, at once, without a word to the provider.
    assert {tuple(error[:3]) for error in errors} == {("rate_limit", "no", 0)}


def test_tokens_are_more_than_the_limit_by_at_most_what_one_call_of_each_process_was_thought_to_take(redis_server):
    limit, estimate = 2000, 25  # 20 of an answer, and about 5 of the question
    with (
        Counting(hold=0.005) as server,
        two(server, redis_server, [None, None, limit], at_once=1, calls=60, timeout=5) as both,
    ):
        finished(both)
    took = TAKEN * len(server.begun)
    assert {tuple(error[:3]) for process in both for error in process.errors} == {("rate_limit", "no", 0)}
    assert limit - estimate < took <= limit + 2 * estimate


def keys_of(url):
    """How many deployments are counted in a Redis server."""
    import redis

    with contextlib.closing(redis.Redis.from_url(url)) as client:
        return len(list(client.scan_iter("polyvox:limits:*", count=1000)))


def test_no_call_fails_while_redis_is_killed_and_restored(private_redis):
    def more(what):
        """Wait until both have got twenty answers more."""
        before = [len(process.answers) for process in both]
        until(
            lambda: all(
                len(process.answers) >= had + 20 or process.errors for process, had in zip(both, before, strict=True)
            ),
            what,
        )
        assert [process.errors for process in both] == [[], []]

    limits = [3, None, 10**7]
    with Counting(hold=0.002) as server, two(server, private_redis.url, limits, at_once=4, patient=False) as both:
        more("answers while Redis counts")
        assert keys_of(private_redis.url)
        private_redis.stop()
        more("answers while Redis is gone")
        private_redis.start()
        more("answers while Redis is there again")
        until(lambda: keys_of(private_redis.url), "Redis counts again")
        more("answers while Redis counts again")
        for process in both:
            process.say()
        finished(both)
    assert [process.errors for process in both] == [[], []]
    assert server.most <= 2 * 3  # alone each process keeps the limit, too


@pytest.mark.slow
def test_no_window_of_a_minute_holds_more_requests_than_the_limit(redis_server):
    with Counting() as server, two(server, redis_server, [None, 20, None], at_once=2, timeout=600) as both:
        time.sleep(140)
        assert [process.errors for process in both] == [[], []]
    # The server hears of a call a little after its lease was taken.
    windows = [sum(1 for other in server.begun if at <= other < at + 59) for at in server.begun]
    assert max(windows) == 20
    assert len(server.begun) >= 40  # it goes on as soon as it may
