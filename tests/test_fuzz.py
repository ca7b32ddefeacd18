"""Nothing but errors of our own tree leaves the public API, whatever is passed to it.
POLYVOX_FUZZ is how many examples each test tries (60)."""

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

import polyvox
from polyvox import config
from polyvox.client.inputs import OPTION_NAMES
from polyvox.errors import PolyvoxError
from polyvox.types import (
    Audio,
    CacheHint,
    Image,
    Message,
    Opaque,
    Reasoning,
    Refusal,
    Request,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Video,
)

WORD = Message("user", (Text("x"),))
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.just(10**30), st.floats(), st.text(max_size=6),
    st.binary(max_size=4), st.sampled_from([object(), UNSET, int, len, lambda x: x]),
)  # fmt: skip
VALUES = st.sampled_from([
    Text("x"), Text(5), Image(b"x"), Image(), Image(url=5), Audio(b"x"), Video(b"x"), ToolCall("a", "b", "{"),
    ToolResult("c", (Text("x"),)), ToolResult("c", 5), Refusal("x"), Refusal(5), Reasoning("x"), Reasoning(5),
    Opaque("d", "t", {}), Opaque("openai.chat", "t", object()), WORD, Message("user", 5), Message(5, ()),
    Message(["u"], ()), Request("demo", (WORD,)), Request("demo", 5), Request(5), Request("demo", (5,)), Tool("f"),
    Tool(5), ToolChoice("required", ("f",)), ToolChoice(5), Thinking(effort=5), ResponseFormat("schema"),
    ResponseFormat("schema", schema=5), CacheHint(5), polyvox.Secret("x" * 9), Text("x", citations=5),
    Text("x", extra=5), Text("x", cache=5), Message("user", (Text("x"),), extra=5),
])  # fmt: skip
KEYS = ("role", "content", "type", "text", "name", "parameters", "properties", "image_url", "function", "tool_calls")
JUNK = st.recursive(
    LEAVES | VALUES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from(KEYS),
            inner | st.sampled_from(["user", "tool", "text", "object"]),
            max_size=3,
        )
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)
SAID = [
    *sorted(OPTION_NAMES),
    "model",
    "system",
    "attachments",
    "timeout",
    "headers",
    "extra_body",
    "strict",
    "nonsense",
]
MADE = ["base_url", "api_key", "dialect", "system", "timeout", "headers", "extra_body", "retries", "strict", "settings",
        "transport", "hooks", "replay", *sorted(OPTION_NAMES)]  # fmt: skip
CLIENT = polyvox.Client("demo", settings=config.Settings())

often = settings(
    max_examples=int(os.environ.get("POLYVOX_FUZZ", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,
)


def ours(call):
    """Run it; an error of our tree is an answer, any other fails the test."""
    try:
        call()
    except PolyvoxError as error:
        assert error.hint and error.message


@often
@given(st.text(max_size=5) | JUNK, st.dictionaries(st.sampled_from(SAID), JUNK, max_size=2), st.booleans())
def test_asking_and_streaming_raise_only_errors_of_ours(prompt, options, streaming):
    if streaming:
        ours(lambda: list(CLIENT.stream(prompt, **options)))
    else:
        ours(lambda: CLIENT.ask(prompt, **options))


@often
@given(st.just("demo") | JUNK, st.dictionaries(st.sampled_from(MADE), JUNK, max_size=2))
def test_making_a_client_raises_only_errors_of_ours(model, facts):
    ours(lambda: polyvox.Client(model, **facts).ask("hi"))


@often
@given(
    JUNK | st.lists(JUNK, max_size=2), st.dictionaries(st.sampled_from(sorted(OPTION_NAMES)), JUNK, max_size=2), JUNK
)
def test_conversations_raise_only_errors_of_ours(messages, options, prompt):
    ours(lambda: CLIENT.chat(messages=messages, **options).ask(prompt))


@often
@given(JUNK, st.dictionaries(st.sampled_from(["concurrency", "on_progress", "model"]), JUNK, max_size=2))
def test_batches_raise_only_errors_of_ours(prompts, options):
    ours(lambda: CLIENT.ask_batch(prompts, **options))


@often
@given(
    st.dictionaries(
        st.sampled_from([*config.FIELDS, "aliases", "providers", "files", "dotenv", "loaders", "x"]), JUNK, max_size=2
    )
)
def test_configuring_raises_only_errors_of_ours(values):
    try:
        ours(lambda: polyvox.configure(**values))
    finally:
        config.reset()
