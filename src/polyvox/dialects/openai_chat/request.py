"""A neutral request as a Chat Completions body, with the losses. It branches on quirks, never on
names of models or providers."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from msgspec import UNSET, UnsetType

from polyvox.dialects import Encoded, Endpoint, Wire, encode_json
from polyvox.dialects.bound import missed
from polyvox.dialects.openai_chat.answer import BESIDE_CONTENT, NAME
from polyvox.dialects.scope import Scope
from polyvox.errors import InputError
from polyvox.types import (
    Audio,
    CacheHint,
    Extra,
    File,
    Image,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Request,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Video,
)

_HEADERS = {"content-type": "application/json"}
_STREAM_HEADERS = {"content-type": "application/json", "accept": "text/event-stream"}

# Neutral field -> wire field, where the value goes over as it is.
SAME = (
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("logprobs", "logprobs"),
    ("top_logprobs", "top_logprobs"),
    ("n", "n"),
    ("parallel_tool_calls", "parallel_tool_calls"),
    ("service_tier", "service_tier"),
    ("verbosity", "verbosity"),
    ("metadata", "metadata"),
    ("audio", "audio"),
    ("modalities", "modalities"),
    ("cache_key", "prompt_cache_key"),
)
# Neutral kind of an answer's form -> the wire's word.
FORMATS: dict[Literal["text", "json", "schema"], str] = {"text": "text", "json": "json_object", "schema": "json_schema"}
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}  # of a function that takes none
UNNAMED = "file.pdf"  # how a file without a name is called, as one is demanded
_SAMPLING = ("temperature", "top_p", "top_k")
_CACHE_TTLS = ("30m", "12h")  # of prompt_cache_breakpoint
AUDIO_FORMATS = {
    "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3",
}  # fmt: skip


class _Out(Scope):
    """Where a request is being written to, and what of it is remembered."""

    __slots__ = ("called", "refused")
    NAME: ClassVar[str] = NAME

    def __init__(self, at: Endpoint) -> None:
        super().__init__(at)
        self.called: dict[str, str] = {}  # id of a call -> the name of its function
        self.refused = _SAMPLING if "no_sampling" in at.quirks else ()

    def send_back(self, extra: Extra, into: dict[str, Any], where: str, inner: tuple[str, ...] = ()) -> None:
        """Put the keys of this dialect into a wire object; those of others are noted. An object under one
        of the `inner` keys joins what stands there, others take its place."""
        if keys := self.own(extra, where):
            joined = {key: {**into[key], **keys[key]} for key in inner if _both_objects(into, keys, key)}
            into.update({**keys, **joined})


def _both_objects(first: dict[str, Any], second: dict[str, Any], key: str) -> bool:
    """Whether both hold an object under the key."""
    return isinstance(first.get(key), dict) and isinstance(second.get(key), dict)


def encode_request(request: Request, at: Endpoint) -> Encoded:
    """The body, the path and what could not be said; raises InputError for what can never be sent."""
    out = _Out(at)
    body: dict[str, Any] = {"model": request.model, "messages": _messages(request.messages, out)}
    # Most requests say nothing else; comparing at once is cheaper than asking field by field.
    if request != Request(request.model, request.messages, stream=request.stream):
        _fields(request, body, out)
    if request.stream:
        body["stream"] = True
        if "no_usage_option" not in at.quirks:
            body["stream_options"] = {"include_usage": True}
    if request.extra:
        out.losses += missed(request.extra, NAME)
        out.send_back(request.extra, body, "", ("stream_options",))
    try:
        data = encode_json(body)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"the request cannot be written as JSON: {error}") from None
    headers = _STREAM_HEADERS if request.stream else _HEADERS
    return Encoded(Wire(at.options.get("path", "/chat/completions"), data, headers), tuple(out.losses))


def _fields(request: Request, body: dict[str, Any], out: _Out) -> None:
    """Everything but the messages."""
    if request.tools:
        body["tools"] = [_tool(tool, out, f"tools[{i}]") for i, tool in enumerate(request.tools)]
    if request.tool_choice is not UNSET:
        body["tool_choice"] = _tool_choice(request.tool_choice, request.tools, out)
    if request.response_format is not UNSET:
        body["response_format"] = _response_format(request.response_format, out)
    if request.thinking is not UNSET:
        _thinking(request.thinking, body, out)
    _limits(request, body, out)
    for field, name in SAME:
        value = getattr(request, field)
        if value is not UNSET and field not in out.refused:
            body[name] = value


def _limits(request: Request, body: dict[str, Any], out: _Out) -> None:
    """The fields whose name, form or presence depends on the endpoint."""
    quirks = out.at.quirks
    for field in out.refused:
        if getattr(request, field) is not UNSET:
            out.lose(field, "this endpoint refuses sampling settings")
    if request.top_k is not UNSET and "top_k" not in out.refused:
        if "top_k" in quirks:
            body["top_k"] = request.top_k
        else:
            out.lose("top_k", "this endpoint has no top_k")
    if request.max_tokens is not UNSET:
        body["max_tokens" if "max_tokens" in quirks else "max_completion_tokens"] = request.max_tokens
    if request.stop is not UNSET:
        body["stop"] = list(request.stop)
    if request.seed is not UNSET:
        body["random_seed" if "random_seed" in quirks else "seed"] = request.seed
    if request.logit_bias is not UNSET:
        # The protocol counts in whole numbers; 1.0 on the wire is refused by strict servers.
        body["logit_bias"] = {token: _whole(bias) for token, bias in request.logit_bias.items()}
    if request.user is not UNSET:
        body[out.at.options.get("user_field", "user")] = request.user
    if request.cache is not UNSET:
        out.lose("cache", "caching of the whole prompt is automatic here", "note")


def _whole(number: float) -> float:
    return int(number) if isinstance(number, float) and number.is_integer() else number


# ---- tools and formats ------------------------------------------------------------------------


def _tool(tool: Tool | Opaque, out: _Out, where: str) -> Any:
    if isinstance(tool, Opaque):
        if tool.dialect != NAME:
            raise InputError(
                f"the tool {tool.type!r} is one of {tool.dialect}; it cannot be offered in {NAME}",
                hint="offer a function tool instead, or choose a model that has this tool",
            )
        return tool.raw
    inner: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        inner["description"] = tool.description
    if tool.kind == "custom":
        if tool.format is not None:
            inner["format"] = tool.format
        for field, value in (("parameters", tool.parameters or UNSET), ("strict", tool.strict)):
            if value is not UNSET:
                out.lose(f"{where}.{field}", "a custom tool takes free text")
    else:
        inner["parameters"] = tool.parameters or NO_PARAMETERS
        if tool.strict is not UNSET:
            inner["strict"] = tool.strict
        if tool.format is not None:
            out.lose(f"{where}.format", "a function tool has no grammar")
    outer: dict[str, Any] = {"type": tool.kind, tool.kind: inner}
    if tool.cache is not None:
        _cache(tool.cache, outer, out, where)
    if tool.extra:
        out.send_back(tool.extra, outer, where, (tool.kind,))
    return outer


def _tool_choice(choice: ToolChoice, tools: tuple[Tool | Opaque, ...], out: _Out) -> Any:
    if choice.mode == "none":
        return "none"
    kinds = {tool.name: tool.kind for tool in tools if isinstance(tool, Tool)}
    named: list[dict[str, Any]] = [
        {"type": kind, kind: {"name": name}} for name in choice.names for kind in (kinds.get(name, "function"),)
    ]
    if named and (choice.subset or len(named) > 1 or choice.mode == "auto"):
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": named}}
    if named:
        return named[0]
    return "any" if choice.mode == "required" and "tool_choice_any" in out.at.quirks else choice.mode


def _response_format(wanted: ResponseFormat, out: _Out) -> dict[str, Any]:
    wire: dict[str, Any] = {"type": FORMATS.get(wanted.kind, "text")}
    if wanted.kind == "schema":
        inner: dict[str, Any] = {"name": wanted.name, "schema": wanted.schema or {}}
        if wanted.description is not None:
            inner["description"] = wanted.description
        if wanted.strict is not UNSET:
            inner["strict"] = wanted.strict
        wire["json_schema"] = inner
    if wanted.extra:
        out.send_back(wanted.extra, wire, "response_format", ("json_schema",))
    return wire


def _thinking(wanted: Thinking, body: dict[str, Any], out: _Out) -> None:
    """Reasoning in the endpoint's form: an effort, an object, a switch, or switch and effort."""
    quirks = out.at.quirks
    effort: str | UnsetType = "none" if wanted.enabled is False else wanted.effort
    if "thinking_switch" in quirks and (wanted.enabled is not UNSET or effort == "none"):
        body["thinking"] = {"type": "disabled" if effort == "none" else "enabled"}
        effort = UNSET if effort == "none" else effort
    if "reasoning_object" in quirks:
        inner = {"effort": effort, "max_tokens": wanted.budget_tokens}
        told = {key: value for key, value in inner.items() if value is not UNSET}
        if told or wanted.enabled is True:
            body["reasoning"] = told or {"enabled": True}
    else:
        if effort is not UNSET:
            body["reasoning_effort"] = effort
        elif wanted.enabled is True and "thinking" not in body:
            out.lose("thinking.enabled", "reasoning is switched by effort here", "note")
        if wanted.budget_tokens is not UNSET:
            out.lose("thinking.budget_tokens", "this dialect has no token budget for reasoning")
    # A mode that a client of this dialect asked for is among the dialect's own keys, and goes back.
    if wanted.mode is not UNSET and "thinking" not in wanted.extra.get(NAME, ()):
        out.lose("thinking.mode", "this dialect has no modes of reasoning")
    if wanted.extra:
        out.send_back(wanted.extra, body, "thinking", ("reasoning", "thinking"))


# ---- messages ---------------------------------------------------------------------------------


def _messages(messages: tuple[Message, ...], out: _Out) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    # What tool results hold besides text. It waits until the last of their messages: nothing may
    # stand between the results of one turn.
    beside: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        parts = message.parts
        # The common case, and the hot one: plain words from somebody.
        if len(parts) == 1 and type(text := parts[0]) is Text and message.role != "tool" and _bare(text):
            if beside:
                found += _flushed(beside)
            wire: dict[str, Any] = {"role": _role(message.role, out), "content": text.text}
            if message.name is not None or message.extra:
                _finish(message, wire, out, f"messages[{i}]")
            found.append(wire)
            continue
        where = f"messages[{i}]"
        others = [(f"{where}.parts[{j}]", part) for j, part in enumerate(parts) if type(part) is not ToolResult]
        if message.role == "assistant":
            found += _flushed(beside)
            found.append(_assistant(message, others, out, where))
        for j, part in enumerate(parts):
            if type(part) is ToolResult:
                found.append(_tool_result(part, out, f"{where}.parts[{j}]", beside))
        if message.role == "tool":
            if others or not parts:
                raise InputError(f"{where}: a tool message holds tool results and nothing else")
            _finish(message, found[-1], out, where)
        elif message.role != "assistant" and (others or not parts):
            found += _flushed(beside)
            wire = {"role": _role(message.role, out), "content": _content(others, out)}
            found.append(_finish(message, wire, out, where))
    return found + _flushed(beside)


def _flushed(beside: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not beside:
        return []
    content = list(beside)
    beside.clear()
    return [{"role": "user", "content": content}]


def _bare(text: Text) -> bool:
    return not (text.cache or text.extra or text.citations or text.signature)


def _role(role: str, out: _Out) -> str:
    return "system" if role == "developer" and "system_role" in out.at.quirks else role


def _finish(message: Message, wire: dict[str, Any], out: _Out, where: str) -> dict[str, Any]:
    if message.name is not None:
        wire["name"] = message.name
    if message.extra:
        out.send_back(message.extra, wire, where)
    return wire


def _content(parts: list[tuple[str, Part]], out: _Out) -> Any:
    """Content of a system, developer or user turn: a string where that says it all."""
    encoded = [_part(part, out, where) for where, part in parts]
    content = [chunk for chunk in encoded if chunk is not None]
    return _words(content) if len(content) < 2 else content


def _words(content: list[dict[str, Any]]) -> Any:
    """Chunks as one string where all are plain text, else as they are."""
    texts = [chunk["text"] for chunk in content if chunk.keys() == {"type", "text"} and chunk["type"] == "text"]
    plain = len(texts) == len(content) and all(isinstance(text, str) for text in texts)
    return "".join(texts) if plain else content


def _part(part: Part, out: _Out, where: str) -> dict[str, Any] | None:
    """One chunk of content, or None where the dialect has no place for it."""
    encode = _PARTS.get(type(part))
    if encode is None:
        out.lose(f"{where}.{part.__struct_config__.tag}", "such a turn of this dialect cannot hold it")
        return None
    wire = encode(part, out, where)
    if wire is not None:
        if (cache := getattr(part, "cache", None)) is not None:
            _cache(cache, wire, out, where)
        if extra := getattr(part, "extra", None):
            out.send_back(extra, wire, where, (wire["type"],))
    return wire


def _cache(cache: CacheHint, wire: dict[str, Any], out: _Out, where: str) -> None:
    if "cache_control" in out.at.quirks:
        wire["cache_control"] = mark = {"type": "ephemeral", **({"ttl": cache.ttl} if cache.ttl else {})}
    elif "cache_breakpoint" in out.at.quirks:
        wire["prompt_cache_breakpoint"] = mark = {"mode": "explicit"}
        if cache.ttl in _CACHE_TTLS:
            mark["ttl"] = cache.ttl
        elif cache.ttl:
            out.lose(f"{where}.cache.ttl", "only 30m and 12h are known here; the default is used", "note")
    else:
        out.lose(f"{where}.cache", "this endpoint caches without breakpoints", "note")
        return
    if cache.extra:
        out.send_back(cache.extra, mark, f"{where}.cache")


def _text(part: Text, out: _Out, where: str) -> dict[str, Any]:
    if part.citations:
        out.lose(f"{where}.citations", "sources cannot be sent in this dialect", "note")
    if part.signature:
        out.lose(f"{where}.signature", f"bound to {part.origin}")
    return {"type": "text", "text": part.text}


def _image(part: Image, out: _Out, where: str) -> dict[str, Any] | None:
    url = part.url or _data_url(part, "image/png")
    if url is None:
        out.lose(f"{where}.image", "an image must come as data or URL in this dialect")
        return None
    _unnamed(part, out, where)
    inner = {"url": url}
    if part.detail is not None:
        inner["detail"] = part.detail
    return {"type": "image_url", "image_url": inner}


def _audio(part: Audio, out: _Out, where: str) -> dict[str, Any] | None:
    if part.data is None:
        out.lose(f"{where}.audio", "audio must come as data in this dialect")
        return None
    _unnamed(part, out, where)
    kind = part.media_type or "audio/wav"
    form = AUDIO_FORMATS.get(kind) or kind.rpartition("/")[2]
    return {"type": "input_audio", "input_audio": {"data": _base64(part.data), "format": form}}


def _file(part: File, out: _Out, where: str) -> dict[str, Any] | None:
    if part.context is not None:
        out.lose(f"{where}.context", "this dialect has no context for files")
    if part.file_id is not None and not out.is_foreign(part.origin):
        inner: dict[str, Any] = {"file_id": part.file_id, **({"filename": part.name} if part.name is not None else {})}
    elif part.data is not None:
        if not part.name:
            out.lose(f"{where}.name", f"a name is demanded: sent as {UNNAMED!r}", "note")
        inner = {"file_data": _data_url(part, "application/pdf"), "filename": part.name or UNNAMED}
    elif part.url is not None and _own_address(part):
        inner = {} if part.name is None else {"filename": part.name}
    elif part.text is not None:
        out.lose(f"{where}.file", "the words of a plain-text file are sent as text", "note")
        _unnamed(part, out, where)
        return {"type": "text", "text": part.text}
    else:
        why = f"bound to {part.origin}" if part.file_id is not None else "a file must come as data, text or id here"
        out.lose(f"{where}.file", why)
        return None
    return {"type": "file", "file": inner}


def _own_address(part: File) -> bool:
    """Whether a client of this dialect gave the address: then the dialect's own keys hold it, and send it."""
    own = part.extra.get(NAME, {}).get("file")
    return isinstance(own, dict) and "file_data" in own


def _video(part: Video, out: _Out, where: str) -> dict[str, Any] | None:
    url = part.url or _data_url(part, "video/mp4")
    if not out.at.options.get("video") or url is None:
        out.lose(f"{where}.video", "this endpoint takes no video")
        return None
    _unnamed(part, out, where)
    return {"type": "video_url", "video_url": {"url": url}}


def _opaque(part: Opaque, out: _Out, where: str) -> dict[str, Any] | None:
    if part.dialect != NAME:
        out.lose(f"{where}.opaque", f"{part.type!r} is a block of {part.dialect}")
        return None
    if part.type in BESIDE_CONTENT or not isinstance(part.raw, dict):
        out.lose(f"{where}.opaque", f"{part.type!r} has no place in the content of a turn")
        return None
    return dict(part.raw)


_PARTS: dict[type, Callable[..., dict[str, Any] | None]] = {
    Text: _text, Image: _image, Audio: _audio, File: _file, Video: _video, Opaque: _opaque,
}  # fmt: skip


def _unnamed(part: Media, out: _Out, where: str) -> None:
    if part.name is not None:
        out.lose(f"{where}.name", "only files have a name in this dialect", "note")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _data_url(part: Media, default: str) -> str | None:
    return f"data:{part.media_type or default};base64,{_base64(part.data)}" if part.data is not None else None


# ---- turns of the assistant and of tools ------------------------------------------------------


def _assistant(message: Message, parts: list[tuple[str, Part]], out: _Out, where: str) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": "assistant"}
    content: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for spot, part in parts:
        match part:
            case Text() | Opaque():
                if (chunk := _part(part, out, spot)) is not None:
                    content.append(chunk)
            case Refusal():
                chunk = {"type": "refusal", "refusal": part.text}
                out.send_back(part.extra, chunk, spot)
                content.append(chunk)
            case ToolCall():
                calls.append(_call(part, out, spot))
            case Reasoning():
                _reasoning(part, wire, content, out, spot)
            case Audio():
                _spoken(part, wire, content, out, spot)
            case _:
                out.lose(f"{spot}.{part.__struct_config__.tag}", "an assistant turn cannot hold it")
    if calls:
        wire["tool_calls"] = calls
    # Nothing beside calls or a sound is null; nothing at all is an empty string.
    wire["content"] = None if not content and (calls or "audio" in wire) else _words(content)
    return _finish(message, wire, out, where)


def _call(part: ToolCall, out: _Out, where: str) -> dict[str, Any]:
    if part.signature:
        out.lose(f"{where}.signature", f"bound to {part.origin}")
    custom = part.kind == "custom"
    inner: dict[str, Any] = {"name": part.name, "input" if custom else "arguments": part.arguments}
    if not custom and not part.arguments:
        inner["arguments"] = "{}"
    wire: dict[str, Any] = {"id": part.id, "type": part.kind, part.kind: inner}
    out.send_back(part.extra, wire, where, (part.kind,))
    out.called[part.id] = part.name
    return wire


def _spoken(part: Audio, wire: dict[str, Any], content: list[dict[str, Any]], out: _Out, where: str) -> None:
    """Sound the model made goes back by its id, to where it was made; elsewhere its words do."""
    if part.file_id is not None and not out.is_foreign(part.origin):
        wire["audio"] = {"id": part.file_id}
        return
    out.lose(f"{where}.audio", f"bound to {part.origin}" if part.file_id else "an assistant turn cannot hold it")
    if part.transcript:
        content.append({"type": "text", "text": part.transcript})


def _reasoning(part: Reasoning, wire: dict[str, Any], content: list[dict[str, Any]], out: _Out, where: str) -> None:
    """Reasoning goes back only in the form it came in, and only to the deployment that made it."""
    own = part.extra.get(NAME, {})
    proven = part.signature is not None or part.encrypted is not None
    if out.is_foreign(part.origin):
        out.lose(f"{where}.reasoning", f"bound to {part.origin}")
    elif "reasoning_details" in own:
        wire["reasoning_details"] = [*wire.get("reasoning_details", ()), *own["reasoning_details"]]
    elif "chunk" in own:
        content.append({"type": "thinking", "thinking": [{"type": "text", "text": part.text}], **own["chunk"]})
    elif proven:
        out.lose(f"{where}.reasoning", f"bound to {part.origin or 'another dialect'}")
    elif "echo_reasoning" in out.at.quirks and part.text:
        wire["reasoning_content"] = wire.get("reasoning_content", "") + part.text
    else:
        out.lose(f"{where}.reasoning", "reasoning is not sent back to this endpoint", "note")


def _tool_result(result: ToolResult, out: _Out, where: str, beside: list[dict[str, Any]]) -> dict[str, Any]:
    """A tool message; what is not text is put into `beside`, labelled, for a user message."""
    words = []
    for j, part in enumerate(result.parts):
        spot = f"{where}.parts[{j}]"
        if type(part) is Text:
            words.append(part.text)
            if part.cache is not None:
                out.lose(f"{spot}.cache", "tool results carry no breakpoint here", "note")
            for dialect in part.extra:
                out.lose(f"{spot}.extra.{dialect}", "words of a tool result stand alone here", "note")
        elif (piece := _part(part, out, spot)) is not None:
            out.lose(spot, "a tool result holds text only here; sent as a user message", "note")
            beside += [{"type": "text", "text": f"From tool call {result.call_id}:"}, piece]
    text = "".join(words)
    if result.is_error:
        out.lose(f"{where}.is_error", "this dialect has no error flag; the text says so", "note")
        text = f"error: {text}"
    wire: dict[str, Any] = {"role": "tool", "tool_call_id": result.call_id, "content": text}
    if result.cache is not None:
        out.lose(f"{where}.cache", "tool results carry no breakpoint here", "note")
    if result.name not in (None, out.called.get(result.call_id), result.extra.get(NAME, {}).get("name")):
        out.lose(f"{where}.name", "a tool result is named by its call in this dialect", "note")
    out.send_back(result.extra, wire, where)
    return wire
