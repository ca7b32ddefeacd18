"""For `mutation`, standing alone: as a plugin of pytest it keeps the cases of some rows and notes for each of them how
they ended and which functions of a folder their tests enter; as sitecustomize it does so in each Python that a test
starts. Variables of the environment say what to note and where; without them it does nothing."""

import atexit
import json
import os
import sys
import threading
from inspect import CO_OPTIMIZED
from pathlib import Path

WANTED = json.loads(os.environ.get("MUTATION_WANTED", "[]"))
"""Rows, each with the test that shows it."""
SOURCES = os.environ.get("MUTATION_SOURCES", "")
NOTES = os.environ.get("MUTATION_NOTES", "")
TRACED = bool(os.environ.get("MUTATION_TRACED"))

_entered: dict[tuple[str, int, str], dict] = {}
_on = False
_notes: list[dict] = [{"cases": 0, "passed": 0, "failed": 0, "took": 0.0, "entered": []} for _ in WANTED]
_of: dict[str, list[int]] = {}
"""Which of those wanted a case stands for."""


def _profile(frame, event, arg) -> None:
    if not _on or event not in ("call", "return"):
        return
    code = frame.f_code
    if not code.co_filename.startswith(SOURCES) or code.co_name.startswith("<") or not code.co_flags & CO_OPTIMIZED:
        return  # the body of a class is run once too, but is no function
    key = (code.co_filename, code.co_firstlineno, code.co_name)
    note = _entered.get(key)
    if event == "return":
        if note is not None:
            note["gives"] = note["gives"] or arg is not None
        return
    if note is None:
        if _is_loading(frame.f_back):
            return
        note = _entered.setdefault(key, {"direct": False, "gives": False})
    if not note["direct"]:
        note["direct"] = _is_the_tests(frame.f_back)


def _is_loading(caller) -> bool:
    """Whether a module is being loaded: what it calls meanwhile makes its names, and is nothing a test asks for."""
    while caller is not None:
        if caller.f_code.co_name == "<module>" and caller.f_code.co_filename.startswith(SOURCES):
            return True
        caller = caller.f_back
    return False


def _is_the_tests(caller) -> bool:
    """Whether a frame is of a test, or of a text that a test runs; what only waits for the frame is passed over. What a
    conftest does prepares what is tested, also where the test asks for it."""
    while caller is not None and "/asyncio/" in caller.f_code.co_filename:
        caller = caller.f_back
    if caller is None:
        return False
    file = caller.f_code.co_filename
    return ("/tests/" in file and not file.endswith("/conftest.py")) or not file.startswith(("/", "<frozen"))


def _watch(*, now: bool) -> None:
    global _on
    _on = now
    if TRACED:
        # In all threads: what runs in one that a fixture began counts too.
        threading.setprofile(_profile)
        sys.setprofile(_profile if now else None)


def _found() -> list[dict]:
    return [{"file": key[0], "line": key[1], "name": key[2], **note} for key, note in _entered.copy().items()]


def _write(path: str, notes) -> None:
    sys.setprofile(None)
    Path(path).write_text(json.dumps(notes()), encoding="utf-8")


# ---- as a plugin -----------------------------------------------------------------------------------


def pytest_collection_modifyitems(items) -> None:
    for place, (row, test) in enumerate(WANTED):
        all_of = [item for item in items if item.nodeid.partition("[")[0] == test.partition("[")[0]]
        mine = [item for item in all_of if f"-{row}-" in f"-{item.name.partition('[')[2].rstrip(']')}-"] or all_of
        _notes[place]["cases"] = len(mine)
        for item in mine:
            _of.setdefault(item.nodeid, []).append(place)
    items[:] = [item for item in items if item.nodeid in _of]
    _watch(now=False)


def pytest_runtest_call(item) -> None:
    # A program that it starts notes for the same rows.
    os.environ["MUTATION_OF"] = "-".join(map(str, _of[item.nodeid]))
    _entered.clear()
    _watch(now=True)


def pytest_runtest_teardown(item) -> None:
    _watch(now=False)
    os.environ.pop("MUTATION_OF", None)
    for place in _of[item.nodeid]:
        _notes[place]["entered"] += _found()
    _entered.clear()


def pytest_runtest_logreport(report) -> None:
    for place in _of[report.nodeid]:
        _notes[place]["passed"] += report.when == "call" and report.outcome == "passed"
        _notes[place]["failed"] += report.outcome == "failed"
        _notes[place]["took"] += report.duration


def pytest_sessionfinish() -> None:
    _write(NOTES, lambda: _notes)


# ---- in a process that a test started --------------------------------------------------------------

if __name__ == "sitecustomize" and TRACED and not any("pytest" in word for word in sys.orig_argv):
    atexit.register(_write, f"{NOTES}.{os.environ.get('MUTATION_OF', '')}.{os.getpid()}", _found)
    _watch(now=True)
