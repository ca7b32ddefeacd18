"""The providers' own clients get the vectors from the simulated provider that ours gets, in each dialect that has
embeddings, and know its refusals."""

import pytest

from polyvox.testing import Simulator
from tests.testing.test_official_clients import MODEL, OFFICIAL, Ours, opened, simulator

__all__ = ["opened", "simulator"]  # fixtures

TO_EMBED = ["a red fox", "the tax law of 1978", "snow ❄ café"]


def embedded_by_openai(client, texts):
    # Without a word on it this client asks for base64.
    answer, plain = (
        client.embeddings.create(model=MODEL, input=texts, **facts) for facts in ({}, {"encoding_format": "float"})
    )
    assert [row.embedding for row in answer.data] == [row.embedding for row in plain.data]
    assert [row.index for row in answer.data] == list(range(len(texts))) and answer.model == MODEL
    return [row.embedding for row in answer.data], answer.usage.prompt_tokens


def embedded_by_cohere(client, texts):
    answer = client.embed(model=MODEL, texts=texts, input_type="search_document", embedding_types=["float"])
    assert answer.texts == texts
    return answer.embeddings.float_, answer.meta.billed_units.input_tokens


def embedded_by_ollama(client, texts):
    answer = client.embed(model=MODEL, input=texts)
    assert list(client.embeddings(model=MODEL, prompt=texts[0]).embedding) == list(answer.embeddings[0])
    return answer.embeddings, answer.prompt_eval_count


def embedded_by_genai(client, texts):
    answer = client.models.embed_content(model=MODEL, contents=texts)
    (alone,) = client.models.embed_content(
        model=MODEL, contents=texts[0], config={"output_dimensionality": 8, "task_type": "RETRIEVAL_QUERY"}
    ).embeddings
    assert len(alone.values) == 8
    return [row.values for row in answer.embeddings], None  # this client keeps the count to itself


EMBEDDERS = {
    "openai.chat": embedded_by_openai,
    "openai.responses": embedded_by_openai,
    "cohere.chat": embedded_by_cohere,
    "ollama.chat": embedded_by_ollama,
    "gemini.generate": embedded_by_genai,
}


@pytest.mark.parametrize("dialect", EMBEDDERS)
def test_an_official_client_gets_the_vectors_that_ours_gets(opened, dialect):
    vectors, tokens = EMBEDDERS[dialect](opened(OFFICIAL[dialect]).client, TO_EMBED)
    ours = opened(Ours, dialect=dialect).client.embed(TO_EMBED)
    assert tuple(tuple(vector) for vector in vectors) == ours.vectors
    assert tokens in (None, ours.usage.input) and ours.usage.input > 0


@pytest.mark.parametrize("dialect", EMBEDDERS)
def test_an_official_client_knows_a_refusal_to_embed_for_what_it_is(opened, dialect):
    with Simulator(models=["another"]) as simulator:
        client = opened(OFFICIAL[dialect], simulator)
        with pytest.raises(client.error) as caught:
            EMBEDDERS[dialect](client.client, TO_EMBED)
    assert "does not exist here" in str(caught.value)
