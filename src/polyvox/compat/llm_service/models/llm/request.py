"""One call as it is asked for."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
from pydantic import Field

from polyvox.compat import llm_service
from polyvox.compat.errors import named
from polyvox.compat.llm_service.models.llm.checked import Checked, Whole
from polyvox.compat.llm_service.models.llm.config import LLMConfig
from polyvox.errors import InputError


def _most_results() -> Any:
    return llm_service.constant("DEFAULT_MAX_RESULTS")


class LLMCallRequest(Checked):
    """A call.

    Attributes:
        llm: what is asked, and of which model.
        max_num_results: the most passages that a search in files finds; `constants.DEFAULT_MAX_RESULTS` unless said.
    """

    llm: LLMConfig
    max_num_results: Annotated[Whole, Field(ge=1)] = Field(default_factory=_most_results)

    @classmethod
    def _advice(cls, error: pydantic.ValidationError) -> str | None:
        for one in error.errors():
            kind = type(one["input"])
            if one["loc"] == ("llm",) and kind.__name__ == LLMConfig.__name__:
                return (
                    f"this is the LLMConfig of {kind.__module__}, which describes a connection; a call takes that of "
                    f"{LLMConfig.__module__}: LLMModelSpec.from_config makes its llm_model_spec of the other"
                )
        return LLMConfig._advice(error)


def checked_request(given: Any) -> LLMCallRequest:
    """What was given, where it is a request; the documented ValidationError, which says what one is, for anything
    else."""
    if isinstance(given, LLMCallRequest):
        return given
    kind = type(given)
    raise named(
        InputError(
            f"a call is made of an LLMCallRequest, not of a {kind.__name__} of {kind.__module__}",
            hint="LLMCallRequest(llm=LLMConfig(prompt=..., llm_model_spec=LLMModelSpec(model=..., provider=...)))",
            param="request",
        )
    )
