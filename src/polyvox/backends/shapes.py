"""The shapes client libraries have: which method asks, in which dialect, how an answer looks, how a piece of its
stream was framed on the wire. They are told apart by what an object offers, never by importing its library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from polyvox import dialects
from polyvox.backends.reading import Template, as_json, is_stand_in
from polyvox.dialects import Dialect, encode_json
from polyvox.errors import InputError

Json = dict[str, Any]

_TOOL_CALL = {"id": str, "type": str, "function": {"name": str, "arguments": str}}
_CHAT = {
    "id": str, "model": str, "created": float,
    "choices": [{
        "index": int, "finish_reason": str,
        "message": {
            "role": str, "content": str, "refusal": str, "reasoning_content": str, "tool_calls": [_TOOL_CALL],
        },
        "delta": {"role": str, "content": str, "refusal": str, "reasoning_content": str, "tool_calls": [_TOOL_CALL]},
    }],
    "usage": {
        "prompt_tokens": int, "completion_tokens": int, "total_tokens": int,
        "prompt_tokens_details": {"cached_tokens": int}, "completion_tokens_details": {"reasoning_tokens": int},
    },
}  # fmt: skip
_CONTENT = {"type": str, "text": str, "refusal": str}
_ITEM = {
    "type": str, "id": str, "call_id": str, "name": str, "arguments": str, "input": str, "role": str,
    "content": [_CONTENT], "summary": [{"type": str, "text": str}], "encrypted_content": str,
    "results": [{"file_id": str, "filename": str, "score": float, "text": str}],
}  # fmt: skip
_ANSWER = {
    "id": str, "model": str, "created_at": float, "status": str, "output_text": str, "output": [_ITEM],
    "usage": {
        "input_tokens": int, "output_tokens": int, "total_tokens": int,
        "input_tokens_details": {"cached_tokens": int}, "output_tokens_details": {"reasoning_tokens": int},
    },
    "error": {"code": str, "message": str}, "incomplete_details": {"reason": str},
}  # fmt: skip
_RESPONSES = {
    **_ANSWER, "type": str, "output_index": int, "item_id": str, "content_index": int, "summary_index": int,
    "delta": str, "text": str, "refusal": str, "arguments": str, "input": str, "code": str, "message": str,
    "item": _ITEM, "part": _CONTENT, "response": _ANSWER,
}  # fmt: skip
_MESSAGES = {
    "id": str, "model": str, "role": str, "stop_reason": str, "stop_sequence": str,
    "content": [{"type": str, "text": str, "thinking": str, "signature": str, "id": str, "name": str, "input": dict}],
    "usage": {
        "input_tokens": int, "output_tokens": int, "cache_read_input_tokens": int, "cache_creation_input_tokens": int,
    },
}  # fmt: skip
_OLLAMA = {
    "model": str, "created_at": str, "done": bool, "done_reason": str, "prompt_eval_count": int, "eval_count": int,
    "message": {
        "role": str, "content": str, "thinking": str,
        "tool_calls": [{"function": {"name": str, "arguments": dict}}],
    },
}  # fmt: skip


class Shape(Struct, frozen=True):
    """One way to ask a client object.

    Attributes:
        dialect: its name, and that of the dialect whose body gives the keyword arguments.
        method: the dotted way from the client to what is called.
        holds: keys of which an answer has one or the other.
        template: the attributes of an answer, and of a piece of its stream, with their types.
        frame: a piece of a stream as it was on the wire, for the dialect's reader.
        usual: what a whole answer means that does not say it: a stand-in's mostly has its words alone.
        headers: those the caller of the library chooses; all others are the library's own.
    """

    dialect: str
    method: str
    holds: tuple[str, ...]
    template: Template
    frame: Callable[[Json], bytes]
    usual: Mapping[str, Any] = {}
    headers: tuple[str, ...] = ()

    def codec(self) -> Dialect:
        """How requests are written and answers read."""
        return dialects.dialect(self.dialect)

    def read(self, answer: Any) -> Json | None:
        """A whole answer as its JSON; None where this object holds none."""
        found = as_json(answer, self.template)
        return {**self.usual, **found} if found is not None and any(key in found for key in self.holds) else None


def _line(piece: Json) -> bytes:
    return encode_json(piece) + b"\n"


def _event(piece: Json) -> bytes:
    return b"data: " + encode_json(piece) + b"\n\n"


def _named_event(piece: Json) -> bytes:
    return f"event: {piece.get('type')}\n".encode() + _event(piece)


SHAPES = (
    Shape("openai.chat", "chat.completions.create", ("choices",), _CHAT, _event),
    Shape(
        "openai.responses", "responses.create", ("output", "output_text"), _RESPONSES, _event, {"status": "completed"}
    ),
    Shape(
        "anthropic.messages", "messages.create", ("content",), _MESSAGES, _named_event,
        headers=("anthropic-beta", "anthropic-user-profile-id", "anthropic-workspace-id"),
    ),
    Shape("ollama.chat", "chat", ("message",), _OLLAMA, _line),
)  # fmt: skip
"""In the order they are looked for: an object that offers several is asked in the first."""

Create = Callable[..., Any]


def method_of(client: Any, shape: Shape) -> Create | None:
    """The method of this shape, or None where the client has none."""
    found = client
    for name in shape.method.split("."):
        found = getattr(found, name, None)
    return found if callable(found) else None


def offered(client: Any, dialect: str | None = None) -> tuple[tuple[Shape, Create], ...]:
    """The shapes a client offers, with their methods, in order; those of one dialect where one is named."""
    known = [shape.dialect for shape in SHAPES]
    if dialect is not None and dialect not in known:
        raise InputError(f"no client library speaks {dialect!r} here", hint=f"dialects are {', '.join(known)}")
    pairs = [(shape, method_of(client, shape)) for shape in SHAPES if dialect in (None, shape.dialect)]
    return tuple([(shape, create) for shape, create in pairs if create is not None])


def chosen(pairs: tuple[tuple[Shape, Create], ...]) -> tuple[Shape, Create]:
    """The first; of a stand-in, which has them all, the first that was given something to answer."""
    return next((pair for pair in pairs if not is_stand_in(pair[1]) or _is_set(*pair)), pairs[0])


def _is_set(shape: Shape, create: Any) -> bool:
    """Whether a stand-in's method was told what to do: `unittest.mock` keeps that in these two attributes."""
    effect, value = getattr(create, "side_effect", None), getattr(create, "return_value", None)
    told = effect is not None and not is_stand_in(effect)
    return told or shape.read(value) is not None or not (value is None or is_stand_in(value))
