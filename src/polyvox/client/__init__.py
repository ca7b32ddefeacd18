"""Client and AsyncClient: where what callers say, what is configured and the engine meet.
Everything is written once, async; the sync face is the same object behind the portal."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

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
from polyvox.client.keeping import Answers, BudgetsChoice, CacheChoice, Kept, LedgerChoice, use_of, who_of
from polyvox.client.model_store import AsyncModelStore, ModelStore
from polyvox.client.more import AsyncMore, More
from polyvox.client.operations import SaidOfCall
from polyvox.client.pooling import LimitsChoice, Pooling, RegistryChoice, RoutingChoice, rule_of
from polyvox.client.progress import Progress, tell
from polyvox.client.seeking import LateRun
from polyvox.client.streams import AsyncStream, Run, Stream
from polyvox.client.urls import fetch_rules, fetched, must_fetch, without_urls
from polyvox.config import Settings
from polyvox.engine import Answering, AnyDeployment, AnyRoute, CallOptions, Engine, Route, Who, is_route, refuse_losses
from polyvox.engine.contract import NOBODY
from polyvox.errors import CallCancelledError, InputError, MissingKeyError, NotFoundError, PolyvoxError, UsageError
from polyvox.fetch import Rules
from polyvox.keys import Secret
from polyvox.models import Model
from polyvox.routing import RetryRule
from polyvox.routing.needs import filled
from polyvox.transports import Transport
from polyvox.types import Embeddings, Loss, Request, Response

if TYPE_CHECKING:
    from polyvox.routing.decision import Decision

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


AnyT = TypeVar("AnyT", bound=AnyRoute)


class Facts(Options, total=False):
    """What a client is made of; see `AsyncClient`."""

    tier: str | None
    registry: RegistryChoice
    routing: RoutingChoice
    limits: LimitsChoice
    base_url: str | None
    api_key: str | Secret | None
    dialect: str
    system: str | None
    timeout: float | None
    headers: Mapping[str, str] | None
    extra_body: Mapping[str, Any] | None
    retries: int | RetryRule | None
    strict: bool | None
    fetch: bool | Rules
    upgrade: bool
    settings: Settings | None
    transport: Transport | None
    record: str | os.PathLike[str] | None
    replay: str | os.PathLike[str] | None
    backend: Any
    hooks: Sequence[Any]
    ledger: LedgerChoice
    budgets: BudgetsChoice
    cache: CacheChoice


class AsyncClient(AsyncMore):
    """Ask models, asynchronously.

    Args:
        model: "provider/model", "provider:model", a bare name, an "@alias", or "demo"; asked when a call
            names none. The name of an entry of the registry or a pattern such as "fast-*" means those deployments; of a
            list of names each is asked when those before it fail.
        tier: instead of a model: "economy", "standard", "premium", "local" or a word of your own means the deployments
            of that tier; "auto" finds the tier for each request.
        base_url: any server that speaks `dialect`; its models need no provider before their name.
        api_key: the key to use; without it the environment, the key file and the configuration are asked.
        dialect: what base_url speaks, "openai.chat" unless said otherwise.
        system: instructions for every call.
        timeout: seconds for a whole call, retries included.
        headers, extra_body: sent with every call, verbatim.
        retries: how often to try again, 2 unless configured; or a `polyvox.routing.RetryRule`, which also says how long
            to wait and how much a deployment may be asked again in all.
        strict: raise LossError instead of dropping what the model's protocol cannot say.
        fetch: whether URLs are fetched here where the model's protocol takes bytes only, as `polyvox.fetch.Rules`
            allow; False never does, nor does a call of the tier local, and what needed it is a loss.
        upgrade: whether a model that is deprecated or retired is replaced by the successor its provider names; a note
            in the answer's losses says so. Without it a model is asked exactly as it was named.
        settings: use these instead of the configuration; see `polyvox.config`.
        transport: carries the requests instead of HTTP; see `polyvox.transports`.
        record: a file that every exchange is added to, scrubbed of keys; see `polyvox.transports.record`.
        replay: such a file, to be answered from instead of a network; no key is needed.
        backend: answers every call instead of a provider: an object with a name and an `ask`, or a client object of
            a vendor's library; the model is named as it knows it. See `polyvox.backends`.
        registry: the deployments there are, before those of the configuration: a `polyvox.registry.Registry`, entries,
            tables by name, or the path of a TOML file. A change of it acts on the next call.
        routing: how calls choose among deployments: `polyvox.pools.Routing`, a table of its fields, or the name of a
            strategy.
        limits: where the limits of deployments are counted: in this process, or a Redis URL for several.
        hooks: objects with any of on_call, on_attempt, on_event, on_done; see `polyvox.engine.Hooks`.
        ledger: where calls and what they cost are written down: True for the usual place, a path, a database's URL,
            or a `polyvox.ledger.Ledger`.
        budgets: what calls may cost, a sequence of `polyvox.budgets.Budget`, or `polyvox.budgets.Budgets`.
        cache: answers that are given again: True for memory, a path, a Redis URL, a store or a
            `polyvox.cache.ResponseCache`. Nothing is kept without it.
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
        model: str | Sequence[str] | None = None,
        *,
        tier: str | None = None,
        registry: RegistryChoice = None,
        routing: RoutingChoice = None,
        limits: LimitsChoice = None,
        base_url: str | None = None,
        api_key: str | Secret | None = None,
        dialect: str = "openai.chat",
        system: str | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        retries: int | RetryRule | None = None,
        strict: bool | None = None,
        fetch: bool | Rules = True,
        upgrade: bool = False,
        settings: Settings | None = None,
        transport: Transport | None = None,
        record: str | os.PathLike[str] | None = None,
        replay: str | os.PathLike[str] | None = None,
        backend: Any = None,
        hooks: Sequence[Any] = (),
        ledger: LedgerChoice = None,
        budgets: BudgetsChoice = None,
        cache: CacheChoice = None,
        **options: Unpack[Options],
    ) -> None:
        self._deployments = Deployments(
            settings,
            model=model if isinstance(model, str) else None,
            base_url=base_url,
            api_key=api_key,
            dialect=dialect,
            transport=transport,
            record=record,
            replay=replay,
            backend=backend,
        )
        self._models = model
        self._model = model if isinstance(model, str) else None
        self._tier = text_or_none("tier", tier)
        self._system = text_or_none("system", system)
        self._timeout = None if timeout is None else seconds("timeout", timeout)
        self._headers = table("headers", headers, str)
        self._extra_body = table("extra_body", extra_body)
        self._rule = None if retries is None else rule_of(retries)
        self._strict = strict
        self._fetch = fetch_rules(fetch)
        self._upgrade = switch("upgrade", upgrade)
        self._fields = request_fields(options)
        if not isinstance(hooks, Iterable) or isinstance(hooks, str):
            raise InputError(f"hooks must be a sequence of objects, not {shown(hooks)}")
        self._kept = Kept(ledger, budgets)
        self._engine = Engine(hooks=tuple(hooks), books=self._kept.books, rule=self._rule)
        self._pooling = Pooling(self._deployments, self._engine, registry=registry, routing=routing, limits=limits)
        self._answers = None if cache is None or cache is False else Answers(cache, self._engine, self._kept.books)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} model={self._models!r}>"

    # ---- asking -------------------------------------------------------------------------------

    async def ask(self, prompt: Prompt, **said: Unpack[Said]) -> Response:
        """The answer to a prompt: text, parts, messages, or a whole `Request`.

        Beside the options of `Options`, a call may say its model or its tier, its system text, attachments (paths,
        URLs, bytes, parts), timeout (seconds in all), headers and extra_body (verbatim), strict, fetch and upgrade; on
        whose behalf it is made: user, project, session, tenant and tags; and with a cache whether it is used:
        cached=False, "refresh" or "only".
        Raises an error of `polyvox.errors`.
        """
        await self._pooling.fresh()
        try:
            request, deployment, how = self._prepared(prompt, said)
        except NotFoundError as unknown:
            await self._deployments.seek(self._one_wanted(prompt, said, unknown), unknown)
            request, deployment, how = self._prepared(prompt, said)
        if must_fetch(request, deployment) and (rules := self._rules(said, deployment)):
            request, deployment, how = await fetched(request, deployment, how, rules)
        if self._answers is None:
            return await self._engine.call(request, deployment, how)
        return await self._answers.whole(request, deployment, how, use_of(said.get("cached", True)))

    def stream(self, prompt: Prompt, **said: Unpack[Said]) -> AsyncStream:
        """The answer as it comes; takes what `ask` takes, and sends nothing before the first read."""
        if self._pooling.asks:

            async def begin() -> Run:
                await self._pooling.fresh()
                return self._starting(prompt, said)()

            return AsyncStream(lambda: LateRun(begin))
        try:
            return AsyncStream(self._starting(prompt, said))
        except NotFoundError as problem:
            unknown = problem
        wanted = self._one_wanted(prompt, said, unknown)
        if not self._deployments.can_seek(wanted):
            raise unknown

        async def find() -> Run:
            await self._deployments.seek(wanted, unknown)
            return self._starting(prompt, said)()

        return AsyncStream(lambda: LateRun(find))

    def _starting(self, prompt: Prompt, said: Said) -> Callable[[], Run]:
        request, deployment, how = self._prepared(prompt, said)
        use = "off" if self._answers is None else use_of(said.get("cached", True))
        if not must_fetch(request, deployment) or (rules := self._rules(said, deployment)) is None:
            return lambda: self._streaming(request, deployment, how, use)

        async def fetch() -> Run:
            return self._streaming(*await fetched(request, deployment, how, rules), use)

        return lambda: LateRun(fetch)

    def _streaming(self, request: Request, deployment: AnyRoute, how: CallOptions, use: str) -> Run:
        if self._answers is None:
            return self._engine.stream(request, deployment, how)
        return self._answers.stream(request, deployment, how, use)

    def _rules(self, said: Said, asked: object) -> Rules | None:
        """By which rules this call may fetch; None means not at all, as for the tier local: nothing of it goes out."""
        if getattr(asked, "tier", None) == "local":
            return None
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
        request, deployment, how = self._explained(prompt, said)
        whole = replace(request, stream=True) if stream else request
        notes: tuple[Loss, ...] = ()
        if must_fetch(whole, deployment) and self._rules(said, self._route(prompt, said)):
            whole, notes = without_urls(whole, deployment)
        outgoing, losses = deployment.encoded(whole, how)
        losses = notes + losses
        if how.strict:
            refuse_losses(losses)
        return Explanation(
            deployment.name, outgoing.method, outgoing.url, safe(outgoing.headers), outgoing.body, losses
        )

    def route(self, prompt: Prompt, **said: Unpack[Said]) -> Decision:
        """Among whom a call would choose, who would be asked first, and why others not. Asks nobody. UsageError where
        there is nothing to choose.

            >>> client = AsyncClient(["demo", "demo/other"])
            >>> client.route("hello").candidates[0].name
            'demo'
        """
        route = self._route(prompt, said)
        if route is None:
            raise UsageError(
                "there is nothing to choose: this call names one deployment that is in no registry",
                hint="name a tier, a pattern, or several models",
            )
        request, _, how = self._said(prompt, said, route)
        return self._pooling.decision(route, request, how)

    def standing(self) -> list[dict[str, Any]]:
        """How each deployment does that this client chose among so far: calls, errors, what is in flight, its speed,
        its limits as learned, and whether it is left alone after failures."""
        return self._pooling.standing()

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

    def _prepared(self, prompt: Prompt, said: Said) -> tuple[Request, AnyRoute, CallOptions]:
        route = self._route(prompt, said)
        if route is not None:
            return self._said(prompt, said, route)
        wanted = self._wanted(prompt, said)
        assert wanted is None or isinstance(wanted, str)
        try:
            deployment = self._deployments.get(wanted, self._upgrades(said))
        except NotFoundError as unknown:
            self._pooling.suggest(wanted, unknown)
            raise
        return self._said(prompt, said, deployment)

    def _explained(self, prompt: Prompt, said: Said) -> tuple[Request, AnyDeployment, CallOptions]:
        """The same for the deployment that would be asked first, which needs no key to be looked at."""
        try:
            route = self._route(prompt, said)
            if route is None:
                wanted = self._wanted(prompt, said)
                assert wanted is None or isinstance(wanted, str)
                return self._said(prompt, said, self._deployments.explained(wanted, self._upgrades(said)))
            asked, _, how = self._said(prompt, said, route)
            deployment, entry = self._pooling.explained(route, asked, how)
            request = replace(asked, model=deployment.model)
        except NotFoundError as unknown:
            wanted = self._wanted(prompt, said)
            self._pooling.suggest(wanted if isinstance(wanted, str) else None, unknown)
            raise
        except MissingKeyError as problem:
            deployment, entry = self._pooling.keyless(problem)
            request, deployment, how = self._said(prompt, said, deployment, routed=True)
        return filled(request, entry.usual, how.usual), deployment, how

    def _route(self, prompt: Prompt, said: Said) -> Route | None:
        """The deployments that a call means, where that is not a single one that no registry names."""
        model, tier = said.get("model"), said.get("tier")
        if model is not None and tier is not None:
            raise InputError("a call names a model or a tier, not both", param="tier")
        if model is None and tier is None and isinstance(prompt, Request) and prompt.model:
            model = prompt.model
        if tier is None and (model is None or model == ""):
            return self._pooling.find(self._models, self._tier)
        return self._pooling.find(model, tier)

    def _upgrades(self, said: Said) -> bool:
        upgrade = said.get("upgrade")
        return self._upgrade if upgrade is None else switch("upgrade", upgrade)

    def _said(
        self, prompt: Prompt, said: Said, deployment: AnyT, routed: bool = False
    ) -> tuple[Request, AnyT, CallOptions]:
        """The request and the options of a call to somebody; routed is whether an entry of a registry leads there."""
        system, attachments = said.get("system"), said.get("attachments") or ()
        timeout, headers, extra_body = said.get("timeout"), said.get("headers"), said.get("extra_body")
        strict = said.get("strict")
        options = {name: value for name, value in said.items() if name not in OF_CALL}
        settings = self._deployments.settings
        given = request_fields(options) if options else {}
        configured: Mapping[str, Any] = {}
        if isinstance(prompt, Request):
            whole = checked_request(prompt)
            messages = as_messages(whole.messages, system, attachments)
            # What the request says counts more than the client's defaults, and less than this call's options.
            usual = {name: value for name, value in self._fields.items() if getattr(whole, name) in (UNSET, ())}
            request = replace(whole, model=deployment.model, messages=messages, **{**usual, **given})
        else:
            instructions = system or self._system or settings.system
            messages = as_messages(prompt, instructions, attachments)
            if routed or is_route(deployment):
                # What is configured for all counts less than what an entry says, so that it is added behind that.
                configured, own = self._deployments.fields, {**self._fields, **given}
            else:
                own = {**self._deployments.fields, **self._fields, **given}
            request = Request(deployment.model, messages, **own)
        if self._extra_body or extra_body:
            body = {**self._extra_body, **table("extra_body", extra_body)}
            for one in deployment.kinds if is_route(deployment) else (deployment,):
                request = _with_body(request, one.speaks, body)
        how = self._how(deployment, timeout, headers, strict, who_of(said), configured)
        return request, deployment, how

    def _how(
        self,
        deployment: Answering[Any, Any] | Route,
        timeout: float | None,
        headers: Mapping[str, str] | None,
        strict: bool | None,
        who: Who = NOBODY,
        usual: Mapping[str, Any] = {},
    ) -> CallOptions:
        """How a call is made: what it says itself, else what the client says, else what is configured."""
        settings = self._deployments.settings
        if self._rule is None and self._engine.rule.retries != settings.retries:
            self._engine.rule = RetryRule(settings.retries)
        limit = self._timeout if timeout is None else seconds("timeout", timeout)
        return CallOptions(
            deployment.timeout if limit is None else limit,
            {**self._headers, **table("headers", headers, str)} if headers else self._headers,
            strict if strict is not None else self._strict if self._strict is not None else settings.strict,
            who,
            usual,
        )

    def _wanted(self, prompt: Prompt, said: Said) -> str | Sequence[str] | None:
        """The model that is meant to be asked, by its name, or several; None where nobody says."""
        return said.get("model") or (prompt.model if isinstance(prompt, Request) else None) or self._models

    def _one_wanted(self, prompt: Prompt, said: Said, unknown: NotFoundError) -> str | None:
        """The same, where it may be looked for on servers: one name. Raises the error with which it is unknown."""
        wanted = self._wanted(prompt, said)
        if self._tier is not None or said.get("tier") is not None or not (wanted is None or isinstance(wanted, str)):
            raise unknown
        return wanted

    # ---- the end ------------------------------------------------------------------------------

    async def close(self) -> None:
        """Close the connections; the client may not be used afterwards."""
        if self._answers is not None:
            await self._answers.close()
        await self._kept.close()
        await self._pooling.close()
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

    def __init__(self, model: str | Sequence[str] | None = None, **facts: Unpack[Facts]) -> None:
        self._async = AsyncClient(model, **facts)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} model={self._async._models!r}>"

    def ask(self, prompt: Prompt, **said: Unpack[Said]) -> Response:
        """The answer to a prompt; see `AsyncClient.ask`."""
        return portal.run(self._async.ask(prompt, **said))

    def stream(self, prompt: Prompt, **said: Unpack[Said]) -> Stream:
        """The answer as it comes; see `AsyncClient.stream`."""
        return Stream(self._async.stream(prompt, **said)._start)

    def explain(self, prompt: Prompt, *, stream: bool = False, **said: Unpack[Said]) -> Explanation:
        """What a call would send; see `AsyncClient.explain`."""
        return self._async.explain(prompt, stream=stream, **said)

    def route(self, prompt: Prompt, **said: Unpack[Said]) -> Decision:
        """Among whom a call would choose; see `AsyncClient.route`."""
        return self._async.route(prompt, **said)

    def standing(self) -> list[dict[str, Any]]:
        """How each deployment does; see `AsyncClient.standing`."""
        return self._async.standing()

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
