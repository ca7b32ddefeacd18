"""Deployments that answer under virtual time, as quickly, as badly and as dearly as their manner says: all of it from
one seed. Each remembers what it did, so that what a caller was told can be held against it. They know no wire."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple

from msgspec import UNSET, Struct

from polyvox.dialects import Reader
from polyvox.engine import CallOptions
from polyvox.errors import (
    BadResponseError,
    CallTimeoutError,
    ContextLengthError,
    InvalidRequestError,
    PolyvoxError,
    RateLimitError,
    Sent,
    ServerError,
    StreamInterruptedError,
    of_kind,
)
from polyvox.testing.virtual import Virtual
from polyvox.testing.weather import TROUBLES, Conditions, Latency, LogNormal, Weather, one_of
from polyvox.types import (
    Cost,
    Ended,
    Event,
    Failed,
    FinishReason,
    Loss,
    Message,
    Request,
    Response,
    Started,
    Text,
    TextDelta,
    Usage,
    UsageReported,
)


class Failure(NamedTuple):
    """A failure before an answer begins: its kind, what is known of it, and whether it comes at once, after as long as
    a first token takes, or after a time limit of so many seconds."""

    kind: str
    facts: Mapping[str, Any]
    after: float | None = 0.0


FAILURES: Mapping[str, Failure] = {
    "connection": Failure("connection", {"sent": "no"}),
    "connect_timeout": Failure("timeout", {"sent": "no"}, 5.0),
    "reset": Failure("connection", {"sent": "yes"}, None),
    "first_byte_timeout": Failure("timeout", {"sent": "yes"}, 120.0),
    "server": Failure("server", {"status": 500, "sent": "yes"}, None),
    "overloaded": Failure("overloaded", {"status": 529, "sent": "yes"}),
    "asks_to_wait": Failure("overloaded", {"status": 503, "sent": "yes", "retry_after": 3.0}),
    "rate_limit": Failure("rate_limit", {"status": 429, "sent": "yes"}),
    "stop_trying": Failure("server", {"status": 500, "sent": "yes", "retryable": False}),
    "auth": Failure("auth", {"status": 401, "sent": "yes", "billed": False}),
    "permission": Failure("permission", {"status": 403, "sent": "yes", "billed": False}),
    "not_found": Failure("not_found", {"status": 404, "sent": "yes", "billed": False}),
    "billing": Failure("billing", {"status": 402, "sent": "yes", "billed": False}),
    "quota": Failure("quota", {"status": 429, "sent": "yes", "billed": False}),
    "conflict": Failure("conflict", {"status": 409, "sent": "yes"}),
    "invalid_request": Failure("invalid_request", {"status": 400, "sent": "yes", "billed": False}),
    "content_policy": Failure("content_policy", {"status": 400, "sent": "yes"}, None),
    "bad_response": Failure("bad_response", {"status": 200, "sent": "yes"}, None),
}
"""How a call can fail in the head, by the names that `Conditions.errors` uses."""

_NOTHING: Mapping[str, str] = {}


class Manner(Struct, frozen=True):
    """How a simulated deployment is.

    Attributes:
        first: seconds until the first token; per_second: tokens a second from there on.
        weather: what goes wrong, and when.
        answer: the fewest and the most tokens of an answer; chunk is how many come in one piece of a stream.
        context: the most tokens of a request and its answer; None where there is no end to it.
        takes_prefill: whether the last message may be the assistant's.
        only_streams: whether a whole answer can only be had by streaming it.
        loses: whether it cannot be told the seed of a request, which is a loss.
        silent: the share of answers that tell no usage.
        prices: USD a token of input and of output; None where nobody knows.
        first_byte, idle: seconds that its transport waits for an answer to begin and to go on.
    """

    first: Latency = LogNormal()
    per_second: float = 50.0
    weather: Weather = Weather()
    answer: tuple[int, int] = (1, 60)
    chunk: int = 8
    context: int | None = None
    takes_prefill: bool = True
    only_streams: bool = False
    loses: bool = False
    silent: float = 0.0
    prices: tuple[Decimal, Decimal] | None = None
    first_byte: float = 120.0
    idle: float = 60.0


def tokens_of(request: Request) -> int:
    """How many tokens a simulated provider counts in a request: one for four characters."""
    return 1 + sum(len(part.text) for message in request.messages for part in message.parts if type(part) is Text) // 4


class Going(NamedTuple):
    """What goes out: the request, and who asks it."""

    request: Request
    caller: str


class Served:
    """What a deployment did for one attempt. begun and over are seconds of the run; told is how many tokens it sent of
    how many; fate is None while it goes on, then "whole", "closed", "dropped", "cancelled", or what it failed with.
    open is whether a stream was handed out that nobody has closed. kind, sent, retryable and wish are its error's; the
    error itself would hold whoever waited for it.
    """

    __slots__ = (
        "begun", "caller", "fate", "kind", "name", "number", "open", "over", "retryable", "sent", "tokens", "told",
        "wish",
    )  # fmt: skip

    def __init__(self, name: str, number: int, caller: str, begun: float) -> None:
        self.name: str = name
        self.number: int = number
        self.caller: str = caller
        self.begun: float = begun
        self.over: float | None = None
        self.fate: str | None = None
        self.kind: str | None = None
        self.sent: Sent | None = None
        self.retryable: bool = False
        self.wish: float | None = None
        self.tokens: int = 0
        self.told: int = 0
        self.open: bool = False

    def words(self, start: int, end: int) -> str:
        """These of its tokens; none is another attempt's, or comes twice."""
        mark = f"{self.name}:{self.number}"
        return "".join([f"{mark}.{token} " for token in range(start, end)])

    @property
    def text(self) -> str:
        """All that it sent."""
        return self.words(0, self.told)

    @property
    def whole(self) -> str:
        """All that it meant to send."""
        return self.words(0, self.tokens)


class SimulatedMoney:
    """What a simulated deployment costs; see `engine.contract.Money`."""

    __slots__ = ("_input", "_longest", "_output")

    def __init__(self, prices: tuple[Decimal, Decimal], longest: int) -> None:
        self._input, self._output = prices
        self._longest = longest

    def bill(self, request: Any, answer: Any) -> Cost:
        """See `engine.contract.Money`."""
        usage = answer.usage
        return Cost() if usage.input is None or usage.output is None else self._cost(usage.input, usage.output)

    def most(self, request: Any, bytes_out: int) -> Decimal | None:
        """See `engine.contract.Money`."""
        return self._cost(tokens_of(request), self._longest).amount

    def begun(self, request: Any, partial: Response) -> tuple[Usage, Cost]:
        """See `engine.contract.Money`."""
        usage = Usage(input=tokens_of(request), output=partial.text.count(" "), source="estimated")
        return usage, self.bill(request, Response(partial.message, usage=usage))

    def _cost(self, input: int, output: int) -> Cost:
        return Cost(input * self._input + output * self._output, source="catalog")


class SimulatedDeployment:
    """A deployment that answers as its manner says; see `engine.AnyDeployment`. served is what it did, in order, and
    busy how many calls it is answering. The caller of an attempt is the session of its call."""

    provider = "simulated"
    operation = "chat"
    speaks = "simulated"
    timeout: float | None = None

    def __init__(self, name: str, virtual: Virtual, manner: Manner | None = None) -> None:
        self.model = name
        self.name: str = f"{self.provider}/{name}"
        self.manner: Manner = manner or Manner()
        self.money: SimulatedMoney | None = None
        if self.manner.prices is not None:
            self.money = SimulatedMoney(self.manner.prices, self.manner.answer[1])
        self.served: list[Served] = []
        self.busy = 0
        self._virtual = virtual
        self._chance: Random | None = None
        self._room = float(self.manner.weather.usual.burst)
        self._filled = 0.0

    def __repr__(self) -> str:
        return f"<SimulatedDeployment {self.name}>"

    # ---- as the engine sees it ----------------------------------------------------------------

    def must_stream(self, request: Request) -> bool:
        """See `AnyDeployment`."""
        return self.manner.only_streams

    def encoded(self, request: Request, options: CallOptions) -> tuple[Going, tuple[Loss, ...]]:
        """See `Answering`."""
        lost = self.manner.loses and request.seed is not UNSET
        return Going(request, options.who.session or ""), (Loss("seed", "not here"),) if lost else ()

    async def answer(self, outgoing: Going) -> tuple[Response, str | None]:
        """See `Answering`."""
        attempt = self._begin(outgoing)
        try:
            await attempt.head()
            return await attempt.rest()
        except BaseException as error:
            attempt.fail(error)
            raise

    async def open(self, outgoing: Going) -> tuple[SimulatedPieces, Reader]:
        """See `AnyDeployment`."""
        attempt = self._begin(outgoing)
        try:
            await attempt.head()
        except BaseException as error:
            attempt.fail(error)
            raise
        attempt.served.open = True
        return SimulatedPieces(attempt), self.reader()

    def reader(self) -> Reader:
        """The reader of one streamed answer."""
        return SimulatedReader()

    # ---- inside -------------------------------------------------------------------------------

    def _begin(self, outgoing: Going) -> _Attempt:
        if self._chance is None:
            self._chance = self._virtual.draw(self.name)
        now = self._virtual.now()
        served = Served(self.model, len(self.served) + 1, outgoing.caller, now)
        self.served.append(served)
        self._virtual.trace.note(f"{served.caller} asks {self.model}, attempt {served.number}")
        conditions = self.manner.weather.at(now)
        error, after = self._refusal(outgoing.request, conditions, now)
        return _Attempt(self, served, outgoing.request, conditions, error, after)

    def _refusal(
        self, request: Request, conditions: Conditions, now: float
    ) -> tuple[PolyvoxError | None, float | None]:
        """Why it will not answer, and after how many seconds it says so; None is as long as a first token takes."""
        manner = self.manner
        if conditions.per_second is not None:
            wait = self._full(conditions.per_second, conditions.burst, now)
            if wait is not None:
                wish = wait if conditions.tells else None
                return RateLimitError("too many requests", status=429, sent="yes", retry_after=wish), 0.05
        if manner.context is not None and tokens_of(request) + manner.answer[1] > manner.context:
            return ContextLengthError("too long", status=400, sent="yes", billed=False), 0.1
        if not manner.takes_prefill and request.messages and request.messages[-1].role == "assistant":
            return InvalidRequestError("no prefill here", status=400, sent="yes", billed=False), 0.1
        found = one_of(conditions.errors, self.draw())
        if found is None:
            return None, None
        failure = FAILURES[found]
        return of_kind(failure.kind, f"simulated: {found}", **failure.facts), failure.after

    def _full(self, per_second: float, burst: int, now: float) -> float | None:
        """Take room for one request; the seconds until there is some where there is none."""
        self._room = min(float(burst), self._room + (now - self._filled) * per_second)
        self._filled = now
        if self._room < 1.0:
            return (1.0 - self._room) / per_second
        self._room -= 1.0
        return None

    def draw(self) -> float:
        """A number in [0, 1)."""
        assert self._chance is not None
        return self._chance.random()

    def draw_first(self) -> float:
        """Seconds until a first token."""
        assert self._chance is not None
        return self.manner.first.draw(self._chance, self.busy)

    def now(self) -> float:
        """Seconds since the run began."""
        return self._virtual.now()

    def note(self, line: str) -> None:
        """Write a line of the run's trace."""
        self._virtual.trace.note(line)


class _Attempt:
    """One attempt while it is answered: what will happen is drawn when it begins."""

    __slots__ = ("at", "due", "error", "input", "pace", "reason", "served", "trouble", "trouble_at", "usage")

    def __init__(
        self,
        at: SimulatedDeployment,
        served: Served,
        request: Request,
        conditions: Conditions,
        error: PolyvoxError | None,
        after: float | None,
    ) -> None:
        self.at: SimulatedDeployment = at
        self.served: Served = served
        self.error: PolyvoxError | None = error
        manner, now = at.manner, served.begun
        first = at.draw_first() * conditions.slow if after is None else after
        at.busy += 1
        least, most = manner.answer
        tokens = least + int(at.draw() * (most + 1 - least))
        self.reason: FinishReason = "stop"
        if request.max_tokens is not UNSET and tokens > request.max_tokens:
            tokens, self.reason = request.max_tokens, "length"
        served.tokens = tokens
        if error is None and first > manner.first_byte:
            first = manner.first_byte
            self.error = CallTimeoutError("no first byte", sent="yes")
        self.due: float = now + first
        self.pace: float = conditions.slow / manner.per_second
        self.trouble = one_of(conditions.troubles, at.draw())
        # Before anything, before the first words, after any of them, or where only the end was missing.
        self.trouble_at: int = int(at.draw() * (tokens + 2)) - 1
        self.input: int = tokens_of(request)
        self.usage: Usage = Usage() if at.draw() < manner.silent else Usage(
            input=self.input, output=tokens, total=self.input + tokens, source="provider"
        )  # fmt: skip

    async def until(self, due: float) -> None:
        """Wait until it is this time of the run."""
        left = due - self.at.now()
        if left > 0:
            await asyncio.sleep(left)

    async def head(self) -> None:
        """The head of the answer, or what comes in its place."""
        await self.until(self.due)
        if self.error is not None:
            raise self._taken()

    def _taken(self) -> PolyvoxError:
        """The error, which is kept no longer: it will hold whoever waits for it."""
        error, self.error = self.error, None
        assert error is not None
        self.trouble = None
        return error

    async def rest(self) -> tuple[Response, str]:
        """The whole answer at once."""
        served = self.served
        if self.trouble is not None:
            await self.until(self.due + max(0, self.trouble_at) * self.pace)
            if self.trouble != "gave_up":
                raise await self.broken()
            self.reason = "error"
        await self.until(self.due + served.tokens * self.pace)
        served.told = served.tokens
        text = served.whole
        answer = Response(
            Message("assistant", (Text(text),)), self.reason, self.reason, usage=self.usage, model=served.name
        )
        self.end("gave_up" if self.reason == "error" else "whole")
        return answer, f"{served.name}-{served.number}"

    async def broken(self) -> PolyvoxError:
        """What an answer that has begun fails with."""
        if self.trouble == "stall":
            await asyncio.sleep(self.at.manner.idle)
            return CallTimeoutError("nothing more came", sent="yes")
        if self.trouble == "bad_chunk":
            return BadResponseError("a damaged piece", sent="yes")
        if self.trouble == "error_event":
            return ServerError("the provider failed in the middle", status=200, sent="yes")
        return StreamInterruptedError("it ended without its end", sent="yes")

    def fail(self, error: BaseException) -> None:
        """It ended with this."""
        if isinstance(error, PolyvoxError):
            served = self.served
            served.kind, served.sent, served.retryable = error.kind, error.sent, error.retryable
            served.wish = error.retry_after
            self.end(self.trouble or error.kind)
        else:
            self.end("cancelled" if isinstance(error, asyncio.CancelledError) else "dropped")

    def end(self, fate: str) -> None:
        """It is over; once."""
        served = self.served
        if served.fate is None:
            served.fate, served.over = fate, self.at.now()
            self.at.busy -= 1
            self.at.note(f"{served.caller} has {fate} of {served.name}, attempt {served.number}, {served.told} tokens")


class _Damage(NamedTuple):
    """A piece of a stream that nobody can read, or an error in the place of a piece."""

    error: PolyvoxError


class SimulatedPieces:
    """A streamed answer on its way; see `engine.Pieces`. A piece is a tuple of events, or damage."""

    __slots__ = ("__weakref__", "_attempt", "_started", "headers")

    def __init__(self, attempt: _Attempt) -> None:
        self._attempt = attempt
        self._started = False
        served = attempt.served
        self.headers: Mapping[str, str] = {"x-request-id": f"{served.name}-{served.number}"}

    async def chunk(self) -> tuple[Event, ...] | _Damage:
        """See `Pieces`."""
        attempt = self._attempt
        try:
            return await self._next(attempt, attempt.served)
        except BaseException as error:
            attempt.fail(error)
            raise

    async def _next(self, attempt: _Attempt, served: Served) -> tuple[Event, ...] | _Damage:
        if served.fate is not None:
            return ()
        troubled = attempt.trouble is not None and attempt.trouble != "gave_up"
        if troubled and attempt.trouble_at < 0 and not self._started:
            return await self._trouble(attempt)
        if not self._started:
            self._started = True
            return (Started(f"{served.name}-{served.number}", served.name),)
        start, end = served.told, min(served.tokens, served.told + attempt.at.manner.chunk)
        if troubled:
            end = min(end, max(0, attempt.trouble_at))
        # A slow reader finds what came in the meantime, and makes nothing slower.
        await attempt.until(attempt.due + end * attempt.pace)
        if end > start:
            served.told = end
            return (TextDelta(served.words(start, end)),)
        if troubled:
            return await self._trouble(attempt)
        reason: FinishReason = "error" if attempt.trouble == "gave_up" else attempt.reason
        attempt.end("gave_up" if reason == "error" else "whole")
        return (*((UsageReported(attempt.usage),) if attempt.usage.input is not None else ()), Ended(reason, reason))

    async def _trouble(self, attempt: _Attempt) -> tuple[Event, ...] | _Damage:
        if attempt.trouble == "stall":
            raise await attempt.broken()
        error = await attempt.broken()
        attempt.fail(error)
        return () if attempt.trouble == "cut" else _Damage(error)

    async def close(self) -> None:
        """See `Pieces`."""
        self._attempt.served.open = False
        self._attempt.end("closed")

    def __del__(self) -> None:
        self._attempt.end("dropped")


class SimulatedReader:
    """Reads what simulated pieces are; see `dialects.Reader`."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done: bool = False

    def feed(self, data: Any) -> list[Event]:
        """See `Reader`."""
        if self.done:
            return []
        if isinstance(data, _Damage):
            self.done = True
            return [Failed(data.error)]
        events = list(data)
        self.done = type(events[-1]) is Ended
        return events

    def close(self) -> list[Event]:
        """See `Reader`."""
        if self.done:
            return []
        self.done = True
        return [Failed(StreamInterruptedError("it ended without its end", sent="yes"))]


__all__ = [
    "FAILURES", "TROUBLES", "Failure", "Manner", "Served", "SimulatedDeployment", "SimulatedMoney", "SimulatedPieces",
    "SimulatedReader", "tokens_of",
]  # fmt: skip
