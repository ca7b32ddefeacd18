"""The chat protocol of Ollama servers (`/api/chat`): JSON out, JSON or lines of JSON back.
Pure: bytes and values; it knows no model, downloads no picture and never asks twice.

Wire facts: the ollama SDK 0.6 types, the server's recorded answers and its documented errors.
"""

from __future__ import annotations

import base64
import binascii
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct

from polyvox.dialects import (
    SHAPE_ERRORS,
    ClientSide,
    Encoded,
    Endpoint,
    Reply,
    Wire,
    decode_json,
    decode_object,
    encode_json,
    guarded,
    integer,
    snippet,
    string,
)
from polyvox.dialects.errors_on_wire import make_error
from polyvox.dialects.framing import NDJSON
from polyvox.errors import BadResponseError, InputError, PolyvoxError, StreamInterruptedError
from polyvox.types import (
    Ended,
    Event,
    Extra,
    ExtraAdded,
    Failed,
    File,
    FinishReason,
    Image,
    LogprobsAdded,
    Loss,
    Message,
    Opaque,
    Part,
    PartAdded,
    Reasoning,
    ReasoningDelta,
    ReasoningProof,
    Refusal,
    Request,
    Response,
    ResponseFormat,
    Started,
    Text,
    TextDelta,
    Thinking,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolResult,
    Usage,
    UsageReported,
)

NAME = "ollama.chat"
PATH = "/api/chat"

Losses = list[Loss]
_T = TypeVar("_T", str, list[Any])


# ---- the request ------------------------------------------------------------------------------

# Neutral field -> name in `options`, where the value goes over as it is.
_OPTIONS = (
    ("max_tokens", "num_predict"),
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("top_k", "top_k"),
    ("seed", "seed"),
    ("stop", "stop"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
)
_SAME = ("logprobs", "top_logprobs")
# Fields without a place here, the value that needs none, and why it is lost.
_UNSAID: tuple[tuple[str, Any, Loss], ...] = (
    ("n", 1, Loss("n", "there is one answer a call here")),
    ("logit_bias", {}, Loss("logit_bias", "there is no logit_bias here")),
    ("modalities", ("text",), Loss("modalities", "answers are text here")),
    ("audio", {}, Loss("audio", "answers are text here")),
    ("verbosity", "medium", Loss("verbosity", "there is no verbosity here")),
    ("parallel_tool_calls", True, Loss("parallel_tool_calls", "parallel calls cannot be switched off here")),
    ("user", "", Loss("user", "there are no end users here", "note")),
    ("metadata", {}, Loss("metadata", "there are no tags here", "note")),
    ("service_tier", "auto", Loss("service_tier", "there are no tiers here", "note")),
    ("cache_key", "", Loss("cache_key", "the prompt cache has no keys here", "note")),
    ("cache", UNSET, Loss("cache", "the prompt cache is automatic here", "note")),
)
_LEVELS = ("low", "medium", "high")
_NEAREST = {"minimal": "low", "xhigh": "high", "max": "high"}
_FREE_TEXT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


def encode_request(request: Request, at: Endpoint) -> Encoded:
    """See `ClientSide.encode_request`. The server streams unless told not to, so `stream` is always said."""
    losses: Losses = []
    body: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(request.messages, at, losses),
        "stream": request.stream,
    }
    if tools := _tools(request, losses):
        body["tools"] = tools
    if request.response_format is not UNSET:
        _response_format(request.response_format, body, losses)
    if request.thinking is not UNSET:
        _thinking(request.thinking, body, at, losses)
    for field in _SAME:
        if (value := getattr(request, field)) is not UNSET:
            body[field] = value
    for field, harmless, loss in _UNSAID:
        if getattr(request, field) not in (UNSET, harmless):
            losses.append(loss)
    options = {name: getattr(request, field) for field, name in _OPTIONS if getattr(request, field) is not UNSET}
    if "num_ctx" in at.options:
        options["num_ctx"] = at.options["num_ctx"]
    if options:
        body["options"] = options
    if "keep_alive" in at.options:
        body["keep_alive"] = at.options["keep_alive"]
    own = _own(request.extra, losses, "")
    if isinstance(own.get("options"), dict):
        own = {**own, "options": {**options, **own["options"]}}
    body.update(own)
    accept = "application/x-ndjson" if request.stream else "application/json"
    headers = {"content-type": "application/json", "accept": accept}
    return Encoded(Wire(at.options.get("path", PATH), _bytes(body), headers), tuple(losses))


def _bytes(body: dict[str, Any]) -> bytes:
    try:
        return encode_json(body)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InputError(f"the request cannot be written as JSON: {error}") from None


def _own(extra: Extra, losses: Losses, where: str) -> dict[str, Any]:
    """The keys that are this dialect's; those of others are noted as lost."""
    losses += [Loss(f"{where}extra.{name}", "keys of another dialect", "note") for name in extra if name != NAME]
    return dict(extra.get(NAME, {}))


def _tools(request: Request, losses: Losses) -> list[Any]:
    """The tools to offer. Offering fewer is all the choice there is in this dialect."""
    choice, tools = request.tool_choice, list(enumerate(request.tools))
    if choice is not UNSET:
        if choice.mode == "none":
            if tools:
                losses.append(Loss("tool_choice", "there is no tool choice here; no tools are offered", "note"))
            return []
        if choice.names:
            offered = {tool.name for _, tool in tools if isinstance(tool, Tool)}
            if missing := [name for name in choice.names if name not in offered]:
                raise InputError(f"tool_choice names {missing[0]!r}, which is not among the tools")
            tools = [(i, tool) for i, tool in tools if isinstance(tool, Tool) and tool.name in choice.names]
        if choice.mode == "required":
            losses.append(Loss("tool_choice", "the model cannot be made to call a tool here"))
        elif choice.names:
            losses.append(Loss("tool_choice", "only the named tools are offered", "note"))
    return [wire for i, tool in tools if (wire := _tool(tool, losses, f"tools[{i}]")) is not None]


def _tool(tool: Tool | Opaque, losses: Losses, where: str) -> Any:
    if isinstance(tool, Opaque):
        if tool.dialect == NAME:
            return tool.raw
        losses.append(Loss(where, f"{tool.type!r} is a tool of {tool.dialect}"))
        return None
    inner: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        inner["description"] = tool.description
    inner["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    if tool.kind == "custom":
        losses.append(Loss(f"{where}.kind", "tools take objects here; offered as a function of one string"))
        inner["parameters"] = _FREE_TEXT
    if tool.strict is True:
        losses.append(Loss(f"{where}.strict", "arguments are not held to the schema here"))
    if tool.cache is not None:
        losses.append(Loss(f"{where}.cache", "the prompt cache is automatic here", "note"))
    own = _own(tool.extra, losses, where + ".")
    return {"type": "function", "function": {**inner, **own.pop("function", {})}, **own}


def _response_format(wanted: ResponseFormat, body: dict[str, Any], losses: Losses) -> None:
    if wanted.kind != "text":
        body["format"] = wanted.schema if wanted.kind == "schema" and wanted.schema is not None else "json"
    if wanted.description is not None:
        losses.append(Loss("response_format.description", "the schema is all that is sent", "note"))
    body.update(_own(wanted.extra, losses, "response_format."))


def _thinking(wanted: Thinking, body: dict[str, Any], at: Endpoint, losses: Losses) -> None:
    levels = tuple(at.options.get("think_levels", _LEVELS))
    effort = wanted.effort
    if wanted.enabled is False or effort == "none":
        body["think"] = False
    elif effort is not UNSET:
        body["think"] = effort if effort in levels else _NEAREST.get(effort, effort)
        if effort not in levels and effort in _NEAREST:
            losses.append(Loss("thinking.effort", f"{effort!r} is not known here; {body['think']!r} is sent"))
    elif wanted.enabled is True:
        body["think"] = True
    if wanted.budget_tokens is not UNSET:
        losses.append(Loss("thinking.budget_tokens", "there is no token budget for thinking here"))
    if wanted.mode is not UNSET:
        losses.append(Loss("thinking.mode", "there are no modes of thinking here"))
    body.update(_own(wanted.extra, losses, "thinking."))


# ---- messages ---------------------------------------------------------------------------------


class _Turn(NamedTuple):
    """A message being written: its pieces so far and what belongs to it."""

    at: Endpoint
    losses: Losses
    words: list[str]
    images: list[str]
    thoughts: list[str]
    calls: list[dict[str, Any]]
    raw: dict[str, Any]


def _turn(at: Endpoint, losses: Losses) -> _Turn:
    return _Turn(at, losses, [], [], [], [], {})


def _messages(messages: tuple[Message, ...], at: Endpoint, losses: Losses) -> list[dict[str, Any]]:
    names = {part.id: part.name for message in messages for part in message.parts if isinstance(part, ToolCall)}
    found: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        turn, where, beside, any_result = _turn(at, losses), f"messages[{i}]", [], False
        for j, part in enumerate(message.parts):
            spot = f"{where}.parts[{j}]"
            if isinstance(part, ToolResult):
                any_result = True
                wire, pictures = _tool_result(part, names, at, losses, spot)
                found.append(wire)
                beside += pictures
            else:
                _part(part, turn, spot)
        if any_result and not (turn.words or turn.images or turn.calls or turn.thoughts or turn.raw):
            found[-1].update(_own(message.extra, losses, where + "."))
            found += beside
        else:
            found += [*beside, _message(message, turn, where)]
    return found


def _message(message: Message, turn: _Turn, where: str) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": "".join(turn.words),
    }
    if turn.thoughts:
        wire["thinking"] = "".join(turn.thoughts)
    if turn.images:
        wire["images"] = turn.images
    if turn.calls:
        wire["tool_calls"] = turn.calls
    if message.name is not None:
        if message.role == "tool":
            wire["tool_name"] = message.name
        else:
            turn.losses.append(Loss(f"{where}.name", "speakers have no names here"))
    for key, value in turn.raw.items():
        both_lists = isinstance(value, list) and isinstance(wire.get(key), list)
        wire[key] = [*wire[key], *value] if both_lists else value
    wire.update(_own(message.extra, turn.losses, where + "."))
    return wire


def _part(part: Part, turn: _Turn, where: str) -> None:
    """Put one part where the dialect has a place for it, or note that it has none."""
    write = _PARTS.get(type(part))
    if write is None:
        kind = part.__struct_config__.tag
        turn.losses.append(Loss(f"{where}.{kind}", f"{kind} cannot be sent in this dialect"))
        return
    write(part, turn, where)
    if getattr(part, "cache", None) is not None:
        turn.losses.append(Loss(f"{where}.cache", "the prompt cache is automatic here", "note"))
    if not isinstance(part, ToolCall | Opaque) and part.extra:
        turn.raw.update(_own(part.extra, turn.losses, where + "."))


def _text(part: Text, turn: _Turn, where: str) -> None:
    turn.words.append(part.text)
    if part.citations:
        turn.losses.append(Loss(f"{where}.citations", "sources cannot be sent in this dialect", "note"))
    if part.signature is not None:
        turn.losses.append(Loss(f"{where}.signature", f"bound to {part.origin or 'another dialect'}", "note"))


def _refusal(part: Refusal, turn: _Turn, where: str) -> None:
    turn.words.append(part.text)
    turn.losses.append(Loss(f"{where}.refusal", "a refusal is plain text here", "note"))


def _image(part: Image, turn: _Turn, where: str) -> None:
    data = _image_data(part)
    if data is None:
        why = "pictures must be downloaded before they are sent here" if part.url else "there are no file ids here"
        turn.losses.append(Loss(f"{where}.image", why))
        return
    turn.images.append(data)
    if part.detail not in (None, "auto"):
        turn.losses.append(Loss(f"{where}.detail", "there is no detail of pictures here", "note"))


def _image_data(part: Image) -> str | None:
    """The picture as bare base64, as the server wants it, or None when it is not at hand."""
    if part.data is not None:
        return base64.b64encode(part.data).decode("ascii")
    head, comma, data = (part.url or "").partition(",")
    return data if comma and head.startswith("data:") and head.endswith(";base64") else None


def _file(part: File, turn: _Turn, where: str) -> None:
    text = part.text
    if text is None and part.data is not None and (part.media_type or "").startswith("text/"):
        text = part.data.decode("utf-8", "replace")
    if text is None:
        turn.losses.append(Loss(f"{where}.file", "only the text of a file can be sent here"))
        return
    turn.words.append(text)
    turn.losses.append(Loss(f"{where}.file", "sent as plain text", "note"))


def _reasoning(part: Reasoning, turn: _Turn, where: str) -> None:
    """Thinking goes back only to the deployment that thought it; proofs are other dialects' business."""
    ours = part.origin == turn.at.origin if part.origin is not None else NAME in part.extra
    if ours and part.signature is None and part.encrypted is None:
        if part.text:
            turn.thoughts.append(part.text)
        return
    turn.losses.append(Loss(f"{where}.reasoning", f"bound to {part.origin or 'another dialect'}"))


def _call(part: ToolCall, turn: _Turn, where: str) -> None:
    own = _own(part.extra, turn.losses, where + ".")
    inner = {"name": part.name, "arguments": _arguments(part, turn, where), **own.pop("function", {})}
    turn.calls.append({"id": part.id, "function": inner, **own})
    if part.signature is not None:
        turn.losses.append(Loss(f"{where}.signature", f"bound to {part.origin or 'another dialect'}", "note"))


def _arguments(part: ToolCall, turn: _Turn, where: str) -> Any:
    """The model's own bytes where they are an object; anything else travels as one string."""
    if part.kind == "function":
        if not part.arguments.strip():
            return {}
        try:
            if isinstance(decode_json(part.arguments), dict):
                return Raw(part.arguments.encode())
        except (BadResponseError, UnicodeEncodeError):
            pass
    turn.losses.append(Loss(f"{where}.arguments", "arguments are an object here; sent as its `input`"))
    return {"input": part.arguments}


def _opaque(part: Opaque, turn: _Turn, where: str) -> None:
    if part.dialect == NAME and isinstance(part.raw, dict):
        turn.raw.update(part.raw)
    else:
        turn.losses.append(Loss(f"{where}.opaque", f"{part.type!r} is a block of {part.dialect}"))


_PARTS: dict[type, Callable[..., None]] = {
    Text: _text, Refusal: _refusal, Image: _image, File: _file, Reasoning: _reasoning, ToolCall: _call, Opaque: _opaque,
}  # fmt: skip


def _tool_result(
    part: ToolResult, names: dict[str, str], at: Endpoint, losses: Losses, where: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The tool's message, and a user's message for the pictures a tool's cannot hold."""
    turn = _turn(at, losses)
    for j, inner in enumerate(part.parts):
        if isinstance(inner, ToolCall | Reasoning):
            losses.append(Loss(f"{where}.parts[{j}]", "a tool result cannot hold it"))
        else:
            _part(inner, turn, f"{where}.parts[{j}]")
    if part.is_error:
        losses.append(Loss(f"{where}.is_error", "there is no error flag here; the text says so", "note"))
    if part.cache is not None:
        losses.append(Loss(f"{where}.cache", "the prompt cache is automatic here", "note"))
    wire: dict[str, Any] = {"role": "tool", "content": ("error: " if part.is_error else "") + "".join(turn.words)}
    if (name := part.name or names.get(part.call_id)) is not None:
        wire["tool_name"] = name
    if part.call_id:
        wire["tool_call_id"] = part.call_id
    wire.update(turn.raw)
    wire.update(_own(part.extra, losses, where + "."))
    if not turn.images:
        return wire, []
    losses.append(Loss(f"{where}.image", "a tool result holds text only here; sent as a user message", "note"))
    return wire, [{"role": "user", "content": f"From tool call {part.call_id}:", "images": turn.images}]


# ---- the answer -------------------------------------------------------------------------------

_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "load": "stop", "unload": "stop"}
_METRICS = (
    "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
)  # fmt: skip
# Keys with a neutral place; every other key goes to extra.
_TOP = frozenset({"model", "created_at", "message", "done", "done_reason", "logprobs", "error", *_METRICS})
_MESSAGE = frozenset({"role", "content", "thinking", "tool_calls", "images"})


class _RawFunction(Struct):
    arguments: Raw = Raw()


class _RawCall(Struct):
    function: _RawFunction | None = None


class _RawMessage(Struct):
    tool_calls: list[_RawCall] | None = None


class _RawAnswer(Struct):
    message: _RawMessage | None = None


_decode_raw = msgspec.json.Decoder(_RawAnswer).decode


def decode_response(reply: Reply, at: Endpoint) -> Response:
    """See `ClientSide.decode_response`."""
    body = decode_object(reply.body)
    if body.get("error"):
        raise _error_of(body, 0, {})
    return guarded(lambda: _response(body, reply.body, at))


def _response(body: dict[str, Any], data: bytes, at: Endpoint) -> Response:
    message = body["message"]
    parts: list[Part] = []
    if thought := _typed(message, "thinking", str):
        parts.append(Reasoning(thought, **_mark(at)))
    if words := _typed(message, "content", str):
        parts.append(Text(words))
    parts += [_picture(raw) for raw in _typed(message, "images", list)]
    parts += _calls(message, data, set())
    logprobs = _logprobs(body.get("logprobs"))
    reason, raw_reason = _finish(body, any(isinstance(part, ToolCall) for part in parts))
    beside = _beside(message, _MESSAGE)
    extra = _beside_answer(body, logprobs)
    response = Response(
        message=Message("assistant", tuple(parts), extra={NAME: beside} if beside else {}),
        finish_reason=reason,
        raw_finish_reason=raw_reason,
        usage=_usage(body) or Usage(),
        model=string(body.get("model")),
        created=_created(body.get("created_at")),
        logprobs=logprobs or None,
        raw=data,
        extra={NAME: extra} if extra else {},
    )
    if body.get("done") is False:
        partial = msgspec.structs.replace(response, complete=False, finish_reason="incomplete")
        raise BadResponseError("the server says its answer is not whole (done is false)", partial=partial)
    return response


def _typed(message: dict[str, Any], key: str, kind: type[_T]) -> _T:
    """A value that may be missing or null; TypeError, for `guarded`, when it is of another type."""
    value = message.get(key)
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{key} is not a {kind.__name__}")
    return value or kind()


def _mark(at: Endpoint) -> dict[str, Any]:
    """What tells thinking of this dialect from others', so that it may go back."""
    return {"origin": at.origin} if at.origin is not None else {"extra": {NAME: {}}}


def _picture(raw: Any) -> Part:
    try:
        return Image(data=base64.b64decode(raw, validate=True))
    except (TypeError, ValueError, binascii.Error):
        return Opaque(NAME, "image", {"images": [raw]})


def _calls(message: dict[str, Any], data: bytes, ids: set[str]) -> list[Part]:
    """The tool calls; `ids` are those of earlier lines, and grow. An entry without a function is opaque."""
    calls = _typed(message, "tool_calls", list)
    texts = _argument_texts(data) if calls else []
    found: list[Part] = []
    for i, raw in enumerate(calls):
        if "function" not in raw:
            found.append(Opaque(NAME, "tool_call", {"tool_calls": [raw]}))
            continue
        function = raw["function"]
        extra = _beside(raw, frozenset({"id", "function"}))
        if inner := _beside(function, frozenset({"name", "arguments", "index"})):
            extra["function"] = inner
        name = function["name"]
        if not isinstance(name, str):
            raise TypeError("the name of a tool call is not a string")
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            arguments = texts[i] if i < len(texts) else encode_json(arguments).decode()
        # The same id twice would answer two calls with one result.
        call_id = string(raw.get("id")) or f"call_{len(ids)}"
        while call_id in ids:
            call_id += "_"
        ids.add(call_id)
        found.append(ToolCall(call_id, name, arguments or "", extra={NAME: extra} if extra else {}))
    return found


def _argument_texts(data: bytes) -> list[str]:
    """The arguments of each call as the model's own JSON text; [] where the answer has another shape."""
    try:
        message = _decode_raw(data).message
    except (msgspec.DecodeError, RecursionError, ValueError):
        return []
    calls = message.tool_calls if message is not None else None
    return [bytes(call.function.arguments).decode() if call.function else "" for call in calls or ()]


def _beside(raw: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key not in known and value is not None}


def _beside_answer(body: dict[str, Any], logprobs: tuple[TokenLogprob, ...] | None) -> dict[str, Any]:
    """The answer's keys without a neutral place, its log-probabilities where they make no sense."""
    extra = _beside(body, _TOP)
    if logprobs is None and body.get("logprobs") is not None:
        extra["logprobs"] = body["logprobs"]
    return extra


def _finish(body: dict[str, Any], has_calls: bool) -> tuple[FinishReason | None, str | None]:
    """The neutral reason beside the raw one; servers before done_reason give none."""
    raw = string(body.get("done_reason")) or None
    reason = _FINISH.get(raw, "unknown") if raw else None
    return ("tool_calls" if has_calls and reason in (None, "stop") else reason), raw


def _usage(body: dict[str, Any]) -> Usage | None:
    """The counts, with the durations (nanoseconds) beside them in raw; None when there are none."""
    raw = {key: body[key] for key in _METRICS if body.get(key) is not None}
    if not raw:
        return None
    asked, answered = integer(raw.get("prompt_eval_count")), integer(raw.get("eval_count"))
    known = asked is not None or answered is not None
    return Usage(input=asked, output=answered, source="provider" if known else "missing", raw=raw)


def _created(value: Any) -> float | None:
    """Epoch seconds of an RFC 3339 time, or None."""
    try:
        when = datetime.fromisoformat(value)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _logprobs(raw: Any) -> tuple[TokenLogprob, ...] | None:
    """Log-probabilities; None for what are none."""
    if not isinstance(raw, list):
        return None
    try:
        return tuple([_logprob(item) for item in raw])
    except SHAPE_ERRORS:
        return None


def _logprob(raw: dict[str, Any]) -> TokenLogprob:
    token, value = raw["token"], raw["logprob"]
    if not isinstance(token, str) or isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a log-probability is not a token and a number")
    numbers = raw.get("bytes")
    if numbers is not None and not all(type(number) is int for number in numbers):
        raise TypeError("bytes are not numbers")
    top = tuple([_logprob(item) for item in raw.get("top_logprobs") or ()])
    return TokenLogprob(token, float(value), None if numbers is None else tuple(numbers), top)


# ---- the stream -------------------------------------------------------------------------------


class OllamaReader:
    """See `dialects.Reader`. A line is one JSON object; the one with done true is the last."""

    def __init__(self, at: Endpoint) -> None:
        self.done = False
        self._at = at
        self._lines = NDJSON()
        self._started = False
        self._parts = 0
        self._text: int | None = None
        self._thought: int | None = None
        self._ids: set[str] = set()

    def feed(self, data: bytes) -> list[Event]:
        """See `dialects.Reader.feed`."""
        return self._guarded(lambda: self._lines.feed(data))

    def close(self) -> list[Event]:
        """See `dialects.Reader.close`."""
        events = self._guarded(self._last)
        if not self.done:
            self._fail(StreamInterruptedError("the stream ended before the server was done", sent="yes"), events)
        return events

    def _last(self) -> list[bytes]:
        """The line that had no end: whole, no line of ours at all, or (dropped here) cut off."""
        lines = self._lines.close()
        if lines and (lines[0].lstrip().startswith(b"{") or BOM_UTF8.startswith(lines[0])):
            try:
                decode_json(lines[0])
            except BadResponseError:
                return []
        return lines

    def _guarded(self, take: Callable[[], Iterable[bytes]]) -> list[Event]:
        events: list[Event] = []
        if self.done:
            return events
        try:
            for line in take():
                if self._line(line, events):
                    break
        except PolyvoxError as error:
            self._fail(error, events)
        except SHAPE_ERRORS as error:
            self._fail(BadResponseError(f"a line of the stream has an unexpected shape: {error}"), events)
        return events

    def _fail(self, error: PolyvoxError, events: list[Event]) -> None:
        self.done = True
        if error.sent == "unknown":
            error.sent = "yes"
        events.append(Failed(error))

    def _line(self, line: bytes, events: list[Event]) -> bool:
        """Take one line; true when it was the last."""
        body = decode_object(line)
        if body.get("error"):
            raise _error_of(body, 0, {})
        if not self._started:
            self._started = True
            events.append(Started(None, string(body.get("model")), _created(body.get("created_at"))))
        message = body.get("message")
        if message is not None:
            self._message(message, line, events)
        logprobs = _logprobs(body.get("logprobs"))
        if logprobs:
            events.append(LogprobsAdded(logprobs))
        if extra := _beside_answer(body, logprobs):
            events.append(ExtraAdded({NAME: extra}))
        if (usage := _usage(body)) is not None:
            events.append(UsageReported(usage))
        if body.get("done") is True:
            self.done = True
            reason, raw = _finish(body, bool(self._ids))
            events.append(Ended(reason or "unknown", raw))
        return self.done

    def _message(self, message: dict[str, Any], line: bytes, events: list[Event]) -> None:
        if thought := _typed(message, "thinking", str):
            if self._thought is None:
                self._thought = self._take()
                events.append(ReasoningProof(self._thought, **_mark(self._at)))
            events.append(ReasoningDelta(thought, self._thought))
        if words := _typed(message, "content", str):
            if self._text is None:
                self._text = self._take()
            events.append(TextDelta(words, self._text))
        events += [PartAdded(self._take(), _picture(raw)) for raw in _typed(message, "images", list)]
        for part in _calls(message, line, self._ids):
            number = self._take()
            if not isinstance(part, ToolCall):
                events.append(PartAdded(number, part))
                continue
            events.append(ToolCallStarted(number, part.id, part.name, extra=part.extra))
            if part.arguments:
                events.append(ToolCallDelta(number, part.arguments))
            events.append(ToolCallEnded(number))
        if beside := _beside(message, _MESSAGE):
            events.append(ExtraAdded({NAME: {"message": beside}}))

    def _take(self) -> int:
        self._parts += 1
        return self._parts - 1


# ---- errors -----------------------------------------------------------------------------------


class _Said(NamedTuple):
    """What the server's own words mean, where its status does not tell."""

    words: re.Pattern[str]
    kind: str
    param: str | None = None
    hint: str | None = None


_SAID = (
    _Said(re.compile(r"does not support tools"), "unsupported_param", "tools"),
    _Said(re.compile(r"does not support thinking"), "unsupported_param", "thinking"),
    _Said(re.compile(r"server busy|maximum pending requests"), "overloaded"),
)
_NOT_HERE = "the model is not on this server: pull it there (`ollama pull NAME`), or list the models it has"


def decode_error(reply: Reply) -> PolyvoxError:
    """See `ClientSide.decode_error`; a body that is no JSON still gives the error its status means."""
    try:
        body = decode_json(reply.body)
    except BadResponseError:
        body = {"error": snippet(reply.body)}
    return _error_of(body if isinstance(body, dict) else {"error": snippet(reply.body)}, reply.status, reply.headers)


def _error_of(body: dict[str, Any], status: int, headers: Any) -> PolyvoxError:
    """The error in {"error": "words"}, or in the object that servers in front send instead. status 0 means
    that it came inside an answer: then a status_code beside it counts.
    """
    inner = body.get("error")
    facts = inner if isinstance(inner, dict) else body
    message = inner if isinstance(inner, str) else string(facts.get("message")) or snippet(encode_json(body))
    code = facts.get("code")
    said = next((said for said in _SAID if said.words.search(message)), None)
    status = status or integer(body.get("status_code")) or 0
    error = make_error(
        status if status >= 400 else 0,
        headers,
        code=str(code) if isinstance(code, str | int) and not isinstance(code, bool) else None,
        type=string(facts.get("type")),
        message=message,
        param=said.param if said else string(facts.get("param")),
        kind=said.kind if said else None,
    )
    if error.kind == "not_found" and "model" in message.lower():
        error.hint = _NOT_HERE
    return error


# ---- the dialect ------------------------------------------------------------------------------


class OllamaChat:
    """The dialect; it has no state, one object serves every call."""

    name = NAME

    def encode_request(self, request: Request, at: Endpoint) -> Encoded:
        """See `ClientSide`."""
        return encode_request(request, at)

    def decode_response(self, reply: Reply, at: Endpoint) -> Response:
        """See `ClientSide`."""
        return decode_response(reply, at)

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """See `ClientSide`."""
        return decode_error(reply)

    def reader(self, at: Endpoint) -> OllamaReader:
        """See `ClientSide`."""
        return OllamaReader(at)

    def must_stream(self, request: Request, at: Endpoint) -> bool:
        """Never: the server answers in one piece when told to."""
        return False


DIALECT: ClientSide = OllamaChat()
