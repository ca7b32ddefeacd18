"""Which deployments a name means."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.routing.patterns import is_pattern, matches, meant

ROWS = (
    ("main", "quick", "acme/chat-large"),
    ("spare", "acme/chat-large"),
    ("quick", "acme/chat-small"),
    ("hut", "other/house-chat"),
)


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("main", (0,)),
        ("quick", (2,)),  # who is called so, not who has it as an alias
        ("acme/chat-large", (0, 1)),
        ("acme/*", (0, 1, 2)),
        ("*", (0, 1, 2, 3)),
        ("chat-*", (0, 1, 2)),
        ("CHAT-Large", (0, 1)),
        ("*chat*", (0, 1, 2, 3)),
        ("*/house-*", (3,)),
        ("chat", ()),
        ("ma?n", ()),
        ("", ()),
    ],
)
def test_a_name_means_who_is_called_so_before_whom_it_matches(name, places):
    assert meant(name, ROWS) == places


def test_a_star_makes_a_pattern():
    assert is_pattern("acme/*")
    assert not is_pattern("acme/[a]?")


@given(st.text("ab*/[?", max_size=8), st.text("ab/[?", max_size=8))
def test_a_star_is_any_text_and_all_else_is_itself(pattern, name):
    # The same by another's reading, with what it takes for special made plain.
    plain = pattern.replace("[", "[[]").replace("?", "[?]")
    expected = fnmatch.fnmatchcase(name, plain)
    if "/" not in pattern and "/" in name:
        expected = expected or fnmatch.fnmatchcase(name.partition("/")[2], plain)
    assert matches(pattern, [name]) is expected


@given(st.text(max_size=20))
def test_a_name_without_a_star_means_itself(name):
    if "*" not in name:
        assert meant(name, [[name], ["x" + name]])[0] == 0
