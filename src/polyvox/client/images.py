"""Pictures, for a client: `client.images`. Each is one call; where a picture comes as a URL, nobody fetches it here."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Unpack

from msgspec import UNSET

from polyvox import portal
from polyvox.client.given import count_or_unset, text_needed, text_or_unset
from polyvox.client.held import Handed, held
from polyvox.client.operations import Kind, SaidOfCall, operate
from polyvox.dialects.openai_more import operation
from polyvox.errors import InputError
from polyvox.media import ImageRequest, Pictures
from polyvox.types import Image, Media

if TYPE_CHECKING:
    from polyvox.client import AsyncClient

IMAGES: Kind[ImageRequest, Pictures] = Kind("images", partial(operation, "image"), "image_model")

Delivery = Literal["data", "url"]


class AsyncImages:
    """`AsyncClient.images`: pictures made and changed."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def generate(
        self,
        prompt: str,
        *,
        n: int | None = None,
        size: str | None = None,
        quality: str | None = None,
        format: str | None = None,
        background: str | None = None,
        delivery: Delivery | None = None,
        **said: Unpack[SaidOfCall],
    ) -> Pictures:
        """Pictures of what the prompt says; `pictures.images[0].data` has the bytes, or `.url` says where they are.

        Args:
            prompt: what they are to show.
            n: how many.
            size: as the provider writes it, such as "1024x1024".
            quality: as the provider writes it, such as "high".
            format: as the provider writes it, such as "png".
            background: as the provider writes it, such as "transparent".
            delivery: "data" for the bytes, "url" for a URL that lasts an hour or so; not every model has both.
            said: model, timeout (seconds in all), headers and extra_body (verbatim), strict.
        """
        fields = _fields(prompt, n, size, quality, format, background, delivery)
        return await self._made(fields, said)

    async def edit(
        self,
        prompt: str,
        images: Handed | Iterable[Handed],
        *,
        mask: Handed | None = None,
        n: int | None = None,
        size: str | None = None,
        quality: str | None = None,
        format: str | None = None,
        background: str | None = None,
        delivery: Delivery | None = None,
        **said: Unpack[SaidOfCall],
    ) -> Pictures:
        """Pictures made from pictures: one or several, as paths, bytes, open files or parts; mask is transparent
        where the first of them may change. For the rest see `generate`."""
        fields = _fields(prompt, n, size, quality, format, background, delivery)
        several = isinstance(images, Iterable) and not isinstance(
            images, str | bytes | bytearray | memoryview | Media
        ) and not hasattr(images, "read")  # fmt: skip
        given = list(images) if several else [images]
        if not given:
            raise InputError("there is no picture to change", param="images", hint="to make a new one: generate")
        fields["images"] = tuple([await held(each, Image, f"images[{place}]") for place, each in enumerate(given)])
        if mask is not None:
            fields["mask"] = await held(mask, Image, "mask")
        return await self._made(fields, said)

    async def _made(self, fields: dict[str, Any], said: SaidOfCall) -> Pictures:
        return await operate(
            self._client, IMAGES, said, lambda model, extra: ImageRequest(model=model, extra=extra, **fields)
        )


def _fields(prompt: Any, n: Any, *words: Any) -> dict[str, Any]:
    names = ("size", "quality", "format", "background", "delivery")
    said: dict[str, Any] = {name: text_or_unset(name, word) for name, word in zip(names, words, strict=True)}
    if said["delivery"] not in ("data", "url", UNSET):
        raise InputError('delivery must be "data" or "url"', param="delivery")
    return {"prompt": text_needed("prompt", prompt), "n": count_or_unset("n", n), **said}


class ImageCalls:
    """`Client.images`: the same from ordinary code; see `AsyncImages`."""

    def __init__(self, rooms: AsyncImages) -> None:
        self._async = rooms

    def generate(
        self,
        prompt: str,
        *,
        n: int | None = None,
        size: str | None = None,
        quality: str | None = None,
        format: str | None = None,
        background: str | None = None,
        delivery: Delivery | None = None,
        **said: Unpack[SaidOfCall],
    ) -> Pictures:
        """Pictures of what the prompt says; see `AsyncImages.generate`."""
        return portal.run(
            self._async.generate(
                prompt, n=n, size=size, quality=quality, format=format, background=background, delivery=delivery, **said
            )
        )

    def edit(
        self,
        prompt: str,
        images: Handed | Iterable[Handed],
        *,
        mask: Handed | None = None,
        n: int | None = None,
        size: str | None = None,
        quality: str | None = None,
        format: str | None = None,
        background: str | None = None,
        delivery: Delivery | None = None,
        **said: Unpack[SaidOfCall],
    ) -> Pictures:
        """Pictures made from pictures; see `AsyncImages.edit`."""
        return portal.run(
            self._async.edit(
                prompt, images, mask=mask, n=n, size=size, quality=quality, format=format, background=background,
                delivery=delivery, **said,
            )
        )  # fmt: skip
