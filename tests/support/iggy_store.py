"""What the protocol stub of an Iggy server holds: topics, partitions, groups and offsets, as the server rules them."""

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Record:
    """One message as it was sent: `frame` is its header, payload and user headers."""

    offset: int
    frame: bytes
    origin_us: int
    at_us: int


@dataclass(slots=True)
class Partition:
    records: list[Record] = field(default_factory=list[Record])
    next_offset: int = 0

    def append(self, frames: list[bytes], origin_us: int) -> int:
        """Returns the offset of the first."""
        base = self.next_offset
        for frame in frames:
            self.records.append(Record(self.next_offset, frame, origin_us, time.time_ns() // 1000))
            self.next_offset += 1
        return base

    def lose(self, count: int) -> None:
        """Forget the last messages, as a crash before they were saved does: their offsets are given out again."""
        if count:
            del self.records[-count:]
            self.next_offset = self.records[-1].offset + 1 if self.records else 0

    @property
    def current(self) -> int:
        """As the server tells it: 0 of an empty partition and of one with a single message."""
        return max(self.next_offset - 1, 0)


@dataclass(slots=True)
class Member:
    partitions: list[int] = field(default_factory=list[int])
    revoked: dict[int, int] = field(default_factory=dict[int, int])
    """Partitions that wait for their uncommitted messages, and whose they become."""


@dataclass(slots=True)
class Group:
    """A consumer group: a joining member gets partitions whose messages are committed, the others once they are."""

    id: int
    name: str
    count: int
    members: dict[int, Member] = field(default_factory=dict[int, Member])
    offsets: dict[int, int] = field(default_factory=dict[int, int])
    polled: dict[int, int] = field(default_factory=dict[int, int])
    generation: int = 0

    def join(self, client: int) -> None:
        if client in self.members:
            return
        self.members[client] = Member()
        self._share()

    def leave(self, client: int) -> None:
        if self.members.pop(client, None) is None:
            return
        for member in self.members.values():
            member.revoked = {p: to for p, to in member.revoked.items() if to != client}
        self._share()

    def owner(self, partition: int) -> int | None:
        return next((c for c, m in self.members.items() if partition in m.partitions), None)

    def pollable(self, client: int) -> list[int] | None:
        """None of one that is no member."""
        member = self.members.get(client)
        return None if member is None else [p for p in member.partitions if p not in member.revoked]

    def committed(self, partition: int) -> None:
        """What waits for this partition's messages goes on."""
        owner = self.owner(partition)
        if owner is not None and self._drained(partition):
            to = self.members[owner].revoked.pop(partition, None)
            if to is not None:
                self._move(partition, owner, to)

    def _drained(self, partition: int) -> bool:
        return self.polled.get(partition, -1) <= self.offsets.get(partition, -1)

    def _move(self, partition: int, source: int, target: int) -> None:
        self.members[source].partitions.remove(partition)
        self.members[target].partitions.append(partition)
        self.polled.pop(partition, None)
        self.generation += 1

    def _share(self) -> None:
        self.generation += 1
        if not self.members:
            return
        order = list(self.members)
        for partition in range(self.count):
            owner, wanted = self.owner(partition), order[partition % len(order)]
            if owner is None:
                self.members[wanted].partitions.append(partition)
                self.polled.pop(partition, None)
            elif owner == wanted:
                self.members[owner].revoked.pop(partition, None)
            elif self._drained(partition):
                self._move(partition, owner, wanted)
            else:
                self.members[owner].revoked[partition] = wanted


@dataclass(slots=True)
class Topic:
    id: int
    name: str
    options: dict[str, str]
    partitions: list[Partition]
    groups: dict[int, Group] = field(default_factory=dict[int, Group])
    offsets: dict[tuple[str | int, int], int] = field(default_factory=dict[tuple[str | int, int], int])
    """Of single consumers, by consumer and partition."""
    group_ids: int = 0

    def group(self, name: str | int) -> Group | None:
        return next((g for g in self.groups.values() if name in (g.name, g.id)), None)


@dataclass(slots=True)
class Stream:
    id: int
    name: str
    topics: dict[int, Topic] = field(default_factory=dict[int, Topic])
    topic_ids: int = 0

    def topic(self, name: str | int) -> Topic | None:
        return next((t for t in self.topics.values() if name in (t.name, t.id)), None)


@dataclass(slots=True)
class Store:
    """What survives a restart."""

    streams: dict[int, Stream] = field(default_factory=dict[int, Stream])
    stream_ids: int = 0

    def stream(self, name: str | int) -> Stream | None:
        return next((s for s in self.streams.values() if name in (s.name, s.id)), None)

    def topic(self, stream: str | int, topic: str | int) -> Topic | None:
        found = self.stream(stream)
        return found.topic(topic) if found else None

    def groups(self) -> list[Group]:
        return [g for s in self.streams.values() for t in s.topics.values() for g in t.groups.values()]

    def lose_tails(self, count: int) -> None:
        """Each partition forgets its last messages, stored offsets are clamped to its head: 0 of an emptied one."""
        for topic in (t for s in self.streams.values() for t in s.topics.values()):
            for partition in topic.partitions:
                partition.lose(count)
            heads = [p.current for p in topic.partitions]
            for key, offset in topic.offsets.items():
                topic.offsets[key] = min(offset, heads[key[1]])
            for group in topic.groups.values():
                for index, offset in group.offsets.items():
                    group.offsets[index] = min(offset, heads[index])
