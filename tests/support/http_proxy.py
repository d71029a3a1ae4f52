"""A proxy in front of an HTTP server, to lose responses at the worst moments."""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from enum import Enum


class Cut(Enum):
    """Where a response is lost."""

    AT_ONCE = "as soon as the request is there"
    BEFORE_HEADERS = "before the headers"
    MID_STREAM = "in mid-stream"
    AFTER_RESULT = "after the result"


class Proxy:
    """`address` leads through it. The next response to a request that holds `marker` is cut where `cut` says, once."""

    def __init__(self, upstream: str) -> None:
        self._host, _, port = upstream.rpartition(":")
        self._port = int(port)
        self.address = ""
        self.marker = b""
        self.cut: Cut | None = None
        self.cuts = 0
        self._open: set[asyncio.StreamWriter] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, upstream: str) -> AsyncGenerator["Proxy"]:
        """Serve on a free port of loopback while the context lasts."""
        proxy = cls(upstream)
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield proxy
        finally:
            server.close()
            for writer in proxy._open:
                writer.transport.abort()

    def lose(self, cut: Cut, marker: str) -> None:
        """Cut the next response to a request whose body holds the marker."""
        self.cut, self.marker = cut, marker.encode()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests one after another, each on an upstream connection of its own."""
        self._open.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(found[1]) if (found := re.search(rb"(?i)content-length: *(\d+)", head)) else 0
                body = await reader.readexactly(length)
                cut = self.cut if self.marker and self.marker in body else None
                up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
                try:
                    up_writer.write(_closing(head) + body)
                    if cut == Cut.AT_ONCE:
                        await up_writer.drain()
                        self.cut, self.cuts = None, self.cuts + 1
                        break
                    if await self._answer(up_reader, writer, cut):
                        break
                finally:
                    up_writer.close()
        self._open.discard(writer)
        writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: Cut | None
    ) -> bool:
        """Hand one response on, or what of it is not lost; whether the client's connection ends with it."""
        if cut is None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            return True
        # The server has answered in full before anything is lost: its effects are done.
        answer = await reader.read(-1)
        self.cut, self.cuts = None, self.cuts + 1
        head, _, rest = answer.partition(b"\r\n\r\n")
        if cut == Cut.MID_STREAM:
            writer.write(head + b"\r\n\r\n" + rest[: len(rest) // 2])
        elif cut == Cut.AFTER_RESULT:
            writer.write(answer)
        await writer.drain()
        return True


def _closing(head: bytes) -> bytes:
    """The head of a request after whose response the server closes, which marks the end."""
    kept = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head)
    return kept[:-2] + b"connection: close\r\n\r\n"
