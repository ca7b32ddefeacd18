"""The official openai package, called from plain threads."""

import openai

from benchmarks.contestants import PROMPT

ASYNC = False


class OpenAI:
    """One client."""

    def __init__(self, base_url: str) -> None:
        self.client = openai.OpenAI(base_url=base_url, api_key="test", max_retries=0)

    def chat(self) -> str:
        answer = self.client.chat.completions.create(model="bench", messages=[{"role": "user", "content": PROMPT}])
        return answer.choices[0].message.content or ""

    def stream(self) -> str:
        chunks = self.client.chat.completions.create(
            model="bench", messages=[{"role": "user", "content": PROMPT}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices])

    def close(self) -> None:
        self.client.close()


def make(base_url: str) -> OpenAI:
    """A client of its own."""
    return OpenAI(base_url)
