"""One call, top to bottom. The call happens once: deadline, retries, the list of attempts, hooks. The
attempt happens per try: encode, send, read, decode. It knows no dialect, provider or model by name."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from msgspec.structs import replace

from polyvox.deadlines import Deadlines
from polyvox.engine.call import Call, gave_up, refuse_losses
from polyvox.engine.contract import (
    AnsweredT,
    Answering,
    AnyDeployment,
    AskedT,
    CallInfo,
    CallOptions,
    Hooks,
    Pieces,
)
from polyvox.engine.deployment import Deployment, OperationDeployment
from polyvox.engine.stream import StreamRun
from polyvox.errors import PolyvoxError
from polyvox.routing import RetryRule
from polyvox.types import Request, Response

__all__ = [
    "Answering",
    "AnyDeployment",
    "Call",
    "CallInfo",
    "CallOptions",
    "Deployment",
    "Engine",
    "Hooks",
    "OperationDeployment",
    "Pieces",
    "StreamRun",
    "refuse_losses",
]


class Engine:
    """Makes calls. sleep and chance are injected so that a whole run is deterministic under test;
    the clock is the event loop's."""

    def __init__(
        self,
        *,
        rule: RetryRule | None = None,
        hooks: Sequence[Any] = (),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.rule = rule or RetryRule()
        self.hooks = tuple(hooks or ())
        self.sleep = sleep
        self.chance = chance
        self._deadlines: dict[int, Deadlines] = {}

    def call(self, request: Request, deployment: AnyDeployment, options: CallOptions) -> Coroutine[Any, Any, Response]:
        """Ask and give the whole answer; raises what went wrong, with every attempt in it."""
        if request.stream or deployment.must_stream(request):
            return self.stream(request, deployment, options).finish()
        return self.operate(request, deployment, options)

    async def operate(
        self, request: AskedT, deployment: Answering[AskedT, AnsweredT], options: CallOptions
    ) -> AnsweredT:
        """One request of any kind, one whole answer; raises what went wrong, with every attempt in it."""
        call = Call(self, request, deployment, options)
        call.begin()
        try:
            while True:
                call.begin_attempt()
                try:
                    response, answer = await deployment.answer(call.encoded())
                    if isinstance(response, Response) and response.finish_reason == "error":
                        raise gave_up(response)
                    return call.succeeded(response, answer)
                except PolyvoxError as error:
                    await call.failed(error)
        except asyncio.CancelledError as error:
            if call.expired_alone():
                raise call.out_of_time() from error
            call.note("cancelled")
            raise
        finally:
            call.end()

    def stream(self, request: Request, deployment: AnyDeployment, options: CallOptions) -> StreamRun:
        """Ask for a stream; nothing is sent before its first `batch`."""
        if not request.stream:
            request = replace(request, stream=True)
        return StreamRun(Call(self, request, deployment, options))

    def deadlines(self, loop: asyncio.AbstractEventLoop) -> Deadlines:
        """The deadlines of the calls in one event loop."""
        found = self._deadlines.get(id(loop))
        if found is None or found.loop is not loop:
            for key, other in list(self._deadlines.items()):
                if other.loop.is_closed():
                    self._deadlines.pop(key, None)
            found = self._deadlines[id(loop)] = Deadlines(loop)
        return found
