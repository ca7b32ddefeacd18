"""`polyvox ask`: what is asked, what is printed where, and how it ends."""

import io
import json

import pytest

KEY = "sk-proj-abcdefghijklmnopqrstuvwx"


# ---- the verb ---------------------------------------------------------------------------------


def test_the_verb_may_be_left_out(run):
    said, left_out = run("ask", "-m", "demo", "hello"), run("-m", "demo", "hello")
    assert said.exit_code == left_out.exit_code == 0
    assert said.stdout == left_out.stdout != ""
    assert run("hello", "-m", "demo").stdout == said.stdout


def test_words_without_quotes_are_one_prompt(run, provider):
    assert run("-m", "test/x", "what", "is", "this").exit_code == 0
    assert provider.seen[0]["messages"] == [{"role": "user", "content": "what is this"}]


@pytest.mark.parametrize("words", [("modles",), ("provider",), ("key", "list"), ("modles", "show")])
def test_a_word_that_is_nearly_a_command_is_not_sent_to_a_model(run, provider, words):
    result = run(*words)
    assert result.exit_code == 2
    assert result.stdout == "" and "did you mean: polyvox " in result.stderr
    assert provider.seen == []


@pytest.mark.parametrize("words", [("hello",), ("what",), ("models of planes, please",), ("model", "trains")])
def test_a_word_that_is_a_question_is_asked(run, provider, words):
    assert run(*words, env={"POLYVOX_MODEL": "test/x"}).exit_code == 0
    assert provider.seen[0]["messages"][0]["content"] == " ".join(words)


def test_a_question_may_be_a_command_word_when_the_verb_is_said(run, provider):
    assert run("ask", "-m", "test/x", "models").exit_code == 0
    assert provider.seen[0]["messages"][0]["content"] == "models"


def test_everything_after_two_dashes_is_prompt(run, provider):
    assert run("-m", "test/x", "--", "--json", "-u").exit_code == 0
    assert provider.seen[0]["messages"][0]["content"] == "--json -u"


# ---- standard input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "piped", "sent"),
    [
        (("sum up:",), "notes\n", "sum up:\n\nnotes"),
        ((), "notes\n", "notes"),
        (("-",), "notes\n", "notes"),
        (("sum up:", "-"), "a\nb\n", "sum up:\n\na\nb"),
        (("hello",), "", "hello"),
        (("hello",), "\n", "hello"),
        ((), "\ufeffnotes", "notes"),
    ],
)
def test_what_is_piped_in_comes_after_the_prompt(run, provider, words, piped, sent):
    assert run("-m", "test/x", *words, input=piped).exit_code == 0
    assert provider.seen[0]["messages"][0]["content"] == sent


def test_a_terminal_is_never_read(run, monkeypatch):
    class Keyboard(io.BytesIO):
        def isatty(self):
            return True

        def read(self, size=-1):
            if size == 0:
                return b""
            raise AssertionError("the terminal was read")

    assert run("-m", "demo", "hello", input=Keyboard()).exit_code == 0
    result = run("-m", "demo", "-", input=Keyboard())
    assert result.exit_code == 2 and "terminal" in result.stderr


def test_nothing_to_ask_is_a_usage_error(run):
    result = run("-m", "demo", input="")
    assert result.exit_code == 2 and "nothing to ask" in result.stderr


def test_bytes_that_are_not_text_are_refused_as_a_prompt_and_taken_as_an_attachment(run):
    picture = b"\x89PNG\r\n\x1a\n\xff\xfe"
    result = run("-m", "demo", "what?", input=picture)
    assert result.exit_code == 2 and "-a -" in result.stderr
    assert run("-m", "demo", "what?", "-a", "-", input=picture).exit_code == 0


def test_standard_input_cannot_be_two_things(run):
    result = run("-m", "demo", "-", "-a", "-", input="x")
    assert result.exit_code == 2 and "more than once" in result.stderr


# ---- options ----------------------------------------------------------------------------------


def test_options_are_json_where_they_read_as_json_and_text_otherwise(run, provider):
    options = ("temperature=0.5", "max-tokens=9", 'stop=["END"]', 'metadata={"a": "b"}', "user=42")
    result = run("-m", "test/x", *[word for option in options for word in ("-o", option)], "hi")
    assert result.exit_code == 0, result.stderr
    body = provider.seen[0]
    assert (body["temperature"], body["stop"], body["metadata"]) == (0.5, ["END"], {"a": "b"})
    assert body["user"] == "42"
    assert body["max_completion_tokens"] == 9


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("temprature=1", "did you mean temperature?"),
        ("model=x", "say -m"),
        ("temperature", "NAME=VALUE"),
        ("temperature=NaN", "temperature must be"),
        ("max_tokens=1.5", "max_tokens must be int"),
    ],
)
def test_a_wrong_option_is_found_before_anything_is_sent(run, provider, option, hint):
    result = run("-m", "test/x", "-o", option, "hi")
    assert result.exit_code == 2 and hint in result.stderr
    assert provider.seen == []


def test_the_system_text_may_stand_in_a_file(run, provider, home):
    (home / "style.txt").write_text("Be brief.")
    assert run("-m", "test/x", "-s", "@style.txt", "hi").exit_code == 0
    assert provider.seen[0]["messages"][0]["content"] == "Be brief."
    assert run("-m", "test/x", "-s", "@gone.txt", "hi").exit_code == 2


def test_an_attachment_that_is_not_there_is_a_usage_error(run, provider):
    result = run("-m", "test/x", "-a", "gone.png", "hi")
    assert result.exit_code == 2 and "does not exist" in result.stderr
    assert provider.seen == []


def test_a_key_in_the_arguments_is_refused_and_not_repeated(run):
    result = run("-m", "openai/x", "--key", KEY, "hi")
    assert result.exit_code == 2 and "polyvox keys set" in result.stderr
    assert KEY not in result.output


@pytest.mark.parametrize(("said", "input", "env"), [("-", f" {KEY}\n", None), ("@env:MINE", None, {"MINE": KEY})])
def test_a_key_comes_from_a_pipe_or_a_variable(run, provider, home, said, input, env):
    config = home / "polyvox" / "config.toml"
    config.write_text(config.read_text().replace('auth = "none"', 'auth = "bearer"'))
    result = run("-m", "test/x", "--key", said, "hi", input=input, env=env)
    assert (result.exit_code, KEY in result.output) == (0, False)
    assert provider.keys == [f"Bearer {KEY}"]


def test_a_key_for_nobody_in_particular_is_refused(run):
    result = run("--key", "@env:MINE", "hi", env={"MINE": KEY})
    assert result.exit_code == 2 and "-m PROVIDER/MODEL" in result.stderr


# ---- what is printed --------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "printed"), [("x", "One two three four five.\n"), ("newline", "ends\n")])
@pytest.mark.parametrize("how", [(), ("--no-stream",)])
def test_the_answer_alone_goes_to_standard_output_and_ends_its_line(run, provider, model, printed, how):
    result = run("-m", f"test/{model}", "hi", *how)
    assert (result.exit_code, result.stdout, result.stderr) == (0, printed, "")


def test_json_is_one_object_with_all_that_is_known(run, provider):
    result = run("-m", "test/x", "--json", "hi")
    told = json.loads(result.stdout)
    assert told["text"] == "One two three four five."
    assert told["usage"]["input"] == 7 and told["usage"]["cache_read"] == 3
    assert told["cost"] == {"amount": None, "currency": "USD", "source": "unknown"}
    assert (told["provider"], told["deployment"], told["finish_reason"]) == ("test", "test/x", "stop")
    assert (told["demo"], told["losses"], len(told["attempts"])) == (False, [], 1)


def test_jsonl_is_an_event_a_line_and_ends_with_the_end(run, provider):
    lines = [json.loads(line) for line in run("-m", "test/x", "--jsonl", "hi").stdout.splitlines()]
    assert [line["text"] for line in lines if line["event"] == "text_delta"] == [
        "One ",
        "two ",
        "three ",
        "four ",
        "five.",
    ]
    assert lines[-1]["event"] == "end"


def test_json_and_jsonl_exclude_each_other(run):
    result = run("-m", "demo", "--json", "--jsonl", "hi")
    assert result.exit_code == 2
    assert json.loads(result.stderr)["error"]["kind"] == "usage"


def test_usage_is_told_on_standard_error(run, provider):
    result = run("-m", "test/x", "-u", "--no-stream", "hi")
    assert "7 in (3 cached), 5 out tokens" in result.stderr and "cost unknown" in result.stderr
    assert "usage" not in result.stdout


def test_reasoning_goes_to_standard_error_unless_hidden(run, provider):
    shown = run("-m", "test/thinks", "hi")
    assert shown.stderr == "let me see\n" and "see" not in shown.stdout
    assert run("-m", "test/thinks", "-R", "hi").stderr == ""
    assert run("-m", "test/thinks", "-q", "hi").stderr == ""


def test_what_could_not_be_said_is_a_warning_and_under_strict_an_error(run, provider):
    loose = run("-m", "test/x", "-o", "top_k=3", "hi")
    assert loose.exit_code == 0 and "warning: top_k" in loose.stderr
    assert "warning" not in run("-m", "test/x", "-q", "-o", "top_k=3", "hi").stderr
    strict = run("-m", "test/x", "--strict", "-o", "top_k=3", "hi")
    assert strict.exit_code == 2 and len(provider.seen) == 2


def test_an_answer_cut_off_at_its_limit_says_so(run, provider):
    assert "cut off at its token limit" in run("-m", "test/long", "hi").stderr


def test_in_a_pipe_the_text_is_untouched(run, provider):
    assert "\x1b[31mred" in run("-m", "test/escapes", "hi").stdout


def test_an_answer_of_tool_calls_alone_is_for_json(run):
    tool = '[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]'
    words = ("-m", "demo", "-o", f"tools={tool}", "-o", "tool_choice=required", "hi")
    told = json.loads(run(*words, "--json").stdout)
    assert [call["name"] for call in told["tool_calls"]] == ["f"]
    result = run(*words)
    assert (result.exit_code, result.stdout) == (4, "") and "tool calls only: f" in result.stderr


# ---- answers of a form ------------------------------------------------------------------------

SCHEMA = {
    "type": "object", "properties": {"title": {"type": "string"}, "year": {"type": "integer"}}, "required": ["title"],
}  # fmt: skip


def test_an_answer_that_fits_the_schema_is_fine_and_one_that_does_not_is_unusable(run, provider, home):
    (home / "book.json").write_text(json.dumps(SCHEMA))
    for said in (json.dumps(SCHEMA), "book.json", "@book.json"):
        assert run("-m", "test/json", "--schema", said, "hi").exit_code == 0
    result = run("-m", "test/wrong", "--schema", "book.json", "hi")
    assert result.exit_code == 4 and "title" in result.stderr
    assert result.stdout == '{"title": 3}\n'
    assert run("-m", "test/x", "--schema", "book.json", "hi").exit_code == 4
    assert provider.seen[0]["response_format"]["json_schema"]["schema"]["properties"] == SCHEMA["properties"]


@pytest.mark.parametrize("said", ["{not json", "[1]", "gone.json", '{"$ref": "#/nowhere"}'])
def test_a_schema_that_is_none_is_found_before_anything_is_sent(run, provider, said):
    assert run("-m", "test/json", "--schema", said, "hi").exit_code == 2
    assert provider.seen == []


def test_the_demo_fills_in_a_schema(run):
    result = run("-m", "demo", "--schema", json.dumps(SCHEMA), "a book")
    assert result.exit_code == 0 and "title" in json.loads(result.stdout)


# ---- how it ends ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "code"),
    [("test/status-400", 3), ("test/status-404", 3), ("test/status-401", 7), ("test/status-403", 7),
     ("test/status-429", 6), ("test/status-402", 6), ("test/status-500", 5), ("test/status-503", 5),
     ("test/cut", 8), ("test/empty", 4), ("nobody/x", 2), ("openai/x", 7)],
)  # fmt: skip
def test_each_way_to_fail_has_its_exit_code_and_no_traceback(run, provider, model, code):
    result = run("-m", model, "hi")
    assert result.exit_code == code, result.stderr
    assert result.stderr.startswith("error: ") and "Traceback" not in result.stderr
    assert KEY not in result.output


def test_a_stream_that_breaks_off_keeps_what_came_and_calls_it_incomplete(run, provider):
    result = run("-m", "test/cut", "hi")
    assert result.stdout.startswith("One two three four five.")
    assert "error: incomplete answer: " in result.stderr


def test_no_connection_and_no_time_are_network_errors(run, provider, home):
    assert run("-m", "test/hangs", "--timeout", "0.3", "hi").exit_code == 8
    config = home / "polyvox" / "config.toml"
    config.write_text('retries = 0\n[providers.test]\nbase_url = "http://127.0.0.1:9/v1"\nauth = "none"\n')
    assert run("-m", "test/x", "hi").exit_code == 8


def test_with_json_the_error_is_json_on_standard_error(run, provider):
    result = run("-m", "test/status-429", "--json", "hi")
    told = json.loads(result.stderr)["error"]
    assert (result.exit_code, result.stdout) == (6, "")
    assert (told["kind"], told["status"], told["retryable"], told["provider"]) == ("rate_limit", 429, True, "test")
    assert KEY not in result.stderr


def test_a_line_that_cannot_be_parsed_is_json_too_when_json_was_asked_for(run):
    result = run("--json", "--no-such-option", "hi")
    assert result.exit_code == 2 and json.loads(result.stderr)["error"]["kind"] == "usage"


def test_broken_configuration_is_told_with_every_problem(run, home):
    (home / "polyvox" / "config.toml").write_text('timeot = 3\nretries = "many"\n')
    result = run("-m", "demo", "hi")
    assert result.exit_code == 78
    assert "timeot" in result.stderr and "retries" in result.stderr and "did you mean timeout?" in result.stderr


def test_a_surprise_is_one_line_and_with_debug_a_traceback_without_keys(run, monkeypatch):
    def broken(*_):
        raise LookupError(f"no {KEY}")

    monkeypatch.setattr("polyvox.cli.start.settings", broken)
    result = run("-m", "demo", "hi")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: unexpected error: LookupError: no ***\nhint: ")
    assert "Traceback" in run("-m", "demo", "--debug", "hi").stderr
    assert KEY not in run("-m", "demo", "--debug", "hi").stderr


def test_debug_shows_our_log_without_keys(run, provider, home):
    config = home / "polyvox" / "config.toml"
    config.write_text(config.read_text().replace("retries = 0", "retries = 1"))
    assert "engine" in run("-m", "test/status-503", "--debug", "hi").stderr
    assert "engine" not in run("-m", "test/status-503", "hi").stderr


# ---- when nothing is configured ---------------------------------------------------------------


def test_with_nothing_at_all_the_demo_answers_and_says_so(run):
    result = run("hello")
    assert result.exit_code == 0 and "[demo]" in result.stdout
    assert "no model configured: using the built-in offline demo; run `polyvox keys set " in result.stderr
    assert json.loads(run("--json", "hello").stdout)["demo"] is True
    assert "offline demo" in run("-q", "hello").stderr


def test_a_local_server_is_used_before_the_demo(run, provider, home):
    (home / "polyvox" / "config.toml").unlink()
    result = run("hello", env={"OLLAMA_HOST": f"127.0.0.1:{provider.server_port}"})
    assert "tiny:latest, found on this machine" in result.stderr
    assert provider.seen[0]["model"] == "tiny:latest"


def test_a_local_server_that_does_not_answer_costs_no_time(run, home):
    import socket
    import time

    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        result = run("hello", env={"OLLAMA_HOST": f"127.0.0.1:{silent.getsockname()[1]}"})
        assert result.exit_code == 0 and "offline demo" in result.stderr
        assert time.monotonic() - begun < 2


def test_a_provider_somebody_set_up_is_not_replaced_by_the_demo(run, provider):
    result = run("hello")
    assert result.exit_code == 7 and "demo" not in result.stdout
