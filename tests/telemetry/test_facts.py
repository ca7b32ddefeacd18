"""What is told of a call, by the fields of its info: what is not known is left out."""

import pytest

from polyvox.engine import CallInfo
from polyvox.errors import ServerError, StreamInterruptedError
from polyvox.telemetry import facts
from polyvox.telemetry.names import names
from polyvox.telemetry.places import OTHER, Places
from polyvox.telemetry.underway import Underway
from polyvox.types import Attempt, Choice, EmbedRequest, Message, ResponseFormat, Thinking, Usage
from tests.telemetry.helping import Info, answered, asked


def test_who_is_asked_is_known_by_the_deployments_name_where_nothing_else_says_it():
    info = CallInfo(asked(temperature=0.5), "acme/m/1")
    assert facts.who(info) == {"operation": "chat", "provider": "acme", "request_model": "m/1"}
    assert facts.asked(info) == {"temperature": 0.5}
    assert facts.ended(CallInfo(asked(), "acme/m/1", response=answered())) == {"finish_reasons": ("stop",)}


def test_what_the_info_says_outranks_the_name():
    info = Info(
        asked(), "own-name", call="c1", provider="mistral", model="m-9", stream=True, operation="embeddings",
        base_url="https://user:word@llm.example:8443/v1",
    )  # fmt: skip
    assert facts.who(info) == {
        "operation": "embeddings", "provider": "mistral_ai", "request_model": "m-9", "stream": True,
        "server_address": "llm.example", "server_port": 8443,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("word", "operation", "output"),
    [
        ("chat", "chat", None),
        ("embed", "embeddings", None),
        ("image", "generate_content", "image"),
        ("speak", "generate_content", "speech"),
        ("a word of tomorrow", "a word of tomorrow", None),
    ],
)
def test_an_operation_has_the_name_of_the_convention(word, operation, output):
    said = facts.who(Info(asked(), operation=word))
    assert (said["operation"], said.get("output_type")) == (operation, output)


def test_every_kind_of_request_has_a_row_in_the_table():
    import polyvox.media
    import polyvox.stored
    import polyvox.verdicts
    from polyvox.types import Asked

    kinds = [EmbedRequest]
    for module in (polyvox.media, polyvox.stored, polyvox.verdicts):
        kinds += [
            value for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Asked) and value is not Asked
        ]  # fmt: skip
    words = {kind.__name__.removesuffix("Request").lower() for kind in kinds}
    assert len(words) >= 8 and words <= set(names().operations)


def test_a_conversation_is_told_where_the_caller_named_one_and_never_invented():
    assert "conversation" not in facts.asked(Info(asked()))
    told = asked(extra={"any.dialect": {"conversation": {"id": "conv_7"}, "previous_response_id": "resp_6"}})
    said = facts.asked(Info(told))
    assert facts.asked(Info(told, session="s-1"))["conversation"] == "s-1"
    assert (said["conversation"], said["previous_response"]) == ("conv_7", "resp_6")
    assert "conversation" not in facts.asked(Info(asked(extra={"any.dialect": {"conversation": 7}})))


def test_what_is_asked_is_told_field_by_field():
    request = asked(
        top_p=0.9, top_k=5, max_tokens=9, seed=4, n=2, stop=("x",), presence_penalty=0.1, frequency_penalty=0.2,
        thinking=Thinking(effort="xhigh"), response_format=ResponseFormat("schema"),
    )  # fmt: skip
    said = facts.asked(Info(request))
    assert said == {
        "top_p": 0.9, "top_k": 5, "max_tokens": 9, "seed": 4, "choices": 2, "stop": ("x",), "presence_penalty": 0.1,
        "frequency_penalty": 0.2, "reasoning_level": "xhigh", "output_type": "json",
    }  # fmt: skip
    assert "choices" not in facts.asked(Info(asked(n=1)))


@pytest.mark.parametrize("reason", [None, "error", "incomplete", "unknown"])
def test_an_answer_that_did_not_come_to_its_end_ended_with_an_error(reason):
    cut = StreamInterruptedError("cut", partial=answered("hal", reason, complete=False))
    assert facts.ended(Info(asked(), error=cut))["finish_reasons"] == ("error",)


def test_a_stream_of_which_nothing_is_kept_ended_with_an_error_too():
    assert facts.ended(Info(asked(), error=StreamInterruptedError("cut")))["finish_reasons"] == ("error",)
    assert "finish_reasons" not in facts.ended(Info(asked(), error=ServerError("no")))


def test_every_one_of_several_answers_has_its_reason():
    answer = answered(choices=(Choice(Message("assistant"), "length"), Choice(Message("assistant"))))
    assert facts.ended(Info(asked(), response=answer))["finish_reasons"] == ("stop", "length", "error")


def test_tokens_of_an_answer_that_broke_off_are_told_and_unknown_ones_are_not_zero():
    cut = StreamInterruptedError("cut", partial=answered("hal", None, usage=Usage(7, source="provider")))
    said = facts.measured(Info(asked(), error=cut))
    assert said["input"] == 7 and said["error"] == "stream_interrupted"
    assert {said[name] for name in ("output", "cache_read", "reasoning", "first_token", "seconds")} == {None}
    refused = facts.measured(Info(asked(), error=ServerError("no")))
    assert refused.pop("error") == "server" and set(refused.values()) == {None}


def test_a_call_that_was_left_is_cancelled():
    attempts = (Attempt("acme/m-1", outcome="cancelled"),)
    assert facts.outcome_of(Info(asked(), error=StreamInterruptedError("left", attempts=attempts))) == "cancelled"
    assert facts.outcome_of(Info(asked())) == "cancelled"
    assert facts.outcome_of(Info(asked(), error=ServerError("no"))) == "error"
    assert facts.outcome_of(Info(asked(), response=answered())) == "ok"


def test_calls_at_a_time_are_told_apart_by_their_ids():
    held = Underway()
    for number in range(3):
        held.add(f"c{number}", number)
    assert [held.pop(f"c{number}") for number in (1, 0, 2, 1)] == [1, 0, 2, None]
    assert len(held) == 0


def test_calls_whose_end_is_never_told_do_not_pile_up():
    held = Underway(most=3)
    let_go = [held.add(f"c{number}", number) for number in range(6)]
    assert let_go == [None, None, None, 0, 1, 2]
    assert len(held) == 3 and held.pop("c2") is None and held.pop("c3") == 3


def test_so_many_names_have_a_place_and_invented_ones_take_none():
    places = Places(2, known=("always",))
    assert [places.label(f"made-up-{n}", "not_found") for n in range(100)] == [OTHER] * 100
    assert [places.label(name) for name in ("a", "b", "c", "a", "always")] == ["a", "b", OTHER, "a", "always"]
    assert places.label("a", "not_found") == "a"
    assert places.label("") == OTHER
    assert Places(2).label("a", "server") == "a"


def test_a_name_is_made_fit_for_a_label():
    assert Places(2).label("m\ud800") == "m?" and len(Places(2).label("x" * 10_000)) == 200
