"""What is told of a choice without a call, and where nobody can be asked: who was left out and why, and the request
that would go out."""

import pytest

from polyvox import AsyncClient, Client
from polyvox.config import Settings
from polyvox.errors import MissingKeyError, UsageError
from polyvox.keys import Secret
from polyvox.pools import NoDeploymentError
from polyvox.registry import Entry

HARD = "Prove by induction, step-by-step, that this class compiles: def f(): return 1 == 2"
NO_KEY = "no API key for OpenAI"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch, tmp_path):
    monkeypatch.setenv("POLYVOX_HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def client(*registry, **facts):
    return Client(registry=registry, settings=Settings(), **facts)


KEYLESS = Entry("keyless", "openai/gpt-5.4-mini", tier="economy", priority=2, weight=3, max_tokens=9)


def test_who_has_no_key_stands_in_the_record_behind_the_others_with_the_reason():
    with client(KEYLESS, Entry("here", "demo", tier="economy"), tier="economy") as asked:
        for decision in (asked.route("hi"), asked.ask("hi").decision):
            assert [one.name for one in decision.candidates] == ["here", "keyless"]
            assert decision.skipped == {"keyless": NO_KEY} and decision.asked == ("here",)
            assert (decision.candidates[1].priority, decision.candidates[1].weight) == (2, 3)


@pytest.mark.parametrize("ask", [Client.ask, Client.route])
def test_where_nobody_has_a_key_the_error_says_so_of_each(ask):
    other = Entry("other", "openai/gpt-5.4", tier="economy")
    with client(KEYLESS, other, tier="economy") as asked, pytest.raises(MissingKeyError) as caught:
        ask(asked, "hi")
    decision = caught.value.decision
    assert decision.skipped == {"keyless": NO_KEY, "other": NO_KEY}
    assert (decision.named, decision.tier, decision.asked) == ("tier economy", "economy", ())


def test_a_tier_without_a_key_is_passed_over_by_auto_and_named_where_all_are_so():
    here = Entry("here", "demo", tier="premium")
    with client(KEYLESS, here, tier="auto") as asked:
        found = asked.route("hi")
        assert (found.tier, found.named, found.asked) == ("economy", "tier premium", ("here",))
        assert asked.ask("hi").deployment == "here"
    with client(KEYLESS, tier="auto") as asked, pytest.raises(MissingKeyError) as caught:
        asked.ask("hi")
    assert caught.value.decision.skipped == {"keyless": NO_KEY}


def test_a_key_that_comes_later_is_found_with_the_next_call(monkeypatch):
    with client(KEYLESS, tier="economy") as asked:
        with pytest.raises(MissingKeyError):
            asked.route("hi")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-real-key-0123456789")
        assert asked.route("hi").asked == ("keyless",)


@pytest.mark.parametrize("how", [{"model": "keyless"}, {"model": "key*"}, {"tier": "economy"}, {"tier": "auto"}])
def test_a_request_is_explained_without_a_key(how):
    with client(KEYLESS) as asked:
        shown = asked.explain("hi", **how)
    assert shown.headers["authorization"] == "Bearer $OPENAI_API_KEY"
    assert b'"gpt-5.4-mini"' in shown.body and b":9" in shown.body
    assert shown.deployment == "keyless"


def test_of_several_models_without_a_key_the_first_is_explained():
    with client() as asked:
        shown = asked.explain("hi", model=["openai/gpt-5.4", "openai/gpt-5.4-mini"])
    assert shown.headers["authorization"] == "Bearer $OPENAI_API_KEY" and b'"gpt-5.4"' in shown.body


def test_the_explained_request_is_that_of_who_would_be_asked_first_with_its_own_defaults():
    registry = (
        Entry("small", "demo", tier="economy", temperature=0.25),
        Entry("large", "openai/gpt-5.4-mini", tier="premium", api_key=Secret("sk-not-a-real-key")),
    )
    with client(*registry, tier="auto") as asked:
        easy, hard = asked.explain("hi"), asked.explain(HARD)
        assert b"0.25" in easy.body and b"0.25" not in hard.body and b'"gpt-5.4-mini"' in hard.body
        assert b"0.5" in asked.explain("hi", temperature=0.5).body
    assert "sk-not-a-real-key" not in str(hard.describe())


def test_what_can_be_read_once_is_in_the_explained_request():
    with client(Entry("here", "demo"), model="h*") as asked:
        shown = asked.explain((text for text in ["one", "two"]), attachments=iter([b"\x89PNG\r\n\x1a\n"]))
        assert shown.body.count(b'"one"') == 1 and b"image" in shown.body


def test_a_pattern_that_nobody_goes_by_says_who_there_is():
    with client(KEYLESS) as asked, pytest.raises(NoDeploymentError) as caught:
        asked.ask("hi", model="fast-*")
    assert "'fast-*'" in str(caught.value) and "keyless" in caught.value.hint
    with client() as asked, pytest.raises(NoDeploymentError) as caught:
        asked.stream("hi", model="fast-*").finish()
    assert "[deployments.NAME]" in caught.value.hint


def test_at_an_address_of_its_own_a_star_is_part_of_a_models_name():
    with Client("odd*name", base_url="http://127.0.0.1:9/v1", settings=Settings()) as asked:
        assert b'"odd*name"' in asked.explain("hi").body


def test_a_tier_that_nobody_is_of_says_which_there_are_or_how_to_have_some():
    with client(KEYLESS, tier="premium") as asked, pytest.raises(NoDeploymentError) as caught:
        asked.route("hi")
    assert "economy" in caught.value.hint
    with client(tier="premium") as asked, pytest.raises(NoDeploymentError) as caught:
        asked.route("hi")
    assert "from_env" in caught.value.hint


def test_a_single_model_is_no_choice():
    with pytest.raises(UsageError):
        AsyncClient("demo", settings=Settings()).route("hi")
