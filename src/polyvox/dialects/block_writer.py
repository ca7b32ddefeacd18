"""The frame of a streamed answer that is told block after block, as Messages and Converse tell it: what is told now,
what waits for a call that still grows, and when a block ends. It writes no byte and knows no key of either."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from polyvox.dialects import Peek
from polyvox.dialects.scope import Scope
from polyvox.errors import BadResponseError, PolyvoxError, StreamInterruptedError
from polyvox.types import Event, Failed, LogprobsAdded, Loss, ToolCallDelta, ToolCallEnded, Usage, UsageReported

_BREAK = "the answer broke off before its end"


class Open:
    """The block being written: the part it tells, and what waits for its end. `CALL` is the kind of a tool call; where
    it is custom, its input is free text."""

    __slots__ = ("custom", "kind", "part", "pieces")
    CALL: ClassVar[str]

    def __init__(self, part: int, kind: str, custom: bool = False) -> None:
        self.part: int = part
        self.kind: str = kind
        self.custom: bool = custom
        self.pieces: list[str] = []

    def holds_back(self) -> bool:
        """Whether the block may still grow while other parts begin: only calls grow side by side."""
        if self.kind != self.CALL:
            return False
        try:
            return self.custom or not isinstance(msgspec.json.decode("".join(self.pieces)), dict)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return True


OpenT = TypeVar("OpenT", bound=Open)
ScopeT = TypeVar("ScopeT", bound=Scope)
Takes = Mapping[type[Event], Callable[[Any, Any], None]]


class BlockWriter(ABC, Generic[OpenT, ScopeT]):
    """See `polyvox.dialects.Writer`. Parts that begin while a call still grows wait for its end: clients expect one
    block after the other.

    A dialect says what it does with each event, in `EVENTS` those of the whole answer and in `PARTS` those of a part.
    """

    EVENTS: ClassVar[Takes]
    PARTS: ClassVar[Takes]
    content_type: str

    def __init__(self, asked: Peek, scope: ScopeT) -> None:
        self.done: bool = False
        self.losses: list[Loss] = scope.losses
        self._scope: ScopeT = scope
        self._asked = asked
        self._out: list[bytes] = []
        self._begun = False
        self._usage = Usage()
        self._extra: dict[str, Any] = {}
        self._ids: set[str] = set()
        self._index = -1
        self._open: OpenT | None = None
        self._closed: set[int] = set()
        self._held: dict[int, list[Event]] = {}
        # What the open block grows by, as long as that is plain words: the hot path.
        self._grows: type[Event] | None = None
        self._part = -1

    @abstractmethod
    def send(self, event: Event) -> bytes:
        """The bytes that say this event; b"" while it waits for others, or where nothing says it."""

    def close(self) -> bytes:
        """No more events come: the error that says so, unless the end had come."""
        return self.send(Failed(StreamInterruptedError(_BREAK)))

    def _taken(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return out

    # ---- what the dialect says -----------------------------------------------------------------

    @abstractmethod
    def _error(self, error: PolyvoxError) -> None:
        """Say an error, which ends the stream."""

    @abstractmethod
    def _settle(self) -> None:
        """Write what waited for the end of the open block."""

    @abstractmethod
    def _write_stop(self) -> None:
        """Say that the open block ends."""

    @abstractmethod
    def _argued(self, words: str) -> None:
        """Say more of the input of the call that is open."""

    # ---- events --------------------------------------------------------------------------------

    def _say(self, event: Event) -> None:
        if getattr(event, "choice", 0):
            self._scope.lose("choices", "one answer is told, not several")
            return
        take = self.EVENTS.get(type(event))
        if take is not None:
            take(self, event)
        elif type(event) in self.PARTS:
            self._route(event)

    def _unsayable(self, error: Exception) -> None:
        what = f"{type(error).__name__}: {error}"
        self._error(BadResponseError(f"the answer holds a value that cannot be said ({what})"))

    def _count(self, event: UsageReported) -> None:
        self._usage = event.usage

    def _logprobs(self, _event: LogprobsAdded) -> None:
        self._scope.lose("logprobs", "log-probabilities are not told")

    # ---- blocks --------------------------------------------------------------------------------

    def _route(self, event: Any) -> None:
        """Tell a part's event now, or hold it back while a call that may still grow is open."""
        block = self._open
        if event.part in self._held:
            self._held[event.part].append(event)
        elif block is None or event.part == block.part:
            self._take(event)
        elif block.holds_back():
            self._held[event.part] = [event]
        elif self._held:
            self._close_block()
            self._route(event)
        else:
            self._take(event)

    def _take(self, event: Any) -> None:
        self.PARTS[type(event)](self, event)

    def _close_open(self) -> None:
        """End the open block with all that waited for it."""
        if self._open is not None:
            self._settle()
            self._stop(self._open)

    def _stop(self, block: OpenT) -> None:
        self._write_stop()
        self._closed.add(block.part)
        self._open = self._grows = None

    def _close_block(self) -> None:
        """End the open block, and tell what was held back for it, up to the next call that may still grow."""
        self._close_open()
        while self._held and (self._open is None or not self._open.holds_back()):
            part = min(self._held)
            for event in self._held.pop(part):
                self._take(event)

    def _close_all(self) -> None:
        while self._open is not None or self._held:
            self._close_block()

    def _growing(self, part: int, kind: str) -> OpenT | None:
        """The open block, where it is this part's and of this kind."""
        block = self._open
        return block if block is not None and block.part == part and block.kind == kind else None

    # ---- calls ---------------------------------------------------------------------------------

    def _calling(self, part: int) -> OpenT | None:
        """The open block, where it is a call and this part's."""
        block = self._open
        return block if block is not None and block.part == part and block.kind == block.CALL else None

    def _argue(self, event: ToolCallDelta) -> None:
        block = self._calling(event.part)
        if block is None:
            if event.arguments.strip():
                self._scope.lose(f"{where(event.part)}.arguments", "arguments came outside of their call")
            return
        block.pieces.append(event.arguments)
        if event.arguments and not block.custom:
            self._argued(event.arguments)

    def _called(self, event: ToolCallEnded) -> None:
        if self._calling(event.part) is not None:
            self._close_block()


def where(part: int) -> str:
    """The place of a part in an answer, as losses have it."""
    return f"message.parts[{part}]"
