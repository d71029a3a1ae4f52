"""FT1: kill -9 with sixteen turns in flight, at a failpoint, a passage and a mix of contracts drawn from a seed.

Replay one: `KFM_TEST_SEED=7 python -m pytest tests/faults/test_killed_under_load.py`; some: `KFM_TEST_SEED=1-50`.
"""

import asyncio
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kfm_server.journal import embedded
from kfm_server.turns.state import Phase, StepPhase, Turn
from xenocomm import Client
from xenocomm._gen.types import Outcome

from tests.faults.auditor import audit
from tests.faults.conftest import Report
from tests.faults.footprint import footprint, settled
from tests.faults.test_failpoints import AT_START, ELSEWHERE, OF_OTHERS, declared
from tests.faults.work import Watched, follow, ledger_server, mixed, seeds, side_by_side

IN_FLIGHT = 16
RARE = ("lease.", "leases.", "bus.")
"""Points that are passed about once a second, however great the load."""


def drawn(draw: random.Random) -> str:
    """A failpoint and the passage that kills, as KFM_FAILPOINTS takes it."""
    name = draw.choice([p for p in declared() if p not in ELSEWHERE and not p.startswith(OF_OTHERS)])
    most = 1 if name in AT_START else 3 if name.startswith(RARE) else 40
    return f"{name}:{draw.randint(1, most)}"


@dataclass
class Load:
    """Sixteen turns in flight until `enough`; each turn's plan is drawn from the seed and its number."""

    kfm: Client
    seed: int
    watched: list[Watched] = field(default_factory=list[Watched])
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    """Enough turns have ended for the others to stand anywhere."""

    async def run(self) -> None:
        """Until every turn has ended or needs a review."""
        await side_by_side(IN_FLIGHT, self._client)

    async def _client(self, _: int) -> None:
        while True:
            number = len(self.watched)
            watched = Watched()
            self.watched.append(watched)
            message, _ = mixed(random.Random(f"{self.seed}:{number}"), number)
            await follow(self.kfm, f"k{number}", message, watched, 30.0)
            if sum(w.settled.is_set() for w in self.watched) > 3 * IN_FLIGHT:
                self.flowing.set()
            if self.enough.is_set():
                return


@pytest.mark.requirement("R8", "R4", "FT1", "I1", "I2", "I3", "I4", "I5", "I6", "I7", "I9")
@pytest.mark.parametrize("seed", seeds(20, 1, full=200))
async def test_sixteen_turns_of_every_contract_survive_a_kill(
    seed: int, tmp_path: Path, report: Report
) -> None:
    draw = random.Random(seed)
    failpoint = drawn(draw)
    print(f"seed {seed}: {failpoint}")
    report(seed=seed, failpoint=failpoint)
    ledger = tmp_path / "ledger.jsonl"
    server = ledger_server(tmp_path / "home", ledger)
    at_start = failpoint.startswith(AT_START)
    await asyncio.to_thread(server.start)
    kfm = Client(server.grpc, timeout=30.0)
    try:
        warming = Load(kfm, seed)
        warming.enough.set()
        await warming.run()  # what a server holds that has worked and now rests
        warm = await asyncio.to_thread(footprint, server)
        load = Load(kfm, seed, warming.watched)
        if not at_start:
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start, failpoint=failpoint)
        async with asyncio.TaskGroup() as drill:
            drill.create_task(load.run(), name="load")
            if at_start:  # it dies again while it recovers
                await load.flowing.wait()
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start, failpoint=failpoint)
            assert await asyncio.to_thread(server.await_death, 15.0), f"{failpoint} was never hit"
            load.enough.set()
            in_flight = sum(not w.settled.is_set() for w in load.watched)
            killed = time.monotonic()
            await asyncio.to_thread(server.start)
            restarted = time.monotonic()
        report(in_flight=in_flight, restart_s=round(restarted - killed, 2))
        report(recovery_s=round(time.monotonic() - restarted, 2))
        waiting = sum(not w.ended for w in load.watched)
        await settled(server, warm, waiting)
    finally:
        await kfm.close()
        code = await asyncio.to_thread(server.stop)
    assert code == 0, server.log_tail()
    postgres = await embedded.start(server.home)
    try:
        turns = await audit(postgres.dsn, ledger, {w.turn_id: w.sequences for w in load.watched})
    finally:
        await postgres.stop()
    assert set(turns) == {w.turn_id for w in load.watched}, "a key started more than one turn"
    for turn in turns.values():
        check_ended(turn)
    report(turns=len(turns), needs_review=waiting)


def check_ended(turn: Turn) -> None:
    """I1: it succeeded, or it waits for a verdict on a step that may not run twice."""
    if turn.phase == Phase.TURN_STATE_FINISHED:
        assert turn.outcome == Outcome.SUCCEEDED, turn
        return
    review = [s.definition.tool for s in turn.steps.values() if s.phase == StepPhase.STEP_STATE_NEEDS_REVIEW]
    assert review and set(review) == {"ledger_once"}, turn
