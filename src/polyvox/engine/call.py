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
from polyvox.engine.attempt import Try, let_go, refuse_losses
from polyvox.engine.contract import Account, CallFacts, CallInfo, CallOptions, Plan, Spent
from polyvox.engine.spending import summed
from polyvox.errors import CallCancelledError, CallTimeoutError, PolyvoxError, StreamInterruptedError
from polyvox.keys import redact
from polyvox.routing.after import Next
from polyvox.types import Answered, Attempt, Cost, Loss, Response, Usage

if TYPE_CHECKING:
    from polyvox.engine import Engine

__all__ = ["Call", "gave_up", "refuse_losses"]

log: logging.Logger = logging.getLogger("polyvox.engine")

AnswerT = TypeVar("AnswerT", bound=Response | Answered)


def gave_up(response: Response) -> PolyvoxError:
    """The model itself reports that it failed: an error with the partial answer, not an answer."""
    reason = response.raw_finish_reason or "error"
    return StreamInterruptedError(
        f"the provider broke the answer off ({reason})", sent="yes", partial=replace(response, complete=False)
    )


def _address(deployment: Any) -> str | None:
    """Where a deployment on a wire is; None for a backend."""
    endpoint = getattr(deployment, "endpoint", None)
    return None if endpoint is None else endpoint.base_url


class Call:
    """The state of one call: its attempts so far, its deadline, its hooks. deployment is the one asked last; before the
    first attempt of a call with a plan, what the plan is of."""

    # Defaults stand on the class: what a plain call never touches costs it nothing.
    deadline: float = math.inf
    attempts: tuple[Attempt, ...] = ()
    id: str = ""
    account: Account | None = None
    plan: Plan | None = None
    notes: tuple[Loss, ...] = ()  # on what was done to its request before a deployment was chosen
    first_token: float | None = None
    trying: tuple[Try, ...] = ()  # the attempts under way: one, or two while one is hedged
    _before: tuple[Spent | None, ...] = ()
    _given_again: bool | None = None
    _told_over = False
    _begun = 0.0
    _deadlines: Deadlines | None = None
    _task: asyncio.Task[Any] | None = None
    _cancels = 0
    _expired = False
    _waited = 0.0
    _taken = 0  # what the last retry took from its retry budget

    def __init__(self, engine: Engine, request: Any, deployment: Any, options: CallOptions) -> None:
        self.engine = engine
        # A Request and an AnyDeployment or a Route; or what is Asked beside chats, and what is Answering that.
        self.request = request
        self.deployment: Any = deployment
        self.options = options
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.made: dict[Any, Any] = {}

    # ---- its time -----------------------------------------------------------------------------

    def begin(self) -> None:
        """From here on the deadline runs, and cancels the task that waits for the call."""
        self.wait()
        make_plan = getattr(self.deployment, "plan", None)
        if make_plan is not None:
            self.notes = self.deployment.notes
            self.plan = make_plan(self.request, self.options)
        timeout = self.options.timeout
        if timeout is not None:
            self.deadline = self.loop.time() + timeout
            self._deadlines = self.engine.deadlines(self.loop)
            self._deadlines.add(self, timeout)
        engine = self.engine
        if engine.books is not None or engine.hooks:
            self._begun = self.loop.time()
            self.id = engine.new_id()
            if engine.books is not None and self.plan is None:
                self.account = engine.books.account(self._facts())
            if engine.listeners["on_call"]:
                self.tell("on_call", self._info())

    def _facts(self) -> CallFacts:
        at, request = self.deployment, self.request
        streams = getattr(request, "stream", False)
        return CallFacts(self.id, at.operation, at.name, at.provider, at.model, streams, request, self.options.who)

    def _info(
        self, attempt: int = 0, response: Response | Answered | None = None, error: PolyvoxError | None = None
    ) -> CallInfo:
        at = self.deployment
        seconds = self.seconds() if response is not None or error is not None else None
        streams = getattr(self.request, "stream", False)
        return CallInfo(
            self.request, at.name, attempt, response, error,
            self.id, at.operation, at.provider, at.model, streams, seconds, self.first_token,
            self.options.who.session, _address(at), self._given_again, *self._total(response, error),
        )  # fmt: skip

    def _total(
        self, response: Response | Answered | None, error: PolyvoxError | None
    ) -> tuple[Usage, Cost] | tuple[None, None]:
        """What all attempts used and cost together, where the call is over."""
        if response is not None:
            return summed([*self._before, Spent(response.usage, response.cost)])
        return (None, None) if error is None else summed(self._before)

    def given_again(self, response: Response) -> None:
        """Tell the hooks of a call that our own cache answered: nothing was asked."""
        if self.engine.hooks:
            self._begun, self.id, self._given_again = self.loop.time(), self.engine.new_id(), True
            self.tell("on_call", self._info())
            self.tell("on_done", self._info(response=response))

    def seconds(self) -> float:
        """How long it has taken so far; only where somebody listens or keeps account."""
        return self.loop.time() - self._begun

    def seen(self, attempt: Try) -> None:
        """The caller sees something of a stream now, for the first time."""
        if self.id and self.first_token is None:
            self.first_token = self.seconds()
        if self.plan is not None and attempt.taken is not None:
            self.plan.heard(attempt.taken, self.loop.time() - attempt.started)

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

    def left(self) -> float | None:
        """Seconds until the deadline; None where there is none."""
        return None if self.options.timeout is None else self.deadline - self.loop.time()

    # ---- attempts -----------------------------------------------------------------------------

    def again(self) -> Try:
        """The next attempt of a call that has one deployment."""
        return self._tried(Try(self, self.deployment, self.request, self._waited, None))

    async def attempt(self) -> Try:
        """The next attempt, at the deployment that the plan gives; raises what stands in its way."""
        assert self.plan is not None
        try:
            taken = await self.plan.take(self.left())
        except PolyvoxError as error:
            error.message = redact(error.message)
            final = self.final(error)
            await self.over(final)
            raise final from None
        return self.trying_at(taken)

    def trying_at(self, taken: Any, beside: tuple[Try, ...] = ()) -> Try:
        """The attempt at a deployment that was taken; beside are those that are under way."""
        self.deployment = taken.deployment
        made = Try(self, taken.deployment, taken.request, 0.0 if beside else self._waited, taken)
        self.trying = beside
        if self.account is None and self.engine.books is not None:
            self.account = self.engine.books.account(self._facts())
        return self._tried(made)

    def _tried(self, made: Try) -> Try:
        self.trying = (*self.trying, made)
        if self.engine.listeners["on_attempt"]:
            self.tell("on_attempt", self._info(len(self.attempts) + len(self.trying)))
        return made

    def succeeded(self, attempt: Try, response: AnswerT, answer: str | None) -> AnswerT:
        """The answer with all that the call knows beside it."""
        at = self.deployment = attempt.deployment
        if at.money is not None:
            fill(response, "cost", at.money.bill(attempt.request, response))
        elif response.usage.cost is not None:
            fill(response, "cost", Cost(response.usage.cost, source="provider"))
        attempt.note("ok", None, answer, Spent(response.usage, response.cost), response)
        self.trying = ()
        if self.plan is None and self.engine.retry_budgets:
            self.engine.went_well(at.name, self._taken)
        # The answer was made a moment ago for this call alone: filling it in costs less than a copy.
        fill(response, "provider", at.provider)
        fill(response, "deployment", at.name)
        fill(response, "attempts", self.attempts)
        if answer is not None:
            fill(response, "request_id", answer)
        if attempt.losses or self.notes:
            fill(response, "losses", self.notes + attempt.losses + response.losses)
        if self.plan is not None and isinstance(response, Response):
            fill(response, "decision", self.plan.decision)
        if self.engine.listeners["on_done"]:
            self.tell("on_done", self._info(len(self.attempts), response))
        return response

    async def failed(self, attempt: Try, error: PolyvoxError) -> None:
        """Wait for the next try, or raise the error when there must be none."""
        await self.broke_off(attempt, error)
        then = self._after(attempt, error)
        if then is None:
            final = self.final(error)
            await self.over(final)
            raise final
        self._waited, self._taken = then.wait, then.taken
        let_go(error)
        where = f"in {then.wait:.2f} s" if then.here else "elsewhere"
        log.warning("%s: %s; next try %s", attempt.deployment.name, error.kind, where)
        if then.wait > 0:
            await self.engine.sleep(then.wait)

    async def broke_off(self, attempt: Try, error: PolyvoxError) -> None:
        """An attempt failed: put it on the list, and tell whoever keeps account."""
        self.annotate(error, attempt)
        spent = attempt.spent(error)
        attempt.note(error.kind, error, None, spent)
        self.lost(attempt, spent)
        await attempt.told(spent)

    def lost(self, attempt: Try, spent: Spent | None) -> None:
        """An attempt is over, and its answer is not the call's: what it cost counts all the same."""
        self.trying = tuple([other for other in self.trying if other is not attempt])
        self._before += (spent,)

    def _after(self, attempt: Try, error: PolyvoxError) -> Next | None:
        """What comes after a failure: another try, or None."""
        if self.plan is not None and attempt.taken is not None:
            return self.plan.after(attempt.taken, error, self.engine.chance(), self.left())
        return self.engine.after(attempt.deployment.name, error, len(self.attempts), self.left())

    def annotate(self, error: PolyvoxError, attempt: Try | None = None) -> None:
        """Say where it happened, and take out anything secret a provider echoed."""
        at = self.deployment if attempt is None else attempt.deployment
        error.provider = error.provider or at.provider
        error.model = error.model or at.model
        error.message = redact(error.message)
        error.args = (error.message,)
        for field in ("code", "type", "param", "request_id"):
            if isinstance(said := getattr(error, field), str):
                setattr(error, field, redact(said))

    def final(self, error: PolyvoxError) -> PolyvoxError:
        """The error as the caller gets it: with every attempt, and the hooks told."""
        error.attempts = self.attempts
        if self.plan is not None:
            error.decision = self.plan.decision
        if self.engine.listeners["on_done"]:
            self.tell("on_done", self._info(len(self.attempts), error=error))
        return error

    async def out_of_time(self, partial: Response | None = None) -> PolyvoxError:
        """The deadline ran out; partial is what of an answer had come. Its attempts are noted, and the call is over."""
        begun = any(attempt.heard for attempt in self.trying)
        error = CallTimeoutError(
            f"no answer within {self.options.timeout:g} s in all",
            hint="give it longer with timeout=SECONDS, or stream",
            sent="yes" if begun else "unknown" if any(attempt.sent for attempt in self.trying) else "no",
            partial=partial,
        )
        self.end()  # nothing more of it is cut short
        try:
            for attempt in self.trying:
                await self.broke_off(attempt, error)
            self.annotate(error)
            final = self.final(error)
            await self.over(final)
        except BaseException:  # nobody waits for that either
            self.left_alone(partial)
            raise
        return final

    # ---- its account --------------------------------------------------------------------------

    async def over(self, error: PolyvoxError | None = None, answer: Response | Answered | None = None) -> None:
        """Tell whoever keeps account that the call is over."""
        account = self.account
        if account is None:
            return
        self._told_over = True
        self.end()  # an answer that is there is not taken back because writing it down takes long
        try:
            await account.close("ok" if error is None else "error", self.seconds(), answer, error, self.first_token)
        except BaseException:
            account.left(self.seconds(), self.first_token)  # nobody waits any more for its end
            raise

    async def answered(self, attempt: Try, answer: Response | Answered) -> None:
        """Tell whoever keeps account of an answer that is whole."""
        if self.account is None:
            return
        self._told_over = True
        self.end()
        try:
            await attempt.told(Spent(answer.usage, answer.cost))
        except BaseException:
            self.account.left(self.seconds(), self.first_token)
            raise
        await self.over(answer=answer)

    def left_alone(
        self, partial: Response | None = None, gone: BaseException | None = None, *, tell: bool = True
    ) -> None:
        """The caller went away in the middle; partial is what had come, gone what ended the wait. Nobody can wait."""
        for attempt in self.trying:
            attempt.left(gone)
            spent = attempt.spent(None, partial)
            attempt.note("cancelled", None, None, spent)
            self._before += (spent,)
            attempt.dropped(spent)
        self.trying = ()
        if tell and self.engine.listeners["on_done"] and not self._told_over:
            gone = CallCancelledError("the call was cancelled", partial=partial)
            gone.attempts = self.attempts
            self.tell("on_done", self._info(len(self.attempts), error=gone))
        self._told_over = True
        if self.account is not None:
            self.account.left(self.seconds(), self.first_token)

    def abandoned(self, partial: Response) -> None:
        """Nobody holds the call any more, in whatever thread that was found and whatever lock is held there. No hook is
        told."""
        if self.plan is None or not self.loop.is_running():
            self.left_alone(partial, tell=False)
        else:
            self.loop.call_soon_threadsafe(lambda: self.left_alone(partial, tell=False))

    def tell(self, moment: str, what: Any) -> None:
        """Call every hook that listens for this moment; one that fails harms no call."""
        for kind, listen in self.engine.listeners[moment]:
            try:
                listen(what)
            except Exception:
                log.warning("hook %s.%s failed", kind, moment, exc_info=True)
