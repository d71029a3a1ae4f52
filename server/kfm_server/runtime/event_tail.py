"""The newest events of each partition, read from the journal once for all who watch them."""

import asyncio
from bisect import bisect_right
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from google.protobuf.message import DecodeError
from kfm.event.v1.envelope_pb2 import Envelope

from kfm_server.clock import Clock
from kfm_server.ports.journal import Journal, JournalUnavailable, Stored

log = structlog.get_logger(__name__)
PAGE = 256
"""Events read from the journal at a time."""
KEPT_BYTES = 512 * 1024
"""What is kept of one partition; a reader that is further behind reads the journal itself."""
_AWAY_SECONDS = 1.0
_BEHIND_AT_ONCE = 2
"""Readers that are behind and read the journal at one time: they must not take all its connections."""


@dataclass(slots=True)
class Event:
    """An event at its offset; without an envelope it cannot be decoded. All readers share it: nobody may change it."""

    offset: int
    envelope: Envelope | None
    size: int


def decode(stored: Stored) -> Event:
    """The event of a row."""
    try:
        envelope = Envelope.FromString(stored.envelope)
    except DecodeError:
        envelope = None
    return Event(stored.offset, envelope, len(stored.envelope))


@dataclass(slots=True)
class _Tail:
    """All events of a partition with offsets above `start`, up to `last`."""

    start: int
    last: int
    readers: set[asyncio.Event] = field(default_factory=set[asyncio.Event])
    events: list[Event] = field(default_factory=list[Event])
    bytes: int = 0

    def add(self, events: Sequence[Event]) -> None:
        self.events += events
        self.last = events[-1].offset
        self.bytes += sum(event.size for event in events)
        over, cut = self.bytes - KEPT_BYTES, 0
        while over > 0 and cut < len(self.events) - 1:
            over -= self.events[cut].size
            cut += 1
        if cut:
            self.bytes -= sum(event.size for event in self.events[:cut])
            self.start = self.events[cut - 1].offset
            del self.events[:cut]


class EventTail:
    """Keeps the newest events of the partitions that anybody reads; reads nothing for nobody.

    `poll` bounds in seconds how late the events of other processes come, and those whose hint was lost; a partition
    that is busy is read every `linger` seconds: many commits, one read.
    """

    def __init__(self, journal: Journal, clock: Clock, *, poll: float = 0.25, linger: float = 0.05) -> None:
        self._journal = journal
        self._clock = clock
        self._poll = poll
        self._linger = linger
        self._tails: dict[int, _Tail] = {}
        self._grown: set[int] = set()
        self._asked = float("-inf")
        self._behind = asyncio.Semaphore(_BEHIND_AT_ONCE)
        self._wake = asyncio.Event()
        self._wanted = asyncio.Event()

    def hint(self, partitions: Iterable[int]) -> None:
        """These partitions may have grown. Cheap; for the journal's watchers."""
        for partition in partitions:
            if partition in self._tails:
                self._grown.add(partition)
                self._wake.set()

    @contextmanager
    def reading(self, partitions: Collection[int], heads: Mapping[int, int]) -> Generator[asyncio.Event]:
        """What is set when one of the partitions has new events; `heads`, as they were just read."""
        reader = asyncio.Event()
        for partition in partitions:
            tail = self._tails.get(partition)
            if tail is None:
                head = heads.get(partition, 0)
                tail = self._tails[partition] = _Tail(head, head)
            tail.readers.add(reader)
        self._wanted.set()
        try:
            yield reader
        finally:
            for partition in partitions:
                tail = self._tails[partition]
                tail.readers.discard(reader)
                if not tail.readers:
                    del self._tails[partition]
            if not self._tails:
                self._wanted.clear()

    async def after(self, partition: int, offset: int) -> Sequence[Event]:
        """Events above an offset, some of them, in order; empty when there are none yet. Raises JournalUnavailable."""
        tail = self._tails[partition]
        if offset >= tail.start:
            at = bisect_right(tail.events, offset, key=lambda event: event.offset)
            return tail.events[at : at + PAGE]
        async with self._behind:
            return [decode(stored) for stored in await self._journal.read_partition(partition, offset, PAGE)]

    async def run(self) -> None:
        """Read what is new until cancelled."""
        while True:
            await self._wanted.wait()
            try:
                await self._read()
            except JournalUnavailable as error:
                log.warning("event_tail_waits", error=str(error))
                await asyncio.sleep(_AWAY_SECONDS)
                continue
            await asyncio.sleep(self._linger)
            try:
                async with asyncio.timeout(self._poll):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _read(self) -> None:
        """Bring tails to their heads: those that hints name, and each `poll` seconds all."""
        self._wake.clear()
        grown, self._grown = self._grown, set()
        now = self._clock.monotonic()
        if now - self._asked >= self._poll:
            self._asked = now
            heads = await self._journal.heads()
            grown |= {p for p, tail in self._tails.items() if heads.get(p, 0) > tail.last}
        for partition in sorted(grown):
            more = True
            while more and (tail := self._tails.get(partition)) is not None:
                rows = await self._journal.read_partition(partition, tail.last, PAGE)
                more = len(rows) == PAGE
                if rows and self._tails.get(partition) is tail:
                    tail.add([decode(stored) for stored in rows])
                    for reader in tail.readers:
                        reader.set()
