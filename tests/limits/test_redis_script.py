"""The script inside Redis, under a clock that the test sets: exact over every window, and proof against odd clocks."""

import contextlib
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.limits.redis_script import SCRIPT

WINDOW, GRAIN, LASTS = 60_000, 250, 30_000
TIME = "local told = redis.call('TIME')"
NOON = 1_800_000_000_000


class Script:
    """The script with a clock of its own, milliseconds."""

    def __init__(self, client, prefix):
        assert TIME in SCRIPT
        told = "local clock = tonumber(redis.call('GET', KEYS[4]))\n"
        told += "local told = {math.floor(clock / 1000), (clock % 1000) * 1000}"
        self.run = client.register_script(SCRIPT.replace(TIME, told))
        self.client, self.now = client, NOON
        self.keys = [f"{prefix}{{{uuid.uuid4().hex}}}:{name}" for name in ("leases", "notes", "window", "clock")]

    def do(self, step, *words):
        self.client.set(self.keys[3], self.now)
        return self.run(keys=self.keys, args=[step, LASTS, *("" if word is None else word for word in words)])

    def take(self, lease, tokens, limits):
        what, limit, left = self.do("take", lease, tokens, *limits)
        return what.decode(), limit, left

    @property
    def fields(self):
        return {name.decode(): int(value) for name, value in self.client.hgetall(self.keys[2]).items()}


@pytest.fixture
def client(redis_server):
    import redis

    with contextlib.closing(redis.Redis.from_url(redis_server)) as client:
        yield client


@pytest.fixture
def script(client, redis_prefix):
    return Script(client, redis_prefix)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.one_of(st.integers(0, 500), st.integers(0, 70_000))),
        st.tuples(st.just("take"), st.integers(0, 12)),
        st.tuples(st.just("settle"), st.integers(0, 12)),
        st.tuples(st.just("refund"), st.integers(0, 12)),
        st.tuples(st.just("renew"), st.just(0)),
    ),
    max_size=40,
)


def test_no_window_holds_more_than_the_limit_and_room_is_found_a_grain_late_at_most(client, redis_prefix):
    @settings(max_examples=120, deadline=None)
    @given(steps, st.integers(1, 4), st.integers(1, 6), st.integers(12, 30))
    def check(run, calls, requests, tokens):
        script, told = Script(client, redis_prefix), []

        def within(milliseconds):
            found = [call for call in told if call["at"] > script.now - milliseconds and not call["back"]]
            return len(found), sum(call["tokens"] for call in found)

        for number, (step, value) in enumerate(run):
            flying = [call for call in told if call["until"] > script.now]
            if step == "pass":
                script.now += value
            elif step == "renew":
                script.do("change", "renew", *(call["lease"] for call in flying))
                for call in flying:
                    call["until"] = script.now + LASTS
            elif step == "take":
                what, _, left = script.take(f"lease {number}", value, (calls, requests, tokens))
                if what == "taken":
                    many, much = within(WINDOW)
                    assert len(flying) < calls
                    assert many < requests
                    assert much + value <= tokens
                    call = {"lease": f"lease {number}", "at": script.now, "tokens": value, "back": False}
                    told.append({**call, "until": script.now + LASTS})
                else:
                    many, much = within(WINDOW + GRAIN)
                    assert len(flying) >= calls or many >= requests or much + value > tokens
                    assert left == -1 if what == "concurrency" else 0 < left <= WINDOW + GRAIN
            elif flying:
                call = flying[value % len(flying)]
                for _ in range(2):  # the second time changes nothing
                    script.do("change", call["lease"], "back" if step == "refund" else value)
                call["until"] = 0
                call["back"] = step == "refund"
                call["tokens"] = value if step == "settle" else call["tokens"]

    check()


def test_whoever_waits_as_long_as_it_was_told_finds_room(script):
    for number in range(5):
        assert script.take(f"a{number}", 10, (None, None, 50))[0] == "taken"
        script.now += 1700
    what, limit, left = script.take("b", 20, (None, None, 50))
    assert (what, limit) == ("tokens", 50)
    script.now += left - 1
    assert script.take("b", 20, (None, None, 50)) == ("tokens", 50, 1)
    script.now += 1
    assert script.take("b", 20, (None, None, 50))[0] == "taken"


@pytest.mark.parametrize(("took", "requests", "tokens"), [("back", 1, 30), (4, 2, 34), ("", 2, 40), (25, 2, 55)])
def test_a_lease_is_given_back_once(script, took, requests, tokens):
    limits = (None, 10, 100)
    script.take("a", 10, limits)
    script.take("b", 30, limits)
    for again in (took, took, 0, "back"):
        script.do("change", "a", again)
    assert (script.fields["r"], script.fields["t"]) == (requests, tokens)


def test_a_lease_that_is_given_back_after_its_window_changes_nothing(script):
    limits = (None, 10, 100)
    script.take("a", 10, limits)
    for _ in range(7):
        script.now += 10_000
        script.do("change", "renew", "a")
    script.take("b", 30, limits)
    script.do("change", "a", 1)
    assert (script.fields["r"], script.fields["t"]) == (1, 30)


def test_a_window_holds_a_few_hundred_fields_however_much_goes_through(script):
    for number in range(2000):
        script.now += 50
        assert script.take(f"a{number}", 3, (None, 100_000, None))[0] == "taken"
        script.do("change", f"a{number}", "")
    assert len(script.fields) <= 2 * (WINDOW / GRAIN + 1) + 4
    assert 1200 <= script.fields["r"] <= 1206  # 20 a second for a minute, and a grain
    assert script.fields["t"] == 3 * script.fields["r"]
    script.now += 2 * WINDOW
    script.do("change")
    assert script.fields == {}


def test_a_lease_that_nobody_renews_is_over_and_what_it_counted_stays(script):
    assert script.take("a", 10, (1, None, 100))[0] == "taken"
    script.now += LASTS - 1
    assert script.take("b", 10, (1, None, 100))[0] == "concurrency"
    script.do("change", "renew", "a")
    script.now += LASTS - 1
    assert script.take("b", 10, (1, None, 100))[0] == "concurrency"
    script.now += 1
    assert script.take("b", 91, (1, None, 100))[0] == "tokens"
    assert script.take("b", 90, (1, None, 100))[0] == "taken"
    script.do("change", "a", "back")
    assert script.fields["t"] == 100


@pytest.mark.parametrize("back", [1, 600, 4000, 3_600_000])
def test_a_clock_that_is_set_back_frees_nothing_and_blocks_nothing_for_ever(script, back):
    limits = (2, 3, None)
    for number in range(3):
        assert script.take(f"a{number}", 1, limits)[0] == "taken"
        script.do("change", f"a{number}", "")
    script.take("held", 1, (2, None, None))
    script.now -= back
    for _ in range(50):
        assert script.take("b", 1, limits)[0] == "requests"
        script.now += 1000
    script.now += 10_000 + min(back, 5000) + GRAIN
    assert script.take("b", 1, limits)[0] == "taken"
    # And the lease that nobody renewed is over as well.
    assert script.take("c", 1, limits)[0] == "taken"


def test_a_clock_that_is_set_back_a_little_makes_nothing_count_for_longer(script):
    limits = (None, 2, None)
    assert script.take("a", 1, limits)[0] == "taken"
    script.now += 30_000
    assert script.take("b", 1, limits)[0] == "taken"
    script.now -= 600
    assert script.take("c", 1, limits)[0] == "requests"
    script.now = NOON + WINDOW + GRAIN
    assert script.take("c", 1, limits)[0] == "taken"


def test_a_clock_that_is_set_forward_only_forgets(script):
    script.take("a", 1, (None, 1, None))
    script.now += 3_600_000
    assert script.take("b", 1, (None, 1, None))[0] == "taken"
    script.do("change", "b", "back")
    assert script.fields["r"] == 0
