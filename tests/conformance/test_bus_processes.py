"""What every engine of the bus promises when there are several consumers, big messages, and breaks."""

import asyncio
from collections.abc import Sequence

import pytest
from kfm_server.bus.dead_letters import DeadLetterDesk
from kfm_server.context import ExecutionContext
from kfm_server.ports.bus import Delivery

from tests.support.bus import (
    LIMIT,
    PARTITIONS,
    Carrier,
    Seen,
    Told,
    caught_up,
    consuming,
    group,
    sealed,
)

ME = ExecutionContext()
BIG = 300 * 1024


async def _put(carrier: Carrier, first: int, last: int) -> None:
    """Events first to last of one turn in each partition, each turn in a session of its own."""
    for partition in range(PARTITIONS):
        events = [sealed(f"turn_p{partition}", n, f"ses_{partition}") for n in range(first, last + 1)]
        await carrier.put(*events, partition=partition)


@pytest.mark.requirement("R6", "R10", "B1")
async def test_partitions_that_move_between_processes_lose_nothing_and_keep_their_order(
    store: Told, carrier: Carrier
) -> None:
    one, two = Seen(), Seen()
    mine, yours = dict.fromkeys(range(PARTITIONS), 1), dict[int, int]()
    await _put(carrier, 1, 20)
    async with (
        consuming(group(one), carrier, store, assigned=mine) as first,
        consuming(group(two), carrier, store, assigned=yours) as second,
    ):
        await one.until(lambda: len(one.ids) >= 20 * PARTITIONS)
        for partition in (1, 3):
            # The new owner may be there before the old one has heard of it.
            yours[partition] = 2
            second.poke()
            await _put(carrier, *((21, 30) if partition == 1 else (31, 40)))
            await asyncio.sleep(0)
            del mine[partition]
            first.poke()
        last = 40
        async with asyncio.timeout(LIMIT):
            while not all(any(id.startswith(f"turn_p{p}.") for id in two.ids) for p in yours):
                last += 1
                await _put(carrier, last, last)
                await asyncio.sleep(0)
        await one.until(lambda: {f"turn_p0.{last}", f"turn_p2.{last}"} <= set(one.ids))
        await two.until(lambda: {f"turn_p1.{last}", f"turn_p3.{last}"} <= set(two.ids))
    for partition in range(PARTITIONS):
        wanted = [f"turn_p{partition}.{n}" for n in range(1, last + 1)]
        got = [id for seen in (one, two) for id in seen.ids if id.startswith(f"turn_p{partition}.")]
        assert set(got) == set(wanted)
        for seen in (one, two):
            mine_there = [id for id in seen.ids if id.startswith(f"turn_p{partition}.")]
            firsts = list(dict.fromkeys(mine_there))
            assert firsts == sorted(firsts, key=wanted.index)


@pytest.mark.requirement("R6", "R7")
async def test_a_slow_consumer_holds_up_neither_other_partitions_nor_other_groups(
    store: Told, carrier: Carrier
) -> None:
    arrived, go_on, most = asyncio.Event(), asyncio.Event(), 0
    other, ids = Seen(), set[str]()

    async def slow(deliveries: Sequence[Delivery]) -> None:
        nonlocal most
        ids.update(delivery.envelope.event_id for delivery in deliveries)
        other.changed.set()
        if deliveries[0].partition == 0:
            most = max(most, len(deliveries))
            arrived.set()
            await go_on.wait()

    await _put(carrier, 1, 20)
    everywhere = dict.fromkeys(range(PARTITIONS), 1)
    async with consuming(group(slow, name="slow", batch=8), carrier, store, assigned=everywhere):
        async with asyncio.timeout(LIMIT):
            await arrived.wait()
        async with consuming(group(other, name="other"), carrier, store, assigned=everywhere):
            await _put(carrier, 21, 400)
            await other.until(lambda: len(set(other.ids)) == 400 * PARTITIONS)
        await other.until(lambda: len(ids) >= 400 * (PARTITIONS - 1) + 1)
        assert len([id for id in ids if id.startswith("turn_p0.")]) == most <= 8
        go_on.set()
        await other.until(lambda: len(ids) == 400 * PARTITIONS)


@pytest.mark.requirement("R6", "B1")
async def test_a_big_message_passes_and_keeps_its_place(store: Told, carrier: Carrier) -> None:
    seen, sizes = Seen(), dict[str, int]()

    async def measured(deliveries: Sequence[Delivery]) -> None:
        sizes[deliveries[0].envelope.event_id] = deliveries[0].envelope.ByteSize()
        await seen(deliveries)

    big = sealed("turn_1", 2)
    big.payload.value += b"\x1a" + _field(BIG)
    async with consuming(group(measured), carrier, store):
        await carrier.put(sealed("turn_1", 1), big, sealed("turn_1", 3))
        await seen.until(lambda: len(seen.ids) == 3)
    assert seen.ids == [f"turn_1.{n}" for n in (1, 2, 3)]
    assert sizes["turn_1.2"] > BIG


@pytest.mark.requirement("R6", "B1")
async def test_a_consumer_goes_on_after_each_break_of_its_connection(store: Told, carrier: Carrier) -> None:
    seen = Seen()
    async with consuming(group(seen), carrier, store):
        for n in range(1, 11):
            await carrier.put(sealed("turn_1", n))
            if n % 3 == 0:
                await carrier.break_off()
        await seen.until(lambda: len(set(seen.ids)) == 10)
        await caught_up(store, carrier)
    assert list(dict.fromkeys(seen.ids)) == [f"turn_1.{n}" for n in range(1, 11)]
    assert (await DeadLetterDesk(store).list(ME, "", 10, ""))[0] == []


def _field(size: int) -> bytes:
    """A length-delimited field's length and body: a part of the input, with text."""
    text = b"x" * size
    inner = b"\x0a" + _varint(len(text)) + text
    return _varint(len(inner)) + inner


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))
