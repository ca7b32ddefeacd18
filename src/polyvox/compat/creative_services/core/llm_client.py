"""One client for every provider, and one that chooses by tier, by the names of creative_services. They say what was
asked to the core's client, and how it answered to a tracker."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Self

from polyvox.compat.creative_services.core.llm_config import (
    LLMConfig,
    LLMProvider,
    name_of,
    provider_of,
    refuse_other,
    row_of,
    usual_model,
    word_of,
)
from polyvox.compat.creative_services.core.llm_registry import tier_of
from polyvox.compat.errors import named, speaking
from polyvox.errors import InputError, PolyvoxError, UsageError

if TYPE_CHECKING:
    from decimal import Decimal
    from types import TracebackType

    from polyvox.client import AsyncClient, Prompt
    from polyvox.engine import CallInfo
    from polyvox.registry import Entry
    from polyvox.registry import Registry as LLMRegistry
    from polyvox.types import Response
    from polyvox.usage import UsageStats

__all__ = ["DynamicLLMClient", "LLMClient", "LLMConfig", "LLMProvider", "LLMResponse", "LLMUsage"]


@dataclass(frozen=True, slots=True)
class LLMUsage:
    """Tokens of one answer; None is not known. prompt_tokens counts cached ones, completion_tokens reasoning."""

    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def input_tokens(self) -> int | None:
        """The same as prompt_tokens."""
        return self.prompt_tokens

    @property
    def output_tokens(self) -> int | None:
        """The same as completion_tokens."""
        return self.completion_tokens


@dataclass(frozen=True, slots=True)
class LLMResponse:
    """One answer; raw is the core's `polyvox.Response`, which knows all of it."""

    raw: Response

    def __str__(self) -> str:
        """The text."""
        return self.raw.text

    @property
    def content(self) -> str:
        """The text."""
        return self.raw.text

    @property
    def model(self) -> str | None:
        """The model that answered."""
        return self.raw.model

    @property
    def provider(self) -> LLMProvider | str | None:
        """Who answered."""
        return provider_of(self.raw.provider)

    @property
    def usage(self) -> LLMUsage:
        """What it used."""
        usage = self.raw.usage
        counted = usage.input is not None or usage.output is not None
        total = (usage.input or 0) + (usage.output or 0) if counted else None
        return LLMUsage(
            usage.input, usage.output, total if usage.total is None else usage.total, usage.cache_read, usage.reasoning
        )

    @property
    def cost(self) -> Decimal | None:
        """USD; None is not known."""
        return self.raw.cost.amount

    @property
    def finish_reason(self) -> str | None:
        """Why it ended."""
        return self.raw.finish_reason


# ---- what both clients do ---------------------------------------------------------------------

_heard: ContextVar[list[CallInfo] | None] = ContextVar("_heard", default=None)


class _Listens:
    def on_done(self, info: CallInfo) -> None:
        """Keep what a call used in all its attempts, which is more than its answer tells."""
        heard = _heard.get()
        if heard is not None:
            heard.append(info)


class _Asking:
    """A client of the core, whose calls are counted and told to a tracker."""

    def __init__(self, client: AsyncClient, tracker: Any) -> None:
        if tracker is not None and (isinstance(tracker, type) or not callable(getattr(tracker, "record", None))):
            what = f"the class {tracker.__name__}" if isinstance(tracker, type) else type(tracker).__name__
            hint = "say tracker=InMemoryTracker(), or an object with a record"
            raise named(InputError(f"{what} is no tracker", hint=hint, param="tracker"))
        from polyvox.compat.creative_services.core.tally import Tally

        self._client = client
        self._tracker = tracker
        self._tally = Tally()

    def get_stats(self) -> UsageStats:
        """What this client used so far, failed calls too."""
        return self._tally.stats()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuse: connections are neither copied nor pickled."""
        hint = "pass the config, or what the registry is made of, and make a client of it there"
        raise named(UsageError(f"a {type(self).__name__} holds connections: it cannot be copied or pickled", hint=hint))

    async def aclose(self) -> None:
        """Close the connections; the client may not be used afterwards."""
        with speaking():
            await self._client.close()

    close = aclose

    async def __aenter__(self) -> Self:
        """Itself, closed at the end."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.aclose()

    async def _ask(
        self, prompt: Prompt, system_prompt: str | None, said: Mapping[str, Any], llm: str | None, user_id: Any
    ) -> LLMResponse:
        if system_prompt is not None and said.get("system") is not None:
            raise named(InputError("system_prompt and system are the same", param="system", hint="say one of them"))
        import asyncio

        heard: list[CallInfo] = []
        before, began = _heard.set(heard), time.perf_counter()
        answer: Response | None = None
        error: str | None = None
        try:
            with speaking():
                system: Mapping[str, Any] = {} if system_prompt is None else {"system": system_prompt}
                answer = await self._client.ask(prompt, **{**said, **system})
        except PolyvoxError as problem:
            # What could never be sent was no call.
            error = problem.kind if heard or not isinstance(problem, InputError) else None
            raise
        except asyncio.CancelledError:
            error = "cancelled"
            raise
        finally:
            _heard.reset(before)
            if answer is not None or error is not None:
                await self._told(heard[-1] if heard else None, answer, error, llm, user_id, time.perf_counter() - began)
        return LLMResponse(answer)

    async def _told(
        self, info: CallInfo | None, answer: Response | None, error: str | None, llm: str | None, user_id: Any,
        latency: float,
    ) -> None:  # fmt: skip
        """Count a call, and tell the tracker; that it fails harms no call."""
        import inspect

        from polyvox.types import Cost, Usage

        usage = (info.usage if info else None) or (answer.usage if answer else None) or Usage()
        cost = (info.cost if info else None) or (answer.cost if answer else None) or Cost()
        self._tally.add(usage, cost, failed=error is not None)
        if self._tracker is None:
            return
        known = answer.deployment if answer else info.deployment if info else None
        try:
            told = self._tracker.record(
                llm_id=known or llm, user_id=user_id, prompt_tokens=usage.input, completion_tokens=usage.output,
                cached_tokens=usage.cache_read, cost=cost.amount, latency=latency, success=error is None, error=error,
                model=(answer.model if answer else None) or (info.model if info else "") or "",
                provider=(answer.provider if answer else None) or (info.provider if info else "") or "",
            )  # fmt: skip
            if inspect.isawaitable(told):
                await told
        except Exception:
            import logging

            log = logging.getLogger("polyvox.creative_services")
            log.exception("the tracker %s did not take a record", type(self._tracker).__name__)


# ---- the two ----------------------------------------------------------------------------------


class LLMClient(_Asking):
    """Asks whom its config says. It opens nothing before the first call; `async with` or `aclose` ends it.

    tracker is told of each call; client are further arguments of `polyvox.AsyncClient`, such as retries or cache.

    >>> import asyncio
    >>> client = LLMClient(LLMConfig(provider="demo"))
    >>> asyncio.run(client.generate(prompt="Write a story")).model
    'demo'
    """

    def __init__(self, config: LLMConfig | None = None, *, tracker: Any = None, **client: Any) -> None:
        self.config: LLMConfig = LLMConfig() if config is None else config
        refuse_other(self.config)
        from polyvox.client import AsyncClient

        with speaking():
            for name in _OF_CONFIG:
                if name in client:
                    raise InputError(f"whom a client asks says its config, {name} too", hint=_HINT, param=name)
            super().__init__(AsyncClient(**{**_whom(self.config), **_listening(client)}), tracker)

    def __repr__(self) -> str:
        """Whom it asks."""
        return f"LLMClient({self.config!r})"

    async def generate(
        self, prompt: Prompt, system_prompt: str | None = None, *, user_id: int | str | None = None, **options: Any
    ) -> LLMResponse:
        """The answer to a prompt: text, or whatever else `polyvox.AsyncClient.ask` takes, and so its options, such as
        temperature and max_tokens. user_id is for the tracker alone and is sent to nobody.

        Raises an error of `polyvox.errors`, which is also what each document calls it.
        """
        return await self._ask(prompt, system_prompt, options, None, user_id)


_OF_CONFIG = ("provider", "model", "model_name", "api_key", "base_url", "api_endpoint")
_HINT = "say LLMClient(LLMConfig(provider=..., model=...))"


def _listening(client: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the core's client, with who listens among the hooks."""
    hooks = client.get("hooks") or ()
    if not isinstance(hooks, Iterable):
        raise InputError(f"hooks is a sequence of hooks, not {type(hooks).__name__}", param="hooks")
    return {**client, "hooks": (*hooks, _Listens())}


def _whom(config: LLMConfig) -> dict[str, Any]:
    """A config as arguments of the core's client."""
    said: dict[str, Any] = {
        "api_key": config.api_key, "timeout": config.timeout, "temperature": config.temperature,
        "max_tokens": config.max_tokens,
    }  # fmt: skip
    if config.base_url is None:
        from polyvox.compat import shared

        # Who names a provider, or a key, means neither another's key nor another address for the same model.
        registry = shared.EVERYONE if config.provider is None and config.api_key is None else None
        return {**said, "model": name_of(config.provider, config.model), "registry": registry}
    if config.provider is None:
        return {**said, "model": config.model, "base_url": config.base_url}
    model = config.model or usual_model(config.provider)
    return {**said, "model": model, "base_url": config.base_url, "dialect": row_of(config.provider).dialect}


class DynamicLLMClient(_Asking):
    """Asks the deployments of a registry, by tier or by name; a change of the registry acts on the next call. Without
    one, or with None: all registries that were made, and the environment. `registry` says which it is.

    registry may also be entries, or tables by name. tracker is told of each call, failed ones too, under the name of
    the entry that was asked. client are further arguments of `polyvox.AsyncClient`.

    >>> import asyncio
    >>> client = DynamicLLMClient({"fast": {"model": "demo", "tier": "economy"}})
    >>> asyncio.run(client.generate(prompt="Write a story", tier="economy")).model
    'demo'
    """

    def __init__(self, registry: Any = None, *, tracker: Any = None, **client: Any) -> None:
        from polyvox.client import AsyncClient

        with speaking():
            self.registry: LLMRegistry = _registry(registry)
            self._routed = client.get("routing") is not None
            self._state: tuple[object, ...] | None = None
            self._found: dict[str, dict[str, Any]] = {}
            super().__init__(AsyncClient(registry=self.registry, **_listening(client)), tracker)

    def __repr__(self) -> str:
        """Which registry it asks."""
        return f"DynamicLLMClient({self.registry!r})"

    async def generate(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        *,
        tier: str | None = None,
        llm_id: int | str | None = None,
        llm_name: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        user_id: int | str | None = None,
        **options: Any,
    ) -> LLMResponse:
        """The answer to a prompt, by a tier (a member of LLMTier or a word; "auto" finds it for each prompt), or by an
        entry's name or id, or a model of a provider; without any by the registry's default.

        The rest is as in `LLMClient.generate`. InputError, which lists the tiers, for one that there is not.
        """
        if self.registry.asks:  # it is on another machine
            await self.registry.refresh()
        with speaking():
            full = name_of(provider_of(provider), word_of("model", model))
            said = [name for name in (llm_id, llm_name, full) if name is not None]
            if len(said) > 1 or (said and tier is not None):
                raise InputError(
                    "a call says a tier, an entry or a model, and one of them", hint="leave the others out"
                )
            whom: dict[str, Any] = {}
            if llm_id is not None or llm_name is not None:
                whom["model"] = self._named(str(said[0])).name
            elif said:
                whom["model"] = said[0]
            elif tier is not None:
                whom = self._of_tier(tier)
        meant = whom.get("model")
        llm = meant[0] if isinstance(meant, list) else meant
        return await self._ask(prompt, system_prompt, {**options, **whom}, llm, user_id)

    def _of_tier(self, tier: str) -> dict[str, Any]:
        """Whom a tier means: the entry that `get_by_tier` gives, and the others where it fails. Where weights or a
        routing say how calls are shared, they are. Worked out anew as soon as registry or settings are others."""
        from polyvox import config

        state = (self.registry.version, config.current())
        if self._state is None or any(new is not old for new, old in zip(state, self._state, strict=True)):
            self._state, self._found = state, {}
        found = self._found.get(tier) if isinstance(tier, str) else None
        if found is None:
            found = self._found[tier] = self._looked_up(tier)
        return dict(found)

    def _looked_up(self, tier: str) -> dict[str, Any]:
        from polyvox import config
        from polyvox.registry import LOCAL

        active = self.registry.list_active()
        word = tier_of(tier, [*(entry.tier for entry in active), "auto"])
        entries = [entry for entry in active if entry.tier == word]
        if not entries and word not in ("auto", LOCAL):
            from polyvox.pools import NoDeploymentError

            there = ", ".join(dict.fromkeys(entry.tier for entry in active if entry.tier)) or "none"
            raise NoDeploymentError(
                f"no deployment is of the tier {word!r}",
                hint=f"tiers that have any: {there}; set the key of a provider, such as OPENAI_API_KEY, before "
                f"DictRegistry.from_env(), or registry.add(name=..., provider=..., model_name=..., tier={word!r})",
            )
        routed = self._routed or "strategy" in config.current().routing
        shared_out = routed or len({entry.weight for entry in entries}) > 1
        best = None if shared_out or word in ("auto", LOCAL) else self.registry.get_by_tier(word)
        if best is None:
            return {"tier": word}
        rest = sorted([entry for entry in entries if entry.name != best.name], key=lambda entry: entry.priority)
        return {"model": [best.name, *(entry.name for entry in rest)]}

    def _named(self, name: str) -> Entry:
        found = self.registry.get_by_name(name)
        if found is None:
            there = ", ".join(entry.name for entry in self.registry.list_active()) or "none"
            raise InputError(f"there is no deployment {name!r}", hint=f"there are: {there}")
        return found


def _registry(given: Any) -> LLMRegistry:
    from polyvox.compat.creative_services.core.llm_registry import LLMRegistry, whatever_there_is
    from polyvox.registry import DictRegistry

    if given is None:
        return whatever_there_is()
    if isinstance(given, type):
        raise InputError(
            f"the class {given.__name__} is no registry", param="registry", hint=f"make one: {given.__name__}(...)"
        )
    if isinstance(given, LLMRegistry):
        return given
    if isinstance(given, Mapping | Iterable) and not isinstance(given, str | bytes):
        return DictRegistry(given)
    raise InputError(
        f"{type(given).__name__} is no registry", param="registry", hint="say DynamicLLMClient(DictRegistry.from_env())"
    )
