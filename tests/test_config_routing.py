"""The table [routing] of the configuration: how calls choose among deployments, and where limits are counted."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox import Client
from polyvox.client.pooling import routing_of
from polyvox.config import load
from polyvox.config.edit import set_value, unset_value
from polyvox.config.fields import ROUTING_FIELDS
from polyvox.errors import ConfigError, InputError
from polyvox.pools import Routing
from polyvox.registry import Entry
from polyvox.routing.pick import STRATEGIES

ALL = """
[routing]
strategy = "fastest"
first_token = 5
hedge_after = 2.5
hedge_share = 0.2
continue_streams = true
after_refusal = false
queue = 30
limits = "redis://ann:hunter2-canary@limits.example:6379/0"
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "config.toml"
        path.write_text(text)
        return path

    return write


def problems(path):
    with pytest.raises(ConfigError) as caught:
        load(files=[path], env={})
    return caught.value.problems


def test_what_routing_takes_is_what_the_configuration_takes_and_where_limits_are_counted():
    assert list(ROUTING_FIELDS) == [*Routing.__struct_fields__, "limits"]
    for field in msgspec.structs.fields(Routing):
        if field.default is not None:  # None is what is left out
            assert ROUTING_FIELDS[field.name].parse(field.default) == field.default
    for strategy in STRATEGIES:
        assert ROUTING_FIELDS["strategy"].parse(strategy) == strategy


def test_all_that_is_said_makes_a_routing_with_its_origins_and_shows_no_password(file):
    path = file(ALL)
    found = load(files=[path], env={})
    said = {name: value for name, value in found.routing.items() if name != "limits"}
    assert Routing(**said) == Routing(
        strategy="fastest", first_token=5.0, hedge_after=2.5, hedge_share=0.2, continue_streams=True, queue=30
    )
    assert found.origins["routing.strategy"] == f"{path}:3" and found.origins["routing.limits"] == f"{path}:10"
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("strategy = 'quickest'", "routing.strategy"),
        ("first_token = 0", "routing.first_token"),
        ("first_token = 'none'", "routing.first_token"),
        ("hedge_after = -1", "routing.hedge_after"),
        ("hedge_share = 1.5", "routing.hedge_share"),
        ("hedge_share = nan", "routing.hedge_share"),
        ("continue_streams = 'perhaps'", "routing.continue_streams"),
        ("queue = -1", "routing.queue"),
        ("queue = 1.5", "routing.queue"),
        ("limits = 'http://ann:hunter2-canary@x/'", "routing.limits"),
        ("limits = 'redis://'", "routing.limits"),
        ("limits = './limits.db'", "routing.limits"),
        ("startegy = 'weighted'", "strategy"),
    ],
)
def test_what_cannot_be_is_refused_with_its_file_and_line_and_without_a_password(file, line, says):
    path = file(f"[routing]\nafter_refusal = true\n{line}\n")
    (problem,) = problems(path)
    assert problem.startswith(f"{path}:3") and says in problem and "hunter2" not in problem


def test_it_is_changed_like_all_others(file):
    path = file("# mine\n[routing]\nqueue = 3 # few\n")
    set_value(path, "routing.strategy", "least_busy")
    set_value(path, "routing.queue", "5")
    assert load(files=[path], env={}).routing == {"strategy": "least_busy", "queue": 5}
    unset_value(path, "routing.queue")
    assert load(files=[path], env={}).routing == {"strategy": "least_busy"} and "# mine" in path.read_text()


def test_what_is_configured_holds_where_the_client_says_nothing(file):
    settings = load(files=[file("[routing]\nstrategy = 'cheapest'\nqueue = 3\n")], env={})
    registry = [Entry("one", "demo"), Entry("two", "demo/other")]

    def chosen(**facts):
        with Client("*", registry=registry, settings=settings, **facts) as client:
            client.route("hello")
            return client._async._pooling.pools.routing

    assert chosen() == Routing(strategy="cheapest", queue=3)
    assert chosen(routing="fastest") == Routing(strategy="fastest", queue=3)
    assert chosen(routing={"queue": 9}) == Routing(strategy="cheapest", queue=9)
    assert chosen(routing=Routing(hedge_after=1)) == Routing(hedge_after=1)


@pytest.mark.parametrize(
    "choice", ["quickest", {"startegy": "x"}, {"queue": True}, 3, ["weighted"], {"limits": "memory"}]
)
def test_what_a_client_says_that_cannot_be_is_refused_at_once(choice):
    with pytest.raises(InputError) as caught:
        Client("demo", routing=choice)
    assert str(caught.value)


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.none(), max_size=1)
)


@given(st.dictionaries(st.sampled_from([*Routing.__struct_fields__, "other"]), ANYTHING))
def test_routing_is_made_or_refused_whatever_it_is_given(said):
    try:
        made = routing_of(said, {})
    except InputError:
        return
    assert made.queue >= 0 and 0 <= made.hedge_share <= 1 and made.strategy in STRATEGIES
    for limit in (made.first_token, made.hedge_after):
        assert limit is None or (0 < limit < float("inf"))
    assert type(made.continue_streams) is bool and type(made.after_refusal) is bool
