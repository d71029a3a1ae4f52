"""What the tests of the bus share: events in a journal, and a consumer that runs until it is quiet."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any

from kfm.catalogue.events import EVENT_TYPES, fill
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.turn_events_pb2 import TurnEvent
from kfm_server.bus.consumer import Consumer, consume
from kfm_server.bus.sources import JournalSource
from kfm_server.clock import SystemClock
from kfm_server.journal.memory import MemoryJournal
from kfm_server.ports.bus import Delivery, Group, Handler, Retries
from kfm_server.ports.journal import Entry, Record

TOPIC = "agent.turns.requests"
LIMIT = 10.0


def sealed(turn_id: str, sequence: int, session_id: str = "ses_a", tenant_id: str = "default") -> Envelope:
    """A TurnEvent in its envelope."""
    envelope = Envelope(
        event_id=f"{turn_id}.{sequence}",
        tenant_id=tenant_id,
        session_id=session_id,
        turn_id=turn_id,
        sequence=sequence,
    )
    envelope.timestamp.GetCurrentTime()
    fill(envelope, TurnEvent(principal="ann"))
    return envelope


def unknown(envelope: Envelope, *, may_ignore: bool = False) -> Envelope:
    """The same as an event of a type that is not in the catalogue."""
    envelope.type = "NovelEvent.v1"
    envelope.payload.type_url = "type.googleapis.com/kfm.event.v1.NovelEvent"
    envelope.may_ignore = may_ignore
    assert envelope.type not in EVENT_TYPES
    return envelope


async def append(journal: MemoryJournal, *events: Envelope | bytes, partition: int = 0) -> None:
    """Put events, or bytes that are none, behind what the partition holds."""
    for event in events:
        body = event if isinstance(event, bytes) else event.SerializeToString()
        turn_id, sequence = ("", 0) if isinstance(event, bytes) else (event.turn_id, event.sequence)
        record = Record(turn_id, sequence, TOPIC, body)
        await journal.append(Entry(partition, journal.epochs[partition], (record,)))


class Seen:
    """A handler that notes what it was given, and fails where it was told to."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.tries: list[str] = []
        self.broken: set[str] = set()
        self.changed = asyncio.Event()

    async def __call__(self, deliveries: Sequence[Delivery]) -> None:
        """Note them."""
        for delivery in deliveries:
            id = delivery.envelope.event_id
            self.tries.append(id)
            if id in self.broken:
                raise ValueError(f"cannot take {id}")
            self.ids.append(id)
        self.changed.set()

    async def until(self, test: Callable[[], bool]) -> None:
        """Wait, for a bounded time, until the test holds after a delivery."""
        async with asyncio.timeout(LIMIT):
            while not test():
                self.changed.clear()
                await self.changed.wait()


def group(handler: Handler, *, name: str = "g", batch: int = 1, attempts: int = 3) -> Group:
    """A group on the requests' topic that does not pause for long."""
    return Group(name, frozenset({TOPIC}), handler, batch, Retries(attempts, 0.001, 5.0))


async def _at_once(seconds: float) -> None:
    """A pause that only lets others run."""
    await asyncio.sleep(0)


@asynccontextmanager
async def consuming(
    group: Group,
    journal: MemoryJournal,
    store: Any,
    *,
    epoch: int = 1,
    partitions: int = 1,
    hints: bool = True,
) -> AsyncGenerator[Consumer]:
    """The group runs on the first partitions while the context lasts, woken by hints or by its poll alone."""
    assigned = dict.fromkeys(range(partitions), epoch)
    consumer = consume(
        group,
        source=JournalSource(journal),
        store=store,
        assigned=lambda: assigned,
        clock=SystemClock(),
        poll=0.05,
        pause=_at_once,
        linger=0,
    )
    with journal.watch(consumer.hint) if hints else nullcontext():
        task = asyncio.create_task(consumer.run(), name="consumer")
        try:
            yield consumer
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class Told:
    """A store that tells when something in it has changed; else it is the store that it was made of."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.changed = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        """The method of the store, which sets `changed` when it ends."""
        method = getattr(self._store, name)

        async def told(*args: Any, **kwargs: Any) -> Any:
            answer = await method(*args, **kwargs)
            if name in ("commit", "bury", "lift"):
                self.changed.set()
            return answer

        return told


async def caught_up(store: Told, journal: MemoryJournal, *, name: str = "g", epoch: int = 1) -> None:
    """Wait, for a bounded time, until the group has passed the first partition's head and nothing is released."""
    head = (await journal.heads()).get(0, 0)
    async with asyncio.timeout(LIMIT):
        while True:
            store.changed.clear()
            position = await store.open(name, 0, epoch)
            if position.offset >= head and not any(hold.released for hold in position.holds):
                return
            await store.changed.wait()
