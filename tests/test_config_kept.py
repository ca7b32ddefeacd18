"""The tables of what is kept, cache and budgets: read like all others, and a budget that is configured is one."""

import tomllib
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvox.budgets import Budget
from polyvox.config import load
from polyvox.config.edit import set_value, unset_value
from polyvox.errors import ConfigError, InputError


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


KEPT = """
[cache]
enabled = true
place = "redis://ann:hunter2-canary@cache.example:6379/0"
ttl = "none"
max_entries = 50
[budgets]
place = "./counted.db"
[budgets.daily]
limit = 2.50
window = "day"
zone = "Europe/Berlin"
warn_at = [50, 90]
[budgets."per user"]
limit = "0.10"
each = ["user", "model"]
hard = false
unknown = "allow"
model = "openai/*"
"""


def test_cache_and_budgets_have_origins_and_show_no_password(file):
    path = file(KEPT)
    found = load(files=[path], env={})
    assert found.cache["ttl"] is None and found.cache["max_entries"] == 50
    assert found.budgets["daily"] == {
        "limit": Decimal("2.5"), "window": "day", "zone": "Europe/Berlin", "warn_at": (50, 90),
    }  # fmt: skip
    assert found.budgets["per user"]["each"] == ("user", "model") and found.budgets["place"] == "./counted.db"
    assert found.origin("cache.max_entries") == f"{path}:6"
    assert found.origin("budgets.daily.window") == f"{path}:11"
    assert found.origin("budgets.per user.unknown") == f"{path}:18"
    shown = found.shown()
    assert shown["cache.place"] == "redis://***@cache.example:6379/0" and shown["budgets.daily.limit"] == Decimal("2.5")
    assert "hunter2" not in f"{found!r} {shown}"


def test_budgets_of_several_sources_are_one_by_their_name(file):
    path = file('[budgets.daily]\nlimit = 1\nwindow = "day"\n')
    over = {"budgets": {"daily": {"limit": "5"}, "hourly": {"limit": 1, "window": "hour"}}}
    found = load(files=[path], env={}, arguments=over)
    assert found.budgets == {
        "daily": {"limit": Decimal(5), "window": "day"}, "hourly": {"limit": Decimal(1), "window": "hour"},
    }  # fmt: skip
    assert (found.origin("budgets.daily.limit"), found.origin("budgets.daily.window")) == ("argument", f"{path}:3")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[cache]\nplce = 'memory'\n", 2, "cache.plce: is not a setting; did you mean place?"),
        (
            "[cache]\nsize = 3\n",
            2,
            "cache.size: is not a setting; there are enabled, place, ttl, max_entries, name",
        ),
        ("cache = true\n", 1, "cache: must be a table"),
        ("[cache]\nplace = 'redis'\n", 2, 'must be "memory", a path such as ./memory.db, or a URL'),
        ("[cache]\nplace = 'mysql://ann:hunter2@h/x'\n", 2, "cache.place: must be"),
        ("[cache]\nttl = -1\n", 2, "must be more than 0 seconds"),
        ("[cache]\nmax_entries = 0\n", 2, "must be a whole number from 1 up"),
        ("[[budgets]]\nlimit = 1\n", 1, "budgets: must be tables with names, such as [budgets.daily]"),
        ("[budgets]\ndaily = 5\n", 2, "budgets.daily: is not a setting; a budget is a table"),
        ("[budgets.a]\nlimit = nan\n", 2, "budgets.a.limit: must be USD from 0 to 9 million"),
        ("[budgets.a]\nlimit = -1\n", 2, "budgets.a.limit: must be USD"),
        ("[budgets.a]\nlimit = true\n", 2, "budgets.a.limit: must be USD"),
        ("[budgets.a]\nlimit = 1\namount = 2\n", 3, "budgets.a.amount: is not a setting; there are limit, window"),
        ("[budgets.a]\nlimit = 1\nwindow = 'dya'\n", 3, "did you mean day?"),
        ("[budgets.a]\nlimit = 1\nzone = 'Moon/Crater'\n", 3, "must be a time zone"),
        ("[budgets.a]\nlimit = 1\neach = 'users'\n", 3, "did you mean user?"),
        ("[budgets.a]\nlimit = 1\nwarn_at = [50, 2000]\n", 3, "must be percents from 1 to 1000"),
        ("[budgets.a]\nwindow = 'day'\n", 2, "budgets.a: needs a limit, in USD"),
    ],
)
def test_what_cannot_be_kept_is_told_with_its_line(file, text, line, says):
    path = file(text)
    (problem,) = problems(path)
    assert problem.startswith(f"{path}:{line}: ") and says in problem and "hunter2" not in problem


BUDGET_VALUES = st.one_of(
    st.sampled_from(["limit", "zone", "window", "warn_at", "each", "hard", "unknown", "user", "model"]).flatmap(
        lambda name: st.tuples(
            st.just(name),
            st.one_of(
                st.text(max_size=6), st.integers(-3, 2000), st.booleans(),
                st.sampled_from(["day", "hour", "5h", "0m", "90 m", "36525d", "36526d", "UTC", "Europe/Rome"]),
                st.decimals(allow_nan=True, allow_infinity=True), st.lists(st.integers(-1, 1001), max_size=3),
                st.lists(st.sampled_from(["user", "tag", "key", "nobody"]), max_size=3),
            ),
        )
    )
)  # fmt: skip


@given(BUDGET_VALUES)
@settings(deadline=None)
def test_a_budget_that_the_configuration_takes_is_one(said):
    name, value = said
    table = {"limit": 1, "window": "day" if name == "zone" else None, name: value}
    try:
        found = load(arguments={"budgets": {"a": table}}, env={}, files=()).budgets["a"]
    except ConfigError:
        return
    assert Budget(found.pop("limit"), name="a", **found).name == "a"


@pytest.mark.parametrize(
    "said",
    [
        {"limit": 0}, {"limit": "2.50"}, {"limit": Decimal(9_000_000)}, {"window": "month", "zone": "Asia/Tokyo"},
        {"window": "90m"}, {"window": "36525d"}, {"each": ["user", "tag"]}, {"warn_at": [1, 1000]}, {"warn_at": []},
        {"hard": False}, {"unknown": "allow"}, {"key": "k", "user": "u", "project": "p", "tag": "t", "model": "a/*"},
    ],
)  # fmt: skip
def test_what_a_budget_takes_can_be_configured(said):
    table = {"limit": "1", **said}
    found = load(arguments={"budgets": {"a": table}}, env={}, files=()).budgets["a"]
    limit = table.pop("limit")
    assert Budget(found.pop("limit"), name="a", **found) == Budget(limit, name="a", **table)


def test_budgets_are_set_and_unset_field_by_field_and_all_else_stays(file):
    path = file("# mine\n[budgets.daily]  # the big one\nlimit = 1\n")
    set_value(path, "budgets.daily.limit", "2.50")
    set_value(path, "budgets.daily.each", "user,tag")
    set_value(path, "budgets.daily.warn_at", "50, 80")
    set_value(path, "budgets.place", "./counted.db")
    set_value(path, "cache.ttl", "none")
    set_value(path, "cache.enabled", "yes")
    assert path.read_text().startswith('# mine\n[budgets.daily]  # the big one\nlimit = "2.50"\n')
    assert tomllib.loads(path.read_text()) == {
        "budgets": {
            "daily": {"limit": "2.50", "each": ["user", "tag"], "warn_at": [50, 80]}, "place": "./counted.db",
        },
        "cache": {"ttl": "none", "enabled": True},
    }  # fmt: skip
    load(files=[path], env={})
    assert unset_value(path, "budgets.daily.each") and "each" not in path.read_text()


@pytest.mark.parametrize("key", ["cache.place", "budgets.place", "ledger.database"])
def test_a_password_is_not_set_into_a_file(file, key):
    path = file("")
    scheme = "postgresql" if key.startswith("ledger") else "redis"
    with pytest.raises(ConfigError) as caught:
        set_value(path, key, f"{scheme}://ann:hunter2-canary@h:1/0")
    assert "hunter2" not in str(caught.value) and path.read_text() == ""


@pytest.mark.parametrize("key", ["budgets.daily", "budgets.daily.amount", "budgets", "cache", "cache.size"])
def test_only_a_setting_is_set(file, key):
    with pytest.raises(ConfigError):
        set_value(file(""), key, "1")


@pytest.mark.parametrize(
    "said",
    [
        {"limit": "NaN"}, {"limit": "Infinity"}, {"limit": -1}, {"limit": "9300000"}, {"window": "36526d"},
        {"window": "0m"}, {"window": "fortnight"}, {"zone": "Moon/Crater", "window": "day"}, {"each": ["session"]},
        {"warn_at": [0]}, {"warn_at": [1001]}, {"hard": "perhaps"}, {"unknown": "guess"}, {"user": ""},
    ],
)  # fmt: skip
def test_what_no_budget_can_be_is_refused_by_both(said):
    table = {"limit": 1, **said}
    with pytest.raises(ConfigError):
        load(arguments={"budgets": {"a": table}}, env={}, files=())
    with pytest.raises(InputError):
        Budget(table.pop("limit"), name="a", **table)
