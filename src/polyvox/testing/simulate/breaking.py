"""What a planned fault makes of an answer: another answer, or steps on a bare connection where HTTP itself is
what breaks. It sends nothing and draws only from the chance it is given.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import TypeAlias

import msgspec

from polyvox.dialects import Dialect, Endpoint, Peek
from polyvox.dialects.errors_on_wire import kind_of
from polyvox.errors import PolyvoxError, of_kind
from polyvox.testing.fault_server import Step, drip, fin, half_close, rst, send, sleep, stall
from polyvox.testing.simulate.answers import SAYS, Answer, refusal
from polyvox.testing.simulate.framings import BLOCK, framing_of, is_stream
from polyvox.transports.fault_plan import Fault
from polyvox.transports.faults import LOGIN_PAGE
from polyvox.transports.replay import Chunk
from polyvox.types import Ended, Event, Failed, ToolCallDelta

Script: TypeAlias = tuple[Step, ...]
"""What is done on a connection instead of an HTTP answer."""

_PHRASES = {each.value: each.phrase for each in HTTPStatus}
_RUBBISH = b"\x16\x03\x01 this is no HTTP\r\n\r\n"


class Case(msgspec.Struct, frozen=True):
    """A fault and what it needs to know: the answer it breaks, in which dialect and to what that is said, and
    its chance."""

    fault: Fault
    answer: Answer
    room: Dialect
    asked: Peek
    rng: random.Random


def instead_of(fault: Fault, room: Dialect) -> Answer | Script | None:
    """What is answered instead of asking anybody; None for a fault that breaks a real answer."""
    match fault.kind:
        case "status":
            return _status(fault, room)
        case "html":
            return Answer(200, {"content-type": "text/html; charset=utf-8"}, (Chunk(LOGIN_PAGE),))
        case "empty":
            return Answer(200, {"content-type": "application/json"})
        case "rubbish":
            return (send(fault.body or _RUBBISH), fin)
        case _:
            return _WORDLESS.get(fault.kind)


_WORDLESS: dict[str, Script] = {"first_byte_timeout": (stall,), "no_head": (fin,), "reset_head": (rst,)}


def _status(fault: Fault, room: Dialect) -> Answer:
    named = {name.lower(): text for name, text in fault.headers.items()}
    if fault.body:
        return Answer(fault.status, {"content-type": "application/json", **named}, (Chunk(fault.body),))
    if fault.status < 400:
        return Answer(fault.status, named)
    answer = refusal(room, _error(fault.status))
    return msgspec.structs.replace(answer, headers={**answer.headers, **named})


def _error(status: int) -> PolyvoxError:
    kind = kind_of(status, None, None, "")
    return of_kind(kind, f"planned fault: {kind.replace('_', ' ')}", status=status)


def broken(case: Case) -> Answer | Script | None:
    """What a fault makes of the answer; None where it leaves it alone: a body too short for it, or no stream."""
    return _BREAKS[case.fault.kind](case)


# ---- the body, whose framing stays good -------------------------------------------------------


def _delay(case: Case) -> Answer:
    return msgspec.structs.replace(case.answer, wait=case.answer.wait + case.fault.seconds)


def _cut(case: Case) -> Answer | None:
    return None if case.fault.after >= case.answer.size else _ending(case.answer, case.fault.after)


def _garble(case: Case) -> Answer | None:
    body = case.answer.body
    if case.fault.after >= len(body):
        return None
    # All bits: what was valid UTF-8 is not any more, whichever byte it was.
    bad = body[: case.fault.after] + bytes([body[case.fault.after] ^ 0xFF]) + body[case.fault.after + 1 :]
    return _with(case.answer, _resized(case.answer.chunks, bad))


def _drip(case: Case) -> Answer | None:
    return _cut_up(case.answer, lambda left: min(left, 1), case.fault.seconds)


def _split(case: Case) -> Answer | None:
    return _cut_up(case.answer, lambda left: case.rng.randint(1, left), 0.0)


def _cut_up(answer: Answer, size_of: Callable[[int], int], pause: float) -> Answer | None:
    """The answer with each of its pieces in pieces."""
    chunks = []
    for chunk in answer.chunks:
        at = 0
        while at < len(chunk.data):
            size = size_of(len(chunk.data) - at)
            chunks.append(Chunk(chunk.data[at : at + size], (0.0 if at else chunk.pause) + pause))
            at += size
    return None if len(chunks) == len(answer.chunks) and not pause else _with(answer, chunks)


def _bad_gzip(case: Case) -> Answer:
    return _compressed(case.answer, case.answer.chunks)


def _gzip_bomb(case: Case) -> Answer:
    squeeze = zlib.compressobj(level=1, wbits=31)
    blanks = framing_of(case.answer.headers).blanks(case.fault.size)
    pieces = [*map(squeeze.compress, blanks), squeeze.compress(case.answer.body), squeeze.flush()]
    return _compressed(case.answer, [Chunk(b"".join(pieces))])


def _compressed(answer: Answer, chunks: Sequence[Chunk]) -> Answer:
    headers = {**answer.headers, "content-encoding": "gzip"}
    return msgspec.structs.replace(answer, headers=headers, chunks=tuple(chunks), keep_alive=b"")


# ---- the events of a stream -------------------------------------------------------------------


def _ends_of(answer: Answer) -> list[int]:
    return framing_of(answer.headers).ends(answer.body)


def _end_from(answer: Answer, after: int) -> int | None:
    """The first end of an event from there on; the start counts as one. None where no more come, or no stream is."""
    if not is_stream(answer.headers):
        return None
    return next((end for end in (0, *_ends_of(answer)[:-1]) if end >= after), None)


def _error_event(case: Case) -> Answer | None:
    at = _end_from(case.answer, case.fault.after)
    if at is None:
        return None
    writer = case.room.writer(case.asked)
    for event in case.room.reader(Endpoint()).feed(case.answer.body[:at]):
        writer.send(event)  # said already: the error goes on from there
    return _ending(case.answer, at, Chunk(writer.send(Failed(_error(case.fault.status)))))


def _no_end(case: Case) -> Answer | None:
    if not is_stream(case.answer.headers):
        return None
    body, ends = case.answer.body, (0, *_ends_of(case.answer)[:-1])
    return _ending(case.answer, next(end for end in reversed(ends) if not _is_whole(case.room, body[:end])))


def _is_whole(room: Dialect, body: bytes) -> bool:
    reader = room.reader(Endpoint())
    events = [*reader.feed(body), *reader.close()]
    return any(isinstance(event, Ended) for event in events)


def _endless(case: Case) -> Answer | None:
    """The first event from there on that says words comes again and again."""
    if not is_stream(case.answer.headers):
        return None
    reader, start, body = case.room.reader(Endpoint()), 0, case.answer.body
    for end in _ends_of(case.answer):
        frame = body[start:end]
        says = any(map(_says, reader.feed(frame)))
        if says and start >= case.fault.after:
            return _ending(case.answer, start, *_again_and_again(frame, -(-case.fault.size // len(frame))))
        start = end
    return None


def _says(event: Event) -> bool:
    """Whether an event has words in it; the beginning of a part may be told with none."""
    words = event.arguments if isinstance(event, ToolCallDelta) else getattr(event, "text", "")
    return isinstance(event, SAYS) and bool(words)


def _huge_line(case: Case) -> Answer | None:
    if not is_stream(case.answer.headers):
        at = case.fault.after if case.fault.after < case.answer.size else None
    else:
        at = _end_from(case.answer, case.fault.after)
    if at is None:
        return None
    begun = Chunk(framing_of(case.answer.headers).opens(case.fault.size))
    return _ending(case.answer, at, begun, *_again_and_again(b"x", case.fault.size))


# ---- pieces of a body -------------------------------------------------------------------------


def _again_and_again(data: bytes, times: int) -> list[Chunk]:
    """The same bytes so many times, in blocks that share their memory."""
    fit = max(1, BLOCK // len(data))
    block, rest = Chunk(data * fit), data * (times % fit)
    return [*[block] * (times // fit), *([Chunk(rest)] if rest else [])]


def _with(answer: Answer, chunks: Sequence[Chunk]) -> Answer:
    """The answer with other bytes, and nothing between them."""
    return msgspec.structs.replace(answer, chunks=tuple(chunks), keep_alive=b"")


def _ending(answer: Answer, at: int, *more: Chunk) -> Answer:
    """The answer's first bytes and what comes instead of the rest; its end looks good."""
    return _with(answer, [*_front(answer.chunks, at), *more])


def _front(chunks: Sequence[Chunk], size: int) -> Iterator[Chunk]:
    """The first bytes, in their pieces and with their pauses."""
    for chunk in chunks:
        if size <= 0:
            return
        yield Chunk(chunk.data[:size], chunk.pause)
        size -= len(chunk.data)


def _resized(chunks: Sequence[Chunk], body: bytes) -> list[Chunk]:
    """Other bytes of the same length in the same pieces."""
    found, at = [], 0
    for chunk in chunks:
        found.append(Chunk(body[at : at + len(chunk.data)], chunk.pause))
        at += len(chunk.data)
    return found


# ---- HTTP that breaks -------------------------------------------------------------------------


def cut_off(answer: Answer) -> Script:
    """The answer as it was recorded to break: without the end of its framing."""
    return _chunked(answer, answer.chunks, fin)


def _reset(case: Case) -> Script | None:
    return _after(case, rst)


def _stall(case: Case) -> Script | None:
    return _after(case, stall)


def _half_close(case: Case) -> Script | None:
    return _after(case, half_close)


def _bad_chunk(case: Case) -> Script | None:
    return _after(case, send(b"this is no size of a chunk\r\n"), fin)


def _no_final_chunk(case: Case) -> Script:
    return _chunked(case.answer, case.answer.chunks, fin)


def _after(case: Case, *steps: Step) -> Script | None:
    """So many bytes of the body, in a framing whose end is missed when it does not come; then the steps."""
    if case.fault.after > case.answer.size:
        return None
    return _chunked(case.answer, list(_front(case.answer.chunks, case.fault.after)), *steps)


def _chunked(answer: Answer, chunks: Sequence[Chunk], *steps: Step) -> Script:
    framed = [Chunk(b"%x\r\n%s\r\n" % (len(chunk.data), chunk.data), chunk.pause) for chunk in chunks if chunk.data]
    return (*_said(answer, "transfer-encoding: chunked"), *_paced(framed), *steps)


def _length_too_big(case: Case) -> Script:
    return _with_length(case.answer, case.answer.size + 100)


def _length_too_small(case: Case) -> Script | None:
    size = case.answer.size
    return _with_length(case.answer, size // 2) if size else None


def _with_length(answer: Answer, size: int) -> Script:
    return (*_said(answer, f"content-length: {size}"), *_paced(answer.chunks), fin)


def _slow_head(case: Case) -> Script:
    answer = case.answer
    head = _head(answer, f"content-length: {answer.size}")
    return (sleep(answer.wait), drip(head, case.fault.seconds), *_paced(answer.chunks), fin)


def _header_bomb(case: Case) -> Script:
    return _bad_head(case.answer, "x-bomb: " + "x" * case.fault.size)


def _bad_header(case: Case) -> Script:
    return _bad_head(case.answer, "this line has no colon")


def _bad_head(answer: Answer, line: str) -> Script:
    return (*_said(answer, line, f"content-length: {answer.size}"), *_paced(answer.chunks), fin)


def _said(answer: Answer, *lines: str) -> Script:
    """The wait before the head, and the head."""
    return (sleep(answer.wait), send(_head(answer, *lines)))


def _head(answer: Answer, *lines: str) -> bytes:
    fields = [f"{name}: {text}" for name, text in answer.headers.items()]
    line = f"HTTP/1.1 {answer.status} {_PHRASES.get(answer.status, '')}"
    return "\r\n".join([line, *fields, "connection: close", *lines, "", ""]).encode()


def _paced(chunks: Sequence[Chunk]) -> Script:
    return tuple([step for chunk in chunks for step in (sleep(chunk.pause), send(chunk.data))])


_BREAKS: Mapping[str, Callable[[Case], Answer | Script | None]] = {
    "delay": _delay,
    "cut": _cut,
    "garble": _garble,
    "drip": _drip,
    "split": _split,
    "bad_gzip": _bad_gzip,
    "gzip_bomb": _gzip_bomb,
    "error_event": _error_event,
    "no_end": _no_end,
    "endless": _endless,
    "huge_line": _huge_line,
    "reset": _reset,
    "stall": _stall,
    "half_close": _half_close,
    "bad_chunk": _bad_chunk,
    "no_final_chunk": _no_final_chunk,
    "length_too_big": _length_too_big,
    "length_too_small": _length_too_small,
    "slow_head": _slow_head,
    "header_bomb": _header_bomb,
    "bad_header": _bad_header,
}
