"""LiteLLM's own function, awaited."""

import os

from benchmarks.contestants import PROMPT

# Its table of prices is a download otherwise; and it takes a stream that says the same word again for a broken one.
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "REPEATED_STREAMING_CHUNK_LIMIT": "1000000"}

ASYNC = True


class LiteLLM:
    """It has no client of its own: the module keeps connections."""

    def __init__(self, base_url: str) -> None:
        import litellm

        self.ask = litellm.acompletion
        self.said = {
            "model": "openai/bench", "api_base": base_url, "api_key": "test", "num_retries": 0,
            "messages": [{"role": "user", "content": PROMPT}],
        }  # fmt: skip

    async def chat(self) -> str:
        answer = await self.ask(**self.said)
        return answer.choices[0].message.content or ""

    async def stream(self) -> str:
        chunks = await self.ask(**self.said, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])

    async def close(self) -> None:
        pass


def make(base_url: str) -> LiteLLM:
    """What says where to ask."""
    return LiteLLM(base_url)
