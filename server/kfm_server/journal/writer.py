"""Group commit: one task that takes whatever is queued and commits it with one statement."""

import asyncio
import random
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg

from kfm_server import failpoints
from kfm_server.journal.batch import answer, encode, read_back
from kfm_server.journal.checks import behind, check_entry, turns_of
from kfm_server.journal.faults import Fault, fault_of
from kfm_server.journal.queries import query
from kfm_server.journal.tail import Tail
from kfm_server.ports.journal import Entry, JournalUnavailable, Rejected

MOST_EVENTS = 512
MOST_BYTES = 1 << 20
AWAY_SECONDS = 30.0
"""How long Postgres may be away before what waits fails with JournalUnavailable."""

_CALL_SECONDS = 20.0
_BEFORE = failpoints.declare("journal.commit.before")
_AFTER = failpoints.declare("journal.commit.after")


class _Item:
    """An entry on its way. `sent`: it may have been committed, and nobody knows yet."""

    __slots__ = ("done", "entry", "error", "sent", "settled", "turns")

    def __init__(self, entry: Entry, done: asyncio.Future[None]) -> None:
        self.entry = entry
        self.done = done
        self.turns = turns_of(entry)
        self.sent = False
        self.settled = False
        self.error: Exception | None = None

    def settle(self, error: Exception | None) -> None:
        """Its end. A waiter that was cancelled is skipped: setting its future would raise."""
        if self.settled:
            return
        self.settled, self.error = True, error
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Writer:
    """The only writer of a process. `open` before use; `close` after.

    `on_failure` is called, once, if the writing task dies: nothing can be appended any more, so the
    process has to end. `on_commit` is told the partitions that grew; `tail` has what was committed by then.
    """

    def __init__(
        self,
        dsn: str,
        tail: Tail,
        *,
        on_failure: Callable[[BaseException], None] | None = None,
        on_commit: Callable[[frozenset[int]], None] | None = None,
        away_seconds: float = AWAY_SECONDS,
    ) -> None:
        self._dsn = dsn
        self._tail = tail
        self._on_failure = on_failure
        self._on_commit = on_commit
        self.away_seconds = away_seconds
        self._name = f"kfm-writer-{secrets.token_hex(6)}"
        self._queue: deque[_Item] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._connection: Any = None
        self._append: Any = None
        self._had_connection = False
        self._stopped: str = ""
        self._unavailable = False
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect and start the task. Raises OSError or asyncpg.PostgresError."""
        await self._connect()
        self._task = asyncio.create_task(self._run(), name="journal-writer")
        self._task.add_done_callback(self._ended)

    async def close(self, patience: float = 5.0) -> None:
        """Commit what is queued, for at most `patience` seconds, and stop; what is left fails."""
        self._stopped = self._stopped or "the journal is closed"
        task, self._task = self._task, None
        if task is not None:
            if not task.done():
                try:
                    async with asyncio.timeout(patience):
                        await self._idle.wait()
                except TimeoutError:
                    pass
            task.remove_done_callback(self._ended)
            task.cancel()
            await asyncio.wait((task,))
        self._fail_queue(self._stopped)
        self._drop_connection()

    async def append(self, entry: Entry) -> None:
        """As `Journal.append`. Cancelling leaves the entry in the queue."""
        check_entry(entry)
        if self._stopped or self._unavailable:
            raise JournalUnavailable(self._stopped or "Postgres is away")
        item = _Item(entry, asyncio.get_running_loop().create_future())
        self._queue.append(item)
        self._idle.clear()
        self._wake.set()
        await item.done

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self._stopped = f"the journal's writer died: {error!r}"
        self._fail_queue(self._stopped)
        if self._on_failure is not None:
            self._on_failure(error or RuntimeError("the journal's writer ended"))

    def _fail_queue(self, why: str) -> None:
        while self._queue:
            self._queue.popleft().settle(JournalUnavailable(why))

    async def _run(self) -> None:
        while True:
            if not self._queue:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
                continue
            await self._gather()
            batch = self._take()
            try:
                await self._settle(batch)
            finally:
                for item in batch:
                    item.settle(JournalUnavailable("the journal is closed"))

    async def _gather(self) -> None:
        """Let what is on its way arrive: go on once a pass of the loop has brought nothing more."""
        before = 0
        while before < len(self._queue) < MOST_EVENTS:
            before = len(self._queue)
            await asyncio.sleep(0)

    def _take(self) -> list[_Item]:
        """The next batch: different keys, and nothing of a turn behind an entry that may be refused by key."""
        batch: list[_Item] = []
        events = size = 0
        keys: set[tuple[str, str, str, str]] = set()
        uncertain: set[str] = set()
        while self._queue:
            item = self._queue[0]
            entry, claim = item.entry, item.entry.claim
            key = claim and (claim.tenant_id, claim.principal, claim.rpc, claim.key)
            events += max(1, len(entry.records))
            size += sum(len(record.envelope) for record in entry.records)
            if batch and (
                events > MOST_EVENTS
                or size > MOST_BYTES
                or key in keys
                or not uncertain.isdisjoint(item.turns)
            ):
                break
            batch.append(self._queue.popleft())
            if key:
                keys.add(key)
                uncertain |= item.turns
        return batch

    async def _settle(self, items: Sequence[_Item]) -> None:
        """See to it that each item comes to its end: one statement if all goes well."""
        items = list(items)
        since: float | None = None
        loop = asyncio.get_running_loop()
        while items:
            try:
                if any(item.sent for item in items):
                    items = await self._find_out(items, since)
                    continue
                refused = await self._send(items)
            except Exception as error:
                fault = fault_of(error)
                if fault is Fault.ROW:
                    await self._one_by_one(items, error)
                    return
                if fault is Fault.LOST:
                    self._drop_connection()
                else:
                    for item in items:
                        item.sent = False
                since = loop.time() if since is None else since
                if loop.time() - since > self.away_seconds:
                    items = self._give_up(items, error)
                await asyncio.sleep(random.uniform(0.02, 0.1) if loop.time() - since < 1 else 0.5)
            else:
                self._finish(items, refused)
                return

    async def _send(self, items: Sequence[_Item]) -> dict[int, Exception]:
        entries = [item.entry for item in items]
        arguments = encode(entries)
        if self._connection is None or self._connection.is_closed():
            await self._connect()
        failpoints.hit(_BEFORE)
        for item in items:
            item.sent = True
        try:
            rows = await self._append.fetch(*arguments, timeout=_CALL_SECONDS)
        except Exception as error:
            if fault_of(error) is not Fault.LOST:
                for item in items:
                    item.sent = False
            raise
        failpoints.hit(_AFTER)
        refused, heads = answer(entries, rows)
        self._tail.add([entry for n, entry in enumerate(entries) if n not in refused], heads)
        return dict(refused)

    def _finish(self, items: Sequence[_Item], refused: dict[int, Exception]) -> None:
        self._unavailable = False
        grown = {item.entry.partition for n, item in enumerate(items) if n not in refused}
        for n, item in enumerate(items):
            error = refused.get(n)
            if error is None:
                item.settle(None)
            else:
                item.settle(error)
                self._fail_behind(item, error)
        if grown and self._on_commit is not None:
            self._on_commit(frozenset(grown))

    async def _one_by_one(self, items: Sequence[_Item], error: Exception) -> None:
        """A row of the batch is bad: only its entry, and what stands behind it in its turn, fails."""
        if len(items) == 1:
            rejected = Rejected(str(error))
            items[0].settle(rejected)
            self._fail_behind(items[0], rejected)
            return
        lost: dict[str, Exception] = {}
        for item in items:
            before = next((lost[turn] for turn in item.turns if turn in lost), None)
            if before is not None:
                item.settle(behind(before))
                self._fail_behind(item, before)
            else:
                await self._settle((item,))
            if item.error is not None:
                lost.update(dict.fromkeys(item.turns, item.error))

    def _fail_behind(self, item: _Item, error: Exception) -> None:
        turns = set(item.turns)
        kept: deque[_Item] = deque()
        for other in self._queue:
            if turns.isdisjoint(other.turns):
                kept.append(other)
            else:
                turns |= other.turns
                other.settle(behind(error))
        self._queue = kept

    async def _find_out(self, items: Sequence[_Item], since: float | None) -> list[_Item]:
        """Read back what may have been committed; answers what has to be sent again."""
        if self._connection is None or self._connection.is_closed():
            await self._connect()
        async with asyncio.timeout(_CALL_SECONDS):
            there = await read_back(self._connection, [item.entry for item in items])
        left = [item for item, found in zip(items, there, strict=True) if not found]
        self._finish([item for item, found in zip(items, there, strict=True) if found], {})
        for item in left:
            item.sent = False
        if since is not None and asyncio.get_running_loop().time() - since > self.away_seconds:
            return self._give_up(left, None)
        return left

    def _give_up(self, items: Sequence[_Item], error: Exception | None) -> list[_Item]:
        """Too long away: fail all but what may have been committed, which has to be found out first."""
        why = f"Postgres was away for {self.away_seconds:g} s: {error!r}"
        for item in items:
            if not item.sent:
                item.settle(JournalUnavailable(why))
        left = [item for item in items if item.sent]
        self._unavailable = bool(left)
        self._fail_queue(why)
        return left

    async def _connect(self) -> None:
        connection: Any = await asyncpg.connect(
            self._dsn,
            timeout=10,
            server_settings={
                "application_name": self._name,
                # Pinned plans: small batches are not planned again, and no plan made while a table was
                # empty scans it later.
                "plan_cache_mode": "force_generic_plan",
                "enable_seqscan": "off",
                "jit": "off",
            },
        )
        try:
            if self._had_connection:
                await _end_others(connection, self._name)
            append = await connection.prepare(query("append"))
        except BaseException:
            connection.terminate()
            raise
        self._connection, self._append, self._had_connection = connection, append, True

    def _drop_connection(self) -> None:
        connection, self._connection, self._append = self._connection, None, None
        if connection is not None:
            connection.terminate()


async def _end_others(connection: Any, name: str) -> None:
    """End what our lost connection may still be doing, so that it cannot commit after we have looked."""
    ended = await connection.fetch(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where application_name = $1 and pid <> pg_backend_pid()",
        name,
    )
    if not all(row[0] for row in ended):
        raise ConnectionError("the lost connection's backend has not ended yet")
