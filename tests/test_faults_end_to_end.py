"""Whatever breaks on the way, a client tells it: never a short answer that looks whole, never a second try
once the caller has seen words, and every try on the list."""

import asyncio
import time

import pytest

from polyvox import AsyncClient, Client
from polyvox.config import Settings
from polyvox.engine import Engine
from polyvox.errors import PolyvoxError
from polyvox.transports.demo import DemoTransport
from polyvox.transports.faults import Fault, FaultTransport

PROMPT = "hello bees"


async def no_wait(seconds):
    """Time limits pass at once."""


@pytest.fixture(autouse=True)
def no_pause_between_tries(monkeypatch):
    """The engine's own injected sleep and chance, for clients that offer no argument for them."""
    monkeypatch.setitem(Engine.__init__.__kwdefaults__, "sleep", no_wait)
    monkeypatch.setitem(Engine.__init__.__kwdefaults__, "chance", lambda: 0.5)


class Told:
    """What a caller got: the words, the answer or the error, and what the transport did."""

    def __init__(self, plan, *, stream, retries=2, seed=0, prompt=PROMPT):
        self.transport = FaultTransport(DemoTransport(), plan, seed=seed, sleep=no_wait)
        self.text, self.response, self.error = "", None, None
        with Client("demo", transport=self.transport, retries=retries, settings=Settings()) as client:
            try:
                if stream:
                    running = client.stream(prompt)
                    for words in running:
                        self.text += words
                    self.response = running.response
                else:
                    self.response = client.ask(prompt)
                    self.text = self.response.text
            except PolyvoxError as error:
                self.error = error

    @property
    def outcomes(self):
        return [attempt.outcome for attempt in (self.error or self.response).attempts]


WHOLE = Told([], stream=False).text
BOTH = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


def body_of(stream):
    """The bytes of the demo's answer, as they come when nothing is broken."""
    taken = []

    class Listening:
        def __init__(self):
            self.inner = DemoTransport()

        async def send(self, outgoing, timeouts):
            taken.append(await (await self.inner.send(outgoing, timeouts)).read(10**6))
            return await self.inner.send(outgoing, timeouts)

        async def close(self):
            await self.inner.close()

    with Client("demo", transport=Listening(), settings=Settings()) as client:
        _ = client.stream(PROMPT).finish() if stream else client.ask(PROMPT)
    return taken[0]


BODIES = {True: body_of(True), False: body_of(False)}


def slow(seconds):
    return Fault("delay", seconds=seconds)


# ---- one fault on every try -------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("fault", "kind", "tries", "sent"),
    [
        (Fault("refuse"), "connection", 3, "no"),
        (Fault("connect_timeout"), "timeout", 3, "no"),
        # Sent, so perhaps billed: not asked again.
        (Fault("first_byte_timeout"), "timeout", 1, "yes"),
        (slow(10_000.0), "timeout", 1, "yes"),
        (Fault("reset"), "stream_interrupted", 3, "yes"),
        (Fault("status", status=500), "server", 3, None),
        (Fault("status", status=429), "rate_limit", 3, None),
        (Fault("status", status=401), "auth", 1, None),
        (Fault("status", status=302), "bad_response", 2, "yes"),
        (Fault("html"), "bad_response", 2, None),
    ],
    ids=repr,
)
def test_a_fault_that_stays_ends_in_its_own_error_after_the_tries_it_allows(fault, kind, tries, sent, stream):
    told = Told([fault], stream=stream)
    assert told.error is not None and told.error.kind == kind and told.text == ""
    assert told.outcomes == [kind] * tries and told.transport.done == {fault.kind: tries}
    assert sent is None or told.error.sent == sent
    assert told.error.hint and told.error.provider == "demo"


def test_a_stall_is_a_timeout_of_a_whole_answer_and_a_break_of_a_stream():
    whole, streamed = (Told([Fault("stall")], stream=stream) for stream in (False, True))
    # A whole answer may be billed by now; a stream that has shown nothing is begun anew.
    assert (whole.error.kind, whole.outcomes, whole.error.sent) == ("timeout", ["timeout"], "yes")
    assert (streamed.error.kind, streamed.outcomes) == ("stream_interrupted", ["stream_interrupted"] * 3)


@BOTH
@pytest.mark.parametrize(
    "fault",
    [
        Fault("refuse", times=2),
        Fault("connect_timeout", times=2),
        Fault("reset", times=2),
        Fault("status", times=2),
        Fault("html", times=1),
        Fault("cut", times=1),
    ],
    ids=repr,
)
def test_a_fault_that_passes_before_any_word_costs_tries_and_nothing_else(fault, stream):
    told = Told([fault], stream=stream)
    assert told.error is None and told.text == WHOLE and told.response.complete
    assert told.outcomes[-1] == "ok" and len(told.outcomes) == fault.times + 1 == told.transport.calls


@BOTH
@pytest.mark.parametrize("fault", [Fault("drip"), Fault("split"), slow(5.0)], ids=repr)
def test_an_odd_delivery_changes_nothing_in_the_answer(fault, stream):
    told = Told([fault], stream=stream)
    assert told.error is None and told.text == WHOLE and told.outcomes == ["ok"]
    assert told.transport.done == {fault.kind: 1}


def test_a_server_that_asks_for_too_long_a_wait_is_not_asked_again():
    told = Told([Fault("status", status=429, headers={"Retry-After": "3600"})], stream=False)
    assert told.error.kind == "rate_limit" and told.error.retry_after == 3600 and told.outcomes == ["rate_limit"]


def test_with_no_further_tries_allowed_the_first_fault_is_the_end():
    assert Told([Fault("refuse", at=(1,))], stream=True, retries=0).outcomes == ["connection"]


# ---- faults in the middle ---------------------------------------------------------------------


def places(stream, step):
    """Places all over the body, not on the borders of its events alone."""
    return range(0, len(BODIES[stream]), step)


@pytest.mark.parametrize("kind", ["cut", "reset", "stall"])
def test_a_stream_that_breaks_anywhere_is_an_error_with_its_part_or_the_whole_answer(kind):
    began = 0
    for after in places(True, 37):
        told = Told([Fault(kind, after=after)], stream=True)
        assert told.transport.done[kind] == told.transport.calls
        if told.error is None:
            assert told.text == WHOLE and told.response.complete, after
            continue
        assert WHOLE.startswith(told.text), after
        assert told.error.kind == "stream_interrupted", after
        assert len(told.error.attempts) == told.transport.calls
        if told.text:
            began += 1
            assert told.transport.calls == 1, "a second try after the caller has seen words"
            assert told.error.partial.text == told.text and told.error.partial.complete is False
    assert began > 50


def test_a_stream_that_broke_once_after_its_first_words_is_not_begun_again_though_it_could_be():
    told = Told([Fault("reset", after=len(BODIES[True]) // 2, times=1)], stream=True)
    assert told.text and WHOLE.startswith(told.text) and told.text != WHOLE
    assert told.outcomes == ["stream_interrupted"] and told.transport.calls == 1


def test_a_whole_answer_cut_anywhere_is_rubbish_asked_for_once_more_and_then_an_error():
    for after in places(False, 7):
        told = Told([Fault("cut", after=after)], stream=False)
        assert told.outcomes == ["bad_response", "bad_response"], after
        assert Told([Fault("cut", after=after, times=1)], stream=False).text == WHOLE


def test_a_whole_answer_with_a_garbled_byte_anywhere_is_an_error_or_says_the_same():
    for after in places(False, 1):
        told = Told([Fault("garble", after=after)], stream=False, retries=0)
        assert told.error is not None or told.text == WHOLE, after
        assert told.error is None or told.error.kind == "bad_response"


def json_places(step):
    """Places inside the events' data. What stands before it is a field's name, and server-sent events have a
    reader pass over fields it does not know (WHATWG HTML, 9.2.6)."""
    body, at = BODIES[True], 0
    for event in body.split(b"\n\n")[:-1]:
        yield from range(at + len(b"data: "), at + len(event), step)
        at += len(event) + 2


def test_a_stream_with_a_garbled_byte_in_its_data_is_an_error_or_says_the_same():
    failed = 0
    for after in json_places(11):
        told = Told([Fault("garble", after=after)], stream=True, retries=0)
        assert told.transport.done == {"garble": 1}
        if told.error is None:  # the byte was in a value that nobody reads
            assert told.text == WHOLE, after
        else:
            failed += 1
            assert WHOLE.startswith(told.text) and told.error.kind in ("bad_response", "stream_interrupted"), after
    assert failed > 100


# ---- time, and the same again -----------------------------------------------------------------


def test_a_stall_without_an_idle_limit_ends_at_the_calls_own_deadline():
    transport = FaultTransport(DemoTransport(), [Fault("stall", after=700)])
    client = Client("demo", transport=transport, timeout=0.15, settings=Settings(idle_timeout=None))
    got, began = "", time.monotonic()
    with client, pytest.raises(PolyvoxError) as caught:
        for words in client.stream(PROMPT):
            got += words
    assert caught.value.kind == "timeout" and "0.15" in caught.value.message and time.monotonic() - began < 5
    assert got and caught.value.partial.text == got and len(caught.value.attempts) == 1


def test_a_stall_ends_at_the_idle_limit_on_a_real_clock():
    transport = FaultTransport(DemoTransport(), [Fault("stall", after=700)])
    began = time.monotonic()
    with Client("demo", transport=transport, settings=Settings(idle_timeout=0.1)) as client:
        with pytest.raises(PolyvoxError, match="idle") as caught:
            client.stream(PROMPT).finish()
    assert caught.value.kind == "stream_interrupted" and 0.09 < time.monotonic() - began < 5


MIX = [
    Fault("refuse", share=0.2),
    Fault("status", share=0.2, status=503),
    Fault("reset", share=0.3, after=900),
    Fault("cut", share=0.3, after=600),
    Fault("split", share=0.5),
]


def weather(seed):
    """What 40 calls at the same time gave, in their order, and what was done to them."""

    async def run():
        transport = FaultTransport(DemoTransport(), MIX, seed=seed, sleep=no_wait)
        async with AsyncClient("demo", transport=transport, retries=0, settings=Settings()) as client:
            given = await asyncio.gather(*(client.stream(PROMPT).finish() for _ in range(40)), return_exceptions=True)
        assert all(isinstance(item, PolyvoxError) or item.text == WHOLE for item in given)
        return [getattr(item, "kind", "ok") for item in given], transport.done

    return asyncio.run(run())


def test_the_same_seed_gives_the_same_weather_and_another_seed_another():
    outcomes, done = weather(1)
    assert (outcomes, done) == weather(1) and outcomes != weather(2)[0]
    assert set(outcomes) == {"ok", "connection", "server", "stream_interrupted"}
    assert set(done) == {fault.kind for fault in MIX} and outcomes.count("server") == done["status"]
    assert outcomes.count("connection") == done["refuse"]
    assert outcomes.count("stream_interrupted") == done["reset"] + done["cut"]
