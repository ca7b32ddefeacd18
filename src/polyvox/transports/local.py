"""A model file on this machine, run in this process by llama.cpp: it answers Chat Completions and embeddings as a
server would, without one to start. It knows where model files lie, and nothing of retries, keys or prices.

The engine is xllamacpp's in-process server (extra `local`). It listens on a loopback port that nobody can switch off;
a key that is made anew for every engine and told to nobody keeps that port shut. A child forked after a model was
loaded must end by os._exit, as multiprocessing's do: the engine's own clean-up waits for threads it has not.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import secrets
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from polyvox.dialects import Endpoint, Peek, Reply, Wire, client_object, decode_json, dialect, encode_json, snippet
from polyvox.dialects.collect import Collector
from polyvox.errors import (
    BadResponseError,
    CallTimeoutError,
    InputError,
    InvalidRequestError,
    MissingExtraError,
    NotFoundError,
    PolyvoxError,
    ServerError,
    StreamInterruptedError,
    UsageError,
)
from polyvox.transports import Outgoing, Timeouts
from polyvox.types import Failed

_DIALECT = "openai.chat"
_SUFFIX = ".gguf"
_DONE = b"data: [DONE]\n\n"
EXIT_SECONDS = 5.0  # how long the end of the program waits for an answer to stop; a long prompt is read in one go


def models_folder(env: Mapping[str, str] | None = None) -> Path:
    """Where model files are looked for by name: "models" in $POLYVOX_HOME, else in the platform's folder for data."""
    env = os.environ if env is None else env
    if env.get("POLYVOX_HOME"):
        return Path(env["POLYVOX_HOME"]).expanduser() / "models"
    data = Path(env.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_DATA_HOME", ""))
    # The XDG specification has relative paths ignored.
    return (data if data.is_absolute() else Path.home() / ".local" / "share") / "polyvox" / "models"


class LocalTransport:
    """Answers `/chat/completions`, `/embeddings` and `/models` from model files.

    A model is named by its file in the folder, with or without ".gguf", or by a path that begins with "/", "~" or ".".
    It is loaded when it is first asked, once however many ask, and let go of by `close`.

    Args:
        folder: where models are looked for by name; see `models_folder`.
        context: tokens of prompt and answer together; 0 for what the model was made for and memory holds.
        parallel: how many calls one model answers at once; more of them wait.
    """

    def __init__(self, folder: str | Path | None = None, *, context: int = 0, parallel: int = 4) -> None:
        if context < 0 or parallel < 1:
            raise InputError("context must be at least 0 and parallel at least 1", param="context")
        self._folder = models_folder() if folder is None else Path(folder)
        self._context = context
        self._parallel = parallel
        self._engines: dict[tuple[str, bool], _Engine] = {}
        self._runs: weakref.WeakSet[_Run] = weakref.WeakSet()
        self._closed = False

    async def send(self, outgoing: Outgoing, timeouts: Timeouts) -> LocalExchange:
        """Begin to answer, and wait for the first words.

        Raises NotFoundError or InputError for a model that is not there or cannot be loaded, MissingExtraError,
        CallTimeoutError, and UsageError once closed.
        """
        if self._closed:
            raise UsageError("this transport is closed", hint="make a new one, or close it later", sent="no")
        wire = Wire(urlsplit(outgoing.url).path, outgoing.body, outgoing.headers, outgoing.method)
        if wire.method == "GET" and wire.path.endswith("/models"):
            return LocalExchange.of_reply(Reply(200, _JSON, encode_json(self._listed())))
        route = next((route for path, route in _ROUTES if wire.path.endswith(path)), None)
        if route is None or wire.method != "POST":
            error = NotFoundError(f"a model file has no answer to {wire.method} {wire.path}", code="unknown_url")
            return LocalExchange.of_reply(dialect(_DIALECT).encode_error(error))
        try:
            body, asked = client_object(wire), dialect(_DIALECT).peek(wire)
        except InputError as error:
            return LocalExchange.of_reply(dialect(_DIALECT).encode_error(error))
        embeds = route is _embed
        engine = self._engine(asked.model or "", embeds)
        streamed = asked.stream and not embeds
        joined = not (streamed or embeds)
        if joined:
            # Streamed inside, because only a stream can be stopped between two tokens.
            body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        run = _Run(lambda run: route(engine.server(), encode_json(body), run))
        self._runs.add(run)
        exchange = LocalExchange(run, timeouts, streamed=streamed, joined=joined)
        await exchange.begin()
        return exchange

    async def close(self) -> None:
        """Stop every answer under way, and let go of the models."""
        self._closed = True
        for run in list(self._runs):
            run.stop()
        engines = list(self._engines.values())
        self._engines.clear()
        for engine in engines:
            await asyncio.to_thread(engine.close)

    def _engine(self, name: str, embeds: bool) -> _Engine:
        made = self._engines.get((name, embeds))
        if made is None:
            made = _Engine(lambda: open_server(model_file(name, self._folder), embeds, self._context, self._parallel))
            # Another thread's event loop may have made it meanwhile.
            made = self._engines.setdefault((name, embeds), made)
        return made

    def _listed(self) -> dict[str, Any]:
        found = sorted(self._folder.rglob("*" + _SUFFIX)) if self._folder.is_dir() else []
        names = [path.relative_to(self._folder).with_suffix("").as_posix() for path in found]
        return {"object": "list", "data": [{"id": name, "object": "model", "created": 0} for name in names]}


_JSON = {"content-type": "application/json"}


# ---- the engine -------------------------------------------------------------------------------


class _Engine:
    """One loaded model; loaded in the thread that needs it first, while others wait in theirs."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._server: Any = None
        self._closed = False
        self._lock = threading.Lock()
        _ENGINES.add(self)

    def server(self) -> Any:
        """The loaded model; raises what `model_file` and `open_server` raise."""
        with self._lock:
            if self._closed:
                raise UsageError("this transport was closed during the call", sent="no")
            if self._server is None:
                self._server = self._load()
            return self._server

    def close(self) -> None:
        """Let go of the model; its memory is free when the last answer under way has ended."""
        with self._lock:
            self._closed = True
            self._server = None

    def inherited(self) -> None:
        """In a forked child, where the model's threads are not: it is forgotten, and never taken apart, because
        that would wait for them."""
        self._lock = threading.Lock()
        if self._server is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._server))
            self._server = None


_ENGINES: weakref.WeakSet[_Engine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_ENGINES):
        engine.inherited()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def model_file(name: str, folder: Path) -> Path:
    """The file that a model's name means; raises NotFoundError where there is none, InputError for another kind."""
    if name.startswith(("/", "~", ".")) or Path(name).is_absolute():
        path = Path(name).expanduser()
    elif not name or ".." in Path(name).parts:
        raise InputError(f"a model file cannot be called {name!r}", param="model")
    else:
        path = folder / name
        path = path if path.is_file() else folder / (name + _SUFFIX)
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotFoundError(
            f"the model file {str(path)!r} cannot be read: {reason}",
            hint=f"name a file by its path, or put it into {folder}",
            param="model",
            sent="no",
        ) from None
    if head != b"GGUF":
        raise InputError(f"{str(path)!r} is not a model file of the kind GGUF", param="model", hint="name a .gguf file")
    return path


def open_server(path: Path, embeds: bool = False, context: int = 0, parallel: int = 1) -> Any:
    """Load a model file: an `xllamacpp.Server`. embeds is whether it gives vectors too.

    Raises MissingExtraError, or InputError where the file cannot be loaded. Blocks for as long as that takes.
    """
    try:
        import xllamacpp  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise MissingExtraError(
            "running model files needs xllamacpp, which is not installed",
            hint="pip install 'polyvox[local]'",
            sent="no",
        ) from error
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {path.stem}  # the name its answers give; otherwise the whole path
    params.n_ctx = context
    params.n_parallel = parallel
    # Its threads wait for each other by spinning: as many as there are cores, and they stand still as soon as
    # anything else wants one.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = max(1, _cores() // 2)
    params.kv_unified = True  # calls share the context instead of having a part of it each
    params.embedding = embeds
    params.verbosity = -1  # it writes to stderr otherwise
    params.api_keys = [secrets.token_urlsafe(32)]
    params.endpoint_metrics = True
    params.ui = params.endpoint_slots = params.endpoint_props = False
    try:
        server = _begun(xllamacpp.Server(params))
        if embeds and "error" in decode_json(server.handle_embeddings(b'{"input":"a"}')):
            # The file does not say how its vectors become one, as files of chat models do not.
            del server
            params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
            server = _begun(xllamacpp.Server(params))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the model file {path} cannot be loaded: {snippet(str(error))}",
            param="model",
            hint="it may be damaged, too large for this machine's memory, or of a kind this llama.cpp does not know",
        ) from error
    return server


def _begun(server: Any) -> Any:
    """The engine once its own loop turns: taken apart before that, it would wait for it for ever."""
    server.handle_metrics()
    return server


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chat(server: Any, body: bytes, run: _Run) -> None:
    server.handle_chat_completions(body, run.take)


def _embed(server: Any, body: bytes, run: _Run) -> None:
    run.take(server.handle_embeddings(body))


_ROUTES: tuple[tuple[str, Callable[[Any, bytes, _Run], None]], ...] = (
    ("/chat/completions", _chat),
    ("/embeddings", _embed),
)


class _Run:
    """One answer being made, in a thread of its own; its pieces come to the event loop that asked.

    A piece is JSON bytes as the engine says them; an error instead says why there are no more; None is the end.
    """

    def __init__(self, work: Callable[[_Run], None]) -> None:
        self.pieces: asyncio.Queue[bytes | PolyvoxError | None] = asyncio.Queue()
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._thread = threading.Thread(target=self._main, name="polyvox-local", daemon=True)
        _RUNS.add(self)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait for so long until it has stopped."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    def stop(self) -> None:
        """Make no more of it: the engine stops before its next token."""
        self._stopped = True

    def take(self, piece: bytes) -> bool:
        """A piece from the engine; True tells it to stop."""
        if not self._stopped:
            self._put(piece)
        return self._stopped

    def _main(self) -> None:
        try:
            self._work(self)
        except PolyvoxError as error:
            self._put(error)
        except ValueError as error:
            self._put(InvalidRequestError(f"the engine refuses the request: {snippet(str(error))}", sent="yes"))
        except Exception as error:  # noqa: BLE001 - whatever it is, it leaves as one of our tree
            self._put(ServerError(f"the engine failed: {snippet(str(error))}", retryable=False, sent="yes"))
        self._put(StreamInterruptedError("the answer was stopped", sent="yes") if self._stopped else None)

    def _put(self, piece: bytes | PolyvoxError | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self.pieces.put_nowait, piece)
        except RuntimeError:
            self._stopped = True  # the loop is closed: nobody waits any more


_RUNS: weakref.WeakSet[_Run] = weakref.WeakSet()


def _at_exit() -> None:
    """Stop what is being made: a thread that the interpreter ends inside the engine takes the process with it."""
    runs = list(_RUNS)
    for run in runs:
        run.stop()
    for run in runs:
        run.join(EXIT_SECONDS)


atexit.register(_at_exit)


# ---- the answer -------------------------------------------------------------------------------


class LocalExchange:
    """See `transports.Exchange`. streamed is whether the pieces are events of a stream; joined whether they are put
    together to one answer; a piece that is neither is an answer."""

    def __init__(self, run: _Run | None, timeouts: Timeouts, *, streamed: bool, joined: bool) -> None:
        self.status: int = 200
        self.headers: Mapping[str, str] = _JSON
        self._run = run
        self._streamed = streamed
        self._timeouts = timeouts
        self._joined = joined
        self._ready: list[bytes] = []
        self._ended = False
        self._over = False

    @classmethod
    def of_reply(cls, reply: Reply) -> LocalExchange:
        """An answer that is whole already."""
        exchange = cls(None, Timeouts(), streamed=False, joined=False)
        exchange._answer_with(reply)
        return exchange

    def _answer_with(self, reply: Reply) -> None:
        self.status, self.headers, self._ready, self._ended = reply.status, reply.headers, [reply.body], True

    async def begin(self) -> None:
        """Start, and wait for the first piece: it decides what the head says."""
        assert self._run is not None
        self._run.start()
        try:
            first = await self._next(self._timeouts.first_byte, "first byte: no word from the model")
        except BaseException:
            self._run.stop()
            raise
        if isinstance(first, InvalidRequestError) and first.sent == "yes":
            self._answer_with(dialect(_DIALECT).encode_error(first))
        elif isinstance(first, PolyvoxError):
            raise first
        elif first is None:
            raise BadResponseError("the engine ended without an answer", sent="yes")
        elif (refused := _refusal(first)) is not None:
            self._answer_with(refused)
        else:
            self._ready = [first]
            if self._streamed:
                self.headers = {"content-type": "text/event-stream"}

    async def read(self, limit: int) -> bytes:
        """See `transports.Exchange.read`."""
        body = b""
        while data := await self.chunk():
            body += data
            if len(body) > limit:
                await self.close()
                raise BadResponseError(f"the answer is larger than {limit} bytes", status=self.status, sent="yes")
        return body

    async def chunk(self) -> bytes:
        """See `transports.Exchange.chunk`."""
        if self._over:
            raise UsageError("this answer is closed; nothing more can be read from it", sent="yes")
        if self._joined and not self._ended:
            return await self._whole()
        if self._ready:
            pieces, self._ready = self._ready, []
        elif self._ended:
            return b""
        else:
            pieces = await self._more()
        if self.status != 200 or not self._streamed:
            return b"".join(pieces)
        said = b"".join([b"data: " + piece + b"\n\n" for piece in pieces])
        return said + _DONE if self._ended else said

    async def close(self) -> None:
        """See `transports.Exchange.close`."""
        self._over = True
        if self._run is not None:
            self._run.stop()

    def __del__(self) -> None:
        # Nobody closed it, as when a loop over a stream is left early.
        if self._run is not None:
            self._run.stop()

    async def _whole(self) -> bytes:
        """All pieces as one answer, by way of the dialect that reads them."""
        pieces, self._ready = self._ready, []
        while not self._ended:
            pieces += await self._more()
        room, collector = dialect(_DIALECT), Collector()
        reader = room.reader(Endpoint())
        for event in reader.feed(b"".join([b"data: " + piece + b"\n\n" for piece in pieces]) + _DONE) + reader.close():
            if isinstance(event, Failed):
                raise event.error
            collector.add(event)
        # What one answer of the dialect cannot say of its own stream is nothing: the losses go unread.
        return room.encode_response(collector.response(), Peek())[0].body

    async def _more(self) -> list[bytes]:
        """What has come by now, at least one piece; [] at the end."""
        assert self._run is not None
        found: list[bytes] = []
        while True:
            if found and self._run.pieces.empty():
                return found
            piece = await self._next(self._timeouts.idle, "idle: no further word from the model")
            if isinstance(piece, PolyvoxError):
                self._ended = True
                raise StreamInterruptedError(piece.message, sent="yes") from piece
            if piece is None:
                self._ended = True
                return found
            found.append(piece)

    async def _next(self, seconds: float | None, what: str) -> bytes | PolyvoxError | None:
        assert self._run is not None
        try:
            async with asyncio.timeout(seconds):
                return await self._run.pieces.get()
        except TimeoutError:
            self._run.stop()
            raise CallTimeoutError(f"{what} within {seconds:g} s", sent="yes") from None


def _refusal(piece: bytes) -> Reply | None:
    """The answer of an engine that refuses: its own words, with the status it gives them."""
    said = decode_json(piece)
    error = said.get("error") if isinstance(said, dict) else None
    if not isinstance(error, dict):
        return None
    status = error.get("code")
    return Reply(status if isinstance(status, int) and 400 <= status < 600 else 500, _JSON, piece)
