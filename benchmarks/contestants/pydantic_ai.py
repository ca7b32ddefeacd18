"""pydantic-ai's direct requests to a model, without an agent, awaited."""

from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import ModelRequest, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from benchmarks.contestants import PROMPT

ASYNC = True


class Direct:
    """One model at one address."""

    def __init__(self, base_url: str) -> None:
        self.model = OpenAIChatModel("bench", provider=OpenAIProvider(base_url=base_url, api_key="test"))
        self.messages = [ModelRequest.user_text_prompt(PROMPT)]

    async def chat(self) -> str:
        answer = await model_request(self.model, self.messages)
        return "".join([part.content for part in answer.parts if isinstance(part, TextPart)])

    async def stream(self) -> str:
        words: list[str] = []
        async with model_request_stream(self.model, self.messages) as events:
            async for event in events:
                if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                    words.append(event.delta.content_delta)
                elif isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                    words.append(event.part.content)
        return "".join(words)

    async def close(self) -> None:
        pass


def make(base_url: str) -> Direct:
    """A model of its own."""
    return Direct(base_url)
