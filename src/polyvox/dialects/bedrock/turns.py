"""A conversation as turns that the Converse protocol accepts: alternating, the user's first, every call answered
in the turn behind it. It refuses a history that cannot be sent before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Iterable

from polyvox.dialects.bedrock.blocks import blocks_of, is_plain
from polyvox.dialects.bedrock.scope import Block, Scope
from polyvox.dialects.plain import bare_words, plain_words
from polyvox.dialects.tool_input import input_of
from polyvox.errors import InputError
from polyvox.types import Message, Opaque, Part, ToolCall, ToolResult

_ROLES = {"system": "system", "developer": "system", "user": "user", "tool": "user", "assistant": "assistant"}
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_.:-]")
_LONGEST_ID = 64


def turns_of(messages: Iterable[tuple[int, Message]], scope: Scope) -> list[Block]:
    """The `messages` of a request, from messages and their places in it; raises InputError."""
    conversation = _Conversation(scope)
    for place, message in messages:
        conversation.add(message, f"messages[{place}]")
    return conversation.finish()


def call_block(part: ToolCall, where: str, scope: Scope, used: set[str]) -> Block:
    """A tool call as a block; its id joins `used`, the ids of all calls so far."""
    sent = call_id(part.id, where, scope, used)
    if part.signature is not None:
        scope.lose(f"{where}.signature", "calls carry no signature here")
    call = {"toolUseId": sent, "name": part.name, "input": input_of(part, where, scope.lose)}
    return {"toolUse": {**call, **scope.own(part.extra, where)}}


def call_id(asked: str, where: str, scope: Scope, used: set[str]) -> str:
    """The id of a call in the letters and the length allowed, and one that no other call has."""
    base = _NOT_IN_IDS.sub("_", asked)[:_LONGEST_ID] or "call"
    sent, number = base, 2
    while sent in used:
        end = f"_{number}"
        sent = base[: _LONGEST_ID - len(end)] + end
        number += 1
    if sent != asked:
        why = f"ids are unique, of at most {_LONGEST_ID} letters, digits and _.:-: sent as {sent}"
        scope.lose(f"{where}.id", why, "note")
    used.add(sent)
    return sent


class _Turn:
    """One turn while it grows; the results of tools stand before everything else."""

    __slots__ = ("blocks", "extra", "results", "role")

    def __init__(self, role: str) -> None:
        self.role = role
        self.results: list[Block] = []
        self.blocks: list[Block] = []
        self.extra: Block = {}

    def wire(self) -> Block:
        return {"role": self.role, "content": self.results + self.blocks, **self.extra}


class _Conversation:
    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.turns: list[_Turn] = []
        self.held: list[_Turn] = []  # of the system, until the results of open calls have come
        self.used: set[str] = set()
        self.called: dict[str, str] = {}  # id of a call -> the name of its function
        self.opaque_ids: set[str] = set()
        self.waiting: list[tuple[str, str, str]] = []  # calls without a result: id asked, id sent, where

    def add(self, message: Message, where: str) -> None:
        role = _ROLES[message.role]
        if message.role == "developer":
            self.scope.lose(f"{where}.role", "there is no developer here: sent as the system's", "note")
        if message.name is not None:
            self.scope.lose(f"{where}.name", "speakers have no name", "note")
        if role == "assistant" and self.turns and self.turns[-1].role != "assistant":
            self._settle()
            self.opaque_ids = set()
        plain = plain_words(message)
        if plain and not plain.isspace():
            # The common case, and the hot one.
            self._turn(role, where).blocks.append({"text": plain})
        else:
            self._put(message, role, where)
        if self.held and not self.waiting:
            self.turns += self.held
            self.held = []

    def _put(self, message: Message, role: str, where: str) -> None:
        """Put the parts of a message where they belong."""
        results: list[Block] = []
        blocks: list[Block] = []
        for number, part in enumerate(message.parts):
            place = f"{where}.parts[{number}]"
            if type(part) is ToolResult:
                results += self._result(part, role, place)
            else:
                blocks += self._blocks(part, role, place)
        extra = self.scope.own(message.extra, where)
        if results or blocks:
            turn = self._turn(role, where)
            turn.results += results
            turn.blocks += blocks
            turn.extra = {**turn.extra, **extra}

    def finish(self) -> list[Block]:
        self._settle()
        if not self.turns:
            raise InputError("the request has no message to answer", hint="add a user message with some text")
        first, last = self.turns[0], self.turns[-1]
        if first.role == "assistant":
            raise InputError(
                "the conversation begins with the assistant, and here it must with the user",
                param="messages",
                hint="put a user message in front",
            )
        if last.role == "assistant" and is_plain(last.blocks[-1]):
            text = last.blocks[-1]["text"]
            if text != text.rstrip():
                self.scope.lose("messages", "white space at the end of a begun answer is refused, so it is cut", "note")
                last.blocks[-1] = {"text": text.rstrip()}
        return [turn.wire() for turn in self.turns]

    def _turn(self, role: str, where: str) -> _Turn:
        """The turn to add to: the last one when its role is the same, else a new one."""
        if role == "system" and self.waiting:
            self.scope.lose(where, "it is sent behind the tool results, which must follow their calls at once", "note")
            self.held = self.held or [_Turn(role)]
            return self.held[0]
        if not self.turns or self.turns[-1].role != role:
            self.turns.append(_Turn(role))
        return self.turns[-1]

    def _settle(self) -> None:
        """Every call of the last assistant turn must have its result by now."""
        if self.waiting:
            asked, _, place = self.waiting[0]
            raise InputError(
                f"{place}: tool call {asked!r} has no result",
                param=place,
                hint=f"add a tool message with ToolResult({asked!r}, ...) right after it, or take the call out",
            )

    def _blocks(self, part: Part, role: str, where: str) -> list[Block]:
        if type(part) is ToolCall and role == "assistant":
            block = call_block(part, where, self.scope, self.used)
            self.called[part.id] = part.name
            self.waiting.append((part.id, block["toolUse"]["toolUseId"], where))
            return [block]
        use = part.raw.get("toolUse") if type(part) is Opaque and isinstance(part.raw, dict) else None
        identity = use.get("toolUseId") if isinstance(use, dict) else None
        if role == "assistant" and isinstance(identity, str):
            # A kind of call newer than this code may be one that the caller answers.
            self.opaque_ids.add(identity)
            self.used.add(identity)
        return blocks_of(part, role, where, self.scope)

    def _result(self, part: ToolResult, role: str, where: str) -> list[Block]:
        found = next((call for call in self.waiting if call[0] == part.call_id), None)
        if role != "user" or (found is None and part.call_id not in self.opaque_ids):
            raise InputError(
                f"{where}: it answers tool call {part.call_id!r}, which the assistant turn before it did not make",
                param=where,
                hint="put each tool result right after the assistant message whose call it answers, once",
            )
        if found is not None:
            self.waiting.remove(found)
        content: list[Block] = []
        for number, inner in enumerate(part.parts):
            words = bare_words(inner)
            content += (
                blocks_of(inner, "result", f"{where}.parts[{number}]", self.scope)
                if words is None
                else [{"text": words}]
            )
        result: Block = {"toolUseId": found[1] if found else part.call_id, "content": content}
        if part.is_error:
            result["status"] = "error"
        if part.name not in (None, self.called.get(part.call_id)):
            self.scope.lose(f"{where}.name", "a result is named by its call here", "note")
        return [{"toolResult": {**result, **self.scope.own(part.extra, where)}}, *self.scope.cache(part.cache, where)]
