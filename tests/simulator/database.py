"""One database for all processes, and each process's connection to it: slow, cut or away as the seed says."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any

from kfm_server.clock import Clock, SharedClock
from kfm_server.journal.memory import MemoryJournal, MemoryLeases
from kfm_server.ports.journal import (
    Claim,
    Entry,
    InboxItem,
    JournalUnavailable,
    Lease,
    Runtime,
    Stored,
    TurnRow,
)

from tests.simulator.ledger import Ledger
from tests.simulator.loop import Host, host_context


class Database:
    """The journal and the leases, with their faults. What it does runs on no process's host: a kill leaves it running."""

    def __init__(self, dice: random.Random, clock: Clock, ledger: Ledger, partitions: int) -> None:
        self.dice = dice
        self.clock = clock
        self.memory = MemoryJournal(partitions)
        self.leases = MemoryLeases(self.memory, clock)
        self.memory.before_commit = self._before
        self.memory.after_commit = self._after
        self.committed: Callable[[Entry], None] = lambda entry: None
        self.away_until = 0.0
        self.slow_until = 0.0
        self.refuse = 0.0
        """How often a call fails though the database is there."""
        self.lose_wakeups = 0.0
        self.taken: dict[tuple[int, int], float] = {}
        """When a partition was taken, by its epoch."""
        self._ledger = ledger
        self._writes: dict[int, list[str]] = {}

    async def serve(self, work: Callable[[], Awaitable[Any]], *, append: bool = False) -> tuple[bool, Any]:
        """Do one call. Answers whether it succeeded, and its value or its error."""
        try:
            if not append:  # appends must reach the journal in the order of their calls
                await self._travel()
                self._fail_if_away()
            value = await work()
            await self._travel()
        except Exception as error:
            return False, error
        return True, value

    def remember(self, entry: Entry, writes: list[str]) -> None:
        """Effects that commit with an entry."""
        self._writes[id(entry)] = writes

    async def _travel(self) -> None:
        now = asyncio.get_running_loop().time()
        most = 0.5 if now < self.slow_until else 0.002
        await asyncio.sleep(self.dice.random() * most)

    def _fail_if_away(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self.away_until or self.dice.random() < self.refuse:
            raise JournalUnavailable("the database is away")

    async def _before(self, entry: Entry) -> None:
        await self._travel()
        self._fail_if_away()

    async def _after(self, entry: Entry) -> None:
        self._ledger.committed.extend(self._writes.pop(id(entry), ()))
        self.committed(entry)
        # The answer may be late: the caller does not know for a while. The adapter finds out in the end (the port's promise).
        if self.dice.random() < self.refuse:
            await asyncio.sleep(self.dice.random() * 4)


class Connection:
    """A process's journal and leases."""

    def __init__(self, database: Database, host: Host, clock: SharedClock) -> None:
        self._database = database
        self._clock = clock
        self._memory = database.memory
        self._host = host

    async def _call(self, work: Callable[[], Awaitable[Any]], *, append: bool = False) -> Any:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._database.serve(work, append=append), context=Context())
        good, value = await asyncio.shield(task)
        if not good:
            raise value
        return value

    # -- the journal

    async def append(self, entry: Entry) -> None:
        await self._call(lambda: self._memory.append(entry), append=True)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator["SimTransaction"]:
        yield SimTransaction(self, self._database)

    async def read_turn(self, turn_id: str, after: int, limit: int) -> Sequence[Stored]:
        return await self._call(lambda: self._memory.read_turn(turn_id, after, limit))

    async def read_turns(self, turn_ids: Sequence[str]) -> Sequence[Stored]:
        return await self._call(lambda: self._memory.read_turns(turn_ids))

    async def read_partition(self, partition: int, after: int, limit: int) -> Sequence[Stored]:
        return await self._call(lambda: self._memory.read_partition(partition, after, limit))

    async def read_along(self, partition: int, after: int, limit: int) -> Sequence[Stored]:
        return await self.read_partition(partition, after, limit)

    async def heads(self) -> dict[int, int]:
        return await self._call(self._memory.heads)

    async def turn(self, turn_id: str) -> TurnRow | None:
        return await self._call(lambda: self._memory.turn(turn_id))

    async def list_turns(
        self, *, tenant_id: str, session_id: str, phase: str, before: str, limit: int
    ) -> Sequence[TurnRow]:
        return await self._call(
            lambda: self._memory.list_turns(
                tenant_id=tenant_id, session_id=session_id, phase=phase, before=before, limit=limit
            )
        )

    async def open_turns(self, partition: int) -> Sequence[TurnRow]:
        return await self._call(lambda: self._memory.open_turns(partition))

    async def find_claim(self, tenant_id: str, principal: str, rpc: str, key: str) -> Claim | None:
        return await self._call(lambda: self._memory.find_claim(tenant_id, principal, rpc, key))

    async def put_blob(self, body: bytes) -> str:
        return await self._call(lambda: self._memory.put_blob(body))

    async def get_blob(self, digest: str) -> bytes:
        return await self._call(lambda: self._memory.get_blob(digest))

    # -- the leases

    async def set_clock(self) -> None:
        """As the real one, when it is opened."""
        await self._clock.measure(self._now_us)

    async def acquire(self, owner: str, address: str, *, take_over: bool, most: int) -> Sequence[Lease]:
        await self._clock.measure(self._now_us)
        leases = self._database.leases
        taken = await self._call(lambda: leases.acquire(owner, address, take_over=take_over, most=most))
        now = asyncio.get_running_loop().time()
        self._database.taken.update({(lease.partition, lease.epoch): now for lease in taken})
        return taken

    async def renew(self, owner: str) -> tuple[Sequence[Lease], Sequence[InboxItem]]:
        await self._clock.measure(self._now_us)
        return await self._call(lambda: self._database.leases.renew(owner))

    async def inbox(self, partitions: Sequence[int]) -> Sequence[InboxItem]:
        return await self._call(lambda: self._database.leases.inbox(partitions))

    async def release(self, owner: str, partitions: Sequence[int] | None = None) -> None:
        await self._call(lambda: self._database.leases.release(owner, partitions))

    async def runtimes(self, owner: str, *, here: bool) -> Mapping[str, Runtime]:
        return await self._call(lambda: self._database.leases.runtimes(owner, here=here))

    async def holders(self) -> Sequence[Lease]:
        return await self._call(self._database.leases.holders)

    async def holder(self, partition: int) -> Lease | None:
        return await self._call(lambda: self._database.leases.holder(partition))

    async def post(self, item: InboxItem) -> int:
        return await self._call(lambda: self._database.leases.post(item))

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Call back when a request is posted: a hint, that may be lost."""
        loop = asyncio.get_running_loop()

        def posted() -> None:
            if not self._host.dead and self._database.dice.random() >= self._database.lose_wakeups:
                loop.call_soon(wake, context=host_context(self._host))

        self._database.leases.on_wake(posted)

    async def _now_us(self) -> int:
        return self._database.clock.now_us()


class SimTransaction:
    """Effects that are written with the append, or not at all."""

    def __init__(self, connection: Connection, database: Database) -> None:
        self.connection: list[str] = []
        self.lost = False
        self._connection = connection
        self._database = database

    async def commit(self, entry: Entry) -> None:
        """As the port says."""
        self._database.remember(entry, self.connection)
        await self._connection.append(entry)
