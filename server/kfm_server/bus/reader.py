"""One group in one channel of one partition: reads in order, delivers, buries what nobody can take, parks what is behind it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import structlog
from google.protobuf.message import DecodeError
from kfm.catalogue.errors import EventTypeUnknown, EventUndecodable
from kfm.catalogue.events import unpack
from kfm.event.v1.envelope_pb2 import Envelope

from kfm_server import failpoints, metrics
from kfm_server.bus.letters import describe, make_letter, plain, undecodable
from kfm_server.clock import Clock
from kfm_server.ports.bus import (
    Carried,
    CursorStore,
    Delivery,
    EventSource,
    Group,
    Hold,
    Position,
    TryLater,
    key_in,
)
from kfm_server.ports.journal import Stored

log = structlog.get_logger(__name__)
Pause = Callable[[float], Awaitable[None]]
_READ = 256
"""Most events of a partition that are in this process at one time."""
_COMMIT_SECONDS = 1.0
"""A group whose events settle late commits this often: to the crash that it is for, what settles meanwhile is one event more."""
_REMEMBERED = 1024
"""Last events of a channel that may lose some: a copy of one of them is not delivered again."""
_ALONE = "@/"  # begins the key of an event outside a session; no session's key begins so
_BEFORE_COMMIT = failpoints.declare("bus.commit.before")


class PartitionReader:
    """Delivers one channel of one partition to one group under one epoch.

    Raises CursorFenced when another epoch has the cursor; TryLater, JournalUnavailable, BrokerUnavailable or
    BusUnavailable when something is away: `open` it again then. Events after the last commit come again.
    """

    def __init__(
        self,
        group: Group,
        channel: str,
        partition: int,
        epoch: int,
        *,
        source: EventSource,
        store: CursorStore,
        clock: Clock,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self.channel = channel
        self.partition = partition
        self.epoch = epoch
        self.offset = 0
        self._group = group
        self._source = source
        self._store = store
        self._clock = clock
        self._pause = pause
        self._holds: dict[str, Hold] = {}
        self._taken: deque[tuple[float, int]] = deque()
        self._committed_at = 0.0
        self._alone = key_in(channel, _ALONE)
        self._delivered: deque[str] = deque(maxlen=_REMEMBERED)
        self._known: set[str] = set()

    async def open(self) -> None:
        """Read where the group stands, and shut out earlier epochs.

        A source that has lost events is read from its beginning again: what it holds now may stand at any offset.
        """
        group, partition, epoch = self._group.name, self.partition, self.epoch
        position = await self._store.open(group, partition, epoch, self.channel)
        if position.offset and self._source.may_lose:
            head = (await self._source.heads(self.channel)).get(partition, 0)
            if head < position.offset:
                log.error(
                    "bus_lost_events", group=group, channel=self.channel, partition=partition,
                    read_up_to=position.offset, head=head, reads_from=0, holds_ended=len(position.holds),
                )  # fmt: skip
                metrics.BUS_RESETS.labels(group, self.channel).inc()
                await self._store.reset(group, partition, epoch, 0, self.channel)
                position = Position(0, ())
        self.offset = position.offset
        self._taken.clear()
        self._holds = {hold.key: hold for hold in position.holds}

    @property
    def due(self) -> float | None:
        """As Reader: it is woken when there is something."""
        return None

    async def advance(self) -> bool:
        """Deliver one batch of what is new and commit; answers whether there may be more."""
        rows = await self._source.read(self.channel, self.partition, self.offset, _READ)
        ready: list[tuple[Stored, Delivery]] = []
        for stored in rows:
            if not self._concerns(stored):
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
            self.offset = rows[-1].offset
            await self._commit()
        return len(rows) == _READ

    async def _commit(self) -> None:
        """Move the cursor to what is settled."""
        now, settled = self._clock.monotonic(), 0
        self._taken.append((now, self.offset))
        if self._group.settle and now - self._committed_at < _COMMIT_SECONDS:
            return
        self._committed_at = now
        while self._taken and self._taken[0][0] <= now - self._group.settle:
            settled = self._taken.popleft()[1]
        if settled:
            failpoints.hit(_BEFORE_COMMIT)
            await self._store.commit(self._group.name, self.partition, self.epoch, settled, self.channel)

    async def refresh(self) -> None:
        """Deliver, in order, what was parked behind holds that were released, and lift them."""
        await self.open()
        for hold in [hold for hold in self._holds.values() if hold.released]:
            await self._deliver_parked(hold)

    async def _deliver_parked(self, hold: Hold) -> None:
        group, key, at = self._group, hold.key, hold.offset - 1
        while at < self.offset:
            rows = await self._source.read(self.channel, self.partition, at, _READ)
            if not rows:
                break
            for stored in rows:
                if stored.offset > self.offset:
                    break
                at = stored.offset
                if not self._concerns(stored):
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
            if key.startswith(self._alone):  # nothing is parked behind it
                break
            await self._store.advance(group.name, self.partition, self.epoch, key, at + 1, self.channel)
        await self._store.lift(group.name, self.partition, self.epoch, key, self.channel)
        del self._holds[key]
        log.info("hold_lifted", group=group.name, partition=self.partition, key=key)

    async def _decode(self, stored: Stored) -> tuple[str, Delivery | Exception | None]:
        """The key of an event, and what to deliver, or what is wrong with it, or None to pass over it."""
        try:
            envelope = Envelope.FromString(stored.envelope)
        except DecodeError:
            _, session_id = await self._source.about(stored)
            return self._key(session_id, stored), undecodable(stored)
        key = self._key(envelope.session_id, stored)
        try:
            event = unpack(envelope)
        except (EventTypeUnknown, EventUndecodable) as error:
            return key, error
        if event is None or envelope.event_id in self._known:
            return key, None
        return key, Delivery(stored.partition, stored.offset, stored.topic, key, envelope, event)

    def _concerns(self, stored: Stored) -> bool:
        if stored.topic not in self._group.topics:
            return False
        return self._group.copies or not (isinstance(stored, Carried) and stored.copy_of)

    def _key(self, session_id: str, stored: Stored) -> str:
        if not session_id:
            return f"{self._alone}{stored.partition}/{stored.offset}"
        key = plain(session_id).replace("@", "@@") if "@" in session_id else plain(session_id)
        return key_in(self.channel, key)

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
            if self._source.may_lose:
                self._remember(delivery.envelope.event_id)

    def _remember(self, event_id: str) -> None:
        if event_id and event_id not in self._known:
            if len(self._delivered) == _REMEMBERED:
                self._known.discard(self._delivered[0])
            self._delivered.append(event_id)
            self._known.add(event_id)

    async def _bury(self, stored: Stored, key: str, error: Exception, deliveries: int) -> None:
        tenant_id, session_id = "", ""
        try:
            envelope = Envelope.FromString(stored.envelope)
            tenant_id, session_id = envelope.tenant_id, envelope.session_id
        except DecodeError:
            tenant_id, session_id = await self._source.about(stored)
        letter = make_letter(
            self._group.name,
            stored,
            tenant_id=tenant_id,
            session_id=plain(session_id),
            key=key if self._group.holds else "",
            error=describe(error),
            deliveries=deliveries,
            now_us=self._clock.now_us(),
        )
        if self._group.holds:
            cursor = max(self.offset, stored.offset)
            await self._store.bury(letter, self.epoch, cursor, self.channel)
            self.offset = cursor
            self._holds[key] = Hold(key, stored.offset, letter.reason)
        else:
            await self._store.keep(letter)
        metrics.BUS_DEAD_LETTERS.labels(self._group.name, stored.topic).inc()
        log.warning(
            "dead_letter", id=letter.id, group=letter.group, partition=letter.partition,
            offset=letter.offset, session_id=letter.session_id, reason=letter.reason,
        )  # fmt: skip
