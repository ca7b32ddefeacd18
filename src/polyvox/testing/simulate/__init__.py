"""A simulated provider: a server on this machine that speaks every dialect, answers like one, and misbehaves on
demand, for testing programs that use language models. It asks nobody.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Self

from polyvox.errors import InputError, UsageError
from polyvox.testing.simulate.counts import Asked, Counts, Numbers
from polyvox.testing.simulate.options import options_from
from polyvox.testing.simulate.routes import PROVIDERS
from polyvox.testing.simulate.server import Server
from polyvox.transports.fault_plan import Fault
from polyvox.types import Request, Response

__all__ = ["Asked", "Counts", "Numbers", "Simulator"]

_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is listened on is the caller's choice


class Simulator:
    """A provider to test against, with an event loop and a thread of its own; use it as a context manager, plain
    or `async`. It answers with the built-in offline model, or from a recording.

    Args:
        host, port: where to listen; port 0 is any that is free.
        models: the names it knows; any name without them. It answers under the name it is asked for.
        keys: the keys it accepts; any key without them.
        demand_key: False to take requests without a key also where the provider refuses them.
        strict: whether it refuses all that the inventor of a dialect refuses, or answers what can be read.
        latency: seconds before the head of an answer: 0.2, "0.1..0.5" (each as likely), "lognormal(0.4,0.5)"
            (median and sigma) or "exponential(0.3)" (mean).
        token_rate: tokens per second in streams; None is as fast as it goes.
        rpm, tpm, concurrent: requests and tokens a minute, and answers at a time, for all keys together. A
            recorded answer that tells no tokens takes none.
        plan: faults, as values, data, or the path of a TOML or JSON file; see `Fault`.
        replay: a recording to answer from, as `Client(record=...)` makes it.
        seed: of all that is left to chance.
        keep_alive: seconds of silence in a stream after which it says that it is still there.
        keep: how many of the latest requests are kept.
        answering: what answers in place of the built-in model, in threads of its own; an error of polyvox that it
            raises is told in the dialect of whoever asked.
        on_answer: told of each request, in the simulator's thread, when nothing more is said to it.

    Raises InputError, with `param`, or ConfigError for an option that cannot be.

    Example:
        >>> from polyvox import Client
        >>> with Simulator() as simulator:
        ...     client = Client("any-model", base_url=simulator.base_url("openai.chat"), api_key="any")
        ...     _ = client.ask("hello")
        ...     simulator.counts.answers, simulator.requests[0].model
        (1, 'any-model')
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        models: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
        demand_key: bool = True,
        strict: bool = True,
        latency: str | float = 0.0,
        token_rate: float | None = None,
        rpm: int | None = None,
        tpm: int | None = None,
        concurrent: int | None = None,
        plan: str | os.PathLike[str] | Iterable[Fault | Mapping[str, Any]] | Mapping[str, Any] = (),
        replay: str | os.PathLike[str] | None = None,
        seed: int = 0,
        keep_alive: float = 15.0,
        keep: int = 1000,
        answering: Callable[[Request], Response] | None = None,
        on_answer: Callable[[Asked], None] | None = None,
    ) -> None:
        # The parameters are the options: a table of them would say each a third time.
        said = {name: value for name, value in locals().items() if name not in ("self", "on_answer")}
        self._options = options_from(said)
        self._on_answer = on_answer
        self._changed = threading.Condition()
        self._server: Server | None = None
        self._port: int | None = None
        self._stop: asyncio.Event
        self._in_loop: Callable[..., object]
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        """Where it listens; no key."""
        return "<Simulator, not running>" if self._port is None else f"<Simulator at {self.url}>"

    # ---- running ------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start, and come back when it listens; InputError when the port cannot be had."""
        if self._thread is not None:
            raise UsageError("this simulator is running already", hint="make another one")
        listens: Future[int] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._live(listens)), name="polyvox-simulator", daemon=True
        )
        self._thread.start()
        try:
            self._port = listens.result()
        except Exception:
            self._thread.join()
            self._thread = None
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop within seconds; streams that are open are told that they end here. What was counted stays."""
        thread, self._thread, self._port = self._thread, None, None
        if thread is not None:
            self._in_loop(self._stop.set)
            thread.join()

    async def __aenter__(self) -> Self:
        """The same for asynchronous code."""
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, *_: object) -> None:
        """The same for asynchronous code."""
        await asyncio.to_thread(self.__exit__)

    async def _live(self, listens: Future[int]) -> None:
        """The life of the server, in its own thread."""
        self._server = Server(self._options, self._changed, self._on_answer)
        self._stop = asyncio.Event()
        self._in_loop = asyncio.get_running_loop().call_soon_threadsafe
        try:
            port = await self._server.start()
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that waits
            listens.set_exception(error)
            return
        listens.set_result(port)
        await self._stop.wait()
        await self._server.stop()

    # ---- where it is --------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Its root, without a slash at the end; UsageError while it is not running."""
        if self._port is None:
            raise UsageError("the simulator is not running", hint="use it as `with Simulator() as simulator:`")
        # A server that listens everywhere is reached here at this machine's own address.
        host = _HERE.get(self._options.host, self._options.host)
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    def base_url(self, dialect: str) -> str:
        """What clients of a dialect take as their base URL; InputError for a dialect there is none of."""
        facts = PROVIDERS.get(dialect)
        if facts is None:
            raise InputError(f"there is no dialect {dialect!r}", hint=f"dialects are {', '.join(PROVIDERS)}")
        return self.url + facts.base

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point the providers' own clients here."""
        return {
            facts.variable: self.url + (facts.base if facts.official is None else facts.official)
            for facts in PROVIDERS.values()
        }

    @property
    def only_here(self) -> bool:
        """Whether nobody but this machine can reach it."""
        return self._options.host in ("localhost", "::1") or self._options.host.startswith("127.")

    # ---- what was asked -----------------------------------------------------------------------

    @property
    def requests(self) -> tuple[Asked, ...]:
        """What was asked since the start or the last reset, in order of arrival; the latest `keep` of it."""
        return self._running().state.tally.requests

    @property
    def counts(self) -> Counts:
        """Counts since the start or the last reset, as they are now."""
        return self._running().state.tally.counts

    def reset(self) -> None:
        """Forget what came: counts, requests, limits used up, how far the plan and the recording are. Answers
        that are under way count nowhere any more."""
        self._running().reset()

    def wait_for(self, condition: Callable[[Simulator], bool], seconds: float = 2.0) -> bool:
        """Whether something about this simulator became true within the time.

        In asynchronous code: `await asyncio.to_thread(simulator.wait_for, condition)`.
        """
        with self._changed:
            return self._changed.wait_for(lambda: condition(self), seconds)

    def _running(self) -> Server:
        if self._server is None:
            raise UsageError("the simulator was never started", hint="use it as `with Simulator() as simulator:`")
        return self._server
