"""How long a simulated provider takes: the wait before an answer, and the speed of its words. It draws from a
chance that is passed in and waits for nothing itself.
"""

from __future__ import annotations

import math
import random
import re
from typing import Literal

from msgspec import Struct

from polyvox.errors import InputError

_NUMBER = r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_FORMS = {
    "constant": re.compile(_NUMBER),
    "uniform": re.compile(rf"{_NUMBER}\.\.{_NUMBER}"),
    "lognormal": re.compile(rf"lognormal\({_NUMBER},\s*{_NUMBER}\)"),
    "exponential": re.compile(rf"exponential\({_NUMBER}\)"),
}
_MOST = 3600.0  # seconds that anybody waits for an answer
_HINT = "for example 0.2, 0.1..0.5, lognormal(0.4,0.5) or exponential(0.3), in seconds"


class Latency(Struct, frozen=True):
    """Seconds before the head of an answer: always `first`; from `first` to `second`; lognormal with the
    median `first` and the sigma `second`; or exponential with the mean `first`. Never more than an hour.
    """

    form: Literal["constant", "uniform", "lognormal", "exponential"] = "constant"
    first: float = 0.0
    second: float = 0.0

    def draw(self, rng: random.Random) -> float:
        """The seconds for one answer."""
        match self.form:
            case "constant":
                return self.first
            case "uniform":
                return rng.uniform(self.first, self.second)
            case "lognormal":
                return min(self.first * math.exp(rng.gauss(0.0, self.second)), _MOST)
            case "exponential":
                return min(rng.expovariate(1.0) * self.first, _MOST)


def latency_from(said: str | float) -> Latency:
    """A latency as it is written; InputError for anything else.

    >>> latency_from("0.1..0.5").second
    0.5
    """
    if isinstance(said, bool) or not isinstance(said, str | int | float):
        raise InputError(f"latency must be a number or a text, not {type(said).__name__}", param="latency", hint=_HINT)
    text = said if isinstance(said, str) else format(said, "f")
    for form, pattern in _FORMS.items():
        found = pattern.fullmatch(text.strip())
        if found is None:
            continue
        first, second = (*(float(number) for number in found.groups()), 0.0)[:2]
        if (
            first > _MOST
            or (form == "uniform" and not first <= second <= _MOST)
            or (form == "lognormal" and second > 5)
        ):
            break
        return Latency(form, first, second)  # type: ignore[arg-type]
    raise InputError(f"{said!r} is no latency", param="latency", hint=_HINT)
