"""The turns of a conversation as the input items of a request: messages, and beside them calls, what they gave, and
reasoning, in order. It knows no field of a request but its messages."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from polyvox.dialects import Endpoint
from polyvox.dialects.openai_responses.facts import (
    AUDIO_FORMATS,
    CACHE_TTLS,
    CALLS,
    IN_MESSAGE,
    MINTED_BY,
    NAME,
    RESULTS,
    UNNAMED,
)
from polyvox.dialects.scope import Scope as BaseScope
from polyvox.types import (
    Audio,
    CacheHint,
    Citation,
    Extra,
    File,
    Image,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)

Json = dict[str, Any]

CALL_ITEMS = {kind: (item, key) for item, (kind, key, _) in CALLS.items()}
RESULT_ITEMS = {kind: item for item, kind in RESULTS.items()}
# An opaque part of such a type is content of a message, whoever made it.
_CONTENT = (IN_MESSAGE, "input_", "output_")


class Scope(BaseScope):
    """One encoding: its endpoint, its losses, and the calls so far."""

    __slots__ = ("called", "kinds", "stored")
    NAME: ClassVar[str] = NAME

    def __init__(self, at: Endpoint, stored: bool = True) -> None:
        super().__init__(at)
        self.stored: bool = stored  # whether the server keeps what it answers
        self.kinds: dict[str, Literal["function", "custom"]] = {}  # id of a call -> its kind
        self.called: dict[str, str] = {}  # id of a call -> the name of its function

    def own(self, extra: Extra, field: str) -> Json:
        """See `polyvox.dialects.scope.Scope`; an id goes to who minted it only."""
        own = super().own(extra, field)
        item = own.get("item")
        if MINTED_BY in own:
            own = self._bound(own, field)
        if isinstance(item, dict) and MINTED_BY in item:
            own = {**own, "item": self._bound(item, field)}
        return own

    def _bound(self, keys: Json, where: str) -> Json:
        """Keys of an item as they go on the wire: an id only to who minted it."""
        left = {key: value for key, value in keys.items() if key != MINTED_BY}
        if not self.may_tell(keys[MINTED_BY]):
            left.pop("id", None)
            self.lose(f"{where}.id", f"bound to {keys[MINTED_BY]}", "note")
        return left


def items_of(messages: tuple[Message, ...], scope: Scope, start: int = 0) -> list[Json]:
    """The input items of the messages, from the one at `start` on."""
    return _Turns(scope).items(messages, start)


def bare_text(part: Part) -> str | None:
    """The words of a part that is plain words and nothing else; None for any other."""
    return part.text if type(part) is Text and part == Text(part.text) else None


class _Turns:
    """The items so far, and the content of the message that is being put together."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.found: list[Json] = []
        self.content: list[Json] = []
        self.keys: Json | None = None  # what the message says beside its content; None while nobody said
        self.drops_ids = False

    def items(self, messages: tuple[Message, ...], start: int) -> list[Json]:
        for i, message in enumerate(messages[start:], start):
            parts = message.parts
            # The common case, and the hot one: plain words from somebody.
            text = bare_text(parts[0]) if len(parts) == 1 and message.role != "tool" and not message.extra else None
            if text is not None:
                self.found.append({"role": self.role(message), "content": text})
            else:
                self.turn(message, f"messages[{i}]")
            if message.name is not None:
                self.scope.lose(f"messages[{i}].name", "speakers have no name here", "note")
        return self.found

    def role(self, message: Message) -> str:
        if message.role == "developer" and "system_role" in self.scope.at.quirks:
            return "system"
        return "user" if message.role == "tool" else message.role

    def turn(self, message: Message, where: str) -> None:
        own = self.scope.own(message.extra, where)
        if message.role == "tool" and any(type(part) not in (ToolResult, Opaque) for part in message.parts):
            self.scope.lose(f"{where}.role", "what is no result is sent as the user's", "note")
        # The ids of items are refused without the reasoning they came behind.
        self.drops_ids = any(type(part) is Reasoning and not self.goes_back(part) for part in message.parts)
        for j, part in enumerate(message.parts):
            place = f"{where}.parts[{j}]"
            add = _PARTS.get(type(part), _Turns.media)
            add(self, part, message, place)
        self.flush(message, own)
        if own and not message.parts:
            self.found.append({"role": self.role(message), "content": "", **own})

    def flush(self, message: Message, own: Json | None = None) -> None:
        """Put what the turn said so far behind the items."""
        if not self.content:
            self.keys = None
            return
        content, keys = self.content, {**(own if own is not None else message.extra.get(NAME, {})), **(self.keys or {})}
        self.content, self.keys = [], None
        if self.drops_ids:
            keys.pop("id", None)
        plain = len(content) == 1 and content[0].keys() <= _PLAIN and not content[0].get("annotations")
        if plain and "text" in content[0] and "id" not in keys:
            self.found.append({"role": self.role(message), "content": content[0]["text"], **keys})
        elif message.role == "assistant":
            told = {"status": "completed", **keys} if "id" in keys else keys
            self.found.append({"type": "message", "role": "assistant", **told, "content": content})
        else:
            self.found.append({"role": self.role(message), "content": content, **keys})

    def item(self, item: Json, message: Message) -> None:
        self.flush(message)
        self.found.append(item)

    # ---- parts that are content ---------------------------------------------------------------

    def words(self, part: Text | Refusal, message: Message, where: str) -> None:
        own = dict(self.scope.own(part.extra, where))
        keys = own.pop("item", None)
        if message.role == "assistant":
            keys = keys if isinstance(keys, dict) else {}
            if self.content and self.keys is not None and self.keys != keys:
                self.flush(message)
            self.keys = keys
        if type(part) is Refusal:
            if message.role != "assistant":
                self.scope.lose(f"{where}.refusal", "only the assistant refuses")
                return
            self.content.append({"type": "refusal", "refusal": part.text, **own})
        elif type(part) is Text:
            said = text_said if message.role == "assistant" else _input_text
            self.content.append({**said(part, where, self.scope), **own})

    def media(self, part: Part, message: Message, where: str) -> None:
        make = _CONTENT_OF.get(type(part))
        if message.role == "assistant" and type(part) is Image and _is_picture(part):
            _unnamed(part, where, self.scope)
            self.item(picture_said(part), message)
        elif message.role == "assistant" and type(part) is Audio and part.transcript:
            self.scope.lose(f"{where}.audio", "sound is not sent back: its words are")
            self.content.append({"type": "output_text", "text": part.transcript, "annotations": []})
        elif make is None or message.role == "assistant":
            self.scope.lose(f"{where}.{part.__struct_config__.tag}", f"a turn of the {message.role} cannot hold it")
        elif (piece := make(part, where, self.scope)) is not None:
            self.content.append(piece)

    def opaque(self, part: Opaque, message: Message, where: str) -> None:
        if part.dialect != NAME or not isinstance(part.raw, dict):
            self.scope.lose(f"{where}.opaque", f"a {part.type} of {part.dialect} means nothing here")
        elif self.scope.is_foreign(part.origin):
            self.scope.lose(f"{where}.opaque", f"bound to {part.origin}")
        elif part.type.startswith(_CONTENT):
            self.content.append(part.raw)
        else:
            self.item(part.raw, message)

    # ---- parts that are items -----------------------------------------------------------------

    def goes_back(self, part: Reasoning) -> bool:
        """Whether a thought can go back: to who minted it, and as something the server still has or can read."""
        own = part.extra.get(NAME, {})
        if self.scope.is_foreign(part.origin) or (part.extra and not own) or part.signature is not None:
            return False
        return bool(part.encrypted or own.get("content") or (own.get("id") and self.scope.stored))

    def reasoning(self, part: Reasoning, message: Message, where: str) -> None:
        own = self.scope.own(part.extra, where)
        if message.role == "assistant" and self.goes_back(part):
            self.item(thought_said(part, own), message)
            return
        why = "nothing keeps it, and it is not encrypted"
        if self.scope.is_foreign(part.origin):
            why = f"bound to {part.origin}"
        elif not own:
            why = "only reasoning that came from this dialect can be sent"
        self.scope.lose(f"{where}.reasoning", why)

    def call(self, part: ToolCall, message: Message, where: str) -> None:
        if message.role != "assistant":
            self.scope.lose(f"{where}.tool_call", f"a turn of the {message.role} cannot hold it")
            return
        if part.signature is not None:
            self.scope.lose(f"{where}.signature", f"bound to {part.origin}")
        self.scope.kinds[part.id], self.scope.called[part.id] = part.kind, part.name
        item = {**call_said(part), **self.scope.own(part.extra, where)}
        if self.drops_ids:
            item.pop("id", None)
        self.item(item, message)

    def result(self, part: ToolResult, message: Message, where: str) -> None:
        kind = RESULT_ITEMS[self.scope.kinds.get(part.call_id, "function")]
        output = self.output(part, where)
        if part.is_error:
            self.scope.lose(f"{where}.is_error", "there is no error flag here; the text says so", "note")
            mark = {"type": "input_text", "text": "error: "}
            output = f"error: {output}" if isinstance(output, str) else [mark, *output]
        if part.cache is not None:
            self.scope.lose(f"{where}.cache", "results carry no breakpoint of their own here", "note")
        if part.name not in (None, self.scope.called.get(part.call_id)):
            self.scope.lose(f"{where}.name", "a result is named by its call here", "note")
        own = self.scope.own(part.extra, where)
        self.item({"type": kind, "call_id": part.call_id, "output": output, **own}, message)

    def output(self, part: ToolResult, where: str) -> str | list[Json]:
        """What a tool gave: a string where that says all, else pieces of content."""
        if not part.parts:
            return ""
        if len(part.parts) == 1 and (text := bare_text(part.parts[0])) is not None:
            return text
        found: list[Json] = []
        for j, inner in enumerate(part.parts):
            place = f"{where}.parts[{j}]"
            make = _CONTENT_OF.get(type(inner))
            if type(inner) is Text:
                found.append({**_input_text(inner, place, self.scope), **self.scope.own(inner.extra, place)})
            elif isinstance(inner, Opaque) and inner.dialect == NAME and isinstance(inner.raw, dict):
                found.append(inner.raw)
            elif make is None or type(inner) is Audio:
                self.scope.lose(f"{place}.{inner.__struct_config__.tag}", "the result of a tool cannot hold it")
            elif (piece := make(inner, place, self.scope)) is not None:
                found.append(piece)
        return found


_PLAIN = {"type", "text", "annotations"}
_PARTS: dict[type, Callable[..., None]] = {
    Text: _Turns.words,
    Refusal: _Turns.words,
    Reasoning: _Turns.reasoning,
    ToolCall: _Turns.call,
    ToolResult: _Turns.result,
    Opaque: _Turns.opaque,
}


# ---- what requests and answers say in the same words ------------------------------------------


def call_said(part: ToolCall) -> Json:
    """A call, but for its item's own keys. A function that takes no arguments is called with an empty object."""
    kind, key = CALL_ITEMS[part.kind]
    arguments = part.arguments or ("" if part.kind == "custom" else "{}")
    return {"type": kind, "call_id": part.id, "name": part.name, key: arguments}


def thought_said(part: Reasoning, own: Json) -> Json:
    """A reasoning item: as it came, or its words as a summary where this dialect never said them."""
    item: Json = {"type": "reasoning", **own}
    if "summary" not in item:
        item["summary"] = [{"type": "summary_text", "text": part.text}] if part.text and not item.get("content") else []
    if part.encrypted is not None:
        item["encrypted_content"] = part.encrypted
    return item


def _is_picture(part: Image) -> bool:
    return part.data is not None and part.extra.get(NAME, {}).get("type") == "image_generation_call"


def picture_said(part: Image) -> Json:
    """A picture the model made, as the item that told it."""
    return {**part.extra.get(NAME, {}), "result": _base64(part.data or b"")}


def text_said(part: Text, where: str, scope: Scope) -> Json:
    """Words of the model, but for their own keys."""
    if part.signature is not None:
        scope.lose(f"{where}.signature", f"bound to {part.origin}")
    if part.cache is not None:
        scope.lose(f"{where}.cache", "what the model said carries no breakpoint", "note")
    annotations = [said for citation in part.citations if (said := annotation_said(citation, where, scope)) is not None]
    return {"type": "output_text", "text": part.text, "annotations": annotations}


def annotation_said(citation: Citation, where: str, scope: Scope) -> Json | None:
    """A source as an annotation: as it came, or as the address it has."""
    own = scope.own(citation.extra, f"{where}.citations")
    if own:
        return own
    if citation.url is None:
        scope.lose(f"{where}.citations", "only a source with an address can be cited")
        return None
    if citation.text is not None or citation.document is not None or citation.start is None or citation.end is None:
        scope.lose(f"{where}.citations", "a source is cited by its address and where it stands", "note")
    return {
        "type": "url_citation",
        "url": citation.url,
        "title": citation.title or "",
        "start_index": citation.start or 0,
        "end_index": citation.end or 0,
    }


# ---- input content ----------------------------------------------------------------------------


def _input_text(part: Text, where: str, scope: Scope) -> Json:
    if part.citations:
        scope.lose(f"{where}.citations", "only what the model said can cite", "note")
    if part.signature is not None:
        scope.lose(f"{where}.signature", f"bound to {part.origin}")
    return {"type": "input_text", "text": part.text, **_cache(part.cache, where, scope)}


def _cache(cache: CacheHint | None, where: str, scope: Scope) -> Json:
    if cache is None:
        return {}
    if "cache_breakpoint" not in scope.at.quirks:
        scope.lose(f"{where}.cache", "this endpoint caches without breakpoints", "note")
        return {}
    mark: Json = {"mode": "explicit"}
    if cache.ttl in CACHE_TTLS:
        mark["ttl"] = cache.ttl
    elif cache.ttl is not None:
        scope.lose(f"{where}.cache.ttl", "only 30m and 12h are known here; the default is used", "note")
    return {"prompt_cache_breakpoint": {**mark, **scope.own(cache.extra, f"{where}.cache")}}


def _beside(part: Image | File | Audio, where: str, scope: Scope) -> Json:
    return {**_cache(part.cache, where, scope), **scope.own(part.extra, where)}


def _unnamed(part: Media, where: str, scope: Scope) -> None:
    if part.name is not None:
        scope.lose(f"{where}.name", "only files have a name here", "note")


def _image(part: Image, where: str, scope: Scope) -> Json | None:
    _unnamed(part, where, scope)
    if part.file_id is not None and not scope.is_foreign(part.origin):
        source = {"file_id": part.file_id}
    elif (url := part.url or _data_url(part, "image/png")) is not None:
        source = {"image_url": url}
    else:
        scope.lose(f"{where}.image", f"bound to {part.origin}" if part.file_id else "it holds nothing")
        return None
    return {"type": "input_image", "detail": part.detail or "auto", **source, **_beside(part, where, scope)}


def _file(part: File, where: str, scope: Scope) -> Json | None:
    if part.context is not None:
        scope.lose(f"{where}.context", "files have no context here")
    named = {} if part.name is None else {"filename": part.name}
    if part.file_id is not None and not scope.is_foreign(part.origin):
        source = {"file_id": part.file_id, **named}
    elif part.data:
        if part.name is None:
            scope.lose(f"{where}.name", f"a name is demanded: sent as {UNNAMED!r}", "note")
        source = {
            "filename": UNNAMED if part.name is None else part.name,
            "file_data": _data_url(part, "application/pdf") or "",
        }
    elif part.url is not None:
        source = {"file_url": part.url, **named}
    elif part.text is not None:
        scope.lose(f"{where}.file", "the words of a plain-text file are sent as text", "note")
        _unnamed(part, where, scope)
        return {"type": "input_text", "text": part.text, **_beside(part, where, scope)}
    else:
        scope.lose(f"{where}.file", f"bound to {part.origin}" if part.file_id else "it holds nothing")
        return None
    return {"type": "input_file", **source, **_beside(part, where, scope)}


def _audio(part: Audio, where: str, scope: Scope) -> Json | None:
    if not part.data:
        scope.lose(f"{where}.audio", "sound must come as data here")
        return None
    _unnamed(part, where, scope)
    kind = part.media_type or "audio/wav"
    form = AUDIO_FORMATS.get(kind) or kind.rpartition("/")[2]
    inner = {"data": _base64(part.data), "format": form}
    return {"type": "input_audio", "input_audio": inner, **_beside(part, where, scope)}


_CONTENT_OF: dict[type, Callable[..., Json | None]] = {Image: _image, File: _file, Audio: _audio}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _data_url(part: Media, default: str) -> str | None:
    return None if not part.data else f"data:{part.media_type or default};base64,{_base64(part.data)}"
