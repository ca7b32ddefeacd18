"""Simulated deployments: they answer as their manner says, and remember what they did."""

import asyncio
import gc
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.engine import CallOptions, Engine, StreamRun, Who
from polyvox.errors import (
    BY_KIND,
    BadResponseError,
    CallTimeoutError,
    ContextLengthError,
    InvalidRequestError,
    LossError,
    PolyvoxError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from polyvox.routing import RetryRule
from polyvox.testing.simulated import FAILURES, Manner, SimulatedDeployment, tokens_of
from polyvox.testing.virtual import Virtual
from polyvox.testing.weather import TROUBLES, Conditions, Constant, Weather, outage
from polyvox.types import Message, Request, Response, Text, Usage
from tests.simulation.world import quiet

REQUEST = Request("m", (Message("user", (Text("Hello, how are you?"),)),))
STEADY = Manner(first=Constant(1.0), per_second=10.0, answer=(10, 10), chunk=5)


def steadily(**conditions):
    return Weather(Conditions(**conditions))


class Asking:
    """One deployment, an engine that tries once, and how calls end: their error, or what they gave."""

    def __init__(self, virtual, manner, retries=0):
        self.virtual = virtual
        self.deployment = SimulatedDeployment("d", virtual, manner)
        self.engine = Engine(
            rule=RetryRule(retries), sleep=virtual.sleep, chance=virtual.chance, random_bytes=virtual.random_bytes
        )

    async def whole(self, request=REQUEST, **options):
        try:
            return await self.engine.call(request, self.deployment, CallOptions(who=Who(session="c"), **options))
        except PolyvoxError as error:
            return error

    async def streamed(self, pause=0.0):
        """When each piece came, and how the call ended."""
        run, pieces = self.engine.stream(REQUEST, self.deployment, CallOptions()), []
        try:
            while events := await run.batch():
                pieces.append((self.virtual.now(), len(events)))
                await self.virtual.sleep(pause)
        except PolyvoxError as error:
            return pieces, error
        return pieces, run.response


def trial(manner, test, seed=1, **more):
    with quiet():
        return Virtual(seed).run(lambda virtual: test(Asking(virtual, manner, **more)))


def test_a_whole_answer_takes_as_long_as_its_tokens_and_tells_its_usage():
    async def test(asking):
        response = await asking.whole()
        assert asking.virtual.now() == pytest.approx(2.0)
        assert response.text == asking.deployment.served[0].whole
        assert (response.usage.input, response.usage.output) == (tokens_of(REQUEST), 10)
        assert (response.request_id, response.finish_reason, response.model) == ("d-1", "stop", "d")
        assert asking.deployment.served[0].fate == "whole"
        assert asking.deployment.served[0].caller == "c"

    trial(STEADY, test)


def test_a_stream_comes_piece_by_piece():
    async def test(asking):
        pieces, response = await asking.streamed()
        assert [round(when, 6) for when, _ in pieces] == [1.5, 2.0, 2.0]
        assert response.text == asking.deployment.served[0].whole
        assert response.request_id == "d-1"

    trial(STEADY, test)


def test_a_slow_reader_makes_no_provider_slower():
    async def test(asking):
        pieces, _ = await asking.streamed(pause=3.0)
        assert [round(when, 6) for when, _ in pieces] == [1.5, 4.5, 7.5]

    trial(STEADY, test)


def test_no_token_comes_twice():
    async def test(asking):
        words = [word for _ in range(5) for word in (await asking.whole()).text.split()]
        assert len(set(words)) == len(words) == 50

    trial(STEADY, test)


def test_an_answer_ends_at_the_limit_of_its_request():
    async def test(asking):
        response = await asking.whole(Request("m", REQUEST.messages, max_tokens=3))
        assert response.finish_reason == "length"
        assert len(response.text.split()) == response.usage.output == 3

    trial(STEADY, test)


def test_above_its_rate_it_says_429_and_after_the_wait_it_named_there_is_room():
    async def test(asking):
        first, second = await asking.whole(), await asking.whole()
        assert isinstance(first, Response)
        assert type(second) is RateLimitError
        assert 0 < second.retry_after <= 10.0
        await asking.virtual.sleep(second.retry_after)
        assert isinstance(await asking.whole(), Response)

    trial(Manner(first=Constant(0.1), answer=(1, 1), weather=steadily(per_second=0.1)), test)


def test_a_429_may_say_nothing_of_waiting():
    async def test(asking):
        await asking.whole()
        assert (await asking.whole()).retry_after is None

    trial(Manner(first=Constant(0.1), answer=(1, 1), weather=steadily(per_second=0.1, tells=False)), test)


def test_the_engine_waits_as_long_as_a_429_wishes():
    async def test(asking):
        await asking.whole()
        assert isinstance(await asking.whole(), Response)
        refused, answered = asking.deployment.served[1:]
        assert answered.begun >= refused.over + refused.wish

    trial(Manner(first=Constant(0.1), answer=(1, 1), weather=steadily(per_second=0.1)), test, retries=1)


def test_in_an_outage_every_call_fails_and_after_it_none():
    async def test(asking):
        for now in range(40):
            await asking.virtual.sleep(now - asking.virtual.now())
            ended = await asking.whole()
            assert isinstance(ended, Response) == (not 10 <= now < 20)

    trial(Manner(first=Constant(0.1), per_second=1e6, weather=outage(10, 10)), test)


@pytest.mark.parametrize("name", FAILURES)
def test_each_failure_is_an_error_of_its_kind(name):
    assert FAILURES[name].kind in BY_KIND

    async def test(asking):
        for ended in (await asking.whole(), (await asking.streamed())[1]):
            assert type(ended) is BY_KIND[FAILURES[name].kind]
            assert {key: getattr(ended, key) for key in FAILURES[name].facts} == FAILURES[name].facts

    trial(Manner(weather=steadily(errors=((name, 1.0),))), test)


def test_what_it_cannot_take_it_refuses():
    async def refused(asking, request=REQUEST, **options):
        ended = await asking.whole(request, **options)
        assert not asking.deployment.busy
        return type(ended)

    prefilled = Request("m", (*REQUEST.messages, Message("assistant", (Text("I"),))))
    assert trial(Manner(context=20), refused) is ContextLengthError
    assert trial(Manner(takes_prefill=False), lambda asking: refused(asking, prefilled)) is InvalidRequestError
    seeded = Request("m", REQUEST.messages, seed=1)
    assert trial(Manner(loses=True), lambda asking: refused(asking, seeded, strict=True)) is LossError
    assert trial(Manner(loses=True), lambda asking: refused(asking, seeded)) is Response


EXPECTED = {
    "cut": (StreamInterruptedError, StreamInterruptedError),
    "stall": (CallTimeoutError, StreamInterruptedError),
    "bad_chunk": (BadResponseError, BadResponseError),
    "error_event": (ServerError, ServerError),
    "gave_up": (StreamInterruptedError, StreamInterruptedError),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_each_trouble_breaks_an_answer_at_any_place_and_is_never_success(trouble):
    whole, streamed = EXPECTED[trouble]
    places = set()

    async def test(asking):
        assert type(await asking.whole()) is whole
        _, error = await asking.streamed()
        assert type(error) is streamed
        served = asking.deployment.served[-1]
        assert served.fate == trouble
        assert error.partial is None or error.partial.text == served.text
        assert not asking.deployment.busy
        places.add(served.told)

    for seed in range(60):
        trial(Manner(answer=(3, 3), chunk=1, weather=steadily(troubles=((trouble, 1.0),))), test, seed)
    assert places == ({3} if trouble == "gave_up" else {0, 1, 2, 3})


def test_a_brown_out_is_slow():
    async def test(asking):
        await asking.whole()
        return asking.virtual.now()

    slow = Manner(first=Constant(1.0), per_second=10.0, answer=(10, 10), weather=steadily(slow=8.0))
    assert trial(slow, test) == pytest.approx(8 * trial(STEADY, test))


def test_an_answer_that_does_not_begin_ends_with_its_transport():
    async def test(asking):
        ended = await asking.whole()
        assert type(ended) is CallTimeoutError
        assert (ended.sent, asking.virtual.now()) == ("yes", 120.0)

    trial(Manner(first=Constant(500.0)), test)


@pytest.mark.parametrize("how", ["cancel", "close", "drop"])
def test_whoever_leaves_is_not_answered_any_more(how):
    async def test(asking):
        run = asking.engine.stream(REQUEST, asking.deployment, CallOptions())
        await run.batch()
        assert asking.deployment.busy == 1
        if how == "cancel":
            task = asyncio.get_running_loop().create_task(run.batch())
            await asking.virtual.sleep(0.1)
            task.cancel()
            await asyncio.wait([task])
        elif how == "close":
            await run.close()
        del run
        assert not asking.deployment.busy
        assert asking.deployment.served[0].fate == {"cancel": "cancelled", "close": "closed", "drop": "dropped"}[how]

    trial(STEADY, test)


def test_a_share_of_answers_tells_no_usage():
    async def test(asking):
        told = [(await asking.whole()).usage.source for _ in range(200)]
        told += [(await asking.streamed())[1].usage.source for _ in range(200)]
        assert told.count("missing") == pytest.approx(200, rel=0.2)

    trial(Manner(silent=0.5), test)


def test_what_one_deployment_does_changes_nothing_for_another():
    async def alone(virtual):
        return await asked(Asking(virtual, Manner()))

    async def beside(virtual):
        other = Asking(virtual, Manner())
        other.deployment = SimulatedDeployment("other", virtual, Manner())
        await other.whole()
        return await asked(Asking(virtual, Manner()))

    async def asked(asking):
        began = asking.virtual.now()
        return [((await asking.whole()).text, round(asking.virtual.now() - began, 9)) for _ in range(5)]

    assert Virtual(1).run(alone) == Virtual(1).run(beside)


@given(st.integers(0, 400), st.integers(1, 60), st.integers(1, 100))
def test_no_answer_costs_more_than_the_most_it_may(letters, least, limit):
    request = Request("m", (Message("user", (Text("x" * letters),)),), max_tokens=limit)
    manner = Manner(answer=(least, 60), prices=(Decimal("0.000003"), Decimal("0.000015")))

    async def test(asking):
        response, money = await asking.whole(request), asking.deployment.money
        assert response.cost.amount == money.bill(request, response).amount <= money.most(request, 0)
        usage, cost = money.begun(request, response)
        assert (usage.output, cost) == (response.usage.output, response.cost)

    trial(manner, test)


def test_nobody_knows_the_cost_of_what_tells_no_usage():
    async def test(asking):
        response = await asking.whole()
        assert response.usage == Usage()
        assert response.cost.amount is None

    trial(Manner(silent=1.0, prices=(Decimal(1), Decimal(1))), test)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_stream_that_broke_off_leaves_nothing_in_memory(trouble):
    async def test(asking):
        for _ in range(20):
            assert isinstance((await asking.streamed())[1], PolyvoxError)

    gc.collect()
    before = {id(thing) for thing in gc.get_objects() if type(thing) is StreamRun}  # what others hold is theirs
    trial(Manner(answer=(3, 3), chunk=1, weather=steadily(troubles=((trouble, 1.0),))), test)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing) is StreamRun and id(thing) not in before]
