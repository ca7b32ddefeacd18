"""Where a streamed answer broke off and goes on at another deployment: its events on one numbering, and the whole with
what had come before. The seam is told in the answer's losses; nothing is said twice for the sake of it."""

from __future__ import annotations

from msgspec.structs import replace

from polyvox.engine.leg import Leg
from polyvox.errors import PolyvoxError
from polyvox.types import Event, Loss, Message, Reasoning, Response, Started, Text


class Seam:
    """so_far is what came before the leg that is under way now."""

    __slots__ = ("_notes", "_offset", "so_far")

    def __init__(self, leg: Leg) -> None:
        self.so_far: Response = replace(leg.partial(), message=replace(leg.partial().message, parts=()))
        self._offset = 0
        self._notes: tuple[Loss, ...] = ()

    @staticmethod
    def possible(leg: Leg) -> bool:
        """Whether what came can be gone on with: words, and nothing that was begun and not finished."""
        parts = leg.collector.response().message.parts
        return all(isinstance(part, Text | Reasoning) for part in parts) and any(
            isinstance(part, Text) and part.text for part in parts
        )

    def open(self, leg: Leg, error: PolyvoxError) -> None:
        """A leg broke off: the next one goes on behind it."""
        self.so_far = self.partial(leg)
        self._offset += leg.collector.next_part
        why = f"{leg.attempt.deployment.name} broke off after these words ({error.kind}); another goes on from there"
        self._notes += (Loss("answer", why, "note"),)

    def joined(self, events: list[Event]) -> list[Event]:
        """The events of a leg as the caller sees them: one start, one numbering of parts."""
        return [self._shifted(event) for event in events if type(event) is not Started]

    def _shifted(self, event: Event) -> Event:
        part = getattr(event, "part", None)
        return event if part is None else replace(event, part=part + self._offset)

    def partial(self, leg: Leg) -> Response:
        """What has come in all."""
        came = leg.partial()
        return replace(came, message=self._message(came), losses=came.losses + self._notes)

    def whole(self, response: Response) -> Response:
        """The answer in all; usage and cost are those of the attempt that ended it."""
        return replace(response, message=self._message(response), losses=response.losses + self._notes)

    def _message(self, came: Response) -> Message:
        return replace(came.message, parts=self.so_far.message.parts + came.message.parts)
