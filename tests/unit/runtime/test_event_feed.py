"""Subscriptions across turns, over a journal in memory whose reads can be watched."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest
from kfm.catalogue.errors import InvalidArgument, PageTokenInvalid, Unavailable
from kfm.event.v1 import event_service_pb2 as rpc
from kfm_server.clock import SystemClock
from kfm_server.context import ExecutionContext
from kfm_server.ids import partition_of
from kfm_server.journal.memory import MemoryJournal
from kfm_server.ports.journal import Entry, JournalUnavailable, Record, Stored
from kfm_server.runtime.event_feed import Batch, EventFeed, Wanted
from kfm_server.runtime.event_tail import KEPT_BYTES, PAGE, EventTail

from tests.support.conversations import Script

pytestmark = pytest.mark.requirement("R11")
LIMIT = 10.0
CTX = ExecutionContext()
BEGINNING: rpc.Start = rpc.START_BEGINNING


class CountingJournal(MemoryJournal):
    """Counts the reads of partitions; `away` makes them fail."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs = dict.fromkeys(range(self.partitions), 1)
        self.reads = 0
        self.away = False

    async def read_partition(self, partition: int, after: int, limit: int) -> Sequence[Stored]:
        self.reads += 1
        if self.away:
            raise JournalUnavailable("away")
        return await super().read_partition(partition, after, limit)


class Site:
    """A feed at work over a journal."""

    def __init__(self) -> None:
        self.journal = CountingJournal()
        self.tail = EventTail(self.journal, SystemClock(), poll=0.02, linger=0.0)
        self.feed = EventFeed(self.journal, self.tail, SystemClock(), 16)

    def script(self, session_id: str = "ses_a", tenant_id: str = "default") -> Script:
        return Script(self.journal, session_id, tenant_id, partition_of(session_id, 16))

    @asynccontextmanager
    async def watch(
        self, wanted: Wanted | None = None, cursor: str = "", start: rpc.Start = rpc.START_NOW
    ) -> AsyncGenerator["Watch"]:
        async with aclosing(self.feed.watch(CTX, wanted or Wanted(), cursor, start)) as batches:
            watch = Watch(batches)
            events, watch.cursor = await watch.next()
            assert not events, "the first batch only tells where the subscription begins"
            yield watch


class Watch:
    """Takes batches."""

    def __init__(self, batches: AsyncGenerator[Batch]) -> None:
        self._batches = batches
        self.cursor = ""

    async def next(self) -> Batch:
        async with asyncio.timeout(LIMIT):
            batch = await anext(self._batches)
        self.cursor = batch[1]
        return batch

    async def take(self, count: int) -> list[str]:
        """The ids of so many events."""
        ids: list[str] = []
        while len(ids) < count:
            ids += [event.event_id for event in (await self.next())[0]]
        return ids


@pytest.fixture
async def site() -> AsyncGenerator[Site]:
    site = Site()
    running = asyncio.create_task(site.tail.run())
    with site.journal.watch(site.tail.hint):
        yield site
    running.cancel()
    await asyncio.wait((running,))


def _ids(turn_id: str, last: int = 3) -> list[str]:
    return [f"{turn_id}.{n}" for n in range(1, last + 1)]


async def test_now_is_after_what_was_there_and_the_beginning_is_before(site: Site) -> None:
    await site.script().turn("turn_1")
    async with site.watch() as now, site.watch(start=BEGINNING) as all_of_it:
        await site.script("ses_b").turn("turn_2")
        assert await now.take(3) == _ids("turn_2")
        assert sorted(await all_of_it.take(6)) == _ids("turn_1") + _ids("turn_2")


async def test_filters_all_have_to_fit(site: Site) -> None:
    a, b = site.script("ses_a"), site.script("ses_b")
    async with (
        site.watch(Wanted(types=frozenset({"TurnEvent.v1"}))) as typed,
        site.watch(Wanted(session_id="ses_b")) as of_session,
        site.watch(Wanted(labels={"team": "x", "env": "p"})) as labelled,
        site.watch(Wanted(frozenset({"TurnEvent.v1"}), "ses_b", {"team": "x"})) as strict,
    ):
        await a.submit("turn_1", labels={"team": "x", "env": "p", "more": "1"})
        await b.submit("turn_2", labels={"team": "x"})
        await a.start("turn_1")
        await b.start("turn_2")
        await a.submit("turn_3")
        assert sorted(await typed.take(3)) == ["turn_1.1", "turn_2.1", "turn_3.1"]
        assert await of_session.take(2) == ["turn_2.1", "turn_2.2"]
        assert await labelled.take(2) == ["turn_1.1", "turn_1.2"]
        assert await strict.take(1) == ["turn_2.1"]


async def test_labels_of_a_turn_that_began_before_the_subscription_are_known(site: Site) -> None:
    script = site.script()
    await script.submit("turn_1", labels={"team": "x"})
    async with site.watch(Wanted(labels={"team": "x"})) as watch:
        await script.start("turn_1")
        assert await watch.take(1) == ["turn_1.2"]


async def test_another_tenants_events_are_never_told(site: Site) -> None:
    async with site.watch(start=BEGINNING) as watch:
        await site.script("ses_other", "other").turn("turn_9")
        await site.script("ses_a").turn("turn_1")
        assert await watch.take(3) == _ids("turn_1")


async def test_any_cursor_resumes_without_loss_and_without_a_repeat(site: Site) -> None:
    scripts = [site.script(f"ses_{n}") for n in range(5)]
    for n in range(400):
        await scripts[n % 5].turn(f"turn_{n:03}")
    seen: list[str] = []
    cursor = ""
    while len(seen) < 1200:  # a new subscription after each batch
        async with site.watch(cursor=cursor, start=BEGINNING) as watch:
            seen += [event.event_id for event in (await watch.next())[0]]
            cursor = watch.cursor
    assert len(set(seen)) == 1200
    for n in range(5):
        mine = [id for id in seen if int(id[5:8]) % 5 == n]
        assert mine == sorted(mine), "each session in order"


async def test_a_filter_that_nothing_fits_moves_on_all_the_same(site: Site) -> None:
    script = site.script("ses_b")
    for n in range(700):
        await script.turn(f"turn_{n}")
    nothing = Wanted(types=frozenset({"PlanEvent.v1"}))
    async with site.watch(nothing, start=BEGINNING) as watch:
        events, cursor = await watch.next()
        assert not events
    async with site.watch(nothing, cursor=cursor) as watch, site.watch() as now:
        before = site.journal.reads
        assert watch.cursor == cursor != now.cursor
        assert site.journal.reads == before


async def test_a_slow_reader_makes_the_journal_read_no_faster_than_it_takes(site: Site) -> None:
    script = site.script()
    for n in range(2000):
        await script.turn(f"turn_{n}")
    async with site.watch(start=BEGINNING) as watch:
        await watch.next()
        assert site.journal.reads <= 2
        for _ in range(4):
            await watch.next()
        assert site.journal.reads <= 8


async def test_a_reader_that_is_further_behind_than_what_is_kept_misses_nothing(site: Site) -> None:
    script = site.script()
    large = "x" * (KEPT_BYTES // 20)
    async with site.watch() as watch:
        for n in range(60):  # three times what is kept
            await script.submit(f"turn_{n:02}", large)
        assert await watch.take(60) == [f"turn_{n:02}.1" for n in range(60)]


async def test_watchers_share_the_reads_of_what_is_new(site: Site) -> None:
    script = site.script()
    async with asyncio.TaskGroup() as group:
        watches = [site.watch() for _ in range(200)]
        open_ = [await watch.__aenter__() for watch in watches]
        before = site.journal.reads
        taking = [group.create_task(watch.take(30)) for watch in open_]
        for n in range(10):
            await script.turn(f"turn_{n}")
        expected = [id for n in range(10) for id in _ids(f"turn_{n}")]
        for task in taking:
            assert await task == expected
        assert site.journal.reads - before < 60, "and not two hundred times thirty"
        for watch in watches:
            await watch.__aexit__(None, None, None)


async def test_events_of_another_process_come_without_a_hint(site: Site) -> None:
    tail = EventTail(site.journal, SystemClock(), poll=0.01, linger=0.0)
    feed = EventFeed(site.journal, tail, SystemClock(), 16)
    running = asyncio.create_task(tail.run())
    async with aclosing(feed.watch(CTX, Wanted(), "", rpc.START_NOW)) as batches:
        watch = Watch(batches)
        await watch.next()
        await site.script().turn("turn_1")
        assert await watch.take(3) == _ids("turn_1")
    running.cancel()
    await asyncio.wait((running,))


async def test_nobody_watching_means_nothing_is_read(site: Site) -> None:
    async with site.watch() as watch:
        await site.script().turn("turn_1")
        await watch.take(3)
    before = site.journal.reads
    await site.script().turn("turn_2")
    async with site.watch(start=BEGINNING) as watch:
        assert len(await watch.take(6)) == 6
    assert site.journal.reads - before <= 2


async def test_what_cannot_be_decoded_is_passed_over(site: Site) -> None:
    await site.journal.append(Entry(3, 1, (Record("turn_bad", 1, "agent.turns.events", b"\xff"),)))
    script = Script(site.journal, "ses_a", partition=3)
    await script.turn("turn_1")
    async with site.watch(start=BEGINNING) as watch:
        assert await watch.take(3) == _ids("turn_1")


async def test_an_unknown_type_is_refused_by_name_with_those_that_are_known(site: Site) -> None:
    with pytest.raises(InvalidArgument, match=r"no event type Turn\.v1; there are .*TurnEvent\.v1") as caught:
        async with site.watch(Wanted(types=frozenset({"Turn.v1"}))):
            pass
    assert caught.value.violations[0].field == "types"


async def test_cursors_that_cannot_be_meant_are_refused(site: Site) -> None:
    await site.script("ses_a").turn("turn_1")
    async with site.watch() as everything, site.watch(Wanted(session_id="ses_a")) as one:
        pass
    assert partition_of("ses_a", 16) != partition_of("ses_b", 16)
    async with site.watch(Wanted(session_id="ses_b"), cursor=everything.cursor):
        pass
    for wanted, cursor in (
        (Wanted(), "nonsense"),
        (Wanted(), one.cursor),
        (Wanted(session_id="ses_b"), one.cursor),
    ):
        with pytest.raises(PageTokenInvalid):
            async with site.watch(wanted, cursor=cursor):
                pass
    site = Site()  # another database, in which less happened
    with pytest.raises(PageTokenInvalid, match="beyond the last event"):
        async with site.watch(cursor=everything.cursor):
            pass


async def test_a_journal_that_is_away_ends_those_who_must_read_it_and_not_those_who_wait(site: Site) -> None:
    for n in range(PAGE):
        await site.script().turn(f"turn_{n}")
    async with site.watch(start=BEGINNING) as behind, site.watch() as waiting:
        site.journal.away = True
        with pytest.raises(Unavailable):
            await behind.take(3 * PAGE)
        site.journal.away = False
        await site.script("ses_b").turn("turn_after")
        assert await waiting.take(3) == _ids("turn_after")
