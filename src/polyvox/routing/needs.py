"""What a request needs and what a deployment is able to, and in a sentence why one cannot serve the other. It counts
no tokens, it estimates; and what nobody knows of a deployment is no reason against it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from msgspec import UNSET, Struct
from msgspec.structs import replace

from polyvox.models import Model
from polyvox.types import (
    Audio,
    EmbedRequest,
    File,
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    Request,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Video,
)


class Needs(Struct, frozen=True, gc=False):
    """What a request asks of whoever answers it.

    input_tokens is an estimate; output_tokens is the limit that the request sets to its answers, 0 where it sets none.
    prefill is whether its last turn is the beginning of the answer; local_only is whether it must not leave this
    machine.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    tools: bool = False
    images: bool = False
    audio: bool = False
    files: bool = False
    structured: bool = False
    prefill: bool = False
    local_only: bool = False


class Abilities(Struct, frozen=True, gc=False):
    """What a deployment is able to. Limits are in tokens; None is not known, and then it is tried.

    local is whether what is sent to it stays on this machine: that must be known.
    """

    context: int | None = None
    max_output: int | None = None
    tools: bool | None = None
    images: bool | None = None
    audio: bool | None = None
    files: bool | None = None
    structured: bool | None = None
    prefill: bool | None = None
    local: bool = False


NOTHING_KNOWN = Abilities()

# A model's word for an ability, and ours. A model that says any of them says all it has; files are never among them.
_WORDS = (("tools", "tools"), ("vision", "images"), ("schema", "structured"))
# What a profile refuses, as the fields of a request, and our word for it.
_REFUSALS = {"tools": "tools", "images": "images", "response_format": "structured"}


def abilities_of(model: Model | None, refuses: Collection[str] = (), *, local: bool = False) -> Abilities:
    """What a model is known to be able to.

    Args:
        model: its facts, or None where nobody knows any.
        refuses: fields of a request that it refuses, as its profile has them.
        local: whether it runs on this machine.
    """
    facts: dict[str, Any] = {}
    if model is not None:
        facts = {"context": model.context, "max_output": model.max_output}
        if model.capabilities:
            facts |= {ours: word in model.capabilities for word, ours in _WORDS}
            # Few models' facts say whether they hear, so that only a yes is known.
            facts["audio"] = True if "audio" in model.capabilities else None
    facts |= {ours: False for field, ours in _REFUSALS.items() if field in refuses}
    return Abilities(local=local, **facts)


# ---- what a request needs ---------------------------------------------------------------------

# English is about four bytes of UTF-8 a token, and so, within a third, are the other scripts: what takes more tokens a
# letter also takes more bytes a letter.
_BYTES_A_TOKEN = 4
_A_MESSAGE = 16
"""Bytes that stand for the marks around a message."""
_A_CALL = 48
"""Bytes that stand for the frame of a tool, a call of one, or its result."""
_A_MEDIUM = 2400
"""Bytes that stand for a picture, a page or half a minute of sound: 600 tokens."""


_SPOKEN = (Text, Reasoning, Refusal)


class _Sum:
    """What has been seen of a request so far."""

    __slots__ = ("audio", "files", "images", "size", "tools")

    def __init__(self) -> None:
        self.size = 0
        self.tools = self.images = self.audio = self.files = False

    def add(self, parts: tuple[Part, ...]) -> None:
        for part in parts:
            if isinstance(part, _SPOKEN):
                self.size += size_of(part.text)
            elif isinstance(part, ToolCall):
                self.tools = True
                self.size += _A_CALL + size_of(part.arguments)
            elif isinstance(part, ToolResult):
                self.tools = True
                self.size += _A_CALL
                self.add(part.parts)
            elif isinstance(part, File) and part.text is not None:
                self.size += size_of(part.text)
            else:
                self.size += _A_MEDIUM
                self.images |= isinstance(part, Image | Video)
                self.audio |= isinstance(part, Audio)
                self.files |= isinstance(part, File)


def size_of(text: str) -> int:
    """The bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def tokens_of(text: str) -> int:
    """About the tokens of a text."""
    return size_of(text) // _BYTES_A_TOKEN


def lacking(request: Any, *usual: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that a request does not say, from tables of which the first that has one counts."""
    found: dict[str, Any] = {}
    for table in usual:
        for name, value in table.items():
            if name not in found and getattr(request, name) is UNSET:
                found[name] = value
    return found


def filled(request: Request, *usual: Mapping[str, Any]) -> Request:
    """A request with the fields that it lacks; see `lacking`."""
    return replace(request, **lacking(request, *usual))


def needs_of(request: Any, *, local_only: bool = False, count: Callable[[Any], int] | None = None) -> Needs:
    """What a request needs: a chat's whole, of what is asked beside chats the longest text alone.

    count gives its tokens, where somebody is to count them; without it they are estimated.
    """
    if not isinstance(request, Request):
        texts = request.inputs if isinstance(request, EmbedRequest) else ()
        tokens = max(map(size_of, texts), default=0) // _BYTES_A_TOKEN
        return Needs(count(request) if count is not None else tokens, local_only=local_only)
    held, size, messages = _Sum(), 0, request.messages
    for message in messages:
        size += _A_MESSAGE
        for part in message.parts:
            if type(part) is Text:  # which most are, and every call comes here
                text = part.text
                size += len(text) if text.isascii() else size_of(text)
            else:
                held.add((part,))
    form, limit, tools = request.response_format, request.max_tokens, request.tools
    structured = isinstance(form, ResponseFormat) and form.kind != "text"
    if count is not None:
        tokens = count(request)
    else:
        size += held.size + (sum(map(_size_of_tool, tools)) if tools else 0)
        tokens = size // _BYTES_A_TOKEN
    return Needs(
        tokens,
        limit if limit is not UNSET and limit is not None else 0,
        held.tools or (bool(tools) and any(type(tool) is Tool for tool in tools)),
        held.images,
        held.audio,
        held.files,
        structured,
        bool(messages) and messages[-1].role == "assistant" and is_prefilled(messages),
        local_only,
    )


def _size_of_tool(tool: Any) -> int:
    """About the bytes of a tool: what it says of itself, and twelve words for each of its parameters."""
    if type(tool) is not Tool:
        return _A_CALL
    properties = tool.parameters.get("properties")
    fields = len(properties) if isinstance(properties, dict) else 0
    return _A_CALL + len(tool.name) + size_of(tool.description or "") + 72 * fields


def is_prefilled(messages: tuple[Message, ...]) -> bool:
    """Whether the last turn is the assistant's own, in words: the beginning of the answer that is wanted."""
    if not messages or messages[-1].role != "assistant":
        return False
    return not any(type(part) is ToolCall for part in messages[-1].parts)


class Wanted:
    """One call's request with the time it is made at, and what it needs, found when somebody first asks.

    now is in monotonic seconds; the rest is as for `needs_of`.
    """

    __slots__ = ("_count", "_needs", "local_only", "now", "request")

    def __init__(
        self,
        request: Any,
        now: float = 0.0,
        *,
        local_only: bool = False,
        count: Callable[[Any], int] | None = None,
    ) -> None:
        self.request: Any = request
        self.now: float = now
        self.local_only: bool = local_only
        self._count = count
        self._needs: Needs | None = None

    @property
    def needs(self) -> Needs:
        """What it needs."""
        if self._needs is None:
            self._needs = needs_of(self.request, local_only=self.local_only, count=self._count)
        return self._needs

    def why_not(self, abilities: Abilities) -> str | None:
        """See `why_not`. Where nothing is known that could stand against it, the request is not even looked at."""
        if abilities is NOTHING_KNOWN and not self.local_only:
            return None
        return why_not(self.needs, abilities)


# ---- whether it can be done -------------------------------------------------------------------

_CANNOT = (
    ("tools", "takes no tools"),
    ("images", "takes no images"),
    ("audio", "takes no audio"),
    ("files", "takes no files"),
    ("structured", "cannot be held to a form of answer"),
    ("prefill", "does not go on with an answer that was begun"),
)
_SURE = 0.8
"""The part of an estimated input that is there in all likelihood: whoever might just do is tried."""


def why_not(needs: Needs, abilities: Abilities) -> str | None:
    """Why a deployment cannot serve a request, in words about it; None where it may.

    >>> why_not(Needs(input_tokens=12_000), Abilities(context=8192))
    'its context is 8192 tokens; this needs about 12000'
    """
    if needs.local_only and not abilities.local:
        return "is not on this machine, and the request must stay here"
    context, most = abilities.context, abilities.max_output
    if context is not None and needs.input_tokens * _SURE + needs.output_tokens > context:
        return f"its context is {context} tokens; this needs about {needs.input_tokens + needs.output_tokens}"
    if most is not None and needs.output_tokens > most:
        return f"answers with {most} tokens at most; {needs.output_tokens} are wanted"
    for ability, words in _CANNOT:
        if getattr(needs, ability) and getattr(abilities, ability) is False:
            return words
    return None
