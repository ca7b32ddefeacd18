"""Client and AsyncClient: where what callers say, what is configured and the engine meet.
Everything is written once, async; the sync face is the same object behind the portal."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from msgspec import UNSET
from msgspec.structs import replace

from polyvox import portal
from polyvox.client.chats import AsyncChat, Chat
from polyvox.client.check import count, seconds, shown, table, text_or_none
from polyvox.client.deployments import Deployments
from polyvox.client.embedding import embed, texts_of
from polyvox.client.explain import Explanation, safe
from polyvox.client.inputs import (
    OF_CALL,
    Options,
    Prompt,
    Said,
    as_messages,
    checked_request,
    request_fields,
    switch,
)
from polyvox.client.model_store import AsyncModelStore, ModelStore
from polyvox.client.more import AsyncMore, More
from polyvox.client.operations import SaidOfCall
from polyvox.client.progress import Progress, tell
from polyvox.client.seeking import SoughtRun
from polyvox.client.streams import AsyncStream, Stream
from polyvox.client.urls import LateRun, fetch_rules, fetched, must_fetch, without_urls
from polyvox.config import Settings
from polyvox.engine import Answering, AnyDeployment, CallOptions, Engine, StreamRun, refuse_losses
from polyvox.errors import CallCancelledError, InputError, NotFoundError, PolyvoxError
from polyvox.fetch import Rules
from polyvox.keys import Secret
from polyvox.models import Model
from polyvox.routing import RetryRule
from polyvox.transports import Transport
from polyvox.types import Embeddings, Loss, Request, Response

__all__ = [
    "AsyncChat",
    "AsyncClient",
    "AsyncStream",
    "Chat",
    "Client",
    "Options",
    "Progress",
    "Prompt",
    "Said",
    "Stream",
]


class Facts(Options, total=False):
    """What a client is made of; see `AsyncClient`."""

    base_url: str | None
    api_key: str | Secret | None
    dialect: str
    system: str | None
    timeout: float | None
    headers: Mapping[str, str] | None
    extra_body: Mapping[str, Any] | None
    retries: int | None
    strict: bool | None
    fetch: bool | Rules
    upgrade: bool
    settings: Settings | None
    transport: Transport | None
    record: str | os.PathLike[str] | None
    replay: str | os.PathLike[str] | None
    backend: Any
    hooks: Sequence[Any]


class AsyncClient(AsyncMore):
    """Ask models, asynchronously.

    Args:
        model: "provider/model", "provider:model", a bare name, an "@alias", or "demo"; asked when a call
            names none.
        base_url: any server that speaks `dialect`; its models need no provider before their name.
        api_key: the key to use; without it the environment, the key file and the configuration are asked.
        dialect: what base_url speaks, "openai.chat" unless said otherwise.
        system: instructions for every call.
        timeout: seconds for a whole call, retries included.
        headers, extra_body: sent with every call, verbatim.
        retries: how often to try again, 2 unless configured.
        strict: raise LossError instead of dropping what the model's protocol cannot say.
        fetch: whether URLs are fetched here where the model's protocol takes bytes only, as `polyvox.fetch.Rules`
            allow; False never does, and what needed it is a loss.
        upgrade: whether a model that is deprecated or retired is replaced by the successor its provider names; a note
            in the answer's losses says so. Without it a model is asked exactly as it was named.
        settings: use these instead of the configuration; see `polyvox.config`.
        transport: carries the requests instead of HTTP; see `polyvox.transports`.
        record: a file that every exchange is added to, scrubbed of keys; see `polyvox.transports.record`.
        replay: such a file, to be answered from instead of a network; no key is needed.
        backend: answers every call instead of a provider: an object with a name and an `ask`, or a client object of
            a vendor's library; the model is named as it knows it. See `polyvox.backends`.
        hooks: objects with any of on_call, on_attempt, on_event, on_done; see `polyvox.engine.Hooks`.
        options: defaults for every call, such as temperature or max_tokens.

    Example:
        >>> import asyncio
        >>> from polyvox import AsyncClient
        >>> async def main():
        ...     async with AsyncClient("demo") as client:
        ...         return (await client.ask("hello")).model
        >>> asyncio.run(main())
        'demo'
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        base_url: str | None = None,
        api_key: str | Secret | None = None,
        dialect: str = "openai.chat",
        system: str | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        retries: int | None = None,
        strict: bool | None = None,
        fetch: bool | Rules = True,
        upgrade: bool = False,
        settings: Settings | None = None,
        transport: Transport | None = None,
        record: str | os.PathLike[str] | None = None,
        replay: str | os.PathLike[str] | None = None,
        backend: Any = None,
        hooks: Sequence[Any] = (),
        **options: Unpack[Options],
    ) -> None:
        self._deployments = Deployments(
            settings,
            model=model,
            base_url=base_url,
            api_key=api_key,
            dialect=dialect,
            transport=transport,
            record=record,
            replay=replay,
            backend=backend,
        )
        self._model = model
        self._system = text_or_none("system", system)
        self._timeout = None if timeout is None else seconds("timeout", timeout)
        self._headers = table("headers", headers, str)
        self._extra_body = table("extra_body", extra_body)
        self._retries = None if retries is None else count("retries", retries, 0)
        self._strict = strict
        self._fetch = fetch_rules(fetch)
        self._upgrade = switch("upgrade", upgrade)
        self._fields = request_fields(options)
        if not isinstance(hooks, Iterable) or isinstance(hooks, str):
            raise InputError(f"hooks must be a sequence of objects, not {shown(hooks)}")
        self._engine = Engine(hooks=tuple(hooks), rule=RetryRule(retries) if retries is not None else None)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} model={self._model!r}>"

    # ---- asking -------------------------------------------------------------------------------

    async def ask(self, prompt: Prompt, **said: Unpack[Said]) -> Response:
        """The answer to a prompt: text, parts, messages, or a whole `Request`.

        Beside the options of `Options`, a call may say its model, its system text, attachments (paths, URLs,
        bytes, parts), timeout (seconds in all), headers and extra_body (verbatim), strict, fetch and upgrade.
        Raises an error of `polyvox.errors`.
        """
        try:
            request, deployment, how = self._prepared(prompt, said)
        except NotFoundError as unknown:
            await self._deployments.seek(self._wanted(prompt, said), unknown)
            request, deployment, how = self._prepared(prompt, said)
        if must_fetch(request, deployment) and (rules := self._rules(said)):
            request, deployment, how = await fetched(request, deployment, how, rules)
        return await self._engine.call(request, deployment, how)

    def stream(self, prompt: Prompt, **said: Unpack[Said]) -> AsyncStream:
        """The answer as it comes; takes what `ask` takes, and sends nothing before the first read."""
        try:
            return AsyncStream(self._starting(prompt, said))
        except NotFoundError as problem:
            unknown = problem
        if not self._deployments.can_seek(self._wanted(prompt, said)):
            raise unknown

        async def find() -> StreamRun:
            await self._deployments.seek(self._wanted(prompt, said), unknown)
            return self._starting(prompt, said)()

        return AsyncStream(lambda: SoughtRun(find))

    def _starting(self, prompt: Prompt, said: Said) -> Callable[[], StreamRun]:
        request, deployment, how = self._prepared(prompt, said)
        if must_fetch(request, deployment) and (rules := self._rules(said)):
            return lambda: LateRun(self._engine, request, deployment, how, rules)
        return lambda: self._engine.stream(request, deployment, how)

    def _rules(self, said: Said) -> Rules | None:
        """By which rules this call may fetch; None means not at all."""
        wanted = said.get("fetch")
        return self._fetch if wanted is None else fetch_rules(wanted)

    def chat(
        self,
        *,
        model: str | None = None,
        system: str | None = None,
        messages: Iterable[Any] = (),
        **options: Unpack[Options],
    ) -> AsyncChat:
        """A conversation; messages are what was said before."""
        return AsyncChat(self, model=model, system=system, messages=messages, options=options)

    async def ask_batch(
        self,
        prompts: Iterable[Prompt],
        *,
        concurrency: int = 8,
        on_progress: Progress | None = None,
        **said: Unpack[Said],
    ) -> list[Response | PolyvoxError]:
        """An answer for each prompt, in order; a failure is the error in its place, and stops nobody else.

        concurrency bounds the calls under way; said is what `ask` takes.
        """
        if isinstance(prompts, str | bytes) or not isinstance(prompts, Iterable):
            raise InputError(f"prompts must be a sequence of prompts, not {shown(prompts)}")
        waiting = list(prompts)
        count("concurrency", concurrency, 1)
        answers: list[Response | PolyvoxError] = [CallCancelledError("not asked", sent="no")] * len(waiting)
        numbers = iter(range(len(waiting)))
        done = 0

        async def work() -> None:
            nonlocal done
            for number in numbers:
                try:
                    answers[number] = await self.ask(waiting[number], **said)
                except PolyvoxError as error:
                    answers[number] = error
                done += 1
                tell(on_progress, done, len(waiting))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(waiting))):
                group.create_task(work())
        return answers

    async def embed(
        self,
        inputs: str | Iterable[str],
        *,
        dimensions: int | None = None,
        purpose: str | None = None,
        truncate: bool | None = None,
        on_progress: Progress | None = None,
        **said: Unpack[SaidOfCall],
    ) -> Embeddings:
        """A vector for each text, in their order, of one text or many; more than a provider takes at once are asked
        for in several calls, and what fails in part fails, with an error that says which texts.

        Without a model the client's own is asked, or, where that writes text, its provider's usual one.

        Args:
            inputs: one text, or any number of them.
            dimensions: the length of a vector, where a model has several.
            purpose: "query", "document", "classification", "clustering", or the provider's own word.
            truncate: whether a text that is too long is cut, rather than refused.
            on_progress: called with how many texts are done and how many there are.
            said: model, timeout (seconds in all), headers and extra_body (verbatim), strict.

            >>> import asyncio
            >>> found = asyncio.run(AsyncClient("demo").embed(["one", "two"], dimensions=3))
            >>> [len(vector) for vector in found.vectors]
            [3, 3]
        """
        return await embed(
            self,
            inputs,
            dimensions=dimensions,
            purpose=purpose,
            truncate=truncate,
            on_progress=on_progress,
            said=said,
        )

    def explain(self, prompt: Prompt, *, stream: bool = False, **said: Unpack[Said]) -> Explanation:
        """What `ask` would send, or `stream` with stream=True: URL, headers, body and losses. Sends nothing,
        needs no key, and shows none.

            >>> AsyncClient("demo").explain("hello").describe()["body"]["messages"]
            [{'role': 'user', 'content': 'hello'}]
        """
        request, deployment, how = self._prepared(prompt, said, self._deployments.explained)
        whole = replace(request, stream=True) if stream else request
        notes: tuple[Loss, ...] = ()
        if must_fetch(whole, deployment) and self._rules(said):
            whole, notes = without_urls(whole, deployment)
        outgoing, losses = deployment.encoded(whole, how)
        losses = notes + losses
        if how.strict:
            refuse_losses(losses)
        return Explanation(
            deployment.name, outgoing.method, outgoing.url, safe(outgoing.headers), outgoing.body, losses
        )

    async def models(self, provider: str | None = None, *, fresh: bool = False) -> tuple[Model, ...]:
        """The models a provider says it has, with what is known of each; without a name the provider of the
        client's own model. Asking costs nothing; an answer is kept for five minutes, unless fresh.

        Raises UsageError for a provider that tells no list, and what `ask` raises.

            >>> import asyncio
            >>> [model.name for model in asyncio.run(AsyncClient("demo").models())]
            ['demo/demo']
        """
        return await self._deployments.models(provider, fresh)

    def model_store(self, provider: str | None = None) -> AsyncModelStore:
        """The models that a server keeps itself: list, pull, show, load, unload, copy and delete them. Without a name
        the client's own provider, or the first on this machine that keeps any.

        Raises UsageError, when it is asked, for a provider that keeps none.
        """
        return AsyncModelStore(lambda: self._deployments.keeper(provider), self._deployments.models_changed)

    # ---- from what was said to a call ---------------------------------------------------------

    def _prepared(
        self, prompt: Prompt, said: Said, find: Callable[[str | None, bool], AnyDeployment] | None = None
    ) -> tuple[Request, AnyDeployment, CallOptions]:
        system, attachments = said.get("system"), said.get("attachments") or ()
        timeout, headers, extra_body = said.get("timeout"), said.get("headers"), said.get("extra_body")
        strict = said.get("strict")
        options = {name: value for name, value in said.items() if name not in OF_CALL}
        upgrade = said.get("upgrade")
        upgrade = self._upgrade if upgrade is None else switch("upgrade", upgrade)
        deployment = (find or self._deployments.get)(self._wanted(prompt, said), upgrade)
        settings = self._deployments.settings
        given = request_fields(options) if options else {}
        if isinstance(prompt, Request):
            whole = checked_request(prompt)
            messages = as_messages(whole.messages, system, attachments)
            # What the request says counts more than the client's defaults, and less than this call's options.
            usual = {name: value for name, value in self._fields.items() if getattr(whole, name) in (UNSET, ())}
            request = replace(whole, model=deployment.model, messages=messages, **{**usual, **given})
        else:
            instructions = system or self._system or settings.system
            messages = as_messages(prompt, instructions, attachments)
            request = Request(deployment.model, messages, **{**self._deployments.fields, **self._fields, **given})
        if self._extra_body or extra_body:
            body = {**self._extra_body, **table("extra_body", extra_body)}
            request = _with_body(request, deployment.speaks, body)
        how = self._how(deployment, timeout, headers, strict)
        return request, deployment, how

    def _how(
        self,
        deployment: Answering[Any, Any],
        timeout: float | None,
        headers: Mapping[str, str] | None,
        strict: bool | None,
    ) -> CallOptions:
        """How a call is made: what it says itself, else what the client says, else what is configured."""
        settings = self._deployments.settings
        if self._retries is None and self._engine.rule.retries != settings.retries:
            self._engine.rule = RetryRule(settings.retries)
        limit = self._timeout if timeout is None else seconds("timeout", timeout)
        return CallOptions(
            deployment.timeout if limit is None else limit,
            {**self._headers, **table("headers", headers, str)} if headers else self._headers,
            strict if strict is not None else self._strict if self._strict is not None else settings.strict,
        )

    def _wanted(self, prompt: Prompt, said: Said) -> str | None:
        """The model that is meant to be asked, by its name; None where nobody says."""
        return said.get("model") or (prompt.model if isinstance(prompt, Request) else None) or self._model

    # ---- the end ------------------------------------------------------------------------------

    async def close(self) -> None:
        """Close the connections; the client may not be used afterwards."""
        await self._deployments.close()

    aclose = close

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _with_body(request: Request, dialect: str, keys: Mapping[str, Any]) -> Request:
    extra = dict(request.extra)
    extra[dialect] = {**extra.get(dialect, {}), **keys}
    return replace(request, extra=extra)


class Client(More):
    """Ask models, from ordinary code: scripts, threads, notebooks, workers. Takes what `AsyncClient` takes.

    Example:
        >>> from polyvox import Client
        >>> with Client("demo") as client:
        ...     client.ask("hello").finish_reason
        'stop'
    """

    def __init__(self, model: str | None = None, **facts: Unpack[Facts]) -> None:
        self._async = AsyncClient(model, **facts)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} model={self._async._model!r}>"

    def ask(self, prompt: Prompt, **said: Unpack[Said]) -> Response:
        """The answer to a prompt; see `AsyncClient.ask`."""
        return portal.run(self._async.ask(prompt, **said))

    def stream(self, prompt: Prompt, **said: Unpack[Said]) -> Stream:
        """The answer as it comes; see `AsyncClient.stream`."""
        return Stream(self._async.stream(prompt, **said)._start)

    def explain(self, prompt: Prompt, *, stream: bool = False, **said: Unpack[Said]) -> Explanation:
        """What a call would send; see `AsyncClient.explain`."""
        return self._async.explain(prompt, stream=stream, **said)

    def chat(
        self,
        *,
        model: str | None = None,
        system: str | None = None,
        messages: Iterable[Any] = (),
        **options: Unpack[Options],
    ) -> Chat:
        """A conversation; messages are what was said before."""
        return Chat(self, model=model, system=system, messages=messages, options=options)

    def ask_batch(
        self,
        prompts: Iterable[Prompt],
        *,
        concurrency: int = 8,
        on_progress: Progress | None = None,
        **said: Unpack[Said],
    ) -> list[Response | PolyvoxError]:
        """An answer for each prompt, in order; see `AsyncClient.ask_batch`."""
        return portal.run(self._async.ask_batch(prompts, concurrency=concurrency, on_progress=on_progress, **said))

    def embed(
        self,
        inputs: str | Iterable[str],
        *,
        dimensions: int | None = None,
        purpose: str | None = None,
        truncate: bool | None = None,
        on_progress: Progress | None = None,
        **said: Unpack[SaidOfCall],
    ) -> Embeddings:
        """A vector for each text; see `AsyncClient.embed`."""
        return portal.run(
            self._async.embed(
                texts_of(inputs),  # read in the caller's thread, as it may ask us too
                dimensions=dimensions,
                purpose=purpose,
                truncate=truncate,
                on_progress=on_progress,
                **said,
            )
        )

    def models(self, provider: str | None = None, *, fresh: bool = False) -> tuple[Model, ...]:
        """The models a provider says it has; see `AsyncClient.models`."""
        return portal.run(self._async.models(provider, fresh=fresh))

    def model_store(self, provider: str | None = None) -> ModelStore:
        """The models that a server keeps itself; see `AsyncClient.model_store`."""
        return ModelStore(self._async.model_store(provider))

    def close(self) -> None:
        """Close the connections; the client may not be used afterwards."""
        portal.run(self._async.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
