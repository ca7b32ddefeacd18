"""A plan breaks the calls it means, in the way it says, the same way for the same seed; every other call
passes through untouched, and what is wrong with a plan is said all at once."""

import asyncio
import json
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scripted import Answer, Scripted

from polyvox.errors import (
    BadResponseError,
    CallTimeoutError,
    ConfigError,
    ConnectionFailedError,
    PolyvoxError,
    StreamInterruptedError,
    UsageError,
)
from polyvox.transports import Outgoing, Timeouts
from polyvox.transports.faults import KINDS, Fault, FaultTransport, plan_from

OUTGOING = Outgoing("POST", "https://api.example/v1/chat", {}, b"{}")
LIMITS = Timeouts(connect=5.0, first_byte=120.0, idle=60.0)
BODY = b"0123456789"


class Slept(list):
    """A sleep that notes its seconds and does not wait."""

    async def __call__(self, seconds):
        self.append(seconds)


def broken(plan, *answers, **options):
    inner = Scripted(*(answers or (Answer(BODY[:4], BODY[4:]),)))
    slept = Slept()
    return FaultTransport(inner, plan, sleep=slept, **options), inner, slept


async def drain(exchange):
    chunks = []
    while data := await exchange.chunk():
        chunks.append(data)
    return chunks


async def outcome(transport, limits=LIMITS):
    """What one call gives: the error before the head, or the chunks and the error in the body."""
    chunks = []
    try:
        exchange = await transport.send(OUTGOING, limits)
        while data := await exchange.chunk():
            chunks.append(data)
    except PolyvoxError as error:
        return chunks, error
    return chunks, None


def once(plan, *answers, limits=LIMITS, **options):
    transport, inner, slept = broken(plan, *answers, **options)
    chunks, error = asyncio.run(outcome(transport, limits))
    return transport, inner, slept, chunks, error


# ---- what it leaves alone ---------------------------------------------------------------------


def test_a_call_the_plan_does_not_mean_gets_the_inner_transports_own_exchange():
    answer = Answer(BODY)
    transport, inner, _ = broken([Fault("cut", at=(2,))], answer)
    assert asyncio.run(transport.send(OUTGOING, LIMITS)) is answer
    assert inner.sent == [OUTGOING] and inner.timeouts == [LIMITS]
    assert transport.done == {} and transport.calls == 1


def test_an_error_of_the_inner_transport_comes_through_as_it_is():
    error = ConnectionFailedError("really", sent="no")
    assert once([Fault("drip")], error)[4] is error


def test_closing_closes_the_inner_transport_and_refuses_further_calls_even_planned_ones():
    transport, inner, _ = broken([Fault("refuse")])
    asyncio.run(transport.close())
    assert inner.closed
    with pytest.raises(UsageError) as caught:
        asyncio.run(transport.send(OUTGOING, LIMITS))
    assert caught.value.sent == "no" and transport.done == {}


# ---- instead of asking, and before the head ---------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "kind_of_error", "sent", "waited"),
    [
        ("refuse", ConnectionFailedError, "no", []),
        ("connect_timeout", CallTimeoutError, "no", [5.0]),
        ("first_byte_timeout", CallTimeoutError, "yes", [120.0]),
    ],
)
def test_a_call_that_never_gets_an_answer_says_how_far_it_got(kind, kind_of_error, sent, waited):
    transport, inner, slept, chunks, error = once([Fault(kind)])
    assert type(error) is kind_of_error and error.sent == sent and chunks == []
    assert slept == waited and inner.sent == []
    assert transport.done == {kind: 1}


@pytest.mark.parametrize("kind", ["connect_timeout", "first_byte_timeout", "stall"])
def test_a_timeout_without_a_limit_waits_until_it_is_cancelled(kind):
    async def cancelled():
        transport, _, slept = broken([Fault(kind)])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(outcome(transport, Timeouts(None, None, None)), 0.02)
        return slept

    assert asyncio.run(cancelled()) == []


def test_a_planned_status_answers_itself_with_its_headers_in_lower_case():
    async def answer():
        transport, inner, _ = broken([{"kind": "status", "status": 429, "headers": {"Retry-After": "7"}, "body": "no"}])
        exchange = await transport.send(OUTGOING, LIMITS)
        assert exchange.status == 429 and exchange.headers["retry-after"] == "7"
        assert await exchange.read(100) == b"no" and await exchange.chunk() == b""
        assert inner.sent == []

    asyncio.run(answer())


def test_a_login_page_comes_as_a_success_of_another_type():
    async def answer():
        exchange = await broken([Fault("html")])[0].send(OUTGOING, LIMITS)
        assert exchange.status == 200 and exchange.headers["content-type"].startswith("text/html")
        assert (await exchange.read(1000)).startswith(b"<!DOCTYPE html>")

    asyncio.run(answer())


def test_a_delay_passes_before_the_head_and_the_answer_is_whole():
    transport, _, slept, chunks, error = once([Fault("delay", seconds=3.0)])
    assert error is None and b"".join(chunks) == BODY and slept == [3.0]
    assert transport.done == {"delay": 1}


def test_a_delay_beyond_the_first_byte_limit_is_that_timeout():
    _, inner, slept, _, error = once([Fault("delay", seconds=500.0)])
    assert type(error) is CallTimeoutError and error.sent == "yes" and "first byte" in error.message
    assert slept == [120.0] and inner.sent == []


# ---- in the body ------------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(len(BODY)))
def test_a_cut_ends_the_body_as_if_well_and_lets_go_of_the_connection(after):
    transport, inner, _, chunks, error = once([Fault("cut", after=after)])
    assert error is None and b"".join(chunks) == BODY[:after]
    assert transport.done == {"cut": 1} and inner.given[0].closed


@pytest.mark.parametrize("after", [0, 3, 4, 9, 10])
def test_a_reset_breaks_the_body_after_its_bytes_and_it_stays_broken(after):
    async def read():
        transport, inner, _ = broken([Fault("reset", after=after)])
        exchange = await transport.send(OUTGOING, LIMITS)
        assert b"".join([await exchange.chunk() for _ in range((after > 0) + (after > 4))]) == BODY[:after]
        for _ in range(2):
            with pytest.raises(StreamInterruptedError) as caught:
                await exchange.chunk()
            assert caught.value.sent == "yes"
        assert transport.done == {"reset": 1} and inner.given[0].closed

    asyncio.run(read())


def test_a_stall_waits_out_the_idle_limit_once_its_bytes_have_come():
    transport, inner, slept, chunks, error = once([Fault("stall", after=6)])
    assert b"".join(chunks) == BODY[:6] and slept == [60.0]
    assert type(error) is CallTimeoutError and error.sent == "yes" and "idle" in error.message
    assert transport.done == {"stall": 1} and inner.given[0].closed


@pytest.mark.parametrize("after", range(len(BODY)))
def test_a_garbled_byte_is_the_only_one_that_changes(after):
    transport, _, _, chunks, error = once([Fault("garble", after=after)])
    got = b"".join(chunks)
    assert error is None and [i for i in range(len(BODY)) if got[i] != BODY[i]] == [after] and len(got) == len(BODY)
    assert transport.done == {"garble": 1}


@pytest.mark.parametrize(("kind", "waited"), [("cut", []), ("reset", []), ("stall", [60.0])])
def test_what_has_ended_stays_ended_and_asks_nothing_more_of_the_connection(kind, waited):
    async def read():
        transport, inner, slept = broken([Fault(kind, after=2)], Answer(b"01", b"2", b"3", b"4"))
        exchange = await transport.send(OUTGOING, LIMITS)
        assert await exchange.chunk() == b"01"
        ends, asked = [], []
        for _ in range(2):
            try:
                ends.append(await exchange.chunk())
            except PolyvoxError as error:
                ends.append(error)
            asked.append(len(inner.given[0]._chunks))
        assert ends[0] is ends[1] and asked[0] == asked[1]
        assert slept == waited and transport.done == {kind: 1}

    asyncio.run(read())


@settings(deadline=None)
@given(st.text(min_size=1), st.data())
def test_a_garbled_text_is_never_valid_utf_8(text, data):
    body = text.encode()
    after = data.draw(st.integers(0, len(body) - 1))
    chunks = once([Fault("garble", after=after)], Answer(body))[3]
    with pytest.raises(UnicodeDecodeError):
        b"".join(chunks).decode()


def test_drip_gives_every_byte_alone():
    transport, _, _, chunks, _ = once([Fault("drip")])
    assert chunks == [bytes([byte]) for byte in BODY] and transport.done == {"drip": 1}


@pytest.mark.parametrize("kind", ["drip", "split"])
def test_pieces_that_were_small_already_are_no_fault(kind):
    transport, _, _, chunks, _ = once([Fault(kind)], Answer(b"a", b"b"))
    assert chunks == [b"a", b"b"] and transport.done == {}


def test_a_long_answer_in_small_pieces_lets_other_tasks_run():
    async def race():
        exchange = await broken([Fault("drip")], Answer(BODY * 100))[0].send(OUTGOING, LIMITS)
        reading = asyncio.create_task(drain(exchange))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not reading.done()
        assert len(await reading) == 1000

    asyncio.run(race())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.integers())
def test_split_changes_where_a_body_is_cut_into_pieces_and_nothing_else(pieces, seed):
    chunks = once([Fault("split")], Answer(*pieces), seed=seed)[3]
    assert b"".join(chunks) == b"".join(pieces) and b"" not in chunks


@pytest.mark.parametrize(("kind", "after"), [("cut", 10), ("cut", 11), ("reset", 11), ("stall", 11), ("garble", 10)])
def test_a_body_too_short_for_its_fault_is_whole_and_nothing_is_counted(kind, after):
    transport, _, slept, chunks, error = once([Fault(kind, after=after)])
    assert error is None and b"".join(chunks) == BODY
    assert transport.done == {} and slept == []


@pytest.mark.parametrize("plan", [[Fault("drip")], [Fault("status", body=BODY)]])
def test_a_whole_read_keeps_to_its_limit_and_a_closed_answer_gives_nothing_more(plan):
    async def read():
        transport, inner, _ = broken(plan, Answer(BODY), Answer(BODY))
        assert await (await transport.send(OUTGOING, LIMITS)).read(10) == BODY
        exchange = await transport.send(OUTGOING, LIMITS)
        with pytest.raises(BadResponseError, match="longer than 9 bytes"):
            await exchange.read(9)
        with pytest.raises(UsageError, match="closed"):
            await exchange.chunk()
        assert all(answer.closed for answer in inner.given[1:])

    asyncio.run(read())


def test_a_broken_answer_keeps_its_head():
    async def head():
        transport, _, _ = broken([Fault("drip")], Answer(b"{}", status=503, headers={"x-request-id": "r1"}))
        exchange = await transport.send(OUTGOING, LIMITS)
        assert exchange.status == 503 and exchange.headers["x-request-id"] == "r1"

    asyncio.run(head())


# ---- which calls ------------------------------------------------------------------------------


def refused(plan, calls=30, **options):
    """The numbers of the calls that were refused."""
    transport, _, _ = broken(plan, *(Answer(b"x") for _ in range(calls)), **options)

    async def run():
        return [number for number in range(1, calls + 1) if (await outcome(transport))[1] is not None]

    found = asyncio.run(run())
    assert transport.calls == calls and transport.done.get("refuse", 0) == len(found)
    return found


def test_at_names_calls_by_number_and_times_limits_how_many():
    assert refused([Fault("refuse", at=(1, 4))]) == [1, 4]
    assert refused([Fault("refuse", at=(2, 4, 6), times=2)]) == [2, 4]
    assert refused([Fault("refuse", times=3)]) == [1, 2, 3]
    assert refused([Fault("refuse")]) == list(range(1, 31))


def test_a_share_is_the_chance_of_each_call():
    assert refused([Fault("refuse", share=0.0)]) == []
    assert refused([Fault("refuse", share=1.0)]) == list(range(1, 31))
    assert 150 < len(refused([Fault("refuse", share=0.2)], calls=1000)) < 250


def test_the_same_seed_breaks_the_same_calls_and_another_seed_others():
    plan = [Fault("refuse", share=0.3)]
    assert refused(plan, seed=7) == refused(plan, seed=7) != refused(plan, seed=8)


def test_a_fault_added_below_changes_nothing_above():
    plan = [Fault("refuse", share=0.3)]
    assert refused(plan) == refused([*plan, Fault("split", share=0.5)])


def test_a_call_gets_the_first_fault_that_matches_and_spends_no_other():
    transport, _, _ = broken([Fault("refuse", at=(1,)), Fault("cut", times=1)], *[Answer(BODY) for _ in range(2)])

    async def run():
        return [await outcome(transport) for _ in range(3)]

    (_, first), (second, _), (third, _) = asyncio.run(run())
    assert type(first) is ConnectionFailedError and second == [] and third == [BODY]
    assert transport.done == {"refuse": 1, "cut": 1}


def test_faults_combine_by_wrapping():
    inner = Scripted(Answer(BODY))
    transport = FaultTransport(FaultTransport(inner, [Fault("drip")]), [Fault("reset", after=3)])
    chunks, error = asyncio.run(outcome(transport))
    assert chunks == [b"0", b"1", b"2"] and type(error) is StreamInterruptedError


def test_the_same_seed_splits_the_same_way_however_calls_interleave():
    async def run(together):
        transport, _, _ = broken([Fault("split")], *(Answer(BODY * 20) for _ in range(3)), seed=3)
        exchanges = [await transport.send(OUTGOING, LIMITS) for _ in range(3)]
        if together:
            return await asyncio.gather(*(drain(exchange) for exchange in exchanges))
        return [await drain(exchange) for exchange in reversed(exchanges)][::-1]

    apart, together = asyncio.run(run(False)), asyncio.run(run(True))
    assert apart == together and apart[0] != apart[1]


# ---- plans as data ----------------------------------------------------------------------------


def test_a_plan_reads_the_same_from_toml_from_json_and_from_values():
    toml = """
        [[fault]]
        kind = "status"
        at = 1
        status = 429
        headers = {Retry-After = "2"}
        body = {error = {message = "slow down"}}
        [[fault]]
        kind = "cut"
        share = 1
        times = 2
        after = 40
    """
    faults = plan_from(tomllib.loads(toml))
    assert faults == (
        Fault("status", (1,), status=429, headers={"Retry-After": "2"}, body=b'{"error":{"message":"slow down"}}'),
        Fault("cut", share=1.0, times=2, after=40),
    )
    assert plan_from(json.loads(json.dumps(tomllib.loads(toml)["fault"]))) == faults
    assert plan_from(faults) == faults and plan_from([]) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_planned_with_nothing_but_what_it_needs(kind):
    row = {"kind": kind, **({"seconds": 1} if kind == "delay" else {})}
    assert plan_from([row]) == (Fault(kind, seconds=row.get("seconds", 0.0)),)


def test_all_that_is_wrong_with_a_plan_is_said_at_once():
    with pytest.raises(ConfigError) as caught:
        plan_from([{"kind": "cut", "after": -1, "at": 0}, 5, {"kind": "melt"}, {"kind": "drip"}, {"kind": "delay"}])
    first, second, third, fourth, fifth = caught.value.problems
    assert first.startswith("fault 1: after must be") and second.startswith("fault 1: at must be")
    assert third.startswith("fault 2: must be an object") and "fault 3: kind must be one of" in fourth
    assert fifth == "fault 5: seconds is missing" and caught.value.sent == "no"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "kind must be one of"),
        ({"kind": ["cut"]}, "kind must be one of"),
        ({"kind": "cut", "at": []}, "at must be"),
        ({"kind": "cut", "at": [True]}, "at must be"),
        ({"kind": "cut", "at": "1"}, "at must be"),
        ({"kind": "cut", "share": 1.5}, "share must be"),
        ({"kind": "cut", "share": float("nan")}, "share must be"),
        ({"kind": "cut", "at": 1, "share": 0.5}, "at and share"),
        ({"kind": "cut", "times": 0}, "times must be"),
        ({"kind": "cut", "after": 1.5}, "after must be"),
        ({"kind": "cut", "seconds": 1}, "cut has no seconds"),
        ({"kind": "cut", 5: 1}, "cut has no 5"),
        ({"kind": "html", "status": 200}, "html has no status"),
        ({"kind": "delay", "seconds": float("inf")}, "seconds must be"),
        ({"kind": "status", "status": 100}, "status must be"),
        ({"kind": "status", "headers": {"a": 1}}, "headers must be"),
        ({"kind": "status", "headers": ["a"]}, "headers must be"),
        ({"kind": "status", "body": 3.5j}, "body must be"),
        ({"kind": "status", "body": "\ud800"}, "body must be"),
        (Fault("drip", after=3), "drip has no after"),
        (Fault("cut", after="3"), "after must be"),
        (Fault("melt"), "kind must be one of"),
    ],
    ids=repr,
)
def test_a_wrong_fault_says_what_is_wrong_with_it_before_any_call(row, words):
    with pytest.raises(ConfigError) as caught:
        FaultTransport(Scripted(), [row])
    assert len(caught.value.problems) == 1 and words in caught.value.problems[0]


@pytest.mark.parametrize(
    "data",
    [None, 5, "cut", b"cut", {}, {"faults": []}, {"fault": {}}, {"fault": [], "x": 1}, {"kind": "cut"}],
    ids=repr,
)
def test_what_is_no_list_of_faults_is_no_plan(data):
    with pytest.raises(ConfigError, match="a plan"):
        plan_from(data)


def test_an_endless_list_of_problems_is_shortened():
    with pytest.raises(ConfigError) as caught:
        plan_from([{}] * 50)
    assert len(caught.value.problems) == 21 and caught.value.problems[-1] == "and 30 more"


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from([*Fault.__struct_fields__, "x"]), st.one_of(
    st.sampled_from(KINDS), st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)), max_size=3))  # fmt: skip
def test_whatever_the_data_it_is_a_plan_or_a_config_error(data):
    try:
        assert len(plan_from(data)) == len(data)
    except ConfigError as error:
        assert error.problems
