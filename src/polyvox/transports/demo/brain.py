"""What the demo model answers, and to what: a neutral request in, a neutral response out. It knows no
wire, no clock and no chance.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from polyvox.dialects.collect import as_events
from polyvox.errors import InputError, NotFoundError
from polyvox.transports.demo.fill import UnfillableError, fill
from polyvox.types import (
    Audio,
    Choice,
    Event,
    File,
    FinishReason,
    Image,
    Message,
    Part,
    PartAdded,
    Request,
    Response,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolResult,
    Usage,
    Video,
)

MODEL = "demo"
QUOTE = 400  # characters of the user's text that an answer repeats
MAX_ANSWERS = 8
MAX_CALLS = 8
_ABOUT = "This is polyvox's built-in offline model; no provider was asked."
_MEDIA: dict[type[Part], str] = {Image: "image", Audio: "audio clip", Video: "video", File: "file"}


def think(request: Request) -> Response:
    """What the demo answers to a request, the same every time. Tokens are estimated as words times 4/3.

    Raises NotFoundError for a model other than `MODEL`, and InputError, with `param`, for what it cannot
    answer: nothing said, tools or schemas that do not fit together, limits out of range.

    >>> think(Request("demo", (Message("user", (Text("hi"),)),))).text[:18]
    '[demo] You said: h'
    """
    _check(request)
    count = 1 if request.n is UNSET else request.n
    answers = [_answer(request, number) for number in range(count)]
    asked = sum(tokens(text) for message in request.messages for text in _texts(message))
    said = sum(tokens(text) for answer in answers for text in _texts(answer.message))
    first, *others = answers
    return Response(
        first.message,
        first.finish_reason,
        stop_sequence=first.stop_sequence,
        usage=Usage(asked, said, total=asked + said, source="provider", raw={"estimated": "words * 4/3"}),
        id=f"demo-{_digest(request)}",
        model=MODEL,
        created=0.0,
        choices=tuple([Choice(answer.message, answer.finish_reason) for answer in others]),
    )


def as_words(response: Response) -> Iterator[Event]:
    """The events of a stream that tells the response: its words, and those of its calls' arguments, one
    by one, each with the space before it. What has no words is told whole."""
    for event in as_events(response):
        match event:
            case TextDelta(text, part, choice):
                for word in _words(text):
                    yield TextDelta(word, part, choice)
            case PartAdded(part, ToolCall(signature=None, origin=None) as call, choice):
                yield ToolCallStarted(part, call.id, call.name, call.kind, call.extra, choice)
                for word in _words(call.arguments):
                    yield ToolCallDelta(part, word, choice)
                yield ToolCallEnded(part, choice)
            case _:
                yield event


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


def tokens(text: str) -> int:
    """How many tokens a text is taken for: its words times 4/3."""
    return math.ceil(len(text.split()) * 4 / 3)


def _digest(request: Request) -> str:
    try:
        told = msgspec.json.encode(request, order="deterministic")
    except (TypeError, ValueError, RecursionError) as error:
        # Values are not checked when made, and text may be no valid Unicode.
        raise InputError(f"the request has a value that is no JSON: {error}", code="invalid_value") from None
    return hashlib.sha256(told).hexdigest()[:12]


# ---- one answer -------------------------------------------------------------------------------


class _Answer(NamedTuple):
    message: Message
    finish_reason: FinishReason
    stop_sequence: str | None


def _answer(request: Request, number: int) -> _Answer:
    messages = request.messages
    last = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
    heard = messages[last].parts if last >= 0 else ()
    results = [part for message in messages[last + 1 :] for part in message.parts if isinstance(part, ToolResult)]
    said = _text(heard)
    calls = () if results else _calls(request, said)
    if calls:
        return _within(request, "", calls)
    wanted = request.response_format
    if wanted is not UNSET and wanted.kind == "schema":
        schema = wanted.schema or {"type": "object"}
        return _within(request, _filled(schema, "the schema", "response_format", 0), ())
    if wanted is not UNSET and wanted.kind == "json":
        return _within(request, json.dumps({"demo": True, "you_said": said[:QUOTE]}, ensure_ascii=False), ())
    if results:
        heard = tuple([part for result in results for part in result.parts])
    text = _about_results(results, _calls_in(messages)) if results else f"You said: {_quote(said)}"
    end = "" if text.endswith((".", "!", "?", "…")) else "."
    again = f" (answer {number + 1})" if number else ""
    return _within(request, f"[demo] {text}{end}{_about_media(heard)}{again} {_ABOUT}", ())


def _quote(text: str) -> str:
    return text if len(text) <= QUOTE else text[: QUOTE - 1] + "…"


def _about_results(results: Sequence[ToolResult], calls: Sequence[ToolCall]) -> str:
    names = {call.id: call.name for call in calls}
    found = [f"{result.name or names.get(result.call_id, 'tool')}: {_quote(_text(result.parts))}" for result in results]
    return "The tools answered: " + "; ".join(found)


def _about_media(parts: Sequence[Part]) -> str:
    counts = Counter([_MEDIA[type(part)] for part in parts if type(part) in _MEDIA])
    told = [f"{count} {what}{'s' if count > 1 else ''}" for what, count in counts.items()]
    return f" With that came {' and '.join(told)}, which the demo does not look at." if told else ""


def _within(request: Request, text: str, calls: Sequence[ToolCall]) -> _Answer:
    """The answer as far as stop sequences and the token limit let it come."""
    stops = () if request.stop is UNSET else request.stop
    cuts = [(at, stop) for stop in stops if stop and (at := text.find(stop)) >= 0]
    end, stop = min(cuts, default=(len(text), None))
    words = math.inf if request.max_tokens is UNSET else request.max_tokens * 3 // 4
    whole, (text, *arguments) = _cut([text[:end], *(call.arguments for call in calls)], words)
    parts: list[Part] = [Text(text)] if text else []
    parts += [ToolCall(call.id, call.name, said, call.kind) for call, said in zip(calls, arguments, strict=False)]
    if not whole:
        return _Answer(Message("assistant", tuple(parts)), "length", None)
    return _Answer(Message("assistant", tuple(parts)), "tool_calls" if calls else "stop", stop)


def _cut(texts: list[str], words: float) -> tuple[bool, list[str]]:
    """The texts until the words are used up, and whether that is all of them; what has begun stays."""
    found: list[str] = []
    for text in texts:
        if words < 1 and found and text:
            return False, found
        part = _words(text)
        found.append("".join(part[: int(min(words, len(part)))]))
        words -= len(part)
        if words < 0:
            return False, found
    return True, found


# ---- tools ------------------------------------------------------------------------------------


def _calls(request: Request, said: str) -> tuple[ToolCall, ...]:
    """The calls the user's words ask for, or the caller's tool_choice."""
    tools, before = _offered(request), len(_calls_in(request.messages))
    mode, names = _choice(request, tools)
    wanted: list[str] = []
    for name in names if mode != "none" else ():
        times = len(re.findall(rf"(?<!\w){re.escape(name)}(?!\w)", said, re.IGNORECASE))
        wanted += [name] * (times or int(_mentions(said, name)))
    if mode == "required" and not wanted:
        wanted = names[:1]
    if request.parallel_tool_calls is False:
        wanted = wanted[:1]
    calls = []
    for i, name in enumerate(wanted[:MAX_CALLS]):
        tool = tools[name]
        arguments = "demo" if tool.kind == "custom" else _arguments(tool, i)
        calls.append(ToolCall(f"call_demo_{before + i + 1}", name, arguments, tool.kind))
    return tuple(calls)


def _calls_in(messages: Sequence[Message]) -> list[ToolCall]:
    return [part for message in messages for part in message.parts if isinstance(part, ToolCall)]


def _offered(request: Request) -> dict[str, Tool]:
    """The tools by name; a tool of one dialect alone is none that the demo could call."""
    return {tool.name: tool for tool in request.tools if isinstance(tool, Tool)}


def _choice(request: Request, tools: dict[str, Tool]) -> tuple[str, list[str]]:
    """The mode and the tools that may be called."""
    choice = request.tool_choice
    if choice is UNSET:
        return "auto", list(tools)
    return choice.mode, list(choice.names if choice.names or choice.subset else tools)


def _mentions(said: str, name: str) -> bool:
    """Whether the text has a telling word of a tool's name: "weather" for get_weather or getWeather."""
    words = re.findall(r"[A-Z]?[a-z]{3,}|[A-Z]{4,}|[^\W\d_A-Za-z]{2,}", name)
    said = said.lower()
    return any(
        re.search(rf"\b{re.escape(word.lower())}s?\b", said) for word in words if len(word) > 3 or not word.isascii()
    )


def _arguments(tool: Tool, number: int) -> str:
    return _filled(tool.parameters or {"type": "object"}, f"the parameters of {tool.name!r}", "tools", number)


def _filled(schema: Any, what: str, param: str, number: int) -> str:
    """JSON text that fits a schema."""
    try:
        return json.dumps(fill(schema, number), ensure_ascii=False)
    except InputError as error:
        raise InputError(f"{what} cannot be used: {error.message}", param=param, code="invalid_schema") from None
    except UnfillableError as error:
        message = f"the demo model finds no value for {what}: {error}"
        raise InputError(message, param=param, code="unfillable_schema") from None


# ---- what a request must be -------------------------------------------------------------------


def _text(parts: Sequence[Part]) -> str:
    return "".join([part.text for part in parts if isinstance(part, Text)])


def _texts(message: Message) -> Iterator[str]:
    """All that is said in a message: its words, the arguments of its calls, the words of its results."""
    yield message.text
    for part in message.parts:
        if isinstance(part, ToolCall):
            yield part.arguments
        elif isinstance(part, ToolResult):
            yield _text(part.parts)


# Field -> whether a request's value will do, and what it must be.
_FIELDS: dict[str, tuple[Callable[[Request], bool], str]] = {
    "messages": (lambda r: bool(r.messages), "a list with at least one message"),
    "n": (lambda r: r.n is UNSET or 1 <= r.n <= MAX_ANSWERS, f"a whole number from 1 to {MAX_ANSWERS}"),
    "max_tokens": (lambda r: r.max_tokens is UNSET or r.max_tokens >= 0, "a whole number that is not negative"),
}


def _check(request: Request) -> None:
    """Refuse what has no answer, as a provider's server would."""
    if request.model != MODEL:
        message = f"the model {request.model!r} does not exist here; there is only {MODEL!r}"
        raise NotFoundError(message, param="model", code="model_not_found", status=404)
    for field, (will_do, what) in _FIELDS.items():
        if not will_do(request):
            raise InputError(f"Invalid value for {field!r}: it must be {what}.", param=field, code="invalid_value")
    offered = _offered(request)
    mode, names = _choice(request, offered)
    for name in names:
        if name not in offered:
            message = f"tool_choice names {name!r}, which is not among the tools."
            raise InputError(message, param="tool_choice", code="invalid_value")
    if mode == "required" and not names:
        message = "tool_choice is 'required', but there is no tool to call."
        raise InputError(message, param="tool_choice", code="invalid_value")
