"""What was said in a call, in the JSON that the GenAI conventions describe: made only where a program asked for it,
with secrets masked and without the bytes of pictures, sounds and files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from msgspec.json import encode

from polyvox.telemetry.texts import masked
from polyvox.types import (
    Audio,
    Choice,
    EmbedRequest,
    Image,
    Media,
    Message,
    Part,
    Reasoning,
    Refusal,
    Request,
    Response,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Video,
)

SWITCH = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
EVENTS_SWITCH = "OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT"
_YES = frozenset({"true", "1"})
_SYSTEM = ("system", "developer")
_MODALITIES: dict[type, str] = {Image: "image", Audio: "audio", Video: "video"}
_REASONS = {"tool_calls": "tool_call", None: "error", "incomplete": "error", "unknown": "error", "cancelled": "error"}


class Wanted(NamedTuple):
    """Whether what is said is told in spans and in events, and whether there are events of calls that did not fail."""

    in_spans: bool = False
    in_events: bool = False
    events: bool = False


_SAID = {
    "span_only": Wanted(in_spans=True),
    "event_only": Wanted(in_events=True, events=True),
    "span_and_event": Wanted(in_spans=True, in_events=True, events=True),
    **dict.fromkeys(_YES, Wanted(in_spans=True, in_events=True)),
}


def wanted(content: bool | None, events: bool | None) -> Wanted:
    """What is to be told: as the program says, else as the environment does; nothing by default."""
    said = _SAID.get(_switch(SWITCH), Wanted()) if content is None else Wanted(content, content)
    if events is None:
        switch = _switch(EVENTS_SWITCH)
        events = switch in _YES if switch else said.events
    return said._replace(events=events)


def _switch(name: str) -> str:
    return os.environ.get(name, "").strip().lower()


def asked(request: Any) -> dict[str, str]:
    """What was asked, as facts."""
    if isinstance(request, EmbedRequest):
        parts = [{"type": "text", "content": masked(text)} for text in request.inputs]
        return {"input_messages": _json([{"role": "user", "parts": parts}])}
    if not isinstance(request, Request):
        return {}
    facts = {"input_messages": _json([_message(one) for one in request.messages if one.role not in _SYSTEM])}
    if system := [part for one in request.messages if one.role in _SYSTEM for part in _parts(one.parts)]:
        facts["system_instructions"] = _json(system)
    if tools := [_tool(one) for one in request.tools if isinstance(one, Tool)]:
        facts["tool_definitions"] = _json(tools)
    return facts


def answered(answer: Any) -> dict[str, str]:
    """What was answered, as facts; what had come of an answer that broke off, too."""
    if not isinstance(answer, Response):
        return {}
    ends: tuple[Response | Choice, ...] = (answer, *answer.choices)
    return {
        "output_messages": _json(
            [
                {**_message(end.message), "finish_reason": _REASONS.get(end.finish_reason, end.finish_reason)}
                for end in ends
            ]
        )
    }


def _json(value: Any) -> str:
    return encode(value).decode()


def _message(message: Message) -> dict[str, Any]:
    said: dict[str, Any] = {"role": message.role, "parts": list(_parts(message.parts))}
    if message.name is not None:
        said["name"] = masked(message.name)
    return said


def _parts(parts: Iterable[Part]) -> Iterable[dict[str, Any]]:
    for part in parts:
        yield _part(part)


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text | Refusal):
        return {"type": "text", "content": masked(part.text)}
    if isinstance(part, Reasoning):
        return {"type": "reasoning", "content": masked(part.text)}
    if isinstance(part, ToolCall):
        # As the model wrote them: a secret is known by the word before it, which a parsed value has lost.
        return {"type": "tool_call", "id": part.id, "name": masked(part.name), "arguments": masked(part.arguments)}
    if isinstance(part, ToolResult):
        return {"type": "tool_call_response", "id": part.call_id, "response": list(_parts(part.parts))}
    if isinstance(part, Media):
        return _media(part)
    return {"type": part.type}


def _media(part: Media) -> dict[str, Any]:
    said: dict[str, Any] = {"modality": _MODALITIES.get(type(part), "file"), "mime_type": part.media_type}
    if part.url is not None:
        # A picture may be said as an address that holds all of it.
        held = part.url.startswith("data:")
        said.update({"type": "blob", "size": len(part.url)} if held else {"type": "uri", "uri": masked(part.url)})
    elif part.file_id is not None:
        said.update({"type": "file", "file_id": masked(part.file_id)})
    else:
        said.update({"type": "blob", "size": len(part.data or b"")})
    return said


def _tool(tool: Tool) -> dict[str, Any]:
    said: dict[str, Any] = {"type": "function", "name": masked(tool.name)}
    if tool.description is not None:
        said["description"] = masked(tool.description)
    if tool.parameters:
        said["parameters"] = _masked(tool.parameters)
    return said


def _masked(value: Any) -> Any:
    """The same, with the secrets in its texts masked."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {masked(str(key)): _masked(part) for key, part in value.items()}
    return [_masked(part) for part in value] if isinstance(value, list | tuple) else value
