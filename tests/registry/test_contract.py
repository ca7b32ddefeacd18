"""What every registry promises, wherever its entries come from."""

import threading
import time

import pytest
from msgspec.structs import asdict

from polyvox.errors import ConfigError, InputError
from polyvox.keys import Secret
from polyvox.limits import Limits
from polyvox.registry import TIERS, Entry, Registry


def names(entries):
    return [entry.name for entry in entries]


def said(entry):
    """All of an entry but where it was said."""
    return {field: value for field, value in asdict(entry).items() if field != "origin"}


def test_it_is_a_registry(source):
    assert isinstance(source.registry, Registry)


def test_an_empty_one_has_nobody(source):
    registry = source.registry
    assert registry.list_active() == ()
    assert registry.get_default() is None
    assert registry.get_by_name("any") is None
    assert [registry.get_by_tier(tier) for tier in (*TIERS, "mine")] == [None] * 5
    assert registry.problem is None


def test_all_that_was_said_of_an_entry_comes_back(source):
    entry = Entry(
        "whole",
        "house-7b",
        tier="Mine",
        weight=2.5,
        priority=3,
        api_key_env="HOUSE_KEY",
        base_url="https://llm.example.com/v1",
        dialect="openai.chat",
        limits=Limits(4, 60, 90_000),
        price={"input": "0.5", "output": "1.25"},
        default=True,
        aliases=("w", "ganz"),
        timeout=12.5,
        max_tokens=100,
        temperature=0.5,
        description="for the test",
    )
    source.put(entry)
    assert said(source.registry.get_by_name("whole")) == said(entry)


def test_a_name_and_each_alias_finds_the_entry_and_a_name_goes_before_an_alias(source):
    source.put(Entry("fast", "demo", aliases=("quick", "schnell")), Entry("slow", "demo", aliases=("langsam",)))
    registry = source.registry
    assert names(map(registry.get_by_name, ("fast", "quick", "schnell", "slow", "langsam"))) == [
        "fast",
        "fast",
        "fast",
        "slow",
        "slow",
    ]
    assert registry.get_by_name("Fast") is None


def test_the_smallest_priority_answers_for_a_tier_and_then_the_first(source):
    source.put(
        Entry("a", "demo", tier="standard", priority=1),
        Entry("b", "demo", tier="standard"),
        Entry("c", "demo", tier="standard"),
        Entry("d", "demo", tier="premium", priority=9),
    )
    assert source.registry.get_by_tier("standard").name == "b"
    assert source.registry.get_by_tier("premium").name == "d"
    assert source.registry.get_by_tier("economy") is None


def test_a_tier_is_a_word_in_any_case_also_one_of_the_users_own(source):
    source.put(Entry("a", "demo", tier="Nightly"), Entry("b", "demo", tier="PREMIUM"))
    assert source.registry.get_by_tier("nightly").name == source.registry.get_by_tier("NIGHTLY").name == "a"
    assert source.registry.get_by_tier("premium").name == "b"
    for wrong in (None, 3, ""):
        with pytest.raises(InputError, match="tier must"):
            source.registry.get_by_tier(wrong)


def test_who_has_a_key_goes_before_who_has_none(source, monkeypatch):
    source.put(
        Entry("a", "openai/gpt-5.4-mini", tier="standard"),
        Entry("b", "anthropic/claude-haiku-4-5", tier="standard", priority=5),
    )
    assert source.registry.get_by_tier("standard").name == "a", "without any key the choice is the ordinary one"
    monkeypatch.setenv("ANTHROPIC_API_KEY", "word-for-the-test")
    assert source.registry.get_by_tier("standard").name == "b"
    monkeypatch.setenv("OPENAI_API_KEY", "word-for-the-test")
    assert source.registry.get_by_tier("standard").name == "a"


def test_economy_is_the_cheapest_whose_model_is_current(source, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "word-for-the-test")
    cheap = {"input": "0.01", "output": "0.01"}
    source.put(
        Entry("dear", "openai/gpt-5.4", tier="economy"),
        Entry("gone", "openai/gpt-3.5-turbo", tier="economy", price=cheap),
        Entry("least", "openai/gpt-5.4-mini", tier="economy"),
        Entry("unknown", "openai/of-no-known-price", tier="economy"),
    )
    assert source.registry.get_by_tier("economy").name == "least"
    source.put(
        Entry("dear", "openai/gpt-5.4", tier="economy", price=cheap),
        Entry("first", "openai/gpt-5.4", tier="economy", priority=1, price={"input": 0, "output": 0}),
        Entry("least", "openai/gpt-5.4-mini", tier="economy"),
    )
    assert source.registry.get_by_tier("economy").name == "dear", "its own price counts, after its priority"


def test_who_is_not_active_is_never_chosen(source):
    off = Entry("off", "demo", tier="standard", default=True, active=False, aliases=("aus",))
    source.put(off, Entry("on", "demo", tier="standard", priority=7))
    registry = source.registry
    assert names(registry.list_active()) == ["on"]
    assert names(registry.list_all()) in (["off", "on"], ["on", "off"])
    assert registry.get_by_name("off") is None and registry.get_by_name("aus") is None
    assert registry.get_by_tier("standard").name == registry.get_default().name == "on"


def test_the_default_is_the_one_that_says_so_else_standard_else_the_first(source):
    some = [Entry("a", "demo", tier="local"), Entry("b", "demo", tier="premium"), Entry("c", "demo", tier="standard")]
    source.put(*some, Entry("d", "demo", default=True))
    assert source.registry.get_default().name == "d"
    source.put(*some)
    assert source.registry.get_default().name == "c"
    source.put(*some[:2])
    assert source.registry.get_default().name == "b", "a server on this machine may not even run"
    source.put(*some[:1])
    assert source.registry.get_default() is None


def test_the_order_is_always_the_same_and_nobody_can_change_the_list(source):
    source.put(*(Entry(name, "demo") for name in "abcdefgh"))
    first = source.registry.list_active()
    assert isinstance(first, tuple)
    assert names(first) == list("abcdefgh")
    assert source.registry.list_active() == first


def test_the_version_is_another_exactly_when_the_contents_are(source):
    entry = Entry("a", "demo")
    seen = [source.registry.version]
    source.put(entry)
    seen.append(source.registry.version)
    assert source.registry.version is seen[-1]
    source.put(entry, Entry("b", "demo"))
    seen.append(source.registry.version)
    source.put(Entry("a", "demo", weight=2), Entry("b", "demo"))
    seen.append(source.registry.version)
    source.put()
    seen.append(source.registry.version)
    assert len(set(map(id, seen))) == len(seen) == 5
    assert all(one != other for at, one in enumerate(seen) for other in seen[:at])


def test_a_change_acts_on_the_next_call(source):
    for number in range(20):
        source.put(Entry("a", f"demo/{number}", tier="standard"), Entry(f"b{number}", "demo"))
        assert source.registry.get_by_name("a").model == f"demo/{number}"
        assert source.registry.get_by_tier("standard").model == f"demo/{number}"
        assert source.registry.get_by_name(f"b{number}") and not source.registry.get_by_name(f"b{number - 1}")


def test_a_hosted_entry_is_never_local(source):
    """It is refused where it is said, or at the latest where it is read."""
    source.put(Entry("here", "demo", tier="local"))
    assert source.registry.get_by_name("here").tier == "local" and source.registry.get_by_tier("local").name == "here"
    with_hosted = (
        Entry("here", "demo", tier="local"),
        Entry("there", "openai/gpt-5.4-mini", tier="local", priority=0),
    )
    try:
        source.put(*with_hosted)
    except ConfigError as error:
        assert "is local, but" in str(error)
    else:
        assert "is local, but" in source.registry.problem
    assert source.registry.get_by_name("there") is None
    chosen = source.registry.get_by_tier("local")
    assert chosen is None or chosen.name == "here"


def test_no_key_is_shown(source):
    key = "canary-5k2m8q1z7w4x"
    try:
        source.put(Entry("a", "openai/gpt-5.4-mini", api_key=Secret(key)))
    except InputError as error:
        assert key not in str(error)
    shown = repr(source.registry) + repr(source.registry.list_all()) + str(source.registry.version)
    assert key not in shown + str([entry.describe() for entry in source.registry.list_all()])


def test_whoever_reads_during_changes_has_an_old_state_or_a_new_one_and_never_both(source):
    wrong, seen, done = [], set(), threading.Event()

    def read():
        while not done.is_set():
            time.sleep(0.0005)  # whoever never pauses keeps the writer from its turn
            rows = source.registry.version
            entry = rows.get("a")
            if entry is None:
                continue
            seen.add(entry.priority)
            if entry not in rows.active or entry.weight != entry.priority + 1:
                wrong.append(rows.entries)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(50):
        source.put(Entry("a", "demo", weight=turn + 1, priority=turn))
        assert source.registry.get_by_name("a").priority == turn
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == [] and seen
    assert source.registry.problem is None
