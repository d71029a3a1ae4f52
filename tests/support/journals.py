"""Both journals behind one face, and short ways to write entries."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from kfm_server.clock import SystemClock
from kfm_server.journal.leases import PostgresLeases
from kfm_server.journal.memory import MemoryJournal, MemoryLeases
from kfm_server.journal.postgres import PostgresJournal
from kfm_server.ports.journal import Claim, Entry, Journal, Leases, Record, TurnRow

LEASE_SECONDS = 0.3


@dataclass
class Store:
    """A journal whose partitions are all held by "me", at epoch 1."""

    journal: Journal
    leases: Leases
    expire: Callable[[], Awaitable[None]]
    """Let the leases run out, by the time that the table of leases goes by."""


class HandClock(SystemClock):
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        """What the hand has set."""
        return self.seconds


@asynccontextmanager
async def memory_store() -> AsyncGenerator[Store]:
    """In memory."""
    journal, clock = MemoryJournal(), HandClock()

    async def expire() -> None:
        clock.seconds += LEASE_SECONDS

    yield Store(journal, MemoryLeases(journal, clock, seconds=LEASE_SECONDS), expire)


@asynccontextmanager
async def postgres_store(dsn: str) -> AsyncGenerator[Store]:
    """In a migrated database."""

    async def expire() -> None:
        connection = await asyncpg.connect(dsn, command_timeout=LEASE_SECONDS * 20)
        try:
            await connection.execute(
                "select pg_sleep_until(max(expires_at)) from ("
                " select expires_at from kfm.leases where expires_at <> '-infinity'"
                " union all select expires_at from kfm.runtimes) last"
            )
        finally:
            await connection.close()

    async with (
        PostgresJournal.open(dsn) as journal,
        PostgresLeases.open(dsn, seconds=LEASE_SECONDS) as leases,
    ):
        yield Store(journal, leases, expire)


def record(turn: str, sequence: int, body: bytes = b"body") -> Record:
    """One event."""
    return Record(turn, sequence, "agent.turns.events", body)


def entry(
    turn: str,
    *sequences: int,
    partition: int = 0,
    epoch: int = 1,
    claim: Claim | None = None,
    turns: tuple[TurnRow, ...] = (),
    consumed: tuple[int, ...] = (),
) -> Entry:
    """An entry with these events of one turn."""
    records = tuple(record(turn, n) for n in sequences)
    return Entry(partition, epoch, records, turns, claim, consumed)


def claim(key: str, digest: bytes = b"d", outcome: bytes = b"o") -> Claim:
    """A key of one tenant, principal and RPC."""
    return Claim("tenant", "principal", "SubmitTurn", key, digest, outcome)


def row(
    turn: str,
    phase: str,
    partition: int = 0,
    *,
    session: str = "ses_1",
    at: int = 1,
    tenant: str = "tenant",
) -> TurnRow:
    """A turn's projection."""
    return TurnRow(turn, session, tenant, partition, phase, None, at)
