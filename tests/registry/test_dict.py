"""A registry that a program fills: changes act at once, whole or not at all."""

import gc
import sys
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from polyvox.errors import ConfigError, InputError
from polyvox.registry import DictRegistry, Entry, Rows

NAME = "one line of at most 200 characters, without *, ?, [ and ], and not begin with @"


def names(registry):
    return [entry.name for entry in registry.list_active()]


def test_tables_of_settings_are_as_good_as_entries():
    registry = DictRegistry(
        {
            "fast": {"model": "demo", "limits": {"concurrency": 2}, "price": {"input": 1}},
            "slow": {"model": "demo", "aliases": "s, t"},
        }
    )
    assert registry.get_by_name("fast").limits.concurrency == 2
    assert registry.get_by_name("t").name == "slow"


def test_tables_that_cannot_be_used_say_every_reason():
    with pytest.raises(ConfigError) as caught:
        DictRegistry({"a": {"modle": "x"}, "b": 3, "*": {}, "c": {"model": "x", "limits": {"rpm": 3}}, "d": {}})
    assert [each.partition(";")[0] for each in caught.value.problems] == [
        "argument: deployments.a.modle: is not a setting of a deployment",
        "argument: deployments.b: must be a table",
        f"argument: deployments.*: its name must be {NAME}, not '*'",
        "argument: deployments.c.limits.rpm: is not a setting",
        "argument: deployments.d: needs a model",
    ]


def test_a_name_or_alias_that_is_taken_is_refused_and_nothing_changes():
    registry = DictRegistry([Entry("a", "demo", aliases=("b",))])
    version = registry.version
    for taken in (Entry("a", "demo"), Entry("b", "demo"), Entry("c", "demo", aliases=("a",))):
        with pytest.raises(ConfigError, match="means 'a' too"):
            registry.add(taken)
    assert registry.version is version and names(registry) == ["a"]


def test_an_entry_is_changed_where_it_stands():
    registry = DictRegistry([Entry("a", "demo"), Entry("b", "demo")])
    assert registry.update("a", weight=3, aliases=("x",)).weight == 3
    assert names(registry) == ["a", "b"] and registry.get_by_name("x").weight == 3
    version = registry.version
    for wrong in ({"name": "b"}, {"weight": 0}, {"tier": "local", "model": "openai/gpt-5.4"}):
        with pytest.raises(ConfigError):
            registry.update("a", **wrong)
    with pytest.raises(InputError, match="has no 'wieght'"):
        registry.update("a", wieght=1)
    with pytest.raises(InputError, match="no deployment 'c'") as caught:
        registry.update("c", weight=1)
    assert "a, b" in caught.value.hint
    assert registry.version is version


def test_an_entry_is_forgotten_once():
    registry = DictRegistry([Entry("a", "demo")])
    assert registry.remove("a") and not registry.remove("a") and names(registry) == []


def test_what_is_no_entry_is_refused():
    for wrong in (["fast"], [None], [{"name": "a"}]):
        with pytest.raises(InputError, match="a deployment is an Entry"):
            DictRegistry(wrong)


def test_threads_lose_none_of_each_others_changes():
    registry = DictRegistry()

    def fill(letter):
        for number in range(100):
            registry.add(Entry(f"{letter}{number}", "demo"))
            if number % 2:
                registry.remove(f"{letter}{number}")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=fill, args=(letter,)) for letter in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sorted(names(registry)) == sorted(f"{letter}{number}" for letter in "abcd" for number in range(0, 100, 2))


def states():
    """How many states of registries are in memory."""
    gc.collect()
    return sum(type(each) is Rows for each in gc.get_objects())


def test_ten_thousand_changes_leave_nothing_behind():
    registry = DictRegistry([Entry("a", "demo"), Entry("b", "demo")])

    before = states()
    for number in range(10_000):
        registry.update("a", weight=1 + number % 7, aliases=(f"alias{number}",))
    assert states() == before
    assert registry.get_by_name("alias9999").name == "a" and registry.get_by_name("alias9998") is None


NAMES = st.sampled_from("abcde")


class Machine(RuleBasedStateMachine):
    """Any changes in any order: what a plain dictionary would have."""

    def __init__(self):
        super().__init__()
        self.registry, self.known = DictRegistry(), {}

    @rule(name=NAMES, priority=st.integers(0, 2), active=st.booleans(), tier=st.sampled_from(["standard", None, "x"]))
    def add(self, **said):
        version = self.registry.version
        try:
            self.registry.add(Entry(model="demo", **said))
        except ConfigError:
            assert said["name"] in self.known and self.registry.version is version
        else:
            assert said["name"] not in self.known and self.registry.version is not version
            self.known[said["name"]] = said

    @rule(name=NAMES, priority=st.integers(0, 2), active=st.booleans())
    def update(self, name, **said):
        if name in self.known:
            self.registry.update(name, **said)
            self.known[name] = {**self.known[name], **said}

    @rule(name=NAMES)
    def remove(self, name):
        assert self.registry.remove(name) is (self.known.pop(name, None) is not None)

    @invariant()
    def is_what_it_should_be(self):
        active = [said for said in self.known.values() if said["active"]]
        assert names(self.registry) == [said["name"] for said in active]
        for tier in ("standard", "x"):
            of_tier = sorted((said for said in active if said["tier"] == tier), key=lambda said: said["priority"])
            found = self.registry.get_by_tier(tier)
            assert (found and found.name) == (of_tier[0]["name"] if of_tier else None)


Machine.TestCase.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
TestMachine = Machine.TestCase
