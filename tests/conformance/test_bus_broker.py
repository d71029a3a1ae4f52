"""What every broker promises to the relay, to groups, and to workers without a database."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import pytest
from kfm_server.bus.memory import MemoryBroker
from kfm_server.ports.broker import PAYLOAD_LIMIT, Message, MessageRefused, WorkGroup, message_id

from tests.support.bus import PARTITIONS, TOPIC, BrokerCarrier, eventually

pytestmark = pytest.mark.requirement("B1", "R10")
ALL = set(range(PARTITIONS))


@pytest.fixture(params=["broker-memory", "broker-iggy"])
def engine(request: pytest.FixtureRequest) -> str:
    """The broker."""
    return request.param


@pytest.fixture
async def members(carrier: BrokerCarrier) -> AsyncIterator["Members"]:
    async with AsyncExitStack() as stack:
        yield Members(carrier, stack)


class Members:
    """Workers of one group, each over a connection of its own."""

    def __init__(self, carrier: BrokerCarrier, stack: AsyncExitStack) -> None:
        self._carrier = carrier
        self._stack = stack

    async def join(self) -> WorkGroup:
        """One more."""
        broker = self._carrier.broker
        member = await self._stack.enter_async_context(broker.group("pool-a", TOPIC))
        await member.join()
        return member


def message(n: int, size: int = 1) -> Message:
    """The n-th message."""
    return Message(b"x" * size, message_id(str(n)), {"kfm-type": str(n)})


async def assigned(member: WorkGroup, wanted: int) -> Mapping[int, int]:
    """What the member has once it has so many partitions."""

    async def so_many() -> bool:
        return len(await member.assigned()) == wanted

    await eventually(so_many)
    return await member.assigned()


async def test_messages_of_a_partition_keep_their_order_their_bytes_and_their_headers(
    carrier: BrokerCarrier,
) -> None:
    await carrier.broker.publish(TOPIC, 1, [message(n, n) for n in range(1, 6)])
    await carrier.broker.publish(TOPIC, 1, [message(6)])
    await carrier.broker.publish(TOPIC, 2, [])
    assert await carrier.broker.heads(TOPIC) == {p: 6 if p == 1 else 0 for p in ALL}
    found = await carrier.broker.read(TOPIC, 1, 0, 100)
    assert [(m.partition, m.offset, m.id) for m in found] == [(1, n, message_id(str(n))) for n in range(1, 7)]
    assert [(len(m.payload), dict(m.headers)) for m in found[:5]] == [
        (n, {"kfm-type": str(n)}) for n in range(1, 6)
    ]
    assert all(m.published_us > 1_000_000 for m in found)
    assert [m.offset for m in await carrier.broker.read(TOPIC, 1, 2, 3)] == [3, 4, 5]
    assert list(await carrier.broker.read(TOPIC, 1, 6, 3)) == []


async def test_the_same_message_again_stands_there_again_under_its_id(carrier: BrokerCarrier) -> None:
    for _ in range(2):
        await carrier.broker.publish(TOPIC, 0, [message(1)])
    assert len({m.id for m in await carrier.broker.read(TOPIC, 0, 0, 10)}) == 1
    assert (await carrier.broker.heads(TOPIC))[0] == 2


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (Message(b"", 1), "payload"),
        (Message(b"x", 0), "id"),
        (Message(b"x", 1 << 128), "id"),
        (Message(b"x", 1, {"a": ""}), "header"),
        (Message(b"x", 1, {"a": "b" * 256}), "header"),
        (Message(bytes(PAYLOAD_LIMIT + 1), 1), str(PAYLOAD_LIMIT)),
        (Message(b"x", 1, {f"{n:0250}": "b" * 250 for n in range(200)}), "headers"),
    ],
    ids=["empty", "no id", "id too large", "empty header", "long header", "big", "many headers"],
)
async def test_what_no_broker_takes_is_refused_by_the_limit_and_nothing_of_it_is_appended(
    carrier: BrokerCarrier, bad: Message, told: str
) -> None:
    with pytest.raises(MessageRefused, match=told):
        await carrier.broker.publish(TOPIC, 0, [message(1), bad])
    assert (await carrier.broker.heads(TOPIC))[0] == 0


async def test_a_message_far_over_256_kib_passes(carrier: BrokerCarrier) -> None:
    await carrier.broker.publish(TOPIC, 0, [message(1), message(2, 5_000_000), message(3)])
    sizes: list[int] = []
    while more := await carrier.broker.read(TOPIC, 0, len(sizes), 10):
        sizes += [len(m.payload) for m in more]
    assert sizes == [1, 5_000_000, 1]


async def test_members_share_all_partitions_and_a_new_one_gets_its_part(members: Members) -> None:
    first = await members.join()
    assert set(await assigned(first, PARTITIONS)) == ALL
    second = await members.join()
    mine = set(await assigned(first, PARTITIONS // 2))
    yours = set(await assigned(second, PARTITIONS // 2))
    assert (mine | yours, mine & yours) == (ALL, set())


async def test_what_a_member_did_not_commit_comes_to_another_when_it_leaves(
    carrier: BrokerCarrier, members: Members
) -> None:
    for p in ALL:
        await carrier.broker.publish(TOPIC, p, [message(n) for n in range(1, 11)])
    first = await members.join()
    for p in await assigned(first, PARTITIONS):
        assert [m.offset for m in await first.read(p, 0, 8)] == list(range(1, 9))
        await first.commit(p, 5)
    await first.leave()
    assert await first.assigned() == {}
    second = await members.join()
    assert await assigned(second, PARTITIONS) == dict.fromkeys(ALL, 5)
    for p in ALL:
        assert [m.offset for m in await second.read(p, 5, 100)] == list(range(6, 11))


async def test_a_partition_of_another_is_neither_read_nor_committed(
    carrier: BrokerCarrier, members: Members
) -> None:
    first, second = await members.join(), await members.join()
    mine = set(await assigned(first, PARTITIONS // 2))
    yours = await assigned(second, PARTITIONS // 2)
    (p, *_) = yours
    await carrier.broker.publish(TOPIC, p, [message(n) for n in range(1, 4)])
    assert p not in mine
    assert list(await first.read(p, 0, 10)) == []
    await first.commit(p, 3)
    assert (await second.assigned())[p] == 0


async def test_members_that_come_and_go_lose_no_message(carrier: BrokerCarrier, members: Members) -> None:
    seen: set[tuple[int, int]] = set()
    stop = asyncio.Event()

    async def work(member: WorkGroup, stop: asyncio.Event) -> None:
        while not stop.is_set():
            for p, done in (await member.assigned()).items():
                for found in await member.read(p, done, 3):
                    seen.add((p, found.offset))
                    await member.commit(p, found.offset)
            await asyncio.sleep(0.002)
        await member.leave()

    wanted = {(p, n) for p in ALL for n in range(1, 61)}

    async def all_seen() -> bool:
        return wanted <= seen

    async with asyncio.TaskGroup() as tasks:
        leaving = asyncio.Event()
        tasks.create_task(work(await members.join(), leaving))
        for n in range(1, 61):
            if n == 20:
                tasks.create_task(work(await members.join(), stop))
            if n == 40:
                leaving.set()
            for p in ALL:
                await carrier.broker.publish(TOPIC, p, [message(n)])
        await eventually(all_seen)
        stop.set()
    assert seen == wanted


async def test_the_twin_in_memory_says_how_far_a_group_has_come() -> None:
    broker = MemoryBroker(2)
    async with broker.group("g", TOPIC) as member:
        await member.join()
        await broker.publish(TOPIC, 1, [message(1), message(2)])
        await member.commit(1, 1)
        assert await broker.committed("g", TOPIC) == {0: 0, 1: 1}
