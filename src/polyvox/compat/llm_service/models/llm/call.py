"""The document's table of jobs comes with jobs, which are not there yet: to import it says so."""

from __future__ import annotations

from polyvox.compat.waiting import waiting

__all__: list[str] = []

__getattr__ = waiting(
    __name__,
    "the jobs of polyvox",
    "LLMCallRequest and LLMCallResponse, and their model_dump_json,",
)
