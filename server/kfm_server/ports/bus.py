"""The bus's seam: above it consumer groups, below it where events are read from, and where positions and dead letters are kept.

Events are read from the journal (ports/journal.py), or from a broker (ports/broker.py): the bus carries copies, never the truth.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from google.protobuf.message import Message
from kfm.catalogue.errors import KfmError
from kfm.event.v1.envelope_pb2 import Envelope

from kfm_server.ports.journal import Claim, InboxItem, Stored, TurnRow

JOURNAL: Final = "*"
"""The channel of the journal: all topics of a partition, in its order. A broker has one for each topic, of that name."""


@dataclass(frozen=True, slots=True)
class Carried(Stored):
    """An event as a broker carries it; `epoch` and `sequence` are 0, `turn_id` is empty."""

    session_id: str
    """What its publisher says it is about; empty if nothing."""
    copy_of: int
    """The offset in the journal of what it is a copy of; 0 of what others have published."""
    published_us: int


class EventSource(Protocol):
    """Where a group's events come from. Every method may raise JournalUnavailable or BrokerUnavailable."""

    @property
    def channels(self) -> Sequence[str]:
        """What has an order of its own in each partition: JOURNAL, or topics of a broker."""
        ...

    @property
    def may_lose(self) -> bool:
        """What was read once may be gone, and its offsets may be used again; events may stand there more than once."""
        ...

    async def heads(self, channel: str) -> Mapping[int, int]:
        """The last offset of each partition that has any event."""
        ...

    async def read(self, channel: str, partition: int, after: int, limit: int) -> Sequence[Stored]:
        """Events with offset > after, in order, at most limit."""
        ...

    async def about(self, stored: Stored) -> tuple[str, str]:
        """Tenant and session of an event whose bytes do not tell; empty if nothing else tells either."""
        ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event, as a group's handler gets it. `key` is its session in its channel, or stands for the event if it has none."""

    partition: int
    offset: int
    topic: str
    key: str
    envelope: Envelope
    event: Message


Handler = Callable[[Sequence[Delivery]], Awaitable[None]]
"""Takes deliveries in partition order. Events come at least once: a handler tells repeats by event id.

Raises TryLater when what it needs is away; any other error is the message's fault.
"""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a delivery is tried, and how long each try and the pauses between them last, in seconds."""

    attempts: int = 4
    pause: float = 0.05
    timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group. It reads the topics from the first event on.

    `batch`: most deliveries in one call. A call with several that fails is repeated one by one, so only
    a handler to which repeats mean nothing asks for more than one.
    `copies`: whether it takes copies of what stands in the journal; without, only what others have published.
    `settle`: seconds after which what the handler has taken is surely durable; the cursor follows so much later.
    `holds`: whether a message that it cannot take holds its session; without, closing the dead letter delivers nothing.
    """

    name: str
    topics: frozenset[str]
    handler: Handler
    batch: int = 1
    retries: Retries = Retries()
    copies: bool = True
    holds: bool = True
    settle: float = 0.0


@dataclass(frozen=True, slots=True)
class Hold:
    """A key that a group does not advance. `offset` is its first event that was not delivered.

    `released`: a person has replayed or dropped what stopped it; the consumer delivers what was parked
    and then lifts the hold.
    """

    key: str
    offset: int
    reason: str
    released: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """Where a group stands in a partition: every event up to `offset` was delivered, parked or buried."""

    offset: int
    holds: tuple[Hold, ...]


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that a group could not take. `key` is what is held; `session_id` is empty if it has none.

    `envelope`: a DeadLetterEvent with the original bytes, sealed.
    """

    id: str
    group: str
    partition: int
    offset: int
    topic: str
    tenant_id: str
    session_id: str
    key: str
    created_us: int
    reason: str
    envelope: bytes


class TryLater(Exception):
    """What a handler needs cannot be reached. The partition waits; no attempt is counted."""


def key_in(channel: str, key: str) -> str:
    """A key as it is held in a channel: what one channel holds, others deliver."""
    return key if channel == JOURNAL else f"{channel}@/{key}"


def channel_of(key: str) -> str:
    """The channel in which a key is held. In the key itself an @ that begins no `@/` in front stands twice."""
    channel, found, _ = key.partition("@/")
    return channel if found and channel and not channel.endswith("@") else JOURNAL


class CursorFenced(Exception):
    """A newer epoch has opened the cursor: another process reads this partition now. Nothing was written."""


class BusUnavailable(Exception):
    """Cursors and dead letters cannot be reached."""


class CursorStore(Protocol):
    """Where groups stand. Every method may raise BusUnavailable; those with an epoch raise CursorFenced.

    A cursor is a group's in one channel of one partition; a key that is held says which channel it is of.
    """

    async def open(self, group: str, partition: int, epoch: int, channel: str = JOURNAL) -> Position:
        """Take the cursor over for an epoch; those of earlier epochs are refused from now on."""
        ...

    async def holds(self, group: str, partition: int) -> Sequence[Hold]:
        """What the group holds there, in all channels, without taking a cursor."""
        ...

    async def commit(
        self, group: str, partition: int, epoch: int, offset: int, channel: str = JOURNAL
    ) -> None:
        """Move the cursor; it never goes back."""
        ...

    async def reset(self, group: str, partition: int, epoch: int, offset: int, channel: str) -> None:
        """Set the cursor of a channel that has lost events, also back, and end all its holds, in one commit.

        Letters stay open; to close them delivers nothing any more.
        """
        ...

    async def bury(self, letter: Letter, epoch: int, cursor: int, channel: str = JOURNAL) -> None:
        """Keep the letter, hold its key from its offset on and move the cursor, all in one commit.

        The same message buried again is the same letter, open again.
        """
        ...

    async def keep(self, letter: Letter) -> None:
        """Keep a letter that holds nothing: closing it delivers nothing.

        The same again is the same letter, open again.
        """
        ...

    async def advance(
        self, group: str, partition: int, epoch: int, key: str, offset: int, channel: str = JOURNAL
    ) -> None:
        """Say that a released hold was delivered up to, but not including, offset."""
        ...

    async def lift(self, group: str, partition: int, epoch: int, key: str, channel: str = JOURNAL) -> None:
        """End a released hold."""
        ...

    async def released(self, group: str) -> frozenset[int]:
        """Partitions in which a hold waits for its parked events to be delivered."""
        ...


class SessionHolds(Protocol):
    """The owner of partitions as a group: it holds the sessions that it could not fold, or failed at.

    Every method may raise JournalUnavailable; those with an epoch raise Fenced.
    """

    async def held(self, partition: int) -> Mapping[str, Hold]:
        """What is held there, by session."""
        ...

    async def released(self) -> frozenset[int]:
        """Partitions in which a person has decided on a hold."""
        ...

    def letter_of(self, partition: int, hold: Hold) -> str:
        """The id of the open letter of a hold that is not released."""
        ...

    async def hold(self, stored: Stored, turn: TurnRow, error: KfmError, epoch: int) -> str:
        """Bury the event at fault and hold its session; answers the letter's id."""
        ...

    async def lift(self, partition: int, session_id: str, epoch: int) -> None:
        """End a released hold."""
        ...

    async def keep(self, item: InboxItem, error: KfmError) -> str:
        """Bury a request that cannot be decoded; nothing is held. Again, it is the same letter, open again."""
        ...


class LetterStore(Protocol):
    """The open letters of all groups. Every method may raise BusUnavailable."""

    async def letters(
        self, tenant_id: str, group: str, after: tuple[int, str], limit: int
    ) -> Sequence[Letter]:
        """Open letters by (created_us, id) > after, at most limit; an empty group matches all."""
        ...

    async def letter(self, tenant_id: str, id: str) -> Letter | None:
        """One that is open."""
        ...

    async def settle(self, claim: Claim, id: str, *, drop: bool) -> bytes | None:
        """Close an open letter of the claim's tenant and release its hold, once per claim, in one commit.

        Dropped, the message is passed over; otherwise it is delivered again. Answers the digest that is
        stored with the claim (the claim's own when it was new), or None, and then nothing was written:
        no such letter is open.
        """
        ...
