"""FT21: SIGTERM with sixty-four turns running."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from kfm_server.journal import embedded
from xenocomm import Client, Outcome, Part, TurnHandle, errors
from xenocomm._gen.types import Turn

from tests.faults.auditor import audit
from tests.faults.conftest import Report
from tests.support.live import LiveServer
from tests.support.live_worker import LiveWorker
from tests.support.plans import Gate, call, given, started, until

TURNS = 64
DRAIN_SECONDS = 2


def steps(number: int, soon: Gate, late: Gate) -> list[dict[str, Any]]:
    """Two steps, one after the other; every fourth first one outlives the drain."""
    tool = ("ledger_idempotent", "ledger_once", "ledger_compensatable", "ledger_idempotent")[number % 4]
    held = soon if number % 4 else late
    return [call("s1", tool, hold=held.hold), call("s2", "ledger_once", "s1", hold=late.hold)]


async def draining(server: LiveServer, message: list[str | Part], key: str) -> None:
    """Return once the server refuses, as Draining, what it would have answered from a used key before."""
    async with asyncio.timeout(10), Client(server.grpc, timeout=0.2) as hasty:
        while True:
            try:
                await hasty.turns.start(message, idempotency_key=key)
            except errors.XenocommError as refused:
                cause: BaseException | None = refused
                while cause is not None and not isinstance(cause, errors.Draining):
                    cause = cause.__cause__
                assert cause is not None, repr(refused)
                return


@pytest.mark.requirement("R8", "E1", "FT21", "I1", "I2", "I3", "I4", "I7")
async def test_a_stop_with_sixty_four_turns_running_fails_none_and_starts_nothing_new(
    tmp_path: Path, report: Report
) -> None:
    """Three in four first steps end while the server drains; the others outlive its patience and are IDEMPOTENT.

    Every second step may start but once and is held until after the restart: one that was started in the drain
    would be cut, and its turn could not go on without a person.
    """
    ledger = tmp_path / "ledger.jsonl"
    server = LiveServer(
        tmp_path / "home",
        tools="tests.support.ledger:TOOLS",
        environment={"LEDGER_FILE": str(ledger), "KFM_DRAIN_SECONDS": str(DRAIN_SECONDS)},
    )
    soon, late = Gate(tmp_path / "soon"), Gate(tmp_path / "late")
    seen: dict[str, list[int]] = {}

    async def run(kfm: Client, handle: TurnHandle) -> Turn:
        seen[handle.id] = [e.sequence async for e in handle.events(timeout=60)]
        return await handle.result(check=False)

    try:
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(90), Client(server.grpc, timeout=30) as kfm:
            messages = [given(*steps(number, soon, late)) for number in range(TURNS)]
            handles = [
                await kfm.turns.start(message, idempotency_key=f"k{number}")
                for number, message in enumerate(messages)
            ]
            await asyncio.gather(*(until(handle, started("s1")) for handle in handles))
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(run(kfm, h), name=h.id) for h in handles]
                assert server.process is not None
                server.process.send_signal(signal.SIGTERM)
                asked = time.monotonic()
                await draining(server, messages[0], "k0")
                soon.open()
                assert await asyncio.to_thread(server.await_death, 20.0), "it did not end"
                stopped = time.monotonic()
                assert server.process.returncode == 0, server.log_tail()
                late.open()
                await asyncio.to_thread(server.start)
                restarted = time.monotonic()
            recovered = time.monotonic()
        turns = [task.result() for task in running]
    finally:
        code = await asyncio.to_thread(server.stop)
    assert code == 0, server.log_tail()
    assert [(t.state, t.outcome, t.error) for t in turns if t.outcome != Outcome.SUCCEEDED] == []
    for number, turn in enumerate(turns):
        first, second = turn.steps
        assert len(first.attempts) == (2 if number % 4 == 0 else 1), turn
        assert len(second.attempts) == 1, turn
    postgres = await embedded.start(server.home)
    try:
        assert set(await audit(postgres.dsn, ledger, seen)) == {h.id for h in handles}
    finally:
        await postgres.stop()
    report(drain_s=round(stopped - asked, 2), recovery_s=round(recovered - restarted, 2))


@pytest.mark.requirement("R8", "R10", "FT21", "I1", "I2", "I3", "I4", "I7")
async def test_a_stop_with_sixty_four_turns_running_on_a_pool_cuts_none_of_their_steps(
    tmp_path: Path, report: Report
) -> None:
    """Every first step is with a worker, may start but once, and ends after the restart: the worker goes on with it."""
    ledger, gate = tmp_path / "ledger.jsonl", Gate(tmp_path / "gate")
    server = LiveServer(
        tmp_path / "home",
        tools="tests.support.ledger:TOOLS",
        environment={"LEDGER_FILE": str(ledger), "KFM_DRAIN_SECONDS": str(DRAIN_SECONDS)},
    )
    plan = given(call("s1", "pool_once", hold=gate.hold), call("s2", "ledger_once", "s1"))
    seen: dict[str, list[int]] = {}
    worker: LiveWorker | None = None

    async def run(handle: TurnHandle) -> Turn:
        seen[handle.id] = [e.sequence async for e in handle.events(timeout=60)]
        return await handle.result(check=False)

    try:
        await asyncio.to_thread(server.start)
        worker = LiveWorker(
            tmp_path,
            server.grpc,
            "w1",
            tools="tests.faults.matrix.pool_tools:TOOLS",
            options=("--capacity", str(TURNS)),
            environment={"LEDGER_FILE": str(tmp_path / "pool.jsonl")},
        ).start()
        async with asyncio.timeout(90), Client(server.grpc, timeout=30) as kfm:
            while not (await kfm.server.workers("gpu")).workers:  # noqa: ASYNC110 (another process)
                await asyncio.sleep(0.02)
            async with asyncio.TaskGroup() as group:
                handles = [
                    await kfm.turns.start(plan, idempotency_key=f"k{number}") for number in range(TURNS)
                ]
                running = [group.create_task(run(handle), name=handle.id) for handle in handles]
                while sum(w.running for w in (await kfm.server.workers("gpu")).workers) < TURNS:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                asked = time.monotonic()
                assert await asyncio.to_thread(server.stop) == 0, server.log_tail()
                drained = time.monotonic() - asked
                await asyncio.to_thread(server.start)
                gate.open()
                restarted = time.monotonic()
            recovered = time.monotonic() - restarted
        turns = [task.result() for task in running]
    finally:
        if worker is not None:
            worker.kill()
        code = await asyncio.to_thread(server.stop)
    assert code == 0, server.log_tail()
    assert [(t.state, t.outcome, t.error) for t in turns if t.outcome != Outcome.SUCCEEDED] == []
    assert {len(step.attempts) for turn in turns for step in turn.steps} == {1}
    postgres = await embedded.start(server.home)
    try:
        assert set(await audit(postgres.dsn, ledger, seen)) == {h.id for h in handles}
    finally:
        await postgres.stop()
    report(drain_s=round(drained, 2), recovery_s=round(recovered, 2))
