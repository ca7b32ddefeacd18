"""What callers say becomes one call; both faces, conversations, batches, and one clear error for nonsense."""

import asyncio
import json

import pytest

from polyvox import (
    AsyncClient,
    Client,
    File,
    Image,
    Message,
    Request,
    Text,
    Thinking,
    ToolCall,
    ToolChoice,
    ToolResult,
    Video,
    config,
)
from polyvox.config import Settings
from polyvox.errors import (
    InputError,
    MissingKeyError,
    PolyvoxError,
    ServerError,
    StreamInterruptedError,
    UnknownModelError,
    UnknownProviderError,
    UsageError,
)
from polyvox.types import Ended, Started
from tests.scripted import Scripted, failed, said, streamed

URL = "http://127.0.0.1:9/v1"
WORDS = Message("user", (Text("go"),))


def client_of(*answers, **facts):
    transport = Scripted(*answers)
    facts = {"base_url": URL, "api_key": "test-key-123", "settings": Settings(), "retries": 0, **facts}
    return Client(facts.pop("model", "m"), transport=transport, **facts), transport


def body_of(prompt, **said_with):
    client, transport = client_of(said("ok"))
    client.ask(prompt, **said_with)
    return transport.bodies()[0]


# ---- what goes out ----------------------------------------------------------------------------


def test_text_becomes_one_user_message_and_nothing_else_is_said():
    assert body_of("hello") == {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def test_system_text_comes_first():
    body = body_of("hello", system="be brief")
    assert body["messages"][0] == {"role": "system", "content": "be brief"}


def test_options_are_sent_as_said_and_only_those():
    body = body_of("x", temperature=0.5, max_tokens=10, stop="END", seed=7, user="u1", effort="low")
    del body["messages"]
    assert body == {
        "model": "m", "temperature": 0.5, "max_completion_tokens": 10, "stop": ["END"], "seed": 7, "user": "u1",
        "reasoning_effort": "low",
    }  # fmt: skip


def test_client_defaults_hold_until_a_call_says_otherwise():
    client, transport = client_of(
        said("1"), said("2"), temperature=0.1, system="s", extra_body={"a": 1}, headers={"x-a": "1"}
    )
    client.ask("x")
    client.ask("x", temperature=0.9, system="t", extra_body={"b": 2}, headers={"x-b": "2"})
    first, second = transport.bodies()
    assert (first["temperature"], first["a"], first["messages"][0]["content"]) == (0.1, 1, "s")
    assert (second["temperature"], second["a"], second["b"], second["messages"][0]["content"]) == (0.9, 1, 2, "t")
    assert transport.sent[1].headers["x-a"] == "1" and transport.sent[1].headers["x-b"] == "2"


def test_messages_parts_and_dicts_mix():
    body = body_of([
        Message("system", (Text("s"),)),
        {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}}]},
        Message("assistant", (Text("seen"),)),
        "and", Image(b"\x89PNG\r\n", media_type="image/png"),
    ])  # fmt: skip
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert body["messages"][1]["content"][1]["image_url"]["url"] == "https://e.org/a.png"
    assert body["messages"][3]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")


def test_a_whole_request_is_taken_as_it_is():
    body = body_of(Request("other", (Message("user", (Text("hi"),)),), temperature=0.0))
    assert body == {"model": "other", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.0}


def test_a_whole_request_counts_more_than_the_clients_defaults_and_less_than_the_calls_options():
    client, transport = client_of(said("1"), said("2"), temperature=0.1, max_tokens=9)
    whole = Request("m", (WORDS,), temperature=0.0)
    client.ask(whole)
    client.ask(whole, temperature=0.5)
    first, second = transport.bodies()
    assert (first["temperature"], first["max_completion_tokens"]) == (0.0, 9)
    assert second["temperature"] == 0.5


def test_functions_and_schemas_become_tools_and_formats():
    def weather(city: str) -> str:
        """Tell the weather."""
        return city

    body = body_of("x", tools=[weather], tool_choice="weather", schema={"type": "object", "properties": {}})
    function = body["tools"][0]["function"]
    assert (function["name"], function["description"]) == ("weather", "Tell the weather.")
    assert function["parameters"]["required"] == ["city"]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize(
    ("choice", "wire"),
    [("auto", "auto"), ("none", "none"), ("any", "required"), ("required", "required"), (ToolChoice("none"), "none")],
)
def test_tool_choice_words(choice, wire):
    assert body_of("x", tool_choice=choice)["tool_choice"] == wire


def test_thinking_may_be_a_switch_a_word_or_a_value():
    assert body_of("x", thinking=False)["reasoning_effort"] == "none"
    assert body_of("x", thinking="high")["reasoning_effort"] == "high"
    assert body_of("x", thinking=Thinking(effort="low"))["reasoning_effort"] == "low"


# ---- attachments ------------------------------------------------------------------------------


def test_attachments_are_read_by_name_and_by_their_first_bytes(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "note.txt").write_text("plain words")
    (tmp_path / "sound.wav").write_bytes(b"RIFF....WAVE")
    body = body_of(
        "see", attachments=[tmp_path / "a.pdf", str(tmp_path / "note.txt"), tmp_path / "sound.wav", b"\xff\xd8\xffjpeg"]
    )
    content = body["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "file", "text", "input_audio", "image_url"]
    assert content[1]["file"]["filename"] == "a.pdf"
    assert content[4]["image_url"]["url"].startswith("data:image/jpeg")


@pytest.mark.parametrize("make", [lambda p: p / "none.png", lambda p: p, lambda p: "bad\0name.png"])
def test_an_unreadable_attachment_is_one_clear_error(tmp_path, make):
    client, transport = client_of()
    with pytest.raises(InputError) as caught:
        client.ask("x", attachments=[make(tmp_path)])
    assert "cannot attach" in caught.value.message and caught.value.sent == "no"
    assert transport.sent == []


def test_an_empty_file_and_broken_text_are_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    for name in ("empty.txt", "bad.txt"):
        with pytest.raises(InputError):
            client_of()[0].ask("x", attachments=[tmp_path / name])


# ---- nonsense ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "options", "word"),
    [
        ("", {}, "empty"),
        ("   \n", {}, "empty"),
        ([], {}, "empty"),
        (5, {}, "int"),
        (b"bytes", {}, "bytes"),
        (None, {}, "NoneType"),
        ([object()], {}, "object"),
        ({"role": "boss", "content": "x"}, {}, "role"),
        ({"role": "user", "content": 5}, {}, "content"),
        ({"role": "user", "content": "x", "colour": 1}, {}, "colour"),
        (Message("boss", (Text("x"),)), {}, "role"),
        (Text(5), {}, "text"),
        (Image(), {}, "needs one"),
        (Image(b"x", url="y"), {}, "needs one"),
        (Image("text"), {}, "bytes"),
        ("x", {"temprature": 1}, "temprature"),
        ("x", {"temperature": "hot"}, "temperature"),
        ("x", {"temperature": float("nan")}, "finite"),
        ("x", {"max_tokens": 1.5}, "max_tokens"),
        ("x", {"max_tokens": True}, "max_tokens"),
        ("x", {"max_tokens": -1}, "at least"),
        ("x", {"n": 0}, "at least"),
        ("x", {"timeout": 0}, "timeout"),
        ("x", {"timeout": float("nan")}, "timeout"),
        ("x", {"schema": {}, "response_format": "json"}, "response_format"),
        ("x", {"tools": [{"name": "a", "parameters": {}}, {"name": "a", "parameters": {}}]}, "two tools"),
        ("x", {"tools": 5}, "tools"),
        ("x", {"tools": "name"}, "tools"),
        ("x", {"modalities": 5}, "modalities"),
        ("x", {"tool_choice": 5}, "tool_choice"),
        ("x", {"thinking": 5}, "thinking"),
        ("x", {"stop": [1]}, "stop"),
        ("x", {"system": 5}, "system"),
        ("x", {"model": 5}, "model"),
    ],
)  # fmt: skip
def test_nonsense_is_one_clear_error_before_anything_is_sent(prompt, options, word):
    client, transport = client_of(said("never"))
    with pytest.raises(InputError) as caught:
        client.ask(prompt, **options)
    assert word in str(caught.value)
    assert caught.value.sent == "no" and caught.value.billed is False
    assert transport.sent == []


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ("x", {"timeout": "soon"}),
        ("x", {"attachments": 5}),
        ("x", {"attachments": "a.png"}),
        ("x", {"headers": 5}),
        ("x", {"headers": {"a": 5}}),
        ("x", {"extra_body": 5}),
        ("x", {"extra": {"openai.chat": 5}}),
        ("x", {"prompt_cache": 5}),
        (ToolResult("c", 5), {}),
        (Text("x", extra=5), {}),
        (Text("x", citations=5), {}),
        (File(text=5), {}),
        (Message("user", (Text("x"),), extra=5), {}),
        (Message("user", (Text("x"),), name=5), {}),
        (Message("user", 5), {}),
        ({"role": "assistant", "tool_calls": 5}, {}),
        ({"role": "user", "content": "x", 5: 5}, {}),
        ({"role": "user", "content": "x", "name": 5}, {}),
        (Request("m", (Message("user", (Text("x"),)),), tools=5), {}),
        (Request("m", (Message("user", (Text("x"),)),), stop="x"), {}),
        (Request("m", (Message("user", (Text("x"),)),), thinking="high"), {}),
        (Request("m", (5,)), {}),
        (Request("m", 5), {}),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_an_error_of_ours_wherever_it_stands(prompt, options):
    client, transport = client_of(said("never"))
    with pytest.raises(InputError):
        client.ask(prompt, **options)
    with pytest.raises(InputError):
        client.stream(prompt, **options)
    assert transport.sent == []


@pytest.mark.parametrize(
    "facts",
    [
        {"model": []}, {"headers": "x"}, {"extra_body": "x"}, {"hooks": 5}, {"transport": []}, {"base_url": 5},
        {"timeout": "1"}, {"api_key": 5}, {"api_key": " "}, {"retries": -1}, {"retries": "2"}, {"settings": {}},
        {"dialect": "morse"}, {"system": 5}, {"temperature": "warm"},
    ],
)  # fmt: skip
def test_a_client_made_of_nonsense_is_an_error_of_ours(facts):
    with pytest.raises(InputError):
        Client(**{"model": "m", "base_url": URL, "api_key": "test-key-123", "settings": Settings(), **facts}).ask("x")


def test_batches_and_conversations_refuse_what_is_no_sequence():
    client, _ = client_of()
    for prompts in (None, 5, "text"):
        with pytest.raises(InputError):
            client.ask_batch(prompts)
    with pytest.raises(InputError):
        client.chat(messages=5)


def test_a_progress_callback_that_fails_harms_no_answer(caplog):
    client, _ = client_of(said("a"), said("b"))

    def broken(done, total):
        raise RuntimeError("boom")

    assert [str(one) for one in client.ask_batch(["x", "y"], concurrency=1, on_progress=broken)] == ["a", "b"]
    assert "boom" in caplog.text


def test_an_option_of_the_wrong_type_is_shown_with_its_value():
    with pytest.raises(InputError) as caught:
        client_of()[0].ask("x", temperature="hot")
    assert "'hot'" in caught.value.message


def test_a_misspelt_option_is_told_with_the_nearest_name():
    with pytest.raises(InputError) as caught:
        client_of()[0].ask("x", temprature=1)
    assert "temperature" in caught.value.hint


def test_what_belongs_to_a_client_is_told_so():
    with pytest.raises(InputError) as caught:
        client_of()[0].ask("x", api_key="k")
    assert "belongs to a client" in caught.value.message and "Client(api_key=" in caught.value.hint


def test_a_part_the_protocol_cannot_take_is_a_loss_or_refused():
    client, _ = client_of(said("ok"))
    response = client.ask(["see", Video(b"x", media_type="video/mp4")])
    assert [loss.field for loss in response.losses] == ["messages[0].parts[1].video"]
    with pytest.raises(PolyvoxError) as caught:
        client.ask(["see", Video(b"x", media_type="video/mp4")], strict=True)
    assert caught.value.kind == "unsupported_param" and caught.value.sent == "no"


# ---- names, keys, addresses -------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """An environment without keys or configuration."""
    import os

    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_BASE_URL", "_TOKEN")) or name.startswith(("POLYVOX_", "OLLAMA", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("POLYVOX_HOME", str(tmp_path))
    return Settings()


def test_a_missing_key_says_which_variable_and_which_command(bare):
    with pytest.raises(MissingKeyError) as caught:
        Client("openai/gpt-x", settings=bare).ask("hi")
    assert "OPENAI_API_KEY" in caught.value.hint and "polyvox keys set openai" in caught.value.hint


def test_without_a_model_or_any_key_the_library_says_so_and_asks_nobody(bare):
    with pytest.raises(MissingKeyError) as caught:
        Client(settings=bare).ask("hi")
    assert 'model="demo"' in caught.value.hint


def test_unknown_names_come_with_the_nearest(bare):
    with pytest.raises(UnknownProviderError) as caught:
        Client("opnai/gpt-5", settings=bare).ask("hi")
    assert "openai/gpt-5" in caught.value.hint
    with pytest.raises(UnknownModelError):
        Client("no-such-model-at-all", settings=bare).ask("hi")


def test_an_inherited_key_does_not_follow_a_foreign_address(bare, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-inherited-key-000000000")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://evil.example/v1")
    client = Client("openai/gpt-x", settings=config.load(), transport=(transport := Scripted(said("no"))))
    with pytest.raises(PolyvoxError) as caught:
        client.ask("hi")
    assert transport.sent == []
    assert "evil.example" in caught.value.message and "sk-inherited" not in str(caught.value)


def test_the_key_goes_into_the_header_the_provider_wants(bare):
    transport = Scripted(said("ok"))
    Client("openai/gpt-x", api_key="sk-explicit-123456", settings=bare, transport=transport).ask("hi")
    assert transport.sent[0].headers["authorization"] == "Bearer sk-explicit-123456"
    assert transport.sent[0].url == "https://api.openai.com/v1/chat/completions"


def test_an_address_and_a_key_that_are_passed_together_go_together_also_where_a_variable_names_the_address(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    settings = config.load(files=[])
    transport = Scripted(said("hello"))
    with Client(
        "m", base_url="http://127.0.0.1:9/v1", api_key="k" * 12, transport=transport, settings=settings
    ) as client:
        assert client.ask("hi").text == "hello"
    assert transport.sent[0].headers["authorization"] == "Bearer " + "k" * 12
    with pytest.raises(PolyvoxError):
        Client("openai/m", api_key="k" * 12, transport=transport, settings=settings).ask("hi")


@pytest.mark.parametrize("url", ["not a url", "ftp://x", "https://user:pw@host/v1", "https://host/v1?key=1"])
def test_a_base_url_that_cannot_work_is_refused_without_being_repeated(url):
    with pytest.raises(PolyvoxError) as caught:
        Client("m", base_url=url, api_key="k" * 12, settings=Settings()).ask("hi")
    assert "pw" not in str(caught.value) and "base_url" in caught.value.message


def test_a_key_without_a_model_is_not_given_to_just_anybody(bare):
    with pytest.raises(InputError) as caught:
        Client(api_key="sk-whose-key-is-it", settings=bare).ask("hi")
    assert "whose" in caught.value.message


def test_a_key_passed_in_goes_to_its_provider_and_to_no_other(bare, monkeypatch):
    transport = Scripted(said("a"), said("b"))
    client = Client("openai/gpt-x", api_key="sk-for-openai-only-1", settings=bare, transport=transport)
    with pytest.raises(MissingKeyError):
        client.ask("hi", model="groq/some-model")
    assert transport.sent == []
    client.ask("hi")
    monkeypatch.setenv("GROQ_API_KEY", "gsk_of_the_environment_1")
    client.ask("hi", model="groq/some-model")
    sent = [one.headers["authorization"] for one in transport.sent]
    assert sent == ["Bearer sk-for-openai-only-1", "Bearer gsk_of_the_environment_1"]


def test_a_base_url_needs_a_model():
    with pytest.raises(InputError) as caught:
        Client(base_url=URL, api_key="k" * 12, settings=Settings()).ask("hi")
    assert "no model" in caught.value.message


# ---- both faces -------------------------------------------------------------------------------


def test_the_async_face_says_the_same():
    transport = Scripted(said("hello"), streamed("a", "b"))

    async def go():
        async with AsyncClient(
            "m", base_url=URL, api_key="test-key-123", transport=transport, settings=Settings()
        ) as client:
            answer = await client.ask("hi")
            stream = client.stream("hi")
            texts = [text async for text in stream]
            return answer, texts, stream.response

    answer, texts, whole = asyncio.run(go())
    assert answer.text == "hello" and texts == ["a", "b"] and whole.text == "ab"


def test_a_stream_gives_text_then_its_response():
    client, _ = client_of(streamed("one ", "two"))
    with client.stream("x") as stream:
        with pytest.raises(UsageError):
            _ = stream.response
        assert list(stream) == ["one ", "two"]
    assert stream.response.text == "one two" and str(stream.response) == "one two"


def test_a_stream_gives_events_on_request():
    client, _ = client_of(streamed("x"))
    events = list(client.stream("x").events())
    assert isinstance(events[0], Started) and isinstance(events[-1], Ended)


def test_finish_reads_the_rest():
    client, _ = client_of(streamed("a", "b", "c"))
    stream = client.stream("x")
    assert next(stream) == "a"
    assert stream.finish().text == "abc"


def test_a_cut_stream_raises_with_what_came():
    client, _ = client_of(streamed("half", end=False))
    texts = []
    with pytest.raises(StreamInterruptedError) as caught:
        for text in client.stream("x"):
            texts.append(text)
    assert texts == ["half"] and caught.value.partial.text == "half"


def test_leaving_a_stream_early_cuts_it():
    client, transport = client_of(streamed("a", "b", "c"))
    with client.stream("x") as stream:
        next(stream)
    assert transport.given[0].closed and not transport.given[0].read_to_end


def test_a_provider_that_ignores_stream_still_answers():
    client, _ = client_of(said("whole"))
    stream = client.stream("x")
    assert list(stream) == ["whole"] and stream.response.usage.total == 5


def test_a_closed_client_refuses():
    client, _ = client_of(said("x"))
    client.close()
    with pytest.raises(UsageError):
        client.ask("hi")


# ---- conversations ----------------------------------------------------------------------------


def test_a_conversation_takes_along_what_was_said():
    client, transport = client_of(said("hello Ada"), streamed("Ada"), system="be kind")
    talk = client.chat()
    talk.ask("I am Ada")
    assert "".join(talk.stream("who am I?")) == "Ada"
    roles = [message["role"] for message in transport.bodies()[1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert [message.role for message in talk.messages] == ["user", "assistant", "user", "assistant"]


def test_a_turn_that_fails_leaves_the_conversation_as_it_was():
    client, _ = client_of(said("hi"), failed(500), streamed("half", end=False))
    talk = client.chat()
    talk.ask("one")
    before = talk.messages
    with pytest.raises(ServerError):
        talk.ask("two")
    with pytest.raises(StreamInterruptedError):
        list(talk.stream("three"))
    assert talk.messages == before


def test_a_conversation_can_be_undone_and_cleared():
    client, _ = client_of(said("1"), said("2"))
    talk = client.chat()
    talk.ask("a")
    talk.ask("b")
    talk.undo()
    assert [message.text for message in talk.messages] == ["a", "1"]
    talk.clear()
    assert talk.messages == ()


def test_tool_calls_go_back_with_their_results():
    call = {"id": "c9", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    choice = {"index": 0, "message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}
    client, transport = client_of(said("", choices=[choice]), said("done"))
    talk = client.chat()
    made = talk.ask("go").tool_calls[0]
    assert (made.id, made.name, made.args) == ("c9", "f", {"a": 1})
    talk.ask(Message("tool", (ToolResult("c9", (Text("42"),)),)))
    sent = transport.bodies()[1]["messages"]
    assert sent[1]["tool_calls"] == [call]
    assert sent[2] == {"role": "tool", "tool_call_id": "c9", "content": "42"}


CALL = Message("assistant", (ToolCall("c1", "f", "{}"), ToolCall("c2", "g", "{}")))


@pytest.mark.parametrize(
    "history",
    [
        [WORDS, CALL],
        [WORDS, CALL, Message("tool", (ToolResult("c1"),))],
        [WORDS, CALL, Message("tool", (ToolResult("c1"),)), WORDS, Message("tool", (ToolResult("c2"),))],
        [WORDS, Message("tool", (ToolResult("c1"),))],
        [WORDS, CALL, Message("tool", (ToolResult("c1"), ToolResult("c2"), ToolResult("c9")))],
    ],
)
def test_a_history_with_a_call_or_a_result_alone_is_refused_before_it_is_paid_for(history):
    client, transport = client_of(said("never"))
    with pytest.raises(InputError) as caught:
        client.ask(history)
    assert "tool call" in caught.value.message and transport.sent == []


def test_a_history_whose_calls_are_all_answered_goes_out():
    results = [Message("tool", (ToolResult("c2", (Text("2"),)),)), Message("user", (ToolResult("c1"), Text("and?")))]
    client, transport = client_of(said("ok"))
    client.ask([WORDS, CALL, *results])
    assert [message["role"] for message in transport.bodies()[0]["messages"]][:2] == ["user", "assistant"]


# ---- batches ----------------------------------------------------------------------------------


def test_a_batch_keeps_order_isolates_failures_and_tells_progress():
    seen = []

    class ByPrompt(Scripted):
        async def send(self, outgoing, timeouts):
            words = json.loads(outgoing.body)["messages"][0]["content"]
            await asyncio.sleep({"slow": 0.05}.get(words, 0))
            return failed(400) if words == "bad" else said(words.upper())

    client = Client("m", base_url=URL, api_key="test-key-123", transport=ByPrompt(), settings=Settings())
    answers = client.ask_batch(
        ["slow", "bad", "", "c"], concurrency=2, on_progress=lambda done, total: seen.append((done, total))
    )
    assert [str(answers[0]), str(answers[3])] == ["SLOW", "C"]
    assert answers[1].kind == "invalid_request" and isinstance(answers[2], InputError)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_batch_bounds_what_is_under_way():
    under_way = most = 0

    class Counting(Scripted):
        async def send(self, outgoing, timeouts):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.005)
            under_way -= 1
            return said("x")

    client = Client("m", base_url=URL, api_key="test-key-123", transport=Counting(), settings=Settings())
    assert len(client.ask_batch(["x"] * 20, concurrency=3)) == 20
    assert most == 3
    with pytest.raises(InputError):
        client.ask_batch(["x"], concurrency=0)


def test_an_empty_batch_is_empty():
    client, _ = client_of()
    assert client.ask_batch([]) == []


# ---- the demo and the module functions --------------------------------------------------------


def test_the_module_functions_answer_with_the_demo():
    import polyvox

    assert polyvox.ask("hello", model="demo").text.startswith("[demo]")
    assert "".join(polyvox.stream("hello", model="demo")).startswith("[demo]")
    assert polyvox.chat(model="demo").ask("hello").model == "demo"
    assert [str(answer)[:6] for answer in polyvox.ask_batch(["a", "b"], model="demo")] == ["[demo]"] * 2

    async def go():
        answer = await polyvox.ask_async("hello", model="demo")
        texts = [text async for text in polyvox.stream_async("hello", model="demo")]
        talk = await polyvox.achat(model="demo").ask("hello")
        return answer.text == "".join(texts) == talk.text

    assert asyncio.run(go())


def test_a_function_under_a_running_loop_works_in_a_notebook():
    import polyvox

    async def cell():
        return polyvox.ask("hello", model="demo").finish_reason

    assert asyncio.run(cell()) == "stop"
