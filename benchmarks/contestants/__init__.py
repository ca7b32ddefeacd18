"""The contestants: each module has `ASYNC`, whether its methods are awaited, and `make(base_url)`, which gives
an object with `chat()` and `stream()` (both give the text received) and `close()`."""

NAMES = (
    "raw_aiohttp", "raw_chunks", "polyvox_async", "polyvox_sync", "polyvox_pool", "polyvox_relaxed", "polyvox_commit",
    "openai_async", "openai_sync",
)  # fmt: skip
OTHERS = {
    "litellm": "litellm", "any_llm": "any-llm-sdk", "pydantic_ai": "pydantic-ai-slim", "langchain": "langchain-openai",
}  # fmt: skip
"""Contestants that need an environment of their own, and the package whose version is told."""
BASE = "raw_aiohttp"
PROMPT = "Say something about foxes and dogs."

LOOPS = {"polyvox_sync": "own", "openai_sync": "none"}
"""Where a contestant does not run on the loop of the run: polyvox brings its own, uvloop where installed."""

FILES = ("polyvox_relaxed", "polyvox_commit")
"""Those that make a database for every client, so that of them fewer clients are opened and closed."""
