"""Several registries as one: the first says what a name means, and a change in any acts on the next call."""

import asyncio

import pytest

from polyvox.errors import InputError
from polyvox.registry import DictRegistry, Entry, FileRegistry, Registries
from tests.registry.conftest import write


def names(registry):
    return [entry.name for entry in registry.list_active()]


def test_the_first_says_what_a_name_means_and_also_that_it_is_out():
    first = DictRegistry([Entry("a", "demo/1"), Entry("b", "demo/1", active=False)])
    second = DictRegistry([Entry("c", "demo/2"), Entry("b", "demo/2"), Entry("a", "demo/2")])
    both = Registries(first, second)
    assert [(entry.name, entry.model) for entry in both.list_active()] == [("a", "demo/1"), ("c", "demo/2")]
    first.remove("b")
    assert both.get_by_name("b").model == "demo/2"


def test_a_name_anywhere_goes_before_an_alias_anywhere():
    both = Registries(DictRegistry([Entry("a", "demo", aliases=("b",))]), DictRegistry([Entry("b", "demo")]))
    assert both.get_by_name("b").name == "b"


def test_the_first_default_is_the_default():
    both = Registries(DictRegistry([Entry("a", "demo")]), DictRegistry([Entry("b", "demo", default=True)]))
    assert both.get_default().name == "b"
    both.sources[0].update("a", default=True)
    assert both.get_default().name == "a"


def test_what_is_hidden_makes_nothing_anew():
    first, second = DictRegistry([Entry("a", "demo")]), DictRegistry([Entry("a", "demo")])
    both = Registries(first, second)
    version = both.version
    second.update("a", weight=5)
    assert both.version is version
    first.remove("a")
    assert both.version is not version and both.get_by_name("a").weight == 5


def test_the_problems_of_all_are_told(tmp_path):
    paths = tmp_path / "one.json", tmp_path / "two.json"
    for path in paths:
        write(path, [Entry(path.stem, "demo")])
    both = Registries(*map(FileRegistry, paths))
    assert both.problem is None and names(both) == ["one", "two"]
    for path in paths:
        path.unlink()
    assert all(str(path) in both.problem for path in paths) and names(both) == ["one", "two"]


class Own:
    """A registry somebody else wrote: nothing is known of its version but that it changes."""

    asks = True
    problem = None

    def __init__(self):
        self.version, self.asked, self.entries = 0, 0, ()

    async def refresh(self):
        self.asked += 1
        self.version, self.entries = 1, (Entry("own", "demo"),)
        return self.version

    def list_active(self):
        return self.entries

    def get_by_name(self, name):
        return None

    get_by_tier = get_by_name

    def get_default(self):
        return None


def test_a_registry_of_the_users_own_takes_part_and_is_asked():
    own = Own()
    both = Registries(DictRegistry([Entry("a", "demo")]), own)
    assert both.asks and names(both) == ["a"]
    asyncio.run(both.refresh())
    assert own.asked == 1 and names(both) == ["a", "own"]
    assert not Registries(DictRegistry()).asks


def test_what_is_no_registry_is_refused():
    with pytest.raises(InputError, match="dict is no registry"):
        Registries({})
