"""The broker over Iggy: publishing, heads and reads, each over a connection of its own."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TypeVar

from apache_iggy import Consumer, IggyClient, SendMessage

from kfm_server.bus.iggy.client import CLOSING, IggyConnection, NotThere, connection
from kfm_server.bus.iggy.group import IggyGroup
from kfm_server.bus.iggy.lag import Lag, measure
from kfm_server.bus.iggy.members import Members, count_members, read_committed, rebuild_group
from kfm_server.bus.iggy.publishing import Lane
from kfm_server.bus.iggy.reading import READ_BYTES, poll_of, received
from kfm_server.bus.iggy.topics import get_topic, make_topics
from kfm_server.ports.broker import (
    RESULTS,
    STEPS,
    BrokerMisfit,
    BrokerUnavailable,
    Message,
    Received,
    check,
)
from kfm_server.ports.iggy_settings import IggySettings

T = TypeVar("T")

_AT_ONCE = 8
"""Connections for each of the topics on whose messages turns wait."""


class IggyBroker:
    """ports/broker.py's Broker. Iggy counts a partition's offsets from 0, we from 1."""

    def __init__(self, settings: IggySettings, topics: Collection[str], partitions: int) -> None:
        self._settings, self._topics, self._partitions = settings, tuple(topics), partitions
        self._writers: dict[tuple[str, int], IggyConnection] = {}
        """A connection waits for every answer: nobody is to wait for another topic's, nor a step for all others."""
        self._readers: dict[tuple[str, int], IggyConnection] = {}
        self._probers: dict[str, IggyConnection] = {}
        """For heads: whoever waits for results is not to wait for the lag of pools."""
        self._control = IggyConnection(settings)
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._made = False
        self._making = asyncio.Lock()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, settings: IggySettings, topics: Collection[str], partitions: int
    ) -> AsyncGenerator["IggyBroker"]:
        """Have the topics there, and close the connections at the end.

        It opens without its server, too: the topics are made when it is there. Raises BrokerMisfit.
        """
        broker = cls(settings, topics, partitions)
        try:
            with contextlib.suppress(BrokerUnavailable):
                await broker.ready()
            yield broker
        finally:
            for some in (broker._writers, broker._readers, broker._probers):
                for used in some.values():
                    used.close()
            broker._control.close()
            await asyncio.sleep(CLOSING)

    async def ready(self) -> None:
        """Have the topics there. Raises BrokerUnavailable, BrokerMisfit."""
        async with self._making:
            if not self._made:
                await make_topics(self._control, self._settings, self._topics, self._partitions)
                self._made = True

    async def publish(self, topic: str, partition: int, messages: Sequence[Message]) -> None:
        self._known(topic, partition)
        for message in messages:
            check(message)
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = Lane(partial(self._send, topic, partition))
        if messages:
            await lane.publish(messages)

    async def _send(self, topic: str, partition: int, messages: Sequence[Message]) -> None:
        sent = [SendMessage(m.payload, dict(m.headers) or None, m.id) for m in messages]
        size = sum(len(m.payload) for m in messages)
        stream = self._settings.stream
        writer = self._one_of(self._writers, topic, partition)
        await self._call(writer, lambda c: c.send_messages(stream, topic, partition, sent), size)

    async def heads(self, topic: str) -> Mapping[int, int]:
        self._known(topic, 0)
        await self.ready()
        prober = self._probers.setdefault(topic, IggyConnection(self._settings))
        found = await get_topic(prober, self._settings.stream, topic)
        if found is None:
            raise self._gone(topic)
        if len(found.partitions) != self._partitions:  # another topic of that name, or still being made
            self._made = False
            raise BrokerUnavailable(f"{topic} has {len(found.partitions)} of {self._partitions} partitions")
        heads: dict[int, int] = {}
        for partition in found.partitions:
            last = partition.current_offset  # 0 of an empty partition, and of one with a single message
            heads[partition.id] = last + 1 if last or partition.messages_count else 0
        return heads

    async def read(self, topic: str, partition: int, after: int, limit: int) -> Sequence[Received]:
        self._known(topic, partition)
        poll = poll_of(self._settings.stream, topic, Consumer.Single("kfm"), partition, after, limit)
        reader = self._one_of(self._readers, topic, partition)
        return [received(m, partition) for m in await self._call(reader, poll, READ_BYTES)]

    @contextlib.asynccontextmanager
    async def group(self, name: str, topic: str) -> AsyncGenerator[IggyGroup]:
        """A group for workers, over a connection of its own; it is left at the end."""
        self._known(topic, 0)
        group = IggyGroup(self._settings, name, topic, self.ready)
        try:
            yield group
        finally:
            await group.leave()

    async def committed(self, name: str, topic: str) -> Mapping[int, int]:
        """How far a group has come in each partition; for its lag. Raises BrokerUnavailable."""
        self._known(topic, 0)
        await self.ready()
        return await read_committed(self._control, self._settings.stream, topic, name, self._partitions)

    async def lag(self, name: str, topic: str) -> Lag:
        """Of a group: what it has not committed. Raises BrokerUnavailable."""
        return await measure(self, topic, await self.committed(name, topic))

    async def members(self, name: str, topic: str) -> Members:
        """Of a group, to see whether it has ghosts. Raises BrokerUnavailable."""
        self._known(topic, 0)
        await self.ready()
        return await count_members(self._control, self._settings.stream, topic, name)

    async def rebuild(self, name: str, topic: str) -> Mapping[int, int]:
        """Rid a group of its ghosts. Returns partitions that start again, and how far they were."""
        self._known(topic, 0)
        await self.ready()
        async with connection(self._settings) as member:
            return await rebuild_group(member, self._settings.stream, topic, name, self._partitions)

    async def _call(self, over: IggyConnection, do: Callable[[IggyClient], Awaitable[T]], size: int = 0) -> T:
        """A call that needs the topics. Should they be gone, they are made by the next one."""
        await self.ready()
        try:
            return await over.call(do, size)
        except NotThere as error:
            raise self._gone(str(error)) from error

    def _one_of(
        self, connections: dict[tuple[str, int], IggyConnection], topic: str, partition: int
    ) -> IggyConnection:
        """A partition's calls all go over the same one: a send that nobody awaits any more ends before the next begins."""
        lane = partition % _AT_ONCE if topic in (STEPS, RESULTS) else 0
        if (topic, lane) not in connections:
            connections[topic, lane] = IggyConnection(self._settings)
        return connections[topic, lane]

    def _gone(self, what: str) -> BrokerUnavailable:
        self._made = False
        return BrokerUnavailable(f"{self._settings.stream}: {what} is gone, and made again")

    def _known(self, topic: str, partition: int) -> None:
        if topic not in self._topics or not 0 <= partition < self._partitions:
            raise BrokerMisfit(
                f"{topic}/{partition} is none of {self._partitions} partitions of {self._topics}"
            )
