"""An HTTP server that answers with exactly the bytes it is told, for what no well-behaved server sends."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

SSE = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@dataclass
class RawServer:
    """Answers the n-th request with the n-th answer (the last one again and again), piece by piece, then closes."""

    answers: Sequence[Sequence[bytes]]
    url: str = ""
    requests: list[bytes] = field(default_factory=list[bytes])
    connections: int = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode().lower().split("\r\n")
            length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length")), 0)
            self.requests.append(head + await reader.readexactly(length))
            for piece in self.answers[min(len(self.requests), len(self.answers)) - 1]:
                writer.write(piece)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def raw_server(*answers: Sequence[bytes]) -> AsyncGenerator[RawServer]:
    """Start one on a free port of loopback. `url` ends in /v1."""
    raw = RawServer(answers)
    server = await asyncio.start_server(raw.talk, "127.0.0.1", 0)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield raw
    finally:
        server.close()


def whole(body: str, *, status: str = "200 OK", headers: str = "") -> list[bytes]:
    """An answer with a JSON body."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body.encode())}\r\n"
    return [(head + headers + "Connection: close\r\n\r\n" + body).encode()]


def events(*data: str, end: str = "\n\n") -> list[bytes]:
    """A stream of events, each in a piece of its own."""
    return [SSE.encode(), *(f"data: {one}{end}".encode() for one in data)]
