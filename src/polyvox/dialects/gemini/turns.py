"""A conversation as contents: one for each turn, all results of a turn in one, every call answered. It refuses a
history that cannot be sent before anything is sent."""

from __future__ import annotations

from typing import Any, NamedTuple

from polyvox.dialects.gemini.facts import NAME, Json
from polyvox.dialects.gemini.parts import Scope, part_of
from polyvox.dialects.gemini.results import response_of
from polyvox.errors import InputError
from polyvox.types import Media, Message, Part, Text, ToolCall, ToolResult

INSTRUCTIONS = ("system", "developer")


class _Waiting(NamedTuple):
    """A call without a result yet, and where it stands."""

    call: ToolCall
    where: str


def system_of(messages: tuple[Message, ...], scope: Scope) -> tuple[Json | None, int]:
    """The instructions before the first turn, None where there are none, and the place of that turn."""
    parts: list[Json] = []
    extra: Json = {}
    place = 0
    for place, message in enumerate(messages):
        if message.role not in INSTRUCTIONS:
            break
        where = f"messages[{place}]"
        _note(message, where, scope)
        for number, part in enumerate(message.parts):
            wire = part_of(part, f"{where}.parts[{number}]", scope) if isinstance(part, Text) else None
            if wire is not None:
                parts.append(wire)
            elif not isinstance(part, Text):
                spot = f"{where}.parts[{number}].{part.__struct_config__.tag}"
                scope.lose(spot, "instructions are text here")
        extra |= scope.own(message.extra, where)
    else:
        place = len(messages)
    if extra and not parts:
        scope.lose("messages[0]", "instructions without words are not sent", "note")
    return ({"parts": parts, **extra} if parts else None), place


def _note(message: Message, where: str, scope: Scope) -> None:
    if message.role == "developer":
        scope.lose(f"{where}.role", "there is no developer here: sent as the system's", "note")
    if message.name is not None:
        scope.lose(f"{where}.name", "speakers have no names", "note")


class Conversation:
    """The turns so far, as contents, and the calls that still want a result."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.contents: list[Json] = []
        self._names: dict[str, str] = {}
        self._waiting: list[_Waiting] = []
        self._held: list[tuple[Message, str]] = []  # instructions that wait for the results of calls
        self._results: list[Json] | None = None  # the parts of the content that holds results, while it is the last

    def add(self, message: Message, where: str) -> None:
        """Take one message; raises InputError for results and calls that do not fit."""
        if message.role == "user" and message.name is None and not message.extra and len(message.parts) == 1:
            part = message.parts[0]
            if type(part) is Text and part.text and part == Text(part.text):
                self._put("user", [{"text": part.text}], {})  # the common case
                return
        if message.role in INSTRUCTIONS:
            if self._waiting:
                self.scope.lose(where, "it is sent behind the tool results, which must follow their calls", "note")
                self._held.append((message, where))
                return
            self.scope.lose(where, "instructions amid the conversation are sent as text of the user", "note")
        _note(message, where, self.scope)
        results: list[Json] = []
        parts: list[Json] = []
        for number, part in enumerate(message.parts):
            spot = f"{where}.parts[{number}]"
            if isinstance(part, ToolResult):
                results.append(self._result(part, spot))
            elif (wire := self._part(part, message.role, spot)) is not None:
                parts.append(wire)
        extra = self.scope.own(message.extra, where)
        if results:
            self._put_results(results, {} if parts else extra)
            if not self._waiting:
                self._release()
        if parts:
            self._put("model" if message.role == "assistant" else "user", parts, extra)
        elif not results:
            self.scope.lose(where, "a turn without parts is refused, so it is not sent", "note")
        if message.role == "assistant":
            for number, part in enumerate(message.parts):
                if isinstance(part, ToolCall):
                    self._waiting.append(_Waiting(part, f"{where}.parts[{number}]"))

    def finish(self) -> list[Json]:
        """All contents; raises InputError where a call has no result, or where there is nothing."""
        self._settle()
        if not self.contents:
            raise InputError("the request has no message to answer", hint="add a user message with some text")
        return self.contents

    def _release(self) -> None:
        held, self._held = self._held, []
        for message, where in held:
            self.add(message, where)

    def _put(self, role: str, parts: list[Json], extra: Json) -> None:
        if role == "user":
            self._settle()
        self._results = None
        self.contents.append({"role": role, "parts": parts, **extra})

    def _put_results(self, results: list[Json], extra: Json) -> None:
        if self._results is None:
            self._results = []
            self.contents.append({"role": "user", "parts": self._results})
        self._results += results
        self.contents[-1].update(extra)

    def _settle(self) -> None:
        """Every call so far must have its result by now."""
        if self._waiting:
            call, where = self._waiting[0]
            raise InputError(
                f"{where}: tool call {call.id!r} has no result",
                hint=f"add a tool message with ToolResult({call.id!r}, ...) right after it, or take the call out",
            )

    def _part(self, part: Part, role: str, where: str) -> Json | None:
        if role != "assistant" and part.__struct_config__.tag in ("tool_call", "reasoning"):
            self.scope.lose(f"{where}.{part.__struct_config__.tag}", f"only the model has these, not the {role}")
            return None
        wire = part_of(part, where, self.scope)
        if isinstance(part, ToolCall):
            self._names[part.id] = part.name
        return wire

    def _result(self, part: ToolResult, where: str) -> Json:
        """A result, under the name of its call: the protocol wants it there again."""
        found = next((waiting for waiting in self._waiting if waiting.call.id == part.call_id), None)
        if found is not None:
            self._waiting.remove(found)
        name = part.name or (found.call.name if found is not None else None)
        if name is None or (found is None and part.call_id in self._names):
            raise InputError(
                f"{where}: it answers tool call {part.call_id!r}, which waits for no result",
                hint="put each tool result behind the assistant message whose call it answers, once",
            )
        own = dict(self.scope.own(part.extra, where))
        made: Json = {"id": part.call_id, "name": name, **self._said(part, where), **own.pop("functionResponse", {})}
        if part.cache is not None:
            self.scope.lose(f"{where}.cache", "prompts are cached by their beginning, without breakpoints", "note")
        return {"functionResponse": made, **own}

    def _said(self, part: ToolResult, where: str) -> Json:
        words = [inner.text for inner in part.parts if isinstance(inner, Text)]
        said: Json = {"response": response_of("".join(words), part.is_error) if words or part.is_error else {}}
        media: list[Any] = []
        for number, inner in enumerate(part.parts):
            spot = f"{where}.parts[{number}]"
            if isinstance(inner, Text):
                if inner.citations:
                    self.scope.lose(f"{spot}.citations", "sources are not sent", "note")
                if inner.cache is not None:
                    self.scope.lose(
                        f"{spot}.cache", "prompts are cached by their beginning, without breakpoints", "note"
                    )
                if self.scope.own(inner.extra, spot):
                    self.scope.lose(f"{spot}.extra.{NAME}", "words of a result have no keys beside them", "note")
            elif isinstance(inner, Media):
                if (wire := part_of(inner, spot, self.scope)) is not None:
                    media.append(wire)
            else:
                self.scope.lose(f"{spot}.{inner.__struct_config__.tag}", "results hold words and media")
        if media:
            said["parts"] = media
        return said
