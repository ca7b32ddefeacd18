"""A count says whether it was counted or estimated; an estimate is near what providers bill, and nothing raises."""

import importlib.util
import os
import statistics
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox import catalog, tokens
from polyvox.tokens import Count, count, estimate, family_of
from polyvox.types import (
    Audio,
    File,
    Image,
    Message,
    Opaque,
    Request,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)

PANGRAM = "The quick brown fox jumps over the lazy dog."
HELLO = Message("user", (Text("hi there"),))


@pytest.fixture(autouse=True)
def no_tokenizer(monkeypatch):
    """Every test begins where no tokenizer is installed."""
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    tokens._exact.cache_clear()
    yield
    tokens._exact.cache_clear()


def asking(*parts, model="gpt-4o", **fields):
    return Request(model, (Message("user", parts or (Text("hi"),)),), **fields)


# ---- estimates --------------------------------------------------------------------------------


def test_plain_english_is_about_a_token_a_word():
    # Ten, by the vocabularies of 100,000 and 200,000 entries.
    assert count(PANGRAM, "gpt-4o").source == "estimate" and 9 <= count(PANGRAM, "gpt-4o").tokens <= 11
    assert 90 <= count(f"{PANGRAM} " * 10, "gpt-4o").tokens <= 110


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("", 0, 0),
        ("   ", 0, 1),
        ("12345678901234567890", 6, 10),
        ("=" * 80, 5, 30),
        ("你好世界，今天天气怎么样？", 8, 18),
        ("こんにちは、元気ですか", 6, 14),
        ("안녕하세요 반갑습니다", 5, 14),
        ("Съешь же ещё этих мягких французских булок", 10, 22),
        ("Η γρήγορη αλεπού πηδά", 6, 16),
        ("مرحبا بالعالم", 3, 10),
        ("नमस्ते दुनिया", 4, 14),
        ("สวัสดีชาวโลก", 4, 12),
        ("🎉🎉🎉", 3, 9),
        ("Pneumonoultramicroscopicsilicovolcanoconiosis", 5, 15),
        ('{"name": "get_weather", "arguments": {"city": "Paris"}}', 14, 26),
    ],
)
def test_each_script_is_estimated_in_its_own_way(text, least, most):
    assert least <= round(estimate(text)) <= most


@given(st.text(max_size=200), st.text(max_size=200))
def test_more_text_is_never_fewer_tokens_and_none_is_none(first, second):
    assert estimate(first) >= 0
    assert bool(first.strip()) <= (estimate(first) > 0)
    assert estimate(f"{first}\n\n{second}") >= max(estimate(first), estimate(second)) - 1


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-4o-mini", "gpt"),
        ("openai/gpt-5-mini", "gpt-5"),
        ("openrouter/openai/gpt-oss-120b", "gpt-oss"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-4.5"),
        ("claude-3-5-haiku-latest", "claude"),
        ("together/meta-llama/Llama-3.3-70B-Instruct-Turbo", "llama-3"),
        ("ollama/llama3.1:8b", "llama-3"),
        ("llama3", "llama"),
        ("gemini/gemini-3.8-flash", "gemini"),
        ("never-heard-of", "other"),
        ("", "other"),
        (None, "other"),
    ],
)
def test_a_family_is_found_by_the_bare_name(model, family):
    assert family_of(model).name == family


def test_what_goes_around_the_words_is_counted():
    plain = count(asking()).tokens
    assert count([HELLO, HELLO]).tokens > count([HELLO]).tokens > count("hi there").tokens
    with_tool = count(asking(tools=(Tool("get_weather", "of a city", {"type": "object"}),))).tokens
    with_two = count(asking(tools=(Tool("get_weather", "of a city", {"type": "object"}), Tool("f")))).tokens
    assert plain < with_tool < with_two
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert count(asking(response_format=ResponseFormat("schema", schema))).tokens > plain
    called = asking(Text("hi"), ToolCall("1", "f", '{"a": 1}'), ToolResult("1", (Text("fine"),)))
    assert count(called).tokens > plain + 3
    thinking = asking(model="claude-sonnet-4-5", thinking=Thinking(effort="high"))
    quiet = asking(model="claude-sonnet-4-5", thinking=Thinking(enabled=False))
    assert count(thinking).tokens > count(quiet).tokens == count(asking(model="claude-sonnet-4-5")).tokens


def test_the_models_own_name_is_used_where_none_is_given():
    request = asking(Text(PANGRAM), model="claude-sonnet-4-5", tools=(Tool("f"),))
    assert count(request) == count(request, "claude-sonnet-4-5") != count(request, "gpt-4o")


def test_what_nobody_can_look_into_is_not_nothing():
    for part in (File(url="https://x.test/a.pdf"), Audio(data=b"RIFF"), Image(url="https://x.test/a.png")):
        assert count(asking(part)).tokens > count(asking()).tokens + 100
    assert count(asking(File(data=PANGRAM.encode(), media_type="text/plain"))).tokens < 40
    assert count(asking(Opaque("some", "block", {"words": PANGRAM}))).tokens > 15


# ---- pictures ---------------------------------------------------------------------------------


def png(width, height):
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\x08\x02"


def jpeg(width, height):
    app = b"\xff\xe0" + struct.pack(">H", 6) + b"JFIF"
    return b"\xff\xd8" + app + b"\xff\xc0" + struct.pack(">HBHH", 17, 8, height, width) + b"\x03"


def gif(width, height):
    return b"GIF89a" + struct.pack("<HH", width, height)


def webp(width, height):
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\0\0\0\0WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size


@pytest.mark.parametrize("encode", [png, jpeg, gif, webp])
def test_a_picture_is_counted_by_its_size_whatever_its_format(encode):
    def more(model, **size):
        return (
            count(asking(Image(data=encode(**size)), model=model)).tokens - count(asking(Text(""), model=model)).tokens
        )

    # https://platform.openai.com/docs/guides/images: 85, and 170 for each of the four squares of 512.
    assert more("gpt-4o", width=1024, height=1024) == 765
    assert more("gpt-4o", width=512, height=512) == 255
    # https://platform.claude.com/docs/en/build-with-claude/vision: width x height / 750
    assert more("claude-sonnet-4-5", width=300, height=250) == 100
    assert more("claude-sonnet-4-5", width=9000, height=9000) == 1600


def test_a_picture_to_be_looked_at_quickly_takes_the_least():
    low = count(asking(Image(data=png(4000, 4000), detail="low"))).tokens
    assert low == count(asking(Text(""))).tokens + 85


@given(st.binary(max_size=40), st.sampled_from([b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF\0\0\0\0WEBPVP8X", b""]))
def test_a_broken_picture_is_still_counted(data, head):
    assert count(asking(Image(data=head + data))).tokens > count(asking(Text(""))).tokens


# ---- exact ------------------------------------------------------------------------------------


def tokenizer(monkeypatch):
    """A tokenizer library that knows one model and takes every letter for a token."""

    def encoding_for_model(name):
        if name != "gpt-4o":
            raise KeyError(name)
        return SimpleNamespace(encode=lambda text, disallowed_special: list(text))

    monkeypatch.setitem(sys.modules, "tiktoken", SimpleNamespace(encoding_for_model=encoding_for_model))
    tokens._exact.cache_clear()


def test_given_a_tokenizer_that_knows_the_model_then_the_count_is_exact_and_says_so(monkeypatch):
    tokenizer(monkeypatch)
    assert count("hello", "openai/gpt-4o") == Count(5, "exact")
    # 3 for the answer's beginning, 4 around each message: the OpenAI cookbook on counting tokens.
    assert count(asking(Text("hello"))) == Count(3 + 4 + 5, "exact")


def test_given_anything_beside_words_then_it_is_an_estimate_even_with_a_tokenizer(monkeypatch):
    tokenizer(monkeypatch)
    assert count(asking(Text("hello"), tools=(Tool("f"),))).source == "estimate"
    assert count(asking(Text("hello"), Image(data=png(10, 10)))).source == "estimate"
    assert count("hello", "claude-sonnet-4-5").source == "estimate"


# ---- whatever is given ------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.none() | st.text(max_size=9) | st.integers())
def test_whatever_is_counted_nothing_raises_and_nothing_is_below_zero(what, model):
    found = count(what, model)
    assert type(found.tokens) is int and found.tokens >= 0 and found.source == "estimate"


def test_messages_as_other_libraries_have_them_are_counted_by_their_words():
    parts = {"role": "user", "content": [{"type": "text", "text": "hi there"}]}
    said = [{"role": "user", "content": "hi there"}, parts]
    assert count(said, "gpt-4o") == count([HELLO, HELLO], "gpt-4o")
    assert count(said[0], "gpt-4o") == count(HELLO, "gpt-4o") == count(["hi there"], "gpt-4o")
    assert count([Text("hi there")], "gpt-4o") == count([HELLO], "gpt-4o")


@pytest.mark.parametrize(
    "picture",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 99_999}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 99_999}},
    ],
)
def test_bytes_in_the_messages_of_other_libraries_are_not_taken_for_words(picture):
    assert 100 < count([{"role": "user", "content": [picture]}], "gpt-4o").tokens < 2000


def test_words_that_are_no_unicode_are_counted():
    assert count(asking(Text("\ud800"), tools=(Tool("f", "\ud800"),))).tokens > 0


@pytest.mark.parametrize("family", tokens._families(), ids=lambda family: family.name)
def test_every_family_adds_and_takes_nothing_away(family):
    numbers = [getattr(family, name) for name in ("base", "message", "tools", "tool", "call", "schema", "thinking")]
    assert all(number >= 0 for number in numbers)
    assert 0.5 <= family.text <= 1.5 and 0.2 <= family.json <= 2


def test_every_default_model_is_of_a_family_that_is_known():
    rows = [row for row in catalog.load().providers.values() if row.default_model and row.needs_key]
    known = [row for row in rows if family_of(row.default_model).name != "other"]
    assert len(known) > len(rows) / 2


# ---- recorded ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parent.parent / "scripts" / "fit_tokens.py"
    spec = importlib.util.spec_from_file_location("fit_tokens", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def billed(script):
    """Recorded requests of words and tools whose provider told what went in."""
    folder = os.environ.get("POLYVOX_TRAFFIC")
    if not folder:
        pytest.skip("set POLYVOX_TRAFFIC to a folder with recorded exchanges (dev.jsonl)")
    return list(script.billed(Path(folder)))


def test_the_script_finds_the_numbers_that_bills_were_made_by(script):
    true = {"base": 7, "message": 5, "text": 1.2, "call": 0, "tools": 300, "tool": 20, "json": 1.1, "schema": 0}
    rows = []
    for number in range(60):
        tools = tuple(Tool(f"tool_{n}", PANGRAM * (number % 4)) for n in range(number % 3))
        request = Request("m", tuple([HELLO] * (1 + number % 5)) + asking(Text(PANGRAM * number)).messages, tools=tools)
        held = tokens.amounts(request)
        rows.append(script.Billed(str(number), request, round(sum(held[field] * true[field] for field in true))))
    found = script.fitted("other", rows)
    assert found["text"] == pytest.approx(1.2, rel=0.03) and found["json"] == pytest.approx(1.1, rel=0.1)
    assert found["tools"] == pytest.approx(300, rel=0.1) and found["tool"] == pytest.approx(20, rel=0.3)


def test_the_script_changes_the_numbers_and_nothing_else(script):
    text = script.FILE.read_text("utf-8")
    changed = script.written(text, "gpt", {"text": 9.126, "base": 77.4})
    assert changed.replace("text = 9.13", "", 1) != changed and changed.replace("base = 77", "", 1) != changed
    before, after = text.splitlines(), changed.splitlines()
    assert len(before) == len(after) and sum(a != b for a, b in zip(before, after, strict=True)) == 2


def test_estimates_are_near_what_providers_billed(billed):
    halves = [sorted(row.error for row in billed if row.is_held_out == half) for half in (False, True)]
    for what, errors in zip(("fitted on", "held out"), halves, strict=True):
        ninth = errors[int(0.9 * len(errors))]
        print(f"{what}: {len(errors)} requests, median error {statistics.median(errors):.1%}, p90 {ninth:.1%}")
    assert len(halves[1]) >= 60
    assert statistics.median(halves[1]) <= 0.10
    assert ninth <= 0.5


def test_the_numbers_are_what_the_script_fits_on_its_half(script, billed):
    text = script.FILE.read_text("utf-8")
    for family in tokens._families():
        own = [row for row in billed if not row.is_held_out and family_of(row.request.model) == family]
        text = script.written(text, family.name, script.fitted(family.name, own))
    assert text == script.FILE.read_text("utf-8"), "run scripts/fit_tokens.py --write"
