"""The models that a server keeps itself: list, pull, show, load, unload, copy and delete them. One class for each face;
how the server is asked is its dialect's business, and no server is known here by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from polyvox import portal
from polyvox.catalog import Provider
from polyvox.client.access import Access
from polyvox.client.check import seconds, shown
from polyvox.client.listing import outgoing, told_by
from polyvox.client.seeking import helped
from polyvox.dialects import Reply, Wire
from polyvox.dialects.model_store import (
    KeepsModels,
    KeptModel,
    LoadedModel,
    ModelFacts,
    PullProgress,
    PullReader,
)
from polyvox.errors import (
    BadResponseError,
    CallTimeoutError,
    InputError,
    PolyvoxError,
    StreamInterruptedError,
    UsageError,
)
from polyvox.transports import Exchange, Timeouts, Transport

_SECONDS = 30.0  # for what needs no thought and no download
_LOADING = 600.0  # a large model comes slowly from a slow disk
_STALL = 180.0  # of silence in a pull; checking what has come of a large model takes a while
_LARGEST = 64 << 20
_GOES_ON = "ask again: what has come is kept, and it goes on from there"

T = TypeVar("T")


class Reached(NamedTuple):
    """A server that keeps models, how it is spoken to, and what carries the requests. connect is in seconds."""

    access: Access
    store: KeepsModels
    transport: Transport
    connect: float | None

    @property
    def row(self) -> Provider:
        """The server's row."""
        return self.access.row


class AsyncModelStore:
    """The models that one server keeps; `AsyncClient.model_store` gives it.

    Every method raises NotFoundError for a model that is not there, ConnectionFailedError where no server is, and
    what else `ask` raises. A name may be written with its provider or without.
    """

    def __init__(self, reach: Callable[[], Reached], changed: Callable[[str], None]) -> None:
        self._reach = reach
        self._changed = changed

    async def list(self) -> tuple[KeptModel, ...]:
        """The models the server has, in its order."""
        store = self._reach().store
        return await self._asked(store.listing(), store.read_listing)

    async def loaded(self) -> tuple[LoadedModel, ...]:
        """The models in the server's memory now."""
        store = self._reach().store
        return await self._asked(store.loaded(), store.read_loaded)

    async def show(self, name: str) -> ModelFacts:
        """All that the server says of a model."""
        at, name = self._named(name)
        return await self._asked(at.store.facts(name), lambda reply: at.store.read_facts(reply, name), name)

    def pull(self, name: str, *, stall: float = _STALL) -> AsyncPull:
        """Fetch a model, or what is new of it; read it to follow, or `await pull.finish()`. Nothing is sent before the
        first read. stall is the silence, in seconds, after which it is given up; in all it may take as long as it
        takes. A pull that was cut or left goes on where it was when it is asked for again.
        """
        at, name = self._named(name)
        return AsyncPull(at, name, seconds("stall", stall), lambda: self._changed(at.row.name))

    async def delete(self, name: str) -> None:
        """Delete a model from the server's disk."""
        at, name = self._named(name)
        await self._asked(at.store.delete(name), at.store.read_done, name)
        self._changed(at.row.name)

    async def copy(self, source: str, destination: str) -> None:
        """Have a model under another name too; it takes no more room."""
        at, source = self._named(source)
        await self._asked(at.store.copy(source, self._named(destination)[1]), at.store.read_done, source)
        self._changed(at.row.name)

    async def load(self, name: str, *, keep_alive: float | str | None = None) -> None:
        """Load a model before it is asked. keep_alive is how long it stays after it was last asked: seconds, or a
        duration such as "10m"; below 0 is for ever, None is as long as the server thinks right."""
        at, name = self._named(name)
        await self._asked(at.store.load(name, keep_alive), at.store.read_done, name, _LOADING)

    async def unload(self, name: str) -> None:
        """Let a model go from the server's memory, at once."""
        await self.load(name, keep_alive=0)

    def _named(self, name: str) -> tuple[Reached, str]:
        """The server, and a model's name as it knows it."""
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InputError(f"a model's name is text, not {shown(name)}", param="name")
        at, name = self._reach(), name.strip()
        for separator in "/:":
            if name.startswith(at.row.name + separator):
                name = name.removeprefix(at.row.name + separator)
                break
        if not name:
            raise InputError("no model is named", param="name", hint=f"say {at.row.name}/MODEL")
        return at, name

    async def _asked(
        self, wire: Wire, read: Callable[[Reply], T], model: str | None = None, limit: float = _SECONDS
    ) -> T:
        """What is read from the answer to a request."""
        at = self._reach()
        try:
            async with asyncio.timeout(limit):
                return read(await _reply(at, wire, Timeouts(at.connect, limit, limit)))
        except TimeoutError:
            error: PolyvoxError = CallTimeoutError(f"no whole answer within {limit:g} s", sent="unknown")
        except PolyvoxError as refusal:
            error = refusal
        _finished(error, at, model)
        raise error


async def _reply(at: Reached, wire: Wire, limits: Timeouts) -> Reply:
    exchange = await _sent(at, wire, limits)
    try:
        return Reply(exchange.status, dict(exchange.headers), await exchange.read(_LARGEST))
    finally:
        await exchange.close()


async def _sent(at: Reached, wire: Wire, limits: Timeouts) -> Exchange:
    """The answer whose head has come, which is not a refusal."""
    exchange = await at.transport.send(await outgoing(at.access, wire), limits)
    if exchange.status == 200:
        return exchange
    try:
        reply = Reply(exchange.status, dict(exchange.headers), await exchange.read(_LARGEST))
    finally:
        await exchange.close()
    if reply.status >= 400:
        raise at.store.decode_error(reply)
    raise BadResponseError(f"it answered with HTTP {reply.status}", status=reply.status, sent="yes")


def _finished(error: PolyvoxError, at: Reached, model: str | None) -> None:
    """All that an error should say."""
    told_by(at.row, error)
    error.model = model
    helped(error, at.store, at.row.name, at.row.base_url, model)


class AsyncPull:
    """A model on its way to the server: iterate for the steps, or `await finish()`.

    Leaving early: use `async with`, or call `close()`; the server then stops, and keeps what it has.
    """

    def __init__(self, at: Reached, model: str, stall: float, arrived: Callable[[], None]) -> None:
        self.model = model
        self._at = at
        self._stall = stall
        self._arrived = arrived
        self._exchange: Exchange | None = None
        self._reader: PullReader | None = None
        self._steps: list[PullProgress] = []
        self._error: PolyvoxError | None = None
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PullProgress:
        while not self._steps:
            self._steps = await self._batch()
            if not self._steps:
                raise StopAsyncIteration
        return self._steps.pop(0)

    async def finish(self) -> None:
        """Read what is left; raises what went wrong."""
        while await self._batch():
            pass

    async def close(self) -> None:
        """Cut the pull unless it has ended."""
        if not self._over and self._error is None:
            self._error = UsageError("the pull was closed before its end", hint=_GOES_ON)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _batch(self) -> list[PullProgress]:
        """The next steps, at least one; [] when the server has the whole model."""
        if self._error is not None:
            raise self._error
        if self._over:
            return []
        try:
            steps = await self._read()
        except PolyvoxError as error:
            raise await self._failed(error) from error.__cause__
        except asyncio.CancelledError:
            await self.close()
            raise
        if steps:
            return steps
        self._over = True
        await self.close()
        self._arrived()
        return []

    async def _read(self) -> list[PullProgress]:
        if self._exchange is None or self._reader is None:
            limits = Timeouts(self._at.connect, self._stall, self._stall)
            self._exchange = await _sent(self._at, self._at.store.pull(self.model), limits)
            self._reader = self._at.store.pull_reader()
        exchange, reader = self._exchange, self._reader
        while not reader.done:
            data = await exchange.chunk()
            steps = reader.feed(data) if data else reader.close()
            if steps:
                return steps
        if reader.error is not None:
            raise reader.error
        return []

    async def _failed(self, error: PolyvoxError) -> PolyvoxError:
        _finished(error, self._at, self.model)
        if isinstance(error, CallTimeoutError | StreamInterruptedError):
            error.hint = _GOES_ON
        self._error = error
        await self.close()
        return error


# ---- the sync face ----------------------------------------------------------------------------


class ModelStore:
    """The models that one server keeps, for ordinary code; `Client.model_store` gives it. See `AsyncModelStore`."""

    def __init__(self, store: AsyncModelStore) -> None:
        self._async = store

    def list(self) -> tuple[KeptModel, ...]:
        """See `AsyncModelStore.list`."""
        return portal.run(self._async.list())

    def loaded(self) -> tuple[LoadedModel, ...]:
        """See `AsyncModelStore.loaded`."""
        return portal.run(self._async.loaded())

    def show(self, name: str) -> ModelFacts:
        """See `AsyncModelStore.show`."""
        return portal.run(self._async.show(name))

    def pull(self, name: str, *, stall: float = _STALL) -> Pull:
        """See `AsyncModelStore.pull`; `pull.finish()` waits for the end."""
        return Pull(self._async.pull(name, stall=stall))

    def delete(self, name: str) -> None:
        """See `AsyncModelStore.delete`."""
        portal.run(self._async.delete(name))

    def copy(self, source: str, destination: str) -> None:
        """See `AsyncModelStore.copy`."""
        portal.run(self._async.copy(source, destination))

    def load(self, name: str, *, keep_alive: float | str | None = None) -> None:
        """See `AsyncModelStore.load`."""
        portal.run(self._async.load(name, keep_alive=keep_alive))

    def unload(self, name: str) -> None:
        """See `AsyncModelStore.unload`."""
        portal.run(self._async.unload(name))


class Pull:
    """The sync face of `AsyncPull`; each read waits on the background loop for one batch of steps."""

    def __init__(self, pull: AsyncPull) -> None:
        self._async = pull
        self._steps: list[PullProgress] = []

    @property
    def model(self) -> str:
        """The name of the model, as the server knows it."""
        return self._async.model

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> PullProgress:
        if not self._steps:
            self._steps = portal.run(self._async._batch())
        if not self._steps:
            raise StopIteration
        return self._steps.pop(0)

    def finish(self) -> None:
        """See `AsyncPull.finish`."""
        portal.run(self._async.finish())

    def close(self) -> None:
        """See `AsyncPull.close`."""
        portal.run(self._async.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
