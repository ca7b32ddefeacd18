"""polyvox, awaited."""

import polyvox
from benchmarks.contestants import PROMPT

ASYNC = True


class Polyvox:
    """One client."""

    def __init__(self, base_url: str) -> None:
        self.client = polyvox.AsyncClient(base_url=base_url, api_key="test", model="bench")

    async def chat(self) -> str:
        return (await self.client.ask(PROMPT)).text

    async def stream(self) -> str:
        return "".join([text async for text in self.client.stream(PROMPT)])

    async def close(self) -> None:
        await self.client.close()


def make(base_url: str) -> Polyvox:
    """A client of its own."""
    return Polyvox(base_url)
