"""What somebody sees who makes a mistake with the LLM service: names that are no text, providers that return what is
no pair, answers that are half there."""

import asyncio
import copy
import importlib
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from unittest.mock import Mock

import openai
import pytest

import polyvox
from polyvox.compat.llm_service.models.llm import LLMCallRequest, LLMCallResponse, LLMConfig, LLMModelSpec
from polyvox.compat.llm_service.models.llm.specs import ModelCapabilities, ModelSpecRegistry
from polyvox.compat.llm_service.services.llm import (
    BaseProvider,
    OpenAIProvider,
    OpenAITransformer,
    ProviderFactory,
    TransformerFactory,
    ValidationError,
    execute_llm_call,
    stream_llm_call,
)
from polyvox.compat.llm_service.services.llm.providers import CoreProvider

from .rows import rows


def request(provider="openai", **said):
    return LLMCallRequest(
        llm=LLMConfig(prompt="hello", llm_model_spec=LLMModelSpec(model="gpt-4", provider=provider), **said)
    )


@rows("S3-066", "S3-068", "S3-075")
@pytest.mark.parametrize(
    "said",
    [
        lambda: ModelSpecRegistry().get(None, "gpt-4"),
        lambda: ModelSpecRegistry().get("openai", 5),
        lambda: ModelSpecRegistry().list(5),
        lambda: ModelSpecRegistry().unregister("openai", None),
        lambda: ModelSpecRegistry().validate(None, None),
        lambda: ModelSpecRegistry().get("openai", "gpt-4").supports(None),
        lambda: ModelCapabilities.from_names(5),
        lambda: ModelCapabilities.from_names("vision"),
        lambda: ModelCapabilities.from_names([5]),
        lambda: TransformerFactory.create("openai", 5),
        lambda: ProviderFactory.create(None),
    ],
)
def test_what_is_no_name_is_the_documented_error(row, said, place):
    with pytest.raises(ValidationError) as caught:
        said()
    assert caught.value.hint and caught.value.errors()


@rows("S3-130", "S3-182")
@pytest.mark.parametrize("given", [None, (None, None), ("x", "y"), LLMCallResponse(message="m")], ids=repr)
def test_a_provider_that_gives_no_pair_is_told_so_in_a_stream_too(row, given, place):
    class Mine(BaseProvider):
        def execute(self, request):
            return given

    ProviderFactory.register_provider("mine", Mine)
    try:
        response, error = execute_llm_call(request("mine"))
        stream = stream_llm_call(request("mine"))
        assert list(stream) == [] and stream.response is None and response is None
    finally:
        ProviderFactory.unregister_provider("mine")
    assert "where a pair of an answer and None" in error and "return llm_response, None" in error
    assert str(stream.error) == str(error)


@rows("S3-100", "S3-167")
@pytest.mark.parametrize("results", [5, "text", None, {"a": 1}, Mock()], ids=lambda one: type(one).__name__)
def test_results_of_a_search_that_are_no_list_are_none(row, results, place):
    client = Mock()
    client.responses.create.return_value = Mock(
        id="resp_1",
        output_text="It says so.",
        model="gpt-4",
        usage=Mock(input_tokens=1, output_tokens=2, total_tokens=3),
        output=[
            {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": [], "results": results},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It says so."}]},
        ],
    )
    response, error = execute_llm_call(request(vector_store_id="vs_1"), client)
    assert error is None and response.message == "It says so." and response.file_search_results == []


@rows("S3-177", "S3-075")
@pytest.mark.parametrize("given", [None, "hello", {"llm": {}}])
def test_what_is_no_request_is_the_documented_error_wherever_it_is_given(row, given, place):
    for made in (OpenAIProvider(Mock()), CoreProvider()):
        response, error = made.execute(given)
        assert response is None and "LLMCallRequest" in error and "hint: LLMCallRequest(llm=" in error
        assert isinstance(error.error, ValidationError)
    for said in (
        lambda: OpenAIProvider().build_params(given),
        lambda: OpenAITransformer().transform(given),
        lambda: OpenAITransformer().validate_and_transform(given),
    ):
        with pytest.raises(ValidationError, match="LLMCallRequest"):
            said()


@rows("S3-042", "S3-177")
def test_a_class_in_the_place_of_a_client_is_refused(row, world):
    for kind in (openai.OpenAI, polyvox.Client, Mock):
        response, error = execute_llm_call(request(), kind)
        assert response is None and f"the class {kind.__name__} is no client" in error and f"{kind.__name__}(" in error
        stream = stream_llm_call(request(), kind)
        assert list(stream) == [] and "is no client" in stream.error
    assert world.requests == ()


@rows("S3-081", "S3-194")
def test_a_model_is_said_by_name_and_a_provider_has_one(row):
    with pytest.raises(ValidationError, match="by name") as caught:
        LLMModelSpec("gpt-4")
    assert caught.value.hint == "LLMModelSpec(model=...)"
    for empty in ("", "  "):
        with pytest.raises(ValidationError, match="provider: must be a name that is not empty"):
            LLMModelSpec(model="gpt-4", provider=empty)


@rows("S3-067", "S3-156")
@pytest.mark.parametrize(
    "said",
    [
        lambda: ModelSpecRegistry().register(5),
        lambda: ModelSpecRegistry().get(None, "gpt-4"),
        lambda: ModelSpecRegistry().validate("openai", "gpt-4o", 5),
        lambda: ProviderFactory.create(""),
    ],
)
def test_what_is_refused_says_what_to_write_instead(row, said, place):
    with pytest.raises(ValidationError) as caught:
        said()
    assert "see the documentation" not in caught.value.hint


# ---- threads, loops and processes -----------------------------------------------------------------

FIRST = """
import sys, threading
sys.setswitchinterval(1e-6)
from polyvox.compat.llm_service.models.llm import LLMCallRequest, LLMConfig, LLMModelSpec
start, wrong = threading.Barrier(12), []
def build():
    start.wait()
    try:
        spec = LLMModelSpec(model="m", reasoning={"effort": "high"})
        request = LLMCallRequest(llm=LLMConfig(prompt="a", llm_model_spec=spec))
        assert request.llm.llm_model_spec.reasoning.effort == "high"
    except BaseException as error:
        wrong.append(repr(error))
threads = [threading.Thread(target=build) for _ in range(12)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(wrong)
"""


@rows("S3-082")
def test_threads_may_make_the_first_requests_of_a_process_together(row):
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@rows("S3-090")
def test_threads_and_two_event_loops_call_at_the_same_time(row, world):
    told = []

    async def in_a_loop():
        told.append(execute_llm_call(request())[1])
        told.append((await asyncio.to_thread(execute_llm_call, request()))[1])

    threads = [threading.Thread(target=lambda: told.append(execute_llm_call(request())[1])) for _ in range(8)]
    threads += [threading.Thread(target=lambda: asyncio.run(in_a_loop())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert told == [None] * 12 and len(world.requests) == 12


@rows("S3-090")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_of_a_process_that_called_calls_too(row, world):
    assert execute_llm_call(request())[1] is None
    forks = multiprocessing.get_context("fork")
    told = forks.Queue()
    child = forks.Process(target=lambda: told.put(execute_llm_call(request())[1]))
    child.start()
    assert told.get(timeout=60) is None
    child.join(60)
    assert execute_llm_call(request())[1] is None


# ---- what is loaded -------------------------------------------------------------------------------

LOADED = "import sys, {0}\nprint(*[name for name in {1} if name in sys.modules])"
HEAVY = {
    "services.llm": ("pydantic", "msgspec", "asyncio", "polyvox.catalog"),
    "services.llm.orchestrator": ("pydantic", "msgspec", "asyncio", "polyvox.catalog", "polyvox.types"),
    "services.llm.providers": ("pydantic", "msgspec", "asyncio", "polyvox.catalog", "polyvox.types"),
    "services.llm.transformers": ("pydantic", "msgspec", "polyvox.dialects", "polyvox.profiles"),
    "services.llm.specs.openai": ("pydantic", "msgspec", "polyvox.catalog"),
    "services.llm.constants": ("pydantic", "msgspec"),
    "models.llm": ("importlib.metadata", "msgspec", "asyncio", "polyvox.types", "polyvox.keys"),
    "models.llm.specs": ("importlib.metadata", "msgspec", "polyvox.catalog", "polyvox.profiles"),
}


@rows("S3-001")
@pytest.mark.parametrize("module", HEAVY)
def test_what_is_not_needed_yet_is_not_loaded(row, module):
    code = LOADED.format(f"polyvox.compat.llm_service.{module}", HEAVY[module])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == ("", "")


# ---- what comes later -------------------------------------------------------------------------------


@rows("S3-192")
@pytest.mark.parametrize(
    ("module", "name", "instead"),
    [("services.llm.jobs", "start_job", "execute_llm_call"), ("models.llm.call", "LLMCall", "LLMCallRequest")],
)
def test_what_comes_with_jobs_is_one_clear_import_error_and_no_surprise_elsewhere(row, module, name, instead):
    with pytest.raises(ImportError, match=f"{name} comes with the jobs of polyvox") as caught:
        exec(f"from polyvox.compat.llm_service.{module} import {name}")
    assert instead in caught.value.hint
    found = importlib.import_module(f"polyvox.compat.llm_service.{module}")
    there = {}
    exec(f"from polyvox.compat.llm_service.{module} import *", there)
    assert not hasattr(found, name) and name not in dir(found) and name not in there


# ---- copies ---------------------------------------------------------------------------------------


@rows("S3-080", "S3-082")
def test_a_request_is_copied_pickled_and_written_whole_and_no_key_has_a_place_in_it(row):
    asked = request(vector_store_id="vs_1")
    for same in (copy.copy(asked), copy.deepcopy(asked), pickle.loads(pickle.dumps(asked))):
        assert same == asked and same.llm.llm_model_spec.model == "gpt-4"
    assert json.loads(json.dumps(asked.model_dump())) == asked.model_dump()
    key = "sk-canary-0123456789abcdefghijklmnop"
    with pytest.raises(ValidationError) as caught:
        LLMConfig(prompt="hello", llm_model_spec=LLMModelSpec(model="gpt-4"), api_key=key)
    shown = f"{caught.value}{caught.value!r}{caught.value.errors()}{caught.value.__cause__}"
    assert "api_key" in caught.value.hint and key not in shown
    with pytest.raises(ValidationError) as caught:
        LLMModelSpec(model="gpt-4", api_key=key)
    assert key not in f"{caught.value}{caught.value!r}{caught.value.errors()}{caught.value.__cause__}"
