"""What every store answers about sessions and what was said in them."""

from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from kfm.catalogue.errors import HistoryUnreadable
from kfm.event.v1 import turn_events_pb2 as ev
from kfm_server.journal.history import MemorySessionRows, PostgresSessionRows
from kfm_server.journal.postgres import PostgresJournal
from kfm_server.ports.history import SessionHistory
from kfm_server.ports.journal import Entry, Journal, Record
from kfm_server.runtime.conversation import Conversation

from tests.support.conversations import Script
from tests.support.journals import memory_store, postgres_store, row

pytestmark = pytest.mark.requirement("R2")


@pytest.fixture
async def journal(dsn: str) -> AsyncGenerator[Journal]:
    async with postgres_store(dsn) if dsn else memory_store() as store:
        await store.leases.acquire("me", "here", take_over=False, most=16)
        yield store.journal


@pytest.fixture
def history(journal: Journal) -> SessionHistory:
    rows = (
        PostgresSessionRows(journal.rows)
        if isinstance(journal, PostgresJournal)
        else MemorySessionRows(journal)
    )
    return Conversation(journal, rows)


@pytest.fixture
def script(journal: Journal) -> Script:
    return Script(journal)


async def _before(history: SessionHistory, turn_id: str, limit: int = 10) -> list[str]:
    return [e.turn_id for e in await history.before("default", "ses_a", turn_id, limit)]


async def test_a_turn_is_told_what_ended_before_it_began_oldest_first(
    script: Script, history: SessionHistory
) -> None:
    for id in ("turn_1", "turn_2", "turn_3"):
        await script.turn(id)
    await script.submit("turn_4")
    await script.start("turn_4")
    await script.submit("turn_5")
    await script.finish("turn_5", ev.OUTCOME_CANCELLED)  # while it was queued behind turn_4
    assert await _before(history, "turn_4") == ["turn_1", "turn_2", "turn_3"]
    assert await _before(history, "turn_4", limit=2) == ["turn_2", "turn_3"]
    assert await _before(history, "turn_4", limit=0) == []
    assert await _before(history, "turn_1") == []
    await script.finish("turn_4")
    await script.turn("turn_6")
    assert await _before(history, "turn_4") == ["turn_1", "turn_2", "turn_3"], "it never changes"


async def test_an_exchange_tells_what_was_said_and_how_it_ended(
    script: Script, history: SessionHistory
) -> None:
    await script.turn("turn_1")
    await script.submit("turn_2", "why?")
    await script.start("turn_2")
    await script.finish("turn_2", ev.OUTCOME_FAILED)
    well, badly = await history.before("default", "ses_a", "turn_unknown", 10)
    assert [p.text for p in well.input] == ["question of turn_1"]
    assert [p.text for p in well.output] == ["answer of turn_1"]
    assert (well.outcome, well.error) == (ev.OUTCOME_SUCCEEDED, None)
    assert (well.said_us, well.answered_us) == (2_000_000, 4_000_000)
    assert [p.text for p in badly.input] == ["why?"]
    assert (badly.output, badly.outcome) == ((), ev.OUTCOME_FAILED)
    assert badly.error is not None and badly.error.reason == "REASON_STEP_FAILED"


async def test_order_is_that_in_which_turns_ran_and_not_that_of_their_ids(
    script: Script, history: SessionHistory
) -> None:
    await script.submit("turn_1")
    await script.start("turn_1")
    await script.submit("turn_3")  # queued
    await script.submit("turn_2")  # interrupts: it runs before turn_3
    await script.finish("turn_1", ev.OUTCOME_CANCELLED)
    await script.start("turn_2")
    await script.finish("turn_2")
    await script.start("turn_3")
    assert await _before(history, "turn_3") == ["turn_1", "turn_2"]
    await script.finish("turn_3")
    await script.submit("turn_0")  # its id was made by a process whose clock is behind
    await script.start("turn_0")
    assert await _before(history, "turn_0") == ["turn_1", "turn_2", "turn_3"]
    assert await _before(history, "turn_2") == ["turn_1"]


async def test_dropped_turns_were_never_said(script: Script, history: SessionHistory) -> None:
    await script.turn("turn_1")
    await script.submit("turn_2")
    await script.start("turn_2")
    await script.submit("turn_3")
    await script.finish("turn_2", ev.OUTCOME_CANCELLED, dropped=True)
    await script.start("turn_3")
    assert await _before(history, "turn_3") == ["turn_1"]
    messages, _ = await history.messages("default", "ses_a", 0, 10)
    assert [m.turn_id for m in messages] == ["turn_1"]


async def test_a_fork_stands_in_the_place_of_its_parent_once_it_succeeded(
    script: Script, history: SessionHistory
) -> None:
    await script.turn("turn_1")
    await script.submit("turn_2")
    await script.start("turn_2")
    await script.finish("turn_2", ev.OUTCOME_FAILED)
    await script.turn("turn_3")
    await script.submit("turn_4", parent="turn_2")
    await script.start("turn_4")
    assert await _before(history, "turn_4") == ["turn_1"], "what turn_2 was told"
    await script.finish("turn_4", ev.OUTCOME_FAILED)
    await script.submit("turn_5", parent="turn_4")
    await script.start("turn_5")
    assert await _before(history, "turn_5") == ["turn_1"], "a fork of a fork as well"
    await script.finish("turn_5")
    await script.submit("turn_6")
    await script.start("turn_6")
    assert await _before(history, "turn_6") == ["turn_1", "turn_2", "turn_3", "turn_5"]
    assert await _before(history, "turn_3") == ["turn_1", "turn_2"]


async def test_a_long_session_is_read_to_the_asked_length_past_what_is_left_out(
    script: Script, history: SessionHistory
) -> None:
    await script.turn("turn_first")
    for n in range(60):
        await script.submit(f"turn_{n:03}")
        await script.start(f"turn_{n:03}")
        await script.finish(f"turn_{n:03}", dropped=True)
    await script.turn("turn_last")
    assert await _before(history, "turn_unknown") == ["turn_first", "turn_last"]


async def test_pages_of_messages_hold_each_turn_once(script: Script, history: SessionHistory) -> None:
    for n in range(7):
        await script.turn(f"turn_{n}")
    seen: list[str] = []
    after: int | None = 0
    while after is not None:
        page, after = await history.messages("default", "ses_a", after, 3)
        seen += [e.turn_id for e in page]
    assert seen == [f"turn_{n}" for n in range(7)]


async def test_a_turn_that_cannot_be_decoded_is_a_typed_error(
    script: Script, journal: Journal, history: SessionHistory
) -> None:
    await script.turn("turn_1")
    projection = row("turn_bad", "finished", session="ses_a", tenant="default")
    bad = tuple(Record("turn_bad", n, "agent.turns.events", b"\xff") for n in (1, 2))
    await journal.append(Entry(0, 1, bad, (projection,)))
    with pytest.raises(HistoryUnreadable, match="turn_bad"):
        await history.before("default", "ses_a", "turn_unknown", 10)


async def test_sessions_are_listed_by_their_latest_turn_each_once_to_their_tenant(
    journal: Journal, history: SessionHistory
) -> None:
    mine = {id: Script(journal, id, partition=n) for n, id in enumerate(("ses_a", "ses_b", "ses_c"))}
    order = ["ses_a", "ses_b", "ses_c", "ses_a", "ses_b", "ses_a"]
    for n, id in enumerate(order):
        await replace(mine[id], now_us=n * 10_000_000).turn(f"turn_{n}")
    await Script(journal, "ses_other", tenant_id="other", partition=3).turn("turn_9")
    page = await history.sessions("default", "", 2)
    assert [(s.session_id, s.turns, s.last_turn_id) for s in page] == [
        ("ses_a", 3, "turn_5"),
        ("ses_b", 2, "turn_4"),
    ]
    assert (page[0].created_us, page[0].updated_us) == (1_000_000, 51_000_000)
    rest = await history.sessions("default", page[-1].last_turn_id, 2)
    assert [s.session_id for s in rest] == ["ses_c"]
    assert await history.session("default", "ses_a") == page[0]
    assert await history.session("default", "ses_other") is None
    assert await history.session("default", "ses_none") is None
    assert (await history.messages("other", "ses_a", 0, 5)) == ([], None)
