"""The broker's seam: topics of partitions that carry copies of events to whoever is not on the database.

The journal is the truth: a broker may lose all it holds, and is filled again from there. Above it the relay,
the intake and the groups of bus/; below it a broker (bus/iggy) or its twin in memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

PAYLOAD_LIMIT = 60_000_000
"""Largest payload of one message, in bytes."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is published: a sealed envelope, and what consumers may know without opening it.

    id: 128 bits, the same whenever the same event is published again; headers: at most 100 kB together,
    a value at most 255 bytes.
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


class Broker(Protocol):
    """One broker. Topics and their partitions exist once it is open. Every method may raise BrokerUnavailable.

    Every call is bounded in time, and may be cancelled without harm to those that follow.
    """

    async def publish(self, topic: str, partition: int, messages: Sequence[Message]) -> None:
        """Append them in order, all to one partition: kept through a crash of the broker when it returns.

        Raises MessageRefused, and then none of them was appended.
        """
        ...

    async def heads(self, topic: str) -> Mapping[int, int]:
        """The last offset of each partition; 0 of one that holds nothing."""
        ...

    async def read(self, topic: str, partition: int, after: int, limit: int) -> Sequence[Received]:
        """Messages with offset > after, in order, at most `limit`; empty at the end. It moves nobody's position."""
        ...


class WorkGroup(Protocol):
    """A group of readers without a database that share a topic's partitions; the broker says who has which.

    Messages come at least once: those that were not committed when a member goes away come to another.
    """

    async def join(self) -> None:
        """Become a member. Raises BrokerUnavailable."""
        ...

    async def assigned(self) -> Mapping[int, int]:
        """The partitions of this member now, each with the offset up to which the group has committed.

        Empty: it has lost everything. Raises BrokerUnavailable.
        """
        ...

    async def commit(self, partition: int, offset: int) -> None:
        """All up to `offset` was dealt with. Raises BrokerUnavailable; one for a lost partition is passed over."""
        ...

    async def leave(self) -> None:
        """Give everything back. Never raises: the broker also notices by itself, later."""
        ...
