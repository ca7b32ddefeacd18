"""What is done later is done in order, by one thread, and harms nobody."""

import subprocess
import sys
import threading

import pytest

from polyvox.telemetry.later import Later


@pytest.fixture
def later():
    made = Later("test", most=10)
    yield made
    made.close()


def test_things_are_done_in_the_order_they_came(later):
    done = []
    for number in range(10):
        later.do(done.append, number)
    assert later.flush() and done == list(range(10))


def test_no_thread_is_started_before_there_is_something_to_do(later):
    assert later.flush() and "test" not in {thread.name for thread in threading.enumerate()}


def test_what_is_too_much_is_dropped_and_counted_and_said_once(later, caplog):
    go_on = threading.Event()
    later.do(go_on.wait)
    for _ in range(20):
        later.do(int)
    assert 10 <= later.dropped <= 11
    assert not later.flush(0.01)
    go_on.set()
    assert later.flush()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_failure_is_counted_and_said_once_without_its_words(later, caplog):
    done = []

    def fail():
        raise ValueError("a wish")

    for _ in range(3):
        later.do(fail)
    later.do(done.append, 1)
    assert later.flush() and done == [1] and later.failed == 3
    assert len(caplog.records) == 1
    assert "ValueError at test_later.py" in caplog.text and "wish" not in caplog.text


def test_closing_does_what_is_left_and_ends_the_thread(later):
    done = []
    later.do(done.append, 1)
    assert later.close() and done == [1]
    later.do(done.append, 2)
    assert done == [1] and "test" not in {thread.name for thread in threading.enumerate()}


def test_closing_does_not_wait_for_what_hangs(later):
    go_on = threading.Event()
    later.do(go_on.wait)
    assert not later.close(0.05)
    go_on.set()


@pytest.mark.parametrize("hangs", [False, True])
def test_at_exit_what_is_left_is_done_and_what_hangs_is_left_behind(hangs):
    code = f"""
import os, threading
from polyvox.telemetry import later
later._AT_EXIT = 0.2
made = later.Later("test")
if {hangs}:
    made.do(threading.Event().wait)
made.do(os.write, 1, b"done\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == ("" if hangs else "done\n") and not done.stderr


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork here")
def test_a_child_process_has_a_thread_of_its_own():
    code = """
import os
from polyvox.telemetry.later import Later
made = Later("test")
made.do(os.write, 1, b"parent\\n")
assert made.flush()
child = os.fork()
if not child:
    assert made.flush()
    made.do(os.write, 1, b"child\\n")
    assert made.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "parent\nchild\n"
