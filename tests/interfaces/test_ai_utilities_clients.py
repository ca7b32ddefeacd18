"""The clients of AI Utilities: settings, a provider, a cache and a tracker in the documented order, and the same for
asynchronous code."""

import asyncio
import contextlib
import gc
import inspect
import threading
import time
from decimal import Decimal

import pytest

from polyvox.compat.ai_utilities import (
    AiClient,
    AiSettings,
    AIUtilitiesError,
    AskResult,
    AsyncAiClient,
    BaseProvider,
    CacheBackend,
    GroqProvider,
    MemoryCache,
    OpenAIProvider,
    ProviderAPIError,
    ProviderConfigurationError,
    ProviderRateLimitError,
    SQLiteCache,
    UsageData,
    UsageTracker,
    create_client,
    create_usage_tracker,
    register_cache,
)
from polyvox.errors import InputError, MissingExtraError, NotFoundError
from polyvox.testing import Simulator

from .rows import rows

KEY = "sk-test-clients-0123456789abcdef"


class Own(BaseProvider):
    """A provider of one's own, which counts its calls."""

    def __init__(self, settings):
        super().__init__(settings)
        self.calls = []

    def ask(self, prompt, **kwargs):
        self.calls.append((prompt, kwargs))
        if "bad" in prompt:
            raise ProviderAPIError("it cannot say that")
        return AskResult(text=prompt.upper(), usage=UsageData(prompt_tokens=1, completion_tokens=2))

    def ask_stream(self, prompt, **kwargs):
        self.calls.append((prompt, kwargs))
        yield from prompt.upper()


class Counting:
    """A tracker: all it needs is track_request."""

    def __init__(self):
        self.seen = []

    def track_request(self, usage):
        self.seen.append(usage)


@pytest.fixture
def keep():
    """Takes a client, and closes it when the test is over."""
    with contextlib.ExitStack() as stack:
        yield lambda client: stack.enter_context(contextlib.closing(client))


def own(**said):
    """A client of a provider of one's own."""
    settings = AiSettings(
        **{"_env_file": None, **{name: said.pop(name) for name in list(said) if name[:6] == "cache_"}}
    )
    return AiClient(settings, provider=Own(settings), **{"usage_tracker": Counting(), **said})


# ---- asking ----------------------------------------------------------------------------------------


@rows("S2-018", "S2-019", "S2-022", "S2-023")
def test_a_client_from_nothing_but_the_environment_answers(row, world, keep, monkeypatch):
    monkeypatch.setenv("AI_MODEL", "gpt-4o-mini")
    client = keep(AiClient())
    assert isinstance(client.settings, AiSettings) and client.settings.model == "gpt-4o-mini"
    result = client.ask("hello")
    assert type(result) is AskResult and result.text and str(result) == result.text
    assert (world.requests[0].model, result.model, result.provider) == ("gpt-4o-mini", "gpt-4o-mini", "openai")


@rows("S2-019")
def test_it_asks_beside_a_running_loop_and_from_many_threads(row, world, keep):
    client = keep(AiClient(AiSettings(model="gpt-4o-mini")))

    async def main():
        here = client.ask("hello").text
        beside = await asyncio.gather(*(asyncio.to_thread(client.ask, f"hello {number}") for number in range(8)))
        return [here, *(result.text for result in beside)]

    assert len([text for text in asyncio.run(main()) if text]) == 9
    assert len(world.requests) == 9 and world.counts.connections <= 9


@rows("S2-020", "S2-036")
def test_a_hundred_at_once_share_one_pool(row, world):
    before = world.counts.connections

    async def main():
        async with AsyncAiClient(AiSettings(model="gpt-4o-mini"), usage_tracker=Counting()) as client:
            await client.ask("first")
            results = await asyncio.gather(*(client.ask(f"question {number}") for number in range(100)))
            again = await client.ask_batch(["a", "b"], concurrency=1)
            return [*results, *again], len(client.usage_tracker.seen)

    results, tracked = asyncio.run(main())
    assert [type(result) for result in results] == [AskResult] * 102 and all(result.text for result in results)
    assert tracked == 103 == len(world.requests)
    assert world.counts.connections - before <= 100


@rows("S2-020")
def test_the_asynchronous_client_has_the_same_methods(row, world):
    for name in ("ask", "ask_batch", "ask_stream", "list_models", "close"):
        mine, other = (inspect.signature(getattr(kind, name)).parameters for kind in (AiClient, AsyncAiClient))
        assert list(mine) == list(other)
        assert inspect.iscoroutinefunction(getattr(AsyncAiClient, name)) is (name != "ask_stream")

    async def main():
        async with AsyncAiClient(AiSettings(model="gpt-4o-mini"), usage_tracker=Counting()) as client:
            stream = client.ask_stream("Tell me a story.")
            chunks = [chunk async for chunk in stream]
            assert stream.result.text == "".join(chunks)
            assert client.usage_tracker.seen == [stream.result.usage]
            with pytest.raises(AIUtilitiesError, match="temprature"):
                await client.ask("hello", temprature=1)
            return chunks, await client.list_models()

    chunks, models = asyncio.run(main())
    assert len(chunks) > 1 and models and all(isinstance(name, str) for name in models)


def test_the_asynchronous_client_asks_a_provider_of_ones_own_in_a_thread(place):
    async def main():
        client = AsyncAiClient(AiSettings(), provider=Own(AiSettings()), usage_tracker=Counting())
        results = [await client.ask("a"), *await client.ask_batch(["b", "bad"])]
        chunks = [chunk async for chunk in client.ask_stream("cd")]
        stream = client.ask_stream("efgh")
        first = await anext(stream)
        await stream.close()
        left = [chunk async for chunk in stream]
        with pytest.raises(NotImplementedError):
            await client.list_models()
        await client.close()
        return results, chunks, first, left, client.usage_tracker.seen

    results, chunks, first, left, seen = asyncio.run(main())
    assert [result.text for result in results] == ["A", "B", ""] and isinstance(results[2].error, ProviderAPIError)
    assert (chunks, first, left) == (["C", "D"], "E", []) and len(seen) == 4


@rows("S2-021", "S2-004")
def test_create_client_takes_nothing_or_a_few_words(row, world, keep, monkeypatch):
    monkeypatch.setenv("AI_MODEL", "of-the-environment")
    client = keep(create_client())
    assert type(client) is AiClient and type(client.provider) is OpenAIProvider
    assert client.ask("hello").model == "of-the-environment"
    client = keep(create_client(provider="groq", model="said", api_key=KEY, temperature=0.1, usage_tracker=Counting()))
    assert (type(client.provider), client.settings.api_key) == (GroqProvider, KEY)
    assert client.ask("hello").model == "said" and len(client.usage_tracker.seen) == 1
    assert world.requests[1].json["temperature"] == 0.1


@rows("S2-024", "S2-062")
def test_the_settings_say_who_is_asked_and_it_stays_the_same_one(row, world, keep):
    client = keep(AiClient(AiSettings(provider="groq", model="a")))
    provider = client.provider
    assert type(provider) is GroqProvider
    behind = provider.client
    assert client.ask("one").provider == client.ask("two").provider == "groq"
    assert client.provider is provider and provider.client is behind
    assert type(keep(AiClient(AiSettings(provider="groq"), provider="openai")).provider) is OpenAIProvider


@rows("S2-025")
def test_what_may_pass_is_tried_again_and_what_stays_is_an_error_of_the_document(row, place, keep):
    with Simulator(plan=[{"kind": "status", "status": 503, "at": [1]}]) as server:
        settings = AiSettings(model="a", api_key=KEY, base_url=server.base_url("openai.chat"))
        client = keep(AiClient(settings, usage_tracker=Counting()))
        assert client.ask("hello").text
        assert [asked.status for asked in server.requests] == [503, 200] and len(client.usage_tracker.seen) == 1
    for status, kind in ((400, ProviderAPIError), (429, ProviderRateLimitError), (500, ProviderAPIError)):
        headers = {"retry-after": "0"}
        with Simulator(plan=[{"kind": "status", "status": status, "headers": headers}]) as server:
            settings = AiSettings(model="a", api_key=KEY, base_url=server.base_url("openai.chat"))
            client = keep(AiClient(settings, usage_tracker=Counting()))
            with pytest.raises(kind) as caught:
                client.ask("hello")
            assert caught.value.status == status and caught.value.provider == "openai"
            assert len(server.requests) == (1 if status == 400 else 3) and client.usage_tracker.seen == []


@rows("S2-061")
def test_what_is_wrong_in_the_configuration_is_told_before_anything_is_sent(row, world, monkeypatch):
    for name, value in (("AI_TEMPERATURE", "3"), ("AI_PROVIDER", "nobody"), ("AI_BASE_URL", "ftp://a"),
                        ("AI_CACHE_BACKEND", "paper")):  # fmt: skip
        monkeypatch.setenv(name, value)
        for make in (AiClient, AsyncAiClient, create_client):
            with pytest.raises(ProviderConfigurationError, match=value):
                make()
        monkeypatch.delenv(name)
    for said in ({"settings": "openai"}, {"usage_tracker": object()}, {"cache": {}}):
        with pytest.raises(InputError):
            AiClient(**said)
    assert world.requests == ()


# ---- usage -----------------------------------------------------------------------------------------


@rows("S2-060", "S2-089", "S2-090", "S2-092", "S2-093", "S2-094", "S2-095")
def test_a_request_is_asked_of_the_provider_and_told_to_the_tracker_once(row, place, keep):
    tracker = Counting()
    client = keep(own(usage_tracker=tracker))
    assert client.usage_tracker is tracker
    result = client.ask("hello", flavour="sweet")
    assert client.provider.calls == [("hello", {"flavour": "sweet"})]
    assert (result.text, result.usage, tracker.seen) == ("HELLO", UsageData(1, 2), [UsageData(1, 2)])
    with pytest.raises(ProviderAPIError):
        client.ask("bad")
    assert len(tracker.seen) == 1
    results = client.ask_batch(["a", "bad", "b"])
    assert [one.text for one in results] == ["A", "", "B"] and len(tracker.seen) == 3


@rows("S2-093")
def test_another_provider_may_be_put_in_its_place(row, place, keep):
    client = keep(own())
    other = client.provider = Own(client.settings)
    assert client.ask("hello").text == "HELLO" and len(other.calls) == 1


@rows("S2-091")
def test_without_a_tracker_there_is_one_that_works(row, world, keep):
    client = keep(AiClient(AiSettings(model="gpt-4o-mini")))
    assert isinstance(client.usage_tracker, UsageTracker)
    usage = client.ask("hello").usage
    with client.usage_tracker as tracker:
        stats = tracker.get_stats()
        assert (stats.requests, stats.total_tokens) == (1, usage.total_tokens)
        assert tracker.get_stats(model="gpt-4o-mini", provider="openai").requests == 1
        assert stats.total_cost == usage.cost > 0
    with create_usage_tracker() as tracker:
        tracker.track_request(usage)
        assert tracker.get_stats().total_tokens == usage.total_tokens > 0


@rows("S2-094", "S2-089")
def test_a_stream_is_tracked_after_its_last_piece(row, world, keep):
    client = keep(AiClient(AiSettings(model="gpt-4o-mini"), usage_tracker=Counting()))
    stream = client.ask_stream("Tell me a story.")
    assert next(stream) and client.usage_tracker.seen == []
    text = "".join(stream)
    (usage,) = client.usage_tracker.seen
    assert stream.result.usage == usage and stream.result.text.endswith(text) and usage.completion_tokens > 1
    assert usage.completion_tokens == world.requests[0].usage.output
    assert list(stream) == [] and len(client.usage_tracker.seen) == 1
    own_client = keep(own())
    assert list(own_client.ask_stream("abc")) == ["A", "B", "C"] and len(own_client.usage_tracker.seen) == 1


@rows("S2-090", "S2-094")
def test_a_tracker_that_fails_breaks_no_request(row, world, keep, caplog):
    class Failing:
        def track_request(self, usage):
            raise RuntimeError("it cannot count")

    client = keep(AiClient(AiSettings(model="gpt-4o-mini"), usage_tracker=Failing()))
    assert client.ask("hello").text and "".join(client.ask_stream("hello"))
    assert caplog.text.count("it cannot count") >= 2


# ---- the cache -------------------------------------------------------------------------------------


@rows("S2-047", "S2-063", "S2-065", "S2-066", "S2-094")
def test_an_answer_is_given_again_without_a_call(row, world, keep):
    client = keep(AiClient(AiSettings(model="gpt-4o-mini", cache_enabled=True), usage_tracker=Counting()))
    assert isinstance(client.cache, MemoryCache)
    first, second = client.ask("What is kept?"), client.ask("What is kept?")
    assert len(world.requests) == 1
    assert type(first) is type(second) is AskResult and first.text == second.text
    assert (first.cached, second.cached, second.cost) == (False, True, Decimal(0)) and first.cost > 0
    assert (second.model, second.provider, second.finish_reason) == (first.model, first.provider, first.finish_reason)
    assert second.usage.total_tokens == first.usage.total_tokens
    assert [usage.cached for usage in client.usage_tracker.seen] == [False, True]
    for said in (
        {"temperature": 0.1},
        {"model": "gpt-4o"},
        {"max_tokens": 5},
        {"system": "Be brief."},
        {"cached": False},
    ):
        assert client.ask("What is kept?", **said).cached is False
    assert client.ask("What else?").cached is False and len(world.requests) == 7
    assert client.ask("What is kept?", cached="only").cached and client.ask("What is kept?", timeout=9).cached
    assert list(client.ask_stream("What is kept?", cached="only")) == [first.text]
    for ask in (client.ask, client.ask_stream):
        with pytest.raises(NotFoundError):
            ask("What is not?", cached="only")
    assert len(world.requests) == 7


def test_without_a_word_nothing_is_kept(world, keep):
    client = keep(AiClient(AiSettings(model="gpt-4o-mini"), usage_tracker=Counting()))
    assert client.cache is None
    assert not client.ask("hello").cached and not client.ask("hello").cached
    assert len(world.requests) == 2


@rows("S2-079")
def test_the_settings_choose_where_answers_are_kept(row, world, keep, place, monkeypatch):
    path = str(place / "answers.db")
    said = {"model": "gpt-4o-mini", "cache_enabled": True, "cache_backend": "sqlite"}
    for cached in (False, True):
        client = AiClient(AiSettings(**said, cache_options={"db_path": path}), usage_tracker=Counting())
        assert type(client.cache) is SQLiteCache and client.cache.db_path == path
        assert client.ask("What is kept?").cached is cached
        client.close()
    assert len(world.requests) == 1

    class Mine(CacheBackend):
        kept = {}

        def get(self, key):
            return self.kept.get(key)

        def set(self, key, value, ttl=0):
            self.kept[key] = value
            self.ttl = ttl

    forget = register_cache("mine", Mine)
    client = keep(
        AiClient(AiSettings(**{**said, "cache_backend": "mine", "cache_ttl_s": 77}), usage_tracker=Counting())
    )
    forget()
    assert client.ask("one").text == client.ask("one").text and len(world.requests) == 2
    client.close()  # what is being kept is kept then
    assert type(client.cache) is Mine and client.cache.ttl == 77 and len(Mine.kept) == 1
    monkeypatch.setitem(__import__("sys").modules, "redis.asyncio", None)
    with pytest.raises(MissingExtraError, match="redis"):
        AiClient(AiSettings(**{**said, "cache_backend": "redis"})).ask("one")


@rows("S2-064")
def test_equal_questions_at_once_are_one_call(row, place, keep):
    class Slow(Own):
        def ask(self, prompt, **kwargs):
            time.sleep(0.2)
            return super().ask(prompt, **kwargs)

    settings = AiSettings(cache_enabled=True)
    client = keep(AiClient(settings, provider=Slow(settings), usage_tracker=Counting()))
    results = []
    threads = [threading.Thread(target=lambda: results.append(client.ask("same"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.text for result in results] == ["SAME"] * 5 and len(client.provider.calls) == 1
    assert sorted(result.cached for result in results) == [False, True, True, True, True]

    async def main():
        async with AsyncAiClient(settings, provider=Slow(settings), usage_tracker=Counting()) as other:
            given = await asyncio.gather(*(other.ask("same") for _ in range(5)))
            return [result.text for result in given], len(other.provider.calls)

    assert asyncio.run(main()) == (["SAME"] * 5, 1)


@rows("S2-065")
def test_only_whole_answers_are_kept(row, world, keep):
    client = keep(own(cache_enabled=True))
    for _ in range(2):
        with pytest.raises(ProviderAPIError):
            client.ask("bad")
    assert len(client.provider.calls) == 2
    stream = client.ask_stream("abc")
    assert next(stream) == "A"
    stream.close()
    assert list(client.ask_stream("abc")) == ["A", "B", "C"]
    assert list(client.ask_stream("abc")) == ["A", "B", "C"] and len(client.provider.calls) == 4
    assert client.ask("abc").cached
    results = client.ask_batch(["abc", "bad", "new"])
    assert [(result.text, result.cached) for result in results] == [("ABC", True), ("", False), ("NEW", False)]
    assert [usage.cached for usage in client.usage_tracker.seen[-3:]] == [True, True, False]


def test_the_asynchronous_client_gives_again_too(world):
    async def main():
        settings = AiSettings(model="gpt-4o-mini", cache_enabled=True)
        async with AsyncAiClient(settings, usage_tracker=Counting()) as client:
            texts = [[text async for text in client.ask_stream("a question")] for _ in range(2)]
            answers = [await client.ask("a question"), *await client.ask_batch(["a question", "another"])]
            return texts, [answer.cached for answer in answers], [usage.cached for usage in client.usage_tracker.seen]

    (first, second), cached, tracked = asyncio.run(main())
    assert len(first) > 1 and second == first  # in the pieces in which it came
    assert cached == [True, True, False] and tracked == [False, True, True, True, False]
    assert len(world.requests) == 2


@rows("S2-066", "S2-094")
def test_a_stream_out_of_the_cache_comes_in_the_pieces_it_came_in(row, world, keep, place):
    said = {"model": "gpt-4o-mini", "cache_enabled": True, "cache_backend": "sqlite"}
    path = {"cache_options": {"db_path": str(place / "answers.db")}}
    pieces = []
    for cached in (False, True):  # in a file, which another client reads
        with AiClient(AiSettings(**said, **path), usage_tracker=Counting()) as client:
            stream = client.ask_stream("Tell me a story.")
            pieces.append(list(stream))
            assert (stream.result.cached, stream.result.text) == (cached, "".join(pieces[-1]))
            assert client.usage_tracker.seen == [stream.result.usage] and stream.result.usage.cached is cached
            assert stream.result.usage.completion_tokens > 1
    assert pieces[0] == pieces[1] and len(pieces[0]) > 3 and len(world.requests) == 1
    with AiClient(AiSettings(**said, **path)) as client:
        assert client.ask("Tell me a story.").text == "".join(pieces[0])
        assert len(list(client.ask_stream("Tell me a story.", cached=False))) > 1 and len(world.requests) == 2


@rows("S2-064")
def test_equal_streams_at_once_are_one_call_and_one_that_is_left_takes_nothing_from_the_other(row, place, keep):
    class Slow(Own):
        def ask_stream(self, prompt, **kwargs):
            for piece in super().ask_stream(prompt, **kwargs):
                time.sleep(0.02)
                yield piece

    settings = AiSettings(cache_enabled=True)
    client = keep(AiClient(settings, provider=Slow(settings), usage_tracker=Counting()))
    whole, left = client.ask_stream("abcdef"), client.ask_stream("abcdef")
    assert next(whole) == next(left) == "A"
    left.close()
    assert list(whole) == list("BCDEF") and len(client.provider.calls) == 1
    assert not whole.result.cached and client.ask("abcdef").cached

    async def main():
        async with AsyncAiClient(settings, provider=Slow(settings), usage_tracker=Counting()) as other:

            async def read():
                return [piece async for piece in other.ask_stream("abc")]

            return await asyncio.gather(*(read() for _ in range(5))), len(other.provider.calls)

    assert asyncio.run(main()) == ([["A", "B", "C"]] * 5, 1)


@pytest.mark.parametrize("cache", [True, False])
@rows("S2-044")
def test_a_stream_that_nobody_holds_any_more_is_cut(row, place, keep, cache):
    ended = threading.Event()

    class Endless(Own):
        def ask_stream(self, prompt, **kwargs):
            try:
                while True:
                    yield prompt
            finally:
                ended.set()

    settings = AiSettings(cache_enabled=cache)
    client = keep(AiClient(settings, provider=Endless(settings), usage_tracker=Counting()))
    for text in client.ask_stream("again"):
        assert text == "again"
        break
    gc.collect()
    assert ended.wait(5)


@pytest.mark.parametrize("cache", [True, False])
def test_a_client_is_closed_at_once_while_a_stream_is_half_read(place, cache):
    client = own(cache_enabled=cache)
    stream = client.ask_stream("abc")
    assert next(stream) == "A"
    begun = time.monotonic()
    client.close()
    assert time.monotonic() - begun < 3
    stream.close()


def test_a_cache_that_fails_costs_an_answer_nothing(place, keep, caplog):
    class Failing(MemoryCache):
        def get(self, key):
            raise OSError("the disk is gone")

        def set(self, key, value, ttl=0):
            raise OSError("the disk is gone")

    client = keep(own(cache=Failing()))
    assert [client.ask(prompt).text for prompt in ("one", "two")] == ["ONE", "TWO"]
    assert len(client.provider.calls) == 2
    assert "the disk is gone" in caplog.text


def test_a_closed_client_leaves_what_was_given_open(place):
    cache = MemoryCache()
    with own(cache=cache) as client:
        assert client.ask("a").text == "A"
    cache.set("b", "kept", 60)
    assert cache.get("b") == "kept"
