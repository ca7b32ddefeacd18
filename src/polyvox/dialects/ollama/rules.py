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

from polyvox.dialects import Wire, client_object
from polyvox.dialects.checks import Check, count, members
from polyvox.dialects.shapes import (
    each,
    flag,
    mapping,
    missing,
    number,
    one_of,
    sequence,
    text,
    texts,
    whole,
    wrong,
)
from polyvox.errors import InputError
from polyvox.types import ROLES, Role

# ---- what can be read -------------------------------------------------------------------------

INTEGERS = (
    "num_keep", "seed", "num_predict", "top_k", "repeat_last_n", "num_ctx", "num_batch", "num_gpu", "main_gpu",
    "num_thread", "draft_num_predict",
)  # fmt: skip
_NUMBERS = (
    "top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty", "frequency_penalty",
)  # fmt: skip


def _object(**known: Check) -> Check:
    return members(known, others=True)


_OPTIONS = _object(**dict.fromkeys(INTEGERS, whole), **dict.fromkeys(_NUMBERS, number), use_mmap=flag, stop=texts)
_CALL = _object(id=text, function=_object(index=whole, name=text))
_MESSAGE = _object(
    role=text, content=text, thinking=text, images=texts, tool_calls=each(_CALL), tool_name=text, tool_call_id=text
)
_TOOL = _object(type=text, function=_object(name=text, description=text, parameters=mapping))
_READABLE = _object(
    model=text, messages=each(_MESSAGE), stream=flag, tools=each(_TOOL), options=_OPTIONS, logprobs=flag,
    top_logprobs=whole,
)  # fmt: skip


def check_shape(body: dict[str, Any]) -> None:
    """Raises InputError, with `param`, for a request that cannot be read."""
    _READABLE(body, "")
    if not body.get("model"):
        raise missing("model")


# ---- what the server takes of it --------------------------------------------------------------


def _type(value: Any, where: str) -> None:
    (texts if isinstance(value, list) else text)(value, where)


def _properties(value: Any, where: str) -> None:
    for name, item in mapping(value, where).items():
        if item is not None:
            _PROPERTY(item, f"{where}.{name}")


def _any_of(value: Any, where: str) -> None:
    each(_PROPERTY)(value, where)


_PROPERTY = _object(type=_type, description=text, enum=sequence, required=texts, anyOf=_any_of, properties=_properties)
_PARAMETERS = _object(type=text, required=texts, properties=_properties)
_TAKEN = _object(
    messages=each(_object(tool_calls=each(_object(function=_object(arguments=mapping))))),
    tools=each(_object(function=_object(parameters=_PARAMETERS))),
    top_logprobs=count(0, 20),
    truncate=flag,
    shift=flag,
    _debug_render_only=flag,
)

_ROLE = one_of(*ROLES)
_LEVELS = ("high", "medium", "low", "max")
# What Go's time.ParseDuration takes.
_DURATION = re.compile(r"[-+]?(?:0|(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)")


def read_image(raw: str, where: str) -> bytes:
    """The picture in bare base64; raises InputError for anything else. Line ends in it are passed over, as Go does."""
    try:
        return base64.b64decode(raw.replace("\r", "").replace("\n", ""), validate=True)
    except (ValueError, binascii.Error):
        hint = "leave out what stands before the comma" if raw.startswith("data:") else None
        raise wrong(where, "must be a picture in base64", hint=hint) from None


def check_request(wire: Wire) -> None:
    """See `ServerSide.check_request`. No turns are out of order here, and no messages at all means: load the model."""
    body = client_object(wire)
    try:
        check_shape(body)
        _TAKEN(body, "")
    except RecursionError:
        raise InputError("the request is nested too deeply") from None
    for i, message in enumerate(body.get("messages") or ()):
        check_role(message, f"messages[{i}]")
        for j, image in enumerate(message.get("images") or ()):
            read_image(image, f"messages[{i}].images[{j}]")
    check_format(body.get("format"))
    think = body.get("think")
    if think is not None and think not in _LEVELS and not isinstance(think, bool):
        raise wrong("think", f"must be true, false or one of {', '.join(_LEVELS)}")
    _keep_alive(body.get("keep_alive"))


def check_role(message: dict[str, Any], where: str) -> Role:
    """The role of a message, in lower case as the server reads it; raises InputError for none that has a meaning."""
    return cast(Role, _ROLE((message.get("role") or "").lower(), f"{where}.role"))


def check_format(value: Any) -> None:
    """Raises InputError for a format of the answer that is neither "json" nor a schema; "" is as good as none."""
    if value not in (None, "", "json") and not isinstance(value, dict):
        raise wrong("format", 'must be "json" or a JSON schema')


def _keep_alive(value: Any) -> None:
    length = isinstance(value, str) and _DURATION.fullmatch(value)
    if value is not None and not length and type(value) not in (int, float):
        raise wrong("keep_alive", 'must be a number of seconds or a length of time such as "5m"')
