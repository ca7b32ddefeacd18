"""Pictures made from words (`/images/generations`), and from words and pictures (`/images/edits`), as the inventor and
its imitators speak them. Pure: bytes and values; it knows no provider and no model.

Wire facts: openai SDK 3.x types, and recorded answers. Options of the endpoint: `images_path`, `edits_path`.
"""

from __future__ import annotations

import base64
from typing import Any

from msgspec import UNSET

from polyvox.dialects import Encoded, Endpoint, Reply, Wire, client_object, guarded, request_body, string
from polyvox.dialects.embedding import Losses, extra_of, own_keys, put_keys, reply_of
from polyvox.dialects.openai_chat.answer import decode_error
from polyvox.dialects.openai_more import BothSides
from polyvox.dialects.openai_more.shared import (
    JSON,
    Form,
    answer_in,
    fields_of,
    file_part,
    form_wire,
    number,
    path_of,
    refuse_stream,
    untold,
    usage_of,
    usage_said,
)
from polyvox.dialects.shapes import field, needed, text, whole, wrong
from polyvox.errors import BadResponseError, InputError, PolyvoxError
from polyvox.media import ImageRequest, Pictures
from polyvox.types import Image, Loss

NAME = "openai.images"
_FIELDS = {"n": "n", "size": "size", "quality": "quality", "format": "output_format", "background": "background",
           "delivery": "response_format", "user": "user"}  # fmt: skip
_DELIVERIES = {"data": "b64_json", "url": "url"}
_MEANT = {word: delivery for delivery, word in _DELIVERIES.items()}
_ASKED = frozenset({"model", "prompt", *_FIELDS.values()})
_ANSWERED = frozenset({"data", "created", "usage", "model"})
_PICTURE = frozenset({"b64_json", "url"})
# The first bytes of the kinds of picture there are: nothing else tells of what kind an answer's are.
_KINDS = ((0, b"\x89PNG\r\n\x1a\n", "image/png"), (0, b"\xff\xd8\xff", "image/jpeg"), (8, b"WEBP", "image/webp"),
          (0, b"GIF8", "image/gif"), (0, b"<svg", "image/svg+xml"))  # fmt: skip


class OpenAIImages:
    """See `BothSides`; it has no state, one object serves every call."""

    name = NAME

    def encode(self, request: ImageRequest, at: Endpoint) -> Encoded:
        """See `Operation`. With pictures in it, it goes as a form to where pictures are changed."""
        losses: Losses = []
        own = own_keys(request.extra, NAME, losses)
        refuse_stream(own)
        if not request.prompt.strip():
            raise InputError("there is nothing to draw", param="prompt", hint="say what the picture is to show")
        body: dict[str, Any] = {"model": request.model} if request.model else {}
        body.update({"prompt": request.prompt, **fields_of(request, _FIELDS, losses)})
        if request.delivery is not UNSET:
            body["response_format"] = _DELIVERIES[request.delivery]
        if not request.images:
            if request.mask is not None:
                raise InputError("a mask needs a picture to lie upon", param="mask", hint="pass images too")
            path = path_of(at, "images_path", "/images/generations")
            return Encoded(Wire(path, request_body({**body, **own}), JSON), tuple(losses))
        name = "image" if len(request.images) == 1 else "image[]"
        files = [
            file_part(name, image, f"images[{place}]", _named(image)) for place, image in enumerate(request.images)
        ]
        if request.mask is not None:
            files.append(file_part("mask", request.mask, "mask", _named(request.mask)))
        return Encoded(form_wire(path_of(at, "edits_path", "/images/edits"), {**body, **own}, files), tuple(losses))

    def decode(self, reply: Reply, at: Endpoint) -> Pictures:
        """See `Operation`."""
        body = answer_in(reply)
        return guarded(lambda: _pictures(body, reply.body))

    def decode_error(self, reply: Reply, at: Endpoint) -> PolyvoxError:
        """See `Operation`."""
        return decode_error(reply)

    def decode_request(self, wire: Wire, at: Endpoint) -> ImageRequest:
        """See `BothSides`."""
        if wire.headers.get("content-type", "").lower().startswith("multipart/"):
            return _from_form(Form(wire))
        body = client_object(wire)
        return ImageRequest(
            model=field(body, "model", text) or "",
            prompt=needed(body, "prompt", text),
            n=field(body, "n", whole),
            size=field(body, "size", text),
            quality=field(body, "quality", text),
            format=field(body, "output_format", text),
            background=field(body, "background", text),
            delivery=_delivery(field(body, "response_format", text)),
            user=field(body, "user", text),
            extra=extra_of(NAME, body, _ASKED),
        )

    def encode_response(self, answer: Pictures, asked: ImageRequest) -> tuple[Reply, tuple[Loss, ...]]:
        """See `BothSides`. A time must be told here: one that nobody knows is 0."""
        losses: Losses = []
        own = own_keys(answer.extra, NAME, losses)
        body: dict[str, Any] = {"created": int(answer.created or 0), "data": [_said(image) for image in answer.images]}
        if answer.model is not None:
            body["model"] = answer.model
        untold(answer, losses, "id")
        if answer.created is None:
            losses.append(Loss("created", "a time must be told here; 0 is for one that is not known", "note"))
        if (usage := usage_said(answer.usage, "input_tokens", "output_tokens")) is not None:
            body["usage"] = usage
        put_keys(own, body, NAME, losses)
        return reply_of(body), tuple(losses)


def _named(image: Image) -> str:
    """The name of a picture that has none: some servers take the kind of a file from its name."""
    return f"image.{(image.media_type or 'image/png').partition('/')[2].partition('+')[0]}"


def _delivery(said: Any) -> Any:
    if said is UNSET:
        return UNSET
    if said not in _MEANT:
        raise wrong("response_format", "must be one of url, b64_json")
    return _MEANT[said]


def _from_form(form: Form) -> ImageRequest:
    pictures = [
        Image(part.data, name=part.filename or None, media_type=part.media_type) for part in form.files("image")
    ]
    if not pictures:
        raise InputError("image is missing", param="image")
    masks = [Image(part.data, name=part.filename or None, media_type=part.media_type) for part in form.files("mask")]
    return ImageRequest(
        model=form.text("model") or "",
        prompt=form.needed("prompt"),
        images=tuple(pictures),
        mask=masks[0] if masks else None,
        n=form.whole("n"),
        size=form.text("size"),
        quality=form.text("quality"),
        format=form.text("output_format"),
        background=form.text("background"),
        delivery=_delivery(form.text("response_format")),
        user=form.text("user"),
        extra=form.rest(NAME),
    )


def _pictures(body: dict[str, Any], data: bytes) -> Pictures:
    if not isinstance(body["data"], list) or not body["data"]:
        raise TypeError("there is no picture in it")
    told = string(body.get("output_format"))
    return Pictures(
        tuple([_picture(row, told) for row in body["data"]]),
        created=number(body.get("created")),
        model=string(body.get("model")) or None,
        usage=usage_of(body.get("usage")),
        raw=data,
        extra=extra_of(NAME, body, _ANSWERED),
    )


def _picture(row: dict[str, Any], told: str | None) -> Image:
    extra = extra_of(NAME, row, _PICTURE)
    encoded = row.get("b64_json")
    if encoded:
        data = base64.b64decode(encoded, validate=True)
        return Image(data, media_type=_kind(data) or (f"image/{told}" if told else None), extra=extra)
    url = string(row.get("url"))
    if not url:
        raise TypeError("a picture has neither bytes nor a URL")
    return Image(url=url, extra=extra)


def _kind(data: bytes) -> str | None:
    return next((kind for at, mark, kind in _KINDS if data.startswith(mark, at)), None)


def _said(image: Image) -> dict[str, Any]:
    own = image.extra.get(NAME, {})
    if image.data is not None:
        return {"b64_json": base64.b64encode(image.data).decode("ascii"), **own}
    if image.url is None:
        raise BadResponseError("a picture of the answer has neither bytes nor a URL")
    return {"url": image.url, **own}


IMAGES: BothSides[ImageRequest, Pictures] = OpenAIImages()
