"""One call, top to bottom. The call happens once: deadline, retries, the list of attempts, hooks. The
attempt happens per try: encode, send, read, decode. It knows no dialect, provider or model by name."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, cast

from msgspec.structs import replace

from polyvox.chance import random_bytes
from polyvox.deadlines import Deadlines
from polyvox.engine.attempt import Try
from polyvox.engine.call import Call, gave_up, refuse_losses
from polyvox.engine.contract import (
    AnsweredT,
    Answering,
    AnyDeployment,
    AnyRoute,
    AskedT,
    Books,
    CallInfo,
    CallOptions,
    Hooks,
    Pieces,
    Plan,
    Route,
    Spent,
    Taken,
    Who,
    is_route,
)
from polyvox.engine.deployment import Deployment, OperationDeployment
from polyvox.engine.hedge import raced
from polyvox.engine.stream import StreamRun
from polyvox.errors import PolyvoxError
from polyvox.routing import RetryBudget, RetryRule
from polyvox.routing.after import Next, after
from polyvox.routing.needs import filled
from polyvox.types import Request, Response

__all__ = [
    "Answering",
    "AnyDeployment",
    "AnyRoute",
    "Books",
    "Call",
    "CallInfo",
    "CallOptions",
    "Deployment",
    "Engine",
    "Hooks",
    "OperationDeployment",
    "Pieces",
    "Plan",
    "Route",
    "StreamRun",
    "Taken",
    "Who",
    "is_route",
    "refuse_losses",
]


class Engine:
    """Makes calls. books keep account of them, where there are any. sleep, chance and random_bytes are injected so that
    a whole run is deterministic under test; the clock is the event loop's."""

    def __init__(
        self,
        *,
        rule: RetryRule | None = None,
        hooks: Sequence[Any] = (),
        books: Books | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        random_bytes: Callable[[int], bytes] = random_bytes,
    ) -> None:
        self.rule: RetryRule = rule or RetryRule()
        self.hooks: tuple[Any, ...] = tuple(hooks or ())
        self.listeners: dict[str, tuple[tuple[str, Callable[[Any], None]], ...]] = _listeners(self.hooks)
        self.books = books
        self._random_bytes = random_bytes
        self.sleep = sleep
        self.chance = chance
        self._deadlines: dict[int, Deadlines] = {}
        self.retry_budgets: dict[str, RetryBudget] = {}
        """Of each deployment that failed, where it has no plan."""

    def call(self, request: Request, deployment: AnyRoute, options: CallOptions) -> Coroutine[Any, Any, Response]:
        """Ask and give the whole answer; raises what went wrong, with every attempt in it."""
        must = request.stream or deployment.must_stream(request)
        if must or (options.usual and deployment.must_stream(filled(request, options.usual))):
            run = self.stream(request, deployment, options)
            run.whole = True
            return run.finish()
        return self.operate(request, cast("AnyDeployment", deployment), options)  # a route is asked by its plan

    async def operate(
        self, request: AskedT, deployment: Answering[AskedT, AnsweredT], options: CallOptions
    ) -> AnsweredT:
        """One request of any kind, one whole answer; raises what went wrong, with every attempt in it."""
        call = Call(self, request, deployment, options)
        call.begin()
        try:
            while True:
                attempt = call.again() if call.plan is None else await call.attempt()
                try:
                    if call.plan is None or call.plan.hedge_after is None:
                        response, answer = await attempt.deployment.answer(await attempt.begin())
                    else:
                        attempt, (response, answer) = await raced(call, attempt, _whole, _cost_of_whole)
                    if isinstance(response, Response) and response.finish_reason == "error":
                        attempt.heard = True
                        raise gave_up(response)
                    made: AnsweredT = call.succeeded(attempt, response, answer)
                except PolyvoxError as error:
                    await call.failed(call.trying[0], error)
                    continue
                if call.account is not None:
                    await call.answered(attempt, made)
                return made
        except asyncio.CancelledError as error:
            if call.expired_alone():
                raise await call.out_of_time() from error
            call.left_alone(None, error)
            raise
        except PolyvoxError:
            raise
        except BaseException:  # closed in the middle, or a defect: neither may leave its account open
            call.left_alone()
            raise
        finally:
            call.end()

    def after(self, deployment: str, error: PolyvoxError, tries: int, left: float | None) -> Next | None:
        """What comes after a failure at the only deployment there is; None: nothing more."""
        budget = self.retry_budgets.get(deployment)
        if budget is None:
            budget = self.retry_budgets[deployment] = RetryBudget(self.rule.budget)
        return after(error, tries, tries, budget, self.rule, False, self.chance(), left)

    def went_well(self, deployment: str, taken: int) -> None:
        """A call ended well, whose last retry took so many tokens of its retry budget."""
        budget = self.retry_budgets.get(deployment)
        if budget is not None:
            budget.succeeded(taken)

    def new_id(self) -> str:
        """An id that no other call has."""
        return self._random_bytes(16).hex()

    def stream(self, request: Request, deployment: AnyRoute, options: CallOptions) -> StreamRun:
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


async def _whole(attempt: Try) -> tuple[Any, str | None]:
    """A whole answer to one attempt."""
    answered: tuple[Any, str | None] = await attempt.deployment.answer(await attempt.begin())
    return answered


async def _cost_of_whole(attempt: Try, answered: tuple[Any, str | None] | None) -> Spent | None:
    """What an attempt cost that another was faster than."""
    attempt.heard = attempt.heard or answered is not None
    if answered is None or attempt.deployment.money is None:
        return attempt.spent(None)
    return Spent(answered[0].usage, attempt.deployment.money.bill(attempt.request, answered[0]))


def _listeners(hooks: Sequence[Any]) -> dict[str, tuple[tuple[str, Callable[[Any], None]], ...]]:
    """Who listens for which moment: the kind of the hook, and its method."""
    return {
        moment: tuple(
            (type(hook).__name__, listen) for hook in hooks if (listen := getattr(hook, moment, None)) is not None
        )
        for moment in ("on_call", "on_attempt", "on_event", "on_done")
    }
