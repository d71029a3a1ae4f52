"""Tells watchers what was committed. Events are dropped from memory when a reader is behind; deltas coalesce."""

import asyncio

from kfm.event.v1 import envelope_pb2
from kfm.turn.v1 import turn_pb2 as api

UNSENT_LIMIT_BYTES = 128 * 1024
"""Bytes not yet given to the stream, per reader (ENGINE section 8)."""
_ENVELOPE_BYTES = 300
_DELTA_BYTES = 40
_GAP_BYTES = 80


class Watcher:
    """One reader of one turn: a bounded mailbox.

    `lost` says that durable events were dropped because the reader is behind: it reads them from the journal.
    `stale` says that events may never have come here: the reader looks into the journal before it takes what did.
    """

    __slots__ = ("_ready", "closed", "lost", "partition", "stale", "unsent", "updates")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.updates: list[tuple[api.TurnUpdate, int]] = []
        self.unsent = 0
        self.lost = False
        self.stale = False
        self.closed = ""
        self._ready: asyncio.Future[None] | None = None

    def put_event(self, update: api.TurnUpdate, size: int) -> None:
        """A durable event: kept if there is room, else marked as lost."""
        if self.unsent + size > UNSENT_LIMIT_BYTES:
            self._drop()
            self.lost = True
        if not self.lost:
            self._put(update, size)
        self.wake()

    def put_delta(self, update: api.TurnUpdate, size: int) -> None:
        """A piece of output, or a Gap: coalesced past the limit, and then replaced by a Gap."""
        if update.HasField("gap"):
            self._put_gap(update)
        elif not self.lost and self.unsent + size <= UNSENT_LIMIT_BYTES:
            self._put(update, size)
        else:
            self._put_gap(_gap(update))
        self.wake()

    def close(self, reason: str) -> None:
        """Ask the reader to come back."""
        self.closed = reason
        self.wake()

    def take(self) -> list[api.TurnUpdate]:
        """All that waits."""
        taken = [u for u, _ in self.updates]
        self.updates.clear()
        self.unsent = 0
        return taken

    async def ready(self) -> None:
        """Wait until there is something to take."""
        if self.updates or self.lost or self.stale or self.closed:
            return
        self._ready = asyncio.get_running_loop().create_future()
        await self._ready

    def wake(self) -> None:
        """Let `ready` return."""
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _drop(self) -> None:
        """Drop all; of deltas a Gap remains."""
        for update in self.take():
            if not update.HasField("event"):
                self._put_gap(_gap(update))

    def _put_gap(self, told: api.TurnUpdate) -> None:
        """Put it in the place of all that it tells of."""
        kept = [held for held in self.updates if held[0].HasField("event") or _gap(held[0]).gap != told.gap]
        self.updates = kept
        self.unsent = sum(size for _, size in kept)
        self._put(told, _GAP_BYTES)

    def _put(self, update: api.TurnUpdate, size: int) -> None:
        self.updates.append((update, size))
        self.unsent += size


class Broadcaster:
    """Who watches what, in this process."""

    def __init__(self) -> None:
        self._watchers: dict[str, dict[Watcher, None]] = {}

    def attach(self, turn_id: str, partition: int) -> Watcher:
        """A new reader of a turn of the partition; sees everything published from now on."""
        watcher = Watcher(partition)
        self._watchers.setdefault(turn_id, {})[watcher] = None
        return watcher

    def detach(self, turn_id: str, watcher: Watcher) -> None:
        """The reader is gone."""
        watchers = self._watchers.get(turn_id)
        if watchers is not None:
            watchers.pop(watcher, None)
            if not watchers:
                del self._watchers[turn_id]

    def publish(self, events: list[envelope_pb2.Envelope], epoch: int) -> None:
        """Tell of committed events."""
        for event in events:
            if event.turn_id in self._watchers:
                self.pass_on(event.turn_id, api.TurnUpdate(event=event, epoch=epoch))

    def delta(self, turn_id: str, delta: api.StepDelta, epoch: int) -> None:
        """Tell of a piece of output; its dispatch is durable."""
        if turn_id in self._watchers:
            self.pass_on(turn_id, api.TurnUpdate(delta=delta, epoch=epoch))

    def pass_on(self, turn_id: str, update: api.TurnUpdate) -> None:
        """Tell of an event, a delta or a gap. All readers share the one message: nobody may change it."""
        watchers = self._watchers.get(turn_id, ())
        if update.HasField("event"):
            size = len(update.event.payload.value) + _ENVELOPE_BYTES
            for watcher in watchers:
                watcher.put_event(update, size)
        else:
            size = update.ByteSize() + _DELTA_BYTES
            for watcher in watchers:
                watcher.put_delta(update, size)

    def behind(self, turn_id: str) -> None:
        """Events may have been missed: every reader of the turn looks into the journal."""
        for watcher in self._watchers.get(turn_id, ()):
            watcher.stale = True
            watcher.wake()

    def close(self, reason: str, partition: int | None = None) -> None:
        """Ask readers to come back: those of a partition, or all."""
        for watchers in self._watchers.values():
            for watcher in watchers:
                if partition is None or watcher.partition == partition:
                    watcher.close(reason)

    @property
    def count(self) -> int:
        """Readers attached."""
        return sum(len(w) for w in self._watchers.values())

    @property
    def most_unsent(self) -> int:
        """Bytes held for the reader that is furthest behind."""
        return max((w.unsent for watchers in self._watchers.values() for w in watchers), default=0)


def _gap(update: api.TurnUpdate) -> api.TurnUpdate:
    """The Gap that stands for a delta; a Gap stands for itself."""
    if update.HasField("gap"):
        return update
    gap = api.Gap(step_key=update.delta.step_key, attempt=update.delta.attempt)
    return api.TurnUpdate(gap=gap, epoch=update.epoch)
