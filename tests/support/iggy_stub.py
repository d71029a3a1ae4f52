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

from tests.support.iggy_store import Group, Partition, Record, Store, Stream, Topic

HEADER = 256
REQUEST, REPLY, EVICTION = 5, 8, 13
REGISTER, NON_REPLICATED, LOGOUT = 1, 2, 3
OPERATIONS = {
    128: 202, 130: 204, 131: 205, 132: 302, 134: 303, 135: 305, 139: 602, 140: 603, 148: 604, 149: 605,
    160: 101, 161: 121, 162: 122,
}  # fmt: skip
"""Commands that are logged carry an operation instead of their code."""
RESULT_FRAMED = frozenset(OPERATIONS) - {160}
PROTOCOL = 11 << 10
"""0.11.0"""
INVALID_COMMAND, NOT_FOUND, UNAUTHENTICATED, CREDENTIALS = 3, 20, 40, 42
STREAM_EXISTS, TOPIC_EXISTS, OPTION, OPTION_VALUE = 1012, 2013, 4041, 4042
STREAM_MISSING, TOPIC_MISSING, GROUP_MISSING, GROUP_EXISTS, NOT_OWNED = 1009, 2010, 5000, 5004, 5009
DURABLE_OPTIONS = ("durability", "consumer_offset_durability")
OLD_OPTIONS = ("enforce_fsync",)
COMMON_OPTIONS = (
    "compression_algorithm", "message_expiry", "max_topic_size", "segment_size", "messages_required_to_save",
    "size_of_messages_required_to_save", "preallocate_segments",
)  # fmt: skip


class Refused(Exception):
    """Answered with an error's number."""

    def __init__(self, code: int) -> None:
        self.code = code


class Body:
    """Reads a request."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> int:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def name(self) -> str:
        return self.take(self.number("B")).decode()

    def identifier(self) -> str | int:
        kind, value = self.number("B"), self.take(self.number("B"))
        return int.from_bytes(value, "little") if kind == 1 else value.decode()

    def options(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while self.at < len(self.data):
            self.number("B")
            key = self.take(self.number("I")).decode()
            kind = self.number("B")
            value = self.take(self.number("I"))
            found[key] = value.decode() if kind == 2 else str(int.from_bytes(value, "little"))
        return found


def text(name: str) -> bytes:
    return bytes([len(name.encode())]) + name.encode()


def options_of(options: dict[str, str]) -> bytes:
    out = b""
    for key, value in options.items():
        for item in (key.encode(), value.encode()):
            out += b"\x02" + struct.pack("<I", len(item)) + item
    return struct.pack("<I", len(out)) + out


class Connection:
    """One client: its requests are answered in order."""

    def __init__(self, writer: asyncio.StreamWriter, number: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.writer, self.number, self.task = writer, number, task
        self.client = 0
        self.known = False


class IggyStub:
    """Listens on a free port of loopback. What it holds survives `kill` and `start`.

    `knows`: the topic options beside the common ones. `late_sends`: how many sends find a partition that is not there
    yet. `hold`: commands whose answers wait until the event is set; `asked`: every command in its order.
    `before_answer`: told of each command that was done; False keeps its answer back.
    """

    def __init__(self, knows: Collection[str] = DURABLE_OPTIONS, tls: ssl.SSLContext | None = None) -> None:
        self.store = Store()
        self.knows = (*COMMON_OPTIONS, *knows)
        self.late_sends = 0
        self._tls = tls
        self.username, self.password, self.token = "iggy", "iggy", ""
        self.hold: dict[int, asyncio.Event] = {}
        self.before_answer: Callable[[int], bool] = lambda code: True
        self.asked: list[int] = []
        self.connections: dict[int, Connection] = {}
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
        command = getattr(self, f"_command_{code}", None)
        if command is None:
            raise Refused(INVALID_COMMAND)
        if not connection.known and code != 1:
            raise Refused(UNAUTHENTICATED)
        answer: Any = command(connection, body)
        return answer or b""

    def _command_1(self, connection: Connection, body: Body) -> None:
        """Ping."""

    def _command_13(self, connection: Connection, body: Body) -> bytes:
        entries = [text(key) + b"\x02" + struct.pack("<II", 0, 0) for key in self.knows]
        return struct.pack("<I", len(entries)) + b"".join(entries)

    def _command_21(self, connection: Connection, body: Body) -> bytes:
        number = body.number("I")
        found = self.connections.get(number)
        if found is None:
            return b""
        groups = [
            struct.pack("<III", s.id, t.id, g.id)
            for s in self.store.streams.values()
            for t in s.topics.values()
            for g in t.groups.values()
            if found.client in g.members
        ]
        return self._client(found, len(groups)) + b"".join(groups)

    def _command_22(self, connection: Connection, body: Body) -> bytes:
        return b"".join(
            self._client(c, sum(c.client in g.members for g in self.store.groups()))
            for c in self.connections.values()
            if c.known
        )

    def _client(self, connection: Connection, groups: int) -> bytes:
        address = b"127.0.0.1:1"
        return (
            struct.pack("<IIBI", connection.number, 1, 1, len(address)) + address + struct.pack("<I", groups)
        )

    def _command_202(self, connection: Connection, body: Body) -> bytes:
        name = body.name()
        if self.store.stream(name):
            raise Refused(STREAM_EXISTS)
        stream = self.store.streams[self.store.stream_ids] = Stream(self.store.stream_ids, name)
        self.store.stream_ids += 1
        return self._stream(stream)

    def _command_200(self, connection: Connection, body: Body) -> bytes:
        stream = self.store.stream(body.identifier())
        return self._stream(stream) + b"".join(map(self._topic, stream.topics.values())) if stream else b""

    def _command_204(self, connection: Connection, body: Body) -> None:
        stream = self.store.stream(body.identifier())
        if stream is None:
            raise Refused(STREAM_MISSING)
        del self.store.streams[stream.id]

    def _stream(self, stream: Stream) -> bytes:
        return (
            struct.pack("<IQIQQ", stream.id, 1, len(stream.topics), 0, 0) + text(stream.name) + options_of({})
        )

    def _command_302(self, connection: Connection, body: Body) -> bytes:
        stream = self.store.stream(body.identifier())
        count, name, options = body.number("I"), body.name(), body.options()
        if stream is None:
            raise Refused(STREAM_MISSING)
        if set(options) - set(self.knows):
            raise Refused(OPTION)
        if stream.topic(name):
            raise Refused(TOPIC_EXISTS)
        topic = Topic(stream.topic_ids, name, options, [Partition() for _ in range(count)])
        stream.topics[topic.id] = topic
        stream.topic_ids += 1
        return self._details(topic)

    def _command_300(self, connection: Connection, body: Body) -> bytes:
        topic = self.store.topic(body.identifier(), body.identifier())
        return self._details(topic) if topic else b""

    def _details(self, topic: Topic) -> bytes:
        partitions = b"".join(
            struct.pack("<IQIQQQ", i, 1, 1, p.current, 0, len(p.records))
            for i, p in enumerate(topic.partitions)
        )
        return self._topic(topic) + partitions

    def _topic(self, topic: Topic) -> bytes:
        head = struct.pack("<IQIQBQQQ", topic.id, 1, len(topic.partitions), 2**64 - 1, 1, 2**64 - 1, 0, 0)
        return head + text(topic.name) + options_of(topic.options) + options_of({})

    def _topic_of(self, body: Body) -> Topic:
        stream, topic = body.identifier(), body.identifier()
        if self.store.stream(stream) is None:
            raise Refused(STREAM_MISSING)
        found = self.store.topic(stream, topic)
        if found is None:
            raise Refused(TOPIC_MISSING)
        return found

    def _command_101(self, connection: Connection, body: Body) -> bytes:
        body.number("I")
        try:
            topic = self._topic_of(body)
        except Refused:
            raise Refused(NOT_FOUND) from None
        kind, length = body.number("B"), body.number("B")
        assert (kind, length) == (2, 4), "the adapter names the partition"
        index = body.number("I")
        if index >= len(topic.partitions) or self.late_sends > 0:
            self.late_sends -= 1
            raise Refused(NOT_FOUND)
        count = body.number("I")
        origin = struct.unpack_from("<Q", body.take(HEADER), 24)[0]
        frames: list[bytes] = []
        for _ in range(count):
            headers, payload = struct.unpack_from("<II", body.data, body.at + 32)
            frames.append(body.take(48 + headers + payload))
        base = topic.partitions[index].append(frames, origin)
        return struct.pack("<IIIIQ", 1, 0, topic.id, index, base)

    def _command_100(self, connection: Connection, body: Body) -> bytes:
        kind, consumer = body.number("B"), body.identifier()
        topic = self.store.topic(body.identifier(), body.identifier())
        flag, index = body.number("B"), body.number("I")
        strategy, value, count = body.number("B"), body.number("Q"), body.number("I")
        assert flag == 1 and strategy == 1 and not body.number("B"), (
            "explicit partition and offset, no auto commit"
        )
        if topic is None or index >= len(topic.partitions):
            return struct.pack("<IQI", index, 0, 0)
        partition = topic.partitions[index]
        if kind == 2:
            group = topic.group(consumer)
            if group is None or index not in (group.pollable(connection.client) or ()):
                raise Refused(NOT_OWNED)
            records = [r for r in partition.records if r.offset >= value][:count]
            if records:
                group.polled[index] = max(group.polled.get(index, -1), records[-1].offset)
        else:
            records = [r for r in partition.records if r.offset >= value][:count]
        return struct.pack("<IQI", index, partition.current, len(records)) + b"".join(
            map(self._batch, records)
        )

    def _batch(self, record: Record) -> bytes:
        frame = record.frame[:24] + struct.pack("<I", 0) + record.frame[28:]
        head = struct.pack(
            "<QQQQQQI", 0, record.offset, record.at_us, record.origin_us, HEADER + len(frame), 0, 1
        )
        return head.ljust(HEADER, b"\0") + frame

    def _offsets_of(self, connection: Connection, body: Body) -> tuple[Topic, int, str | int, Group | None]:
        kind, consumer = body.number("B"), body.identifier()
        topic = self._topic_of(body)
        body.number("B")
        index = body.number("I")
        group = topic.group(consumer) if kind == 2 else None
        if kind == 2 and group is None:
            raise Refused(GROUP_MISSING)
        return topic, index, consumer, group

    def _command_120(self, connection: Connection, body: Body) -> bytes:
        topic, index, consumer, group = self._offsets_of(connection, body)
        stored = group.offsets.get(index) if group else topic.offsets.get((consumer, index))
        return b"" if stored is None else struct.pack("<IQQ", index, topic.partitions[index].current, stored)

    def _command_121(self, connection: Connection, body: Body) -> None:
        topic, index, consumer, group = self._offsets_of(connection, body)
        offset = body.number("Q")
        if group is None:
            topic.offsets[consumer, index] = offset
            return
        if group.owner(index) != connection.client:
            raise Refused(NOT_FOUND)
        group.offsets[index] = offset
        group.committed(index)

    def _command_602(self, connection: Connection, body: Body) -> bytes:
        topic, name = self._topic_of(body), body.name()
        if topic.group(name):
            raise Refused(GROUP_EXISTS)
        group = topic.groups[topic.group_ids] = Group(topic.group_ids, name, len(topic.partitions))
        topic.group_ids += 1
        return self._group(group)

    def _group_of(self, body: Body) -> tuple[Topic, Group]:
        topic = self._topic_of(body)
        group = topic.group(body.identifier())
        if group is None:
            raise Refused(GROUP_MISSING)
        return topic, group

    def _group(self, group: Group) -> bytes:
        members = [
            struct.pack(f"<II{len(m.partitions)}I", i, len(m.partitions), *m.partitions)
            for i, m in enumerate(group.members.values())
        ]
        head = struct.pack("<III", group.id, group.count, len(members)) + text(group.name)
        return head + b"".join(members)

    def _command_600(self, connection: Connection, body: Body) -> bytes:
        try:
            return self._group(self._group_of(body)[1])
        except Refused:
            return b""

    def _command_603(self, connection: Connection, body: Body) -> None:
        topic, group = self._group_of(body)
        del topic.groups[group.id]

    def _command_604(self, connection: Connection, body: Body) -> None:
        self._group_of(body)[1].join(connection.client)

    def _command_605(self, connection: Connection, body: Body) -> None:
        group = self._group_of(body)[1]
        if connection.client not in group.members:
            raise Refused(NOT_FOUND)
        group.leave(connection.client)

    def _command_606(self, connection: Connection, body: Body) -> bytes:
        try:
            group = self._group_of(body)[1]
        except Refused:
            return b""
        mine = group.pollable(connection.client)
        return b"" if mine is None else struct.pack(f"<QI{len(mine)}I", group.generation, len(mine), *mine)
