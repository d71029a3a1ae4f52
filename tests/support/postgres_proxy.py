"""A proxy in front of a Postgres socket, to lose connections at the worst moments."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit


class Proxy:
    """`dsn` leads through it. `cut_answer` drops the writer's connection when its next answer comes."""

    def __init__(self, dsn: str) -> None:
        parts = urlsplit(dsn)
        self._upstream = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._directory = tempfile.TemporaryDirectory(prefix="kfm-proxy-")
        self.dsn = f"postgresql://kfm@{parts.path}?host={quote(self._directory.name, safe='')}"
        self.cut_answer = asyncio.Event()
        self.cuts = 0
        self.away = False
        self._open: set[asyncio.StreamWriter] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str) -> AsyncGenerator["Proxy"]:
        """Serve while the context lasts."""
        proxy = cls(dsn)
        path = str(Path(proxy._directory.name) / ".s.PGSQL.5432")
        server = await asyncio.start_unix_server(proxy._serve, path)
        try:
            yield proxy
        finally:
            server.close()
            proxy.drop()
            proxy._directory.cleanup()

    def drop(self) -> None:
        """Cut every connection now."""
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            writer.transport.abort()
            return
        up_reader, up_writer = await asyncio.open_unix_connection(self._upstream)
        self._open |= {writer, up_writer}
        try:
            first = await reader.read(65536)
            up_writer.write(first)
            is_writer = b"kfm-writer" in first
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, up_writer, False))
                group.create_task(self._copy(up_reader, writer, is_writer))
        except* OSError:
            pass
        finally:
            self._open -= {writer, up_writer}
            writer.transport.abort()
            up_writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, may_cut: bool) -> None:
        while data := await reader.read(65536):
            if may_cut and self.cut_answer.is_set():
                self.cut_answer.clear()
                self.cuts += 1
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
