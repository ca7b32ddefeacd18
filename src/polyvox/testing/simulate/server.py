"""The HTTP edge of a simulated provider: requests in, answers out at their pace, broken where a plan says so.
What is answered, and how that is counted, is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import threading
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec
from aiohttp import HttpVersion11, web
from msgspec import Struct

from polyvox.dialects import Dialect, Peek, Wire, dialect
from polyvox.errors import AuthError, InputError, OverloadedError, PolyvoxError, ServerError, TooLargeError
from polyvox.keys import Secret
from polyvox.testing.fault_server import Connection
from polyvox.testing.simulate.answers import Answer, Demo, plain_answer, refusal
from polyvox.testing.simulate.breaking import Case, Script, broken, cut_off, instead_of
from polyvox.testing.simulate.counts import Asked, Entry, Outcome, Tally
from polyvox.testing.simulate.embeddings import embedded, peek_embeddings
from polyvox.testing.simulate.framings import is_stream
from polyvox.testing.simulate.limits import Limits
from polyvox.testing.simulate.models_kept import Kept
from polyvox.testing.simulate.more import More, peek_more
from polyvox.testing.simulate.options import Options
from polyvox.testing.simulate.recorded import Recorded
from polyvox.testing.simulate.routes import (
    PROVIDERS,
    VERSION,
    ProviderFacts,
    Route,
    dialect_at,
    route_at,
    route_of,
)
from polyvox.transports.fault_plan import Schedule
from polyvox.transports.replay import Chunk
from polyvox.types import Failed

log: logging.Logger = logging.getLogger("polyvox.testing.simulate")

MAX_BODY = 64 << 20
_BODYLESS = frozenset({204, 304})  # answers that HTTP ends with their head
_PEEKS: dict[str, Callable[[str, Wire], Peek]] = {"embed": peek_embeddings, "more": peek_more}
_STOP_SECONDS = 1.0  # for answers to end once the server stops


class State:
    """All that a reset forgets."""

    def __init__(self, options: Options, changed: threading.Condition) -> None:
        self.tally: Tally = Tally(changed, options.keep)
        self.schedule: Schedule = Schedule(options.plan, options.seed)
        self.limits: Limits = Limits(options.rpm, options.tpm, options.concurrent)
        self.recorded: Recorded | None = None if options.records is None else Recorded(options.records)
        self.strict: bool = options.strict
        self._options = options
        self.demo: Demo = self._demo(options.models)
        self.named: tuple[str, ...] = (self.recorded or self.demo).models
        self.more: More = More(lambda: self.demo, lambda: self.known, strict=options.strict)
        self.kept: Kept = Kept(self.named, 1 / options.token_rate if options.token_rate else 0.0, self._kept_changed)

    @property
    def known(self) -> tuple[str, ...] | None:
        """The names that are answered to, which come and go with what is kept; None is any."""
        return None if self._options.models is None else self.kept.known

    def _demo(self, models: tuple[str, ...] | None) -> Demo:
        options = self._options
        return Demo(models, options.token_rate, strict=options.strict, answering=options.answering)

    def _kept_changed(self) -> None:
        self.demo = self._demo(self.known)


class _Question(Struct, frozen=True):
    """A request as it came, and all that is known of it before it is answered."""

    wire: Wire
    name: str
    room: Dialect
    facts: ProviderFacts
    asked: Peek
    entry: Entry
    state: State
    request_id: str
    begun: float
    problem: PolyvoxError | None

    def ends(self, outcome: Outcome) -> None:
        """What has become of it, unless that is known already."""
        if self.entry.asked.outcome is None:
            self.state.kept.ends(self.entry.asked.number, well=outcome == "answered")
            self.entry.ends(outcome, asyncio.get_running_loop().time() - self.begun)


class Server:
    """Serves on one port, in the event loop it is started in.

    Args:
        options: how it behaves.
        changed: notified whenever a count changes.
        on_answer: told of each request when nothing more is said to it.
    """

    def __init__(
        self, options: Options, changed: threading.Condition, on_answer: Callable[[Asked], None] | None = None
    ) -> None:
        self.options = options
        self._changed = changed
        self._on_answer = on_answer
        self.state: State = State(options, changed)
        self._stopping = asyncio.Event()
        self._scripts: set[asyncio.Task[Any]] = set()

    async def start(self) -> int:
        """Listen; the port. InputError where that cannot be."""
        # aiohttp's own access log would show what we leave out of ours.
        self._runner = web.ServerRunner(
            _Counting(
                self._handle,
                request_factory=_request,
                handler_cancellation=True,
                access_log=None,
                connected=self._connected,
            ),
            shutdown_timeout=_STOP_SECONDS,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.options.host, self.options.port)
        try:
            await site.start()
        except (OSError, UnicodeError) as error:
            await self._runner.cleanup()
            raise InputError(
                f"cannot listen on {self.options.host} port {self.options.port}: "
                f"{getattr(error, 'strerror', None) or error}",
                param="port",
                hint="choose another port, or 0 for any that is free",
            ) from None
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Accept nobody, tell those whose streams are open that they end here, and close."""
        self._stopping.set()
        for task in self._scripts:
            task.cancel()
        await self._runner.cleanup()

    def reset(self) -> None:
        """Forget all that came so far; answers that are under way count nowhere any more."""
        self.state = State(self.options, self._changed)

    def _connected(self) -> None:
        self.state.tally.connected()

    # ---- one request --------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        question = await self._question(request)
        try:
            with contextlib.ExitStack() as held:
                found = await self._reply(question, held)
                if isinstance(found, Answer):
                    return await self._send(request, found, question)
                response = await self._play(request, found)
            question.ends("broken")
            return response
        except (asyncio.CancelledError, ConnectionError):
            self._client_left(question)
            raise
        finally:
            question.ends("broken")
            self._tell(question.entry.asked)

    def _client_left(self, question: _Question) -> None:
        waits = question.entry.asked.fault in _CLIENT_MAY_LEAVE and not self._stopping.is_set()
        question.ends("cut_by_client" if waits else "broken")

    def _tell(self, asked: Asked) -> None:
        if self._on_answer is None:
            return
        try:
            self._on_answer(asked)
        except Exception:
            log.exception("on_answer failed")

    async def _question(self, request: web.BaseRequest) -> _Question:
        state, begun = self.state, asyncio.get_running_loop().time()
        headers = {name.lower(): text for name, text in request.headers.items()}
        body, problem = await _body(request)
        wire = Wire(request.rel_url.raw_path_qs, body, headers, request.method)
        name = dialect_at(wire.path, headers)
        room, route = dialect(name), route_at(wire.path)
        is_call = wire.method == "POST" and (
            state.recorded is not None or (route is not None and route.what in _MAKERS)
        )
        peek = _PEEKS.get(route.what) if route is not None else None
        asked = Peek() if not is_call else _peek(room, wire) if peek is None else peek(name, wire)
        entry = state.tally.arrived(
            is_call=is_call,
            headers=headers,
            method=wire.method,
            path=wire.path.partition("?")[0],  # what stands behind it may be a key
            dialect=name,
            model=asked.model,
            stream=asked.stream,
            body=body,
        )
        request_id = f"req_sim_{entry.asked.number:06}"
        return _Question(wire, name, room, PROVIDERS[name], asked, entry, state, request_id, begun, problem)

    async def _reply(self, question: _Question, held: contextlib.ExitStack) -> Answer | Script:
        """What is said to a request, after whatever a fault makes of it."""
        entry = question.entry
        fault, rng = None, random.Random()
        if entry.asked.call is not None:
            fault, rng = question.state.schedule.fault_for(entry.asked.call)
        if fault is not None and (instead := instead_of(fault, question.room)) is not None:
            entry.broken_by(fault.kind)
            return self._with_headers(instead, question) if isinstance(instead, Answer) else instead
        answer = self._with_headers(await self._answer(question, held), question)
        if fault is not None:
            made = broken(Case(fault, answer, question.room, question.asked, rng))
            if made is not None:
                entry.broken_by(fault.kind)
                return made
        return cut_off(answer) if answer.cut else answer

    async def _answer(self, question: _Question, held: contextlib.ExitStack) -> Answer:
        """The answer to a request, or the refusal of it; a place for it is held until its end."""
        try:
            if question.problem is not None:
                raise question.problem
            return await self._admitted(question, held)
        except PolyvoxError as error:
            problem = error
        except Exception:
            log.exception("a request was not answered")
            problem = ServerError("the simulator failed; its log says why", status=500)
        problem.request_id = question.request_id
        return refusal(question.room, problem)

    async def _admitted(self, question: _Question, held: contextlib.ExitStack) -> Answer:
        """The answer to a request that may be made; raises errors that its dialect can say."""
        state, busy = question.state, question.facts.busy
        route = _route(question)
        if route.what == "health":
            return plain_answer({"status": "ok"})
        self._check_key(question)
        if (free := _FREE.get(route.what)) is not None:
            return free(question)
        now = asyncio.get_running_loop().time()
        held.enter_context(state.limits.slot(busy))
        state.limits.take("requests", 1, busy, now)
        answer = await _made(question, route.what)
        state.limits.take("tokens", (answer.usage.input or 0) + (answer.usage.output or 0), busy, now)
        # By number, so that how calls interleave changes nothing.
        rng = random.Random(f"{self.options.seed}/latency/{question.entry.asked.call}")
        return msgspec.structs.replace(answer, wait=self.options.latency.draw(rng))

    def _check_key(self, question: _Question) -> None:
        given = _key_of(question.wire)
        keys = self.options.keys
        if keys is None:
            if given or not (self.options.demand_key and question.facts.needs_key):
                return
        elif Secret(given) in keys:
            return
        said = "the API key is not one of this server's" if given else "there is no API key"
        status, code = question.facts.denies
        raise AuthError(
            f"{said}: send one as `Authorization: Bearer KEY` or as `x-api-key: KEY`",
            status=status, code=code, type="invalid_request_error",
        )  # fmt: skip

    def _with_headers(self, answer: Answer, question: _Question) -> Answer:
        """The answer with the headers its provider puts on all of them; noted as what is answered."""
        question.entry.begins(status=answer.status, usage=answer.usage, losses=answer.losses)
        facts = question.facts
        own = {} if facts.request_id is None else {facts.request_id: question.request_id}
        limits = question.state.limits.headers(facts.limits, asyncio.get_running_loop().time(), datetime.now(UTC))
        return msgspec.structs.replace(answer, headers={"server": "polyvox", **own, **answer.headers, **limits})

    # ---- on the wire --------------------------------------------------------------------------

    async def _send(self, request: web.BaseRequest, answer: Answer, question: _Question) -> web.StreamResponse:
        """Send an answer at its pace. It is counted before its last bytes leave: whoever has them may count on it."""
        if await self._stops_within(answer.wait):
            answer = self._with_headers(refusal(question.room, _stopped()), question)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        if not answer.streamed:
            response.content_length = answer.size
        elif request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        chunks = () if request.method == "HEAD" or answer.status in _BODYLESS else answer.chunks
        if not chunks:
            question.ends(_outcome(question.entry.asked))
        await response.prepare(request)
        try:
            await self._write(request, response, answer, chunks, question)
        except ConnectionError:
            # Whoever leaves amid an answer is no fault of this server, which the one below would say it is.
            self._client_left(question)
        return response

    async def _write(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        answer: Answer,
        chunks: Sequence[Chunk],
        question: _Question,
    ) -> None:
        due = asyncio.get_running_loop().time()
        for number, chunk in enumerate(chunks, 1):
            # By the clock, so that many short pauses do not add up to more than they are.
            due += chunk.pause
            if not await self._quiet_until(due, response, answer.keep_alive):
                await self._break_off(request, response, answer, question)
                return
            if number == len(chunks):
                question.ends(_outcome(question.entry.asked))
            await response.write(chunk.data)
        await response.write_eof()

    async def _quiet_until(self, due: float, response: web.StreamResponse, keep_alive: bytes) -> bool:
        """Wait, with a word now and then where the dialect has one; False when the server stops."""
        loop = asyncio.get_running_loop()
        while (left := due - loop.time()) > self.options.keep_alive and keep_alive:
            if await self._stops_within(self.options.keep_alive):
                return False
            await response.write(keep_alive)
        return not await self._stops_within(left)

    async def _stops_within(self, seconds: float) -> bool:
        """Whether the server stops before so many seconds have passed; they have when it does not."""
        if seconds <= 0 or self._stopping.is_set():
            await asyncio.sleep(0)
            return self._stopping.is_set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    async def _break_off(
        self, request: web.BaseRequest, response: web.StreamResponse, answer: Answer, question: _Question
    ) -> None:
        """End an answer that has begun: a stream says so, another ends before its length."""
        question.ends("broken")
        if answer.streamed and is_stream(answer.headers):
            await response.write(question.room.writer(question.asked).send(Failed(_stopped())))
            await response.write_eof()
        elif request.transport is not None:
            request.transport.close()

    async def _play(self, request: web.BaseRequest, script: Script) -> web.StreamResponse:
        """Play steps on the bare connection, which ends with them."""
        transport, task = request.transport, asyncio.current_task()
        if transport is None or task is None or self._stopping.is_set():
            return _Written()
        transport.set_write_buffer_limits(0)  # so that what is sent has left before the next step breaks something
        writer = asyncio.StreamWriter(transport, request.protocol, None, asyncio.get_running_loop())
        # The other side's bytes are not read here: that it leaves cancels this task.
        connection = Connection(asyncio.StreamReader(), writer)
        self._scripts.add(task)
        try:
            for step in script:
                await step(connection)
        finally:
            self._scripts.discard(task)
        return _Written()


class _Counting(web.Server):
    """aiohttp's low-level server, which tells of each connection."""

    def __init__(self, *args: Any, connected: Callable[[], None], **facts: Any) -> None:
        super().__init__(*args, **facts)
        self._connected = connected

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._connected()


class _Written(web.StreamResponse):
    """What a handler returns when the answer has been given past HTTP: nothing more is written."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write no head."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Write no end."""


def _request(
    message: Any, payload: Any, protocol: web.RequestHandler, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY)


async def _body(request: web.BaseRequest) -> tuple[bytes, PolyvoxError | None]:
    """A request's body, or why it cannot be read."""
    if request.headers.get("expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        return await request.read(), None
    except web.HTTPRequestEntityTooLarge:
        return b"", TooLargeError(f"the request is larger than {MAX_BODY >> 20} MiB", status=413)
    except web.RequestPayloadError as error:
        return b"", InputError(f"the request's body cannot be read: {error}", code="invalid_body")


_KEY_HEADERS = ("x-api-key", "x-goog-api-key", "api-key")
_SIGNED_BY = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/,\s]+)")


def _key_of(wire: Wire) -> str:
    """The key that a request brings, wherever its dialect's clients put it; of a signed one, the name of the key."""
    said = wire.headers.get("authorization", "")
    scheme, _, bearer = said.partition(" ")
    if scheme.lower() == "bearer" and bearer.strip():
        return bearer.strip()
    if signed := _SIGNED_BY.match(said):
        return signed[1]
    found = next((wire.headers[name] for name in _KEY_HEADERS if wire.headers.get(name)), "")
    return found or parse_qs(wire.path.partition("?")[2]).get("key", [""])[0]


def _peek(room: Dialect, wire: Wire) -> Peek:
    """What a request says of itself; one that says nothing is refused later, in its turn."""
    try:
        return room.peek(wire)
    except InputError:
        return Peek()


def _route(question: _Question) -> Route:
    """What is asked. Whatever is asked of a recording may be in it; what it has counts before what is our own."""
    wire, recorded = question.wire, question.state.recorded
    if recorded is not None and (recorded.has(wire.method, wire.path) or route_at(wire.path) is None):
        return Route(wire.method, "ask")
    return route_of(wire.method, wire.path)


# ---- what is asked for -------------------------------------------------------------------------


def _models(question: _Question) -> Answer:
    names = question.state.kept.names if question.facts.keeps else question.state.named
    return plain_answer(question.facts.models(names))


def _kept(question: _Question) -> Answer:
    return question.state.kept.answer(question.wire, question.entry.asked.number)


# What needs a key, and no model: it counts towards no limit.
_FREE: dict[str, Callable[[_Question], Answer]] = {
    "version": lambda _: plain_answer(VERSION),
    "models": _models,
    "kept": _kept,
}


async def _made(question: _Question, what: str) -> Answer:
    """What a model answers: what was recorded of one, or what the offline one makes."""
    state = question.state
    if state.recorded is not None:
        return await state.recorded.answer(question.wire, question.name, question.asked)
    answer = await _MAKERS[what](question)
    if question.facts.keeps:
        state.kept.asked(question.wire)
    return answer


async def _said(question: _Question) -> Answer:
    return await question.state.demo.answer(question.wire, question.name, question.asked)


async def _embedded(question: _Question) -> Answer:
    return embedded(question.name, question.wire, question.state.known, strict=question.state.strict)


async def _more(question: _Question) -> Answer:
    return await question.state.more.answer(question.wire, question.name)


# What a model is asked for, which is what faults and limits are about.
_MAKERS: dict[str, Callable[[_Question], Awaitable[Answer]]] = {"ask": _said, "embed": _embedded, "more": _more}


def _stopped() -> PolyvoxError:
    return OverloadedError("the simulator is stopping", status=503)


# Faults that do an answer no harm: all of it comes, only not at once.
_GENTLE = frozenset({None, "delay", "drip", "split"})
# Answers that it means something to leave before their end; others end the connection themselves.
_CLIENT_MAY_LEAVE = _GENTLE | {"status", "slow_head", "first_byte_timeout", "stall", "half_close"}


def _outcome(asked: Asked) -> Outcome:
    """What has become of a request that gets all it is to get."""
    if asked.fault not in _GENTLE and asked.fault != "status":
        return "broken"
    return "refused" if asked.status is not None and asked.status >= 400 else "answered"
