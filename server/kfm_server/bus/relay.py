"""The relay: publishes the events of owned partitions to the broker, as the journal has them, in its order.

It is the group `relay` over the journal. What the broker confirmed moves the cursor; a crash between publishes again,
under the same ids. The broker is never the truth: of what it has lost, it gets again all that the journal has.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping

from kfm.catalogue.events import TOPICS

from kfm_server.bus.consumer import Consumer
from kfm_server.bus.heads import Heads
from kfm_server.bus.partition_relay import RELAY, PartitionRelay
from kfm_server.bus.reader import Pause
from kfm_server.bus.sources import JournalSource
from kfm_server.clock import Clock
from kfm_server.ports.broker import Broker
from kfm_server.ports.bus import CursorFenced, CursorStore
from kfm_server.ports.journal import Journal


class Relay:
    """Makes the consumer that relays: at once when it was at rest, else every `linger` to twice `linger` seconds.

    Its longest pause between tries at a broker that is away is a second. A dispatch to one of `pools` is published at
    once, and `dispatched` is called then, for somebody may answer soon; the rest follows a little later, many commits
    together. Within a topic the order is the journal's.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        broker: Broker,
        store: CursorStore,
        assigned: Callable[[], Mapping[int, int]],
        clock: Clock,
        linger: float = 0.0,
        pools: Collection[str] = (),
        dispatched: Callable[[], None] | None = None,
        poll: float = 1.0,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._journal = journal
        self._broker = broker
        self._store = store
        self._assigned = assigned
        self._clock = clock
        self._pools = tuple(pool.encode() for pool in pools)
        self._dispatched = dispatched
        self._readers: dict[int, PartitionRelay] = {}
        self._heads = Heads(broker, TOPICS)
        self.consumer = Consumer(
            RELAY,
            self._make,
            source=JournalSource(journal),
            stale=self._stale,
            assigned=assigned,
            clock=clock,
            poll=poll,
            linger=linger,
            longest_pause=1.0,
            pause=pause,
        )

    def _make(self, channel: str, partition: int, epoch: int) -> "PartitionRelay":
        made = PartitionRelay(
            partition,
            epoch,
            journal=self._journal,
            broker=self._broker,
            heads=self._heads,
            store=self._store,
            clock=self._clock,
            pools=self._pools,
            dispatched=self._dispatched,
        )
        self._readers[partition] = made
        return made

    async def _stale(self) -> Collection[int]:
        """Partitions of which the broker has lost something; meanwhile what was relayed is committed."""
        owned = self._assigned()
        self._readers = {p: reader for p, reader in self._readers.items() if owned.get(p) == reader.epoch}
        readers = list(self._readers.items())
        marks = [dict(reader.marks) for _, reader in readers]
        heads = await self._heads.look()
        found: set[int] = set()
        for (partition, reader), before in zip(readers, marks, strict=True):
            if reader.lost(
                {topic: heads[topic].get(partition, 0) for topic in TOPICS if topic in before}, before
            ):
                found.add(partition)
            try:
                await reader.settle()
            except CursorFenced:
                found.add(partition)  # it finds out by itself
        return found
