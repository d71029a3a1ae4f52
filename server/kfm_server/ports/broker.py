"""The broker's seam: topics of partitions that carry copies of events to whoever is not on the database.

The journal is the truth: a broker may lose all it holds, and is filled again from there. Above it the relay,
the intake and the groups of bus/; below it a broker (bus/iggy) or its twin in memory.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

PAYLOAD_LIMIT: Final = 60_000_000
"""Largest payload of one message, in bytes."""
HEADERS_LIMIT: Final = 100_000
"""Largest headers of one message, in bytes: names, values and ten bytes for each."""
REQUESTS: Final = "agent.turns.requests"
"""The topic on which others ask for turns, and steer them."""
STEPS: Final = "agent.steps.requests"
"""The topic from which workers take steps."""
RESULTS: Final = "agent.steps.results"
"""The topic on which they say how attempts ended."""
OFFSET: Final = "kfm-offset"
"""Header: the event's offset in the journal's partition: who finds it has a copy. What others publish has none."""
POOL: Final = "kfm-pool"
"""Header of a step's dispatch: the pool that is to perform it."""


def message_id(event_id: str) -> int:
    """The 128 bits that stand for an event: the same for every copy of it, never 0."""
    return int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=16).digest(), "big") or 1


def pool_group(pool: str) -> str:
    """The group of the workers of a pool, on STEPS."""
    return f"pool-{pool}"


@dataclass(frozen=True, slots=True)
class Message:
    """What is published: a sealed envelope, not empty, and what consumers may know without opening it.

    id: 128 bits, not 0, the same whenever the same event is published again; headers: within HEADERS_LIMIT,
    each name and each value 1 to 255 bytes of UTF-8.
    """

    payload: bytes
    id: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Received:
    """What is read. Offsets count from 1 as the journal's do, and may skip numbers."""

    partition: int
    offset: int
    payload: bytes
    id: int
    headers: Mapping[str, str]
    published_us: int


class BrokerUnavailable(Exception):
    """The broker cannot be reached, or did not answer in time. What was published may be there or not: publish it
    again under the same id."""


class MessageRefused(Exception):
    """The broker will never take this message; the text says which limit it breaks."""


class BrokerMisfit(Exception):
    """The broker is there, and not as it is needed: other partitions, no permission, another version. No retry helps."""


def check(message: Message) -> None:
    """Raises MessageRefused for what no broker behind this port takes; every broker asks it first."""
    if not 0 < len(message.payload) <= PAYLOAD_LIMIT:
        raise MessageRefused(f"a payload of {len(message.payload)} bytes: 1 to {PAYLOAD_LIMIT} are taken")
    if not 0 < message.id < 1 << 128:
        raise MessageRefused("an id that is not of 1 to 2**128 - 1")
    total = 0
    for name, value in message.headers.items():
        for text in (name, value):
            size = len(text.encode())
            total += size + 5
            if not 0 < size <= 255:
                raise MessageRefused(
                    f"the header {name[:60]!r} has {size} bytes on a side: 1 to 255 are taken"
                )
    if total > HEADERS_LIMIT:
        raise MessageRefused(f"headers of {total} bytes: at most {HEADERS_LIMIT} are taken")


class Broker(Protocol):
    """One broker. Topics and their partitions exist once it is open. Every method may raise BrokerUnavailable, and
    BrokerMisfit where somebody changed the broker meanwhile.

    A broker that lost its topics (a wiped disk) gets them again by itself: heads are 0 then, below what was read.

    Every call is bounded in time, and may be cancelled without harm to those that follow.
    """

    async def publish(self, topic: str, partition: int, messages: Sequence[Message]) -> None:
        """Append them in order, all to one partition: kept through a crash of the broker when it returns.

        Raises MessageRefused, and then none of them was appended.
        """
        ...

    async def heads(self, topic: str) -> Mapping[int, int]:
        """The last offset of each partition; 0 of one that holds nothing.

        A head below what a reader has read says that the broker lost its tail, and gives those offsets out again.
        """
        ...

    async def committed(self, name: str, topic: str) -> Mapping[int, int]:
        """How far a group of workers has come in each partition; 0 where it has committed nothing."""
        ...

    async def read(self, topic: str, partition: int, after: int, limit: int) -> Sequence[Received]:
        """Messages with offset > after, in order, at most `limit`; empty at the end. It moves nobody's position.

        Nothing may come of a partition that is not there: heads tells.
        """
        ...


class WorkGroup(Protocol):
    """A group of readers without a database that share a topic's partitions; the broker says who has which.

    Messages come at least once: those that were not committed when a member goes away come to another.
    """

    async def join(self) -> None:
        """Become a member; a member stays what it is. Raises BrokerUnavailable."""
        ...

    async def assigned(self) -> Mapping[int, int]:
        """The partitions of this member now, each with the offset up to which the group has committed.

        One that is to go to another member is left out at once, and goes when what was read of it is committed,
        or a while later. Empty: it has lost everything, or there is nothing for it. One that the broker no longer
        knows joins again by itself. Raises BrokerUnavailable: then, too, all that was read and not committed is
        lost to others.
        """
        ...

    async def read(self, partition: int, after: int, limit: int) -> Sequence[Received]:
        """As Broker.read, of a partition of this member; empty of one that is not its own (any more).

        What was read and not committed keeps another member from the partition for a while: see assigned.
        """
        ...

    async def commit(self, partition: int, offset: int) -> None:
        """All up to `offset` was dealt with. Raises BrokerUnavailable; one for a lost partition is passed over."""
        ...

    async def leave(self) -> None:
        """Give everything back. Never raises: the broker also notices by itself, later."""
        ...
