"""A neutral request as a Chat Completions body, with the losses. It branches on quirks, never on
names of models or providers."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from polyvox.dialects import Encoded, Endpoint, Wire, encode_json
from polyvox.errors import InputError
from polyvox.types import (
    Audio,
    CacheHint,
    File,
    Image,
    Loss,
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

NAME = "openai.chat"
_HEADERS = {"content-type": "application/json", "accept": "application/json"}
_STREAM_HEADERS = {"content-type": "application/json", "accept": "text/event-stream"}

# Neutral field -> wire field, where the value goes over as it is.
_SAME = (
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("logit_bias", "logit_bias"),
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
_SAMPLING = ("temperature", "top_p", "top_k")
_AUDIO_FORMATS = {
    "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3",
}  # fmt: skip


def encode_request(request: Request, at: Endpoint) -> Encoded:
    """The body, the path and what could not be said."""
    losses: list[Loss] = []
    body: dict[str, Any] = {"model": request.model, "messages": _messages(request.messages, at, losses)}
    if request.tools:
        body["tools"] = [_tool(tool, at, losses, f"tools[{i}]") for i, tool in enumerate(request.tools)]
    if request.tool_choice is not UNSET:
        body["tool_choice"] = _tool_choice(request.tool_choice, at)
    if request.response_format is not UNSET:
        body["response_format"] = _response_format(request.response_format)
    if request.thinking is not UNSET:
        _thinking(request.thinking, body, at, losses)
    _limits(request, body, at, losses)
    for field, name in _SAME:
        value = getattr(request, field)
        if value is not UNSET:
            body[name] = value
    if request.stream:
        body["stream"] = True
        if "no_usage_option" not in at.quirks:
            body["stream_options"] = {"include_usage": True}
    if request.extra:
        _extra(request.extra, body, losses, "")
    return Encoded(
        Wire(at.options.get("path", "/chat/completions"), encode_json(body), _STREAM_HEADERS if request.stream else _HEADERS),
        tuple(losses),
    )


def _limits(request: Request, body: dict[str, Any], at: Endpoint, losses: list[Loss]) -> None:
    """The fields whose name or presence depends on the endpoint."""
    if request.max_tokens is not UNSET:
        body["max_tokens" if "max_tokens" in at.quirks else "max_completion_tokens"] = request.max_tokens
    if request.stop is not UNSET:
        body["stop"] = list(request.stop)
    if request.seed is not UNSET:
        body["random_seed" if "random_seed" in at.quirks else "seed"] = request.seed
    if request.user is not UNSET:
        body[at.options.get("user_field", "user")] = request.user
    if request.top_k is not UNSET:
        if "top_k" in at.quirks:
            body["top_k"] = request.top_k
        else:
            losses.append(Loss("top_k", "this endpoint has no top_k"))
    if request.cache is not UNSET:
        losses.append(Loss("cache", "caching of the whole prompt is automatic here", "note"))
    if "no_sampling" in at.quirks:
        for field in _SAMPLING:
            if getattr(request, field) is not UNSET and field not in [loss.field for loss in losses]:
                losses.append(Loss(field, "this endpoint refuses sampling settings"))


def _extra(extra: dict[str, dict[str, Any]], into: dict[str, Any], losses: list[Loss], where: str) -> None:
    for dialect, keys in extra.items():
        if dialect == NAME:
            into.update(keys)
        else:
            losses.append(Loss(f"{where}extra.{dialect}", "keys of another dialect", "note"))


# ---- tools and formats ------------------------------------------------------------------------


def _tool(tool: Tool | Opaque, at: Endpoint, losses: list[Loss], where: str) -> Any:
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
        outer: dict[str, Any] = {"type": "custom", "custom": inner}
    else:
        inner["parameters"] = tool.parameters or {"type": "object", "properties": {}}
        if tool.strict is not UNSET:
            inner["strict"] = tool.strict
        outer = {"type": "function", "function": inner}
    if tool.cache is not None:
        _cache(tool.cache, outer, at, losses, where)
    if tool.extra:
        _extra(tool.extra, outer, losses, where + ".")
    return outer


def _tool_choice(choice: ToolChoice, at: Endpoint) -> Any:
    named = [{"type": "function", "function": {"name": name}} for name in choice.names]
    if choice.names and (choice.subset or len(choice.names) > 1):
        mode = "required" if choice.mode == "required" else "auto"
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}
    if choice.mode == "required":
        if named:
            return named[0]
        return "any" if "tool_choice_any" in at.quirks else "required"
    return choice.mode


def _response_format(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.kind != "schema":
        return {"type": "json_object" if wanted.kind == "json" else "text"}
    inner: dict[str, Any] = {"name": wanted.name, "schema": wanted.schema or {}}
    if wanted.description is not None:
        inner["description"] = wanted.description
    if wanted.strict is not UNSET:
        inner["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": inner}


def _thinking(wanted: Thinking, body: dict[str, Any], at: Endpoint, losses: list[Loss]) -> None:
    effort = wanted.effort
    if wanted.enabled is False and effort is UNSET:
        effort = "none"
    if "thinking_switch" in at.quirks and (wanted.enabled is not UNSET or effort == "none"):
        body["thinking"] = {"type": "disabled" if wanted.enabled is False or effort == "none" else "enabled"}
        effort = UNSET if effort == "none" else effort
    elif wanted.enabled is True and effort is UNSET and wanted.budget_tokens is UNSET:
        losses.append(Loss("thinking.enabled", "reasoning is switched by effort here", "note"))
    if "reasoning_object" in at.quirks:
        inner = {"effort": effort, "max_tokens": wanted.budget_tokens}
        body["reasoning"] = {key: value for key, value in inner.items() if value is not UNSET}
    else:
        if effort is not UNSET:
            body["reasoning_effort"] = effort
        if wanted.budget_tokens is not UNSET:
            losses.append(Loss("thinking.budget_tokens", "this dialect has no token budget for reasoning"))
    if wanted.mode is not UNSET:
        losses.append(Loss("thinking.mode", "this dialect has no modes of reasoning"))
    if wanted.extra:
        _extra(wanted.extra, body, losses, "thinking.")


# ---- messages ---------------------------------------------------------------------------------


def _messages(messages: tuple[Message, ...], at: Endpoint, losses: list[Loss]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        parts = message.parts
        # The common case, and the hot one: plain words from somebody.
        if len(parts) == 1 and message.role != "tool" and type(parts[0]) is Text and _bare(parts[0]):
            wire: dict[str, Any] = {"role": _role(message.role, at), "content": parts[0].text}
            _finish(message, wire, losses, where)
            found.append(wire)
            continue
        results = [part for part in parts if type(part) is ToolResult]
        found += _tool_results(results, parts, at, losses, where)
        others = [part for part in parts if type(part) is not ToolResult] if results else list(parts)
        if message.role == "assistant":
            found.append(_assistant(message, at, losses, where))
        elif message.role == "tool":
            if others:
                raise InputError(f"{where}: a tool message holds tool results only")
        elif others or not results:
            wire = {"role": _role(message.role, at), "content": _content(message, others, at, losses, where)}
            _finish(message, wire, losses, where)
            found.append(wire)
    return found


def _bare(text: Text) -> bool:
    return not (text.cache or text.extra or text.citations or text.signature)


def _role(role: str, at: Endpoint) -> str:
    return "system" if role == "developer" and "system_role" in at.quirks else role


def _finish(message: Message, wire: dict[str, Any], losses: list[Loss], where: str) -> None:
    if message.name is not None:
        wire["name"] = message.name
    if message.extra:
        _extra(message.extra, wire, losses, where + ".")


def _content(message: Message, parts: list[Part], at: Endpoint, losses: list[Loss], where: str) -> Any:
    """Content of a system, developer or user turn: a string where that says it all."""
    if not parts:
        return ""
    if len(parts) == 1 and type(parts[0]) is Text and _bare(parts[0]):
        return parts[0].text
    content = []
    for part in parts:
        # Numbered as the caller numbered them, tool results included.
        at_part = f"{where}.parts[{message.parts.index(part)}]"
        wire = _user_part(part, at, losses, at_part)
        if wire is not None:
            content.append(wire)
    return content


def _user_part(part: Part, at: Endpoint, losses: list[Loss], where: str) -> dict[str, Any] | None:
    encode = _PARTS.get(type(part))
    if encode is None:
        losses.append(Loss(f"{where}.{part.__struct_config__.tag}", "a user turn of this dialect cannot hold it"))
        return None
    wire = encode(part, at, losses, where)
    if wire is not None:
        if (cache := getattr(part, "cache", None)) is not None:
            _cache(cache, wire, at, losses, where)
        if extra := getattr(part, "extra", None):
            _extra(extra, wire, losses, where + ".")
    return wire


def _cache(cache: CacheHint, wire: dict[str, Any], at: Endpoint, losses: list[Loss], where: str) -> None:
    if "cache_control" in at.quirks:
        wire["cache_control"] = {"type": "ephemeral", **({"ttl": cache.ttl} if cache.ttl else {})}
    elif "cache_breakpoint" in at.quirks:
        mark = {"mode": "explicit"}
        if cache.ttl in ("30m", "12h"):
            mark["ttl"] = cache.ttl
        elif cache.ttl:
            losses.append(Loss(f"{where}.cache.ttl", "only 30m and 12h are known here; the default is used", "note"))
        wire["prompt_cache_breakpoint"] = mark
    else:
        losses.append(Loss(f"{where}.cache", "this endpoint caches without breakpoints", "note"))


def _text(part: Text, at: Endpoint, losses: list[Loss], where: str) -> dict[str, Any]:
    if part.citations:
        losses.append(Loss(f"{where}.citations", "sources cannot be sent in this dialect", "note"))
    if part.signature:
        losses.append(Loss(f"{where}.signature", f"bound to {part.origin}", "note"))
    return {"type": "text", "text": part.text}


def _image(part: Image, at: Endpoint, losses: list[Loss], where: str) -> dict[str, Any] | None:
    url = part.url or _data_url(part, "image/png")
    if url is None:
        losses.append(Loss(f"{where}.file_id", "images by file id are not known in this dialect"))
        return None
    inner = {"url": url}
    if part.detail is not None:
        inner["detail"] = part.detail
    return {"type": "image_url", "image_url": inner}


def _audio(part: Audio, at: Endpoint, losses: list[Loss], where: str) -> dict[str, Any] | None:
    if part.data is None:
        losses.append(Loss(f"{where}.audio", "audio must come as data in this dialect"))
        return None
    kind = _AUDIO_FORMATS.get(part.media_type or "audio/wav") or (part.media_type or "").rpartition("/")[2]
    return {"type": "input_audio", "input_audio": {"data": _base64(part.data), "format": kind}}


def _file(part: File, at: Endpoint, losses: list[Loss], where: str) -> dict[str, Any] | None:
    inner: dict[str, Any] = {}
    if part.file_id is not None:
        inner["file_id"] = part.file_id
    elif part.data is not None:
        inner["file_data"] = _data_url(part, "application/pdf")
    elif part.text is not None:
        return {"type": "text", "text": part.text}
    elif part.url is not None:
        losses.append(Loss(f"{where}.url", "files by URL are not known in this dialect"))
        return None
    if part.name is not None or part.file_id is None:
        inner["filename"] = part.name or "file.pdf"
    if part.context is not None:
        losses.append(Loss(f"{where}.context", "this dialect has no context for files"))
    return {"type": "file", "file": inner}


def _video(part: Video, at: Endpoint, losses: list[Loss], where: str) -> dict[str, Any] | None:
    url = part.url or _data_url(part, "video/mp4")
    if not at.options.get("video") or url is None:
        losses.append(Loss(f"{where}.video", "this endpoint takes no video"))
        return None
    return {"type": "video_url", "video_url": {"url": url}}


def _opaque(part: Opaque, at: Endpoint, losses: list[Loss], where: str) -> dict[str, Any] | None:
    if part.dialect != NAME or not isinstance(part.raw, dict):
        losses.append(Loss(f"{where}.opaque", f"{part.type!r} is a block of {part.dialect}"))
        return None
    return dict(part.raw)


_PARTS: dict[type, Callable[..., dict[str, Any] | None]] = {
    Text: _text, Image: _image, Audio: _audio, File: _file, Video: _video, Opaque: _opaque,
}  # fmt: skip


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _data_url(part: Media, default: str) -> str | None:
    return f"data:{part.media_type or default};base64,{_base64(part.data)}" if part.data is not None else None


# ---- turns of the assistant and of tools ------------------------------------------------------


def _assistant(message: Message, at: Endpoint, losses: list[Loss], where: str) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": "assistant"}
    content: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for j, part in enumerate(message.parts):
        spot = f"{where}.parts[{j}]"
        match part:
            case Text():
                content.append(_with_extra(_text(part, at, losses, spot), part.extra, losses, spot))
            case Refusal():
                content.append({"type": "refusal", "refusal": part.text})
            case ToolCall():
                calls.append(_with_extra(_call(part), part.extra, losses, spot))
            case Reasoning():
                _reasoning(part, wire, content, at, losses, spot)
            case Audio(file_id=str()):
                wire["audio"] = {"id": part.file_id}
            case Opaque(dialect="openai.chat") if isinstance(part.raw, dict):
                content.append(part.raw)
            case ToolResult():
                pass
            case _:
                losses.append(Loss(f"{spot}.{part.__struct_config__.tag}", "an assistant turn cannot hold it"))
    if calls:
        wire["tool_calls"] = calls
    wire["content"] = _assistant_content(content, bool(calls) or "audio" in wire)
    if wire["content"] is None and "refusal" not in wire and not calls and "audio" not in wire:
        wire["content"] = ""
    _finish(message, wire, losses, where)
    return wire


def _assistant_content(content: list[dict[str, Any]], may_be_empty: bool) -> Any:
    """A string where all is text, else the list; None where there is nothing and may be nothing."""
    if not content:
        return None if may_be_empty else ""
    if all(set(piece) == {"type", "text"} for piece in content):
        return "".join(piece["text"] for piece in content)
    return content


def _with_extra(wire: dict[str, Any], extra: dict[str, dict[str, Any]], losses: list[Loss], where: str) -> dict[str, Any]:
    if extra:
        _extra(extra, wire, losses, where + ".")
    return wire


def _call(part: ToolCall) -> dict[str, Any]:
    if part.kind == "custom":
        return {"id": part.id, "type": "custom", "custom": {"name": part.name, "input": part.arguments}}
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments or "{}"}}


def _reasoning(
    part: Reasoning, wire: dict[str, Any], content: list[dict[str, Any]], at: Endpoint, losses: list[Loss], where: str
) -> None:
    """Reasoning goes back only in the form it came in, and only to the deployment that made it."""
    own = part.extra.get(NAME)
    if part.origin is not None and part.origin != at.origin:
        losses.append(Loss(f"{where}.reasoning", f"bound to {part.origin}"))
    elif own and "reasoning_details" in own:
        wire["reasoning_details"] = own["reasoning_details"]
    elif own and "chunk" in own:
        content.append({**own["chunk"], "thinking": [{"type": "text", "text": part.text}]})
    elif "echo_reasoning" in at.quirks and part.text:
        wire["reasoning_content"] = wire.get("reasoning_content", "") + part.text
    else:
        losses.append(Loss(f"{where}.reasoning", "reasoning is not sent back to this endpoint", "note"))


def _tool_results(
    results: list[ToolResult], parts: tuple[Part, ...], at: Endpoint, losses: list[Loss], where: str
) -> list[dict[str, Any]]:
    """A tool message each; what is not text follows in one labelled user message."""
    found: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    for result in results:
        spot = f"{where}.parts[{parts.index(result)}]"
        words = []
        for j, part in enumerate(result.parts):
            if type(part) is Text:
                words.append(part.text)
                continue
            losses.append(Loss(f"{spot}.parts[{j}]", "a tool result holds text only here; sent as a user message", "note"))
            piece = _user_part(part, at, losses, f"{spot}.parts[{j}]")
            if piece is not None:
                beside += [{"type": "text", "text": f"From tool call {result.call_id}:"}, piece]
        text = "".join(words)
        if result.is_error:
            losses.append(Loss(f"{spot}.is_error", "this dialect has no error flag; the text says so", "note"))
            text = f"error: {text}"
        wire: dict[str, Any] = {"role": "tool", "tool_call_id": result.call_id, "content": text}
        if result.cache is not None:
            losses.append(Loss(f"{spot}.cache", "tool results carry no breakpoint here", "note"))
        if result.extra:
            _extra(result.extra, wire, losses, spot + ".")
        found.append(wire)
    if beside:
        found.append({"role": "user", "content": beside})
    return found
