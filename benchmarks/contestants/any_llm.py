"""any-llm with a client that is kept, awaited."""

from any_llm import AnyLLM

from benchmarks.contestants import PROMPT

ASYNC = True


class Any:
    """One client."""

    def __init__(self, base_url: str) -> None:
        self.client = AnyLLM.create("openai", api_key="test", api_base=base_url, max_retries=0)
        self.said = {"model": "bench", "messages": [{"role": "user", "content": PROMPT}]}

    async def chat(self) -> str:
        answer = await self.client.acompletion(**self.said)
        return answer.choices[0].message.content or ""

    async def stream(self) -> str:
        chunks = await self.client.acompletion(**self.said, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])

    async def close(self) -> None:
        pass


def make(base_url: str) -> Any:
    """A client of its own."""
    return Any(base_url)
