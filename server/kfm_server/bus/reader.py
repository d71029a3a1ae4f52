"""One group in one partition: reads in order, delivers, buries what nobody can take, parks what is behind it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from google.protobuf.message import DecodeError
from kfm.catalogue.errors import EventTypeUnknown, EventUndecodable
from kfm.catalogue.events import unpack
from kfm.event.v1.envelope_pb2 import Envelope

from kfm_server import failpoints, metrics
from kfm_server.bus.letters import describe, make_letter, plain, undecodable
from kfm_server.clock import Clock
from kfm_server.ports.bus import CursorStore, Delivery, Group, Hold, TryLater
from kfm_server.ports.journal import Journal, Stored

log = structlog.get_logger(__name__)
Pause = Callable[[float], Awaitable[None]]
_READ = 256
_ALONE = "@/"  # begins the key of an event outside a session; no session's key begins so
_BEFORE_COMMIT = failpoints.declare("bus.commit.before")


class PartitionReader:
    """Delivers one partition to one group under one epoch.

    Raises CursorFenced when another epoch has the cursor; TryLater, JournalUnavailable or BusUnavailable
    when something is away: `open` it again then. Events after the last commit come again.
    """

    def __init__(
        self,
        group: Group,
        partition: int,
        epoch: int,
        *,
        journal: Journal,
        store: CursorStore,
        clock: Clock,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self.partition = partition
        self.epoch = epoch
        self.offset = 0
        self._group = group
        self._journal = journal
        self._store = store
        self._clock = clock
        self._pause = pause
        self._holds: dict[str, Hold] = {}

    async def open(self) -> None:
        """Read where the group stands, and shut out earlier epochs."""
        position = await self._store.open(self._group.name, self.partition, self.epoch)
        self.offset = position.offset
        self._holds = {hold.key: hold for hold in position.holds}

    async def advance(self) -> bool:
        """Deliver one batch of what is new and commit; answers whether there may be more."""
        rows = await self._journal.read_partition(self.partition, self.offset, _READ)
        ready: list[tuple[Stored, Delivery]] = []
        for stored in rows:
            if stored.topic not in self._group.topics:
                continue
            key, found = await self._decode(stored)
            if key in self._holds or found is None:
                continue
            if isinstance(found, Delivery):
                ready.append((stored, found))
                if len(ready) < self._group.batch:
                    continue
            await self._hand_over(ready)
            ready = []
            # What was handed over before it may have put its session on hold.
            if isinstance(found, Exception) and key not in self._holds:
                await self._bury(stored, key, found, 1)
        await self._hand_over(ready)
        if rows:
            failpoints.hit(_BEFORE_COMMIT)
            await self._store.commit(self._group.name, self.partition, self.epoch, rows[-1].offset)
            self.offset = rows[-1].offset
        return len(rows) == _READ

    async def deliver_parked(self) -> None:
        """Deliver, in order, what was parked behind holds that were released, and lift them."""
        await self.open()
        for hold in [hold for hold in self._holds.values() if hold.released]:
            await self._deliver_parked(hold)

    async def _deliver_parked(self, hold: Hold) -> None:
        group, key, at = self._group, hold.key, hold.offset - 1
        while at < self.offset:
            rows = await self._journal.read_partition(self.partition, at, _READ)
            if not rows:
                break
            for stored in rows:
                if stored.offset > self.offset:
                    break
                at = stored.offset
                if stored.topic not in group.topics:
                    continue
                mine, found = await self._decode(stored)
                if mine != key:
                    continue
                attempts = 1
                error = found if isinstance(found, Exception) else None
                if isinstance(found, Delivery):
                    attempts = group.retries.attempts
                    error = await self._try(found)
                if error is not None:
                    await self._bury(stored, key, error, attempts)
                    return
            if key.startswith(_ALONE):  # nothing is parked behind it
                break
            await self._store.advance(group.name, self.partition, self.epoch, key, at + 1)
        await self._store.lift(group.name, self.partition, self.epoch, key)
        del self._holds[key]
        log.info("hold_lifted", group=group.name, partition=self.partition, key=key)

    async def _decode(self, stored: Stored) -> tuple[str, Delivery | Exception | None]:
        """The key of an event, and what to deliver, or what is wrong with it, or None to pass over it."""
        try:
            envelope = Envelope.FromString(stored.envelope)
        except DecodeError:
            row = await self._journal.turn(stored.turn_id) if stored.turn_id else None
            return self._key(row.session_id if row else "", stored), undecodable(stored)
        key = self._key(envelope.session_id, stored)
        try:
            event = unpack(envelope)
        except (EventTypeUnknown, EventUndecodable) as error:
            return key, error
        if event is None:
            return key, None
        return key, Delivery(stored.partition, stored.offset, stored.topic, key, envelope, event)

    @staticmethod
    def _key(session_id: str, stored: Stored) -> str:
        if not session_id:
            return f"{_ALONE}{stored.partition}/{stored.offset}"
        return plain(session_id).replace("@", "@@") if "@" in session_id else plain(session_id)

    async def _hand_over(self, ready: Sequence[tuple[Stored, Delivery]]) -> None:
        if not ready:
            return
        if len(ready) > 1:
            try:
                async with asyncio.timeout(self._group.retries.timeout):
                    await self._group.handler([delivery for _, delivery in ready])
                self._count([delivery for _, delivery in ready])
                return
            except TryLater:
                raise
            except Exception as error:
                log.info("bus_batch_failed", group=self._group.name, size=len(ready), error=repr(error))
        for stored, delivery in ready:
            if delivery.key not in self._holds:
                error = await self._try(delivery)
                if error is not None:
                    await self._bury(stored, delivery.key, error, self._group.retries.attempts)

    async def _try(self, delivery: Delivery) -> Exception | None:
        retries = self._group.retries
        attempt = 0
        while True:
            attempt += 1
            try:
                async with asyncio.timeout(retries.timeout):
                    await self._group.handler([delivery])
                self._count([delivery])
                return None
            except TryLater:
                raise
            except Exception as error:
                metrics.BUS_FAILURES.labels(self._group.name, delivery.topic).inc()
                if attempt >= retries.attempts:
                    log.warning("bus_delivery_failed", group=self._group.name, exc_info=error)
                    return error
            await self._pause(retries.pause * 2 ** (attempt - 1))

    def _count(self, deliveries: Sequence[Delivery]) -> None:
        now = self._clock.now_us()
        for delivery in deliveries:
            at = delivery.envelope.timestamp
            age = now - at.seconds * 1_000_000 - at.nanos // 1000
            metrics.BUS_SECONDS.labels(self._group.name, delivery.topic).observe(max(age, 0) / 1e6)

    async def _bury(self, stored: Stored, key: str, error: Exception, deliveries: int) -> None:
        tenant_id, session_id = "", ""
        try:
            envelope = Envelope.FromString(stored.envelope)
            tenant_id, session_id = envelope.tenant_id, envelope.session_id
        except DecodeError:
            row = await self._journal.turn(stored.turn_id) if stored.turn_id else None
            if row is not None:
                tenant_id, session_id = row.tenant_id, row.session_id
        letter = make_letter(
            self._group.name,
            stored,
            tenant_id=tenant_id,
            session_id=plain(session_id),
            key=key,
            error=describe(error),
            deliveries=deliveries,
            now_us=self._clock.now_us(),
        )
        cursor = max(self.offset, stored.offset)
        await self._store.bury(letter, self.epoch, cursor)
        self.offset = cursor
        self._holds[key] = Hold(key, stored.offset, letter.reason)
        metrics.BUS_DEAD_LETTERS.labels(self._group.name, stored.topic).inc()
        log.warning(
            "dead_letter", id=letter.id, group=letter.group, partition=letter.partition,
            offset=letter.offset, session_id=letter.session_id, reason=letter.reason,
        )  # fmt: skip
