"""What somebody sees who makes a mistake with the LLM service: names that are no text, providers that return what is
no pair, answers that are half there."""

from unittest.mock import Mock

import pytest

from polyvox.compat.llm_service.models.llm import LLMCallRequest, LLMCallResponse, LLMConfig, LLMModelSpec
from polyvox.compat.llm_service.models.llm.specs import ModelCapabilities, ModelSpecRegistry
from polyvox.compat.llm_service.services.llm import (
    BaseProvider,
    ProviderFactory,
    TransformerFactory,
    ValidationError,
    execute_llm_call,
    stream_llm_call,
)

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
