"""The names of TTT's document that come later: what each comes with, and what to use meanwhile."""

from __future__ import annotations

from polyvox.compat.waiting import waiting

TOOLS = ("functions that are run as tools", "ask(..., tools=[function]), which tells the calls in .tool_calls,")
_KEPT = ("sessions that are kept", "session.history, and chat(messages=...) to go on with it,")
PLUGINS = ("plugins that are found and loaded", "Backend.register, or an entry point of polyvox.backends,")
_ROOT = "polyvox.compat.ttt"

NAMES = {
    "PersistentChatSession": waiting(_ROOT, *_KEPT),
    "plugins": waiting(_ROOT, *PLUGINS),
    "tool": waiting(_ROOT, *TOOLS),
    "tools": waiting(_ROOT, *TOOLS),
}
"""What a `__getattr__` calls for each."""
