"""What leaves the journal when its time is over, and what never does. A turn's time is over at the second sweep."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from kfm.catalogue.errors import SessionBusy
from kfm.catalogue.events import fill
from kfm.event.v1.turn_events_pb2 import TurnEvent
from kfm.type.v1.type_pb2 import Error
from kfm_server.bus.letters import make_letter
from kfm_server.bus.postgres import PostgresBusStore
from kfm_server.journal.leases import PostgresLeases
from kfm_server.journal.postgres import PostgresJournal
from kfm_server.journal.retention import Retention
from kfm_server.ports.journal import Entry, Record
from kfm_server.runtime.facts import Accepted, refusal

from tests.support.bus import sealed
from tests.support.journals import claim, row

pytestmark = pytest.mark.requirement("D2")
FAR = 1_000_000


@dataclass
class Site:
    """A journal with one consumer group, and its retention."""

    journal: PostgresJournal
    bus: PostgresBusStore
    retention: Retention
    db: Any

    async def turn(
        self,
        id: str,
        *,
        session: str = "ses_1",
        parent: str = "",
        phase: str = "finished",
        partition: int = 0,
    ) -> None:
        """A turn of three events, with the request row that made it."""
        first = sealed(id, 1, session)
        fill(first, TurnEvent(principal="ann", parent_turn_id=parent))
        bodies = [first, sealed(id, 2, session), sealed(id, 3, session)]
        records = tuple(
            Record(id, n, "agent.turns.requests", body.SerializeToString())
            for n, body in enumerate(bodies, 1)
        )
        outcome = Accepted(id, session).encode()
        projection = row(id, phase, partition, session=session)
        await self.journal.append(Entry(partition, 1, records, (projection,), claim(id, outcome=outcome)))

    async def read_up_to(self, offset: int, partition: int = 0) -> None:
        """The group has read so far."""
        await self.bus.open("g", partition, 1)
        await self.bus.commit("g", partition, 1, offset)

    async def sweep(self) -> set[str]:
        """Let the time of all that stands pass, and sweep; answers the turns that are left."""
        await self.retention.sweep()
        await self.retention.sweep()
        left = {
            r[0] for r in await self.db.fetch("select distinct turn_id from kfm.journal where turn_id <> ''")
        }
        assert left == {r[0] for r in await self.db.fetch("select turn_id from kfm.turns")}
        return left

    async def keys(self) -> set[str]:
        """The idempotency keys that are kept."""
        return {r[0] for r in await self.db.fetch("select key from kfm.requests")}


@pytest.fixture
async def site(database: str) -> AsyncGenerator[Site]:
    db: Any = await asyncpg.connect(database)
    async with (
        PostgresLeases.open(database) as leases,
        PostgresJournal.open(database) as journal,
        PostgresBusStore.open_pool(database) as bus,
        Retention.open(database, timedelta(), lambda: range(16)) as retention,
    ):
        await leases.acquire("me", "", take_over=True, most=16)
        yield Site(journal, bus, retention, db)
    await db.close()


async def test_a_turn_goes_whole_with_its_request_row_and_the_last_row_stays(site: Site) -> None:
    for n in range(1, 4):
        await site.turn(f"turn_{n}")
    await site.journal.append(Entry(0, 1, (Record("", 0, "agent.system", b"alone"),)))
    await site.turn("turn_4")
    await site.read_up_to(FAR)
    assert await site.sweep() == {"turn_4"}
    assert await site.keys() == {"turn_4"}
    assert [s.offset for s in await site.journal.read_partition(0, 0, 99)] == [11, 12, 13]
    await site.turn("turn_5")
    assert await site.sweep() == {"turn_5"}
    assert (await site.journal.heads())[0] == 16


async def test_what_is_younger_than_the_time_stays(site: Site, database: str) -> None:
    await site.turn("turn_1")
    await site.turn("turn_2")
    await site.read_up_to(FAR)
    async with Retention.open(database, timedelta(days=1), lambda: range(16)) as retention:
        assert await retention.sweep() + await retention.sweep() == 0
    await site.db.execute("update kfm.marks set at = at - interval '25 hours'")
    await site.turn("turn_3")
    async with Retention.open(database, timedelta(days=1), lambda: range(16)) as retention:
        assert await retention.sweep() == 2
    assert await site.journal.turn("turn_1") is None
    assert await site.keys() == {"turn_3"}


async def test_a_request_row_that_names_no_turn_goes_by_its_own_age(site: Site, database: str) -> None:
    await site.turn("turn_1")
    for key in ("old", "young"):
        outcome = refusal(claim(key), 1, SessionBusy()).outcome
        await site.journal.append(Entry(0, 1, claim=claim(key, outcome=outcome)))
    await site.db.execute(
        "update kfm.requests set claimed_at = claimed_at - interval '25 hours' where key <> 'young'"
    )
    async with Retention.open(database, timedelta(days=1), lambda: range(16)) as retention:
        await retention.sweep()
    assert await site.keys() == {"turn_1", "young"}


async def test_a_long_session_is_read_once_and_goes_in_short_transactions(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kfm_server.journal.retention._PAGE", 4)
    monkeypatch.setattr("kfm_server.journal.retention._TURNS_AT_ONCE", 1)
    monkeypatch.setattr("kfm_server.journal.retention._FIRST_EVENTS_AT_ONCE", 2)
    for n in range(1, 10):
        await site.turn(f"turn_{n}", parent="turn_3" if n == 9 else "")
    await site.turn("turn_x", session="ses_2")
    await site.read_up_to(FAR)
    # The parent of a fork that ended later goes with the sweep after the fork's.
    assert await site.sweep() | {"turn_3"} == {"turn_3", "turn_x"}
    assert await site.sweep() == {"turn_x"}
    assert await site.keys() == {"turn_x"}


async def test_what_has_not_finished_stays_whole(site: Site) -> None:
    await site.turn("turn_1", phase="waiting")
    await site.turn("turn_2")
    await site.turn("turn_3")
    await site.read_up_to(FAR)
    assert await site.sweep() == {"turn_1", "turn_3"}
    assert len(await site.journal.read_turn("turn_1", 0, 9)) == 3
    assert await site.keys() == {"turn_1", "turn_3"}


@pytest.mark.parametrize(("read", "left"), [(5, {"turn_2", "turn_3"}), (0, {"turn_1", "turn_2", "turn_3"})])
async def test_what_the_slowest_group_has_not_read_stays(site: Site, read: int, left: set[str]) -> None:
    for n in range(1, 4):
        await site.turn(f"turn_{n}")
    await site.bus.open("fast", 0, 1)
    await site.bus.commit("fast", 0, 1, FAR)
    await site.read_up_to(read)
    assert await site.sweep() == left


async def test_without_any_group_nothing_goes(site: Site) -> None:
    await site.turn("turn_1")
    await site.turn("turn_2")
    assert await site.sweep() == {"turn_1", "turn_2"}


async def test_what_a_hold_parks_stays_also_one_of_the_owner_itself(site: Site) -> None:
    for n in range(1, 4):
        await site.turn(f"turn_{n}")
    await site.read_up_to(FAR)
    (bad,) = await site.journal.read_turn("turn_2", 1, 1)
    letter = make_letter(
        "engine",
        bad,
        tenant_id="tenant",
        session_id="ses_1",
        key="ses_1",
        error=Error(),
        deliveries=1,
        now_us=1,
    )
    await site.bus.open("engine", 0, 1)
    await site.bus.bury(letter, 1, 0)
    assert await site.sweep() == {"turn_2", "turn_3"}
    await site.bus.settle(replace(claim("k"), outcome=b""), letter.id, drop=True)
    await site.bus.lift("engine", 0, 1, "ses_1")
    assert await site.sweep() == {"turn_3"}


async def test_a_parent_stays_while_a_fork_of_it_does(site: Site) -> None:
    await site.turn("turn_1")
    await site.turn("turn_2", parent="turn_1")
    await site.turn("turn_3", parent="turn_2", phase="running")
    await site.turn("turn_4")
    await site.turn("turn_5", session="ses_2")
    await site.read_up_to(FAR)
    assert await site.sweep() == {"turn_1", "turn_2", "turn_3", "turn_5"}


async def test_nothing_of_a_session_goes_while_it_cannot_be_told_whose_forks_its_turns_are(
    site: Site,
) -> None:
    await site.turn("turn_1")
    await site.turn("turn_2", phase="waiting")
    await site.turn("turn_3", session="ses_2")
    await site.turn("turn_4", session="ses_2")
    await site.read_up_to(FAR)
    await site.db.execute(
        "update kfm.journal set envelope = '\\xffff' where turn_id = 'turn_2' and sequence = 1"
    )
    assert await site.sweep() == {"turn_1", "turn_2", "turn_4"}
