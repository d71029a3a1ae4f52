"""How far the pools of workers on the broker are behind: what they are scaled by. They have no /metrics of the cluster's."""

import asyncio
import contextlib
from collections.abc import Callable, Container, Iterable

from kfm_server import metrics
from kfm_server.bus.iggy.lag import measure
from kfm_server.clock import Clock
from kfm_server.ports.broker import STEPS, Broker, BrokerMisfit, BrokerUnavailable, pool_group

_EVERY_SECONDS = 1.0


class PoolLag:
    """Sets kfm_bus_lag and kfm_bus_oldest_seconds of each pool's group. One process of all tells: who owns partition 0."""

    def __init__(
        self, broker: Broker, pools: Iterable[str], owned: Callable[[], Container[int]], clock: Clock
    ) -> None:
        self._broker = broker
        self._groups = [pool_group(pool) for pool in pools]
        self._owned = owned
        self._clock = clock

    async def run(self) -> None:
        """Sample every second until cancelled. While the broker is away, the last sample stands."""
        while True:
            with contextlib.suppress(BrokerUnavailable, BrokerMisfit):  # the relay tells
                await self.sample()
            await asyncio.sleep(_EVERY_SECONDS)

    async def sample(self) -> None:
        """Once; other processes say 0, so that a sum over processes is right. Raises as the broker."""
        for group in self._groups:
            waiting, age = 0, 0.0
            if 0 in self._owned():
                lag = await measure(self._broker, STEPS, await self._broker.committed(group, STEPS))
                waiting = lag.messages
                age = max(0.0, (self._clock.now_us() - lag.oldest_us) / 1e6) if lag.oldest_us else 0.0
            metrics.BUS_LAG.labels(group).set(waiting)
            metrics.BUS_OLDEST.labels(group).set(age)
