"""The bus in memory: cursors, holds and dead letters as in Postgres, and a broker; gone with the process."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from kfm.event.v1.envelope_pb2 import Envelope

from kfm_server.ports.broker import BrokerUnavailable, Message, Received, check
from kfm_server.ports.bus import JOURNAL, CursorFenced, Hold, Letter, Position, channel_of
from kfm_server.ports.journal import Claim


class MemoryBusStore:
    """CursorStore and LetterStore in memory."""

    def __init__(self) -> None:
        self._cursors: dict[tuple[str, str, int], tuple[int, int]] = {}
        self._holds: dict[tuple[str, str], tuple[int, Hold]] = {}
        self._letters: dict[str, Letter] = {}
        self._open: set[str] = set()
        self._claims: dict[tuple[str, str, str, str], bytes] = {}

    async def open(self, group: str, partition: int, epoch: int, channel: str = JOURNAL) -> Position:
        """As the port says."""
        offset, before = self._cursors.get((group, channel, partition), (0, 0))
        if before > epoch:
            raise CursorFenced(group, partition)
        self._cursors[(group, channel, partition)] = (offset, epoch)
        holds = await self.holds(group, partition)
        return Position(offset, tuple(hold for hold in holds if channel_of(hold.key) == channel))

    async def holds(self, group: str, partition: int) -> Sequence[Hold]:
        """As the port says."""
        holds = [
            hold for (owner, _), (where, hold) in self._holds.items() if owner == group and where == partition
        ]
        return sorted(holds, key=lambda hold: hold.offset)

    def _fence(self, group: str, partition: int, epoch: int, channel: str) -> int:
        offset, mine = self._cursors.get((group, channel, partition), (0, -1))
        if mine != epoch:
            raise CursorFenced(group, partition)
        return offset

    async def commit(
        self, group: str, partition: int, epoch: int, offset: int, channel: str = JOURNAL
    ) -> None:
        """As the port says."""
        before = self._fence(group, partition, epoch, channel)
        self._cursors[(group, channel, partition)] = (max(before, offset), epoch)

    async def reset(self, group: str, partition: int, epoch: int, offset: int, channel: str) -> None:
        """As the port says."""
        self._fence(group, partition, epoch, channel)
        self._cursors[(group, channel, partition)] = (offset, epoch)
        for hold in await self.holds(group, partition):
            if channel_of(hold.key) == channel:
                del self._holds[(group, hold.key)]

    async def bury(self, letter: Letter, epoch: int, cursor: int, channel: str = JOURNAL) -> None:
        """As the port says."""
        await self.commit(letter.group, letter.partition, epoch, cursor, channel)
        await self.keep(letter)
        hold = Hold(letter.key, letter.offset, letter.reason)
        self._holds[(letter.group, letter.key)] = (letter.partition, hold)

    async def keep(self, letter: Letter) -> None:
        """As the port says."""
        self._letters[letter.id] = letter
        self._open.add(letter.id)

    async def advance(
        self, group: str, partition: int, epoch: int, key: str, offset: int, channel: str = JOURNAL
    ) -> None:
        """As the port says."""
        self._fence(group, partition, epoch, channel)
        where, hold = self._holds[(group, key)]
        self._holds[(group, key)] = (where, replace(hold, offset=offset))

    async def lift(self, group: str, partition: int, epoch: int, key: str, channel: str = JOURNAL) -> None:
        """As the port says."""
        self._fence(group, partition, epoch, channel)
        self._holds.pop((group, key), None)

    async def released(self, group: str) -> frozenset[int]:
        """As the port says."""
        return frozenset(
            where for (owner, _), (where, hold) in self._holds.items() if owner == group and hold.released
        )

    async def letters(
        self, tenant_id: str, group: str, after: tuple[int, str], limit: int
    ) -> Sequence[Letter]:
        """As the port says."""
        found = [
            letter
            for letter in map(self._letters.__getitem__, self._open)
            if letter.tenant_id == tenant_id
            and (not group or letter.group == group)
            and (letter.created_us, letter.id) > after
        ]
        return sorted(found, key=lambda letter: (letter.created_us, letter.id))[:limit]

    async def letter(self, tenant_id: str, id: str) -> Letter | None:
        """As the port says."""
        letter = self._letters.get(id)
        return letter if letter is not None and id in self._open and letter.tenant_id == tenant_id else None

    async def settle(self, claim: Claim, id: str, *, drop: bool) -> bytes | None:
        """As the port says."""
        key = (claim.tenant_id, claim.principal, claim.rpc, claim.key)
        if key in self._claims:
            return self._claims[key]
        letter = await self.letter(claim.tenant_id, id)
        if letter is None:
            return None
        self._claims[key] = claim.digest
        self._open.discard(id)
        if (letter.group, letter.key) in self._holds:
            where, hold = self._holds[(letter.group, letter.key)]
            offset = letter.offset + 1 if drop else letter.offset
            self._holds[(letter.group, letter.key)] = (where, replace(hold, offset=offset, released=True))
        return claim.digest


class MemoryAuditLog:
    """AuditLog in memory."""

    def __init__(self) -> None:
        self._events: dict[str, Envelope] = {}

    async def add(self, events: Sequence[Envelope]) -> None:
        """As the port says."""
        for event in events:
            self._events.setdefault(event.event_id, event)

    async def audited(self, tenant_id: str) -> Sequence[Envelope]:
        """As the port says."""
        found = [event for event in self._events.values() if event.tenant_id == tenant_id]
        return sorted(found, key=lambda event: (event.timestamp.ToMicroseconds(), event.event_id))


class MemoryBroker:
    """Broker in memory. `away`: it cannot be reached; `wipe` and `lose`: what a broken disk does to it."""

    def __init__(self, partitions: int = 16) -> None:
        self.partitions = partitions
        self.away = False
        self.refused = asyncio.Event()
        """Set when somebody found it away."""
        self.published: list[Callable[[], None]] = []
        """Called after each publication."""
        self._logs: dict[tuple[str, int], list[Received]] = defaultdict(list)
        self._groups: dict[tuple[str, str], _Members] = {}

    async def publish(self, topic: str, partition: int, messages: Sequence[Message]) -> None:
        """As the port says."""
        self.reach()
        for message in messages:
            check(message)
        log, now_us = self._log(topic, partition), time.time_ns() // 1000
        for m in messages:
            log.append(Received(partition, len(log) + 1, m.payload, m.id, dict(m.headers), now_us))
        for callback in tuple(self.published):
            callback()

    async def heads(self, topic: str) -> Mapping[int, int]:
        """As the port says."""
        self.reach()
        return {partition: len(self._logs[topic, partition]) for partition in range(self.partitions)}

    async def read(self, topic: str, partition: int, after: int, limit: int) -> Sequence[Received]:
        """As the port says."""
        self.reach()
        return self._log(topic, partition)[max(after, 0) : max(after, 0) + limit]

    @asynccontextmanager
    async def group(self, name: str, topic: str) -> AsyncGenerator["MemoryWorkGroup"]:
        """A member to be of a group of workers on a topic; it has left at the end."""
        member = MemoryWorkGroup(self, self._group(name, topic), topic)
        try:
            yield member
        finally:
            await member.leave()

    async def committed(self, name: str, topic: str) -> Mapping[int, int]:
        """How far a group has come in each partition; for its lag."""
        self.reach()
        committed = self._group(name, topic).committed
        return {partition: committed.get(partition, 0) for partition in range(self.partitions)}

    def _group(self, name: str, topic: str) -> "_Members":
        return self._groups.setdefault((name, topic), _Members(self.partitions))

    def wipe(self) -> None:
        """Lose everything, but what groups have committed and who is in them."""
        self._logs.clear()

    def lose(self, topic: str, partition: int, after: int) -> None:
        """Lose the messages with offset > after; their offsets are given out again."""
        del self._logs[topic, partition][after:]

    def reach(self) -> None:
        """Raises BrokerUnavailable while it is away."""
        if self.away:
            self.refused.set()
            raise BrokerUnavailable("the broker is away")

    def _log(self, topic: str, partition: int) -> list[Received]:
        if not 0 <= partition < self.partitions:
            raise ValueError(f"partition {partition} of {self.partitions}")
        return self._logs[topic, partition]


class _Members:
    """A group of workers: its members in the order in which they joined, who has which partition, and what is committed."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.members: list[MemoryWorkGroup] = []
        self.committed: dict[int, int] = {}
        self.given: dict[int, int] = {}
        """How far a partition's owner has read."""
        self._owners: dict[int, MemoryWorkGroup] = {}

    def wanted(self, partition: int) -> "MemoryWorkGroup | None":
        """Whose it is to be."""
        return self.members[partition % len(self.members)] if self.members else None

    def owner(self, partition: int) -> "MemoryWorkGroup | None":
        """Whose it is. It goes to whom it is to be when what was read of it is committed, or its owner is gone."""
        owner, wanted = self._owners.get(partition), self.wanted(partition)
        drained = self.given.get(partition, 0) <= self.committed.get(partition, 0)
        if wanted is not None and wanted is not owner and (drained or owner not in self.members):
            self._owners[partition] = owner = wanted
            self.given.pop(partition, None)
        return owner


class MemoryWorkGroup:
    """WorkGroup in memory. What was read and not committed keeps a partition, for ever if need be."""

    def __init__(self, broker: MemoryBroker, group: _Members, topic: str) -> None:
        self._broker = broker
        self._group = group
        self._topic = topic

    async def join(self) -> None:
        """As the port says."""
        self._broker.reach()
        if self not in self._group.members:
            self._group.members.append(self)

    async def assigned(self) -> Mapping[int, int]:
        """As the port says."""
        self._broker.reach()
        group = self._group
        mine = [p for p in range(group.partitions) if group.owner(p) is self and group.wanted(p) is self]
        return {partition: group.committed.get(partition, 0) for partition in mine}

    async def read(self, partition: int, after: int, limit: int) -> Sequence[Received]:
        """As the port says."""
        found = await self._broker.read(self._topic, partition, after, limit)
        if self._group.owner(partition) is not self:
            return []
        if found:
            self._group.given[partition] = max(found[-1].offset, self._group.given.get(partition, 0))
        return found

    async def commit(self, partition: int, offset: int) -> None:
        """As the port says."""
        self._broker.reach()
        if self._group.owner(partition) is self:
            self._group.committed[partition] = offset

    async def leave(self) -> None:
        """As the port says."""
        if self in self._group.members:
            self._group.members.remove(self)
