"""What the protocol's inventor refuses in the messages of a request: keys and parts that a role cannot have,
and calls and results that do not answer each other."""

from __future__ import annotations

from typing import Any

from polyvox.dialects.checks import Check, filled, members, name
from polyvox.dialects.shapes import mapping, missing, needed, one_of, text, wrong, wrong_type
from polyvox.types import ROLES

# ---- parts ------------------------------------------------------------------------------------


def _address(value: Any, where: str) -> None:
    if not text(value, where).lower().startswith(("http://", "https://", "data:")):
        raise wrong(where, "must be an http(s) address or a data URL")


def _file(value: Any, where: str) -> None:
    members({"file_data": text, "file_id": text, "filename": text})(value, where)
    if value.get("file_id") is None and value.get("file_data") is None:
        raise missing(f"{where}.file_id")


_BREAKPOINT = members({"mode": one_of("explicit"), "ttl": one_of("30m", "12h")}, "mode")
_IMAGE = members({"url": _address, "detail": one_of("auto", "low", "high", "original")}, "url")
_SOUND = members({"data": text, "format": one_of("wav", "mp3")}, "data", "format")


def _part(kind: str, check: Check) -> Check:
    return members({"type": text, kind: check, "prompt_cache_breakpoint": _BREAKPOINT}, kind)


_PARTS: dict[str, Check] = {
    "text": _part("text", text),
    "image_url": _part("image_url", _IMAGE),
    "input_audio": _part("input_audio", _SOUND),
    "file": _part("file", _file),
    "refusal": members({"type": text, "refusal": text}, "refusal"),
}
_PARTS_OF = {
    "user": ("text", "image_url", "input_audio", "file"),
    "assistant": ("text", "refusal"),
}


def text_parts(value: Any, where: str, kinds: tuple[str, ...] = ("text",)) -> None:
    """A list of parts, all of the kinds that may stand there."""
    fitting = one_of(*kinds)
    for j, part in enumerate(filled(value, where)):
        spot = f"{where}[{j}]"
        kind = needed(mapping(part, spot), "type", fitting, spot)
        _PARTS[kind](part, spot)


def _content(message: dict[str, Any], role: str, where: str) -> None:
    content = message.get("content")
    if content is None:
        said = any(message.get(key) is not None for key in ("tool_calls", "function_call", "refusal", "audio"))
        if role == "function" or (role == "assistant" and said):
            return
        raise missing(f"{where}.content")
    if not isinstance(content, str):
        if not isinstance(content, list) or role == "function":
            raise wrong_type(content, f"{where}.content", "a string or a list of parts")
        text_parts(content, f"{where}.content", _PARTS_OF.get(role, ("text",)))


# ---- messages ---------------------------------------------------------------------------------


def _anything(value: Any, where: str) -> None:
    """Content, which depends on the role; and what clients send back of an answer: it is passed over."""


def _sound(value: Any, where: str) -> None:
    needed(mapping(value, where), "id", text, where)


_FUNCTION = members({"name": text, "arguments": text}, "name", "arguments")
_CUSTOM = members({"name": text, "input": text}, "name", "input")
_CALLS: dict[str, Check] = {"function": _FUNCTION, "custom": _CUSTOM}
_CALL = one_of(*_CALLS)


def _calls(value: Any, where: str) -> None:
    for j, call in enumerate(filled(value, where)):
        spot = f"{where}[{j}]"
        kind = needed(mapping(call, spot), "type", _CALL, spot)
        # An index is what a client has that put the call together from a stream.
        members({"id": text, "type": text, "index": _anything, kind: _CALLS[kind]}, "id", kind)(call, spot)


_SPEAKER: dict[str, Check] = {"role": text, "content": _anything, "name": name(64)}
_MESSAGES: dict[str, Check] = {
    "system": members(_SPEAKER),
    "developer": members(_SPEAKER),
    "user": members(_SPEAKER),
    "assistant": members(
        {
            **_SPEAKER,
            "refusal": text,
            "audio": _sound,
            "tool_calls": _calls,
            "function_call": _FUNCTION,
            "annotations": _anything,
        }
    ),
    "tool": members({**_SPEAKER, "tool_call_id": text}, "tool_call_id"),
    "function": members(_SPEAKER, "name"),
}
_ROLE = one_of(*ROLES)


def check_messages(value: Any, where: str) -> None:
    """The messages one by one, then their order."""
    for i, message in enumerate(filled(value, where)):
        spot = f"{where}[{i}]"
        role = mapping(message, spot).get("role")
        if role != "function":  # the one that is older than results of tools
            role = _ROLE(role, f"{spot}.role")
        _MESSAGES[role](message, spot)
        _content(message, role, spot)
    _answers(value, where)


def _answers(messages: list[dict[str, Any]], where: str) -> None:
    """Each call has its result before anything else is said, and each result answers a call."""
    calls: set[str] = set()  # of the latest turn of the assistant, while its results come
    open_calls: dict[str, int] = {}  # those without a result yet, and the message that made them
    for i, message in enumerate(messages):
        spot = f"{where}[{i}]"
        if message["role"] == "tool":
            if not calls:
                raise wrong(f"{spot}.role", "is tool, but no turn with tool_calls stands before it")
            if message["tool_call_id"] not in calls:
                raise wrong(f"{spot}.tool_call_id", "answers no call of the turn before it")
            open_calls.pop(message["tool_call_id"], None)
            continue
        _all_answered(open_calls, where)
        calls = {call["id"] for call in message.get("tool_calls") or ()}
        open_calls = dict.fromkeys(sorted(calls), i)
    _all_answered(open_calls, where)


def _all_answered(open_calls: dict[str, int], where: str) -> None:
    for call_id, i in open_calls.items():
        raise wrong(f"{where}[{i}].tool_calls", f"has a call {call_id[:64]} that no tool message answers")


def says(messages: list[dict[str, Any]], word: str) -> bool:
    """Whether a word (in lower case) stands anywhere in the messages' text."""
    for message in messages:
        content = message.get("content")
        parts = [{"text": content}] if isinstance(content, str) else content or ()
        if any(word in (part.get("text") or "").lower() for part in parts):
            return True
    return False
