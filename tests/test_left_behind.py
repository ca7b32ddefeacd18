"""Whatever a test says to the process is noticed as left, by its name and without its value, and is taken back; see
`tests.left_behind`."""

import gc
import logging
import os
import signal
import sys

import pytest

import polyvox
from polyvox import backends, catalog, config
from polyvox.registry import DictRegistry
from tests import left_behind

VALUE = "sk-left-behind-0123456789"


class Echo:
    name = "left-echo"

    def ask(self, prompt):
        return prompt


def backend():
    backends.register_backend(Echo)
    return "backends:registered: left-echo"


def model():
    catalog.add_model(id="left-model", provider="openai", context=10)
    return "catalog:_added"


def settings():
    polyvox.configure(timeout=7)
    return "config:_arguments: timeout"


def provider():
    from polyvox.compat.ai_utilities.providers import BaseProvider, register_provider

    register_provider("left-provider", type("Left", (BaseProvider,), {"ask": lambda self, prompt, **more: None}))
    return "factory:_added: left-provider"


def cache():
    from polyvox.compat.ai_utilities.cache import CacheBackend, register_cache

    register_cache("left-cache", type("Left", (CacheBackend,), {"get": lambda *_: None, "set": lambda *_: None}))
    return "choice:_added: left-cache"


def specification():
    from polyvox.compat.llm_service.models.llm.specs import ModelSpecRegistry

    registry = ModelSpecRegistry()
    registry.register(registry.get("openai", "o1"))
    return "ModelSpecRegistry._one._registered"


def service():
    from polyvox.compat.llm_service.services.llm.providers.core import CoreProvider
    from polyvox.compat.llm_service.services.llm.providers.factory import ProviderFactory

    ProviderFactory.register_provider("left-service", CoreProvider)
    return "ProviderFactory._names._registered: left-service"


def ttt_backend():
    from polyvox.compat.ttt.backends import Backend

    Backend.register(Echo, "left-ttt")
    return "ttt.backends:_theirs: left-ttt"


def ttt_settings():
    from polyvox.compat import ttt

    ttt.configure(models={"default": "left"})
    return "ttt.config:_program: models.default"


def published():
    from polyvox.compat.everyone import EVERYONE

    HELD.append(DictRegistry())
    EVERYONE.publish(HELD[-1])
    return "EVERYONE._published"


def variable():
    os.environ["POLYVOX_LEFT"] = VALUE
    return "environment: POLYVOX_LEFT"


def folder():
    os.chdir("/")
    return "working folder"


def hidden():
    sys.modules["left_module"] = None
    return "modules hidden from imports: left_module"


def interrupts():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return f"signals: {signal.SIGTERM}"


def handler():
    logging.getLogger("polyvox").addHandler(logging.StreamHandler())
    return "handlers of logs: polyvox"


HELD = []
LEAVES = (
    backend, model, settings, provider, cache, specification, service, ttt_backend, ttt_settings, published, variable,
    folder, hidden, interrupts, handler,
)  # fmt: skip


@pytest.mark.parametrize("leave", LEAVES, ids=lambda leave: leave.__name__)
def test_what_is_left_is_named_and_taken_back(leave):
    before = left_behind.state()
    assert left_behind.changes(before) == []
    where = leave()
    left = left_behind.changes(before)
    left_behind.put_back(before)
    assert any(where in one for one in left), left
    assert VALUE not in str(left)
    assert left_behind.changes(before) == [] and left_behind.state() == before


def test_what_nobody_holds_any_more_is_not_left():
    before = left_behind.state()
    ring = [DictRegistry()]
    ring.append(ring)
    from polyvox.compat.everyone import EVERYONE

    EVERYONE.publish(ring[0])
    del ring
    assert left_behind.changes(before) == []
    gc.collect()


def test_settings_and_models_that_were_there_are_there_again():
    with left_behind.nothing_left():
        polyvox.configure(timeout=7)
        catalog.add_model(id="kept-model", provider="openai", context=10)
        with left_behind.nothing_left():
            polyvox.configure(timeout=8)
            catalog.forget_models()
        assert config.current().timeout == 7 and [model.id for model in catalog.added()] == ["kept-model"]
    assert catalog.added() == ()
