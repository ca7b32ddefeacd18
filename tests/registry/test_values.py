"""An entry is checked when it is made, keeps one form, and never shows its key."""

import enum
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox.config.fields import DEPLOYMENT_FIELDS, Field
from polyvox.errors import ConfigError, InputError, UsageError
from polyvox.keys import Secret
from polyvox.limits import Limits
from polyvox.registry import TIERS, Entry

KEY = "canary-9d4h2k7p1v6b"


def problems(**said):
    with pytest.raises(ConfigError) as caught:
        Entry(**{"name": "a", "model": "demo", **said})
    assert caught.value.sent == "no" and caught.value.hint
    return caught.value.problems


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"name": ""}, "argument: name: must not be empty"),
        ({"name": "a*"}, "argument: name: must be one line"),
        ({"name": "@a"}, "argument: name: must be one line"),
        ({"name": " a"}, "argument: name: must be one line"),
        ({"name": "a\nb"}, "argument: name: must be one line"),
        ({"name": None}, "argument: name: must be text"),
        ({"model": " "}, "argument: model: must not be empty"),
        ({"model": None}, "argument: model: must be text"),
        ({"tier": ""}, "argument: tier: must not be empty"),
        ({"weight": 0}, "argument: weight: must be a number above 0, not '0'; active = false takes a deployment out"),
        ({"weight": float("nan")}, "argument: weight: must be a number"),
        ({"weight": float("inf")}, "argument: weight: must be a number above 0"),
        ({"priority": -1}, "argument: priority: must be a whole number from 0 up"),
        ({"priority": 1.5}, "argument: priority: must be a whole number from 0 up"),
        ({"api_key_env": "sk-no name"}, "argument: api_key_env: must be the name of an environment variable"),
        ({"base_url": "ftp://host"}, "argument: base_url: must begin with https://"),
        ({"base_url": "https://u:p@host"}, "argument: base_url: must not hold a user or password"),
        ({"dialect": "openai.chat"}, "argument: dialect: goes with base_url"),
        ({"dialect": "openai.chta", "base_url": "https://h"}, "argument: dialect: must be one of"),
        ({"limits": {"concurrency": 3}}, "argument: limits: must be Limits"),
        ({"price": {"inptu": 1}}, "argument: price.inptu: is no price"),
        ({"price": {"input": "NaN"}}, "argument: price.input: must be a finite number"),
        ({"price": 3}, "argument: price: must be a table of prices"),
        ({"active": "maybe"}, "argument: active: must be true or false"),
        ({"aliases": ("a?",)}, "argument: aliases: must be one line"),
        ({"timeout": 0}, "argument: timeout: must be more than 0 seconds"),
        ({"timeout": "none"}, "argument: timeout: must be a number of seconds; leave it out"),
        ({"max_tokens": 0}, "argument: max_tokens: must be a whole number from 1 up"),
        ({"temperature": -1}, "argument: temperature: must be 0 or more"),
    ],
)
def test_what_cannot_work_is_refused_with_its_field(said, what):
    found = problems(**said)
    assert len(found) == 1 and found[0].startswith(what)


def test_all_mistakes_are_told_at_once_with_where_they_were_made():
    assert [each.partition(" must")[0] for each in problems(weight=-1, tier="", origin="file.toml:3")] == [
        "file.toml:3: tier:",
        "file.toml:3: weight:",
    ]


def test_limits_that_let_nothing_through_are_refused():
    with pytest.raises(InputError):
        Entry("a", "demo", limits=Limits(concurrency=0))


class Tier(str, enum.Enum):  # noqa: UP042 - the older of the two forms, whose str() is not its value
    ECONOMY = "economy"


def test_values_are_kept_in_one_form():
    entry = Entry("a", "demo", tier=Tier.ECONOMY, weight="2", aliases=["b", "c"], api_key=KEY, active="no")
    assert type(entry.tier) is str and entry.tier == "economy"
    assert entry.weight == 2 and entry.aliases == ("b", "c") and entry.active is False
    assert isinstance(entry.api_key, Secret) and entry.names == ("a", "b", "c")
    assert Entry("a", "demo", tier="STANDARD").tier == "standard"


def test_what_it_was_made_from_may_change_afterwards():
    price = {"input": 1}
    entry = Entry("a", "demo", price=price)
    price["input"] = 5
    assert entry.describe()["price"] == {"input": "1"}


def test_the_key_is_shown_nowhere():
    entry = Entry("a", "demo", api_key=Secret(KEY))
    assert KEY not in repr(entry) + str(entry) + f"{entry}" + str(entry.describe())
    with pytest.raises(UsageError):
        pickle.dumps(entry)


def test_equal_entries_have_one_hash_and_others_are_not_equal():
    one, two = (Entry("a", "demo", price={"input": "1"}) for _ in range(2))
    assert one == two and hash(one) == hash(two) and len({one, two}) == 1
    assert one != Entry("a", "demo", price={"input": "2"})


def test_each_field_of_an_entry_is_said_in_a_table_and_the_other_way_round():
    assert set(DEPLOYMENT_FIELDS) | {"limits", "price", "name", "origin"} == set(Entry.__struct_fields__)
    assert all(isinstance(field, Field) for field in DEPLOYMENT_FIELDS.values())
    assert set(TIERS) == {"economy", "standard", "premium", "local"} and all(TIERS.values())


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.lists(st.text()))


@given(st.dictionaries(st.sampled_from([*DEPLOYMENT_FIELDS, "limits", "price"]), scalars, max_size=6))
def test_anything_at_all_makes_an_entry_or_one_clear_error(said):
    try:
        entry = Entry(**{"name": "a", "model": "demo", **said})
    except ConfigError as error:
        assert error.problems and all("\n" not in problem for problem in error.problems)
    else:
        assert Entry(**{field: getattr(entry, field) for field in Entry.__struct_fields__}) == entry
