"""A group of workers: the broker says who has which partitions, and keeps how far each has come."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

from apache_iggy import Consumer

from kfm_server.bus.iggy import wire
from kfm_server.bus.iggy.client import CLOSING, AlreadyThere, IggyConnection, NotThere
from kfm_server.bus.iggy.reading import READ_BYTES, committed_of, poll_of, received
from kfm_server.ports.broker import BrokerMisfit, BrokerUnavailable, Received
from kfm_server.ports.iggy_settings import IggySettings

_LEAVING = 2.0
"""Longest wait of a member that goes, in seconds."""


class IggyGroup:
    """ports/broker.py's WorkGroup. The connection is the member: a new one is another, and joins again."""

    def __init__(
        self, settings: IggySettings, name: str, topic: str, ready: Callable[[], Awaitable[None]]
    ) -> None:
        """`ready`: has the topic there."""
        self._settings, self._name, self._topic, self._ready = settings, name, topic, ready
        self._connection = IggyConnection(settings)
        self._joined = False
        self._generation = -1
        self._commits: dict[int, int] = {}
        """How far the group is in each partition of ours: nobody else commits there within one generation."""

    async def join(self) -> None:
        await self._ready()
        if await self._partitions() is None:
            await self._join()
        self._joined = True

    async def assigned(self) -> Mapping[int, int]:
        try:
            mine = await self._partitions()
            if mine is None:
                self._commits.clear()
                if self._joined:
                    await self._ready()
                    await self._join()
                return {}
            known = self._commits if mine.generation == self._generation else {}
            self._generation = mine.generation
            self._commits = {p: known[p] for p in mine.partitions if p in known}
            for partition in mine.partitions:
                if partition not in self._commits:
                    self._commits[partition] = await self._committed(partition)
        except BrokerUnavailable:  # it may be another broker that comes back, or one that lost something
            self._commits.clear()
            raise
        return {partition: self._commits[partition] for partition in mine.partitions}

    async def read(self, partition: int, after: int, limit: int) -> Sequence[Received]:
        poll = poll_of(
            self._settings.stream, self._topic, Consumer.Group(self._name), partition, after, limit
        )
        try:
            found = await self._connection.call(poll, READ_BYTES)
        except NotThere:
            return []
        return [received(message, partition) for message in found]

    async def commit(self, partition: int, offset: int) -> None:
        if offset < 1:
            return
        payload = wire.store_offset(self._name, self._settings.stream, self._topic, partition, offset - 1)
        try:
            await self._connection.command(wire.STORE_OFFSET, payload, bytes)
            self._commits[partition] = offset
        except NotThere:
            self._commits.pop(partition, None)

    async def leave(self) -> None:
        """Always: a member that goes without it may come back as a ghost when the server restarts, and hold partitions."""
        stream, topic, name = self._settings.stream, self._topic, self._name
        try:
            if self._joined:
                self._joined = False
                async with asyncio.timeout(_LEAVING):
                    await self._connection.call(lambda c: c.leave_consumer_group(stream, topic, name))
        except (TimeoutError, BrokerUnavailable, BrokerMisfit, NotThere):
            pass  # it is out by itself once the connection is gone
        finally:
            self._connection.close()
            await asyncio.sleep(CLOSING)

    async def _partitions(self) -> wire.Assignment | None:
        payload = wire.sync_group(self._settings.stream, self._topic, self._name)
        return await self._connection.command(wire.SYNC_GROUP, payload, wire.assignment)

    async def _committed(self, partition: int) -> int:
        payload = wire.get_offset(self._name, self._settings.stream, self._topic, partition)
        try:
            return committed_of(await self._connection.command(wire.GET_OFFSET, payload, wire.stored))
        except NotThere:
            return 0

    async def _join(self) -> None:
        stream, topic, name = self._settings.stream, self._topic, self._name
        with contextlib.suppress(AlreadyThere):
            await self._connection.call(lambda c: c.create_consumer_group(stream, topic, name))
        try:
            await self._connection.call(lambda c: c.join_consumer_group(stream, topic, name))
        except NotThere as error:
            raise BrokerUnavailable(f"{stream}/{topic}: {name} is gone, and made again: {error}") from error
