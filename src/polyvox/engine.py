"""One call, top to bottom. The call happens once: deadline, retries, the list of attempts, hooks. The
attempt happens per try: encode, send, read, decode. It knows no dialect, provider or model by name."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from polyvox.dialects import ClientSide, Endpoint, Reply
from polyvox.dialects.collect import Collector
from polyvox.errors import BadResponseError, CallTimeoutError, LossError, PolyvoxError, StreamInterruptedError
from polyvox.keys import redact
from polyvox.routing import RetryRule
from polyvox.transports import Exchange, Outgoing, Timeouts, Transport
from polyvox.types import (
    Attempt,
    Cost,
    Ended,
    Event,
    ExtraAdded,
    Failed,
    Loss,
    Request,
    Response,
    Started,
    UsageReported,
)

log = logging.getLogger("polyvox.engine")

MAX_BODY = 256 * 1024 * 1024
MAX_ERROR_BODY = 1024 * 1024
# Events that show the caller nothing: until something else comes, a broken stream can start anew.
_UNSEEN = (Started, UsageReported, ExtraAdded)


class Deployment:
    """A model at a provider, ready to be asked. Its headers hold credentials, so it shows its name only."""

    __slots__ = ("dialect", "endpoint", "headers", "model", "name", "provider", "timeout", "timeouts", "transport")

    def __init__(
        self,
        provider: str,
        model: str,
        *,
        dialect: ClientSide,
        endpoint: Endpoint,
        headers: Mapping[str, str],
        transport: Transport,
        timeouts: Timeouts,
        timeout: float | None = None,
    ) -> None:
        self.provider = provider
        self.model = model
        self.name = f"{provider}/{model}"
        self.dialect = dialect
        self.endpoint = endpoint
        self.headers = headers
        self.transport = transport
        self.timeouts = timeouts
        self.timeout = timeout

    def __repr__(self) -> str:
        return f"<Deployment {self.name}>"


class CallInfo(Struct, frozen=True):
    """What hooks see of a call: never a key, never a header."""

    request: Request
    deployment: str
    attempt: int = 0
    response: Response | None = None
    error: PolyvoxError | None = None


class Hooks(Protocol):
    """What a hook object may have; each method is optional. A hook that fails is logged and ignored."""

    def on_call(self, info: CallInfo) -> None:
        """The call begins."""

    def on_attempt(self, info: CallInfo) -> None:
        """An attempt begins."""

    def on_event(self, event: Event) -> None:
        """A stream event passes."""

    def on_done(self, info: CallInfo) -> None:
        """The call ended, with a response or an error."""


class CallOptions(Struct, frozen=True):
    """How to make one call, beside what to ask: seconds in all, extra headers, extra body keys, strict."""

    timeout: float | None = None
    headers: Mapping[str, str] = {}
    strict: bool = False


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
        self.hooks = tuple(hooks)
        self.sleep = sleep
        self.chance = chance

    async def call(self, request: Request, deployment: Deployment, options: CallOptions) -> Response:
        """Ask and give the whole answer; raises what went wrong, with every attempt in it."""
        if request.stream or deployment.dialect.must_stream(request, deployment.endpoint):
            return await self.stream(request, deployment, options).finish()
        call = Call(self, request, deployment, options)
        try:
            if options.timeout is None:
                return await self._tries(call)
            async with asyncio.timeout_at(call.deadline):
                return await self._tries(call)
        except TimeoutError as error:
            raise call.out_of_time() from error
        except asyncio.CancelledError:
            call.note("cancelled")
            raise

    async def _tries(self, call: Call) -> Response:
        while True:
            call.begin_attempt()
            try:
                response = await call.attempt()
            except PolyvoxError as error:
                await call.failed(error)
            else:
                return call.succeeded(response)

    def stream(self, request: Request, deployment: Deployment, options: CallOptions) -> StreamRun:
        """Ask for a stream; nothing is sent before its first `batch`."""
        if not request.stream:
            request = replace(request, stream=True)
        return StreamRun(Call(self, request, deployment, options))


class Call:
    """The state of one call: its attempts so far, its deadline, its hooks."""

    __slots__ = (
        "attempts",
        "deadline",
        "deployment",
        "engine",
        "loop",
        "losses",
        "options",
        "outgoing",
        "request",
        "started",
        "waited",
    )  # fmt: skip

    def __init__(self, engine: Engine, request: Request, deployment: Deployment, options: CallOptions) -> None:
        self.engine = engine
        self.request = request
        self.deployment = deployment
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.deadline = None if options.timeout is None else self.loop.time() + options.timeout
        self.attempts: list[Attempt] = []
        self.losses: tuple[Loss, ...] = ()
        self.outgoing: Outgoing | None = None
        self.started = 0.0
        self.waited = 0.0
        if engine.hooks:
            self.tell("on_call", CallInfo(request, deployment.name))

    # ---- one attempt --------------------------------------------------------------------------

    def encoded(self) -> Outgoing:
        """The request as bytes, made once a call; raises LossError under strict."""
        if self.outgoing is None:
            deployment = self.deployment
            wire, self.losses = deployment.dialect.encode_request(self.request, deployment.endpoint)
            if self.losses and self.options.strict:
                self._refuse_losses()
            headers = {**wire.headers, **deployment.headers, **self.options.headers}
            self.outgoing = Outgoing(wire.method, deployment.endpoint.base_url + wire.path, headers, wire.body)
        return self.outgoing

    def _refuse_losses(self) -> None:
        lost = [loss for loss in self.losses if loss.severity == "loss"]
        if lost:
            what = "; ".join(f"{loss.field}: {loss.why}" for loss in lost)
            raise LossError(
                f"strict: the request says what this model's protocol cannot: {what}",
                hint="leave it out, choose another model, or drop strict to go on without it",
                losses=tuple(lost),
            )

    def begin_attempt(self) -> None:
        """Note the time, tell the hooks."""
        self.started = self.loop.time()
        if self.engine.hooks:
            self.tell("on_attempt", CallInfo(self.request, self.deployment.name, len(self.attempts) + 1))

    async def attempt(self) -> Response:
        """One try at a whole answer."""
        deployment = self.deployment
        exchange = await self.send()
        try:
            body = await exchange.read(MAX_BODY)
        finally:
            await exchange.close()
        response = deployment.dialect.decode_response(
            Reply(exchange.status, exchange.headers, body), deployment.endpoint
        )
        if response.finish_reason == "error":
            raise self._gave_up(response)
        return response

    async def send(self) -> Exchange:
        """Send the request; give the exchange once its head says that an answer follows."""
        deployment = self.deployment
        exchange = await deployment.transport.send(self.encoded(), deployment.timeouts)
        if 200 <= exchange.status < 300:
            return exchange
        try:
            body = await exchange.read(MAX_ERROR_BODY)
        finally:
            await exchange.close()
        if exchange.status < 400:
            raise BadResponseError(
                f"the server answered with a redirect (HTTP {exchange.status}), which an API call does not follow",
                status=exchange.status,
                hint="check base_url: its scheme, host and path",
                sent="yes",
            )
        raise deployment.dialect.decode_error(Reply(exchange.status, exchange.headers, body), deployment.endpoint)

    def _gave_up(self, response: Response) -> PolyvoxError:
        """The model itself reports that it failed: an error with the partial answer, not an answer."""
        reason = response.raw_finish_reason or "error"
        return StreamInterruptedError(
            f"the provider broke the answer off ({reason})", sent="yes", partial=replace(response, complete=False)
        )

    # ---- outcomes -----------------------------------------------------------------------------

    def note(self, outcome: str, error: PolyvoxError | None = None, request_id: str | None = None) -> None:
        """Put the attempt that just ended on the list."""
        self.attempts.append(
            Attempt(
                self.deployment.name,
                round(self.loop.time() - self.started, 6),
                outcome,
                error.message if error else None,
                error.status if error else None,
                error.sent if error else "yes",
                error.request_id if error else request_id,
                self.waited,
            )
        )

    def succeeded(self, response: Response) -> Response:
        """The response with all that the call knows beside it."""
        self.note("ok")
        cost = response.usage.cost
        response = replace(
            response,
            provider=self.deployment.provider,
            deployment=self.deployment.name,
            attempts=tuple(self.attempts),
            losses=self.losses,
            cost=response.cost if cost is None else Cost(cost, source="provider"),
        )
        if self.engine.hooks:
            self.tell("on_done", CallInfo(self.request, self.deployment.name, len(self.attempts), response))
        return response

    async def failed(self, error: PolyvoxError) -> None:
        """Wait for the next try, or raise the error when there must be none."""
        self.annotate(error)
        self.note(error.kind, error)
        left = None if self.deadline is None else self.deadline - self.loop.time()
        delay = self.engine.rule.wait(error, len(self.attempts), self.engine.chance(), left)
        if delay is None:
            raise self.final(error)
        self.waited = round(delay, 6)
        log.info("%s: %s; next try in %.2f s", self.deployment.name, error.kind, delay)
        await self.engine.sleep(delay)

    def annotate(self, error: PolyvoxError) -> None:
        """Say where it happened, and take out anything secret a provider echoed."""
        error.provider = error.provider or self.deployment.provider
        error.model = error.model or self.deployment.model
        error.message = redact(error.message)
        error.args = (error.message,)

    def final(self, error: PolyvoxError) -> PolyvoxError:
        """The error as the caller gets it: with every attempt, and the hooks told."""
        error.attempts = tuple(self.attempts)
        if self.engine.hooks:
            self.tell("on_done", CallInfo(self.request, self.deployment.name, len(self.attempts), error=error))
        return error

    def out_of_time(self) -> PolyvoxError:
        """The deadline ran out."""
        error = CallTimeoutError(
            f"no answer within {self.options.timeout:g} s in all",
            hint="give it longer with timeout=SECONDS, or stream",
            sent="unknown" if self.outgoing else "no",
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
            except Exception:  # a user's hook may raise anything
                log.warning("hook %s.%s failed", type(hook).__name__, moment, exc_info=True)


class StreamRun:
    """A call that streams: `batch` gives the next events, `finish` the whole answer.

    Until an event shows the caller something, a failed attempt may be repeated; after that never.
    """

    __slots__ = ("_call", "_collector", "_error", "_exchange", "_expired", "_held", "_reader", "_seen", "_task",
                 "_timer", "response")  # fmt: skip

    def __init__(self, call: Call) -> None:
        self._call = call
        self._exchange: Exchange | None = None
        self._reader: Any = None
        self._collector = Collector()
        self._held: list[Event] = []
        self._seen = False
        self._error: PolyvoxError | None = None
        self._expired = False
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.response: Response | None = None

    async def batch(self) -> list[Event]:
        """The next events, as many as one read gives; [] when the stream has ended well."""
        if self._error is not None:
            raise self._error
        if self.response is not None:
            return []
        if self._timer is None and self._call.deadline is not None:
            self._timer = self._call.loop.call_at(self._call.deadline, self._expire)
        self._task = asyncio.current_task()
        try:
            return await self._next()
        except asyncio.CancelledError:
            await self._cut()
            if self._expired and self._task is not None and self._task.uncancel() == 0:
                raise self._fail(self._call.out_of_time()) from None
            self._call.note("cancelled")
            self._error = StreamInterruptedError("the stream was cancelled", partial=self._partial())
            raise
        finally:
            self._task = None

    async def _next(self) -> list[Event]:
        while True:
            try:
                if self._exchange is None:
                    await self._open()
                events = await self._read()
            except PolyvoxError as error:
                await self._cut()
                await self._failed(error)
                continue
            if events:
                return events
            if self._error is not None:
                raise self._error
            if self.response is not None:
                return []

    async def _open(self) -> None:
        self._collector = Collector()
        self._held = []
        self._call.begin_attempt()
        self._exchange = await self._call.send()
        self._reader = self._call.deployment.dialect.reader(self._call.deployment.endpoint)

    async def _read(self) -> list[Event]:
        """One read from the wire: the events to show now. Raises the error a Failed event carries,
        but only after the events before it were shown."""
        assert self._exchange is not None
        data = await self._exchange.chunk()
        events: list[Event] = self._reader.feed(data) if data else self._reader.close()
        if not events:
            return events
        add = self._collector.add
        for event in events:
            add(event)
        last = type(events[-1])
        if last is Failed:
            self._call.annotate(events[-1].error)  # type: ignore[attr-defined]
        if self._call.engine.hooks:
            for event in events:
                self._call.tell("on_event", event)
        if last is Failed:
            return await self._broken(events)
        if last is Ended:
            await self._done()
        if self._seen:
            return events
        self._held += events
        if last is not Ended and all(isinstance(event, _UNSEEN) for event in events):
            return []
        shown, self._held = self._held, []
        self._seen = True
        return shown

    async def _broken(self, events: list[Event]) -> list[Event]:
        failed = events[-1]
        assert isinstance(failed, Failed)
        shown = self._held + events[:-1]
        await self._cut()
        if not self._seen and all(isinstance(event, _UNSEEN) for event in shown):
            raise failed.error
        self._held = []
        self._seen = True
        self._call.note(failed.error.kind, failed.error)
        self._fail(self._call.final(failed.error))
        return shown

    async def _failed(self, error: PolyvoxError) -> None:
        if self._seen:
            self._call.annotate(error)
            self._call.note(error.kind, error)
            raise self._fail(self._call.final(error))
        try:
            await self._call.failed(error)
        except PolyvoxError as final:
            raise self._fail(final) from None

    async def _done(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.close()
        self._stop_timer()
        response = self._collector.response()
        if response.finish_reason == "error":
            error = self._call._gave_up(response)
            self._call.annotate(error)
            self._call.note(error.kind, error)
            self._fail(self._call.final(error))
        else:
            self.response = self._call.succeeded(response)

    def _fail(self, error: PolyvoxError) -> PolyvoxError:
        self._stop_timer()
        error.partial = error.partial or self._partial()
        self._error = error
        return error

    def _partial(self) -> Response:
        return replace(
            self._collector.response(),
            provider=self._call.deployment.provider,
            deployment=self._call.deployment.name,
            losses=self._call.losses,
            complete=False,
        )

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def _cut(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.close()

    async def close(self) -> None:
        """Let go of the connection; a stream that has not ended is cut."""
        self._stop_timer()
        await self._cut()
        if self.response is None and self._error is None:
            self._call.note("cancelled")
            self._error = StreamInterruptedError("the stream was closed before its end", partial=self._partial())

    async def finish(self) -> Response:
        """Read to the end and give the whole answer."""
        try:
            while await self.batch():
                pass
            # A batch that holds the end is not empty; the answer is there, or the next batch raises.
            while self.response is None:
                await self.batch()
        finally:
            await self.close()
        return self.response
