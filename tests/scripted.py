"""A transport for tests: answers by script, in bytes, and remembers what was sent."""

import asyncio
import json

from polyvox.transports import Outgoing, Timeouts


class Answer:
    """One exchange: status, headers, chunks of the body. A chunk that is an exception is raised in its
    place; a number is a pause in seconds."""

    def __init__(self, *chunks, status=200, headers=None):
        self.status = status
        self.headers = {"content-type": "application/json", **(headers or {})}
        self._chunks = list(chunks)
        self.closed = False
        self.read_to_end = False

    async def chunk(self):
        while self._chunks:
            chunk = self._chunks.pop(0)
            if isinstance(chunk, BaseException):
                raise chunk
            if isinstance(chunk, int | float):
                await asyncio.sleep(chunk)
                continue
            return chunk
        self.read_to_end = True
        return b""

    async def read(self, limit):
        found = b""
        while piece := await self.chunk():
            found += piece
        self.closed = True
        return found

    async def close(self):
        self.closed = True


class Scripted:
    """Gives its answers in order; an answer that is an exception is raised by send."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.given = []
        self.sent: list[Outgoing] = []
        self.timeouts: list[Timeouts] = []
        self.closed = False

    async def send(self, outgoing, timeouts):
        self.sent.append(outgoing)
        self.timeouts.append(timeouts)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, float):
            await asyncio.sleep(answer)
        self.given.append(answer)
        return answer

    async def close(self):
        self.closed = True

    def bodies(self):
        return [json.loads(sent.body) for sent in self.sent]


def said(text, **more):
    """A whole Chat Completions answer."""
    body = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        **more,
    }
    return Answer(json.dumps(body).encode())


def failed(status, message="no", headers=None, **error):
    """An error answer in OpenAI's form."""
    body = json.dumps({"error": {"message": message, **error}}).encode()
    return Answer(body, status=status, headers=headers)


def piece(delta, finish=None):
    """One chunk of a stream."""
    chunk = {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def streamed(*texts, end=True, **facts):
    """A stream that says these texts, one chunk each."""
    chunks = [piece({"role": "assistant", "content": ""}), *(piece({"content": text}) for text in texts)]
    return Answer(*chunks, *([piece({}, "stop"), b"data: [DONE]\n\n"] if end else []), **facts)
