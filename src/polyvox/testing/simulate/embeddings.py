"""What a simulated provider answers when texts are to be embedded: the demo model's vectors, in every dialect that
has embeddings. Nothing is sent here.
"""

from __future__ import annotations

from msgspec.structs import replace

from polyvox.dialects import Embeds, Endpoint, Peek, Wire, embeds
from polyvox.errors import InputError
from polyvox.testing.simulate.answers import Answer, check_model
from polyvox.transports.demo.brain import MODEL
from polyvox.transports.demo.vectors import embed
from polyvox.transports.replay import Chunk


def peek_embeddings(name: str, wire: Wire) -> Peek:
    """What a request for vectors says of itself; one that says nothing is refused later, in its turn."""
    try:
        return Peek(_room(name).decode_request(wire, Endpoint()).model)
    except InputError:
        return Peek()


def embedded(name: str, wire: Wire, models: tuple[str, ...] | None, *, strict: bool) -> Answer:
    """The vectors that are asked for in the dialect of this name; models are the names that are known, None for any.
    strict refuses more texts than the dialect's inventor takes. Raises errors that the dialect can say."""
    room, at = _room(name), Endpoint(origin=f"{name}/simulated")
    request = room.decode_request(wire, at)
    check_model(request.model, models)
    most = room.most(at).inputs
    if strict and most is not None and len(request.inputs) > most:
        raise InputError(
            f"at most {most} texts can be embedded in one request, and these are {len(request.inputs)}",
            param="input", code="invalid_value",
        )  # fmt: skip
    found = replace(embed(replace(request, model=MODEL)), model=request.model)
    reply, losses = room.encode_response(found, request)
    # Nothing comes out but vectors, and everybody knows that.
    usage = replace(found.usage, output=0)
    return Answer(reply.status, reply.headers, (Chunk(reply.body),), usage=usage, losses=losses)


def _room(name: str) -> Embeds:
    room = embeds(name)
    assert room is not None  # the routes name no others
    return room
