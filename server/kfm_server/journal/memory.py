"""The journal and its leases in memory: the same promises as Postgres, gone with the process."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from kfm_server import failpoints
from kfm_server.clock import Clock, SystemClock
from kfm_server.journal.checks import behind, check_entry, turns_of
from kfm_server.ports.journal import (
    Claim,
    Claimed,
    Entry,
    Fenced,
    InboxItem,
    Lease,
    Record,
    Rejected,
    Runtime,
    Stored,
    TurnRow,
)

Hook = Callable[[Entry], Awaitable[None]]

BEFORE_APPEND = failpoints.declare("journal.append.before")
AFTER_APPEND = failpoints.declare("journal.append.after")


@dataclass(slots=True, eq=False)
class _Waiting:
    turns: frozenset[str]
    doom: Exception | None = None


class MemoryJournal:
    """A journal in memory.

    `before_commit` and `after_commit` are awaited around each append, for fault injection: an error
    from the first means that nothing was written, an error from the second that all was.
    Without hooks an append does not suspend.
    """

    def __init__(self, partitions: int = 16) -> None:
        self.partitions = partitions
        self.epochs = dict.fromkeys(range(partitions), 0)
        self.before_commit: Hook | None = None
        self.after_commit: Hook | None = None
        self.inbox: dict[int, InboxItem] = {}
        self.leases: dict[int, tuple[Lease, float]] = {}
        self.runtimes: dict[str, float] = {}
        self.posted: list[Callable[[], None]] = []
        self._next_item = 1
        self._log: dict[int, list[Stored]] = defaultdict(list)
        self._by_turn: dict[str, dict[int, Stored]] = defaultdict(dict)
        self._turns: dict[str, TurnRow] = {}
        self._claims: dict[tuple[str, str, str, str], Claim] = {}
        self._blobs: dict[str, bytes] = {}
        self._watchers: list[Callable[[frozenset[int]], None]] = []
        self._order = asyncio.Lock()
        self._waiting: list[_Waiting] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def append(self, entry: Entry) -> None:
        """As the port says."""
        if self.before_commit is None and self.after_commit is None and not self._waiting:
            self._commit(entry)
            return
        place = _Waiting(turns_of(entry))
        self._waiting.append(place)
        task = asyncio.create_task(self._append_in_order(entry, place), name="memory-journal-append")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        await asyncio.shield(task)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    async def _append_in_order(self, entry: Entry, place: _Waiting) -> None:
        try:
            async with self._order:
                if place.doom is not None:
                    raise place.doom
                if self.before_commit is not None:
                    await self.before_commit(entry)
                self._commit(entry)
        except Exception as error:
            for other in self._waiting[self._waiting.index(place) + 1 :]:
                if other.doom is None and not place.turns.isdisjoint(other.turns):
                    other.doom = behind(error)
            raise
        finally:
            self._waiting.remove(place)
        if self.after_commit is not None:
            await self.after_commit(entry)

    def _commit(self, entry: Entry) -> None:
        failpoints.hit(BEFORE_APPEND)
        check_entry(entry)
        if self.epochs.get(entry.partition) != entry.epoch:
            raise Fenced(entry.partition)
        claim = entry.claim
        if claim is not None:
            taken = self._claims.get((claim.tenant_id, claim.principal, claim.rpc, claim.key))
            if taken is not None:
                raise Claimed(taken)
        for record in entry.records:
            if record.turn_id and record.sequence in self._by_turn.get(record.turn_id, ()):
                raise Rejected(f"{record.turn_id}: sequence {record.sequence} is used")
        if claim is not None:
            self._claims[(claim.tenant_id, claim.principal, claim.rpc, claim.key)] = claim
        log = self._log[entry.partition]
        for record in entry.records:
            self._store(log, entry, record)
        for turn in entry.turns:
            self._turns[turn.turn_id] = turn
        for id in entry.consumed:
            item = self.inbox.get(id)
            if item is not None and item.partition == entry.partition:
                del self.inbox[id]
        failpoints.hit(AFTER_APPEND)
        if entry.records:
            for watcher in tuple(self._watchers):
                watcher(frozenset((entry.partition,)))

    def _store(self, log: list[Stored], entry: Entry, record: Record) -> None:
        stored = Stored(
            entry.partition,
            len(log) + 1,
            entry.epoch,
            record.turn_id,
            record.sequence,
            record.topic,
            record.envelope,
        )
        log.append(stored)
        if record.turn_id:
            self._by_turn[record.turn_id][record.sequence] = stored

    def put_inbox(self, item: InboxItem) -> int:
        """Store an item under the next id, which it answers, and tell those who wait for one."""
        id = self._next_item
        self.inbox[id] = replace(item, id=id)
        self._next_item += 1
        for callback in tuple(self.posted):
            callback()
        return id

    @contextmanager
    def watch(self, callback: Callable[[frozenset[int]], None]) -> Generator[None]:
        """Call back with the partitions that grew, after each commit, while the context lasts."""
        self._watchers.append(callback)
        try:
            yield
        finally:
            self._watchers.remove(callback)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator["MemoryTransaction"]:
        """As the port says; the connection is None."""
        yield MemoryTransaction(self)

    async def read_turn(self, turn_id: str, after: int, limit: int) -> Sequence[Stored]:
        """As the port says."""
        found = self._by_turn.get(turn_id, {})
        return [found[n] for n in sorted(found) if n > after][:limit]

    async def read_turns(self, turn_ids: Sequence[str]) -> Sequence[Stored]:
        """As the port says."""
        found = [s for id in set(turn_ids) for s in self._by_turn.get(id, {}).values()]
        return sorted(found, key=lambda s: (s.partition, s.offset))

    async def read_partition(self, partition: int, after: int, limit: int) -> Sequence[Stored]:
        """As the port says."""
        return self._log[partition][max(after, 0) : max(after, 0) + limit]

    async def read_along(self, partition: int, after: int, limit: int) -> Sequence[Stored]:
        """As the port says."""
        return await self.read_partition(partition, after, limit)

    async def heads(self) -> dict[int, int]:
        """As the port says."""
        return {partition: len(log) for partition, log in self._log.items() if log}

    async def turn(self, turn_id: str) -> TurnRow | None:
        """As the port says."""
        return self._turns.get(turn_id)

    async def list_turns(
        self, *, tenant_id: str, session_id: str, phase: str, before: str, limit: int
    ) -> Sequence[TurnRow]:
        """As the port says."""
        return [
            turn
            for id, turn in sorted(self._turns.items(), reverse=True)
            if (not tenant_id or turn.tenant_id == tenant_id)
            and (not session_id or turn.session_id == session_id)
            and (not phase or turn.phase == phase)
            and (not before or id < before)
        ][:limit]

    async def open_turns(self, partition: int) -> Sequence[TurnRow]:
        """As the port says."""
        found = [t for t in self._turns.values() if t.partition == partition and t.phase != "finished"]
        return sorted(found, key=lambda t: (t.submitted_us, t.turn_id))

    async def find_claim(self, tenant_id: str, principal: str, rpc: str, key: str) -> Claim | None:
        """As the port says."""
        return self._claims.get((tenant_id, principal, rpc, key))

    async def put_blob(self, body: bytes) -> str:
        """As the port says."""
        digest = hashlib.sha256(body).hexdigest()
        self._blobs[digest] = bytes(body)
        return digest

    async def get_blob(self, digest: str) -> bytes:
        """As the port says."""
        return self._blobs[digest]


class MemoryTransaction:
    """A transaction that has nothing to roll back: the tool gets no connection."""

    connection = None
    lost = False

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal

    async def commit(self, entry: Entry) -> None:
        """As `Journal.append`."""
        await self._journal.append(entry)


class MemoryLeases:
    """Leases over a MemoryJournal, timed by the monotonic clock; several may share one journal's table."""

    def __init__(self, journal: MemoryJournal, clock: Clock | None = None, seconds: float = 3.0) -> None:
        self._journal = journal
        self._clock = clock or SystemClock()
        self._seconds = seconds
        self._held = journal.leases

    async def acquire(self, owner: str, address: str, *, take_over: bool, most: int) -> Sequence[Lease]:
        """As the port says."""
        now = self._clock.monotonic()
        if take_over:
            self._journal.runtimes.clear()
        taken: list[Lease] = []
        for partition in range(self._journal.partitions):
            if len(taken) >= most:
                break
            held = self._held.get(partition)
            if held is not None and held[1] > now and not take_over:
                continue
            epoch = self._journal.epochs[partition] + 1
            self._journal.epochs[partition] = epoch
            lease = Lease(partition, epoch, owner, address, clean=take_over or held is None)
            self._held[partition] = (lease, now + self._seconds)
            taken.append(lease)
        return taken

    async def renew(self, owner: str) -> tuple[Sequence[Lease], Sequence[InboxItem]]:
        """As the port says."""
        until = self._clock.monotonic() + self._seconds
        kept = [lease for _, (lease, _) in sorted(self._held.items()) if lease.owner == owner]
        for lease in kept:
            self._held[lease.partition] = (lease, until)
        return kept, await self.inbox([lease.partition for lease in kept])

    async def inbox(self, partitions: Sequence[int]) -> Sequence[InboxItem]:
        """As the port says."""
        return [item for _, item in sorted(self._journal.inbox.items()) if item.partition in partitions]

    async def release(self, owner: str, partitions: Sequence[int] | None = None) -> None:
        """As the port says."""
        for partition in [p for p, (lease, _) in self._held.items() if lease.owner == owner]:
            if partitions is None or partition in partitions:
                del self._held[partition]
        for wake in tuple(self._journal.posted):
            wake()

    async def runtimes(self, owner: str, *, here: bool) -> Mapping[str, Runtime]:
        """As the port says."""
        now, known = self._clock.monotonic(), self._journal.runtimes
        if here:
            known[owner] = now + self._seconds
        else:
            known.pop(owner, None)
        found: dict[str, Runtime] = {}
        for name, until in known.items():
            held = [ends for lease, ends in self._held.values() if lease.owner == name and ends > now]
            if (last := max((until, *held))) > now:
                found[name] = Runtime(len(held), last - now)
        return found

    async def holders(self) -> Sequence[Lease]:
        """As the port says."""
        return [lease for lease, until in self._held.values() if until > self._clock.monotonic()]

    async def holder(self, partition: int) -> Lease | None:
        """As the port says."""
        held = self._held.get(partition)
        return held[0] if held is not None and held[1] > self._clock.monotonic() else None

    async def post(self, item: InboxItem) -> int:
        """As the port says."""
        return self._journal.put_inbox(item)

    def on_wake(self, callback: Callable[[], None]) -> None:
        """Call it whenever an item is posted, or leases are given back."""
        self._journal.posted.append(callback)
