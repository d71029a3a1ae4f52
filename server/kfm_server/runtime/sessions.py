"""The sessions of the partitions that this process owns: loads them, finds their lanes, lets them go."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from kfm.catalogue.errors import HistoryUnreadable, KfmError
from kfm.event.v1 import turn_events_pb2 as ev

from kfm_server.context import ExecutionContext
from kfm_server.ids import partition_of
from kfm_server.ports.journal import Entry, Fenced, InboxItem, Journal, Lease, Stored
from kfm_server.runtime.facts import Asked, Submitted, TakenOver
from kfm_server.runtime.history import BrokenHistory, decode_event, fold_stored_session, fold_stored_turn
from kfm_server.runtime.session_lane import LaneParts, SessionLane
from kfm_server.turns.state import Session, Turn

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class OwnedPartition:
    """A partition that this process owns under one epoch."""

    partition: int
    epoch: int
    valid_until: Callable[[int], float]
    monotonic: Callable[[], float]
    on_fenced: Callable[["OwnedPartition"], None]

    def may_start(self) -> bool:
        """The lease is surely still ours, by a clock that does not jump."""
        return self.monotonic() < self.valid_until(self.partition)

    def fenced(self) -> None:
        """Another process owns it now."""
        self.on_fenced(self)


class Sessions:
    """Lanes by session. Sessions that are idle are not in memory: nothing of them needs to be."""

    def __init__(self, journal: Journal, parts: LaneParts, partitions: int) -> None:
        self._journal = journal
        self._parts = parts
        self.partitions = partitions
        self.owned: dict[int, OwnedPartition] = {}
        self._lanes: dict[str, SessionLane] = {}
        self._turns: dict[str, str] = {}

    def partition(self, session_id: str) -> int:
        """The partition of a session."""
        return partition_of(session_id, self.partitions)

    def lane(self, session_id: str) -> SessionLane | None:
        """The lane of a session, made if the partition is ours; None if it is not."""
        lane = self._lanes.get(session_id)
        if lane is None:
            owner = self.owned.get(self.partition(session_id))
            if owner is None:
                return None
            lane = SessionLane(Session(session_id), owner, self._parts, self._rest)
            self._lanes[session_id] = lane
        return lane

    def live(self, session_id: str) -> Session | None:
        """The state of a session that is in memory."""
        lane = self._lanes.get(session_id)
        return None if lane is None else lane.session

    async def take(self, lease: Lease, owner: OwnedPartition) -> None:
        """Load every turn of the partition that has not finished, and go on with each."""
        rows = await self._journal.open_turns(lease.partition)
        stored = await self._journal.read_turns([row.turn_id for row in rows])
        session_of = {row.turn_id: row.session_id for row in rows}
        by_session: dict[str, list[Stored]] = {}
        for event in stored:
            by_session.setdefault(session_of[event.turn_id], []).append(event)
        sessions: list[Session] = []
        for session_id, events in by_session.items():
            try:
                sessions.append(await fold_stored_session(self._journal, session_id, events))
            except BrokenHistory as bad:
                log.error("session_unreadable", session_id=session_id, error=bad.message)
        # From here on nothing waits: a request finds the whole partition, or none of it.
        self.owned[lease.partition] = owner
        for session in sessions:
            lane = SessionLane(session, owner, self._parts, self._rest)
            self._lanes[session.session_id] = lane
            lane.post(TakenOver(lease.clean))

    async def barrier(self, lease: Lease) -> None:
        """Wait until every append of this process to the partition has ended. Raises Fenced if it is not ours."""
        await self._journal.append(Entry(lease.partition, lease.epoch))

    def drop(self, partition: int) -> None:
        """Forget a partition and stop its attempts."""
        self.owned.pop(partition, None)
        for session_id, lane in list(self._lanes.items()):
            if self.partition(session_id) == partition:
                lane.close()
                del self._lanes[session_id]

    async def consume(self, item: InboxItem) -> None:
        """Take a request that another process accepted."""
        owner = self.owned.get(item.partition)
        if owner is None:
            return
        try:
            envelope, payload = decode_event(item.envelope)
            assert item.claim is not None
            context = ExecutionContext(
                tenant_id=envelope.tenant_id,
                principal=item.claim.principal,
                session_id=envelope.session_id,
                trace_id=envelope.trace_id,
                traceparent=envelope.traceparent,
            )
            fact: Submitted | Asked
            if isinstance(payload, ev.TurnEvent):
                parent = None
                if payload.parent_turn_id:
                    parent = await self.load_turn(payload.parent_turn_id)
                fact = Submitted(context, envelope.turn_id, payload, item.claim, parent, inbox_id=item.id)
            elif isinstance(payload, ev.TurnControlEvent):
                fact = Asked(envelope.turn_id, payload, item.claim, inbox_id=item.id)
            else:
                raise HistoryUnreadable(f"{envelope.type} is no request")
            # Found only now: while a parent was read the lane may have gone to rest, or the partition away.
            lane = self.lane(envelope.session_id) if self.owned.get(item.partition) is owner else None
            if lane is not None:
                lane.post(fact)
        except KfmError as bad:
            log.error("inbox_item_unreadable", id=item.id, error=str(bad))
            try:
                await self._journal.append(Entry(item.partition, owner.epoch, consumed=(item.id,)))
            except Fenced:
                owner.fenced()

    async def load_turn(self, turn_id: str) -> Turn | None:
        """A turn: from memory if it runs here, else folded from the journal."""
        row = await self._journal.turn(turn_id)
        if row is None:
            return None
        live = self.live(row.session_id)
        turn = live.turn(turn_id) if live is not None else None
        if turn is not None:
            return turn
        stored = await self._journal.read_turns([turn_id])
        return await fold_stored_turn(self._journal, stored)

    def close(self) -> None:
        """Stop everything in this process; the journal has the rest."""
        for partition in list(self.owned):
            self.drop(partition)

    @property
    def attempts_running(self) -> list[asyncio.Task[Any]]:
        """Attempts that run in this process."""
        return [t for lane in self._lanes.values() for t in lane.attempts_running]

    @property
    def count(self) -> int:
        """Sessions in memory."""
        return len(self._lanes)

    def _rest(self, session_id: str) -> None:
        lane = self._lanes.get(session_id)
        if lane is not None and lane.session.idle:
            del self._lanes[session_id]
