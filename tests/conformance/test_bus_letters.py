"""What every store of the bus promises to operators: pages, tenants, keys; and what Postgres adds to it."""

import asyncio
from collections.abc import AsyncGenerator

import asyncpg
import pytest
from kfm.catalogue.errors import DeadLetterNotFound, IdempotencyConflict, PageTokenInvalid, Unavailable
from kfm.type.v1.type_pb2 import Error
from kfm_server.bus.dead_letters import DeadLetterDesk
from kfm_server.bus.letters import make_letter
from kfm_server.bus.memory import MemoryBusStore
from kfm_server.bus.postgres import PostgresBusStore
from kfm_server.context import ExecutionContext
from kfm_server.journal.memory import MemoryJournal
from kfm_server.ports.bus import Letter
from kfm_server.ports.journal import Stored

from tests.support.bus import JournalCarrier, Seen, Told, consuming, group, sealed

pytestmark = pytest.mark.requirement("R6")
ME = ExecutionContext()
REPLAY, DROP = "ReplayDeadLetter", "DropDeadLetter"


@pytest.fixture
async def store(dsn: str) -> AsyncGenerator[Told]:
    if not dsn:
        yield Told(MemoryBusStore())
        return
    async with PostgresBusStore.open_pool(dsn) as made:
        yield Told(made)


def letter(n: int, *, tenant: str = "default", name: str = "g") -> Letter:
    """A letter of the n-th message; two of them share each instant."""
    return make_letter(
        name,
        Stored(0, n, 1, f"turn_{n}", 1, "agent.plans", b"bytes"),
        tenant_id=tenant,
        session_id=f"ses_{n}",
        key=f"ses_{n}",
        error=Error(reason="REASON_INTERNAL"),
        deliveries=1,
        now_us=1_000_000 + n // 2,
    )


async def bury(store: Told, *letters: Letter) -> None:
    for one in letters:
        await store.open(one.group, one.partition, 1)
        await store.bury(one, 1, one.offset)


async def test_pages_hold_every_letter_once_oldest_first(store: Told) -> None:
    desk = DeadLetterDesk(store)
    await bury(store, *(letter(n) for n in range(1, 8)), letter(9, name="other"))
    token, offsets = "", []
    for _ in range(3):
        page, token = await desk.list(ME, "g", 3, token)
        offsets += [(x.created_at.ToMicroseconds(), x.offset) for x in page]
    assert token == ""
    assert sorted(n for _, n in offsets) == list(range(1, 8))
    assert [at for at, _ in offsets] == sorted(at for at, _ in offsets)
    assert len((await desk.list(ME, "", 50, ""))[0]) == 8


async def test_a_token_of_another_list_is_refused(store: Told) -> None:
    desk = DeadLetterDesk(store)
    await bury(store, letter(1), letter(2))
    _, token = await desk.list(ME, "g", 1, "")
    for group_name, bad in (
        ("other", token),
        ("g", "g|x"),
        ("g", "g|9999999999999999999.evt_1"),
        ("g", "\x00"),
    ):
        with pytest.raises(PageTokenInvalid):
            await desk.list(ME, group_name, 1, bad)


async def test_another_tenant_finds_nothing(store: Told) -> None:
    desk = DeadLetterDesk(store)
    await bury(store, letter(1, tenant="a"))
    mine, other = ExecutionContext(tenant_id="a"), ExecutionContext(tenant_id="b")
    (found,), _ = await desk.list(mine, "", 10, "")
    assert (await desk.list(other, "", 10, ""))[0] == []
    with pytest.raises(DeadLetterNotFound):
        await desk.get(other, found.dead_letter_id)
    for settle in (desk.replay, desk.drop):
        with pytest.raises(DeadLetterNotFound):
            await settle(other, found.dead_letter_id, "k", b"d", REPLAY)
    assert (await desk.get(mine, found.dead_letter_id)).original == b"bytes"


async def test_a_key_counts_once_and_a_refusal_does_not_use_it_up(store: Told) -> None:
    desk = DeadLetterDesk(store)
    one, two = letter(1), letter(2)
    with pytest.raises(DeadLetterNotFound):
        await desk.drop(ME, one.id, "k", b"d", DROP)
    await bury(store, one, two)
    await asyncio.gather(*(desk.drop(ME, one.id, "k", b"d", DROP) for _ in range(4)))
    with pytest.raises(IdempotencyConflict):
        await desk.drop(ME, two.id, "k", b"e", DROP)
    with pytest.raises(DeadLetterNotFound):
        await desk.drop(ME, one.id, "k2", b"d", DROP)
    await desk.replay(ME, two.id, "k", b"e", REPLAY)
    holds = {hold.key: hold for hold in (await store.open("g", 0, 1)).holds}
    assert {(key, hold.offset, hold.released) for key, hold in holds.items()} == {
        ("ses_1", 2, True),
        ("ses_2", 2, True),
    }


async def test_a_letter_that_holds_nothing_is_one_however_often_it_is_kept_and_either_decision_closes_it(
    store: Told,
) -> None:
    desk = DeadLetterDesk(store)
    for n, settle in ((1, desk.drop), (2, desk.replay)):
        one = letter(n)
        await store.keep(one)
        await store.keep(one)
        assert [x.dead_letter_id for x in (await desk.list(ME, "g", 10, ""))[0]] == [one.id]
        await settle(ME, one.id, f"k{n}", b"d", "rpc")
        assert (await desk.list(ME, "g", 10, ""))[0] == []
    assert (await store.open("g", 0, 1)).holds == ()


async def test_a_group_goes_on_when_its_connections_are_cut(database: str) -> None:
    carrier, seen = JournalCarrier(MemoryJournal(1)), Seen()
    admin = await asyncpg.connect(database)
    async with PostgresBusStore.open_pool(database) as store, consuming(group(seen), carrier, store):
        for n in range(1, 21):
            await carrier.put(sealed("turn_1", n))
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'kfm-bus' and datname = current_database()"
            )
        await seen.until(lambda: len(set(seen.ids)) == 20)
    await admin.close()
    firsts = list(dict.fromkeys(seen.ids))
    assert firsts == [f"turn_1.{n}" for n in range(1, 21)]


async def test_the_desk_is_unavailable_while_its_database_is(database: str) -> None:
    async with PostgresBusStore.open_pool(database) as store:
        desk = DeadLetterDesk(store)
    for call in (
        desk.list(ME, "", 1, ""),
        desk.get(ME, "evt_1"),
        desk.drop(ME, "evt_1", "k", b"d", DROP),
    ):
        with pytest.raises(Unavailable):
            await call


async def test_holds_are_seen_by_partition_without_taking_the_cursor(store: Told) -> None:
    await bury(store, letter(3), letter(1), letter(2, name="other"))
    assert [(hold.key, hold.offset, hold.released) for hold in await store.holds("g", 0)] == [
        ("ses_1", 1, False),
        ("ses_3", 3, False),
    ]
    assert await store.holds("g", 1) == []
    await store.open("g", 0, 9)
    assert len(await store.holds("g", 0)) == 2
    await store.commit("g", 0, 9, 5)
