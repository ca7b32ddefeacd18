"""An answer comes whole, and what it says is wrong or odd: an error of ours or an answer with what can be told of it,
never a guess and never an exception of somebody else's."""

import json
from decimal import Decimal

import pytest

from polyvox import Client
from polyvox.errors import PolyvoxError
from polyvox.ledger import Ledger
from polyvox.testing.fault_server import answer
from polyvox.types import ToolCall
from tests.faults.calls import (
    BODIES,
    CHAT,
    EVERY_DIALECT,
    TEXT,
    WHOLE,
    client_facts,
)
from tests.test_books import only
from tests.test_end_to_end import TYPES, sse

DONE = b"data: [DONE]\n\n"


def whole(body):
    return answer(body, "content-type: application/json")


def streamed(body, dialect=CHAT):
    return answer(body, f"content-type: {TYPES.get(dialect, 'text/event-stream')}")


def said(body, stream, dialect=CHAT):
    return (streamed if stream else whole)(body, *[dialect] * stream)


def heard(server, dialect=CHAT, *, stream, **given):
    """One call of a plain client: the answer, and its words as they came."""
    with Client(**client_facts(server.url, dialect, {"retries": 0, **given})) as client:
        if not stream:
            response = client.ask("hi")
            return response, response.text
        running = client.stream("hi")
        words = "".join(running)
        return running.response, words


# ---- bodies that say nothing, or not all (21, 22) ---------------------------------------------

EMPTY = {"nothing": b"", "null": b"null", "a list": b"[]", "a number": b"5", "a text": b'"x"', "an object": b"{}"}


@EVERY_DIALECT
@pytest.mark.parametrize("body", EMPTY.values(), ids=EMPTY)
def test_a_body_that_says_nothing_is_no_answer(told, serve, dialect, body):
    told(serve(whole(body)), stream=False, dialect=dialect, kept=1).ended_in("bad_response", sent="yes", tries=2)


@EVERY_DIALECT
@pytest.mark.parametrize("body", EMPTY.values(), ids=EMPTY)
def test_a_stream_that_says_nothing_is_never_a_success(told, serve, dialect, body):
    found = told(serve(streamed(body, dialect)), stream=True, dialect=dialect, kept=1)
    assert found.error is not None and found.text == "" and found.error.partial.text == ""
    assert found.error.kind in ("stream_interrupted", "bad_response", "server")
    assert 1 < len(found.outcomes) <= 3 and set(found.outcomes) == {found.error.kind}


@EVERY_DIALECT
def test_an_answer_cut_off_at_any_byte_is_an_error_of_ours(serve, dialect):
    body = WHOLE[dialect]
    cuts = iter(range(len(body)))

    async def script(connection):
        await whole(body[: next(cuts)])(connection)

    server = serve(script)
    with Client(**client_facts(server.url, dialect, {"retries": 0})) as client:
        for cut in range(len(body)):
            with pytest.raises(PolyvoxError) as caught:
                client.ask("hi")
            assert caught.value.kind == "bad_response", cut
            assert len(caught.value.message) < 600


# ---- letters and numbers (23, 24) -------------------------------------------------------------

LETTERS = {
    "no UTF-8": lambda body: body.replace("wörld".encode(), b"w\xffrld"),
    "half a surrogate": lambda body: body.replace("wörld".encode(), b"w\\ud800rld"),
    "UTF-16": lambda body: body.decode().encode("utf-16"),
}


@EVERY_DIALECT
@pytest.mark.parametrize("make", LETTERS.values(), ids=LETTERS)
def test_what_is_no_text_is_refused_and_what_came_before_it_is_text(told, serve, stream, dialect, make):
    body = make((BODIES if stream else WHOLE)[dialect])
    found = told(serve(said(body, stream, dialect)), stream=stream, dialect=dialect, kept=1)
    assert found.error is not None and found.error.kind in ("bad_response", "stream_interrupted")
    assert TEXT.startswith(found.text) and found.error.message.encode()
    assert (found.error.partial.text if found.error.partial else "") == found.text


@EVERY_DIALECT
def test_a_byte_order_mark_costs_no_word(told, serve, stream, dialect):
    body = b"\xef\xbb\xbf" + (BODIES if stream else WHOLE)[dialect]
    told(serve(said(body, stream, dialect)), stream=stream, dialect=dialect).ended_well()


def with_field(value, dialect):
    return WHOLE[dialect][:-1] + b', "x_odd": ' + value + b"}"


NO_JSON = {"NaN": b"NaN", "Infinity": b"-Infinity", "1e999": b"1e999", "lists": b"[" * 10_000 + b"]" * 10_000,
           "objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000}  # fmt: skip


@EVERY_DIALECT
@pytest.mark.parametrize("value", NO_JSON.values(), ids=NO_JSON)
def test_numbers_that_are_none_and_nesting_without_end_are_refused(told, serve, dialect, value):
    server = serve(whole(with_field(value, dialect)))
    told(server, stream=False, dialect=dialect, kept=1).ended_in("bad_response", sent="yes", tries=2)


@EVERY_DIALECT
def test_a_number_of_300_digits_is_kept_as_it_is(serve, dialect):
    response, text = heard(serve(whole(with_field(b"9" * 300, dialect))), dialect, stream=False)
    assert text == TEXT and response.extra[dialect]["x_odd"] == 10**300 - 1


@EVERY_DIALECT
def test_of_a_key_that_comes_twice_the_last_counts_and_the_body_keeps_both(serve, dialect):
    body = WHOLE[dialect][:-1] + b', "model": "the last"}'
    response, text = heard(serve(whole(body)), dialect, stream=False)
    assert (text, response.model) == (TEXT, "the last")
    assert response.raw == body and b'"served"' in response.raw


# ---- the end of a stream (43) -----------------------------------------------------------------


def piece(delta, finish=None, **facts):
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **facts}


A, B, STOP = piece({"content": "Hel"}), piece({"content": "lo"}), piece({}, "stop")

ENDS = {
    "missing": (sse(A, B, STOP).encode(), True),
    "twice": (sse(A, B, STOP).encode() + DONE * 2, True),
    "with spaces": (sse(A, B, STOP).encode() + b"data:   [DONE]  \n\n", True),
    "with data after it": (sse(A, B, STOP).encode() + DONE + sse(piece({"content": "XX"})).encode(), True),
    "early": (sse(A).encode() + DONE + sse(B, STOP).encode(), False),
    "without a reason": (sse(A, B).encode() + DONE, False),
    "alone": (DONE, False),
}


@pytest.mark.parametrize(("body", "is_whole"), ENDS.values(), ids=ENDS)
def test_a_reason_ends_a_stream_and_a_mark_alone_does_not(told, serve, body, is_whole):
    found = told(serve(streamed(body)), stream=True, kept=1, retries=0)
    if is_whole:
        assert found.error is None and found.text == "Hello" and found.response.finish_reason == "stop"
    else:
        assert found.error.kind == "stream_interrupted" and "Hello".startswith(found.text)
        assert found.error.partial.text == found.text and not found.error.partial.complete


# ---- odd shapes (44, 45) ----------------------------------------------------------------------


def body_of(**changed):
    message = {"role": "assistant", "content": "Hello"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    said = {"id": "c", "model": "m", "choices": [choice], "usage": usage, **changed}
    return json.dumps(said).encode()


def choice_of(finish="stop", **message):
    return [{"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}]


def stream_of(*events):
    return sse(*events).encode() + DONE


ODD = {
    "an event with a strange name": b'event: strange\ndata: {"a": 1}\n\n' + stream_of(A, B, STOP),
    "an event of a strange shape": stream_of({"mood": "good"}, A, B, STOP),
    "a key nobody knows": stream_of({**A, "x_new": 1}, B, STOP),
    "no choices at first": stream_of({"id": "", "choices": [], "prompt_filter_results": []}, A, B, STOP),
    "choices that are null": stream_of({"id": "c", "choices": None}, A, B, STOP),
    "a number as text": stream_of({"choices": [{"index": "0", "delta": {"content": "Hello"}}]}, STOP),
    "usage after the end": stream_of(A, B, STOP, {"id": "c", "choices": [], "usage": {"prompt_tokens": 3}}),
    "a role that is a number": stream_of(piece({"role": 5, "content": "Hel"}), B, STOP),
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_what_nobody_knows_in_a_stream_costs_no_word_of_it(serve, body):
    response, words = heard(serve(streamed(body)), stream=True)
    assert words == response.text == "Hello" and response.finish_reason == "stop"


def test_what_nobody_knows_is_kept(serve):
    body = b'event: strange\ndata: {"a": 1}\n\n' + stream_of({**A, "x_new": 1}, B, STOP)
    response, _ = heard(serve(streamed(body)), stream=True)
    assert response.extra[CHAT] == {"a": 1, "x_new": 1}


def test_a_reason_nobody_knows_is_kept_as_it_was_said(serve, stream):
    body = stream_of(A, B, piece({}, "because")) if stream else body_of(choices=choice_of("because", content="Hello"))
    response, _ = heard(serve(said(body, stream)), stream=stream)
    assert (response.text, response.finish_reason, response.raw_finish_reason) == ("Hello", "unknown", "because")


SHAPES = [None, 5, "x", [], {}, [5], [None], {"a": {}}, True, 1.5]
PLACES = [("choices",), ("choices", 0, "message"), ("choices", 0, "message", "content"), ("choices", 0, "index"),
          ("choices", 0, "finish_reason"), ("choices", 0, "message", "tool_calls"), ("usage",), ("id",), ("model",),
          ("usage", "prompt_tokens"), ("created",), ("choices", 0)]  # fmt: skip


def test_a_wrong_type_anywhere_in_an_answer_is_told_in_our_tree_or_passed_over(serve):
    bodies = []
    for place in PLACES:
        for shape in SHAPES:
            body = json.loads(body_of())
            at = body
            for step in place[:-1]:
                at = at[step]
            at[place[-1]] = shape
            bodies.append(json.dumps(body).encode())
    turns = iter(bodies)

    async def script(connection):
        await whole(next(turns))(connection)

    ends = set()
    with Client(**client_facts(serve(script).url, CHAT, {"retries": 0})) as client:
        for body in bodies:
            try:
                answered = client.ask("hi")
                assert answered.raw == body and answered.text in ("", "Hello", "x")
                ends.add("ok")
            except PolyvoxError as error:
                assert error.kind in ("bad_response", "refusal"), (body, error)
                ends.add(error.kind)
    assert {"ok", "bad_response"} <= ends


@pytest.mark.parametrize("choices", [[], None], ids=["none", "null"])
def test_an_answer_without_choices_is_no_answer(told, serve, choices):
    found = told(serve(whole(body_of(choices=choices))), stream=False, kept=1)
    found.ended_in("bad_response", sent="yes", tries=2, says="no choices")


# ---- usage (46) -------------------------------------------------------------------------------

PRICED = {"prices": {"house/m": {"input": 1, "output": 1}}}
USAGES = {
    "missing": (None, (None, None, "missing"), None),
    "empty": ({}, (None, None, "missing"), None),
    "negative": ({"prompt_tokens": -3, "completion_tokens": -2}, (None, None, "missing"), None),
    "no number": ({"prompt_tokens": "many", "completion_tokens": True}, (None, None, "missing"), None),
    "in part": ({"prompt_tokens": 3}, (3, None, "provider"), None),
    "huge": ({"prompt_tokens": 10**9, "completion_tokens": 2}, (10**9, 2, "provider"), Decimal("1000.000002")),
    "beyond all bounds": ({"prompt_tokens": 10**300, "completion_tokens": 2}, (10**300, 2, "provider"), None),
}


@pytest.mark.parametrize(("usage", "counted", "cost"), USAGES.values(), ids=USAGES)
def test_what_a_usage_does_not_say_is_unknown_and_neither_nothing_nor_below_it(
    serve, tmp_path, stream, usage, counted, cost
):
    body = stream_of(A, B, STOP, {"id": "c", "choices": [], "usage": usage}) if stream else body_of(usage=usage)
    server = serve(said(body, stream))
    with Ledger(tmp_path / "ledger.db") as ledger:
        with Client(**client_facts(server.url, CHAT, PRICED), ledger=ledger) as client:
            response = client.stream("hi").finish() if stream else client.ask("hi")
        row = only(ledger)
    found = response.usage
    assert (found.input, found.output, found.source) == counted
    assert response.cost.amount == row.cost == cost and row.state == "ok"
    assert row.usage.input in (found.input, None) and row.usage.output == found.output


def test_usage_that_stands_elsewhere_in_a_stream_is_counted(serve):
    beside = {"x_groq": {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}}
    response, _ = heard(serve(streamed(stream_of(A, B, {**STOP, **beside}))), stream=True)
    assert (response.usage.input, response.usage.output, response.usage.source) == (3, 2, "provider")


def test_usage_that_grows_in_a_stream_is_not_added_up(serve):
    body = BODIES["anthropic.messages"]  # one token is told at its start, and five at its end
    response, _ = heard(serve(streamed(body)), "anthropic.messages", stream=True)
    assert (response.usage.input, response.usage.output) == (1, 5)


# ---- calls of tools (47, 48) ------------------------------------------------------------------


def part_of_call(index, id=None, **function):
    call = {"function": function}
    call |= {"index": index} if index is not None else {}
    call |= {"id": id} if id is not None else {}
    return piece({"tool_calls": [call]})


CALLED = piece({}, "tool_calls")
CALLS = {
    "ids that are the same": ([(0, "a", {"name": "x", "arguments": "{}"}), (1, "a", {"name": "y", "arguments": "{}"})],
                              [("x", "{}"), ("y", "{}")]),
    "no ids": ([(0, None, {"name": "x", "arguments": "{}"}), (1, None, {"name": "y", "arguments": "{}"})],
               [("x", "{}"), ("y", "{}")]),
    "gaps": ([(3, "a", {"name": "x", "arguments": "{}"}), (7, "b", {"name": "y", "arguments": "{}"})],
             [("x", "{}"), ("y", "{}")]),
    "one number for all": ([(0, "a", {"name": "x", "arguments": "{}"}), (0, "b", {"name": "y", "arguments": "{}"})],
                           [("x", "{}"), ("y", "{}")]),
    "no numbers": ([(None, "a", {"name": "x", "arguments": "{}"}), (None, "b", {"name": "y", "arguments": "{}"})],
                   [("x", "{}"), ("y", "{}")]),
    "by turns": ([(0, "a", {"name": "x"}), (1, "b", {"name": "y"}), (0, None, {"arguments": '{"p"'}),
                  (1, None, {"arguments": '{"q"'}), (0, None, {"arguments": ":1}"}), (1, None, {"arguments": ":2}"})],
                 [("x", '{"p":1}'), ("y", '{"q":2}')]),
    "a name said twice": ([(0, "a", {"name": "x", "arguments": "{"}), (0, "a", {"name": "x", "arguments": "}"})],
                          [("x", "{}")]),
}  # fmt: skip


@pytest.mark.parametrize(("parts", "calls"), CALLS.values(), ids=CALLS)
def test_calls_that_are_numbered_oddly_keep_their_order_and_get_ids_of_their_own(serve, parts, calls):
    events = [part_of_call(index, id, **function) for index, id, function in parts]
    response, _ = heard(serve(streamed(stream_of(*events, CALLED))), stream=True)
    assert [(call.name, call.arguments) for call in response.tool_calls] == calls
    ids = [call.id for call in response.tool_calls]
    assert all(ids) and len(set(ids)) == len(ids)


ARGUMENTS = {
    "no JSON": ('{"city": "Ro', '{"city": "Ro'),
    "nothing": ("", ""),
    "null": (None, ""),
    "the word null": ("null", "null"),
    "no object": ('"x"', '"x"'),
    "5 MB": (json.dumps({"text": "z" * 5_000_000}), json.dumps({"text": "z" * 5_000_000})),
    "deep": ("[" * 20_000, "[" * 20_000),
    "a key twice": ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
}


@pytest.mark.parametrize(("given", "kept"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_are_kept_as_they_came_and_never_guessed(serve, stream, given, kept):
    function = {"name": "weather", "arguments": given}
    call = {"id": "a", "type": "function", "function": function}
    if stream:
        body = stream_of(part_of_call(0, "a", **function), CALLED)
    else:
        body = body_of(choices=choice_of("tool_calls", tool_calls=[call]))
    response, _ = heard(serve(said(body, stream)), stream=stream)
    assert response.tool_calls == (ToolCall("a", "weather", kept),)


# ---- another model, another id (51) -----------------------------------------------------------


def test_the_model_that_answered_is_told_and_its_price_counts(serve, tmp_path, stream):
    given = {"prices": {"house/m": {"input": 1, "output": 1}, "house/m-2": {"input": 10, "output": 10}}}
    usage = {"id": "c-2", "model": "m-2", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    events = [{**event, "model": "m-2"} for event in (A, B, STOP)]
    body = stream_of(*events, usage) if stream else body_of(model="m-2", id="c-2")
    with Ledger(tmp_path / "ledger.db") as ledger:
        with Client(**client_facts(serve(said(body, stream)).url, CHAT, given), ledger=ledger) as client:
            response = client.stream("hi").finish() if stream else client.ask("hi")
        row = only(ledger)
    assert response.model == "m-2" and response.id in ("c", "c-2")
    assert (row.asked, row.model) == ("m", "m-2")
    assert response.cost.amount == row.cost == Decimal(5 * 10) / 1_000_000
