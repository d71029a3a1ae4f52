"""Tells watchers what was committed. Events are dropped from memory when a reader is behind; deltas coalesce."""

import asyncio
from collections import deque

from kfm.event.v1 import envelope_pb2
from kfm.turn.v1 import turn_pb2 as api

UNSENT_LIMIT_BYTES = 128 * 1024
"""Bytes not yet given to the stream, per reader (ENGINE section 8)."""


class Watcher:
    """One reader of one turn: a bounded mailbox.

    `lost` says that durable events were dropped because the reader is behind: it reads them from the journal.
    `stale` says that events may never have come here: the reader looks into the journal before it takes what did.
    """

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.updates: deque[tuple[api.TurnUpdate, int]] = deque()
        self.unsent = 0
        self.lost = False
        self.stale = False
        self.closed = ""
        self._ready: asyncio.Future[None] | None = None

    def put_event(self, event: envelope_pb2.Envelope, epoch: int) -> None:
        """A durable event: kept if there is room, else marked as lost."""
        size = len(event.payload.value) + 300
        if self.unsent + size > UNSENT_LIMIT_BYTES:
            self._drop(epoch)
            self.lost = True
        if not self.lost:
            self._put(api.TurnUpdate(event=event, epoch=epoch), size)
        self.wake()

    def put_delta(self, delta: api.StepDelta, epoch: int) -> None:
        """A piece of output: coalesced past the limit, and then replaced by a Gap."""
        size = delta.ByteSize() + 40
        if not self.lost and self.unsent + size <= UNSENT_LIMIT_BYTES:
            self._put(api.TurnUpdate(delta=delta, epoch=epoch), size)
        else:
            self._put_gap(api.Gap(step_key=delta.step_key, attempt=delta.attempt), epoch)
        self.wake()

    def put_gap(self, gap: api.Gap, epoch: int) -> None:
        """Deltas were dropped on the way here."""
        self._put_gap(gap, epoch)
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

    def _drop(self, epoch: int) -> None:
        """Drop all; of deltas a Gap remains."""
        told = [update.delta if update.HasField("delta") else update.gap for update, _ in self.updates]
        self.updates.clear()
        self.unsent = 0
        for step_key, attempt in dict.fromkeys((t.step_key, t.attempt) for t in told if t.step_key):
            self._put_gap(api.Gap(step_key=step_key, attempt=attempt), epoch)

    def _put_gap(self, gap: api.Gap, epoch: int) -> None:
        kept: deque[tuple[api.TurnUpdate, int]] = deque()
        for update, held in self.updates:
            same = update.delta.step_key == gap.step_key and update.delta.attempt == gap.attempt
            if same or update.gap == gap:
                self.unsent -= held
            else:
                kept.append((update, held))
        self.updates = kept
        self._put(api.TurnUpdate(gap=gap, epoch=epoch), 80)

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
            for watcher in self._watchers.get(event.turn_id, ()):
                watcher.put_event(event, epoch)

    def delta(self, turn_id: str, delta: api.StepDelta, epoch: int) -> None:
        """Tell of a piece of output; its dispatch is durable."""
        for watcher in self._watchers.get(turn_id, ()):
            watcher.put_delta(delta, epoch)

    def pass_on(self, turn_id: str, update: api.TurnUpdate) -> None:
        """Tell of what the owner, another process, told."""
        for watcher in self._watchers.get(turn_id, ()):
            match update.WhichOneof("update"):
                case "event":
                    watcher.put_event(update.event, update.epoch)
                case "delta":
                    watcher.put_delta(update.delta, update.epoch)
                case "gap":
                    watcher.put_gap(update.gap, update.epoch)
                case _:
                    pass

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
