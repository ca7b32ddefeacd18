"""Nothing of telemetry is loaded unless it is used."""

import json
import subprocess
import sys

import pytest

LIBRARIES = {"opentelemetry", "prometheus_client"}


def loaded_after(code):
    code += "\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_call_without_hooks_loads_no_telemetry():
    loaded = loaded_after("import polyvox\nwith polyvox.Client('demo') as client: client.ask('hello')")
    assert not loaded & LIBRARIES
    assert not [name for name in loaded if name.startswith("polyvox.telemetry")]


def test_the_room_itself_loads_nothing():
    loaded = loaded_after("import polyvox.telemetry; dir(polyvox.telemetry)")
    assert not loaded & LIBRARIES and "msgspec" not in loaded


@pytest.mark.parametrize(
    ("name", "library"),
    [("OpenTelemetry", "opentelemetry"), ("Prometheus", "prometheus_client"), ("CallLog", None), ("JSONLines", None)],
)
def test_each_observer_loads_its_own_library_when_it_is_made(name, library):
    before = loaded_after(f"from polyvox.telemetry import {name}")
    assert not before & LIBRARIES
    after = loaded_after(f"from polyvox.telemetry import {name}; {name}()")
    assert after & LIBRARIES == ({library} if library else set())


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("OpenTelemetry", "opentelemetry", "otel"), ("Prometheus", "prometheus_client", "prometheus")],
)
def test_a_missing_library_is_named_with_what_installs_it(name, library, extra, monkeypatch):
    from polyvox import telemetry
    from polyvox.errors import MissingExtraError

    for module in [module for module in sys.modules if module.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError) as told:
        getattr(telemetry, name)()
    assert told.value.hint == f"pip install 'polyvox[{extra}]'"


def test_every_public_name_is_there():
    from polyvox import telemetry

    assert telemetry.__all__ == ["CallLog", "JSONLines", "OpenTelemetry", "Prometheus", "audit"]
    for name in telemetry.__all__:
        assert getattr(telemetry, name).__name__ == name
    with pytest.raises(AttributeError, match="no_such"):
        _ = telemetry.no_such
