"""What the journal in Postgres keeps through lost connections, dead backends and broken rows."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import asyncpg
import pytest
from kfm_server.clock import SharedClock, SystemClock
from kfm_server.journal.leases import PostgresLeases
from kfm_server.journal.postgres import PostgresJournal
from kfm_server.ports.journal import Entry, Fenced, JournalUnavailable, NoPlace, Record, Rejected

from tests.support.journals import claim, entry, row
from tests.support.live import a_moment
from tests.support.postgres_proxy import Proxy


@pytest.fixture
async def admin(database: str) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def owned(database: str) -> str:
    async with PostgresLeases.open(database) as leases:
        await leases.acquire("me", "", take_over=True, most=16)
    return database


async def _whole(journal: PostgresJournal, turns: int, events: int) -> None:
    for n in range(turns):
        stored = await journal.read_turn(f"turn_{n}", 0, 1000)
        assert [s.sequence for s in stored] == list(range(1, events + 1))
    for partition in await journal.heads():
        offsets = [s.offset for s in await journal.read_partition(partition, 0, 100_000)]
        assert offsets == list(range(1, len(offsets) + 1))


@pytest.mark.requirement("FT5")
async def test_killed_backends_during_group_commit_lose_and_repeat_nothing(
    owned: str, admin: asyncpg.Connection
) -> None:
    async with PostgresJournal.open(owned) as journal:

        async def run(n: int) -> None:
            for sequence in range(1, 41):
                await journal.append(entry(f"turn_{n}", sequence, partition=n % 16))

        killed = 0
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(n)) for n in range(24)]
            while killed < 40 and not all(task.done() for task in tasks):
                killed += await admin.fetchval(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                    " where application_name like 'kfm-writer%' and state = 'active'"
                    " and datname = current_database()"
                )
        assert killed > 0
        await _whole(journal, 24, 40)


@pytest.mark.requirement("FT7")
async def test_a_connection_cut_after_the_commit_is_success_and_nothing_is_written_twice(owned: str) -> None:
    async with Proxy.open(owned) as proxy, PostgresJournal.open(proxy.dsn) as journal:
        for n in range(10):
            proxy.cut_answer.set()
            await journal.append(entry(f"turn_{n}", 1, claim=claim(f"k{n}"), partition=n))
        proxy.cut_answer.set()
        await journal.append(Entry(0, 1, (Record("", 0, "agent.system", b"unique"),)))
        proxy.cut_answer.set()
        await journal.append(Entry(1, 1, claim=claim("refusal")))
        assert proxy.cuts == 12
        await _whole(journal, 10, 1)
        assert await journal.heads() == {0: 2} | dict.fromkeys(range(1, 10), 1)


async def test_an_entry_whose_outcome_was_lost_and_whose_epoch_is_old_is_fenced(
    owned: str, admin: asyncpg.Connection
) -> None:
    async with Proxy.open(owned) as proxy, PostgresJournal.open(proxy.dsn) as journal:
        async with admin.transaction():
            await admin.execute("update kfm.partitions set epoch = 2 where partition = 0")
            task = asyncio.create_task(journal.append(entry("a", 1)))
            await _blocked(owned)
            proxy.drop()
        with pytest.raises(Fenced):
            await task
        assert await journal.heads() == {}


async def _blocked(dsn: str) -> None:
    """Wait until the writer's backend waits for a lock."""
    looker = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(30):
            while not await looker.fetchval(  # noqa: ASYNC110 (the database tells nobody)
                "select count(*) from pg_stat_activity where application_name like 'kfm-writer%'"
                " and wait_event_type = 'Lock' and datname = current_database()"
            ):
                await asyncio.sleep(0)
    finally:
        await looker.close()


async def test_while_postgres_stays_away_entries_fail_but_one_that_was_sent_waits_for_the_truth(
    owned: str,
) -> None:
    async with Proxy.open(owned) as proxy, PostgresJournal.open(proxy.dsn, away_seconds=0.3) as journal:
        proxy.away = True
        proxy.cut_answer.set()
        sent = asyncio.create_task(journal.append(entry("sent", 1)))
        while not proxy.cuts:  # noqa: ASYNC110 (the proxy's counter)
            await asyncio.sleep(0)
        for n in range(2):
            with pytest.raises(JournalUnavailable):
                await journal.append(entry(f"turn_{n}", 1))
        assert not sent.done()
        proxy.away = False
        await sent
        await journal.append(entry("later", 1))
        assert [s.turn_id for s in await journal.read_partition(0, 0, 9)] == ["sent", "later"]


async def test_what_was_not_committed_when_postgres_comes_back_too_late_is_known_not_to_be(
    owned: str, admin: asyncpg.Connection
) -> None:
    async with Proxy.open(owned) as proxy, PostgresJournal.open(proxy.dsn, away_seconds=0.2) as journal:
        async with admin.transaction():
            await admin.execute("select from kfm.partitions where partition = 0 for update")
            sent = asyncio.create_task(journal.append(entry("sent", 1)))
            await _blocked(owned)
            await admin.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                " where application_name like 'kfm-writer%' and datname = current_database()"
            )
            proxy.away = True
            proxy.drop()
            with pytest.raises(JournalUnavailable):
                await journal.append(entry("a", 1))
            proxy.away = False
        with pytest.raises(JournalUnavailable):
            await sent
        assert await journal.heads() == {}


async def test_two_processes_that_share_partitions_and_keys_never_deadlock(owned: str) -> None:
    async with PostgresJournal.open(owned) as one, PostgresJournal.open(owned) as two:

        async def run(journal: PostgresJournal, name: str) -> None:
            for n in range(30):
                work = [
                    journal.append(
                        entry(f"{name}_{n}_{i}", 1, partition=i % 16, claim=claim(f"{name}{n}_{i}"))
                    )
                    for i in (range(32) if name == "x" else reversed(range(32)))
                ]
                await asyncio.gather(*work)

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(run(one, "x"))
            group.create_task(run(two, "y"))
        assert sum((await one.heads()).values()) == 2 * 30 * 32
        await _whole(one, 0, 0)


async def test_what_stands_behind_a_rejected_entry_of_its_turn_fails_with_it(owned: str) -> None:
    async with PostgresJournal.open(owned) as journal:
        await journal.append(entry("a", 1))
        results = await asyncio.gather(
            journal.append(entry("a", 1)),
            journal.append(entry("b", 1)),
            journal.append(entry("a", 2)),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [Rejected, type(None), Rejected]


@pytest.mark.parametrize("topic", ["nul \x00 byte", "half \ud800 pair"])
async def test_text_that_postgres_refuses_fails_only_its_entry(owned: str, topic: str) -> None:
    async with PostgresJournal.open(owned) as journal:
        bad = Entry(0, 1, (Record("bad", 1, topic, b""),))
        results = await asyncio.gather(
            journal.append(entry("a", 1)),
            journal.append(bad),
            journal.append(entry("b", 1)),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [type(None), Rejected, type(None)]


async def test_a_number_out_of_range_fails_only_its_entry(owned: str) -> None:
    async with PostgresJournal.open(owned) as journal:
        bad = Entry(0, 1, (Record("bad", 1 << 70, "topic", b""),))
        results = await asyncio.gather(
            journal.append(entry("a", 1)), journal.append(bad), return_exceptions=True
        )
        assert [type(result) for result in results] == [type(None), Rejected]


async def test_a_tools_writes_stand_or_fall_with_the_entry(owned: str, admin: asyncpg.Connection) -> None:
    await admin.execute("create table public.effects (n int primary key)")

    async def effects() -> list[int]:
        return [found[0] for found in await admin.fetch("select n from public.effects order by n")]

    async with PostgresJournal.open(owned) as journal:
        async with journal.transaction() as transaction:
            await transaction.connection.execute("insert into public.effects values (1)")
            await transaction.commit(entry("a", 1, turns=(row("a", "running"),)))
        with pytest.raises(Fenced):
            async with journal.transaction() as transaction:
                await transaction.connection.execute("insert into public.effects values (2)")
                await transaction.commit(entry("a", 2, epoch=9))
        with pytest.raises(RuntimeError, match="the tool failed"):
            async with journal.transaction() as transaction:
                await transaction.connection.execute("insert into public.effects values (3)")
                raise RuntimeError("the tool failed")
        async with journal.transaction() as transaction:
            await transaction.connection.execute("insert into public.effects values (4)")
        assert await effects() == [1]
        assert await journal.heads() == {0: 1}


@pytest.mark.requirement("R8", "FT4")
async def test_a_transaction_whose_connection_was_cut_is_lost_and_the_next_one_works(
    owned: str, admin: asyncpg.Connection
) -> None:
    async with PostgresJournal.open(owned) as journal:
        async with journal.transaction() as transaction:
            pid = await transaction.connection.fetchval("select pg_backend_pid()")
            await admin.execute("select pg_terminate_backend($1, 5000)", pid)
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
                await transaction.connection.execute("select 1")
            assert transaction.lost
        with pytest.raises(JournalUnavailable):
            async with journal.transaction() as transaction:
                pid = await transaction.connection.fetchval("select pg_backend_pid()")
                await admin.execute("select pg_terminate_backend($1, 5000)", pid)
                await transaction.commit(entry("a", 1))
        async with journal.transaction() as transaction:
            await transaction.commit(entry("a", 1))
        assert await journal.heads() == {0: 1}


async def test_a_dead_writer_is_reported_and_fails_what_waits(owned: str) -> None:
    died: list[BaseException] = []

    def fail(partitions: frozenset[int]) -> None:
        raise LookupError("a watcher with a bug")

    async with PostgresJournal.open(owned, on_failure=died.append) as journal:
        with journal.watch(fail):
            await journal.append(entry("a", 1))
            with pytest.raises(JournalUnavailable):
                await journal.append(entry("a", 2))
    assert isinstance(died[0], LookupError)


@pytest.mark.requirement("R8")
@pytest.mark.parametrize("heeds_cancel", [True, False])
async def test_what_is_read_behind_a_barrier_is_all_though_a_transaction_was_dropped_while_it_committed(
    owned: str, admin: asyncpg.Connection, heeds_cancel: bool
) -> None:
    """A partition is dropped and taken again in one process, under one epoch, while a TRANSACTIONAL step commits."""
    deaf = "exception when query_canceled then perform pg_advisory_lock(7);"
    await admin.execute(f"""
        create table public.slow (n int);
        create function public.wait() returns trigger language plpgsql as $$
        begin perform pg_advisory_lock(7); return null; {"" if heeds_cancel else deaf} return null; end $$;
        create constraint trigger waits after insert on public.slow deferrable initially deferred
            for each row execute function public.wait();
        select pg_advisory_lock(7);
    """)

    async def step(journal: PostgresJournal) -> None:
        async with journal.transaction() as transaction:
            await transaction.connection.execute("insert into public.slow values (1)")
            await transaction.commit(entry("a", 1))

    async def waiting(name: str, kind: str) -> bool:
        async with asyncio.timeout(30):
            while not await admin.fetchval(
                "select exists (select from pg_stat_activity where application_name like $1"
                " and datname = current_database() and wait_event = any ($2::text[]))",
                name,
                kind.split(),
            ):
                await a_moment()
        return True

    async with PostgresJournal.open(owned) as journal:
        committing = asyncio.create_task(step(journal))
        assert await waiting("kfm-journal%", "advisory")
        committing.cancel()
        barrier = asyncio.create_task(journal.append(Entry(0, 1)))
        if not heeds_cancel:
            assert await waiting("kfm-writer%", "transactionid tuple")
        await admin.execute("select pg_advisory_unlock(7)")
        await barrier
        behind = await journal.read_turn("a", 0, 9)
        await asyncio.wait((committing,), timeout=10)
        assert await journal.read_turn("a", 0, 9) == behind
        assert len(behind) == await admin.fetchval("select count(*) from public.slow")
        if not heeds_cancel:
            assert len(behind) == 1


@pytest.mark.requirement("R8", "R10")
async def test_the_clocks_of_processes_are_set_to_the_databases_at_the_start_and_at_each_renewal(
    database: str,
) -> None:
    hour_us = 3600 * 1_000_000

    class Late(SystemClock):
        """A machine that is an hour behind."""

        def now_us(self) -> int:
            """An hour ago."""
            return super().now_us() - hour_us

    right, wrong = SharedClock(), SharedClock(Late())
    async with (
        PostgresLeases.open(database, clock=right),
        PostgresLeases.open(database, clock=wrong) as leases,
    ):
        assert abs(right.now_us() - wrong.now_us()) < hour_us // 10

        async def astray() -> int:
            return 0

        await wrong.measure(astray)
        assert wrong.now_us() < hour_us
        await leases.renew("me")
        assert abs(right.now_us() - wrong.now_us()) < hour_us // 10


@pytest.mark.requirement("R8", "FT16")
async def test_transactions_have_places_of_their_own_and_take_none_from_the_readers(owned: str) -> None:
    async with (
        PostgresJournal.open(owned, readers=1, transactions=2) as journal,
        AsyncExitStack() as held,
        asyncio.timeout(30),
    ):
        for _ in range(2):
            await held.enter_async_context(journal.transaction())
        with pytest.raises(NoPlace):
            async with journal.transaction():
                pass
        assert await journal.turn("nobody") is None
        await held.aclose()
        async with journal.transaction() as transaction:
            await transaction.commit(entry("a", 1))
        assert await journal.heads() == {0: 1}
