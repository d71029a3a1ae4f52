"""kill -9 at every failpoint that the code declares, during a turn with a step of every effect contract."""

import asyncio
import importlib
import os
import pkgutil
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import kfm_server
import pytest
from kfm_server import failpoints
from kfm_server.journal import embedded
from xenocomm._gen.types import Outcome, StepState, TurnState

from tests.faults.auditor import audit
from tests.faults.work import FIVE_TOOLS, Watched, plan, run_and_watch
from tests.support.ledger import read_ledger
from tests.support.live import LiveServer

RECOVERY_SECONDS = 5.0


def declared() -> list[str]:
    """Every failpoint of the code: importing all of it declares them."""
    for module in pkgutil.walk_packages(kfm_server.__path__, "kfm_server."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return sorted(failpoints.POINTS)


MODEL_POINTS = ("model.call.before", "model.delta.first", "model.call.after")
"""Points of a turn that a model plans: test_model_failpoints.py hits them."""
ELSEWHERE = frozenset({"inbox.post.after", *MODEL_POINTS})
"""Points that this turn on one server does not pass; the first is hit by test_takeover.py."""
OF_OTHERS = ("pool.", "worker.", "relay.")
"""Points of steps that workers perform, and of what is published: this turn has no workers, and no broker."""
AT_START = ("process.ready", "leases.acquire.before", "leases.acquire.after")
_OFTEN = ("journal.append.", "journal.commit.", "lane.", "leases.renew.", "tool.")


_Case = TypeVar("_Case")


def sampled(points: list[_Case]) -> list[_Case]:
    """All of them; a seeded sample of KFM_TEST_FAULT_SAMPLE, as CI takes it."""
    sample = int(os.environ.get("KFM_TEST_FAULT_SAMPLE", "0"))
    if not sample:
        return points
    seed = int(os.environ.get("KFM_TEST_SEED", "1"))
    print(f"fault sample: seed {seed}")
    return random.Random(seed).sample(points, sample)


def cases() -> list[str]:
    """`name:nth` for each point."""
    names = [name for name in declared() if name not in ELSEWHERE and not name.startswith(OF_OTHERS)]
    points = [f"{name}:1" for name in names] + [f"{name}:3" for name in names if name.startswith(_OFTEN)]
    return sampled(points)


@pytest.mark.requirement("R8", "R4")
@pytest.mark.parametrize("failpoint", cases())
async def test_a_turn_survives_a_kill_at_every_failpoint(failpoint: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    environment = {"LEDGER_FILE": str(ledger)}
    server = LiveServer(tmp_path / "home", tools="tests.support.ledger:TOOLS", environment=environment)
    await asyncio.to_thread(server.start)  # initialises the database and takes fixed ports
    await asyncio.to_thread(server.kill)
    watched = Watched()
    died_at = datetime.now(UTC)
    try:
        await asyncio.to_thread(server.start, failpoint=failpoint)
        if failpoint.startswith(AT_START):
            assert await asyncio.to_thread(server.await_death, 15.0), f"{failpoint} was never hit"
            await asyncio.to_thread(server.start)
        watching = asyncio.create_task(
            run_and_watch(server.grpc, "one-turn", plan(*FIVE_TOOLS), watched), name="watcher"
        )
        if not failpoint.startswith(AT_START):
            died = await asyncio.to_thread(server.await_death, 15.0)
            assert died, f"{failpoint} was never hit: {watched.sequences}\n{server.log_tail()}"
            died_at = datetime.now(UTC)
            await asyncio.to_thread(server.start)
        restarted = time.monotonic()
        turn = await watching
        took = time.monotonic() - restarted
        assert took < RECOVERY_SECONDS, f"it took {took:.1f} s after the restart"
    finally:
        code = await asyncio.to_thread(server.stop)
    assert code == 0, server.log_tail()
    postgres = await embedded.start(server.home)
    try:
        turns = await audit(postgres.dsn, ledger, {watched.turn_id: watched.sequences})
    finally:
        await postgres.stop()
    assert list(turns) == [watched.turn_id], "the same key started more than one turn"
    if turn.state == TurnState.FINISHED:
        assert turn.outcome == Outcome.SUCCEEDED, turn.error
        keys = {call["tool"] for call in read_ledger(ledger)}
        assert keys.issuperset(FIVE_TOOLS)
    else:
        [step] = [s for s in turn.steps if s.state == StepState.NEEDS_REVIEW]
        assert step.definition is not None and step.definition.tool == "ledger_once", turn
        [attempt] = step.attempts
        assert attempt.dispatched_at is not None and attempt.dispatched_at <= died_at, "nothing killed it"
