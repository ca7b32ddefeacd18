"""A whole answer and an error as a client of this dialect gets them, the mirror of `answer`; what a streamed one
needs of that stands here once. It makes up nothing: what is not known is left out, or said to be unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from polyvox.dialects import Endpoint, Reply, encode_json, integer
from polyvox.dialects.bound import own_keys
from polyvox.dialects.cohere.answer import MESSAGE, TOP, TYPES, finish_of
from polyvox.dialects.cohere.request import (
    ANSWERED,
    NAME,
    PLAN,
    Losses,
    Turn,
    citation_to_wire,
    message_of,
    new_turn,
    place_of_text,
    put,
    put_text,
    put_thinking,
)
from polyvox.dialects.errors_on_wire import headers_of, status_of
from polyvox.errors import BadResponseError, PolyvoxError, of_kind
from polyvox.types import (
    Audio,
    Citation,
    FinishReason,
    Loss,
    Message,
    Opaque,
    Part,
    Reasoning,
    Response,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)

# What encoding raises for what JSON cannot say.
UNWRITABLE = (TypeError, ValueError, RecursionError, msgspec.MsgspecError)

# Ends that are none: the kind of error that says so instead, and its words.
_FAILURES: dict[FinishReason, tuple[str, str]] = {
    "incomplete": ("stream_interrupted", "the answer ended before it was whole"),
    "cancelled": ("cancelled", "the call was cancelled before the answer was whole"),
}
# The reasons this dialect has words for; the others are said by their neutral names, which nobody takes for success.
_WORDS: dict[FinishReason, str] = {
    "stop": "COMPLETE", "length": "MAX_TOKENS", "tool_calls": "TOOL_CALL", "error": "ERROR",
    "content_filter": "ERROR_TOXIC", "context_overflow": "ERROR_LIMIT",
}  # fmt: skip
_UNCOUNTED = (
    "cache_write", "cache_write_by_ttl", "reasoning", "audio_input", "audio_output", "image_input", "server_tools",
    "cost",
)  # fmt: skip
_COUNTS = frozenset({"tokens", "billed_units", "cached_tokens"})


def encode_response(response: Response) -> tuple[Reply, tuple[Loss, ...]]:
    """See `ServerSide.encode_response`."""
    reason = response.finish_reason if response.complete else "incomplete"
    if (failure := failure_of(reason)) is not None:
        return encode_error(failure), (Loss("message", "an answer that is not whole is told as an error here"),)
    losses: Losses = []
    parts = response.message.parts
    body: dict[str, Any] = {"id": response.id or ""}
    who_lost(response.model, response.created, losses)
    body |= end_of(reason, response.raw_finish_reason, any(isinstance(part, ToolCall) for part in parts), losses)
    body["message"] = _message(response.message, losses)
    if (usage := usage_to_client(response.usage, losses)) is not None:
        body["usage"] = usage
    own = own_keys(response.extra, NAME, losses, "")
    if (logprobs := logprobs_to_client(response.logprobs, own, losses)) is not None:
        body["logprobs"] = logprobs
    put_keys(own, body, TOP, losses)
    if response.stop_sequence is not None:
        losses.append(stop_sequence_lost())
    if response.choices:
        losses.append(choices_lost())
    try:
        data = encode_json(body)
    except UNWRITABLE as error:
        raise BadResponseError(f"the answer cannot be written as JSON: {error}") from None
    return Reply(200, {"content-type": "application/json"}, data), tuple(losses)


def failure_of(reason: FinishReason | None) -> PolyvoxError | None:
    """The error that says that an answer with this reason is none; None for answers that came to an end, a failed
    one too, for which the protocol has a word."""
    failure = _FAILURES.get(reason) if reason else None
    return of_kind(*failure) if failure else None


def who_lost(model: str | None, created: float | None, losses: Losses) -> None:
    """Note what an answer has no place for: who gave it, and when."""
    if model is not None:
        losses.append(Loss("model", "answers do not tell their model here", "note"))
    if created is not None:
        losses.append(Loss("created", "answers do not tell their time here", "note"))


def end_of(reason: FinishReason | None, raw: str | None, has_calls: bool, losses: Losses) -> dict[str, str]:
    """The finish_reason: the raw one where it means the same here, nothing where nothing is known."""
    if raw and finish_of({"finish_reason": raw}, has_calls)[0] == reason:
        return {"finish_reason": raw}
    if reason is None:
        return {}
    word = _WORDS.get(reason, reason.upper())
    read = finish_of({"finish_reason": word}, has_calls)[0]
    if read != reason:
        why = f"{reason} is no reason to end here; {word!r} is said"
        losses.append(Loss("finish_reason", why, "note" if {reason, read} == {"stop", "tool_calls"} else "loss"))
    return {"finish_reason": word}


def usage_to_client(usage: Usage, losses: Losses) -> dict[str, Any] | None:
    """The counts, as they came where they came from this dialect; None where nobody counted."""
    said = dict(usage.raw) if usage.raw.keys() & _COUNTS else {}
    found = said.get("tokens")
    tokens = dict(found) if isinstance(found, dict) else {}
    for key, count in (("input_tokens", usage.input), ("output_tokens", usage.output)):
        if count is not None and integer(tokens.get(key)) != count:
            tokens[key] = count
    if tokens:
        said["tokens"] = tokens
    if usage.cache_read is not None and integer(said.get("cached_tokens")) != usage.cache_read:
        said["cached_tokens"] = usage.cache_read
    for field in _UNCOUNTED:
        if getattr(usage, field) not in (None, {}):
            losses.append(Loss(f"usage.{field}", "only what was read, cached and written is counted here", "note"))
    if usage.total is not None and usage.total != (usage.input or 0) + (usage.output or 0):
        losses.append(Loss("usage.total", "there is no sum here", "note"))
    if usage.source == "estimated":
        losses.append(Loss("usage.source", "the counts are not marked as estimated here", "note"))
    return said or None


def logprobs_to_client(logprobs: tuple[TokenLogprob, ...] | None, own: dict[str, Any], losses: Losses) -> Any:
    """Log-probabilities as they came from this dialect, which `own` keys hold; else what is known of them."""
    if (came := own.pop("logprobs", None)) is not None:
        return came
    if not logprobs:
        return None
    losses.append(Loss("logprobs", "the ids of the tokens are not known, and alternatives have no place"))
    return [{"text": one.token, "token_ids": [], "logprobs": [one.logprob]} for one in logprobs]


def put_keys(own: Mapping[str, Any], body: dict[str, Any], known: frozenset[str], losses: Losses) -> None:
    """Put keys without a neutral form beside those of an answer or an event. Never a key the answer itself speaks
    by: it could say another end, or an error.
    """
    for key, value in own.items():
        if key == "message" and isinstance(value, dict) and isinstance(body.get("message"), dict):
            message = body["message"]
            cited = value.get("citations")
            if isinstance(cited, list):
                message["citations"] = [*message.get("citations", ()), *cited]
            put_keys({name: said for name, said in value.items() if name != "citations"}, message, MESSAGE, losses)
        elif key not in body and key not in known:
            body[key] = value
        else:
            losses.append(Loss(f"extra.{NAME}.{key}", "the answer itself says it", "note"))


def choices_lost() -> Loss:
    """What becomes of all answers but the first."""
    return Loss("choices", "there is one answer a call here")


def stop_sequence_lost() -> Loss:
    """What becomes of the stop sequence that was met."""
    return Loss("stop_sequence", "which sequence ended the answer cannot be told here", "note")


# ---- the message ------------------------------------------------------------------------------


def _message(message: Message, losses: Losses) -> dict[str, Any]:
    turn = new_turn(Endpoint(), losses, WRITERS)
    places = []
    for number, part in enumerate(message.parts):
        put(part, turn, f"message.parts[{number}]")
        places.append(_place(part))
    if places != sorted(places):
        losses.append(Loss("message.parts", "the plan, content and calls stand in this order here", "note"))
    return message_of("assistant", turn, own_keys(message.extra, NAME, losses, "message."))


def _place(part: Part) -> int:
    if isinstance(part, ToolCall) or (isinstance(part, Opaque) and part.type == "tool_call"):
        return 2
    return 0 if is_plan(part) else 1


def is_plan(part: Part) -> bool:
    """Whether a part is the plan of the calls."""
    return isinstance(part, Reasoning) and part.extra.get(NAME, {}).get("type") == PLAN


def _text(part: Text, turn: Turn, where: str) -> None:
    put_text(part, turn, where)
    place, named = place_of_text(turn)
    for citation in part.citations:
        turn.citations.append(citation_said(citation, place, named, turn.losses, f"{where}.citations"))


def citation_said(citation: Citation, place: int, named: bool, losses: Losses, where: str) -> dict[str, Any]:
    """A citation for a client: as it came, where it came from this dialect, else with a source of what is known."""
    said = citation_to_wire(citation, place, named, losses, where)
    if NAME not in citation.extra:
        facts = {"url": citation.url, "title": citation.title}
        source = {"type": "document", "document": {key: value for key, value in facts.items() if value is not None}}
        said |= {"sources": [source], "type": "TEXT_CONTENT"}
        if citation.document is not None or citation.file_id is not None:
            losses.append(Loss(where, "which document or file is cited cannot be told here"))
    return said


def _reasoning(part: Reasoning, turn: Turn, where: str) -> None:
    proofs_lost(part, turn.losses, where)
    if part.text or (part.signature is None and part.encrypted is None):
        put_thinking(part, turn, where)


def proofs_lost(part: Reasoning, losses: Losses, where: str) -> None:
    """Note the proofs of a thought, which have no place here."""
    for field in ("signature", "encrypted"):
        if getattr(part, field) is not None:
            losses.append(Loss(f"{where}.{field}", "there are no proofs in this dialect"))


def _call(part: ToolCall, turn: Turn, where: str) -> None:
    """A call, whose arguments stay as they are: those of nothing too, as the model wrote them."""
    ANSWERED[ToolCall](part, turn, where)
    if part.kind == "function" and not part.arguments.strip():
        turn.calls[-1]["function"]["arguments"] = part.arguments


def _audio(part: Audio, turn: Turn, where: str) -> None:
    turn.content.append({"type": "text", "text": part.transcript or ""})
    turn.losses.append(Loss(f"{where}.audio", "sound cannot be told in this dialect; what is said in it is"))


WRITERS: dict[type[Part], Callable[..., None]] = {
    **ANSWERED, Text: _text, Reasoning: _reasoning, ToolCall: _call, Audio: _audio,
}  # fmt: skip


# ---- errors -----------------------------------------------------------------------------------


def encode_error(error: PolyvoxError) -> Reply:
    """See `ServerSide.encode_error`."""
    facts = {"id": error.request_id, "message": words_of_error(error), **error_facts(error)}
    body = {key: readable(value) for key, value in facts.items() if value is not None}
    return Reply(status_of(error), {"content-type": "application/json", **headers_of(error)}, encode_json(body))


def words_of_error(error: PolyvoxError) -> str:
    """What the error says; without words it would be taken for none."""
    return readable(error.message or f"the request failed ({error.kind})")


def error_facts(error: PolyvoxError) -> dict[str, str]:
    """Facts the server's own form has no place for; they stand beside, where its clients pass over them."""
    facts = {"error_type": TYPES.get(error.kind), "code": error.code, "param": error.param}
    return {key: readable(value) for key, value in facts.items() if value is not None}


def readable(text: str) -> str:
    """The text without what UTF-8 cannot say."""
    return text.encode("utf-8", "replace").decode()
