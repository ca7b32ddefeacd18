"""Random bytes are fetched many at a time, and given once."""

import os
import threading

import pytest

from polyvox.chance import PIECE, RandomBytes


def test_so_many_bytes_are_given_as_are_asked_for():
    draw = RandomBytes()
    assert [len(draw(count)) for count in (0, 1, 9, PIECE, PIECE + 1, 5000)] == [0, 1, 9, PIECE, PIECE + 1, 5000]


def test_the_source_is_asked_once_for_many_and_nothing_is_given_twice():
    asked = []

    def source(count):
        asked.append(count)
        return os.urandom(count)

    draw = RandomBytes(source)
    assert len({draw(PIECE) for _ in range(1000)}) == 1000
    assert len(asked) == 4


def test_no_two_threads_are_given_the_same():
    draw, found = RandomBytes(), []

    def take():
        found.extend([draw(PIECE) for _ in range(5000)])

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 20_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_is_given_others_than_its_parent():
    draw = RandomBytes()
    draw(PIECE)  # more of them are there now
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writes, draw(PIECE))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        assert pipe.read() != draw(PIECE)
