"""The public names are a promise: this list changes only on purpose."""

import polyvox

PUBLIC = """
AsyncChat AsyncClient AsyncStream Audio Batch CacheHint Chat Citation Client Cost Embeddings Event File Image Loss
Message Opaque Pictures PolyvoxError Ranking Reasoning Refusal Request Response ResponseFormat Secret Speech
StoredFile Stream Text Thinking Tool ToolCall ToolChoice ToolResult Transcript UNSET Usage Verdicts Video achat
add_model ask ask_async ask_batch chat configure embed embed_async register_backend stream stream_async
unregister_backend
""".split()


def test_the_public_names_are_exactly_these():
    assert sorted(polyvox.__all__) == sorted(PUBLIC)


def test_every_public_name_loads():
    for name in PUBLIC:
        assert getattr(polyvox, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    try:
        polyvox.nothing_of_the_kind
    except AttributeError as error:
        assert "nothing_of_the_kind" in str(error)
    else:
        raise AssertionError("an unknown name must not load")


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert polyvox.__version__ == version("polyvox")
