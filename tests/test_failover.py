"""What becomes of a call when the deployment that it goes to fails, over real sockets: who is asked what and how often,
what the caller gets, and what stands in the books of it."""

import asyncio
import json
from decimal import Decimal

import pytest

from polyvox import AsyncClient, Client, catalog, config
from polyvox.engine import Engine
from polyvox.errors import PolyvoxError
from polyvox.ledger import Ledger
from polyvox.pools import Pools, Routing
from polyvox.testing.fault_server import FaultServer, answer, fin, rst, send, sleep, stall
from polyvox.types import Image, Message, Text
from tests.test_books import only, rows
from tests.test_end_to_end import chunked, head_of, sse

KEY = "test-key-0123456789"
QUICK = 0.2  # seconds; long enough for a busy machine to hear from itself
AMPLE = 20.0  # seconds; a limit that must not be the one that ends a call
WORDS = ("The ", "sun ", "shines", ".")
TEXT = "".join(WORDS)
PRICE = {"input": 1, "output": 10}  # USD for a million tokens
ELSEWHERE = Routing(continue_streams=True)


# ---- what a server says -----------------------------------------------------------------------


def piece(delta, finish=None, **facts):
    return {"id": "c", "model": "served", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **facts}


def usage(output, input=7):
    return {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output}


def words_of(words=WORDS):
    return b"".join(sse(piece({"content": word})).encode() for word in words)


END = sse(piece({}, "stop"), {"id": "c", "model": "served", "choices": [], "usage": usage(4)}).encode()
DONE = b"data: [DONE]\n\n"


def opened(*pieces):
    """A stream that has begun, and what has come of it."""
    return send(head_of("openai.chat") + b"".join(chunked(each) for each in pieces if each))


def well(words=WORDS):
    """A good answer, streamed where that is asked for."""
    message = {"role": "assistant", "content": "".join(words)}
    whole = {"id": "c", "model": "served", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    stream = words_of(words) + END + DONE

    def script(asked):
        if asked.get("stream"):
            return [opened(stream), send(b"0\r\n\r\n")]
        return [answer(json.dumps({**whole, "usage": usage(4)}).encode(), "content-type: application/json")]

    return script


def refusing(status, *headers, code=None, message="no"):
    said = {"error": {"message": message, "type": "some_error", "code": code}}
    return steps(answer(json.dumps(said).encode(), *headers, "content-type: application/json", status=f"{status} No"))


def steps(*said):
    return lambda asked: said


def broken_after(words, *then):
    """An answer that breaks after so many words, streamed or whole."""

    def script(asked):
        if asked.get("stream"):
            return [opened(words_of(WORDS[:words])), *then]
        return [send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"), *then]

    return script


class Place:
    """A server that answers its nth request by its nth script, and later ones by the last; what it was asked."""

    def __init__(self, *scripts):
        self.scripts = list(scripts)
        self.server = FaultServer(self._step)
        self._served = 0

    async def _step(self, connection):
        asked = self.asked[self._served]
        script = self.scripts[min(self._served, len(self.scripts) - 1)]
        self._served += 1
        for step in script(asked):
            if not connection.over:
                await step(connection)

    @property
    def asked(self):
        """The bodies of its requests."""
        return [json.loads(raw.partition(b"\r\n\r\n")[2]) for raw in self.server.requests]

    @property
    def heard(self):
        """What it was asked, a list of (role, text) for each request."""
        return [[(turn["role"], turn["content"]) for turn in asked["messages"]] for asked in self.asked]


HI = [("user", "hi")]


@pytest.fixture
def place():
    """Makes places, and stops them after the test."""
    made = []

    def place(*scripts):
        made.append(Place(*scripts))
        made[-1].server.__enter__()
        return made[-1]

    yield place
    for each in made:
        each.server.__exit__()


# ---- who asks ---------------------------------------------------------------------------------


class Came:
    """What a caller got of one call."""

    def __init__(self, words, response, error):
        self.text = "".join(words)
        self.response = response
        self.error = error
        self.attempts = (error or response).attempts
        self.went = [(attempt.deployment, attempt.outcome) for attempt in self.attempts]

    def ended_well(self, *went, text=TEXT):
        assert self.error is None, self.error
        assert (self.text, self.response.text, self.response.complete) == (text, text, True)
        assert self.went == list(went)
        return self

    def ended_in(self, kind, *went, text=""):
        assert self.error is not None, f"an answer: {self.text!r}"
        assert (self.error.kind, self.text, self.went) == (kind, text, list(went)), self.error
        assert self.error.hint and KEY not in str(self.error)
        if text:
            assert (self.error.partial.text, self.error.partial.complete) == (text, False)
        return self


class Caller:
    """A client with deployments named first, second, …, each asked when those before it fail."""

    def __init__(self, face, places, models=(), **facts):
        self.places = places
        registry, timeouts = {}, {"connect_timeout": AMPLE, "first_byte_timeout": AMPLE, "idle_timeout": AMPLE}
        for name, where in zip(("first", "second", "third"), places, strict=False):
            registry[name] = {"model": f"m-{name}", "base_url": f"{where.server.url}v1", "api_key": KEY,
                              "dialect": "openai.chat", **facts.pop(name, {})}  # fmt: skip
        timeouts |= {name: facts.pop(name) for name in tuple(facts) if name in timeouts}
        houses = {}
        for entry, model, where in zip(tuple(registry), models, places, strict=False):  # of which facts are known
            registry[entry] = {"model": model}
            row = {"base_url": f"{where.server.url}v1", "hosts": ["127.0.0.1"], "api_key": KEY}
            houses[model.partition("/")[0]] = row
        settings = config.load(env={}, files=(), arguments={"timeout": 2 * AMPLE, "providers": houses, **timeouts})
        facts = {"registry": registry, "settings": settings, **facts}
        self._runner = None if face == "Client" else asyncio.Runner()
        self.client = (Client if face == "Client" else AsyncClient)(list(registry), **facts)

    def ask(self, prompt="hi", *, stream=False, **said):
        if self._runner is None:
            return self._told(prompt, stream, said)
        return self._runner.run(self._told_async(prompt, stream, said))

    def _told(self, prompt, stream, said):
        words = []
        try:
            if not stream:
                response = self.client.ask(prompt, **said)
                return Came([response.text], response, None)
            running = self.client.stream(prompt, **said)
            for word in running:
                words.append(word)
            return Came(words, running.response, None)
        except PolyvoxError as error:
            return Came(words, None, error)

    async def _told_async(self, prompt, stream, said):
        words = []
        try:
            if not stream:
                response = await self.client.ask(prompt, **said)
                return Came([response.text], response, None)
            running = self.client.stream(prompt, **said)
            async for word in running:
                words.append(word)
            return Came(words, running.response, None)
        except PolyvoxError as error:
            return Came(words, None, error)

    def close(self):
        if self._runner is None:
            self.client.close()
        else:
            self._runner.run(self.client.close())
            self._runner.close()
        for where in self.places:
            assert where.server.wait_for(lambda it: it.open_connections == 0), "a connection is left"


@pytest.fixture(params=["Client", "AsyncClient"])
def calling(request):
    """Makes callers, and closes them after the test."""
    made = []

    def calling(*places, **facts):
        made.append(Caller(request.param, places, **facts))
        return made[-1]

    yield calling
    for each in made:
        each.close()


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request):
    """Whether the answer is streamed."""
    return request.param


class Hand:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The clock of pools."""
    hand = Hand()
    monkeypatch.setitem(Pools.__init__.__kwdefaults__, "clock", hand)
    return hand


@pytest.fixture(autouse=True)
def waits(monkeypatch, clock):
    """The seconds that calls waited between tries. They pass at once, and chance is always in the middle."""
    waited = []

    async def sleeping(seconds):
        waited.append(seconds)
        clock.now += seconds

    monkeypatch.setitem(Engine.__init__.__kwdefaults__, "sleep", sleeping)
    monkeypatch.setitem(Engine.__init__.__kwdefaults__, "chance", lambda: 0.5)
    return waited


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


# ---- 1, 2: too many requests ------------------------------------------------------------------


def test_1_where_nobody_else_can_answer_the_time_that_a_server_asks_for_is_waited(place, calling, stream, waits):
    here = place(refusing(429, "retry-after: 7"), well())
    calling(here).ask(stream=stream).ended_well(("first", "rate_limit"), ("first", "ok"))
    assert here.heard == [HI, HI] and waits == [7.0]


def test_1_where_another_can_answer_nobody_waits_and_who_asked_for_time_is_given_it(
    place, calling, stream, waits, clock
):
    one, other = place(refusing(429, "retry-after: 7"), well()), place(well())
    caller = calling(one, other)
    caller.ask(stream=stream).ended_well(("first", "rate_limit"), ("second", "ok"))
    clock.now += 6.9
    caller.ask(stream=stream).ended_well(("second", "ok"))
    assert (one.heard, other.heard, waits) == ([HI], [HI, HI], [])
    clock.now += 0.2
    caller.ask(stream=stream).ended_well(("first", "ok"))
    assert (len(one.heard), len(other.heard)) == (2, 2)


def test_1_a_longer_wait_than_a_call_has_is_the_end_of_it_at_once(place, calling, stream, waits):
    here = place(refusing(429, "retry-after: 30"))
    found = calling(here).ask(stream=stream, timeout=10).ended_in("rate_limit", ("first", "rate_limit"))
    assert here.heard == [HI] and waits == [] and found.error.retry_after == 30


def test_2_where_no_server_says_how_long_the_waits_grow_and_have_an_end(place, calling, stream, waits):
    here = place(refusing(429))
    calling(here).ask(stream=stream).ended_in("rate_limit", *[("first", "rate_limit")] * 3)
    assert here.heard == [HI] * 3 and waits == [1.0, 2.0]


def test_2_where_another_can_answer_it_is_asked_at_once(place, calling, stream, waits):
    one, other = place(refusing(429)), place(well())
    calling(one, other).ask(stream=stream).ended_well(("first", "rate_limit"), ("second", "ok"))
    assert (one.heard, other.heard, waits) == ([HI], [HI], [])


# ---- 3, 4, 5: failures before an answer -------------------------------------------------------

FAILURES = {
    "500": (refusing(500), "server"),
    "503": (refusing(503), "server"),
    "reset": (steps(rst), "connection"),
    "bad answer": (steps(answer(b"<html>a page", "content-type: text/html")), "bad_response"),
}
FAILING = pytest.mark.parametrize(("failure", "kind"), FAILURES.values(), ids=FAILURES)


@FAILING
def test_3_a_failure_that_happens_once_is_mended_where_it_happened(place, calling, stream, waits, failure, kind):
    one, other = place(failure, well()), place(well())
    calling(one, other).ask(stream=stream).ended_well(("first", kind), ("first", "ok"))
    assert (one.heard, other.heard, waits) == ([HI, HI], [], [0.25])


@FAILING
def test_4_5_one_that_goes_on_failing_is_tried_once_more_and_then_another_answers(
    place, calling, stream, waits, failure, kind
):
    one, other = place(failure), place(well())
    calling(one, other).ask(stream=stream).ended_well(("first", kind), ("first", kind), ("second", "ok"))
    assert (one.heard, other.heard, waits) == ([HI, HI], [HI], [0.25])


def test_4_where_all_fail_the_error_has_every_attempt(place, calling, stream):
    one, other = place(refusing(503)), place(steps(rst))
    found = calling(one, other).ask(stream=stream)
    assert set(found.went) == {("first", "server"), ("second", "connection")}
    assert found.error.decision.asked[0] == "first" and found.error.retryable
    assert len(one.heard) + len(other.heard) == len(found.went) <= 6


def test_4_where_all_go_on_failing_retries_stay_within_their_budget_and_an_error_comes_at_once(
    place, calling, stream, waits
):
    one, other = place(refusing(503)), place(refusing(503))
    caller = calling(one, other)
    for _ in range(60):
        found = caller.ask(stream=stream)
        assert found.error.kind == "server" and {name for name, _ in found.went} <= {"first", "second"}
    # Of 500 tokens a retry takes 14; besides, each call asks once, and who is left alone is not asked.
    assert len(one.heard) + len(other.heard) <= 2 * (60 + 500 // 14)
    assert len(waits) <= 2 * (500 // 14) and max(waits) <= 1.0


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (refusing(401), "auth"),
        (refusing(403), "permission"),
        (refusing(402), "billing"),
        (refusing(429, code="insufficient_quota"), "quota"),
        (refusing(404), "not_found"),
        (refusing(503, "x-should-retry: false"), "server"),
    ],
)
def test_4_what_only_another_key_or_provider_mends_is_asked_for_there_at_once(
    place, calling, stream, waits, refusal, kind
):
    one, other = place(refusal), place(well())
    calling(one, other).ask(stream=stream).ended_well(("first", kind), ("second", "ok"))
    assert (one.heard, other.heard, waits) == ([HI], [HI], [])


# ---- 6, 7: nothing comes ----------------------------------------------------------------------


def test_6_where_no_answer_begins_another_is_asked_and_the_first_not_again(place, calling, stream):
    one, other = place(steps(stall)), place(well())
    caller = calling(one, other, first_byte_timeout=QUICK)
    caller.ask(stream=stream).ended_well(("first", "timeout"), ("second", "ok"))
    assert (one.heard, other.heard) == ([HI], [HI])


def test_6_where_there_is_no_other_a_call_ends_and_is_not_paid_twice(place, calling, stream):
    here = place(steps(stall))
    calling(here, first_byte_timeout=QUICK).ask(stream=stream).ended_in("timeout", ("first", "timeout"))
    assert here.heard == [HI]


@pytest.mark.parametrize("begun", [(), (sse(piece({"role": "assistant", "content": ""})).encode(), b": wait\n\n")])
def test_7_where_the_first_words_are_slow_another_answers(place, calling, begun):
    one, other = place(steps(opened(*begun), stall)), place(well())
    caller = calling(one, other, routing=Routing(first_token=QUICK))
    caller.ask(stream=True).ended_well(("first", "timeout"), ("second", "ok"))
    assert (one.heard, other.heard) == ([HI], [HI])
    assert one.server.wait_for(lambda it: it.open_connections == 0)


def test_7_words_that_have_begun_may_be_slow(place, calling):
    slow = steps(opened(words_of(WORDS[:1])), sleep(3 * QUICK), send(chunked(words_of(WORDS[1:]) + END + DONE)), fin)
    one, other = place(slow), place(well())
    calling(one, other, routing=Routing(first_token=QUICK)).ask(stream=True).ended_well(("first", "ok"))
    assert other.heard == []


# ---- 8, 9, 10, 11: an answer that breaks ------------------------------------------------------

NO_JSON = send(chunked(b'data: {"choices": [{"delta": {"content": "n\n\n'))
BREAKS = {
    "reset": ([sleep(0.05), rst], "stream_interrupted"),
    "end": ([fin], "stream_interrupted"),
    "stall": ([stall], "stream_interrupted"),
    "bad chunk": ([NO_JSON, stall], "bad_response"),
    "no end marker": ([send(b"0\r\n\r\n")], "stream_interrupted"),
}
BREAKING = pytest.mark.parametrize(("then", "kind"), BREAKS.values(), ids=BREAKS)
SAID = "".join(WORDS[:2])


@BREAKING
def test_8_to_11_a_stream_that_breaks_is_an_error_with_what_came_and_nobody_else_is_asked(place, calling, then, kind):
    one, other = place(broken_after(2, *then)), place(well())
    caller = calling(one, other, idle_timeout=QUICK)
    caller.ask(stream=True).ended_in(kind, ("first", kind), text=SAID)
    assert (one.heard, other.heard) == ([HI], [])


@BREAKING
def test_8_to_11_where_that_was_asked_for_another_goes_on_and_the_answer_says_so(place, calling, then, kind):
    one, other = place(broken_after(2, *then)), place(well(WORDS[2:]))
    found = calling(one, other, idle_timeout=QUICK, routing=ELSEWHERE).ask(stream=True)
    found.ended_well(("first", kind), ("second", "ok"))
    ((role, asked), (said_by, said), (then_by, then_asked)) = other.heard[0]
    assert (role, asked, said_by, said, then_by) == ("user", "hi", "assistant", SAID, "user")
    assert "very next word" in then_asked and (one.heard, len(other.heard)) == ([HI], 1)
    (seam,) = [loss for loss in found.response.losses if loss.field == "answer"]
    assert "first broke off" in seam.why and found.response.deployment == "second"


@BREAKING
def test_8_to_11_a_stream_that_breaks_before_its_first_words_is_begun_anew(place, calling, then, kind):
    one, other = place(broken_after(0, *then)), place(well())
    caller = calling(one, other, idle_timeout=QUICK)
    caller.ask(stream=True).ended_well(("first", kind), ("first", kind), ("second", "ok"))
    assert (one.heard, other.heard) == ([HI, HI], [HI])


@pytest.mark.parametrize(
    ("then", "outcomes"),
    [([sleep(0.05), rst], ["stream_interrupted"] * 2), ([fin], ["stream_interrupted"] * 2), ([stall], ["timeout"])],
    ids=["reset", "end", "stall"],
)
def test_8_9_a_whole_answer_that_breaks_is_asked_for_elsewhere(place, calling, then, outcomes):
    one, other = place(broken_after(2, *then)), place(well())
    went = [("first", outcome) for outcome in outcomes]
    calling(one, other, idle_timeout=QUICK).ask().ended_well(*went, ("second", "ok"))
    assert (one.heard, other.heard) == ([HI] * len(went), [HI])


def anthropic(*events):
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def said_in_anthropic(words, *then):
    message = {"id": "c", "type": "message", "role": "assistant", "model": "served", "content": [],
               "usage": {"input_tokens": 7, "output_tokens": 1}}  # fmt: skip
    begun = anthropic(
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in words],
    )
    return steps(send(head_of("anthropic.messages") + chunked(begun)), *then)


IN_ANTHROPIC = anthropic(
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
)
FAILS_IN_ANTHROPIC = anthropic({"type": "error", "error": {"type": "overloaded_error", "message": "no"}})


@pytest.mark.parametrize(
    ("then", "kind"),
    [([sleep(0.05), rst], "stream_interrupted"), ([send(chunked(FAILS_IN_ANTHROPIC)), stall], "overloaded")],
    ids=["reset", "told"],
)
def test_8_a_whole_answer_that_has_to_come_as_a_stream_is_begun_anew_though_words_had_come(
    place, calling, ledger, then, kind
):
    one = place(said_in_anthropic(WORDS[:2], *then))
    other = place(said_in_anthropic(WORDS, send(chunked(IN_ANTHROPIC) + b"0\r\n\r\n")))
    speaks = [{"dialect": "anthropic.messages", "base_url": where.server.url} for where in (one, other)]
    caller = calling(one, other, first=speaks[0], second=speaks[1], ledger=ledger)
    caller.ask(max_tokens=100_000).ended_well(("first", kind), ("first", kind), ("second", "ok"))
    assert [asked["stream"] for asked in (*one.asked, *other.asked)] == [True] * 3
    assert len(only(ledger).attempts) == 3


def test_8_a_stream_that_breaks_again_and_again_is_gone_on_with_from_all_that_came(place, calling):
    one, other = place(broken_after(1, rst)), place(steps(opened(words_of(WORDS[1:2])), rst))
    last = place(well(WORDS[2:]))
    found = calling(one, other, last, routing=ELSEWHERE).ask(stream=True)
    found.ended_well(("first", "stream_interrupted"), ("second", "stream_interrupted"), ("third", "ok"))
    assert [turns[1] for turns in other.heard] == [("assistant", WORDS[0])]
    assert [turns[1] for turns in last.heard] == [("assistant", SAID)] and one.heard == [HI]


def test_8_a_stream_is_gone_on_with_by_the_next_where_one_fails_to(place, calling):
    one, other, last = place(broken_after(2, rst)), place(refusing(401)), place(well(WORDS[2:]))
    found = calling(one, other, last, routing=ELSEWHERE).ask(stream=True)
    found.ended_well(("first", "stream_interrupted"), ("second", "auth"), ("third", "ok"))
    assert len(other.heard[0]) == len(last.heard[0]) == 3


def test_8_a_stream_that_nobody_can_go_on_with_is_an_error_with_all_that_came(place, calling):
    one, other = place(broken_after(2, rst)), place(refusing(401))
    found = calling(one, other, routing=ELSEWHERE).ask(stream=True)
    assert found.error is not None and found.text == SAID == found.error.partial.text
    assert found.went[0] == ("first", "stream_interrupted") and ("second", "auth") in found.went


def test_11_a_stream_that_said_why_it_ended_is_whole_without_its_mark(place, calling):
    unmarked = steps(opened(words_of() + END), send(b"0\r\n\r\n"))
    one, other = place(unmarked), place(well())
    calling(one, other).ask(stream=True).ended_well(("first", "ok"))
    assert (one.heard, other.heard) == ([HI], [])


# ---- 12, 13, 14: refusals ---------------------------------------------------------------------

TOO_LONG = refusing(400, code="context_length_exceeded", message="This model's maximum context length is 8 tokens.")
FILTERED = refusing(400, code="content_filter", message="The prompt was filtered.")


CONTEXTS = {"deepseek/deepseek-chat": 64_000, "openai/gpt-4": 8_192, "mistral/mistral-small-latest": 256_000}


def test_12_a_prompt_that_is_too_long_goes_to_one_with_more_context(place, calling, stream):
    places = small, _, large = place(TOO_LONG), place(well()), place(well())
    assert [catalog.load().resolve(name).info.context for name in CONTEXTS] == [*CONTEXTS.values()]
    found = calling(*places, models=CONTEXTS).ask(stream=stream)
    found.ended_well(("first", "context_length"), ("third", "ok"))
    assert [len(where.heard) for where in places] == [1, 0, 1]
    assert small.heard == large.heard == [HI]
    assert "longer" in found.response.decision.skipped["second"]


def test_12_a_prompt_that_is_known_to_be_too_long_is_not_sent(place, calling, stream):
    places = small, smaller, large = place(well()), place(well()), place(well())
    prompt = "word " * 80_000
    found = calling(*places, models=CONTEXTS).ask(prompt, stream=stream).ended_well(("third", "ok"))
    assert (small.heard, smaller.heard, large.heard) == ([], [], [[("user", prompt)]])
    assert set(found.response.decision.skipped) == {"first", "second"}


IMAGE = [Message("user", (Text("what is this?"), Image(data=b"\x89PNG\r\n\x1a\n", media_type="image/png")))]


def test_12_a_fallback_that_has_not_what_a_call_needs_is_passed_by_with_the_reason(place, calling, stream):
    models = ("mistral/mistral-small-latest", "deepseek/deepseek-v4-pro", "openai/gpt-4o")
    one, lacking, last = place(refusing(401)), place(well()), place(well())
    assert "vision" not in catalog.load().resolve(models[1]).info.capabilities
    found = calling(one, lacking, last, models=models).ask(IMAGE, stream=stream)
    found.ended_well(("first", "auth"), ("third", "ok"))
    assert (len(one.heard), lacking.heard, len(last.heard)) == (1, [], 1)
    assert "images" in found.response.decision.skipped["second"]


def thinking(text):
    """An answer in another protocol, with a thought that only its maker can read."""
    content = [{"type": "thinking", "thinking": "hm", "signature": "c2lnbmVk"}, {"type": "text", "text": text}]
    said = {"id": "c", "type": "message", "role": "assistant", "model": "served", "content": content,
            "stop_reason": "end_turn", "usage": {"input_tokens": 7, "output_tokens": 4}}  # fmt: skip
    return steps(answer(json.dumps(said).encode(), "content-type: application/json"))


def test_12_a_thought_goes_back_to_its_maker_and_is_left_out_for_a_fallback(place, calling):
    one, other = place(thinking("one"), thinking("two"), refusing(401)), place(thinking("three"))
    speaks = {"dialect": "anthropic.messages"}
    caller = calling(
        one, other, first={**speaks, "base_url": one.server.url}, second={**speaks, "base_url": other.server.url}
    )
    history = [Message("user", (Text("hi"),))]
    for _ in range(3):
        found = caller.ask(history)
        history += [found.response.message, Message("user", (Text("go on"),))]
    assert found.went == [("first", "auth"), ("second", "ok")]
    sent_back = [json.dumps(asked["messages"]).count("c2lnbmVk") for asked in one.asked]
    assert (sent_back, [json.dumps(asked["messages"]).count("c2lnbmVk") for asked in other.asked]) == ([0, 1, 2], [0])
    assert [loss for loss in found.response.losses if loss.severity == "loss"]


def test_12_where_nobody_has_more_context_the_prompt_is_refused_and_nothing_of_it_left_out(place, calling, stream):
    one, other = place(TOO_LONG), place(well())
    found = calling(one, other).ask(stream=stream).ended_in("context_length", ("first", "context_length"))
    assert (one.heard, other.heard) == ([HI], [])
    assert "longer" in found.error.decision.skipped["second"]


def test_13_a_prompt_that_one_refuses_is_shown_to_nobody_else(place, calling, stream):
    one, other = place(FILTERED), place(well())
    found = calling(one, other).ask(stream=stream).ended_in("content_policy", ("first", "content_policy"))
    assert (one.heard, other.heard) == ([HI], []) and not found.error.retryable


def test_13_a_prompt_that_one_refuses_is_shown_to_another_where_that_was_asked_for(place, calling, stream):
    one, other = place(FILTERED), place(well())
    caller = calling(one, other, routing=Routing(after_refusal=True))
    caller.ask(stream=stream).ended_well(("first", "content_policy"), ("second", "ok"))
    assert (one.heard, other.heard) == ([HI], [HI])


def refusing_prefill(script):
    """One that refuses a prompt that ends with a turn of the model's."""
    no = refusing(400, message="This model does not support assistant message prefill.")
    return lambda asked: (no if asked["messages"][-1]["role"] == "assistant" else script)(asked)


BEGUN = [Message("user", (Text("hi"),)), Message("assistant", (Text("The "),))]
BEGUN_SENT = [("user", "hi"), ("assistant", "The ")]


def test_14_a_stream_is_gone_on_with_by_one_that_refuses_prefill(place, calling):
    one, other = place(broken_after(2, rst)), place(refusing_prefill(well(WORDS[2:])))
    found = calling(one, other, routing=ELSEWHERE).ask(stream=True)
    found.ended_well(("first", "stream_interrupted"), ("second", "ok"))
    assert [turn[0] for turn in other.heard[0]] == ["user", "assistant", "user"]


def test_14_a_prompt_that_ends_with_the_model_s_turn_passes_by_one_that_refuses_prefill(place, calling, stream):
    one, other, last = place(refusing(503)), place(refusing_prefill(well())), place(well(WORDS[1:]))
    found = calling(one, other, last).ask(BEGUN, stream=stream)
    found.ended_well(
        ("first", "server"),
        ("first", "server"),
        ("second", "invalid_request"),
        ("third", "ok"),
        text="".join(WORDS[1:]),
    )
    assert (one.heard, other.heard, last.heard) == ([BEGUN_SENT] * 2, [BEGUN_SENT], [BEGUN_SENT])


def test_14_where_only_one_is_left_that_refuses_prefill_that_is_an_error_and_no_answer(place, calling, stream):
    one, other = place(refusing(503)), place(refusing_prefill(well()))
    found = calling(one, other).ask(BEGUN, stream=stream)
    assert found.error is not None and found.text == ""
    assert found.went[-1] == ("second", "invalid_request") and other.heard == [BEGUN_SENT]


# ---- 15: flapping -----------------------------------------------------------------------------


def test_15_one_that_fails_every_other_time_costs_no_call_its_answer_and_is_left_alone(place, calling, stream):
    one, other = place(*[refusing(503), well()] * 20), place(well())
    caller = calling(one, other)
    for _ in range(10):
        caller.ask(stream=stream).ended_well(("first", "server"), ("first", "ok"))
    # Half of twenty attempts failed: it is asked no more for a while, not even by the call that saw it.
    caller.ask(stream=stream).ended_well(("first", "server"), ("second", "ok"))
    for _ in range(9):
        caller.ask(stream=stream).ended_well(("second", "ok"))
    assert (len(one.heard), len(other.heard)) == (21, 10)


def test_15_one_that_goes_on_failing_is_left_alone_and_asked_again_once_it_is_well(place, calling, stream, clock):
    one, other = place(*[refusing(503)] * 6, well()), place(well())
    caller = calling(one, other)
    for _ in range(15):
        found = caller.ask(stream=stream)
        assert found.error is None and found.text == TEXT
    # Five failures in a row are enough; the call that saw the fifth went elsewhere, and so did all after it.
    assert (len(one.heard), len(other.heard)) == (5, 15)
    assert "left alone" in found.response.decision.skipped["first"]
    clock.now += 15.1
    caller.ask(stream=stream)
    assert len(one.heard) == 6  # it is asked once to see how it is, and fails
    caller.ask(stream=stream).ended_well(("second", "ok"))
    clock.now += 30.1
    caller.ask(stream=stream).ended_well(("first", "ok"))
    caller.ask(stream=stream).ended_well(("first", "ok"))
    assert (len(one.heard), len(other.heard)) == (8, 17)


# ---- 16: accounting ---------------------------------------------------------------------------


PRICED = {"first": {"price": PRICE}, "second": {"price": {"input": 2, "output": 20}}}
COST = Decimal(2 * 7 + 20 * 4) / 1_000_000  # of the second's answer


def test_16_each_attempt_is_in_the_books_and_refusals_cost_nothing(place, calling, stream, ledger):
    one, other = place(refusing(503)), place(well())
    found = calling(one, other, ledger=ledger, **PRICED).ask(stream=stream, user="ann")
    row = only(ledger)
    assert (row.state, row.deployment, row.user, row.cost) == ("ok", "second", "ann", COST)
    kept = [(attempt.deployment, attempt.outcome, attempt.cost) for attempt in row.attempts]
    assert kept == [("first", "server", 0), ("first", "server", 0), ("second", "ok", COST)]
    assert [attempt.cost for attempt in found.attempts] == [0, 0, COST] and found.response.cost.amount == COST
    assert (row.usage.input, row.usage.output) == (7, 4)
    assert len(one.heard) + len(other.heard) == len(row.attempts)


def test_16_an_answer_that_broke_is_paid_for_and_so_is_what_goes_on_with_it(place, calling, ledger):
    one, other = place(broken_after(2, rst)), place(well(WORDS[2:]))
    caller = calling(one, other, ledger=ledger, routing=ELSEWHERE, **PRICED)
    found = caller.ask(stream=True).ended_well(("first", "stream_interrupted"), ("second", "ok"))
    row = only(ledger)
    broken, whole = row.attempts
    assert (broken.deployment, whole.deployment, whole.cost) == ("first", "second", COST)
    assert broken.cost > 0 and broken.usage.source == "estimated" and broken.usage.output > 0
    assert row.cost == broken.cost + whole.cost
    assert [attempt.cost for attempt in found.attempts] == [broken.cost, whole.cost]


def test_16_a_call_that_failed_everywhere_is_one_row_with_all_its_attempts(place, calling, stream, ledger):
    one, other = place(refusing(503)), place(refusing(500))
    found = calling(one, other, ledger=ledger, **PRICED).ask(stream=stream)
    row = only(ledger)
    assert (row.state, row.error_kind, row.cost) == ("error", "server", 0)
    assert [(attempt.deployment, attempt.outcome) for attempt in row.attempts] == found.went
    assert len(one.heard) + len(other.heard) == len(row.attempts)


def test_16_the_sums_are_those_of_the_attempts(place, calling, ledger):
    one = place(refusing(503), well(), broken_after(2, rst), well(), refusing(429))
    other = place(well(WORDS[2:]), well())
    caller = calling(one, other, ledger=ledger, routing=ELSEWHERE, **PRICED)
    found = [caller.ask(stream=number % 2 == 1) for number in range(6)]
    kept = [ledger.history.get(row.id) for row in rows(ledger)]
    assert len(kept) == len(found) == 6
    for row in kept:
        assert row.cost == sum(attempt.cost for attempt in row.attempts)
    told = sum(attempt.cost for came in found for attempt in came.attempts)
    assert sum(row.cost for row in kept) == told > 0
    assert sum(len(row.attempts) for row in kept) == len(one.heard) + len(other.heard)


def test_16_what_nobody_can_know_the_cost_of_is_unknown_and_not_nothing(place, calling, stream, ledger):
    one, other = place(steps(stall)), place(well())
    found = calling(one, other, first_byte_timeout=QUICK, ledger=ledger, **PRICED).ask(stream=stream)
    found.ended_well(("first", "timeout"), ("second", "ok"))
    row = only(ledger)
    # The silent one may have worked on it: nobody knows, so nobody knows the sum.
    assert [attempt.cost for attempt in row.attempts] == [attempt.cost for attempt in found.attempts] == [None, COST]
    assert row.cost is None and found.response.cost.amount == COST
    assert (one.heard, other.heard) == ([HI], [HI])


def test_16_one_that_was_too_slow_after_its_head_is_paid_for(place, calling, ledger):
    slow = steps(opened(sse(piece({"role": "assistant", "content": ""})).encode()), stall)
    one, other = place(slow), place(well())
    caller = calling(one, other, ledger=ledger, routing=Routing(first_token=QUICK), **PRICED)
    caller.ask(stream=True).ended_well(("first", "timeout"), ("second", "ok"))
    row = only(ledger)
    left, whole = row.attempts
    assert left.cost > 0 and left.usage.source == "estimated" and whole.cost == COST
    assert row.cost == left.cost + whole.cost
    assert (one.heard, other.heard) == ([HI], [HI])
