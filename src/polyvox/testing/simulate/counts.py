"""What was asked of a simulated provider, and what became of it: the requests without their credentials, and
counts to assert on. It may be read from any thread.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from polyvox.keys import is_secret_name
from polyvox.types import Loss, Usage

Outcome = Literal["answered", "refused", "broken", "cut_by_client"]


class Asked(Struct, frozen=True):
    """One request, and what became of it.

    Attributes:
        number: of the request, from 1.
        call: of the question, from 1, which is what `at` of a fault means; None for other requests.
        path: without the query.
        dialect: the one it was answered in.
        model: the model it names, None where it names none.
        stream: whether it asked for a stream.
        headers: names in lower case, without those that hold credentials.
        body: as it came.
        status: of the answer; None while there is none, or where a fault put none on the wire.
        fault: the kind of the planned fault that broke the answer, or None.
        outcome: "answered" (whole and unharmed, status below 400), "refused" (an error), "broken" (by a fault),
            "cut_by_client" (the client left before the end, which may be how a stall ends), or None while it is
            being answered.
        usage: the tokens that were told, where any were.
        losses: what of the answer the dialect could not say.
        seconds: from the request to the end of its answer, None until then.
    """

    number: int
    method: str
    path: str
    dialect: str
    call: int | None = None
    model: str | None = None
    stream: bool = False
    headers: Mapping[str, str] = {}
    body: bytes = b""
    status: int | None = None
    fault: str | None = None
    outcome: Outcome | None = None
    usage: Usage = Usage()
    losses: tuple[Loss, ...] = ()
    seconds: float | None = None

    @property
    def json(self) -> Any:
        """The body as a JSON value; raises msgspec.DecodeError where it is none."""
        return msgspec.json.decode(self.body)


class Numbers(Struct, frozen=True):
    """Counts of requests and answers.

    Attributes:
        requests: that came, whatever they asked for.
        answers: with a status below 400, sent whole and unharmed.
        streams: those of the answers that were streams.
        errors: answers with a status from 400, by status.
        faults: planned faults that broke an answer, by kind; counted when the answer begins.
        cut_by_client: answers that the client did not wait for.
        tokens_in, tokens_out: that answers told.
        usage_unknown: answers to questions that told no tokens, or not all.
    """

    requests: int = 0
    answers: int = 0
    streams: int = 0
    errors: Mapping[int, int] = {}
    faults: Mapping[str, int] = {}
    cut_by_client: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usage_unknown: int = 0


class Counts(Numbers, frozen=True):
    """All counts of a simulator. connections are those that were accepted; models are named as they were asked."""

    connections: int = 0
    by_dialect: Mapping[str, Numbers] = {}
    by_model: Mapping[str, Numbers] = {}


class _Sum:
    """Numbers while they grow."""

    def __init__(self) -> None:
        self.plain: Counter[str] = Counter()
        self.errors: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()

    def facts(self) -> dict[str, Any]:
        return {**self.plain, "errors": dict(self.errors), "faults": dict(self.faults)}


class Tally:
    """Keeps the latest requests and all counts. `changed` is notified, and held, at every change."""

    def __init__(self, changed: threading.Condition, keep: int) -> None:
        self._changed = changed
        self._asked: deque[Entry] = deque(maxlen=keep)
        self._all = _Sum()
        self._by_dialect: dict[str, _Sum] = {}
        self._by_model: dict[str, _Sum] = {}
        self._connections = 0
        self._requests = 0
        self._calls = 0

    def connected(self) -> None:
        """A connection was accepted."""
        with self._changed:
            self._connections += 1
            self._changed.notify_all()

    def arrived(self, *, is_call: bool, headers: Mapping[str, str], **facts: Any) -> Entry:
        """A request came: its number, and what `Asked` says of it before it is answered."""
        shown = {name: text for name, text in headers.items() if not is_secret_name(name)}
        with self._changed:
            self._requests += 1
            self._calls += is_call
            call = self._calls if is_call else None
            entry = Entry(self, Asked(self._requests, call=call, headers=shown, **facts))
            self._asked.append(entry)
            for each in self._sums(entry.asked):
                each.plain["requests"] += 1
            self._changed.notify_all()
        return entry

    def note(self, entry: Entry, count: Callable[[_Sum], object] = lambda _: None, **facts: Any) -> None:
        """Add facts to a request, and count what they mean."""
        with self._changed:
            entry.asked = msgspec.structs.replace(entry.asked, **facts)
            for each in self._sums(entry.asked):
                count(each)
            self._changed.notify_all()

    @property
    def requests(self) -> tuple[Asked, ...]:
        """The latest requests, in the order they came."""
        with self._changed:
            return tuple([entry.asked for entry in self._asked])

    @property
    def counts(self) -> Counts:
        """All counts as they are now."""
        with self._changed:
            return Counts(
                connections=self._connections,
                by_dialect={name: Numbers(**each.facts()) for name, each in self._by_dialect.items()},
                by_model={name: Numbers(**each.facts()) for name, each in self._by_model.items()},
                **self._all.facts(),
            )

    def _sums(self, asked: Asked) -> list[_Sum]:
        """Where a request counts."""
        sums = [self._all, self._by_dialect.setdefault(asked.dialect, _Sum())]
        if asked.model is not None:
            sums.append(self._by_model.setdefault(asked.model, _Sum()))
        return sums


class Entry:
    """A request while it is answered."""

    def __init__(self, tally: Tally, asked: Asked) -> None:
        self._tally = tally
        self.asked = asked

    def broken_by(self, kind: str) -> None:
        """A fault breaks the answer."""

        def count(each: _Sum) -> None:
            each.faults[kind] += 1

        self._tally.note(self, count, fault=kind)

    def begins(self, **facts: Any) -> None:
        """An answer is there: its status, usage and losses."""
        self._tally.note(self, **facts)

    def ends(self, outcome: Outcome, seconds: float) -> None:
        """Nothing more is said to this request, for whatever reason."""
        asked = self.asked

        def count(each: _Sum) -> None:
            if outcome == "answered":
                each.plain["answers"] += 1
                each.plain["streams"] += asked.call is not None and asked.stream
                _count_tokens(each, asked)
            elif outcome == "cut_by_client":
                each.plain["cut_by_client"] += 1
            if outcome != "cut_by_client" and asked.status is not None and asked.status >= 400:
                each.errors[asked.status] += 1

        self._tally.note(self, count, outcome=outcome, seconds=seconds)


def _count_tokens(each: _Sum, asked: Asked) -> None:
    if asked.call is None:
        return
    each.plain["tokens_in"] += asked.usage.input or 0
    each.plain["tokens_out"] += asked.usage.output or 0
    each.plain["usage_unknown"] += asked.usage.input is None or asked.usage.output is None
