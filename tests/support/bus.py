"""What the tests of the bus share: three engines that carry events, and a consumer that runs until it is quiet."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from typing import Any, Protocol

from kfm.catalogue.events import EVENT_TYPES, fill
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.turn_events_pb2 import TurnEvent
from kfm_server.bus.consumer import Consumer, consume
from kfm_server.bus.copies import SESSION
from kfm_server.bus.sources import BrokerSource, JournalSource
from kfm_server.clock import SystemClock
from kfm_server.ports.broker import Broker, BrokerUnavailable, Message, WorkGroup, message_id
from kfm_server.ports.bus import Delivery, EventSource, Group, Handler, Retries
from kfm_server.ports.journal import Entry, Record, TurnRow

TOPIC = "agent.turns.requests"
LIMIT = 30.0
PARTITIONS = 4


Break = Callable[[], Awaitable[None]]


class GroupedBroker(Broker, Protocol):
    """A broker that also shares a topic among workers: each of ours does."""

    def group(self, name: str, topic: str) -> AbstractAsyncContextManager[WorkGroup]:
        """A connection of its own for one member, which has yet to join."""
        ...


async def nothing() -> None:
    """There is no connection."""


class Carrier(Protocol):
    """An engine of the bus, as tests put events into it."""

    @property
    def source(self) -> EventSource:
        """What groups read."""
        ...

    async def put(self, *events: Envelope | bytes, partition: int = 0, session: str = "") -> None:
        """Put events, or bytes that are none, behind what the partition holds; `session`: which such bytes are of."""
        ...

    def hints(self, consumer: Consumer) -> AbstractContextManager[None]:
        """The consumer is told of what grew, while the context lasts."""
        ...

    def break_off(self) -> Awaitable[None]:
        """Break the connections to where events are, if there are any; it can be reached again at once."""
        ...


class JournalCarrier:
    """The bus over a journal whose partitions are held at one epoch."""

    def __init__(self, journal: Any, epoch: int = 0, break_off: Break = nothing) -> None:
        self.journal = journal
        self.break_off = break_off
        self.source = JournalSource(journal)
        self._epoch = epoch
        self._broken = 0

    async def put(self, *events: Envelope | bytes, partition: int = 0, session: str = "") -> None:
        """As the protocol says."""
        records: list[Record] = []
        turns: list[TurnRow] = []
        for event in events:
            if isinstance(event, Envelope):
                records.append(Record(event.turn_id, event.sequence, TOPIC, event.SerializeToString()))
            elif session:
                self._broken += 1
                turn_id = f"turn_broken_{self._broken}"
                turns.append(TurnRow(turn_id, session, "default", partition, "running", None, 0))
                records.append(Record(turn_id, 1, TOPIC, event))
            else:
                records.append(Record("", 0, TOPIC, event))
        await self.journal.append(Entry(partition, self._epoch, tuple(records), tuple(turns)))

    def hints(self, consumer: Consumer) -> AbstractContextManager[None]:
        """As the protocol says."""
        return self.journal.watch(consumer.hint)


class BrokerCarrier:
    """The bus over a broker: what is put there is no copy of a journal's event."""

    def __init__(self, broker: GroupedBroker, break_off: Break = nothing, wipe: Break = nothing) -> None:
        self.broker = broker
        self.break_off = break_off
        self.wipe = wipe
        self.source = BrokerSource(broker, {TOPIC})
        self._broken = 0

    async def put(self, *events: Envelope | bytes, partition: int = 0, session: str = "") -> None:
        """As the protocol says."""
        messages: list[Message] = []
        for event in events:
            if isinstance(event, Envelope):
                id, session = event.event_id, event.session_id
            else:
                self._broken += 1
                id = f"broken {self._broken}"
            body = event if isinstance(event, bytes) else event.SerializeToString()
            messages.append(Message(body, message_id(id), {SESSION: session} if session else {}))
        async with asyncio.timeout(LIMIT):
            while True:
                try:
                    return await self.broker.publish(TOPIC, partition, messages)
                except BrokerUnavailable:
                    await asyncio.sleep(0.01)

    def hints(self, consumer: Consumer) -> AbstractContextManager[None]:
        """A broker gives none: it is probed."""
        return nullcontext()


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


async def at_once(seconds: float) -> None:
    """A pause that only lets others run."""
    await asyncio.sleep(0)


@asynccontextmanager
async def consuming(
    group: Group,
    carrier: Carrier,
    store: Any,
    *,
    epoch: int = 1,
    assigned: dict[int, int] | None = None,
    hints: bool = True,
    poll: float = 0.05,
) -> AsyncGenerator[Consumer]:
    """The group runs while the context lasts, on the first partition or as assigned; woken by hints or its poll alone."""
    owned = {0: epoch} if assigned is None else assigned
    consumer = consume(
        group,
        source=carrier.source,
        store=store,
        assigned=lambda: owned,
        clock=SystemClock(),
        poll=poll,
        pause=at_once,
        linger=0,
        probe=(0.001, 0.01) if hints and carrier.source.may_lose else None,
    )
    with carrier.hints(consumer) if hints else nullcontext():
        async with running(consumer):
            yield consumer


@asynccontextmanager
async def running(consumer: Consumer) -> AsyncGenerator[None]:
    """The consumer runs while the context lasts."""
    task = asyncio.create_task(consumer.run(), name="consumer")
    try:
        yield
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
            if name in ("commit", "bury", "lift", "keep", "reset"):
                self.changed.set()
            return answer

        return told


async def caught_up(
    store: Told, carrier: Carrier, *, name: str = "g", epoch: int = 1, partition: int = 0
) -> None:
    """Wait, for a bounded time, until the group has passed the partition's head and nothing is released."""
    (channel,) = carrier.source.channels
    head = (await carrier.source.heads(channel)).get(partition, 0)
    async with asyncio.timeout(LIMIT):
        while True:
            store.changed.clear()
            position = await store.open(name, partition, epoch, channel)
            if position.offset >= head and not any(hold.released for hold in position.holds):
                return
            await store.changed.wait()


async def eventually(test: Callable[[], Awaitable[bool]]) -> None:
    """Ask, for a bounded time, until the test holds: for what nothing tells of, as a broker's contents."""
    async with asyncio.timeout(LIMIT):
        while True:
            if await test():
                return
            await asyncio.sleep(0.01)
