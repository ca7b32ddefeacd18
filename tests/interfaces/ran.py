"""Which tests ran, and how each ended, for `python -m tests.interfaces.coverage --ran FILE`. tests/conftest.py loads it
where POLYVOX_RAN names a file; it knows nothing of rows."""

import json
import os
from pathlib import Path

WORST = ("passed", "skipped", "failed")
"""From the best end to the worst; of setup, call and teardown the worst one counts."""

VARIABLE = "POLYVOX_RAN"


def note_them(config) -> None:
    """Write what this run does to the file that the variable names, if it names one."""
    # Taken away, so that a pytest which a test starts does not write over the file of this one.
    if path := os.environ.pop(VARIABLE, ""):
        config.pluginmanager.register(Ran(Path(path).resolve()), "polyvox-ran")


class Ran:
    """Keeps the end of every test by its node id; the file is written when the run ends, also where it was stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ends: dict[str, str] = {}

    def pytest_runtest_logreport(self, report) -> None:
        # What was expected to fail shows nothing, whichever way it ended.
        end = "skipped" if hasattr(report, "wasxfail") else report.outcome
        known = self.ends.get(report.nodeid, "passed" if report.when == "call" else "")
        if report.when != "setup" or end != "passed":
            self.ends[report.nodeid] = max(known or end, end, key=WORST.index)

    def pytest_sessionfinish(self) -> None:
        # What ran again counts as it ended last; the rest of an earlier run stays.
        before = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        self.path.write_text(json.dumps({**before, **self.ends}, indent=0), encoding="utf-8")
