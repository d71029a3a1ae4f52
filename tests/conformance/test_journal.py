"""What every journal promises."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator

import pytest
from kfm_server.ports.journal import Claimed, Entry, Fenced, InboxItem, Record, Rejected

from tests.support.journals import Store, claim, entry, memory_store, postgres_store, record, row


@pytest.fixture
async def store(dsn: str) -> AsyncGenerator[Store]:
    async with postgres_store(dsn) if dsn else memory_store() as store:
        await store.leases.acquire("me", "here", take_over=False, most=16)
        yield store


async def _offsets(store: Store, partition: int) -> list[int]:
    return [stored.offset for stored in await store.journal.read_partition(partition, 0, 10_000)]


async def test_offsets_of_a_partition_start_at_one_and_have_no_gaps(store: Store) -> None:
    journal = store.journal
    async with asyncio.TaskGroup() as group:
        for n in range(40):
            group.create_task(journal.append(entry(f"turn_{n}", 1, 2, 3, partition=n % 2)))
    assert await _offsets(store, 0) == list(range(1, 61))
    assert await _offsets(store, 1) == list(range(1, 61))
    assert await journal.heads() == {0: 60, 1: 60}


async def test_a_refused_entry_leaves_no_gap_and_no_trace(store: Store) -> None:
    journal = store.journal
    await journal.append(entry("a", 1, claim=claim("k")))
    with pytest.raises(Claimed):
        await journal.append(entry("b", 1, claim=claim("k"), turns=(row("b", "running"),)))
    with pytest.raises(Fenced):
        await journal.append(entry("c", 1, epoch=7, claim=claim("k2"), turns=(row("c", "running"),)))
    with pytest.raises(Rejected):
        await journal.append(entry("a", 1, claim=claim("k3")))
    await journal.append(entry("d", 1))
    assert [(s.offset, s.turn_id) for s in await journal.read_partition(0, 0, 9)] == [(1, "a"), (2, "d")]
    assert await journal.turn("b") is None
    assert await journal.turn("c") is None
    assert await journal.find_claim("tenant", "principal", "SubmitTurn", "k2") is None
    assert await journal.find_claim("tenant", "principal", "SubmitTurn", "k3") is None


async def test_a_claimed_key_answers_with_what_is_stored_whatever_the_digest(store: Store) -> None:
    first = claim("k", b"one", b"first outcome")
    await store.journal.append(entry("a", 1, claim=first))
    for digest in (b"one", b"another"):
        with pytest.raises(Claimed) as caught:
            await store.journal.append(entry("b", 1, claim=claim("k", digest, b"second")))
        assert caught.value.claim == first
    assert await store.journal.find_claim("tenant", "principal", "SubmitTurn", "k") == first


async def test_the_fence_comes_before_the_key(store: Store) -> None:
    await store.journal.append(entry("a", 1, claim=claim("k")))
    with pytest.raises(Fenced):
        await store.journal.append(entry("b", 1, epoch=2, claim=claim("k")))


async def test_of_equal_keys_at_once_exactly_one_wins(store: Store) -> None:
    work = [store.journal.append(entry(f"t{n}", 1, claim=claim("k"), partition=n % 4)) for n in range(20)]
    results = await asyncio.gather(*work, return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, Claimed) for result in results) == 19
    assert sum((await store.journal.heads()).values()) == 1


async def test_gaps_inside_an_entry_are_rejected(store: Store) -> None:
    with pytest.raises(Rejected):
        await store.journal.append(entry("a", 1, 3))


@pytest.mark.requirement("FT6")
async def test_one_bad_row_fails_only_its_own_entry(store: Store) -> None:
    journal = store.journal
    await journal.append(entry("used", 1))
    entries = [entry(f"t{n}", 1) for n in range(10)]
    entries[4] = entry("used", 1)
    results = await asyncio.gather(*(journal.append(e) for e in entries), return_exceptions=True)
    assert [isinstance(r, Rejected) for r in results] == [n == 4 for n in range(10)]
    assert await _offsets(store, 0) == list(range(1, 11))


async def test_entries_of_one_turn_commit_in_the_order_of_the_calls(store: Store) -> None:
    async with asyncio.TaskGroup() as group:
        for n in range(1, 101):
            group.create_task(store.journal.append(entry("a", n)))
    stored = await store.journal.read_turn("a", 0, 1000)
    assert [(s.sequence, s.offset) for s in stored] == [(n, n) for n in range(1, 101)]


async def test_a_cancelled_waiter_does_not_undo_its_entry_nor_hurt_others(store: Store) -> None:
    task = asyncio.create_task(store.journal.append(entry("a", 1)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    await store.journal.append(entry("a", 2))
    assert [s.sequence for s in await store.journal.read_turn("a", 0, 9)] == [1, 2]


async def test_events_outside_a_turn_have_sequence_zero_and_do_not_collide(store: Store) -> None:
    for body in (b"one", b"two"):
        await store.journal.append(Entry(3, 1, (Record("", 0, "agent.system", body),)))
    assert [s.envelope for s in await store.journal.read_partition(3, 0, 9)] == [b"one", b"two"]


async def test_who_reads_along_reads_what_the_journal_has(store: Store) -> None:
    journal = store.journal
    await asyncio.gather(
        *(
            journal.append(entry(f"turn_{n}", 1, 2, partition=n % 3, claim=claim(f"k{n % 7}")))
            for n in range(12)
        ),
        *(journal.append(entry("late", 1, epoch=9, partition=n)) for n in range(3)),
        return_exceptions=True,
    )
    for partition in range(3):
        there = await journal.read_partition(partition, 0, 99)
        assert there and [s.offset for s in there] == list(range(1, len(there) + 1))
        for after in range(len(there) + 2):
            assert await journal.read_along(partition, after, 99) == there[after:]
        assert await journal.read_along(partition, 0, 1) == there[:1]


async def test_reads_are_in_order_and_bounded(store: Store) -> None:
    journal = store.journal
    await journal.append(entry("b", 1, 2, 3, partition=5))
    await journal.append(entry("a", 1, 2, partition=2))
    assert [s.sequence for s in await journal.read_turn("b", 1, 1)] == [2]
    assert [s.offset for s in await journal.read_partition(5, 1, 9)] == [2, 3]
    stored = await journal.read_turns(["b", "a", "b", "none"])
    assert [(s.partition, s.offset) for s in stored] == [(2, 1), (2, 2), (5, 1), (5, 2), (5, 3)]
    assert stored[0].envelope == b"body"
    assert stored[0].epoch == 1


async def test_the_projection_follows_and_lists_newest_first(store: Store) -> None:
    journal = store.journal
    for n in range(1, 6):
        turns = (row(f"turn_{n}", "running", session=f"ses_{n % 2}", at=n),)
        await journal.append(entry(f"turn_{n}", 1, turns=turns))
    await journal.append(entry("turn_3", 2, turns=(row("turn_3", "finished", session="ses_1", at=3),)))

    async def listed(*, session: str = "", phase: str = "", before: str = "", limit: int = 9) -> list[str]:
        rows = await journal.list_turns(
            tenant_id="tenant", session_id=session, phase=phase, before=before, limit=limit
        )
        return [found.turn_id for found in rows]

    assert await listed(limit=2) == ["turn_5", "turn_4"]
    assert await listed(before="turn_4", limit=2) == ["turn_3", "turn_2"]
    assert await listed(session="ses_1") == ["turn_5", "turn_3", "turn_1"]
    assert await listed(phase="finished") == ["turn_3"]
    assert [t.turn_id for t in await journal.open_turns(0)] == ["turn_1", "turn_2", "turn_4", "turn_5"]
    assert await journal.turn("turn_3") == row("turn_3", "finished", session="ses_1", at=3)


async def test_one_entry_may_name_a_turn_twice_and_the_last_word_stands(store: Store) -> None:
    turns = (row("a", "queued"), row("a", "running"))
    await store.journal.append(Entry(0, 1, (record("a", 1),), turns))
    found = await store.journal.turn("a")
    assert found is not None
    assert found.phase == "running"


async def test_a_consumed_inbox_item_is_gone_with_the_commit_and_stays_without(store: Store) -> None:
    for n in (1, 2):
        await store.leases.post(InboxItem(0, 4, claim(f"k{n}"), b"request %d" % n))
    _, items = await store.leases.renew("me")
    assert [item.envelope for item in items] == [b"request 1", b"request 2"]
    assert items[0].claim == claim("k1")
    with pytest.raises(Fenced):
        await store.journal.append(entry("a", 1, partition=4, epoch=9, consumed=(items[0].id,)))
    assert len((await store.leases.renew("me"))[1]) == 2
    await store.journal.append(entry("a", 1, partition=4, consumed=(items[0].id,)))
    assert (await store.leases.renew("me"))[1] == [items[1]]
    await store.journal.append(Entry(4, 1, consumed=(items[1].id,)))
    assert not (await store.leases.renew("me"))[1]


async def test_blobs_are_found_by_their_digest(store: Store) -> None:
    digest = await store.journal.put_blob(b"large")
    assert await store.journal.put_blob(b"large") == digest
    assert await store.journal.get_blob(digest) == b"large"
    with pytest.raises(KeyError):
        await store.journal.get_blob("0" * 64)


async def test_a_blob_may_be_as_large_as_the_largest_output_and_be_put_by_many_at_once(store: Store) -> None:
    body = b"x" * (8 * 1024 * 1024)
    digests = await asyncio.gather(*(store.journal.put_blob(body) for _ in range(4)))
    assert set(digests) == {hashlib.sha256(body).hexdigest()}
    assert await store.journal.get_blob(digests[0]) == body


async def test_a_transaction_commits_its_entry_or_raises_as_append(store: Store) -> None:
    async with store.journal.transaction() as transaction:
        await transaction.commit(entry("a", 1))
    with pytest.raises(Fenced):
        async with store.journal.transaction() as transaction:
            await transaction.commit(entry("a", 2, epoch=5))
    with pytest.raises(Rejected):
        async with store.journal.transaction() as transaction:
            await transaction.commit(entry("a", 1))
    async with store.journal.transaction():
        pass
    await store.journal.append(entry("a", 2))
    assert await _offsets(store, 0) == [1, 2]
