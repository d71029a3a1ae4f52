"""Cursors, holds and dead letters in memory: the same promises as Postgres, gone with the process."""

from collections.abc import Sequence
from dataclasses import replace

from kfm.event.v1.envelope_pb2 import Envelope

from kfm_server.ports.bus import CursorFenced, Hold, Letter, Position
from kfm_server.ports.journal import Claim


class MemoryBusStore:
    """CursorStore and LetterStore in memory."""

    def __init__(self) -> None:
        self._cursors: dict[tuple[str, int], tuple[int, int]] = {}
        self._holds: dict[tuple[str, str], tuple[int, Hold]] = {}
        self._letters: dict[str, Letter] = {}
        self._open: set[str] = set()
        self._claims: dict[tuple[str, str, str, str], bytes] = {}

    async def open(self, group: str, partition: int, epoch: int) -> Position:
        """As the port says."""
        offset, before = self._cursors.get((group, partition), (0, 0))
        if before > epoch:
            raise CursorFenced(group, partition)
        self._cursors[(group, partition)] = (offset, epoch)
        return Position(offset, tuple(await self.holds(group, partition)))

    async def holds(self, group: str, partition: int) -> Sequence[Hold]:
        """As the port says."""
        holds = [
            hold for (owner, _), (where, hold) in self._holds.items() if owner == group and where == partition
        ]
        return sorted(holds, key=lambda hold: hold.offset)

    def _fence(self, group: str, partition: int, epoch: int) -> int:
        offset, mine = self._cursors.get((group, partition), (0, -1))
        if mine != epoch:
            raise CursorFenced(group, partition)
        return offset

    async def commit(self, group: str, partition: int, epoch: int, offset: int) -> None:
        """As the port says."""
        self._cursors[(group, partition)] = (max(self._fence(group, partition, epoch), offset), epoch)

    async def bury(self, letter: Letter, epoch: int, cursor: int) -> None:
        """As the port says."""
        await self.commit(letter.group, letter.partition, epoch, cursor)
        await self.keep(letter)
        hold = Hold(letter.key, letter.offset, letter.reason)
        self._holds[(letter.group, letter.key)] = (letter.partition, hold)

    async def keep(self, letter: Letter) -> None:
        """As the port says."""
        self._letters[letter.id] = letter
        self._open.add(letter.id)

    async def advance(self, group: str, partition: int, epoch: int, key: str, offset: int) -> None:
        """As the port says."""
        self._fence(group, partition, epoch)
        where, hold = self._holds[(group, key)]
        self._holds[(group, key)] = (where, replace(hold, offset=offset))

    async def lift(self, group: str, partition: int, epoch: int, key: str) -> None:
        """As the port says."""
        self._fence(group, partition, epoch)
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
