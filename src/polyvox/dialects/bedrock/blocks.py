"""One part of a message as content blocks. It knows what a block may hold in which turn; it does not know the
turns around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from polyvox.dialects.bedrock.facts import NAME
from polyvox.dialects.bedrock.media import medium_block
from polyvox.dialects.bedrock.scope import Block, Scope
from polyvox.types import Audio, Citation, File, Image, Opaque, Part, Reasoning, Refusal, Text, Video


def blocks_of(part: Part, role: str, where: str, scope: Scope) -> list[Block]:
    """The blocks for a part of a turn of this role ("system", "user", "assistant", or "result" for what a tool
    gave): the part, and the cache point behind it. None, with a loss, where the part has no place.

    Tool calls and results are not for here: they need the turns around them.
    """
    make = _MAKERS.get(type(part))
    if make is None or (role == "system" and type(part) in (Image, File, Audio, Video)):
        scope.lose(f"{where}.{part.__struct_config__.tag}", f"it has no place in the {role}'s turn")
        return []
    block = make(part, role, where, scope)
    if block is None:
        return []
    hint = getattr(part, "cache", None)
    if hint is not None and role == "result":
        scope.lose(f"{where}.cache", "the cache can only end behind the whole result", "note")
        return [block]
    return [block, *scope.cache(hint, where)]


def is_plain(block: Block) -> bool:
    """Whether a block says nothing but its text."""
    return len(block) == 1 and "text" in block


def _text(part: Text, role: str, where: str, scope: Scope) -> Block | None:
    if part.signature is not None:
        scope.lose(f"{where}.signature", "text carries no signature here")
    own = scope.own(part.extra, where)
    if role == "result":
        return _result_text(part, own, where, scope)
    if not part.text:
        scope.lose(f"{where}.text", "empty text blocks are refused, so it is not sent", "note")
        return None
    citations = cited(part, role, where, scope)
    if citations:
        return {"citationsContent": {"content": [{"text": part.text}], "citations": citations, **own}}
    return {"text": part.text, **own}


def _result_text(part: Text, own: Block, where: str, scope: Scope) -> Block:
    """What a tool said: as JSON where it came as that, else in words."""
    if part.citations:
        scope.lose(f"{where}.citations", "what a tool gave cannot cite")
    if "json" not in own:
        return {"text": part.text, **own}
    rest = {key: value for key, value in own.items() if key != "json"}
    try:
        msgspec.json.decode(part.text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {"text": part.text, **rest}
    return {"json": Raw(part.text.encode()), **rest}


def cited(part: Text, role: str, where: str, scope: Scope) -> list[Block]:
    """The citations of an answer's text: as they came, or made of their address."""
    if part.citations and role != "assistant":
        scope.lose(f"{where}.citations", f"only answers cite, not the {role}'s text")
        return []
    return [found for citation in part.citations if (found := citation_block(citation, where, scope)) is not None]


def citation_block(citation: Citation, where: str, scope: Scope) -> Block | None:
    """A citation as it came from this dialect; one from another with its address, if it has one."""
    if NAME in citation.extra:
        return dict(citation.extra[NAME])
    if citation.url is None:
        scope.lose(f"{where}.citations", "a source of another dialect without an address cannot be cited")
        return None
    if citation.start is not None or citation.extra:
        scope.lose(f"{where}.citations", "only title, words and address of a source are told", "note")
    block: Block = {} if citation.title is None else {"title": citation.title}
    if citation.text is not None:
        block["sourceContent"] = [{"text": citation.text}]
    return {**block, "location": {"web": {"url": citation.url}}}


def _reasoning(part: Reasoning, role: str, where: str, scope: Scope) -> Block | None:
    field = f"{where}.reasoning"
    others = [dialect for dialect in part.extra if dialect != NAME]
    if role != "assistant":
        scope.lose(field, f"only the assistant reasons, not the {role}")
    elif part.origin is not None and part.origin != scope.at.origin:
        scope.lose(field, f"bound to {part.origin}")
    elif others and NAME not in part.extra:
        scope.lose(field, f"bound to {others[0]}")
    elif part.origin is None and part.signature is None and part.encrypted is None:
        scope.lose(field, "reasoning is only sent back to who said it, and nobody knows who did")
    else:
        if part.encrypted is not None and part.text:
            scope.lose(field, "what is shown of hidden reasoning does not go back with it", "note")
        return reasoning_block(part, scope.own(part.extra, where))
    return None


def reasoning_block(part: Reasoning, own: Block) -> Block:
    """A thought as its block: what is shown of it with its proof, or what is hidden."""
    if part.encrypted is not None:
        return {"reasoningContent": {"redactedContent": part.encrypted, **own}}
    shown: Block = {"text": part.text}
    if part.signature is not None:
        shown["signature"] = part.signature
    return {"reasoningContent": {"reasoningText": {**shown, **own}}}


def _medium(part: Any, _role: str, where: str, scope: Scope) -> Block | None:
    return medium_block(part, where, scope)


def _audio(part: Audio, role: str, where: str, scope: Scope) -> Block | None:
    words = part.transcript
    if part.data is None and part.url is None and words is not None and words.strip():
        scope.lose(f"{where}.audio", "there is no sound to send: its transcript is sent instead")
        return {"text": words}
    if role == "result":
        scope.lose(f"{where}.audio", "what a tool gave holds no sound")
        return None
    return medium_block(part, where, scope)


def _refusal(part: Refusal, role: str, where: str, scope: Scope) -> Block | None:
    scope.lose(f"{where}.refusal", "a refusal has no block of its own: its words are sent as text", "note")
    return _text(Text(part.text, extra=part.extra), role, where, scope)


def _opaque(part: Opaque, _role: str, where: str, scope: Scope) -> Block | None:
    if part.dialect == NAME and isinstance(part.raw, dict):
        return part.raw
    scope.lose(f"{where}.opaque", f"a {part.type} of {part.dialect} means nothing here")
    return None


_MAKERS: dict[type, Callable[[Any, str, str, Scope], Block | None]] = {
    Text: _text,
    Reasoning: _reasoning,
    Image: _medium,
    File: _medium,
    Video: _medium,
    Audio: _audio,
    Refusal: _refusal,
    Opaque: _opaque,
}
