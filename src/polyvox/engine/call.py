"""The state of one call, whatever is asked: its attempts, its deadline, its hooks, and what its answer or its error
is told of them. It sends nothing."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import force_setattr as fill
from msgspec.structs import replace

from polyvox.deadlines import Deadlines
from polyvox.engine.contract import CallInfo, CallOptions
from polyvox.errors import CallTimeoutError, LossError, PolyvoxError, StreamInterruptedError
from polyvox.keys import redact
from polyvox.types import Answered, Attempt, Cost, Loss, Response

if TYPE_CHECKING:
    from polyvox.engine import Engine

log = logging.getLogger("polyvox.engine")

AnswerT = TypeVar("AnswerT", bound=Response | Answered)


def gave_up(response: Response) -> PolyvoxError:
    """The model itself reports that it failed: an error with the partial answer, not an answer."""
    reason = response.raw_finish_reason or "error"
    return StreamInterruptedError(
        f"the provider broke the answer off ({reason})", sent="yes", partial=replace(response, complete=False)
    )


def refuse_losses(losses: tuple[Loss, ...]) -> None:
    """What strict means: LossError where anything is lost; notes are none."""
    lost = [loss for loss in losses if loss.severity == "loss"]
    if lost:
        what = "; ".join(f"{loss.field}: {loss.why}" for loss in lost)
        raise LossError(
            f"strict: the request says what this model's protocol cannot: {what}",
            hint="leave it out, choose another model, or drop strict to go on without it",
            losses=tuple(lost),
        )


class Call:
    """The state of one call: its attempts so far, its deadline, its hooks."""

    # Defaults stand on the class: what a plain call never touches costs it nothing.
    deadline = math.inf
    attempts: tuple[Attempt, ...] = ()
    losses: tuple[Loss, ...] = ()
    _deadlines: Deadlines | None = None
    _task: asyncio.Task[Any] | None = None
    _cancels = 0
    _expired = False
    _outgoing: Any = None
    _started = 0.0
    _waited = 0.0

    def __init__(self, engine: Engine, request: Any, deployment: Any, options: CallOptions) -> None:
        self.engine = engine
        # A Request and an AnyDeployment; or what is Asked beside chats, and what is Answering that.
        self.request = request
        self.deployment = deployment
        self.options = options
        self.loop = asyncio.get_running_loop()

    # ---- its time -----------------------------------------------------------------------------

    def begin(self) -> None:
        """From here on the deadline runs, and cancels the task that waits for the call."""
        self.wait()
        timeout = self.options.timeout
        if timeout is not None:
            self.deadline = self.loop.time() + timeout
            self._deadlines = self.engine.deadlines(self.loop)
            self._deadlines.add(self, timeout)
        if self.engine.hooks:
            self.tell("on_call", CallInfo(self.request, self.deployment.name))

    def wait(self) -> None:
        """The running task is the one that waits for the call now."""
        self._task = asyncio.current_task(self.loop)
        self._cancels = self._task.cancelling() if self._task is not None else 0

    def rest(self) -> None:
        """Nobody waits: a deadline that comes now is told at the next wait."""
        self._task = None

    def end(self) -> None:
        """The call is over."""
        if self._deadlines is not None and self.options.timeout is not None:
            self._deadlines.drop(self, self.options.timeout)
        self._task = None

    def expire(self) -> None:
        """The deadline has come."""
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    @property
    def expired(self) -> bool:
        """Whether the deadline has come."""
        return self._expired

    def expired_alone(self) -> bool:
        """Whether a cancellation was the deadline's and nobody else's; takes it back."""
        return self._expired and self._task is not None and self._task.uncancel() <= self._cancels

    # ---- one attempt --------------------------------------------------------------------------

    def encoded(self) -> Any:
        """The request as it goes out, made once a call; raises LossError under strict."""
        if self._outgoing is None:
            outgoing, losses = self.deployment.encoded(self.request, self.options)
            if losses and self.options.strict:
                refuse_losses(losses)
            self._outgoing, self.losses = outgoing, losses
        return self._outgoing

    def begin_attempt(self) -> None:
        """Note the time, tell the hooks."""
        self._started = self.loop.time()
        if self.engine.hooks:
            self.tell("on_attempt", CallInfo(self.request, self.deployment.name, len(self.attempts) + 1))

    # ---- outcomes -----------------------------------------------------------------------------

    def note(self, outcome: str, error: PolyvoxError | None = None, answer: str | None = None) -> None:
        """Put the attempt that just ended on the list; answer is the provider's id of the request."""
        attempt = Attempt(
            self.deployment.name,
            self.loop.time() - self._started,
            outcome,
            error.message if error else None,
            error.status if error else None,
            error.sent if error else "yes",
            error.request_id if error else answer,
            self._waited,
        )
        self.attempts += (attempt,)

    def succeeded(self, response: AnswerT, answer: str | None) -> AnswerT:
        """The answer with all that the call knows beside it."""
        self.note("ok", None, answer)
        # The answer was made a moment ago for this call alone: filling it in costs less than a copy.
        fill(response, "provider", self.deployment.provider)
        fill(response, "deployment", self.deployment.name)
        fill(response, "attempts", self.attempts)
        if answer is not None:
            fill(response, "request_id", answer)
        if self.losses:
            fill(response, "losses", self.losses + response.losses)
        if response.usage.cost is not None:
            fill(response, "cost", Cost(response.usage.cost, source="provider"))
        if self.engine.hooks:
            self.tell("on_done", CallInfo(self.request, self.deployment.name, len(self.attempts), response))
        return response

    async def failed(self, error: PolyvoxError) -> None:
        """Wait for the next try, or raise the error when there must be none."""
        self.annotate(error)
        self.note(error.kind, error)
        left = None if self.options.timeout is None else self.deadline - self.loop.time()
        delay = self.engine.rule.wait(error, len(self.attempts), self.engine.chance(), left)
        if delay is None:
            raise self.final(error)
        self._waited = delay
        error.__traceback__ = None  # its frames hold what had come of the answer
        log.warning("%s: %s; next try in %.2f s", self.deployment.name, error.kind, delay)
        await self.engine.sleep(delay)

    def annotate(self, error: PolyvoxError) -> None:
        """Say where it happened, and take out anything secret a provider echoed."""
        error.provider = error.provider or self.deployment.provider
        error.model = error.model or self.deployment.model
        error.message = redact(error.message)
        error.args = (error.message,)

    def final(self, error: PolyvoxError) -> PolyvoxError:
        """The error as the caller gets it: with every attempt, and the hooks told."""
        error.attempts = self.attempts
        if self.engine.hooks:
            self.tell("on_done", CallInfo(self.request, self.deployment.name, len(self.attempts), error=error))
        return error

    def out_of_time(self, begun: bool = False) -> PolyvoxError:
        """The deadline ran out; begun is whether the head of an answer had come."""
        error = CallTimeoutError(
            f"no answer within {self.options.timeout:g} s in all",
            hint="give it longer with timeout=SECONDS, or stream",
            sent="yes" if begun else "unknown" if self._outgoing else "no",
        )
        self.annotate(error)
        self.note("timeout", error)
        return self.final(error)

    def tell(self, moment: str, what: Any) -> None:
        """Call every hook that listens for this moment; one that fails harms no call."""
        for hook in self.engine.hooks:
            listen = getattr(hook, moment, None)
            if listen is None:
                continue
            try:
                listen(what)
            except Exception:
                log.warning("hook %s.%s failed", type(hook).__name__, moment, exc_info=True)
