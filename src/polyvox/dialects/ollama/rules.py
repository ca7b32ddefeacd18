"""What the server takes: the types of a request's fields, and what is refused though it can be read.
It judges and reads nothing into it; what the values mean is not known here.

Source: the server's own types and handler (`api/types.go`, `server/routes.go`, August 2026). Go's decoder passes
over keys it does not know and takes null for a field left out, so neither is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, cast

from msgspec import Struct

from polyvox.dialects import Wire, client_object
from polyvox.errors import InputError
from polyvox.types import ROLES, Role


class _Each(Struct, frozen=True):
    """An object of any keys, all of whose values have one shape."""

    shape: Any


# A shape is a type (`object` is anything), [shape] for a list of it, {key: shape} for an object, _Each, or a
# tuple of shapes of which one must fit.
INTEGERS = (
    "num_keep", "seed", "num_predict", "top_k", "repeat_last_n", "num_ctx", "num_batch", "num_gpu", "main_gpu",
    "num_thread", "draft_num_predict",
)  # fmt: skip
_NUMBERS = (
    "top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty", "frequency_penalty",
)  # fmt: skip
_OPTIONS: dict[str, Any] = {
    **dict.fromkeys(INTEGERS, int), **dict.fromkeys(_NUMBERS, float), "use_mmap": bool, "stop": [str],
}  # fmt: skip
_CALL = {"id": str, "function": {"index": int, "name": str}}
_MESSAGE = {
    "role": str, "content": str, "thinking": str, "images": [str], "tool_calls": [_CALL], "tool_name": str,
    "tool_call_id": str,
}  # fmt: skip
_TOOL = {"type": str, "function": {"name": str, "description": str, "parameters": dict}}
REQUEST: dict[str, Any] = {
    "model": str, "messages": [_MESSAGE], "stream": bool, "tools": [_TOOL], "options": _OPTIONS, "logprobs": bool,
    "top_logprobs": int,
}  # fmt: skip

# What can be read in more shapes than the server takes.
_PROPERTY: dict[str, Any] = {"type": (str, [str]), "description": str, "enum": [object], "required": [str]}
_PROPERTY |= {"anyOf": [_PROPERTY], "properties": _Each(_PROPERTY)}
_PARAMETERS = {"type": str, "required": [str], "properties": _Each(_PROPERTY)}
_STRICT: dict[str, Any] = {
    "messages": [{"tool_calls": [{"function": {"arguments": dict}}]}],
    "tools": [{"function": {"parameters": _PARAMETERS}}],
    "truncate": bool,
    "shift": bool,
    "_debug_render_only": bool,
}

_WORDS = {
    str: "a string", int: "a whole number", float: "a number", bool: "true or false", dict: "an object",
    list: "a list",
}  # fmt: skip
_LEVELS = ("high", "medium", "low", "max")
# What Go's time.ParseDuration takes.
_DURATION = re.compile(r"[-+]?(?:0|(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)")


def refuse(param: str, what: str, **facts: Any) -> InputError:
    """The error for a field; `what` completes the sentence that begins with its name."""
    return InputError(f"{param} {what}", param=param, **facts)


def hold(value: Any, shape: Any, param: str = "") -> None:
    """Raises InputError, with `param`, where a value has not the shape. Under a key null has every shape."""
    if value is None or shape is object:
        return
    if isinstance(shape, tuple):
        shape = next((one for one in shape if _is(value, _kind(one))), shape[0])
    if not _is(value, _kind(shape)):
        raise refuse(param, f"must be {_WORDS[_kind(shape)]}")
    if isinstance(shape, list):
        for i, item in enumerate(value):
            if item is None and shape[0] is not object:
                raise refuse(f"{param}[{i}]", f"must be {_WORDS[_kind(shape[0])]}")
            hold(item, shape[0], f"{param}[{i}]")
    elif isinstance(shape, _Each):
        for key, item in value.items():
            hold(item, shape.shape, f"{param}.{key}")
    elif isinstance(shape, dict):
        for key, inner in shape.items():
            hold(value.get(key), inner, f"{param}.{key}" if param else key)


def _kind(shape: Any) -> type:
    return shape if isinstance(shape, type) else list if isinstance(shape, list) else dict


def _is(value: Any, kind: type) -> bool:
    if kind is int:
        return type(value) is int or (type(value) is float and value.is_integer())
    if kind is float:
        return type(value) in (int, float)
    return isinstance(value, kind)


def read_image(raw: str, param: str) -> bytes:
    """The picture in bare base64; raises InputError for anything else. Line ends in it are passed over, as Go does."""
    try:
        return base64.b64decode(raw.replace("\r", "").replace("\n", ""), validate=True)
    except (ValueError, binascii.Error):
        hint = "leave out what stands before the comma" if raw.startswith("data:") else None
        raise refuse(param, "must be a picture in base64", hint=hint) from None


def check_request(wire: Wire) -> None:
    """See `ServerSide.check_request`. No turns are out of order here, and no messages at all means: load the model."""
    body = client_object(wire)
    try:
        hold(body, REQUEST)
        hold(body, _STRICT)
    except RecursionError:
        raise InputError("the request is nested too deeply") from None
    if not body.get("model"):
        raise refuse("model", "is required")
    for i, message in enumerate(body.get("messages") or ()):
        check_role(message, f"messages[{i}]")
        for j, image in enumerate(message.get("images") or ()):
            read_image(image, f"messages[{i}].images[{j}]")
    if not 0 <= (body.get("top_logprobs") or 0) <= 20:
        raise refuse("top_logprobs", "must be between 0 and 20")
    check_format(body.get("format"))
    think = body.get("think")
    if think is not None and think not in _LEVELS and not isinstance(think, bool):
        raise refuse("think", f"must be true, false or one of {', '.join(_LEVELS)}")
    _keep_alive(body.get("keep_alive"))


def check_role(message: dict[str, Any], param: str) -> Role:
    """The role of a message, in lower case as the server reads it; raises InputError for none that has a meaning."""
    role = (message.get("role") or "").lower()
    if role not in ROLES:
        raise refuse(f"{param}.role", f"must be one of {', '.join(ROLES)}")
    return cast(Role, role)


def check_format(value: Any) -> None:
    """Raises InputError for a format of the answer that is neither "json" nor a schema; "" is as good as none."""
    if value not in (None, "", "json") and not isinstance(value, dict):
        raise refuse("format", 'must be "json" or a JSON schema')


def _keep_alive(value: Any) -> None:
    length = isinstance(value, str) and _DURATION.fullmatch(value)
    if value is not None and not length and not _is(value, float):
        raise refuse("keep_alive", 'must be a number of seconds or a length of time such as "5m"')
