"""LangChain's model for OpenAI's protocol, awaited."""

from langchain_openai import ChatOpenAI

from benchmarks.contestants import PROMPT

ASYNC = True


class Chain:
    """One model at one address."""

    def __init__(self, base_url: str) -> None:
        self.model = ChatOpenAI(model="bench", base_url=base_url, api_key="test", max_retries=0)

    async def chat(self) -> str:
        return str((await self.model.ainvoke(PROMPT)).content)

    async def stream(self) -> str:
        return "".join([str(chunk.content) async for chunk in self.model.astream(PROMPT)])

    async def close(self) -> None:
        pass


def make(base_url: str) -> Chain:
    """A model of its own."""
    return Chain(base_url)
