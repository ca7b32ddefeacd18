"""A request is made to fit the family of the model it is for: what is refused goes and is told, what is taken stays."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from polyvox import Client, catalog, errors, profiles
from polyvox.config import Settings
from polyvox.dialects import NAMES, Endpoint, Wire, dialect
from polyvox.models import Model
from polyvox.profiles import EFFORTS, EMPTY, Profile, fit, fitting, profile_of, spec, validate
from polyvox.types import (
    UNSET,
    Image,
    Loss,
    Message,
    Request,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
)
from tests.scripted import Scripted, said

HELLO = Message("user", (Text("hi"),))
PNG = Image(data=b"\x89PNG")


def asking(**fields):
    return Request("m", fields.pop("messages", (HELLO,)), **fields)


# ---- fit --------------------------------------------------------------------------------------


def test_given_a_model_nobody_knows_then_nothing_happens():
    assert profile_of("acme/thing") is EMPTY and fitting(EMPTY) is None
    request = asking(temperature=9, max_tokens=10**9, thinking=Thinking(effort="max"))
    assert fit(request, EMPTY) == (request, ())


def test_given_what_the_model_refuses_then_it_goes_and_is_told():
    request, losses = fit(asking(temperature=0.5, top_k=3, seed=1), Profile(refuses=("temperature", "top_p", "top_k")))
    assert request == asking(seed=1)
    assert losses == tuple(Loss(field, "this model does not take it") for field in ("temperature", "top_k"))


@pytest.mark.parametrize(
    ("thinking", "reasons", "kept"),
    [
        (UNSET, True, False),
        (UNSET, None, True),
        (UNSET, False, True),
        (Thinking(effort="low"), None, False),
        (Thinking(effort="none"), True, True),
        (Thinking(enabled=False), True, True),
        (Thinking(enabled=True), None, False),
        (Thinking(budget_tokens=0), True, True),
        (Thinking(budget_tokens=2000), None, False),
    ],
)
def test_given_what_is_refused_while_reasoning_then_it_goes_only_when_the_model_is_known_to_reason(
    thinking, reasons, kept
):
    profile = Profile(refuses_reasoning=("temperature",), reasons=reasons)
    request, losses = fit(asking(temperature=1.0, thinking=thinking), profile)
    assert (request.temperature == 1.0) is kept and bool(losses) is not kept
    assert request.thinking == thinking


@pytest.mark.parametrize(
    ("asked", "taken", "sent"),
    [
        ("minimal", ("low", "medium", "high"), "low"),
        ("xhigh", ("low", "medium", "high", "max"), "high"),
        ("max", ("low", "medium"), "medium"),
        ("none", ("low", "high"), "low"),
        ("medium", ("low", "medium"), "medium"),
        ("extreme", ("low",), "extreme"),
    ],
)
def test_given_an_effort_the_model_has_not_then_the_nearest_is_asked_for_the_lesser_of_two(asked, taken, sent):
    request, losses = fit(asking(thinking=Thinking(effort=asked)), Profile(efforts=taken))
    assert request.thinking.effort == sent
    assert [loss.field for loss in losses] == ([] if asked == sent else ["thinking.effort"])


def test_given_more_tokens_than_the_model_answers_with_then_its_limit_is_asked_for():
    assert fit(asking(max_tokens=101), Profile(max_output=100))[0].max_tokens == 100
    assert fit(asking(max_tokens=100), Profile(max_output=100)) == (asking(max_tokens=100), ())
    assert fit(asking(), Profile(max_output=100)) == (asking(), ())


def test_given_a_model_without_eyes_then_words_stand_in_the_place_of_each_image():
    result = Message("tool", (ToolResult("c1", (Text("see"), PNG)),))
    request, losses = fit(
        asking(messages=(Message("user", (PNG, Text("what?"))), result)), Profile(refuses=("images",))
    )
    assert [loss.field for loss in losses] == ["messages[0].parts[0]", "messages[1].parts[0].parts[1]"]
    assert "image was left out" in request.messages[0].text and request.messages[0].text.endswith("what?")
    assert request.messages[1].parts[0].call_id == "c1"
    assert fit(asking(), Profile(refuses=("images",))) == (asking(), ())


def test_given_a_model_without_tools_then_all_that_is_about_them_goes():
    request, losses = fit(
        asking(tools=(Tool("f"),), tool_choice=ToolChoice("required"), parallel_tool_calls=False),
        Profile(refuses=("tools", "response_format")),
    )
    assert request == asking()
    assert {loss.field: loss.severity for loss in losses} == {
        "tools": "loss", "tool_choice": "note", "parallel_tool_calls": "note",
    }  # fmt: skip


def test_given_a_model_without_instructions_then_the_user_says_them():
    system = Message("system", (Text("be kind"),))
    request, losses = fit(asking(messages=(system, HELLO)), Profile(system_role="user"))
    assert request.messages == (replace(system, role="user"), HELLO)
    assert [loss.field for loss in losses] == ["messages[0].role"]


REQUESTS = st.builds(
    asking,
    temperature=st.just(UNSET) | st.floats(0, 2),
    stop=st.just(UNSET) | st.just(("x",)),
    max_tokens=st.just(UNSET) | st.integers(0, 10**6),
    thinking=st.just(UNSET) | st.builds(Thinking, effort=st.sampled_from((*EFFORTS, "odd"))),
    tools=st.sampled_from(((), (Tool("f"),))),
    tool_choice=st.just(UNSET) | st.just(ToolChoice()),
    messages=st.lists(st.sampled_from((HELLO, Message("system", (Text("s"),)), Message("user", (PNG,))))).map(tuple),
)
MODELS = [model.name for model in catalog.load().models if model.provider in ("openai", "anthropic", "xai", "groq")]


@given(REQUESTS, st.sampled_from(MODELS))
def test_a_request_that_was_made_to_fit_fits_and_every_change_is_told(request, model):
    profile = profile_of(model)
    fitted, losses = fit(request, profile)
    assert (fitted == request) == (not losses)
    assert fit(fitted, profile) == (fitted, ())


# ---- the facts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "field", "taken"),
    [
        ("anthropic/claude-opus-4-7", "temperature", False),
        ("anthropic/claude-opus-5", "top_p", False),
        ("anthropic/claude-haiku-5-5", "top_k", False),
        ("anthropic/claude-fable-5-1", "temperature", False),
        ("anthropic/claude-opus-4-6", "temperature", True),
        ("anthropic/claude-haiku-4-5-20251001", "temperature", True),
        ("anthropic/claude-3-5-haiku-latest", "temperature", True),
        ("anthropic/claude-sonnet-4-20250514", "top_k", True),
        ("openai/gpt-5-mini", "stop", False),
        ("openai/gpt-5-mini", "temperature", False),
        ("openai/gpt-4o", "temperature", True),
        ("openai/gpt-4o", "stop", True),
        ("openai/gpt-5-chat-latest", "temperature", True),
        ("openai/gpt-6-luna", "temperature", True),
        ("openai-responses/gpt-5-mini", "temperature", False),
        ("xai/grok-4.3", "stop", False),
        ("xai/grok-4-fast-non-reasoning", "stop", True),
        ("vllm/gpt-5-mini", "temperature", True),
    ],
)
def test_families_take_what_their_providers_say_they_take(model, field, taken):
    value = ("x",) if field == "stop" else 1
    target = catalog.load().resolve(model)
    request, losses = fit(asking(**{field: value}), profile_of(target.known_as, target.info))
    assert (getattr(request, field) == value) is taken
    assert (not losses) is taken


def test_every_family_is_well_formed_and_says_where_its_facts_are_from():
    import tomllib

    rows = tomllib.loads((Path(profiles.__file__).parent / "data" / "profiles.toml").read_text("utf-8"))["family"]
    fields = {"images", *Request.__struct_fields__}
    for row in rows:
        assert row["source"] and row["match"] and set(row) - {"match", "source"} <= set(Profile.__struct_fields__)
        assert set(row.get("refuses", [])) | set(row.get("refuses_reasoning", [])) <= fields
        assert set(row.get("efforts", [])) <= set(EFFORTS)
        assert all("/" in pattern and pattern == pattern.lower() for pattern in row["match"])
        assert all(spec("openai/x").parameter(name) for name in row.get("limits", {}))


def test_the_client_sends_what_fits_and_tells_what_went():
    transport = Scripted(said("ok"))
    answer = Client("openai/o4-mini", transport=transport, api_key="k-123456789012", settings=Settings()).ask(
        "hi", effort="minimal", temperature=0.3, seed=4
    )
    body = transport.bodies()[0]
    assert body["reasoning_effort"] == "low" and body["seed"] == 4 and "temperature" not in body
    assert {"temperature", "thinking.effort"} <= {loss.field for loss in answer.losses}


def test_under_strict_what_does_not_fit_is_an_error_and_nothing_is_sent():
    transport = Scripted(said("ok"))
    client = Client("openai/gpt-5-mini", transport=transport, api_key="k-123456789012", settings=Settings())
    with pytest.raises(errors.LossError, match="temperature"):
        client.ask("hi", temperature=0.3, strict=True)
    assert transport.bodies() == []


# ---- specs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ({"temperature": 3}, ["temperature must be between 0 and 2, not 3"]),
        ({"temperature": 2}, []),
        ({"temperature": True}, ["temperature must be a number, not True"]),
        ({"temperature": "hot"}, ["temperature must be a number, not 'hot'"]),
        ({"temperature": float("nan")}, ["temperature must be between 0 and 2, not nan"]),
        ({"temperature": None, "seed": UNSET}, []),
        ({"top_p": 1.5}, ["top_p must be between 0 and 1, not 1.5"]),
        ({"max_tokens": 16385}, ["max_tokens must be between 0 and 16384, not 16385"]),
        ({"max_tokens": 1.5}, ["max_tokens must be a whole number, not 1.5"]),
        ({"stop": list("abcde")}, ["stop must hold at most 4, not 5"]),
        ({"stop": "END"}, []),
        ({"n": 0}, ["n must be at least 1, not 0"]),
        ({"effort": "huge"}, [f"effort must be one of {', '.join(EFFORTS)}, not 'huge'"]),
        ({"temprature": 1}, ["there is no parameter 'temprature': did you mean temperature?"]),
        ({"zzz": 1}, ["there is no parameter 'zzz'"]),
        ({"tools": [len], "system": "be kind", "schema": dict}, []),
        ({"logprobs": 1, "user": 5}, ["logprobs must be true or false, not 1", "user must be text, not 5"]),
    ],
)
def test_what_is_wrong_is_told_with_the_limit(given, problems):
    assert validate(given, "openai/gpt-4o") == problems


def test_what_a_model_refuses_is_wrong_for_it():
    assert validate({"temperature": 1}, "anthropic/claude-opus-5") == [
        "temperature is not taken by anthropic/claude-opus-5"
    ]
    told = ["temperature is not taken by openai/gpt-5-mini while it reasons"]
    assert validate({"temperature": 1}, "openai/gpt-5-mini") == told
    assert validate({"temperature": 1, "effort": "none"}, "openai/gpt-5-mini") == []
    assert validate({"temperature": 1, "thinking": False}, "openai/gpt-5-mini") == []
    assert validate({"n": 2}, "groq/any") == ["n must be 1, not 2"]


def test_a_request_is_validated_with_the_model_it_names():
    request = Request("openai/gpt-4o", (HELLO,), temperature=3.0, thinking=Thinking(effort="low"))
    assert validate(request) == ["temperature must be between 0 and 2, not 3.0"]
    blind = Request("openai/gpt-3.5-turbo", (Message("user", (PNG,)),), response_format=ResponseFormat("json"))
    assert validate(blind) == ["messages[0].parts[0]: this model reads no images: words stand in its place"]
    assert validate(Request("openai/gpt-5-mini", (HELLO,), temperature=1.0, thinking=Thinking(enabled=False))) == []


def test_a_spec_tells_what_may_be_set():
    known = spec("anthropic/claude-opus-4-6")
    assert known.known and known.info.context == 1_000_000
    assert known.parameter("effort").choices == ("low", "medium", "high", "max")
    assert known.parameter("temperature").max == 1 and known.parameter("temperature").taken
    assert not spec("anthropic/claude-opus-5").parameter("temperature").taken
    assert not spec("vllm/mine").known and spec("vllm/mine").parameter("temperature").min == 0
    assert known.parameter("nonsense") is None
    with pytest.raises(errors.UnknownModelError):
        spec("nobody-serves-this")


def test_the_catalogs_limit_is_the_specs():
    try:
        catalog.add_model(Model(id="tiny", provider="vllm", max_output=12))
        assert spec("vllm/tiny").parameter("max_tokens").max == 12
        assert validate({"max_tokens": 13}, "vllm/tiny") == ["max_tokens must be between 0 and 12, not 13"]
    finally:
        catalog.forget_models()


NAMES_OF_ALL = st.sampled_from([one.name for one in spec("openai/gpt-4o").parameters]) | st.text(max_size=8)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(NAMES_OF_ALL, ANYTHING, max_size=4))
def test_whatever_is_given_is_judged_in_sentences(given_values):
    problems = validate(given_values, "openai/gpt-5-mini")
    assert all(isinstance(problem, str) and problem for problem in problems)


# ---- recorded ---------------------------------------------------------------------------------


def recorded():
    folder = os.environ.get("POLYVOX_TRAFFIC")
    if not folder:
        pytest.skip("set POLYVOX_TRAFFIC to a folder with recorded exchanges (dev.jsonl)")
    expected = [json.loads(line) for line in (Path(folder) / "dev-expected.jsonl").read_text("utf-8").splitlines()]
    speaks = {row["id"]: row["dialect"] for row in expected}
    for line in (Path(folder) / "dev.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["status"] == 200 and isinstance(row["request_json"], dict) and speaks.get(row["id"]) in NAMES:
            yield row, speaks[row["id"]]


def test_no_request_that_its_provider_answered_is_changed():
    known, seen = catalog.load(), 0
    for row, name in recorded():
        body = {**row["request_json"], "stream": False}
        if row["provider"] not in known.providers or not isinstance(body.get("model"), str):
            continue
        try:
            request = dialect(name).decode_request(Wire("/", json.dumps(body).encode(), {}), Endpoint())
        except errors.InputError:
            continue  # of another endpoint of the provider
        info = known.info(row["provider"], request.model)
        fitted, losses = fit(request, profile_of(f"{row['provider']}/{request.model}", info))
        assert (fitted, losses) == (request, ()), row["id"]
        seen += 1
    assert seen > 100
