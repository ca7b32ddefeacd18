"""Decisions about where a call goes, and what follows when an attempt fails. Pure: chance and time come in as numbers,
and nothing here waits, sends, or keeps a secret; the engine acts.

One module a decision, imported from where it stands: `needs` what a request takes of a deployment, `pick` in which
order to ask, `affinity` who is bound to it, `after` what to do after an error, `retry` when to try again here,
`tiers` how demanding a request is, `patterns` which names are meant, `decision` the record of it all.
"""

from __future__ import annotations

from polyvox.routing.retry import RetryBudget, RetryRule

__all__ = ["RetryBudget", "RetryRule"]
