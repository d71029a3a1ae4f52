"""The loop of a session."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types
from kfm_server.clock import SystemClock
from kfm_server.context import ExecutionContext
from kfm_server.journal.memory import MemoryJournal, MemoryTransaction
from kfm_server.ports.journal import Claim, NoPlace
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.facts import Accepted, Submitted
from kfm_server.runtime.history import decode_event, fold_stored_turn
from kfm_server.runtime.lane_parts import LaneParts
from kfm_server.runtime.session_lane import SessionLane
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.turns.decide.draft import World
from kfm_server.turns.state import Session
from kfm_server.turns.times import US, duration, micros

from tests.support.deciding import REGISTRY


@dataclass
class Owned:
    """Partition 0 under epoch 0."""

    partition: int = 0
    epoch: int = 0

    def may_start(self) -> bool:
        """Always."""
        return True

    def fenced(self) -> None:
        """Nobody takes it."""


def lane_of(
    session: Session,
    owned: Owned,
    journal: MemoryJournal,
    tasks: asyncio.TaskGroup,
    rests: Callable[[], None] = lambda: None,
) -> SessionLane:
    """A lane that works in the group."""
    parts = LaneParts(
        journal=journal,
        runner=StepProcessor(REGISTRY.tools, REGISTRY.catalogue),
        clock=SystemClock(),
        world=World(tools=REGISTRY.catalogue, tools_digest=REGISTRY.digest, schema_release="1.1.0"),
        broadcaster=Broadcaster(),
        spawn=lambda work, name: tasks.create_task(work, name=name),
        late_result=lambda: None,
    )

    async def reload(session_id: str) -> Session:
        raise AssertionError("the engine failed")

    return SessionLane(session, owned, parts, lambda lane: rests(), lambda session, error: None, reload)


async def submit(lane: SessionLane, tool: str, max_attempts: int = 3) -> Accepted:
    """Hand in a turn of one step, turn_1, and wait until it is accepted."""
    plan = {"plan": {"steps": [{"key": "s1", "kind": "tool", "tool": tool}]}}
    message = ev.TurnEvent(
        input=[types.Part(data_json=json.dumps(plan))],
        timeout=duration(3600 * US),
        limits=types.Limits(
            max_steps=10, max_attempts=max_attempts, max_in_flight=16, step_timeout=duration(30 * US)
        ),
    )
    reply: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
    claim = Claim("default", "someone", "SubmitTurn", "k1", b"", b"")
    lane.post(Submitted(ExecutionContext(session_id="ses_1"), "turn_1", message, claim, reply=reply))
    return await reply


@pytest.mark.requirement("R8")
async def test_no_event_of_a_session_is_earlier_than_those_it_was_folded_from() -> None:
    journal, ahead_us = MemoryJournal(), SystemClock().now_us() + 3600 * US
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        lane = lane_of(Session("ses_1", recorded_us=ahead_us), Owned(), journal, tasks)
        await submit(lane, "ledger_pure")
        lane.close()
    times = [decode_event(e.envelope)[0].timestamp for e in await journal.read_turn("turn_1", 0, 100)]
    assert times and {micros(time) for time in times} == {ahead_us}


class Crowded(MemoryJournal):
    """A journal that has no place for the first two transactions."""

    refused = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[MemoryTransaction]:
        """As the port says."""
        if self.refused < 2:
            self.refused += 1
            raise NoPlace
        async with super().transaction() as transaction:
            yield transaction


@pytest.mark.requirement("R8", "FT16")
async def test_a_transactional_step_that_gets_no_place_has_not_started_and_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGER_FILE", str(tmp_path / "ledger"))
    journal, rested = Crowded(), asyncio.Event()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        lane = lane_of(Session("ses_1"), Owned(), journal, tasks, rested.set)
        await submit(lane, "ledger_transactional", max_attempts=1)
        await rested.wait()
        lane.close()
    turn = await fold_stored_turn(journal, await journal.read_turn("turn_1", 0, 100))
    assert turn is not None
    step = turn.steps["s1"]
    assert (step.attempt, step.tries, step.reruns) == (3, 1, 0)
    ends = [attempt.error.reason for attempt in step.history if attempt.error is not None]
    assert ends == [
        "REASON_FENCED",
        "REASON_FENCED",
        "REASON_TOOL_FAILED",
    ]  # in memory the tool has no connection
