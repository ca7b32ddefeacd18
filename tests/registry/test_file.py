"""A file of deployments acts on the next call; one that is broken in any way changes nothing and says where."""

import gc
import logging
import os
import threading

import pytest

from polyvox.errors import ConfigError
from polyvox.registry import FileRegistry, Rows

GOOD = '[deployments.a]\nmodel = "demo"\ntier = "standard"\n'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deployments.toml"


@pytest.fixture
def opened(path):
    path.write_text(GOOD)
    return FileRegistry(path)


def put(path, text):
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def names(registry):
    return [entry.name for entry in registry.list_active()]


def test_a_changed_file_acts_on_the_next_call_however_it_is_written(path, opened):
    for number in range(50):
        text = GOOD.replace("deployments.a", f"deployments.a{number}")
        if number % 2:
            path.write_text(text)
        else:
            put(path, text)
        assert names(opened) == [f"a{number}"]


def test_changes_of_one_size_that_are_faster_than_the_clock_of_the_file_system_are_all_seen(path, opened):
    for number in range(1000, 1500):
        path.write_text(GOOD.replace("deployments.a", f"deployments.a{number}"))
        assert names(opened) == [f"a{number}"]


def test_a_file_that_says_the_same_again_makes_nothing_anew(path, opened):
    version = opened.version
    put(path, f"# a word\n{GOOD}".replace("# a word\n", ""))
    assert opened.version is version
    put(path, GOOD + "# a word\n")
    assert opened.version is version


def test_an_entry_knows_its_line_and_a_key_its_place(path):
    path.write_text('\n\n[deployments.a]\nmodel = "demo"\napi_key = "canary-6q2w8e4r1t9y"\n')
    path.chmod(0o600)
    entry = FileRegistry(path).get_by_name("a")
    assert entry.origin == f"{path}:4"
    assert "canary" not in repr(entry)


BROKEN = {
    "not TOML": ("[deployments.a]\nmodel = \n", ":2: is not valid TOML"),
    "half written": (GOOD[:-12], ":3: is not valid TOML"),
    "a wrong type": (GOOD + 'weight = "heavy"\n', ":4: deployments.a.weight: must be a number"),
    "an unknown key": (GOOD + "wieght = 3\n", ":4: deployments.a.wieght: is not a setting of a deployment; did you"),
    "an unknown table": (GOOD + "[providers.x]\n", ":4: providers: is not a deployment; this file has"),
    "no model": ('[deployments.a]\ntier = "x"\n', ":2: deployments.a: needs a model"),
    "nothing of a deployment": (GOOD + "[deployments.b]\n", ":4: deployments.b: needs a model"),
    "two of one name": (
        GOOD + '[deployments.b]\nmodel = "demo"\naliases = ["a"]\n',
        ":5: deployments.b: 'a' means 'a'",
    ),
    "a hosted local": (
        GOOD + '[deployments.b]\nmodel = "openai/gpt-5.4"\ntier = "local"\n',
        ":5: deployments.b.tier: is local, but",
    ),
    "empty": ("", ": is empty; for no deployments say deployments = {}"),
    "not UTF-8": (b"[deployments.a]\nmodel = '\xff'\n", ":2: is not UTF-8"),
    "too large": (GOOD + "#" * 2**20, ":1: is larger than 1 MiB"),
}


@pytest.mark.parametrize(("text", "problem"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_changes_nothing_and_says_file_and_line_once(path, opened, text, problem, caplog):
    version = opened.version
    with caplog.at_level(logging.WARNING, "polyvox.registry"):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        for _ in range(3):
            assert opened.version is version and names(opened) == ["a"]
            assert opened.problem.startswith(f"{path}{problem}")
    assert len(caplog.records) == 1 and str(path) in caplog.text
    put(path, GOOD.replace("deployments.a", "deployments.b"))
    assert names(opened) == ["b"] and opened.problem is None


@pytest.mark.parametrize(("text", "problem"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_broken_from_the_first_is_refused(path, text, problem):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        FileRegistry(path)
    assert caught.value.problems[0].startswith(f"{path}{problem}")


def delete(path):
    path.unlink()


def circle(path):
    path.unlink()
    path.symlink_to(path)


def folder(path):
    path.unlink()
    path.mkdir()


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def open_to_all(path):
    path.chmod(0o666)


def behind_a_file(path):
    path.unlink()
    (path.parent / "file").write_text("")
    path.symlink_to(path.parent / "file" / "x")


GONE = {
    delete: "there is no such file",
    circle: "cannot be read",
    folder: "is not a plain file",
    pipe: "is not a plain file",
    open_to_all: "can be written by every user",
    behind_a_file: "cannot be read",
}


@pytest.mark.parametrize(("harm", "what"), GONE.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_file_that_is_gone_or_no_file_changes_nothing(path, opened, harm, what):
    version = opened.version
    harm(path)
    assert opened.version is version and names(opened) == ["a"]
    assert str(path) in opened.problem and what in opened.problem
    with pytest.raises(ConfigError, match="cannot be used"):
        FileRegistry(path)
    if path.is_dir():
        path.rmdir()
    put(path, GOOD.replace("deployments.a", "deployments.b"))
    assert names(opened) == ["b"] and opened.problem is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_no_longer_be_read_changes_nothing(path, opened):
    path.chmod(0)
    assert names(opened) == ["a"] and "cannot be read" in opened.problem
    path.chmod(0o600)
    assert names(opened) == ["a"] and opened.problem is None


def test_no_deployments_are_said_in_so_many_words(path, opened):
    put(path, "deployments = {}\n")
    assert names(opened) == [] and opened.problem is None


def test_calls_during_changes_see_one_state_or_the_other(path, opened):
    states = ["".join(f'[deployments.{letter}{n}]\nmodel = "demo"\n' for n in range(5)) for letter in "xy"]
    put(path, states[0])
    wrong, done = [], threading.Event()

    def read():
        while not done.is_set():
            rows = opened.version
            if len(rows.active) != 5 or len({entry.name[0] for entry in rows.active}) != 1:
                wrong.append(rows.active)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(100):
        put(path, states[turn % 2])
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == [] and opened.problem is None


@pytest.mark.parametrize("times", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_changes_leave_nothing_behind(path, opened, times):
    def states():
        gc.collect()
        return sum(type(each) is Rows for each in gc.get_objects())

    def handles():
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    before = states(), handles()
    for number in range(times):
        put(path, GOOD + (f"weight = {number + 1}\n" if number % 3 else "weight = \n"))
        opened.version
    assert (states(), handles()) == before
    assert opened.get_by_name("a").weight in (times, times - 1)
