"""Runs consumer groups: a reader for each channel of each owned partition, woken by hints, by probing, and by a bounded poll."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Protocol

import structlog

from kfm_server import metrics
from kfm_server.bus.backlog import Backlog
from kfm_server.bus.reader import PartitionReader, Pause
from kfm_server.clock import Clock
from kfm_server.ports.broker import BrokerMisfit, BrokerUnavailable
from kfm_server.ports.bus import BusUnavailable, CursorFenced, CursorStore, EventSource, Group, TryLater
from kfm_server.ports.journal import JournalUnavailable

log = structlog.get_logger(__name__)
AWAY = (TryLater, JournalUnavailable, BrokerUnavailable, BrokerMisfit, BusUnavailable)
"""What is waited for. Nothing is given up, and nothing is counted against an event."""
_FOLLOW_SECONDS = 0.1
"""Between two looks at which partitions are ours: turns that were taken over wait for their readers."""
_LONGEST_PAUSE = 5.0
_LONGEST_PROBE_PAUSE = 1.0


class Reader(Protocol):
    """What reads one channel of one partition under one epoch. It raises what is in AWAY, or CursorFenced."""

    channel: str
    partition: int
    epoch: int
    offset: int
    """All up to here was dealt with."""

    @property
    def due(self) -> float | None:
        """In so many seconds it wants to be asked again, whether or not there is anything new."""
        ...

    async def refresh(self) -> None:
        """Read the position afresh, and deliver what was parked behind holds that are released."""
        ...

    async def advance(self) -> bool:
        """Deal with one batch; answers whether there may be more."""
        ...


MakeReader = Callable[[str, int, int], Reader]
"""A reader of a channel and a partition under an epoch."""


class _Running:
    """A reader, its task and what it was told."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.wake = asyncio.Event()
        self.released = True
        self.head = 0
        self.backlog = Backlog()
        self.task: asyncio.Task[None] | None = None


class Consumer:
    """Runs one group on the partitions that this process owns, until `run` is cancelled.

    `assigned` tells them, each with its epoch; `stale`, in which of them a reader has to look afresh at where it stands.
    `poll` bounds in seconds how late a lost hint makes an event.
    A reader that was at rest is woken at once, a busy one reads every `linger` to twice `linger` seconds: many commits, one read.
    `probe`: a source that gives no hints is asked for its heads, at the first pause in seconds while it grows, and
    ever more seldom, up to the second, while it does not. `longest_pause`: between tries at what is away, in seconds.
    """

    def __init__(
        self,
        name: str,
        make_reader: MakeReader,
        *,
        source: EventSource,
        stale: Callable[[], Awaitable[Collection[int]]],
        assigned: Callable[[], Mapping[int, int]],
        clock: Clock,
        poll: float = 1.0,
        linger: float = 1.0,
        probe: tuple[float, float] | None = None,
        longest_pause: float = _LONGEST_PAUSE,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._name = name
        self._make_reader = make_reader
        self._source = source
        self._stale = stale
        self._assigned = assigned
        self._clock = clock
        self._poll = poll
        self._linger = linger
        self._probe_pauses = probe
        self._longest_pause = longest_pause
        self._pause = pause
        self._running: dict[tuple[str, int], _Running] = {}
        self._poke = asyncio.Event()
        self._quick = asyncio.Event()
        self._away = False

    def hint(self, partitions: Iterable[int]) -> None:
        """These partitions may have grown. Cheap; for the journal's watchers. Hints may be lost."""
        for partition in partitions:
            for channel in self._source.channels:
                running = self._running.get((channel, partition))
                if running is not None:
                    running.wake.set()

    def poke(self) -> None:
        """A hold was released: look now instead of at the next poll."""
        self._poke.set()

    def expect(self) -> None:
        """Something will come soon: probe at the shortest pause again."""
        self._quick.set()

    async def run(self) -> None:
        """Consume until cancelled. An error that is none of AWAY ends it."""
        async with asyncio.TaskGroup() as tasks:
            if self._probe_pauses is not None:
                tasks.create_task(self._probe(*self._probe_pauses), name=f"bus:{self._name}:probe")
            loop, due = asyncio.get_running_loop(), 0.0
            while True:
                self._follow_assignment(tasks)
                if self._poke.is_set() or loop.time() >= due:
                    self._poke.clear()
                    try:
                        await self._look()
                    except AWAY as error:
                        self._tell_away(error)
                    else:
                        self._tell_back()
                    due = loop.time() + self._poll
                try:
                    async with asyncio.timeout(min(due - loop.time(), _FOLLOW_SECONDS)):
                        await self._poke.wait()
                except TimeoutError:
                    pass

    def _follow_assignment(self, tasks: asyncio.TaskGroup) -> None:
        assigned = self._assigned()
        for place, running in list(self._running.items()):
            ended = running.task is None or running.task.done()
            if ended or assigned.get(running.reader.partition) != running.reader.epoch:
                if running.task is not None:
                    running.task.cancel()
                del self._running[place]
        for partition, epoch in assigned.items():
            for channel in self._source.channels:
                if (channel, partition) not in self._running:
                    running = _Running(self._make_reader(channel, partition, epoch))
                    self._running[channel, partition] = running
                    running.task = tasks.create_task(
                        self._read(running), name=f"bus:{self._name}:{channel}:{partition}"
                    )

    async def _look(self) -> None:
        heads = {channel: await self._source.heads(channel) for channel in self._source.channels}
        stale = await self._stale()
        lag, oldest = 0, 0.0
        for (channel, partition), running in list(self._running.items()):
            head, reader = heads[channel].get(partition, 0), running.reader
            behind = head - reader.offset
            lag += max(behind, 0)
            waited = await running.backlog.seconds(self._source, reader, head, self._clock)
            oldest = max(oldest, waited)
            if partition in stale or (behind < 0 and self._source.may_lose):
                running.released = True
            if behind > 0 or running.released:
                running.wake.set()
        metrics.BUS_LAG.labels(self._name).set(lag)
        metrics.BUS_OLDEST.labels(self._name).set(oldest)

    async def _probe(self, shortest: float, longest: float) -> None:
        pause = shortest
        while True:
            began, grown = self._clock.monotonic(), False
            try:
                for channel in self._source.channels:
                    heads = await self._source.heads(channel) if self._running else {}
                    for partition, head in heads.items():
                        running = self._running.get((channel, partition))
                        if running is not None and head != running.head:
                            running.head = head
                            running.wake.set()
                            grown = True
                pause = shortest if grown or self._quick.is_set() else pause * 1.5
                # Where a look takes long, more of them would take it from those who work.
                pause = min(max(pause, self._clock.monotonic() - began), longest)
                self._quick.clear()
            except AWAY as error:
                self._tell_away(error)
                pause = min(max(pause, 0.05) * 2, _LONGEST_PROBE_PAUSE)
            try:
                async with asyncio.timeout(pause):
                    await self._quick.wait()
                    await asyncio.sleep(shortest)  # what is expected is not there at once
            except TimeoutError:
                pass

    async def _read(self, running: _Running) -> None:
        failures = 0
        while True:
            began = self._clock.monotonic()
            try:
                await self._catch_up(running)
                failures = 0
            except CursorFenced:
                log.info(
                    "bus_fenced",
                    group=self._name,
                    channel=running.reader.channel,
                    partition=running.reader.partition,
                )
                return
            except AWAY as error:
                failures += 1
                running.released = True  # the position is read afresh
                # Whoever says TryLater tells by itself what is away.
                if not isinstance(error, TryLater):
                    self._tell_away(error)
                await self._pause(min(0.1 * 2 ** min(failures, 10), self._longest_pause))
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(running.reader.due):
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
                await running.reader.refresh()
            more = await running.reader.advance()

    def _tell_away(self, error: BaseException) -> None:
        """Once, not for each partition and each try."""
        (log.debug if self._away else log.warning)("bus_waits", group=self._name, error=repr(error))
        self._away = True

    def _tell_back(self) -> None:
        if self._away:
            log.info("bus_goes_on", group=self._name)
        self._away = False


def consume(
    group: Group,
    *,
    source: EventSource,
    store: CursorStore,
    assigned: Callable[[], Mapping[int, int]],
    clock: Clock,
    poll: float = 1.0,
    linger: float = 1.0,
    probe: tuple[float, float] | None = None,
    pause: Pause = asyncio.sleep,
) -> Consumer:
    """What runs a group on a source."""

    def make(channel: str, partition: int, epoch: int) -> Reader:
        return PartitionReader(
            group, channel, partition, epoch, source=source, store=store, clock=clock, pause=pause
        )

    return Consumer(
        group.name,
        make,
        source=source,
        stale=lambda: store.released(group.name),
        assigned=assigned,
        clock=clock,
        poll=poll,
        linger=linger,
        probe=probe,
        pause=pause,
    )
