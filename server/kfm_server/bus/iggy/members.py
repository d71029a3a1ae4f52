"""Ghosts: members that a restarted server has back though their processes are gone. They hold partitions that nobody reads."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from kfm_server.bus.iggy import wire
from kfm_server.bus.iggy.client import AlreadyThere, IggyConnection, NotThere
from kfm_server.bus.iggy.reading import committed_of
from kfm_server.ports.broker import BrokerUnavailable


@dataclass(frozen=True, slots=True)
class Members:
    """How many members a group has, and how many of them have a connection."""

    told: int
    live: int

    @property
    def ghosts(self) -> int:
        """Members without one. Above 0 for a moment while members come and go: look twice."""
        return max(self.told - self.live, 0)


async def count_members(connection: IggyConnection, stream: str, topic: str, name: str) -> Members:
    """Raises BrokerUnavailable, and BrokerMisfit without the permission to see clients."""
    where = await connection.call(lambda c: c.get_stream(stream))
    what = await connection.call(lambda c: c.get_topic(stream, topic))
    group = await connection.call(lambda c: c.get_consumer_group(stream, topic, name))
    if where is None or what is None or group is None:
        return Members(0, 0)
    wanted = (where.id, what.id, group.id)
    live = 0
    for client, memberships in await connection.command(wire.GET_CLIENTS, b"", wire.clients):
        if memberships:
            payload = client.to_bytes(4, "little")
            live += wanted in await connection.command(wire.GET_CLIENT, payload, wire.groups_of)
    return Members(group.members_count, live)


async def read_committed(
    connection: IggyConnection, stream: str, topic: str, name: str, partitions: int
) -> Mapping[int, int]:
    """How far a group has come in each partition, in our offsets; 0 where nothing was committed."""
    found: dict[int, int] = {}
    for partition in range(partitions):
        payload = wire.get_offset(name, stream, topic, partition)
        try:
            found[partition] = committed_of(await connection.command(wire.GET_OFFSET, payload, wire.stored))
        except NotThere:
            found[partition] = 0
    return found


async def rebuild_group(
    member: IggyConnection, stream: str, topic: str, name: str, partitions: int
) -> Mapping[int, int]:
    """Make a group anew, without its ghosts and as far as it was. Live members lose all, and join again by themselves.

    `member`: a connection for this alone, which is a member for the while. Returns what could not be kept, because
    others had the partition first: how far it was. Those messages come once more. Raises BrokerUnavailable.
    """
    kept = await read_committed(member, stream, topic, name, partitions)
    with contextlib.suppress(NotThere):
        await member.call(lambda c: c.delete_consumer_group(stream, topic, name))
    with contextlib.suppress(AlreadyThere):
        await member.call(lambda c: c.create_consumer_group(stream, topic, name))
    lost: dict[int, int] = {}
    try:
        await member.call(lambda c: c.join_consumer_group(stream, topic, name))
        for partition, offset in kept.items():
            if offset:
                payload = wire.store_offset(name, stream, topic, partition, offset - 1)
                try:
                    await member.command(wire.STORE_OFFSET, payload, bytes)
                except NotThere:
                    lost[partition] = offset
        await member.call(lambda c: c.leave_consumer_group(stream, topic, name))
    except NotThere as error:
        raise BrokerUnavailable(f"{stream}/{topic}: {name} was removed meanwhile: {error}") from error
    return lost
