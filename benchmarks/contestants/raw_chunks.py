"""The same by hand, but taking a stream as it arrives and not line by line: the fairer floor for streams."""

from benchmarks.contestants import PROMPT
from benchmarks.contestants.raw_aiohttp import HEADERS, Raw, decode, encode

ASYNC = True


class RawChunks(Raw):
    """One session."""

    async def stream(self) -> str:
        body = encode({"model": "bench", "messages": [{"role": "user", "content": PROMPT}], "stream": True})
        pieces, rest = [], b""
        async with self.session.post(self.url, data=body, headers=HEADERS) as response:
            async for data in response.content.iter_any():
                lines = (rest + data).split(b"\n")
                rest = lines.pop()
                for line in lines:
                    if line.startswith(b"data: ") and line != b"data: [DONE]":
                        for choice in decode(line[6:])["choices"]:
                            pieces.append(choice["delta"].get("content") or "")
        return "".join(pieces)


def make(base_url: str) -> RawChunks:
    """A session of its own."""
    return RawChunks(base_url)
