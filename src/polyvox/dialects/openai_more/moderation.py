"""Whether texts and pictures harm (`/moderations`), as the inventor and its imitators say it. Pure: bytes and values;
it knows no provider and no model.

Wire facts: openai SDK 3.x types, mistralai SDK 3.x types, and a recorded answer. Option of the endpoint:
`moderations_path`.
"""

from __future__ import annotations

import base64
from typing import Any

from polyvox.dialects import Encoded, Endpoint, Reply, Wire, client_object, guarded, request_body, string
from polyvox.dialects.embedding import Losses, extra_of, own_keys, put_keys, reply_of
from polyvox.dialects.openai_chat.answer import decode_error
from polyvox.dialects.openai_more import BothSides
from polyvox.dialects.openai_more.shared import JSON, answer_in, number, path_of, usage_of, usage_said
from polyvox.dialects.shapes import each, field, mapping, missing, needed, one_of, text, texts
from polyvox.errors import InputError, PolyvoxError
from polyvox.types import Image, Loss
from polyvox.verdicts import ModerateRequest, Verdict, Verdicts

NAME = "openai.moderations"
_ASKED = frozenset({"model", "input"})
_ANSWERED = frozenset({"id", "model", "results", "usage"})
_VERDICT = frozenset({"flagged", "categories", "category_scores"})


class OpenAIModeration:
    """See `BothSides`; it has no state, one object serves every call."""

    name = NAME

    def encode(self, request: ModerateRequest, at: Endpoint) -> Encoded:
        """See `Operation`. Without a model the provider takes its own."""
        losses: Losses = []
        own = own_keys(request.extra, NAME, losses)
        if not request.texts and not request.images and not own.get("input"):
            raise InputError("there is nothing to judge", param="texts", hint="give at least one text")
        body: dict[str, Any] = {"model": request.model} if request.model else {}
        if request.images:
            parts = [{"type": "text", "text": said} for said in request.texts]
            body["input"] = [*parts, *[_image_said(image, place) for place, image in enumerate(request.images)]]
        else:
            body["input"] = list(request.texts)
        path = path_of(at, "moderations_path", "/moderations")
        return Encoded(Wire(path, request_body({**body, **own}), JSON), tuple(losses))

    def decode(self, reply: Reply, at: Endpoint) -> Verdicts:
        """See `Operation`."""
        body = answer_in(reply)
        return guarded(
            lambda: Verdicts(
                tuple([_verdict(row) for row in body["results"]]),
                model=string(body.get("model")) or None,
                id=string(body.get("id")) or None,
                usage=usage_of(body.get("usage")),
                raw=reply.body,
                extra=extra_of(NAME, body, _ANSWERED),
            )
        )

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """See `Operation`."""
        return decode_error(reply)

    def decode_request(self, wire: Wire, at: Endpoint) -> ModerateRequest:
        """See `BothSides`."""
        body = client_object(wire)
        given = body.get("input")
        said: tuple[str, ...] = ()
        images: tuple[Image, ...] = ()
        if given is None:
            raise missing("input")
        if isinstance(given, list) and given and isinstance(given[0], dict):
            parts = each(_part)(given, "input")
            said = tuple([part for part in parts if isinstance(part, str)])
            images = tuple([part for part in parts if isinstance(part, Image)])
        else:
            said = (given,) if isinstance(given, str) else texts(given, "input")
        model = field(body, "model", text)
        return ModerateRequest(model=model or "", texts=said, images=images, extra=extra_of(NAME, body, _ASKED))

    def encode_response(self, answer: Verdicts, asked: ModerateRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """See `BothSides`. Where nobody knows the model or an id, they are ""."""
        losses: Losses = []
        rows = [
            {
                "flagged": row.flagged,
                "categories": row.categories,
                "category_scores": row.scores,
                **row.extra.get(NAME, {}),
            }
            for row in answer.results
        ]
        body: dict[str, Any] = {"id": answer.id or "", "model": answer.model or "", "results": rows}
        if (usage := usage_said(answer.usage, "prompt_tokens", "completion_tokens")) is not None:
            body["usage"] = usage
        put_keys(own_keys(answer.extra, NAME, losses), body, NAME, losses)
        return reply_of(body), tuple(losses)


def _image_said(image: Image, place: int) -> dict[str, Any]:
    url = image.url
    if image.data is not None:
        url = f"data:{image.media_type or 'image/png'};base64,{base64.b64encode(image.data).decode('ascii')}"
    if url is None:
        raise InputError("a picture to judge needs its bytes or a URL", param=f"images[{place}]")
    return {"type": "image_url", "image_url": {"url": url}}


def _part(value: Any, where: str) -> str | Image:
    part = mapping(value, where)
    kind = needed(part, "type", one_of("text", "image_url"), where)
    if kind == "text":
        return needed(part, "text", text, where)
    link = needed(part, "image_url", mapping, where)
    return Image(url=needed(link, "url", text, f"{where}.image_url"))


def _verdict(row: dict[str, Any]) -> Verdict:
    """A verdict; where only categories are told, it is flagged when one of them is."""
    told = row.get("categories") or {}
    categories = {name: value for name, value in told.items() if isinstance(value, bool)}
    scores = {name: score for name, value in (row.get("category_scores") or {}).items()
              if (score := number(value)) is not None}  # fmt: skip
    flagged = row.get("flagged")
    if not isinstance(flagged, bool):
        if not categories:
            raise TypeError("a verdict says nothing")
        flagged = any(categories.values())
    return Verdict(flagged, categories, scores, extra=extra_of(NAME, row, _VERDICT))


MODERATE: BothSides[ModerateRequest, Verdicts] = OpenAIModeration()
