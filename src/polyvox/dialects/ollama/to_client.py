"""A whole answer and an error as a client of this dialect gets them, the mirror of `answer`; what a streamed one
needs of that stands here once. It makes up nothing: what is not known is left out, or said to be unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from polyvox.dialects import Endpoint, Reply, encode_json, integer
from polyvox.dialects.bound import own_keys
from polyvox.dialects.errors_on_wire import headers_of, status_of
from polyvox.dialects.ollama.answer import MESSAGE, METRICS, TOP, TYPES, finish_of, image_of
from polyvox.dialects.ollama.request import NAME, PARTS, Losses, Turn, message_of, new_turn, put
from polyvox.errors import BadResponseError, PolyvoxError, of_kind
from polyvox.types import (
    Audio,
    FinishReason,
    Image,
    Loss,
    Message,
    Part,
    Reasoning,
    Refusal,
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
    "error": ("server", "the model failed before its answer was whole"),
    "incomplete": ("stream_interrupted", "the answer ended before it was whole"),
    "cancelled": ("cancelled", "the call was cancelled before the answer was whole"),
}
# The reasons this dialect has words for; the others are said by their neutral names, which nobody takes for success.
_WORDS = {"stop": "stop", "tool_calls": "stop", "length": "length", "context_overflow": "length"}
_UNCOUNTED = (
    "cache_read", "cache_write", "cache_write_by_ttl", "reasoning", "audio_input", "audio_output", "image_input",
    "server_tools", "cost",
)  # fmt: skip
_PLACE: dict[type[Part], int] = {Reasoning: 0, Text: 1, Refusal: 1, Audio: 1, Image: 2, ToolCall: 3}
# Keys of answers that may come from extra: log-probabilities that were none, and durations.
_BESIDE = frozenset({"logprobs", *[key for key in METRICS if key.endswith("_duration")]})
_UNKNOWN_TIME = "1970-01-01T00:00:00Z"


def encode_response(response: Response) -> tuple[Reply, tuple[Loss, ...]]:
    """See `ServerSide.encode_response`."""
    reason = response.finish_reason if response.complete else "incomplete"
    if (failure := failure_of(reason)) is not None:
        return encode_error(failure), (Loss("message", "an answer that is not whole is told as an error here"),)
    losses: Losses = []
    parts = response.message.parts
    body = head_of(response.id, response.model, response.created, losses)
    body |= {"message": message_to_client(response.message, losses), "done": True}
    body |= end_of(reason, response.raw_finish_reason, any(isinstance(part, ToolCall) for part in parts), losses)
    if response.logprobs:
        body["logprobs"] = logprobs_to_client(response.logprobs)
    body |= metrics_of(response.usage, losses)
    put_keys(own_keys(response.extra, NAME, losses, ""), body, losses)
    places = [_PLACE[type(part)] for part in parts if type(part) in _PLACE]
    if places != sorted(places):
        losses.append(Loss("message.parts", "thinking, words, pictures and calls stand in this order here", "note"))
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
    """The error that says that an answer with this reason is none; None for answers that are whole."""
    failure = _FAILURES.get(reason) if reason else None
    return of_kind(*failure) if failure else None


def head_of(id: str | None, model: str | None, created: float | None, losses: Losses) -> dict[str, Any]:
    """Who answered and when, with which every answer and every line of a stream begins."""
    if id is not None:
        losses.append(Loss("id", "answers have no ids here", "note"))
    time = _time_of(created)
    if time is None:
        losses.append(Loss("created", f"a time must be told here; {_UNKNOWN_TIME} is for none", "note"))
    return {"model": model or "", "created_at": time or _UNKNOWN_TIME}


def _time_of(created: float | None) -> str | None:
    """Epoch seconds as RFC 3339; None where there are none."""
    try:
        if created is not None and created > 0:
            return datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        pass
    return None


def end_of(reason: FinishReason | None, raw: str | None, has_calls: bool, losses: Losses) -> dict[str, str]:
    """The done_reason: the raw one where it means the same here, nothing where nothing is known."""
    if raw and finish_of({"done_reason": raw}, has_calls)[0] == reason:
        return {"done_reason": raw}
    if reason is None and not has_calls:
        return {}
    word = _WORDS.get(reason, reason) if reason is not None else "unknown"
    read = finish_of({"done_reason": word}, has_calls)[0]
    if read != reason:
        why = f"{reason} is no reason to end here; {word!r} is said"
        losses.append(Loss("finish_reason", why, "note" if {reason, read} == {"stop", "tool_calls"} else "loss"))
    return {"done_reason": word}


def metrics_of(usage: Usage, losses: Losses) -> dict[str, Any]:
    """The counts, and the durations where the usage came from this dialect; what nobody counted is left out."""
    counts = {key: usage.raw[key] for key in METRICS if key in usage.raw}
    for key, count in (("prompt_eval_count", usage.input), ("eval_count", usage.output)):
        if count is not None and integer(counts.get(key)) != count:
            counts[key] = count
    for field in _UNCOUNTED:
        if getattr(usage, field) not in (None, {}):
            losses.append(Loss(f"usage.{field}", "only the prompt and the answer as wholes are counted here", "note"))
    if usage.total is not None and usage.total != (usage.input or 0) + (usage.output or 0):
        losses.append(Loss("usage.total", "there is no sum here", "note"))
    if usage.source == "estimated":
        losses.append(Loss("usage.source", "the counts are not marked as estimated here", "note"))
    return counts


def logprobs_to_client(logprobs: tuple[TokenLogprob, ...]) -> list[dict[str, Any]]:
    """Log-probabilities as the wire has them."""
    return [_logprob(one) for one in logprobs]


def _logprob(one: TokenLogprob) -> dict[str, Any]:
    said: dict[str, Any] = {"token": one.token, "logprob": one.logprob}
    if one.bytes is not None:
        said["bytes"] = one.bytes
    if one.top:
        said["top_logprobs"] = logprobs_to_client(one.top)
    return said


def put_keys(own: Mapping[str, Any], body: dict[str, Any], losses: Losses) -> None:
    """Put keys without a neutral form beside those of an answer or a line. Never a key the answer itself speaks by:
    it could say another end, or an error.
    """
    for key, value in own.items():
        lost = []
        if key == "message" and isinstance(value, dict):
            new = {name: said for name, said in value.items() if name not in MESSAGE and name not in body["message"]}
            lost = [f"message.{name}" for name in value if name not in new]
            body["message"] = {**body["message"], **new}
        elif key not in body and (key not in TOP or key in _BESIDE):
            body[key] = value
        else:
            lost = [key]
        losses += [Loss(f"extra.{NAME}.{name}", "the answer itself says it", "note") for name in lost]


def choices_lost() -> Loss:
    """What becomes of all answers but the first."""
    return Loss("choices", "there is one answer a call here")


def stop_sequence_lost() -> Loss:
    """What becomes of the stop sequence that was met."""
    return Loss("stop_sequence", "which sequence ended the answer cannot be told here", "note")


# ---- the message ------------------------------------------------------------------------------


def message_to_client(message: Message, losses: Losses, first: int = 0) -> dict[str, Any]:
    """The message of an answer, or of one line of it; `first` is the number of its first part."""
    turn = new_turn(Endpoint(), losses, _ANSWERED)
    for number, part in enumerate(message.parts, first):
        put(part, turn, f"message.parts[{number}]")
    return message_of(message, turn, "message")


def _text(part: Text, turn: Turn, where: str) -> None:
    turn.words.append(part.text)
    if part.citations:
        turn.losses.append(Loss(f"{where}.citations", "sources cannot be told in this dialect"))
    if part.signature is not None:
        turn.losses.append(Loss(f"{where}.signature", "there are no proofs in this dialect"))


def _reasoning(part: Reasoning, turn: Turn, where: str) -> None:
    if part.text:
        turn.thoughts.append(part.text)
    for field in ("signature", "encrypted"):
        if getattr(part, field) is not None:
            turn.losses.append(Loss(f"{where}.{field}", "there are no proofs in this dialect"))


def _image(part: Image, turn: Turn, where: str) -> None:
    PARTS[Image](part, turn, where)
    if part.data is not None and part.media_type not in (None, image_of(part.data).media_type):
        turn.losses.append(Loss(f"{where}.media_type", "the type of a picture cannot be told here", "note"))


def _audio(part: Audio, turn: Turn, where: str) -> None:
    turn.words.append(part.transcript or "")
    turn.losses.append(Loss(f"{where}.audio", "sound cannot be told in this dialect; what is said in it is"))


_ANSWERED: dict[type[Part], Callable[..., None]] = {
    **PARTS, Text: _text, Reasoning: _reasoning, Image: _image, Audio: _audio,
}  # fmt: skip


# ---- errors -----------------------------------------------------------------------------------


def encode_error(error: PolyvoxError) -> Reply:
    """See `ServerSide.encode_error`."""
    return Reply(
        status_of(error), {"content-type": "application/json", **headers_of(error)}, encode_json(error_body(error))
    )


def error_body(error: PolyvoxError) -> dict[str, Any]:
    """The error in the server's own form; facts it has no place for stand beside, where its clients pass over them."""
    facts = {
        # Without words it would be taken for no error at all.
        "error": error.message or f"the request failed ({error.kind})",
        "type": TYPES.get(error.kind),
        "code": error.code,
        "param": error.param,
    }
    return {key: value.encode("utf-8", "replace").decode() for key, value in facts.items() if value is not None}
