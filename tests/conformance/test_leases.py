"""What every table of leases promises."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from kfm_server.ports.journal import Fenced, InboxItem

from tests.support.journals import LEASE_SECONDS, Store, entry, memory_store, postgres_store


@pytest.fixture
async def store(dsn: str) -> AsyncGenerator[Store]:
    async with postgres_store(dsn) if dsn else memory_store() as store:
        yield store


async def test_free_partitions_go_to_the_first_who_asks_as_clean(store: Store) -> None:
    leases = await store.leases.acquire("a", "addr", take_over=False, most=3)
    assert [(x.partition, x.epoch, x.owner, x.address, x.clean) for x in leases] == [
        (n, 1, "a", "addr", True) for n in range(3)
    ]
    others = await store.leases.acquire("b", "addr", take_over=False, most=16)
    assert [x.partition for x in others] == list(range(3, 16))
    assert not await store.leases.acquire("c", "addr", take_over=False, most=16)


@pytest.mark.requirement("R4")
async def test_a_takeover_raises_the_epoch_and_fences_the_old_owner(store: Store) -> None:
    await store.leases.acquire("a", "", take_over=False, most=16)
    await store.journal.append(entry("t", 1, epoch=1))
    await store.expire()
    assert await store.leases.holder(0) is None
    taken = await store.leases.acquire("b", "", take_over=False, most=16)
    assert [(x.epoch, x.clean) for x in taken] == [(2, False)] * 16
    with pytest.raises(Fenced):
        await store.journal.append(entry("t", 2, epoch=1))
    await store.journal.append(entry("t", 2, epoch=2))
    assert (await store.leases.renew("a"))[0] in ([], ())


async def test_who_knows_that_all_others_are_dead_takes_at_once_and_clean(store: Store) -> None:
    await store.leases.acquire("a", "", take_over=False, most=16)
    taken = await store.leases.acquire("b", "", take_over=True, most=16)
    assert [(x.epoch, x.clean) for x in taken] == [(2, True)] * 16


async def test_a_lease_that_was_given_back_is_clean_for_the_next(store: Store) -> None:
    await store.leases.acquire("a", "", take_over=False, most=16)
    await store.leases.release("a")
    assert await store.leases.holder(0) is None
    taken = await store.leases.acquire("b", "", take_over=False, most=16)
    assert [(x.epoch, x.clean) for x in taken] == [(2, True)] * 16


async def test_renewing_keeps_leases_and_the_holder_is_known(store: Store) -> None:
    await store.leases.acquire("a", "addr:1", take_over=False, most=2)
    held, _ = await store.leases.renew("a")
    assert [lease.partition for lease in held] == [0, 1]
    holder = await store.leases.holder(1)
    assert holder is not None
    assert (holder.owner, holder.address, holder.epoch) == ("a", "addr:1", 1)
    assert await store.leases.holder(2) is None


async def test_a_part_of_the_leases_is_given_back_and_the_rest_is_kept(store: Store) -> None:
    await store.leases.acquire("a", "", take_over=False, most=4)
    await store.leases.release("a", [1, 3])
    await store.leases.release("a", [])
    held, _ = await store.leases.renew("a")
    assert [lease.partition for lease in held] == [0, 2]
    taken = await store.leases.acquire("b", "", take_over=False, most=2)
    assert [(lease.partition, lease.clean) for lease in taken] == [(1, True), (3, True)]


@pytest.mark.requirement("R10")
async def test_processes_that_share_know_of_each_other_until_they_leave_or_die(store: Store) -> None:
    leases = store.leases

    async def held(owner: str, here: bool = True) -> dict[str, int]:
        found = await leases.runtimes(owner, here=here)
        assert all(0 < runtime.seconds <= LEASE_SECONDS for runtime in found.values())
        return {name: runtime.held for name, runtime in found.items()}

    assert await held("a") == {"a": 0}
    await leases.acquire("a", "", take_over=False, most=5)
    assert await held("b") == {"a": 5, "b": 0}
    assert await held("b", here=False) == {"a": 5}
    assert await held("c") == {"a": 5, "c": 0}
    await store.expire()
    assert await held("b") == {"b": 0}
    await held("c")
    await leases.acquire("b", "", take_over=True, most=16)
    assert await held("b") == {"b": 16}


async def test_the_inbox_of_others_is_not_shown(store: Store) -> None:
    await store.leases.acquire("a", "", take_over=False, most=1)
    for partition in (0, 5):
        await store.leases.post(InboxItem(0, partition, None, b"x"))
    _, items = await store.leases.renew("a")
    assert [(item.partition, item.claim) for item in items] == [(0, None)]


async def test_many_who_ask_at_once_never_share_an_epoch(store: Store) -> None:
    async def ask(n: int) -> list[tuple[int, int]]:
        taken = await store.leases.acquire(f"p{n}", "", take_over=True, most=16)
        return [(lease.partition, lease.epoch) for lease in taken]

    taken = [pair for pairs in await asyncio.gather(*map(ask, range(12))) for pair in pairs]
    assert len(taken) == len(set(taken)) == 12 * 16
    assert {epoch for _, epoch in taken} == set(range(1, 13))


async def test_a_posted_item_wakes_those_who_listen(store: Store) -> None:
    woken = asyncio.Event()
    store.leases.on_wake(woken.set)  # pyright: ignore
    async with asyncio.timeout(30):
        while not woken.is_set():  # the listener may still be connecting: a lost wake-up is allowed
            await store.leases.post(InboxItem(0, 0, None, b"x"))
            try:
                async with asyncio.timeout(0.2):
                    await woken.wait()
            except TimeoutError:
                continue
