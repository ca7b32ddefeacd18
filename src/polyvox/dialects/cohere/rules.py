"""What the server takes: the types of a request's fields, and what is refused though it can be read.
It judges and reads nothing into it; what the values mean is not known here.

Source: the limits written at each parameter of the official SDK (7.3.1, `v2/raw_client.py`) and its types. Nothing
there says that unknown fields are refused, so they are not.
"""

from __future__ import annotations

from typing import Any

from polyvox.dialects import Wire, client_object
from polyvox.dialects.checks import Check, between, count, filled, members
from polyvox.dialects.shapes import (
    each,
    flag,
    mapping,
    missing,
    needed,
    number,
    one_of,
    sequence,
    text,
    texts,
    whole,
    wrong,
    wrong_type,
)

ROLES = ("system", "user", "assistant", "tool")


def _object(*needed: str, **known: Check) -> Check:
    return members(known, *needed, others=True)


# ---- what can be read -------------------------------------------------------------------------

# What an item of content must hold beside its type.
_ITEMS: dict[str, Check] = {
    "text": _object("text", text=text),
    "thinking": _object("thinking", thinking=text),
    "image_url": _object("image_url", image_url=_object("url", url=text, detail=text)),
    "document": _object("document", document=mapping),
}


def _item(value: Any, where: str) -> None:
    kind = needed(mapping(value, where), "type", text, where)
    if kind in _ITEMS:
        _ITEMS[kind](value, where)


def _content(value: Any, where: str) -> None:
    if type(value) is not str:
        if type(value) is not list:
            raise wrong_type(value, where, "a string or a list")
        each(_item)(value, where)


_CALL = _object("id", id=text, function=_object("name", name=text, arguments=text))
_MESSAGE = _object(
    "role", role=text, content=_content, tool_plan=text, tool_calls=each(_CALL), tool_call_id=text,
    citations=each(mapping),
)  # fmt: skip
_TOOL = _object(type=text, function=_object(name=text, description=text, parameters=mapping))
_READABLE = _object(
    "model", "messages",
    model=text, messages=each(_MESSAGE), stream=flag, tools=each(_TOOL), strict_tools=flag,
    tool_choice=one_of("REQUIRED", "NONE"), max_tokens=whole, temperature=number, p=number, k=whole, seed=whole,
    stop_sequences=texts, presence_penalty=number, frequency_penalty=number, logprobs=flag,
    response_format=_object("type", type=one_of("text", "json_object"), json_schema=mapping),
    thinking=_object("type", type=one_of("enabled", "disabled"), token_budget=whole),
)  # fmt: skip


def check_shape(body: dict[str, Any]) -> None:
    """Raises InputError, with `param`, for a request that cannot be read."""
    _READABLE(body, "")
    if not body["model"]:
        raise missing("model")


# ---- what the server takes of it --------------------------------------------------------------


def _document(value: Any, where: str) -> None:
    if type(value) is not str:
        _object("data", data=mapping, id=text)(value, where)


def _stops(value: Any, where: str) -> None:
    if sequence(value, where):
        filled(value, where, 5)


def _temperature(value: Any, where: str) -> None:
    if number(value, where) < 0:
        raise wrong(where, "must be at least 0")


_TAKEN = _object(
    temperature=_temperature, p=between(0.01, 0.99), k=count(0, 500), max_tokens=count(0), seed=count(0),
    stop_sequences=_stops, presence_penalty=between(0, 1), frequency_penalty=between(0, 1), priority=count(0),
    documents=each(_document), safety_mode=one_of("CONTEXTUAL", "STRICT", "OFF"),
    citation_options=_object(mode=one_of("ENABLED", "DISABLED", "FAST", "ACCURATE", "OFF")),
    thinking=_object(token_budget=count(1)),
    tools=each(_object("function", type=one_of("function"), function=_object("name", "parameters"))),
)  # fmt: skip
# Types of content by the role of the message it stands in.
_HOLDS = {
    "system": ("text",), "user": ("text", "image_url"), "assistant": ("text", "thinking"), "tool": ("text", "document"),
}  # fmt: skip


def check_request(wire: Wire) -> None:
    """See `ServerSide.check_request`."""
    body = client_object(wire)
    check_shape(body)
    _TAKEN(body, "")
    filled(body["messages"], "messages")
    for i, message in enumerate(body["messages"]):
        _message(message, f"messages[{i}]")
    if body.get("tool_choice") == "REQUIRED" and not body.get("tools"):
        raise wrong("tool_choice", "must not be REQUIRED where there are no tools")
    form = body.get("response_format") or {}
    if form.get("type") == "text" and form.get("json_schema") is not None:
        raise wrong("response_format.json_schema", "must not stand beside the type text")


def _message(message: dict[str, Any], where: str) -> None:
    role = one_of(*ROLES)(message["role"], f"{where}.role")
    content = message.get("content")
    if role == "tool":
        needed(message, "tool_call_id", text, where)
    if content is None and role != "assistant":
        raise missing(f"{where}.content")
    if isinstance(content, list):
        for j, item in enumerate(content):
            one_of(*_HOLDS[role])(item["type"], f"{where}.content[{j}].type")
    for j, call in enumerate(message.get("tool_calls") or ()):
        one_of("function")(call.get("type") or "function", f"{where}.tool_calls[{j}].type")
        if call.get("function") is None:
            raise missing(f"{where}.tool_calls[{j}].function")
