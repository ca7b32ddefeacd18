"""One attempt of a call: who is asked, what goes out, what was taken for it, and what is told when it is over. It sends
nothing itself, and decides nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from polyvox.engine.contract import Spent, Taken
from polyvox.errors import LossError, PolyvoxError, Sent
from polyvox.transports import how_far
from polyvox.types import Answered, Attempt, Cost, Loss, Response, Usage

if TYPE_CHECKING:
    from polyvox.dialects.collect import Collector
    from polyvox.engine.call import Call

_NOTHING = Decimal(0)
_DEEP = 20  # errors behind an error; a ring of them ends here
_UNKNOWN = Spent(Usage(), Cost())


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


def let_go(error: BaseException) -> None:
    """Forget where an error was raised that nobody gets to see: its frames hold what had come of the answer, and who
    asked."""
    seen: BaseException | None = error
    for _ in range(_DEEP):
        if seen is None:
            break
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__


class Try:
    """An attempt. heard is whether the head of a streamed answer came: it may be billed. sent is whether anything of it
    may have left this machine."""

    __slots__ = (
        "admitted", "call", "collector", "deployment", "heard", "losses", "noted", "outgoing", "request", "sent",
        "started", "taken", "ticket", "waited",
    )  # fmt: skip

    def __init__(self, call: Call, deployment: Any, request: Any, waited: float, taken: Taken | None) -> None:
        self.call: Call = call
        # What is Answering the request: a Request, or what is Asked beside chats.
        self.deployment: Any = deployment
        self.request: Any = request
        self.waited: float = waited
        self.taken: Taken | None = taken
        self.started: float = call.loop.time()
        self.outgoing: Any = None
        self.losses: tuple[Loss, ...] = ()
        self.heard: bool = False
        self.admitted: bool = False
        self.sent: bool = False
        self.ticket: Any = None
        self.collector: Collector | None = None  # of what comes of a streamed answer
        self.noted: Attempt | None = None

    async def begin(self) -> Any:
        """What goes out, once the attempt is admitted. Raises where it must not be made."""
        call = self.call
        outgoing = self.encoded()
        account = call.account
        if account is not None:
            money, at_most = self.deployment.money, None
            if account.counts and money is not None:
                at_most = money.most(self.request, len(getattr(outgoing, "body", b"")))
            self.ticket = await account.admit(at_most, self.deployment)
            self.admitted = True
        self.sent = True
        return outgoing

    def encoded(self) -> Any:
        """The request as it goes out, made once a call for each deployment; raises LossError under strict."""
        made = self.call.made.get(self.deployment)
        if made is None:
            made = self.deployment.encoded(self.request, self.call.options)
            self.call.made[self.deployment] = made
        self.outgoing, self.losses = made
        if self.losses and self.call.options.strict:
            refuse_losses(self.losses)
        return self.outgoing

    # ---- when it is over ----------------------------------------------------------------------

    def note(
        self,
        outcome: str,
        error: PolyvoxError | None = None,
        answer: str | None = None,
        spent: Spent | None = _UNKNOWN,
        whole: Response | Answered | None = None,
    ) -> Attempt:
        """Put the attempt on the call's list; answer is the provider's id of the request, spent what it used and cost,
        None where nobody bills it, whole the answer itself."""
        call = self.call
        seconds = call.loop.time() - self.started
        cost = _NOTHING if spent is None else spent.cost.amount
        if error is None:
            noted = Attempt(
                self.deployment.name, seconds, outcome, None, None, "yes" if outcome == "ok" else self.out, answer,
                self.waited, cost,
            )  # fmt: skip
        else:
            noted = Attempt(
                self.deployment.name, seconds, outcome, error.message, error.status, error.sent, error.request_id,
                self.waited, cost,
            )  # fmt: skip
        self.noted = noted
        call.attempts += (noted,)
        if self.taken is not None and call.plan is not None:
            call.plan.done(self.taken, noted, None if spent is None else spent.usage, error, whole)
        return noted

    def left(self, gone: BaseException | None) -> None:
        """Somebody stopped waiting for it: gone may know that nothing had been sent."""
        if not self.heard and how_far(gone, "unknown") == "no":
            self.sent = False

    @property
    def out(self) -> Sent:
        """How much of it had left this machine, as far as is known while nothing came back."""
        return "yes" if self.heard else "unknown" if self.sent else "no"

    def spent(self, error: PolyvoxError | None, partial: Response | None = None) -> Spent | None:
        """What an attempt that failed used and cost. Who refuses in the head of an answer bills nothing, and neither
        does anybody for what was never sent."""
        if not self.sent:
            return None
        if error is not None:
            if error.sent == "no" or error.billed is False:
                return None
            if error.partial is None and error.status is not None and error.status >= 400:
                return None
            partial = error.partial
        money = self.deployment.money
        if money is None or partial is None or not self.heard:
            return _UNKNOWN
        if self.collector is not None:
            partial = self.collector.response()  # its own: what had come may be of several attempts
        return Spent(*money.begun(self.request, partial))

    async def told(self, spent: Spent | None) -> None:
        """Tell whoever keeps account what came of it."""
        if self.admitted and self.call.account is not None:
            self.admitted = False
            assert self.noted is not None
            await self.call.account.attempted(self.ticket, self.noted, spent, self.deployment)

    def dropped(self, spent: Spent | None) -> None:
        """The same, where nobody can wait."""
        if self.admitted and self.call.account is not None:
            self.admitted = False
            assert self.noted is not None
            self.call.account.dropped(self.ticket, self.noted, spent, self.deployment)
