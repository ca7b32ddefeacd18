"""`polyvox chat`: lines in, answers out, and what is kept of them."""

import json
import stat

import pytest


@pytest.fixture
def talk(run):
    def call(*lines, words=()):
        return run("chat", "-m", "test/x", *words, input="".join(f"{line}\n" for line in lines))

    return call


def said(body):
    return [message["content"] for message in body["messages"]]


ANSWER = "One two three four five."


def test_each_line_is_a_turn_that_knows_the_ones_before(talk, provider):
    result = talk("first", "", "second")
    assert (result.exit_code, result.stdout) == (0, f"{ANSWER}\n{ANSWER}\n")
    assert said(provider.seen[1]) == ["first", ANSWER, "second"]


def test_system_and_options_go_with_every_turn(talk, provider):
    talk("first", "second", words=("-s", "Be brief.", "-o", "temperature=0"))
    assert [(body["temperature"], said(body)[0]) for body in provider.seen] == [(0, "Be brief.")] * 2


def test_undo_takes_back_a_turn_and_clear_all_of_them(talk, provider):
    talk("a", "b", "/undo", "c", "/clear", "d")
    assert [said(body) for body in provider.seen[2:]] == [["a", ANSWER, "c"], ["d"]]


def test_retry_asks_the_last_question_again_in_place_of_the_first_try(talk, provider):
    talk("a", "b", "/retry", "c")
    assert said(provider.seen[2]) == said(provider.seen[1])
    assert said(provider.seen[3]) == ["a", ANSWER, "b", ANSWER, "c"]


def test_another_model_and_other_instructions_hold_from_there_on(talk, provider):
    result = talk("a", "/model test/y", "/system Be rude.", "b", "/system", "/model")
    assert [body["model"] for body in provider.seen] == ["x", "y"]
    assert said(provider.seen[1])[0] == "Be rude."
    assert "model: test/y" in result.stderr and "system: Be rude." in result.stderr
    assert "model:" not in result.stdout


def test_a_model_nobody_has_is_refused_at_once(talk, provider):
    result = talk("/model nope/x", "hello")
    assert result.exit_code == 2 and provider.seen == []


def test_a_saved_conversation_is_private_and_goes_on_where_it_ended(talk, provider, home):
    talk("first", "/save talk.json", words=("-s", "Be brief."))
    path = home / "talk.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["messages"][0]["role"] == "user"
    talk("/load talk.json", "second")
    assert said(provider.seen[1]) == ["Be brief.", "first", ANSWER, "second"]


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"polyvox": 9, "messages": []}', '{"polyvox": 1, "messages": [3]}']
)
def test_a_file_that_is_no_conversation_is_refused(talk, provider, home, content):
    (home / "bad.json").write_text(content)
    result = talk("/load bad.json")
    assert result.exit_code == 2 and "error: bad.json" in result.stderr


@pytest.mark.parametrize(
    "line", ["/retry", "/undo", "/save", "/load", "/load gone.json", "/save no/such/folder/x", "/modle"]
)
def test_a_command_that_cannot_be_done_says_why(talk, provider, line):
    result = talk(line)
    assert result.exit_code == 2 and result.stderr.startswith("error: ")


def test_exit_ends_and_a_double_slash_begins_a_turn_with_a_slash(talk, provider):
    assert talk("//etc is a folder", "/exit", "not asked").exit_code == 0
    assert [said(body) for body in provider.seen] == [["/etc is a folder"]]


def test_help_lists_every_command(talk, provider):
    told = talk("/help").stderr
    assert all(f"/{word}" in told for word in "help model system clear undo retry save load exit".split())


def test_piped_in_the_first_error_ends_with_its_code(talk, provider):
    result = talk("/model test/status-500", "a", "b")
    assert result.exit_code == 5 and len(provider.seen) == 1


def test_with_nothing_configured_the_demo_talks_and_says_so(run):
    result = run("chat", input="hello\n")
    assert result.exit_code == 0 and "offline demo" in result.stderr and "hello" in result.stdout
