"""The sessions of the partitions that this process owns: loads them, finds their lanes, lets them go."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog
from kfm.catalogue.errors import EventUndecodable, KfmError
from kfm.event.v1 import turn_events_pb2 as ev

from kfm_server.context import ExecutionContext
from kfm_server.ids import partition_of
from kfm_server.ports.bus import SessionHolds
from kfm_server.ports.journal import Entry, Fenced, InboxItem, Journal, Lease
from kfm_server.runtime.announcing import announced
from kfm_server.runtime.facts import Asked, Submitted, TakenOver, refusal
from kfm_server.runtime.history import decode_event, fold_stored_turn
from kfm_server.runtime.lane_parts import LaneParts
from kfm_server.runtime.loading import SessionLoader
from kfm_server.runtime.session_lane import SessionLane
from kfm_server.turns.decide.draft import World
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


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a partition that was given up leaves in this process."""

    epoch: int
    tasks: Sequence[asyncio.Task[Any]]
    """Cancelled; some may not have ended."""
    settled: bool
    """Nothing that ran before this process owned it is left to be recorded."""

    @property
    def clean(self) -> bool:
        """Nothing of it runs, here or at an owner before."""
        return self.settled and all(task.done() for task in self.tasks)


class Sessions:
    """Lanes by session. Sessions that are idle are not in memory: nothing of them needs to be."""

    def __init__(
        self, journal: Journal, parts: LaneParts, partitions: int, holds: SessionHolds | None = None
    ) -> None:
        """Without `holds` a history that cannot be folded is raised, as BrokenHistory."""
        self._journal = journal
        self._holds = holds
        self._loader = SessionLoader(journal, holds, parts.clock, parts.broadcaster)
        self._parts = parts
        self.partitions = partitions
        self.owned: dict[int, OwnedPartition] = {}
        """Loaded whole: any session of theirs may be asked for."""
        self.taking: dict[int, tuple[Lease, OwnedPartition]] = {}
        """Being loaded: the sessions that are, run."""
        self._lanes: dict[str, SessionLane] = {}
        self.holding = False
        """No more steps start in this process: it is to end."""

    @property
    def world(self) -> World:
        """What decisions rely on beside the state."""
        return self._parts.world

    def reconfigure(self, world: World) -> None:
        """Decisions from now on rely on this one. Turns keep the personality that they began with."""
        self._parts = replace(self._parts, world=world)
        for lane in self._lanes.values():
            lane.reconfigure(self._parts)

    def partition(self, session_id: str) -> int:
        """The partition of a session."""
        return partition_of(session_id, self.partitions)

    def lane(self, session_id: str) -> SessionLane | None:
        """The lane of a session, made if the partition is ours; None if it is not.

        Raises HistoryUnreadable for a session that is held.
        """
        self._loader.check(session_id)
        lane = self._lanes.get(session_id)
        if lane is None:
            owner = self.owned.get(self.partition(session_id))
            if owner is None:
                return None
            lane = self._lane_for(Session(session_id), owner)
        return lane

    def _lane_for(self, session: Session, owner: OwnedPartition) -> SessionLane:
        lane = SessionLane(
            session, owner, self._parts, self._rest, self._loader.failed, partial(self._reload, owner)
        )
        if self.holding:
            lane.hold()
        self._lanes[session.session_id] = lane
        self._loader.taken_up(session.session_id)
        return lane

    def live(self, session_id: str) -> Session | None:
        """The state of a session that is in memory."""
        lane = self._lanes.get(session_id)
        return None if lane is None else lane.session

    async def take(self, lease: Lease, owner: OwnedPartition) -> None:
        """Load every turn of the partition that has not finished, and go on with each as soon as it is loaded.

        After JournalUnavailable call it again: what was taken up is left alone.
        """
        self.taking[lease.partition] = lease, owner
        there = set(self._lanes)
        try:
            async for session in self._loader.load(lease.partition, lease.epoch):
                if self.owner(lease.partition) is not owner:
                    return
                if session.session_id not in there:
                    self._lane_for(session, owner).post(TakenOver(lease.clean))
        except Fenced:
            owner.fenced()
        if self.owner(lease.partition) is owner:
            del self.taking[lease.partition]
            self.owned[lease.partition] = owner

    def caught_up(self, session_id: str) -> bool:
        """It is owned here, and has worked through all that arrived for it."""
        lane = self._lanes.get(session_id)
        return self.partition(session_id) in self.owned and (lane is None or not lane.working)

    def owner(self, partition: int) -> OwnedPartition | None:
        """As what this process has the partition, loaded or not."""
        return self.owned.get(partition) or self.taking.get(partition, (None, None))[1]

    async def _reload(self, owner: OwnedPartition, session_id: str) -> Session:
        # An append of it that was under way when it failed comes before this one: what is read then is all.
        await self._journal.append(Entry(owner.partition, owner.epoch))
        session = Session(session_id)
        async for loaded in self._loader.load(owner.partition, owner.epoch, only=session_id):
            session = loaded
        self._loader.check(session_id)
        return session

    async def look_again(self) -> None:
        """Take up the sessions whose dead letter was replayed or dropped."""
        for partition in await self._loader.decided():
            owner = self.owned.get(partition)
            if owner is None:
                continue
            try:
                async for session in self._loader.load(partition, owner.epoch, released=True):
                    if self.owned.get(partition) is not owner:
                        break
                    self._lane_for(session, owner).post(TakenOver(clean=False))
            except Fenced:
                owner.fenced()

    async def barrier(self, lease: Lease) -> None:
        """Wait until every append of this process to the partition has ended. Raises Fenced if it is not ours."""
        await self._journal.append(Entry(lease.partition, lease.epoch))

    def drop(self, partition: int) -> Dropped:
        """Forget a partition and cancel what runs there."""
        owner = self.owner(partition)
        taking = self.taking.pop(partition, None)
        self.owned.pop(partition, None)
        settled = taking is None or taking[0].clean
        tasks: list[asyncio.Task[Any]] = []
        self._loader.forget(partition)
        for session_id, lane in list(self._lanes.items()):
            if self.partition(session_id) == partition:
                lane.close()
                tasks += lane.busy
                settled = settled and lane.settled
                del self._lanes[session_id]
        return Dropped(0 if owner is None else owner.epoch, tasks, settled)

    def at_rest(self) -> list[int]:
        """Partitions in which nothing runs, and of which an owner before left nothing to be recorded."""
        busy = {self.partition(s) for s, lane in self._lanes.items() if lane.busy or not lane.settled}
        return [partition for partition in self.owned if partition not in busy]

    async def consume(self, item: InboxItem) -> bool:
        """Take a request that another process accepted; False: it has to come again, the partition is not loaded.

        One that cannot be decoded becomes a dead letter.
        """
        owner = self.owned.get(item.partition)
        if owner is None:
            return False
        try:
            envelope, payload = decode_event(item.envelope)
            if entry := announced(item, envelope, owner.epoch):
                await self._record(entry, owner)
                return True
            if item.claim is None or not isinstance(payload, ev.TurnEvent | ev.TurnControlEvent):
                raise EventUndecodable(f"{envelope.type} is no request with a key")
        except KfmError as bad:
            # Kept before the row is consumed, not with it: a crash between leaves the row, and the same letter again.
            letter = "" if self._holds is None else await self._holds.keep(item, bad)
            log.error("inbox_item_undecodable", id=item.id, dead_letter_id=letter, error=bad.message)
            await self._refuse(item, owner, bad)
            return True
        try:
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
            else:
                fact = Asked(envelope.turn_id, payload, item.claim, inbox_id=item.id)
            # Found only now: while a parent was read the lane may have gone to rest, or the partition away.
            lane = self.lane(envelope.session_id) if self.owned.get(item.partition) is owner else None
            if lane is None:
                return False
            lane.post(fact)
        except KfmError as bad:
            log.error("inbox_item_refused", id=item.id, reason=bad.reason, error=bad.message)
            await self._refuse(item, owner, bad)
        return True

    async def _refuse(self, item: InboxItem, owner: OwnedPartition, bad: KfmError) -> None:
        """Leave the refusal for whoever accepted the request, and be done with the row."""
        claim = None if item.claim is None else refusal(item.claim, item.id, bad)
        await self._record(Entry(item.partition, owner.epoch, claim=claim, consumed=(item.id,)), owner)

    async def _record(self, entry: Entry, owner: OwnedPartition) -> None:
        try:
            await self._journal.append(entry)
        except Fenced:
            owner.fenced()

    async def load_turn(self, turn_id: str, only: str = "") -> Turn | None:
        """A turn: from memory if it runs here or ended here lately, else folded from the journal.

        `only`: the step whose large output is needed; those of others may then be left out.
        """
        recent = self._parts.recent.get(turn_id)
        if recent is not None:
            return recent
        row = await self._journal.turn(turn_id)
        if row is None:
            return None
        live = self.live(row.session_id)
        turn = live.turn(turn_id) if live is not None else None
        if turn is not None:
            return turn
        stored = await self._journal.read_turns([turn_id])
        return await fold_stored_turn(self._journal, stored, only)

    def close(self) -> None:
        """Stop everything in this process; the journal has the rest."""
        for partition in (*self.owned, *self.taking):
            self.drop(partition)

    def hold(self) -> None:
        """Start no more steps in this process: the next owner goes on."""
        self.holding = True
        for lane in self._lanes.values():
            lane.hold()

    async def quiet(self, seconds: float) -> bool:
        """After `hold`: wait until what runs has ended and is recorded. False if `seconds` were not enough."""
        try:
            async with asyncio.timeout(seconds):
                while busy := self.busy:
                    await asyncio.wait(busy)
        except TimeoutError:
            return False
        return True

    @property
    def busy(self) -> list[asyncio.Task[Any]]:
        """What runs in this process: attempts, and sessions that have something to do."""
        return [task for lane in self._lanes.values() for task in lane.busy]

    @property
    def count(self) -> int:
        """Sessions in memory."""
        return len(self._lanes)

    def _rest(self, lane: SessionLane) -> None:
        session_id = lane.session.session_id
        if self._lanes.get(session_id) is lane:
            del self._lanes[session_id]
            self._loader.rested(session_id)
