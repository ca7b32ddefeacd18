"""The vectors the demo model gives for texts: the same for the same text, near each other where texts share words,
and without any meaning. It knows no wire, no clock and no chance.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections import Counter

from msgspec import UNSET

from polyvox.errors import InputError, NotFoundError
from polyvox.transports.demo.brain import MODEL, tokens
from polyvox.types import Embeddings, EmbedRequest, Usage

DIMENSIONS = 256
MOST_DIMENSIONS = 4096
_WORD = re.compile(r"\w+")


def embed(request: EmbedRequest) -> Embeddings:
    """A vector of length 1 for each text, of `DIMENSIONS` numbers unless others are asked for, that single precision
    holds exactly. Tokens are estimated as words times 4/3; what the vectors are for changes nothing.

    Raises NotFoundError for a model other than `MODEL`, and InputError, with `param`, for what no vector can be made
    of: nothing, an empty text, what is no text, lengths out of range.

    >>> one, two, other = embed(EmbedRequest(model="demo", inputs=("a red fox", "the red fox", "tax law"))).vectors
    >>> near = sum(a * b for a, b in zip(one, two))
    >>> near > sum(a * b for a, b in zip(one, other))
    True
    """
    if request.model != MODEL:
        raise NotFoundError(f"the demo has one model, {MODEL!r}, and not {request.model!r}", param="model", status=404)
    if not request.inputs:
        raise InputError("there is no text here, and the demo embeds nothing else", param="input", code="invalid_value")
    if "" in request.inputs:
        raise InputError("an empty text has no vector", param="input", code="invalid_value")
    length = DIMENSIONS if request.dimensions is UNSET else request.dimensions
    if not 1 <= length <= MOST_DIMENSIONS:
        raise InputError(
            f"a vector has from 1 to {MOST_DIMENSIONS} numbers here, not {length}",
            param="dimensions", code="invalid_value",
        )  # fmt: skip
    asked = sum(map(tokens, request.inputs))
    return Embeddings(
        vectors=tuple([_vector(text, length) for text in request.inputs]),
        model=MODEL,
        usage=Usage(asked, total=asked, source="provider", raw={"estimated": "words * 4/3"}),
    )


def _vector(text: str, length: int) -> tuple[float, ...]:
    """Each word points somewhere, by its letters; a text points where its words do together."""
    counts = Counter(_WORD.findall(text.casefold())) or Counter([text])
    sums = [0] * length
    for word, count in counts.items():
        points = hashlib.shake_256(word.encode("utf-8", "surrogatepass")).digest(length)
        # Odd, so that no word and no even number of words comes to nothing by halves.
        sums = [total + count * (2 * point - 255) for total, point in zip(sums, points, strict=True)]
    size = math.sqrt(sum(total * total for total in sums))
    if not size:
        sums[0], size = 1, 1.0
    return struct.unpack(f"<{length}f", struct.pack(f"<{length}f", *[total / size for total in sums]))
