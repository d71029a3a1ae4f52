"""A session that cannot be folded, or that breaks the engine: held, told of, and let go; the others flow on."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from kfm.event.v1 import envelope_pb2
from kfm.event.v1 import turn_events_pb2 as ev
from kfm_server.ids import partition_of
from xenocomm import Client, Outcome, TurnHandle, TurnState, errors
from xenocomm._gen.types import DeadLetter, WaitReason

from tests.support import forking
from tests.support.live import LiveServer, a_moment
from tests.support.plans import call, given, question, until, waits

pytestmark = pytest.mark.requirement("R6")
LIMIT = 30.0
PARTITIONS = 2


def undecodable(plan: bytes) -> bytes:
    """Bytes that are no event."""
    return b"\xff\xff no envelope"


def undecidable(plan: bytes) -> bytes:
    """A plan that can be folded, and in which a step follows one that is not there: to decide on it raises KeyError."""
    envelope = envelope_pb2.Envelope.FromString(plan)
    event = ev.PlanEvent.FromString(envelope.payload.value)
    event.steps[1].depends_on[:] = ["gone"]
    envelope.payload.value = event.SerializeToString()
    return envelope.SerializeToString()


class Site:
    """A server, its database, and two sessions of one partition; in the first a turn waits and one is queued."""

    def __init__(self, server: LiveServer, db: Any) -> None:
        self.server = server
        self.db = db
        names = (f"ses_held{n}" for n in range(1000))
        self.held, self.other = [s for s in names if partition_of(s, PARTITIONS) == 0][:2]
        self.bytes = b""

    def client(self) -> Client:
        """A client of the server as it runs now."""
        return Client(self.server.grpc, timeout=LIMIT)

    async def begin(self, kfm: Client) -> tuple[TurnHandle, TurnHandle]:
        """A turn that waits for an answer, with a step to follow, and a turn behind it."""
        plan = given(question("ask"), call("sum", "calculator", "ask", expression="1 + 1"))
        first = await kfm.turns.start(plan, session_id=self.held)
        await until(first, waits(WaitReason.HUMAN))
        return first, await kfm.turns.start("2 + 3", session_id=self.held)

    async def spoil(self, turn_id: str, change: Callable[[bytes], bytes] = undecodable) -> None:
        """Stop the server, change the turn's third event, its plan, and start the server again."""
        assert await asyncio.to_thread(self.server.stop) == 0
        where = "where turn_id = $1 and sequence = 3"
        self.bytes = await self.db.fetchval(f"select envelope from kfm.journal {where}", turn_id)
        await self.db.execute(f"update kfm.journal set envelope = $2 {where}", turn_id, change(self.bytes))
        await asyncio.to_thread(self.server.start)

    async def mend(self, turn_id: str) -> None:
        """Put the bytes back."""
        await self.db.execute(
            "update kfm.journal set envelope = $2 where turn_id = $1 and sequence = 3", turn_id, self.bytes
        )

    async def kfm(self, *words: str) -> Any:
        """Run the command line against the server; answers what it printed, as JSON."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KFM_")}
        done = await asyncio.to_thread(
            subprocess.run,
            [*forking.kfm(), *words, "-o", "json"],
            env=environment | {"KFM_ENDPOINT": self.server.grpc},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout) if done.stdout.strip() else None


async def engine_letters(kfm: Client) -> list[DeadLetter]:
    """The open letters of the owner's own group."""
    return [letter async for letter in kfm.dead_letters.list(group="engine")]


async def engine_letter(kfm: Client) -> DeadLetter:
    """The only one, once it is there."""
    async with asyncio.timeout(LIMIT):
        while not (letters := await engine_letters(kfm)):
            await a_moment()
    (letter,) = letters
    return letter


async def let_go(kfm: Client, session_id: str) -> TurnHandle:
    """Submit until the session takes it, bounded: a decision is acted upon a moment later."""
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                return await kfm.turns.start("4 + 4", session_id=session_id)
            except errors.HistoryUnreadable:
                await a_moment()


@pytest.fixture
async def site(empty_database: str, tmp_path: Path) -> AsyncIterator[Site]:
    server = LiveServer(
        tmp_path / "home", database_url=empty_database, environment={"KFM_PARTITIONS": str(PARTITIONS)}
    )
    await asyncio.to_thread(server.start)
    db: Any = await asyncpg.connect(empty_database)
    try:
        yield Site(server, db)
    finally:
        await asyncio.to_thread(server.stop)
        await db.close()


async def test_an_unreadable_session_is_held_and_the_rest_of_its_partition_flows(site: Site) -> None:
    async with site.client() as kfm:
        first, second = await site.begin(kfm)
    await site.spoil(first.id)
    async with site.client() as kfm:
        (letter,) = await engine_letters(kfm)
        assert (letter.session_id, letter.group) == (site.held, "engine")
        with pytest.raises(errors.HistoryUnreadable) as refused:
            await kfm.turns.start("1 + 1", session_id=site.held)
        assert refused.value.metadata["dead_letter_id"] == letter.dead_letter_id
        with pytest.raises(errors.HistoryUnreadable):
            await kfm.turns.attach(first.id).cancel()
        with pytest.raises(errors.HistoryUnreadable):
            await kfm.turns.attach(first.id).get()
        shown = await kfm.turns.attach(second.id).get()
        assert shown.state == TurnState.QUEUED
        listed = {t.turn_id: t.error.reason if t.error else "" async for t in kfm.turns.list()}
        assert listed[first.id] == "REASON_HISTORY_UNREADABLE"

        other = await kfm.turns.start("6 * 7", session_id=site.other)
        assert (await other.result(timeout=LIMIT)).outcome == Outcome.SUCCEEDED


async def test_a_replay_folds_again_and_the_session_goes_on_where_it_was(site: Site) -> None:
    async with site.client() as kfm:
        first, second = await site.begin(kfm)
    await site.spoil(first.id)
    async with site.client() as kfm:
        (letter,) = await engine_letters(kfm)
        await kfm.dead_letters.replay(letter.dead_letter_id)  # still bad: it comes back
        assert (await engine_letter(kfm)).dead_letter_id == letter.dead_letter_id
        with pytest.raises(errors.HistoryUnreadable):
            await kfm.turns.start("1 + 1", session_id=site.held)

        await site.mend(first.id)
        await kfm.dead_letters.replay(letter.dead_letter_id)
        third = await let_go(kfm, site.held)
        await kfm.turns.attach(first.id).answer("ask", '"yes"')
        for turn in (first, second, third):
            done = await kfm.turns.attach(turn.id).result(timeout=LIMIT)
            assert done.outcome == Outcome.SUCCEEDED
        assert await engine_letters(kfm) == []


async def test_a_drop_gives_the_turn_up_and_the_session_goes_on_without_it(site: Site) -> None:
    async with site.client() as kfm:
        first, second = await site.begin(kfm)
    await site.spoil(first.id)
    rows = await site.kfm("dlq", "list", "--group", "engine")
    (row,) = rows
    shown = await site.kfm("dlq", "show", row["dead_letter_id"])
    assert shown["session_id"] == site.held
    await site.kfm("dlq", "drop", "--yes", row["dead_letter_id"])
    async with site.client() as kfm:
        third = await let_go(kfm, site.held)
        for turn in (second, third):
            done = await kfm.turns.attach(turn.id).result(timeout=LIMIT)
            assert done.outcome == Outcome.SUCCEEDED
        last = await site.db.fetchrow(
            "select sequence, phase from kfm.journal join kfm.turns using (turn_id)"
            " where turn_id = $1 order by sequence desc limit 1",
            first.id,
        )
        assert last["phase"] == "finished"
    # A restart finds nothing to hold.
    assert await asyncio.to_thread(site.server.stop) == 0
    await asyncio.to_thread(site.server.start)
    async with site.client() as kfm:
        assert await engine_letters(kfm) == []
        assert (
            await (await kfm.turns.start("1 + 1", session_id=site.held)).result(timeout=LIMIT)
        ).outcome == (Outcome.SUCCEEDED)


@pytest.mark.parametrize("decision", ["drop", "replay"])
async def test_a_request_in_the_inbox_that_cannot_be_decoded_is_a_dead_letter_is_refused_and_is_gone(
    site: Site, decision: str
) -> None:
    column = "(partition, tenant_id, principal, rpc, key, digest, outcome, envelope)"
    await site.db.execute(
        f"insert into kfm.inbox {column} values (0, 'default', 'ann', 'SubmitTurn', 'k1', '', '', $1),"
        " (0, null, null, null, null, null, null, $1)",
        b"\xff\xff no request",
    )
    async with site.client() as kfm:
        async with asyncio.timeout(LIMIT):
            while await site.db.fetchval("select count(*) from kfm.inbox"):
                await a_moment()
        letters = [letter async for letter in kfm.dead_letters.list(group="inbox")]
        assert len(letters) == 2
        assert {letter.topic for letter in letters} == {"inbox"}
        refusal = await site.db.fetchval(
            "select outcome from kfm.requests where rpc = 'inbox' and principal = 'ann'"
        )
        assert b"REASON_EVENT_UNDECODABLE" in refusal
        for letter in letters:
            said = ["--yes"] if decision == "drop" else []
            await site.kfm("dlq", decision, letter.dead_letter_id, *said)
        assert [letter async for letter in kfm.dead_letters.list(group="inbox")] == []
        other = await kfm.turns.start("6 * 7", session_id=site.other)
        assert (await other.result(timeout=LIMIT)).outcome == Outcome.SUCCEEDED


async def test_a_request_through_another_process_is_refused_as_well(
    site: Site, tmp_path: Path, empty_database: str
) -> None:
    async with site.client() as kfm:
        first, _ = await site.begin(kfm)
    await site.spoil(first.id)
    second = LiveServer(
        tmp_path / "second", database_url=empty_database, environment={"KFM_PARTITIONS": str(PARTITIONS)}
    )
    await asyncio.to_thread(second.start)
    try:
        async with site.client() as kfm, Client(second.grpc, timeout=LIMIT) as elsewhere:
            (letter,) = await engine_letters(kfm)
            for _ in range(2):
                with pytest.raises(errors.HistoryUnreadable, match=letter.dead_letter_id):
                    await elsewhere.turns.start("1 + 1", session_id=site.held, idempotency_key="same")
            other = await elsewhere.turns.start("6 * 7", session_id=site.other)
            assert (await other.result(timeout=LIMIT)).outcome == Outcome.SUCCEEDED
            assert await site.db.fetchval("select count(*) from kfm.inbox") == 0
    finally:
        await asyncio.to_thread(second.stop)


async def test_a_session_at_which_the_engine_fails_is_held_after_a_few_tries_and_a_replay_tries_again(
    site: Site,
) -> None:
    async with site.client() as kfm:
        first, second = await site.begin(kfm)
    await site.spoil(first.id, undecidable)
    async with site.client() as kfm:
        letter = await engine_letter(kfm)
        assert letter.session_id == site.held
        assert letter.error is not None and letter.error.reason == "REASON_INTERNAL"
        with pytest.raises(errors.HistoryUnreadable, match=letter.dead_letter_id):
            await kfm.turns.start("1 + 1", session_id=site.held)
        other = await kfm.turns.start("6 * 7", session_id=site.other)
        assert (await other.result(timeout=LIMIT)).outcome == Outcome.SUCCEEDED

        await kfm.dead_letters.replay(letter.dead_letter_id)  # still bad: it comes back
        assert (await engine_letter(kfm)).dead_letter_id == letter.dead_letter_id
        await site.mend(first.id)
        await kfm.dead_letters.replay(letter.dead_letter_id)
        third = await let_go(kfm, site.held)
        await kfm.turns.attach(first.id).answer("ask", '"yes"')
        for turn in (first, second, third):
            done = await kfm.turns.attach(turn.id).result(timeout=LIMIT)
            assert done.outcome == Outcome.SUCCEEDED
        assert await engine_letters(kfm) == []


async def test_a_drop_ends_the_turn_at_which_the_engine_fails(site: Site) -> None:
    async with site.client() as kfm:
        first, second = await site.begin(kfm)
    await site.spoil(first.id, undecidable)
    async with site.client() as kfm:
        letter = await engine_letter(kfm)
        await site.kfm("dlq", "drop", "--yes", letter.dead_letter_id)
        done = await kfm.turns.attach(second.id).result(timeout=LIMIT)
        assert done.outcome == Outcome.SUCCEEDED
        given_up = await kfm.turns.attach(first.id).get()
        assert given_up.outcome == Outcome.FAILED
        assert given_up.error is not None and given_up.error.reason == "REASON_INTERNAL"
        assert await engine_letters(kfm) == []
