"""A server that speaks Redis' protocol badly: it reads commands as a server does, and answers what the test says."""

import asyncio
import contextlib


class BadRedis:
    """answer is bytes, or what is called with the words of a command and gives bytes; None says nothing at all."""

    def __init__(self, answer):
        self.answer = answer
        self.commands = []
        self.lines = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for line in self.lines:
            line.close()
        await self.server.wait_closed()

    async def _serve(self, reader, writer):
        self.lines.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readline():
                words = []
                for _ in range(int(head[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                self.commands.append(words)
                answer = self.answer(words) if callable(self.answer) else self.answer
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
        self.lines.discard(writer)
        writer.close()
