"""Leases and the inbox in Postgres, by database time."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from kfm_server import failpoints
from kfm_server.clock import SharedClock
from kfm_server.journal.pool import close_pool, once, open_pool, repeat
from kfm_server.journal.queries import query
from kfm_server.journal.wakeups import Wakeups
from kfm_server.ports.journal import Claim, InboxItem, Lease, Runtime

LEASE_SECONDS = 3.0
_BEFORE_RENEW = failpoints.declare("leases.renew.before")
_AFTER_RENEW = failpoints.declare("leases.renew.after")
_BEFORE_ACQUIRE = failpoints.declare("leases.acquire.before")
_AFTER_ACQUIRE = failpoints.declare("leases.acquire.after")
_AFTER_POST = failpoints.declare("inbox.post.after")


class PostgresLeases:
    """The port `Leases` over a migrated database. Made by `open`. Owners are unique per process start."""

    def __init__(self, pool: Any, wakeups: Wakeups, clock: SharedClock | None, seconds: float) -> None:
        self._pool = pool
        self._wakeups = wakeups
        self._clock = clock
        self._time = timedelta(seconds=seconds)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, dsn: str, *, clock: SharedClock | None = None, seconds: float = LEASE_SECONDS
    ) -> AsyncGenerator["PostgresLeases"]:
        """Connect; on leaving, close (and give nothing back: that is `release`).

        `clock` is set to the database's now and at each renewal. `seconds` is how long a lease lasts.
        Raises OSError, asyncpg.PostgresError or JournalUnavailable.
        """
        pool = await open_pool(dsn, "kfm-leases", 4)
        try:
            async with Wakeups.open(dsn, "kfm_inbox") as wakeups:
                leases = cls(pool, wakeups, clock, seconds)
                await repeat(pool, leases._set_clock)
                yield leases
        finally:
            await close_pool(pool)

    def on_wake(self, callback: Callable[[], None]) -> None:
        """Call it when somebody posted to the inbox or gave leases back. A hint: it may come for nothing, or never."""
        self._wakeups.on_wake(callback)

    async def acquire(self, owner: str, address: str, *, take_over: bool, most: int) -> Sequence[Lease]:
        """As the port says."""
        failpoints.hit(_BEFORE_ACQUIRE)
        text = query("lease_acquire")
        rows = await once(self._pool, lambda c: c.fetch(text, owner, address, take_over, most, self._time))
        failpoints.hit(_AFTER_ACQUIRE)
        return sorted((Lease(*row) for row in rows), key=lambda lease: lease.partition)

    async def renew(self, owner: str) -> tuple[Sequence[Lease], Sequence[InboxItem]]:
        """As the port says. At most 1000 items at a time."""
        failpoints.hit(_BEFORE_RENEW)

        async def work(connection: Any) -> tuple[Sequence[Lease], Sequence[InboxItem]]:
            await self._set_clock(connection)  # apart from the renewal, which may wait for locks
            rows = await connection.fetch(query("lease_renew"), owner, self._time)
            leases = sorted((Lease(*row) for row in rows), key=lambda lease: lease.partition)
            if not leases:
                return (), ()
            return leases, await _waiting(connection, [lease.partition for lease in leases])

        answer = await repeat(self._pool, work, patience=1.0)
        failpoints.hit(_AFTER_RENEW)
        return answer

    async def inbox(self, partitions: Sequence[int]) -> Sequence[InboxItem]:
        """As the port says. At most 1000 items at a time."""
        return await repeat(self._pool, lambda c: _waiting(c, partitions), patience=1.0)

    async def release(self, owner: str, partitions: Sequence[int] | None = None) -> None:
        """As the port says."""
        text = query("lease_release")
        await repeat(self._pool, lambda c: c.execute(text, owner, partitions), patience=1.0)
        self._wakeups.send()

    async def runtimes(self, owner: str, *, here: bool) -> Mapping[str, Runtime]:
        """As the port says."""
        text = query("runtimes")
        rows = await repeat(self._pool, lambda c: c.fetch(text, owner, here, self._time), patience=1.0)
        return {row["owner"]: Runtime(row["held"], row["seconds"]) for row in rows}

    async def holders(self) -> Sequence[Lease]:
        """As the port says."""
        rows = await repeat(self._pool, lambda c: c.fetch(query("lease_holders")))
        return [Lease(*row) for row in rows]

    async def holder(self, partition: int) -> Lease | None:
        """As the port says."""
        row = await repeat(self._pool, lambda c: c.fetchrow(query("lease_holder"), partition))
        return None if row is None else Lease(*row)

    async def post(self, item: InboxItem) -> int:
        """As the port says. Raises JournalUnavailable when it may not have been stored: ask again, same key."""
        claim = item.claim
        fields = (None,) * 6
        if claim is not None:
            fields = (
                claim.tenant_id,
                claim.principal,
                claim.rpc,
                claim.key,
                claim.digest,
                claim.outcome,
            )
        text = query("inbox_post")
        id = await once(self._pool, lambda c: c.fetchval(text, item.partition, *fields, item.envelope))
        failpoints.hit(_AFTER_POST)
        self._wakeups.send()
        return id

    async def _set_clock(self, connection: Any) -> None:
        if self._clock is not None:
            text = query("now_us")
            await self._clock.measure(lambda: connection.fetchval(text))


async def _waiting(connection: Any, partitions: Sequence[int]) -> Sequence[InboxItem]:
    return [_item(row) for row in await connection.fetch(query("inbox_read"), partitions)]


def _item(row: Any) -> InboxItem:
    claim = None
    if row["key"] is not None:
        claim = Claim(
            row["tenant_id"], row["principal"], row["rpc"], row["key"], row["digest"], row["outcome"]
        )
    return InboxItem(row["id"], row["partition"], claim, row["envelope"])
