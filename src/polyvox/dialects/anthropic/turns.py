"""A conversation as turns that the Messages protocol accepts: merged, results first, every call answered.
It refuses a history that cannot be sent before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from polyvox.dialects.anthropic.blocks import Block, Scope, block_of, is_plain
from polyvox.dialects.anthropic.facts import NAME
from polyvox.dialects.plain import plain_words
from polyvox.dialects.tool_input import input_of
from polyvox.errors import InputError
from polyvox.types import Message, Opaque, Part, Text, ToolCall, ToolResult

_ROLES = {"system": "system", "developer": "system", "user": "user", "tool": "user", "assistant": "assistant"}
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")


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
        scope.lose(f"{where}.signature", f"calls carry no signature here; bound to {part.origin}")
    block = {"type": "tool_use", "id": sent, "name": part.name, "input": input_of(part, where, scope.lose)}
    return {**block, **scope.own(part.extra, where)}


def call_id(asked: str, where: str, scope: Scope, used: set[str]) -> str:
    """The id of a call in the letters allowed, and one that no other call has."""
    sent = base = _NOT_IN_IDS.sub("_", asked) or "call"
    number = 2
    while sent in used:
        sent = f"{base}_{number}"
        number += 1
    if sent != asked:
        scope.lose(f"{where}.id", f"ids are unique and of letters, digits, _ and -: sent as {sent}", "note")
    used.add(sent)
    return sent


def _unsealed(part: Text, where: str, scope: Scope) -> Text:
    """A text without the citations that only the deployment can read whose search results were left out."""
    kept = tuple([one for one in part.citations if "encrypted_index" not in one.extra.get(NAME, {})])
    if len(kept) < len(part.citations):
        scope.lose(f"{where}.citations", "they are bound to search results of another deployment")
    return msgspec.structs.replace(part, citations=kept)


class _Turn:
    """One turn while it grows; the results of tools stand before everything else."""

    __slots__ = ("blocks", "extra", "results", "role")

    def __init__(self, role: str) -> None:
        self.role = role
        self.results: list[Block] = []
        self.blocks: list[Block] = []
        self.extra: Block = {}

    def wire(self) -> Block:
        blocks = self.results + self.blocks
        content = blocks[0]["text"] if len(blocks) == 1 and is_plain(blocks[0]) else blocks
        return {"role": self.role, "content": content, **self.extra}


class _Conversation:
    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.turns: list[_Turn] = []
        self.held: list[_Turn] = []
        # Calls of the last assistant turn that still want a result: (id as asked, id as sent, place).
        self.waiting: list[tuple[str, str, str]] = []
        self.opaque_ids: set[str] = set()
        self.left_behind: set[str] = set()  # ids of blocks that are bound to another deployment
        self.used: set[str] = set()

    def add(self, message: Message, where: str) -> None:
        role = _ROLES[message.role]
        if role == "system" and not self.scope.strict_version:
            self.scope.lose(where, "instructions amid the conversation are sent as text of the user", "note")
            role = "user"
        elif message.role == "developer":
            self.scope.lose(f"{where}.role", "there is no developer here: sent as the system's", "note")
        if message.name is not None:
            self.scope.lose(f"{where}.name", "speakers have no name", "note")
        if role == "assistant" and self.turns and self.turns[-1].role != "assistant":
            self._settle()
            self.opaque_ids = set()
        plain = plain_words(message)
        if plain and not plain.isspace():
            # The common case, and the hot one.
            self._turn(role, where).blocks.append({"type": "text", "text": plain})
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
                if (block := self._result(part, role, place)) is not None:
                    results.append(block)
            elif (block := self._block(part, role, place)) is not None:
                blocks.append(block)
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
        last = self.turns[-1]
        if last.role == "assistant" and is_plain(last.blocks[-1]):
            text = last.blocks[-1]["text"]
            if text != text.rstrip():
                self.scope.lose("messages", "white space at the end of a begun answer is refused, so it is cut", "note")
                last.blocks[-1] = {"type": "text", "text": text.rstrip()}
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
                hint=f"add a tool message with ToolResult({asked!r}, ...) right after it, or take the call out",
            )

    def _block(self, part: Part, role: str, where: str) -> Block | None:
        if type(part) is ToolCall and role == "assistant":
            return self._call(part, where)
        if type(part) is Text and self.left_behind and part.citations:
            part = _unsealed(part, where, self.scope)
        identity = part.raw.get("id") if type(part) is Opaque and isinstance(part.raw, dict) else None
        if type(part) is Opaque and self._stays(part, role):
            self.scope.lose(f"{where}.opaque", f"a {part.type}, bound to {part.origin}")
            self.left_behind.add(str(identity))
            return None
        if role == "assistant" and isinstance(identity, str):
            # A block newer than this code may be a call that the caller answers.
            self.opaque_ids.add(identity)
            self.used.add(identity)
        return block_of(part, role, where, self.scope)

    def _stays(self, part: Opaque, role: str) -> bool:
        """Whether a block is left out, as it is bound to another deployment: what the model's side made has ids and
        ciphers of its own. The user's own blocks are plain, but for files that are kept there."""
        held = isinstance(part.raw, dict) and (role == "assistant" or "file_id" in part.raw)
        return held and part.dialect == NAME and self.scope.is_foreign(part.origin)

    def _call(self, part: ToolCall, where: str) -> Block:
        block = call_block(part, where, self.scope, self.used)
        caller = block.get("caller")
        if isinstance(caller, dict) and caller.get("tool_id") in self.left_behind:
            self.scope.lose(f"{where}.caller", "the program that made this call is bound to another deployment")
            del block["caller"]
        self.waiting.append((part.id, block["id"], where))
        return block

    def _result(self, part: ToolResult, role: str, where: str) -> Block | None:
        found = next((call for call in self.waiting if call[0] == part.call_id), None)
        if found is None and part.call_id in self.left_behind:
            self.scope.lose(where, "the call it answers is bound to another deployment")
            return None
        if role != "user" or (found is None and part.call_id not in self.opaque_ids):
            raise InputError(
                f"{where}: it answers tool call {part.call_id!r}, which the assistant turn before it did not make",
                hint="put each tool result right after the assistant message whose call it answers, once",
            )
        if found is not None:
            self.waiting.remove(found)
        block: Block = {"type": "tool_result", "tool_use_id": found[1] if found else part.call_id}
        blocks = [
            made
            for number, inner in enumerate(part.parts)
            if (made := block_of(inner, "user", f"{where}.parts[{number}]", self.scope)) is not None
        ]
        if blocks:
            block["content"] = blocks[0]["text"] if len(blocks) == 1 and is_plain(blocks[0]) else blocks
        if part.is_error:
            block["is_error"] = True
        return {**block, **self.scope.cache(part.cache, where), **self.scope.own(part.extra, where)}
