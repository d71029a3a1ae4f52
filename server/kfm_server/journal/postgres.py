"""The journal in Postgres."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

from kfm_server import failpoints
from kfm_server.journal.faults import Fault, fault_of
from kfm_server.journal.pool import close_pool, cut, gone, open_pool, repeat
from kfm_server.journal.queries import query
from kfm_server.journal.tail import Tail
from kfm_server.journal.transaction import PostgresTransaction
from kfm_server.journal.writer import AWAY_SECONDS, Writer
from kfm_server.ports.journal import Claim, Entry, JournalUnavailable, NoPlace, Stored, TurnRow

TRANSACTIONS = 8
"""TRANSACTIONAL steps that run at one time in a process, each on a connection of its own: they take none from the readers."""
PLACE_SECONDS = 1.5
"""How long another one waits for a place: less than the two seconds within which a step is to start."""
_BEFORE = failpoints.declare("journal.append.before")
_AFTER = failpoints.declare("journal.append.after")


class PostgresJournal:
    """The port `Journal` over a migrated database. Made by `open`."""

    def __init__(
        self,
        pool: Any,
        lent: Any,
        places: int,
        dsn: str,
        on_failure: Callable[[BaseException], None] | None,
    ) -> None:
        self._pool = pool
        self._lent = lent
        self._places = asyncio.Semaphore(places)
        self._watchers: list[Callable[[frozenset[int]], None]] = []
        self._tail = Tail()
        self.writer = Writer(dsn, self._tail, on_failure=on_failure, on_commit=self._committed)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        dsn: str,
        *,
        on_failure: Callable[[BaseException], None] | None = None,
        readers: int = 8,
        transactions: int = TRANSACTIONS,
        away_seconds: float = AWAY_SECONDS,
    ) -> AsyncGenerator["PostgresJournal"]:
        """Connect; on leaving, commit what is queued and close.

        `on_failure` is told if the writer dies: the process must end then. `readers` and `transactions` bound
        the connections beside the writer's. Raises OSError or asyncpg.PostgresError.
        """
        async with AsyncExitStack() as stack:
            pool = await open_pool(dsn, "kfm-journal", readers)
            stack.push_async_callback(close_pool, pool)
            lent = await open_pool(dsn, "kfm-journal-transactions", transactions, idle_seconds=5.0)
            stack.push_async_callback(close_pool, lent)
            journal = cls(pool, lent, transactions, dsn, on_failure)
            journal.writer.away_seconds = away_seconds
            await journal.writer.open()
            stack.push_async_callback(journal.writer.close)
            yield journal

    def _committed(self, partitions: frozenset[int]) -> None:
        for watcher in tuple(self._watchers):
            watcher(partitions)

    @contextmanager
    def watch(self, callback: Callable[[frozenset[int]], None]) -> Generator[None]:
        """Call back with the partitions that grew, after each commit of this process, in the context."""
        self._watchers.append(callback)
        try:
            yield
        finally:
            self._watchers.remove(callback)

    async def append(self, entry: Entry) -> None:
        """As the port says."""
        failpoints.hit(_BEFORE)
        await self.writer.append(entry)
        failpoints.hit(_AFTER)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[PostgresTransaction]:
        """As the port says; at READ COMMITTED. Its `connection` must not outlive the context."""
        async with self._place():
            try:
                connection = await self._lent.acquire(timeout=5)
            except Exception as error:
                if fault_of(error) is Fault.ROW:
                    raise
                raise JournalUnavailable(repr(error)) from error
            transaction = PostgresTransaction(self._pool, connection, self._tail, self._committed)
            try:
                try:
                    await transaction.begin()
                except Exception as error:
                    raise JournalUnavailable(repr(error)) from error
                yield transaction
            finally:
                await self._take_back(transaction, connection)

    @asynccontextmanager
    async def _place(self) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout(PLACE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise NoPlace from None
        try:
            yield
        finally:
            self._places.release()

    async def _take_back(self, transaction: PostgresTransaction, connection: Any) -> None:
        """Roll back and clean; what the tool left in its session must reach nobody else."""
        try:
            await transaction.rollback()
            if not gone(connection):
                await connection.reset()
        except BaseException as error:
            cut(connection)  # which rolls back, too
            if not isinstance(error, Exception):
                raise
        finally:
            await self._lent.release(connection)

    async def rows(self, name: str, *arguments: object) -> Sequence[Any]:
        """What the statement `sql/<name>.sql`, a read, answers. Raises JournalUnavailable."""
        text = query(name)
        return await repeat(self._pool, lambda connection: connection.fetch(text, *arguments))

    async def read_turn(self, turn_id: str, after: int, limit: int) -> Sequence[Stored]:
        """As the port says."""
        return [Stored(*row) for row in await self.rows("read_turn", turn_id, after, limit)]

    async def read_turns(self, turn_ids: Sequence[str]) -> Sequence[Stored]:
        """As the port says."""
        return [Stored(*row) for row in await self.rows("read_turns", list(set(turn_ids)))]

    async def read_partition(self, partition: int, after: int, limit: int) -> Sequence[Stored]:
        """As the port says."""
        return [Stored(*row) for row in await self.rows("read_partition", partition, after, limit)]

    async def read_along(self, partition: int, after: int, limit: int) -> Sequence[Stored]:
        """As the port says."""
        return self._tail.read(partition, after, limit) or await self.read_partition(partition, after, limit)

    async def heads(self) -> dict[int, int]:
        """As the port says."""
        return {row["partition"]: row["offset"] for row in await self.rows("heads")}

    async def turn(self, turn_id: str) -> TurnRow | None:
        """As the port says."""
        for row in await self.rows("turn", turn_id):
            return TurnRow(*row)
        return None

    async def list_turns(
        self, *, tenant_id: str, session_id: str, phase: str, before: str, limit: int
    ) -> Sequence[TurnRow]:
        """As the port says."""
        rows = await self.rows("list_turns", tenant_id, session_id, phase, before, limit)
        return [TurnRow(*row) for row in rows]

    async def open_turns(self, partition: int) -> Sequence[TurnRow]:
        """As the port says."""
        return [TurnRow(*row) for row in await self.rows("open_turns", partition)]

    async def find_claim(self, tenant_id: str, principal: str, rpc: str, key: str) -> Claim | None:
        """As the port says."""
        for row in await self.rows("find_claim", tenant_id, principal, rpc, key):
            return Claim(*row)
        return None

    async def put_blob(self, body: bytes) -> str:
        """As the port says."""
        digest = hashlib.sha256(body).hexdigest()
        await self.rows("put_blob", digest, body)
        return digest

    async def get_blob(self, digest: str) -> bytes:
        """As the port says."""
        for row in await self.rows("get_blob", digest):
            return row["body"]
        raise KeyError(digest)
