"""A stub of an Iggy server 0.9: the TCP frames that the real wheel speaks, enough of the commands to drive the adapter.

It is no Iggy: no disk, no consensus, no permissions. What it does differently from a real one is a bug here, and shows
when the same tests run with KFM_TEST_IGGY.
"""

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncGenerator, Callable, Collection
from typing import Any

from tests.support.iggy_commands import Commands, Connection
from tests.support.iggy_frames import (
    CREDENTIALS,
    DURABLE_OPTIONS,
    EVICTION,
    HEADER,
    INVALID_COMMAND,
    LOGOUT,
    NON_REPLICATED,
    OPERATIONS,
    PROTOCOL,
    REGISTER,
    REPLY,
    RESULT_FRAMED,
    UNAUTHENTICATED,
    Body,
    Refused,
    text,
)
from tests.support.iggy_store import Store


class IggyStub(Commands):
    """Listens on a free port of loopback. What it holds survives `kill` and `start`.

    `hold`: commands whose answers wait until the event is set; `asked`: every command in its order.
    `before_answer`: told of each command that was done; False keeps its answer back.
    """

    def __init__(self, knows: Collection[str] = DURABLE_OPTIONS, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(knows)
        self._tls = tls
        self.username, self.password, self.token = "iggy", "iggy", ""
        self.hold: dict[int, asyncio.Event] = {}
        self.before_answer: Callable[[int], bool] = lambda code: True
        self.asked: list[int] = []
        self.changed = asyncio.Condition()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._sessions = 0
        self._numbers = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator["IggyStub"]:
        await self.start()
        try:
            yield self
        finally:
            await self.kill()

    async def start(self, lose: int = 0) -> None:
        """Listen again, on the same port. `lose`: how many messages each partition has forgotten meanwhile."""
        self.store.lose_tails(lose)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """As kill -9: connections break, answers on their way are lost. Members stay in their groups as ghosts."""
        if self._server is not None:
            self._server.close()
            self._server = None
        killed = list(self.connections.values())
        self.connections.clear()
        for held in self.hold.values():
            held.set()
        for connection in killed:
            connection.writer.transport.abort()
        if killed:
            await asyncio.wait([connection.task for connection in killed])

    def wipe(self) -> None:
        """An empty disk."""
        self.store = Store()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for what is asked or left; bounded."""
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(true)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._numbers += 1
        connection = self.connections[self._numbers] = Connection(writer, self._numbers)
        try:
            while True:
                header = await reader.readexactly(HEADER)
                size = int.from_bytes(header[48:52], "little")
                await self._answer(connection, header, await reader.readexactly(size - HEADER))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
            if self.connections.pop(connection.number, None):  # not killed: the server sees it go
                for group in self.store.groups():
                    group.leave(connection.client)
            async with self.changed:
                self.changed.notify_all()

    async def _answer(self, connection: Connection, header: bytes, data: bytes) -> None:
        operation = header[176]
        code = (
            int.from_bytes(header[196:200], "little")
            if operation == NON_REPLICATED
            else OPERATIONS.get(operation, 0)
        )
        self.asked.append(code)
        async with self.changed:
            self.changed.notify_all()
        body, status, result = b"", 0, 0
        try:
            if operation == REGISTER:
                body = self._login(connection, header, data)
            elif operation != LOGOUT:
                body = self._do(connection, code, Body(data))
        except Refused as refused:
            if refused.code == CREDENTIALS:
                await self._evict(connection, header)
                return
            if operation in RESULT_FRAMED:
                result = refused.code
            else:
                status = refused.code
        if code in self.hold:
            await self.hold[code].wait()
        if not self.before_answer(code) or connection.number not in self.connections:
            return
        if result:
            body = struct.pack("<III", 1, 0, result)
        elif operation in RESULT_FRAMED or operation == REGISTER:
            body = struct.pack("<I", 0) + body
        reply = bytearray(HEADER)
        struct.pack_into("<I", reply, 48, HEADER + len(body))
        reply[60] = REPLY
        reply[160:176] = header[128:144]
        reply[200:208] = header[168:176]
        reply[208] = operation
        struct.pack_into("<I", reply, 216, status)
        connection.writer.write(bytes(reply) + body)
        await connection.writer.drain()

    async def _evict(self, connection: Connection, header: bytes) -> None:
        reply = bytearray(HEADER)
        struct.pack_into("<I", reply, 48, HEADER)
        reply[60] = EVICTION
        reply[128:144] = header[128:144]
        reply[255] = 9
        connection.writer.write(bytes(reply))
        await connection.writer.drain()

    def _login(self, connection: Connection, header: bytes, data: bytes) -> bytes:
        body = Body(data)
        _ = body.number("I"), body.name(), body.name()
        first = body.name()
        # A token is one text and a context; a name is followed by a password as well.
        named = len(data) - body.at > 4
        password = body.name() if named else ""
        if (first, password) != (self.username, self.password) if named else first != self.token:
            raise Refused(CREDENTIALS)
        self._sessions += 1
        connection.known, connection.client = True, int.from_bytes(header[128:144], "little")
        return struct.pack("<IQI", 1, self._sessions, PROTOCOL) + text("0.9.0-stub")

    def _do(self, connection: Connection, code: int, body: Body) -> bytes:
        command = getattr(self, f"command_{code}", None)
        if command is None:
            raise Refused(INVALID_COMMAND)
        if not connection.known and code != 1:
            raise Refused(UNAUTHENTICATED)
        answer: Any = command(connection, body)
        return answer or b""
