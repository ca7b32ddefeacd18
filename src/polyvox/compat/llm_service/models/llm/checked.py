"""What the LLM service's models have in common: what pydantic refuses comes out as an error of ours, which is the
documented `ValidationError` and a ValueError, and says what is wrong in words. It knows no field by name."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict

from polyvox.compat.errors import named
from polyvox.errors import InputError

_MOST_SHOWN = 40
_building = threading.RLock()


def refuse_truth(value: Any) -> Any:
    """A number is no True: Python would take it for 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not a truth value")  # noqa: TRY004 - what pydantic understands
    return value


Number = Annotated[float, BeforeValidator(refuse_truth)]
Whole = Annotated[int, BeforeValidator(refuse_truth)]


if TYPE_CHECKING:
    _Told = BaseModel

    def _build(kind: type[BaseModel]) -> None: ...

else:

    def _build(kind):
        # On first use, for it takes long; one thread at a time, for pydantic takes the parts away while it makes them.
        if not kind.__pydantic_complete__:
            with _building:
                if not kind.__pydantic_complete__:
                    kind.model_rebuild()

    class _Meta(type(BaseModel)):  # pydantic's metaclass, which has no public name
        # Here and not in __init__: pydantic would run an __init__ of ours for each model within a model, and lose
        # where in the whole something is wrong.
        def __call__(cls, *args: Any, **facts: Any) -> Any:
            if args:
                first = next(iter(cls.model_fields), "")
                hint = f"{cls.__name__}({first}=...)"
                raise named(InputError(f"{cls.__name__} takes what it is made of by name", hint=hint, param=first))
            _build(cls)
            try:
                return super().__call__(**facts)
            except pydantic.ValidationError as error:
                raise refusal(cls, error) from error

    class _Told(BaseModel, metaclass=_Meta):
        model_config = ConfigDict(defer_build=True)


class Checked(_Told):
    """A model whose refusals are ours: `polyvox.compat.names.ValidationError`, a ValueError with `.errors()`, with
    pydantic's own as its cause. A field that it does not have is refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        defer_build=True,
        extra="forbid",
        validate_assignment=True,
        validate_default=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        protected_namespaces=(),
        populate_by_name=True,
    )

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            try:
                super().__setattr__(name, value)
            except pydantic.ValidationError as error:
                raise refusal(type(self), error) from error

        @classmethod
        def model_validate(cls, *args: Any, **how: Any) -> Self:
            """As pydantic's; raises the documented ValidationError."""
            _build(cls)
            try:
                return super().model_validate(*args, **how)
            except pydantic.ValidationError as error:
                raise refusal(cls, error) from error

        @classmethod
        def model_validate_json(cls, *args: Any, **how: Any) -> Self:
            """As pydantic's; raises the documented ValidationError."""
            _build(cls)
            try:
                return super().model_validate_json(*args, **how)
            except pydantic.ValidationError as error:
                raise refusal(cls, error) from error

        @classmethod
        def model_validate_strings(cls, *args: Any, **how: Any) -> Self:
            """As pydantic's; raises the documented ValidationError."""
            _build(cls)
            try:
                return super().model_validate_strings(*args, **how)
            except pydantic.ValidationError as error:
                raise refusal(cls, error) from error

    @classmethod
    def _advice(cls, error: pydantic.ValidationError) -> str | None:  # noqa: ARG003 - a model may look at it
        """What to do instead, where a model knows what was meant; None where it does not."""
        return None


def refusal(kind: type[Checked], error: pydantic.ValidationError) -> InputError:
    """What pydantic says of a `kind`, as an error of ours; values that may be private are left out."""
    told = error.errors(include_url=False)
    found = [{"type": one["type"], "loc": one["loc"], "msg": one["msg"]} for one in told]
    problems = tuple([_sentence(one) for one in told])
    made = named(
        InputError(
            f"{kind.__name__} cannot be: {'; '.join(problems)}",
            hint=kind._advice(error) or f"{kind.__name__} takes {', '.join(kind.model_fields)}",
            param=place(told[0]["loc"]) if told else None,
        )
    )
    made.found = found  # type: ignore[attr-defined]  # what .errors() gives
    return made


def place(loc: tuple[int | str, ...]) -> str:
    """Where something is, as it is written in Python: "parameters[0].name"."""
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


# Kinds of problems where the value itself is worth telling: a choice, a bound, a number that is none.
_TELLING = ("literal_error", "enum", "greater_than", "less_than", "float_", "int_", "bool_", "finite_")


def _sentence(one: Any) -> str:
    where = place(one["loc"]) or "all of it"
    if one["type"] == "extra_forbidden":
        return f"{where}: there is no such field"
    what = one["msg"].removeprefix("Value error, ")
    what = what[:1].lower() + what[1:]
    shown = repr(one["input"])
    if one["type"].startswith(_TELLING) and len(shown) <= _MOST_SHOWN:
        return f"{where}: {what}, not {shown}"
    return f"{where}: {what}"
