"""One tree of errors: each names its kind, gives a hint, and crosses process borders whole."""

import pickle

import pytest

from polyvox import errors
from polyvox.errors import BY_KIND, ConfigError, PolyvoxError, RateLimitError, of_kind
from polyvox.types import Attempt


def classes(root=PolyvoxError):
    yield root
    for child in root.__subclasses__():
        yield from classes(child)


ALL = sorted({cls for cls in classes() if cls.__module__ == "polyvox.errors"}, key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", ALL)
def test_every_error_carries_a_hint_even_when_nobody_gave_one(cls):
    error = cls("it broke")
    assert error.hint and error.hint in str(error)
    assert cls("it broke", hint="do this").hint == "do this"


@pytest.mark.parametrize("cls", ALL)
def test_every_error_says_what_it_is_and_survives_a_pickle(cls):
    error = cls(
        "it broke", provider="p", model="m", status=418, request_id="r", attempts=(Attempt("p/m"), Attempt("p/m"))
    )
    assert all(word in str(error) for word in ("it broke", "p/m", "HTTP 418", "request r", "2 attempts"))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls and str(again) == str(error) and again.describe() == error.describe()
    assert cls.__doc__


def test_a_kind_makes_its_error_and_an_unknown_kind_the_root():
    for kind, cls in BY_KIND.items():
        assert type(of_kind(kind, "x")) is cls and cls.kind == kind
    assert type(of_kind("nobody knows", "x")) is PolyvoxError


def test_what_was_found_here_was_not_sent():
    for cls in (errors.InputError, errors.MissingKeyError, errors.ConfigError, errors.UnknownModelError):
        assert cls("x").sent == "no" and cls("x").billed is False


def test_retryable_is_the_class_s_word_unless_the_server_said_otherwise():
    assert RateLimitError("x").retryable is True
    assert RateLimitError("x", retryable=False).retryable is False


def test_a_config_error_lists_every_problem():
    text = str(ConfigError("bad", problems=("a.toml:1: x", "a.toml:2: y")))
    assert "a.toml:1: x" in text and "a.toml:2: y" in text
