"""A whole response, and an error, for a client of the Responses protocol. What a streamed answer says in the same
words stands here once. An answer that did not come to its end is an error here, never half a success."""

from __future__ import annotations

from collections.abc import Collection

from polyvox.dialects import SHAPE_ERRORS, Endpoint, Peek, Reply, encode_json
from polyvox.dialects.openai_chat.to_client import encode_error, logprobs_said
from polyvox.dialects.openai_responses.answer import usage_of
from polyvox.dialects.openai_responses.facts import (
    CACHE_TTLS,
    DEFAULTS,
    IN_MESSAGE,
    INCOMPLETE,
    NAME,
    TOP,
    finish_of,
)
from polyvox.dialects.openai_responses.items import Json, Scope, call_said, picture_said, text_said, thought_said
from polyvox.dialects.scope import Answering
from polyvox.errors import BadResponseError, PolyvoxError, of_kind
from polyvox.types import (
    Extra,
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

UNWRITABLE = (*SHAPE_ERRORS, OverflowError)  # what encoding raises for values that no JSON can say
_HEADERS = {"content-type": "application/json"}
_PREFIX = "resp_"


class Saying(Answering, Scope):
    """What writing one answer carries along."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Endpoint())


def encode_response(response: Response, asked: Peek) -> tuple[Reply, tuple[Loss, ...]]:
    """See `ServerSide.encode_response`. An answer that failed is an error, whatever had arrived of it."""
    out = Saying()
    ended = response.finish_reason
    failure = failure_of(ended, response.raw_finish_reason)
    if failure is not None:
        failure.request_id = response.request_id
        out.lose("message", "an answer that did not come to its end is told as an error")
        return encode_error(failure), tuple(out.losses)
    try:
        data = encode_json(_body(response, asked, out))
    except UNWRITABLE as error:
        raise BadResponseError(f"the answer cannot be written as JSON: {error}") from None
    headers = _HEADERS if response.request_id is None else {**_HEADERS, "x-request-id": response.request_id}
    return Reply(200, headers, data), tuple(out.losses)


def _body(response: Response, asked: Peek, out: Saying) -> Json:
    if response.stop_sequence is not None:
        out.lose("stop_sequence", "it is not told which sequence stopped it", "note")
    if response.choices:
        out.lose("choices", "one answer is told, not several")
    if response.message.name is not None:
        out.lose("message.name", "speakers have no name", "note")
    if out.own(response.message.extra, "message"):
        out.lose(f"message.extra.{NAME}", "keys of a message go along with its parts here", "note")
    kinds = {type(part) for part in response.message.parts}
    ended = end_said(response.finish_reason, response.raw_finish_reason, kinds, out)
    head = head_said(response.id, response.model, response.created, asked, out)
    head["output"] = _output(response.message, response.logprobs, head["id"], out)
    return {**head, **ended, "usage": usage_said(response.usage, out), **DEFAULTS, **own_keys(response.extra, out)}


def _output(message: Message, tokens: tuple[TokenLogprob, ...] | None, answer_id: str, out: Saying) -> list[Json]:
    """The items of an answer: words that belong together in one message, everything else on its own."""
    found: list[Json] = []
    content: list[Json] | None = None  # of the message that the next words may belong to, and its keys
    keys: Json = {}
    for place, part in enumerate(message.parts):
        where = f"message.parts[{place}]"
        if not is_content(part):
            item = item_said(part, answer_id, len(found), where, out)
            if item is not None:
                content = None
                found.append(item)
            continue
        piece, told = piece_said(part, where, out)
        if content is None or (told is not None and told != keys):
            content, keys = [], told or {}
            found.append({**message_said(keys, answer_id, len(found)), "content": content})
        content.append(piece)
        if tokens and piece.get("type") == "output_text":
            piece["logprobs"], tokens = logprobs_said(tokens)["content"], None
    if tokens:
        out.lose("logprobs", "log-probabilities are told beside words alone")
    return found


# ---- what a whole and a streamed answer share -------------------------------------------------


def head_said(told: str | None, model: str | None, created: float | None, asked: Peek, out: Saying) -> Json:
    """A response's first keys: who answers. An id gets this protocol's prefix, and a placeholder stands for none."""
    if model is None:
        out.lose("model", "nobody said which model answered: the one asked for is named", "note")
    name = told if told is not None and told.startswith(_PREFIX) else _PREFIX + (told or "0")
    time = created if created is not None and 0 <= created < 2**53 else 0
    when = int(time) if time == int(time) else time
    return {"id": name, "object": "response", "created_at": when, "model": model or asked.model or ""}


def own_keys(extra: Extra, out: Saying) -> Json:
    """The keys of a response that are this dialect's own, but for those with a place of their own."""
    return {key: value for key, value in out.own(extra, "").items() if key not in TOP}


def made_id(prefix: str, answer_id: str, place: int) -> str:
    """The id of an item that has none: told from the response's, so that it stays the same."""
    return f"{prefix}_{answer_id.removeprefix(_PREFIX)}_{place}"


def message_said(keys: Json, answer_id: str, place: int) -> Json:
    """A message, but for its content. `keys` are what it came with, and count."""
    return {
        "type": "message",
        "id": made_id("msg", answer_id, place),
        "status": "completed",
        "role": "assistant",
        **keys,
    }


def is_content(part: Part) -> bool:
    """Whether a part stands in the content of a message, and is no item."""
    if isinstance(part, Opaque):
        return part.dialect == NAME and part.type.startswith(IN_MESSAGE) and isinstance(part.raw, dict)
    return isinstance(part, Text | Refusal)


def piece_said(part: Part, where: str, out: Saying) -> tuple[Json, Json | None]:
    """A piece of content, and the keys of the message it came in; None where it does not tell them."""
    if isinstance(part, Opaque):
        return part.raw, None
    assert isinstance(part, Text | Refusal)
    own = dict(out.own(part.extra, where))
    keys = own.pop("item", None)
    keys = keys if isinstance(keys, dict) else {}
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text, **own}, keys
    return {**text_said(part, where, out), "logprobs": [], **own}, keys


def item_said(part: Part, answer_id: str, place: int, where: str, out: Saying) -> Json | None:
    """A part that is an item of its own; None, with a loss, for one that has no place in an answer."""
    match part:
        case ToolCall():
            if part.signature is not None:
                out.lose(f"{where}.signature", f"calls carry no proof here; bound to {part.origin}")
            prefix = "fc" if part.kind == "function" else "ctc"
            told = {"id": made_id(prefix, answer_id, place), "status": "completed"}
            return {**call_said(part), **told, **out.own(part.extra, where)}
        case Reasoning():
            return _reasoning(part, answer_id, place, where, out)
        case Opaque() if part.dialect == NAME and isinstance(part.raw, dict):
            return part.raw
        case Image(data=bytes(data)) if data:
            if part.name is not None:
                out.lose(f"{where}.name", "pictures have no name here", "note")
            own = out.own(part.extra, where)
            if own.get("type") == "image_generation_call":
                return picture_said(part)
            told = {"id": made_id("ig", answer_id, place), "status": "completed"}
            form = (part.media_type or "image/png").rpartition("/")[2]
            picture = Image(part.data, extra={NAME: {"type": "image_generation_call", **told, "output_format": form}})
            return picture_said(picture)
    out.lose(f"{where}.{part.__struct_config__.tag}", "an answer here cannot hold it")
    return None


def _reasoning(part: Reasoning, answer_id: str, place: int, where: str, out: Saying) -> Json | None:
    own = out.own(part.extra, where)
    encrypted = proof_said(part.signature, part.encrypted, part.extra, where, out)
    if not (own or part.text or encrypted):
        return None
    thought = Reasoning(part.text, encrypted=encrypted)
    return thought_said(thought, {"id": made_id("rs", answer_id, place), **own})


def proof_said(signature: str | None, encrypted: str | None, extra: Extra, where: str, out: Saying) -> str | None:
    """What proves a thought, as far as this protocol can carry it: only what is encrypted for it."""
    if signature is not None or (encrypted is not None and extra and NAME not in extra):
        out.lose(f"{where}.reasoning", "its proof is another protocol's, so it cannot go back")
        return None
    return encrypted


# ---- how it ended -----------------------------------------------------------------------------

_NO_END: dict[FinishReason | None, tuple[str, str]] = {
    "error": ("server", "the model failed before its answer was whole"),
    "incomplete": ("stream_interrupted", "the answer broke off before its end"),
    "cancelled": ("cancelled", "the call was cancelled before the answer was whole"),
    None: ("bad_response", "the answer does not say that it came to its end"),
}
_NEAREST = {"context_overflow", "pause", "compaction"}
_WHOLE = {"stop", "tool_calls", "refusal"}
_REASONS = {neutral: raw for raw, neutral in INCOMPLETE.items()}


def failure_of(reason: FinishReason | None, raw: str | None) -> PolyvoxError | None:
    """The error that an answer which ended for this reason is; None for one that came to its end, and for one whose
    status says for itself that it did not."""
    if reason not in _NO_END or (raw != "failed" and _is_status(reason, raw)):
        return None
    kind, message = _NO_END[reason]
    return of_kind(kind, message, sent="yes")


def _is_status(reason: FinishReason | None, raw: str | None) -> bool:
    """Whether the raw reason is a status of this protocol that means the same."""
    return raw is not None and raw != "incomplete" and finish_of(raw, None, False, False) == reason != "unknown"


def end_said(reason: FinishReason | None, raw: str | None, kinds: Collection[type[Part]], out: Saying) -> Json:
    """Status, error and details of a response that ended for this reason. Why a whole one ended is told by the
    `kinds` of its parts alone."""
    status, why = "incomplete", None
    shown = finish_of("completed", None, ToolCall in kinds, Refusal in kinds)
    if reason == "refusal" and shown != "refusal":
        out.lose("finish_reason", "a refusal without words is told as content_filter", "note")
        why = "content_filter"
    elif reason in _WHOLE:
        status = "completed"
        if reason != shown:
            out.lose("finish_reason", f"an answer of these parts is told to have ended for {shown!r}", "note")
    elif _is_status(reason, raw):
        status = str(raw)
    elif reason == "unknown":
        # Another protocol's word may be one of ours, and would mean what nobody said.
        told = raw if raw not in INCOMPLETE else None
        if told is None:
            out.lose("finish_reason", "nobody knows why it ended: an incomplete response is told", "note")
        why = None if told == "incomplete" else told or "unknown"
    elif reason in _NEAREST:
        out.lose("finish_reason", f"there is no reason {reason!r} here: max_output_tokens is said")
        why = "max_output_tokens"
    else:
        why = _REASONS[reason]  # type: ignore[index]  # what has no end was told as an error
    return {"status": status, "error": None, "incomplete_details": None if why is None else {"reason": why}}


# ---- usage ------------------------------------------------------------------------------------


def usage_said(usage: Usage, out: Saying) -> Json | None:
    """The usage object; None where nothing is known. What this dialect told goes on as it was told; a number that
    nobody said but the protocol demands is 0, with a note."""
    if usage.raw and usage_of(usage.raw) == usage:
        return usage.raw
    if usage.input is None and usage.output is None and usage.total is None:
        return None
    for field in ("input", "output", "cache_read", "cache_write", "reasoning"):
        if getattr(usage, field) is None:
            out.lose(f"usage.{field}", "nobody counted, and a number is demanded: 0 is said", "note")
    if usage.source == "estimated":
        out.lose("usage.source", "estimated counts are told like counted ones", "note")
    if usage.server_tools:
        out.lose("usage.server_tools", "runs of the server's tools are not counted here", "note")
    asked, answered = usage.input or 0, usage.output or 0
    read: Json = {"cached_tokens": usage.cache_read or 0, "cache_write_tokens": usage.cache_write or 0}
    written: Json = {"reasoning_tokens": usage.reasoning or 0}
    for counts, key, count in (
        (read, "audio_tokens", usage.audio_input),
        (read, "image_tokens", usage.image_input),
        (written, "audio_tokens", usage.audio_output),
    ):
        if count is not None:
            counts[key] = count
    by_ttl = usage.cache_write_by_ttl
    if by_ttl.keys() <= set(CACHE_TTLS) and by_ttl:
        read["cache_write_tokens_details"] = {f"ttl_{ttl}_tokens": by_ttl.get(ttl, 0) for ttl in CACHE_TTLS}
    elif by_ttl:
        out.lose("usage.cache_write_by_ttl", "cache writes are told in one sum", "note")
    said: Json = {
        "input_tokens": asked,
        "input_tokens_details": read,
        "output_tokens": answered,
        "output_tokens_details": written,
        "total_tokens": asked + answered if usage.total is None else usage.total,
    }
    return said if usage.cost is None else {**said, "cost": float(usage.cost)}
