"""The relay of one partition under one epoch: what it has read, what of that the broker has, and what the broker lost."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

import structlog
from google.protobuf.message import DecodeError
from kfm.catalogue.events import TOPICS
from kfm.event.v1.envelope_pb2 import Envelope

from kfm_server import failpoints, metrics
from kfm_server.bus.copies import copy_of
from kfm_server.bus.heads import Heads
from kfm_server.bus.letters import describe, make_letter, plain
from kfm_server.clock import Clock
from kfm_server.ports.broker import STEPS, Broker, BrokerUnavailable, MessageRefused
from kfm_server.ports.bus import JOURNAL, CursorStore
from kfm_server.ports.journal import Journal, Stored

log = structlog.get_logger(__name__)
RELAY: Final = "relay"
"""The group's name."""
_READ = 256
_MOST_BYTES = 4_000_000
"""Payloads of one publication, unless a single one is larger."""
_COMMIT_SECONDS = 0.25
"""The cursor is committed this often while there is much to do: what was published since comes again after a crash."""
_FLUSH_SECONDS = 2.0
"""Where pools wait for their steps, the other events are published this often."""
_MARK_SECONDS = 10.0
_UNFINISHED = 2**62
"""The mark of a topic that is being refilled: no head reaches it."""
_BEFORE_PUBLISH = failpoints.declare("relay.publish.before")
_BEFORE_COMMIT = failpoints.declare("relay.commit.before")
_AFTER_COMMIT = failpoints.declare("relay.commit.after")


class PartitionRelay:
    """A Reader of the consumer that relays: see Relay."""

    channel = JOURNAL

    def __init__(
        self,
        partition: int,
        epoch: int,
        *,
        journal: Journal,
        broker: Broker,
        heads: Heads,
        store: CursorStore,
        clock: Clock,
        pools: Collection[bytes],
        dispatched: Callable[[], None] | None,
    ) -> None:
        self._pools = pools
        self._dispatched = dispatched
        self._waiting: list[Stored] = []
        """Read, and not published yet, but for the dispatches up to `_dispatched_to`."""
        self._dispatched_to = 0
        self._flushed_at = 0.0
        self.due: float | None = None
        self.partition = partition
        self.epoch = epoch
        self.offset = 0
        self._journal = journal
        self._broker = broker
        self._heads = heads
        self._store = store
        self._clock = clock
        self._committed = 0
        self._committed_at = 0.0
        self.marks: dict[str, int] = {}
        """What the head of each topic is at least, as long as the broker loses nothing."""
        self._kept: dict[str, int] = {}
        self._kept_at = 0.0

    async def refresh(self) -> None:
        """Read the cursor, shut out earlier epochs, and give the broker again what it has lost."""
        position = await self._store.open(RELAY, self.partition, self.epoch)
        self._committed = position.offset
        self.offset = max(position.offset, self.offset)
        self._waiting.clear()  # read again
        if not self.marks:
            for topic in TOPICS:
                mark = await self._store.open(RELAY, self.partition, self.epoch, topic)
                self._kept[topic] = mark.offset
            self.marks = dict(self._kept)
        marks = dict(self.marks)
        found = await self._heads.look()
        heads = {topic: found[topic].get(self.partition, 0) for topic in TOPICS}
        if lost := self.lost(heads, marks):
            await self._refill(lost)

    def lost(self, heads: Mapping[str, int], marks: Mapping[str, int]) -> Collection[str]:
        """The topics whose heads are lower than the marks that were set before them; of others they are the marks now."""
        lost = [topic for topic, head in heads.items() if head < marks[topic]]
        for topic, head in heads.items():
            if topic not in lost:
                self.marks[topic] = max(self.marks[topic], head)
        return lost

    async def advance(self) -> bool:
        """Publish what somebody waits for, and now and then all; answers whether there may be more."""
        after = self._waiting[-1].offset if self._waiting else self.offset
        rows = await self._journal.read_along(self.partition, after, _READ)
        self._waiting += rows
        if any(row.topic == STEPS and any(pool in row.envelope for pool in self._pools) for row in rows):
            await self._publish([row for row in self._unpublished() if row.topic == STEPS])
            self._dispatched_to = self._waiting[-1].offset
            if self._dispatched is not None:
                self._dispatched()
        left = self._flushed_at + _FLUSH_SECONDS - self._clock.monotonic() if self._pools else 0.0
        if self._waiting and (left <= 0 or len(self._waiting) >= _READ):
            await self._publish(self._unpublished())
            self.offset = self._waiting[-1].offset
            self._waiting.clear()
            self._flushed_at = self._clock.monotonic()
            if self._flushed_at - self._committed_at >= _COMMIT_SECONDS:
                await self._commit()
        self.due = max(left, 0.0) if self._waiting else None
        return len(rows) == _READ

    def _unpublished(self) -> list[Stored]:
        return [row for row in self._waiting if row.topic != STEPS or row.offset > self._dispatched_to]

    async def settle(self) -> None:
        """Commit what was published; now and then, how much of each topic the broker has. Raises CursorFenced."""
        if self._committed < self.offset:
            await self._commit()
        due = self._clock.monotonic() - self._kept_at >= _MARK_SECONDS
        if due:
            self._kept_at = self._clock.monotonic()
        for topic, mark in list(self.marks.items()):
            kept = self._kept.get(topic, 0)
            # The first at once: whoever comes next can tell an empty topic from one that was wiped.
            if (due or not kept) and kept < mark < _UNFINISHED:
                await self._store.commit(RELAY, self.partition, self.epoch, mark, topic)
                self._kept[topic] = mark

    async def _commit(self) -> None:
        offset = self.offset
        failpoints.hit(_BEFORE_COMMIT)
        await self._store.commit(RELAY, self.partition, self.epoch, offset)
        failpoints.hit(_AFTER_COMMIT)
        self._committed = max(offset, self._committed)
        self._committed_at = self._clock.monotonic()

    async def _publish(self, rows: Sequence[Stored]) -> None:
        by_topic: dict[str, list[Stored]] = {}
        for row in rows:
            by_topic.setdefault(row.topic, []).append(row)
        failpoints.hit(_BEFORE_PUBLISH)
        for topic, found in by_topic.items():
            for some in _bounded(found):
                await self._send(topic, some)

    async def _send(self, topic: str, rows: Sequence[Stored]) -> None:
        try:
            await self._broker.publish(topic, self.partition, [copy_of(row) for row in rows])
        except BrokerUnavailable:
            metrics.RELAY_FAILURES.inc()
            raise
        except MessageRefused as refused:
            if len(rows) > 1:
                for row in rows:
                    await self._send(topic, (row,))
            else:
                await self._keep(rows[0], refused)
            return
        self.marks[topic] = self.marks.get(topic, 0) + len(rows)
        metrics.RELAYED.labels(topic).inc(len(rows))

    async def _keep(self, row: Stored, refused: MessageRefused) -> None:
        """A dead letter of what the broker never takes. It holds nothing: what follows is relayed."""
        try:
            envelope = Envelope.FromString(row.envelope)
        except DecodeError:
            envelope = Envelope()
        letter = make_letter(
            RELAY,
            row,
            tenant_id=envelope.tenant_id,
            session_id=plain(envelope.session_id),
            key="",
            error=describe(refused),
            deliveries=1,
            now_us=self._clock.now_us(),
        )
        await self._store.keep(letter)
        metrics.BUS_DEAD_LETTERS.labels(RELAY, row.topic).inc()
        log.error("relay_refused", id=letter.id, topic=row.topic, offset=row.offset, error=str(refused))

    async def _refill(self, topics: Collection[str]) -> None:
        """Publish again all that the journal has of these topics. A crash meanwhile begins again: the mark says so."""
        log.error("broker_lost_events", partition=self.partition, topics=sorted(topics))
        for topic in topics:
            metrics.RELAY_REFILLS.labels(topic).inc()
            await self._store.reset(RELAY, self.partition, self.epoch, _UNFINISHED, topic)
            self.marks[topic] = self._kept[topic] = _UNFINISHED
        at, sent = 0, 0
        while at < self.offset:
            rows = await self._journal.read_partition(self.partition, at, _READ)
            if not rows:
                break
            at = rows[-1].offset
            again = [row for row in rows if row.topic in topics and row.offset <= self.offset]
            await self._publish(again)
            sent += len(again)
        for topic in topics:
            head = (await self._broker.heads(topic)).get(self.partition, 0)
            await self._store.reset(RELAY, self.partition, self.epoch, head, topic)
            self.marks[topic] = self._kept[topic] = head
        log.warning("broker_refilled", partition=self.partition, topics=sorted(topics), events=sent)


def _bounded(rows: Iterable[Stored]) -> Iterator[list[Stored]]:
    """In order, in lists within _MOST_BYTES; a larger one alone."""
    some: list[Stored] = []
    size = 0
    for row in rows:
        if some and size + len(row.envelope) > _MOST_BYTES:
            yield some
            some, size = [], 0
        some.append(row)
        size += len(row.envelope)
    if some:
        yield some
