"""What the stub of an Iggy server does for each command; by its number, as `command_302`."""

import asyncio
import struct
from collections.abc import Collection

from tests.support.iggy_frames import (
    COMMON_OPTIONS,
    GROUP_EXISTS,
    GROUP_MISSING,
    HEADER,
    NOT_FOUND,
    NOT_OWNED,
    OPTION,
    STREAM_EXISTS,
    STREAM_MISSING,
    TOPIC_EXISTS,
    TOPIC_MISSING,
    Body,
    Refused,
    options_of,
    text,
)
from tests.support.iggy_store import Group, Partition, Record, Store, Stream, Topic


class Connection:
    """One client: its requests are answered in order."""

    def __init__(self, writer: asyncio.StreamWriter, number: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.writer, self.number, self.task = writer, number, task
        self.client = 0
        self.known = False


class Commands:
    """`knows`: the topic options beside the common ones. `late_sends`: how many sends find a partition that is not
    there yet."""

    def __init__(self, knows: Collection[str]) -> None:
        self.store = Store()
        self.knows = (*COMMON_OPTIONS, *knows)
        self.late_sends = 0
        self.connections: dict[int, Connection] = {}

    def command_1(self, connection: Connection, body: Body) -> None:
        """Ping."""

    def command_13(self, connection: Connection, body: Body) -> bytes:
        entries = [text(key) + b"\x02" + struct.pack("<II", 0, 0) for key in self.knows]
        return struct.pack("<I", len(entries)) + b"".join(entries)

    def command_21(self, connection: Connection, body: Body) -> bytes:
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

    def command_22(self, connection: Connection, body: Body) -> bytes:
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

    def command_202(self, connection: Connection, body: Body) -> bytes:
        name = body.name()
        if self.store.stream(name):
            raise Refused(STREAM_EXISTS)
        stream = self.store.streams[self.store.stream_ids] = Stream(self.store.stream_ids, name)
        self.store.stream_ids += 1
        return self._stream(stream)

    def command_200(self, connection: Connection, body: Body) -> bytes:
        stream = self.store.stream(body.identifier())
        return self._stream(stream) + b"".join(map(self._topic, stream.topics.values())) if stream else b""

    def command_204(self, connection: Connection, body: Body) -> None:
        stream = self.store.stream(body.identifier())
        if stream is None:
            raise Refused(STREAM_MISSING)
        del self.store.streams[stream.id]

    def _stream(self, stream: Stream) -> bytes:
        return (
            struct.pack("<IQIQQ", stream.id, 1, len(stream.topics), 0, 0) + text(stream.name) + options_of({})
        )

    def command_302(self, connection: Connection, body: Body) -> bytes:
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

    def command_300(self, connection: Connection, body: Body) -> bytes:
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

    def command_101(self, connection: Connection, body: Body) -> bytes:
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

    def command_100(self, connection: Connection, body: Body) -> bytes:
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

    def command_120(self, connection: Connection, body: Body) -> bytes:
        topic, index, consumer, group = self._offsets_of(connection, body)
        stored = group.offsets.get(index) if group else topic.offsets.get((consumer, index))
        return b"" if stored is None else struct.pack("<IQQ", index, topic.partitions[index].current, stored)

    def command_121(self, connection: Connection, body: Body) -> None:
        topic, index, consumer, group = self._offsets_of(connection, body)
        offset = body.number("Q")
        if group is None:
            topic.offsets[consumer, index] = offset
            return
        if group.owner(index) != connection.client:
            raise Refused(NOT_FOUND)
        group.offsets[index] = offset
        group.committed(index)

    def command_602(self, connection: Connection, body: Body) -> bytes:
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

    def command_600(self, connection: Connection, body: Body) -> bytes:
        try:
            return self._group(self._group_of(body)[1])
        except Refused:
            return b""

    def command_603(self, connection: Connection, body: Body) -> None:
        topic, group = self._group_of(body)
        del topic.groups[group.id]

    def command_604(self, connection: Connection, body: Body) -> None:
        self._group_of(body)[1].join(connection.client)

    def command_605(self, connection: Connection, body: Body) -> None:
        group = self._group_of(body)[1]
        if connection.client not in group.members:
            raise Refused(NOT_FOUND)
        group.leave(connection.client)

    def command_606(self, connection: Connection, body: Body) -> bytes:
        try:
            group = self._group_of(body)[1]
        except Refused:
            return b""
        mine = group.pollable(connection.client)
        return b"" if mine is None else struct.pack(f"<QI{len(mine)}I", group.generation, len(mine), *mine)
