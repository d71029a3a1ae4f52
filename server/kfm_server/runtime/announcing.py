"""Events of the server itself, outside any turn: posted to the inbox, from where an owner puts them into the journal."""

from google.protobuf.message import Message
from kfm.catalogue.events import EVENT_TYPES, fill
from kfm.event.v1.envelope_pb2 import Envelope

from kfm_server.clock import Clock
from kfm_server.context import ExecutionContext
from kfm_server.ids import IdMaker, partition_of
from kfm_server.ports.journal import Entry, InboxItem, Leases, Record
from kfm_server.turns.times import timestamp

TOPIC = "agent.system"


class Announcer:
    """One per process."""

    def __init__(self, *, leases: Leases, partitions: int, clock: Clock, ids: IdMaker) -> None:
        self._leases = leases
        self._partitions = partitions
        self._clock = clock
        self._ids = ids

    async def announce(self, event: Message) -> None:
        """Have an event of agent.system recorded; it is durable when this returns. Raises JournalUnavailable."""
        context = ExecutionContext()
        envelope = Envelope(
            event_id=self._ids("evt"),
            timestamp=timestamp(self._clock.now_us()),
            tenant_id=context.tenant_id,
        )
        fill(envelope, event)
        partition = partition_of(envelope.event_id, self._partitions)
        await self._leases.post(InboxItem(0, partition, None, envelope.SerializeToString()))


def announced(item: InboxItem, envelope: Envelope, epoch: int) -> Entry | None:
    """The entry that records what was announced and consumes its row; None for a row that is something else."""
    kind = EVENT_TYPES.get(envelope.type)
    if item.claim is not None or envelope.turn_id or kind is None or kind.topic != TOPIC:
        return None
    record = Record("", 0, TOPIC, item.envelope)
    return Entry(item.partition, epoch, records=(record,), consumed=(item.id,))
