"""The pattern of a handler: from a context to a prompt, from an answer to a result, with one way to run it. What is
made, and of what, is the business of each handler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from polyvox.compat.errors import named, speaking
from polyvox.errors import BadResponseError, InputError, PolyvoxError

if TYPE_CHECKING:
    from decimal import Decimal

    from polyvox.compat.creative_services.core.llm_client import DynamicLLMClient, LLMClient, LLMResponse, LLMUsage

ContextT = TypeVar("ContextT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class HandlerResult(Generic[ResultT]):
    """How it went: data, or the error; response is the answer, if there was one."""

    data: ResultT | None = None
    error: PolyvoxError | None = None
    response: LLMResponse | None = None

    @property
    def success(self) -> bool:
        """Whether there is data."""
        return self.error is None

    @property
    def llm_used(self) -> str | None:
        """The deployment that answered."""
        return self.response.raw.deployment if self.response is not None else None

    @property
    def usage(self) -> LLMUsage | None:
        """What the answer used."""
        return self.response.usage if self.response is not None else None

    @property
    def cost(self) -> Decimal | None:
        """USD; None is not known."""
        return self.response.cost if self.response is not None else None

    def unwrap(self) -> ResultT:
        """The data; raises the error where there is none."""
        if self.error is not None:
            raise self.error
        return cast("ResultT", self.data)


class BaseHandler(ABC, Generic[ContextT, ResultT]):
    """A task for a model. Without a client it asks by tier whom the environment has; options are said with every call,
    such as tier="premium" or temperature=1.0."""

    def __init__(self, client: LLMClient | DynamicLLMClient | None = None, **options: Any) -> None:
        if client is None:
            from polyvox.compat.creative_services.core.llm_client import DynamicLLMClient

            client = DynamicLLMClient()
        self.client: DynamicLLMClient | LLMClient = client
        if isinstance(client, type) or not callable(getattr(self.client, "generate", None)):
            hint = "say LLMClient(LLMConfig(...)), DynamicLLMClient(REGISTRY), or nothing"
            raise named(InputError(f"{client!r} is no client: it has no generate", hint=hint, param="client"))
        self.options = options

    @abstractmethod
    def build_prompt(self, context: ContextT) -> str:
        """The prompt for a context."""

    @abstractmethod
    def parse_response(self, content: str, context: ContextT) -> ResultT:
        """The result in an answer. Raise ValueError or LookupError for one that is none; never make one up."""

    def get_system_prompt(self) -> str | None:
        """The system prompt; None for none."""
        return None

    async def execute(self, context: ContextT, **options: Any) -> HandlerResult[ResultT]:
        """Ask, and read the answer. A call that fails, or an answer that cannot be read, is the error of the result."""
        prompt = self.build_prompt(context)
        try:
            response = await self.client.generate(prompt, self.get_system_prompt(), **{**self.options, **options})
        except PolyvoxError as error:
            return HandlerResult(error=named(error))
        try:
            return HandlerResult(self.parse_response(response.content, context), response=response)
        except (ValueError, LookupError) as wrong:
            unreadable = BadResponseError(
                f"{type(self).__name__} cannot read the answer: {wrong}", model=response.model, sent="yes",
                hint="ask again, or ask another model; the answer is in the result's response",
            )  # fmt: skip
            unreadable.__cause__ = wrong
            return HandlerResult(error=named(unreadable), response=response)

    def execute_sync(self, context: ContextT, **options: Any) -> HandlerResult[ResultT]:
        """`execute` from ordinary code, also where an event loop runs."""
        from polyvox import portal

        with speaking():
            return portal.run(self.execute(context, **options))
