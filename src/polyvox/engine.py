"""One call, top to bottom. The call happens once: deadline, retries, the list of attempts, hooks. The
attempt happens per try: encode, send, read, decode. It knows no dialect, provider or model by name."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import force_setattr as fill
from msgspec.structs import replace

from polyvox.deadlines import Deadlines
from polyvox.dialects import ClientSide, Endpoint, Reader, Reply
from polyvox.dialects.collect import Collector
from polyvox.dialects.errors_on_wire import request_id
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


class Pieces(Protocol):
    """A streamed answer on its way, in pieces its reader understands: bytes of a wire, or what a backend yields."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The fields of the head; names in lower case."""

    async def chunk(self) -> Any:
        """The next piece; an empty one when the answer has ended."""

    async def close(self) -> None:
        """Let go of the connection, or of the backend's iterator."""


class AnyDeployment(Protocol):
    """What can be asked: a model at a provider, or a backend. What goes out is its own business.

    timeout is the seconds a whole call may take when the caller names no other; speaks is the key of a
    request's extra that is meant for it.
    """

    name: str
    provider: str
    model: str
    timeout: float | None

    @property
    def speaks(self) -> str:
        """The key of `Request.extra` whose keys go out as they are."""

    def must_stream(self, request: Request) -> bool:
        """Whether a whole answer to this request can only be had by streaming it."""

    def encoded(self, request: Request, options: CallOptions) -> tuple[Any, tuple[Loss, ...]]:
        """The request as it goes out, and what it cannot say; raises InputError for what can never be sent."""

    async def answer(self, outgoing: Any) -> tuple[Response, str | None]:
        """A whole answer, made for this call alone, and the provider's id of the request."""

    async def open(self, outgoing: Any) -> tuple[Pieces, Reader]:
        """A streamed answer once its head has come, and the reader of its pieces."""


class Deployment:
    """A model at a provider, ready to be asked. Its headers hold credentials, so it shows its name only.

    timeout is the seconds a whole call may take when the caller names no other.
    """

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

    @property
    def speaks(self) -> str:
        """See `AnyDeployment`."""
        return self.dialect.name

    def must_stream(self, request: Request) -> bool:
        """See `AnyDeployment`."""
        return self.dialect.must_stream(request, self.endpoint)

    def encoded(self, request: Request, options: CallOptions) -> tuple[Outgoing, tuple[Loss, ...]]:
        """See `AnyDeployment`."""
        wire, losses = self.dialect.encode_request(request, self.endpoint)
        headers = {**wire.headers, **self.headers}
        if options.headers:
            headers.update(options.headers)
        return Outgoing(wire.method, self.endpoint.base_url + wire.path, headers, wire.body), losses

    async def answer(self, outgoing: Outgoing) -> tuple[Response, str | None]:
        """See `AnyDeployment`."""
        exchange = await self.transport.send(outgoing, self.timeouts)
        if not 200 <= exchange.status < 300:
            raise await self._refused(exchange)
        try:
            body = await exchange.read(MAX_BODY)
        except BaseException:
            await exchange.close()
            raise
        headers = exchange.headers
        try:
            response = self.dialect.decode_response(Reply(exchange.status, headers, body), self.endpoint)
        except PolyvoxError as error:
            error.sent = "yes"
            raise
        return response, request_id(headers)

    async def open(self, outgoing: Outgoing) -> tuple[Exchange, Reader]:
        """See `AnyDeployment`."""
        exchange = await self.transport.send(outgoing, self.timeouts)
        if 200 <= exchange.status < 300:
            return exchange, self.dialect.reader(self.endpoint)
        raise await self._refused(exchange)

    async def _refused(self, exchange: Exchange) -> PolyvoxError:
        """What a head without an answer means."""
        body, unread = b"", None
        try:
            body = await exchange.read(MAX_ERROR_BODY)
        except BadResponseError as error:
            unread = error.message  # the status still says what kind it is
        finally:
            await exchange.close()
        if exchange.status < 400:
            return BadResponseError(
                f"the server answered with a redirect (HTTP {exchange.status}), which an API call does not follow",
                status=exchange.status,
                hint="check base_url: its scheme, host and path",
                sent="yes",
            )
        refusal = self.dialect.decode_error(Reply(exchange.status, exchange.headers, body), self.endpoint)
        if unread is not None:
            refusal.message = f"the provider refused, and its words cannot be read: {unread}"
        return refusal


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


class CallOptions(Struct, frozen=True, gc=False):
    """How to make one call, beside what to ask: seconds in all, extra headers, strict."""

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
        self.hooks = tuple(hooks or ())
        self.sleep = sleep
        self.chance = chance
        self._deadlines: dict[int, Deadlines] = {}

    async def call(self, request: Request, deployment: AnyDeployment, options: CallOptions) -> Response:
        """Ask and give the whole answer; raises what went wrong, with every attempt in it."""
        if request.stream or deployment.must_stream(request):
            return await self.stream(request, deployment, options).finish()
        call = Call(self, request, deployment, options)
        call.begin()
        try:
            while True:
                call.begin_attempt()
                try:
                    response, answer = await deployment.answer(call.encoded())
                    if response.finish_reason == "error":
                        raise _gave_up(response)
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


def _gave_up(response: Response) -> PolyvoxError:
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

    def __init__(self, engine: Engine, request: Request, deployment: AnyDeployment, options: CallOptions) -> None:
        self.engine = engine
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

    def succeeded(self, response: Response, answer: str | None) -> Response:
        """The response with all that the call knows beside it."""
        self.note("ok", None, answer)
        # The response was made a moment ago for this call alone: filling it in costs less than a copy.
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


class StreamRun:
    """A call that streams: `batch` gives the next events, `finish` the whole answer. on_response is called
    with the answer when it is whole.

    Until an event shows the caller something, a failed attempt may be repeated; after that never.
    """

    __slots__ = (
        "_begun", "_call", "_collector", "_error", "_held", "_pieces", "_reader", "_seen", "on_response", "response",
    )  # fmt: skip

    def __init__(self, call: Call) -> None:
        self._call = call
        self.on_response: Callable[[Response], None] | None = None
        self._pieces: Pieces | None = None
        self._reader: Reader | None = None
        self._collector = Collector()
        self._held: list[Event] = []
        self._begun = False
        self._seen = False
        self._error: PolyvoxError | None = None
        self.response: Response | None = None

    async def batch(self) -> list[Event]:
        """The next events, as many as one read gives; [] when the stream has ended well."""
        if self._error is not None:
            raise self._error
        if self.response is not None:
            return []
        call = self._call
        if self._begun:
            call.wait()
        else:
            self._begun = True
            call.begin()
        if call.expired:
            begun = self._pieces is not None
            await self._cut()
            raise self._fail(call.out_of_time(begun))
        try:
            while True:
                try:
                    events = await self._read() if self._pieces is not None else await self._open()
                except PolyvoxError as error:
                    await self._cut()
                    await self._failed(error)
                    continue
                if events or self._over():
                    return events
        except asyncio.CancelledError:
            begun = self._pieces is not None
            await self._cut()
            if call.expired_alone():
                raise self._fail(call.out_of_time(begun)) from None
            call.note("cancelled")
            self._fail(StreamInterruptedError("the stream was cancelled", sent="yes"))
            raise
        finally:
            call.rest()

    def _over(self) -> bool:
        """Whether the stream ended well; raises what it ended with otherwise, if it did."""
        if self._error is not None:
            raise self._error
        return self.response is not None

    async def _open(self) -> list[Event]:
        self._collector = Collector()
        self._held = []
        self._call.begin_attempt()
        self._pieces, self._reader = await self._call.deployment.open(self._call.encoded())
        return await self._read()

    async def _read(self) -> list[Event]:
        """One read of the answer: the events to show now. Raises the error a Failed event carries,
        but only after the events before it were shown."""
        assert self._pieces is not None
        assert self._reader is not None
        try:
            data = await self._pieces.chunk()
        except CallTimeoutError as error:
            # Its head had come, so the stream has begun: one that stalls broke off, whatever the reason.
            raise StreamInterruptedError(error.message, sent="yes") from error
        events = self._reader.feed(data) if data else self._reader.close()
        if not events:
            return events
        add = self._collector.add
        for event in events:
            add(event)
        last = events[-1]
        if self._seen and not self._call.engine.hooks and type(last) is not Failed and type(last) is not Ended:
            return events
        return await self._shown(events, last)

    async def _shown(self, events: list[Event], last: Event) -> list[Event]:
        """What of these events the caller may see now: the first words, the end, a failure, or with hooks."""
        if type(last) is Failed:
            self._call.annotate(last.error)
        if self._call.engine.hooks:
            for event in events:
                self._call.tell("on_event", event)
        if type(last) is Failed:
            return await self._broken(events, last.error)
        if type(last) is Ended:
            await self._done()
        if self._seen:
            return events
        self._held += events
        if type(last) is not Ended and all(isinstance(event, _UNSEEN) for event in events):
            return []
        shown, self._held = self._held, []
        self._seen = True
        return shown

    async def _broken(self, events: list[Event], error: PolyvoxError) -> list[Event]:
        shown = self._held + events[:-1]
        await self._cut()
        if not self._seen and all(isinstance(event, _UNSEEN) for event in shown):
            raise error
        self._held = []
        self._seen = True
        self._call.note(error.kind, error)
        self._fail(self._call.final(error))
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
        pieces, self._pieces = self._pieces, None
        answer = None
        if pieces is not None:
            answer = request_id(pieces.headers)
            await pieces.close()
        self._call.end()
        response = self._collector.response()
        if response.finish_reason == "error":
            error = _gave_up(response)
            self._call.annotate(error)
            self._call.note(error.kind, error)
            self._fail(self._call.final(error))
        else:
            self.response = self._call.succeeded(response, answer)
            if self.on_response is not None:
                self.on_response(self.response)

    def _fail(self, error: PolyvoxError) -> PolyvoxError:
        self._call.end()
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

    def __del__(self) -> None:
        self._call.end()  # left in the middle: its deadline has nobody left to tell

    async def _cut(self) -> None:
        self._reader = None
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            await pieces.close()

    async def close(self) -> None:
        """Let go of the connection; a stream that has not ended is cut."""
        self._call.end()
        await self._cut()
        if self.response is None and self._error is None:
            if self._begun:
                self._call.note("cancelled")
            self._error = StreamInterruptedError("the stream was closed before its end", partial=self._partial())

    async def finish(self) -> Response:
        """Read to the end and give the whole answer."""
        try:
            while self.response is None:
                await self.batch()
        finally:
            await self.close()
        return self.response
