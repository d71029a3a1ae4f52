"""The autoscaling signal of workers on the broker: told by one process, true, and back to nothing when they have caught up."""

import time

import pytest
from kfm_server import metrics
from kfm_server.bus.copies import message_id
from kfm_server.bus.pool_lag import PoolLag
from kfm_server.clock import SystemClock
from kfm_server.ports.broker import STEPS, Message, pool_group

from tests.support.bus import PARTITIONS, BrokerCarrier, eventually

pytestmark = pytest.mark.requirement("R10", "B1")


@pytest.fixture(params=["broker-memory", "broker-iggy"])
def engine(request: pytest.FixtureRequest) -> str:
    """The broker."""
    return request.param


def said(pool: str) -> tuple[float, float]:
    """Lag and oldest age of the pool's group."""
    group = pool_group(pool)
    return metrics.BUS_LAG.labels(group)._value.get(), metrics.BUS_OLDEST.labels(group)._value.get()


async def test_a_pool_without_workers_falls_behind_and_recovers_when_they_come(
    carrier: BrokerCarrier,
) -> None:
    lag = PoolLag(carrier.broker, ["gpu"], lambda: {0}, SystemClock())
    await lag.sample()
    assert said("gpu") == (0, 0)
    began = time.time()
    for p in range(PARTITIONS):
        await carrier.broker.publish(STEPS, p, [Message(b"x", message_id(f"{p}.{n}")) for n in range(1, 6)])
    await lag.sample()
    waiting, age = said("gpu")
    assert waiting == 5 * PARTITIONS
    assert 0 <= age <= time.time() - began + 1
    async with carrier.broker.group(pool_group("gpu"), STEPS) as worker:
        await worker.join()

        async def all_mine() -> bool:
            return len(await worker.assigned()) == PARTITIONS

        await eventually(all_mine)
        for p in range(PARTITIONS):
            await worker.commit(p, 5 if p else 2)
        await lag.sample()
        assert said("gpu")[0] == 3
        await worker.commit(0, 5)
        await lag.sample()
    assert said("gpu") == (0, 0)


async def test_only_the_owner_of_the_first_partition_tells(carrier: BrokerCarrier) -> None:
    await carrier.broker.publish(STEPS, 1, [Message(b"x", 1)])
    await PoolLag(carrier.broker, ["cpu"], lambda: {1, 2}, SystemClock()).sample()
    assert said("cpu") == (0, 0)
