"""Retention: whole turns that ended long enough ago leave the journal, with the request rows that name them.

A turn stays while it is not finished; while a consumer has not read it, or a hold is older than its end; while a fork
of it stays. Its request rows go with it: a key never names a turn that is gone. Those that name no turn go by their
own age. The last row of a partition stays for ever: appends count from it.
Blobs, the audit log and dead letters are not touched.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import structlog
from google.protobuf.message import DecodeError
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.turn_events_pb2 import TurnEvent

from kfm_server.journal.pool import close_pool, open_pool, repeat
from kfm_server.journal.queries import query
from kfm_server.ports.journal import JournalUnavailable

log = structlog.get_logger(__name__)
EVERY_SECONDS = 3600.0
_PAGE = 2000
_TURNS_AT_ONCE = 200
"""Turns that go in one transaction: appends to the partition wait for it."""
_REQUESTS_AT_ONCE = 5000
_FIRST_EVENTS_AT_ONCE = 50

_MARK = """
insert into kfm.marks (partition, "offset")
select $1, "offset" from kfm.journal where partition = $1 order by "offset" desc limit 1
"""
# What may go lies at or below it: old enough, read by every group, before every hold, not the last row.
# The group `engine` has no place in the journal; its holds count. Groups of a broker have cursors and holds there, not here.
_FLOOR = """
select least(
    (select "offset" from kfm.marks where partition = $1 and at <= clock_timestamp() - $2::interval
        order by at desc limit 1),
    (select min("offset") from kfm.consumer_offsets
        where partition = $1 and topic = '*' and consumer_group not in ('engine', 'traces', 'relay')),
    (select min("offset") - 1 from kfm.holds h where partition = $1 and exists (
        select from kfm.consumer_offsets c
        where c.consumer_group = h.consumer_group and c.partition = $1 and c.topic = '*')),
    (select max("offset") - 1 from kfm.journal where partition = $1)
)
where exists (select from kfm.marks where partition = $1 and at <= clock_timestamp() - $2::interval)
    and exists (select from kfm.consumer_offsets
        where partition = $1 and topic = '*' and consumer_group not in ('engine', 'traces', 'relay'))
"""
_FORGET_MARKS = """
delete from kfm.marks where partition = $1 and at < (
    select max(at) from kfm.marks where partition = $1 and at <= clock_timestamp() - $2::interval
)
"""
_WALK = """
select "offset", turn_id from kfm.journal where partition = $1 and "offset" > $2 and "offset" <= $3
order by "offset" limit $4
"""
_ENDED = """
select t.turn_id, t.session_id from kfm.turns t
where t.turn_id = any ($1::text[]) and t.phase = 'finished'
    and (select "offset" from kfm.journal j where j.turn_id = t.turn_id and j.turn_id <> '' order by sequence desc limit 1) <= $2
"""
_FIRST_EVENTS = """
select t.turn_id, (
    select envelope from kfm.journal j where j.turn_id = t.turn_id and j.turn_id <> '' and sequence = 1
) as envelope from kfm.turns t
where t.session_id = $1 and t.turn_id > $2 collate "C" order by t.turn_id limit $3
"""
_DELETE_REQUESTS = """
delete from kfm.requests where kfm.turn_of(outcome) collate "C" = any ($1::text[]) and kfm.turn_of(outcome) <> ''
"""
_DELETE = "delete from kfm.journal where turn_id = any ($1::text[]) and turn_id <> ''"
_DELETE_TURNS = "delete from kfm.turns where turn_id = any ($1::text[])"
_DELETE_ALONE = """
delete from kfm.journal where partition = $1 and turn_id = '' and "offset" > $2 and "offset" <= $3
"""
_DELETE_OTHER_REQUESTS = """
delete from kfm.requests where ctid = any (array(
    select ctid from kfm.requests
    where kfm.turn_of(outcome) collate "C" = '' and claimed_at <= clock_timestamp() - $1::interval limit $2
))
"""


class Retention:
    """Sweeps the partitions of this process. Made by `open`."""

    def __init__(self, pool: Any, keep: timedelta, owned: Callable[[], Iterable[int]]) -> None:
        self._pool = pool
        self._keep = keep
        self._owned = owned

    @classmethod
    @asynccontextmanager
    async def open(
        cls, dsn: str, keep: timedelta, owned: Callable[[], Iterable[int]]
    ) -> AsyncGenerator["Retention"]:
        """With a connection of its own. `keep`: how long a turn stays after its end, at least."""
        pool = await open_pool(dsn, "kfm-retention", 1)
        try:
            yield cls(pool, keep, owned)
        finally:
            await close_pool(pool)

    async def run(self) -> None:
        """Sweep every hour until cancelled. A turn leaves at most two hours after its time."""
        while True:
            try:
                gone = await self.sweep()
                log.info("retention_swept", turns=gone)
            except JournalUnavailable as away:
                log.warning("retention_waits", error=str(away))
            await asyncio.sleep(EVERY_SECONDS)

    async def sweep(self) -> int:
        """Mark how far each partition has come, and remove what is old enough; answers how many turns went."""
        gone = 0
        for partition in sorted(self._owned()):
            floor = await repeat(self._pool, lambda c, p=partition: self._floor(c, p))
            at, forks = 0, _Forks()
            while floor is not None and at < floor:
                at, went = await repeat(
                    self._pool, lambda c, p=partition, a=at, f=floor, k=forks: self._page(c, p, a, f, k)
                )
                gone += went
        while await repeat(self._pool, self._other_requests) == _REQUESTS_AT_ONCE:
            pass
        return gone

    async def _floor(self, connection: Any, partition: int) -> int | None:
        floor = await connection.fetchval(_FLOOR, partition, self._keep)
        await connection.execute(_FORGET_MARKS, partition, self._keep)
        await connection.execute(_MARK, partition)
        return floor

    async def _page(
        self, connection: Any, partition: int, after: int, floor: int, forks: "_Forks"
    ) -> tuple[int, int]:
        """Remove what may go of one page; answers where the next one begins, and how many turns went."""
        rows = await connection.fetch(_WALK, partition, after, floor, _PAGE)
        if not rows:
            return floor, 0
        last = rows[-1]["offset"]
        turns = {row["turn_id"] for row in rows} - {""}
        ended = await connection.fetch(_ENDED, list(turns), floor)
        doomed = await forks.without_parents(connection, {row["turn_id"]: row["session_id"] for row in ended})
        for n in range(0, len(doomed), _TURNS_AT_ONCE):
            some = doomed[n : n + _TURNS_AT_ONCE]
            async with connection.transaction():
                await connection.fetchval(query("lock_partition"), partition)
                await connection.execute(_DELETE_REQUESTS, some)
                await connection.execute(_DELETE, some)
                await connection.execute(_DELETE_TURNS, some)
            forks.gone(some)
        async with connection.transaction():
            await connection.fetchval(query("lock_partition"), partition)
            await connection.execute(_DELETE_ALONE, partition, after, last)
        return last, len(doomed)

    async def _other_requests(self, connection: Any) -> int:
        done = await connection.execute(_DELETE_OTHER_REQUESTS, self._keep, _REQUESTS_AT_ONCE)
        return int(done.split()[-1])


class _Forks:
    """Which turns are forks of which, for one pass over a partition: each session is read once."""

    def __init__(self) -> None:
        self._read: dict[str, bool] = {}
        """Sessions that were read, and whether it can be told whose forks their turns are."""
        self._parent: dict[str, str] = {}
        self._forks: defaultdict[str, set[str]] = defaultdict(set)

    async def without_parents(self, connection: Any, ended: dict[str, str]) -> list[str]:
        """The turns, given with their sessions, of which no fork stays. Forks live in the session of their parent."""
        for session in set(ended.values()) - self._read.keys():
            parents = await _parents_in(connection, session)
            self._read[session] = parents is not None
            for fork, parent in (parents or {}).items():
                self._parent[fork] = parent
                self._forks[parent].add(fork)
        doomed = {turn for turn, session in ended.items() if self._read[session]}
        while kept := {turn for turn in doomed if not self._forks.get(turn, set()) <= doomed}:
            doomed -= kept
        return sorted(doomed)

    def gone(self, turns: Iterable[str]) -> None:
        """These are no forks any more."""
        for turn in turns:
            if (parent := self._parent.pop(turn, None)) is not None:
                self._forks[parent].discard(turn)


async def _parents_in(connection: Any, session_id: str) -> dict[str, str] | None:
    """The forks of a session and their parents; None if an event cannot be read."""
    parents: dict[str, str] = {}
    last = ""
    while rows := await connection.fetch(_FIRST_EVENTS, session_id, last, _FIRST_EVENTS_AT_ONCE):
        last = rows[-1]["turn_id"]
        for row in rows:
            try:
                request = TurnEvent.FromString(Envelope.FromString(row["envelope"] or b"").payload.value)
            except DecodeError:
                return None
            if request.parent_turn_id:
                parents[row["turn_id"]] = request.parent_turn_id
    return parents
