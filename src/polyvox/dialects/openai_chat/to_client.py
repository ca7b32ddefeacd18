"""Neutral answers and errors as Chat Completions tells them to a client, with what could not be told. What
the stream writer says too (parts, finish reasons, usage, errors) stands here once."""

from __future__ import annotations

import base64
import math
from typing import Any, ClassVar

from polyvox.dialects import SHAPE_ERRORS, Endpoint, Peek, Reply, encode_json
from polyvox.dialects.errors_on_wire import headers_of, kind_of, status_of
from polyvox.dialects.openai_chat.answer import (
    BESIDE_CONTENT,
    FINISH,
    NAME,
    OWN_DETAILS,
    SHOWN_ONLY,
    beside_key,
    usage_of,
)
from polyvox.dialects.scope import Answering, Scope
from polyvox.errors import BadResponseError, PolyvoxError, UnknownModelError, of_kind
from polyvox.types import (
    Audio,
    Choice,
    Citation,
    FinishReason,
    Image,
    Loss,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Response,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)

_HEADERS = {"content-type": "application/json"}
_PREFIX = "chatcmpl-"
UNWRITABLE = (*SHAPE_ERRORS, OverflowError)  # what encoding raises for values that no JSON can say


class Saying(Answering, Scope):
    """What writing one answer carries along."""

    __slots__ = ()
    NAME: ClassVar[str] = NAME

    def __init__(self) -> None:
        super().__init__(Endpoint())


# ---- identity ---------------------------------------------------------------------------------


def id_said(told: str | None) -> str:
    """The answer's id with the prefix that clients of this dialect expect; a placeholder for none."""
    return told if told is not None and told.startswith(_PREFIX) else _PREFIX + (told or "0")


def time_said(created: float | None) -> int:
    """Epoch seconds as the whole number the protocol demands; 0 where nobody said."""
    return int(created) if created is not None and 0 <= created < 2**53 else 0


# ---- why it ended -----------------------------------------------------------------------------

# Reasons whose word is the protocol's own: imitators' spellings of them are said by it.
_EXACT = frozenset({"stop", "length", "tool_calls", "content_filter"})
_NEAREST = {"context_overflow": "length", "pause": "length", "compaction": "length"}
# Reasons that mean there is no answer, and the error that says so.
_FAILURES = {
    "error": ("server", "the model failed before its answer was whole"),
    "incomplete": ("stream_interrupted", "the answer broke off before its end"),
    "cancelled": ("cancelled", "the answer was cancelled before its end"),
}


def _imitators_word(reason: str | None, raw: str | None) -> str | None:
    """The raw reason, where the protocol has no word for it but its imitators have, or where nobody knows it."""
    if raw is None or reason in _EXACT or reason == "refusal":
        return None
    return raw if FINISH.get(raw, "unknown") == reason else None


def failure_of(reason: str | None, raw: str | None) -> PolyvoxError | None:
    """The error to give instead of an answer that ended for this reason; None where it is an answer. Some
    imitators have words for failure within an answer: those are said as such."""
    if reason not in _FAILURES or _imitators_word(reason, raw) is not None:
        return None
    kind, message = _FAILURES[reason]
    return of_kind(kind, f"{message} ({raw})" if raw else message, sent="yes")


def reason_said(reason: FinishReason | None, raw: str | None, refused: bool, where: str, out: Saying) -> str | None:
    """The finish reason on the wire; None only where the answer has none, or where it failed."""
    word = _imitators_word(reason, raw)
    if word is not None or reason is None:
        return word
    if reason == "refusal":
        if refused:
            return "stop"
        out.lose(f"{where}finish_reason", "a refusal without words is told as content_filter", "note")
        return "content_filter"
    if reason in _NEAREST or reason in _FAILURES:
        out.lose(f"{where}finish_reason", f"this dialect has no reason {reason!r}")
        return _NEAREST.get(reason)
    return reason


# ---- usage ------------------------------------------------------------------------------------


def usage_said(usage: Usage, out: Saying) -> dict[str, Any] | None:
    """The usage object; None where nothing is known. What this dialect told goes on as it was told."""
    if usage.raw and usage_of(usage.raw) == usage:
        return usage.raw
    if usage.input is None and usage.output is None and usage.total is None:
        return None
    for field in ("input", "output"):
        if getattr(usage, field) is None:
            out.lose(f"usage.{field}", "nobody told; this dialect demands a number and gets 0", "note")
    if usage.source == "estimated":
        out.lose("usage.source", "estimated counts are told like counted ones", "note")
    if usage.cache_write_by_ttl:
        out.lose("usage.cache_write_by_ttl", "cache writes are told in one sum", "note")
    asked, answered = usage.input or 0, usage.output or 0
    total = asked + answered if usage.total is None else usage.total
    said: dict[str, Any] = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": total}
    details: dict[str, dict[str, Any]] = {
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
            "audio_tokens": usage.audio_input,
            "image_tokens": usage.image_input,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": usage.audio_output},
        "server_tool_use_details": usage.server_tools,
    }
    for key, counts in details.items():
        if known := {name: count for name, count in counts.items() if count is not None}:
            said[key] = known
    if usage.cost is not None:
        said["cost"] = float(usage.cost)
    return said


# ---- parts ------------------------------------------------------------------------------------


def annotations_said(citations: tuple[Citation, ...], offset: int, where: str, out: Saying) -> list[dict[str, Any]]:
    """Sources as annotations. `offset` is how many characters stand before the text they hang on."""
    said = []
    for citation in citations:
        own = out.own(citation.extra, f"{where}.citations")
        if own:
            said.append(own)
            continue
        if citation.url is None:
            out.lose(f"{where}.citations", "only a source with an address can be cited in this dialect")
            continue
        if citation.kind != "url" or citation.document is not None or citation.file_id is not None:
            out.lose(f"{where}.citations", "every source is cited by its address in this dialect", "note")
        facts = {
            "url": citation.url,
            "title": citation.title,
            "content": citation.text,
            "start_index": None if citation.start is None else citation.start + offset,
            "end_index": None if citation.end is None else citation.end + offset,
        }
        known = {key: value for key, value in facts.items() if value is not None}
        said.append({"type": "url_citation", "url_citation": known})
    return said


def logprobs_said(tokens: tuple[TokenLogprob, ...]) -> dict[str, Any]:
    """A choice's logprobs object."""
    return {"content": [_token(token) for token in tokens], "refusal": None}


def _token(token: TokenLogprob) -> dict[str, Any]:
    return {
        "token": token.token,
        # The SDK's types say it: -9999.0 stands for "very unlikely", as JSON has no infinity.
        "logprob": token.logprob if math.isfinite(token.logprob) else -9999.0,
        "bytes": token.bytes,
        "top_logprobs": [_token(other) for other in token.top],
    }


def _data_url(data: bytes, media_type: str | None) -> str:
    return f"data:{media_type or ''};base64,{base64.b64encode(data).decode('ascii')}"


def image_said(part: Image, where: str, out: Saying) -> dict[str, Any] | None:
    """A picture the model made; None where it has neither bytes nor an address."""
    out.own(part.extra, where)
    url = _data_url(part.data, part.media_type) if part.data is not None else part.url
    if url is None:
        out.lose(f"{where}.image", "a picture goes as data or address in this dialect")
        return None
    _unnamed(part, where, out)
    return {"type": "image_url", "image_url": {"url": url}}


def _unnamed(part: Image | Audio, where: str, out: Saying) -> None:
    if part.name is not None:
        out.lose(f"{where}.name", "what the model made has no name in this dialect", "note")


def audio_said(part: Audio, where: str, out: Saying) -> dict[str, Any]:
    """Sound the model made."""
    _unnamed(part, where, out)
    if part.media_type is not None:
        out.lose(f"{where}.media_type", "sound is in the form that was asked for in this dialect", "note")
    if part.url is not None:
        out.lose(f"{where}.url", "sound goes as data in this dialect")
    elif part.data is None and part.file_id is None and part.transcript is None:
        out.lose(f"{where}.audio", "it holds nothing")
    said = {
        "id": part.file_id,
        "data": None if part.data is None else base64.b64encode(part.data).decode("ascii"),
        "transcript": part.transcript,
    }
    return {**{key: value for key, value in said.items() if value is not None}, **out.own(part.extra, where)}


def call_said(part: ToolCall, where: str, out: Saying) -> dict[str, Any]:
    """A tool call. One that takes no arguments has an empty object: clients parse what they get."""
    if part.signature is not None:
        out.lose(f"{where}.signature", f"a call carries no proof in this dialect; bound to {part.origin}")
    key = "input" if part.kind == "custom" else "arguments"
    arguments = part.arguments or ("" if part.kind == "custom" else "{}")
    own = dict(out.own(part.extra, where))
    inner = own.pop(part.kind, {})
    return {"id": part.id, "type": part.kind, **own, part.kind: {"name": part.name, key: arguments, **inner}}


def thought_said(part: Reasoning, index: int, where: str, out: Saying) -> dict[str, Any] | None:
    """The detail that carries a reasoning part of another dialect and its proof, for a client to send back;
    None for a part without proof."""
    out.own(part.extra, where)
    if part.signature is None and part.encrypted is None:
        return None
    out.lose(f"{where}.reasoning", "its proof goes in reasoning_details, which few clients send back", "note")
    kind = "reasoning.text" if part.encrypted is None else "reasoning.encrypted"
    proof = {"text": part.text or None, "signature": part.signature, "data": part.encrypted}
    said = {"type": kind, **{key: value for key, value in proof.items() if value is not None}}
    return {**said, "format": OWN_DETAILS, "index": index}


def chunk_said(part: Text | Refusal | Reasoning | Opaque, where: str, out: Saying) -> dict[str, Any]:
    """A part as a chunk of a content list."""
    if isinstance(part, Opaque):
        return dict(part.raw)
    own = out.own(part.extra, where)
    if isinstance(part, Text):
        return {"type": "text", "text": part.text, **own}
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text, **own}
    return {"type": "thinking", "thinking": [{"type": "text", "text": part.text}], **own["chunk"]}


def is_chunk(part: Part) -> bool:
    """Whether only a content list can say it: what some imitators send has such parts."""
    match part:
        case Text() | Refusal():
            return NAME in part.extra
        case Reasoning():
            return "chunk" in part.extra.get(NAME, ())
        case Opaque():
            return part.dialect == NAME and part.type not in BESIDE_CONTENT and isinstance(part.raw, dict)
    return False


# ---- the whole answer -------------------------------------------------------------------------


class _Whole:
    """One message being put together: its members, and the parts still to be told in one."""

    def __init__(self, message: Message, where: str, out: Saying) -> None:
        self.out = out
        self.listed = any(map(is_chunk, message.parts)) or _refuses_first(message.parts)
        self.content: list[dict[str, Any]] = []
        self.lists: dict[str, list[Any]] = {}
        self.refusals: list[str] = []
        self.thoughts: list[tuple[str, Reasoning]] = []
        self.sound: Any = None
        self.length = 0
        for i, part in enumerate(message.parts):
            self.add(part, f"{where}message.parts[{i}]")
        if message.name is not None:
            out.lose(f"{where}message.name", "an answer names no speaker in this dialect", "note")

    def add(self, part: Part, where: str) -> None:
        match part:
            case Text():
                self.text(part, where)
            case Refusal() if not self.listed:
                self.out.own(part.extra, where)
                self.refusals.append(part.text)
            case Reasoning() if not is_chunk(part):
                self.thoughts.append((where, part))
            case Refusal() | Reasoning():
                self.content.append(chunk_said(part, where, self.out))
            case ToolCall():
                self.into("tool_calls", call_said(part, where, self.out))
            case Image():
                self.into("images", image_said(part, where, self.out))
            case Audio() if self.sound is None:
                self.sound = audio_said(part, where, self.out) or None
            case Opaque(dialect="openai.chat", type="message.image"):
                self.into("images", part.raw)
            case Opaque(dialect="openai.chat", type="message.audio") if self.sound is None:
                self.sound = part.raw
            case Opaque() if is_chunk(part):
                self.content.append(chunk_said(part, where, self.out))
            case _:
                unsaid(part, where, self.out)

    def text(self, part: Text, where: str) -> None:
        if part.signature is not None:
            self.out.lose(f"{where}.signature", f"words carry no proof in this dialect; bound to {part.origin}")
        self.content.append(chunk_said(part, where, self.out))
        for said in annotations_said(part.citations, 0 if self.listed else self.length, where, self.out):
            self.into("annotations", said)
        self.length += len(part.text)

    def into(self, key: str, value: Any) -> None:
        if value is not None:
            self.lists.setdefault(key, []).append(value)

    def said(self) -> dict[str, Any]:
        beside = bool(self.refusals or self.sound or self.lists.get("tool_calls"))
        content: Any = self.content
        if not self.listed:
            content = "".join([chunk["text"] for chunk in self.content]) if self.content or not beside else None
        said: dict[str, Any] = {"role": "assistant", "content": content}
        said["refusal"] = "".join(self.refusals) if self.refusals else None
        said |= self.reasoning()
        said |= self.lists
        if self.sound is not None:
            said["audio"] = self.sound
        return said

    def reasoning(self) -> dict[str, Any]:
        words = "".join([part.text for _, part in self.thoughts])
        details: list[Any] = []
        proven = any(part.signature or part.encrypted for _, part in self.thoughts)
        for index, (where, part) in enumerate(self.thoughts):
            own = part.extra.get(NAME, {}).get("reasoning_details")
            if own is not None:
                details += own
            elif (detail := thought_said(part, index, where, self.out)) is not None:
                details.append(detail)
            elif proven:
                details.append({"type": "reasoning.text", "text": part.text, "format": OWN_DETAILS, "index": index})
        said: dict[str, Any] = {"reasoning_content": words} if words else {}
        return {**said, "reasoning_details": details} if details else said


def _refuses_first(parts: tuple[Part, ...]) -> bool:
    """Whether the order of refusal and words is one that the members of a message cannot tell."""
    kinds = [type(part) for part in parts if type(part) in (Text, Refusal)]
    return kinds != sorted(kinds, key=(Text, Refusal).index) or kinds.count(Refusal) > 1


def unsaid(part: Part, where: str, out: Saying) -> None:
    """Tell that a part has no place in an answer of this dialect."""
    kind = f"{part.type!r} of {part.dialect}" if isinstance(part, Opaque) else "such a part"
    out.lose(f"{where}.{part.__struct_config__.tag}", f"an answer of this dialect cannot hold {kind}")


def _choice(index: int, choice: Choice, beside: dict[str, Any], where: str, out: Saying) -> dict[str, Any]:
    message = _Whole(choice.message, where, out).said()
    for key, value in out.own(choice.message.extra, f"{where}message").items():
        message.setdefault(key, value)
    refused = any(type(part) is Refusal for part in choice.message.parts)
    said = {
        "index": index,
        "message": message,
        "logprobs": logprobs_said(choice.logprobs) if choice.logprobs else None,
        "finish_reason": reason_said(choice.finish_reason, choice.raw_finish_reason, refused, where, out),
    }
    for key, value in beside.items():
        (message if key in SHOWN_ONLY else said).setdefault(key, value)
    return said


def encode_response(response: Response, asked: Peek) -> tuple[Reply, tuple[Loss, ...]]:
    """See `ServerSide.encode_response`. An answer that failed is an error, whatever had arrived of it."""
    out = Saying()
    failure = failure_of(response.finish_reason, response.raw_finish_reason)
    if failure is not None:
        out.lose("message", "the answer failed, and an error has no place for what had arrived of it")
        return encode_error(failure), tuple(out.losses)
    try:
        data = encode_json(_body(response, asked, out))
    except UNWRITABLE as error:
        raise BadResponseError(f"the answer cannot be written as JSON: {error}") from None
    return Reply(200, _HEADERS, data), tuple(out.losses)


def _body(response: Response, asked: Peek, out: Saying) -> dict[str, Any]:
    if response.stop_sequence is not None:
        out.lose("stop_sequence", "this dialect does not tell which sequence stopped it", "note")
    first = Choice(response.message, response.finish_reason, response.raw_finish_reason, response.logprobs)
    rest = dict(out.own(response.extra, ""))
    choices = []
    for index, choice in enumerate((first, *response.choices)):
        beside = rest.pop(beside_key(index), {})
        choices.append(_choice(index, choice, beside, f"choices[{index - 1}]." if index else "", out))
    body: dict[str, Any] = {
        "id": id_said(response.id),
        "object": "chat.completion",
        "created": time_said(response.created),
        "model": response.model or asked.model or "",
        "choices": choices,
    }
    usage = usage_said(response.usage, out)
    if usage is not None:
        body["usage"] = usage
    return body | {key: value for key, value in rest.items() if key not in body}


# ---- errors -----------------------------------------------------------------------------------

_SERVER_KINDS = frozenset({
    "server", "overloaded", "timeout", "connection", "bad_response", "stream_interrupted", "error", "config", "usage",
    "missing_extra", "cancelled",
})  # fmt: skip
_TYPES = {"quota": "insufficient_quota", "rate_limit": "rate_limit_error"}
# Codes by which clients tell kinds apart: the inventor's own where it has one, else a plain word.
_CODES = {
    "context_length": "context_length_exceeded", "unsupported_param": "unsupported_parameter",
    "auth": "invalid_api_key", "permission": "permission_denied", "billing": "billing_hard_limit_reached",
    "quota": "insufficient_quota", "not_found": "not_found", "conflict": "conflict_error",
    "too_large": "request_too_large", "rate_limit": "rate_limit_exceeded", "overloaded": "engine_overloaded",
    "timeout": "timeout", "cancelled": "cancelled", "content_policy": "content_policy_violation",
    "refusal": "refusal", "connection": "connection", "bad_response": "bad_response",
    "stream_interrupted": "stream_interrupted",
}  # fmt: skip


def error_said(error: PolyvoxError, status: int) -> dict[str, Any]:
    """The error object. A code that came along stays, unless it would hide what kind of error it is;
    status is 0 within a stream."""
    kind = error.kind
    type_said = _TYPES.get(kind) or ("server_error" if kind in _SERVER_KINDS else "invalid_request_error")
    usual = "model_not_found" if isinstance(error, UnknownModelError) else _CODES.get(kind)

    def tells(code: str | None) -> bool:
        return kind_of(status, code, type_said, error.message) == kind

    code = error.code if error.code and (tells(error.code) or not tells(usual)) else usual
    said = {"message": error.message, "type": type_said, "param": error.param, "code": code}
    # Half a character, which no JSON can say, may have come from anywhere.
    return {key: value and value.encode("utf-8", "replace").decode() for key, value in said.items()}


def encode_error(error: PolyvoxError) -> Reply:
    """See `ServerSide.encode_error`."""
    status = status_of(error)
    headers = {**_HEADERS, **headers_of(error)}
    if error.request_id:
        headers["x-request-id"] = error.request_id
    return Reply(status, headers, encode_json({"error": error_said(error, status)}))
