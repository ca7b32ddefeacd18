"""What BFAgent calls: bridges that give plain text, synchronous and awaited, and its older function. They translate
arguments; the client of creative_services does the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from polyvox.compat.errors import named, speaking
from polyvox.errors import BadResponseError, InputError, PolyvoxError

if TYPE_CHECKING:
    from types import TracebackType

    from polyvox.client import Prompt
    from polyvox.compat.creative_services.core.llm_client import DynamicLLMClient, LLMResponse
    from polyvox.keys import Secret
    from polyvox.registry import Registry as LLMRegistry
    from polyvox.usage import UsageStats

__all__ = ["AsyncBFAgentLLMBridge", "BFAgentLLMBridge", "LlmRequest", "generate_text"]


class AsyncBFAgentLLMBridge:
    """Text for a prompt, awaited. Without a registry: all registries that were made, and the environment.

    tracker and client are as in `DynamicLLMClient`.

    >>> import asyncio
    >>> bridge = AsyncBFAgentLLMBridge({"fast": {"model": "demo", "tier": "economy"}})
    >>> type(asyncio.run(bridge.generate_text(prompt="Write a story", tier="economy")))
    <class 'str'>
    """

    def __init__(self, registry: Any = None, *, tracker: Any = None, **client: Any) -> None:
        from polyvox.compat.creative_services.core.llm_client import DynamicLLMClient

        self.client: DynamicLLMClient = DynamicLLMClient(registry, tracker=tracker, **client)

    @property
    def registry(self) -> LLMRegistry:
        """The deployments it asks: `list_active()` and `get_by_tier(tier)` say which."""
        return self.client.registry

    def get_stats(self) -> UsageStats:
        """What this bridge used so far."""
        return self.client.get_stats()

    async def generate_text(
        self,
        prompt: Prompt | None = None,
        system_prompt: str | None = None,
        tier: str | None = None,
        *,
        user_prompt: Prompt | None = None,
        response_format: Any = None,
        response_schema: Any = None,
        **options: Any,
    ) -> str:
        """The text of the answer. tier is a word such as "standard", in any case; without one, and without llm_id,
        llm_name or provider and model, the default deployment answers. user_prompt is another name of prompt;
        response_format is "text" or "json", response_schema a type or JSON Schema that the text is to fit.

        The rest is as in `DynamicLLMClient.generate`, errors too.
        """
        if (prompt is None) == (user_prompt is None):
            raise named(InputError("say the prompt, once", param="prompt", hint="user_prompt is another name for it"))
        form = {"response_format": None if response_format == "text" else response_format, "schema": response_schema}
        options |= {name: value for name, value in form.items() if value is not None}
        asked = prompt if prompt is not None else user_prompt
        assert asked is not None
        return (await self.client.generate(asked, system_prompt, tier=tier, **options)).content

    async def aclose(self) -> None:
        """Close the connections; the bridge may not be used afterwards."""
        await self.client.aclose()

    async def __aenter__(self) -> Self:
        """Itself, closed at the end."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.aclose()


class BFAgentLLMBridge:
    """Text for a prompt, from ordinary code: views, tasks, commands, also in a thread whose event loop runs. Takes what
    `AsyncBFAgentLLMBridge` takes. All bridges of a process share one loop in the background.

    >>> bridge = BFAgentLLMBridge({"fast": {"model": "demo", "default": True}})
    >>> bridge.generate_text("Write a story").startswith("[demo]")
    True
    """

    def __init__(self, registry: Any = None, *, tracker: Any = None, **client: Any) -> None:
        self._bridge = AsyncBFAgentLLMBridge(registry, tracker=tracker, **client)

    @property
    def registry(self) -> LLMRegistry:
        """See `AsyncBFAgentLLMBridge.registry`."""
        return self._bridge.registry

    def get_stats(self) -> UsageStats:
        """What this bridge used so far."""
        return self._bridge.get_stats()

    def generate_text(
        self, prompt: Prompt | None = None, system_prompt: str | None = None, tier: str | None = None, **options: Any
    ) -> str:
        """The text of the answer; see `AsyncBFAgentLLMBridge.generate_text`."""
        from polyvox import portal

        with speaking():
            return portal.run(self._bridge.generate_text(prompt, system_prompt, tier, **options))

    def close(self) -> None:
        """Close the connections; the bridge may not be used afterwards."""
        from polyvox import portal

        with speaking():
            portal.run(self._bridge.aclose())

    def __enter__(self) -> Self:
        """Itself, closed at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


# ---- the older function -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LlmRequest:
    """All that one call of the older function says. api_endpoint may lack its scheme, and may end in the path of chat
    completions; response_schema is a pydantic class. The key is kept as a Secret, which is never shown."""

    provider: str = ""
    api_endpoint: str = ""
    api_key: str | Secret = ""
    model: str = ""
    system: str = ""
    prompt: str = ""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    response_format: str = "text"
    response_schema: Any = None

    def __post_init__(self) -> None:
        """Hide the key."""
        if isinstance(self.api_key, str) and self.api_key.strip():
            from polyvox.keys import Secret

            object.__setattr__(self, "api_key", Secret(self.api_key.strip()))


_lock = threading.Lock()
_bridge: BFAgentLLMBridge | None = None


def generate_text(request: Any = None, /, **said: Any) -> Any:
    """The older function, in both ways in which it is called.

    With keywords, or a text, it gives the text of the answer, as `BFAgentLLMBridge.generate_text` does. With an
    `LlmRequest`, or an object or a table with its fields, it gives a dict with ok, text, raw (the body of the answer),
    error (a text, or None) and latency_ms, and with a response_schema also structured; this way raises nothing.
    """
    if request is None or isinstance(request, str):
        prompt = {} if request is None else {"prompt": request}
        return _shared().generate_text(**prompt, **said)
    import json
    from types import SimpleNamespace

    from polyvox import portal
    from polyvox.keys import redact

    if isinstance(request, Mapping):
        request = SimpleNamespace(**request)
    began = time.perf_counter()
    found: dict[str, Any] = {"ok": False, "text": "", "raw": {}, "error": None, "latency_ms": 0}
    schema = getattr(request, "response_schema", None)
    if schema is not None:
        found["structured"] = None
    try:
        response = portal.run(_once(request, schema))
        found |= {"text": response.content, "raw": json.loads(response.raw.raw or b"{}")}
        if schema is not None:
            found["structured"] = _fitted(schema, response.content)
        found["ok"] = True
    except PolyvoxError as error:
        found["error"] = str(error)
    except Exception as error:  # noqa: BLE001 - whoever calls it this way expects no error, of whatever kind
        found["error"] = redact(f"{type(error).__name__}: {error}")
    return {**found, "latency_ms": round((time.perf_counter() - began) * 1000)}


def _shared() -> BFAgentLLMBridge:
    global _bridge
    with _lock:
        if _bridge is None:
            _bridge = BFAgentLLMBridge()
        return _bridge


async def _once(request: Any, schema: Any) -> LLMResponse:
    from polyvox.compat.creative_services.core.llm_client import LLMClient, LLMConfig

    def of(name: str) -> Any:
        return getattr(request, name, None) or None

    config = LLMConfig(
        of("provider"), of("model"), of("api_key"), _endpoint(of("api_endpoint")),
        temperature=getattr(request, "temperature", None), max_tokens=of("max_tokens"),
    )  # fmt: skip
    form = {"schema": schema} if schema is not None else {"response_format": "json"}
    options = form if schema is not None or of("response_format") == "json" else {}
    async with LLMClient(config) as client:
        return await client.generate(of("prompt") or "", of("system"), top_p=of("top_p"), **options)


_TAIL = "/chat/completions"


def _endpoint(said: Any) -> Any:
    """An address as the core takes it; what is none as it is, for the core refuses it."""
    if not isinstance(said, str):
        return said
    from polyvox.registry.reach import is_loopback

    url = said.strip().rstrip("/").removesuffix(_TAIL)
    if "://" in url:
        return url
    return f"{'http' if is_loopback(f'http://{url}') else 'https'}://{url}"


def _fitted(schema: Any, text: str) -> Any:
    """The text as an object of a pydantic class, or as plain values for any other schema."""
    import json

    try:
        return schema.model_validate_json(text) if hasattr(schema, "model_validate_json") else json.loads(text)
    except ValueError as error:
        raise BadResponseError(f"the answer does not fit: {error}") from error
