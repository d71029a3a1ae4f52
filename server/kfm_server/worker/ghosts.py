"""Members of a pool's group on the broker whose processes are gone: seen, and removed."""

from dataclasses import dataclass

from kfm_server.bus.iggy.broker import IggyBroker
from kfm_server.ports.broker import STEPS
from kfm_server.ports.iggy_settings import IggySettings


@dataclass(frozen=True, slots=True)
class PoolMembers:
    """`members`: as the broker counts them; `connected`: those with a connection; the others are `ghosts`."""

    pool: str
    members: int
    connected: int
    ghosts: int


def group_of(pool: str) -> str:
    """The consumer group by which the pool's workers share its steps."""
    return f"pool-{pool}"


async def members_of(pool: str, iggy: IggySettings, partitions: int) -> PoolMembers:
    """Who is in the pool's group. Raises BrokerUnavailable, and BrokerMisfit without the permission to see clients."""
    async with IggyBroker.open(iggy, (STEPS,), partitions) as broker:
        found = await broker.members(group_of(pool), STEPS)
    return PoolMembers(pool, found.told, found.live, found.ghosts)


async def remove_ghosts(pool: str, iggy: IggySettings, partitions: int) -> None:
    """Make the pool's group anew, as far as it was; its workers join again by themselves.

    Steps that they hold at that moment may come once more, as the broker's steps may at any time. Raises BrokerUnavailable.
    """
    async with IggyBroker.open(iggy, (STEPS,), partitions) as broker:
        await broker.rebuild(group_of(pool), STEPS)
