"""A server that speaks as much of Redis's protocol as the cache needs, with a clock of the test's own."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager


class RedisStub:
    """Strings that expire. `refuse`: with what error it answers writes, empty for none; `mute`: it answers nothing;
    `hangs_up`: at each command."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kept: dict[bytes, tuple[bytes, float]] = {}
        self.refuse = ""
        self.mute = False
        self.hangs_up = False
        self.asked: list[bytes] = []

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[str]:
        """Its URL, while it listens."""
        writers: set[asyncio.StreamWriter] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.add(writer)
            try:
                await self._talk(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writers.discard(writer)
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        finally:
            server.close()
            for writer in list(writers):
                writer.close()
            await server.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queued: list[list[bytes]] | None = None
        while True:
            command = await _command(reader)
            verb = command[0].upper()
            self.asked.append(verb)
            if self.hangs_up:
                return
            if self.mute:
                continue
            if verb == b"MULTI":
                queued = []
                writer.write(b"+OK\r\n")
            elif verb == b"EXEC" and queued is not None:
                answers = [self._answer(c) for c in queued]
                writer.write(b"*%d\r\n" % len(answers) + b"".join(answers))
                queued = None
            elif queued is not None:
                queued.append(command)
                writer.write(b"+QUEUED\r\n")
            else:
                writer.write(self._answer(command))
            await writer.drain()

    def _answer(self, command: list[bytes]) -> bytes:
        verb, *rest = command
        match verb.upper():
            case b"GET":
                kept = self._live(rest[0])
                return b"_\r\n" if kept is None else b"$%d\r\n%s\r\n" % (len(kept[0]), kept[0])
            case b"PTTL":
                kept = self._live(rest[0])
                return b":-2\r\n" if kept is None else b":%d\r\n" % round((kept[1] - self._now()) * 1000)
            case b"SET" if self.refuse:
                return b"-%s\r\n" % self.refuse.encode()
            case b"SET":
                assert [rest[2].upper()] == [b"PX"]
                self._kept[rest[0]] = (rest[1], self._now() + int(rest[3]) / 1000)
                return b"+OK\r\n"
            case b"DEL":
                there = self._live(rest[0]) is not None
                self._kept.pop(rest[0], None)
                return b":%d\r\n" % there
            case b"HELLO":
                return b"%1\r\n+proto\r\n:3\r\n"
            case b"CLIENT" | b"SELECT" | b"PING":
                return b"+OK\r\n"
            case _:
                return b"-ERR unknown command '%s'\r\n" % verb

    def _live(self, key: bytes) -> tuple[bytes, float] | None:
        kept = self._kept.get(key)
        return kept if kept is not None and kept[1] > self._now() else None


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    parts: list[bytes] = []
    for _ in range(int((await reader.readuntil(b"\r\n"))[1:])):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        parts.append((await reader.readexactly(size + 2))[:-2])
    return parts
