"""The fixtures work in a project of somebody else's, load nothing before they are used, and leave nothing behind."""

import os
import re
import subprocess
import sys
from pathlib import Path

import polyvox.testing

BEFORE = """
import sys


def test_nothing_is_loaded_before_it_is_needed():
    assert not {"aiohttp", "msgspec", "polyvox.testing.simulate"} & set(sys.modules)
"""
TESTS = """
import threading

from polyvox import Client

KEY = "sk-simulated-0123456789"


def test_the_fixture_answers(simulator):
    with Client("any-model", base_url=simulator.base_url("openai.chat"), api_key=KEY) as client:
        assert client.ask("hello").text.startswith("[demo] You said: hello")
    assert simulator.counts.answers == 1


def test_each_test_has_its_own(simulator):
    assert simulator.counts.requests == 0


def test_a_factory_makes_more_of_them(make_simulator):
    first, second = make_simulator(models=["a"]), make_simulator(rpm=1, port=0)
    assert first.url != second.url


def test_nothing_is_left_behind():
    assert not [thread for thread in threading.enumerate() if thread.name == "polyvox-simulator"]
"""


def run_elsewhere(folder, tests):
    """What pytest says of tests in a project that has nothing to do with this one."""
    (folder / "test_theirs.py").write_text(tests, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "polyvox.testing.plugin", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_the_fixtures_work_in_another_project(tmp_path):
    assert "4 passed" in run_elsewhere(tmp_path, TESTS)


def test_the_documented_tests_pass(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text(encoding="utf-8")
    assert "2 passed" in run_elsewhere(tmp_path, re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])


def test_the_fixtures_load_nothing_before_they_are_used(tmp_path):
    assert "1 passed" in run_elsewhere(tmp_path, BEFORE)


def test_the_names_for_users_are_exactly_these():
    assert polyvox.testing.__all__ == dir(polyvox.testing) == ["Asked", "Counts", "Fault", "Numbers", "Simulator"]
    for name in polyvox.testing.__all__:
        assert getattr(polyvox.testing, name).__name__ == name
    assert not hasattr(polyvox.testing, "nothing_of_the_kind")


def test_neither_polyvox_nor_the_room_loads_a_server():
    code = "import sys, polyvox, polyvox.testing; print({'aiohttp', 'asyncio', 'msgspec', 'pytest'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert Path(polyvox.testing.__file__).name == "__init__.py"
