"""The document's `start_job` comes with jobs, which are not there yet: to import it says so. It loads no Celery."""

from __future__ import annotations

from polyvox.compat.waiting import waiting

__all__: list[str] = []

__getattr__ = waiting(
    __name__,
    "the jobs of polyvox",
    "execute_llm_call in a task or a thread of your own",
)
