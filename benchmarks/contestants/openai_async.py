"""The official openai package, awaited."""

import openai

from benchmarks.contestants import PROMPT

ASYNC = True


class OpenAI:
    """One client."""

    def __init__(self, base_url: str) -> None:
        self.client = openai.AsyncOpenAI(base_url=base_url, api_key="test", max_retries=0)

    async def chat(self) -> str:
        answer = await self.client.chat.completions.create(
            model="bench", messages=[{"role": "user", "content": PROMPT}]
        )
        return answer.choices[0].message.content or ""

    async def stream(self) -> str:
        chunks = await self.client.chat.completions.create(
            model="bench", messages=[{"role": "user", "content": PROMPT}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])

    async def close(self) -> None:
        await self.client.close()


def make(base_url: str) -> OpenAI:
    """A client of its own."""
    return OpenAI(base_url)
