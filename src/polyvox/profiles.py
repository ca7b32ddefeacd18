"""Facts about families of models, and a request made to fit them, so that encoders never ask who is asked.
It reads `data/` and knows no wire: what a protocol cannot say is the dialect's business."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from polyvox import catalog
from polyvox.types import Image, Loss, Message, Part, Request, Text, Thinking, ToolResult

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""How much to reason, from nothing up."""

_LEFT_OUT = Text("[An image was left out: this model reads text only.]")


class Profile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a model's habits; an empty one changes nothing.

    Attributes:
        refuses: fields of `Request` it refuses whatever they hold; "images" are those in messages.
        refuses_reasoning: fields it refuses while it reasons.
        reasons: whether it reasons when nobody says; None is not known.
        efforts: the efforts it takes; () is not known.
        system_role: the role instructions must have, where neither "system" nor "developer" is taken.
        max_output: the most tokens it answers with.
        limits: the least and the most a field may be, or hold.
    """

    refuses: tuple[str, ...] = ()
    refuses_reasoning: tuple[str, ...] = ()
    reasons: bool | None = None
    efforts: tuple[str, ...] = ()
    system_role: Literal["user"] | None = None
    max_output: int | None = None
    limits: dict[str, tuple[float, float]] = {}


EMPTY = Profile()


@functools.cache
def _families() -> tuple[tuple[tuple[str, ...], dict[str, Any]], ...]:
    """The patterns and facts of every family, in the order of the file."""
    import tomllib

    rows = tomllib.loads((Path(__file__).parent / "data" / "profiles.toml").read_text(encoding="utf-8"))["family"]
    return tuple((tuple(row.pop("match")), {key: row[key] for key in row if key != "source"}) for row in rows)


def profile_of(name: str, info: catalog.Model | None = None) -> Profile:
    """What is known of the model with the full name "provider/model", and of its limit in the catalog.

    >>> profile_of("anthropic/claude-opus-5").refuses
    ('temperature', 'top_p', 'top_k')
    >>> profile_of("nobody/nothing") is EMPTY
    True
    """
    facts: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for patterns, said in _families():
        if any(fnmatchcase(name.lower(), pattern) for pattern in patterns):
            limits |= said.get("limits", {})
            facts |= said
    if info is not None and info.max_output is not None:
        facts["max_output"] = info.max_output
    return msgspec.convert({**facts, "limits": limits}, Profile) if facts else EMPTY


# ---- fit --------------------------------------------------------------------------------------


def fit(request: Request, profile: Profile) -> tuple[Request, tuple[Loss, ...]]:
    """The request as the model takes it, and what had to go or bend. What it takes stays as it is."""
    losses: list[Loss] = []
    for step in _STEPS:
        request = step(request, profile, losses)
    return request, tuple(losses)


def fitting(profile: Profile) -> Callable[[Request], tuple[Request, tuple[Loss, ...]]] | None:
    """`fit` for one profile; None where there is nothing it could change."""
    if profile == Profile(limits=profile.limits, reasons=profile.reasons):
        return None
    return lambda request: fit(request, profile)


def _reasoning(request: Request, profile: Profile) -> bool:
    """Whether the model is known to reason about this request."""
    asked = request.thinking
    if asked is UNSET:
        return profile.reasons is True
    if asked.enabled is False or asked.effort == "none" or asked.budget_tokens == 0:
        return False
    return (
        asked.enabled is True or asked.effort is not UNSET or asked.budget_tokens is not UNSET or bool(profile.reasons)
    )


def _refused(request: Request, profile: Profile, losses: list[Loss]) -> Request:
    """Leave out what is refused."""
    refused = dict.fromkeys(profile.refuses, "this model does not take it")
    if profile.refuses_reasoning and _reasoning(request, profile):
        refused |= dict.fromkeys(profile.refuses_reasoning, "this model does not take it while it reasons")
    dropped: dict[str, Any] = {}
    for field, why in refused.items():
        if field == "images":
            request = _without_images(request, losses)
        elif (value := getattr(request, field)) is not UNSET and value != ():
            losses.append(Loss(field, why))
            dropped[field] = () if field == "tools" else UNSET
    if "tools" in dropped:
        for field in ("tool_choice", "parallel_tool_calls"):
            if getattr(request, field) is not UNSET:
                losses.append(Loss(field, "there are no tools", "note"))
                dropped[field] = UNSET
    return replace(request, **dropped) if dropped else request


def _without_images(request: Request, losses: list[Loss]) -> Request:
    """Words in the place of each image, so that nobody is asked about nothing."""
    before = len(losses)
    messages = tuple(
        replace(message, parts=_worded(message.parts, f"messages[{number}].parts", losses))
        for number, message in enumerate(request.messages)
    )
    return replace(request, messages=messages) if len(losses) > before else request


def _worded(parts: Iterable[Part], where: str, losses: list[Loss]) -> tuple[Part, ...]:
    made: list[Part] = []
    for number, part in enumerate(parts):
        if isinstance(part, Image):
            losses.append(Loss(f"{where}[{number}]", "this model reads no images: words stand in its place"))
            part = _LEFT_OUT
        elif isinstance(part, ToolResult):
            part = replace(part, parts=_worded(part.parts, f"{where}[{number}].parts", losses))
        made.append(part)
    return tuple(made)


def _effort(request: Request, profile: Profile, losses: list[Loss]) -> Request:
    """The nearest effort that is taken, the lesser of two."""
    asked = request.thinking
    if not profile.efforts or not isinstance(asked, Thinking) or asked.effort not in EFFORTS:
        return request
    if asked.effort in profile.efforts:
        return request
    place = EFFORTS.index(str(asked.effort))
    nearest = min(profile.efforts, key=lambda effort: (abs(EFFORTS.index(effort) - place), EFFORTS.index(effort)))
    losses.append(Loss("thinking.effort", f"this model has no effort {asked.effort}: {nearest} is asked for"))
    return replace(request, thinking=replace(asked, effort=nearest))


def _limit(request: Request, profile: Profile, losses: list[Loss]) -> Request:
    """No more tokens than the model answers with."""
    most = profile.max_output
    if most is None or request.max_tokens is UNSET or request.max_tokens <= most:
        return request
    losses.append(Loss("max_tokens", f"this model answers with {most} tokens at most"))
    return replace(request, max_tokens=most)


def _role(request: Request, profile: Profile, losses: list[Loss]) -> Request:
    """Instructions in the role the model knows."""
    role = profile.system_role
    if role is None:
        return request
    messages: list[Message] = []
    for number, message in enumerate(request.messages):
        if message.role in ("system", "developer"):
            losses.append(Loss(f"messages[{number}].role", f"this model has no {message.role}: sent as the {role}'s"))
            message = replace(message, role=role)
        messages.append(message)
    return replace(request, messages=tuple(messages))


_STEPS: tuple[Callable[[Request, Profile, list[Loss]], Request], ...] = (_refused, _effort, _limit, _role)


# ---- what may be set --------------------------------------------------------------------------


class Parameter(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A field that may be set, and how. min and max bound a number, or the length of a list or table;
    choices are the only values; taken is False where the model refuses it."""

    name: str
    type: Literal["number", "integer", "boolean", "text", "list", "table"]
    min: float | None = None
    max: float | None = None
    choices: tuple[str, ...] = ()
    taken: bool = True


class Spec(Struct, frozen=True, kw_only=True):
    """What is known of a model, and what may be set when it is asked. known is False where no family and no
    row of the catalog tells of it; the parameters are then what every model has."""

    model: str
    known: bool
    info: catalog.Model | None
    profile: Profile
    parameters: tuple[Parameter, ...]

    def parameter(self, name: str) -> Parameter | None:
        """The parameter of this name, or None."""
        return next((one for one in self.parameters if one.name == name), None)


# What holds at every model: the fields of a request that are one value each.
_PARAMETERS = (
    Parameter(name="max_tokens", type="integer", min=0),
    Parameter(name="temperature", type="number", min=0),
    Parameter(name="top_p", type="number", min=0, max=1),
    Parameter(name="top_k", type="integer", min=0),
    Parameter(name="stop", type="list"),
    Parameter(name="seed", type="integer"),
    Parameter(name="n", type="integer", min=1),
    Parameter(name="presence_penalty", type="number"),
    Parameter(name="frequency_penalty", type="number"),
    Parameter(name="logit_bias", type="table"),
    Parameter(name="logprobs", type="boolean"),
    Parameter(name="top_logprobs", type="integer", min=0),
    Parameter(name="effort", type="text", choices=EFFORTS),
    Parameter(name="verbosity", type="text"),
    Parameter(name="parallel_tool_calls", type="boolean"),
    Parameter(name="service_tier", type="text"),
    Parameter(name="user", type="text"),
    Parameter(name="metadata", type="table"),
)


def spec(model: str) -> Spec:
    """What may be set when this model is asked; `model` is a name as `polyvox.ask` takes it.

    Raises UnknownModelError or UnknownProviderError for a name that means nobody.

    >>> spec("openai/gpt-4o").parameter("temperature").max
    2.0
    """
    target = catalog.load().resolve(model)
    profile = profile_of(target.known_as, target.info)
    return Spec(
        model=target.name,
        known=target.info is not None or profile is not EMPTY,
        info=target.info,
        profile=profile,
        parameters=tuple(_parameter(one, profile) for one in _PARAMETERS),
    )


def _parameter(one: Parameter, profile: Profile) -> Parameter:
    least, most = profile.limits.get(one.name, (one.min, one.max))
    if one.name == "max_tokens":
        most = profile.max_output
    choices = profile.efforts if one.name == "effort" and profile.efforts else one.choices
    return replace(one, min=least, max=most, choices=choices, taken=one.name not in profile.refuses)


# What else a call may say, which is no plain value.
_UNCHECKED = {*Request.__struct_fields__, "schema", "system"}
_SHAPES: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "number": ((int, float), "a number"),
    "integer": (int, "a whole number"),
    "boolean": (bool, "true or false"),
    "text": (str, "text"),
    "list": ((list, tuple), "a list"),
    "table": (dict, "a table"),
}


def validate(request: Request | Mapping[str, Any], model: str | None = None) -> list[str]:
    """What is wrong with a request, or with parameters by name, for a model: a sentence each, [] for nothing.

    model may be left out for a Request, which names one. Asks nobody; raises as `spec` does.

    >>> validate({"temperature": 3}, "openai/gpt-4o")
    ['temperature must be between 0 and 2, not 3']
    """
    if isinstance(request, Request):
        known = spec(model or request.model)
        given = {name: getattr(request, name) for name in Request.__struct_fields__}
        beside = tuple(field for field in known.profile.refuses if known.parameter(field) is None)
        losses = fit(request, Profile(refuses=beside))[1]
    else:
        known = spec(model or str(request.get("model") or ""))
        given = dict(request)
        losses = ()
    given = _plain({name: value for name, value in given.items() if value is not None and value is not UNSET})
    problems = [problem for name, value in given.items() for problem in _problems(known, name, value)]
    problems += [f"{loss.field}: {loss.why}" for loss in losses if loss.severity == "loss"]
    refused = _reasoning_refusals(known.profile, given)
    return problems + [f"{name} is not taken by {known.model} while it reasons" for name in refused]


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    """The parameters with what a `Thinking` says as an effort."""
    thinking = given.get("thinking")
    if thinking is False or (isinstance(thinking, Thinking) and thinking.enabled is False):
        return {"effort": "none", **given}
    if isinstance(thinking, Thinking) and thinking.effort is not UNSET:
        return {"effort": thinking.effort, **given}
    return given


def _reasoning_refusals(profile: Profile, given: Mapping[str, Any]) -> list[str]:
    effort = given.get("effort")
    reasoning = effort != "none" if isinstance(effort, str) else profile.reasons is True
    return [name for name in profile.refuses_reasoning if reasoning and name in given]


def _problems(known: Spec, name: str, value: Any) -> list[str]:
    one = known.parameter(name)
    if one is None and name in _UNCHECKED:
        return []
    if one is None:
        import difflib

        near = difflib.get_close_matches(name, [other.name for other in known.parameters], n=1)
        return [f"there is no parameter {name!r}" + (f": did you mean {near[0]}?" if near else "")]
    if not one.taken:
        return [f"{name} is not taken by {known.model}"]
    shape, words = _SHAPES[one.type]
    if name == "stop" and isinstance(value, str):
        value = (value,)
    if not isinstance(value, shape) or (isinstance(value, bool) and one.type != "boolean"):
        return [f"{name} must be {words}, not {_shown(value)}"]
    if one.choices and value not in one.choices:
        return [f"{name} must be one of {', '.join(one.choices)}, not {_shown(value)}"]
    return _out_of_range(one, value)


def _out_of_range(one: Parameter, value: Any) -> list[str]:
    counted = one.type in ("list", "table")
    size = len(value) if counted else value
    if one.type in ("boolean", "text") or (
        (one.min is None or size >= one.min) and (one.max is None or size <= one.max)
    ):
        return []
    least, most = (_number(bound) for bound in (one.min, one.max))
    if one.min is None or (counted and one.min == 0):
        bounds = f"at most {most}"
    elif one.max is None:
        bounds = f"at least {least}"
    else:
        bounds = least if one.min == one.max else f"between {least} and {most}"
    return [f"{one.name} must {'hold' if counted else 'be'} {bounds}, not {_shown(size)}"]


def _number(bound: float | None) -> str:
    """A bound as people write it: 2, not 2.0."""
    return str(int(bound)) if bound is not None and float(bound).is_integer() else str(bound)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
