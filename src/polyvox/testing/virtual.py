"""Programs under a virtual clock: nobody waits, the clock goes to the next timer at once, and all chance comes from one
seed, so that the same seed gives the same trace byte for byte. It knows no engine and no provider."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from heapq import heappop, heappush
from pathlib import PurePath
from typing import Any, NoReturn, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START = 1_000.0
"""What the event loop's clock shows at first: a clock that nobody sets starts anywhere, and so it must not matter."""
WALL = 1_800_000_000.0
"""What the wall clock shows then, in seconds since the epoch."""
TURNS = 100_000
"""How many turns of the event loop one moment may have before the program counts as one that spins."""
_YOUNG, _ALL = 2_000, 200_000


class HangError(RuntimeError):
    """Nothing can happen any more: whoever waits, waits for ever. Or too much happens at one moment, so that the clock
    never goes on. The message says who."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose time passes only while everybody waits. It has no sockets, no threads and no signals.
    unhandled tells what nobody caught: exceptions of callbacks, and of tasks that nobody asked for theirs."""

    # What asyncio.BaseEventLoop runs next; it offers no other way to turns of one's own.
    _ready: deque[asyncio.Handle]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.unhandled: list[str] = []
        self.set_exception_handler(self._keep)
        self._now = START
        # Of two timers for one moment, the one that was set first is due first.
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._set = self._made = self._turns = self._at_once = 0

    def time(self) -> float:
        """Virtual seconds, from START on."""
        return self._now

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._set += 1
        heappush(self._timers, (when, self._set, handle))
        return handle

    def _run_once(self) -> None:
        """One turn: go on to the next timer where nothing is ready, then run what is."""
        self._turns += 1
        if not self._turns % _YOUNG:
            gc.collect(1 if self._turns % _ALL else 2)
        ready, timers = self._ready, self._timers
        if ready or self._stopping:
            self._at_once += 1
            if self._at_once > TURNS:
                self._hangs(f"the clock stood still for {TURNS} turns")
        else:
            self._at_once = 0
            while timers and timers[0][2].cancelled():
                heappop(timers)
            if not timers:
                self._hangs("nothing is ready and no timer is set")
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            ready.append(heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    def create_task(self, coro: Any, *, name: object = None, **more: Any) -> asyncio.Task[Any]:
        """See asyncio; the names of tasks count from 1 in each loop, so that two runs tell the same."""
        self._made += 1
        return super().create_task(coro, name=name or f"task {self._made}", **more)

    def _hangs(self, why: str) -> NoReturn:
        """Raise HangError, which says who waits, and where."""
        waiting = sorted((task.get_name(), _where(task.get_coro())) for task in asyncio.all_tasks(self))
        lines = "".join(f"\n  {name} waits at {where}" for name, where in waiting)
        raise HangError(f"{why} at {self._now - START:.6f} s; {len(waiting)} tasks are not done:{lines}")

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> NoReturn:
        """Refused: nobody can say when a thread is done."""
        name = getattr(func, "__qualname__", repr(func))
        raise RuntimeError(f"{name} wants a thread, and a thread knows no virtual time")

    def _keep(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.unhandled.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _write_to_self(self) -> None:
        """Nobody has to be woken."""


def _where(coro: Any) -> str:
    """The innermost line that a coroutine waits at."""
    place = "an unknown place"
    while coro is not None:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None) or getattr(coro, "ag_frame", None)
        if frame is not None:
            code = frame.f_code
            place = f"{PurePath(code.co_filename).name}:{frame.f_lineno} in {code.co_qualname}"
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None) or getattr(coro, "ag_await", None)
    return place


class Trace:
    """What happened, line by line, each with its time. lines are kept where that is wanted; the digest is always."""

    __slots__ = ("_hash", "_now", "count", "lines")

    def __init__(self, now: Callable[[], float], keep: bool) -> None:
        self._now = now
        self._hash = hashlib.blake2b(digest_size=16)
        self.lines: list[str] | None = [] if keep else None
        self.count: int = 0

    def note(self, line: str) -> None:
        """Write down what happens now."""
        line = f"{self._now()!r} {line}"
        self.count += 1
        self._hash.update(line.encode() + b"\n")
        if self.lines is not None:
            self.lines.append(line)

    @property
    def digest(self) -> str:
        """The same for two runs exactly where their lines are."""
        return self._hash.hexdigest()


class Virtual:
    """A run under virtual time, and what it gives to what runs in it: clocks, sleep, chance and a trace, all from the
    seed. keep says whether the lines of the trace are kept.

    >>> async def main(virtual):
    ...     await virtual.sleep(86_400)
    ...     return virtual.now()
    >>> Virtual(seed=1).run(main)
    86400.0
    """

    def __init__(self, seed: int | str, *, keep: bool = False) -> None:
        self.seed = seed
        self.trace: Trace = Trace(self.now, keep)
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        self.chance: Callable[[], float] = self.draw("chance").random
        self.random_bytes: Callable[[int], bytes] = self.draw("bytes").randbytes
        self._loop: VirtualLoop | None = None

    def draw(self, name: str) -> random.Random:
        """A source of chance of this name: what others draw changes nothing in it."""
        return random.Random(f"{self.seed}:{name}")

    def clock(self) -> float:
        """Seconds by the clock that nobody sets, which is the event loop's."""
        return START if self._loop is None else self._loop.time()

    def now(self) -> float:
        """Seconds since the run began."""
        return self.clock() - START

    def wall(self) -> float:
        """Seconds since the epoch."""
        return WALL + self.now()

    def run(self, main: Callable[[Virtual], Coroutine[Any, Any, T]]) -> T:
        """Run it to its end, and give what it gives. HangError where it never ends."""
        if self._loop is not None:
            raise RuntimeError("what ran once has drawn its chance; make another of the same seed")
        loop = self._loop = VirtualLoop()
        with _collected_by_turns(), asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(main(self))


def run(main: Callable[[Virtual], Coroutine[Any, Any, T]], seed: int | str) -> T:
    """Run `main(virtual)` under virtual time and give what it gives; see `Virtual`.

    >>> async def main(virtual):
    ...     return virtual.chance()
    >>> run(main, seed=7) == run(main, seed=7)
    True
    """
    return Virtual(seed).run(main)


@contextmanager
def _collected_by_turns() -> Iterator[None]:
    """Rubbish is collected when the loop has turned so often, never when so much was allocated: what a finalizer does
    would else happen at another moment in each run."""
    enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
