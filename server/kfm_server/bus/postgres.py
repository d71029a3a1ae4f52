"""Cursors, holds, dead letters and the audit log in Postgres."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from kfm.event.v1.envelope_pb2 import Envelope

from kfm_server.bus.letters import plain
from kfm_server.ports.bus import (
    JOURNAL,
    BusUnavailable,
    CursorFenced,
    Hold,
    Letter,
    Position,
    channel_of,
    key_in,
)
from kfm_server.ports.journal import Claim

_STATEMENT_SECONDS = 10.0

_OPEN = """
insert into kfm.consumer_offsets as c (consumer_group, topic, partition, "offset", epoch)
values ($1, $2, $3, 0, $4)
on conflict (consumer_group, topic, partition) do update set epoch = excluded.epoch
where c.epoch <= excluded.epoch
returning "offset"
"""
_HOLDS = """
select session_id, "offset", reason, released from kfm.holds
where consumer_group = $1 and partition = $2 order by "offset"
"""
_MOVE = """
update kfm.consumer_offsets set "offset" = greatest("offset", $5)
where consumer_group = $1 and topic = $2 and partition = $3 and epoch = $4
returning {}
"""
# Need not wait for the disk: what is lost is delivered again, and nothing later is durable before it.
_LAZILY = "set_config('synchronous_commit', 'off', true)"
_COMMIT = _MOVE.format(_LAZILY)
_FENCE = _MOVE.format("1")
_RESET = 'update kfm.consumer_offsets set "offset" = $5 where consumer_group = $1 and topic = $2 and partition = $3 and epoch = $4 returning 1'
_LIFT_ALL = (
    "delete from kfm.holds where consumer_group = $1 and partition = $2 and starts_with(session_id, $3)"
)
_LETTER = """
insert into kfm.dead_letters (id, consumer_group, partition, "offset", topic, tenant_id,
    session_id, held_key, created_us, reason, envelope)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
on conflict (id) do update set
    created_us = excluded.created_us, reason = excluded.reason, envelope = excluded.envelope, is_open = true
"""
_HOLD = """
insert into kfm.holds (consumer_group, session_id, partition, "offset", reason)
values ($1, $2, $3, $4, $5)
on conflict (consumer_group, session_id) do update set
    "offset" = excluded."offset", reason = excluded.reason, released = false
"""
_ADVANCE = 'update kfm.holds set "offset" = $3 where consumer_group = $1 and session_id = $2 and released'
_LIFT = "delete from kfm.holds where consumer_group = $1 and session_id = $2 and released"
_RELEASED = "select distinct partition from kfm.holds where consumer_group = $1 and released"
_LETTERS = """
select * from kfm.dead_letters
where is_open and tenant_id = $1 and ($2 = '' or consumer_group = $2) and (created_us, id) > ($3, $4)
order by created_us, id limit $5
"""
_ONE = "select * from kfm.dead_letters where is_open and tenant_id = $1 and id = $2"
_CLAIM = """
insert into kfm.requests (tenant_id, principal, rpc, key, digest, outcome)
values ($1, $2, $3, $4, $5, $6) on conflict do nothing returning 1
"""
_CLAIMED = """
select digest from kfm.requests where tenant_id = $1 and principal = $2 and rpc = $3 and key = $4
"""
_CLOSE = """
update kfm.dead_letters set is_open = false where is_open and tenant_id = $1 and id = $2
returning consumer_group, held_key, "offset"
"""
_RELEASE = """
update kfm.holds set released = true, "offset" = $3 where consumer_group = $1 and session_id = $2
"""
_AUDIT = f"""
insert into kfm.audit (event_id, tenant_id, at_us, envelope)
select * from unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[]) order by 1
on conflict do nothing
returning {_LAZILY}
"""
_AUDITED = "select envelope from kfm.audit where tenant_id = $1 order by at_us, event_id"

_LOST = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError, TimeoutError)


async def _keep(connection: Any) -> None:
    """Our calls leave nothing to reset, and it would cost each a round trip."""


class _NoLetter(Exception):
    """Rolls back a claim on a letter that is not there."""


class PostgresBusStore:
    """CursorStore, LetterStore and AuditLog in a migrated database."""

    def __init__(self, pool: Any) -> None:
        """`pool` is asyncpg's; the caller closes it."""
        self._pool = pool

    @classmethod
    @asynccontextmanager
    async def open_pool(cls, dsn: str, size: int = 2) -> AsyncGenerator["PostgresBusStore"]:
        """A store with connections of its own. Raises OSError or asyncpg.PostgresError when there is no database."""
        pool: Any = asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            command_timeout=_STATEMENT_SECONDS,
            reset=_keep,
            server_settings={"application_name": "kfm-bus"},
        )
        async with pool:
            yield cls(pool)

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[Any]:
        async with self._connection() as connection:
            async with connection.transaction():
                yield connection

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Any]:
        try:
            async with self._pool.acquire(timeout=_STATEMENT_SECONDS) as connection:
                try:
                    yield connection
                except _LOST:
                    # One that was cut may not know it yet, and would be lent again.
                    connection.terminate()
                    raise
        except asyncpg.DataError:  # also an InterfaceError; it is the row's fault, and waiting would not help
            raise
        except (asyncpg.PostgresError, *_LOST) as error:
            raise BusUnavailable(repr(error)) from error

    async def open(self, group: str, partition: int, epoch: int, channel: str = JOURNAL) -> Position:
        """As the port says."""
        async with self._transaction() as db:
            offset = await db.fetchval(_OPEN, group, channel, partition, epoch)
            if offset is None:
                raise CursorFenced(group, partition)
            holds = [Hold(*row) for row in await db.fetch(_HOLDS, group, partition)]
        return Position(offset, tuple(hold for hold in holds if channel_of(hold.key) == channel))

    async def holds(self, group: str, partition: int) -> Sequence[Hold]:
        """As the port says."""
        async with self._connection() as db:
            return [Hold(*row) for row in await db.fetch(_HOLDS, group, partition)]

    @staticmethod
    async def _move(
        db: Any,
        group: str,
        channel: str,
        partition: int,
        epoch: int,
        offset: int = 0,
        *,
        statement: str = _FENCE,
    ) -> None:
        if await db.fetchval(statement, group, channel, partition, epoch, offset) is None:
            raise CursorFenced(group, partition)

    async def commit(
        self, group: str, partition: int, epoch: int, offset: int, channel: str = JOURNAL
    ) -> None:
        """As the port says."""
        async with self._connection() as db:
            await self._move(db, group, channel, partition, epoch, offset, statement=_COMMIT)

    async def reset(self, group: str, partition: int, epoch: int, offset: int, channel: str) -> None:
        """As the port says."""
        async with self._transaction() as db:
            await self._move(db, group, channel, partition, epoch, offset, statement=_RESET)
            await db.execute(_LIFT_ALL, group, partition, key_in(channel, ""))

    async def bury(self, letter: Letter, epoch: int, cursor: int, channel: str = JOURNAL) -> None:
        """As the port says."""
        async with self._transaction() as db:
            await self._move(db, letter.group, channel, letter.partition, epoch, cursor)
            await self._write(db, letter)
            await db.execute(_HOLD, letter.group, letter.key, letter.partition, letter.offset, letter.reason)

    async def keep(self, letter: Letter) -> None:
        """As the port says."""
        async with self._connection() as db:
            await self._write(db, letter)

    @staticmethod
    async def _write(db: Any, letter: Letter) -> None:
        await db.execute(
            _LETTER,
            letter.id,
            letter.group,
            letter.partition,
            letter.offset,
            letter.topic,
            letter.tenant_id,
            letter.session_id,
            letter.key,
            letter.created_us,
            letter.reason,
            letter.envelope,
        )

    async def advance(
        self, group: str, partition: int, epoch: int, key: str, offset: int, channel: str = JOURNAL
    ) -> None:
        """As the port says."""
        async with self._transaction() as db:
            await self._move(db, group, channel, partition, epoch)
            await db.execute(_ADVANCE, group, key, offset)

    async def lift(self, group: str, partition: int, epoch: int, key: str, channel: str = JOURNAL) -> None:
        """As the port says."""
        async with self._transaction() as db:
            await self._move(db, group, channel, partition, epoch)
            await db.execute(_LIFT, group, key)

    async def released(self, group: str) -> frozenset[int]:
        """As the port says."""
        async with self._connection() as db:
            return frozenset(row[0] for row in await db.fetch(_RELEASED, group))

    async def letters(
        self, tenant_id: str, group: str, after: tuple[int, str], limit: int
    ) -> Sequence[Letter]:
        """As the port says."""
        async with self._connection() as db:
            return [_letter(row) for row in await db.fetch(_LETTERS, tenant_id, group, *after, limit)]

    async def letter(self, tenant_id: str, id: str) -> Letter | None:
        """As the port says."""
        async with self._connection() as db:
            row = await db.fetchrow(_ONE, tenant_id, id)
        return None if row is None else _letter(row)

    async def settle(self, claim: Claim, id: str, *, drop: bool) -> bytes | None:
        """As the port says."""
        who = (claim.tenant_id, claim.principal, claim.rpc, claim.key)
        try:
            async with self._transaction() as db:
                if await db.fetchval(_CLAIM, *who, claim.digest, claim.outcome) is None:
                    return await db.fetchval(_CLAIMED, *who)
                row = await db.fetchrow(_CLOSE, claim.tenant_id, id)
                if row is None:
                    raise _NoLetter
                await db.execute(
                    _RELEASE, row["consumer_group"], row["held_key"], row["offset"] + (1 if drop else 0)
                )
        except _NoLetter:
            return None
        return claim.digest

    async def add(self, events: Sequence[Envelope]) -> None:
        """As the port says."""
        async with self._connection() as db:
            await db.execute(
                _AUDIT,
                [plain(e.event_id) for e in events],
                [plain(e.tenant_id) for e in events],
                [e.timestamp.seconds * 1_000_000 + e.timestamp.nanos // 1000 for e in events],
                [e.SerializeToString(deterministic=True) for e in events],
            )

    async def audited(self, tenant_id: str) -> Sequence[Envelope]:
        """As the port says."""
        async with self._connection() as db:
            rows = await db.fetch(_AUDITED, tenant_id)
        return [Envelope.FromString(row[0]) for row in rows]


def _letter(row: Any) -> Letter:
    return Letter(
        id=row["id"],
        group=row["consumer_group"],
        partition=row["partition"],
        offset=row["offset"],
        topic=row["topic"],
        tenant_id=row["tenant_id"],
        session_id=row["session_id"],
        key=row["held_key"],
        created_us=row["created_us"],
        reason=row["reason"],
        envelope=row["envelope"],
    )
