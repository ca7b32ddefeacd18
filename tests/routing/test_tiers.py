"""How demanding a request is, and why that is thought."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyvox
from polyvox.routing.needs import Needs
from polyvox.routing.tiers import TIERS, Scorer, Table, describe, score, scripts_of, usual, weights_of
from polyvox.types import Image, Message, Request, Text, Thinking, Tool, ToolCall

PROOF = "Prove step by step, by induction, that the sum converges, and derive the probability and its variance."
PROGRAM = (
    "Design the architecture of a concurrent database in Rust. Explain why deadlock cannot happen, compare the "
    "trade-offs, and refactor this function:\n```rust\nfn add(a: i32) -> i32 { a == 1 && b != 2; }\n```"
)


def asking(*texts, **facts):
    roles = ("user", "assistant")
    messages = tuple(Message(roles[place % 2], (Text(text),)) for place, text in enumerate(texts))
    return Request("m", messages, **facts)


@pytest.mark.parametrize(
    ("text", "tier"),
    [
        ("Hello!", "economy"),
        ("What is the capital of France?", "economy"),
        ("Classify as spam or not: you have won a prize", "economy"),
        ("Translate 'good morning' into Spanish.", "economy"),
        ("Explain why the sky is blue and compare it with the sunset in a detailed way.", "standard"),
        ("Write a Python function that parses JSON, and debug the exception in it.", "standard"),
        ("Solve the equation and give the derivative.", "standard"),
        (PROOF, "premium"),
        (PROGRAM, "premium"),
        (f"{PROOF} {PROGRAM}", "premium"),
    ],
)
def test_questions_of_everyday_get_the_tier_that_people_expect(text, tier):
    assert score(asking(text)).tier == tier


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (asking("x " * 2000), "length: +2"),
        (asking("Hi", max_tokens=8000), "output: +2"),
        (asking(*["Hi"] * 21), "turns: +2"),
        (asking("Hi", tools=(Tool("a"), Tool("b"))), "tools: +1"),
        (Request("m", (Message("user", (Text("Hi"), Image(data=b"1"))),)), "images: +1"),
        (asking("Hi", thinking=Thinking("high")), "effort: +4"),
        (asking("def add(): import this"), "code: +2"),
        (asking("Is 91 a prime? And its derivative?"), "mathematics: +3"),
        (asking("Why?"), "reasoning: +1"),
        (asking("Привет"), "languages (cyrillic): +1"),
        (asking("What does 東京 mean?"), "languages (han, latin): +2"),
    ],
)
def test_every_point_has_its_reason(request_, reason):
    assert reason in score(request_).reasons


def test_a_plain_greeting_has_no_points_and_no_reasons():
    assert score(asking("Hello!")) == ("economy", 0, ())


def test_only_the_users_latest_words_are_read():
    assert score(asking(PROGRAM, "Sure", "Thanks!")).reasons == ()
    calls = Message("assistant", (ToolCall("1", "f"),))
    assert score(Request("m", (*asking(PROOF).messages, calls))).points >= score(asking(PROOF)).points


def test_of_a_long_question_the_beginning_and_the_end_are_read():
    filler = "lorem ipsum " * 1000
    assert "mathematics: +1" in score(asking(f"{filler} theorem")).reasons
    assert "mathematics: +1" in score(asking(f"theorem {filler}")).reasons


TEXTS = st.one_of(
    st.text(max_size=300), st.lists(st.sampled_from(["prove", "def", "()", "why", "日", " "])).map("".join)
)


@given(TEXTS, st.none() | st.integers(1, 100_000))
def test_points_are_those_of_the_reasons_and_always_the_same(text, limit):
    request = asking(text, **({} if limit is None else {"max_tokens": limit}))
    found = score(request)
    assert found == score(request)
    assert found.points == sum(int(reason.rpartition("+")[2]) for reason in found.reasons)
    assert found.tier in TIERS[:3]


@given(TEXTS, st.integers(0, 100_000), st.integers(0, 100_000), st.integers(0, 50_000), st.integers(0, 50_000))
def test_more_to_read_or_to_write_never_lowers_a_tier(text, input_, more_input, output, more_output):
    less = score(asking(text), Needs(input_, output))
    more = score(asking(text), Needs(input_ + more_input, output + more_output))
    assert less.points <= more.points
    assert TIERS.index(less.tier) <= TIERS.index(more.tier)


def test_local_is_never_chosen_by_points():
    assert usual().weights.tiers["local"].least is None
    assert tuple(usual().weights.tiers) == TIERS
    assert all(describe(tier) for tier in TIERS)
    assert describe("mine") == ""


def tables():
    text = (Path(polyvox.__file__).parent / "data" / "routing.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def test_the_table_is_one_that_can_score():
    for name in ("length", "output", "turns", "tools", "images", "code", "mathematics", "reasoning"):
        steps = tables()[name]["steps"]
        assert steps == sorted(steps), name
    for name in ("code", "mathematics", "reasoning"):
        words, signs = tables()[name]["words"], tables()[name]["signs"]
        assert all(word.isascii() and word.isalpha() and word.islower() for word in words), name
        assert len(set(words)) == len(words), name
        # A sign that begins with a letter or a blank would be looked for at every word.
        assert all(not sign[0].isspace() and not sign[0].isalpha() and sign == sign.lower() for sign in signs), name


def test_weights_of_ones_own_count_instead():
    mine = tables()
    mine["tiers"] = {"cheap": {"description": "", "from": 0}, "dear": {"description": "", "from": 1}}
    mine["code"] = {"steps": [[1, 9]], "words": ["abracadabra"]}
    scorer = Scorer(weights_of(mine))
    assert scorer(asking("Abracadabra!")) == ("dear", 9, ("code: +9",))
    assert scorer(asking("Hello")).tier == "cheap"


def test_weights_that_say_what_nobody_reads_are_refused():
    with pytest.raises(msgspec.ValidationError, match="wordz"):
        weights_of({**tables(), "code": {"steps": [], "wordz": []}})


@given(st.integers(-5, 50))
def test_of_the_steps_the_last_that_is_reached_counts(number):
    table = Table([(1, 1), (4, 2), (10, 7)])
    assert table.points(number) == (7 if number >= 10 else 2 if number >= 4 else 1 if number >= 1 else 0)


@pytest.mark.parametrize(
    ("text", "scripts"),
    [
        ("Hello", {"latin"}),
        ("Où est la bibliothèque ?", {"latin"}),
        ("Καλημέρα κόσμε", {"greek"}),
        ("שלום עולם", {"hebrew"}),
        ("مرحبا بالعالم", {"arabic"}),
        ("नमस्ते दुनिया", {"devanagari"}),
        ("สวัสดีชาวโลก", {"thai"}),
        ("안녕하세요", {"hangul"}),
        ("你好世界", {"han"}),
        ("これは日本語です", {"kana"}),
        ("Привет, world", {"cyrillic", "latin"}),
        ("12 + 3 = “15” …", set()),
        ("", set()),
    ],
)
def test_scripts_are_told_by_their_letters(text, scripts):
    assert scripts_of(text) == scripts
