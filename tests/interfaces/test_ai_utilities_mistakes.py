"""What somebody sees who makes a mistake with AI Utilities: in a provider of one's own, in what is passed, in a process
that forks. Nothing hangs, nothing foreign comes out, and nothing that is not known is a number."""

import asyncio
import enum
import json
import os
import pickle
import select
import subprocess
import sys

import pytest

from polyvox.compat.ai_utilities import (
    AiClient,
    AiSettings,
    AIUtilitiesError,
    AskResult,
    AsyncAiClient,
    BaseProvider,
    ConfigurationResolver,
    MemoryCache,
    OpenAIProvider,
    ProviderAPIError,
    SQLiteCache,
    UsageData,
    UsageTracker,
    create_cache,
    create_client,
    create_provider,
    create_usage_tracker,
)
from polyvox.errors import ConfigError, InputError, PolyvoxError

from .rows import rows

KEY = "sk-canary-mistakes-0123456789abcdef"


class Own(BaseProvider):
    """A provider of one's own, which gives or raises what a test says."""

    def __init__(self, settings, give=None):
        super().__init__(settings)
        self.give = give

    def ask(self, prompt, **kwargs):
        if isinstance(self.give, Exception):
            raise self.give
        return self.give

    def ask_stream(self, prompt, **kwargs):
        if isinstance(self.give, Exception):
            yield "one"
            raise self.give
        return (yield from self.give)


@pytest.fixture
def mine(place):
    """Makes a client whose provider gives, or raises, this."""
    made = []

    def make(give, kind=AiClient, **said):
        settings = AiSettings(**said)
        client = kind(settings, provider=Own(settings, give))
        made.append(client)
        return client

    yield make
    for client in made:
        if isinstance(client, AiClient):
            client.close()


# ---- a provider that fails as it likes -------------------------------------------------------------


ODD = (
    KeyError("x"), ValueError(f"no key {KEY}"), RuntimeError(), TimeoutError("late"), ConnectionError("cut"),
    OSError(5, "io"), StopIteration("s"), AssertionError(), AttributeError("a"), RecursionError(),
)  # fmt: skip


@rows("S2-105")
@pytest.mark.parametrize("cached", [False, True], ids=["asked", "cached"])
@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
def test_whatever_a_provider_of_ones_own_raises_comes_out_as_the_documented_error(row, error, cached, mine):
    client = mine(error, cache_enabled=cached)
    with pytest.raises(ProviderAPIError) as caught:
        client.ask("hello")
    assert caught.value.__cause__ is error and caught.value.provider == "openai" and caught.value.hint
    (failed,) = client.ask_batch(["hello"])
    assert isinstance(failed.error, ProviderAPIError) and not failed.ok

    async def awaited():
        async with mine(error, AsyncAiClient, cache_enabled=cached) as other:
            await asyncio.wait_for(other.ask("hello"), 20)

    with pytest.raises(ProviderAPIError):
        asyncio.run(awaited())
    assert KEY not in str(caught.value)


@rows("S2-105")
@pytest.mark.parametrize("error", [KeyError("x"), ValueError(), TypeError("t")], ids=lambda error: type(error).__name__)
def test_a_stream_that_fails_in_the_middle_gives_what_there_was_and_the_documented_error(row, error, mine):
    stream = mine(error).ask_stream("hello")
    assert next(stream) == "one"
    with pytest.raises(ProviderAPIError) as caught:
        next(stream)
    assert caught.value.__cause__ is error
    with pytest.raises(StopIteration):
        next(stream)


@rows("S2-134")
def test_what_a_provider_says_it_does_not_do_stays_that(row, mine):
    with pytest.raises(NotImplementedError, match="not today") as caught:
        mine(NotImplementedError("not today")).ask("hello")
    assert isinstance(caught.value, PolyvoxError)


@rows("S2-092")
@pytest.mark.parametrize("cached", [False, True], ids=["asked", "cached"])
@pytest.mark.parametrize("given", [None, "text", 5, {"text": "x"}], ids=str)
def test_a_provider_that_gives_no_result_is_told_so(row, given, cached, mine):
    client = mine(given, cache_enabled=cached)
    with pytest.raises(ProviderAPIError, match=f"gave {type(given).__name__}, where an AskResult is due"):
        client.ask("hello")


@rows("S2-044")
def test_a_stream_is_an_iterator_of_texts_and_nothing_else(row, mine):
    class Listed(Own):
        def ask_stream(self, prompt, **kwargs):
            return self.give

    settings = AiSettings()

    def streamed(give):
        return AiClient(settings, provider=Listed(settings, give)).ask_stream("hello")

    assert list(streamed(["a", "b"])) == ["a", "b"]

    async def awaited():
        async with AsyncAiClient(settings, provider=Listed(settings, ["a", "b"])) as client:
            return [text async for text in client.ask_stream("hello")]

    assert asyncio.run(awaited()) == ["a", "b"]
    with pytest.raises(ProviderAPIError, match="the stream gave int"):
        list(streamed([5]))
    for none in (None, "abc", 7):
        with pytest.raises(ProviderAPIError, match="an iterator of texts is due"):
            streamed(none)


# ---- what nobody counted ---------------------------------------------------------------------------


@rows("S2-094", "S2-150")
def test_what_nobody_counted_is_no_zero_in_the_sums(row, place):
    assert UsageData().source == AskResult("text").usage.source == AskResult("text", None).usage.source == "missing"
    assert UsageData(prompt_tokens=3).source == "provider" and UsageData(source="estimated").source == "estimated"
    with UsageTracker() as tracker:
        settings = AiSettings()
        client = AiClient(settings, provider=Own(settings, ["one ", "two"]), usage_tracker=tracker)
        with client.ask_stream("left") as stream:
            next(stream)
        assert "".join(client.ask_stream("read")) == "one two"
        stats = tracker.get_stats()
    assert stats.requests == 2 and stats.row.input is None and stats.row.output is None


@rows("S2-150", "S2-151", "S2-152")
@pytest.mark.parametrize("count", ["many", 1.5, -1, [3]], ids=str)
def test_what_is_no_count_is_refused_by_name(row, count):
    name = {"S2-150": "prompt_tokens", "S2-151": "completion_tokens", "S2-152": "total_tokens"}[row]
    with pytest.raises(InputError, match=f"{name} is a whole number from 0 up"):
        UsageData(**{name: count})


def test_a_result_has_a_text():
    with pytest.raises(InputError, match="text is text, not int"):
        AskResult(5)
    with pytest.raises(InputError, match="usage is UsageData, not int"):
        AskResult("hello", usage=5)


# ---- what is passed --------------------------------------------------------------------------------


@rows("S2-099", "S2-105")
def test_what_are_no_settings_is_refused_with_what_to_say(row, place):
    for make in (AiClient, OpenAIProvider, create_provider, create_cache, ConfigurationResolver().resolve):
        with pytest.raises(InputError, match="settings are AiSettings, not str") as caught:
            make("openai")
        assert "AiSettings(" in caught.value.hint and isinstance(caught.value, AIUtilitiesError)
    with pytest.raises(InputError, match="settings_class is a class"):
        ConfigurationResolver(AiSettings())


@rows("S2-032")
def test_options_of_settings_that_do_nothing_are_refused(row, place):
    for said in ({"_env_file": 5}, {"_env_file": [".env"]}, {"_env_prefix": "X_"}, {"_case_sensitive": True}):
        with pytest.raises(InputError, match=next(iter(said))):
            AiSettings(**said)


@rows("S2-108")
def test_a_key_is_in_nothing_that_shows_what_settings_hold(row, place):
    settings = AiSettings(api_key=KEY)
    assert settings.api_key == KEY and f"Bearer {settings.api_key}" == f"Bearer {KEY}"
    shown = (
        repr(settings), str(settings), repr(vars(settings)), repr(settings.model_dump()), settings.model_dump_json(),
        repr(dict(settings)), repr(settings.model_copy(update={"model": "x"}).__dict__), repr(settings.api_key),
        repr(pickle.dumps(settings)), repr(vars(AiClient(settings))), repr(vars(AiClient(settings).provider)),
    )  # fmt: skip
    assert [text for text in shown if KEY in text] == []


@rows("S2-107", "S2-109")
def test_a_name_of_blanks_is_none_and_one_between_blanks_is_that_name(row, place):
    for field in ("provider", "model", "cache_backend"):
        with pytest.raises(ConfigError, match=f"{field}=  : {field} must be"):
            AiSettings(**{field: "  "})
    assert (AiSettings(provider=" Groq ").provider, AiSettings(model=" a-model ").model) == ("groq", "a-model")


@rows("S2-072")
def test_settings_are_the_key_of_a_table(row, place):
    first, same, other = AiSettings(api_key=KEY), AiSettings(api_key=KEY), AiSettings(api_key=f"{KEY}-2")
    assert hash(first) == hash(same) and {first: 1}[same] == 1 and other not in {first: 1}
    assert len({AiSettings(), AiSettings(model="x"), AiSettings(cache_enabled=True, cache_options={"a": []})}) == 3


class Known(enum.Enum):
    SMALL = "gpt-4o-mini"


class KnownText(str, enum.Enum):  # noqa: UP042 - as programs write it that are older than StrEnum
    SMALL = "gpt-4o-mini"


@rows("S2-143")
def test_a_model_is_a_name_and_a_member_of_texts_is_the_text_it_stands_for(row, world):
    with create_client("openai") as client:
        for wrong in (5, Known.SMALL, ["gpt-4o-mini"], b"gpt-4o-mini"):
            with pytest.raises(InputError, match="model is a name, not") as caught:
                client.ask("hello", model=wrong)
            assert caught.value.param == "model"
        assert world.requests == ()
        assert client.ask("hello", model=KnownText.SMALL).text
    assert json.loads(world.requests[0].body)["model"] == "gpt-4o-mini"


@pytest.mark.parametrize("prompts", [{"a": "one", "b": "two"}, "one", b"one", None, 5], ids=repr)
@rows("S2-043")
def test_a_batch_is_a_list_of_prompts(row, prompts, mine):
    ours = create_client("demo")
    for client in (ours, create_client("demo", cache_enabled=True), mine(AskResult("x"))):
        with pytest.raises(InputError, match="prompts are a list of texts"):
            client.ask_batch(prompts)


@rows("S2-088", "S2-091")
def test_who_cannot_be_told_of_usage_is_refused_at_once(row):
    for make in (lambda: UsageTracker(5), lambda: create_usage_tracker(ledger="ledger.db")):
        with pytest.raises(InputError, match="a ledger is a Ledger, not"):
            make()
    with pytest.raises(InputError, match=r"an observer has a method track_request\(usage\)"):
        create_usage_tracker(print)


def test_a_path_below_the_home_of_nobody_is_no_file(place):
    with pytest.raises(ConfigError, match="the name of nobody here"):
        SQLiteCache("~nobody-of-that-name/answers.db")


@pytest.mark.parametrize("kept", ["memory", "given", "off"])
@rows("S2-048")
def test_a_client_that_was_closed_asks_all_the_same_and_keeps_nothing_more(row, kept, place):
    client = {
        "memory": lambda: create_client("demo", cache_enabled=True),
        "given": lambda: create_client("demo", cache=MemoryCache()),
        "off": lambda: create_client("demo"),
    }[kept]()
    whole = client.ask("before").text
    client.close()
    client.close()
    assert client.ask("before").text == whole and not client.ask("before").cached
    assert len(list(client.ask_stream("before"))) > 1 and client.ask_batch(["before"])[0].ok

    async def main():
        other = AsyncAiClient(client.settings, cache=client.cache)
        await other.ask("another")
        await other.close()
        await other.close()
        return (await other.ask("another")).cached, [text async for text in other.ask_stream("another")]

    cached, texts = asyncio.run(main())
    assert not cached and len(texts) > 1


# ---- a process that forks or just ends -------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@rows("S2-064")
def test_a_child_of_a_fork_asks_through_the_cache_too(row, place):
    client = create_client("demo", cache_enabled=True)
    assert not client.ask("before").cached
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        told = b"failed"
        try:
            told = repr((client.ask("before").cached, client.ask("after").cached)).encode()
        finally:
            os.write(write, told)
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        ready, _, _ = select.select([pipe], [], [], 30)
        if not ready:
            os.kill(child, 9)
        told = pipe.read()
    os.waitpid(child, 0)
    client.close()
    assert told == b"(True, False)"


def test_a_script_that_closes_nothing_ends_without_a_word(world):
    script = (
        "import asyncio, gc, polyvox\n"
        "from tests.interfaces.conftest import catalog\n"
        "from polyvox.compat.ai_utilities import AsyncAiClient, create_client\n"
        "polyvox.configure(providers={'openai': {'hosts': ['127.0.0.1']}})\n"
        "kept = create_client('openai', model='gpt-4o-mini')\n"
        "assert kept.ask('hello').text\n"
        "next(create_client('openai', model='gpt-4o-mini').ask_stream('hello'))\n"
        "left = create_client('openai', model='gpt-4o-mini', cache_enabled=True).ask_stream('kept')\n"
        "assert next(left)\n"
        "async def main():\n"
        "    client = AsyncAiClient(kept.settings)\n"
        "    assert (await client.ask('hello')).text\n"
        "asyncio.run(main())\n"
        "gc.collect()\n"
    ).replace("from tests.interfaces.conftest import catalog\n", "")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "") and len(world.requests) == 4
