"""The heads of a broker that many ask for at one time."""

import asyncio
from collections.abc import Mapping

import pytest
from kfm_server.bus.heads import Heads
from kfm_server.bus.memory import MemoryBroker
from kfm_server.ports.broker import Message

TOPICS = ("a", "b")
pytestmark = pytest.mark.requirement("R6")


class Slow(MemoryBroker):
    """It answers when it is let, and counts."""

    def __init__(self) -> None:
        super().__init__(2)
        self.let = asyncio.Event()
        self.asked = asyncio.Event()
        self.count = 0

    async def heads(self, topic: str) -> Mapping[int, int]:
        """As the port says."""
        self.count += 1
        found = await super().heads(topic)
        self.asked.set()
        await self.let.wait()
        return found


async def test_who_asks_while_a_look_is_under_way_shares_the_next() -> None:
    broker = Slow()
    heads = Heads(broker, TOPICS)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(heads.look())
        await broker.asked.wait()
        await broker.publish("a", 1, [Message(b"x", 1)])
        others = [tasks.create_task(heads.look()) for _ in range(8)]
        broker.let.set()
    assert first.result()["a"][1] == 0
    assert [other.result()["a"][1] for other in others] == [1] * 8
    assert broker.count == 2 * len(TOPICS)


async def test_a_look_that_was_cancelled_leaves_the_next_to_those_who_wait() -> None:
    broker = Slow()
    heads = Heads(broker, TOPICS)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(heads.look())
        await broker.asked.wait()
        other = tasks.create_task(heads.look())
        first.cancel()
        broker.let.set()
    assert other.result().keys() == set(TOPICS)
