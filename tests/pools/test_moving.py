"""Where a call goes after a failure, what it goes on with, what is learned of each attempt, and what the record of it
says."""

import asyncio
import json
from decimal import Decimal

import pytest
from msgspec.structs import replace

from polyvox.errors import LossError, PolyvoxError, RateLimitError
from polyvox.limits import LimitsAwayError, MemoryLeases
from polyvox.pools import NoDeploymentError, Routing
from polyvox.routing.needs import Abilities
from polyvox.testing.virtual import Virtual
from polyvox.types import Cost, Ended, File, Image, Message, Reasoning, Started, Text, TextDelta, Usage
from tests.pools.world import REQUEST, Place, Slow, World, failing, options, under_time, went
from tests.scripted import Answer, failed, piece, said, streamed

ONE = {"limits": {"concurrency": 1}}
GOING_ON = Routing(continue_streams=True)


async def read(run):
    """All events of a stream, and the error that it ended with."""
    events = []
    try:
        while batch := await run.batch():
            events += batch
    except PolyvoxError as error:
        return events, error
    return events, None


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def broken(*texts):
    return streamed(*texts, end=False)


# ---- here, or elsewhere -----------------------------------------------------------------------


@under_time
async def test_who_would_be_asked_again_and_has_no_room_by_then_is_not_waited_for(virtual):
    world = World(virtual, entries={"a": ONE}, a=Place(failed(503), Slow(50, said("other"))), b=Place(said("b")))
    task = world.begin()
    await asyncio.sleep(0.1)
    other = world.begin("a")
    assert went(await task) == [("a", "server"), ("b", "ok")] and world.now == 0.25
    assert (await other).text == "other" and world.held() == {}
    assert world.member("a").budget.left == 500  # it was not asked again, so that took nothing


@under_time
async def test_who_has_no_room_is_not_waited_for_while_a_failure_may_mend_where_it_was(virtual):
    world = World(
        virtual, entries={"b": ONE}, chance=0.9, a=Place(failed(503), said("mended")), b=Place(Slow(50, said("b")))
    )
    other = world.begin("b")
    await asyncio.sleep(1)
    assert went(await world.ask(timeout=10)) == [("a", "server"), ("a", "ok")]
    await other
    assert world.held() == {}


@under_time
async def test_a_retry_takes_from_the_budget_of_the_one_that_failed_and_only_it_gets_that_back(virtual):
    world = World(virtual, a=Place(*[failed(503)] * 2, failed(503), said("mended")), b=Place(said("b")))
    world.pools.named("*").members[1].budget.left = 400
    assert went(await world.ask()) == [("a", "server"), ("a", "server"), ("b", "ok")]
    assert (world.member("a").budget.left, world.member("b").budget.left) == (486, 401)
    assert went(await world.ask()) == [("a", "server"), ("a", "ok")]
    assert world.member("a").budget.left == 486


@under_time
async def test_a_call_that_one_alone_can_serve_asks_it_though_it_is_left_alone_after_failures(virtual):
    kept = replace(REQUEST, messages=(Message("user", (Text("see"), File(file_id="f", origin="b"))),))
    world = World(
        virtual, retries=0, a=Place(then=lambda: said("a")), b=Place(*[failed(503)] * 5, then=lambda: said("b"))
    )
    for _ in range(5):
        await failing(world.ask("b"))
    answer = await world.ask(request=kept)
    assert went(answer) == [("b", "ok")] and answer.decision.bound == ("b",)
    assert went(await world.ask()) == [("a", "ok")]


@under_time
async def test_no_call_goes_from_a_failure_to_one_that_is_left_alone(virtual):
    world = World(virtual, retries=0, a=Place(then=lambda: failed(401)), b=Place(then=lambda: failed(503)))
    for _ in range(5):
        await failing(world.ask("b"))
    error = await failing(world.ask())
    assert went(error) == [("a", "auth")] and error.decision.skipped == {"b": "is left alone after failures"}
    assert len(world.places["b"].sent) == 5


@under_time
async def test_who_is_able_to_what_a_call_needs_is_asked_and_others_say_why_not(virtual):
    abilities = {"a": Abilities(images=False), "b": Abilities(images=True)}
    world = World(virtual, abilities=abilities, a=Place(said("a")), b=Place(said("b")))
    picture = replace(REQUEST, messages=(Message("user", (Image(data=b"x", media_type="image/png"),)),))
    answer = await world.ask(request=picture)
    assert answer.deployment == "b" and answer.decision.skipped == {"a": "takes no images"}
    # Whoever has no choice hears from the provider itself.
    assert (await world.ask("a", request=picture)).deployment == "a"


@under_time
async def test_where_nobody_is_able_nobody_is_asked_and_the_error_says_why_of_each(virtual):
    abilities = {"a": Abilities(images=False), "b": Abilities(images=False)}
    world = World(virtual, abilities=abilities, a=Place(), b=Place())
    picture = replace(REQUEST, messages=(Message("user", (Image(data=b"x", media_type="image/png"),)),))
    error = await failing(world.ask(request=picture))
    assert isinstance(error, NoDeploymentError) and error.sent == "no" and error.billed is False
    assert set(error.decision.skipped) == {"a", "b"} and "takes no images" in error.message


@under_time
async def test_files_that_different_deployments_keep_can_be_read_by_none_of_them(virtual):
    world = World(virtual, a=Place(), b=Place())
    parts = (File(file_id="f", origin="a"), File(file_id="g", origin="b"))
    error = await failing(world.ask(request=replace(REQUEST, messages=(Message("user", parts),))))
    assert isinstance(error, NoDeploymentError) and error.decision.bound == ("a", "b")
    assert set(error.decision.skipped) == {"a", "b"} and "keep" in error.message


@under_time
async def test_ten_attempts_are_enough_however_many_deployments_there_are(virtual):
    names = [f"d{number:02}" for number in range(20)]
    world = World(virtual, **{name: Place(then=lambda: failed(500)) for name in names})
    error = await failing(world.ask())
    assert len(error.attempts) == 10 and world.held() == {}


# ---- what is learned --------------------------------------------------------------------------


@under_time
async def test_who_was_left_or_lost_a_race_or_was_never_asked_has_no_errors(virtual):
    class Refusing:
        counts = False

        def account(self, facts):
            return self

        async def admit(self, at_most, at):
            raise LimitsAwayError("away")

        async def close(self, *told):
            pass

        def left(self, *told):
            pass

    world = World(virtual, retries=0, books=Refusing(), a=Place())
    await failing(world.ask())
    assert (world.member("a").standing.calls, world.member("a").standing.errors) == (1, 0)

    routing = Routing(hedge_after=1, hedge_share=1)
    world = World(virtual, routing, a=Place(Slow(9, said("late")), Slow(9, said("late"))), b=Place(said("b")))
    assert went(await world.ask()) == [("a", "hedged"), ("b", "ok")]
    task = world.begin("a")
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert (world.member("a").standing.calls, world.member("a").standing.errors) == (2, 0)


@pytest.mark.parametrize(("words", "state"), [(["well"], "closed"), ([], "open")])
def test_a_call_s_end_in_the_middle_of_an_answer_speaks_against_nobody_and_one_without_any_does(words, state):
    async def main(virtual):
        def slow():
            return Answer(*(piece({"content": word}) for word in words), 100)

        world = World(virtual, retries=0, a=Place(then=slow))
        for _ in range(5):
            events, error = await read(world.stream(timeout=3))
            assert error.kind == "timeout" and text_of(events) == "".join(words)
        assert world.member("a").breaker.state(virtual.clock()) == state and world.held() == {}

    Virtual(1).run(main)


@under_time
async def test_whoever_gets_the_last_of_a_call_s_time_after_others_spent_it_is_not_blamed_for_its_end(virtual):
    slow, well = Place(then=lambda: Slow(9, failed(401))), Place(then=lambda: Slow(2, said("b")))
    world = World(virtual, a=slow, b=well)
    for _ in range(6):
        assert went(await failing(world.ask(timeout=10))) == [("a", "auth"), ("b", "timeout")]
    assert world.member("b").standing.errors == 0
    assert world.member("b").breaker.state(virtual.clock()) == "closed"
    assert went(await world.ask(timeout=30))[-1] == ("b", "ok")


@under_time
async def test_a_hedge_that_cannot_be_had_harms_nobody(virtual):
    class Away(MemoryLeases):
        def take(self, key, limits=None, tokens=0):
            if key == "b":
                raise LimitsAwayError("away")
            return super().take(key, limits, tokens)

    routing = Routing(hedge_after=1, hedge_share=0.5)
    world = World(virtual, routing, leases=Away(clock=virtual.clock), a=Place(Slow(5, said("a"))), b=Place())
    left = world.pools.named("*").hedging._left
    assert went(await world.ask()) == [("a", "ok")] and world.held() == {}
    assert world.pools.named("*").hedging._left == left + 0.5  # what was not used is there for the next one


# ---- two at once ------------------------------------------------------------------------------

HEDGED = Routing(hedge_after=1, hedge_share=1)


@pytest.mark.parametrize("stream", [False, True])
def test_of_two_that_answer_at_the_same_moment_one_answers_and_both_are_told(stream):
    async def main(virtual):
        one, other = (streamed("a"), streamed("b")) if stream else (said("a"), said("b"))
        world = World(virtual, HEDGED, a=Place(Slow(2, one)), b=Place(Slow(1, other)))
        answer = await world.ask(request=replace(REQUEST, stream=stream))
        assert sorted(went(answer)) in ([("a", "ok"), ("b", "hedged")], [("a", "hedged"), ("b", "ok")])
        lost = next(attempt for attempt in answer.attempts if attempt.outcome == "hedged")
        assert lost.sent == "yes" and answer.text == answer.deployment
        assert world.held() == {} and world.now == 2

    Virtual(1).run(main)


@pytest.mark.parametrize("stream", [False, True])
def test_one_that_fails_at_the_moment_the_other_answers_has_failed(stream):
    async def main(virtual):
        other = streamed("b") if stream else said("b")
        no = failed(429, headers={"retry-after": "40"})
        world = World(virtual, HEDGED, a=Place(Slow(2, no)), b=Place(Slow(1, other)))
        answer = await world.ask(request=replace(REQUEST, stream=stream))
        assert sorted(went(answer)) == [("a", "rate_limit"), ("b", "ok")]
        assert world.member("a").learned.full(virtual.clock()).wait == 40 and world.held() == {}
        assert answer.decision.steps == ("after rate_limit at a: elsewhere",)

    Virtual(1).run(main)


@pytest.mark.parametrize("stream", [False, True])
def test_where_the_first_fails_meanwhile_the_second_goes_on_and_where_both_do_a_third_is_asked(stream):
    async def main(virtual):
        last = streamed("c") if stream else said("c")
        world = World(
            virtual, HEDGED, retries=0,
            a=Place(Slow(2, failed(500))), b=Place(Slow(5, failed(500))), c=Place(last),
        )  # fmt: skip
        answer = await world.ask(request=replace(REQUEST, stream=stream))
        assert went(answer) == [("a", "server"), ("b", "server"), ("c", "ok")]
        assert answer.decision.asked == ("a", "b", "c") and world.now == 6 and world.held() == {}
        assert answer.decision.steps == ("after server at a: elsewhere", "after server at b: elsewhere")

    Virtual(1).run(main)


@pytest.mark.parametrize("stream", [False, True])
def test_what_failed_before_the_other_of_two_answered_is_among_the_steps(stream):
    async def main(virtual):
        last = streamed("b") if stream else said("b")
        world = World(virtual, HEDGED, retries=0, a=Place(Slow(2, failed(500))), b=Place(Slow(5, last)))
        answer = await world.ask(request=replace(REQUEST, stream=stream))
        assert went(answer) == [("a", "server"), ("b", "ok")] and world.held() == {}
        assert answer.decision.steps == ("after server at a: elsewhere",)

    Virtual(1).run(main)


class Estimated:
    """Who prices what broke off by what of it had come."""

    def begun(self, request, partial):
        return Usage(input=1, output=0, source="estimated"), Cost(Decimal("0.5"), source="catalog")

    def bill(self, request, answer):
        return Cost(Decimal(2), source="catalog")

    def most(self, request, bytes_out):
        return None


@under_time
async def test_each_of_two_that_broke_off_or_lost_after_they_began_is_paid_for(virtual):
    def silent(seconds):
        return Answer(piece({"role": "assistant", "content": ""}), seconds)

    world = World(
        virtual, HEDGED, retries=0, money=Estimated(), a=Place(silent(2)), b=Place(silent(5)), c=Place(streamed("c"))
    )
    answer = await world.stream().finish()
    assert [(one.deployment, one.cost) for one in answer.attempts] == [("a", Decimal("0.5")), ("b", Decimal("0.5")),
                                                                       ("c", 2)]  # fmt: skip
    world = World(virtual, HEDGED, money=Estimated(), a=Place(silent(9)), b=Place(streamed("b")))
    answer = await world.stream().finish()
    assert [(one.outcome, one.cost) for one in answer.attempts] == [("hedged", Decimal("0.5")), ("ok", 2)]
    world = World(virtual, HEDGED, money=Estimated(), a=Place(Slow(2, said("a"))), b=Place(Slow(1, said("b"))))
    assert [one.cost for one in (await world.ask()).attempts] == [2, 2]


@under_time
async def test_no_more_calls_are_asked_twice_than_their_share(virtual):
    world = World(
        virtual, Routing(hedge_after=1, hedge_share=0.1),
        a=Place(then=lambda: Slow(2, said("a"))), b=Place(then=lambda: Slow(2, said("b"))),
    )  # fmt: skip
    for _ in range(50):
        await world.ask()
    assert len(world.places["a"].sent) == 50 and 4 <= len(world.places["b"].sent) <= 6


@under_time
async def test_where_there_is_no_other_nobody_is_asked_twice(virtual):
    world = World(virtual, HEDGED, a=Place(Slow(5, said("a"))))
    assert went(await world.ask()) == [("a", "ok")]


# ---- going on with an answer that broke off ---------------------------------------------------


@under_time
async def test_the_events_of_an_answer_in_two_pieces_are_those_of_one(virtual):
    world = World(virtual, GOING_ON, a=Place(broken("one ", "two ")), b=Place(streamed("three ", "four")))
    run = world.stream()
    events, error = await read(run)
    assert error is None and text_of(events) == "one two three four" == run.response.text
    assert [type(event) for event in events].count(Started) == 1 and type(events[0]) is Started
    assert [type(event) for event in events].count(Ended) == 1 and type(events[-1]) is Ended
    parts = [event.part for event in events if getattr(event, "part", None) is not None]
    assert parts == sorted(parts) and set(parts) == {0, 1}
    assert len(run.response.message.parts) == 2
    assert went(run.response) == [("a", "stream_interrupted"), ("b", "ok")] and world.held() == {}


@under_time
async def test_an_error_that_a_stream_tells_in_its_middle_is_gone_on_from_elsewhere_and_never_here(virtual):
    told = b'data: {"error": {"message": "overloaded", "type": "server_error", "code": 503}}\n\n'
    one = Answer(piece({"role": "assistant", "content": "one "}), told)
    world = World(virtual, GOING_ON, a=Place(one, streamed("begins anew")), b=Place(streamed("two")))
    events, error = await read(world.stream())
    assert error is None and text_of(events) == "one two" and len(world.places["a"].sent) == 1


@under_time
async def test_who_goes_on_may_fail_before_its_first_word_and_then_another_goes_on(virtual):
    world = World(virtual, GOING_ON, retries=0, a=Place(broken("one ")), b=Place(failed(503)), c=Place(streamed("two")))
    run = world.stream()
    events, error = await read(run)
    assert error is None and text_of(events) == "one two"
    assert went(run.response) == [("a", "stream_interrupted"), ("b", "server"), ("c", "ok")]
    turns = json.loads(world.places["c"].sent[0].body)["messages"]
    assert turns[1] == {"role": "assistant", "content": "one "}


@under_time
async def test_what_had_come_counts_in_the_limit_that_the_whole_answer_has(virtual):
    world = World(virtual, GOING_ON, a=Place(broken("twelve bytes")), b=Place(streamed("more")))
    events, error = await read(world.stream(request=replace(REQUEST, max_tokens=50)))
    assert error is None and text_of(events) == "twelve bytesmore"
    limits = [json.loads(world.places[name].sent[0].body)["max_completion_tokens"] for name in "ab"]
    assert limits == [50, 47]


@under_time
async def test_where_all_who_could_go_on_fail_the_error_has_every_word_that_was_shown(virtual):
    world = World(virtual, GOING_ON, retries=0, a=Place(broken("one ")), b=Place(broken("two ")), c=Place(failed(503)))
    events, error = await read(world.stream())
    assert text_of(events) == "one two " == error.partial.text and not error.partial.complete
    assert [kind for _, kind in went(error)] == ["stream_interrupted", "stream_interrupted", "server"]
    assert world.held() == {}


@under_time
async def test_one_that_begins_to_go_on_and_breaks_before_its_first_word_takes_no_word_away(virtual):
    silent = Answer(piece({"role": "assistant", "content": ""}))
    world = World(virtual, GOING_ON, retries=0, a=Place(broken("one ")), b=Place(silent))
    events, error = await read(world.stream())
    assert text_of(events) == "one " == error.partial.text and error.kind == "stream_interrupted"


@under_time
async def test_one_that_failed_before_the_words_came_goes_on_with_them_when_it_has_room_again(virtual):
    world = World(
        virtual, GOING_ON, entries={"a": ONE},
        a=Place(failed(503), Slow(5, said("other")), streamed("two")), b=Place(Answer(piece({"content": "one "}), 9)),
    )  # fmt: skip
    task = asyncio.create_task(read(world.stream()))
    await asyncio.sleep(0.1)
    other = world.begin("a")
    events, error = await task
    assert error is None and text_of(events) == "one two" and (await other).text == "other"
    first, _, last = world.places["a"].bodies()
    assert len(first["messages"]) == 1 and last["messages"][1]["content"] == "one "


@under_time
async def test_who_goes_on_is_asked_with_what_had_come_also_where_it_was_asked_before(virtual):
    world = World(virtual, GOING_ON, a=Place(failed(503), broken("one ")), b=Place(failed(503), streamed("two")))
    events, error = await read(world.stream())
    assert error is None and text_of(events) == "one two"
    asked = [json.loads(sent.body)["messages"] for sent in world.places["b"].sent]
    assert len(asked) == 2 and asked[0] == asked[1] and asked[0][1]["content"] == "one "


CALL = {"index": 0, "id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at'}}


@pytest.mark.parametrize("deltas", [[{"tool_calls": [CALL]}], [{"content": "I look: "}, {"tool_calls": [CALL]}]])
def test_a_tool_call_that_broke_off_is_never_gone_on_with(deltas):
    async def main(virtual):
        world = World(virtual, GOING_ON, a=Place(Answer(*(piece(delta) for delta in deltas))), b=Place(streamed("no")))
        _, error = await read(world.stream())
        assert error.kind == "stream_interrupted" and world.places["b"].sent == [] and world.held() == {}

    Virtual(1).run(main)


@under_time
async def test_a_break_is_told_once_as_a_note_and_never_as_a_loss(virtual):
    world = World(virtual, GOING_ON, a=Place(broken("one ")), b=Place(streamed("two")))
    answer = await world.engine.stream(REQUEST, world.pools.named("*"), replace(options(), strict=True)).finish()
    (note,) = answer.losses
    assert (note.field, note.severity) == ("answer", "note") and "a broke off" in note.why


class ByTheWord:
    """Who prices what broke off by its words."""

    def begun(self, request, partial):
        return Usage(source="estimated"), Cost(Decimal(len(partial.text.split())), source="catalog")

    def most(self, request, bytes_out):
        return None


@pytest.mark.parametrize("end", ["deadline", "cancel", "break"])
def test_each_attempt_is_paid_for_its_own_words_however_an_answer_in_two_pieces_ends(end):
    async def main(virtual):
        told = []

        class Ends:
            def on_done(self, info):
                told.extend(one.cost for one in info.error.attempts)

        pieces = [piece({"content": "four "}), *([] if end == "break" else [99])]
        places = {"a": Place(broken("one ", "two ", "three ")), "b": Place(Answer(*pieces))}
        world = World(virtual, GOING_ON, retries=0, money=ByTheWord(), hooks=[Ends()], **places)
        run = world.stream(timeout=9)
        reading = asyncio.create_task(read(run))
        await asyncio.sleep(5)
        if end == "cancel":
            reading.cancel()
        await asyncio.wait([reading])
        await run.close()
        assert told == [3, 1] and world.held() == {}

    Virtual(1).run(main)


@under_time
async def test_where_nobody_asked_for_it_nothing_is_gone_on_with(virtual):
    world = World(virtual, a=Place(broken("one ")), b=Place(streamed("two")))
    events, error = await read(world.stream())
    assert text_of(events) == "one " == error.partial.text and world.places["b"].sent == []


# ---- strict -----------------------------------------------------------------------------------


@under_time
async def test_under_strict_what_nobody_can_say_is_asked_of_nobody(virtual):
    thought = Reasoning(text="hm", signature="s", origin="elsewhere")
    request = replace(REQUEST, messages=(*REQUEST.messages, Message("assistant", (thought,)), *REQUEST.messages))
    world = World(virtual, a=Place(), b=Place())
    error = await failing(world.engine.call(request, world.pools.named("*"), replace(options(), strict=True)))
    assert isinstance(error, LossError) and error.sent == "no" and world.held() == {}
    assert world.places["a"].sent == world.places["b"].sent == []


# ---- the record -------------------------------------------------------------------------------


@under_time
async def test_the_record_names_each_attempt_in_order_and_what_followed_it(virtual):
    world = World(virtual, a=Place(*[failed(503)] * 2), b=Place(failed(401)), c=Place(said("c")))
    answer = await world.ask()
    record = answer.decision
    assert [name for name, _ in went(answer)] == ["a", "a", "b", "c"] and record.asked == ("a", "b", "c")
    assert [step.split(":")[0] for step in record.steps] == [
        "after server at a",
        "after server at a",
        "after auth at b",
    ]
    assert json.loads(json.dumps(record.describe()))["asked"] == ["a", "b", "c"]
    assert record.named == "*" and record.skipped == {}


@under_time
async def test_to_look_how_a_call_would_go_asks_nobody_and_takes_nothing(virtual):
    world = World(virtual, retries=0, a=Place(failed(429, headers={"retry-after": "30"})), b=Place())
    await failing(world.ask("a"))
    for _ in range(3):
        record = world.pools.named("*").plan(REQUEST, options()).looked()
        assert record.asked == ("b",) and record.skipped == {"a": "the provider asked for a pause"}
    assert world.held() == {} and world.places["b"].sent == []


@under_time
async def test_an_error_of_this_side_has_the_record_too(virtual):
    world = World(virtual, Routing(queue=0), entries={"a": ONE}, a=Place(Slow(9, said("a"))))
    task = world.begin()
    await asyncio.sleep(1)
    error = await failing(world.ask())
    assert isinstance(error, RateLimitError) and error.decision.candidates[0].skipped
    await task


# ---- to whom a call is bound ------------------------------------------------------------------


@under_time
async def test_what_one_minted_goes_back_to_it_while_it_is_well_and_to_another_without_its_proof(virtual):
    thought = Reasoning(text="hm", signature="s", origin="b")
    request = replace(
        REQUEST, messages=(*REQUEST.messages, Message("assistant", (thought, Text("x"))), *REQUEST.messages)
    )
    world = World(virtual, retries=0, a=Place(then=lambda: said("a")), b=Place(said("b"), failed(503)))
    answer = await world.ask(request=request)
    assert answer.deployment == "b" and answer.decision.rather == ("b",)
    assert went(await world.ask(request=request)) == [("b", "server"), ("a", "ok")]


@under_time
async def test_an_answer_is_gone_on_from_where_it_was_given(virtual):
    world = World(virtual, chance=0.0, a=Place(failed(503), failed(503), failed(503)), b=Place(then=lambda: said("b")))
    answer = await world.ask()
    assert answer.deployment == "b"
    next_one = replace(REQUEST, extra={"openai.responses": {"previous_response_id": answer.id}})
    world.places["a"].then = lambda: said("a")
    assert (await world.ask(request=next_one)).deployment == "b"
    assert (await world.ask()).deployment == "a"


@under_time
async def test_calls_that_begin_alike_meet_the_same_deployment_and_others_spread(virtual):
    entries = {name: {"priority": 0} for name in "abcd"}
    world = World(virtual, entries=entries, **{name: Place(then=lambda: said("x")) for name in "abcd"})
    alike = [await world.ask(request=replace(REQUEST, cache_key="one")) for _ in range(10)]
    assert len({answer.deployment for answer in alike}) == 1 and alike[0].decision.sticky
    others = [await world.ask(request=replace(REQUEST, cache_key=f"key {number}")) for number in range(60)]
    assert len({answer.deployment for answer in others}) == 4
