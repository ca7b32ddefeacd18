"""The yardstick: aiohttp and msgspec by hand, with nothing checked and nothing promised."""

import aiohttp
import msgspec

from benchmarks.contestants import PROMPT

ASYNC = True

decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode
HEADERS = {"content-type": "application/json", "authorization": "Bearer test"}


class Raw:
    """One session."""

    def __init__(self, base_url: str) -> None:
        self.url = f"{base_url}/chat/completions"
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def chat(self) -> str:
        body = encode({"model": "bench", "messages": [{"role": "user", "content": PROMPT}]})
        async with self.session.post(self.url, data=body, headers=HEADERS) as response:
            text: str = decode(await response.read())["choices"][0]["message"]["content"]
            return text

    async def stream(self) -> str:
        body = encode({"model": "bench", "messages": [{"role": "user", "content": PROMPT}], "stream": True})
        pieces = []
        async with self.session.post(self.url, data=body, headers=HEADERS) as response:
            async for line in response.content:
                if line.startswith(b"data: ") and line != b"data: [DONE]\n":
                    for choice in decode(line[6:])["choices"]:
                        pieces.append(choice["delta"].get("content") or "")
        return "".join(pieces)

    async def close(self) -> None:
        await self.session.close()


def make(base_url: str) -> Raw:
    """A session of its own."""
    return Raw(base_url)
