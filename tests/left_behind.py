"""What was said to this process, to polyvox or around it, and what of it a test or a module of tests leaves behind for
those that run later. What polyvox merely remembers, and would find again by itself, is nothing left."""

import contextlib
import gc
import logging
import os
import signal
import sys

SAID = (
    "polyvox.backends:registered",
    "polyvox.catalog:_added",
    "polyvox.catalog:_with_added",
    "polyvox.config:_arguments",
    "polyvox.compat.ai_utilities.cache.choice:_added",
    "polyvox.compat.ai_utilities.providers.factory:_added",
    "polyvox.compat.everyone:EVERYONE._published",
    "polyvox.compat.llm_service.models.llm.specs.registry:ModelSpecRegistry._one._registered",
    "polyvox.compat.llm_service.services.llm.providers.factory:ProviderFactory._names._registered",
    "polyvox.compat.llm_service.services.llm.transformers.factory:TransformerFactory._names._registered",
    "polyvox.compat.ttt.backends:_theirs",
    "polyvox.compat.ttt.config:_added",
    "polyvox.compat.ttt.config:_program",
)
"""Where polyvox keeps what a program says to it; as empty where its module is not loaded as where nothing was said."""

FOUND_AGAIN = ("polyvox.config:_current", "polyvox.compat.ttt.config:_held")
"""What polyvox made of it, which is forgotten together with it."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LOGS = ("root", "polyvox")
OF_THE_RUNNER = "PYTEST_"  # variables that it changes itself


def _owner(place):
    """The object that has the attribute which a place names, None while there is none; and the attribute's name."""
    module, _, path = place.partition(":")
    *path, name = path.split(".")
    owner = sys.modules.get(module)
    for part in path:
        owner = getattr(owner, part, None)
    return owner, name


def _said(place):
    """What is kept at a place, in a copy; None where it is empty, or where of what was published nothing lives."""
    owner, name = _owner(place)
    value = getattr(owner, name, None)
    if isinstance(value, list):
        value = [one for one in value if one() is not None]
    return (dict(value) if isinstance(value, dict) else value) or None


def state():
    """What was said to this process, by where."""
    return {
        **{place: _said(place) for place in SAID},
        "environment": {name: text for name, text in os.environ.items() if not name.startswith(OF_THE_RUNNER)},
        "working folder": os.getcwd(),
        "modules hidden from imports": {name: True for name, module in list(sys.modules.items()) if module is None},
        "signals": {number: signal.getsignal(number) for number in SIGNALS},
        "handlers of logs": {name: _handlers(name) for name in LOGS},
    }


def changes(before):
    """What is no longer as it was: where, and the names of it, but no value."""
    published = "polyvox.compat.everyone:EVERYONE._published"
    if _said(published) != before[published]:
        gc.collect()  # what nobody holds any more is not published
    now = state()
    return [f"{where}: {_names(before[where], now[where])}" for where in before if now[where] != before[where]]


def put_back(before):
    """Make it all as it was."""
    for place in SAID:
        owner, name = _owner(place)
        if _said(place) != before[place]:
            value, was = getattr(owner, name), before[place]
            setattr(owner, name, type(value)() if was is None and isinstance(value, list | tuple | dict) else was)
    for place in FOUND_AGAIN:
        owner, name = _owner(place)
        if owner is not None:
            setattr(owner, name, None)
    now = state()
    for name in now["environment"].keys() - before["environment"].keys():
        del os.environ[name]
    os.environ.update(before["environment"])
    os.chdir(before["working folder"])
    for name in now["modules hidden from imports"].keys() - before["modules hidden from imports"].keys():
        del sys.modules[name]
    for number, handler in before["signals"].items():
        signal.signal(number, handler)
    for name, handlers in before["handlers of logs"].items():
        log = logging.getLogger(None if name == "root" else name)
        for handler in {*_handlers(name)} - {*handlers}:
            log.removeHandler(handler)


@contextlib.contextmanager
def nothing_left():
    """For what says things to the process that it has no way to take back, such as a documentation's examples."""
    before = state()
    try:
        yield
    finally:
        if changes(before):
            put_back(before)


def _handlers(name):
    """Those that do something, and neither for the runner nor for the command line, which takes its last one away when
    it is run again."""
    log = logging.getLogger(None if name == "root" else name)
    return [one for one in log.handlers if not (_is_passing(one) or isinstance(one, logging.NullHandler))]


def _is_passing(handler):
    return type(handler).__module__.startswith(("_pytest", "polyvox.cli"))


def _names(before, now):
    if not isinstance(before or now, dict):
        return "another value"
    before, now = before or {}, now or {}
    return ", ".join(sorted(str(name) for name in before.keys() | now.keys() if before.get(name) != now.get(name)))
