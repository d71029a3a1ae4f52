"""Two servers on one database: takeover of a frozen owner, and requests through a process that is not the owner."""

import asyncio
import signal
from pathlib import Path

import pytest
from xenocomm import Client
from xenocomm._gen.types import Outcome, Part, TurnState

from tests.faults.auditor import audit
from tests.faults.work import Watched, plan, run_and_watch
from tests.support.ledger import read_ledger
from tests.support.live import LiveServer

pytestmark = pytest.mark.requirement("R8", "R10")


def pair(tmp_path: Path, database: str) -> tuple[LiveServer, LiveServer, Path]:
    """Two servers, each with a home of its own, on one database."""
    ledger = tmp_path / "ledger.jsonl"
    environment = {"LEDGER_FILE": str(ledger)}

    def server(name: str) -> LiveServer:
        return LiveServer(
            tmp_path / name,
            tools="tests.support.ledger:TOOLS",
            database_url=database,
            environment=environment,
        )

    return server("first"), server("second"), ledger


async def test_a_frozen_owner_that_wakes_after_a_takeover_starts_no_second_effect(
    tmp_path: Path, database: str
) -> None:
    first, second, ledger = pair(tmp_path, database)
    gate = tmp_path / "gate"
    watched = Watched()
    try:
        await asyncio.to_thread(first.start)
        # s1 holds until the gate opens; the owner is frozen while s2, AT_MOST_ONCE, is still to come.
        message = plan("ledger_idempotent", "ledger_once", hold=str(gate))
        async with Client(first.grpc) as kfm:
            handle = await kfm.turns.start([Part(data_json=message)], idempotency_key="frozen")
        assert first.process is not None
        first.process.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(second.start)
        gate.touch()
        following = asyncio.create_task(
            run_and_watch(second.grpc, "frozen", message, watched), name="watcher"
        )
        turn = await following
        first.process.send_signal(signal.SIGCONT)
        async with Client(first.grpc) as kfm:  # it serves again, and knows that it owns nothing
            again = await kfm.turns.get(handle.id)
    finally:
        if first.process is not None:
            first.process.send_signal(signal.SIGCONT)
        await asyncio.to_thread(first.stop)
        await asyncio.to_thread(second.stop)
    assert turn.turn_id == handle.id == again.turn_id
    assert turn.state == TurnState.FINISHED and turn.outcome == Outcome.SUCCEEDED, turn
    effects = [call["key"] for call in read_ledger(ledger) if call["effect"]]
    assert len(effects) == len(set(effects)) == 2
    await audit(database, ledger, {watched.turn_id: watched.sequences})


async def test_a_request_through_a_process_that_is_not_the_owner_reaches_the_owner(
    tmp_path: Path, database: str
) -> None:
    first, second, ledger = pair(tmp_path, database)
    watched = Watched()
    try:
        await asyncio.to_thread(first.start)
        await asyncio.to_thread(second.start)
        turn = await run_and_watch(second.grpc, "elsewhere", plan("ledger_pure", "ledger_once"), watched)
    finally:
        await asyncio.to_thread(second.stop)
        await asyncio.to_thread(first.stop)
    assert turn.outcome == Outcome.SUCCEEDED
    await audit(database, ledger, {watched.turn_id: watched.sequences})


@pytest.mark.parametrize("failpoint", ["inbox.post.after"])
async def test_a_request_accepted_by_a_process_that_dies_runs_once(
    failpoint: str, tmp_path: Path, database: str
) -> None:
    first, second, ledger = pair(tmp_path, database)
    watched = Watched()
    try:
        await asyncio.to_thread(first.start)
        await asyncio.to_thread(second.start, failpoint=failpoint)
        following = asyncio.create_task(
            run_and_watch(second.grpc, "accepted", plan("ledger_once"), watched), name="watcher"
        )
        assert await asyncio.to_thread(second.await_death, 15.0), f"{failpoint} was never hit"
        await asyncio.to_thread(second.start)
        turn = await following
    finally:
        await asyncio.to_thread(second.stop)
        await asyncio.to_thread(first.stop)
    assert turn.outcome == Outcome.SUCCEEDED
    assert list(await audit(database, ledger, {watched.turn_id: watched.sequences})) == [turn.turn_id]
