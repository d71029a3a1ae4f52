"""How far behind a group is: what pools of workers are scaled by. One process samples it, the broker tells no lag itself."""

from collections.abc import Mapping
from dataclasses import dataclass

from kfm_server.ports.broker import Broker


@dataclass(frozen=True, slots=True)
class Lag:
    """Messages that wait, over all partitions and in the worst; when the oldest of them was published, 0 of none."""

    messages: int
    most: int
    oldest_us: int


async def measure(broker: Broker, topic: str, committed: Mapping[int, int]) -> Lag:
    """One probe of all heads, and one read for each partition in which something waits. Raises BrokerUnavailable."""
    heads = await broker.heads(topic)
    waiting = {p: heads[p] - offset for p, offset in committed.items() if heads[p] > offset}
    oldest: list[int] = []
    for partition in waiting:
        oldest += [m.published_us for m in await broker.read(topic, partition, committed[partition], 1)]
    return Lag(sum(waiting.values()), max(waiting.values(), default=0), min(oldest, default=0))
