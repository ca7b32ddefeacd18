"""A whole Chat Completions answer, its usage and its errors, as values. What the stream reader needs
too (usage, finish reasons, citations) stands here once."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any, Literal

import msgspec

from polyvox.dialects import Endpoint, Reply, decode_json, decode_object, guarded, integer, snippet, string
from polyvox.dialects.errors_on_wire import make_error
from polyvox.dialects.openai_chat.plain import plain_response
from polyvox.errors import BadResponseError, PolyvoxError
from polyvox.types import (
    Audio,
    Choice,
    Citation,
    FinishReason,
    Image,
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

NAME = "openai.chat"

FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "context_overflow",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "refusal",
    "error": "error",
    "insufficient_system_resource": "error",
}

# Keys with a neutral place, at each level; every other key goes to extra.
_TOP = frozenset({"id", "object", "created", "model", "choices", "usage", "obfuscation", "citations"})
_CHOICE = frozenset({"index", "message", "delta", "finish_reason", "logprobs"})
_CALL = frozenset({"id", "type", "index", "function", "custom"})
_INNER = frozenset({"name", "arguments", "input"})
_MESSAGE = frozenset({
    "role", "content", "refusal", "tool_calls", "function_call", "annotations", "audio", "images",
    "reasoning_content", "reasoning", "reasoning_details",
})  # fmt: skip
# Keys a server shows but takes from nobody: they belong to the response, not to the turn sent back.
SHOWN_ONLY = frozenset({
    "executed_tools", "provider_specific_fields", "token_id", "token_ids", "search_results", "tool_type",
})  # fmt: skip
# The format of the reasoning details we give to clients for reasoning of another dialect.
OWN_DETAILS = "polyvox"
# Opaque media that stood beside the content of a message: they have no place in the content sent back.
BESIDE_CONTENT = frozenset({"message.image", "message.audio"})


def finish_reason(raw: str | None, has_calls: bool, has_refusal: bool) -> FinishReason | None:
    """The neutral reason; calls and refusals under a plain stop are told for what they are."""
    if raw is None:
        return None
    reason = FINISH.get(raw, "unknown")
    if reason == "stop" and has_calls:
        return "tool_calls"
    if reason == "stop" and has_refusal:
        return "refusal"
    return reason


# ---- usage ------------------------------------------------------------------------------------


def usage_of(raw: Any) -> Usage:
    """Inclusive totals from any imitator's usage object; what it does not say stays None."""
    if not isinstance(raw, dict):
        return Usage()
    prompt, completion = _details(raw, "prompt_tokens_details"), _details(raw, "completion_tokens_details")
    asked, answered = integer(raw.get("prompt_tokens")), integer(raw.get("completion_tokens"))
    total, reasoning = integer(raw.get("total_tokens")), integer(completion.get("reasoning_tokens"))
    if reasoning is None:
        reasoning = integer(raw.get("reasoning_tokens"))
    if asked is not None and answered is not None and reasoning and total == asked + answered + reasoning:
        # xAI counts reasoning beside the completion, not in it; the total gives it away.
        answered += reasoning
    counts = (prompt.get("cached_tokens"), raw.get("prompt_cache_hit_tokens"), raw.get("num_cached_tokens"),
              raw.get("cache_read_input_tokens"), raw.get("cached_tokens"))  # fmt: skip
    written = (prompt.get("cache_write_tokens"), raw.get("cache_creation_input_tokens"))
    return Usage(
        input=asked,
        output=answered,
        cache_read=_first_count(counts),
        cache_write=_first_count(written),
        reasoning=reasoning,
        audio_input=integer(prompt.get("audio_tokens")),
        audio_output=integer(completion.get("audio_tokens")),
        image_input=integer(prompt.get("image_tokens")),
        total=total,
        server_tools=_server_tools(raw),
        cost=_cost(raw),
        source="provider" if asked is not None or answered is not None or total is not None else "missing",
        raw=raw,
    )


def _details(raw: dict[str, Any], key: str) -> dict[str, Any]:
    found = raw.get(key)
    return found if isinstance(found, dict) else {}


def _first_count(values: tuple[Any, ...]) -> int | None:
    return next((count for count in map(integer, values) if count is not None), None)


def _server_tools(raw: dict[str, Any]) -> dict[str, int]:
    found = {key: integer(value) for key, value in _details(raw, "server_tool_use_details").items()}
    return {key: count for key, count in found.items() if count}


def _cost(raw: dict[str, Any]) -> Decimal | None:
    if "cost" in raw:
        return charged(raw)
    # xAI counts in ticks of 1e-10 USD: its recorded figures are its list prices times ten thousand millions.
    ticks = integer(raw.get("cost_in_usd_ticks"))
    return None if ticks is None else Decimal(ticks).scaleb(-10)


def charged(raw: dict[str, Any]) -> Decimal | None:
    """What a usage object says in `cost` that the call costs, USD: an amount, or an object with their sum.

    Where a router called the provider with the user's own key (`is_byok`), that amount is the router's share alone, and
    what the key pays is beside it: both together are the cost, and it is unknown where one of them is
    (https://openrouter.ai/docs/use-cases/usage-accounting). Without such a key both say the same, or the amount
    holds the other.
    """
    told = raw.get("cost")
    amount = _money(told.get("total_cost") if isinstance(told, dict) else told)
    if amount is None or raw.get("is_byok") is not True:
        return amount
    paid = _money(_details(raw, "cost_details").get("upstream_inference_cost"))
    return None if paid is None else amount + paid


def _money(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = Decimal(str(value))
    except ArithmeticError:
        return None
    return amount if amount.is_finite() and amount >= 0 else None


# ---- parts ------------------------------------------------------------------------------------


def citation_of(raw: Any) -> Citation | None:
    """One annotation, or one URL of the flat lists some imitators send."""
    if isinstance(raw, str):
        return Citation(url=raw)
    if not isinstance(raw, dict):
        return None
    kind = string(raw.get("type")) or "annotation"
    inner = raw.get(kind)
    if kind == "url_citation" and isinstance(inner, dict):
        return Citation(
            kind="url",
            url=string(inner.get("url")),
            title=string(inner.get("title")),
            text=string(inner.get("content")),
            start=integer(inner.get("start_index")),
            end=integer(inner.get("end_index")),
        )
    return Citation(kind=kind, url=string(raw.get("url")), title=string(raw.get("title")), extra={NAME: raw})


def citations_of(raw: Any) -> tuple[Citation, ...]:
    """All citations of a list, in order."""
    found = [citation_of(item) for item in raw] if isinstance(raw, list) else []
    return tuple([citation for citation in found if citation is not None])


def logprobs_of(raw: Any) -> tuple[TokenLogprob, ...]:
    """The tokens of a choice's logprobs object, its words before its refusal; a token without a number
    is passed over."""
    lists = [raw.get("content"), raw.get("refusal")] if isinstance(raw, dict) else []
    found = [_token(item) for tokens in lists if isinstance(tokens, list) for item in tokens]
    return tuple([token for token in found if token is not None])


def _token(raw: Any) -> TokenLogprob | None:
    if not isinstance(raw, dict):
        return None
    token, logprob, octets, others = map(raw.get, ("token", "logprob", "bytes", "top_logprobs"))
    likely = number(logprob)
    if not isinstance(token, str) or likely is None:
        return None
    whole = isinstance(octets, list) and all(type(octet) is int for octet in octets)
    top = [_token(item) for item in others] if isinstance(others, list) else []
    return TokenLogprob(
        token,
        likely,
        tuple(octets) if whole and octets is not None else None,
        tuple([each for each in top if each is not None]),
    )


def number(value: Any) -> float | None:
    """A number from the wire as a float, or None for anything else and for what no float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def content_parts(content: Any, at: Endpoint) -> list[Part]:
    """Visible content: a string, or the list of chunks that Mistral and some others send."""
    if isinstance(content, str):
        return [Text(content)] if content else []
    parts: list[Part] = []
    for chunk in content if isinstance(content, list) else ():
        if not isinstance(chunk, str | dict):
            continue
        part = Text(chunk) if isinstance(chunk, str) else chunk_part(chunk, at)
        last = parts[-1] if parts else None
        if isinstance(last, Text) and isinstance(part, Text) and not (last.extra or part.extra):
            parts[-1] = Text(last.text + part.text)  # words that follow words are one text, as in a stream
        else:
            parts.append(part)
    return parts


def chunk_part(chunk: dict[str, Any], at: Endpoint) -> Part:
    """One chunk of a content list; what has no neutral form is Opaque."""
    kind = string(chunk.get("type"))
    if kind in ("text", "output_text") and isinstance(chunk.get("text"), str):
        return Text(chunk["text"], extra=_rest(chunk, {"type", "text"}))
    if kind == "refusal" and isinstance(chunk.get("refusal"), str):
        return Refusal(chunk["refusal"], extra=_rest(chunk, {"type", "refusal"}))
    if kind == "thinking":
        inner = chunk.get("thinking")
        pieces = thinking_pieces(inner)
        text = thinking_text(pieces)
        frame = {key: value for key, value in chunk.items() if key != "thinking"}
        if inner != [{"type": "text", "text": text}]:
            frame["thinking"] = inner
        return Reasoning(text, string(chunk.get("signature")), origin=at.origin, extra={NAME: {"chunk": frame}})
    return Opaque(NAME, kind or "unknown", chunk, at.origin)


def thinking_pieces(inner: Any) -> list[Any]:
    """What a thinking chunk holds: words and references, as a list also where it is one string."""
    if isinstance(inner, str):
        return [{"type": "text", "text": inner}]
    return inner if isinstance(inner, list) else []


def thinking_text(pieces: list[Any]) -> str:
    """The words in a thinking chunk's pieces."""
    return "".join([text for piece in pieces if isinstance(piece, dict) and isinstance(text := piece.get("text"), str)])


def _rest(raw: dict[str, Any], known: set[str]) -> dict[str, dict[str, Any]]:
    rest = {key: value for key, value in raw.items() if key not in known}
    return {NAME: rest} if rest else {}


def reasoning_text(source: dict[str, Any]) -> str:
    """The first of the three spellings of reasoning that says something."""
    for key in ("reasoning_content", "reasoning"):
        if isinstance(text := source.get(key), str) and text:
            return text
    return "".join([text for detail in details_of(source) if isinstance(text := detail_text(detail), str)])


def details_of(source: dict[str, Any]) -> list[dict[str, Any]]:
    """The reasoning_details of a message or delta that are objects."""
    found = source.get("reasoning_details")
    return [detail for detail in found if isinstance(detail, dict)] if isinstance(found, list) else []


def detail_text(detail: dict[str, Any]) -> str | None:
    """The words of one reasoning detail."""
    return string(detail.get("text")) or string(detail.get("summary"))


def image_part(raw: Any, at: Endpoint) -> Part:
    """One picture a model made: {type image_url, image_url {url}}."""
    inner = raw.get("image_url") if isinstance(raw, dict) else None
    url = inner.get("url") if isinstance(inner, dict) else None
    if not isinstance(url, str):
        return Opaque(NAME, "message.image", raw, at.origin)
    head, _, data = url.partition(",")
    if head.startswith("data:") and head.endswith(";base64"):
        try:
            return Image(base64.b64decode(data, validate=True), media_type=head[5:-7] or None)
        except ValueError:
            return Opaque(NAME, "message.image", raw, at.origin)
    return Image(url=url)


def audio_part(raw: Any, at: Endpoint) -> Part | None:
    """Spoken output; the empty shell some imitators send is nothing. A stream's data comes in pieces,
    each base64 of its own."""
    if not isinstance(raw, dict) or not any(raw.values()):
        return None
    data = raw.get("data") or ""
    pieces = data if isinstance(data, list) else [data]
    try:
        sound = b"".join([base64.b64decode(piece, validate=True) for piece in pieces])
    except (TypeError, ValueError):
        return Opaque(NAME, "message.audio", raw, at.origin)
    return Audio(
        sound or None,
        file_id=string(raw.get("id")) or None,
        transcript=string(raw.get("transcript")),
        origin=at.origin,
        extra=_rest(raw, {"id", "data", "transcript"}),
    )


def tool_call_of(raw: Any, place: int) -> ToolCall:
    """One call; ids that are missing are made from the position."""
    custom = raw.get("type") == "custom" or ("custom" in raw and "function" not in raw)
    kind: Literal["function", "custom"] = "custom" if custom else "function"
    name = raw[kind].get("name")
    if not isinstance(name, str) or not name:
        raise BadResponseError("the answer calls a tool without naming it")
    arguments = raw[kind].get("input" if custom else "arguments")
    extra = call_extra(raw, kind)
    wanted = string(raw.get("id")) or f"call_{place}"
    return ToolCall(wanted, name, arguments_text(arguments), kind, extra={NAME: extra} if extra else {})


def call_extra(raw: dict[str, Any], kind: str) -> dict[str, Any]:
    """Keys of a call without a neutral place, those of its inner object under its name."""
    found = {key: value for key, value in raw.items() if key not in _CALL}
    if (told := string(raw.get("type"))) and told not in ("function", "custom"):
        found["type"] = told
    inner = raw.get(kind)
    within = {key: value for key, value in inner.items() if key not in _INNER} if isinstance(inner, dict) else {}
    return {**found, kind: within} if within else found


def arguments_text(arguments: Any) -> str:
    """Arguments as JSON text: as the model wrote them, or an object spelled out; "" for none."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else msgspec.json.encode(arguments).decode()


class Ids:
    """Gives ids that are all different: a second of the same gets a number behind it."""

    __slots__ = ("_given",)

    def __init__(self) -> None:
        self._given: dict[str, int] = {}

    def take(self, wanted: str) -> str:
        """The id, or the next free one like it."""
        found, count = wanted, self._given.get(wanted, 1)
        while found in self._given:
            count += 1
            found = f"{wanted}_{count}"
        self._given[found] = 1
        self._given[wanted] = count
        return found


# ---- the whole answer -------------------------------------------------------------------------


def decode_response(reply: Reply, at: Endpoint) -> Response:
    """See `ClientSide.decode_response`."""
    plain = plain_response(reply)
    if plain is not None:
        return plain
    body = decode_object(reply.body)
    return guarded(lambda: _response(body, reply, at))


def _response(body: dict[str, Any], reply: Reply, at: Endpoint) -> Response:
    if not body.get("choices") and (failure := failure_in(body)):
        raise error_of(failure, 0, reply)
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BadResponseError(f"the answer has no choices: {snippet(reply.body)}")
    citations = citations_of(body.get("citations"))
    decoded = sorted([_choice(choice, at, citations) for choice in choices], key=lambda pair: pair[0])
    first = decoded[0][1]
    rest = {key: value for key, value in body.items() if key not in _TOP}
    for choice in choices:
        if beside := _beside(choice):
            rest[beside_key(integer(choice.get("index")) or 0)] = beside
    return Response(
        message=first.message,
        finish_reason=first.finish_reason,
        raw_finish_reason=first.raw_finish_reason,
        logprobs=first.logprobs,
        choices=tuple([choice for _, choice in decoded[1:]]),
        usage=usage_of(body.get("usage")),
        id=string(body.get("id")) or None,
        model=string(body.get("model")),
        created=number(body.get("created")),
        raw=reply.body,
        extra={NAME: rest} if rest else {},
    )


def beside_key(index: int) -> str:
    """The key in the response's extra for what a choice says beside its message."""
    return f"choice.{index}" if index else "choice"


def _beside(choice: dict[str, Any]) -> dict[str, Any]:
    """Keys of a choice and of its message that are shown but never sent back."""
    found = {key: value for key, value in choice.items() if key not in _CHOICE and value is not None}
    message = choice.get("message")
    shown = message.items() if isinstance(message, dict) else ()
    return {**found, **{key: value for key, value in shown if key in SHOWN_ONLY and value is not None}}


def _choice(raw: dict[str, Any], at: Endpoint, citations: tuple[Citation, ...]) -> tuple[int, Choice]:
    # A choice whose content a filter took away comes without a message.
    message = raw.get("message") or {}
    parts = message_parts(message, at, citations)
    reason = string(raw.get("finish_reason")) or None
    kinds = {type(part) for part in parts}
    extra = {key: value for key, value in message.items() if key not in _MESSAGE and key not in SHOWN_ONLY}
    extra = {key: value for key, value in extra.items() if value is not None}
    return integer(raw.get("index")) or 0, Choice(
        Message("assistant", tuple(parts), extra={NAME: extra} if extra else {}),
        finish_reason(reason, ToolCall in kinds, Refusal in kinds),
        reason,
        logprobs_of(raw.get("logprobs")) or None,
    )


def message_parts(message: dict[str, Any], at: Endpoint, citations: tuple[Citation, ...] = ()) -> list[Part]:
    """The parts of one assistant message: reasoning, words, refusal, media, calls, in that order."""
    parts: list[Part] = []
    thought = reasoning_text(message)
    details = details_of(message)
    if thought or details:
        extra = {NAME: {"reasoning_details": details}} if details else {}
        parts.append(Reasoning(thought, origin=at.origin, extra=extra))
    words = content_parts(message.get("content"), at)
    citations += citations_of(message.get("annotations"))
    if citations:
        last = next((i for i in reversed(range(len(words))) if isinstance(words[i], Text)), None)
        if last is None:
            words.append(Text("", citations))
        else:
            words[last] = msgspec.structs.replace(words[last], citations=citations)
    parts += words
    if isinstance(refusal := message.get("refusal"), str) and refusal:
        parts.append(Refusal(refusal))
    parts += [image_part(image, at) for image in message.get("images") or ()]
    if (sound := audio_part(message.get("audio"), at)) is not None:
        parts.append(sound)
    calls = [tool_call_of(raw, i) for i, raw in enumerate(message.get("tool_calls") or ())]
    if not calls and isinstance(legacy := message.get("function_call"), dict) and legacy.get("name"):
        calls = [tool_call_of({"function": legacy}, 0)]
    ids = Ids()
    return parts + [msgspec.structs.replace(call, id=ids.take(call.id)) for call in calls]


# ---- errors -----------------------------------------------------------------------------------


def decode_error(reply: Reply) -> PolyvoxError:
    """See `ClientSide.decode_error`; a body that is no JSON still gives the error its status means."""
    try:
        body = decode_json(reply.body)
    except BadResponseError:
        body = {"message": snippet(reply.body)}
    return error_of(body, reply.status, reply)


def failure_in(body: dict[str, Any]) -> dict[str, Any] | None:
    """What of a 200's body tells a failure, from wherever servers put it; None where nothing does."""
    if body.get("error") or body.get("object") == "error":
        return body
    groq = body.get("x_groq")
    return {"error": groq["error"]} if isinstance(groq, dict) and groq.get("error") else None


def error_of(body: Any, status: int, reply: Reply | None = None) -> PolyvoxError:
    """The error in any of the shapes in use. status 0 means the body came with a 200: then the code
    in the body counts, where it is a number."""
    if isinstance(body, list) and body:
        body = body[0]
    outer = body if isinstance(body, dict) else {}
    inner = outer.get("error")
    facts = inner if isinstance(inner, dict) else outer
    code = _word(facts.get("code")) or _word(outer.get("code"))
    message = inner if isinstance(inner, str) else string(facts.get("message")) or _detail(outer) or snippet(str(body))
    metadata = facts.get("metadata")
    if isinstance(metadata, dict) and isinstance(raw := metadata.get("raw"), str):
        message += f": {snippet(raw, 500)}"
    if not status:
        numbers = [_status(facts.get(key)) for key in ("status_code", "code", "status")]
        status = next((number for number in numbers if number), 0)
    return make_error(
        status,
        reply.headers if reply else {},
        code=code,
        type=string(facts.get("type")) or string(facts.get("status")),
        message=message,
        param=string(facts.get("param")),
    )


def _word(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _status(value: Any) -> int | None:
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3 else value
    return number if type(number) is int and 400 <= number < 600 else None


def _detail(body: dict[str, Any]) -> str | None:
    """FastAPI's validation errors: {detail: "..."} or {detail: [{loc, msg}]}."""
    detail = body.get("detail")
    if isinstance(detail, list):
        found = [f"{item.get('loc')}: {item.get('msg')}" for item in detail if isinstance(item, dict)]
        return "; ".join(found) or None
    return string(detail)
