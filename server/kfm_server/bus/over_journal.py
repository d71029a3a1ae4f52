"""The bus over the journal: groups of consumers that read committed events, woken by hints and a bounded poll."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

import structlog

from kfm_server import metrics
from kfm_server.bus.reader import PartitionReader, Pause
from kfm_server.clock import Clock
from kfm_server.ports.bus import BusUnavailable, CursorFenced, CursorStore, Group, TryLater
from kfm_server.ports.journal import Journal, JournalUnavailable

log = structlog.get_logger(__name__)
_AWAY = (TryLater, JournalUnavailable, BusUnavailable)
_LONGEST_PAUSE = 5.0


class _Running:
    """A reader, its task and what it was told."""

    def __init__(self, reader: PartitionReader) -> None:
        self.reader = reader
        self.wake = asyncio.Event()
        self.released = True
        self.task: asyncio.Task[None] | None = None


class Consumer:
    """Runs one group on the partitions that this process owns, one reader each, until `run` is cancelled.

    `assigned` tells them, each with its epoch; `poll` bounds in seconds how late a lost hint makes an event.
    A reader that was at rest is woken at once, a busy one reads every `linger` to twice `linger` seconds: many commits, one read.
    """

    def __init__(
        self,
        group: Group,
        *,
        journal: Journal,
        store: CursorStore,
        assigned: Callable[[], Mapping[int, int]],
        clock: Clock,
        poll: float = 1.0,
        linger: float = 1.0,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._group = group
        self._journal = journal
        self._store = store
        self._assigned = assigned
        self._clock = clock
        self._poll = poll
        self._linger = linger
        self._pause = pause
        self._running: dict[int, _Running] = {}
        self._poke = asyncio.Event()

    def hint(self, partitions: Iterable[int]) -> None:
        """These partitions may have grown. Cheap; for the journal's watchers. Hints may be lost."""
        for partition in partitions:
            running = self._running.get(partition)
            if running is not None:
                running.wake.set()

    def poke(self) -> None:
        """Ownership changed or a hold was released: look now instead of at the next poll."""
        self._poke.set()

    async def run(self) -> None:
        """Consume until cancelled. An error that is none of the ports' ends it."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._poke.clear()
                self._follow_assignment(tasks)
                try:
                    await self._look()
                except _AWAY as error:
                    log.warning("bus_poll_failed", group=self._group.name, error=repr(error))
                try:
                    async with asyncio.timeout(self._poll):
                        await self._poke.wait()
                except TimeoutError:
                    pass

    def _follow_assignment(self, tasks: asyncio.TaskGroup) -> None:
        assigned = self._assigned()
        for partition, running in list(self._running.items()):
            ended = running.task is None or running.task.done()
            if ended or assigned.get(partition) != running.reader.epoch:
                if running.task is not None:
                    running.task.cancel()
                del self._running[partition]
        for partition, epoch in assigned.items():
            if partition not in self._running:
                running = _Running(
                    PartitionReader(
                        self._group,
                        partition,
                        epoch,
                        journal=self._journal,
                        store=self._store,
                        clock=self._clock,
                        pause=self._pause,
                    )
                )
                self._running[partition] = running
                running.task = tasks.create_task(
                    self._read(running), name=f"bus:{self._group.name}:{partition}"
                )

    async def _look(self) -> None:
        heads = await self._journal.heads()
        released = await self._store.released(self._group.name)
        lag = 0
        for partition, running in self._running.items():
            behind = heads.get(partition, 0) - running.reader.offset
            lag += max(behind, 0)
            if partition in released:
                running.released = True
            if behind > 0 or running.released:
                running.wake.set()
        metrics.BUS_LAG.labels(self._group.name).set(lag)

    async def _read(self, running: _Running) -> None:
        failures = 0
        while True:
            began = self._clock.monotonic()
            try:
                await self._catch_up(running)
                failures = 0
            except CursorFenced:
                log.info("bus_fenced", group=self._group.name, partition=running.reader.partition)
                return
            except _AWAY as error:
                failures += 1
                running.released = True  # the position is read afresh
                # Whoever says TryLater tells by itself what is away, once; here it would be told for each partition.
                tell = log.debug if isinstance(error, TryLater) else log.warning
                tell("bus_reader_waits", group=self._group.name, error=repr(error))
                await self._pause(min(0.1 * 2 ** min(failures, 10), _LONGEST_PAUSE))
                continue
            await running.wake.wait()
            # Not all at one time: they would hold up the turns of this process together.
            spread = 1 + running.reader.partition % 16 / 16
            busy = began + self._linger * spread - self._clock.monotonic()
            if busy > 0:
                await self._pause(busy)

    async def _catch_up(self, running: _Running) -> None:
        more = True
        while more:
            running.wake.clear()
            if running.released:
                running.released = False
                await running.reader.deliver_parked()
            more = await running.reader.advance()
