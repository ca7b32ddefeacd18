"""How the command speaks: which codes, which characters, which colours."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox import errors
from polyvox.cli import output

CODES = {
    0: (), 2: ("usage",), 3: ("invalid_request", "context_length", "not_found", "too_large", "content_policy"),
    4: ("bad_response", "refusal"), 5: ("server", "overloaded"), 6: ("rate_limit", "quota", "billing"),
    7: ("auth", "permission"), 8: ("connection", "timeout", "stream_interrupted"), 78: ("config",), 130: ("cancelled",),
}  # fmt: skip


def every_error(root=errors.PolyvoxError):
    for cls in root.__subclasses__():
        # A documented interface makes others of them, which are those of the tree by another name.
        if cls.__module__ == "polyvox.errors" and vars(errors).get(cls.__name__) is cls:
            yield cls
        yield from every_error(cls)


def test_each_kind_of_error_has_the_code_scripts_rely_on():
    for code, kinds in CODES.items():
        for kind in kinds:
            assert output.EXIT_CODES[kind] == code, kind


def test_no_error_of_the_tree_is_without_a_code():
    for cls in every_error():
        assert cls.kind in output.EXIT_CODES, cls


def test_what_was_never_sent_for_being_wrong_is_usage_whatever_its_kind():
    for error in (errors.InputError("x"), errors.LossError("x"), errors.UnknownModelError("x")):
        assert output.exit_code(error) == 2


def test_a_provider_that_does_not_know_the_model_is_no_usage_error():
    assert output.exit_code(errors.NotFoundError("x", status=404)) == 3


@pytest.mark.parametrize(("status", "code"), [(418, 3), (599, 5), (None, 1)])
def test_an_error_of_no_known_kind_is_judged_by_its_status(status, code):
    assert output.exit_code(errors.PolyvoxError("x", status=status)) == code


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain\n\ttext é 漢 👍🏽 עברית", "plain\n\ttext é 漢 👍🏽 עברית"),
        ("\x1b[31;1mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;owned\x07title", "title"),
        ("\x1b]8;;https://x.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\sixel", "sixel"),
        ("\x1bcreset\x1b(B", "reset"),
        ("over\rwritten\x08\x07\x7f", "overwritten"),
        ("user\u202egnp.exe\u202c", "usergnp.exe"),
        ("\x1b]52;c;never ended\nnext line", "]52;c;never ended\nnext line"),
    ],
)
def test_what_a_terminal_would_obey_is_taken_out(said, shown):
    assert output.clean(said) == shown
    cleaner = output.Cleaner()
    assert "".join([cleaner.feed(char) for char in said]) + cleaner.close() == shown


SNIPPETS = st.sampled_from(
    ["\x1b", "[", "]", "31m", "\x07", "\\", "\x9b", "\x90", "0;t", "word ", "\n", "\u202e", "é", "P"]
)


@given(st.lists(SNIPPETS, max_size=30).map("".join), st.integers(1, 7))
def test_no_control_character_survives_any_cutting(text, size):
    cleaner = output.Cleaner()
    shown = "".join([cleaner.feed(text[at : at + size]) for at in range(0, len(text), size)]) + cleaner.close()
    assert all(char in "\n\t" or (char.isprintable() and char != "\u202e") for char in shown)


def test_a_sequence_that_never_ends_does_not_silence_the_model():
    cleaner = output.Cleaner()
    shown = cleaner.feed("\x1b]0;" + "x" * 5000) + cleaner.feed("y" * 5000)
    assert shown.count("x") + shown.count("y") > 9000


def test_a_flood_of_openings_is_cleaned_in_linear_time():
    assert output.clean("\x90" * 100_000) == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("env", "stream", "wanted"),
    [
        ({}, Terminal(), True),
        ({}, io.StringIO(), False),
        ({"NO_COLOR": "1"}, Terminal(), False),
        ({"NO_COLOR": ""}, Terminal(), True),
        ({"FORCE_COLOR": "1"}, io.StringIO(), True),
        ({"FORCE_COLOR": "0"}, io.StringIO(), False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, Terminal(), False),
        ({"TERM": "dumb"}, Terminal(), False),
        ({}, None, False),
    ],
)
def test_colour_is_for_terminals_unless_the_environment_says_otherwise(monkeypatch, env, stream, wanted):
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert output.colour(stream) is wanted


def test_columns_line_up_and_what_is_unknown_is_a_dash(capsys):
    output.table(("NAME", "SIZE"), [("long name", 1), ("x", None)])
    assert capsys.readouterr().out == "NAME       SIZE\nlong name  1\nx          -\n"


def test_json_holds_nothing_a_terminal_obeys_and_reads_back_the_same(capsys):
    import json

    said = {"text": "\x1b[31m\x9b \u202e half: \ud83d é"}
    output.data(said)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and "é" in printed
    assert not set(printed) & set("\x1b\x9b\u202e\ud83d")
    assert json.loads(printed) == said
