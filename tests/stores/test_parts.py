"""Frames, breakers and clocks: what stores that outlive a process rest on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.stores.breaker import Breaker
from polyvox.stores.clocks import steady_wall
from polyvox.stores.frame import framed, unframed

names = st.text(max_size=8)


@given(names, names, st.binary(max_size=60))
def test_a_framed_value_is_itself_again(space, key, value):
    assert unframed(space, key, framed(space, key, value)) == value


@given(names, names, st.binary(min_size=1, max_size=60), st.data())
def test_a_frame_with_any_bit_turned_is_no_value(space, key, value, data):
    frame = bytearray(framed(space, key, value))
    place = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[place // 8] ^= 1 << place % 8
    assert unframed(space, key, bytes(frame)) is None


@given(names, names, st.binary(max_size=60), st.data())
def test_a_frame_cut_anywhere_is_no_value(space, key, value, data):
    frame = framed(space, key, value)
    assert unframed(space, key, frame[: data.draw(st.integers(0, len(frame) - 1))]) is None


@given(names, names, names, names)
def test_the_value_of_one_key_is_never_that_of_another(space, key, other_space, other_key):
    same = (space, key) == (other_space, other_key)
    assert (unframed(other_space, other_key, framed(space, key, b"v")) == b"v") is same


@pytest.mark.parametrize("kept", [None, "text", 5, b"", b"\x80\x04cos\nsystem\n(S'id'\ntR.", b"{}", memoryview(b"x")])
def test_anything_else_is_no_value(kept):
    assert unframed("s", "k", kept) is None


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_breaker_opens_after_failures_in_a_row_and_one_probe_decides():
    clock = Clock()
    breaker = Breaker(failures=3, first=5, longest=20, clock=clock)
    for _ in range(2):
        breaker.failed()
    breaker.well()
    for _ in range(3):
        assert breaker.allows()
        breaker.failed()
    assert not breaker.allows()
    for pause in (5, 10, 20, 20):
        clock.now += pause - 0.1
        assert not breaker.allows()
        clock.now += 0.1
        assert [breaker.allows() for _ in range(3)] == [True, False, False]
        breaker.failed()
    clock.now += 20
    assert breaker.allows()
    breaker.unknown()
    assert breaker.allows()
    breaker.well()
    assert [breaker.allows() for _ in range(3)] == [True] * 3


def test_a_wall_clock_that_jumps_is_not_followed():
    wall, ticks = Clock(), Clock()
    wall.now, ticks.now = 1_000_000.0, 50.0
    clock = steady_wall(wall, ticks)
    ticks.now += 10
    for jump in (86_400, -86_400, -3_600):
        wall.now += jump
        assert clock() == 1_000_010.0
