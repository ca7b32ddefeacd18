"""polyvox, called from plain threads."""

import polyvox
from benchmarks.contestants import PROMPT

ASYNC = False


class Polyvox:
    """One client."""

    def __init__(self, base_url: str) -> None:
        self.client = polyvox.Client(base_url=base_url, api_key="test", model="bench")

    def chat(self) -> str:
        return self.client.ask(PROMPT).text

    def stream(self) -> str:
        return "".join(self.client.stream(PROMPT))

    def close(self) -> None:
        self.client.close()


def make(base_url: str) -> Polyvox:
    """A client of its own."""
    return Polyvox(base_url)
