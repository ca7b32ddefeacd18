"""What a model is able to and what may be set, as the document on the LLM service prints it; and whether a
configuration keeps to it. It asks nobody and knows no model by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field

from polyvox.compat.errors import named
from polyvox.compat.llm_service.models.llm.checked import Checked, Number, Whole
from polyvox.compat.llm_service.models.llm.config import LLMModelSpec, Named, Provider
from polyvox.errors import InputError

_FROZEN = ConfigDict(frozen=True)

# ---- what a model is able to ------------------------------------------------------------------

_FLAG = "supports_"
# The catalog's words, where they are not those of the flags.
_WORDS = {"tools": "function_calling", "schema": "structured_output"}
_CATALOG_WORDS = {ours: word for word, ours in _WORDS.items()}


class ModelCapabilities(Checked):
    """What a model is able to: a flag each, False unless said, or the set of their names. Abilities that have no flag
    stand in `others`."""

    model_config = _FROZEN

    supports_streaming: bool = False
    supports_vision: bool = False
    supports_reasoning: bool = False
    supports_text_config: bool = False
    supports_file_search: bool = False
    supports_function_calling: bool = False
    supports_structured_output: bool = False
    supports_audio: bool = False
    others: tuple[str, ...] = ()

    @classmethod
    def from_names(cls, names: Iterable[str]) -> Self:
        """Those of these names; the catalog's words, like "tools", are understood.

        >>> ModelCapabilities.from_names(["vision", "tools"]).supports_function_calling
        True
        """
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise named(InputError("the names are a list", hint='such as ["vision", "tools"]', param="names"))
        known = dict.fromkeys(_ability(name) for name in names)
        flags: dict[str, Any] = {f"{_FLAG}{name}": True for name in known if f"{_FLAG}{name}" in cls.model_fields}
        return cls(**flags, others=tuple([name for name in known if f"{_FLAG}{name}" not in cls.model_fields]))

    @property
    def names(self) -> frozenset[str]:
        """The names of what it is able to, without "supports_"."""
        flags = [name for name in type(self).model_fields if name.startswith(_FLAG) and getattr(self, name)]
        return frozenset([*[name.removeprefix(_FLAG) for name in flags], *self.others])

    @property
    def words(self) -> tuple[str, ...]:
        """The same in the catalog's words, in the order of the alphabet."""
        return tuple(sorted(_CATALOG_WORDS.get(name, name) for name in self.names))

    def supports(self, name: str) -> bool:
        """Whether it is able to something, by a flag's name with or without "supports_", or the catalog's word."""
        return _ability(name) in self.names


def _ability(name: str) -> str:
    if not isinstance(name, str):
        raise named(
            InputError(
                f"what a model is able to is named by text, not {type(name).__name__}",
                hint='such as "vision"',
                param="feature",
            )
        )
    name = name.strip().lower().removeprefix(_FLAG)
    return _WORDS.get(name, name)


# ---- what may be set --------------------------------------------------------------------------

Kind = Literal["float", "int", "str", "bool", "enum"]
_SHAPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "float": ((int, float), "a number"),
    "int": (int, "a whole number"),
    "str": (str, "text"),
    "bool": (bool, "true or false"),
    "enum": (object, "one of its values"),
}


class ParameterSpec(Checked):
    """What a parameter may be.

    Attributes:
        name: as configurations say it.
        type: "float", which takes whole numbers too, "int", "str", "bool" or "enum", one of `allowed_values`. True is
            no number.
        min_value, max_value: the least and the most it may be, both included; None is no bound.
        required: whether a configuration must say it.
        default: what holds where it is not said; it is never sent by itself.
        allowed_values: the only values, or None for any.
        description: what it is for.
        supported: False where the model is known to refuse it.
    """

    model_config = _FROZEN

    name: Named
    type: Kind
    min_value: Whole | Number | None = None
    max_value: Whole | Number | None = None
    required: bool = False
    default: Any = None
    allowed_values: list[Any] | None = None
    description: str = ""
    supported: bool = True

    @property
    def allowed(self) -> str:
        """What it may be, in words: "between 0.0 and 1.0"."""
        if self.allowed_values is not None:
            return f"one of {', '.join(map(str, self.allowed_values))}"
        least, most = self.min_value, self.max_value
        if least is not None and most is not None:
            return f"between {least} and {most}"
        if least is not None or most is not None:
            return f"at least {least}" if most is None else f"at most {most}"
        return _SHAPES[self.type][1]

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, in a sentence with the value and what is allowed; None for nothing."""
        value = value.value if isinstance(value, Enum) else value
        shape, words = _SHAPES[self.type]
        if not isinstance(value, shape) or (isinstance(value, bool) and self.type not in ("bool", "enum")):
            range_too = "" if self.allowed == words else f", {self.allowed}"
            return f"{self.name} must be {words}{range_too}, not {_shown(value)}"
        choices = self.allowed_values
        if choices is not None and not any(type(one) is type(value) and one == value for one in choices):
            return f"{self.name} must be {self.allowed}, not {_shown(value)}"
        if self.type in ("float", "int") and not self._within(value):
            return f"{self.name} must be {self.allowed}, not {_shown(value)}"
        return None

    def _within(self, value: Any) -> bool:
        return bool(
            math.isfinite(value)
            and (self.min_value is None or value >= self.min_value)
            and (self.max_value is None or value <= self.max_value)
        )

    def own_problems(self) -> Iterator[str]:
        """What is wrong with the specification itself."""
        bounds = (self.min_value, self.max_value)
        if self.type not in ("float", "int") and bounds != (None, None):
            yield f"{self.name} is {_SHAPES[self.type][1]} and has no min_value or max_value"
        elif self.min_value is not None and self.max_value is not None and self.min_value > self.max_value:
            yield f"{self.name} has min_value {self.min_value} above its max_value {self.max_value}"
        if self.type == "enum" and not self.allowed_values:
            yield f"{self.name} is an enum without allowed_values"
        if self.allowed_values is not None and self.type != "enum":
            plain = self.model_copy(update={"allowed_values": None})
            for value in self.allowed_values:
                if problem := plain.problem(value):
                    yield f"allowed_values: {problem}"
        if self.default is not None and (problem := self.problem(self.default)):
            yield f"default: {problem}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


# ---- a model ----------------------------------------------------------------------------------


class _Found(NamedTuple):
    param: str
    problem: str


# What a configuration calls by another name, or in a table of its own.
_ALSO = {"max_output_tokens": "max_tokens", "max_completion_tokens": "max_tokens", "reasoning_effort": "effort"}
_INSIDE = {"reasoning": "effort", "text": "verbosity"}


class ModelSpec(Checked):
    """A model at a provider: what it is able to, and what may be set.

    >>> ModelSpec(model_name="house-7b", provider="vllm").supports("vision")
    False
    """

    model_config = _FROZEN

    model_name: Named
    provider: Provider
    capabilities: ModelCapabilities = Field(default_factory=ModelCapabilities)
    parameters: list[ParameterSpec] = Field(default_factory=list)

    @property
    def name(self) -> str:
        """The full name, "provider/model"."""
        return f"{self.provider}/{self.model_name}"

    @property
    def notice(self) -> str | None:
        """What whoever asks it today should know: that it is, or will be, retired, and what comes after it."""
        from datetime import UTC, datetime

        from polyvox import catalog

        known = catalog.load().info(self.provider, self.model_name)
        return known.notice(datetime.now(UTC).date()) if known else None

    def supports(self, feature: str) -> bool:
        """Whether the model is able to something: "vision", "reasoning", "function_calling" and so on."""
        return self.capabilities.supports(feature)

    def parameter(self, name: str) -> ParameterSpec | None:
        """The parameter of this name, or None."""
        return next((one for one in self.parameters if one.name == name), None)

    def defaults(self) -> dict[str, Any]:
        """What holds where a configuration does not say, by parameter."""
        return {one.name: one.default for one in self.parameters if one.supported and one.default is not None}

    def validate_config(
        self, config: Mapping[str, Any] | LLMModelSpec | None = None, *, lenient: bool = False, strict: bool = False
    ) -> tuple[str, ...]:
        """Check a configuration, or without one this specification itself.

        Args:
            config: values by parameter, or a `LLMModelSpec`; None as a value is not said. "reasoning" and "text" may
                be tables with "effort" and "verbosity" in them.
            lenient: what the model does not take is told instead of refused.
            strict: parameters that are not listed are refused.

        Returns what was told, a sentence each, () for nothing. Raises the documented ValidationError, which names
        parameter, value and allowed range; `param` is the first parameter, `problems` are all sentences.
        """
        if config is None:
            found, told = list(self._own_problems()), []
        else:
            given = self._flat(config)
            found = list(self._problems(given, strict))
            told = [_Found(name, f"{name} is not taken by {self.name}") for name in self.not_taken(given)]
            if not lenient:
                found += told
        if found:
            problems = tuple([one.problem for one in found])
            what = "the specification" if config is None else "the configuration"
            error = InputError(
                f"{what} of {self.name} is wrong: {'; '.join(problems)}",
                hint=self._advice_on(found[0].param),
                param=found[0].param,
            )
            error.problems = problems  # type: ignore[attr-defined]  # what .errors() tells
            raise named(error)
        return tuple([one.problem for one in told])

    def not_taken(self, config: Mapping[str, Any] | LLMModelSpec) -> list[str]:
        """The parameters of a configuration that the model is known to refuse."""
        refused = {one.name for one in self.parameters if not one.supported}
        return [name for name in self._flat(config) if name in refused]

    def _flat(self, config: Mapping[str, Any] | LLMModelSpec) -> dict[str, Any]:
        """What a configuration says, by the names of the parameters; what it does not say is left out."""
        if isinstance(config, LLMModelSpec):
            return config.config()
        if not isinstance(config, Mapping):
            raise named(
                InputError(
                    f"a configuration is a dict, not {_shown(config)}",
                    hint='such as {"temperature": 0.5}',
                    param="config",
                )
            )
        own = {one.name for one in self.parameters}
        flat: dict[str, Any] = {}
        for name, value in config.items():
            if name not in own and name in _INSIDE:
                inside = value if isinstance(value, Mapping) else {_INSIDE[name]: getattr(value, _INSIDE[name], value)}
                flat.update(inside)
            else:
                flat[name if name in own else _ALSO.get(name, name)] = value
        return {name: value for name, value in flat.items() if value is not None}

    def _problems(self, given: Mapping[str, Any], strict: bool) -> Iterator[_Found]:
        for one in self.parameters:
            if one.name not in given:
                if one.required and one.default is None:
                    yield _Found(one.name, f"{one.name} is needed")
            elif one.supported and (problem := one.problem(given[one.name])):
                yield _Found(one.name, problem)
        own = [one.name for one in self.parameters]
        for name in given:
            if strict and name not in own:
                import difflib

                near = difflib.get_close_matches(name, own, n=1)
                yield _Found(name, f"there is no parameter {name!r}" + (f": did you mean {near[0]}?" if near else ""))

    def _own_problems(self) -> Iterator[_Found]:
        names = [one.name for one in self.parameters]
        for name in dict.fromkeys(names):
            if (times := names.count(name)) > 1:
                yield _Found(name, f"{name} is specified {times} times")
        for one in self.parameters:
            yield from (_Found(one.name, problem) for problem in one.own_problems())

    def _advice_on(self, param: str) -> str:
        one = self.parameter(param)
        if one is None:
            return f"{self.name} takes {', '.join(one.name for one in self.parameters if one.supported)}"
        return f"{param} may be {one.allowed}" if one.supported else f"leave {param} out, or pass lenient=True"
