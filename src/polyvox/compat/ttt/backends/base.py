"""What every backend of TTT is: two members to write, four with an answer of their own. It knows no provider."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from polyvox.compat.errors import named
from polyvox.compat.ttt.responses import AIResponse
from polyvox.errors import PolyvoxError, UsageError

_PIECES = re.compile(r"\s*\S+\s*|\s+")


class BaseBackend(ABC):
    """Somebody who answers. `name` and `ask` must be written; the others may be."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called: letters, digits, ".", "_" and "-"."""

    @abstractmethod
    async def ask(self, prompt: Any, **kwargs: Any) -> AIResponse:
        """The whole answer. Keywords are what the caller said beside the prompt: model, system, temperature, ..."""

    async def astream(self, prompt: Any, **kwargs: Any) -> AsyncIterator[str]:
        """The answer as it comes; unless it is written, the whole of `ask` in pieces."""
        answer = await self.ask(prompt, **kwargs)
        for piece in pieces_of(answer, self.name):
            yield piece

    async def models(self) -> list[str]:
        """The names of its models; none unless it is written."""
        return []

    async def status(self) -> dict[str, Any]:
        """How it is: name, available, latency in seconds (None where nobody was asked), and detail."""
        began = time.perf_counter()
        try:
            known = await self.models()
        except Exception as error:  # noqa: BLE001 - that it fails is what is asked for
            what = error.message if isinstance(error, PolyvoxError) else f"{type(error).__name__}: {error}"
            from polyvox.keys import redact

            return {"name": self.name, "available": False, "latency": None, "detail": redact(what)}
        latency = time.perf_counter() - began
        detail = f"{len(known)} models" if known else "it tells no models"
        return {"name": self.name, "available": self.is_available, "latency": latency, "detail": detail}

    @property
    def is_available(self) -> bool:
        """Whether it can be asked, as far as that is known without asking anybody."""
        return True

    async def aclose(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of what it holds; may be called twice."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def pieces_of(answer: Any, name: str) -> list[str]:
    """A text in words, each with the space around it; a clear error for what is no answer."""
    if not isinstance(answer, str):
        raise named(
            UsageError(
                f"the backend {name!r} answered with {type(answer).__name__}, which is no answer",
                hint="return an AIResponse, or text",
                sent="yes",
            )
        )
    return _PIECES.findall(str.__str__(answer))
