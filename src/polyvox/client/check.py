"""Values and arguments held against the types they promise, before anything is sent. It knows no meaning,
only shapes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from polyvox import types
from polyvox.errors import InputError
from polyvox.types import Message, Opaque, ToolCall, ToolResult

_S = TypeVar("_S", bound=Struct)


@functools.cache
def _fields(kind: type[Struct]) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(kind, vars(types))
    return tuple((field, hints[field]) for field in kind.__struct_fields__)


def sound(value: _S) -> _S:
    """A value whose fields are what their annotations say, lists made tuples; InputError otherwise."""
    changed = {}
    for field, kind in _fields(type(value)):
        given = getattr(value, field)
        if given is UNSET:
            continue
        try:
            # bytes as they are: a text would be taken for base64.
            taken = msgspec.convert(given, kind, builtin_types=(bytes,))
        except (msgspec.ValidationError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{type(value).__name__}.{field} cannot be {shown(given)}: {error}") from None
        if type(taken) is not type(given):
            changed[field] = taken
    return replace(value, **changed) if changed else value


def shown(value: Any) -> str:
    """A value fit for an error message: its text cut short, and its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '…'} ({type(value).__name__})"


def seconds(name: str, value: Any) -> float:
    """A number of seconds above 0; InputError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise InputError(f"{name} must be a number of seconds above 0, not {shown(value)}")
    return value


def table(name: str, value: Any, of: type = object) -> dict[str, Any]:
    """A mapping from text, to values of one type; {} for None; InputError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{name} must be a dict with text keys, not {shown(value)}")
    for key, item in value.items():
        if not isinstance(item, of):
            raise InputError(f"{name}[{key!r}] must be {of.__name__}, not {type(item).__name__}")
    return dict(value)


def count(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`; InputError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, not {shown(value)}")
    return value


def text_or_none(name: str, value: Any) -> str | None:
    """Text or None; InputError for anything else."""
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} must be text, not {shown(value)}")
    return value


def answered(messages: tuple[Message, ...]) -> None:
    """Refuse a history in which a tool call has no result, or a result no call: no provider takes it, and
    some bill the refusal. Results stand right behind the turn that called."""
    waiting: dict[str, None] = {}
    known: set[str] = set()
    for place, message in enumerate(messages):
        for part in message.parts:
            if type(part) is ToolResult:
                if part.call_id not in waiting and part.call_id not in known:
                    raise InputError(
                        f"messages[{place}] has a result for the tool call {part.call_id!r}, which nobody made",
                        hint="put the message with the call before it, or take the result out",
                    )
                waiting.pop(part.call_id, None)
        if message.role == "tool":
            continue
        rest = [part for part in message.parts if type(part) is not ToolResult]
        if rest:
            _refuse_waiting(waiting, place)
        if message.role == "assistant":
            waiting.update(dict.fromkeys([part.id for part in rest if type(part) is ToolCall]))
            # A provider's own kind of call is answered by the id inside it.
            raws = [part.raw for part in rest if type(part) is Opaque and isinstance(part.raw, dict)]
            known = {raw["id"] for raw in raws if isinstance(raw.get("id"), str)}
    _refuse_waiting(waiting, len(messages))


def _refuse_waiting(waiting: Mapping[str, None], place: int) -> None:
    if waiting:
        first = next(iter(waiting))
        raise InputError(
            f"the tool call {first!r} has no result before messages[{place}]",
            hint=f'add Message("tool", (ToolResult({first!r}, (Text("..."),)),)) behind the turn that called',
        )
