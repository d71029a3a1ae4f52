"""The adapter to Iggy with the real wheel: over a real server where there is one, else over the stub of its frames."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kfm_server.bus.iggy import IggyBroker, IggyGroup
from kfm_server.bus.iggy.lag import Lag
from kfm_server.ports.broker import BrokerMisfit, BrokerUnavailable, Message, Received
from kfm_server.ports.iggy_settings import IggySettings
from kfm_server.secret import Secret

from tests.support.iggy import Iggy

pytestmark = pytest.mark.requirement("B1")
TOPIC = "agent.turns.events"
PARTITIONS = 4


@asynccontextmanager
async def opened(settings: IggySettings, partitions: int = PARTITIONS) -> AsyncGenerator[IggyBroker]:
    async with asyncio.timeout(60), IggyBroker.open(settings, [TOPIC, "other"], partitions) as broker:
        yield broker


def message(number: int, payload: bytes = b"") -> Message:
    return Message(payload or b"event %d" % number, number, {"session": f"s{number}", "type": "turn.started"})


async def publish(broker: IggyBroker, partition: int, *numbers: int) -> None:
    await broker.publish(TOPIC, partition, [message(n) for n in numbers])


async def numbers(broker: IggyBroker | IggyGroup, partition: int, after: int = 0) -> list[int]:
    if isinstance(broker, IggyGroup):
        return [m.id for m in await broker.read(partition, after, 1000)]
    return [m.id for m in await broker.read(TOPIC, partition, after, 1000)]


async def until_assigned(group: IggyGroup, wanted: set[int] | int) -> dict[int, int]:
    """Wait for partitions, or so many of them."""
    async with asyncio.timeout(30):
        while True:
            mine = await group.assigned()
            if set(mine) == wanted or len(mine) == wanted:
                return dict(mine)
            await asyncio.sleep(0.05)


async def until_it_answers(broker: IggyBroker) -> dict[int, int]:
    """Heads, once a broken broker is back."""
    async with asyncio.timeout(30):
        while True:
            try:
                return dict(await broker.heads(TOPIC))
            except BrokerUnavailable:
                await asyncio.sleep(0.05)


async def test_what_is_published_is_read_with_its_id_headers_and_offset(iggy: Iggy) -> None:
    async with opened(iggy.settings()) as broker:
        await publish(broker, 1, 11, 12, 13)
        found = await broker.read(TOPIC, 1, 1, 10)
        assert [(m.offset, m.id, m.payload, m.partition) for m in found] == [
            (2, 12, b"event 12", 1),
            (3, 13, b"event 13", 1),
        ]
        assert isinstance(found[0], Received) and found[0].headers == {
            "session": "s12",
            "type": "turn.started",
        }
        assert abs(found[0].published_us / 1e6 - time.time()) < 60
        assert await broker.read(TOPIC, 1, 3, 10) == []
        assert await broker.read(TOPIC, 0, 0, 10) == []


async def test_heads_tell_an_empty_partition_from_one_with_a_single_message(iggy: Iggy) -> None:
    async with opened(iggy.settings()) as broker:
        await publish(broker, 2, 1)
        await publish(broker, 3, 1, 2)
        assert await broker.heads(TOPIC) == {0: 0, 1: 0, 2: 1, 3: 2}


async def test_an_id_has_128_bits(iggy: Iggy) -> None:
    async with opened(iggy.settings()) as broker:
        await publish(broker, 0, 2**128 - 1)
        assert await numbers(broker, 0) == [2**128 - 1]


async def test_topics_are_made_once_by_processes_that_start_together(iggy: Iggy) -> None:
    settings = iggy.settings()

    async def one(number: int) -> None:
        async with opened(settings) as broker:
            await publish(broker, 0, number)

    async with asyncio.TaskGroup() as tasks:
        for number in range(1, 5):
            tasks.create_task(one(number))
    async with opened(settings) as broker:
        assert sorted(await numbers(broker, 0)) == [1, 2, 3, 4]


async def test_a_topic_with_another_number_of_partitions_is_a_clear_error(iggy: Iggy) -> None:
    settings = iggy.settings()
    async with opened(settings):
        pass
    with pytest.raises(BrokerMisfit, match="has 4 partitions, and the journal has 5"):
        async with opened(settings, 5):
            pass


async def test_messages_of_many_callers_keep_the_order_in_which_they_were_published(iggy: Iggy) -> None:
    async with opened(iggy.settings()) as broker:
        await asyncio.gather(*(publish(broker, 0, n, n + 1000) for n in range(1, 101)))
        assert await numbers(broker, 0) == [x for n in range(1, 101) for x in (n, n + 1000)]


async def test_a_cancelled_publication_or_read_harms_nothing_that_follows(iggy: Iggy) -> None:
    async with opened(iggy.settings()) as broker:
        await publish(broker, 0, 1)
        for number in range(2, 40):
            task = asyncio.ensure_future(publish(broker, 0, number))
            reading = asyncio.ensure_future(broker.read(TOPIC, 0, 0, 10))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            reading.cancel()
            await asyncio.gather(task, reading, return_exceptions=True)
        await publish(broker, 0, 100)
        found = await numbers(broker, 0)
        assert (found[0], found[-1]) == (1, 100)
        assert found == sorted(set(found)), "each at most once, in order"


async def test_a_message_of_the_largest_size_comes_through(iggy: Iggy) -> None:
    async with opened(iggy.settings(deadline=30.0)) as broker:
        payload = bytes(60_000_000)
        await broker.publish(TOPIC, 0, [message(1, payload), message(2)])
        found = await broker.read(TOPIC, 0, 0, 1)
        assert [len(m.payload) for m in found] == [60_000_000]
        assert await numbers(broker, 0, 1) == [2]


async def test_wrong_credentials_are_no_outage(iggy: Iggy) -> None:
    with pytest.raises(BrokerMisfit, match="Invalid credentials"):
        async with opened(iggy.settings(password=Secret("wrong"))):
            pass


async def test_a_group_shares_partitions_and_hands_over_what_was_not_committed(iggy: Iggy) -> None:
    async with opened(iggy.settings()) as broker:
        for partition in range(PARTITIONS):
            await publish(broker, partition, 1, 2, 3)
        async with broker.group("workers", TOPIC) as other:
            async with broker.group("workers", TOPIC) as first:
                await first.join()
                assert await first.assigned() == dict.fromkeys(range(PARTITIONS), 0)
                await first.commit(0, 2)
                await first.commit(1, 3)
                assert await first.assigned() == {0: 2, 1: 3, 2: 0, 3: 0}
                await other.join()
                await until_assigned(first, 2)
                await until_assigned(other, 2)
            assert await until_assigned(other, 4) == {0: 2, 1: 3, 2: 0, 3: 0}
            assert await numbers(other, 0, 2) == [3]
            assert await numbers(other, 2) == [1, 2, 3]
        assert await broker.committed("workers", TOPIC) == {0: 2, 1: 3, 2: 0, 3: 0}


async def test_what_a_member_read_and_has_not_committed_stays_with_it_when_another_joins(iggy: Iggy) -> None:
    async with opened(iggy.settings()) as broker:
        for partition in range(PARTITIONS):
            await publish(broker, partition, 1, 2)
        async with broker.group("workers", TOPIC) as first, broker.group("workers", TOPIC) as other:
            await first.join()
            for partition in range(PARTITIONS):
                assert await numbers(first, partition) == [1, 2]
            await other.join()
            assert await other.assigned() == {}
            for partition in range(PARTITIONS):
                await first.commit(partition, 2)
            mine = await until_assigned(other, 2)
            assert set(mine.values()) == {2}
            lost = next(iter(mine))
            assert await numbers(first, lost) == []
            await first.commit(lost, 1)
            assert (await other.assigned())[lost] == 2


async def test_a_joined_member_stays_what_it_is(iggy: Iggy) -> None:
    async with opened(iggy.settings()) as broker, broker.group("workers", TOPIC) as group:
        await group.join()
        await group.join()
        assert len(await group.assigned()) == PARTITIONS
        assert (await broker.members("workers", TOPIC)).told == 1


async def test_one_that_is_no_member_has_nothing_reads_nothing_and_commits_nothing(iggy: Iggy) -> None:
    async with opened(iggy.settings()) as broker, broker.group("workers", TOPIC) as group:
        await publish(broker, 0, 1)
        async with broker.group("workers", TOPIC) as outside:
            await group.join()
            assert await outside.assigned() == {}
            assert await numbers(outside, 0) == []
            await outside.commit(0, 1)
            assert (await group.assigned())[0] == 0


async def test_the_first_message_alone_committed_comes_once_more_as_zero_says_too_little(iggy: Iggy) -> None:
    async with opened(iggy.settings()) as broker, broker.group("workers", TOPIC) as group:
        await publish(broker, 0, 1, 2)
        await group.join()
        await group.commit(0, 1)
        assert (await group.assigned())[0] == 0
        await group.commit(0, 2)
        assert (await group.assigned())[0] == 2


async def test_a_groups_lag_is_what_it_has_not_committed_and_how_old_that_is(iggy: Iggy) -> None:
    async with opened(iggy.settings()) as broker, broker.group("workers", TOPIC) as group:
        assert (await broker.lag("workers", TOPIC)).messages == 0
        await publish(broker, 0, 1, 2, 3)
        await publish(broker, 1, 4, 5)
        await group.join()
        await group.commit(0, 2)
        lag = await broker.lag("workers", TOPIC)
        assert (lag.messages, lag.most) == (3, 2)
        first, last = (await broker.read(TOPIC, 0, 2, 1))[0], (await broker.read(TOPIC, 1, 0, 1))[0]
        assert lag.oldest_us == min(first.published_us, last.published_us)
        await group.commit(0, 3)
        await group.commit(1, 2)
        assert await broker.lag("workers", TOPIC) == Lag(0, 0, 0)


async def test_a_rebuilt_group_is_as_far_as_it_was_and_its_members_join_again(iggy: Iggy) -> None:
    async with opened(iggy.settings()) as broker, broker.group("workers", TOPIC) as group:
        for partition in range(PARTITIONS):
            await publish(broker, partition, 1, 2, 3)
        await group.join()
        await group.commit(0, 2)
        await group.commit(3, 3)
        members = await broker.members("workers", TOPIC)
        assert (members.told, members.live, members.ghosts) == (1, 1, 0)
        assert await broker.rebuild("workers", TOPIC) == {}
        assert await group.assigned() == {}
        assert await until_assigned(group, 4) == {0: 2, 1: 0, 2: 0, 3: 3}


MEMBER = """
import asyncio, sys
from kfm_server.bus.iggy import IggyBroker
from kfm_server.ports.iggy_settings import IggySettings
from kfm_server.secret import Secret

async def main(address, username, password, stream, topic):
    settings = IggySettings(address=address, username=username, password=Secret(password), stream=stream)
    async with IggyBroker.open(settings, [topic, "other"], 4) as broker, broker.group("workers", topic) as group:
        await group.join()
        for partition in range(4):
            assert await group.read(partition, 0, 10)
        await group.commit(0, 2)
        print("read all", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_a_killed_member_had_not_committed_comes_to_another(iggy: Iggy) -> None:
    settings = iggy.settings()
    async with opened(settings) as broker, broker.group("workers", TOPIC) as group:
        for partition in range(PARTITIONS):
            await publish(broker, partition, 1, 2, 3)
        login = settings.username, settings.password.reveal()
        member = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            MEMBER,
            settings.address,
            *login,
            settings.stream,
            TOPIC,
            stdout=subprocess.PIPE,
        )
        try:
            assert member.stdout and await member.stdout.readline() == b"read all\n"
            await group.join()
            assert set(await group.assigned()) <= {0}, "what it has read and not committed is its own"
        finally:
            member.kill()
            await member.wait()
        assert await until_assigned(group, 4) == {0: 2, 1: 0, 2: 0, 3: 0}
        assert await numbers(group, 0, 2) == [3]
        assert await numbers(group, 1) == [1, 2, 3]


async def test_all_that_was_acknowledged_is_there_after_kills_of_the_server_under_load(iggy: Iggy) -> None:
    server = needs_own(iggy)
    acknowledged: dict[int, list[int]] = {p: [] for p in range(PARTITIONS)}
    over, more_came = asyncio.Event(), asyncio.Condition()
    async with opened(iggy.settings()) as broker:

        async def load(partition: int) -> None:
            number = 0
            while not over.is_set():
                number += 1
                try:
                    await publish(broker, partition, number)
                except BrokerUnavailable:
                    await asyncio.sleep(0.02)
                else:
                    acknowledged[partition].append(number)
                    async with more_came:
                        more_came.notify_all()

        async def enough(more: int) -> None:
            wanted = {p: len(found) + more for p, found in acknowledged.items()}
            async with more_came:
                await more_came.wait_for(lambda: all(len(acknowledged[p]) >= n for p, n in wanted.items()))

        async with asyncio.TaskGroup() as tasks:
            for partition in range(PARTITIONS):
                tasks.create_task(load(partition))
            for _ in range(3):
                await enough(50)
                await server.kill()
                await server.start()
            await enough(50)
            over.set()
        for partition, numbers_there in acknowledged.items():
            kept: list[int] = []
            last = 0
            while found := await broker.read(TOPIC, partition, last, 1000):
                kept += [m.id for m in found]
                last = found[-1].offset
            assert set(numbers_there) <= set(kept)
            assert kept == sorted(kept), "in order, those of unknown outcome too"


def needs_own(iggy: Iggy) -> Any:
    if not iggy.own:
        pytest.skip("this server is not ours to kill")
    return iggy


async def test_it_heals_by_itself_when_the_server_was_killed_and_keeps_what_was_acknowledged(
    iggy: Iggy,
) -> None:
    server = needs_own(iggy)
    async with opened(iggy.settings()) as broker:
        await publish(broker, 0, 1, 2)
        await server.kill()
        for call in (broker.heads(TOPIC), broker.read(TOPIC, 0, 0, 1), publish(broker, 0, 3)):
            with pytest.raises(BrokerUnavailable):
                await call
        await server.start()
        assert (await until_it_answers(broker))[0] == 2
        assert await numbers(broker, 0) == [1, 2]
        await publish(broker, 0, 3)
        assert await numbers(broker, 0) == [1, 2, 3]


async def test_it_opens_without_its_server_and_makes_the_topics_when_there_is_one(iggy: Iggy) -> None:
    server = needs_own(iggy)
    await server.kill()
    try:
        async with opened(iggy.settings()) as broker:
            with pytest.raises(BrokerUnavailable):
                await broker.heads(TOPIC)
            await server.start()
            assert await until_it_answers(broker) == dict.fromkeys(range(PARTITIONS), 0)
            await publish(broker, 0, 1)
    finally:
        if not await answers(iggy):
            await server.start()


async def test_ghosts_of_a_restarted_server_are_seen_and_removed(iggy: Iggy) -> None:
    server = needs_own(iggy)
    async with opened(iggy.settings()) as broker, broker.group("workers", TOPIC) as group:
        await group.join()
        await publish(broker, 0, 1, 2)
        await group.commit(0, 2)
        await server.kill()
        await server.start()
        await until_it_answers(broker)
        await until_member(group)
        assert (await broker.members("workers", TOPIC)).ghosts == 1
        assert len(await group.assigned()) < PARTITIONS, "the ghost holds some"
        await broker.rebuild("workers", TOPIC)
        assert (await until_assigned(group, 4))[0] == 2
        assert (await broker.members("workers", TOPIC)).ghosts == 0


async def answers(iggy: Iggy) -> bool:
    host, _, port = iggy.address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


async def until_member(group: IggyGroup) -> None:
    """Wait until the server knows this member again."""
    async with asyncio.timeout(30):
        while True:
            try:
                if await group.assigned():
                    return
            except BrokerUnavailable:
                pass
            await asyncio.sleep(0.05)
